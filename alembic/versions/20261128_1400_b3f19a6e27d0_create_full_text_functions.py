"""create the functions of full text search

harca_folded makes texts alike that differ in case or form only; harca_lexemes cuts one into
words, and into characters and pairs of characters where a script has no spaces; harca_tsvector
and harca_tsquery make of these what PostgreSQL searches by. An index on harca_tsvector(content)
is built on demand, by `harca index build --full-text`.

They are used in that index: what they return for a text must never change. Names are looked
up in pg_catalog alone, or when a function is made (BEGIN ATOMIC), so that an empty search_path
does, as autovacuum and the restore of a dump have it. They raise no error for any text that the
server can hold, unless the database is not in UTF8. Errors are avoided, not caught: before
PostgreSQL 17 nothing can be caught in a parallel worker.

Phase: expand.
Locks: none; the objects are new.
Reverse: drops the functions and the index upon them, if there is one, which locks
    vector_embeddings ACCESS EXCLUSIVE, briefly; no row changes. Build the index again after the
    next upgrade.

Revision ID: b3f19a6e27d0
Revises: 7c15d08e42b6
Create Date: 2026-11-28 14:00:00+00:00
"""

from alembic import op

revision = "b3f19a6e27d0"
down_revision = "7c15d08e42b6"
branch_labels = None
depends_on = None

INDEX = "vector_embeddings_full_text_idx"

# Ranges of Unicode. Not the regular expressions' own classes: those depend on the locale.
# No spaces between words: Thai to Lao, Myanmar, Khmer, kana, bopomofo, Han, Yi; and Hangul, whose
# words carry their particles with them.
UNSPACED = (
    r"\u0e00-\u0eff\u1000-\u109f\u1100-\u11ff\u1780-\u17ff\u3005-\u3007\u3021-\u3029"
    r"\u3041-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3105-\u318f\u31a0-\u31bf\u31f0-\u31ff"
    r"\u3400-\u4dbf\u4e00-\ua4cf\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff"
)
# Each a word of its own: currencies, arrows, mathematical and other signs, emoji.
SYMBOLS = r"\u20a0-\u20cf\u2190-\u2bff\U0001f000-\U0001faff"
# Spaces, control characters and punctuation.
BETWEEN = (
    r"\u0001-\u002f\u003a-\u0040\u005b-\u0060\u007b-\u00bf\u00d7\u00f7\u055a-\u055f\u0589\u058a"
    r"\u05be\u05c0\u05c3\u05f3\u05f4\u060c\u061b\u061f\u066a-\u066d\u06d4\u0964\u0965\u1360-\u1368"
    r"\u2000-\u206f\u3000-\u3004\u3008-\u3020\u3030\u303d-\u303f\u30a0\u30fb\ufe10-\ufe6f"
    r"\ufff9-\uffff"
)
# Within a word they mean nothing: soft hyphens, joiners, variation selectors, skin tones.
IGNORED = r"\u00ad\u200b-\u200d\u2060\ufe00-\ufe0f\ufeff\U0001f3fb-\U0001f3ff\U000e0100-\U000e01ef"

# Of a longer text the first 100,000 characters count: an index on a text of megabytes must not
# hold up who writes it for seconds. NFKC can make one character eighteen.
FOLDED = rf"""
    CREATE FUNCTION harca_folded(document text) RETURNS text
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE COST 100
    BEGIN ATOMIC
        SELECT regexp_replace(
            lower(left(normalize(left(document, 100000), NFKC), 100000) COLLATE "default"),
            $re$[{IGNORED}]$re$,
            '',
            'g'
        );
    END
"""

# Of a longer word the first 255 characters count, as a lexeme can have 2,046 bytes. What is asked
# for are 64 different lexemes, no more.
LEXEMES = rf"""
    CREATE FUNCTION harca_lexemes(folded text, asked boolean) RETURNS text[]
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE COST 1000 AS $function$
    DECLARE
        run text COLLATE "C";
        letter text;
        letter_before text;
        letters text[];
        lexemes text[] := ARRAY[]::text[];
    BEGIN
        <<runs>>
        FOR run IN
            SELECT parts[1] FROM regexp_matches(
                folded COLLATE "C",
                $re$[{UNSPACED}]+|[{SYMBOLS}]|[^{UNSPACED}{SYMBOLS}{BETWEEN}]+$re$,
                'g'
            ) AS matched (parts)
        LOOP
            IF run !~ $re$^[{UNSPACED}]$re$ THEN
                IF NOT asked OR left(run, 255) <> ALL (lexemes) THEN
                    lexemes := lexemes || left(run, 255);
                END IF;
                EXIT runs WHEN asked AND cardinality(lexemes) = 64;
                CONTINUE runs;
            END IF;
            letter_before := NULL;
            letters := string_to_array(run, NULL);
            FOREACH letter IN ARRAY letters LOOP
                IF letter_before IS NOT NULL
                    AND (NOT asked OR letter_before || letter <> ALL (lexemes))
                THEN
                    lexemes := lexemes || (letter_before || letter);
                END IF;
                -- A text is found by each of its characters, but a query of several is pairs.
                IF NOT asked OR (cardinality(letters) = 1 AND letter <> ALL (lexemes)) THEN
                    lexemes := lexemes || letter;
                END IF;
                letter_before := letter;
                EXIT runs WHEN asked AND cardinality(lexemes) = 64;
            END LOOP;
        END LOOP;
        RETURN lexemes;
    END
    $function$
"""  # noqa: S608  # with ranges that stand above

# The lexemes of a tsvector take 1 MB at most. If those of a text could take more, those are left
# out that come first where there is no room any more. Without positions: they would double the
# time, and an index does not keep them. It is dear: even of two rows it is better to ask the index.
VECTOR = """
    CREATE FUNCTION harca_tsvector(document text) RETURNS tsvector
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE COST 10000
    BEGIN ATOMIC
        SELECT CASE
            WHEN octet_length(array_to_string(lexemes, '')) <= 1000000
            THEN array_to_tsvector(lexemes)
            ELSE (
                SELECT array_to_tsvector(array_agg(lexeme)) FROM (
                    SELECT
                        lexeme,
                        sum(octet_length(lexeme)) OVER (ORDER BY min(place), lexeme) AS bytes
                    FROM unnest(lexemes) WITH ORDINALITY AS l (lexeme, place)
                    GROUP BY lexeme
                ) AS different
                WHERE bytes <= 1000000
            )
        END
        FROM harca_lexemes(harca_folded(document), false) AS lexemes;
    END
"""

# No lexeme has a quote or a backslash in it: those are between words. NULL if there is none.
QUERY = """
    CREATE FUNCTION harca_tsquery(query text) RETURNS tsquery
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE COST 1000
    BEGIN ATOMIC
        SELECT string_agg('''' || lexeme || '''', ' | ')::tsquery
        FROM unnest(harca_lexemes(harca_folded(query), true)) AS l (lexeme);
    END
"""


def upgrade() -> None:
    """Create the four functions."""
    for statement in (FOLDED, LEXEMES, VECTOR, QUERY):
        op.execute(statement)


def downgrade() -> None:
    """Drop the index, which may be there, and the functions."""
    op.execute(f"DROP INDEX IF EXISTS {INDEX}")
    op.execute("DROP FUNCTION harca_tsquery(text)")
    op.execute("DROP FUNCTION harca_tsvector(text)")
    op.execute("DROP FUNCTION harca_lexemes(text, boolean)")
    op.execute("DROP FUNCTION harca_folded(text)")
