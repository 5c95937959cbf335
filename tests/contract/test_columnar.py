"""Parquet, Arrow and Feather: types of columns, layouts of folders, damage."""

import datetime as dt
import json
import sys
import tracemalloc
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]  # it ships no types
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harca.errors import EmptyStore, LfsPointer, MissingLibrary, SourceError, UsageError
from harca.load import Intake
from harca.model import Item, Record, Rejection
from harca.options import LoadOptions
from harca.readers import columnar
from harca.readers.base import Defaults, open_store
from tests.conftest import SHARED
from tests.contract import make_columnar
from tests.unit.memory_target import STARTED

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"
VECTORS = [[0.5, 1.25], [-3.0, 1e-7], [7.0, 0.125]]


def entries(path, **given):
    options = LoadOptions(**given)
    return list(Intake(open_store(path, options.defaults), options, now=STARTED).entries())


def records(path, **options):
    found = entries(path, **options)
    assert all(isinstance(one, Record) for one in found), found
    return found


def write(path: Path, rows: int = 3, **columns) -> Path:
    """Write a Parquet file of vectors and *columns*."""
    path.parent.mkdir(parents=True, exist_ok=True)
    vectors = columns.pop("embedding", pa.array(VECTORS[:rows], pa.list_(pa.float32())))
    pq.write_table(pa.table({"embedding": vectors, **columns}), path)
    return path


def metadata(record):
    return {name: json.loads(value) for name, value in record.metadata.items()}


@pytest.mark.parametrize(
    "column",
    [
        pa.array(VECTORS, pa.list_(pa.float32())),
        pa.array(VECTORS, pa.list_(pa.float64())),
        pa.array(VECTORS, pa.large_list(pa.float32())),
        pa.array(VECTORS, pa.list_(pa.float32(), 2)),
        pa.FixedShapeTensorArray.from_numpy_ndarray(np.array(VECTORS, np.float32)),
        pa.array([np.array(one, "<f4").tobytes() for one in VECTORS]),
        pa.array([np.array(one, "<f4").tobytes() for one in VECTORS], pa.binary(8)),
        pa.array([json.dumps(one) for one in VECTORS]),
        pa.array([str(np.array(one, np.float32)) for one in VECTORS]),
        pa.array([json.dumps(one) for one in VECTORS]).dictionary_encode(),
    ],
    ids=lambda column: str(column.type),
)
def test_a_vector_is_read_from_any_type_of_column(column, tmp_path):
    path = write(tmp_path / "a.parquet", embedding=column)

    found = records(path)

    expected = [np.array(one, np.float32).tobytes() for one in VECTORS]
    assert [one.embedding.tobytes() for one in found] == expected


@pytest.mark.parametrize("kind", ["float16", "int8", "int64", "uint8"])
def test_numbers_of_any_size_become_float32(kind, tmp_path):
    numbers = [[1, 2], [3, 4]]
    path = write(tmp_path / "a.parquet", embedding=pa.array(numbers, pa.list_(getattr(pa, kind)())))

    assert [one.embedding.tolist() for one in records(path)] == numbers


def test_a_list_view_is_read_from_an_arrow_file(tmp_path):
    path = tmp_path / "a.arrow"
    rows = pa.table({"embedding": pa.array([*VECTORS, None], pa.list_view(pa.float32()))})
    with pa.ipc.new_file(str(path), rows.schema) as file:
        file.write_table(rows)

    found = entries(path)

    assert [len(one.embedding) for one in found[:3]] == [2, 2, 2]
    assert found[3].reason == "no-vector"


def test_doubles_as_bytes_are_told_from_floats(tmp_path):
    dice = np.random.default_rng(1).normal(size=(20, 8))
    path = write(tmp_path / "a.parquet", embedding=pa.array([one.tobytes() for one in dice]))

    found = records(path)

    assert [one.embedding.tolist() for one in found] == dice.astype(np.float32).tolist()


@pytest.mark.parametrize("size", [-1, 2], ids=["variable", "fixed"])
def test_nulls_reject_their_row_and_no_other(size, tmp_path):
    vectors = [[1.0, 2.0], None, [3.0, None], [float("nan"), 1.0], [5.0, 6.0]]
    path = write(tmp_path / "a.parquet", embedding=pa.array(vectors, pa.list_(pa.float32(), size)))

    found = entries(path)

    assert [getattr(one, "reason", None) for one in found] == [
        None, "no-vector", "non-finite", "non-finite", None,
    ]  # fmt: skip
    assert found[4].embedding.tolist() == [5.0, 6.0]
    assert [one.origin for one in found] == [f"a.parquet#{number}" for number in range(5)]
    assert found[2].payload == b'{"embedding":[3.0,NaN]}'


def test_metadata_of_every_type_become_json(tmp_path):
    zone = dt.timezone(dt.timedelta(hours=9))
    row = {
        "at": pa.array(
            [dt.datetime(2024, 1, 2, 3, 4, 5, 6, tzinfo=zone)], pa.timestamp("us", "+09:00")
        ),
        "nanos": pa.array([1_700_000_000_123_456_789], pa.timestamp("ns")),
        "whole": pa.array([1_700_000_000_000_000_000], pa.timestamp("ns")),
        "far": pa.array([2**40], pa.timestamp("s")),
        "day": pa.array([dt.date(2024, 1, 2)]),
        "price": pa.array([Decimal("1.50")], pa.decimal128(9, 2)),
        "raw": pa.array([b"\xff\x00"]),
        "old_text": pa.array(["日本".encode()]),
        "who": pa.array([UUID(int=7).bytes], pa.uuid()),
        "tree": pa.array([{"a": [{"b": None}], "t": dt.date(2024, 1, 2)}]),
        "map": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
        "twice": pa.array([[("k", 1), ("k", 2)]], pa.map_(pa.string(), pa.int64())),
        "category": pa.array(["x"]).dictionary_encode(),
        "missing": pa.array([float("nan")]),
        "flags": pa.array([[True, None]]),
        "numbers": pa.array([[1, None]]),
        "__index_level_0__": pa.array([41]),
    }  # fmt: skip

    (found,) = records(write(tmp_path / "a.parquet", 1, **row))

    assert found.key == "a.parquet#0"
    assert metadata(found) == {
        "at": "2024-01-02T03:04:05.000006+09:00",
        "nanos": "2023-11-14 22:13:20.123456789",
        "whole": "2023-11-14T22:13:20",
        "far": "<value out of range: 1099511627776000>",
        "day": "2024-01-02",
        "price": "1.50",
        "raw": {"base64": "/wA="},
        "who": str(UUID(int=7)),
        "tree": {"a": [{"b": None}], "t": "2024-01-02"},
        "map": {"k": 1},
        "twice": [["k", 1], ["k", 2]],
        "category": "x",
        "missing": None,
        "flags": [True, None],
        "numbers": [1, None],
        "__index_level_0__": 41,
        "old_text": "日本",
    }


def test_a_pandas_index_that_is_called_id_is_the_key(tmp_path):
    path = write(tmp_path / "a.parquet", id=["x", "y", "z"], text=["a", "b", "c"])

    assert [(one.key, one.content) for one in records(path)] == [
        ("x", "a"), ("y", "b"), ("z", "c"),
    ]  # fmt: skip


def test_the_operator_s_names_come_first(tmp_path):
    path = write(tmp_path / "a.parquet", v=VECTORS, id=["x", "y", "z"], name=["a", "b", "c"])

    found = records(path, vector_field="v", id_field="name", text_field="id")

    assert [(one.key, one.content) for one in found] == [("a", "x"), ("b", "y"), ("c", "z")]
    with pytest.raises(UsageError, match='no field "nope"'):
        entries(path, text_field="nope")


def test_another_vector_is_named_and_not_kept(tmp_path):
    path = write(tmp_path / "a.parquet", title_embedding=VECTORS)
    reader = open_store(path)

    found: list[Any] = list(reader.items())

    assert [one.metadata for one in found] == [{}, {}, {}]
    assert reader.notes.left_out == [("a.parquet", 'column "title_embedding", another vector')]


def test_files_of_a_folder_are_read_in_the_order_of_their_paths(tmp_path):
    write(tmp_path / "s" / "lang=en" / "b.parquet")
    write(tmp_path / "s" / "lang=__HIVE_DEFAULT_PARTITION__" / "a.parquet", 1)
    pq.write_table(pa.table({"id": [1], "text": ["t"]}), tmp_path / "s" / "documents.parquet")
    reader = open_store(tmp_path / "s")

    found: list[Any] = list(reader.items())

    assert [(one.key, one.metadata) for one in found] == [
        ("lang=__HIVE_DEFAULT_PARTITION__/a.parquet#0", {"lang": None}),
        *((f"lang=en/b.parquet#{number}", {"lang": "en"}) for number in range(3)),
    ]
    assert reader.notes.left_out == [("documents.parquet", "no column with vectors")]
    assert (reader.format, reader.size_hint()) == ("parquet", 4)


def test_what_a_file_is_is_told_by_its_first_bytes(tmp_path):
    for make, called in (
        (make_columnar.parquet, "parquet"), (make_columnar.arrow_file, "arrow"),
        (make_columnar.feather_file, "arrow"), (make_columnar.feather_1, "feather"),
    ):  # fmt: skip
        path = make(tmp_path, [("a", [1.0, 2.0])]).rename(tmp_path / "model.bin")

        assert open_store(path).format == called
        assert [one.content for one in records(path)] == ["a"]


def test_feather_1_is_read(tmp_path):
    path = make_columnar.feather_1(tmp_path, [("日本", [1.0, 2.0]), ("b", [3.0, 4.0])])

    assert [(one.content, one.embedding.tolist(), one.source) for one in records(path)] == [
        ("日本", [1.0, 2.0], "feather"), ("b", [3.0, 4.0], "feather"),
    ]  # fmt: skip


def test_damage_in_feather_1_does_not_end_the_process(tmp_path):
    path = make_columnar.feather_1(tmp_path, [("a", [1.0, 2.0])])
    data = path.read_bytes()
    for at in range(len(data) - 120, len(data) - 8, 9):
        path.write_bytes(data[:at] + b"\xff\xff\xff\x7f" + data[at + 4 :])

        try:
            found = entries(path)
        except SourceError:
            continue
        assert len(found) == 1


def test_rows_behind_a_damaged_row_group_are_read(tmp_path):
    path = tmp_path / "a.parquet"
    rows = pa.table(
        {"id": [f"i{n}" for n in range(30)], "embedding": [[n + 0.5] for n in range(30)]}
    )
    pq.write_table(rows, path, row_group_size=10, compression="NONE", write_page_checksum=True)
    chunk = pq.read_metadata(path).row_group(1).column(1)
    data = bytearray(path.read_bytes())
    data[chunk.dictionary_page_offset + chunk.total_compressed_size // 2] ^= 0xFF
    path.write_bytes(data)

    found = entries(path)

    assert [one.key for one in found if isinstance(one, Record)] == [
        f"i{number}" for number in (*range(10), *range(20, 30))
    ]
    (rejected,) = [one for one in found if isinstance(one, Rejection)]
    assert (rejected.origin, rejected.reason) == ("a.parquet#10 to #19", "unparsable")
    assert rejected.payload == bytes(data)


def test_a_stream_that_was_cut_between_batches_says_so(tmp_path):
    path = make_columnar.arrow_stream(tmp_path, [(str(n), [n + 0.5]) for n in range(10)])
    file = path / "data-00000-of-00001.arrow"
    whole = file.read_bytes()
    with pa.OSFile(str(file)) as source:
        stream = pa.ipc.open_stream(source)
        stream.read_next_batch()
        end = source.tell()
    file.write_bytes(whole[:end])

    *kept, last = entries(path)

    assert [one.content for one in kept] == [str(number) for number in range(5)]
    assert "cut short" in last.detail


def test_a_file_that_cannot_be_opened_is_an_error_or_one_rejection(tmp_path):
    bad = write(tmp_path / "s" / "bad.parquet")
    bad.write_bytes(bad.read_bytes()[:100])

    with pytest.raises(SourceError, match="is a parquet file that cannot be read") as alone:
        entries(bad)
    with pytest.raises(EmptyStore, match=r"found bad\.parquet, which cannot be read"):
        entries(tmp_path / "s")
    write(tmp_path / "s" / "good.parquet")
    first, *kept = entries(tmp_path / "s")

    assert alone.value.hint
    assert (first.origin, first.reason) == ("bad.parquet", "unparsable")
    assert len(kept) == 3


def test_git_lfs_pointers_are_named(tmp_path):
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "a.parquet").write_bytes(POINTER)

    with pytest.raises(LfsPointer):
        entries(tmp_path / "s" / "a.parquet")
    write(tmp_path / "s" / "b.parquet", 1)

    assert [getattr(one, "reason", None) for one in entries(tmp_path / "s")] == [
        "lfs-pointer",
        None,
    ]


@pytest.mark.parametrize(
    ("sign", "name"),
    [("_delta_log/0.json", "Delta Lake"), ("metadata/v1.metadata.json", "Iceberg"),
     (".hoodie/hoodie.properties", "Hudi")],
)  # fmt: skip
def test_tables_with_a_log_of_their_own_are_refused(sign, name, tmp_path):
    write(tmp_path / "s" / "data" / "part-0.parquet")
    (tmp_path / "s" / sign).parent.mkdir()
    (tmp_path / "s" / sign).touch()

    with pytest.raises(SourceError, match=f"is a {name} table"):
        columnar.open_path(tmp_path / "s", Defaults())


def test_without_pyarrow_it_says_what_to_install(tmp_path, monkeypatch):
    path = write(tmp_path / "a.parquet")
    monkeypatch.setitem(sys.modules, "harca.readers.arrow_files", None)

    with pytest.raises(MissingLibrary) as caught:
        open_store(path)

    assert 'pip install "harca[parquet]"' in caught.value.hint


def test_memory_is_a_part_of_a_large_row_group(tmp_path):
    numbers = np.random.default_rng(1).random(60_000 * 64, dtype=np.float32)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(numbers), 64)
    path = write(tmp_path / "a.parquet", embedding=vectors)
    assert pq.read_metadata(path).num_row_groups == 1
    before, most, count = pa.total_allocated_bytes(), 0, 0

    tracemalloc.start()
    for item in open_store(path).items():
        assert isinstance(item, Item)
        count += 1
        most = max(most, pa.total_allocated_bytes() - before) if count % 500 == 0 else most
    python = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert count == 60_000
    assert most + python < numbers.nbytes / 2


@st.composite
def damaged(draw, size):
    """Return places in a file, and the bytes to be put there."""
    places = st.integers(0, size - 1) | st.integers(max(0, size - 2_500), size - 1)
    return draw(st.dictionaries(places, st.integers(0, 255), min_size=1, max_size=12))


SMALL = [(f"text {number}", [number + 0.5, -1.0, 2.0]) for number in range(12)]


@pytest.mark.parametrize(
    "make",
    [make_columnar.parquet, make_columnar.parquet_fixed_size, make_columnar.parquet_compressed,
     make_columnar.arrow_file, make_columnar.arrow_stream, make_columnar.feather_compressed],
)  # fmt: skip
@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damage_gives_an_error_or_rejections(make, data, tmp_path_factory):
    path = make(tmp_path_factory.mktemp("fuzz"), SMALL)
    file = next(path.rglob("*.arrow")) if path.is_dir() else path
    raw = bytearray(file.read_bytes())
    for at, byte in data.draw(damaged(len(raw))).items():
        raw[at] = byte
    file.write_bytes(raw)

    try:
        reader = columnar.open_path(file, Defaults())
        found = [] if reader is None else list(reader.items())
    except SourceError:
        return

    assert all(isinstance(one, Item | Rejection) for one in found)


@pytest.fixture
def movies():
    path = SHARED / "stores" / "parquet" / "movies-random"
    if not path.exists():
        pytest.skip("the real stores are not here")
    return path


def test_a_real_file_of_pandas(movies):
    found = records(movies)

    assert len(found) == 100
    assert {len(one.embedding) for one in found} == {384}
    assert (found[0].key, found[0].content) == ("embeddings.parquet#0", "Movie 0")
    norms = [float(np.linalg.norm(one.embedding)) for one in found]
    assert 10.6 < min(norms) < max(norms) < 11.9
