"""What a process of this machine holds in memory for itself."""

import re
from pathlib import Path

_PROC = Path("/proc")
_ANONYMOUS = re.compile(r"^RssAnon:\s*(\d+) kB$", re.MULTILINE)


def private_bytes(pid: int | str = "self", *, titled: str = "") -> int | None:
    """Return the resident memory that is no file's and no shared one's; None if nobody says.

    Shared memory is left out: each of a server's processes has the server's buffers in it, and
    more of them the longer it runs.

    Args:
        titled: What the command line has to contain. A number tells nothing of a process that
            runs in another container.
    """
    try:
        title = (_PROC / str(pid) / "cmdline").read_text("utf-8", errors="replace")
        status = (_PROC / str(pid) / "status").read_text("utf-8", errors="replace")
    except OSError:
        return None
    found = _ANONYMOUS.search(status)
    return int(found[1]) * 1024 if found and titled in title.replace("\0", " ") else None
