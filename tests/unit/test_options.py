"""Options from texts, as ``-x name=value`` gives them."""

import json
import os

import pytest

from harca.errors import ExitCode, UsageError
from harca.migrate import store_name
from harca.model import Expired, OnConflict
from harca.options import LoadOptions

KNOWN = (
    "Known: batch_rows, created_field, expired, format, id_field, mapping, max_rejects, "
    "metadata_field, model, model_field, name, on_conflict, records, source, text_field, "
    "vector_field, store, database."
)


def test_texts_become_values():
    options = LoadOptions.from_text(
        {
            "name": "本番",
            "on_conflict": "oldest",
            "expired": "skip",
            "source": "s",
            "model": "m",
            "batch_rows": "1",
            "max_rejects": "0",
        }
    )

    assert options == LoadOptions("本番", OnConflict.OLDEST, Expired.SKIP, "s", "m", 1, 0)


def test_nothing_given_is_the_default():
    assert LoadOptions.from_text({}) == LoadOptions()
    assert LoadOptions().on_conflict is OnConflict.NEWEST
    assert LoadOptions().expired is Expired.KEEP
    assert LoadOptions().max_rejects is None


def x(name):
    return f"With alembic it is -x {name}=VALUE."


@pytest.mark.parametrize(
    ("given", "message", "hint"),
    [
        ({"on_conflct": "newest"}, 'unknown option "on_conflct"', KNOWN),
        ({"z": "1", "a": "2"}, 'unknown option "a"', KNOWN),
        (
            {"on_conflict": "Newest"},
            '--on-conflict is "Newest", expected one of newest, oldest, keep, error',
            x("on_conflict"),
        ),
        (
            {"expired": ""},
            '--expired is "", expected one of keep, skip',
            x("expired"),
        ),
        (
            {"batch_rows": "0"},
            '--batch-rows is "0", expected a number from 1',
            x("batch_rows"),
        ),
        (
            {"batch_rows": "1e3"},
            '--batch-rows is "1e3", expected a number from 1',
            x("batch_rows"),
        ),
        (
            {"batch_rows": "-1"},
            '--batch-rows is "-1", expected a number from 1',
            x("batch_rows"),
        ),
        (
            {"max_rejects": "²"},
            '--max-rejects is "²", expected a number from 0',
            x("max_rejects"),
        ),
        (
            {"max_rejects": ""},
            '--max-rejects is "", expected a number from 0',
            x("max_rejects"),
        ),
        ({"name": " "}, "name is empty", "Give a label, or leave the option out."),
        ({"source": ""}, "source is empty", "Give a label, or leave the option out."),
        ({"model": "\t\n"}, "model is empty", "Give a label, or leave the option out."),
    ],
    ids=lambda value: "=".join(next(iter(value.items()))) if isinstance(value, dict) else "",
)
def test_what_cannot_be_used_is_refused(given, message, hint):
    with pytest.raises(UsageError) as caught:
        LoadOptions.from_text(given)

    assert str(caught.value) == message
    assert caught.value.hint == hint
    assert caught.value.exit_code == ExitCode.USAGE


@pytest.mark.parametrize("name", ["batch_rows", "max_rejects"])
def test_a_number_of_any_length_is_refused_in_our_words(name):
    with pytest.raises(UsageError):
        LoadOptions.from_text({name: "9" * 5000})


@pytest.mark.parametrize("name", ["name", "source", "model"])
def test_a_label_that_postgresql_cannot_store_is_refused(name):
    with pytest.raises(UsageError):
        LoadOptions.from_text({name: "not UTF-8: \udcff"})


def test_a_store_in_a_folder_whose_name_is_not_utf8_has_a_name_that_can_be_stored(tmp_path):
    folder = os.fsdecode(os.fsencode(tmp_path) + b"/\xff")

    assert store_name(folder, LoadOptions()).encode()


def test_a_nul_in_a_label_is_refused():
    with pytest.raises(UsageError):
        LoadOptions(name="a\0b")


def test_options_are_noted_as_json_and_read_back():
    options = LoadOptions(name="日", on_conflict=OnConflict.KEEP, max_rejects=3)

    noted = json.loads(json.dumps(options.as_dict()))

    assert noted["on_conflict"] == "keep"
    assert LoadOptions(**noted) == options


def test_a_mapping_file_says_what_a_store_is_and_options_go_first(tmp_path):
    path = tmp_path / "odd.toml"
    path.write_text('format = "json"\ntext_field = "body"\nmodel = "m"\nrecords = "a.b"\n')

    options = LoadOptions.from_text({"mapping": str(path), "model": "given"})

    assert (options.format, options.model, options.records) == ("json", "given", "a.b")
    assert options.defaults.fields.text == "body"
    assert LoadOptions(**options.as_dict()) == options


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read: No such file"),
        ("text_field = ", "is no TOML"),
        ("\udcff", "is no TOML"),
        ('on_conflict = "newest"', 'unknown name "on_conflict"'),
        ("text_field = 1", '"text_field" is no string'),
        ('format = "nope"', '--format is "nope", expected one of '),
    ],
)
def test_a_mapping_file_that_cannot_be_used_is_refused(text, message, tmp_path):
    path = tmp_path / "odd.toml"
    if text is not None:
        path.write_bytes(text.encode(errors="surrogateescape"))

    with pytest.raises(UsageError) as caught:
        LoadOptions.from_text({"mapping": str(path)})

    assert message in str(caught.value)
    assert caught.value.hint
