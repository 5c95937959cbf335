"""Pickles of strangers, read without running anything.

A pickle names functions and calls them; plain unpickling runs whatever it names. Here a name
stands for a container of ours that keeps what it is given, or is refused. Only names on the
lists of the formats that use this are known.
"""

import collections
import io
import pickle
import pickletools
from collections.abc import Callable, Collection, Mapping
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray

_MOST_PLAIN = 1 << 26  # about as many bytes in memory, far more than metadata have
_NODE = 64  # of them a value takes, whatever it is
_DEEPEST_PLAIN = 100
_MOST_BITS = 8192  # Python refuses to print a number that is twice as long


class NotAllowed(ValueError):
    """A pickle wants a name that no store of its format needs; nothing was run."""

    def __init__(self, wanted: str) -> None:
        super().__init__(f'the pickle wants to call "{wanted}", which is not allowed')
        self.wanted = wanted


class Kept:
    """Stands for an object of a class that is not imported: its name, and its state.

    Attributes:
        state: The object's attributes by name.
    """

    kind = ""
    args: tuple[Any, ...]
    state: dict[str, Any]

    def __new__(cls, *args: Any, **more: Any) -> "Kept":
        """Keep the arguments; most pickles make an object without calling ``__init__``."""
        made = super().__new__(cls)
        made.args, made.state = args, dict(more)
        return made

    def __setstate__(self, state: Any) -> None:
        parts = state if isinstance(state, tuple) else (state,)
        for part in parts:
            if isinstance(part, Mapping):
                # pydantic keeps the fields one level down, beside notes about them.
                fields = part.get("__dict__", part)
                if isinstance(fields, Mapping):
                    self.state.update({str(name): value for name, value in fields.items()})

    def append(self, value: Any) -> None:
        """Refuse to be a list."""
        raise pickle.UnpicklingError("an object is used as a list")

    def __setitem__(self, name: Any, value: Any) -> None:
        raise pickle.UnpicklingError("an object is used as a dictionary")


class _Array:
    """Stands for ``numpy.ndarray`` while its state is still to come."""

    def __init__(self, *args: Any) -> None:
        self.array: NDArray[Any] | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, by_columns, data = state
        if not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
            raise pickle.UnpicklingError("an array of objects")
        # The bytes are there already, so that a shape cannot ask for memory.
        flat = np.frombuffer(data, dtype.dtype)
        self.array = flat.reshape(shape, order="F" if by_columns else "C")


class _Dtype:
    def __init__(self, code: Any, *args: Any) -> None:
        self.dtype = np.dtype(str(code))
        if self.dtype.hasobject:
            raise pickle.UnpicklingError("an array of objects")

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">", "="):
            self.dtype = self.dtype.newbyteorder(state[1])


def _scalar(dtype: Any, data: Any) -> Any:
    if not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
        raise pickle.UnpicklingError("a number that is an object")
    return np.frombuffer(data, dtype.dtype)[0].item()


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> _Array:
    """Do what ``numpy._core.numeric._frombuffer`` does, which protocol 5 calls."""
    made = _Array()
    if order == "K" and axes is not None:
        made.__setstate__((1, shape, dtype, False, bytes(data)))
        assert made.array is not None
        made.array = made.array.transpose(axes)
    else:
        made.__setstate__((1, shape, dtype, order == "F", bytes(data)))
    return made


class _Uuid(Kept):
    """Stands for a UUID, which Python pickles by its number."""

    def uuid(self) -> UUID:
        """Return it; ValueError if there is no such number."""
        number = self.state.get("int")
        return UUID(int=number if isinstance(number, int) else -1)


def _rebuilt(kind: Any, base: Any = object, state: Any = None) -> Any:
    """Do what ``copyreg._reconstructor`` does, for containers of ours only."""
    if isinstance(kind, type) and issubclass(kind, Kept):
        return kind()
    raise pickle.UnpicklingError("an object of an unknown class is rebuilt")


def _path(*parts: Any) -> str:
    return str(PurePosixPath(*parts))


def _windows_path(*parts: Any) -> str:
    return str(PureWindowsPath(*parts))


def _encoded(text: Any, encoding: Any = "latin1") -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", "utf-8"):
        raise pickle.UnpicklingError("bytes in an unknown encoding")
    return text.encode(encoding)


def _default_dict(*args: Any) -> dict[Any, Any]:
    return {}


# Values that metadata hold, and how Python itself pickles them. None of these can run anything
# or take more memory than the pickle has bytes.
_VALUES: dict[tuple[str, str], Callable[..., Any]] = {
    ("copyreg", "_reconstructor"): _rebuilt,
    ("copy_reg", "_reconstructor"): _rebuilt,
    ("builtins", "object"): object,
    ("__builtin__", "object"): object,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("__builtin__", "set"): set,
    ("__builtin__", "frozenset"): frozenset,
    ("builtins", "dict"): _default_dict,
    ("_codecs", "encode"): _encoded,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("collections", "defaultdict"): _default_dict,
    ("datetime", "datetime"): datetime,
    ("datetime", "date"): date,
    ("datetime", "time"): time,
    ("datetime", "timedelta"): timedelta,
    ("datetime", "timezone"): timezone,
    ("decimal", "Decimal"): Decimal,
    ("pathlib", "PosixPath"): _path,
    ("pathlib", "PurePosixPath"): _path,
    ("pathlib", "WindowsPath"): _windows_path,
    ("pathlib", "PureWindowsPath"): _windows_path,
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    ("numpy", "memmap"): _Array,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("numpy._core.numeric", "_frombuffer"): _from_buffer,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
}


class _Name:
    """What stands for a name on the unpickler's stack: it can be called, and nothing else.

    A pickle can set attributes of whatever it has named, not only call it: a class or a
    function of this process there would be changed for all of it.
    """

    __slots__ = ("_make",)

    def __init__(self, make: Callable[..., Any]) -> None:
        self._make = make

    def __call__(self, *args: Any) -> Any:
        return self._make(*args)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("a name is given a state")


class _Restricted(pickle.Unpickler):
    def __init__(self, data: bytes, classes: Collection[tuple[str, str]]) -> None:
        super().__init__(io.BytesIO(data))
        self._classes = frozenset(classes)

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a name; the module is never imported."""
        if (module, name) in self._classes:
            return type(name, (Kept,), {"kind": f"{module}.{name}"})
        if (module, name) == ("uuid", "UUID"):
            return type(name, (_Uuid,), {})
        try:
            return _Name(_VALUES[module, name])
        except KeyError:
            raise NotAllowed(f"{module}.{name}") from None

    def persistent_load(self, pid: Any) -> Any:
        """Refuse what would be looked up outside."""
        raise NotAllowed(f"persistent id {pid!r}"[:100])


def unpickle(data: bytes, classes: Collection[tuple[str, str]]) -> Any:
    """Return what *data* holds, with a `Kept` for each object of one of *classes*.

    Args:
        data: The pickle; memory is a small multiple of its size.
        classes: Pairs of module and name.

    Raises:
        NotAllowed: It wants another name.
        ValueError: It is no pickle, or cut short.
    """
    try:
        _check_sizes(data)
        return finished(_Restricted(data, classes).load())
    except NotAllowed:
        raise
    except Exception as exc:
        # Whatever wrong bytes make the machine stumble over, they are no pickle.
        raise ValueError(f"no readable pickle: {type(exc).__name__}: {exc}"[:200]) from exc


def finished(value: Any) -> Any:
    """Return a top-level array as such."""
    return value.array if isinstance(value, _Array) else value


def plain(value: Any) -> Any:
    """Return *value* with arrays and paths in it as lists and text.

    A pickle can have one object in a thousand places without becoming longer, so that what
    comes out is counted.

    Raises:
        ValueError: It is nested too deeply, leads back to itself, or is too large as a tree.
    """
    return _Plain().of(value, 0)


class _Plain:
    def __init__(self) -> None:
        self._left = _MOST_PLAIN

    def _spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise ValueError(f"larger than {_MOST_PLAIN >> 20} MiB as a tree")

    def of(self, value: Any, depth: int) -> Any:
        if depth > _DEEPEST_PLAIN:
            raise ValueError("nested too deeply")
        self._spend(_NODE)
        if isinstance(value, str | bytes | bytearray):
            self._spend(len(value))
            return value
        if isinstance(value, int):
            if value.bit_length() > _MOST_BITS:
                raise ValueError(f"a number of {value.bit_length()} bits")
            return value
        if isinstance(value, _Array):
            if value.array is None:
                return []
            self._spend(_NODE * value.array.size)
            return value.array.tolist()
        if isinstance(value, _Uuid):
            return value.uuid()
        if isinstance(value, dict):
            return {self._name(name): self.of(one, depth + 1) for name, one in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.of(one, depth + 1) for one in value]
        if isinstance(value, Kept):
            return self.of(value.state, depth + 1)
        return value

    def _name(self, name: Any) -> str:
        if isinstance(name, str | bytes):
            self._spend(len(name))
        elif name is not None and not isinstance(name, int | float):
            raise ValueError(f"a {type(name).__name__} as a name")
        return str(name)


def _check_sizes(data: bytes) -> None:
    """Refuse sizes that the data do not bear out, before the unpickler asks memory for them.

    Walks over the operations (CPython ``Lib/pickletools.py``). Counts of bytes are compared
    with what follows. Places in the memo are numbered one after the other by every writer;
    the unpickler would make a table as long as the largest number.
    """
    at, puts, size, arguments = 0, 0, len(data), _ARGUMENTS
    while at < size:
        code = data[at]
        at += 1
        kind = arguments[code]
        if kind == 0:
            if code == _MEMOIZE:
                puts += 1
            elif code == _STOP:
                return
        elif kind > 0:
            if code in _PUTS:
                puts = _next_place(int.from_bytes(data[at : at + kind], "little"), puts)
            elif code == _FRAME and int.from_bytes(data[at : at + 8], "little") > size - at - 8:
                raise pickle.UnpicklingError("cut short")
            at += kind
        elif kind in (_LINE, _TWO_LINES):
            for _ in range(-kind):
                end = data.find(b"\n", at)
                if end < 0:
                    raise pickle.UnpicklingError("cut short")
                if code == _PUT:
                    puts = _next_place(int(data[at:end]), puts)
                at = end + 1
        else:
            width = _COUNTED - kind
            count = int.from_bytes(data[at : at + width], "little")
            if count > size - at - width:
                raise pickle.UnpicklingError("cut short")
            at += width + count


def _next_place(place: int, puts: int) -> int:
    if not 0 <= place <= puts + 1:
        raise pickle.UnpicklingError(f"place {place} in a memo of {puts}")
    return puts + 1


def _argument(opcode: pickletools.OpcodeInfo) -> int:
    """Return how long an operation's argument is; a mark where its bytes tell."""
    if opcode.arg is None:
        return 0
    if opcode.arg.n >= 0:
        return opcode.arg.n
    if opcode.arg.n == pickletools.UP_TO_NEWLINE:
        # Of a pair of lines, pickletools has the first alone in its name.
        return _TWO_LINES if opcode.arg is pickletools.stringnl_noescape_pair else _LINE
    return (
        _COUNTED
        - {
            pickletools.TAKEN_FROM_ARGUMENT1: 1,
            pickletools.TAKEN_FROM_ARGUMENT4: 4,
            pickletools.TAKEN_FROM_ARGUMENT4U: 4,
            pickletools.TAKEN_FROM_ARGUMENT8U: 8,
        }[opcode.arg.n]
    )


_LINE, _TWO_LINES, _COUNTED = -1, -2, -3  # as many lines; counted by 1, 4 or 8 bytes: -4, -7, -11
_ARGUMENTS = [0] * 256
for _opcode in pickletools.opcodes:
    _ARGUMENTS[ord(_opcode.code)] = _argument(_opcode)
_PUT, _STOP, _MEMOIZE, _FRAME = pickle.PUT[0], pickle.STOP[0], pickle.MEMOIZE[0], pickle.FRAME[0]
_PUTS = frozenset((pickle.BINPUT[0], pickle.LONG_BINPUT[0]))
