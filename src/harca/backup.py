"""Keep what a migration could change, before it changes anything."""

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg

import harca
from harca import backup_folder, consolidate, migrations, store_digests
from harca.backup_folder import Contents, NewFolder, new_folder
from harca.errors import HarcaError, StoreNotFound
from harca.postgres import dump, owned
from harca.postgres.connect import Database, translated
from harca.postgres.lock import OwnSessions, locked
from harca.postgres.owned import OwnedTable
from harca.readers.files import printable
from harca.readers.staging import address

STORE = "store.sha256"

_UNFINISHED = ("loading", "loaded")


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup that was made."""

    folder: Path
    contents: Contents
    bytes: int

    def as_dict(self) -> dict[str, Any]:
        """Return what ``--json`` shows."""
        return {
            "folder": str(self.folder),
            "made_at": self.contents.made_at,
            "revision": self.contents.revision,
            "method": self.contents.method,
            "note": self.contents.note,
            "rows": self.contents.rows,
            "bytes": self.bytes,
            "tables": [
                {"table": table.label, "rows": table.rows, "fingerprint": table.fingerprint}
                for table in self.contents.tables
            ],
            "store_files": (self.contents.store or {}).get("files"),
        }


def default_folder() -> Path:
    """Return where backups go: below ``HARCA_HOME``, else in the user's folder for such files."""
    if home := os.environ.get("HARCA_HOME"):
        return Path(home).resolve() / "backups"
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "harca" / "backups"


def back_up(
    target: Database,
    parent: Path | None = None,
    *,
    store: tuple[str, Path] | None = None,
    method: dump.Method | None = None,
) -> Backup:
    """Write harca's tables and HARCA's old ones to a new folder in *parent*.

    Args:
        parent: `default_folder` if it is None.
        store: What the operator calls the store, and where it can be read: its files are
            listed with their digests.

    Raises:
        StoreNotFound: There is nothing at the store's path.
        NoRoom: Before anything is written, or in the middle; nothing stays of it then.
        HarcaError: There is nothing to back up.
    """
    if store is not None and not os.path.lexists(store[1]):
        raise StoreNotFound(printable(store[0]))
    with translated(), target.connect() as conn:
        tables = _tables(conn)
        if not owned.has_rows(conn, tables):
            raise HarcaError(
                f"there is nothing to back up in {target.shown}: no table of harca's has a row",
                hint="Is this the right database? `harca status` says what named it.",
            )
        return _back_up(conn, target, tables, parent or default_folder(), store, method)


def before_migration(
    target: Database,
    parent: Path,
    *,
    name: str,
    store: tuple[str, Path],
    ours: OwnSessions | None = None,
) -> Backup | None:
    """Make a backup if there is something to lose, and the load of the store *name* is a new one.

    One that is resumed had its backup when it began, unless the schema is to be changed now.

    Args:
        ours: Sessions of earlier attempts of the same command.

    Raises:
        StoreBusy: Another process is working on the store.
        Refused: HARCA's old tables cannot be consolidated.
        NoRoom: As for `back_up`; nothing was changed.
    """
    with translated(), locked(target, name, ours=ours) as conn:
        tables = _tables(conn)
        if any(table.origin for table in tables):
            _refuse_early(target, conn)
        if not owned.has_rows(conn, tables):
            return None
        if _is_resumed(conn, name) and not migrations.pending(target):
            return None
        return _back_up(conn, target, tables, parent, store, None)


def _refuse_early(target: Database, conn: psycopg.Connection[Any]) -> None:
    """Refuse what the schema's upgrade would refuse, before a backup is made of it."""
    if not migrations.is_applied(target, consolidate.REVISION):
        consolidate.check(conn)


def _tables(conn: psycopg.Connection[Any]) -> list[OwnedTable]:
    # Old tables that are to be left alone are none of our business.
    old = [] if consolidate.options({}).ignore else owned.find_old(conn)
    return [*owned.find_own(conn), *old]


def _is_resumed(conn: psycopg.Connection[Any], store: str) -> bool:
    if not owned.is_there(conn, "load_runs"):
        return False
    row = conn.execute(
        "SELECT status FROM load_runs WHERE store = %s AND revision IS NULL "
        "AND status <> 'rolled back' ORDER BY run_id DESC LIMIT 1",
        [store],
    ).fetchone()
    return row is not None and row[0] in _UNFINISHED


def _back_up(
    conn: psycopg.Connection[Any],
    target: Database,
    tables: list[OwnedTable],
    parent: Path,
    store: tuple[str, Path] | None,
    method: dump.Method | None,
) -> Backup:
    backup_folder.require_room(parent, owned.size(conn, tables))
    made_at = datetime.now(UTC)
    name = backup_folder.name_of(made_at, conn.info.dbname)
    with new_folder(parent, name) as folder:
        revision = migrations.current(target)
        digests = _store(folder, *store) if store else None
        with dump.snapshot(conn) as snapshot:
            dumped = dump.write(conn, target, tables, folder, snapshot=snapshot, method=method)
            stores = owned.stores(conn)
        contents = Contents(
            made_at=made_at.isoformat(timespec="seconds"),
            harca=harca.__version__,
            database=target.shown,
            server_version=_version(conn),
            revision=revision,
            method=str(dumped.method),
            program_version=dumped.program_version,
            note=dumped.note,
            tables=dumped.tables,
            stores=stores,
            store=digests,
        )
        folder.seal(contents)
        size = sum(path.stat().st_size for path in folder.path.iterdir())
    return Backup(folder.path, contents, size)


def _store(folder: NewFolder, shown: str, path: Path) -> dict[str, Any]:
    with folder.create(STORE) as file:
        return store_digests.write(path, file, shown=address(shown)).as_dict()


def _version(conn: psycopg.Connection[Any]) -> str:
    found = re.match(r"[\d.]+", conn.info.parameter_status("server_version") or "")
    return found[0] if found else str(conn.info.server_version)
