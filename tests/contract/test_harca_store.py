"""HARCA's file store as it can be met: other layouts, damage, links, other programs."""

import base64
import hashlib
import json
import os
import shutil
import zlib
from pathlib import Path

import numpy as np
import pytest

from harca.errors import SourceError
from harca.load import Intake
from harca.model import Item, Record, Rejection, Warn
from harca.options import LoadOptions
from harca.readers.base import Defaults, open_store
from harca.readers.harca import HarcaReader, inflate, record_key
from tests.stores import DATE, record, write_record
from tests.unit.memory_target import STARTED


def entries_of(path):
    return list(Intake(HarcaReader(path), LoadOptions(), now=STARTED).entries())


def items_of(reader) -> list[Item]:
    found = list(reader.items())
    assert all(isinstance(one, Item) for one in found), found
    return found


def only(path):
    (found,) = entries_of(path)
    return found


def write_raw(folder: Path, text: str | bytes, *, name: str = "a" * 64) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    os.utime(path, (0, 0))  # an old file is not waited for
    return path


def plain(embedding: str, *, before: str = "", after: str = "") -> str:
    """Return a record as text, with *embedding* put in as it is."""
    return f'{{{before}"text": "t", "modelName": "m", "embedding": {embedding}{after}}}'


def pack(numbers: str, *, level: int = 6) -> str:
    return base64.b64encode(zlib.compress(numbers.encode(), level)).decode()


@pytest.mark.parametrize(
    ("embedding", "vector"),
    [
        ("[0.5, 1, -2e-3]", [0.5, 1.0, -2e-3]),
        ("[ 0.5 ,\n\t1 ]", [0.5, 1.0]),
        ("[1, 2]", [1.0, 2.0]),
        ("[-0.0, 4.2e-7]", [-0.0, 4.2e-7]),
        ("[18446744073709551616, 1]", [2.0**64, 1.0]),
        ("[9007199254740993]", [9007199254740993.0]),
    ],
    ids=["numbers", "blanks", "integers", "exponent", "over 64 bits", "over 53 bits"],
)
def test_numbers_are_read_as_javascript_reads_them(embedding, vector, tmp_path):
    write_raw(tmp_path, plain(embedding))

    found = only(tmp_path)

    assert isinstance(found, Record), found
    assert found.embedding.tobytes() == np.array(vector, np.float32).tobytes()


@pytest.mark.parametrize(
    ("embedding", "reason"),
    [
        ("[[1],[2]]", "not-a-vector"),
        ("[[1.0],[2.0]]", "not-a-vector"),
        ("[[1, 2]]", "not-a-vector"),
        ("[1, [2]]", "not-a-vector"),
        ("[[[1]]]", "not-a-vector"),
        ("[[]]", "not-a-vector"),
        ("[true, false]", "not-a-vector"),
        ('["1", "2"]', "not-a-vector"),
        ('["a]b"]', "not-a-vector"),
        ('[{"x": [1]}]', "not-a-vector"),
        ('"[1, 2]"', "not-a-vector"),
        ("5", "not-a-vector"),
        ("{}", "not-a-vector"),
        ("[]", "empty-vector"),
        ("null", "no-vector"),
        ("[null]", "non-finite"),
        ("[NaN]", "non-finite"),
        ("[1, Infinity]", "non-finite"),
        ("[1e400]", "non-finite"),
        ("[1,]", "unparsable"),
        ("[01]", "unparsable"),
        ("[1 2]", "unparsable"),
        ("[1, 2", "unparsable"),
    ],
)
def test_what_is_no_vector_is_rejected(embedding, reason, tmp_path):
    path = write_raw(tmp_path, plain(embedding))

    found = only(tmp_path)

    assert isinstance(found, Rejection), found.embedding
    assert found.reason == reason
    assert found.detail
    assert found.payload == path.read_bytes()


DECOYS = {
    "in the text": '{"text": "\\"embedding\\": [9, 9]", "modelName": "m", "embedding": [1, 2]}',
    "in metadata before": plain("[1, 2]", before='"metadata": {"embedding": [9, 9]}, '),
    "in metadata after": plain("[1, 2]", after=', "metadata": {"embedding": [9, 9]}'),
    "in a list": plain("[1, 2]", before='"extra": [{"embedding": [9]}], '),
    "as the end of a name": plain("[1, 2]", before='"my\\"embedding": [9, 9], '),
    "twice": plain("[9, 9]", after=', "embedding": [1, 2]'),
    "twice, null first": plain("null", after=', "embedding": [1, 2]'),
    "twice, object first": plain('{"a": [9]}', after=', "embedding": [1, 2]'),
    "twice, one name escaped": plain("[9, 9]", after=', "\\u0065mbedding": [1, 2]'),
    "name escaped": '{"text": "t", "modelName": "m", "\\u0065mbedding": [1, 2]}',
    "blank before the colon": '{"text": "t", "modelName": "m", "embedding" : [1, 2]}',
    "a bracket after": plain("[1, 2]", after=', "note": "]"'),
    "cut for display, in metadata": plain("[1, 2]", before='"metadata": {"embedding": "…"}, '),
    "the placeholder elsewhere": plain("[1, 2]", after=', "note": "…"'),
}


@pytest.mark.parametrize("text", DECOYS.values(), ids=DECOYS)
def test_the_vector_is_the_records_own_and_the_last_one(text, tmp_path):
    write_raw(tmp_path, text)

    found = only(tmp_path)

    assert isinstance(found, Record), found
    assert found.embedding.tolist() == [1.0, 2.0]


@pytest.mark.parametrize("last", ["null", "[[1]]", '"x"'], ids=["null", "nested", "text"])
def test_a_second_vector_that_is_none_is_not_replaced_by_the_first(last, tmp_path):
    write_raw(tmp_path, plain("[1, 2]", after=f', "embedding": {last}'))

    assert isinstance(only(tmp_path), Rejection)


def test_a_vector_cut_for_display_is_not_taken_from_elsewhere(tmp_path):
    write_raw(tmp_path, plain('"…"', before='"metadata": {"embedding": [9, 9]}, '))

    found = only(tmp_path)

    assert isinstance(found, Rejection), found.embedding
    assert found.reason == "not-a-vector"


def test_a_byte_order_mark_is_no_damage(tmp_path):
    write_raw(tmp_path, b"\xef\xbb\xbf" + plain("[1, 2]").encode())

    found = only(tmp_path)

    assert isinstance(found, Record), found
    assert found.embedding.tolist() == [1.0, 2.0]


def test_a_real_record_cut_short_anywhere_is_unparsable(tmp_path):
    vector = [number / 7 for number in range(40)]
    path = write_record(tmp_path / "store", record('日本語 "embedding": [1]', vector))
    data = path.read_bytes()
    for end in range(len(data)):
        path.write_bytes(data[:end])
        os.utime(path, (0, 0))

        found = only(tmp_path)

        assert isinstance(found, Rejection), end
        assert (found.reason, found.payload) == ("unparsable", data[:end])


def test_a_file_that_is_being_written_is_read_when_it_is_finished(tmp_path, monkeypatch):
    path = write_record(tmp_path, record("t", [1.0, 2.0]))
    data = path.read_bytes()
    path.write_bytes(data[:-30])
    monkeypatch.setattr("harca.readers.files.time.sleep", lambda seconds: path.write_bytes(data))

    assert isinstance(only(tmp_path), Record)


def test_a_file_that_is_just_being_emptied_is_read_when_it_is_written(tmp_path, monkeypatch):
    path = write_record(tmp_path, record("t", [1.0, 2.0]))
    data = path.read_bytes()
    path.write_bytes(b"")
    os.utime(path, (0, 0))
    monkeypatch.setattr("harca.readers.files.time.sleep", lambda seconds: path.write_bytes(data))

    assert isinstance(only(tmp_path), Record)


@pytest.mark.parametrize("marker", ["compressed", "_compressed"])
def test_both_markers_of_compression_are_read(marker, tmp_path):
    vector = [number / 3 for number in range(100)]
    packed = {marker: True, "data": pack(json.dumps(vector))}
    write_record(tmp_path, record("t", packed))

    found = only(tmp_path)

    assert isinstance(found, Record), found
    assert found.embedding.tolist() == np.array(vector, np.float32).tolist()
    assert found.metadata["compressed"] == f'"{marker}"'


def test_a_compressed_record_has_the_key_of_a_plain_one(tmp_path):
    write_record(tmp_path / "a", record("t", [1.0, 2.0]))
    write_record(tmp_path / "b", record("t", {"compressed": True, "data": pack("[1,2]")}))

    one, other = entries_of(tmp_path)

    assert one.key == other.key == record_key("test-model", "t")


BOMBS = {
    "zeros": pack("0" * 50_000_000, level=9),
    "numbers": pack("[" + "0," * 20_000_000 + "0]", level=9),
    "numbers, within the limit": pack("[" + "0," * 1_000_000 + "0]", level=9),
}


@pytest.mark.parametrize("data", BOMBS.values(), ids=BOMBS)
def test_a_vector_that_grows_beyond_all_vectors_is_rejected(data, tmp_path):
    path = write_record(tmp_path, record("t", {"compressed": True, "data": data}))

    found = only(tmp_path)

    assert isinstance(found, Rejection)
    assert found.reason in ("unparsable", "too-many-dims")
    assert found.payload == path.read_bytes()


@pytest.mark.parametrize(
    "data",
    [
        pack("[1,2]")[:-4], "%%%", "", "AAAA", pack('{"a": 1}'), pack("1"), pack("[1,"),
        pack("\ud83d".encode("utf-16", "surrogatepass").decode("latin-1")), 5, None, [1, 2],
        base64.b64encode(b"[1, 2]").decode(), pack("[1,2]") + "\n", "é",
    ],
    ids=[
        "cut short", "no base64", "empty", "no zlib", "object", "number", "half a list", "bytes",
        "number as data", "null as data", "list as data", "not compressed", "line end", "not ASCII",
    ],
)  # fmt: skip
def test_a_compressed_vector_that_cannot_be_unpacked_is_unparsable(data, tmp_path):
    write_record(tmp_path, record("t", {"_compressed": True, "data": data}))

    found = only(tmp_path)

    assert isinstance(found, Rejection)
    assert found.reason == "unparsable"
    assert found.detail.startswith("the compressed vector cannot be unpacked: ")


@pytest.mark.parametrize(
    "embedding",
    [{"compressed": True}, {"_compressed": True, "data": pack("[" * 100_000)}],
    ids=["no data", "nested too deeply"],
)
def test_a_compressed_vector_of_another_shape_stops_nothing(embedding, tmp_path):
    write_record(tmp_path, record("t", embedding))
    write_record(tmp_path, record("good", [1.0]))

    found = entries_of(tmp_path)

    assert [one.reason for one in found if isinstance(one, Rejection)] == ["unparsable"]
    assert len(found) == 2


DEEP = "[" * 1010 + "]" * 1010
ENTRY = '{"id": "1", "content": "c", "embedding": %s, "metadata": %s}'


@pytest.mark.parametrize(
    "text",
    [
        f"[{ENTRY % ('[1]', DEEP)}]",
        f'{{"code_vectors": [{ENTRY % ("[1]", DEEP)}]}}',
        f'{{"code_vectors": [{ENTRY % (json.dumps("[" * 100_000), "{}")}]}}',
    ],
    ids=["documents", "export", "vector in quotes"],
)
def test_entries_nested_too_deeply_stop_nothing(text, tmp_path):
    write_raw(tmp_path, text, name="a")
    write_record(tmp_path, record("good", [1.0]))

    kinds = {type(entry) for entry in entries_of(tmp_path)}

    assert kinds == {Rejection, Record}


def test_compressed_numbers_are_checked_as_plain_ones(tmp_path):
    write_record(tmp_path, record("t", {"_compressed": True, "data": pack("[1,null]")}))

    assert only(tmp_path).reason == "non-finite"


@pytest.mark.parametrize("level", range(10))
def test_a_vector_is_unpacked_whatever_the_level(level):
    assert inflate(pack("[1,2.5,-3e-7]", level=level)) == [1, 2.5, -3e-7]


def test_folders_and_files_may_have_any_name(tmp_path):
    write_record(tmp_path / "メモ（全角）" / "a b\t'c", record("one", [1.0]))
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe folder"))
    write_record(odd, record("two", [2.0]))
    os.rename(  # noqa: PTH104  # the name is bytes
        write_record(odd, record("three", [3.0])), os.fsencode(odd) + b"/\xe9.json"
    )

    found = {one.content: one for one in entries_of(tmp_path)}

    assert found["one"].origin.startswith("メモ（全角）/a b\t'c/")
    assert json.loads(found["one"].metadata["directory"]) == "メモ（全角）/a b\t'c"
    assert found["two"].origin.startswith("\\xff\\xfe folder/")
    assert found["three"].origin == "\\xff\\xfe folder/\\xe9.json"
    assert found["three"].warnings == (Warn.NAME_MISMATCH,)
    assert all(one.origin.encode() for one in found.values())


def test_a_git_lfs_pointer_is_named(tmp_path):
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    write_raw(tmp_path, text)

    found = only(tmp_path)

    assert str(found) == (
        f"{'a' * 64}.json: lfs-pointer: a Git LFS pointer, not the file (run `git lfs pull`)"
    )
    assert found.payload == text.encode()


def test_the_older_layout_takes_the_model_from_the_folder(tmp_path):
    folder = tmp_path / "モデル 1"
    name = hashlib.md5("テキスト".encode()).hexdigest()
    write_raw(folder, '{"text": "テキスト", "embedding": [1, 2]}', name=name)

    found = only(tmp_path)

    assert found.model_id == "モデル 1"
    assert found.key == record_key("モデル 1", "テキスト")
    assert found.warnings == ()


def test_a_record_without_a_model_gets_the_operators_label(tmp_path):
    write_raw(tmp_path, '{"text": "t", "embedding": [1, 2]}', name=record_key("given", "t"))

    (item,) = items_of(open_store(tmp_path, Defaults(model_id="given")))

    assert (item.model_id, item.key) == ("given", record_key("given", "t"))


def test_a_name_that_is_not_the_contents_is_warned_of(tmp_path):
    write_record(tmp_path, record("t", [1.0]), name="copy of t")

    found = only(tmp_path)

    assert found.warnings == (Warn.NAME_MISMATCH,)
    assert found.key == record_key("test-model", "t")


@pytest.mark.parametrize(
    ("model", "text", "key"),
    [
        ("m", "t", hashlib.sha256(b"m:t").hexdigest()),
        ("モデル", "文", hashlib.sha256("モデル:文".encode()).hexdigest()),
        ("m", "👍", hashlib.sha256("m:👍".encode()).hexdigest()),
        ("m", "\ud83d\udc4d", hashlib.sha256("m:👍".encode()).hexdigest()),
        ("m", "a\ud800", hashlib.sha256("m:a\ufffd".encode()).hexdigest()),
    ],
    ids=["ASCII", "Japanese", "emoji", "emoji as two halves", "half a pair"],
)
def test_the_key_is_the_name_that_harca_gives(model, text, key):
    assert record_key(model, text) == key


def test_bookkeeping_becomes_metadata(tmp_path):
    write_record(tmp_path / "cache", record("t", [1.0], version=1742094482864, metadata={"a": 1}))

    found = only(tmp_path)

    assert {name: json.loads(text) for name, text in found.metadata.items()} == {
        "a": 1,
        "createdAt": DATE,
        "lastAccessed": DATE,
        "expiresAt": "2025-03-16T03:09:29.264Z",
        "accessCount": 1,
        "version": 1742094482864,
        "directory": "cache",
    }


def test_metadata_that_is_null_takes_no_bookkeeping_away(tmp_path):
    write_record(tmp_path, record("t", [1.0], metadata=None))

    assert {"createdAt", "expiresAt", "directory"} <= set(only(tmp_path).metadata)


def test_long_integers_in_metadata_are_kept_whole(tmp_path):
    write_record(tmp_path, record("t", [1.0], metadata={"id": 2**70}))

    assert only(tmp_path).metadata["id"] == str(2**70)


@pytest.mark.parametrize("name", ["directory", "createdAt", "compressed"])
def test_a_records_own_metadata_are_not_overwritten(name, tmp_path):
    packed = {"compressed": True, "data": pack("[1,2]")}
    write_record(tmp_path, record("t", packed, metadata={name: "its own"}))

    assert '"its own"' in " ".join(only(tmp_path).metadata.values())


def test_the_payload_of_a_rejected_entry_is_whole(tmp_path):
    bad = '{"id": "1", "content": "c", "embedding": [NaN, Infinity], "metadata": {}}'
    (tmp_path / "vector-store.json").write_text(f"[{bad}]")

    payload = only(tmp_path).payload.decode()

    assert "NaN" in payload
    assert "Infinity" in payload


def test_a_folder_that_leads_back_is_read_once(tmp_path):
    write_record(tmp_path / "a", record("t", [1.0]))
    (tmp_path / "a" / "back").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "b").symlink_to(tmp_path / "a", target_is_directory=True)
    reader = HarcaReader(tmp_path)

    items = items_of(reader)

    assert [one.content for one in items] == ["t"]
    assert reader.notes.warnings == [
        ("a/back", Warn.SYMLINK_LOOP, 'leads back to "."'),
        ("b", Warn.SYMLINK_LOOP, 'leads back to "a"'),
    ]


LINKS = {
    "itself": (lambda path: path.symlink_to(path.name), "symlink-loop", "Too many levels"),
    "nothing": (lambda path: path.symlink_to("nowhere"), "unreadable", "a link to nothing"),
    "a named pipe": (os.mkfifo, "unreadable", "not a regular file"),
    "a device": (lambda path: path.symlink_to("/dev/zero"), "unreadable", "not a regular file"),
}


@pytest.mark.parametrize(("make", "reason", "detail"), LINKS.values(), ids=LINKS)
def test_a_file_that_is_none_is_rejected_and_not_waited_for(make, reason, detail, tmp_path):
    make(tmp_path / "x.json")
    write_record(tmp_path, record("t", [1.0]), name="y")

    bad, good = entries_of(tmp_path)

    assert (bad.origin, bad.reason, bad.payload) == ("x.json", reason, None)
    assert bad.detail.startswith(detail)
    assert isinstance(good, Record)


def test_a_folder_named_as_a_record_is_a_folder(tmp_path):
    write_record(tmp_path / "x.json", record("t", [1.0]))

    assert only(tmp_path).content == "t"


@pytest.mark.parametrize("what", ["folder", "file"])
def test_what_vanishes_while_the_store_is_read_is_named(what, tmp_path):
    write_record(tmp_path / "a", record("first", [1.0]), name="1")
    write_record(tmp_path / "a", record("second", [1.0]), name="2")
    write_record(tmp_path / "b", record("third", [1.0]), name="3")
    items = HarcaReader(tmp_path).items()
    first = next(items)
    assert isinstance(first, Item)
    assert first.content == "first"

    if what == "folder":
        shutil.rmtree(tmp_path / "b")
    else:
        (tmp_path / "a" / "2.json").unlink()
    rest = list(items)

    (gone,) = [str(one) for one in rest if isinstance(one, Rejection)]
    assert (
        gone
        == {
            "folder": "b: vanished: the folder was there when its parent was listed",
            "file": "a/2.json: vanished: was there when the folder was listed",
        }[what]
    )
    assert len(rest) == 2


@pytest.fixture
def lock():
    """Take all rights to a path away until the test ends."""
    locked: list[Path] = []

    def take(path: Path) -> None:
        locked.append(path)
        path.chmod(0)
        if os.access(path, os.R_OK):
            pytest.skip("permission bits are not enforced for this user (root?)")

    yield take
    for path in locked:
        path.chmod(0o700)


@pytest.mark.parametrize("what", ["file", "folder"])
def test_what_may_not_be_read_is_rejected(what, lock, tmp_path):
    path = write_record(tmp_path / "a", record("t", [1.0]), name="x")
    write_record(tmp_path / "b", record("good", [1.0]))
    lock(path if what == "file" else path.parent)

    bad, good = entries_of(tmp_path)

    assert str(bad) == f"{'a/x.json' if what == 'file' else 'a'}: unreadable: Permission denied"
    assert isinstance(good, Record)


def test_a_store_that_may_not_be_listed_is_refused(lock, tmp_path):
    write_record(tmp_path / "store", record("t", [1.0]))
    lock(tmp_path / "store")

    with pytest.raises(SourceError, match="Permission denied"):
        open_store(tmp_path / "store")


def test_a_path_that_is_too_long_is_refused(tmp_path):
    with pytest.raises(SourceError):
        open_store(tmp_path / ("x" * 5000))


def test_other_files_are_left_out_and_noted(tmp_path):
    write_record(tmp_path, record("t", [1.0]))
    (tmp_path / "stats.json").write_text('{"hits": 1}')
    (tmp_path / "report.json").write_text('{"a": 1}')
    (tmp_path / "list.json").write_text("[1, 2]")
    (tmp_path / "number.json").write_text("5")
    (tmp_path / "cache-store.json").write_text('{"k": {"data": [1.0], "expiry": 1}}')
    (tmp_path / "doc.json").write_text('{"id": "1", "title": "t", "content": "c"}')
    (tmp_path / "notes.txt").write_text("no JSON")
    (tmp_path / "node_modules").mkdir()
    write_record(tmp_path / "node_modules", record("not ours", [1.0]))
    reader = HarcaReader(tmp_path)

    items = items_of(reader)

    assert [one.content for one in items] == ["t"]
    assert reader.notes.without_vectors == ["doc.json"]
    assert sorted(reader.notes.left_out) == [
        ("cache-store.json", "cached vectors without their texts"),
        ("list.json", "JSON, but no record"),
        ("number.json", "JSON, but no record"),
        ("report.json", "JSON, but no record"),
        ("stats.json", "counters of the cache, no records"),
    ]


@pytest.mark.parametrize("text", ["[]", "5", '{"a": 1}', '"x"', "null"])
def test_a_file_named_as_a_record_must_be_one(text, tmp_path):
    write_raw(tmp_path, text)

    found = only(tmp_path)

    assert (found.reason, found.payload) == ("no-vector", text.encode())


def test_documents_keep_their_ids_and_metadata(tmp_path):
    entry = {
        "id": "doc_1742094482864_abc1234",
        "embedding": [0.1, 0.2],
        "content": "chunk",
        "metadata": {"created": DATE, "tags": ["a"], "big": 2**70},
    }
    (tmp_path / "vector-store.json").write_text(json.dumps([entry, "no object", {"id": "x"}]))

    found, no_object, nothing = entries_of(tmp_path)

    assert (found.key, found.content, found.source) == (entry["id"], "chunk", "harca-documents")
    assert found.created_at.isoformat() == "2025-03-16T03:08:02.864000+00:00"
    assert found.metadata["big"] == str(2**70)
    assert found.origin == "vector-store.json[0]"
    assert (no_object.reason, no_object.payload) == ("no-vector", b'"no object"')
    assert (nothing.reason, nothing.payload) == ("no-vector", b'{"id":"x"}')


@pytest.mark.parametrize(
    "embedding", ["[0.5,1,-2e-05]", [0.5, 1, -2e-05]], ids=["as pgvector prints it", "list"]
)
def test_exported_rows_are_read(embedding, tmp_path):
    row = {"id": "u-1", "content": "c", "embedding": embedding, "metadata": {"a": 1}}
    (tmp_path / "data.json").write_text(json.dumps({"code_vectors": [row]}))

    found = only(tmp_path)

    assert found.embedding.tolist() == np.array([0.5, 1, -2e-05], np.float32).tolist()
    assert (found.key, found.source) == ("u-1", "code_vectors")
