"""Which of the measured points is taken, and what is said of it."""

import pytest

from harca.advise import Candidate, Goal, Point, candidates, choose, disk_bytes

EXACT = Point("exact", None, {}, {}, 1.0, 20.0, 30.0)


def hnsw(recall, p50_ms, *, kind="halfvec", m=16, ef_search=40, size=1_000_000):
    return Point(
        "hnsw", kind, {"m": m}, {"ef_search": ef_search}, recall, p50_ms, 2 * p50_ms, 3.0, size
    )


def test_the_fastest_that_reaches_the_recall_is_taken():
    curve = [EXACT, hnsw(0.95, 0.5), hnsw(0.985, 1.0, ef_search=100), hnsw(0.999, 2.0)]

    choice = choose(curve, Goal(0.98))

    assert choice.point is curve[2]
    assert choice.reached
    assert choice.why == (
        "hnsw halfvec m 16 at ef_search 100 (recall 0.985, p50 1.00 ms) is the fastest of what "
        "reaches recall 0.98. An exact search takes 20 ms, 20 times as long. The best that is "
        "faster misses it: hnsw halfvec m 16 at ef_search 40 (recall 0.950, p50 0.50 ms)."
    )


def test_within_the_noise_the_smaller_index_is_taken():
    small, large = hnsw(0.99, 1.05, size=5_000_000), hnsw(0.99, 1.0, m=32, size=9_000_000)

    choice = choose([EXACT, small, large], Goal(0.98))

    assert choice.point is small
    assert (
        "The fastest is hnsw halfvec m 32 at ef_search 40 (recall 0.990, p50 1.00 ms); its index "
        "is 9.0 MB." in choice.why
    )


def test_of_one_index_the_effort_that_finds_more_is_taken_within_the_noise():
    curve = [EXACT, hnsw(0.981, 1.0), hnsw(0.995, 1.05, ef_search=64)]

    assert choose(curve, Goal(0.98)).point is curve[2]


def test_beyond_the_noise_the_larger_index_is_taken():
    small, large = hnsw(0.99, 1.2, size=5), hnsw(0.99, 1.0, m=32, size=9)

    assert choose([EXACT, small, large], Goal(0.98)).point is large


def test_an_exact_search_is_taken_where_it_is_about_as_fast():
    exact = Point("exact", None, {}, {}, 1.0, 1.2, 2.0)

    choice = choose([exact, hnsw(1.0, 1.0)], Goal(0.98))

    assert choice.point is exact
    assert choice.why == (
        "exact (recall 1.000, p50 1.20 ms) is about as fast as the fastest of what reaches recall "
        "0.98. It finds everything, needs no build and no disk, and does not slow writes down; "
        "its time grows with the rows, so measure again when they are many more. The fastest is "
        "hnsw halfvec m 16 at ef_search 40 (recall 1.000, p50 1.00 ms)."
    )


def test_where_no_index_reaches_the_recall_it_says_by_how_much():
    choice = choose([EXACT, hnsw(0.9, 1.0), hnsw(0.9679, 3.0, ef_search=400)], Goal(0.98))

    assert choice.point is EXACT
    assert choice.why.endswith(
        "No index reaches it: the best is hnsw halfvec m 16 at ef_search 400 (recall 0.967, "
        "p50 3.00 ms), 0.012 short; --recall 0.967 would take it."
    )


def test_within_a_latency_it_is_the_one_that_finds_most():
    curve = [EXACT, hnsw(0.95, 0.5), hnsw(0.985, 1.9, ef_search=100), hnsw(0.999, 2.1)]

    choice = choose(curve, Goal(latency_ms=2))

    assert choice.point is curve[2]
    assert choice.why == (
        "hnsw halfvec m 16 at ef_search 100 (recall 0.985, p50 1.90 ms) finds most of what is "
        "within 2.00 ms. An exact search takes 20 ms, 10.5 times as long. To find more takes "
        "longer: hnsw halfvec m 16 at ef_search 40 (recall 0.999, p50 2.10 ms)."
    )


def test_within_a_latency_that_it_keeps_an_exact_search_is_taken():
    assert choose([EXACT, hnsw(0.999, 1.0)], Goal(latency_ms=25)).point is EXACT


def test_where_nothing_is_within_the_latency_the_fastest_is_told_and_not_reached():
    fastest = hnsw(0.95, 0.52)

    choice = choose([EXACT, fastest, hnsw(0.985, 1.0)], Goal(latency_ms=0.3))

    assert not choice.reached
    assert choice.point is fastest
    assert choice.why == (
        "Nothing is within 0.30 ms: the fastest is hnsw halfvec m 16 at ef_search 40 (recall "
        "0.950, p50 0.52 ms), 0.22 ms too slow. It would be reached by --latency-ms 0.6, by fewer "
        "or shorter embeddings, or on a faster server."
    )


def test_of_a_sample_half_the_misses_are_asked_for():
    curve = [EXACT, hnsw(0.982, 1.0), hnsw(0.992, 1.5, ef_search=100)]

    whole, sample = choose(curve, Goal(0.98)), choose(curve, Goal(0.98), growth=10)

    assert whole.point is curve[1]
    assert sample.point is curve[2]
    assert (
        "reaches recall 0.99. That is more than 0.98: the figures are of a sample, and among 10 "
        "times the rows an index finds less. An exact search takes 200 ms" in sample.why
    )


def test_of_a_sample_the_goal_itself_is_enough_where_no_index_has_half_the_misses():
    curve = [EXACT, hnsw(0.982, 1.0)]

    assert choose(curve, Goal(0.98), growth=10).point is curve[1]


def test_an_exact_search_of_a_sample_is_not_as_fast_as_one_of_all_rows():
    exact = Point("exact", None, {}, {}, 1.0, 1.0, 2.0)
    curve = [exact, hnsw(1.0, 1.0)]

    assert choose(curve, Goal(0.98)).point is exact
    assert choose(curve, Goal(0.98), growth=3).point is curve[1]


def test_what_can_be_is_tried_the_exact_search_first():
    tried, left_out = candidates(
        10, lists={"vector": 50, "bit": 100}, cannot=lambda method, kind: None
    )

    assert [str(one) for one in tried] == [
        "exact",
        "ivfflat vector lists 50",
        "ivfflat bit lists 100",
        "hnsw vector m 16",
        "hnsw vector m 32",
        "hnsw halfvec m 16",
        "hnsw halfvec m 32",
        "hnsw bit m 16",
        "hnsw bit m 32",
    ]
    assert left_out == []
    assert [effort["probes"] for effort in tried[1].efforts] == [
        1,
        2,
        3,
        4,
        5,
        6,
        8,
        12,
        16,
        32,
        50,
    ]
    assert tried[2].efforts[:4] == (
        {"probes": 1, "candidates": 30},
        {"probes": 1, "candidates": 35},
        {"probes": 2, "candidates": 30},
        {"probes": 1, "candidates": 40},
    )


def test_what_cannot_be_is_left_out_with_the_reason():
    tried, left_out = candidates(
        10,
        lists={"vector": 1, "bit": 1},
        cannot=lambda method, kind: "too large" if kind == "vector" else None,
    )

    assert [str(one) for one in tried][1:] == [
        "hnsw halfvec m 16", "hnsw halfvec m 32", "hnsw bit m 16", "hnsw bit m 32",
    ]  # fmt: skip
    assert left_out == [
        "ivfflat vector: too large",
        "ivfflat bit: it has but one list for so few rows",
        "hnsw vector: too large",
    ]


def test_ivfflat_with_a_single_list_is_left_out():
    _, left_out = candidates(10, lists={"vector": 1, "bit": 1}, cannot=lambda method, kind: None)

    assert left_out == [
        f"ivfflat {kind}: it has but one list for so few rows" for kind in ("vector", "bit")
    ]


@pytest.mark.parametrize("k", [1, 10, 100, 1000])
def test_no_effort_is_below_k_or_above_what_pgvector_takes(k):
    tried, _ = candidates(k, lists={"vector": 4, "bit": 8}, cannot=lambda method, kind: None)

    efforts = [number for one in tried[3:] for effort in one.efforts for number in effort.values()]
    efforts += [effort["candidates"] for effort in tried[2].efforts]
    assert k <= min(efforts) <= max(efforts) <= 1000


def test_the_disk_that_is_needed_grows_with_what_is_tried():
    def needed(*tried):
        return disk_bytes(10_000, 1536, 7_000, tried)

    assert needed(Candidate("exact")) == 10_000 * 8_192
    with_index = needed(Candidate("exact"), Candidate("hnsw", "bit", {"m": 16}))
    assert 10_000 * 192 < with_index - 10_000 * 8_192 < 10_000 * 600
