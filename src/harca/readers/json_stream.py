"""A large JSON file, one element at a time.

The parser for a whole document takes ten times the file's size in memory. Here the bytes of
each element of one list or object are found, and parsed by themselves: only strings and
brackets are looked at for that. Around the elements the grammar is strict (RFC 8259), so that
damage is noticed where it is, and not one element later.
"""

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from harca.model import Reason, Rejection
from harca.readers.files import MAX_FILE_BYTES, exact_json, open_binary

_CHUNK_BYTES = 1 << 20
_MOST_PAYLOAD_BYTES = 16 << 20
_BLANKS = re.compile(rb"[ \t\r\n]*")
_STRING = rb'"(?:[^"\\]++|\\.)*+("?)'
_WHOLE_STRING = re.compile(_STRING, re.DOTALL)
_MARK = re.compile(_STRING + rb"|[{}\[\]]", re.DOTALL)
_SCALAR = re.compile(rb"[-+.0-9A-Za-z]*")
_BOM = b"\xef\xbb\xbf"


class Damaged(ValueError):
    """The file is no JSON, or ends too early.

    Attributes:
        at: How many bytes stand before the element in which it was noticed.
    """

    def __init__(self, what: str, at: int) -> None:
        super().__init__(f"{what} after byte {at}")
        self.at = at


@dataclass(frozen=True, slots=True)
class Element:
    """An element of a list, or a member of an object.

    Attributes:
        key: The member's name, or the element's number from 0.
        data: Its bytes, not parsed yet.
    """

    key: str | int
    data: bytes

    def value(self) -> Any:
        """Return it parsed.

        Raises:
            ValueError: It is no JSON.
            RecursionError: It is nested too deeply.
        """
        return exact_json(self.data)


class Scanner:
    """Reads a file from its beginning; memory is a chunk and one element."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._buffer = b""
        self._at = 0  # in the buffer
        self._before = 0  # bytes of the file before the buffer
        self._ended = False
        if self._fill() and self._buffer.startswith(_BOM):
            self._at = len(_BOM)

    @property
    def at(self) -> int:
        """How many bytes were taken."""
        return self._before + self._at

    def _fill(self, keep: int | None = None) -> bool:
        """Read another chunk; forget what stands before *keep*."""
        keep = self._at if keep is None else keep
        chunk = self._file.read(max(_CHUNK_BYTES, len(self._buffer) - keep))
        if not chunk:
            self._ended = True
            return False
        self._buffer = self._buffer[keep:] + chunk
        self._before += keep
        self._at -= keep
        if len(self._buffer) > MAX_FILE_BYTES:
            raise Damaged(f"an element is larger than {MAX_FILE_BYTES} bytes", self._before)
        return True

    def peek(self) -> bytes:
        """Return the next byte that is no blank, without taking it; nothing at the end."""
        while True:
            blanks = _BLANKS.match(self._buffer, self._at)
            assert blanks is not None
            self._at = blanks.end()
            if self._at < len(self._buffer):
                return self._buffer[self._at : self._at + 1]
            if not self._fill():
                return b""

    def take(self, expected: bytes) -> bytes:
        """Take the next byte, which must be one of *expected*."""
        found = self.peek()
        if not found or found not in expected:
            what = f"found {found!r}" if found else "the file ends"
            wanted = " or ".join(f'"{chr(byte)}"' for byte in expected)
            raise Damaged(f"{what}, expected {wanted}", self.at)
        self._at += 1
        return found

    def value(self) -> bytes:
        """Take the next value and return its bytes."""
        first = self.peek()
        if first in (b"{", b"["):
            return self._nested()
        if first == b'"':
            return self._text()
        while True:
            match = _SCALAR.match(self._buffer, self._at)
            assert match is not None
            if match.end() < len(self._buffer) or not self._fill():
                break
        if match.end() == match.start():
            raise Damaged("the file ends" if not first else "no value", self.at)
        self._at = match.end()
        return match.group()

    def parsed(self) -> Any:
        """Take the next value and return it parsed."""
        at = self.at
        try:
            return exact_json(self.value())
        except Damaged:
            raise
        except (ValueError, RecursionError) as exc:
            raise Damaged(f"no JSON ({str(exc)[:100]})", at) from exc

    def _text(self) -> bytes:
        while True:
            match = _WHOLE_STRING.match(self._buffer, self._at)
            assert match is not None
            if match.group(1):
                self._at = match.end()
                return match.group()
            if not self._fill():
                raise Damaged("the file ends in a string", self.at)

    def _nested(self) -> bytes:
        depth, start, scanned = 0, self._at, self._at
        while True:
            for mark in _MARK.finditer(self._buffer, scanned):
                byte = self._buffer[mark.start()]
                if byte == 0x22:  # a string
                    if not mark.group(1):
                        break  # not ended yet
                elif byte in b"{[":
                    depth += 1
                else:
                    depth -= 1
                    if depth == 0:
                        self._at = mark.end()
                        return self._buffer[start : self._at]
                scanned = mark.end()
            else:
                scanned = len(self._buffer)
            before = self._before
            if not self._fill(keep=start):
                raise Damaged("the file ends in an object or a list", self.at)
            moved = self._before - before
            start, scanned = start - moved, scanned - moved

    def members(self) -> Iterator[str]:
        """Yield the name of each member of an object; its value must be taken in between."""
        self.take(b"{")
        if self.peek() == b"}":
            self.take(b"}")
            return
        while True:
            if self.peek() != b'"':
                self.take(b'"')
            name = self.parsed()
            self.take(b":")
            yield name
            if self.take(b",}") == b"}":
                return

    def elements(self) -> Iterator[Element]:
        """Yield what the next list or object holds."""
        if self.peek() == b"{":
            for name in self.members():
                yield Element(name, self.value())
            return
        self.take(b"[")
        if self.peek() == b"]":
            self.take(b"]")
            return
        number = 0
        while True:
            yield Element(number, self.value())
            if self.take(b",]") == b"]":
                return
            number += 1

    def end(self) -> None:
        """Make sure that nothing follows."""
        if self.peek():
            raise Damaged("something follows the end", self.at)


def elements_at(file: BinaryIO, path: Sequence[str]) -> Iterator[Element]:
    """Yield the elements of the list or object under *path*.

    The rest of the file is checked too: a file that is cut short behind its records is
    damaged all the same.

    Raises:
        Damaged: The file is no JSON; what was yielded before is whole.
    """
    scanner = Scanner(file)
    yield from _below(scanner, path)
    scanner.end()


def _below(scanner: Scanner, path: Sequence[str]) -> Iterator[Element]:
    if not path:
        yield from scanner.elements()
        return
    for name in scanner.members():
        if name == path[0] and scanner.peek() in (b"{", b"["):
            yield from _below(scanner, path[1:])
        else:
            scanner.value()


def damage(path: Path, origin: str, found: Damaged) -> Rejection:
    """Return the rejection of what could not be read of a file any more.

    Its payload is the whole file if that is small, else what stands where it is damaged.
    """
    with open_binary(path) as file:
        if os.fstat(file.fileno()).st_size > _MOST_PAYLOAD_BYTES:
            file.seek(found.at)
        payload = file.read(_MOST_PAYLOAD_BYTES)
    return Rejection(origin, Reason.UNPARSABLE, str(found), payload)
