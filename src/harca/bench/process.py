"""CPU time and memory of processes, where the system tells them (Linux's /proc)."""

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import process_time

_PROC = Path("/proc")
_SAME_START_S = 2.0


@dataclass(frozen=True, slots=True)
class Backend:
    """A server's process.

    Attributes:
        started_s: When the server says that it began, in seconds since 1970.
    """

    pid: int
    started_s: float


def own_cpu_s() -> float:
    """Return the CPU seconds that this process has used, by all its threads."""
    return process_time()


def own_memory_mb() -> float | None:
    """Return what this process holds in memory, pages shared with others included."""
    return _status("self", "VmRSS")


def is_here(backend: Backend) -> bool:
    """Say whether *backend* runs on this machine.

    The number alone says nothing: a server elsewhere, or in a container, counts its own.
    """
    with suppress(OSError, ValueError, IndexError, StopIteration):
        after_name = (_PROC / str(backend.pid) / "stat").read_text().rpartition(")")[2].split()
        ticks = int(after_name[19])  # proc(5): field 22, starttime
        lines = (_PROC / "stat").read_text().splitlines()
        boot = next(int(line.split()[1]) for line in lines if line.startswith("btime "))
        started = boot + ticks / os.sysconf("SC_CLK_TCK")
        return abs(started - backend.started_s) <= _SAME_START_S
    return False


def cpu_s(backends: Sequence[Backend]) -> float | None:
    """Return the CPU seconds that *backends* have used; None: they are not all here.

    What parallel workers use is not in it: searches by an index have none.
    """
    total = 0
    for backend in backends:
        try:
            after_name = (_PROC / str(backend.pid) / "stat").read_text().rpartition(")")[2].split()
            total += int(after_name[11]) + int(after_name[12])  # utime, stime
        except (OSError, ValueError, IndexError):
            return None
    return total / os.sysconf("SC_CLK_TCK") if backends else None


def memory_mb(backends: Sequence[Backend]) -> float | None:
    """Return the memory of *backends* without what they share: the shared buffers."""
    sizes = [_status(str(backend.pid), "RssAnon") for backend in backends]
    if not sizes or None in sizes:
        return None
    return sum(size for size in sizes if size is not None)


def _status(pid: str, name: str) -> float | None:
    with suppress(OSError, ValueError, IndexError):
        for line in (_PROC / pid / "status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return round(int(line.split()[1]) / 1024, 1)
    return None
