"""Vectra's local indexes: texts in documents, metadata in files, names that lead elsewhere."""

import json
from collections import Counter

import pytest

from harca.load import Intake
from harca.model import Item, Record, Rejection, Warn
from harca.options import LoadOptions
from harca.readers.base import open_store
from tests.conftest import SHARED
from tests.contract.make_vectra import write_index
from tests.unit.memory_target import STARTED


def entries(path):
    return list(Intake(open_store(path), LoadOptions(), now=STARTED).entries())


def chunk(document, start, end, **more):
    metadata = {"documentId": document, "startPos": start, "endPos": end, **more}
    return {"id": f"{document} {start}", "metadata": metadata, "vector": [0.5, 0.25]}


def metadata_of(one):
    return {name: json.loads(value) for name, value in one.metadata.items()}


def test_positions_count_utf16_units_and_the_end_is_included(tmp_path):
    store = write_index(tmp_path / "s", [chunk("d", 0, 2), chunk("d", 3, 5)])
    (store / "d.txt").write_text("a👩語bc", encoding="utf-8")

    # a, two halves; then the last three: 語bc
    assert [one.content for one in entries(store)] == ["a👩", "語bc"]


def test_a_chunk_that_cuts_a_character_in_half_is_rejected(tmp_path):
    store = write_index(tmp_path / "s", [chunk("d", 0, 1)])
    (store / "d.txt").write_text("a👩", encoding="utf-8")

    (rejected,) = entries(store)

    assert rejected.reason == "lone-surrogate"


def test_the_documents_name_is_in_the_metadata(tmp_path):
    store = write_index(tmp_path / "s", [chunk("d", 0, 2, page=7)])
    (store / "d.txt").write_text("abc")
    (store / "catalog.json").write_text('{"idToUri": {"d": "docs/読む.md"}}')

    (found,) = entries(store)

    assert found.key == "d 0"
    assert metadata_of(found) == {
        "documentId": "d", "startPos": 0, "endPos": 2, "page": 7, "uri": "docs/読む.md",
    }  # fmt: skip


@pytest.mark.parametrize("catalog", ["{", "[]", '{"idToUri": 1}'])
def test_a_damaged_catalog_is_named_and_loses_no_record(catalog, tmp_path):
    store = write_index(tmp_path / "s", [chunk("d", 0, 2)])
    (store / "d.txt").write_text("abc")
    (store / "catalog.json").write_text(catalog)
    reader = open_store(store)

    (found,) = reader.items()

    assert isinstance(found, Item)
    assert found.content == "abc"
    assert [name for name, _ in reader.notes.left_out] == ["catalog.json"]


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        (None, "its document d.txt cannot be read (vanished)"),
        ("ab", "characters 0 to 2 of d.txt, which has 2"),
        ("", "characters 0 to 2 of d.txt, which has 0"),
        ("日\udc80", "its document d.txt is no UTF-8 from byte 3"),
    ],
    ids=["missing", "cut short", "empty", "cut within a character"],
)
def test_a_chunk_whose_text_is_not_there_is_rejected_with_its_numbers(text, detail, tmp_path):
    store = write_index(tmp_path / "s", [chunk("d", 0, 2)])
    if text is not None:
        (store / "d.txt").write_bytes(text.encode("utf-8", "surrogateescape"))

    (rejected,) = entries(store)

    assert (rejected.reason, rejected.detail) == ("no-text", detail)
    assert json.loads(rejected.payload)["vector"] == [0.5, 0.25]


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/b", "..", "a\\b", "", "a\0b"])
def test_a_document_outside_the_folder_is_never_read(name, tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    store = write_index(tmp_path / "s", [chunk(name, 0, 2)])

    (rejected,) = entries(store)

    assert rejected.reason == "no-text"


def test_metadata_in_a_file_of_their_own_are_read(tmp_path):
    store = write_index(
        tmp_path / "s",
        [{"id": "a", "metadata": {"kind": 1}, "vector": [1.0], "metadataFile": "m.json"}],
        metadata_config={"indexed": ["kind"]},
    )
    (store / "m.json").write_text('{"kind": 1, "text": "hello", "url": "u"}')

    (found,) = entries(store)

    assert (found.key, found.content) == ("a", "hello")
    assert metadata_of(found) == {"kind": 1, "url": "u"}


@pytest.mark.parametrize(
    ("name", "reason"),
    [("m.json", "vanished"), ("../m.json", "unreadable"), (7, "unreadable")],
)
def test_metadata_that_cannot_be_read_reject_the_record(name, reason, tmp_path):
    (tmp_path / "m.json").write_text('{"text": "secret"}')
    store = write_index(
        tmp_path / "s", [{"id": "a", "metadata": {}, "vector": [1.0], "metadataFile": name}]
    )

    (rejected,) = entries(store)

    assert isinstance(rejected, Rejection)
    assert rejected.reason == reason


def test_items_without_a_text_are_loaded_with_a_warning(tmp_path):
    store = write_index(tmp_path / "s", [{"id": "a", "metadata": {"n": 1}, "vector": [1.0]}])

    (found,) = entries(store)

    assert (found.content, found.warnings) == ("", (Warn.NO_TEXT,))


def test_an_index_of_any_name_is_read_when_it_is_given(tmp_path):
    store = write_index(
        tmp_path / "s",
        [{"id": "a", "metadata": {"content": "t"}, "vector": [1.0]}],
        name="other.json",
    )

    (found,) = entries(store / "other.json")

    assert (found.key, found.content, found.source) == ("a", "t", "vectra")


def test_a_real_store_is_read_whole():
    store = SHARED / "stores" / "vectra" / "tomybot-kb"
    if not store.exists():
        pytest.skip("the real store tomybot-kb is not here")

    found = entries(store)

    assert Counter((type(one), len(one.embedding)) for one in found) == {(Record, 4096): 14}
    assert found[0].content == "# 公司简介\n\n## "
    assert found[2].content.endswith("海）有限公司 版权所有\n")
    assert metadata_of(found[0])["uri"] == "company-info.md"
