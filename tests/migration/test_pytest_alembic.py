"""pytest-alembic's own tests, on both environments."""

import pytest
from pytest_alembic import tests as standard
from pytest_alembic.config import Config
from pytest_alembic.runner import runner

from harca import migrations


@pytest.fixture
def alembic_runner(empty_database):
    config = Config(alembic_config=migrations.config(migrations.SCHEMA, empty_database))
    with runner(config=config, engine=empty_database.engine()) as made:
        yield made


@pytest.mark.parametrize(
    "check",
    [
        standard.test_single_head_revision,
        standard.test_upgrade,
        standard.test_model_definitions_match_ddl,
        standard.test_up_down_consistency,
    ],
    ids=lambda check: check.__name__.removeprefix("test_"),
)
def test_standard(check, alembic_runner):
    check(alembic_runner)
