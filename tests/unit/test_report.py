"""What the report says of what was measured, and how it keeps strange texts harmless."""

from datetime import UTC, datetime
from typing import Any

import pytest

from harca.postgres.measurements import Measurement
from harca.postgres.overview import RunLine
from harca.report import criteria, figures, measured, plots
from harca.report.cost import Prices, rooms
from harca.report.criteria import MET, NOT_MEASURED, NOT_MET
from harca.report.markup import Html, element, foreign
from tests import measured as results
from tests.page import parsed

AT = datetime(2026, 11, 28, 12, tzinfo=UTC)


def kept(kind: str, result: dict[str, Any], number: int = 1) -> Measurement:
    return Measurement(number, kind, AT, "0.1.0", "PostgreSQL 18.4, pgvector 0.8.5", result)


def run(**fields: Any) -> RunLine:
    values: dict[str, Any] = {
        "run_id": 1, "store": "s", "format": "harca", "revision": None, "status": "verified",
        "attempt": 1, "read": 10, "loaded": 10, "unchanged": 0, "superseded": 0, "rejected": 0,
        "started_at": AT, "finished_at": AT, "rolled_back_at": None, "fingerprint": "10:ab",
        "seconds": 1.0, "verified": None, "files": 10, "bytes": 1_000_000_000, "max_rejects": 0,
    }  # fmt: skip
    return RunLine(**{**values, **fields})


@pytest.mark.parametrize(
    ("runs", "outcome", "detail"),
    [
        ([], NOT_MEASURED, "No store was loaded."),
        ([run()], MET, "10 records read, every vector, text and metadata compared."),
        ([run(), run(status="different")], NOT_MET, "1 store and rows differ."),
        ([run(status="loaded")], NOT_MEASURED, "1 store not verified yet."),
        ([run(status="loading")], NOT_MEASURED, "1 store not verified yet."),
        ([run(loaded=8, rejected=2)], NOT_MET, "2 records of 1 store were rejected."),
        (
            [run(loaded=8, rejected=2, max_rejects=2)],
            MET,
            "10 records read, every vector, text and metadata compared. 2 rejections accepted by "
            "the operator.",
        ),
    ],
    ids=["nothing", "equal", "different", "unverified", "loading", "rejected", "accepted"],
)
def test_equality_is_judged_by_every_store(runs, outcome, detail):
    found = criteria.equal(runs)

    assert (found.outcome, found.detail) == (outcome, detail)


@pytest.mark.parametrize(
    ("p50_ms", "outcome", "figure"),
    [
        ({"numpy": 1.0, "harca": 0.5}, MET, "2.0 times as fast"),
        ({"numpy": 1.0, "harca": 0.8}, MET, "20 % faster"),
        ({"numpy": 1.0, "harca": 0.81}, NOT_MET, "19 % faster"),
        ({"numpy": 1.0, "harca": 2.0}, NOT_MET, "2.00 times as slow"),
        ({"files": 900.0, "numpy": 1.0, "harca": 2.0}, NOT_MET, "2.00 times as slow"),
        ({"files": 900.0, "harca": 2.0}, MET, "450.0 times as fast"),
        ({"sql": 1.0, "harca": 2.0}, NOT_MEASURED, ""),
    ],
)
def test_search_is_compared_with_the_fastest_that_the_file_store_has(p50_ms, outcome, figure):
    parity = measured.parity(kept(measured.SEARCH, results.search(**p50_ms)))

    found = criteria.faster([parity])

    assert (found.outcome, found.figure) == (outcome, figure)


@pytest.mark.parametrize(
    ("result", "outcome", "figure"),
    [
        (results.soak(), MET, "steady, 24.0 h"),
        (results.soak(60), NOT_MEASURED, "steady, 60 min"),
        (results.soak(interrupted=True), NOT_MEASURED, "steady, 24.0 h"),
        (results.soak(30, "drifting"), NOT_MET, "drifting, 30 min"),
    ],
    ids=["a day", "an hour", "interrupted", "drifting"],
)
def test_only_a_steady_day_is_stable_for_a_day(result, outcome, figure):
    found = criteria.stable([measured.soak(kept(measured.SOAK, result))])

    assert (found.outcome, found.figure) == (outcome, figure)


@pytest.mark.parametrize(
    ("sizes", "outcome", "figure"),
    [
        ([results.scale(1.1)], MET, "10 % more"),
        ([results.scale(0.97)], MET, "3.0 % less"),
        ([results.scale(1.05), results.scale(1.2, rows=10_000)], NOT_MET, "20 % more"),
        ([results.scale(1.01, recall=0.91)], NOT_MET, "1.0 % more"),
    ],
    ids=["at the limit", "less", "the worst size", "recall missed"],
)
def test_growth_is_judged_at_the_worst_size_and_with_its_recall(sizes, outcome, figure):
    found = criteria.scaling([measured.scale(kept(measured.SCALE, one)) for one in sizes])

    assert (found.outcome, found.figure) == (outcome, figure)


def test_the_newest_result_of_each_subject_counts():
    parities = [
        measured.parity(kept(measured.SEARCH, results.search(numpy=2.0, harca=1.0), 2)),
        measured.parity(kept(measured.SEARCH, results.search(numpy=2.0, harca=9.0), 1)),
    ]

    (latest,) = measured.latest_of_each(parities)

    assert latest.taken.number == 2


def test_what_is_recommended_is_marked_among_what_was_measured():
    curve = measured.curve(kept(measured.ADVISE, results.advise()))

    (chosen,) = [point for point in curve.points if point.is_chosen]
    assert (chosen.way, chosen.effort) == ("hnsw halfvec m 32", "ef_search 100")


def test_a_long_soak_is_thinned_to_its_worst_windows():
    result = results.soak(windows=8_640)
    result["windows"][100]["reads"]["p95_ms"] = 77.0

    soak = measured.soak(kept(measured.SOAK, result))

    assert len(soak.windows) == measured.MOST_WINDOWS
    assert max(window.reads_p95_ms or 0 for window in soak.windows) == 77.0
    assert sum(window.errors for window in soak.windows) == 3


def test_without_a_price_there_is_no_money_and_with_one_it_is_bytes_times_price():
    spaces = [{"model_id": "m", "dims": 1_000, "records": 1_000_000, "index": "exact"}]
    tables: list[Any] = [type("Table", (), {"name": "t", "total_bytes": 3 * 10**9, "indexes": []})]

    free = rooms(spaces, [run()], tables, Prices())
    before, after, both = rooms(spaces, [run()], tables, Prices(disk=0.1, memory=2.0))

    assert [one.month for one in free] == [None, None, None]
    assert (before.disk_bytes, before.memory_bytes) == (10**9, 4 * 10**9)
    assert [before.month, after.month] == pytest.approx([8.1, 8.3])
    assert both.disk_bytes == 4 * 10**9


@pytest.mark.parametrize(
    "text", ["<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\"' onload=x & <b>"]
)
def test_a_text_is_a_text_wherever_it_stands(text):
    root = parsed(element("p", text, [text, foreign(text)], title=text))

    assert [node.tag for node in root.all()] == ["p", "bdi"]
    assert root.text == text * 3
    assert root.one("p").attributes == {"title": text}


def test_characters_that_turn_or_hide_are_shown_by_their_number():
    found = foreign("abc\u202egnp.exe\u0000\u200b\u2028 ばかり 👩\u200d💻")

    assert found == "<bdi>abc\\u202egnp.exe\\u0000\\u200b\\u2028 ばかり 👩\u200d💻</bdi>"


def test_a_long_text_is_cut_and_says_how_long_it_is():
    root = parsed(foreign("x" * 100_000, most=50))

    assert root.text == "x" * 49 + "…"
    assert root.one("bdi").attributes["title"] == "100,000 characters"


def test_a_plot_is_text_and_lines_in_the_page_s_colours_and_always_the_same():
    def draw() -> Html:
        return plots.lines(
            plots.Plot("p", "Title <b>", "What & how"),
            [plots.Series("a $x$", [(1, 2), (30, 4)], [0]), plots.Series("_b", [(1, 1), (3, 3)])],
            plots.Axis("x", log=True),
            plots.Axis("y"),
            goal=(3, "goal"),
        )

    found = draw()
    root = parsed(found)

    assert found == draw()
    svg = root.one("svg")
    assert svg.attributes["role"] == "img"
    assert svg.attributes["aria-labelledby"] == "p-title p-desc"
    assert (root.one("title").text, root.one("desc").text) == ("Title <b>", "What & how")
    assert {"a $x$", "_b", "goal", "x", "y"} <= {node.text for node in root.all("text")}
    assert "#0102" not in found
    assert "font-family" not in found


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (figures.share(0.99996), "0.999"),
        (figures.share(1.0), "1.000"),
        (figures.size(999), "999 bytes"),
        (figures.size(1_500_000_000_000), "1,500.0 GB"),
        (figures.percent(0.00001), "< 0.1 %"),
        (figures.percent(0), "0.0 %"),
        (figures.ms(0.4178), "0.42"),
        (figures.ms(None), "–"),
        (figures.money(0.001), "< 0.01"),
        (figures.duration(86_400), "24.0 h"),
    ],
)
def test_figures_are_never_better_than_they_are(shown, expected):
    assert shown == expected
