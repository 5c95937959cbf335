"""How much an index is asked for, and when it is not asked at all."""

import pytest

from harca.model import Space
from harca.postgres.space_index import Capabilities, SpaceIndex
from harca.postgres.space_plan import SpacePlan
from harca.postgres.space_settings import Effort

SPACE = Space("m", 1536, 0)


def plan(
    method="hnsw", kind="vector", rows=10_000, version=(0, 8, 5), parameters=None, **effort
) -> SpacePlan:
    index = SpaceIndex("i", SPACE, method, kind, parameters or {})
    return SpacePlan(SPACE, index, rows, Effort(**effort), Capabilities(version))


@pytest.mark.parametrize(
    ("rows", "ef_search"),
    [(1_000, "40"), (10_000, "40"), (100_000, "126"), (1_000_000, "200"), (0, "40")],
)
def test_a_larger_graph_is_searched_with_more_effort(rows, ef_search):
    session = plan(rows=rows).session(20, iterative=False)

    assert session is not None
    assert session["hnsw.ef_search"] == ef_search


def test_a_measured_effort_is_taken_as_it_is():
    session = plan(rows=1_000_000, ef_search=25).session(20, iterative=False)

    assert session is not None
    assert session["hnsw.ef_search"] == "25"


def test_the_effort_is_never_below_the_number_of_candidates():
    session = plan(ef_search=25).session(90, iterative=False)

    assert session is not None
    assert session["hnsw.ef_search"] == "90"


@pytest.mark.parametrize(
    ("made", "wanted", "candidates"),
    [
        (plan(), 10, 20),
        (plan(ef_search=15), 10, 15),
        (plan(ef_search=15), 40, 40),
        (plan(candidates=70), 10, 70),
        (plan(kind="bit"), 10, 100),
        (plan(kind="bit"), 50, 500),
        (plan(kind="bit", candidates=30), 10, 30),
        (plan(kind="bit", candidates=30, k=10), 100, 300),
        (plan(kind="bit", candidates=30, k=100), 10, 30),
    ],
)
def test_of_signs_more_is_taken_than_of_what_tells_the_distance(made, wanted, candidates):
    assert made.candidates(wanted) == candidates


def test_more_than_a_graph_search_keeps_takes_a_scan_that_goes_on():
    assert plan().session(1_001, iterative=False) is None
    further = plan().session(1_001, iterative=True)
    assert further is not None
    assert further["hnsw.iterative_scan"] == "relaxed_order"


def test_a_pgvector_without_scans_that_go_on_has_none():
    assert plan(version=(0, 7, 4)).session(20, iterative=True) is None
    session = plan(version=(0, 7, 4)).session(20, iterative=False)
    assert session is not None
    assert not [name for name in session if "iterative" in name]


@pytest.mark.parametrize(
    ("matching", "exactly"), [(0, True), (100, True), (2_000, True), (2_100, False)]
)
def test_few_matching_rows_are_compared_one_by_one(matching, exactly):
    assert plan(rows=100_000).is_quicker_exactly(matching, 20) is exactly
