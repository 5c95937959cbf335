"""Commands about the spaces' indexes: index list, build."""

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
from harca.cli.progress import watcher

if TYPE_CHECKING:
    from harca.indexing import Built, Listed

index_app = typer.Typer(help="The indexes by which spaces are searched.", no_args_is_help=True)
app.add_typer(index_app, name="index")

ModelOption = Annotated[str | None, typer.Option("--model", help="Model label of the space.")]
DimsOption = Annotated[
    int | None, typer.Option("--dims", min=1, help="Its dimensions, if the model has several.")
]


@index_app.command("list")
def list_(
    database: DatabaseOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show each space with its index, and why it is searched exactly where it is.

    Example: harca index list
    """
    out = begin(json, quiet, verbose)
    from harca.indexing import listed

    found = listed(resolve(database))
    for warning in found.warnings:
        out.say(f"warning: {warning}")
    out.result(found.as_dict, lambda: _listed(found))


@index_app.command()
def build(
    model: ModelOption = None,
    dims: DimsOption = None,
    method: Annotated[
        str | None, typer.Option(metavar="hnsw|ivfflat", help="How the index is made.")
    ] = None,
    type_: Annotated[
        str | None,
        typer.Option("--type", metavar="vector|halfvec|bit", help="What it holds of an embedding."),
    ] = None,
    m: Annotated[int | None, typer.Option(min=2, max=100, help="Neighbours, in HNSW.")] = None,
    ef_construction: Annotated[
        int | None, typer.Option(min=4, max=1000, help="Candidates of a build of HNSW.")
    ] = None,
    lists: Annotated[
        int | None, typer.Option(min=1, max=32768, help="Lists of ivfflat; from the rows if none.")
    ] = None,
    ef_search: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Candidates of a search by HNSW.")
    ] = None,
    probes: Annotated[
        int | None, typer.Option(min=1, max=32768, help="Lists that a search looks through.")
    ] = None,
    candidates: Annotated[
        int | None, typer.Option(min=1, max=10000, help="Rows that a search compares exactly.")
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Search the space exactly: no index.")
    ] = False,
    forget: Annotated[
        bool, typer.Option("--forget", help="Forget what was said of the space: harca chooses.")
    ] = False,
    full_text: Annotated[
        bool,
        typer.Option("--full-text", help="Only the index for full text, of all spaces."),
    ] = False,
    database: DatabaseOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Build the indexes that the spaces deserve, or the one that is said, and keep to that.

    Searches and writes go on meanwhile.

    Example: harca index build --model text-embedding-3-small --type halfvec --m 24
    """
    out = begin(json, quiet, verbose)
    from harca.errors import UsageError
    from harca.indexing import Wish, build_full_text
    from harca.indexing import build as make

    _require_one_of("--method", method, ("hnsw", "ivfflat"))
    _require_one_of("--type", type_, ("vector", "halfvec", "bit"))
    parameters = _given(m=m, ef_construction=ef_construction, lists=lists)
    effort = _given(ef_search=ef_search, probes=probes, candidates=candidates)
    if exact and (method or type_ or parameters or effort or forget):
        raise UsageError("--exact is no index, so nothing else is said of it", hint="Leave it out.")
    wish = Wish("exact" if exact else method, type_, parameters, effort, forget)
    if full_text and (not wish.is_empty or model is not None or dims is not None):
        raise UsageError(
            "--full-text is an index of all spaces, on their texts",
            hint="Say nothing else with it; build the index of a space by a command of its own.",
        )
    target = resolve(database)
    with watcher(quiet=quiet) as watching:
        if full_text:
            done = build_full_text(target, watcher=watching)
        else:
            done = make(target, wish, model_id=model, dims=dims, watcher=watching)
    for warning in done.listed.warnings:
        out.say(f"warning: {warning}")
    out.result(done.as_dict, lambda: _built(done))


def _require_one_of(option: str, value: str | None, known: tuple[str, ...]) -> None:
    from harca.errors import UsageError

    if value is not None and value not in known:
        raise UsageError(
            f'{option} is "{value}", expected {" or ".join(known)}',
            hint="--exact is how a space gets no index.",
        )


def _given(**values: int | None) -> dict[str, int]:
    return {name: value for name, value in values.items() if value is not None}


def _built(done: "Built") -> str:
    parts = [f"built: {', '.join(done.built) or 'nothing new'}"]
    parts += [
        f"refused: {one['model_id']}/{one['dims']}: {one['why']}; searched exactly"
        for one in done.refused
    ]
    return "\n".join([*parts, _listed(done.listed)])


def _listed(found: "Listed") -> str:
    if not found.spaces:
        return "no spaces; next: harca migrate STORE"
    spaces = render.table(
        ("model", "dims", "records", "searched by", "size", "effort", "recall", "why"),
        [
            (
                space["model_id"],
                space["dims"],
                space["records"],
                _searched_by(space),
                render.size(space["bytes"]) if space["bytes"] else "-",
                _pairs(space["effort"]),
                "-" if space["recall"] is None else f"{space['recall']:.3f}",
                space["why"],
            )
            for space in found.spaces
        ],
    )
    return spaces if found.full_text is None else f"{spaces}\nfull text: {found.full_text}"


def _searched_by(space: dict[str, Any]) -> str:
    if not space["valid"]:
        return "exact"
    return f"{space['method']} on {space['type']}, {_pairs(space['parameters'])}"


def _pairs(values: dict[str, int]) -> str:
    return ", ".join(f"{name} {value}" for name, value in values.items()) or "-"
