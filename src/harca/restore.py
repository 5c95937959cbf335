"""Put the tables back as a backup has them, and prove that they are."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg

from harca import backup_folder, consolidate, migrations
from harca.backup_folder import Contents
from harca.errors import BackupUnusable, Refused, counted
from harca.postgres import indexes, owned
from harca.postgres.build_progress import BuildProgress
from harca.postgres.connect import Database, translated
from harca.postgres.giving_way import until_free
from harca.postgres.lock import lock_store, looked_after
from harca.postgres.undump import Replaced, Undump
from harca.watcher import Unwatched, Watcher


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore did.

    Attributes:
        revision: Of the schema, afterwards.
    """

    folder: Path
    contents: Contents
    replaced: Replaced
    revision: str | None
    indexes_built: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Return what ``--json`` shows."""
        return {
            "folder": str(self.folder),
            "made_at": self.contents.made_at,
            "unchanged": self.replaced.unchanged,
            "verified": True,
            "rows": self.contents.rows,
            "lost": sum(self.replaced.lost.values()),
            "revision": self.revision,
            "backup_revision": self.contents.revision,
            "indexes_built": self.indexes_built,
            "tables": [
                {"table": table.label, "rows": table.rows, "fingerprint": table.fingerprint}
                for table in self.contents.tables
            ],
        }


def restore(
    target: Database, folder: Path, *, replace: bool = False, watcher: Watcher | None = None
) -> Restored:
    """Make harca's tables, and HARCA's old ones, hold the rows of a backup and no others.

    The rows are replaced and compared in one transaction: after an error or an interruption
    they are as before, and the same call can be made again.

    Args:
        replace: Also where rows came or changed after the backup, which are then gone.

    Raises:
        BackupUnusable: A file is missing, or not as it was written.
        RowsCameAfter: Such rows are there, and *replace* is false.
        StoreBusy: Another process is working on a store.
        NotVerified: The rows that were read are not those that were backed up.
    """
    watcher = watcher or Unwatched()
    watcher.stage("check the backup")
    contents = backup_folder.read(folder)
    with translated(), target.connect() as conn:
        with target.connect() as locker:
            for store in sorted({*contents.stores, *owned.stores(conn)}):
                lock_store(locker, store)
            watcher.stage("schema")
            _move_schema(target, conn, folder, contents, replace=replace)
            lock_store(locker, consolidate.LOCK)
            watcher.stage("restore")
            undump = Undump(conn, folder, contents)
            with looked_after(locker, conn):
                replaced = until_free(lambda: undump.replace(anything=replace))
        if replaced.out_of_place and migrations.is_applied(target, consolidate.REVISION):
            # What stood in their place stands there again.
            consolidate.go_on(target, consolidate.options({}), watcher.stage)
        built = []
        if migrations.is_applied(target, migrations.LOADABLE):
            watcher.stage("index")
            shown = BuildProgress(target, watcher)
            built = indexes.build(conn, progress=watcher.stage, shown=shown)
    return Restored(folder, contents, replaced, migrations.current(target), built)


def _move_schema(
    target: Database,
    conn: psycopg.Connection[Any],
    folder: Path,
    contents: Contents,
    *,
    replace: bool,
) -> None:
    """Bring the schema to where the backup's rows fit.

    Up to the backup's revision. If HARCA's old tables were in their place still when the backup
    was made, and views stand there now, first down to where there are none: they are left alone
    on the way up, as they were then.
    """
    wanted = contents.revision
    if wanted is not None and not migrations.is_known(wanted):
        raise BackupUnusable(
            str(folder),
            backup_folder.CONTENTS,
            f"it was made at schema revision {wanted}, of which there is no file here",
        )
    kept = _are_kept_since(conn, contents)
    if not kept and (wanted is None or migrations.is_applied(target, wanted)):
        return
    first = migrations.BEFORE_TABLES if kept else wanted
    assert first is not None
    rows = sum(owned.count(conn, table) for table in owned.find_own(conn))
    if rows and not replace:
        raise Refused(
            f"the schema would be brought to revision {first} first, and {counted(rows, 'row')} "
            "in its tables would be replaced",
            hint="Nothing was changed. Take a backup of them with `harca backup`, then let the "
            "backup's rows replace them with --replace.",
        )
    migrations.move(target, first)
    if kept and wanted is not None and not migrations.is_applied(target, wanted):
        migrations.move(target, wanted, legacy="ignore")


def _are_kept_since(conn: psycopg.Connection[Any], contents: Contents) -> bool:
    """Say whether an old table has been replaced by a view that was in its place then."""
    if not owned.is_there(conn, "legacy_tables"):
        return False
    kept = conn.execute(
        "SELECT schema_name, table_name FROM legacy_tables WHERE kept_in IS NOT NULL"
    ).fetchall()
    then = {(table.origin, table.name) for table in contents.tables if table.schema != table.origin}
    return not then.issuperset(kept)
