"""The command report."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harca.cli import render
from harca.cli.app import (
    DatabaseOption,
    JsonOption,
    QuietOption,
    VerboseOption,
    app,
    begin,
    resolve,
)
from harca.cli.progress import watcher
from harca.errors import ExitCode

if TYPE_CHECKING:
    from harca.report.collect import Report

_FILE = Path("harca-report.html")


@app.command()
def report(
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=f"The page to write; {_FILE} by default, none with --json unless it is named.",
        ),
    ] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite a file that is no report of harca.")
    ] = False,
    verify: Annotated[
        bool,
        typer.Option("--verify", help="Compare all stores with their rows first, as harca verify."),
    ] = False,
    no_texts: Annotated[
        bool,
        typer.Option("--no-texts", help="Leave out what rejected records begin with."),
    ] = False,
    price_gb_month: Annotated[
        float | None, typer.Option(min=0, help="What a GB on disk costs a month.")
    ] = None,
    price_memory_gb_month: Annotated[
        float | None, typer.Option(min=0, help="What a GB of memory costs a month.")
    ] = None,
    database: DatabaseOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Write one HTML file on what was moved, how it was proved, and how fast searches are.

    It changes nothing and measures nothing: it shows what other commands have kept. With
    --verify, exit code 3 means that a store differs from its rows.

    Example: harca report --output harca-report.html
    """
    out = begin(json, quiet, verbose)
    from harca.report import plots, write
    from harca.report.collect import collect
    from harca.report.cost import Prices
    from harca.report.page import page

    file = output or (None if json else _FILE)
    if file is not None:
        plots.require_matplotlib()
        write.check(file, force=force)
    with watcher(quiet=quiet) as watching:
        found = collect(
            resolve(database),
            verify=verify,
            prices=Prices(price_gb_month, price_memory_gb_month),
            texts=not no_texts,
            watcher=watching,
        )
    size = write.write(file, page(found)) if file is not None else 0
    out.result(
        lambda: {**found.as_dict(), "output": None if file is None else str(file)},
        lambda: _text(found, file, size),
    )
    for one in found.reverified or []:
        if one.outcome is None:
            out.say(f"not compared: {one.error}")
    if found.differs or found.is_short:
        raise typer.Exit(ExitCode.DIFFERENT if found.differs else ExitCode.FAILED)


def _text(found: "Report", file: Path | None, size: int) -> str:
    lines = [f"{file}: {render.size(size)}"]
    lines.append(
        render.table(
            ("the plan's criterion", "outcome", "measured", "by"),
            [(one.name, one.outcome, one.figure, one.command) for one in found.criteria],
        )
    )
    if found.unreadable:
        lines.append(f"not readable, and left out: {', '.join(found.unreadable[:10])}")
    return "\n".join(lines)
