"""MessagePack, as far as lists of ids need it.

Source: github.com/msgpack/msgpack, ``spec.md``. Extension types are not read.
"""

import struct
from typing import Any

_DEEPEST = 32

# Code -> how the number that follows it is laid out.
_NUMBERS = {
    0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q",
    0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q",
}  # fmt: skip
# Code -> how its length is laid out.
_TEXTS = {0xD9: ">B", 0xDA: ">H", 0xDB: ">I"}
_BYTES = {0xC4: ">B", 0xC5: ">H", 0xC6: ">I"}
_LISTS = {0xDC: ">H", 0xDD: ">I"}
_MAPS = {0xDE: ">H", 0xDF: ">I"}
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}


def unpack(data: bytes) -> Any:
    """Return the one value in *data*.

    Raises:
        ValueError: It is no MessagePack, is cut short, or something follows it.
    """
    found = _Unpacker(data)
    value = found.value(0)
    if found.at != len(data):
        raise ValueError(f"something follows the end after byte {found.at}")
    return value


class _Unpacker:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def _take(self, size: int) -> bytes:
        part = self._data[self.at : self.at + size]
        if len(part) < size:
            raise ValueError(f"cut short after byte {len(self._data)}")
        self.at += size
        return part

    def _number(self, layout: str) -> Any:
        return struct.unpack(layout, self._take(struct.calcsize(layout)))[0]

    def value(self, depth: int) -> Any:
        if depth > _DEEPEST:
            raise ValueError("nested too deeply")
        code = self._take(1)[0]
        if code < 0x80:
            return code
        if code < 0x90:
            return self._map(code & 0x0F, depth)
        if code < 0xA0:
            return self._list(code & 0x0F, depth)
        if code < 0xC0:
            return self._take(code & 0x1F).decode()
        if code >= 0xE0:
            return code - 0x100
        if code in _CONSTANTS:
            return _CONSTANTS[code]
        if code in _NUMBERS:
            return self._number(_NUMBERS[code])
        if code in _TEXTS:
            return self._take(self._number(_TEXTS[code])).decode()
        if code in _BYTES:
            return self._take(self._number(_BYTES[code]))
        if code in _LISTS:
            return self._list(self._number(_LISTS[code]), depth)
        if code in _MAPS:
            return self._map(self._number(_MAPS[code]), depth)
        raise ValueError(f"the type 0x{code:02x} after byte {self.at - 1}")

    def _list(self, count: int, depth: int) -> list[Any]:
        # One by one: the count can be any number, and the bytes end soon enough.
        return [self.value(depth + 1) for _ in range(count)]

    def _map(self, count: int, depth: int) -> dict[str, Any]:
        found = {}
        for _ in range(count):
            name = self.value(depth + 1)
            # An object as a name would be printed, within a name that is printed, and so on:
            # each level doubles the marks of escape.
            if not isinstance(name, str):
                raise ValueError(f"a {type(name).__name__} as a name before byte {self.at}")
            found[name] = self.value(depth + 1)
        return found
