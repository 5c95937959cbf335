"""Commands for data revisions: plan, load."""

from pathlib import Path
from typing import Annotated, Any

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
    BatchRowsOption,
    CreatedOption,
    ExpiredOption,
    FormatOption,
    IdOption,
    MappingOption,
    MaxRejectsOption,
    MetadataOption,
    ModelFieldOption,
    ModelOption,
    NameOption,
    OnConflictOption,
    RecordsOption,
    SourceOption,
    StoreArgument,
    TextOption,
    VectorOption,
    load_options,
)


@app.command()
def plan(
    store: StoreArgument,
    message: Annotated[
        str, typer.Option("-m", "--message", help="What the revision loads, in a few words.")
    ],
    to: Annotated[
        Path | None, typer.Option(help="Folder to write the revision to; made if missing.")
    ] = None,
    on_conflict: OnConflictOption = "newest",
    expired: ExpiredOption = "keep",
    source: SourceOption = None,
    model: ModelOption = None,
    name: NameOption = None,
    format: FormatOption = None,
    records: RecordsOption = None,
    id_field: IdOption = None,
    text_field: TextOption = None,
    vector_field: VectorOption = None,
    metadata_field: MetadataOption = None,
    model_field: ModelFieldOption = None,
    created_field: CreatedOption = None,
    mapping: MappingOption = None,
    batch_rows: BatchRowsOption = None,
    max_rejects: MaxRejectsOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
    database: DatabaseOption = None,
) -> None:
    """Write a data revision that loads a store as it is now, for review.

    Pins what the store holds: format, counts, spaces, fingerprint. `harca load` refuses a
    store that has changed since. Needs no database.

    Example: harca plan ./file-store -m "load the file store"
    """
    out = begin(json, quiet, verbose)
    from harca.plan import plan as write

    options = load_options(
        on_conflict=on_conflict,
        expired=expired,
        source=source,
        model=model,
        name=name,
        format=format,
        records=records,
        id_field=id_field,
        text_field=text_field,
        vector_field=vector_field,
        metadata_field=metadata_field,
        model_field=model_field,
        created_field=created_field,
        mapping=mapping,
        batch_rows=batch_rows,
        max_rejects=max_rejects,
    )
    done = write(store, message, options, to=to)
    out.result(done.as_dict, lambda: render.plan(done, max_rejects or 0))


@app.command()
def load(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List what would be loaded; change nothing.")
    ] = False,
    store: Annotated[
        list[str] | None,
        typer.Option(
            metavar="REVISION=PATH", help="Where a revision's store is now; can be given again."
        ),
    ] = None,
    allow_drift: Annotated[
        bool,
        typer.Option("--allow-drift", help="Load stores that changed since they were planned."),
    ] = False,
    max_rejects: MaxRejectsOption = None,
    database: DatabaseOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Apply the pending data revisions: load the stores that were planned, and verify.

    A store that has changed since it was planned is refused before anything is written,
    with exit code 4. Harca's own first revision is passed over unless its store is named.
    Run again after a failure, it goes on.

    Example: harca load --dry-run
    """
    out = begin(json, quiet, verbose)
    from harca.apply import apply

    with watcher(quiet=quiet) as watching:
        done = apply(
            resolve(database),
            stores=store or (),
            allow_drift=allow_drift,
            max_rejects=max_rejects,
            dry_run=dry_run,
            watcher=watching,
        )

    def as_dict() -> dict[str, Any]:
        return {
            "dry_run": dry_run,
            "before": done.before,
            "after": done.after,
            "revisions": [step.as_dict() for step in done.steps],
        }

    out.result(as_dict, lambda: render.steps(done, dry_run=dry_run))
