"""Write a data revision for a store, with what the store holds now, for review."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import Any
from unicodedata import east_asian_width

import alembic.util
from alembic.script import ScriptDirectory

from harca import migrations
from harca.errors import EmptyStore, HarcaError, SeveralHeads, UsageError, counted
from harca.inspect import Inspection, inspect
from harca.migrations import DATA
from harca.options import LoadOptions, check_folder
from harca.pins import Pins, whole
from harca.readers.staging import is_url, shown
from harca.redact import has_secret, redacted

_LINE = 100  # of ruff's format, in which revisions are written


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
    words = " ".join(message.split())
    if not words:
        raise UsageError("the message is empty", hint="Say with -m what the revision loads.")
    if has_secret(words):
        raise UsageError(
            f"the message has a password or a token in it: {redacted(words)}",
            hint="The revision is read by others. Say without it what the revision loads.",
        )
    path = _lasting(str(store))
    if to is not None:
        check_folder(Path(to))
    found = inspect(store, whole(options))
    if not found.records:
        rejected = counted(found.rejected.total(), "record")
        raise EmptyStore(path, found=f"{rejected} that would be rejected")
    given = _given(options)
    scripts = migrations.scripts(DATA)
    scripts.messaging_opts = {"quiet": True}  # stdout is for the result
    folder, is_read = _folder(scripts, to)
    if len(heads := sorted(scripts.get_heads())) > 1:
        raise SeveralHeads(heads, chain=DATA.name)
    planned = {
        "message": _escaped(words),
        "source": _escaped(
            f"{found.format}, {counted(found.records, 'record')} when it was planned"
        ),
        "store": _assignment("store", path),
        "options": _assignment("options", given),
        "pins": _assignment("pins", Pins.of(found).as_dict()),
    }
    try:
        script = scripts.generate_revision(
            alembic.util.rev_id(), words, head="head", version_path=folder, planned=planned
        )
    except alembic.util.CommandError as exc:
        raise HarcaError(f"alembic: {exc}") from exc
    except OSError as exc:
        raise HarcaError(
            f'cannot write to "{folder}": {exc.strerror or exc}',
            hint="Give a folder that can be written to with --to.",
        ) from exc
    assert script is not None
    return Planned(
        script.revision,
        heads[0] if heads else None,
        words,
        Path(script.path),
        path,
        given,
        found,
        is_read,
    )


def _folder(scripts: ScriptDirectory, to: str | Path | None) -> tuple[Path, bool]:
    """Return where the revision goes, and whether revisions are read from there anyway."""
    read = scripts.version_locations or [str(Path(scripts.dir) / "versions")]
    if to is None:
        return Path(read[-1]).absolute(), True
    wanted = Path(to).absolute()
    for location in read:
        if Path(location).resolve() == wanted.resolve():
            return Path(location).absolute(), True
    # What is planned there already comes before.
    scripts.version_locations = [*read, str(wanted)]
    return wanted, False


def _given(options: LoadOptions) -> dict[str, str | int]:
    """Return the options that are not at their defaults."""
    given = {}
    for one in fields(options):
        value = getattr(options, one.name)
        if value != one.default:
            given[one.name] = value.value if isinstance(value, Enum) else value
    return given


def _assignment(name: str, value: Any) -> str:
    """Return an assignment as ruff formats it; a text that fits a line of its own gets one."""
    line = f"{name} = {_literal(value)}"
    if isinstance(value, str) and _width(line) > _LINE >= _width(f"    {_literal(value)}"):
        return f"{name} = (\n    {_literal(value)}\n)"
    return line


def _literal(value: Any, indent: str = "") -> str:
    """Return a value as Python; texts can be anything, and cannot be left."""
    if isinstance(value, Mapping):
        if not value:
            return "{}"
        inner = f"{indent}    "
        lines = [
            f"{inner}{_literal(key)}: {_literal(item, inner)},\n" for key, item in value.items()
        ]
        return f"{{\n{''.join(lines)}{indent}}}"
    if not isinstance(value, str):
        return repr(value)
    if value.count('"') > value.count("'"):  # fewer escapes
        return f"'{_in_single_quotes(value)}'"
    return f'"{_escaped(value)}"'


def _in_single_quotes(text: str) -> str:
    # The quotation mark at the end makes repr choose the others, and is cut off with them.
    return repr(f'{text}"')[1:-2]


def _escaped(text: str) -> str:
    """Return what stands for *text* between double quotes, single or triple."""
    return _in_single_quotes(text).replace("\\'", "'").replace('"', '\\"')


def _width(text: str) -> int:
    return sum(2 if east_asian_width(char) in "WF" else 1 for char in text)
