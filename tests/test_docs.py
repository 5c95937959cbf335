"""What the documents say is what the program does."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from harca.cli import advise as _advise  # noqa: F401  # importing registers commands
from harca.cli import bench as _bench  # noqa: F401
from harca.cli import database as _database  # noqa: F401
from harca.cli import embedder as _embedder  # noqa: F401
from harca.cli import index as _index  # noqa: F401
from harca.cli import look as _look  # noqa: F401
from harca.cli import move as _move  # noqa: F401
from harca.cli import pace as _pace  # noqa: F401
from harca.cli import plans as _plans  # noqa: F401
from harca.cli import report as _report  # noqa: F401
from harca.cli import safety as _safety  # noqa: F401
from harca.cli import search as _search  # noqa: F401
from harca.cli import soak as _soak  # noqa: F401
from harca.cli.app import app
from harca.condition import COMBINATIONS, COMPARISONS
from harca.model import Reason, Warn
from harca.postgres.filters import compile_filter
from tests.conftest import ROOT
from tests.stores import record, write_record

README = ROOT / "README.md"
DOCUMENTS = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "examples").glob("*.md")]
)
CLI = (ROOT / "docs" / "cli.md").read_text("utf-8")

COMMON_OPTIONS = {"--json", "-q", "--quiet", "-v", "--verbose", "-h", "--help"}


def commands(group: Any, path: str = "harca") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


COMMANDS = dict(commands(typer.main.get_command(app)))


def section(path: str) -> str:
    """Return the part of docs/cli.md about a command."""
    found = re.search(rf"^## {re.escape(path)}\n(.*?)(?=^## |\Z)", CLI, re.DOTALL | re.MULTILINE)
    assert found, f"docs/cli.md has no section «{path}»"
    return found[1]


@pytest.mark.parametrize("path", COMMANDS)
def test_a_command_has_help_with_an_example_and_a_section(path):
    command = COMMANDS[path]
    example = re.search(r"\bExample: (.+)$", " ".join((command.help or "").split()))

    assert example, "the help does not end with an example"
    assert path in example[1] or "$(" in example[1]
    assert f"```sh\n{example[1]}\n```" in section(path)


@pytest.mark.parametrize("path", COMMANDS)
def test_a_section_names_every_option_and_no_other(path):
    options = {
        name
        for parameter in COMMANDS[path].params
        if parameter.param_type_name == "option"
        for name in parameter.opts
    } - COMMON_OPTIONS
    arguments = {
        parameter.name
        for parameter in COMMANDS[path].params
        if parameter.param_type_name == "argument"
    }
    rows = [row for row in section(path).splitlines() if row.startswith(("| `-", "| `"))]
    first_cells = [row.split(" | ")[0] for row in rows]
    listed = {name for cell in first_cells for name in re.findall(r"`(--?[a-z-]+)", cell)}

    assert listed == options
    assert all(any(f"`{name}` (argument)" in cell for cell in first_cells) for name in arguments)


def test_no_section_is_about_a_command_that_is_not_there():
    assert set(re.findall(r"^## (.+)$", CLI, re.MULTILINE)) == set(COMMANDS)


def test_every_command_takes_the_common_options():
    for path, command in COMMANDS.items():
        options = {name for parameter in command.params for name in parameter.opts}
        assert COMMON_OPTIONS - {"-h", "--help"} <= options, path


def fields(value: dict[str, Any]) -> set[str]:
    """Return the names of an object's fields, and of those of the objects in its lists."""
    names = set(value)
    for name, inner in value.items():
        if isinstance(inner, list) and inner and isinstance(inner[0], dict):
            names |= {f"{name}[].{key}" for key in inner[0]}
    return names


@pytest.mark.one_server
def test_the_json_fields_are_those_in_the_documents(tmp_path, project, database, run_harca):
    store = tmp_path / "store"
    for number in range(3):
        write_record(store, record(f"t{number}", [1.0, number]))
    write_record(store / "a", record("twice", [1.0, 0.0]))
    write_record(store / "b", record("twice", [0.0, 1.0]))
    write_record(store, record("bad", [None]))
    steps: list[tuple[str, tuple[str | Path, ...]]] = [
        ("harca inspect", (store,)),
        ("harca migrate", (store,)),
        ("harca backup", (store, "--backup-dir", tmp_path / "backups")),
        ("harca verify", (store,)),
        ("harca status", ()),
        ("harca report", ()),
        ("harca search", ("--like", "1")),
        ("harca embedder", ()),
        ("harca index list", ()),
        ("harca index build", ()),
        ("harca index advise", ("-k", "1", "--queries", "1")),
        ("harca bench search", ("--clients", "0", "--queries", "2", "--rounds", "1", "-k", "2")),
        ("harca bench scale", ("--rows", "12", "--dims", "3", "--queries", "2", "--rounds", "1")),
        ("harca soak", ("--minutes", "0.01", "--max-errors", "1")),
        ("harca rejections list", ()),
        ("harca rejections export", (tmp_path / "out",)),
        ("harca export", (tmp_path / "exported",)),
        ("harca rollback", ("last",)),
        ("harca restore", ()),
        ("harca plan", (store, "-m", "load it", "--max-rejects", "1")),
        ("harca load", ()),
        ("harca db url", ()),
        ("harca db config", ()),
    ]

    for path, arguments in steps:
        if path == "harca restore":
            arguments = (next((tmp_path / "backups").iterdir()), "--replace")
        done = run_harca(*path.split()[1:], *arguments, "--json", database=database)

        documented = re.findall(r"^\| (`[^|]*) \|", section(path), re.MULTILINE)
        cells = [cell for cell in documented if "--" not in cell and "(argument)" not in cell]
        names = {name for cell in cells for name in re.findall(r"`([a-z0-9_\[\].]+)`", cell)}
        assert names == fields(done.json), path


def blocks(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the commands of the blocks that are marked as runnable, with their output."""
    for block in re.findall(r"<!-- runs -->\n```console\n(.*?)```", text, re.DOTALL):
        for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
            command, *output = step.splitlines()
            yield command, output


def normal(line: str) -> str:
    """Return a line without what differs from run to run and from place to place."""
    line = re.sub(r"in [\d.]+ s \([\d,]+ rows/s\)", "in N s (N rows/s)", line)
    line = re.sub(r"(fingerprint \d+):[0-9a-f]{16}", r"\1:HASH", line)  # has tests of its own
    return line.replace(str(ROOT), "/path/to/harca").rstrip()


@pytest.fixture
def run(tmp_path, empty_database, run_harca, run_alembic):
    """Run a command of the documents; return what it prints to stdout."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")

    def run(command: str) -> list[str]:
        program, *arguments = shlex.split(command)
        runner = {"harca": run_harca, "alembic": run_alembic}[program]
        done = runner(*arguments, database=empty_database)
        assert done.code == 0, done.err
        return [normal(line) for line in done.out.splitlines()]

    return run


def test_the_readme_s_steps_print_what_it_shows(run):
    steps = list(blocks(README.read_text("utf-8")))
    assert len(steps) >= 10

    for command, output in steps:
        assert run(command) == [normal(line) for line in output], command


SEARCH = (ROOT / "docs" / "search.md").read_text("utf-8")


def test_the_page_about_searching_shows_what_is_printed(
    run, tmp_path, empty_database, monkeypatch, capsys
):
    run("harca migrate examples/store")
    queries = sorted((ROOT / "examples" / "queries").glob("*.json"))
    lines = [json.dumps(json.loads(path.read_text("utf-8"))) for path in queries]
    (tmp_path / "queries.jsonl").write_text("\n".join(lines))  # what the page does with jq
    steps = list(blocks(SEARCH))
    assert len(steps) >= 6

    for command, output in steps:
        assert run(command) == [normal(line) for line in output], command

    (code,) = re.findall(r"```python\n(.*?)```", SEARCH, re.DOTALL)
    monkeypatch.setenv("HARCA_DATABASE_URL", empty_database.conninfo)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    assert len(capsys.readouterr().out.splitlines()) == 120


def test_every_operator_of_filters_is_in_the_table_with_an_example():
    shown = re.findall(r"^\| `({.*?})` \|", SEARCH, re.MULTILINE)

    for where in shown:
        assert compile_filter(json.loads(where)) is not None, where
    for operator in (*COMPARISONS, *COMBINATIONS):
        assert any(f'"{operator}"' in where for where in shown), operator


def test_the_japanese_readme_shows_the_same_steps():
    japanese = (ROOT / "README.ja.md").read_text("utf-8")

    assert list(blocks(japanese)) == list(blocks(README.read_text("utf-8")))


def test_the_first_screen_shows_what_make_demo_prints(run):
    shown = re.findall(r"```console\n\$ git clone .*make demo\n(.*?)```", README.read_text("utf-8"),
                       re.DOTALL)[0].splitlines()  # fmt: skip
    makefile = (ROOT / "Makefile").read_text("utf-8")
    recipe = re.search(r"^demo:.*\n((?:\t.*\n)+)", makefile, re.MULTILINE)
    assert recipe

    printed: list[str] = []
    for line in recipe[1].replace("$(DEMO)", "harca").splitlines():
        command = line.strip().lstrip("@")
        if command.startswith("harca "):
            printed += run(command)
        elif command.startswith('echo "'):
            printed.append(shlex.split(command)[1])

    following = iter(printed)
    for line in shown:
        assert line == "…" or normal(line) in following, f"not printed, or not here: {line}"


def anchors(path: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    found = set()
    for heading in headings(path):
        kept = re.sub(r"[^\w\- ]", "", heading.lstrip("# ").lower())
        found.add(kept.replace(" ", "-"))
    return found


def headings(path: Path) -> list[str]:
    text = re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    return re.findall(r"^#+ .+$", text, re.MULTILINE)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text("utf-8")):
        if link.startswith(("http://", "https://")):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_japanese_readme_has_the_same_headings():
    def levels(path: Path) -> list[int]:
        return [len(heading.split()[0]) for heading in headings(path)]

    assert levels(ROOT / "README.ja.md") == levels(README)


@pytest.mark.parametrize("code", [*Reason, *Warn])
def test_every_reason_and_warning_is_explained(code):
    formats = (ROOT / "docs" / "formats.md").read_text("utf-8")

    assert f"| `{code}` |" in formats
    if code in list(Reason):
        assert f"`{code}`" in README.read_text("utf-8")


def test_every_revision_is_in_the_table_of_locks():
    operating = (ROOT / "docs" / "operating.md").read_text("utf-8")

    for folder in ("alembic", "data_migrations"):
        for path in (ROOT / folder / "versions").glob("*.py"):
            planned = "op.load_store" in path.read_text("utf-8")  # an operator's own
            assert planned or path.name.split("_")[2] in operating


def test_queries_in_the_documents_run(conn):
    for name in ("operating.md", "rollback.md"):
        text = (ROOT / "docs" / name).read_text("utf-8")
        for query in re.findall(r"```sql\n(SELECT.*?)```", text, re.DOTALL):
            conn.execute(query)
