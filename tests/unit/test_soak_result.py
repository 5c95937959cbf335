"""Which soaks are called steady, and why others are not."""

import random
from typing import Any

import pytest

from harca.open_loop import Done
from harca.soak_result import Limits, Measured, Sample, as_dict, judge

SECONDS, WINDOW_S = 60.0, 1.0


def measured(*, latency_s=lambda at: 0.002, sample=lambda at: Sample(), error=lambda at: None):
    """Return a soak of 100 requests per second, as a fake client has measured it."""
    chance, found = random.Random(5), Measured(WINDOW_S)
    for number in range(int(SECONDS * 100)):
        at = number / 100
        kind = "insert" if number % 10 == 0 else "search"
        took = latency_s(at) * chance.uniform(0.8, 1.2)
        code = error(at)
        found.add(at, took, Done(kind, code, lost=code == "57P01"))
    for window in found.windows:
        window.sample = sample(window.at_s)
    return found


def grown(at: float) -> float:
    """Return a factor that doubles over the soak."""
    return 1 + at / SECONDS


def table(at: float, *, rows: int = 10_000, factor: float = 1.0) -> Sample:
    return Sample(
        client_bytes=100_000_000,
        server_bytes=20_000_000,
        live_rows=rows,
        dead_rows=100,
        table_bytes=int(80_000_000 * factor),
        index_bytes=int(20_000_000 * factor),
    )


def test_what_stays_as_it_is_is_steady():
    assert judge(measured(sample=table), Limits()) == ("steady", [])


def test_a_table_that_grows_with_its_rows_is_steady():
    found = measured(sample=lambda at: table(at, rows=int(10_000 * grown(at)), factor=grown(at)))

    assert judge(found, Limits())[0] == "steady"


DRIFTS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "latency": (
        {"latency_s": lambda at: 0.002 * grown(at)},
        ["p50 of reads", "p95 of reads", "p50 of writes", "p95 of writes"],
    ),
    "a leak in the client": (
        {"sample": lambda at: Sample(client_bytes=int(100_000_000 * grown(at)))},
        ["memory of the client"],
    ),
    "a leak in the server": (
        {"sample": lambda at: Sample(server_bytes=int(20_000_000 * grown(at)))},
        ["memory of a server process"],
    ),
    "bloat": (
        {"sample": lambda at: table(at, factor=grown(at))},
        ["table and indexes per live row"],
    ),
}


@pytest.mark.parametrize("planted", DRIFTS)
def test_a_drift_that_was_planted_is_found_and_named(planted):
    series, names = DRIFTS[planted]

    verdict, reasons = judge(measured(**series), Limits())

    assert verdict == "drifting"
    assert [reason.split(" grew by ")[0] for reason in reasons] == names


@pytest.mark.parametrize("planted", DRIFTS)
def test_a_limit_that_allows_it_makes_it_steady(planted):
    series, _ = DRIFTS[planted]

    assert judge(measured(**series), Limits(0, 2, 2, 2))[0] == "steady"


def test_growth_too_small_to_matter_is_steady():
    found = measured(
        latency_s=lambda at: 0.0002 * grown(at),
        sample=lambda at: Sample(
            client_bytes=int(1_000_000 * grown(at)),
            live_rows=100,
            table_bytes=int(1_000_000 * grown(at)),
            index_bytes=0,
        ),
    )

    assert judge(found, Limits()) == ("steady", [])


def test_the_first_moments_are_no_drift():
    found = measured(sample=lambda at: Sample(client_bytes=10_000_000 if at < 5 else 200_000_000))

    assert judge(found, Limits())[0] == "steady"


def test_failed_requests_are_told_by_code_whatever_else_is_steady():
    found = measured(error=lambda at: "57P01" if 30 <= at < 30.1 else "40001" if at == 7 else None)

    verdict, [reason] = judge(found, Limits())

    assert verdict == "failing"
    assert reason == ("0.18% of the requests failed (57P01: 10, 40001: 1), at most 0.10% may")
    assert judge(found, Limits(errors=0.01))[0] == "steady"
    assert found.losses == 10


def test_requests_that_nobody_had_time_for_have_failed():
    found = measured()
    found.unserved = 600

    verdict, [reason] = judge(found, Limits())

    assert verdict == "failing"
    assert "due and not begun: 600" in reason
    assert found.error_share == pytest.approx(600 / 6600)


def test_a_server_that_does_not_come_back_is_failing_whatever_may_fail():
    found = measured(error=lambda at: "no-connection" if at >= 57 else None)

    verdict, reasons = judge(found, Limits(errors=1.0))

    assert (verdict, reasons) == ("failing", ["nothing was answered at the end"])


def test_a_soak_without_requests_is_not_steady():
    assert judge(Measured(1), Limits()) == ("failing", ["no request was made"])


def test_a_request_counts_where_it_was_due():
    found = Measured(1)
    found.add(2.5, 6.0, Done("search"))

    assert [window.reads.count for window in found.windows] == [0, 0, 1]
    assert found.windows[2].reads.longest_s == 6.0


def test_too_short_a_soak_is_not_judged_by_its_trends():
    found = Measured(0.25)
    for number in range(8):
        found.add(number * 0.25, 0.001 * 4**number, Done("search"))

    assert set(found.drifts().values()) == {None}
    assert judge(found, Limits())[0] == "steady"


def test_few_requests_in_a_window_are_looked_at_several_windows_at_a_time():
    found = Measured(10)
    for number in range(1200):
        found.add(number / 2, 0.001, Done("search"))

    drift = found.drifts()["reads_p95_ms"]

    assert drift is not None
    assert drift.points == 53  # 20 requests in each window, but for the warm-up and the end
    rare = found.drifts()["reads_p99_ms"]
    assert rare is not None
    assert rare.points == 10


def test_the_result_has_what_its_docstring_says():
    result = as_dict(measured(sample=table), Limits(), {}, interrupted=False)

    documented = as_dict.__doc__ or ""
    assert not {name for name in result if f"``{name}``" not in documented}
    assert result["kinds"]["insert"]["answered"] == 600
    assert result["reads"]["answered"] == 5400
    assert set(result["windows"][0]) >= {"at_s", "dead_rows", "reads", "errors"}
