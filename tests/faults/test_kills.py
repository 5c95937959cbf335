"""A load that is killed at any moment, again and again, loses nothing and loads nothing twice.

Where the matrix strikes at points that are known to matter, here chance looks for others:
moments within statements, between them, and while nothing is sent at all.
"""

import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
import pytest

from harca.postgres.connect import Database
from tests.faults.forked import Command, ForkServer
from tests.stores import record, write_record

pytestmark = pytest.mark.one_server

KILLS = 200
LOADS = 25
PARTS = 5  # of them, which can be run side by side
SEED = int(os.environ.get("HARCA_KILL_SEED") or random.SystemRandom().randrange(10**9))

_RECORDS = 30
_POLICIES = ("newest", "oldest", "keep")
_BEFORE = 0.15  # of the kills are at a moment that need not be within the load
_LOOK_AGAIN_S = 0.01
_DATES = ("2025-01-01T00:00:00.000Z", "2025-06-01T00:00:00.000Z", "2025-09-01T00:00:00.000Z")


_LATEST = """
    SELECT run_id, attempt, status FROM load_runs WHERE store = %s ORDER BY run_id DESC LIMIT 1
"""
_UNSOUND = """
    SELECT 'twice', store_key FROM vector_embeddings GROUP BY store, store_key
        HAVING count(*) > 1
    UNION ALL
    SELECT 'unbalanced', run_id::text FROM load_runs r WHERE status <> 'verified'
        OR read <> loaded + unchanged + superseded + rejected
        OR read IS DISTINCT FROM (SELECT sum(read) FROM load_batches b WHERE b.run_id = r.run_id)
    UNION ALL
    SELECT 'invalid', indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid
"""


@dataclass
class Store:
    """A store that changes while its load is killed and taken up again."""

    folder: Path
    dice: random.Random
    texts: set[str] = field(default_factory=set)

    def write(self) -> None:
        """Write it, with a key that has two contents."""
        for n in range(_RECORDS):
            self._write(n, "a", _DATES[0])
        self._write(3, "b", _DATES[1])

    def change(self) -> None:
        """Give some records another content and date, or add some."""
        for _ in range(self.dice.randrange(1, 4)):
            self._write(self.dice.randrange(_RECORDS + 10), "a", self.dice.choice(_DATES))

    def _write(self, n: int, folder: str, date: str) -> None:
        vector = [self.dice.uniform(-1, 1) for _ in range(6)]
        text = f"text number {n:04}."
        self.texts.add(text)
        write_record(self.folder / folder, record(text, vector, createdAt=date))


@dataclass
class Killer:
    """Kills loads at random moments.

    Attributes:
        hits: How often a load was before its beginning, running, or over when it was killed.
        lasts_s: How long a load takes from its beginning, as far as is known.
    """

    commands: ForkServer
    database: Database
    conn: psycopg.Connection[Any]
    folder: Path
    dice: random.Random
    hits: Counter[str] = field(default_factory=Counter)
    lasts_s: float = 0.1

    def kill(self, store: Store, *options: str) -> None:
        """Load *store* until a load was killed; one that ends before is followed by another."""
        while True:
            before = self._latest(store)
            load = self._start("migrate", store.folder, *options)
            if self.dice.random() > _BEFORE:
                while self._latest(store)[:2] == before[:2] and load.runs:
                    time.sleep(_LOOK_AGAIN_S)
            if not load.ended_within(self.dice.uniform(0, self.lasts_s)):
                break
            ended = load.wait()
            # What was killed before may not be over on the server.
            assert ended.code in (0, 4), ended.err
            if ended.code == 0:
                self.lasts_s *= 0.8
                store.change()
        load.send(signal.SIGKILL)
        ended = load.wait()
        after = self._latest(store)
        if ended.code != -signal.SIGKILL or (after[:2] != before[:2] and after[2] == "verified"):
            self.hits["over"] += 1
        else:
            self.hits["before" if after[:2] == before[:2] else "running"] += 1
        self.lasts_s *= 1.02

    def finish(self, store: Store, *options: str) -> None:
        """Load *store* to its end."""
        until = time.monotonic() + 60
        while (ended := self._start("migrate", store.folder, *options).wait()).code == 4:
            assert time.monotonic() < until, ended.err
        assert ended.code == 0, ended.err

    def verify(self, store: Store) -> None:
        """Compare it with its rows."""
        ended = self._start("verify", store.folder).wait()
        assert ended.code == 0, ended.out + ended.err
        rows = self.conn.execute(
            "SELECT content FROM vector_embeddings WHERE store = %s", [str(store.folder)]
        )
        assert sorted(content for (content,) in rows) == sorted(store.texts)

    def _start(self, *arguments: str | Path) -> Command:
        env = {"HARCA_DATABASE_URL": self.database.conninfo}
        return self.commands.start(*arguments, folder=self.folder, env=env)

    def _latest(self, store: Store) -> tuple[int, int, str]:
        found = self.conn.execute(_LATEST, [str(store.folder)]).fetchone()
        return found or (0, 0, "none")


@pytest.mark.parametrize("part", range(PARTS))
def test_two_hundred_kills_lose_no_row_and_load_none_twice(
    part: int, database: Database, tmp_path: Path
) -> None:
    print(f"HARCA_KILL_SEED={SEED}")  # noqa: T201
    dice = random.Random(f"{SEED}/{part}")
    with ForkServer() as commands, database.connect() as conn:
        killer = Killer(commands, database, conn, tmp_path, dice)
        for number in range(part, LOADS, PARTS):
            _load_and_kill(killer, number, tmp_path / f"store-{number}")
        unsound = conn.execute(_UNSOUND).fetchall()

    print(killer.hits)  # noqa: T201
    assert unsound == []
    assert killer.hits.total() == KILLS // PARTS
    assert killer.hits["running"] > 0.5 * KILLS // PARTS


def _load_and_kill(killer: Killer, number: int, folder: Path) -> None:
    """Kill one load, and the one that follows when its store has changed."""
    store = Store(folder, random.Random(killer.dice.random()))
    store.write()
    options = ["--batch-rows", "5", "--on-conflict", _POLICIES[number % len(_POLICIES)]]
    if number % 7:
        options.append("--no-backup")
    for part in range(2):
        for _ in range(KILLS // LOADS // 2):
            killer.kill(store, *options)
            if number % 2:
                store.change()  # and so the load that is resumed meets another store
        killer.finish(store, *options)
        if part == 0:
            store.change()
    killer.verify(store)
