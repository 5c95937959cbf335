"""Loads, an application's changes and rollbacks in any order, against a model of the table.

The model keeps for each row the versions that lie over each other, with the run whose each
one is. Taking a run back takes its versions out, wherever they lie.
"""

from dataclasses import dataclass, field, replace
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from harca.errors import RowsChanged
from harca.load import Intake, load, notes_of
from harca.model import OnConflict
from harca.options import LoadOptions
from harca.postgres.target import PostgresTarget, begin_run
from harca.readers.base import open_store
from harca.readers.harca import record_key
from harca.rollback import Changed, preview, rollback
from tests.stores import record, write_record

KEYS = ("a", "b", "c")
STATE = (
    "store_key, content, embedding::text, metadata::text, created_at::text, updated_at::text, "
    "source, store"
)
EXAMPLES = 25


@dataclass(frozen=True)
class Version:
    """What a row held.

    Attributes:
        owner: The run that loaded it, None if it is the application's.
        edited: The application has changed it since.
        number: In the order in which they came.
    """

    owner: int | None
    state: tuple[Any, ...]
    number: int
    edited: bool = False

    @property
    def key(self) -> str:
        return str(self.state[0])


@dataclass
class Row:
    """A row's versions, the last on top; *here* unless somebody has deleted it."""

    versions: list[Version]
    here: bool = True

    @property
    def top(self) -> Version:
        return self.versions[-1]

    def without(self, run: int) -> list[Version]:
        left: list[Version] = []
        for version in self.versions:
            if version.owner == run:
                continue
            if left and version.owner is not None and left[-1].owner == version.owner:
                # The run took turns with the one that goes; a change of its version stays.
                below = left.pop()
                if below.edited:
                    left.append(replace(below, owner=None))
            left.append(version)
        return left


@dataclass
class Model:
    """What the table must hold."""

    rows: dict[int, Row] = field(default_factory=dict)
    numbers: int = 0

    def table(self) -> dict[int, tuple[Any, ...]]:
        return {
            row_id: (row.top.owner, *row.top.state) for row_id, row in self.rows.items() if row.here
        }

    def version(self, owner: int | None, state: tuple[Any, ...]) -> Version:
        self.numbers += 1
        return Version(owner, state, self.numbers)

    def loaded(self, run: int, table: dict[int, tuple[Any, ...]]) -> None:
        """Take in what a load has made of the table."""
        assert {row_id for row_id, row in self.rows.items() if row.here} <= set(table)
        for row_id, (owner, *rest) in table.items():
            state = tuple(rest)
            row = self.rows.get(row_id)
            if row is None:
                assert owner == run
                self.rows[row_id] = Row([self.version(run, state)])
            elif (owner, state) != (row.top.owner, row.top.state):
                assert owner == run
                if row.top.owner == run:
                    below = row.versions.pop()
                    if below.edited:
                        row.versions.append(replace(below, owner=None))
                row.versions.append(self.version(run, state))

    def gone(self, run: int) -> dict[int, tuple[str, int | None]]:
        """Return rows that *run* had overwritten and that were deleted, by what came after."""
        found: dict[str, int] = {}
        rows = [row for row in self.rows.values() if row.versions and row.top.owner == run]
        for row in sorted(rows, key=lambda row: row.top.number):
            left = row.without(run)
            if not row.here and left and self.gives_way(run, left[-1].key, row):
                found[left[-1].key] = next(at for at, one in self.rows.items() if one is row)
        return {
            row_id: ("replaced", other)
            if (other := self.nobodys(key)) is not None
            else ("deleted", None)
            for key, row_id in found.items()
        }

    def holder(self, key: str, row: Row | None = None) -> Row | None:
        """Return the row under *key*, unless it is *row*."""
        here = [one for one in self.rows.values() if one.here and one.top.key == key]
        return here[0] if here and here[0] is not row else None

    def nobodys(self, key: str, row: Row | None = None) -> int | None:
        holder = self.holder(key, row)
        if holder is None or holder.top.owner is not None:
            return None
        return next(at for at, one in self.rows.items() if one is holder)

    def gives_way(self, run: int, key: str, row: Row) -> bool:
        """Say whether *row* can get *key* back when *run* is taken back."""
        other = self.holder(key, row)
        if other is None or other.top.owner is None:
            return True
        left = other.without(run)
        return other.top.owner == run and (not left or left[-1].key != key)

    def edits(self, run: int) -> list[tuple[int, int]]:
        return [
            (row_id, depth)
            for row_id, row in self.rows.items()
            for depth, version in enumerate(row.versions)
            if version.owner == run and version.edited and (row.here or version is not row.top)
        ]

    def changes(self, run: int) -> list[tuple[str, str]]:
        """Return what was changed since of *run*, by key."""
        edited = [
            (self.rows[row_id].versions[depth].key, "edited") for row_id, depth in self.edits(run)
        ]
        gone = [
            (self.rows[row_id].without(run)[-1].key, what)
            for row_id, (what, _) in self.gone(run).items()
        ]
        return sorted(edited + gone)

    def take_back(self, run: int, changed: Changed) -> tuple[int, int]:
        """Take *run* back; return how many rows are deleted and restored."""
        deleted = restored = 0
        gone = self.gone(run)
        if changed is Changed.KEEP:
            for row_id, depth in reversed(self.edits(run)):
                row = self.rows[row_id]
                if depth < len(row.versions) and row.versions[depth].owner == run:
                    row.versions[depth] = replace(row.versions[depth], owner=None)
            for row in self.rows.values():
                kept = [
                    at for at, one in enumerate(row.versions) if one.owner is None and one.edited
                ]
                del row.versions[: max(kept, default=0)]
            for row_id in gone:
                self.rows[row_id].versions = []
            gone = {}
        ours = [row for row in self.rows.values() if row.here and row.top.owner == run]
        fates = {id(row): row.without(run) for row in ours}
        for row in ours:
            left = fates[id(row)]
            if left and not self.gives_way(run, left[-1].key, row):
                fates[id(row)] = []
        others = [other for _, other in gone.values()]
        others += [self.nobodys(left[-1].key, row) for row in ours if (left := fates[id(row)])]
        for row in ours:
            row.here = bool(fates[id(row)])
            restored += row.here
            deleted += not row.here
        for other in others:
            if other is not None:
                self.rows[other].here = False
        for row_id in gone:
            self.rows[row_id].here = True
            restored += 1
        for row in self.rows.values():
            row.versions = row.without(run)
        return deleted, restored


class Machine(RuleBasedStateMachine):
    database: Any
    folder: Any
    numbers = 0

    @initialize()
    def begin(self) -> None:
        self.conn = self.database.connect()
        self.conn.execute(
            "TRUNCATE vector_embeddings, superseded, load_batches, rejections, load_runs CASCADE"
        )
        self.model = Model()
        self.runs: list[int] = []
        self.taken_back: list[int] = []

    def teardown(self) -> None:
        if hasattr(self, "conn"):
            self.conn.close()

    def table(self) -> dict[int, tuple[Any, ...]]:
        found = self.conn.execute(f"SELECT id, run_id, {STATE} FROM vector_embeddings")
        return {row_id: tuple(rest) for row_id, *rest in found}

    @rule(
        store=st.dictionaries(st.sampled_from(KEYS), st.integers(1, 3), min_size=1),
        policy=st.sampled_from(
            [OnConflict.NEWEST, OnConflict.NEWEST, OnConflict.OLDEST, OnConflict.KEEP]
        ),
        revision=st.sampled_from([None, None, "r"]),
        to_its_end=st.booleans(),
    )
    def migrate(self, store, policy, revision, to_its_end) -> None:
        Machine.numbers += 1
        path = self.folder / str(Machine.numbers)
        for key, number in store.items():
            write_record(path, record(key, [float(number), 1.0], createdAt=f"2025-0{number}-01"))
        reader = open_store(path)
        run = begin_run(self.conn, "s", store_format="harca", revision=revision, options={})
        options = LoadOptions(on_conflict=policy)
        target = PostgresTarget(self.conn, run, volatile=reader.volatile)
        result = load(Intake(reader, options, now=run.started_at), target, options)
        if to_its_end:
            target.finish(notes_of(result, reader), outlived=result.outlived)
            self.conn.execute(
                "UPDATE load_runs SET status = 'verified' WHERE run_id = %s", [run.run_id]
            )
        if run.run_id not in self.runs:
            self.runs.append(run.run_id)
        self.model.loaded(run.run_id, self.table())

    def rows_here(self) -> list[int]:
        return [row_id for row_id, row in self.model.rows.items() if row.here]

    @precondition(lambda self: self.rows_here())
    @rule(data=st.data(), dated=st.sampled_from([None, "2020-01-01", "-infinity"]))
    def edit(self, data, dated) -> None:
        row_id = data.draw(st.sampled_from(self.rows_here()))
        Machine.numbers += 1
        self.conn.execute(
            "UPDATE vector_embeddings SET content = %(content)s, "
            "updated_at = coalesce(%(dated)s::timestamptz, updated_at) WHERE id = %(id)s",
            {"content": f"edit {Machine.numbers}", "dated": dated, "id": row_id},
        )
        row = self.model.rows[row_id]
        state = self.table()[row_id][1:]
        row.versions[-1] = replace(row.top, state=state, edited=row.top.owner is not None)

    @precondition(lambda self: self.rows_here())
    @rule(data=st.data())
    def delete(self, data) -> None:
        row_id = data.draw(st.sampled_from(self.rows_here()))
        self.conn.execute("DELETE FROM vector_embeddings WHERE id = %s", [row_id])
        self.model.rows[row_id].here = False

    @precondition(lambda self: self.rows_here())
    @rule(data=st.data())
    def give_another_key(self, data) -> None:
        row_id = data.draw(st.sampled_from(self.rows_here()))
        key = data.draw(st.sampled_from([*map(record_key_of, KEYS), "other"]))
        try:
            self.conn.execute(
                "UPDATE vector_embeddings SET store_key = %s WHERE id = %s", [key, row_id]
            )
        except psycopg.errors.UniqueViolation:
            return
        row = self.model.rows[row_id]
        state = self.table()[row_id][1:]
        row.versions[-1] = replace(row.top, state=state, edited=row.top.owner is not None)

    @rule(data=st.data())
    def insert(self, data) -> None:
        stands = self.conn.execute("SELECT store_key FROM vector_embeddings").fetchall()
        keys = sorted({record_key_of(key) for key in KEYS} - {key for (key,) in stands})
        if not keys:
            return
        row = self.conn.execute(
            "INSERT INTO vector_embeddings (content, embedding, metadata, model_id, store, "
            "store_key) VALUES ('own', '[9,9]', '{}', 'test-model', 's', %s) RETURNING id",
            [data.draw(st.sampled_from(keys))],
        ).fetchone()
        assert row is not None
        self.model.rows[row[0]] = Row([self.model.version(None, self.table()[row[0]][1:])])

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), changed=st.sampled_from(Changed))
    def take_back(self, data, changed) -> None:
        run = data.draw(st.sampled_from(self.runs))
        before = self.table()
        changes = self.model.changes(run)
        would_be = preview(self.database, run, changed=changed)
        assert self.table() == before
        assert sorted((one.key, one.change) for one in would_be.changed) == changes
        if changes and changed is Changed.REFUSE:
            with pytest.raises(RowsChanged):
                rollback(self.database, run, changed=changed)
            assert would_be.refused
            assert self.table() == before
            return
        done = rollback(self.database, run, changed=changed)
        self.runs.remove(run)
        self.taken_back.append(run)
        assert (done.deleted, done.restored) == self.model.take_back(run, changed)
        assert done.kept == (len(changes) if changed is Changed.KEEP else 0)
        assert done == replace(would_be, dry_run=False)
        assert self.table() == self.model.table()

    @precondition(lambda self: self.taken_back)
    @rule(data=st.data())
    def take_back_again(self, data) -> None:
        done = rollback(self.database, data.draw(st.sampled_from(self.taken_back)))
        assert done.before
        assert self.table() == self.model.table()


def record_key_of(text: str) -> str:
    return record_key("test-model", text)


def test_rollbacks_leave_what_the_model_says(tmp_path, database):
    machine = type("On", (Machine,), {"database": database, "folder": tmp_path})

    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=10,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
