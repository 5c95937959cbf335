-- Rows of a space, with their distance from a query, by how well their content fits a text.
-- The index finds candidates, lexeme by lexeme and by all of them together. These are ranked by
-- Okapi BM25 (Robertson and Zaragoza, 2009) with k1 = 1.2 and b = 0.75; to see how often a content
-- has a lexeme it is looked through as it is, as cutting it up takes ten times as long.
WITH asked AS MATERIALIZED (
    SELECT lexeme, ('''' || lexeme || '''')::tsquery AS sought
    FROM unnest(harca_lexemes(harca_folded(%(text)s), true)) AS lexeme
    UNION ALL
    SELECT '', string_agg('''' || lexeme || '''', ' & ')::tsquery
    FROM unnest(harca_lexemes(harca_folded(%(text)s), true)) AS lexeme
    HAVING count(*) > 1
),
{scanned}found AS MATERIALIZED (
    SELECT asked.lexeme, matching.id, matching.size
    FROM asked CROSS JOIN LATERAL ({matching} LIMIT %(most)s) AS matching
),
weights AS MATERIALIZED (
    SELECT
        lexeme,
        count(*) < %(most)s AS is_rare,
        ln(1 + (greatest(%(rows)s, count(*)) - count(*) + 0.5) / (count(*) + 0.5))::float8
            AS weight
    FROM found
    GROUP BY lexeme
),
candidates AS (
    SELECT id
    FROM found JOIN weights USING (lexeme)
    -- Of a common one not all rows are here: it chooses only where there is no other.
    WHERE is_rare OR NOT EXISTS (SELECT FROM weights WHERE is_rare AND lexeme <> '')
    GROUP BY id, size
    -- Rounded, as the order of addition is not given. Of equals the shorter fits better.
    ORDER BY round(sum(weight)::numeric, 9) DESC, size, id
    LIMIT %(candidates)s
),
documents AS MATERIALIZED (
    SELECT id, folded, length(folded)::float8 AS length
    FROM (
        SELECT e.id, harca_folded(e.content) AS folded
        FROM candidates JOIN vector_embeddings e USING (id)
        OFFSET 0  -- or it would be folded twice
    ) AS once
),
ranked AS MATERIALIZED (
    SELECT
        documents.id,
        round(sum(
            weight * 2.2 * often
            / (often + 1.2 * (0.25 + 0.75 * length / (SELECT avg(length) FROM documents)))
        )::numeric, 9) AS score
    FROM documents
    CROSS JOIN weights
    LEFT JOIN found ON found.id = documents.id AND found.lexeme = weights.lexeme
    CROSS JOIN LATERAL (
        SELECT (length - length(replace(folded, weights.lexeme, ''))) / length(weights.lexeme)
            AS often
    ) AS counted
    WHERE weights.lexeme <> '' AND often > 0
        -- Letters within another word count only beside the word itself.
        AND (found.id IS NOT NULL OR NOT is_rare)
    GROUP BY documents.id
    ORDER BY score DESC, id
    LIMIT %(k)s
)
SELECT
    -- A zero vector has no direction: as if at right angles.
    coalesce(nullif(embedding <=> %(query)b, 'NaN'), 1) AS distance,
    id, store_key, content, metadata, source
FROM ranked JOIN vector_embeddings e USING (id)
ORDER BY score DESC, id
