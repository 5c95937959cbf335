"""Reading in a process of its own: the same batches, and an end that is told."""

from datetime import UTC, datetime

import pytest

from harca import ahead
from harca.errors import ConflictFound, EmptyStore, SourceError
from harca.load import Intake
from harca.options import LoadOptions
from harca.readers.base import open_store
from tests.stores import record, write_record, write_store

NOW = datetime(2026, 11, 24, tzinfo=UTC)


@pytest.fixture
def store(tmp_path):
    folder = write_store(tmp_path / "store", 40, dims=5)
    write_record(folder, record("other", [1.0] * 9, model="別のモデル"))
    write_record(folder, record("zero", [0.0, 0.0]))
    write_record(folder, record("bad", [None]))
    write_record(folder, record("misnamed", [1.0]), name="0" * 64)
    return folder


def described(batches):
    return [
        (
            batch.number,
            batch.origins,
            [(str(one), one.payload) for one in batch.rejections],
            [
                (
                    one.key, one.content, one.embedding.tobytes(), dict(one.metadata), one.model_id,
                    one.created_at, one.source, one.origin, one.warnings,
                )
                for one in batch.records
            ],
        )
        for batch in batches
    ]  # fmt: skip


def test_the_batches_are_those_that_this_process_would_read(store):
    options = LoadOptions(source="s")
    here = Intake(open_store(store, options.defaults), options, now=NOW)
    reading = ahead.ReadAhead()
    there = reading.intake(open_store(store, options.defaults), str(store), options, NOW)

    received = described(there.batches(rows=7))
    reading.close()

    assert received == described(here.batches(rows=7))
    assert len(received) > 5
    assert there.warnings == here.warnings
    assert there.warnings["zero-vector"] == there.warnings["name-mismatch"] == 1
    assert there.reader.notes == here.reader.notes


def test_a_store_that_went_away_is_told_as_in_this_process(store, tmp_path):
    options = LoadOptions()
    reading = ahead.ReadAhead()
    intake = reading.intake(open_store(store), str(tmp_path / "gone"), options, NOW)

    with pytest.raises(SourceError, match="no store at"):
        list(intake.batches(rows=7))
    reading.close()


def test_an_error_arrives_as_it_was_raised():
    import pickle

    raised = ConflictFound("k", first="a", second="b")

    arrived = pickle.loads(pickle.dumps(raised))

    assert (type(arrived), str(arrived), arrived.hint) == (ConflictFound, str(raised), raised.hint)
    assert (arrived.key, arrived.first, arrived.second) == ("k", "a", "b")
    assert pickle.loads(pickle.dumps(EmptyStore("s", found="x"))).found == "x"


def test_a_reading_process_that_is_killed_ends_the_load_and_the_next_one_goes_on(
    store, database, run_harca, monkeypatch
):
    monkeypatch.setattr(ahead, "WORTH_ENTRIES", 1)
    real = ahead.ReadAhead.intake

    def killed(self, *given):
        self._child.kill()
        return real(self, *given)

    monkeypatch.setattr(ahead.ReadAhead, "intake", killed)
    first = run_harca("migrate", store, "--max-rejects", "1", database=database)
    monkeypatch.setattr(ahead.ReadAhead, "intake", real)
    second = run_harca("migrate", store, "--max-rejects", "1", "--json", database=database)

    assert first.code == 1
    assert "the process that read the store ended early (exit code -9)" in first.err
    assert "Run the same command again" in first.err
    assert (second.code, second.json["loaded"], second.json["resumed"]) == (0, 43, True)


def test_a_file_in_the_current_folder_is_not_taken_for_a_module(
    store, database, run_harca, monkeypatch, tmp_path
):
    monkeypatch.setattr(ahead, "WORTH_ENTRIES", 1)
    (tmp_path / "numpy.py").write_text("raise SystemExit('run by mistake')")

    done = run_harca("migrate", store, "--max-rejects", "1", database=database)

    assert done.code == 0, done.err
    assert "43 loaded" in done.out


def test_a_small_store_starts_no_process(store):
    with ahead.reading_ahead(open_store(store)) as none:
        assert none is None
