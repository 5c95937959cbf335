"""Searching: order, filters, spaces, refusals."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from harca.postgres.index_choice import EXACT_BELOW
from harca.postgres.search import find_space, search
from harca.postgres.space_index import capabilities
from tests.conftest import ROOT
from tests.stores import record, write_record

EXAMPLES = ROOT / "examples"


def write_space(folder: Path, vectors: np.ndarray, model: str = "m", prefix: str = "t") -> Path:
    for number, vector in enumerate(vectors):
        value = record(f"{prefix}{number}", vector.tolist(), model=model)
        value["metadata"] = {"parity": number % 2, "tags": ["all"]}
        write_record(folder, value)
    return folder


@pytest.fixture
def examples(database, run_harca):
    done = run_harca("migrate", EXAMPLES / "store", database=database)
    assert done.code == 0, done.err
    return database


@pytest.mark.parametrize(
    ("query", "word"),
    [("database-backup", "restore"), ("bread", "bread"), ("stars", "star")],
)
def test_the_examples_queries_find_their_passages(query, word, examples, run_harca):
    found = run_harca(
        "search", "--vector", EXAMPLES / "queries" / f"{query}.json", "-k", "3", "--json",
        database=examples,
    )  # fmt: skip

    assert found.code == 0, found.err
    assert len(found.json["results"]) == 3
    assert any(word in hit["content"].lower() for hit in found.json["results"])


@pytest.mark.parametrize("rows", [200, EXACT_BELOW], ids=["exact", "index"])
@pytest.mark.parametrize("filtered", [False, True], ids=["all", "filtered"])
def test_results_are_the_true_neighbours(rows, filtered, tmp_path, database, conn, run_harca):
    dice = np.random.default_rng(5)
    vectors = dice.normal(size=(rows, 16)).astype(np.float32)
    store = write_space(tmp_path / "store", vectors)
    assert run_harca("migrate", store, database=database).code == 0
    space = find_space(conn, model_id="m", dims=16)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    hits = total = 0
    for query in dice.normal(size=(20, 16)).astype(np.float32):
        truth = np.argsort(-(unit @ query))
        if filtered:
            truth = truth[truth % 2 == 1]
        found = search(conn, query, space, k=10, where={"parity": 1} if filtered else None)
        assert [hit.similarity for hit in found.hits] == sorted(
            (hit.similarity for hit in found.hits), reverse=True
        )
        assert len(found.hits) == 10
        hits += len({hit.content for hit in found.hits} & {f"t{n}" for n in truth[:10]})
        total += 10

    # Without iterative scans a filter could leave too few of an index's candidates.
    exact = rows < EXACT_BELOW or (filtered and not capabilities(conn).iterative_scan)
    assert (found.answered_by == "exact") is exact
    assert hits / total == 1.0 if exact else hits / total > 0.95


def test_the_index_is_what_answers(tmp_path, database, conn, run_harca):
    vectors = np.random.default_rng(5).normal(size=(EXACT_BELOW, 16)).astype(np.float32)
    run_harca("migrate", write_space(tmp_path / "store", vectors), database=database)
    space = find_space(conn, model_id="m", dims=16)

    conn.execute("SELECT pg_stat_force_next_flush()")
    found = search(conn, vectors[0], space)
    conn.execute("SELECT pg_stat_force_next_flush()")
    scans = conn.execute(
        "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = %s", [found.answered_by]
    ).fetchone()

    assert scans == (1,)


def test_a_selective_filter_gets_its_k_results(tmp_path, database, conn, run_harca):
    vectors = np.random.default_rng(5).normal(size=(EXACT_BELOW + 200, 16)).astype(np.float32)
    store = tmp_path / "store"
    for number, vector in enumerate(vectors):
        value = record(f"t{number}", vector.tolist(), model="m", metadata={"rare": number % 100})
        write_record(store, value)
    run_harca("migrate", store, database=database)
    space = find_space(conn, model_id="m", dims=16)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    found = search(conn, vectors[1], space, k=10, where={"rare": 7})

    truth = [n for n in np.argsort(-(unit @ unit[1])) if n % 100 == 7][:10]
    assert [hit.content for hit in found.hits] == [f"t{n}" for n in truth]


def test_ties_come_in_the_order_of_their_ids(tmp_path, database, conn, run_harca):
    same = np.tile(np.array([0.6, 0.8], dtype=np.float32), (30, 1))
    run_harca("migrate", write_space(tmp_path / "store", same), database=database)

    found = search(conn, same[0], find_space(conn, model_id="m", dims=2), k=7)

    ids = conn.execute("SELECT id FROM vector_embeddings ORDER BY id LIMIT 7").fetchall()
    assert [(hit.id,) for hit in found.hits] == ids


def test_zero_vectors_are_loaded_warned_of_and_never_found(tmp_path, database, run_harca):
    store = tmp_path / "store"
    write_record(store, record("zero", [0.0, 0.0]))
    write_record(store, record("one", [1.0, 0.0]))

    loaded = run_harca("migrate", store, "--json", database=database)
    found = run_harca("search", "--text", "one", "--json", database=database)
    refused = run_harca("search", "--text", "zero", database=database)

    assert (loaded.code, loaded.json["warnings"]) == (0, {"zero-vector": 1})
    assert [hit["content"] for hit in found.json["results"]] == ["one"]
    assert refused.code == 2
    assert "the query is a zero vector" in refused.err


def test_spaces_are_never_mixed(tmp_path, database, run_harca):
    store = tmp_path / "store"
    write_record(store, record("a", [1.0, 0.0], model="m"))
    write_record(store, record("b", [1.0, 0.0], model="other"))
    write_record(store, record("c", [1.0, 0.0, 0.0], model="m"))
    run_harca("migrate", store, database=database)
    query = tmp_path / "query.json"
    query.write_text("[1, 0]")

    unclear = run_harca("search", "--vector", query, database=database)
    clear = run_harca("search", "--vector", query, "--model", "m", "--json", database=database)
    none = run_harca("search", "--vector", query, "--model", "nobody", database=database)

    assert unclear.code == 2
    assert "2 spaces fit" in unclear.err
    assert [hit["content"] for hit in clear.json["results"]] == ["a"]
    assert none.code == 2
    assert 'no space fits "nobody/2"' in none.err


def test_a_query_can_be_json_or_numpy_and_come_by_stdin(tmp_path, database, conn):
    from harca.errors import UsageError
    from harca.query import query_vector
    from harca.query_files import read_vector

    files = {
        "list.json": b"[1, 0.5]",
        "object.json": json.dumps({"modelName": "m", "embedding": [1, 0.5]}).encode(),
        "bom.json": b'\xef\xbb\xbf{"values": [1, 0.5]}',
    }
    buffer = io.BytesIO()
    np.save(buffer, np.array([[1, 0.5]], dtype=np.float64))
    files["array.npy"] = buffer.getvalue()
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        assert read_vector(tmp_path / name)[0].tolist() == [1.0, 0.5], name
    assert read_vector(tmp_path / "object.json")[1] == "m"
    for bad in (b"", b"{}", b'"text"', b"[1, null]", b"\x93NUMPY\x01", b"\xff\xfe\x00"):
        (tmp_path / "bad").write_bytes(bad)
        with pytest.raises(UsageError):
            read_vector(tmp_path / "bad")
    with pytest.raises(UsageError, match="no space fits"):
        query_vector(conn, text="never seen", vector=None, like=None, model_id=None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "expected one of --text, --vector, --like and --batch, found 0"),
        (["--text", "a", "--like", "1"], "found 2"),
        (["--like", "99999999999999999999"], "no row has"),
        (["--text", "a", "--where", "{"], "--where is no JSON"),
        (["--text", "a", "--where", "[1]"], "--where is no JSON object"),
        (["--vector", "nowhere.json"], "cannot be read: No such file"),
        (["--text", "never seen"], "this text is not in the table"),
        (["--text", "a", "-k", "0"], "k is 0, expected 1 to 1000"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_searched_is_refused(arguments, message, tmp_path, database, run_harca):
    write_record(tmp_path / "store", record("a", [1.0, 0.0]))
    run_harca("migrate", tmp_path / "store", database=database)

    done = run_harca("search", *arguments, database=database)

    assert done.code == 2
    assert message in done.err
    assert "hint:" in done.err


def test_source_narrows_a_search(tmp_path, database, run_harca):
    write_record(tmp_path / "one", record("a", [1.0, 0.0]))
    write_record(tmp_path / "two", record("b", [1.0, 0.1]))
    run_harca("migrate", tmp_path / "one", "--source", "first", database=database)
    run_harca("migrate", tmp_path / "two", "--source", "second", database=database)

    found = run_harca("search", "--text", "a", "--source", "second", "--json", database=database)

    assert [hit["content"] for hit in found.json["results"]] == ["b"]


@pytest.fixture
def library(tmp_path, database, run_harca):
    """Twenty records around a quarter of a circle, the first nearest to [1, 0]."""
    for number in range(20):
        value = record(
            f"t{number}",
            [float(np.cos(number / 13)), float(np.sin(number / 13))],
            model="m",
            metadata={"number": number, "language": ["en", "ja"][number % 2], "$odd": number % 2},
            createdAt=f"2026-01-{number + 1:02}T12:00:00.000Z",
        )
        write_record(tmp_path / "library", value, name=f"{number:02}")
    done = run_harca("migrate", tmp_path / "library", "--no-backup", database=database)
    assert done.code == 0, done.err
    (tmp_path / "query.json").write_text("[1, 0]")
    return database


def texts(found: dict[str, Any]) -> list[str]:
    return [hit["content"] for hit in found["results"]]


def test_options_narrow_a_search(library, run_harca):
    def found(*options: str) -> list[str]:
        arguments = ("search", "--vector", "query.json", "--json", *options)
        done = run_harca(*arguments, database=library)
        assert done.code == 0, done.err
        return texts(done.json)

    assert found("-k", "3") == ["t0", "t1", "t2"]
    assert found("--where", '{"language": "ja", "number": {"$gt": 3, "$lte": 9}}') == [
        "t5", "t7", "t9",
    ]  # fmt: skip
    assert found("--where", '{"$or": [{"number": {"$in": [4, 17]}}, {"number": 2.0}]}') == [
        "t2", "t4", "t17",
    ]  # fmt: skip
    assert found("--where", '{"$not": {"$$odd": 0}, "number": {"$lt": 4}}') == ["t1", "t3"]
    assert found("--since", "2026-01-19", "--until", "2026-01-20T12:00") == ["t18"]
    assert found("--since", "2026-01-20T21:00+09:00") == ["t19"]
    assert found("--min-similarity", "0.98") == ["t0", "t1", "t2"]  # cos(2/13) is 0.988
    assert found("--min-similarity", "0.98", "--where", '{"number": {"$gt": 2}}') == []


def test_pages_follow_one_another_without_a_gap(library, run_harca):
    def page(*after: str) -> dict[str, Any]:
        arguments = ("search", "--vector", "query.json", "-k", "6", *after)
        shown = run_harca(*arguments, "--where", '{"language": "en"}', database=library)
        done = run_harca(*arguments, "--where", '{"language": "en"}', "--json", database=library)
        assert done.code == 0, done.err
        return {**done.json, "shown": shown.out}

    first = page()
    second = page("--after", first["next"])

    assert texts(first) + texts(second) == [f"t{number}" for number in range(0, 20, 2)]
    assert second["next"] is None
    assert first["shown"].startswith("  1.  1.0000   #1  t0\n")
    assert second["shown"].startswith("  7.  0.6034  #13  t12\n")
    assert page("--after", "10:2.0:20")["shown"] == "nothing further found\nm/2, exact\n"


def test_many_queries_are_answered_in_their_order(library, tmp_path, run_harca):
    queries = [[1.0, 0.0], [0.0, 1.0]]
    np.save(tmp_path / "batch.npy", np.array(queries))
    (tmp_path / "batch.json").write_text(json.dumps(queries))
    lines = [json.dumps({"embedding": query, "model": "m"}) for query in queries]
    (tmp_path / "batch.jsonl").write_text("\n\n".join(lines) + "\n")

    for name in ("batch.npy", "batch.json", "batch.jsonl"):
        done = run_harca("search", "--batch", name, "-k", "2", "--json", database=library)

        assert done.code == 0, done.err
        assert [texts(found) for found in done.json["queries"]] == [["t0", "t1"], ["t19", "t18"]]
        assert {"answered_by", "next", "results"} == set(done.json["queries"][0])
        assert (done.json["model_id"], done.json["dims"]) == ("m", 2)
    shown = run_harca("search", "--batch", "batch.npy", "-k", "1", database=library)
    assert shown.out == (
        "query 1, exact\n  1.  1.0000  #1  t0\nquery 2, exact\n  1.  0.9940  #20  t19\nm/2\n"
    )


def test_what_is_no_batch_is_refused(tmp_path):
    from harca.errors import UsageError
    from harca.query_files import read_batch

    def npy(array: np.ndarray) -> bytes:
        buffer = io.BytesIO()
        np.save(buffer, array)
        return buffer.getvalue()

    refused = {
        npy(np.zeros(2)): "has shape (2,) and type float64, expected numbers of shape",
        npy(np.array([["a"]])): "and type <U1, expected numbers of shape (queries, dimensions)",
        npy(np.ones((2, 2)))[:-1]: "is no whole .npy file",
        npy(np.empty((0, 2))): "holds no queries",
        b"[]": "holds no queries",
        b"": "holds no queries",
        b"\xff": "is neither JSON nor a .npy file",
        b"[1, 2]\n[3": "line 2 of",
        b"[" * 100_000: "line 1 of",
        b"[[1, 2], [3]]": "query 2 of {} has 1 dimensions, the first 2",
        b"[[1, 2], [0, 0]]": "query 2 of {} is a zero vector",
        b'[[1, 2], "text"]': "query 2 of {} is no embedding: expected a list of numbers",
        b"[[1, null]]": "query 1 of {} is no embedding",
        b'{"embedding": [1], "model": "a"}\n{"embedding": [1], "model": "b"}': "has queries of 2 "
        'models: "a" and "b"',
    }
    for data, message in refused.items():
        path = tmp_path / "batch"
        path.write_bytes(data)

        with pytest.raises(UsageError) as error:
            read_batch(path)

        assert message.replace("{}", f'"{path}"') in str(error.value)
        assert error.value.hint


def test_options_that_narrow_wrongly_are_refused(library, run_harca):
    refused = {
        ("--where", '{"number": {"$regex": "x"}}'): 'unknown operator "$regex" at "number"',
        ("--where", '{"number": 1, "number": 2}'): 'the key "number" twice in one object',
        ("--where", '{"a": NaN}'): '"a" is compared with the number nan',
        ("--where", "[" * 100_000): "--where is nested too deep",
        ("--since", "yesterday"): '--since is "yesterday", expected a date or a time',
        ("--until", "2026-13-01"): '--until is "2026-13-01", expected a date or a time',
        ("--since", "2026-02-01", "--until", "2026-01-01"): "nothing is since 2026-02-01",
        ("--min-similarity", "1.5"): "the least similarity is 1.5, expected -1 to 1",
        ("--min-similarity", "nan"): "the least similarity is nan, expected -1 to 1",
        ("--after", "last"): '"last" is no position in results',
        ("--source", "\udcff"): "the source has '\\udcff', with a character that PostgreSQL cannot",
        ("--batch", "query.json"): "expected one of --text, --vector, --like and --batch, found 2",
    }
    for options, message in refused.items():
        done = run_harca("search", "--vector", "query.json", *options, database=library)

        assert (done.code, done.out) == (2, ""), options
        assert message in done.err
        assert "hint:" in done.err
    for arguments, message in {
        ("--like", "\udcff"): "the query has '\\udcff', with a character that PostgreSQL cannot",
        ("--like", "1", "--hybrid", "\udcff"): "the text has '\\udcff', with a character that",
        ("--text", "\udcff"): "the query has '\\udcff', with a character that PostgreSQL cannot",
        ("--like", "1", "--model", "\udcff"): "the label has '\\udcff', with a character that",
        ("--like", "9" * 5_000): "as id or store_key",
    }.items():
        done = run_harca("search", *arguments, database=library)

        assert (done.code, done.out) == (2, ""), arguments
        assert message in done.err
    both = run_harca("search", "--batch", "query.json", "--after", "1:0:1", database=library)
    assert both.code == 2
    assert "--after follows one query's results" in both.err


def test_a_text_cannot_steer_the_terminal(tmp_path, database, run_harca):
    write_record(tmp_path / "store", record("a\x1b[2Jb\n\tc", [1.0, 0.0]))
    run_harca("migrate", tmp_path / "store", database=database)

    done = run_harca("search", "--like", "1", database=database)

    assert done.out.startswith("  1.  1.0000  #1  a\ufffd[2Jb c\n")
