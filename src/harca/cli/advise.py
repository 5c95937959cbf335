"""The command that measures which index a space should have: index advise."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harca.cli import render
from harca.cli.app import (
    DatabaseOption,
    JsonOption,
    QuietOption,
    VerboseOption,
    begin,
    resolve,
)
from harca.cli.index import DimsOption, ModelOption, index_app
from harca.cli.progress import watcher
from harca.errors import ExitCode

if TYPE_CHECKING:
    from harca.advice import Advice


@index_app.command()
def advise(
    model: ModelOption = None,
    dims: DimsOption = None,
    recall: Annotated[
        float | None,
        typer.Option(help="Recommend the fastest that finds this share; 0.98 by default."),
    ] = None,
    latency_ms: Annotated[
        float | None,
        typer.Option(
            metavar="MS", help="Instead: the one that finds most within these milliseconds (p50)."
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", "--k", help="How many results a search has.")] = 10,
    queries: Annotated[int, typer.Option(help="How many rows are searched for.")] = 100,
    max_rows: Annotated[
        int, typer.Option(help="Measure so many rows at most, of larger spaces a sample.")
    ] = 100_000,
    write: Annotated[
        bool, typer.Option("--write", help="Write the Alembic revision that makes the index.")
    ] = False,
    message: Annotated[
        str, typer.Option("-m", "--message", help="What the revision is for, in a few words.")
    ] = "",
    to: Annotated[
        Path | None, typer.Option(help="Folder to write the revision to; made if missing.")
    ] = None,
    database: DatabaseOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Measure the ways to search a space on its own rows, and recommend one.

    Rows of the space are the queries, the exact answers are the truth. The indexes are built on
    a copy, in a schema of its own that is dropped at the end.

    Example: harca index advise --recall 0.98 --write -m "index the product texts"
    """
    out = begin(json, quiet, verbose)
    from harca.advice import advise as measure
    from harca.errors import UsageError

    if not write and (message or to):
        raise UsageError(
            f"{'-m' if message else '--to'} is about the revision, and none is written",
            hint="Have it written with --write.",
        )
    target = resolve(database)
    with watcher(quiet=quiet) as watching:
        found = measure(
            target,
            model_id=model,
            dims=dims,
            recall=recall,
            latency_ms=latency_ms,
            k=k,
            queries=queries,
            max_rows=max_rows,
            write=write,
            message=message,
            to=to,
            watcher=watching,
        )
    out.result(found.as_dict, lambda: _text(found, write=write))
    if write and not found.choice.reached:
        raise typer.Exit(ExitCode.REFUSED)


def _text(found: "Advice", *, write: bool) -> str:
    measured, chosen = found.measured, found.choice.point
    space = measured.space
    rows = f"{space.records:,} rows"
    if found.is_sample:
        rows = f"a sample of {measured.sampled_rows:,} of {rows}"
    parts = [
        f"{space.model_id}/{space.dims}: measured on {rows}, {measured.queries:,} of them as "
        f"queries, k = {found.k}",
        render.table(
            ("", "searched by", "effort", "build s", "size", "recall", "p50 ms", "p95 ms"),
            [
                (
                    "*" if point is chosen else "",
                    point.name,
                    point.shown_effort or "-",
                    f"{point.build_s:.1f}" if point.size_bytes else "-",
                    render.size(point.size_bytes) if point.size_bytes else "-",
                    f"{point.recall:.3f}",
                    f"{point.p50_ms:.2f}",
                    f"{point.p95_ms:.2f}",
                )
                for point in measured.points
            ],
        ),
        *(f"left out: {what}" for what in measured.left_out),
    ]
    if found.is_sample:
        parts.append(_EXTRAPOLATED.format(times=space.records / measured.sampled_rows))
    parts.append(("* recommended: " if found.choice.reached else "* nearest: ") + found.choice.why)
    if found.revision is not None:
        parts.append(f"revision {found.revision.revision}: {found.revision.path}")
        parts.append(
            "next: alembic upgrade head; way back: alembic downgrade -1"
            if found.revision.is_read
            else "alembic does not look there: see docs/planning.md"
        )
    elif write and not found.choice.reached:
        parts.append("no revision was written: nothing is as fast as was asked")
    else:
        if write:
            parts.append("no revision was written: it takes no index")
        parts.append(f"to have it so: {found.command}")
    return "\n".join(parts)


_EXTRAPOLATED = (
    "These are figures of a sample. With {times:.3g} times the rows, exact searches and the builds "
    "take about {times:.3g} times as long, and the indexes as much more room; a search by index "
    "takes somewhat longer and finds somewhat less."
)
