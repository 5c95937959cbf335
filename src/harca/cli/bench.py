"""Commands that measure searches: bench search, bench scale."""

from typing import TYPE_CHECKING, Annotated, Any

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

if TYPE_CHECKING:
    from collections.abc import Mapping

bench_app = typer.Typer(help="Measure searches, side by side in one run.", no_args_is_help=True)
app.add_typer(bench_app, name="bench")

QueriesOption = Annotated[int, typer.Option(min=1, help="Queries of a round.")]
KOption = Annotated[int, typer.Option("-k", "--k", help="How many results.")]
RoundsOption = Annotated[
    int, typer.Option(min=1, help="How often all contestants answer them, in turns.")
]


@bench_app.command()
def search(
    store: Annotated[
        str | None,
        typer.Argument(help="The file store that was loaded: its files are searched too."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model label of the space.")] = None,
    dims: Annotated[
        int | None, typer.Option(min=1, help="Dimensions of the space, if the label has several.")
    ] = None,
    queries: QueriesOption = 100,
    k: KOption = 10,
    rounds: RoundsOption = 5,
    clients: Annotated[
        str, typer.Option(metavar="N,N", help="How many search at the same time; 0: leave it out.")
    ] = "1,4,16",
    seconds: Annotated[
        float, typer.Option(min=0.1, help="How long they do, for each contestant.")
    ] = 3.0,
    rivals: Annotated[
        bool,
        typer.Option(
            "--rivals",
            help="Load the same rows by langchain-postgres and vecs too, where these are "
            "installed, into scratch databases.",
        ),
    ] = False,
    database: DatabaseOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Search the loaded rows by every way there is, side by side: files, memory, PostgreSQL.

    Example: harca bench search ./file-store --clients 1,4
    """
    out = begin(json, quiet, verbose)
    from harca.bench.search import SearchOptions, bench_search

    result = bench_search(
        resolve(database),
        SearchOptions(
            store=store,
            model=model,
            dims=dims,
            queries=queries,
            k=k,
            rounds=rounds,
            clients=_numbers(clients),
            seconds=seconds,
            rivals=rivals,
        ),
        say=out.say,
    )
    out.result(lambda: result, lambda: _search_text(result))


@bench_app.command()
def scale(
    rows: Annotated[int, typer.Option(min=1, help="Rows of the smaller size.")] = 10_000,
    dims: Annotated[int, typer.Option(min=1, max=16_000, help="Dimensions.")] = 1536,
    factor: Annotated[
        int, typer.Option(min=2, help="How many times as many the larger size has.")
    ] = 10,
    recall: Annotated[
        float, typer.Option(help="Recall that the searches of both sizes must reach.")
    ] = 0.98,
    queries: QueriesOption = 100,
    k: KOption = 10,
    rounds: RoundsOption = 5,
    database: DatabaseOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Say what ten times the rows cost a search, with rows that are made up.

    They go to scratch databases, which are dropped at the end.

    Example: harca bench scale --rows 1000 --dims 384
    """
    out = begin(json, quiet, verbose)
    from harca.bench.scale import ScaleOptions, bench_scale

    result = bench_scale(
        resolve(database),
        ScaleOptions(
            rows=rows,
            factor=factor,
            dims=dims,
            recall=recall,
            k=k,
            queries=queries,
            rounds=rounds,
        ),
        say=out.say,
    )
    out.result(lambda: result, lambda: _scale_text(result))


def _numbers(text: str) -> tuple[int, ...]:
    from harca.errors import UsageError

    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) <= 1_000 for part in parts):
        raise UsageError(
            f'--clients is "{text}", expected numbers of at most 1,000',
            hint="For example: --clients 1,4,16",
        )
    return tuple(int(part) for part in parts if int(part))


def _search_text(result: "Mapping[str, Any]") -> str:
    space, index = result["space"], result["index"]
    by = "searched exactly, without an index"
    if index is not None:
        by = f"{index['method']} index on {index['type']}, {render.size(index['bytes'])}"
    parts = [
        f"{space['model_id']}/{space['dims']}, {space['records']:,} rows, {by}; "
        f"k = {result['k']}, {result['queries']} queries, {result['rounds']} rounds",
        render.table(
            ("", "answered", "p50 ms", "p95 ms", "p99 ms", "recall", "CPU ms", "server CPU ms"),
            [
                (
                    one["name"],
                    one["answered"],
                    _ms(one["p50_ms"]),
                    _ms(one["p95_ms"]),
                    _ms(one["p99_ms"]),
                    f"{one['recall']:.3f}",
                    _ms(one["client_cpu_ms"]),
                    _ms(one["server_cpu_ms"]),
                )
                for one in result["contestants"]
            ],
        ),
    ]
    at_once = [
        (
            one["name"],
            some["clients"],
            f"{some['qps']:,.1f}",
            _ms(some["p50_ms"]),
            _ms(some["p95_ms"]),
            _ms(some["p99_ms"]),
            _ms(some["client_mb"]),
            _ms(some["server_mb"]),
        )
        for one in result["contestants"]
        for some in one["clients"]
    ]
    if at_once:
        parts.append(
            render.table(
                ("", "clients", "searches/s", "p50 ms", "p95 ms", "p99 ms", "MB", "server MB"),
                at_once,
            )
        )
    named = {
        "files_to_harca": "the files take {} times as long as harca",
        "numpy_to_harca": "NumPy in memory takes {} times as long as harca",
        "harca_to_sql": "harca takes {} times as long as SQL written by hand",
    }
    parts += [
        named[name].format(f"{ratio:,.2f}")
        for name, ratio in result["ratios"].items()
        if ratio is not None
    ]
    parts += [
        "; ".join([f"{one['name']}: {one['title']}", *one["notes"]])
        for one in result["contestants"]
    ]
    parts += [f"left out: {one['name']}: {one['why']}" for one in result["skipped"]]
    return "\n".join([*parts, *result["notes"]])


def _scale_text(result: "Mapping[str, Any]") -> str:
    lines = [
        (
            f"{one['rows']:,}",
            "exact" if one["index"] is None else f"{one['index']['method']} {one['index']['type']}",
            "" if one["index"] is None else _effort(one["index"]["effort"]),
            f"{one['recall']:.3f}",
            _ms(one["p50_ms"]),
            _ms(one["p95_ms"]),
            _ms(one["p99_ms"]),
            _ms(one["sql"]["p50_ms"]),
            _ms(one["numpy"]["p50_ms"]),
            f"{one['build_s']:.1f}",
        )
        for one in result["sizes"]
    ]
    verdict = "reached" if result["reached"] else "not reached"
    return "\n".join(
        [
            f"{result['dims']} dimensions, k = {result['k']}, recall {result['recall_goal']} asked "
            f"for; {result['queries']} queries, {result['rounds']} rounds",
            render.table(
                (
                    "rows", "searched by", "effort", "recall", "p50 ms", "p95 ms", "p99 ms",
                    "SQL p50", "NumPy p50", "built in s",
                ),
                lines,
            ),
            f"{result['factor']} times the rows take {result['growth']:.2f} times as long; "
            f"goal {result['growth_goal']:.2f}, {verdict} "
            f"(SQL by hand {result['growth_sql']:.2f}, NumPy {result['growth_numpy']:.2f})",
            *result["why"],
        ]
    )  # fmt: skip


def _effort(effort: "Mapping[str, int]") -> str:
    return ", ".join(f"{name} {value}" for name, value in effort.items())


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.3g}" if value < 100 else f"{value:,.0f}"
