"""Every exception that harca raises on purpose.

* HarcaError                     a message, a hint and an exit code
  * SourceError                  the store cannot be read as a whole
    * StoreNotFound
    * UnknownFormat
    * SeveralFormats
    * EmptyStore
    * LfsPointer
    * MissingLibrary
  * TargetError                  PostgreSQL said no, or is not there
    * CannotConnect
    * SchemaNotReady
    * UnknownRevision
  * Refused                      unsafe now; nothing was changed        (exit 4)
    * StoreBusy
    * RowsChanged
    * StoreChanged
    * SeveralHeads
    * NoRoom
    * RowsCameAfter
    * OtherEmbeddings
  * BackupUnusable
  * RunError                     a run cannot be found, finished or resumed
    * ConflictFound
      * AmbiguousIds
    * TooManyRejections
  * EmbedderError                a text could not be embedded
  * NothingToVerify
  * NotVerified                  store and table differ                 (exit 3)
  * UsageError                   a value on the command line            (exit 2)
    * EmbedderNotHere
      * NotInstalled
    * OtherDims

A bad *record* is never an exception but a value, `harca.model.Rejection`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum
from typing import Any, ClassVar

_LISTED = 8


class ExitCode(IntEnum):
    """What the process returns; part of the command line's contract."""

    DONE = 0
    FAILED = 1
    USAGE = 2
    DIFFERENT = 3
    REFUSED = 4
    INTERRUPTED = 130
    TERMINATED = 143


class HarcaError(Exception):
    """Base of all: one factual line, and a sentence that says what to do next."""

    exit_code: ClassVar[ExitCode] = ExitCode.FAILED

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    @property
    def details(self) -> dict[str, Any]:
        """What ``--json`` shows beside the message, the hint and the code."""
        return {}

    def __reduce__(self) -> tuple[Any, ...]:
        # By default an exception is made anew from its message, which not all of ours take.
        return _remade, (type(self), str(self)), self.__dict__


def counted(number: int, what: str) -> str:
    """Return ``1 file``, ``2 files``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _remade(kind: type[HarcaError], message: str) -> HarcaError:
    return kind.__new__(kind, message)


class SourceError(HarcaError):
    """A store as a whole cannot be read."""


class StoreNotFound(SourceError):
    """There is nothing at the path."""

    def __init__(self, store: str) -> None:
        super().__init__(
            f'no store at "{store}"',
            hint="Give the folder or file that holds the vectors; a relative path starts "
            "in the current folder.",
        )
        self.store = store


class UnknownFormat(SourceError):
    """No reader knows what is at the path."""

    def __init__(self, store: str, *, found: str, known: str) -> None:
        super().__init__(
            f'"{store}" is in no known store format: found {found}',
            hint=f"Formats that are read: {known}. Is this the right folder?",
        )
        self.store, self.found = store, found


class SeveralFormats(SourceError):
    """Stores of several formats are at the path."""

    def __init__(self, store: str, *, found: list[str]) -> None:
        listed = ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "")
        super().__init__(
            f'"{store}" holds stores of several formats: {listed}',
            hint="Give the folder or file of one of them, or its format with --format.",
        )
        self.store, self.found = store, found


class LfsPointer(SourceError):
    """Git LFS left a pointer in place of a file that the store needs."""

    def __init__(self, file: str) -> None:
        super().__init__(
            f'"{file}" is a Git LFS pointer, not the file itself',
            hint="Run `git lfs pull` in the repository that it comes from.",
        )
        self.file = file


class MissingLibrary(SourceError):
    """A format is read by a library that is not installed."""

    def __init__(self, store_format: str, *, library: str, extra: str) -> None:
        super().__init__(
            f"a {store_format} store is read with {library}, which is not installed",
            hint=f'Install it with `pip install "harca[{extra}]"`.',
        )
        self.library, self.extra = library, extra


class EmptyStore(SourceError):
    """The format is known, but there is no vector to move."""

    def __init__(self, store: str, *, found: str) -> None:
        super().__init__(
            f'"{store}" holds no vectors: found {found}',
            hint="Nothing was changed. Look for the folder whose files hold the vectors; "
            "`harca inspect` shows what a folder holds.",
        )
        self.store, self.found = store, found


class TargetError(HarcaError):
    """PostgreSQL refused, or the connection to it failed.

    Attributes:
        sqlstate: PostgreSQL's code; None where there was no answer.
        passes_by_itself: True if the same may succeed after a while, with nothing done.
    """

    def __init__(
        self,
        message: str,
        *,
        hint: str = "",
        sqlstate: str | None = None,
        passes_by_itself: bool = False,
    ) -> None:
        super().__init__(message, hint=hint)
        self.sqlstate, self.passes_by_itself = sqlstate, passes_by_itself


class CannotConnect(TargetError):
    """No connection to the database."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        # Why the server refuses, libpq says in words only.
        super().__init__(message, hint=hint, passes_by_itself=True)


class SchemaNotReady(TargetError):
    """The schema is older than what the command needs."""

    def __init__(self, *, found: str | None, expected: str) -> None:
        super().__init__(
            f"the schema is at revision {found or 'none'}, this needs {expected}",
            hint="Run `alembic upgrade head` (or `harca migrate`, which does it) first.",
        )
        self.found, self.expected = found, expected


class UnknownRevision(TargetError):
    """The database is at a revision of which there is no file here."""

    def __init__(self, found: str, *, chain: str) -> None:
        super().__init__(
            f"the database is at {chain} revision {found}, of which there is no file here",
            hint="Planned revisions are found in the folder that they were planned in: run the "
            "command there. See docs/planning.md."
            if chain == "data"
            else "A revision that `harca index advise` wrote is found in the folder where that was "
            "run: run the command there. Else this harca is older than the one that upgraded the "
            "database: update it.",
        )
        self.found, self.chain = found, chain


class Refused(HarcaError):
    """Going on would be unsafe now; nothing was changed."""

    exit_code = ExitCode.REFUSED


@dataclass(frozen=True, slots=True)
class Session:
    """A connection of somebody's to the server; None is what this role may not see."""

    pid: int
    application: str | None = None
    user: str | None = None
    client: str | None = None
    since: datetime | None = None

    def __str__(self) -> str:
        text = f"server process {self.pid}"
        if self.application:
            text += f', "{self.application}"'
        if self.user:
            text += f" of {self.user}"
        if self.client:
            text += f" from {self.client}"
        return text + (f", since {self.since:%Y-%m-%d %H:%M:%S%z}" if self.since else "")


class StoreBusy(Refused):
    """Another process loads or rolls back the same store."""

    def __init__(self, store: str, *, held_by: Session) -> None:
        super().__init__(
            f'another process is working on store "{store}" ({held_by})',
            hint="Wait for it to end; `harca status` shows its progress, and `harca resume` lets "
            "it go on if it is paused. If no such process runs any more, the server notices "
            "within two minutes; `SELECT "
            f"pg_terminate_backend({held_by.pid})` makes it notice now.",
        )
        self.store, self.held_by = store, held_by


class RowsChanged(Refused):
    """Rows of a run were changed by somebody else since it loaded them."""

    def __init__(
        self, run_id: int, changes: Sequence[str], *, option: str, changed: list[dict[str, Any]]
    ) -> None:
        super().__init__(
            f"{counted(len(changes), 'row')} of run {run_id} changed since loading: "
            + ", ".join(changes[:_LISTED])
            + (", ..." if len(changes) > _LISTED else ""),
            hint=f"Nothing was changed. `{option}keep` leaves them as they are, `{option}delete` "
            "takes the changes back too.",
        )
        self.run_id, self.changed = run_id, changed

    @property
    def details(self) -> dict[str, Any]:
        """All of them, however many."""
        return {"changed": self.changed}


class StoreChanged(Refused):
    """A store is no longer as it was when its data revision was planned."""

    def __init__(self, store: str, *, revision: str, changes: list[str]) -> None:
        more = f" and {len(changes) - _LISTED} more" if len(changes) > _LISTED else ""
        super().__init__(
            f'"{store}" has changed since revision {revision} was planned: '
            f"{', '.join(changes[:_LISTED])}{more}",
            hint="Look at what changed, then delete the revision's file and plan it again, or "
            "load the store as it is now with --allow-drift (alembic: -x allow_drift=yes).",
        )
        self.store, self.revision, self.changes = store, revision, changes


class SeveralHeads(Refused):
    """A chain of revisions has more than one end."""

    def __init__(self, heads: list[str], *, chain: str) -> None:
        super().__init__(
            f"the {chain} revisions have {len(heads)} heads, expected one: {', '.join(heads)}",
            hint="Two were planned beside each other. Set the down_revision of one of them, "
            "which is applied nowhere, to the other."
            if chain == "data"
            else 'One is yours, one came with harca. Join them: `alembic merge heads -m "join"`.',
        )
        self.heads, self.chain = heads, chain


class NoRoom(Refused):
    """A backup does not fit on the disk."""

    def __init__(self, folder: str, *, free: int, needed: int | None = None) -> None:
        wanted = f", the backup needs up to {needed:,}" if needed is not None else ""
        super().__init__(
            f'no room for a backup in "{folder}": {free:,} bytes are free{wanted}',
            hint="Nothing was changed. Make room, give a folder on another disk with --backup-dir, "
            "or go without a backup with `harca migrate --no-backup`.",
        )
        self.folder, self.free, self.needed = folder, free, needed


class RowsCameAfter(Refused):
    """A restore would delete rows that are not in the backup."""

    def __init__(self, tables: dict[str, int]) -> None:
        listed = ", ".join(f"{count:,} in {table}" for table, count in tables.items())
        super().__init__(
            f"{counted(sum(tables.values()), 'row')} came or changed after the backup: {listed}",
            hint="Nothing was changed. Take a backup of them with `harca backup`, then let the "
            "backup's rows replace them with --replace.",
        )
        self.tables = tables


class OtherEmbeddings(Refused):
    """An embedder makes other embeddings than those that a space has."""

    def __init__(self, name: str, *, space: str, agreeing: int, texts: int, lowest: float) -> None:
        super().__init__(
            f'"{name}" embeds {texts - agreeing} of {counted(texts, "stored text")} of space '
            f'"{space}" otherwise than they are stored: the lowest cosine is {lowest:.4f}',
            hint="Nothing was changed. Is it the model that made the stored embeddings, and was it "
            "given the texts as they are stored? --force keeps it all the same, --check N looks at "
            "more texts.",
        )
        self.name, self.space = name, space
        self.agreeing, self.texts, self.lowest = agreeing, texts, lowest


class BackupUnusable(HarcaError):
    """A backup is not there, damaged, or in a form that cannot be read here."""

    def __init__(self, folder: str, file: str, found: str) -> None:
        super().__init__(
            f'the backup "{folder}" cannot be used: {file}: {found}',
            hint="Nothing was changed. Restore another backup, or an intact copy of this one.",
        )
        self.folder, self.file, self.found = folder, file, found


class RunError(HarcaError):
    """A run cannot be found, finished or resumed."""


class ConflictFound(RunError):
    """Two different contents under one key, and the operator asked to stop there."""

    def __init__(self, key: str, *, first: str, second: str) -> None:
        super().__init__(
            f'key "{key}" has different contents in {first} and {second}',
            hint="Nothing of this run stays in the table. Choose with --on-conflict newest, "
            "oldest or keep; `harca inspect STORE` lists all conflicts.",
        )
        self.key, self.first, self.second = key, first, second


class AmbiguousIds(ConflictFound):
    """A field that was taken for the id is the same in records that are not."""

    def __init__(self, key: str, *, first: str, second: str) -> None:
        super().__init__(key, first=first, second=second)
        self.hint = (
            "Nothing of this run stays in the table. The field was taken for the id: name "
            "another with --id-field, or use --id-field - to know records by where they stand. If "
            "it is the id, name it, and --on-conflict decides."
        )


class TooManyRejections(RunError):
    """More records were rejected than the operator allows."""

    def __init__(self, count: int, *, allowed: int, run_id: int, last: str) -> None:
        super().__init__(
            f"{counted(count, 'record')} rejected, {allowed} allowed; the last one: {last}",
            hint=f"See `harca rejections list --run {run_id}`. Raise --max-rejects to go on, "
            f"or take the run back with `harca rollback {run_id}`.",
        )
        self.count, self.allowed, self.run_id = count, allowed, run_id


class EmbedderError(HarcaError):
    """An embedder cannot be reached, refuses, or answers with something else than embeddings."""


class NothingToVerify(HarcaError):
    """An empty verification would pass whatever happened, so it is an error."""

    def __init__(self, what: str, *, hint: str = "") -> None:
        super().__init__(
            f"nothing to verify: {what}",
            hint=hint or "Load a store first: `harca migrate STORE`.",
        )


class NotVerified(HarcaError):
    """Store and table differ."""

    exit_code = ExitCode.DIFFERENT


class UsageError(HarcaError):
    """A value on the command line cannot be used."""

    exit_code = ExitCode.USAGE


class EmbedderNotHere(UsageError):
    """What an embedder needs is not here: its library, its key, its model."""


class NotInstalled(EmbedderNotHere):
    """An embedder needs a library that comes with an extra."""

    def __init__(self, name: str, *, library: str, extra: str) -> None:
        super().__init__(
            f'"{name}" needs the library {library}, which is not installed',
            hint=f'Install it with `pip install "harca[{extra}]"`. `harca search --vector FILE` '
            "takes an embedding as it is.",
        )
        self.name, self.library, self.extra = name, library, extra


class OtherDims(UsageError):
    """An embedder makes embeddings of other dimensions than the space has."""

    def __init__(self, name: str, *, found: int, expected: int) -> None:
        super().__init__(
            f'"{name}" makes embeddings of {counted(found, "dimension")}, the space has {expected}',
            hint="Name the model that made the stored embeddings. `harca search --vector FILE` "
            "takes an embedding as it is.",
        )
        self.name, self.found, self.expected = name, found, expected
