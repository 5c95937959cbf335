"""What an operator can choose about a load."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from harca.batching import BATCH_ROWS
from harca.errors import UsageError
from harca.model import Expired, OnConflict
from harca.readers.base import Defaults

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
    """

    name: str | None = None
    on_conflict: OnConflict = OnConflict.NEWEST
    expired: Expired = Expired.KEEP
    source: str | None = None
    model: str = "unknown"
    batch_rows: int = BATCH_ROWS
    max_rejects: int | None = None

    def __post_init__(self) -> None:
        for name in ("name", "source", "model"):
            check_label(name, getattr(self, name))

    @property
    def defaults(self) -> Defaults:
        """What a reader takes where the store says nothing."""
        return Defaults(model_id=self.model, source=self.source)

    @classmethod
    def from_text(cls, given: Mapping[str, str]) -> "LoadOptions":
        """Return the options from ``name=value`` texts, as Alembic's ``-x`` gives them.

        Raises:
            UsageError: A name or a value is not known.
        """
        values: dict[str, Any] = dict(given)
        unknown = sorted(set(values) - set(cls.__dataclass_fields__))
        if unknown:
            raise UsageError(
                f'unknown option "{unknown[0]}"',
                hint=f"Known: {', '.join(sorted(cls.__dataclass_fields__))}, store, database.",
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
    if "\0" in value or any("\ud800" <= char <= "\udfff" for char in value):
        raise UsageError(
            f"{name} has characters that PostgreSQL cannot store: {value!a}",
            hint="Give a label in UTF-8.",
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
