"""Commands that move data: migrate, rollback, export, rejections."""

from itertools import chain
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
from harca.cli.pace import MaxRowsOption, PauseWhenOption, read_pace
from harca.cli.progress import watcher
from harca.cli.safety import BackupDirOption
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
from harca.errors import ExitCode


@app.command()
def migrate(
    store: StoreArgument,
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
    max_rows_per_s: MaxRowsOption = None,
    pause_when: PauseWhenOption = None,
    backup_dir: BackupDirOption = None,
    no_backup: Annotated[
        bool, typer.Option("--no-backup", help="Make no backup, whatever is in the database.")
    ] = False,
    database: DatabaseOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Bring a store into PostgreSQL: back up, upgrade the schema, load, index, verify.

    A backup is made where there are rows already, before anything is changed.
    The store's format is told by its contents (docs/formats.md has the list).
    Run again, it goes on where it was interrupted, or takes in what is new. Exit code 0
    means that every record is in and compared; with rejected records beyond
    --max-rejects it is 3.

    Example: harca migrate ./file-store --on-conflict newest
    """
    out = begin(json, quiet, verbose)
    from harca.backup import default_folder
    from harca.migrate import migrate as run

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
    pace = read_pace(max_rows_per_s, pause_when)
    with watcher(quiet=quiet) as watching:
        done = run(
            store,
            lambda: resolve(database),
            options,
            pace=pace,
            watcher=watching,
            backups=None if no_backup else backup_dir or default_folder(),
        )

    def as_dict() -> dict[str, Any]:
        result = done.result
        return {
            "run_id": done.run_id,
            "store": done.store,
            "resumed": done.resumed,
            **result.tally.as_dict(),
            "skipped": result.skipped,
            "outlived": len(result.outlived),
            "reasons": dict(result.rejected),
            "warnings": dict(result.warnings),
            "documents_without_vectors": len(done.reader.notes.without_vectors),
            "spaces": done.spaces,
            "indexes_built": done.indexes_built,
            "verified": done.verification.ok,
            "passes": [
                {
                    "run_id": one.run_id,
                    **one.result.tally.as_dict(),
                    "verified": one.verification.ok,
                }
                for one in (*done.earlier, done)
            ],
            "written_since": done.written_since,
            "verification": done.verification.as_dict(),
            "seconds": round(result.seconds, 3),
            "rows_per_s": round(result.tally.read / max(result.seconds, 1e-9), 1),
            "backup": str(done.backup.folder) if done.backup else None,
        }

    out.result(as_dict, lambda: render.migration(done))
    if not done.complete:
        raise typer.Exit(ExitCode.DIFFERENT)


@app.command()
def rollback(
    run: Annotated[str, typer.Argument(help="Number of the run, or `last`.")],
    changed: Annotated[
        str,
        typer.Option(
            metavar="refuse|keep|delete",
            help="What is done with what was changed since it was loaded.",
        ),
    ] = "refuse",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done; change nothing.")
    ] = False,
    database: DatabaseOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Take a run back: delete what it inserted, restore what it overwrote, nothing else.

    Run again after an interruption, it goes on where it was.

    Example: harca rollback 3
    """
    out = begin(json, quiet, verbose)
    from harca.errors import UsageError
    from harca.rollback import Changed, preview
    from harca.rollback import rollback as take_back

    if run != "last" and not run.isdecimal():
        raise UsageError(
            f'"{run}" is no run', hint="Give its number, as `harca status` lists it, or `last`."
        )
    if changed not in tuple(Changed):
        raise UsageError(f'--changed is "{changed}", expected one of {", ".join(Changed)}', hint="")
    number, choice = None if run == "last" else int(run), Changed(changed)
    if dry_run:
        done = preview(resolve(database), number, changed=choice)
    else:
        done = take_back(resolve(database), number, changed=choice, told=out.say)
    out.result(done.as_dict, lambda: render.taken_back(done))
    if done.refused:
        raise typer.Exit(ExitCode.REFUSED)


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(help="New or empty folder to write to.")],
    store: Annotated[
        str | None, typer.Option(help="Only the rows of this store, as `harca status` calls it.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Only rows with this model label.")] = None,
    dims: Annotated[
        int | None, typer.Option(min=1, help="Only rows with this number of dimensions.")
    ] = None,
    format: Annotated[
        str, typer.Option(metavar="vdf|jsonl|parquet", help="What the rows are written as.")
    ] = "vdf",
    database: DatabaseOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Write the table's rows to files: for other programs, or for `harca migrate` elsewhere.

    VDF is what vector-io reads: an index for each space, as Parquet.

    Example: harca export ./exported --format jsonl
    """
    out = begin(json, quiet, verbose)
    from harca.errors import UsageError
    from harca.export import Format
    from harca.export import export as write

    if format not in tuple(Format):
        raise UsageError(f'--format is "{format}", expected one of {", ".join(Format)}', hint="")
    with watcher(quiet=quiet) as watching:
        done = write(
            resolve(database),
            folder,
            format=Format(format),
            store=store,
            model_id=model,
            dims=dims,
            watcher=watching,
        )
    out.result(done.as_dict, lambda: render.exported(done))


rejections_app = typer.Typer(
    help="See the records that were not loaded, and why.", no_args_is_help=True
)
app.add_typer(rejections_app, name="rejections")

RunOption = Annotated[int | None, typer.Option("--run", help="Only of this run.")]
ReasonOption = Annotated[str | None, typer.Option("--reason", help="Only with this code.")]


@rejections_app.command("list")
def rejections_list(
    run: RunOption = None,
    reason: ReasonOption = None,
    database: DatabaseOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """List rejected records: run, reason, where, what.

    Example: harca rejections list --run 3 --reason non-finite
    """
    out = begin(json, quiet, verbose)
    from harca.status import rejections

    found = list(rejections(resolve(database), run_id=run, reason=reason))
    out.result(
        lambda: {"rejections": found},
        lambda: (
            "\n".join(
                f"run {row['run_id']}  {row['origin']}: {row['reason']}: {row['detail']}"
                for row in found
            )
            or "no rejections"
        ),
    )


@rejections_app.command("export")
def rejections_export(
    folder: Annotated[Path, typer.Argument(help="Folder to write to; made if missing.")],
    run: RunOption = None,
    reason: ReasonOption = None,
    database: DatabaseOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Write each rejected record's bytes to a file, and a list of them, rejections.jsonl.

    Example: harca rejections export ./rejected --run 3
    """
    out = begin(json, quiet, verbose)
    import orjson

    from harca import private
    from harca.errors import HarcaError
    from harca.options import check_folder
    from harca.status import rejections

    check_folder(folder)
    listed, written = 0, 0
    rows = rejections(resolve(database), run_id=run, reason=reason, payloads=True)
    first = next(rows, None)  # fails here if it fails, before there is a folder
    try:
        private.make_folder(folder)
        with private.create(folder / "rejections.jsonl") as index:
            for row in chain([first] if first else [], rows):
                payload = row.pop("payload")  # the bytes themselves go to a file
                row["file"] = None
                if payload is not None:
                    row["file"] = f"{row['rejection_id']}.payload"
                    with private.create(folder / row["file"]) as file:
                        file.write(payload)
                    written += 1
                index.write(orjson.dumps(row, default=str) + b"\n")
                listed += 1
    except OSError as exc:
        raise HarcaError(
            f'cannot write to "{folder}": {exc.strerror}',
            hint="Give a new or empty folder; nothing is overwritten.",
        ) from exc
    out.result(
        lambda: {"folder": str(folder), "rejections": listed, "payloads": written},
        lambda: f"{listed} rejections listed, {written} payloads written to {folder}",
    )
