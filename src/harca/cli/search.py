"""The command that searches."""

from pathlib import Path
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
    from harca.postgres.search import Answer


@app.command()
def search(
    text: Annotated[
        str | None,
        typer.Option(help="A text: its stored embedding is the query, else one made for it."),
    ] = None,
    vector: Annotated[
        Path | None,
        typer.Option(help="A JSON file with the query's embedding, or a .npy file; - for stdin."),
    ] = None,
    like: Annotated[
        str | None, typer.Option(help="Id or store_key of a row whose embedding is the query.")
    ] = None,
    batch: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Many queries at once: a JSON list of embeddings, JSON lines, or a .npy file "
            "of shape (queries, dims); - for stdin.",
        ),
    ] = None,
    model: Annotated[str | None, typer.Option(help="Model label of the space.")] = None,
    embedder: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="What embeds the text: openai:MODEL, local:MODEL; the space's."
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", "--k", help="How many results.")] = 10,
    where: Annotated[
        str | None,
        typer.Option(metavar="JSON", help="Only where the metadata are so; see docs/search.md."),
    ] = None,
    source: Annotated[str | None, typer.Option(help="Only from this source.")] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only what was created then or later.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only what was created before then.")
    ] = None,
    min_similarity: Annotated[
        float | None, typer.Option(help="Only results at least so similar, -1 to 1.")
    ] = None,
    after: Annotated[
        str | None,
        typer.Option(
            metavar="TOKEN", help="The results that follow: `next` of those before, from --json."
        ),
    ] = None,
    hybrid: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="What fits this text ranks too, with what is near."),
    ] = None,
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
    from harca.postgres.filters import compile_filter
    from harca.postgres.full_text import hybrid as fused
    from harca.postgres.search import Position, Query, Searcher, find_space
    from harca.query import query_vector
    from harca.query_files import read_batch
    from harca.query_filter import read_filter, read_time

    given = [value for value in (text, vector, like, batch) if value is not None]
    if len(given) != 1:
        raise UsageError(
            f"expected one of --text, --vector, --like and --batch, found {len(given)}",
            hint="For example: harca search --vector query.json",
        )
    if batch is not None and after is not None:
        raise UsageError(
            "--after follows one query's results, --batch has several queries",
            hint="Search for one of them with --vector, and go on from there.",
        )
    if hybrid is not None and (batch is not None or after is not None):
        raise UsageError(
            f"--hybrid and {'--batch' if batch is not None else '--after'} do not go together",
            hint="Search for one query at a time, with a larger --k for more results.",
        )
    if embedder is not None and text is None:
        raise UsageError("--embedder is for --text", hint="Leave it out, or search by --text.")
    chosen = compile_filter(
        read_filter(where),
        source=source,
        since=read_time(since, "--since"),
        until=read_time(until, "--until"),
    )
    position = None if after is None else Position.from_token(after)
    embeddings, stated = read_batch(batch) if batch is not None else ([], None)
    model = model or stated
    embedded_by = None
    with translated(), resolve(database).connect() as conn:
        if batch is None:
            embedding, model, embedded_by = query_vector(
                conn,
                text=text,
                vector=vector,
                like=like,
                model_id=model,
                embedder=embedder,
                tell=out.say,
            )
            embeddings = [embedding]
        space = find_space(conn, model_id=model, dims=len(embeddings[0]))
        queries = [Query(each, k, chosen, min_similarity, position) for each in embeddings]
        searcher = Searcher(conn)
        if hybrid is not None:
            answers = [fused(searcher, queries[0], hybrid, space)]
        else:
            answers = searcher.search_many(queries, space)
    if batch is not None:
        out.result(lambda: _batch_as_dict(answers), lambda: render.answers(answers))
        return
    seen = position.seen if position else 0
    out.result(
        lambda: {
            **_as_dict(answers[0]),
            "model_id": space.model_id,
            "dims": space.dims,
            "embedded_by": embedded_by,
        },
        lambda: render.answer(answers[0], seen=seen),
    )


def _as_dict(found: "Answer") -> dict[str, Any]:
    return {
        "results": [hit.as_dict() for hit in found.hits],
        "answered_by": found.answered_by,
        "next": found.next.token() if found.next else None,
    }


def _batch_as_dict(answers: "list[Answer]") -> dict[str, Any]:
    space = answers[0].space
    return {
        "queries": [_as_dict(found) for found in answers],
        "model_id": space.model_id,
        "dims": space.dims,
    }
