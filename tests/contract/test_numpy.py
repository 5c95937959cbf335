"""NumPy's files: kinds of arrays, what stands beside them, what is no array of vectors."""

import json
import struct
import zipfile
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harca.errors import EmptyStore, HarcaError, LfsPointer, SourceError
from harca.load import Intake
from harca.model import Item, Record, Rejection, Warn
from harca.options import LoadOptions
from harca.readers import numpy_arrays
from harca.readers.base import Defaults, FieldNames, open_store
from tests.conftest import SHARED
from tests.unit.memory_target import STARTED

VECTORS = [[0.5, 1.25, -2.0], [3.0, 0.125, 4.0]]


def entries(path, **fields):
    reader = open_store(path, Defaults(fields=FieldNames(**fields)))
    return entries_of(reader)


def entries_of(reader):
    return list(Intake(reader, LoadOptions(), now=STARTED).entries())


def metadata_of(one):
    return {name: json.loads(value) for name, value in one.metadata.items()}


def texts_of(path, **fields):
    return [(one.key, one.content) for one in entries(path, **fields)]


def save(path, values, dtype=np.float32, order="C"):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.asarray(np.array(values, dtype), order=order))
    return path


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["<f2", "<f4", ">f4", "<f8", ">f8", "<i2", ">i8", "u1", "g"])
@pytest.mark.parametrize("suffix", ["npy", "npz", "compressed"])
def test_every_kind_of_number_and_order_is_read(dtype, order, suffix, tmp_path, monkeypatch):
    monkeypatch.setattr(numpy_arrays, "BLOCK_BYTES", 2000)
    dice = np.random.default_rng(1)
    values = np.asarray(dice.integers(0, 100, (70, 40)), dtype=dtype, order=order)
    path = tmp_path / f"v.{suffix.replace('compressed', 'npz')}"
    {"npy": np.save, "npz": np.savez, "compressed": np.savez_compressed}[suffix](path, values)

    found = entries(path)

    assert len(found) == 70
    assert all(
        np.array_equal(one.embedding, row.astype(np.float32))
        for one, row in zip(found, values, strict=True)
    )


def test_one_vector_by_itself_is_one_record(tmp_path):
    assert [one.embedding.tolist() for one in entries(save(tmp_path / "v.npy", VECTORS[0]))] == [
        VECTORS[0]
    ]


def test_without_texts_there_is_a_warning_and_the_key_is_the_place(tmp_path):
    save(tmp_path / "v.npy", VECTORS)

    found = entries(tmp_path)

    assert [(one.key, one.content, one.warnings) for one in found] == [
        ("v.npy#0", "", (Warn.NO_TEXT,)), ("v.npy#1", "", (Warn.NO_TEXT,)),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "content", "keys"),
    [
        ("texts.json", '["a", "b"]', None),
        ("facts.json", '["a", "b"]', None),
        ("metadata.json", '[{"text": "a"}, {"text": "b"}]', None),
        ("chunks.json", '[{"id": "x", "content": "a"}, {"id": "y", "content": "b"}]', ["x", "y"]),
        ("chunks.json", '{"chunks": [{"text": "a"}, {"text": "b"}], "n": 2}', None),
        ("store.json", '{"ids": ["x", "y"], "documents": ["a", "b"]}', ["x", "y"]),
        ("index.json", '{"1": "b", "0": "a"}', None),
        ("documents.json", '{"x": "a", "y": "b"}', ["x", "y"]),
        ("docs.jsonl", '{"text": "a"}\n{"text": "b"}\n', None),
        ("sentences.txt", "a\r\nb\r\n", None),
        ("corpus.csv", "id,text\nx,a\ny,b\n", ["x", "y"]),
        ("rows.tsv", "id\ttext\nx\ta\ny\tb\n", ["x", "y"]),
    ],
    ids=lambda value: value if isinstance(value, str) and "." in value else "",
)
def test_texts_beside_an_array_belong_to_it_by_position(name, content, keys, tmp_path):
    save(tmp_path / "embeddings.npy", VECTORS)
    (tmp_path / name).write_bytes(content.encode())

    expected = keys or ["embeddings.npy#0", "embeddings.npy#1"]
    assert texts_of(tmp_path) == list(zip(expected, "ab", strict=True))
    assert texts_of(tmp_path / "embeddings.npy") == texts_of(tmp_path)


def test_several_files_are_joined(tmp_path):
    save(tmp_path / "embeddings.npy", VECTORS)
    np.save(tmp_path / "ids.npy", np.array([11, 22]))
    np.save(tmp_path / "labels.npy", np.array(["red", "blue"]))
    (tmp_path / "texts.json").write_text('["a", "b"]')
    (tmp_path / "metadata.json").write_text('[{"page": 1}, {"page": 2}]')
    (tmp_path / "config.json").write_text('{"model_name": "all-MiniLM-L6-v2", "dim": 3}')

    one, other = entries(tmp_path)

    assert (one.key, one.content, metadata_of(one)) == ("11", "a", {"page": 1, "label": "red"})
    assert (other.key, other.content, metadata_of(other)) == (
        "22", "b", {"page": 2, "label": "blue"},
    )  # fmt: skip
    assert one.model_id == "all-MiniLM-L6-v2"


def test_ids_that_repeat_are_no_keys(tmp_path):
    save(tmp_path / "embeddings.npy", [[number, 1.0] for number in range(120)])
    ids = [str(min(number, 100)) for number in range(120)]
    (tmp_path / "ids.json").write_text(json.dumps(ids))
    (tmp_path / "texts.json").write_text(json.dumps(ids))

    found = entries(tmp_path)

    assert [one.key for one in found] == [f"embeddings.npy#{number}" for number in range(120)]
    assert metadata_of(found[-1]) == {"id": "100"}


def test_arrays_in_one_file_are_joined(tmp_path):
    np.savez_compressed(
        tmp_path / "index.npz",
        vectors=np.array(VECTORS, np.float16),
        ids=np.array([b"x", b"y"]),
        texts=np.array(["日本語", "b"]),
        score=np.array([0.5, 1.5]),
        model=np.array("ada-002"),
        matrix=np.zeros((2, 2, 2)),
    )
    reader = open_store(tmp_path)

    one, other = entries_of(reader)

    assert (one.key, one.content, one.model_id) == ("x", "日本語", "ada-002")
    assert (other.key, metadata_of(other)) == ("y", {"score": 1.5})
    assert ("matrix.npy", "float64 of shape (2, 2, 2)") in reader.notes.left_out


def test_parts_are_read_in_their_natural_order_each_with_its_texts(tmp_path):
    for number in (10, 2):
        save(tmp_path / f"embeddings_{number}.npy", VECTORS)
        texts = [f"{number}a", f"{number}b"]
        (tmp_path / f"texts_{number}.json").write_text(json.dumps(texts))

    assert texts_of(tmp_path) == [
        ("embeddings_2.npy#0", "2a"), ("embeddings_2.npy#1", "2b"),
        ("embeddings_10.npy#0", "10a"), ("embeddings_10.npy#1", "10b"),
    ]  # fmt: skip


def test_one_list_can_have_the_texts_of_all_parts(tmp_path):
    for number in range(3):
        save(tmp_path / f"part-{number}.npy", VECTORS)
    (tmp_path / "texts.txt").write_text("a\nb\nc\nd\ne\nf\n")
    (tmp_path / "ids.json").write_text('["k0", "k1", "k2", "k3", "k4", "k5"]')

    found = texts_of(tmp_path)

    assert [text for _, text in found] == list("abcdef")
    assert [key for key, _ in found][::5] == ["part-0.npy#k0", "part-2.npy#k5"]


def test_folders_with_arrays_are_stores_of_their_own(tmp_path):
    for name in ("one", "two"):
        save(tmp_path / name / "v.npy", VECTORS)
        (tmp_path / name / "texts.json").write_text(json.dumps([f"{name}a", f"{name}b"]))

    assert texts_of(tmp_path)[2] == ("two/v.npy#0", "twoa")


@pytest.mark.parametrize(("name", "count"), [("texts.json", 3), ("texts.json", 1)])
def test_texts_of_another_number_are_refused(name, count, tmp_path):
    save(tmp_path / "embeddings.npy", VECTORS)
    (tmp_path / name).write_text(json.dumps(["t"] * count))

    with pytest.raises(SourceError) as caught:
        entries(tmp_path)

    assert str(caught.value) == (
        f'"{tmp_path / name}" has {count} entries, but there are 2 vectors'
    )
    assert caught.value.hint.startswith("Which text belongs to which vector cannot be told.")


def test_a_file_of_another_number_beside_the_texts_is_left_out(tmp_path):
    save(tmp_path / "embeddings.npy", VECTORS)
    (tmp_path / "chunks.json").write_text('["a", "b"]')
    (tmp_path / "documents.json").write_text('["whole"]')
    (tmp_path / "requirements.txt").write_text("numpy\nfaiss\n")
    reader = open_store(tmp_path)

    assert [one.content for one in entries_of(reader)] == ["a", "b"]
    assert reader.notes.left_out == [("documents.json", "1 entries, but there are 2 vectors")]


@pytest.mark.parametrize("content", ["[", '{"a": NaN', "\udcff"])
def test_texts_that_cannot_be_read_are_refused(content, tmp_path):
    save(tmp_path / "embeddings.npy", VECTORS)
    (tmp_path / "texts.json").write_bytes(content.encode("utf-8", "surrogateescape"))

    with pytest.raises(SourceError, match=r'texts\.json" cannot be read'):
        entries(tmp_path)


def test_texts_that_are_a_git_lfs_pointer_are_named(tmp_path):
    save(tmp_path / "embeddings.npy", VECTORS)
    (tmp_path / "texts.json").write_text("version https://git-lfs.github.com/spec/v1\n")

    with pytest.raises(LfsPointer):
        entries(tmp_path)


def test_arrays_of_objects_are_refused_as_pickles(tmp_path):
    objects = save(tmp_path / "a" / "v.npy", [None, "x"], dtype=object)
    save(tmp_path / "b" / "embeddings.npy", VECTORS)
    save(tmp_path / "b" / "texts.npy", ["a", "b"], dtype=object)

    with pytest.raises(SourceError, match="holds an array of objects, which is a pickle"):
        open_store(objects)
    with pytest.raises(SourceError, match="has the texts as an array of objects"):
        entries(tmp_path / "b")


@pytest.mark.parametrize(
    ("values", "dtype", "message"),
    [
        (np.zeros((2, 2, 2)), "f4", r"holds float32 of shape \(2, 2, 2\), expected numbers"),
        ([["a", "b"]], "U1", "holds <U1 of shape"),
        ([[1j, 2j]], "c16", "holds complex128 of shape"),
        ([[True, False]], "?", "holds bool of shape"),
        (3.0, "f4", r"holds float32 of shape \(\)"),
    ],
    ids=["3-d", "texts", "complex", "booleans", "a number"],
)
def test_what_is_no_array_of_vectors_is_refused(values, dtype, message, tmp_path):
    with pytest.raises(SourceError, match=message):
        open_store(save(tmp_path / "v.npy", values, dtype=dtype))


def test_arrays_of_different_widths_are_named_and_one_can_be_chosen(tmp_path):
    path = tmp_path / "v.npz"
    np.savez(path, a=np.ones((2, 3)), b=np.ones((2, 4)), texts=np.array(["x", "y"]))

    with pytest.raises(SourceError) as caught:
        open_store(path)

    assert "a.npy (3 dimensions), b.npy (4 dimensions)" in str(caught.value)
    assert [len(one.embedding) for one in entries(path, records="b")] == [4, 4]
    with pytest.raises(SourceError, match='has no array "c"; found a, b, texts'):
        entries(path, records="c")


def test_a_name_that_sounds_like_vectors_is_preferred(tmp_path):
    path = tmp_path / "v.npz"
    np.savez(path, features=np.ones((2, 9)), embeddings=np.ones((2, 3)), onehot=np.ones((2, 4)))

    with pytest.raises(SourceError):
        open_store(path)  # features can be vectors too
    np.savez(path, embeddings=np.ones((2, 3)), onehot=np.ones((2, 4)))
    assert [len(one.embedding) for one in entries(path)] == [3, 3]


def test_a_sparse_matrix_and_other_archives_are_not_taken(tmp_path):
    np.savez(tmp_path / "s.npz", indices=np.arange(3), indptr=np.arange(3), data=np.ones(3))
    with zipfile.ZipFile(tmp_path / "w.npz", "w") as archive:
        archive.writestr("word/document.xml", "<w/>")

    with pytest.raises(SourceError, match="is a sparse matrix of SciPy"):
        open_store(tmp_path / "s.npz")
    with pytest.raises(HarcaError):
        open_store(tmp_path / "w.npz")


def test_a_file_cut_short_keeps_its_whole_rows(tmp_path):
    save(tmp_path / "v.npy", [[number, 0.5] for number in range(100)])
    data = (tmp_path / "v.npy").read_bytes()[:-84]
    (tmp_path / "v.npy").write_bytes(data)

    *kept, rejected = entries(tmp_path / "v.npy")

    assert [one.embedding[0] for one in kept] == list(range(89))
    assert str(rejected) == "v.npy: unparsable: behind row 89 of 100: the file ends 11 rows early"


@pytest.mark.parametrize(
    "shape", [(1 << 60, 2), (2, 1 << 60), (1 << 40, 1 << 40)], ids=["rows", "dims", "both"]
)
@pytest.mark.parametrize("order", [True, False])
def test_a_header_that_promises_too_much_allocates_nothing(shape, order, tmp_path):
    header = repr({"descr": "<f4", "fortran_order": order, "shape": shape}).encode()
    path = tmp_path / "v.npy"
    path.write_bytes(b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header + bytes(800))

    found = entries(path)

    assert isinstance(found[-1], Rejection)
    assert len(found) <= 101


def test_an_archive_that_blows_up_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(numpy_arrays, "_SMALL_BYTES", 1 << 20)
    path = tmp_path / "v.npz"
    np.savez_compressed(path, v=np.zeros((1 << 10, 1 << 9), np.float32))

    with pytest.raises(SourceError, match=r"bytes of v\.npy packed in"):
        open_store(path)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    changes=st.lists(
        st.tuples(st.integers(0, 1 << 12), st.binary(min_size=1, max_size=9)), max_size=6
    ),
    cut=st.integers(0, 1 << 12),
    suffix=st.sampled_from(["npy", "npz"]),
)
def test_any_damage_gives_errors_and_rejections_only(changes, cut, suffix, tmp_path):
    path = tmp_path / f"v.{suffix}"
    if suffix == "npy":
        np.save(path, np.array(VECTORS))
    else:
        np.savez_compressed(path, v=np.array(VECTORS), texts=np.array(["a", "b"]))
    data = bytearray(path.read_bytes())
    for at, value in changes:
        at %= len(data)
        data[at : at + len(value)] = value[: len(data) - at]
    path.write_bytes(data[: len(data) - cut % 200])

    with suppress(HarcaError):
        found = entries(path)
        assert all(isinstance(one, Record | Rejection) for one in found)


def test_a_folder_of_other_arrays_says_what_it_holds(tmp_path):
    save(tmp_path / "images.npy", np.zeros((2, 2, 2)))

    with pytest.raises(EmptyStore, match=r"arrays that are no vectors: images\.npy \(float32 of"):
        open_store(tmp_path)


def test_a_real_store_is_read_whole():
    store = SHARED / "stores" / "numpy" / "facts-chunks"
    if not store.exists():
        pytest.skip("the real store facts-chunks is not here")

    found = entries(store)

    assert [(type(one), len(one.embedding)) for one in found] == [(Record, 384)] * 61
    assert found[0].content.startswith("Paris is the capital city of France")


def test_one_list_for_arrays_that_are_no_parts_is_refused(tmp_path):
    for name, rows in (("train", 3), ("test", 2)):
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(rows).random((rows, 8)))
    (tmp_path / "texts.txt").write_text("".join(f"text {n}\n" for n in range(5)))

    with pytest.raises(SourceError, match="one list of 5 entries for all of them"):
        list(open_store(tmp_path).items())


def test_an_archive_that_is_named_takes_nothing_from_files_beside_it(tmp_path):
    vectors = np.random.default_rng(1).random((3, 8)).astype(np.float32)
    np.savez(tmp_path / "store.npz", embeddings=vectors, ids=np.arange(3))
    items = [{"id": f"r{n}", "text": f"wrong {n}"} for n in range(3)]
    (tmp_path / "items.json").write_text(json.dumps(items))

    found = [one for one in open_store(tmp_path / "store.npz").items() if isinstance(one, Item)]

    assert [(one.key, one.content) for one in found] == [("0", ""), ("1", ""), ("2", "")]
