"""Write a revision's file: where it goes, its values as Python, what its message may say."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unicodedata import east_asian_width

import alembic.util
from alembic.script import ScriptDirectory

from harca import migrations
from harca.errors import HarcaError, SeveralHeads, UsageError
from harca.migrations import Environment
from harca.redact import has_secret, redacted

_LINE = 100  # of ruff's format, in which revisions are written


@dataclass(frozen=True, slots=True)
class RevisionFile:
    """A revision that was written.

    Attributes:
        is_read: False if harca does not look for it where it was written.
    """

    revision: str
    down_revision: str | None
    path: Path
    is_read: bool


def message_of(text: str, *, what: str) -> str:
    """Return a revision's message on one line; *what* it is to say, for the hint.

    Raises:
        UsageError: It is empty, or has a secret in it.
    """
    words = " ".join(text.split())
    if not words:
        raise UsageError("the message is empty", hint=f"Say with -m {what}.")
    if has_secret(words):
        raise UsageError(
            f"the message has a password or a token in it: {redacted(words)}",
            hint=f"The revision is read by others. Say without it {what}.",
        )
    return words


class NextRevision:
    """The place behind the head of a chain, for which a file is to be written.

    It goes into the folder *to*, else into the last one of ``version_locations`` in
    ``alembic.ini``, else ``versions`` beside ``env.py``.

    Raises:
        SeveralHeads: The chain has no one head.
    """

    def __init__(self, environment: Environment, *, to: str | Path | None = None) -> None:
        self._scripts = migrations.scripts(environment)
        self._scripts.messaging_opts = {"quiet": True}  # stdout is for the result
        self._folder, self._is_read = _folder(self._scripts, to)
        self._heads = sorted(self._scripts.get_heads())
        if len(self._heads) > 1:
            raise SeveralHeads(self._heads, chain=environment.name)

    def write(self, message: str, parts: Mapping[str, str]) -> RevisionFile:
        """Write the file; *parts* are what its template shows, as Python.

        Raises:
            HarcaError: The folder cannot be written to.
        """
        try:
            script = self._scripts.generate_revision(
                alembic.util.rev_id(),
                message,
                head="head",
                version_path=self._folder,
                planned={"message": escaped(message), **parts},
            )
        except alembic.util.CommandError as exc:
            raise HarcaError(f"alembic: {exc}") from exc
        except OSError as exc:
            raise HarcaError(
                f'cannot write to "{self._folder}": {exc.strerror or exc}',
                hint="Give a folder that can be written to with --to.",
            ) from exc
        assert script is not None
        before = self._heads[0] if self._heads else None
        return RevisionFile(script.revision, before, Path(script.path), self._is_read)


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


def assignment(name: str, value: Any) -> str:
    """Return an assignment as ruff formats it; a text that fits a line of its own gets one."""
    line = f"{name} = {literal(value)}"
    if isinstance(value, str) and _width(line) > _LINE >= _width(f"    {literal(value)}"):
        return f"{name} = (\n    {literal(value)}\n)"
    return line


def call(name: str, *positional: Any, indent: str = "    ", **named: Any) -> str:
    """Return a call in a function's body as ruff formats it."""
    inner = f"{indent}    "
    given = [
        *(literal(value, inner) for value in positional),
        *(f"{key}={literal(value, inner)}" for key, value in named.items()),
    ]
    if not any("\n" in one for one in given):
        joined = ", ".join(given)
        if _width(f"{indent}{name}({joined})") <= _LINE:
            return f"{name}({joined})"
        if _width(f"{inner}{joined}") <= _LINE:
            return f"{name}(\n{inner}{joined}\n{indent})"
    lines = "".join(f"{inner}{one},\n" for one in given)
    return f"{name}(\n{lines}{indent})"


def literal(value: Any, indent: str = "") -> str:
    """Return a value as Python; texts can be anything, and cannot be left."""
    if isinstance(value, Mapping):
        if not value:
            return "{}"
        inner = f"{indent}    "
        lines = [f"{inner}{literal(key)}: {literal(item, inner)},\n" for key, item in value.items()]
        return f"{{\n{''.join(lines)}{indent}}}"
    if not isinstance(value, str):
        return repr(value)
    if value.count('"') > value.count("'"):  # fewer escapes
        return f"'{_in_single_quotes(value)}'"
    return f'"{escaped(value)}"'


def _in_single_quotes(text: str) -> str:
    # The quotation mark at the end makes repr choose the others, and is cut off with them.
    return repr(f'{text}"')[1:-2]


def escaped(text: str) -> str:
    """Return what stands for *text* between double quotes, single or triple."""
    return _in_single_quotes(text).replace("\\'", "'").replace('"', '\\"')


def _width(text: str) -> int:
    return sum(2 if east_asian_width(char) in "WF" else 1 for char in text)
