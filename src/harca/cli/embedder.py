"""The command embedder: what embeds the texts that a space is searched by."""

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
    from harca.embedders.choice import Choice
    from harca.model import Space
    from harca.space_embedder import Kept


@app.command()
def embedder(
    name: Annotated[
        str | None,
        typer.Argument(help="openai:MODEL or local:MODEL (or a folder); left out, show them."),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model label of the space.")] = None,
    dims: Annotated[
        int | None, typer.Option(min=1, help="Its dimensions, where the label has several.")
    ] = None,
    check: Annotated[
        int,
        typer.Option(min=1, max=10_000, metavar="N", help="Compare by so many stored texts."),
    ] = 5,
    force: Annotated[
        bool, typer.Option("--force", help="Keep it even if its embeddings are others.")
    ] = False,
    forget: Annotated[
        bool, typer.Option("--forget", help="Keep none with the space any more.")
    ] = False,
    database: DatabaseOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Keep with a space what embeds the texts that it is searched by, or show it.

    Stored texts are embedded first, and have to come out as they are stored.

    Example: harca embedder openai:text-embedding-3-small --model text-embedding-3-small
    """
    out = begin(json, quiet, verbose)
    from harca import space_embedder
    from harca.errors import UsageError
    from harca.postgres.connect import translated
    from harca.postgres.search import find_space

    if name is not None and forget:
        raise UsageError("expected a name or --forget, found both", hint="Leave out one of them.")
    kept = None
    with translated(), resolve(database).connect() as conn:
        if name is not None or forget:
            space = find_space(conn, model_id=model, dims=dims)
            model, dims = space.model_id, space.dims
            if name is not None:
                kept = space_embedder.keep(conn, space, name, texts=check, force=force)
            else:
                space_embedder.forget(conn, space)
        found = space_embedder.embedders(conn, model_id=model, dims=dims)
        if not found:
            find_space(conn, model_id=model, dims=dims)  # raises, and says which there are
    out.result(lambda: _as_dict(found, kept), lambda: _text(found, kept))


def _as_dict(found: "list[tuple[Space, Choice | None]]", kept: "Kept | None") -> dict[str, Any]:
    parity = kept.parity if kept else None
    return {
        "spaces": [
            {
                "model_id": space.model_id,
                "dims": space.dims,
                "embedder": choice.name if choice else None,
                "origin": choice.origin if choice else None,
            }
            for space, choice in found
        ],
        "texts": parity.texts if parity else None,
        "agreeing": parity.agreeing if parity else None,
        "lowest": parity.lowest if parity else None,
        "lengths_differ": parity.lengths_differ if parity else None,
        "unchecked": kept.unchecked if kept else None,
    }


def _text(found: "list[tuple[Space, Choice | None]]", kept: "Kept | None") -> str:
    from harca.cli.render import table

    rows = [
        (
            space.model_id,
            space.dims,
            choice.name if choice else "-",
            choice.origin if choice else "no embedder known",
        )
        for space, choice in found
    ]
    lines = [table(("model", "dims", "embedder", ""), rows)]
    if kept is not None:
        lines.insert(0, _compared(kept))
    return "\n".join(lines)


def _compared(kept: "Kept") -> str:
    from harca.errors import counted

    parity = kept.parity
    if parity is None:
        return f"not compared with the stored embeddings: {kept.unchecked}"
    text = (
        f"{parity.agreeing} of {counted(parity.texts, 'stored text')} embedded as stored, "
        f"lowest cosine {parity.lowest:.6f}"
    )
    if parity.lengths_differ:
        text += "; the lengths differ, which a search by cosine does not mind"
    return text
