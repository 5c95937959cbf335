"""The old application's driver, before, during and after the consolidation and its way back."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import psycopg
import pytest

from harca.postgres.connect import Database
from tests import legacy
from tests.conftest import ROOT

APPLICATION = ROOT / "tests" / "node"
BEFORE = "d2f84b6a17e5"
ROWS = 1_100


@pytest.fixture(scope="session")
def application(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The application's statements with npm's `pg` beside them; the folder they are in."""
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not here: the application's own driver is not tested")
    folder = tmp_path_factory.mktemp("node")
    shutil.copytree(APPLICATION, folder, dirs_exist_ok=True)
    done = subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"npm cannot install pg: {done.stderr.strip()[:200]}")
    return folder


def environment(database: Database) -> dict[str, str]:
    return {**os.environ, "DATABASE_URL": database.url(password=True)}


def answers(application: Path, database: Database):
    done = subprocess.run(
        ["node", "application.js", "answers"], cwd=application, env=environment(database),
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_application_notices_nothing(application, empty_database, run_alembic):
    with psycopg.connect(empty_database.conninfo, autocommit=True) as conn:
        legacy.create(
            conn, legacy.EMBEDDINGS["jsonb and vector"], legacy.CODE_VECTORS["setup script"]
        )
        for table, column in (("embeddings", "embedding_vector"), ("code_vectors", "embedding")):
            conn.execute(
                f"INSERT INTO {table} (content, {column}, metadata) SELECT 'old ' || n, "
                "(SELECT array_agg(CASE WHEN i = n %% 1536 THEN -1 ELSE 0.01 END) "
                "FROM generate_series(1, 1536) i)::real[]::vector, '{}' "
                "FROM generate_series(1, %s) n",
                [ROWS],
            )
        assert run_alembic("upgrade", BEFORE, database=empty_database).code == 0

        before = answers(application, empty_database)
        with subprocess.Popen(
            ["node", "application.js", "write"], cwd=application,
            env=environment(empty_database), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True,
        ) as writer:  # fmt: skip
            assert writer.stderr is not None
            writer.stderr.readline()
            upgraded = run_alembic("upgrade", "head", database=empty_database)
            after = answers(application, empty_database)
            downgraded = run_alembic("downgrade", BEFORE, database=empty_database)
            time.sleep(0.2)
            again = run_alembic("upgrade", "head", database=empty_database)
            printed, said = writer.communicate(timeout=120)
        assert (upgraded.code, downgraded.code, again.code) == (0, 0, 0), said
        written = json.loads(printed)
        mirrored: dict[str, list[str]] = dict(
            conn.execute("SELECT store, array_agg(store_key) FROM vector_embeddings GROUP BY store")
        )
        assert run_alembic("downgrade", BEFORE, database=empty_database).code == 0
        finally_ = answers(application, empty_database)

        assert written["errors"] == []
        for table, ids in written["ids"].items():
            there = {str(key) for (key,) in conn.execute(f"SELECT id FROM {table}")}
            assert len(ids) > 5
            assert set(ids) <= there
            assert set(mirrored[f"public.{table}"]) == there
    for table in ("embeddings", "code_vectors"):
        assert before[table]["found"][0]["content"] == "node 1"
        assert before[table]["more"] == 3
    steady = [strip(one) for one in (before, after, finally_)]
    assert steady[0] == steady[1] == steady[2]


def strip(seen):
    """Leave out what a writer beside it changes: counts, and what else is found."""
    for answer in seen.values():
        del answer["more"], answer["less"]
        answer["found"] = answer["found"][0]
    return seen
