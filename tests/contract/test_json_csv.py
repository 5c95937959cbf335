"""JSON, CSV and cached vectors as programs write them; what cannot be told is said."""

import json
import uuid
from itertools import islice

import pytest

from harca.errors import SourceError, UnknownFormat, UsageError
from harca.load import Intake
from harca.model import Item, Record, Rejection, Warn
from harca.options import LoadOptions
from harca.readers import json_sample
from harca.readers.base import Defaults, FieldNames, open_store
from harca.readers.json_stream import elements_at
from tests.conftest import SHARED
from tests.unit.memory_target import STARTED

V, W = [0.5, -0.25], [1.5, 2.0]


def entries(path, **fields):
    reader = open_store(path, Defaults(fields=FieldNames(**fields)))
    return list(Intake(reader, LoadOptions(), now=STARTED).entries())


def write(folder, value, name="items.json"):
    path = folder / name
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def told(record):
    metadata = {name: json.loads(text) for name, text in record.metadata.items()}
    return record.key, record.content, record.embedding.tolist(), metadata


SHAPES = {
    "list": ([{"id": 7, "text": "t", "embedding": V}], ("7", "t", V, {})),
    "no id": ([{"text": "t", "vector": V}], ("items.json[0]", "t", V, {})),
    "Pinecone": (
        {"vectors": [{"id": "a", "values": V, "metadata": {"text": "t", "n": 1}}]},
        ("a", "t", V, {"n": 1}),
    ),
    "Qdrant": (
        {"result": {"points": [{"id": 1, "vector": V, "payload": {"page_content": "t"}}]}},
        ("1", "t", V, {}),
    ),
    "Elasticsearch": (
        {"hits": {"hits": [{"_id": "x", "_source": {"text": "t", "embedding": V, "n": 2}}]}},
        ("x", "t", V, {"_source": {"n": 2}}),
    ),
    "object of records": (
        {"a b": {"content": "t", "emb": V, "page": 2}}, ("a b", "t", V, {"page": 2}),
    ),
    "words": ({"cat": V}, ("cat", "cat", V, {})),
    "ids": ({"doc-1": V}, ("doc-1", "", V, {})),
    "list of vectors": ([V], ("items.json[0]", "", V, {})),
    "pandas": (
        {"text": {"0": "t"}, "embedding": {"0": V}, "n": {"0": 3}},
        ("items.json[0]", "t", V, {"n": 3}),
    ),
    "OpenAI": (
        {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": V}]},
        ("items.json#data[0]", "", V, {"object": "embedding", "index": 0}),
    ),
    "Haystack": (
        {"documents": [{"id": "h", "content": "t", "embedding": V, "meta": {"a": [1]}}]},
        ("h", "t", V, {"a": [1]}),
    ),
    "vector in a string": (
        [{"id": "a", "text": "t", "embedding": "[0.5,-0.25]"}], ("a", "t", V, {}),
    ),
    "metadata in a string": (
        [{"id": "a", "text": "t", "embedding": V, "metadata": '{"n": 1}'}], ("a", "t", V, {"n": 1}),
    ),
    "metadata and a field of one name": (
        [{"id": "a", "text": "t", "embedding": V, "metadata": {"n": 1}, "n": 2}],
        ("a", "t", V, {"n": 1, "fields": {"n": 2}}),
    ),
    "metadata that are none": (
        [{"id": "a", "text": "t", "embedding": V, "metadata": "plain"}],
        ("a", "t", V, {"metadata": "plain"}),
    ),
    "MongoDB": (
        [{"_id": {"$oid": "5f"}, "text": "t", "embedding": V}], ("5f", "t", V, {}),
    ),
}  # fmt: skip


@pytest.mark.parametrize(("value", "expected"), SHAPES.values(), ids=SHAPES)
def test_records_are_found_where_programs_write_them(value, expected, tmp_path):
    (found,) = entries(write(tmp_path, value))

    assert isinstance(found, Record), found
    assert told(found) == expected


def test_records_in_several_places_of_a_file_are_all_read(tmp_path):
    rows = [{"text": "a", "embedding": V}]
    path = write(tmp_path, {"train": rows, "test": {"rows": rows}, "model": "m-1"})

    found = entries(path)

    assert [(one.key, one.model_id) for one in found] == [
        ("items.json#train[0]", "m-1"), ("items.json#test.rows[0]", "m-1"),
    ]  # fmt: skip


def test_records_behind_the_part_that_is_looked_at_are_read_too(tmp_path, monkeypatch):
    monkeypatch.setattr(json_sample, "_PARTS", (400, 800))
    rows = [{"text": f"text {number}", "embedding": V} for number in range(40)]
    path = write(tmp_path, {"train": rows, "more": {"test": rows}, "model": "m-1"})

    found = entries(path)

    assert len(found) == len({one.key for one in found}) == 80
    assert {one.model_id for one in found} == {"m-1"}


def test_the_model_that_a_file_names_goes_before_the_operators(tmp_path):
    path = write(tmp_path, {"chunks": [{"text": "t", "embedding": V}], "info": {"modelName": "m"}})

    reader = open_store(path, Defaults(model_id="given"))
    (found,) = Intake(reader, LoadOptions(), now=STARTED).records()

    assert found.model_id == "m"


def test_a_record_that_is_none_stands_beside_those_that_are(tmp_path):
    rows = [{"id": "a", "text": "t", "embedding": V}, 5, {"id": "b", "text": "u"}, [1.0]]

    found = entries(write(tmp_path, rows))

    assert [one.reason if isinstance(one, Rejection) else one.key for one in found] == [
        "a", "no-vector", "no-vector", "no-vector",
    ]  # fmt: skip
    assert [json.loads(one.payload) for one in found[1:]] == rows[1:]


def test_a_damaged_line_is_one_rejection(tmp_path):
    good = json.dumps({"id": "a", "text": "t", "embedding": V})
    path = write(tmp_path, f"{good}\n{{bad\n\n[1]\n{good[:-9]}", "items.jsonl")

    found = entries(path)

    assert [getattr(one, "reason", one.origin) for one in found] == [
        "items.jsonl:1", "unparsable", "no-vector", "unparsable",
    ]  # fmt: skip
    assert [one.origin for one in found] == [f"items.jsonl:{line}" for line in (1, 2, 4, 5)]
    assert found[1].payload == b"{bad\n"


def test_a_missing_text_is_a_warning(tmp_path):
    rows = [{"id": "a", "text": "t", "embedding": V}, {"id": "b", "embedding": W}]

    found = entries(write(tmp_path, rows))

    assert [(one.content, one.warnings) for one in found] == [("t", ()), ("", (Warn.NO_TEXT,))]


def test_lists_of_different_length_are_refused(tmp_path):
    path = write(tmp_path, {"embeddings": [V, W], "documents": ["a", "b", "c"]})

    with pytest.raises(SourceError, match='2 vectors, but 3 entries in "documents"'):
        entries(path)


def test_a_second_vector_is_named_and_can_be_chosen(tmp_path):
    path = write(tmp_path, [{"id": 1, "text": "t", "title_vector": W, "content_vector": V}])
    reader = open_store(path)

    (first,) = Intake(reader, LoadOptions(), now=STARTED).records()
    (second,) = entries(path, vector="title_vector")

    assert first.embedding.tolist() == V
    assert first.metadata == {}
    assert reader.notes.left_out == [("items.json", 'field "title_vector", another vector')]
    assert second.embedding.tolist() == W


def test_the_operators_fields_go_first(tmp_path):
    row = {"id": 1, "pk": "p", "text": "t", "body": {"raw": "b"}, "embedding": V, "other": W}
    path = write(tmp_path, {"a": {"b": [{**row, "by": "m2", "at": "2024-05-01T00:00:00Z"}]}})

    (found,) = entries(
        path, id="pk", text="body.raw", vector="other", model="by", created="at", records="a.b"
    )

    assert (found.key, found.content, found.model_id) == ("p", "b", "m2")
    assert found.embedding.tolist() == W
    assert found.created_at.year == 2024


def test_a_short_vector_of_an_unusual_name_can_be_named(tmp_path):
    path = write(tmp_path, {"rows": [{"t": "text", "v": V}]})

    (found,) = entries(path, vector="v", records="rows")

    assert told(found) == ("items.json#rows[0]", "text", V, {})


@pytest.mark.parametrize("given", ["id", "text", "vector", "metadata", "model", "created"])
def test_a_field_that_is_not_there_is_refused(given, tmp_path):
    path = write(tmp_path, [{"id": 1, "text": "t", "embedding": V}])

    with pytest.raises(UsageError, match='no field "nope" in the first records') as caught:
        entries(path, **{given: "nope"})

    assert '"id", "text", "embedding"' in str(caught.value)


def test_an_id_that_repeats_in_the_sample_is_no_key(tmp_path):
    rows = [{"id": "same", "text": text, "embedding": V} for text in "ab"]

    assert [one.key for one in entries(write(tmp_path, rows))] == ["items.json[0]", "items.json[1]"]


def test_json_that_is_about_other_things_is_no_store(tmp_path):
    for name, value in {"package": {"name": "x", "version": [1, 2, 3]}, "list": [1, 2]}.items():
        write(tmp_path, value, f"{name}.json")

    with pytest.raises(UnknownFormat):
        open_store(tmp_path)


def test_a_damaged_file_among_others_is_a_rejection(tmp_path):
    write(tmp_path, {"text": "t", "embedding": V, "id": "a"}, "1.json")
    write(tmp_path, '{"text": "u", "embe', "2.json")
    write(tmp_path, {"other": 1}, "3.json")
    write(tmp_path, "version https://git-lfs.github.com/spec/v1\n", "4.json")
    reader = open_store(tmp_path)

    found = list(Intake(reader, LoadOptions(), now=STARTED).entries())

    assert [getattr(one, "reason", "in") for one in found] == ["in", "unparsable", "lfs-pointer"]
    assert reader.notes.left_out == [("3.json", "JSON, but no record")]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64])
def test_elements_do_not_depend_on_where_chunks_end(size, tmp_path, monkeypatch):
    monkeypatch.setattr("harca.readers.json_stream._CHUNK_BYTES", size)
    value = {
        "x": [1, {"y": ']}\\"'}],
        "é": [{"a": "\\\\"}, "b,]", 1.5, None, [[]], {}],
        "z": "\u2028",
    }
    path = write(tmp_path, json.dumps(value, indent=1, ensure_ascii=False))

    with path.open("rb") as file:
        found = [element.value() for element in elements_at(file, ["é"])]

    assert found == value["é"]


@pytest.mark.parametrize(
    "text", ["", "[", "[1", "[1,", "[1,]", "[1 2]", "[1] 2", '["a', "[{]", "{1}", "]", "[1}"]
)
def test_what_is_no_list_is_damaged(text, tmp_path):
    path = write(tmp_path, text)

    with path.open("rb") as file, pytest.raises(ValueError, match=r"byte|JSON|Expecting"):
        [element.value() for element in elements_at(file, [])]


TABLES = {
    "JSON": ('text,embedding\n"a, ""b""","[0.5, -0.25]"\n', ("t.csv#1", 'a, "b"', {})),
    "Python": ('id;text;embedding\n1;t;"(0.5, -0.25)"\n', ("1", "t", {})),
    "NumPy": ('text\tembedding\tn\nt\t"[ 0.5\n -0.25]"\t3\n', ("t.csv#1", "t", {"n": "3"})),
    "NumPy's repr": (
        'text,embedding\nt,"array([0.5, -0.25], dtype=float32)"\n', ("t.csv#1", "t", {}),
    ),
    "PostgreSQL": ('id,content,embedding\nu,t,"{0.5,-0.25}"\n', ("u", "t", {})),
    "no header": ('t,"[0.5, -0.25]"\n', ("t.csv#1", "t", {})),
    "byte order mark": ('\ufeffid,text,embedding\n1,t,"[0.5, -0.25]"\n', ("1", "t", {})),
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), TABLES.values(), ids=TABLES)
def test_tables_are_read_as_programs_write_them(text, expected, tmp_path):
    (found,) = entries(write(tmp_path, text, "t.csv"))

    assert isinstance(found, Record), found
    assert told(found) == (*expected[:2], V, expected[2])


def test_lines_of_json_are_no_table(tmp_path):
    rows = [{"id": n, "text": "t", "embedding": [n / 8 + k for k in range(20)]} for n in range(9)]
    path = write(tmp_path, "".join(json.dumps(row) + "\n" for row in rows), "items.jsonl")

    assert open_store(path).format == "jsonl"


def test_components_in_columns_are_a_vector(tmp_path):
    header = ["name", *(f"x{number}" for number in range(10))]
    path = write(tmp_path, f"{','.join(header)}\nt,{','.join(['0.5'] * 10)}\n", "t.csv")

    (found,) = entries(path)

    assert told(found) == ("t.csv#1", "t", [0.5] * 10, {})


def test_bad_lines_of_a_table_are_rejections(tmp_path):
    vector = '"[0.5, -0.25]"'
    text = f'text,embedding\na,{vector}\nb\nc,"[0.5 ... 1]"\nd,nothing\ne,{vector}\nf,"[0.5'

    found = entries(write(tmp_path, text, "t.csv"))

    assert [getattr(one, "reason", one.origin) for one in found] == [
        "t.csv#1", "unparsable", "not-a-vector", "not-a-vector", "t.csv#5", "unparsable",
    ]  # fmt: skip


def test_bytes_that_are_no_utf_8_are_rejected(tmp_path):
    path = tmp_path / "t.csv"
    path.write_bytes(b'text,embedding\ncaf\xe9,"[0.5, 1.5]"\n')

    (found,) = entries(path)

    assert found.reason == "lone-surrogate"


def test_the_namespace_of_cached_vectors_is_their_model(tmp_path):
    names = {f"ada-002{uuid.uuid5(uuid.NAMESPACE_URL, 'x')}": "ada-002", "0" * 40: "unknown"}
    for name in names:
        write(tmp_path, V, name)
    write(tmp_path, {"a": 1}, "notes.json")
    write(tmp_path, '{"a": 1}', "1" * 40)

    found = entries(tmp_path)

    kept = {one.key: one.model_id for one in found if isinstance(one, Record)}
    assert kept == names
    assert [one.reason for one in found if isinstance(one, Rejection)] == ["not-a-vector"]


REAL = {
    "json/kotlin-chunks": (70, 768),
    "json/museum-list": (63, 384),
    "csv/contoso-list-column": (953, 100),
}


@pytest.mark.parametrize(("name", "expected"), REAL.items(), ids=REAL)
def test_real_stores_are_read_whole(name, expected):
    store = SHARED / "stores" / name
    if not store.exists():
        pytest.skip(f"the real store {name} is not here")

    found = entries(store)

    assert all(isinstance(one, Record) and one.content for one in found)
    assert (len(found), len(found[0].embedding)) == expected
    assert len({one.key for one in found}) == expected[0]


def test_an_open_quote_in_one_line_costs_that_line_only(tmp_path):
    lines = ["text,embedding", *(f'row {n},"[0.5, {n}]"' for n in range(20))]
    lines[6] = 'bad,"[0.5, 1'

    found = entries(write(tmp_path, "\n".join(lines) + "\n", "t.csv"))

    assert sum(isinstance(one, Record) for one in found) == 19
    assert [one.payload for one in found if isinstance(one, Rejection)] == [b'bad,"[0.5, 1\n']


def test_a_first_line_of_numbers_is_a_record(tmp_path):
    rows = [",".join([f"doc{n}", *(f"{n}.{k}" for k in range(9))]) for n in range(3)]

    found = entries(write(tmp_path, "\n".join(rows), "t.csv"))

    assert [one.content for one in found] == ["doc0", "doc1", "doc2"]


def test_vectors_that_begin_late_are_read(tmp_path):
    rows = [{"id": str(n), "text": f"t {n}", "embedding": None if n < 60 else V} for n in range(90)]
    write(tmp_path, "".join(json.dumps(row) + "\n" for row in rows), "b.jsonl")
    write(tmp_path, json.dumps({"id": "x", "text": "x", "embedding": V}) + "\n", "a.jsonl")

    found = entries(tmp_path)

    assert sum(isinstance(one, Record) for one in found) == 31
    assert sum(isinstance(one, Rejection) for one in found) == 60


@pytest.mark.parametrize("name", ["b.csv", "link.csv"])
def test_a_table_that_cannot_be_read_is_a_rejection(name, tmp_path):
    write(tmp_path, 'text,embedding\na,"[0.5, 1]"\n', "a.csv")
    if name == "link.csv":
        (tmp_path / name).symlink_to("nowhere")
    else:
        write(tmp_path, 'text,embedding\na\0,"[0.5, 1]"\n', name)

    found = entries(tmp_path)

    assert [type(one) for one in found] == [Record, Rejection]


def test_a_folder_that_is_a_link_is_read(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "store").mkdir()
    write(tmp_path / "real", [{"id": 1, "text": "t", "embedding": V}])
    (tmp_path / "store" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "back").symlink_to(tmp_path / "store")

    assert [one.origin for one in entries(tmp_path / "store")] == ["link/items.json[0]"]


def test_long_texts_that_are_names_of_vectors_are_read(tmp_path):
    texts = {f"{n} " + "long text " * 300: V for n in range(3)}

    found = entries(write(tmp_path, texts))

    assert [one.content for one in found] == list(texts)
    assert len({one.key for one in found}) == 3


def test_a_field_that_is_a_vector_once_stays_where_it_is_none(tmp_path):
    rows = [
        {"id": 1, "text": "a", "embedding": V, "values": [1, 2, 3]},
        {"id": 2, "text": "b", "embedding": V, "values": "some"},
    ]

    found = entries(write(tmp_path, rows))

    assert [told(one)[3] for one in found] == [{"values": [1, 2, 3]}, {"values": "some"}]


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_a_file_that_grows_faster_than_it_is_read_has_an_end(suffix, tmp_path):
    path = tmp_path / f"items.{suffix}"

    def line(number):
        if suffix == "csv":
            return f'{number},"é","[1.0, {number}]"\n'
        return json.dumps({"id": str(number), "text": "t", "embedding": [1.0, number]}) + "\n"

    path.write_text("id,text,embedding\n" * (suffix == "csv"), "utf-8")
    with path.open("a", encoding="utf-8") as file:
        file.writelines(map(line, range(500)))
    reader = open_store(path)
    keys = []

    with path.open("a", encoding="utf-8") as file:
        for item in islice(reader.items(), 5_000):
            assert isinstance(item, Item), item
            keys.append(str(item.key))
            file.write(line(500 + len(keys)))
            file.flush()

    assert keys[:500] == [str(number) for number in range(500)]
    assert len(keys) < 1_000


@pytest.mark.parametrize("begun", ["", "[", '[{"id": "0", "text": "t", "embed'])
def test_a_list_that_is_being_rewritten_is_read_when_it_is_finished(begun, tmp_path, monkeypatch):
    value = [{"id": str(number), "text": "t", "embedding": V} for number in range(3)]
    path = write(tmp_path, value)
    reader = open_store(path)
    path.write_text(begun)
    monkeypatch.setattr("harca.readers.files.time.sleep", lambda seconds: write(tmp_path, value))

    assert [getattr(item, "key", item) for item in reader.items()] == ["0", "1", "2"]


def test_a_line_that_is_being_written_is_read_when_it_is_finished(tmp_path, monkeypatch):
    lines = [json.dumps({"id": str(number), "text": "t", "embedding": V}) for number in range(3)]
    path = write(tmp_path, "\n".join(lines), "items.jsonl")
    reader = open_store(path)
    path.write_text("\n".join(lines)[:-20])

    def write_the_rest(seconds):
        with path.open("a") as file:
            file.write(lines[-1][-20:] + "\n" + lines[0].replace('"0"', '"3"') + "\n")

    monkeypatch.setattr("harca.readers.files.time.sleep", write_the_rest)

    # What has come behind the end that the file had is for the next pass.
    assert [getattr(item, "key", item) for item in reader.items()] == ["0", "1", "2"]
