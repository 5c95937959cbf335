"""Write a data revision for a store, with what the store holds now, for review."""

from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any

from harca.errors import EmptyStore, UsageError, counted
from harca.inspect import Inspection, inspect
from harca.migrations import DATA
from harca.options import LoadOptions, check_folder
from harca.pins import Pins, whole
from harca.readers.staging import is_url, shown
from harca.revision_file import NextRevision, assignment, escaped, message_of


@dataclass(frozen=True, slots=True)
class Planned:
    """A data revision that was written.

    Attributes:
        is_read: False if `harca load` does not look for it where it was written.
    """

    revision: str
    down_revision: str | None
    message: str
    file: Path
    store: str
    options: dict[str, str | int]
    found: Inspection
    is_read: bool

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as ``--json`` shows it."""
        found = self.found
        return {
            "revision": self.revision,
            "down_revision": self.down_revision,
            "message": self.message,
            "file": str(self.file),
            "is_read": self.is_read,
            "store": self.store,
            "options": self.options,
            "format": found.format,
            "records": found.records,
            "rejected": found.rejected.total(),
            "reasons": dict(found.rejected),
            "conflicts": len(found.conflicts),
            "spaces": Pins.of(found).listed(),
            "fingerprint": str(found.fingerprint),
        }


def _lasting(store: str) -> str:
    """Return where a store is, as a revision can say it."""
    if not is_url(store):
        return str(Path(store).absolute())
    if shown(store) != store:
        raise UsageError(
            f'"{shown(store)}" was given with a password or a query, which no revision may hold',
            hint="Give the address alone; credentials belong into the environment.",
        )
    return store


def plan(
    store: str | Path, message: str, options: LoadOptions, *, to: str | Path | None = None
) -> Planned:
    """Read a store once and write a data revision that loads it as it is now.

    The revision follows the head of the data revisions. It goes into the folder *to*, else
    into the last one of ``version_locations`` in ``alembic.ini``, else ``versions`` beside
    ``env.py``. Needs no database.

    Raises:
        UsageError: The message is empty, or has a secret in it; or the store's address has.
        SourceError: There is no store, none that can be read, or no record to load.
        SeveralHeads: The data revisions have no one head.
    """
    words = message_of(message, what="what the revision loads")
    path = _lasting(str(store))
    if to is not None:
        check_folder(Path(to))
    found = inspect(store, whole(options))
    if not found.records:
        rejected = counted(found.rejected.total(), "record")
        raise EmptyStore(path, found=f"{rejected} that would be rejected")
    given = _given(options)
    written = NextRevision(DATA, to=to).write(
        words,
        {
            "source": escaped(
                f"{found.format}, {counted(found.records, 'record')} when it was planned"
            ),
            "store": assignment("store", path),
            "options": assignment("options", given),
            "pins": assignment("pins", Pins.of(found).as_dict()),
        },
    )
    return Planned(
        written.revision,
        written.down_revision,
        words,
        written.path,
        path,
        given,
        found,
        written.is_read,
    )


def _given(options: LoadOptions) -> dict[str, str | int]:
    """Return the options that are not at their defaults."""
    given = {}
    for one in fields(options):
        value = getattr(options, one.name)
        if value != one.default:
            given[one.name] = value.value if isinstance(value, Enum) else value
    return given
