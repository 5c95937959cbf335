"""Commands that only look: inspect, verify, status."""

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
from harca.cli.store import (
    CreatedOption,
    FormatOption,
    IdOption,
    MappingOption,
    MetadataOption,
    ModelFieldOption,
    ModelOption,
    NameOption,
    RecordsOption,
    SourceOption,
    StoreArgument,
    TextOption,
    VectorOption,
    load_options,
)
from harca.errors import ExitCode

if TYPE_CHECKING:
    from harca.status import Status
    from harca.verify import Verification


@app.command()
def inspect(
    store: StoreArgument,
    model: ModelOption = None,
    source: SourceOption = None,
    format: FormatOption = None,
    records: RecordsOption = None,
    id_field: IdOption = None,
    text_field: TextOption = None,
    vector_field: VectorOption = None,
    metadata_field: MetadataOption = None,
    model_field: ModelFieldOption = None,
    created_field: CreatedOption = None,
    mapping: MappingOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    database: DatabaseOption = None,
) -> None:
    """Say what a store holds: format, records, spaces, conflicts, problems.

    Writes nothing, and needs no database.

    Example: harca inspect ./file-store
    """
    out = begin(json, quiet, verbose)
    from harca.inspect import inspect as look

    options = load_options(
        model=model,
        source=source,
        format=format,
        records=records,
        id_field=id_field,
        text_field=text_field,
        vector_field=vector_field,
        metadata_field=metadata_field,
        model_field=model_field,
        created_field=created_field,
        mapping=mapping,
    )
    found = look(store, options)
    out.result(found.as_dict, lambda: render.inspection(found))


@app.command()
def verify(
    store: Annotated[
        str | None,
        typer.Argument(help="What was loaded: folder, file or URL; all that was, if left out."),
    ] = None,
    name: NameOption = None,
    database: DatabaseOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Compare stores with their rows: counts, spaces, every vector, text and metadata.

    Exit code 3 means that something differs, and says what.

    Example: harca verify ./file-store
    """
    out = begin(json, quiet, verbose)
    from harca.errors import NothingToVerify
    from harca.migrate import loaded_stores, verify_store

    target = resolve(database)
    stores = [(name, store)] if store is not None else loaded_stores(target)
    if not stores:
        raise NothingToVerify("no store was loaded")
    with watcher(quiet=quiet) as watching:
        outcomes = [
            verify_store(target, path, name=known_as, watcher=watching) for known_as, path in stores
        ]
    ok = all(outcome.ok for outcome in outcomes)
    out.result(lambda: _verifications(outcomes, ok), lambda: _verification_text(outcomes))
    if not ok:
        raise typer.Exit(ExitCode.DIFFERENT)


def _verifications(outcomes: "list[Verification]", ok: bool) -> dict[str, Any]:
    if len(outcomes) == 1:
        return outcomes[0].as_dict()
    found = [outcome.as_dict() for outcome in outcomes]
    return {
        "ok": ok,
        "checks": [
            {**check, "store": outcome["store"]} for outcome in found for check in outcome["checks"]
        ],
        "mismatches": [
            {**mismatch, "store": outcome["store"]}
            for outcome in found
            for mismatch in outcome["mismatches"]
        ],
        "mismatch_count": sum(outcome["mismatch_count"] for outcome in found),
        "stores": found,
    }


def _verification_text(outcomes: "list[Verification]") -> str:
    return "\n".join(f"{outcome.store}\n{render.verification(outcome)}" for outcome in outcomes)


@app.command()
def status(
    database: DatabaseOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Show the database: schema, spaces and their indexes, runs.

    Example: harca status --json
    """
    out = begin(json, quiet, verbose)
    from harca.status import status as look

    found = look(resolve(database))
    out.result(found.as_dict, lambda: _status_text(found))


def _status_text(found: "Status") -> str:
    parts = [
        f"{found.database}, named by {found.origin}",
        f"PostgreSQL {found.server}, pgvector {found.pgvector or 'not installed'}",
        f"schema {found.schema or 'none'} (head {found.schema_head}), "
        f"data {found.data or 'none'} (head {found.data_head})",
    ]
    if found.schema != found.schema_head:
        parts.append("next: alembic upgrade head, or harca migrate STORE")
    if not found.has_ledger:
        return "\n".join(parts)
    foreign = f", {found.foreign_rows:,} of them not loaded by harca" if found.foreign_rows else ""
    parts.append(f"{found.rows:,} rows{foreign}")
    if found.spaces:
        parts.append(
            render.table(
                ("model", "dims", "records", "searched by"),
                [
                    (space["model_id"], space["dims"], space["records"], _searched_by(space))
                    for space in found.spaces
                ],
            )
        )
    if found.runs:
        parts.append(
            render.table(
                ("run", "status", "read", "loaded", "unchanged", "superseded", "rejected", "store"),
                [
                    (
                        run["run_id"], render.run_status(run), run["read"], run["loaded"],
                        run["unchanged"], run["superseded"], run["rejected"], run["store"],
                    )
                    for run in found.runs
                ],
            )
        )  # fmt: skip
    else:
        parts.append("no runs; next: harca migrate STORE")
    return "\n".join(parts)


def _searched_by(space: dict[str, Any]) -> str:
    index, why = space["index"], space["why_exact"]
    return f"exact: {why}" if index == "exact" and why else str(index)
