"""Plots as SVG that stands in the page: its text is text, its colours are the page's own.

matplotlib draws with stand-ins for colours; they become CSS variables, so that one drawing
serves a light page, a dark one and paper. The same data give the same bytes.
"""

import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import escape
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from harca.errors import HarcaError
from harca.report.markup import Html

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "{http://www.w3.org/1999/xlink}href"

# Stand-ins; no two alike, and none that matplotlib would use by itself.
INK, MUTED, GRID, PAPER = "#010203", "#010204", "#010205", "#010206"
SERIES = ("#010211", "#010212", "#010213", "#010214", "#010215", "#010216")
_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--line",
    PAPER: "--paper",
    **{stand_in: f"--series-{number}" for number, stand_in in enumerate(SERIES, 1)},
}
# Told apart without colour: by marker and by dash.
_MARKERS = ("o", "s", "^", "D", "v", "P")
_DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), "-", (0, (5, 2)))

# Inches of 72 units. A unit is a pixel in a column of the page, and less on a telephone.
_WIDTH, _HEIGHT = 5.9, 3.5
_BAR_HEIGHT = 0.42
_TOO_FAR = 30
# From this on, labels between the powers of ten would stand in each other.
_ROOMY = 1_000
# Below this there is room for each of them.
_TIGHT = 6


@dataclass(frozen=True, slots=True)
class Series:
    """A line: its name, and its points in order.

    Attributes:
        marked: Points that are marked out, by their place in the list.
    """

    name: str
    points: Sequence[tuple[float, float]]
    marked: Sequence[int] = ()


@dataclass(frozen=True, slots=True)
class Bar:
    """A bar with its value, as it is written beside it."""

    name: str
    value: float
    text: str
    series: int = 0


@dataclass(frozen=True, slots=True)
class Plot:
    """What a plot is called, for those who do not see it.

    Attributes:
        name: Letters and hyphens; unique in the page.
        title: What is plotted.
        summary: What there is to see.
    """

    name: str
    title: str
    summary: str


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis: its label with the unit, and how it is divided.

    Attributes:
        at: Values that are marked, with their labels; empty: as it comes.
    """

    label: str
    log: bool = False
    least: float | None = None
    most: float | None = None
    at: Sequence[tuple[float, str]] = field(default_factory=tuple)


def require_matplotlib() -> None:
    """Refuse where plots cannot be drawn.

    Raises:
        HarcaError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise HarcaError(
            "the plots are drawn with matplotlib, which is not installed",
            hint='Install it with `pip install "harca[report]"`, or take the figures alone with '
            "--json.",
        )


def lines(
    plot: Plot,
    series: Sequence[Series],
    x: Axis,
    y: Axis,
    *,
    goal: tuple[float, str] | None = None,
    steps: bool = False,
    markers: bool = True,
) -> Html:
    """Return lines through points.

    Args:
        goal: A height that is to be reached, or not to be passed, and what it is called.
        steps: A value holds from the point before it to its own.
        markers: Whether points are marked, beside the dash of their line.
    """

    def draw(axes: "Axes") -> None:
        handles = []
        for number, one in enumerate(series):
            colour = SERIES[number % len(SERIES)]
            (handle,) = axes.plot(
                [point[0] for point in one.points],
                [point[1] for point in one.points],
                color=colour,
                linestyle=_DASHES[number % len(_DASHES)],
                marker=_MARKERS[number % len(_MARKERS)] if markers else None,
                drawstyle="steps-pre" if steps else "default",
                markersize=5,
                linewidth=1.7,
            )
            handles.append(handle)
            for place in one.marked:
                axes.plot(
                    *one.points[place], marker="o", markersize=13, markerfacecolor="none",
                    markeredgecolor=INK, markeredgewidth=1.6, linestyle="none",
                )  # fmt: skip
        if goal is not None:
            axes.axhline(goal[0], color=MUTED, linewidth=1, linestyle=(0, (2, 2)))
            axes.annotate(
                goal[1], (1, goal[0]), xycoords=("axes fraction", "data"), ha="right",
                xytext=(0, -13), textcoords="offset points", color=MUTED, fontsize=11.5,
            )  # fmt: skip
        _set(axes, x, y)
        if len(series) > 1:
            axes.legend(
                handles, [one.name for one in series], loc="upper left",
                bbox_to_anchor=(-0.02, -0.2), ncols=2, handlelength=2.6, columnspacing=1.4,
                borderaxespad=0, labelspacing=0.35,
            )  # fmt: skip

    extra = 0.28 * ((len(series) + 1) // 2) if len(series) > 1 else 0
    return _drawn(plot, draw, height=_HEIGHT + extra)


def bars(plot: Plot, values: Sequence[Bar], x: Axis, *, all_count: bool = False) -> Html:
    """Return bars that lie, the first at the top, each with its name and its value.

    Args:
        all_count: The small ones count as much as the large. Where the largest would leave
            nothing to see of the others, they become dots on a logarithmic axis, as a bar has
            no beginning there.
    """
    least = min((bar.value for bar in values), default=0)
    if all_count and least > 0 and max(bar.value for bar in values) > _TOO_FAR * least:
        return _dots(plot, values, x)

    def draw(axes: "Axes") -> None:
        places = range(len(values))
        drawn = axes.barh(
            list(places),
            [bar.value for bar in values],
            height=0.62,
            color=[SERIES[bar.series % len(SERIES)] for bar in values],
        )
        for bar, patch in zip(values, drawn, strict=True):
            axes.annotate(
                bar.text, (patch.get_width(), patch.get_y() + patch.get_height() / 2),
                xytext=(4, 0), textcoords="offset points", va="center", color=INK, fontsize=12,
            )  # fmt: skip
        axes.set_yticks(list(places), [bar.name for bar in values], color=INK)
        axes.tick_params(axis="y", length=0)
        axes.invert_yaxis()
        axes.spines["left"].set_color(GRID)
        axes.margins(x=0.24)
        _set(axes, x, None)
        axes.grid(visible=False, axis="y")

    return _drawn(plot, draw, height=0.8 + _BAR_HEIGHT * len(values))


def _dots(plot: Plot, values: Sequence[Bar], x: Axis) -> Html:
    least, most = min(bar.value for bar in values), max(bar.value for bar in values)

    def draw(axes: "Axes") -> None:
        for place, bar in enumerate(values):
            colour = SERIES[bar.series % len(SERIES)]
            axes.hlines(
                place, least / 3, bar.value, color=colour, linewidth=2, linestyle=(0, (1, 2))
            )
            axes.plot(bar.value, place, marker="o", markersize=9, color=colour, linestyle="none")
            axes.annotate(
                bar.text, (bar.value, place), xytext=(9, 0), textcoords="offset points",
                va="center", color=INK, fontsize=12,
            )  # fmt: skip
        axes.set_yticks(list(range(len(values))), [bar.name for bar in values], color=INK)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(len(values) - 0.4, -0.6)
        axes.spines["left"].set_color(GRID)
        logarithmic = Axis(f"{x.label} (each line ten times)", True, least / 3, most * 6)
        _set(axes, logarithmic, None)
        axes.grid(visible=False, axis="y")

    return _drawn(plot, draw, height=0.8 + _BAR_HEIGHT * len(values))


def _set(axes: "Axes", x: Axis, y: Axis | None) -> None:
    pairs: list[tuple[Any, Axis, Any, Any]] = [
        (axes.xaxis, x, axes.set_xscale, axes.set_xlim),
    ]
    if y is not None:
        pairs.append((axes.yaxis, y, axes.set_yscale, axes.set_ylim))
    for drawn, axis, set_scale, set_limits in pairs:
        if axis.log:
            set_scale("log")
        drawn.set_label_text(axis.label)
        if axis.least is not None or axis.most is not None:
            set_limits(axis.least, axis.most)
        if axis.at:
            drawn.set_ticks([value for value, _ in axis.at], [label for _, label in axis.at])
            drawn.set_ticks([], minor=True)
        else:
            drawn.set_major_formatter(_plain)
            low, high = drawn.get_view_interval()
            if axis.log:
                drawn.set_minor_formatter(
                    _plain
                    if high / low < _TIGHT
                    else _sparse
                    if high / low < _ROOMY
                    else _unlabelled
                )


def _plain(value: float, _place: int) -> str:
    """Return a tick's label: ``12,000``, ``0.05``."""
    if value and abs(value) < 1:
        return f"{value:.6f}".rstrip("0").rstrip(".")
    return f"{value:,.0f}" if value == round(value) else f"{value:,.4f}".rstrip("0")


def _sparse(value: float, place: int) -> str:
    """Return a label for 2 and 5 between the powers of ten, where there is room."""
    return _plain(value, place) if f"{value:.0e}"[0] in "25" else ""


def _unlabelled(_value: float, _place: int) -> str:
    return ""


@contextmanager
def _style() -> Iterator[None]:
    """Draw in our own manner, whatever the user's matplotlibrc says."""
    import matplotlib as mpl

    with mpl.rc_context(), warnings.catch_warnings():
        # Of characters that its own font lacks; the page's fonts have them.
        warnings.filterwarnings("ignore", message="Glyph .* missing", category=UserWarning)
        mpl.rcdefaults()
        mpl.rcParams.update(
            {
                "svg.fonttype": "none",
                "svg.hashsalt": "harca",
                "text.parse_math": False,  # a $ is a $
                "font.size": 12,
                "axes.labelsize": 12,
                "xtick.labelsize": 11.5,
                "ytick.labelsize": 11.5,
                "legend.fontsize": 11.5,
                "legend.frameon": False,
                "text.color": INK,
                "legend.labelcolor": INK,
                "axes.labelcolor": MUTED,
                "xtick.major.size": 3,
                "xtick.minor.size": 3,
                "xtick.major.pad": 4,
                "xtick.minor.pad": 4,
                "ytick.major.size": 3,
                "ytick.minor.size": 3,
                "ytick.major.pad": 4,
                "ytick.minor.pad": 4,
                "xtick.color": GRID,
                "ytick.color": GRID,
                "xtick.labelcolor": MUTED,
                "ytick.labelcolor": MUTED,
                "axes.edgecolor": GRID,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "axes.grid": True,
                "axes.axisbelow": True,
                "grid.color": GRID,
                "grid.linewidth": 0.7,
                "axes.facecolor": "none",
                "figure.facecolor": "none",
                "savefig.facecolor": "none",
            }
        )
        yield


def _drawn(plot: Plot, draw: Callable[["Axes"], None], *, height: float) -> Html:
    with _style():
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.add_subplot())
        return _inline(figure, plot)


def _inline(figure: "Figure", plot: Plot) -> Html:
    written = io.StringIO()
    figure.savefig(written, format="svg", metadata={"Date": None, "Creator": None})
    ET.register_namespace("", _SVG)
    root = ET.fromstring(written.getvalue())  # noqa: S314  # matplotlib's own
    _lighten(root)
    _rename(root, plot.name)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("role", "img")
    root.set("aria-labelledby", f"{plot.name}-title {plot.name}-desc")
    for place, (tag, text) in enumerate((("title", plot.title), ("desc", plot.summary))):
        child = ET.Element(f"{{{_SVG}}}{tag}", {"id": f"{plot.name}-{tag}"})
        child.text = text
        root.insert(place, child)
    text = ET.tostring(root, encoding="unicode")
    for stand_in, variable in _VARIABLES.items():
        text = text.replace(stand_in, f"var({variable})")
    # The family is the page's.
    text = re.sub(r" font-family: [^;\"]+;", "", text)
    return Html(re.sub(r"\s*\n\s*", "", text))


def _lighten(root: "ET.Element") -> None:
    """Take away what says nothing: metadata, and a style for all elements of the page."""
    for parent in list(root.iter()):
        for child in list(parent):
            tag = child.tag.removeprefix(f"{{{_SVG}}}")
            is_style = tag == "defs" and any(one.tag.endswith("}style") for one in child)
            if tag == "metadata" or is_style:
                parent.remove(child)


def _rename(root: "ET.Element", prefix: str) -> None:
    """Have the ids that something refers to be the page's only ones, and drop the others."""
    text = ET.tostring(root, encoding="unicode")
    used = set(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", text))
    numbers = {name: f"{prefix}-{number}" for number, name in enumerate(sorted(used), 1)}
    for node in root.iter():
        name = node.attrib.pop("id", None)
        if name in numbers:
            node.set("id", numbers[name])
        for key, value in list(node.attrib.items()):
            changed = re.sub(r"url\(#([^)]+)\)", lambda found: f"url(#{numbers[found[1]]})", value)
            if key == _XLINK:
                del node.attrib[key]
                key, changed = "href", f"#{numbers[value.removeprefix('#')]}"
            node.set(key, changed)


def swatch(series: int) -> Html:
    """Return a patch of a series' colour, for a table beside a plot."""
    return Html(f'<span class="swatch" style="background: var(--series-{escape(str(series + 1))})">'
                "</span>")  # fmt: skip
