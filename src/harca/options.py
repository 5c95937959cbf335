"""What an operator can choose about a load."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from harca.batching import BATCH_ROWS
from harca.errors import UsageError
from harca.model import Expired, OnConflict
from harca.readers.base import Defaults, FieldNames, known_formats
from harca.redact import has_secret, redacted

_FIELDS = tuple(one.name for one in fields(FieldNames) if one.name != "records")
_MOST_DIGITS = 9
_MOST_LABEL_BYTES = 600  # a store's name stands in an index entry beside a key

_Choice = TypeVar("_Choice", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """Options of one load, noted with its run.

    Attributes:
        name: What the store is called in the table; its absolute path if None.
        max_rejects: How many rejected records are accepted; None: the load goes on
            whatever their number, and its outcome is "different" if there is any.
        format: The only format to be considered; the store's own is told if None.
        records: Where in the store the records are, and the names of their fields:
            see `harca.readers.base.FieldNames`.
    """

    name: str | None = None
    on_conflict: OnConflict = OnConflict.NEWEST
    expired: Expired = Expired.KEEP
    source: str | None = None
    model: str = "unknown"
    batch_rows: int = BATCH_ROWS
    max_rejects: int | None = None
    format: str | None = None
    records: str | None = None
    id_field: str | None = None
    text_field: str | None = None
    vector_field: str | None = None
    metadata_field: str | None = None
    model_field: str | None = None
    created_field: str | None = None

    def __post_init__(self) -> None:
        for name in ("name", "source", "model"):
            check_label(name, getattr(self, name))
        if self.format is not None and self.format not in known_formats():
            raise UsageError(
                f'--format is "{self.format}", expected one of {", ".join(known_formats())}',
                hint="Leave it out: what a store is, is told by its contents.",
            )

    @property
    def defaults(self) -> Defaults:
        """What a reader takes where the store says nothing."""
        names = {name: getattr(self, f"{name}_field") for name in _FIELDS}
        return Defaults(
            model_id=self.model,
            source=self.source,
            format=self.format,
            fields=FieldNames(records=self.records, **names),
        )

    @classmethod
    def from_text(cls, given: Mapping[str, str]) -> "LoadOptions":
        """Return the options from ``name=value`` texts, as Alembic's ``-x`` gives them.

        Raises:
            UsageError: A name or a value is not known.
        """
        values: dict[str, Any] = dict(given)
        if "mapping" in values:
            values = {**read_mapping(values.pop("mapping")), **values}
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown:
            known = ", ".join(sorted([*cls.__dataclass_fields__, "mapping"]))
            raise UsageError(
                f'unknown option "{unknown[0]}"', hint=f"Known: {known}, store, database."
            )
        if "on_conflict" in values:
            values["on_conflict"] = _choice(OnConflict, "on_conflict", values["on_conflict"])
        if "expired" in values:
            values["expired"] = _choice(Expired, "expired", values["expired"])
        for name, least in (("batch_rows", 1), ("max_rejects", 0)):
            if name in values:
                values[name] = _number(name, values[name], least)
        return cls(**values)

    def as_dict(self) -> dict[str, Any]:
        """Return the options as they are noted in the ledger."""
        return {name: getattr(self, name) for name in self.__slots__}


# What a mapping file can say: what a store is, and not how it is loaded.
_MAPPED = ("format", "records", "model", "source", *(f"{name}_field" for name in _FIELDS))


def read_mapping(path: str | Path) -> dict[str, str]:
    """Return the options that a mapping file in TOML holds; see docs/formats.md.

    Raises:
        UsageError: It cannot be read, or says what it cannot say.
    """
    try:
        with Path(path).open("rb") as file:
            values = tomllib.load(file)
    except OSError as exc:
        raise UsageError(
            f'mapping file "{path}" cannot be read: {exc.strerror or exc}',
            hint="Give the path of a TOML file; docs/formats.md shows one.",
        ) from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise UsageError(
            f'mapping file "{path}" is no TOML: {exc}', hint="docs/formats.md shows one."
        ) from exc
    for name, value in values.items():
        if name not in _MAPPED or not isinstance(value, str):
            found = f'unknown name "{name}"' if name not in _MAPPED else f'"{name}" is no string'
            raise UsageError(
                f'mapping file "{path}": {found}', hint=f"Known names: {', '.join(_MAPPED)}."
            )
    return values


def check_label(name: str, value: str | None) -> None:
    """Refuse a label that the table cannot hold or index.

    Raises:
        UsageError: It is empty, too long, or no text to PostgreSQL.
    """
    if value is None:
        return
    if not value.strip():
        raise UsageError(f"{name} is empty", hint="Give a label, or leave the option out.")
    if len(value.encode(errors="replace")) > _MOST_LABEL_BYTES:
        raise UsageError(
            f"{name} is longer than {_MOST_LABEL_BYTES} bytes",
            hint="Give a shorter one; --name names a store.",
        )
    if has_secret(value):
        raise UsageError(
            f"{name} has a password or a token in it: {redacted(value)}",
            hint="It would be kept in the table, for everybody who reads it. Give a label without.",
        )
    if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
        raise UsageError(
            f"{name} has characters that PostgreSQL cannot store: {value!a}",
            hint="Give a label in UTF-8.",
        )


def check_folder(folder: Path) -> None:
    """Refuse an address, given by mistake, as the name of a folder to be made.

    Raises:
        UsageError: There is a password or a token in it.
    """
    if has_secret(str(folder)):
        raise UsageError(
            f'"{redacted(str(folder))}" is no folder but an address with a password or a token',
            hint="Give a folder to write to; the database is named by --database.",
        )


def _choice(kind: type[_Choice], name: str, value: str) -> _Choice:
    try:
        return kind(value)
    except ValueError:
        raise UsageError(
            f'{_spelled(name)} is "{value}", expected one of {", ".join(kind)}',
            hint=f"With alembic it is -x {name}=VALUE.",
        ) from None


def _spelled(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _number(name: str, value: str, least: int) -> int:
    if not value.isdecimal() or len(value) > _MOST_DIGITS or int(value) < least:
        raise UsageError(
            f'{_spelled(name)} is "{value}", expected a number from {least}',
            hint=f"With alembic it is -x {name}=VALUE.",
        )
    return int(value)
