"""HNSW indexes laid out byte by byte: what is read, and which headers are refused."""

import struct
from contextlib import closing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harca.errors import LfsPointer
from harca.readers.hnsw_file import HnswFile, NotHnsw
from tests.contract.make_chroma import floats, hnsw

VECTORS = [(7, [1.0, 2.0, 3.0]), (3, [4.0, 5.0, 6.0]), (1 << 40, [7.0, 8.0, -0.0])]


def vector(index, label):
    return index.vector(label)


def saved(folder, entries=VECTORS, **more):
    path = folder / "hnswlib.index"
    path.write_bytes(b"".join(hnsw(entries, **more)))
    return path


def folder_of(folder, *, lengths=b"", **more):
    header, elements, links = hnsw(VECTORS, room=10, **more)
    (folder / "header.bin").write_bytes(struct.pack("<i", 1) + header)
    (folder / "data_level0.bin").write_bytes(elements + b"\xff" * 900)  # room for more
    (folder / "length.bin").write_bytes(lengths)
    (folder / "link_lists.bin").write_bytes(links)
    return folder


@pytest.mark.parametrize("form", ["file", "folder"])
def test_vectors_are_found_by_label_bit_for_bit(form, tmp_path):
    opened = (
        HnswFile.open(saved(tmp_path))
        if form == "file"
        else HnswFile.open_folder(folder_of(tmp_path))
    )
    with closing(opened) as index:
        found = {label: vector(index, label).tobytes() for label in index.labels()}

        assert (len(index), index.count, index.whole, index.dims) == (3, 3, 3, 3)
        assert found == {label: floats(vector) for label, vector in VECTORS}
        assert list(found) == [3, 7, 1 << 40]
        assert [index.vector(label) for label in (0, 4, -1, 1 << 64, 1 << 63)] == [None] * 5


def test_elements_marked_as_deleted_are_passed_over(tmp_path):
    with closing(HnswFile.open(saved(tmp_path, deleted=[3]))) as index:
        assert list(index.labels()) == [7, 1 << 40]
        assert index.vector(3) is None
        assert (index.count, len(index)) == (3, 2)


def test_an_index_of_more_than_one_chunk_is_read_whole(tmp_path):
    many = [(number, [number / 3, float(number), -number / 7]) for number in range(12_000)]

    with closing(HnswFile.open(saved(tmp_path, many))) as index:
        found = [vector(index, number) for number in range(12_000)]

    assert np.array_equal(found, np.array([vector for _, vector in many], np.float32))


def test_lengths_are_by_label_and_end_where_the_file_does(tmp_path):
    folder = folder_of(tmp_path, lengths=floats([10.0, 20.0]) + b"\0\0")

    with closing(HnswFile.open_folder(folder)) as index:
        assert [index.length(label) for label in (7, 3, 1 << 40, 5)] == [10.0, 20.0, None, None]


def test_an_index_without_lengths_is_read_all_the_same(tmp_path):
    folder = folder_of(tmp_path)
    (folder / "length.bin").unlink()

    with closing(HnswFile.open_folder(folder)) as index:
        assert index.length(7) is None
        assert len(index) == 3


def test_of_a_file_cut_short_the_elements_before_are_read(tmp_path):
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[: 96 + 2 * 40 + 39])

    with closing(HnswFile.open(path)) as index:
        assert (index.count, index.whole) == (3, 2)
        assert list(index.labels()) == [3, 7]


# offsetLevel0, max_elements, cur_element_count, size_data_per_element, label_offset, offsetData
@pytest.mark.parametrize(
    ("at", "value"),
    [(0, 8), (1, 2), (2, 11), (3, 41), (3, 0), (4, 33), (4, 1 << 63), (5, 24), (5, 0)],
    ids=[
        "offset", "fewer than there are", "more than there is room for", "odd size", "no size",
        "label elsewhere", "label far away", "vector elsewhere", "vector on the links",
    ],
)  # fmt: skip
def test_a_header_that_contradicts_itself_is_refused(at, value, tmp_path):
    path = saved(tmp_path)
    data = bytearray(path.read_bytes())
    struct.pack_into("<Q", data, 8 * at, value)
    path.write_bytes(data)

    with pytest.raises(NotHnsw, match="the header contradicts itself"):
        HnswFile.open(path)


def test_a_huge_count_asks_for_no_memory(tmp_path):
    path = saved(tmp_path)
    data = bytearray(path.read_bytes())
    struct.pack_into("<QQ", data, 8, 1 << 62, 1 << 61)
    path.write_bytes(data)

    with closing(HnswFile.open(path)) as index:
        assert index.count == 1 << 61
        assert index.whole == 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("header.bin", b"", "no header.bin of version 1"),
        ("header.bin", struct.pack("<i", 2) + bytes(96), "no header.bin of version 1"),
        ("header.bin", struct.pack("<i", 1) + bytes(95), "a header of 95 bytes, expected 96"),
    ],
    ids=["empty", "another version", "cut short"],
)
def test_a_folder_without_a_whole_header_is_refused(name, content, message, tmp_path):
    folder = folder_of(tmp_path)
    (folder / name).write_bytes(content)

    with pytest.raises(NotHnsw, match=message):
        HnswFile.open_folder(folder)


@pytest.mark.parametrize("name", ["header.bin", "data_level0.bin"])
def test_a_git_lfs_pointer_in_place_of_a_file_is_told(name, tmp_path):
    folder = folder_of(tmp_path)
    (folder / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")

    with pytest.raises(LfsPointer, match=name):
        HnswFile.open_folder(folder)


def test_a_file_that_becomes_shorter_while_it_is_read_is_told(tmp_path):
    path = saved(tmp_path)
    with closing(HnswFile.open(path)) as index:
        path.write_bytes(path.read_bytes()[:100])

        with pytest.raises(OSError, match="became shorter"):
            index.vector(7)


@given(edits=st.lists(st.tuples(st.integers(0, 219), st.integers(0, 255)), max_size=6))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_an_index_or_refused(edits, tmp_path_factory):
    data = bytearray(b"".join(hnsw(VECTORS)))
    for at, byte in edits:
        data[at] = byte
    path = tmp_path_factory.mktemp("index") / "index"
    path.write_bytes(data)

    try:
        index = HnswFile.open(path)
    except NotHnsw:
        return

    with closing(index):
        assert all(index.vector(label) is not None for label in index.labels())
