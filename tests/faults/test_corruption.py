"""A thousand cases of corruption, planted behind harca's back: all found, and named.

``HARCA_TEST_SEED`` gives other thousand; the seed of a case that fails is in its message.
"""

import json
import os
import random
import shutil
from collections import Counter
from contextlib import contextmanager
from datetime import UTC, datetime

import numpy as np
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from harca.load import Intake
from harca.migrate import migrate
from harca.options import LoadOptions
from harca.postgres.connect import database as resolve_database
from harca.postgres.rows import StoreRows
from harca.readers.harca import HarcaReader, record_key
from harca.verify import verify
from tests.faults.planting import FILES, ROWS, Planted, Planter, Row, cut_short
from tests.stores import record, write_record

pytestmark = pytest.mark.one_server

SEED = int(os.environ.get("HARCA_TEST_SEED", "20261128"))
IN_ROWS, IN_FILES, BY_COMMAND = 850, 140, 10
OLD, NEW = "2025-01-01T00:00:00.000Z", "2025-06-01T00:00:00.000Z"
TEXTS = ("plain text", "Café naïve", "ガギグ 全角", "e = mc²", "line\nline", "a", "tab\tquote \" '")


def write(root, dice):
    """Write a store with everything in it that a table of harca's can hold."""
    for number in range(14):
        vector = [dice.uniform(-1, 1) for _ in range(6)]
        vector[number % 6] = -0.0 if number % 2 else 0.0
        more = {
            "score": dice.choice([0.1, 1, -2.5, 1e-7, 12345678901234567890]),
            "flag": number % 2 == 0,
            "none": None,
            "tags": ["b", "a", {"deep": [1, 1.5, "1"]}],
            "タグ": {"é": "é", "n": number},
            "createdAt": NEW if number % 5 else None,
            "accessCount": 1 + number,
        }
        text = f"{TEXTS[number % len(TEXTS)]} {number}"
        model = "model-b" if number % 4 == 0 else "model-a"
        write_record(root / f"cache/{number % 2}", record(text, vector, model, **more))
    write_record(root / "a", record("twice", [1.0, 0.0], createdAt=NEW))
    write_record(root / "b", record("twice", [0.0, 1.0], createdAt=OLD))
    (root / "broken").mkdir()
    (root / "broken" / "one.json").write_text('{"text": "no end", "embedding": [1')
    (root / "broken" / f"{'a' * 64}.json").write_text("[]")
    entries = [
        {"id": f"doc-{number}", "content": text, "embedding": [1.0, float(number), 0.0],
         "metadata": {"created": OLD, "title": text}}
        for number, text in enumerate(TEXTS)
    ]  # fmt: skip
    (root / "vector-store.json").write_text(json.dumps([*entries, entries[0]]))


@pytest.fixture
def loaded(tmp_path, database):
    """A store loaded in three runs, so that rows are of several and every list is filled."""
    dice = random.Random(SEED)
    store = tmp_path / "store"
    write(store, dice)

    def load(**options):
        done = migrate(
            store, lambda: database, LoadOptions.from_text({"batch_rows": "5", **options})
        )
        assert done.verification.ok, done.verification

    load()
    write_record(store / "a", record("twice", [3.0, 0.0], createdAt="2025-07-01T00:00:00.000Z"))
    for number in range(7):
        write_record(store / "later", record(f"later {number}", [0.5, number], createdAt=None))
    load()
    write_record(store / "a", record("twice", [4.0, 0.0], createdAt="2025-08-01T00:00:00.000Z"))
    for number in range(6):
        write_record(store / "last", record(f"last {number}", [0.25, -number], createdAt=NEW))
    load(on_conflict="keep")
    return store


def rows_of(conn):
    """Return the rows that stand for records that have nothing else under their key."""
    found = conn.execute(
        "SELECT v.id, store_key, content, embedding::text, metadata, model_id, v.created_at, "
        "source, run_id, v.created_at = r.started_at FROM vector_embeddings v "
        "JOIN load_runs r USING (run_id, store) WHERE store_key NOT IN "
        "(SELECT store_key FROM superseded) ORDER BY store_key"
    )
    return [
        Row(id, key, content, as_vector(vector), metadata, *rest)
        for id, key, content, vector, metadata, *rest in found
    ]


def as_vector(text):
    # Not as JSON, in which -0 is 0.
    return np.array([float(component) for component in text.strip("[]").split(",")], np.float32)


def entries_of(store):
    reader = HarcaReader(store)
    return list(Intake(reader, LoadOptions(), now=datetime.now(UTC)).entries())


def compared(conn, store, entries, volatile=HarcaReader.volatile):
    latest = conn.execute(
        "SELECT max(run_id) FROM load_runs WHERE store = %s", [str(store)]
    ).fetchone()[0]
    rows = StoreRows(conn, str(store), latest)
    return verify(lambda: entries, rows, volatile=volatile)


def named(outcome):
    found: dict[str, set[str]] = {}
    for mismatch in outcome.mismatches:
        found.setdefault(mismatch.store_key, set()).update(mismatch.difference.split(", "))
    return found


def complaint(outcome, planted):
    """Return what is wrong with what was found, or nothing."""
    failed = {check.name for check in outcome.checks if not check.ok}
    wrong = []
    if outcome.ok:
        wrong.append("not found")
    if named(outcome) != planted.named:
        wrong.append(f"named {named(outcome)}, expected {dict(planted.named)}")
    if outcome.mismatch_count != len(outcome.mismatches):
        wrong.append(f"counted {outcome.mismatch_count}, listed {len(outcome.mismatches)}")
    if planted.checks - failed:
        wrong.append(f"failed {failed}, expected {planted.checks}")
    details = {mismatch.store_key: mismatch.detail for mismatch in outcome.mismatches}
    for key, metadata_key in planted.keys.items():
        keys = details.get(key, "").rpartition("metadata keys: ")[2].split(", ")
        if metadata_key not in keys:
            wrong.append(f"metadata key {metadata_key!r} is not named: {details.get(key)!r}")
    return "; ".join(wrong)


def test_planted_differences_are_found_and_named(loaded, conn):
    entries, rows = entries_of(loaded), rows_of(conn)
    assert compared(conn, loaded, entries).ok
    tried: Counter[str] = Counter()
    holes = []
    for case in range(IN_ROWS):
        plant = ROWS[case % len(ROWS)]
        with conn.transaction(force_rollback=True):
            planter = Planter(conn, str(loaded), rows, dice_of(case))
            planter.hide()
            plant(planter)
            wrong = complaint(compared(conn, loaded, entries), planter.planted)
        tried[plant.__name__] += 1
        if wrong:
            quiet = "quietly" if planter.quiet else "openly"
            holes.append(f"{case} {plant.__name__} {quiet} {planter.planted.what}: {wrong}")
    assert not holes, f"seed {SEED}: {len(holes)} of {tried.total()}\n" + "\n".join(holes)
    assert min(tried.values()) >= IN_ROWS // len(ROWS)
    assert compared(conn, loaded, entries).ok


def test_damage_of_the_store_is_found_and_named(loaded, conn):
    paths = [path for path in sorted(loaded.rglob("*.json")) if is_alone(path)]
    tried: Counter[str] = Counter()
    holes = []
    for case in range(IN_FILES):
        dice = dice_of(f"file {case}")
        path = dice.choice(paths)
        data, planted = path.read_bytes(), Planted()
        value = json.loads(data)
        key = record_key(value["modelName"], value["text"])
        kind = case % (len(FILES) + 4)
        if kind < len(FILES):
            name = FILES[kind].name
            changed = FILES[kind].change(value, dice)
            path.write_text(json.dumps(changed, ensure_ascii=False))
            new = record_key(changed["modelName"], changed["text"])
            for side, fields in FILES[kind].fields.items():
                planted.named[{"old": key, "new": new}[side]] |= fields
            if (named_key := FILES[kind].key) is not None:
                planted.keys[key] = named_key
        else:
            name = ("cut short", "deleted", "copied", "moved")[kind - len(FILES)]
            if name == "cut short":
                cut_short(path, dice)
                planted.named[key] = {"extra"}
                planted.checks = {"rejections"}
            elif name == "deleted":
                path.unlink()
                planted.named[key] = {"extra"}
            else:
                other = loaded / "elsewhere" / path.name
                other.parent.mkdir(exist_ok=True)
                other.write_bytes(data)
                planted.named[key] = {"missing"}
                if name == "moved":
                    path.unlink()
                    planted.named[key] = {"metadata"}
                    planted.keys[key] = "directory"
        wrong = complaint(compared(conn, loaded, entries_of(loaded)), planted)
        path.write_bytes(data)
        shutil.rmtree(loaded / "elsewhere", ignore_errors=True)
        tried[name] += 1
        if wrong:
            holes.append(f"{case} {name} {path.name}: {wrong}")
    assert not holes, f"seed {SEED}: {len(holes)} of {tried.total()}\n" + "\n".join(holes)
    assert compared(conn, loaded, entries_of(loaded)).ok


def is_alone(path):
    """Say whether nothing but this file stands behind a row."""
    return path.parent.name in ("0", "1", "later", "last")


def test_the_command_line_says_so(loaded, database, conn, run_harca, server):
    """Ten cases as an operator meets them: committed, in a process, exit code 3."""
    kinds = [
        Planter.deleted, Planter.doubled, Planter.vectors_swapped, Planter.lowest_bit_flipped,
        Planter.sign_of_zero, Planter.character_changed, Planter.metadata_retyped,
        Planter.date_shifted, Planter.source_changed, Planter.loser,
    ]  # fmt: skip
    rows = rows_of(conn)
    assert len(kinds) == BY_COMMAND
    conn.close()  # a database is copied only while nobody uses it
    for case, plant in enumerate(kinds):
        with copied(server, database) as copy:
            with copy.connect(autocommit=False) as other:
                planter = Planter(other, str(loaded), rows, dice_of(f"command {case}"))
                planter.hide()
                plant(planter)
            done = run_harca("verify", loaded, "--json", database=copy)
        assert done.code == 3, (plant, done.out, done.err)
        assert not done.json["ok"]
        found = {one["store_key"]: one["difference"] for one in done.json["mismatches"]}
        expected = {key: ", ".join(fields) for key, fields in planter.planted.named.items()}
        assert found == expected, plant


@contextmanager
def copied(server, database):
    """Give a copy of a database that is dropped afterwards."""
    parts = conninfo_to_dict(database.conninfo)
    name = f"{parts['dbname']}_copy"
    drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name))
    with psycopg.connect(server, autocommit=True) as admin:
        admin.execute(drop)
        admin.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(
                sql.Identifier(name), sql.Identifier(str(parts["dbname"]))
            )
        )
        try:
            yield resolve_database(make_conninfo(database.conninfo, dbname=name))
        finally:
            admin.execute(drop)


HARMLESS = (
    "VACUUM FULL vector_embeddings",
    "REINDEX TABLE vector_embeddings",
    "ANALYZE",
    "CLUSTER superseded USING superseded_run_id_idx",
    "UPDATE vector_embeddings SET metadata = "
    "(SELECT jsonb_object_agg(key, value ORDER BY key DESC) FROM jsonb_each(metadata)) "
    "WHERE metadata <> '{}'",
    "UPDATE vector_embeddings SET updated_at = now()",
    "UPDATE vector_embeddings SET embedding = embedding::text::vector, content = content || ''",
    "UPDATE vector_embeddings SET created_at = created_at AT TIME ZONE 'Asia/Tokyo' "
    "AT TIME ZONE 'Asia/Tokyo'",
    "UPDATE load_batches SET read = read",
    "INSERT INTO vector_embeddings (content, embedding, metadata, model_id, store) "
    "VALUES ('of another program', '[1,2]', '{}', 'm', NULL)",
    "SET timezone = 'Asia/Tokyo'; SET datestyle = 'German'; SET bytea_output = 'escape'; "
    "SET extra_float_digits = 0; SET intervalstyle = 'iso_8601'",
    "ALTER TABLE vector_embeddings ALTER COLUMN embedding SET STORAGE EXTERNAL",
)


def test_what_is_no_difference_is_none(loaded, conn):
    entries = entries_of(loaded)
    for statement in HARMLESS:
        conn.execute(statement)
        outcome = compared(conn, loaded, entries)
        assert outcome.ok, (statement, outcome)
        assert not outcome.mismatch_count, statement
    path = next(path for path in sorted(loaded.rglob("*.json")) if is_alone(path))
    value = json.loads(path.read_bytes())
    for written in (
        json.dumps(dict(reversed(value.items()))),  # another order, no line breaks, ASCII
        json.dumps({**value, "embedding": [round(one, 12) for one in value["embedding"]]}),
        json.dumps({**value, "accessCount": value["accessCount"] + 1}),  # as HARCA reads it
    ):
        path.write_text(written)
        assert compared(conn, loaded, entries_of(loaded)).ok, written
    path.rename(path.with_name("another-name.json"))
    assert compared(conn, loaded, entries_of(loaded)).ok


def dice_of(case):
    """Return the dice of one case, whatever was thrown in others."""
    return random.Random(f"{SEED}:{case}")
