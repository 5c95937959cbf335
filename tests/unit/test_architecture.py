"""The arrows between the parts, and what starting the command line costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import harca

PACKAGE = Path(harca.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

PURE = (
    "readers", "conflicts", "normalize", "canonical", "fingerprint", "batching", "load", "verify",
    "ledger", "model", "errors", "inspect", "pins", "redact", "histogram", "drift", "open_loop",
    "soak_result", "condition",
)  # fmt: skip
DATABASE = ("psycopg", "sqlalchemy", "alembic", "harca.postgres")


def dotted(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts).removesuffix(".__init__")


def imports(path: Path) -> set[str]:
    """Return every module that a file imports, at the top or in a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            assert node.module is not None
            found.add(node.module)
            # "from harca import migrations" names a module too.
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def is_in(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


COMMAND_LINE = ("harca.cli", "harca.__main__")


@pytest.mark.parametrize(
    "path",
    [path for path in MODULES if not any(is_in(dotted(path), part) for part in COMMAND_LINE)],
    ids=dotted,
)
def test_nothing_imports_the_command_line(path):
    assert not [name for name in imports(path) if is_in(name, "harca.cli")]


def pure_modules() -> list[Path]:
    return [path for path in MODULES if any(is_in(dotted(path), f"harca.{name}") for name in PURE)]


@pytest.mark.parametrize("path", pure_modules(), ids=dotted)
def test_logic_knows_no_database(path):
    assert not [name for name in imports(path) for lib in DATABASE if is_in(name, lib)]


def test_every_part_named_here_exists():
    names = {dotted(path) for path in MODULES}

    assert {f"harca.{name}" for name in PURE} <= names


def test_errors_import_nothing_of_ours():
    assert not [name for name in imports(PACKAGE / "errors.py") if is_in(name, "harca")]


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_starting_the_command_line_loads_nothing_heavy():
    modules = loaded_by("import harca.cli.app")

    assert "typer" in modules
    assert not modules & {"numpy", "psycopg", "sqlalchemy", "alembic", "rich"}


def test_readers_load_no_database():
    modules = loaded_by("import harca.readers.harca, harca.load, harca.verify, harca.inspect")

    assert not modules & {"psycopg", "sqlalchemy", "alembic", "harca.postgres"}


def test_alembic_loads_of_harca_only_what_registers_its_operations():
    """It does so in every project of the environment, before it is ready itself."""
    modules = loaded_by("import harca.alembic_plugin as plugin, alembic; plugin.setup(None)")

    ours = {name for name in modules if is_in(name, "harca")}
    assert ours == {"harca", "harca.alembic_plugin", "harca.operations"}
    assert not modules & {"psycopg", "numpy", "orjson"}


@pytest.mark.parametrize("first", ["harca.operations", "harca.migrations", "alembic"])
def test_the_operations_are_there_whatever_is_imported_first(first):
    code = f"import {first}, harca.migrations; from alembic import op; op.load_store"

    assert "harca.operations" in loaded_by(code)
