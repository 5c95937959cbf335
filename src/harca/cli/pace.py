"""How fast a load goes: the options that say so, and the commands pause and resume."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from harca.cli.app import (
    DatabaseOption,
    JsonOption,
    QuietOption,
    VerboseOption,
    app,
    begin,
    resolve,
)

if TYPE_CHECKING:
    from harca.pace import Pace
    from harca.postgres.pauses import Loading

MaxRowsOption = Annotated[
    int | None,
    typer.Option("--max-rows-per-s", min=1, help="Read and load no more records per second."),
]
PauseWhenOption = Annotated[
    list[str] | None,
    typer.Option(
        "--pause-when",
        metavar="CONDITION",
        help='Wait while this is so: "lag>10s" of a replica, "load>8" other sessions at work.',
    ),
]
LoadingArgument = Annotated[
    str | None,
    typer.Argument(help="Path of the store, or its name; the only one, if left out."),
]


def read_pace(max_rows_per_s: int | None, pause_when: list[str] | None) -> "Pace":
    """Return the pace that was asked for on the command line."""
    from harca.pace import Limit, Pace

    return Pace(max_rows_per_s, tuple(Limit.read(text) for text in pause_when or ()))


@app.command()
def pause(
    store: LoadingArgument = None,
    database: DatabaseOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Have a load that runs elsewhere wait before its next batch, with nothing half done.

    It keeps its lock on the store. Go on with `harca resume`.

    Example: harca pause ./file-store
    """
    out = begin(json, quiet, verbose)
    from harca.postgres import pauses
    from harca.postgres.connect import translated

    with translated(), resolve(database).connect() as conn:
        done = pauses.pause(conn, _names(store))
    out.result(
        lambda: _as_dict(done, paused=True),
        lambda: f'"{done.store}" waits from its next batch on; to go on: harca resume',
    )


@app.command()
def resume(
    store: LoadingArgument = None,
    database: DatabaseOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Let a load go on that `harca pause` has made wait.

    Example: harca resume ./file-store
    """
    out = begin(json, quiet, verbose)
    from harca.postgres import pauses
    from harca.postgres.connect import translated

    with translated(), resolve(database).connect() as conn:
        done = pauses.resume(conn, _names(store))
    out.result(
        lambda: _as_dict(done, paused=False),
        lambda: (
            f'"{done.store}" goes on'
            if done.is_live
            else f'"{done.store}" is not paused any more, but nobody is loading it; '
            "next: harca migrate, as before"
        ),
    )


def _names(store: str | None) -> tuple[str, ...]:
    """Return what a store that is given by its path or its name is called in the table."""
    from harca.readers.staging import address

    return () if store is None else (store, address(store))


def _as_dict(done: "Loading", *, paused: bool) -> dict[str, Any]:
    return {"store": done.store, "paused": paused, "loading": done.is_live}
