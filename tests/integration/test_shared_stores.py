"""Nineteen real stores of other formats: counts, dimensions and texts as their list says."""

from dataclasses import dataclass

import pytest

from harca.inspect import inspect
from tests.conftest import SHARED

pytestmark = pytest.mark.one_server

STORES = SHARED / "stores"


@dataclass(frozen=True)
class Expected:
    """What is known of a store from reading its files by other means.

    Attributes:
        texts: Records whose text an earlier one has.
        vectors: Likewise, their vector.
        unit: True if all embeddings have length 1, False if none has, None if not stated.
    """

    format: str
    records: int
    dims: int
    model: str = "unknown"
    texts: int | None = None
    vectors: int | None = None
    unit: bool | None = None
    missing_texts: int = 0


EXPECTED = {
    "llamaindex/flipside-docs": Expected("llamaindex", 79, 1536),
    "llamaindex/football-rankings": Expected("llamaindex", 17, 1536),
    "faiss_langchain/blendle-handbook": Expected(
        "langchain-faiss", 247, 1536, texts=25, vectors=15, unit=True
    ),
    "faiss_langchain/lc-tutorial": Expected("langchain-faiss", 10, 768),
    "chroma/repomind-code": Expected("chroma", 69, 384, "all-MiniLM-L6-v2", texts=16),
    "chroma/sdsc-events": Expected("chroma", 51, 768, unit=False),
    "chroma_parquet/nucleus-protocols": Expected("chroma-0.3", 35, 384),
    "chroma_parquet/climate-factsheet": Expected("chroma-0.3", 13, 384),
    "lancedb/manden-charter": Expected("lancedb", 20, 1536, vectors=10),
    "json/kotlin-chunks": Expected("json", 70, 768, "ollama:embeddinggemma:latest"),
    "json/museum-list": Expected("json", 63, 384, texts=26, vectors=26),
    "vectra/tomybot-kb": Expected("vectra", 14, 4096),
    "langchainjs_hnswlib/startup-talk": Expected("langchain-js-hnswlib", 1, 1536),
    "txtai/crm-manual-it": Expected(
        "txtai", 418, 768, "nickprock/sentence-bert-base-italian-xxl-uncased", texts=4
    ),
    "sqlite_blob/plausible-docs": Expected("sqlite", 160, 1536),
    "sqlite_vec/state-of-union": Expected("sqlite", 84, 768, texts=42),
    "numpy/facts-chunks": Expected("numpy", 61, 384),
    "csv/contoso-list-column": Expected("csv", 953, 100, texts=18, vectors=15),
    "parquet/movies-random": Expected("parquet", 100, 384, unit=False),
}


@pytest.fixture(params=EXPECTED)
def store(request):
    path = STORES / request.param
    if not path.exists():
        pytest.skip(f"the real store {request.param} is not here")
    return path, EXPECTED[request.param]


def test_every_store_is_in_the_list():
    if not STORES.exists():
        pytest.skip("the real stores are not here")

    found = {f"{one.parent.name}/{one.name}" for one in STORES.glob("*/*") if one.is_dir()}

    assert found == set(EXPECTED)


def test_a_real_store_is_inspected_as_it_is_known(store):
    path, expected = store

    found = inspect(path)

    assert (found.format, found.records) == (expected.format, expected.records)
    assert [(space.model_id, space.dims) for space in found.spaces] == [
        (expected.model, expected.dims)
    ]
    assert not found.rejected
    assert not found.conflicts
    assert found.warnings["missing-text"] == expected.missing_texts
    for name, stated in (("texts", expected.texts), ("vectors", expected.vectors)):
        assert stated in (None, getattr(found, f"repeated_{name}")), name
    if expected.unit is not None:
        assert found.spaces[0].unit == (found.records if expected.unit else 0)


def test_a_real_store_is_migrated_and_verified(store, database, run_harca):
    path, expected = store

    done = run_harca("migrate", path, "--json", database=database)
    checked = run_harca("verify", path, "--json", database=database)
    again = run_harca("migrate", path, "--json", database=database)

    assert done.code == 0, done.err
    assert done.json["loaded"] == done.json["read"] == expected.records
    assert done.json["verified"] is True
    assert checked.json["ok"] is True
    assert again.json["unchanged"] == expected.records
    with database.connect() as conn:
        rows = conn.execute(
            "SELECT count(*), count(DISTINCT store_key), min(dims), max(dims), "
            "count(*) FILTER (WHERE content <> '') FROM vector_embeddings"
        ).fetchone()
    assert rows == (
        expected.records, expected.records, expected.dims, expected.dims,
        expected.records - expected.missing_texts,
    )  # fmt: skip
