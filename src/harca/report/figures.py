"""Numbers as people read them."""

from datetime import UTC, datetime

_NONE = "–"


def whole(value: int | None) -> str:
    """Return ``12,345``."""
    return _NONE if value is None else f"{value:,}"


def size(count: float | None) -> str:
    """Return bytes in a unit that fits."""
    if count is None:
        return _NONE
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(count) < 1000 or unit == "GB":
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def ms(value: float | None) -> str:
    """Return milliseconds with three digits that count."""
    if value is None:
        return _NONE
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{digits}f}"


def rate(value: float | None) -> str:
    """Return so many a second."""
    if value is None:
        return _NONE
    return f"{value:,.{0 if value >= 10 else 1 if value >= 1 else 2}f}"


def share(value: float | None) -> str:
    """Return a recall; never rounded up to what it is not: 0.9998 is no 1.000."""
    return _NONE if value is None else f"{int(value * 1000 + 1e-9) / 1000:.3f}"


def percent(value: float | None) -> str:
    """Return a fraction as ``1.5 %``; what is more than nothing is never 0 %."""
    if value is None:
        return _NONE
    if 0 < value < 0.0005:
        return "< 0.1 %"
    return f"{value * 100:,.1f} %" if value < 0.1 else f"{value * 100:,.0f} %"


def change(value: float) -> str:
    """Return a growth as ``+1.5 %``, with a minus as wide as the plus."""
    return f"{value * 100:+,.1f} %".replace("-", "−")


def times(value: float | None) -> str:
    """Return a ratio."""
    return _NONE if value is None else f"{value:,.2f}" if value < 10 else f"{value:,.0f}"


def duration(seconds: float | None) -> str:
    """Return a time in a unit that fits."""
    if seconds is None:
        return _NONE
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def when(at: datetime | None) -> str:
    """Return a moment, to the minute, in UTC."""
    return _NONE if at is None else f"{at.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def money(value: float | None) -> str:
    """Return an amount, in whatever currency its price was given."""
    return _NONE if value is None else f"{value:,.2f}" if value >= 0.01 or not value else "< 0.01"
