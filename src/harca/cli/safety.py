"""Commands that keep and bring back: backup, restore."""

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
from harca.cli.progress import watcher

BackupDirOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Folder for backups; by default HARCA_HOME/backups, else harca/backups in "
        "XDG_STATE_HOME or ~/.local/state.",
    ),
]


@app.command()
def backup(
    store: Annotated[
        str | None,
        typer.Argument(help="Store whose files are listed in the backup with their digests."),
    ] = None,
    backup_dir: BackupDirOption = None,
    database: DatabaseOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Write the tables that a migration can change to a new folder.

    `harca migrate` does it by itself before it changes anything.

    Example: harca backup ./file-store
    """
    out = begin(json, quiet, verbose)
    from contextlib import ExitStack

    from harca.backup import back_up
    from harca.readers.staging import staged

    with ExitStack() as stack:
        local = (store, stack.enter_context(staged(store))) if store else None
        done = back_up(resolve(database), backup_dir, store=local)
    out.result(done.as_dict, lambda: render.backup(done))


@app.command()
def restore(
    folder: Annotated[
        Path, typer.Argument(metavar="BACKUP", help="Folder of the backup.", show_default=False)
    ],
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Delete rows that came or changed after the backup."),
    ] = False,
    database: DatabaseOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Put the tables back as a backup has them, and prove it.

    All files are compared with their digests first. The rows are replaced in one transaction:
    it is all or nothing. Into an empty database, the schema is made first.

    Example: harca restore ~/.local/state/harca/backups/20261128T090000Z-harca
    """
    out = begin(json, quiet, verbose)
    from harca.restore import restore as put_back

    with watcher(quiet=quiet) as watching:
        done = put_back(resolve(database), folder, replace=replace, watcher=watching)
    out.result(done.as_dict, lambda: render.restored(done))
