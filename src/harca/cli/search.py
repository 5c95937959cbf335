"""The command that searches."""

from pathlib import Path
from typing import Annotated

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


@app.command()
def search(
    text: Annotated[
        str | None,
        typer.Option(help="A text that is in the table: its stored embedding is the query."),
    ] = None,
    vector: Annotated[
        Path | None,
        typer.Option(help="A JSON file with the query's embedding, or a .npy file; - for stdin."),
    ] = None,
    like: Annotated[
        str | None, typer.Option(help="Id or store_key of a row whose embedding is the query.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model label of the space.")] = None,
    k: Annotated[int, typer.Option("-k", "--k", help="How many results.")] = 10,
    where: Annotated[
        str | None, typer.Option(metavar="JSON", help="Only where the metadata contain this.")
    ] = None,
    source: Annotated[str | None, typer.Option(help="Only from this source.")] = None,
    database: DatabaseOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Find the nearest records of a space by cosine similarity.

    Example: harca search --vector query.json --k 5 --where '{"language": "en"}'
    """
    out = begin(json, quiet, verbose)
    from harca.errors import UsageError
    from harca.postgres.connect import translated
    from harca.postgres.search import find_space
    from harca.postgres.search import search as find
    from harca.query import query_vector, read_filter

    given = [value for value in (text, vector, like) if value is not None]
    if len(given) != 1:
        raise UsageError(
            f"expected one of --text, --vector and --like, found {len(given)}",
            hint="For example: harca search --vector query.json",
        )
    condition = read_filter(where)
    with translated(), resolve(database).connect() as conn:
        embedding, model = query_vector(conn, text=text, vector=vector, like=like, model_id=model)
        space = find_space(conn, model_id=model, dims=len(embedding))
        found = find(conn, embedding, space, k=k, where=condition, source=source)
    out.result(
        lambda: {
            "results": [hit.as_dict() for hit in found.hits],
            "model_id": found.space.model_id,
            "dims": found.space.dims,
            "answered_by": found.answered_by,
        },
        lambda: render.answer(found),
    )
