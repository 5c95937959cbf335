"""Pickles of strangers, read without running anything.

A pickle names functions and calls them; plain unpickling runs whatever it names. Here a name
stands for a container of ours that keeps what it is given, or is refused. Only names on the
lists of the formats that use this are known.
"""

import collections
import io
import pickle
from collections.abc import Callable, Collection, Mapping
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any
from uuid import UUID

import numpy as np
from numpy.typing import NDArray


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

    def __init__(self, *args: Any, **more: Any) -> None:
        self.args = args
        self.state: dict[str, Any] = dict(more)

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


def _rebuilt(kind: Any, base: Any = object, state: Any = None) -> Any:
    """Do what ``copyreg._reconstructor`` does, for containers of ours only."""
    if isinstance(kind, type) and issubclass(kind, Kept):
        return kind()
    raise pickle.UnpicklingError("an object of an unknown class is rebuilt")


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
    ("uuid", "UUID"): UUID,
    ("pathlib", "PosixPath"): PurePosixPath,
    ("pathlib", "PurePosixPath"): PurePosixPath,
    ("pathlib", "WindowsPath"): PureWindowsPath,
    ("pathlib", "PureWindowsPath"): PureWindowsPath,
    ("numpy", "dtype"): _Dtype,
    ("numpy", "ndarray"): _Array,
    ("numpy.core.multiarray", "_reconstruct"): _Array,
    ("numpy._core.multiarray", "_reconstruct"): _Array,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy._core.multiarray", "scalar"): _scalar,
}


class _Restricted(pickle.Unpickler):
    def __init__(self, data: bytes, classes: Collection[tuple[str, str]]) -> None:
        super().__init__(io.BytesIO(data))
        self._classes = frozenset(classes)

    def find_class(self, module: str, name: str) -> Any:
        """Return what stands for a name; the module is never imported."""
        if (module, name) in self._classes:
            return type(name, (Kept,), {"kind": f"{module}.{name}"})
        try:
            return _VALUES[module, name]
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
        return finished(_Restricted(data, classes).load())
    except NotAllowed:
        raise
    except Exception as exc:
        # Whatever wrong bytes make the machine stumble over, they are no pickle.
        raise ValueError(f"no readable pickle: {type(exc).__name__}: {exc}"[:200]) from exc


def finished(value: Any) -> Any:
    """Return a top-level array as such."""
    return value.array if isinstance(value, _Array) else value


def plain(value: Any, *, depth: int = 0) -> Any:
    """Return *value* with arrays and paths in it as lists and text.

    Raises:
        ValueError: It is nested too deeply, or leads back to itself.
    """
    if depth > 100:
        raise ValueError("nested too deeply")
    if isinstance(value, _Array):
        return [] if value.array is None else value.array.tolist()
    if isinstance(value, PurePosixPath | PureWindowsPath):
        return str(value)
    if isinstance(value, Mapping):
        return {str(name): plain(one, depth=depth + 1) for name, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(one, depth=depth + 1) for one in value]
    if isinstance(value, Kept):
        return plain(value.state, depth=depth + 1)
    return value
