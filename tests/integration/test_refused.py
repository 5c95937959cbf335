"""Records that the server refuses are found, rejected and kept; the rest goes in."""

import json
import os
import random

import pytest

from harca.readers.harca import record_key
from tests.stores import record, write_record, write_store

pytestmark = pytest.mark.one_server


OLD, NEW = "2025-01-01T00:00:00.000Z", "2025-06-01T00:00:00.000Z"


def trigger(then, *, word="bad", when="BEFORE INSERT OR UPDATE ON vector_embeddings"):
    """Return the statements that make a trigger act on a text with *word*."""
    name = f"on_{word}"
    kind = "CONSTRAINT TRIGGER" if "DEFERRABLE" in when else "TRIGGER"
    return (
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"IF NEW.content LIKE '{word}%' THEN {then}; END IF; RETURN NEW; END $$; "
        f"CREATE {kind} {name} {when} FOR EACH ROW EXECUTE FUNCTION {name}()"
    )


# What an operator may have added to the table, and what is noted of a record against it.
RULES = {
    "check": (
        "ALTER TABLE vector_embeddings ADD CONSTRAINT no_bad CHECK (content NOT LIKE 'check%')",
        '23514: new row for relation "vector_embeddings" violates check constraint "no_bad"',
    ),
    "null": (
        "ALTER TABLE vector_embeddings ADD COLUMN team text NOT NULL GENERATED ALWAYS AS "
        "(CASE WHEN content NOT LIKE 'null%' THEN 'ours' END) STORED",
        '23502: null value in column "team" of relation "vector_embeddings" violates not-null '
        "constraint",
    ),
    "number": (
        "ALTER TABLE vector_embeddings ADD COLUMN n int GENERATED ALWAYS AS "
        "(CASE WHEN content LIKE 'number%' THEN content::int END) STORED",
        '22P02: invalid input syntax for type integer: "number"',
    ),
    "domain": (
        "CREATE DOMAIN short AS text CHECK (value NOT LIKE 'domain%'); "
        "ALTER TABLE vector_embeddings ADD COLUMN s short GENERATED ALWAYS AS (content) STORED",
        '23514: value for domain short violates check constraint "short_check"',
    ),
    "raised": (
        trigger("RAISE 'not %, please', NEW.content", word="raised"),
        "P0001: not raised, please",
    ),
    "coded": (
        trigger("RAISE 'no' USING ERRCODE = 'HQ042'", word="coded"),
        "HQ042: no",
    ),
    "skipped": (
        trigger("RETURN NULL", word="skipped"),
        "COPY took 0 of 1 rows for vector_embeddings: a trigger left them out",
    ),
    "late": (
        trigger(
            "RAISE 'late'",
            word="late",
            when="AFTER INSERT OR UPDATE ON vector_embeddings DEFERRABLE INITIALLY DEFERRED",
        ),
        "P0001: late",
    ),
}

NO_BAD = "ALTER TABLE vector_embeddings ADD CONSTRAINT no_bad CHECK (content NOT LIKE 'bad%')"


def listed(run_unbacked, database):
    return run_unbacked("rejections", "list", "--json", database=database).json["rejections"]


def contents(conn):
    return {text for (text,) in conn.execute("SELECT content FROM vector_embeddings")}


def test_what_is_against_a_rule_is_rejected_and_the_rest_goes_in(
    tmp_path, database, conn, run_unbacked
):
    for rule, _ in RULES.values():
        conn.execute(rule)
    store = write_store(tmp_path / "store", 20)
    paths = {
        word: write_record(store / "a", record(word, [0.5, 1e-7, -3.0], metadata={"n": 1e23}))
        for word in RULES
    }

    done = run_unbacked("migrate", store, "--json", "--batch-rows", "12", database=database)

    assert done.code == 3, done.err
    counts = {name: done.json[name] for name in ("read", "loaded", "rejected", "verified")}
    assert counts == {"read": 28, "loaded": 20, "rejected": len(RULES), "verified": True}
    assert done.json["reasons"] == {"refused-by-server": len(RULES)}
    assert not contents(conn) & set(RULES)
    assert {(row["origin"], row["detail"]) for row in listed(run_unbacked, database)} == {
        (f"a/{paths[word].name}", detail) for word, (_, detail) in RULES.items()
    }
    payloads = [
        json.loads(payload) for (payload,) in conn.execute("SELECT payload FROM rejections")
    ]
    assert {line["store_key"]: line["content"] for line in payloads} == {
        record_key("test-model", word): word for word in RULES
    }
    assert all(line["embedding"][0] == 0.5 for line in payloads)
    found = run_unbacked("verify", store, database=database)
    assert found.code == 0, found.err
    assert f"{len(RULES)} records rejected, in no row" in found.out


def test_what_was_refused_can_be_migrated_from_what_is_kept(tmp_path, database, conn, run_unbacked):
    conn.execute(NO_BAD)
    store = write_store(tmp_path / "store", 3)
    for number in range(2):
        value = record(f"bad {number}", [0.1, 1e-30], metadata={"n": [1e23, {"é": None}]})
        write_record(store / "a", value)
    run_unbacked("migrate", store, database=database)
    run_unbacked("rejections", "export", tmp_path / "out", database=database)
    conn.execute("ALTER TABLE vector_embeddings DROP CONSTRAINT no_bad")
    kept = tmp_path / "kept.jsonl"
    payloads = sorted((tmp_path / "out").glob("*.payload"))
    kept.write_bytes(b"".join(path.read_bytes() + b"\n" for path in payloads))

    from_kept = run_unbacked("migrate", kept, "--name", "kept", "--json", database=database)
    whole = run_unbacked("migrate", store, database=database)

    assert (from_kept.code, from_kept.json["loaded"], whole.code) == (0, 2, 0), from_kept.err
    twice = conn.execute(
        "SELECT count(*), count(DISTINCT (store_key, content, embedding::text, metadata::text, "
        "model_id, created_at)) FROM vector_embeddings WHERE content LIKE 'bad%'"
    ).fetchone()
    assert twice == (4, 2)


@pytest.mark.parametrize(
    "bad",
    [{0}, {19}, {3, 4, 11}, set(range(20))],
    ids=["first", "last", "some", "all"],
)
def test_each_of_several_is_found(bad, tmp_path, database, conn, run_unbacked):
    conn.execute(NO_BAD)
    for number in range(20):
        write_record(
            tmp_path / "store", record(f"{'bad' if number in bad else 'good'} {number}", [1.0, 2.0])
        )

    done = run_unbacked("migrate", tmp_path / "store", "--json", database=database)

    assert done.code == 3, done.err
    assert (done.json["loaded"], done.json["rejected"]) == (20 - len(bad), len(bad))
    assert len(contents(conn)) == 20 - len(bad)
    assert done.json["verified"] is (len(bad) < 20)


@pytest.mark.parametrize("refused", ["by the server", "as they are no records"])
def test_a_load_of_which_nothing_is_in_is_no_success(
    refused, tmp_path, database, conn, run_unbacked
):
    conn.execute(NO_BAD)
    vector = [1.0] if refused == "by the server" else [None]
    for number in range(3):
        write_record(tmp_path / "store", record(f"bad {number}", vector))

    done = run_unbacked("migrate", tmp_path / "store", "--max-rejects", "3", database=database)
    verified = run_unbacked("verify", tmp_path / "store", database=database)

    assert (done.code, verified.code) == (3, 3)
    assert "read 3 = 0 loaded + 0 unchanged + 0 superseded + 3 rejected" in done.out
    assert "records that are not rejected: expected 1 or more, found 0" in verified.out


def test_what_was_refused_goes_in_when_the_rule_is_gone(tmp_path, database, conn, run_unbacked):
    conn.execute(NO_BAD)
    store = write_store(tmp_path / "store", 5)
    write_record(store, record("bad", [1.0, 2.0]))
    run_unbacked("migrate", store, database=database)
    conn.execute("ALTER TABLE vector_embeddings DROP CONSTRAINT no_bad")

    done = run_unbacked("migrate", store, "--json", database=database)

    assert done.code == 0, done.err
    assert (done.json["loaded"], done.json["unchanged"], done.json["rejected"]) == (1, 5, 0)


def write_lines(path, *lines):
    """Write records of a key, a text and a date: JSONL, of which ``KEYED`` names the fields."""
    names = ("id", "text", "created_at")
    values = [dict(zip(names, line, strict=True), embedding=[1.0, 2.0]) for line in lines]
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


KEYED = ("--id-field", "id", "--created-field", "created_at", "--json")


def test_a_row_stays_when_its_new_contents_are_refused(tmp_path, database, conn, run_unbacked):
    for rule in ("check", "skipped", "late"):
        conn.execute(RULES[rule][0])
    others = [(f"k{number}", "other", OLD) for number in range(5)]
    store = write_lines(
        tmp_path / "store.jsonl", *others, *((key, "good", OLD) for key in ("a", "b", "c"))
    )
    run_unbacked("migrate", store, *KEYED, database=database)
    before = conn.execute("SELECT v::text FROM vector_embeddings v ORDER BY id").fetchall()
    write_lines(store, *others, ("a", "check", NEW), ("b", "skipped", NEW), ("c", "late", NEW))

    done = run_unbacked("migrate", store, *KEYED, database=database)
    again = run_unbacked("migrate", store, *KEYED[:-1], database=database)

    assert done.code == 3, done.err
    assert (done.json["loaded"], done.json["rejected"], done.json["outlived"]) == (0, 3, 3)
    assert done.json["verified"] is True
    assert conn.execute("SELECT v::text FROM vector_embeddings v ORDER BY id").fetchall() == before
    assert again.code == 3, again.err
    assert "3 rows of earlier runs stay, as the server refused their new contents" in again.out
    assert run_unbacked("verify", store, database=database).code == 0
    conn.execute("UPDATE vector_embeddings SET embedding = '[9]' WHERE store_key = 'a'")
    found = run_unbacked("verify", store, database=database)
    assert found.code == 3, found.err
    assert "rows kept from earlier runs" in found.out


@pytest.mark.parametrize("rows", ["1", "3", "100"])
def test_what_would_have_lost_against_a_refused_record_goes_in(
    rows, tmp_path, database, conn, run_unbacked
):
    conn.execute(NO_BAD)
    store = write_lines(
        tmp_path / "store.jsonl", ("c", "before", "2024-01-01"), ("d", "before", "2024-01-01")
    )
    run_unbacked("migrate", store, *KEYED, database=database)
    older = [(key, f"older {key}", OLD) for key in "abcd"]
    newer = [(key, "bad", NEW) for key in "abcd"]
    write_lines(store, older[0], newer[0], newer[1], older[1], older[2], *newer[2:], older[3])

    done = run_unbacked("migrate", store, *KEYED, "--batch-rows", rows, database=database)

    assert done.code == 3, done.err
    assert done.json["verified"] is True
    assert (done.json["rejected"], done.json["superseded"], done.json["outlived"]) == (4, 0, 0)
    assert contents(conn) == {text for _, text, _ in older}
    assert run_unbacked("verify", store, database=database).code == 0


def test_a_record_that_lost_and_is_refused_is_rejected(tmp_path, database, conn, run_unbacked):
    conn.execute("ALTER TABLE superseded ADD CHECK (content NOT LIKE '%bad%')")
    store = write_lines(
        tmp_path / "store.jsonl", ("k", "bad", OLD), ("k", "good", NEW), ("l", "good", NEW)
    )

    done = run_unbacked("migrate", store, *KEYED, database=database)

    assert done.code == 3, done.err
    assert (done.json["loaded"], done.json["superseded"], done.json["rejected"]) == (2, 0, 1)
    assert done.json["verified"] is True


def test_a_row_that_could_not_be_kept_is_not_replaced(tmp_path, database, conn, run_unbacked):
    store = write_lines(tmp_path / "store.jsonl", ("k", "bad", OLD), ("l", "good", NEW))
    run_unbacked("migrate", store, *KEYED, database=database)
    conn.execute("ALTER TABLE superseded ADD CHECK (content NOT LIKE '%bad%')")
    write_lines(store, ("k", "better", NEW), ("l", "good", NEW))

    done = run_unbacked("migrate", store, *KEYED, database=database)

    assert done.code == 3, done.err
    assert (done.json["unchanged"], done.json["rejected"], done.json["outlived"]) == (1, 1, 1)
    assert done.json["verified"] is True
    assert contents(conn) == {"bad", "good"}


def test_of_two_records_that_exclude_each_other_one_goes_in(tmp_path, database, conn, run_unbacked):
    conn.execute("CREATE UNIQUE INDEX ON vector_embeddings (content)")
    store = write_lines(
        tmp_path / "store.jsonl",
        *((f"k{number}", f"text {number % 4}", OLD) for number in range(9)),
    )

    done = run_unbacked("migrate", store, *KEYED, database=database)

    assert done.code == 3, done.err
    assert (done.json["loaded"], done.json["rejected"]) == (4, 5)
    assert done.json["verified"] is True
    assert {row["detail"] for row in listed(run_unbacked, database)} == {
        '23505: duplicate key value violates unique constraint "vector_embeddings_content_idx"'
    }


def test_contents_that_are_exchanged_go_in_one_after_the_other(
    tmp_path, database, conn, run_unbacked
):
    conn.execute("CREATE UNIQUE INDEX ON vector_embeddings (content)")
    store = write_lines(tmp_path / "store.jsonl", *((key, key, OLD) for key in "abcd"))
    run_unbacked("migrate", store, *KEYED, database=database)
    # Each takes what the next one has: possible from the end on only.
    write_lines(store, *((key, chr(ord(key) + 1), NEW) for key in "dcba"))

    done = run_unbacked("migrate", store, *KEYED, database=database)

    assert done.code == 0, done.err
    assert done.json["loaded"] == 4


@pytest.mark.parametrize(
    ("columns", "field"), [("metadata", "note"), ("content", "text"), ("store_key, content", "id")]
)
def test_what_no_index_entry_can_hold_is_rejected(
    columns, field, tmp_path, database, conn, run_unbacked
):
    conn.execute(f"CREATE INDEX ON vector_embeddings ({columns})")
    dice = random.Random(1)  # what repeats would be compressed
    long = "".join(
        dice.choices("0123456789abcdefghijklmnopqrstuvwxyz", k=1_900 if field == "id" else 5_000)
    )
    bad = {"id": "bad", "text": long, "embedding": [1.0], field: long}
    store = tmp_path / "store.jsonl"
    good = {"id": "good", "text": "short", "embedding": [1.0]}
    store.write_text("".join(json.dumps(value) + "\n" for value in (good, bad)))

    done = run_unbacked("migrate", store, "--id-field", "id", "--json", database=database)

    assert done.code == 3, done.err
    assert done.json["verified"] is True
    assert (done.json["loaded"], done.json["reasons"]) == (1, {"refused-by-server": 1})
    assert listed(run_unbacked, database)[0]["detail"].startswith("54000: index row size")


def test_refusals_count_against_max_rejects(tmp_path, database, conn, run_unbacked):
    conn.execute(NO_BAD)
    store = write_lines(
        tmp_path / "store.jsonl",
        *((f"k{number}", "bad" if number in (2, 5) else "good", OLD) for number in range(50)),
    )

    few = run_unbacked(
        "migrate", store, *KEYED, "--max-rejects", "1", "--batch-rows", "5", database=database
    )
    enough = run_unbacked("migrate", store, *KEYED, "--max-rejects", "2", database=database)

    assert few.code == 1, few.out
    assert (
        "2 records rejected, 1 allowed; the last one: store.jsonl:6: refused-by-server" in few.err
    )
    assert enough.code == 0, enough.err
    assert enough.json["rejected"] == 2
    assert len(listed(run_unbacked, database)) == 2


def test_what_an_earlier_attempt_was_refused_is_forgotten_once_it_is_in(
    tmp_path, database, conn, run_unbacked
):
    conn.execute(NO_BAD)
    store = write_lines(
        tmp_path / "store.jsonl", ("a", "bad", OLD), ("b", "bad", OLD), ("c", "good", OLD)
    )
    run_unbacked("migrate", store, *KEYED, "--max-rejects", "0", database=database)
    conn.execute("ALTER TABLE vector_embeddings DROP CONSTRAINT no_bad")
    write_lines(store, ("a", "bad", OLD), ("c", "good", OLD))

    done = run_unbacked("migrate", store, *KEYED, database=database)

    assert done.code == 0, done.err
    assert done.json["resumed"] is True
    (left,) = conn.execute("SELECT convert_from(payload, 'UTF8') FROM rejections").fetchall()
    assert json.loads(left[0])["store_key"] == "b"  # the only copy


def test_a_difference_is_told_from_what_was_refused(tmp_path, database, conn, run_unbacked):
    conn.execute(NO_BAD)
    # Enough for each of the fingerprint's parts to have some of both.
    store = write_lines(
        tmp_path / "store.jsonl",
        *(
            (f"k{number}", f"{'bad' if number % 2 else 'good'} {number}", OLD)
            for number in range(300)
        ),
    )
    run_unbacked("migrate", store, *KEYED, database=database)
    conn.execute("DELETE FROM vector_embeddings WHERE store_key = 'k10'")
    conn.execute("UPDATE vector_embeddings SET content = 'x' WHERE store_key = 'k20'")
    conn.execute("DELETE FROM rejections WHERE convert_from(payload, 'UTF8') LIKE '%\"k31\"%'")
    conn.execute(
        "UPDATE rejections SET payload = 'no JSON' "
        "WHERE convert_from(payload, 'UTF8') LIKE '%\"k41\"%'"
    )

    found = run_unbacked("verify", store, "--json", database=database)

    assert found.code == 3, found.err
    assert {one["store_key"]: one["difference"] for one in found.json["mismatches"]} == {
        "k10": "missing", "k20": "content", "k31": "missing", "k41": "missing",
    }  # fmt: skip


def test_trouble_with_everything_rejects_nothing(tmp_path, database, conn, run_unbacked):
    store = write_lines(tmp_path / "store.jsonl", ("a", "good", OLD), ("b", "bad", OLD))
    troubles = (
        "RAISE 'a right is missing' USING ERRCODE = '42501'",
        "RAISE 'the disk is full' USING ERRCODE = '53100'",
        "RAISE 'the disk is broken' USING ERRCODE = '58030'",
        "SELECT no_such_column FROM load_runs",
    )
    for trouble in troubles:
        conn.execute("DROP FUNCTION IF EXISTS on_bad CASCADE")
        conn.execute(trigger(trouble))

        done = run_unbacked("migrate", store, *KEYED, database=database)

        assert done.code == 1, done.out
        assert "PostgreSQL: " in done.err
        assert contents(conn) == set()
        assert listed(run_unbacked, database) == []
    conn.execute("DROP FUNCTION on_bad CASCADE")
    again = run_unbacked("migrate", store, *KEYED, database=database)
    assert again.code == 0, again.err
    assert again.json["resumed"] is True


def test_a_list_of_rejections_that_takes_nothing_stops_the_load(
    tmp_path, database, conn, run_unbacked
):
    conn.execute(NO_BAD)
    conn.execute("ALTER TABLE rejections ADD CHECK (reason <> 'refused-by-server')")
    store = write_lines(tmp_path / "store.jsonl", ("a", "good", OLD), ("b", "bad", OLD))

    done = run_unbacked("migrate", store, *KEYED, database=database)

    assert done.code == 1, done.out
    assert 'new row for relation "rejections"' in done.err
    assert contents(conn) == set()


def test_a_data_revision_is_not_stamped_over_refusals(tmp_path, database, conn, run_alembic):
    conn.execute(NO_BAD)
    store = write_store(tmp_path / "store", 3)
    write_record(store, record("bad", [1.0, 2.0]))
    load = ("-n", "data", "-x", f"store={store}")

    failed = run_alembic(*load, "upgrade", "head", database=database)
    accepted = run_alembic(*load, "-x", "max_rejects=1", "upgrade", "head", database=database)

    assert failed.code == 255
    assert "1 record rejected: 1 refused-by-server" in failed.err
    assert accepted.code == 0, accepted.err


def test_odd_characters_in_what_is_refused_are_kept(tmp_path, database, conn, run_unbacked):
    conn.execute(trigger("RAISE 'not %, please', NEW.content"))
    folder = tmp_path / os.fsdecode(b"st\xffore")
    text = "bad \u0001 \u2028 \U0001f600 \ufffe \\u0000"
    write_record(
        folder / os.fsdecode(b"a\xfe\x01"), record(text, [1.0, 2.0], metadata={text: text})
    )
    write_record(folder, record("bad \0", [1.0]))
    write_record(folder, record("bad \ud800", [1.0]))
    write_record(folder, record("good", [1.0]))

    done = run_unbacked("migrate", folder, "--json", "--name", "odd", database=database)

    assert done.code == 3, done.err
    assert done.json["verified"] is True
    assert done.json["reasons"] == {
        "refused-by-server": 1, "nul-in-text": 1, "lone-surrogate": 1,
    }  # fmt: skip
    (one,) = (row for row in listed(run_unbacked, database) if row["reason"] == "refused-by-server")
    assert one["detail"] == f"P0001: not {text}, please"
    assert run_unbacked("verify", folder, "--name", "odd", database=database).code == 0
