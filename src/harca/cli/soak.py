"""The command soak."""

from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harca.cli import render
from harca.cli.app import (
    DatabaseOption,
    JsonOption,
    Output,
    QuietOption,
    VerboseOption,
    app,
    begin,
    current,
    resolve,
)
from harca.errors import ExitCode

if TYPE_CHECKING:
    from harca.soak import Soaked

_EVERY_S = 3.0


@app.command()
def soak(
    minutes: Annotated[float, typer.Option(help="How long.")] = 10.0,
    rate: Annotated[
        float, typer.Option(help="Requests per second, of all clients together.")
    ] = 20.0,
    writes: Annotated[
        float, typer.Option(help="Share of the requests that write rows of the soak's own.")
    ] = 0.1,
    filtered: Annotated[
        float, typer.Option(help="Share of the searches that have a filter.")
    ] = 0.25,
    clients: Annotated[int, typer.Option(help="Sessions that take turns.")] = 4,
    model: Annotated[
        str | None, typer.Option(help="Model label of the space; the largest, if left out.")
    ] = None,
    dims: Annotated[int | None, typer.Option(help="Dimensions, if a label has several.")] = None,
    k: Annotated[int, typer.Option("-k", "--k", help="How many results a search asks for.")] = 10,
    in_place: Annotated[
        bool,
        typer.Option("--in-place", help="Write into the space that is searched, and its index."),
    ] = False,
    seed: Annotated[int, typer.Option(help="Another one asks in another order.")] = 1,
    max_errors: Annotated[float, typer.Option(help="Share of the requests that may fail.")] = 0.001,
    max_latency_drift: Annotated[
        float, typer.Option(help="Share by which p50 and p95 may grow.")
    ] = 0.25,
    max_memory_drift: Annotated[
        float, typer.Option(help="Share by which memory of client and server may grow.")
    ] = 0.10,
    max_bloat: Annotated[
        float, typer.Option(help="Share by which table and indexes may grow per live row.")
    ] = 0.20,
    clean_up: Annotated[
        bool, typer.Option("--clean-up", help="Take away what a soak that was killed has left.")
    ] = False,
    database: DatabaseOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Search and write at a set rate for long, and say whether all stays as it was.

    It writes rows of its own only, and takes them away in the end. Exit code 3 means that
    requests failed, or that latency, memory or the table grew.

    Example: harca soak --minutes 60 --rate 50 --writes 0.1
    """
    out = begin(json, quiet, verbose)
    target = resolve(database)
    if clean_up:
        from harca.soak import clean_up as take_away

        removed = take_away(target)
        out.result(lambda: {"removed": removed}, lambda: f"took away {removed:,} rows")
        return
    from harca.soak import Load
    from harca.soak import soak as run
    from harca.soak_result import Limits

    load = Load(
        minutes, rate, writes, filtered, clients, model, dims, k, in_place=in_place, seed=seed
    )
    limits = Limits(max_errors, max_latency_drift, max_memory_drift, max_bloat)
    done = run(target, load, limits, told=_teller(out))
    found = done.as_dict()
    out.result(lambda: found, lambda: _text(done, found))
    if done.removed is None:
        out.say("the soak's rows are still there; take them away with: harca soak --clean-up")
    if done.interrupted:
        raise SystemExit(ExitCode.TERMINATED if current.terminated else ExitCode.INTERRUPTED)
    if not done.is_steady:
        raise typer.Exit(ExitCode.DIFFERENT)


def _teller(out: Output) -> Any:
    """Say how it comes along every few seconds, and everything else at once."""
    spoke = -_EVERY_S

    def tell(message: str) -> None:
        nonlocal spoke
        if message.startswith("soak: "):
            if monotonic() - spoke < _EVERY_S:
                return
            spoke = monotonic()
        out.say(message)

    return tell


def _text(done: "Soaked", found: dict[str, Any]) -> str:
    stopped = ", interrupted" if done.interrupted else ""
    parts = [
        f"{found['verdict']}: {found['requests']:,} requests in {found['seconds']:,.0f} s, "
        f"{sum(found['errors'].values()) + found['unserved']:,} failed, "
        f"{found['connections_lost']:,} connections lost{stopped}"
    ]
    parts += [f"  {reason}" for reason in found["reasons"]]
    parts.append(
        f"space {found['model_id']}/{found['dims']}, {found['records']:,} rows, "
        f"{found['load']['clients']} clients"
    )
    parts.append(
        render.table(
            ("request", "answered", "p50 ms", "p95 ms", "p99 ms", "max ms"),
            [
                (
                    kind,
                    f"{took['answered']:,}",
                    *(f"{took[name]:,.1f}" for name in ("p50_ms", "p95_ms", "p99_ms", "max_ms")),
                )
                for kind, took in found["kinds"].items()
                if took["answered"]
            ],
        )
    )
    parts.append(_trends(found["drift"]))
    before, after = found["before"], found["after"]
    if before["table_bytes"] is not None and after["table_bytes"] is not None:
        parts.append(
            f"table {render.size(before['table_bytes'])}, then {render.size(after['table_bytes'])}"
            f"; its indexes {render.size(before['index_bytes'])}, then "
            f"{render.size(after['index_bytes'])}; {after['dead_rows']:,} dead rows"
        )
    if done.removed is not None:
        parts.append(f"took away {done.removed:,} rows of its own")
    return "\n".join(parts)


_NAMES = {
    "reads_p50_ms": ("p50 of searches", "ms"),
    "reads_p95_ms": ("p95 of searches", "ms"),
    "writes_p50_ms": ("p50 of writes", "ms"),
    "writes_p95_ms": ("p95 of writes", "ms"),
    "client_bytes": ("memory of the client", "B"),
    "server_bytes": ("memory of a server process", "B"),
    "bytes_per_row": ("table and indexes per live row", "B"),
}


def _trends(drifts: dict[str, Any]) -> str:
    from harca.soak_result import amount

    rows = [
        (name, amount(trend["first"], unit), amount(trend["last"], unit),
         f"{trend['between_thirds']:+.1%}")
        for key, (name, unit) in _NAMES.items()
        if (trend := drifts[key]) is not None
    ]  # fmt: skip
    if not rows:
        return "too short to tell a drift"
    return render.table(("median of", "first third", "last third", "change"), rows)
