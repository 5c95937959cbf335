"""Bad records are counted, named and kept; the rest is loaded. Bad stores are refused."""

import os
import shutil
from pathlib import Path

import pytest

from tests.stores import record, write_record, write_store

BAD = {
    "truncated": "unparsable",
    "nan": "non-finite",
    "empty vector": "empty-vector",
    "nested list": "not-a-vector",
    "nested single numbers": "not-a-vector",
    "NUL in text": "nul-in-text",
    "lone surrogate": "lone-surrogate",
    "17,000 dimensions": "too-many-dims",
    "huge number": "non-finite",
    "beyond a double": "non-finite",
    "numbers in quotes": "not-a-vector",
    "booleans": "not-a-vector",
    "metadata is a list": "metadata-not-object",
    "binary": "unparsable",
    "no vector": "no-vector",
    "object as vector": "not-a-vector",
    "link to itself": "symlink-loop",
    "link to nothing": "unreadable",
    "named pipe": "unreadable",
    "text is a number": "no-text",
    "LFS pointer": "lfs-pointer",
    "bad base64": "unparsable",
}


def write_bad_store(root: Path, *, good: int = 10) -> Path:
    """Write *good* records, and one of each kind in `BAD`."""
    write_store(root, good)
    bad = root / "bad"
    whole = write_record(bad, record("truncated", [0.5] * 50))
    whole.write_bytes(whole.read_bytes()[:-40])
    write_record(bad, record("nan", [1.0, None, 2.0]))
    write_record(bad, record("empty vector", []))
    write_record(bad, record("nested list", [[1.0, 2.0], [3.0]]))
    write_record(bad, record("nested single numbers", [[1.0], [2.0]]))
    write_record(bad, record("NUL \0 in text", [1.0, 2.0]))
    write_record(bad, record("lone \ud800 surrogate", [1.0, 2.0]))
    write_record(bad, record("17,000 dimensions", [0.25] * 17_000))
    write_record(bad, record("huge number", [1e39, 1.0]))
    beyond = write_record(bad, record("beyond a double", [123456.5, 1.0]))
    beyond.write_text(beyond.read_text().replace("123456.5", "1e400"))
    write_record(bad, record("numbers in quotes", ["1.0", "2.0"]))
    write_record(bad, record("booleans", [True, False]))
    write_record(bad, record("metadata is a list", [1.0, 2.0], metadata=[1, 2]))
    (bad / "binary.json").write_bytes(bytes(range(256)) * 20)
    write_record(bad, record("no vector", None))
    write_record(bad, record("object as vector", {"text": "x", "vector": [1.0]}))
    (bad / "link-to-itself.json").symlink_to("link-to-itself.json")
    (bad / "link-to-nothing.json").symlink_to("nowhere.json")
    os.mkfifo(bad / "pipe.json")
    write_record(bad, record(5, [1.0, 2.0]))  # type: ignore[arg-type]
    (bad / "lfs.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    write_record(bad, record("bad base64", {"compressed": True, "data": "%%%"}))
    return root


def test_each_bad_record_is_named_and_the_rest_is_loaded(tmp_path, database, run_harca):
    store = write_bad_store(tmp_path / "store")
    (store / "loop").symlink_to(store, target_is_directory=True)

    done = run_harca("migrate", store, "--json", database=database)

    assert done.code == 3, done.err
    expected: dict[str, int] = {}
    for reason in BAD.values():
        expected[reason] = expected.get(reason, 0) + 1
    assert done.json["reasons"] == expected
    assert done.json["warnings"] == {"symlink-loop": 1}
    assert (done.json["loaded"], done.json["rejected"]) == (10, len(BAD))
    assert done.json["read"] == 10 + len(BAD)
    assert done.json["verified"] is True

    listed = run_harca("rejections", "list", "--json", database=database).json["rejections"]

    assert len(listed) == len(BAD)
    assert all(row["origin"].startswith("bad/") and row["detail"] for row in listed)


def test_a_rejected_record_is_kept_whole(tmp_path, database, run_harca):
    store = write_bad_store(tmp_path / "store")
    run_harca("migrate", store, database=database)

    exported = run_harca("rejections", "export", tmp_path / "out", "--json", database=database)
    again = run_harca("rejections", "export", tmp_path / "out", database=database)

    assert exported.code == 0, exported.err
    kept = sorted(path.read_bytes() for path in (tmp_path / "out").glob("*.payload"))
    bad = (store / "bad").iterdir()
    readable = sorted(path.read_bytes() for path in bad if path.is_file())
    assert kept == readable
    assert again.code == 1
    assert "nothing is overwritten" in again.err


def test_inspect_lists_the_same_problems(tmp_path, run_harca):
    store = write_bad_store(tmp_path / "store")

    found = run_harca("inspect", store, "--json")

    assert found.code == 0, found.err
    assert (found.json["records"], found.json["rejected"]) == (10, len(BAD))
    assert any("bad/binary.json: unparsable" in problem for problem in found.json["problems"])


@pytest.mark.parametrize(("allowed", "code"), [("22", 0), ("21", 1)], ids=["enough", "too few"])
def test_rejections_can_be_accepted_up_to_a_number(allowed, code, tmp_path, database, run_harca):
    store = write_bad_store(tmp_path / "store")

    done = run_harca("migrate", store, "--max-rejects", allowed, "--json", database=database)

    assert done.code == code, done.err
    if code:
        assert "22 records rejected, 21 allowed" in done.err
        assert "harca rollback" in done.err


def test_a_folder_that_vanishes_meanwhile_is_named(tmp_path, database):
    from harca.load import Intake
    from harca.migrate import store_name
    from harca.model import Rejection
    from harca.options import LoadOptions
    from harca.readers.base import open_store

    store = write_store(tmp_path / "store", 6)
    (store / "zz-last").mkdir()
    write_record(store / "zz-last", record("gone", [1.0]))
    intake = Intake(open_store(store), LoadOptions(), now=None)  # type: ignore[arg-type]

    entries = intake.entries()
    first = next(entries)
    shutil.rmtree(store / "zz-last")
    rest = list(entries)

    rejected = [str(entry) for entry in rest if isinstance(entry, Rejection)]
    assert rejected == ["zz-last: vanished: the folder was there when its parent was listed"]
    assert len(rest) == 6
    assert first.origin.startswith(".cache/")
    assert store_name(store, LoadOptions()) == str(store)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no store at"),
        (lambda path: path.mkdir(), "holds no vectors: found an empty folder"),
        (lambda path: path.write_bytes(b"\x89PNG\r\n"), "is in no known store format"),
        (
            lambda path: (path.mkdir(), (path / "stats.json").write_text("{}")),
            "holds no vectors: found 1 file without records",
        ),
        (
            lambda path: (path.mkdir(), (path / "readme.md").write_text("# hi")),
            "is in no known store format: found a folder with readme.md",
        ),
        (
            lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"),
            "a Git LFS pointer",
        ),
    ],
    ids=["missing", "empty folder", "a picture", "only counters", "other files", "LFS pointer"],
)
def test_a_bad_store_is_refused_and_the_database_untouched(
    make, message, tmp_path, empty_database, run_harca
):
    store = tmp_path / "store"
    make(store)

    done = run_harca("migrate", store, "--json", database=empty_database)

    assert done.code == 1
    assert message in done.err
    assert "hint:" in done.err
    assert done.json["error"]
    with empty_database.connect() as conn:
        tables = conn.execute(
            "SELECT FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        ).fetchall()
    assert tables == []


def test_no_server_is_started_for_a_store_that_is_not_there(tmp_path, run_harca):
    home = tmp_path / "home"

    done = run_harca("migrate", tmp_path / "nothing", HARCA_HOME=str(home))

    assert done.code == 1
    assert not home.exists()


def test_documents_without_vectors_are_no_store(file_store, database, run_harca):
    done = run_harca("migrate", file_store / "troubleshooting-knowledge", database=database)

    assert done.code == 1
    assert "found 21 documents without vectors" in done.err


def test_an_export_that_fails_leaves_no_folder(tmp_path, empty_database, run_harca):
    failed = run_harca("rejections", "export", tmp_path / "out", database=empty_database)

    assert failed.code == 1
    assert "Traceback" not in failed.err
    assert not (tmp_path / "out").exists()


def test_quiet_leaves_the_address_that_was_asked_for(empty_database, run_harca):
    asked = run_harca("db", "url", "--quiet", database=empty_database)

    assert asked.out.strip() == empty_database.url()
