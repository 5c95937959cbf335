"""What the sections on measurements have in common."""

from collections.abc import Sequence

from harca.report.collect import Report
from harca.report.data_sections import space
from harca.report.markup import Child, Html, element, foreign, joined
from harca.report.measured import (
    Taken,
)
from harca.report.parts import (
    missing,
    moment,
)

# Spaces beyond these are in --json.
SHOWN = 6
_NEEDS_SCHEMA = "The schema has no table for measurements yet:"


def none(report: Report, what: str, command: str) -> Html:
    """Return that there is no measurement, and the command that takes one."""
    if report.has_measurements:
        return missing(what, command)
    return missing(f"{what} {_NEEDS_SCHEMA}", "alembic upgrade head")


def about(taken: Taken, *more: Child, subject: Child = None) -> Html:
    """Return the heading of a measurement, and when and where it was taken."""
    return joined(
        [
            element("h3", subject or subject_of(taken)),
            element(
                "p",
                "Measured ",
                moment(taken.taken_at),
                f" on {taken.server} by harca {taken.harca}.",
                [[" ", one] for one in more],
                class_="about",
            ),
        ]
    )


def subject_of(taken: Taken, *, rows: bool = True) -> Html:
    """Return what was measured."""
    what: Child = "Rows that were made up"
    if taken.model_id is not None and taken.dims is not None:
        what = space(taken.model_id, taken.dims)
    elif taken.dims is not None:
        what = f"{taken.dims}-d rows that were made up"
    return joined([what, f", {taken.rows:,} rows" if rows and taken.rows is not None else None])


def noted(notes: Sequence[str]) -> Html:
    """Return what is to be said beside a measurement, as a list."""
    if not notes:
        return Html("")
    return element("ul", [element("li", foreign(one, most=300)) for one in notes], class_="notes")
