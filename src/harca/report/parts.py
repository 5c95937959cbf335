"""The parts that sections are made of: tables, figures with their numbers, notes."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from harca.report import figures
from harca.report.markup import Child, Html, element


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page that has a heading and can be led to."""

    name: str
    title: str
    body: Html


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its head, and whether it holds numbers, which stand to the right."""

    title: str
    number: bool = False


def number(title: str) -> Column:
    """Return a column of numbers."""
    return Column(title, number=True)


def table(
    name: str,
    caption: Child,
    columns: Sequence[Column],
    rows: Iterable[Sequence[Child]],
    *,
    more: int = 0,
    total: Sequence[Child] | None = None,
) -> Html:
    """Return a table, which scrolls by itself where it is too wide.

    Args:
        name: Letters and hyphens; unique in the page.
        rows: The first cell of each says what the row is about.
        more: Rows that are not listed.
        total: A last row that sums the others up.
    """
    head = element(
        "tr",
        [element("th", one.title, scope="col", class_=_class(one)) for one in columns],
    )
    foot = element("tfoot", _row(columns, total)) if total else None
    inner = element(
        "table",
        element("caption", element("span", caption), id=f"{name}-caption"),
        element("thead", head),
        element("tbody", [_row(columns, row) for row in rows]),
        foot,
    )
    rest = element("p", f"{more:,} more not listed.", class_="rest") if more > 0 else None
    # What scrolls must be reachable without a mouse.
    return element(
        "div",
        element(
            "div", inner, class_="scroll", tabindex=0, role="group",
            aria_labelledby=f"{name}-caption",
        ),
        rest,
        class_="table",
    )  # fmt: skip


def _row(columns: Sequence[Column], row: Sequence[Child]) -> Html:
    first, *others = row
    return element(
        "tr",
        element("th", first, scope="row", class_=_class(columns[0])),
        [
            element("td", cell, class_=_class(column))
            for column, cell in zip(columns[1:], others, strict=True)
        ],
    )


def _class(column: Column) -> str | None:
    return "n" if column.number else None


def figure(plot: Html, caption: Child, data: Html | None = None) -> Html:
    """Return a plot with what it shows in words, and its numbers to be opened."""
    return element(
        "figure",
        plot,
        element("figcaption", caption),
        element("details", element("summary", "The numbers of this plot"), data) if data else None,
    )


def side_by_side(*parts: Html | None) -> Html:
    """Return figures beside each other, where there is room."""
    return element("div", [one for one in parts if one is not None], class_="figures")


def missing(what: Child, command: str) -> Html:
    """Say that there is nothing to show yet, and which command gives it."""
    return element(
        "p", what, " ", element("code", command), " gives it.", class_="missing"
    )  # fmt: skip


def moment(at: datetime | None) -> Child:
    """Return a time as people and machines read it."""
    if at is None:
        return figures.when(at)
    return element("time", figures.when(at), datetime=at.isoformat(timespec="seconds"))


def beside(*children: Child) -> Html:
    """Return what stands beside a figure, where there is room."""
    return element("div", children, class_="beside")


def paragraph(*children: Child) -> Html:
    """Return a paragraph."""
    return element("p", children)


def code(text: str) -> Html:
    """Return a command or a name as it is typed."""
    return element("code", text)


def facts(pairs: Iterable[tuple[str, Child]]) -> Html:
    """Return names and values, one under the other."""
    return element(
        "dl",
        [element("div", element("dt", name), element("dd", value)) for name, value in pairs],
        class_="facts",
    )
