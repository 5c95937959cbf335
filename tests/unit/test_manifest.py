"""Manifests: what is noticed of what is written to a store."""

import pytest

from harca.manifest import Manifest


@pytest.fixture
def store(tmp_path):
    store = tmp_path / "store"
    (store / "a" / "b").mkdir(parents=True)
    (store / "one.json").write_text("1")
    (store / "a" / "b" / "two.json").write_text("22")
    return store


def test_nothing_has_changed_where_nothing_was_written(store):
    before = Manifest.of(store)
    (store / "one.json").read_text()

    assert not before.changes()


@pytest.mark.parametrize(
    ("change", "written", "gone"),
    [
        (lambda store: (store / "a" / "new.json").write_text("3"), 1, 0),
        (lambda store: (store / "one.json").write_text("longer"), 1, 0),
        (lambda store: (store / "one.json").write_text("2"), 1, 0),  # as long, moments later
        (lambda store: (store / "one.json").unlink(), 0, 1),
        (lambda store: (store / "one.json").rename(store / "other.json"), 1, 1),
        (lambda store: (store / "stats.json").write_text("{}"), 0, 0),
        (lambda store: (store / "d" / ".git").mkdir(parents=True), 0, 0),
        (lambda store: (store / "vectors.db-shm").write_text("readers write to it"), 0, 0),
    ],
    ids=["new", "longer", "rewritten", "gone", "renamed", "ignored", "folders", "shared memory"],
)
def test_what_is_written_is_noticed(change, written, gone, store):
    before = Manifest.of(store)

    change(store)

    found = before.changes(ignored={"stats.json"})
    assert (found.written, found.gone) == (written, gone)
    assert bool(found) is bool(written or gone)


def test_a_file_is_seen_with_what_sqlite_keeps_beside_it(tmp_path):
    file = tmp_path / "vectors.db"
    file.write_text("x")
    (tmp_path / "other.db").write_text("x")
    before = Manifest.of(file)

    (tmp_path / "other.db").write_text("another")
    assert not before.changes()
    (tmp_path / "vectors.db-wal").write_text("written")
    assert before.changes().written == 1


def test_links_are_followed_once_and_what_cannot_be_seen_is_no_error(store, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (store / "link").symlink_to(elsewhere)
    (store / "a" / "up").symlink_to(store)
    (store / "nowhere.json").symlink_to(tmp_path / "nothing")
    before = Manifest.of(store)

    (elsewhere / "three.json").write_text("3")

    assert before.changes().written == 1
    store.rename(tmp_path / "moved")
    assert before.changes().gone == 2


def test_changes_are_told_in_words(store):
    before = Manifest.of(store)
    (store / "one.json").unlink()
    (store / "new.json").write_text("3")

    assert str(before.changes()) == "1 file written meanwhile, 1 gone"
