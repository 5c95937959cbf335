"""What is secret in an address or a text, taken out before anybody sees it.

Messages and logs quote what they are about: an argument in the wrong place, what a driver or a
web server said. So they are cleaned where they go out, whoever wrote them.
"""

import logging
import re
from urllib.parse import parse_qsl, urlsplit, urlunsplit

# One slash too: of a path, doubled slashes become one.
_ADDRESS = re.compile(r"([a-z][a-z0-9+.\-]*:/{1,3})([^\s\"<>]*)", re.I)
# A database's password can have anything in it that was not escaped, spaces too.
_DATABASE = re.compile(r"(postgres(?:ql)?(?:\+\w+)?:/{1,3})[^\n]*:[^\n]*@", re.I)
_WORDS = (
    r"(?:password|passwd|passphrase|pwd|secret|token|signature|credential|api_?key|access_?key)"
)
_NAMED = re.compile(
    rf"(\b[\w-]*{_WORDS}[\w-]*\s*=\s*)('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[^\s\"'&,;)]+)", re.I
)
_IS_SECRET = re.compile(rf"{_WORDS}|^sig$|^key$|^auth", re.I)


def without_login(url: str) -> str:
    """Return a URL without user, password, query and fragment."""
    scheme, _, rest = url.partition("://")
    if ":" in rest.partition("@")[0]:
        rest = rest.rpartition("@")[2]  # a password can have slashes, which end a host's name
    try:
        parts = urlsplit(f"{scheme}://{rest}")
    except ValueError:
        return f"{scheme}://..."
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def redacted(text: str) -> str:
    """Return *text* with ``***`` for passwords and tokens: those in URLs, and those named so."""
    text = _DATABASE.sub(r"\1***@", text)
    return _NAMED.sub(r"\1***", _ADDRESS.sub(_address, text))


def has_secret(text: str) -> bool:
    """Say whether *text* has a password or a token in it, as far as can be told."""
    return redacted(text) != text


def _address(found: re.Match[str]) -> str:
    start, rest = found[1], found[2]
    login, at, place = rest.rpartition("@")
    if at and ":" in login:
        rest = f"***@{place}"
    before, mark, query = rest.partition("?")
    if mark and any(_IS_SECRET.search(name) for name, _ in parse_qsl(query)):
        rest = f"{before}?***"
    return f"{start}{rest}"


class Redacting(logging.Formatter):
    """Formats what is logged, by whichever library, without what is secret in it."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line as it is logged."""
        return redacted(super().format(record))
