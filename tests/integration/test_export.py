"""Rows that are exported and migrated again are equal, whatever the format."""

import json

import numpy as np
import pyarrow.parquet as pq  # type: ignore[import-untyped]  # it ships no types
import pytest

from harca import export as export_module
from tests.stores import record, write_record, write_store

TEXTS = [
    "plain", "日本語（全角）", "👩‍👩‍👧‍👦", "e\u0301 is not é", 'quotes " \\ and \n\t\x01', "", " ",
    "\u2028\ufeff", "\U0010ffff",
]  # fmt: skip

ROWS = (
    "SELECT store_key, content, vector_send(embedding), metadata, model_id, created_at, source "
    'FROM vector_embeddings WHERE store = %s ORDER BY store_key COLLATE "C"'
)
SAME_METADATA = (
    "SELECT count(*) FROM vector_embeddings a JOIN vector_embeddings b USING (store_key) "
    "WHERE a.store = %s AND b.store = %s AND a.metadata = b.metadata"
)
FORMATS = ["vdf", "jsonl", "parquet"]


@pytest.fixture
def store(tmp_path):
    """A store of several models and dimensions, with metadata of every kind."""
    store = tmp_path / "store"
    dice = np.random.default_rng(3)
    for number, text in enumerate(TEXTS):
        for model, dims in (("モデル/a", 3), ("b", 3), ("b", 7)):
            vector = dice.normal(size=dims).astype(np.float32).astype(float).tolist()
            extra = {
                "nested": {"a": [1, {"b": None}], "": "空", "created_at": "mine", "id": 7},
                "big": 12345678901234567890123,
                "small": 1e-30,
                "ratio": 0.1,
                "text_of": "not the text",
                "store_key": "nor this the key",
                "values": [1, 2, 3],
            }
            write_record(
                store / f"{dims}",
                record(
                    f"{text}{dims}",
                    vector,
                    model=model,
                    createdAt=f"2025-01-{number + 1:02}T03:04:05.678Z",
                    **extra,
                ),
            )
    return store


def rows(conn, store):
    return conn.execute(ROWS, [str(store)]).fetchall()


@pytest.mark.parametrize("format", FORMATS)
def test_what_is_exported_migrates_to_equal_rows(
    format, store, tmp_path, database, conn, run_harca
):
    run_harca("migrate", store, "--source", "production", database=database)
    out = tmp_path / "out"

    exported = run_harca("export", out, "--format", format, "--json", database=database)
    back = run_harca("migrate", out, "--json", database=database)

    before = rows(conn, store)
    assert exported.code == 0, exported.err
    assert exported.json["rows"] == len(before) == 3 * len(TEXTS)
    assert back.code == 0, back.err
    assert (back.json["loaded"], back.json["rejected"]) == (len(before), 0)
    assert back.json["verified"]
    assert rows(conn, out) == before
    assert conn.execute(SAME_METADATA, [str(store), str(out)]).fetchone() == (len(before),)


@pytest.mark.parametrize("format", FORMATS)
def test_keys_of_several_stores_stay_apart(format, tmp_path, database, conn, run_harca):
    for name in ("one", "two"):
        write_record(tmp_path / name, record("same text", [1.0, 2.0 if name == "one" else 3.0]))
        run_harca("migrate", tmp_path / name, "--name", name, database=database)
    conn.execute(
        "INSERT INTO vector_embeddings (content, embedding, metadata, model_id) "
        "VALUES ('of the application', '[5,6]', '{\"a\": 1}', 'test-model')"
    )

    exported = run_harca("export", tmp_path / "out", "--format", format, database=database)
    back = run_harca("migrate", tmp_path / "out", "--json", database=database)

    key = conn.execute("SELECT store_key FROM vector_embeddings WHERE store = 'one'").fetchone()[0]
    number = conn.execute("SELECT id FROM vector_embeddings WHERE store IS NULL").fetchone()[0]
    assert exported.code == back.code == 0, (exported.err, back.err)
    found = {row[0]: row[2][-4:] for row in rows(conn, tmp_path / "out")}
    assert found.keys() == {f"one/{key}", f"two/{key}", str(number)}
    assert found[f"one/{key}"] == np.array(2.0, ">f4").tobytes()


@pytest.mark.parametrize(
    ("option", "value", "count"), [("--model", "b", 18), ("--dims", "7", 9), ("--store", "s", 27)]
)
def test_a_part_is_exported(option, value, count, store, tmp_path, database, run_harca):
    run_harca("migrate", store, "--name", "s", database=database)
    run_harca("migrate", write_store(tmp_path / "other", 3), database=database)

    done = run_harca("export", tmp_path / "out", option, value, "--json", database=database)

    assert done.code == 0, done.err
    assert done.json["rows"] == count
    assert done.json["stores"] == ["s"]


def test_vdf_is_laid_out_as_vector_io_reads_it(store, tmp_path, database, run_harca):
    run_harca("migrate", store, "--name", "s", database=database)

    run_harca("export", tmp_path / "out", database=database)

    meta = json.loads((tmp_path / "out" / "VDF_META.json").read_bytes())
    assert list(meta["indexes"]) == ["b_3", "b_7", "モデル/a_3"]
    (space,) = meta["indexes"]["b_7"]
    assert (space["model_name"], space["dimensions"], space["metric"]) == ("b", 7, "Cosine")
    assert space["exported_vector_count"] == len(TEXTS)
    (file,) = (tmp_path / "out" / space["data_path"]).glob("*.parquet")
    assert {"id", "vector", "text", "metadata"} < set(pq.read_schema(file).names)


def test_a_folder_with_something_in_it_is_refused(store, tmp_path, database, run_harca):
    run_harca("migrate", store, database=database)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")

    done = run_harca("export", tmp_path / "out", database=database)

    assert done.code == 4
    assert "is not empty" in done.err
    assert [one.name for one in (tmp_path / "out").iterdir()] == ["mine"]


def test_an_export_that_fails_leaves_nothing(store, tmp_path, database, run_harca, monkeypatch):
    run_harca("migrate", store, database=database)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export_module, "_namespace", full)
    (tmp_path / "empty").mkdir()

    new = run_harca("export", tmp_path / "new", database=database)
    empty = run_harca("export", tmp_path / "empty", database=database)

    assert new.code == empty.code == 1
    assert "No space left on device" in new.err
    assert not (tmp_path / "new").exists()
    assert list((tmp_path / "empty").iterdir()) == []


def test_what_is_not_there_is_not_exported(store, tmp_path, database, run_harca):
    nothing = run_harca("export", tmp_path / "out", database=database)
    run_harca("migrate", store, "--name", "s", database=database)
    unknown = run_harca("export", tmp_path / "out", "--store", "t", database=database)
    no_format = run_harca("export", tmp_path / "out", "--format", "xml", database=database)

    assert nothing.code == unknown.code == no_format.code == 2
    assert 'no row to export of store "t"' in unknown.err
    assert 'Stores in the table: "s".' in unknown.err
    assert not (tmp_path / "out").exists()
