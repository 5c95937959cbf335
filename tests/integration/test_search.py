"""Searching: order, filters, spaces, refusals."""

import io
import json
from pathlib import Path

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
