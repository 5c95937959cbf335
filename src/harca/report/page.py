"""The page: head, verdicts, contents, sections. It needs no network and runs no script."""

from collections.abc import Sequence
from importlib import resources

import harca
from harca.redact import redacted
from harca.report import data_sections, room_sections, soak_section, speed_sections
from harca.report.collect import Report
from harca.report.criteria import MET, NOT_MEASURED, NOT_MET, Criterion
from harca.report.data_sections import mark
from harca.report.markup import Html, element, foreign, joined
from harca.report.parts import Section, code, moment

# Told apart from whatever else a file of that name might be.
GENERATOR = "harca report"

# No script, nothing from elsewhere; whatever a text in it may try.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_MARKS = {MET: "good", NOT_MET: "bad"}


def page(report: Report) -> str:
    """Return the whole page."""
    sections = [
        data_sections.inventory(report),
        data_sections.throughput(report),
        data_sections.verification(report),
        speed_sections.search(report),
        speed_sections.recall(report),
        speed_sections.scale(report),
        soak_section.soak(report),
        room_sections.sizes(report),
        room_sections.room(report),
        data_sections.rejections(report),
        data_sections.history(report),
    ]
    body = element(
        "body",
        element("a", "Skip to the content", href="#content", class_="skip"),
        _header(report),
        element(
            "main",
            _summary(report.criteria),
            _unreadable(report),
            _contents(sections),
            [_section(one) for one in sections],
            id="content",
            tabindex=-1,
        ),
        element(
            "footer",
            element(
                "p",
                f"Written by harca {harca.__version__}. Nothing in this page comes from, or goes "
                "to, anywhere else.",
            ),
        ),
    )
    return f"<!doctype html>\n{element('html', _head(), body, lang='en')}\n"


def _head() -> Html:
    style = resources.files("harca.report").joinpath("report.css").read_text("utf-8")
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="generator", content=GENERATOR),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", "harca report: from file store to PostgreSQL"),
        element("style", Html(style)),
    )


def _header(report: Report) -> Html:
    return element(
        "header",
        element("p", "harca report", class_="kicker"),
        element("h1", "From file store to PostgreSQL"),
        element(
            "p",
            foreign(redacted(report.status.database), most=200),
            ", ",
            moment(report.taken_at),
            class_="about",
        ),
    )


def _summary(criteria: Sequence[Criterion]) -> Html:
    return element(
        "section",
        element("h2", "Summary", id="summary"),
        element(
            "p",
            f"Of the plan's {len(criteria)} criteria "
            + ", ".join(
                f"{count} {'is' if count == 1 else 'are'} {outcome}"
                for outcome in (MET, NOT_MET, NOT_MEASURED)
                if (count := sum(one.outcome == outcome for one in criteria))
            )
            + ".",
        ),
        element("ul", [_criterion(one) for one in criteria], class_="criteria"),
        aria_labelledby="summary",
    )


def _criterion(one: Criterion) -> Html:
    kind = _MARKS.get(one.outcome, "open")
    return element(
        "li",
        element("h3", one.name),
        mark(kind, one.outcome),
        element("p", one.figure, class_="figure") if one.figure else None,
        element("p", one.detail),
        element("p", "By ", code(one.command), class_="by"),
        class_=kind,
    )


def _unreadable(report: Report) -> Html | None:
    if not report.unreadable:
        return None
    return element(
        "p",
        "Measurements that are in no form that this version reads, and are left out: ",
        ", ".join(report.unreadable[:10]),
        ".",
        class_="missing",
    )


def _contents(sections: Sequence[Section]) -> Html:
    return element(
        "nav",
        element("h2", "Contents", id="contents"),
        element(
            "ol",
            [element("li", element("a", one.title, href=f"#{one.name}")) for one in sections],
        ),
        aria_labelledby="contents",
    )


def _section(one: Section) -> Html:
    return element(
        "section",
        element("h2", one.title, id=one.name),
        joined([one.body]),
        aria_labelledby=one.name,
    )
