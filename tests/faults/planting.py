"""Corruption, planted behind harca's back: in the rows, in the ledger, in the store's files.

A `Planter` changes one loaded store and says what `harca verify` has to name. Every choice
comes from its dice, so that a case can be had again by its seed.
"""

import json
import random
import struct
import unicodedata
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import psycopg
from psycopg import sql

TABLE = "vector_embeddings"
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the store, as it was loaded."""

    id: int
    store_key: str
    content: str
    embedding: np.ndarray[Any, np.dtype[np.float32]]
    metadata: dict[str, Any]
    model_id: str
    created_at: datetime
    source: str
    run_id: int
    undated: bool

    @property
    def date(self) -> datetime | None:
        """The record's, None if it has none."""
        return None if self.undated else self.created_at


@dataclass(slots=True)
class Planted:
    """What has to be found.

    Attributes:
        named: Fields that differ, ``missing`` or ``extra``, by store_key.
        keys: Metadata keys that have to be named, by store_key.
        checks: Names of checks that have to fail.
        what: For the message of a failure.
    """

    named: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    keys: dict[str, str] = field(default_factory=dict)
    checks: set[str] = field(default_factory=set)
    what: list[str] = field(default_factory=list)


class Planter:
    """Plants in one loaded store.

    Attributes:
        quiet: Nothing is to be seen in ``updated_at``.
    """

    def __init__(
        self, conn: psycopg.Connection[Any], store: str, rows: list[Row], dice: random.Random
    ) -> None:
        self.conn, self.store, self.rows, self.dice = conn, store, rows, dice
        self.quiet = dice.random() < 0.5
        self.planted = Planted()
        self._left = rows[:]

    def hide(self) -> None:
        """Keep the trigger that notes a change from doing so, if this planter is quiet."""
        if not self.quiet:
            return
        allowed = self.conn.execute("SELECT rolsuper FROM pg_roles WHERE rolname = current_user")
        if allowed.fetchone() == (True,) and self.dice.random() < 0.5:
            self.conn.execute("SET LOCAL session_replication_role = replica")
        else:
            self.conn.execute(f"ALTER TABLE {TABLE} DISABLE TRIGGER USER")

    # Rows.

    def pick(self, wanted: Callable[[Row], bool] = lambda row: True) -> Row:
        """Return a row that nothing was planted in yet."""
        row = self.dice.choice([row for row in self._left if wanted(row)])
        self._left.remove(row)
        return row

    def _two(self, differ: Callable[[Row, Row], bool]) -> tuple[Row, Row]:
        pairs = [(a, b) for a in self._left for b in self._left if a.id < b.id and differ(a, b)]
        one, other = self.dice.choice(pairs)
        self._left.remove(one)
        self._left.remove(other)
        return one, other

    def _set(self, row: Row, column: str, value: Any, kind: str = "text") -> None:
        statement = sql.SQL("UPDATE {} SET {} = {}::{} WHERE id = {}").format(
            sql.Identifier(TABLE),
            sql.Identifier(column),
            sql.Placeholder(),
            sql.SQL(kind),
            sql.Placeholder(),
        )
        assert self.conn.execute(statement, [value, row.id]).rowcount == 1

    def _name(self, row: Row, *fields: str) -> None:
        self.planted.named[row.store_key].update(fields)

    def deleted(self) -> None:
        row = self.pick()
        self.conn.execute(f"DELETE FROM {TABLE} WHERE id = %s", [row.id])
        self._name(row, "missing")

    def _double(self, row: Row, key: str | None) -> None:
        self.conn.execute(
            f"INSERT INTO {TABLE} (content, embedding, metadata, model_id, created_at, "
            "updated_at, source, store, store_key, run_id) SELECT content, embedding, metadata, "
            "model_id, created_at, updated_at, source, store, %s::text, run_id "
            f"FROM {TABLE} WHERE id = %s",
            [key, row.id],
        )
        self.planted.named[key or ""].add("extra")

    def doubled(self) -> None:
        row = self.pick()
        ending = self.dice.choice(["x", " ", "\u200b", "'", '"', "\\"])
        self._double(row, row.store_key + ending)

    def doubled_without_a_key(self) -> None:
        self._double(self.pick(), None)

    def doubled_whole(self) -> None:
        """What an index that is corrupt lets in."""
        row = self.pick()
        self.conn.execute(f"ALTER TABLE {TABLE} DROP CONSTRAINT {TABLE}_store_store_key_key")
        self._double(row, row.store_key)

    def moved_to_another_key(self) -> None:
        row = self.pick()
        key = self.dice.choice([row.store_key + " ", row.store_key[1:] + "x", None])
        self._set(row, "store_key", key)
        self._name(row, "missing")
        self.planted.named[key or ""].add("extra")

    def moved_to_another_store(self) -> None:
        row = self.pick()
        self._set(row, "store", self.dice.choice([None, "other", self.store + " "]))
        self._name(row, "missing")

    def vectors_swapped(self) -> None:
        one, other = self._two(lambda a, b: a.embedding.tobytes() != b.embedding.tobytes())
        for row, by in ((one, other), (other, one)):
            self._set(row, "embedding", as_text(by.embedding), "vector")
            self._name(row, "embedding")

    def contents_swapped(self) -> None:
        one, other = self._two(lambda a, b: a.content != b.content)
        for row, by in ((one, other), (other, one)):
            self._set(row, "content", by.content)
            self._name(row, "content")

    def models_swapped(self) -> None:
        one, other = self._two(lambda a, b: a.model_id != b.model_id)
        for row, by in ((one, other), (other, one)):
            self._set(row, "model_id", by.model_id)
            self._name(row, "model_id")

    def metadata_swapped(self) -> None:
        one, other = self._two(lambda a, b: a.metadata != b.metadata)
        for row, by in ((one, other), (other, one)):
            self._set(row, "metadata", json.dumps(by.metadata), "jsonb")
            self._name(row, "metadata")

    def dates_swapped(self) -> None:
        one, other = self._two(lambda a, b: a.date != b.date and not a.undated and not b.undated)
        for row, by in ((one, other), (other, one)):
            self._set(row, "created_at", by.created_at, "timestamptz")
            self._name(row, "created_at")

    def sources_swapped(self) -> None:
        one, other = self._two(lambda a, b: a.source != b.source)
        for row, by in ((one, other), (other, one)):
            self._set(row, "source", by.source)
            self._name(row, "source")

    def runs_swapped(self) -> None:
        one, other = self._two(lambda a, b: a.run_id != b.run_id)
        for row, by in ((one, other), (other, one)):
            self._set_run(row, by.run_id)

    def _set_run(self, row: Row, run_id: int | None) -> None:
        self._set(row, "run_id", run_id, "bigint")
        self.planted.checks.add("labels")
        if row.undated:
            # Its date is its run's; that of another run is one.
            self._name(row, "created_at")
        if not row.undated or run_id not in self._runs():
            self._name(row, "run_id")

    def _runs(self) -> set[int]:
        return {row.run_id for row in self.rows}

    def keys_swapped(self) -> None:
        one, other = self._two(lambda a, b: a.embedding.tobytes() != b.embedding.tobytes())
        self._set(one, "store_key", "aside")
        for row, by in ((other, one), (one, other)):
            self._set(row, "store_key", by.store_key)
            self._name(row, "embedding")
            for name in ("content", "metadata", "model_id"):
                if getattr(row, name) != getattr(by, name):
                    self._name(row, name)
                    self._name(by, name)
        for name, differ in (
            ("created_at", one.date != other.date),
            ("source", one.source != other.source),
        ):
            if differ:
                self._name(one, name)
                self._name(other, name)

    def bit_flipped(self) -> None:
        row = self.pick()
        while True:
            vector = row.embedding.copy()
            bits = vector.view(np.uint32)
            bits[self.dice.randrange(len(bits))] ^= np.uint32(1 << self.dice.randrange(32))
            if np.isfinite(vector).all():
                break
        self._set(row, "embedding", as_text(vector), "vector")
        self._name(row, "embedding")

    def lowest_bit_flipped(self) -> None:
        row = self.pick()
        vector = row.embedding.copy()
        vector.view(np.uint32)[self.dice.randrange(len(vector))] ^= np.uint32(1)
        self._set(row, "embedding", as_text(vector), "vector")
        self._name(row, "embedding")

    def sign_of_zero(self) -> None:
        row = self.pick(lambda row: not row.embedding.all())
        vector = row.embedding.copy()
        at = self.dice.choice(np.flatnonzero(vector == 0).tolist())
        vector[at] = -vector[at]
        self._set(row, "embedding", as_text(vector), "vector")
        self._name(row, "embedding")

    def vector_reshaped(self) -> None:
        row = self.pick(lambda row: len(set(row.embedding.tolist())) > 2)
        vector = self.dice.choice(
            [
                row.embedding[:-1],
                np.append(row.embedding, np.float32(0)),
                row.embedding[::-1],
                -row.embedding,
                np.roll(row.embedding, 1),
                row.embedding * np.float32(2),
            ]
        )
        self._set(row, "embedding", as_text(vector), "vector")
        self._name(row, "embedding")

    def character_changed(self) -> None:
        row = self.pick()
        self._set(row, "content", other_text(row.content, self.dice))
        self._name(row, "content")

    def model_changed(self) -> None:
        row = self.pick()
        self._set(row, "model_id", other_text(row.model_id, self.dice))
        self._name(row, "model_id")

    def source_changed(self) -> None:
        row = self.pick()
        self._set(row, "source", self.dice.choice([None, other_text(row.source, self.dice)]))
        self._name(row, "source")

    def run_changed(self) -> None:
        row = self.pick()
        self._set_run(row, self.dice.choice([None, 999, *(self._runs() - {row.run_id})]))

    def date_shifted(self) -> None:
        row = self.pick()
        micro, hour = timedelta(microseconds=1), timedelta(hours=1)
        shift = self.dice.choice([micro, -micro, 9 * hour, -5 * hour, 5.5 * hour, DAY, 366 * DAY])
        self._set(row, "created_at", row.created_at + shift, "timestamptz")
        self._name(row, "created_at")

    def date_lost(self) -> None:
        row = self.pick()
        value = self.dice.choice([None, "infinity", "-infinity", "4712-01-01 BC", "epoch"])
        self._set(row, "created_at", value, "timestamptz")
        self._name(row, "created_at")

    def date_of_the_run(self) -> None:
        """What stands for no date."""
        row = self.pick(lambda row: not row.undated)
        self.conn.execute(
            f"UPDATE {TABLE} v SET created_at = r.started_at FROM load_runs r "
            "WHERE r.run_id = v.run_id AND v.id = %s",
            [row.id],
        )
        self._name(row, "created_at")

    def metadata_retyped(self) -> None:
        row = self.pick(lambda row: bool(row.metadata))
        changed = 0
        while not changed:  # to something else, as jsonb prints it
            path, value = self.dice.choice(list(_places(row.metadata)))
            changed = self._change_metadata(
                row, "jsonb_set(metadata, %(path)s, %(new)s::jsonb)", path,
                other_json(value, self.dice),
            )  # fmt: skip
        self.planted.keys[row.store_key] = path[0]

    def metadata_taken_out(self) -> None:
        row = self.pick(lambda row: bool(row.metadata))
        path, _ = self.dice.choice(list(_places(row.metadata)))
        assert self._change_metadata(row, "metadata #- %(path)s", path)
        self.planted.keys[row.store_key] = path[0]

    def metadata_put_in(self) -> None:
        row = self.pick()
        key, shown = self.dice.choice(
            [("new", "new"), ("", "''"), ("Directory", "Directory"), ("\u200b", r"'\u200b'")]
        )
        new = self.dice.choice(["null", "1", '""', "{}", "[]"])
        assert self._change_metadata(
            row, "jsonb_set(metadata, %(path)s, %(new)s::jsonb)", [key], new
        )
        self.planted.keys[row.store_key] = shown

    def metadata_no_object(self) -> None:
        row = self.pick()
        value = self.dice.choice(["null", "1", '"x"', "[]", '["directory"]', "true"])
        self._set(row, "metadata", value, "jsonb")
        self._name(row, "metadata")

    def _change_metadata(self, row: Row, by: str, path: list[str], new: str = "") -> int:
        self._name(row, "metadata")
        return self.conn.execute(
            f"UPDATE {TABLE} SET metadata = {by} WHERE id = %(id)s "
            f"AND ({by})::text <> metadata::text",
            {"path": path, "new": new, "id": row.id},
        ).rowcount

    def bookkeeping_set_back(self) -> None:
        """What looks as if the store had moved on."""
        row = self.pick(lambda row: "accessCount" in row.metadata)
        key, new = self.dice.choice(
            [("accessCount", "0"), ("lastAccessed", '"2001-01-01T00:00:00.000Z"')]
        )
        assert self._change_metadata(
            row, "jsonb_set(metadata, %(path)s, %(new)s::jsonb)", [key], new
        )
        self.planted.keys[row.store_key] = key

    def replaced(self) -> None:
        """One is gone and another is there twice: the counts stay."""
        self.deleted()
        self.doubled()

    def several(self) -> None:
        for plant in self.dice.choices(
            [
                Planter.deleted, Planter.doubled, Planter.character_changed, Planter.bit_flipped,
                Planter.metadata_retyped, Planter.date_shifted, Planter.model_changed,
                Planter.source_changed, Planter.run_changed, Planter.vectors_swapped,
                Planter.moved_to_another_store, Planter.keys_swapped,
            ],
            k=self.dice.randint(2, 4),
        ):  # fmt: skip
            plant(self)

    # What is not a record of the store.

    def outlived_row(self) -> None:
        statement = self.dice.choice(
            [
                "DELETE FROM {table} {row}",
                "UPDATE {table} SET content = content || ' ' {row}",
                "UPDATE {table} SET embedding = embedding + embedding {row}",
                "UPDATE {table} SET source = 'x' {row}",
                "UPDATE {table} SET run_id = NULL {row}",
                "UPDATE {table} SET created_at = created_at + interval '1 microsecond' {row}",
            ]
        ).format(
            table=TABLE,
            row="WHERE (store, store_key) IN (SELECT store, store_key FROM superseded "
            "WHERE kind = 'outlived')",
        )
        assert self.conn.execute(statement).rowcount
        self.planted.checks.add("rows kept from earlier runs")
        self.planted.what.append(statement)

    def loser(self) -> None:
        """What lost a conflict is part of what the store holds; what was overwritten is not."""
        found = self.conn.execute(
            "SELECT superseded_id, run_id, kind, store_key FROM superseded ORDER BY 1"
        ).fetchall()
        superseded_id, run_id, kind, key = self.dice.choice(found)
        change, fields = self.dice.choice(
            [
                ("DELETE FROM superseded", {"missing"}),
                ("UPDATE superseded SET content = content || ' '", {"content"}),
                ("UPDATE superseded SET embedding = embedding + embedding", {"embedding"}),
                ("UPDATE superseded SET metadata = metadata || '{\"a\": 1}'", {"metadata"}),
                ("UPDATE superseded SET model_id = upper(model_id)", {"model_id"}),
                (
                    "UPDATE superseded SET created_at = coalesce(created_at, now()) - "
                    "interval '1 second'",
                    {"created_at"},
                ),
                ("UPDATE superseded SET source = source || 'x'", set()),
                ("UPDATE superseded SET origin = origin || 'x'", set()),
                ("UPDATE superseded SET row_id = coalesce(row_id, 0) + 1", set()),
                ("UPDATE superseded SET row_run_id = coalesce(row_run_id, 0) + 1", set()),
                ("UPDATE superseded SET row_updated_at = '2001-01-01'", set()),
            ]
        )
        self.conn.execute(f"{change} WHERE superseded_id = %s", [superseded_id])
        self.planted.checks.add(f"ledger of run {run_id}")
        latest = max(self._runs())
        if run_id == latest and kind != "overwritten" and fields:
            self.planted.named[key] |= fields
        self.planted.what.append(f"{change} ({kind} of run {run_id})")

    def ledger(self) -> None:
        """Sums that stay the same among it."""
        run_id = self.dice.choice(
            [run for (run,) in self.conn.execute("SELECT run_id FROM load_runs ORDER BY 1")]
        )
        count = self.dice.choice(["read", "loaded", "unchanged", "superseded", "rejected"])
        change = self.dice.choice(
            [
                "DELETE FROM load_batches WHERE number = 1 AND run_id = {run}",
                "UPDATE load_batches SET {count} = {count} + 1 WHERE number = 1 AND run_id = {run}",
                "UPDATE load_batches SET read = read + 2 * number - 3, "
                "loaded = loaded + 2 * number - 3 WHERE number < 3 AND run_id = {run}",
                "UPDATE load_batches SET last_origin = 'x' WHERE number = 1 AND run_id = {run}",
                "UPDATE load_runs SET {count} = {count} + 1 WHERE run_id = {run}",
                "UPDATE load_runs SET {count} = {count} + 1, read = read + 1 WHERE run_id = {run}",
                "UPDATE load_runs SET started_at = started_at - interval '1 second' "
                "WHERE run_id = {run}",
                "UPDATE load_runs SET options = options || '{{\"batch_rows\": 77}}' "
                "WHERE run_id = {run}",
                "UPDATE load_runs SET notes = notes - 'seals' WHERE run_id = {run}",
                "UPDATE load_runs SET notes = '{{}}' WHERE run_id = {run}",
                "UPDATE load_runs SET notes = jsonb_set(notes, '{{seals,load_batches}}', '1') "
                "WHERE run_id = {run}",
                "DELETE FROM rejections WHERE run_id = {run}",
                "UPDATE rejections SET reason = reason || 'x' WHERE run_id = {run}",
                "UPDATE rejections SET detail = detail || ' ' WHERE run_id = {run}",
                "UPDATE rejections SET payload = payload || '\\x00' WHERE run_id = {run}",
                "UPDATE rejections SET payload = NULL WHERE run_id = {run}",
                "UPDATE rejections SET origin = upper(origin) WHERE run_id = {run}",
                "INSERT INTO rejections (run_id, attempt, origin, reason, detail) "
                "VALUES ({run}, 1, 'a', 'b', 'c')",
            ]
        ).format(run=run_id, count=count)
        assert self.conn.execute(change).rowcount, change
        if "started_at" in change:
            for row in self.rows:
                if row.undated and row.run_id == run_id:
                    self._name(row, "created_at")
        self.planted.checks.add(f"ledger of run {run_id}")
        self.planted.what.append(change)

    def notes(self) -> None:
        """What the rows were when they were first verified."""
        change = self.dice.choice(
            [
                "notes - 'seen'",
                "jsonb_set(notes, '{seen,labels}', '\"AAAA\"')",
                "jsonb_set(notes, '{seen,labels}', notes #> '{seen,rows}')",
                "notes #- '{seen,labels}'",
            ]
        )
        latest = max(self._runs())
        self.conn.execute(f"UPDATE load_runs SET notes = {change} WHERE run_id = %s", [latest])
        self.planted.checks.add("labels")
        self.planted.what.append(change)


ROWS = (
    Planter.deleted, Planter.doubled, Planter.doubled_without_a_key, Planter.doubled_whole,
    Planter.moved_to_another_key, Planter.moved_to_another_store, Planter.vectors_swapped,
    Planter.contents_swapped, Planter.models_swapped, Planter.metadata_swapped,
    Planter.dates_swapped, Planter.sources_swapped, Planter.runs_swapped, Planter.keys_swapped,
    Planter.bit_flipped, Planter.lowest_bit_flipped, Planter.sign_of_zero,
    Planter.vector_reshaped, Planter.character_changed, Planter.model_changed,
    Planter.source_changed, Planter.run_changed, Planter.date_shifted, Planter.date_lost,
    Planter.date_of_the_run, Planter.metadata_retyped, Planter.metadata_taken_out,
    Planter.metadata_put_in, Planter.metadata_no_object, Planter.bookkeeping_set_back,
    Planter.replaced, Planter.several, Planter.outlived_row, Planter.loser, Planter.ledger,
    Planter.notes,
)  # fmt: skip
"""Every kind of damage in the database."""


def as_text(vector: np.ndarray[Any, np.dtype[np.float32]]) -> str:
    """Return a vector as pgvector reads it, to the last bit."""
    return f"[{','.join(repr(float(component)) for component in vector)}]"


def other_text(text: str, dice: random.Random) -> str:
    """Return another text that looks much the same."""
    at = dice.randrange(len(text) + 1)
    forms = [unicodedata.normalize(form, text) for form in ("NFC", "NFD", "NFKC", "NFKD")]
    choices = [
        *forms,
        text.swapcase(),
        text + " ",
        text + "\n",
        "\ufeff" + text,
        text[:at] + dice.choice("\u200b\u00ad\u200d\u202e\ufe0f\u2028") + text[at:],
        text.replace(" ", "\u00a0"),
        text.replace("e", "\u0435"),
        text[:at] + chr(dice.randrange(0x20, 0x7F)) + text[at + 1 :],
        text[:at] + text[at + 1 :],
        text[::-1],
        text * 2,
    ]
    return dice.choice([choice for choice in choices if choice != text])


def other_json(value: Any, dice: random.Random) -> str:
    """Return JSON that may be another value, often one that is equal to many programs."""
    written = json.dumps(value)
    choices = ["null", '"null"', "true", "1", f"[{written}]", f'{{"a": {written}}}', '""']
    if isinstance(value, bool):
        choices += [f'"{written}"', "true", "false", str(int(value)), str(float(value))]
    elif isinstance(value, int | float):
        point = "" if "." in written else "."
        choices += [f'"{written}"', f"{written}{point}0", f"{written}{point}00"]
        choices += [f"-{written.lstrip('-')}", json.dumps(value + 1), f"{written}{point}0000001"]
    elif isinstance(value, str):
        choices += [json.dumps(other_text(value, dice)) for _ in range(4)]
    elif isinstance(value, list):
        choices += [json.dumps(value[::-1]), json.dumps(value[:-1]), json.dumps([*value, *value])]
    elif isinstance(value, dict):
        choices += ["{}", json.dumps({**value, "more": None}), json.dumps(list(value.items()))]
    return dice.choice(choices)


def _places(value: Any) -> Any:
    """Yield path and value of everything inside."""
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    for key, entry in inside:
        yield [str(key)], entry
        if isinstance(entry, dict | list):
            for path, inner in _places(entry):
                yield [str(key), *path], inner


# The store's files.


@dataclass(slots=True)
class FileDamage:
    """A change of one record's file, and what has to be named.

    Attributes:
        fields: By ``old``, the record's key, or ``new``, the one that it has now.
    """

    name: str
    change: Callable[[dict[str, Any], random.Random], dict[str, Any]]
    fields: dict[str, set[str]]
    key: str | None = None


def _vector_digit(value: dict[str, Any], dice: random.Random) -> dict[str, Any]:
    vector = [float(np.float32(component)) for component in value["embedding"]]
    at = dice.randrange(len(vector))
    (bits,) = struct.unpack("<I", struct.pack("<f", vector[at]))
    (vector[at],) = struct.unpack("<f", struct.pack("<I", bits ^ 1))
    return {**value, "embedding": vector}


FILES = (
    FileDamage(
        "text",
        lambda value, dice: {**value, "text": other_text(value["text"], dice)},
        {"old": {"extra"}, "new": {"missing"}},
    ),
    FileDamage(
        "model",
        lambda value, dice: {**value, "modelName": other_text(value["modelName"], dice)},
        {"old": {"extra"}, "new": {"missing"}},
    ),
    FileDamage("vector", _vector_digit, {"old": {"embedding"}}),
    FileDamage(
        "vector reversed",
        lambda value, dice: {**value, "embedding": [*value["embedding"][::-1], 7.5]},
        {"old": {"embedding"}},
    ),
    FileDamage(
        "expiry",
        lambda value, dice: {**value, "expiresAt": other_text(value["expiresAt"], dice)},
        {"old": {"metadata"}},
        "expiresAt",
    ),
    FileDamage(
        "date",
        lambda value, dice: {**value, "createdAt": "2024-02-29T23:59:59.999Z"},
        {"old": {"metadata", "created_at"}},
        "createdAt",
    ),
    FileDamage(
        "bookkeeping that went back",
        lambda value, dice: {**value, "accessCount": value["accessCount"] - 1},
        {"old": {"metadata"}},
        "accessCount",
    ),
    FileDamage(
        "number in quotes",
        lambda value, dice: {**value, "accessCount": str(value["accessCount"])},
        {"old": {"metadata"}},
        "accessCount",
    ),
    FileDamage(
        "more than there was",
        lambda value, dice: {**value, "more": None},
        {"old": {"metadata"}},
        "more",
    ),
)
"""Every kind of damage within a file that stays a record."""


def cut_short(path: Path, dice: random.Random) -> None:
    """Leave only the start of a file, as a full disk does."""
    data = path.read_bytes()
    path.write_bytes(data[: dice.randrange(len(data) - 1)])
