"""Which index a space deserves: by rows, dimensions, the server's pgvector, and its settings."""

import pytest

from harca.model import Space
from harca.postgres import index_choice
from harca.postgres.index_choice import EXACT_BELOW, MOST_INDEXES, Choice, index_for, within_cap
from harca.postgres.index_memory import workers_for
from harca.postgres.space_index import Capabilities, Made, SpaceIndex, index_name
from harca.postgres.space_settings import SpaceSettings

V04, V05, V06, V07, V084 = (
    Capabilities(version) for version in ((0, 4, 4), (0, 5, 1), (0, 6, 2), (0, 7, 4), (0, 8, 4))
)


def chosen(rows: int, dims: int, can: Capabilities, **settings) -> tuple[str, str] | str:
    choice = index_for(Space("m", dims, rows), can, SpaceSettings(**settings))
    return (choice.index.method, choice.index.type) if choice.index else choice.why


@pytest.mark.parametrize(
    ("rows", "dims", "can", "expected"),
    [
        (EXACT_BELOW - 1, 384, V084, "fewer than 1,000 rows"),
        (EXACT_BELOW, 384, V084, ("hnsw", "vector")),
        (EXACT_BELOW, 2000, V084, ("hnsw", "vector")),
        (EXACT_BELOW, 2001, V084, ("hnsw", "halfvec")),
        (EXACT_BELOW, 4000, V07, ("hnsw", "halfvec")),
        (EXACT_BELOW, 4001, V07, ("hnsw", "bit")),
        (EXACT_BELOW, 16_000, V084, ("hnsw", "bit")),
        (EXACT_BELOW, 2000, V05, ("hnsw", "vector")),
        (
            EXACT_BELOW, 2001, V06,
            "an index on vector takes 2,000 dimensions; pgvector 0.7 can index more in other forms",
        ),
        (4_000, 384, V04, ("ivfflat", "vector")),
        (
            3_999, 384, V04,
            "pgvector 0.4.4 has no HNSW, and of so few rows ivfflat would look through all",
        ),
        (
            4_000, 3072, V04,
            "an index on vector takes 2,000 dimensions; pgvector 0.7 can index more in other forms",
        ),
    ],
)  # fmt: skip
def test_a_space_gets_the_best_that_the_server_has_for_its_size(rows, dims, can, expected):
    assert chosen(rows, dims, can) == expected


@pytest.mark.parametrize(
    ("rows", "dims", "can", "settings", "expected"),
    [
        (50_000, 384, V084, {"method": "exact"}, "its settings say so"),
        (10, 384, V084, {"method": "hnsw"}, ("hnsw", "vector")),
        (50_000, 384, V084, {"method": "ivfflat"}, ("ivfflat", "vector")),
        (50_000, 384, V084, {"type": "halfvec"}, ("hnsw", "halfvec")),
        (50_000, 384, V084, {"method": "hnsw", "type": "bit"}, ("hnsw", "bit")),
        (
            50_000, 384, V06, {"method": "hnsw", "type": "bit"},
            "pgvector 0.6.2 has no hnsw index on bit, 0.7 has",
        ),
        (
            50_000, 384, V04, {"method": "hnsw"},
            "pgvector 0.4.4 has no hnsw index on vector, 0.5 has",
        ),
        (
            50_000, 3072, V084, {"method": "hnsw", "type": "vector"},
            "an index on vector takes 2,000 dimensions",
        ),
    ],
)  # fmt: skip
def test_settings_win_where_the_server_can(rows, dims, can, settings, expected):
    assert chosen(rows, dims, can, **settings) == expected


def test_parameters_of_another_method_are_left_out():
    settings = SpaceSettings(method="ivfflat", parameters={"m": 8, "lists": 5})

    choice = index_for(Space("m", 384, 10), V084, settings)

    assert choice.index is not None
    assert choice.index.parameters == {"lists": 5}


def choices(*rows: int, said: tuple[int, ...] = (), kept: tuple[int, ...] = ()) -> list[Choice]:
    return [
        Choice(
            (space := Space(str(number), 3, count)),
            SpaceIndex(index_name(space), space, "hnsw", "vector"),
            "rows",
            is_said=number in (*said, *kept),
            is_kept=number in kept,
        )
        for number, count in enumerate(rows)
    ]


def indexed(found: list[Choice]) -> list[str]:
    return [choice.space.model_id for choice in found if choice.index is not None]


def test_the_largest_spaces_have_the_indexes_that_there_may_be(monkeypatch):
    monkeypatch.setattr(index_choice, "MOST_INDEXES", 3)

    found = within_cap(choices(5, 9, 7, 8, 6), (), kept=1)

    assert indexed(found) == ["1", "3"]
    assert found[0].why == "the table has 3 partial indexes, of spaces with more rows"


def test_what_a_revision_and_then_what_settings_say_comes_first(monkeypatch):
    monkeypatch.setattr(index_choice, "MOST_INDEXES", 3)

    found = within_cap(choices(9, 8, 2, 1, 3, said=(2, 4), kept=(3,)), (), kept=0)

    assert indexed(found) == ["2", "3", "4"]


def test_two_spaces_of_about_the_same_size_do_not_take_the_index_from_each_other(monkeypatch):
    monkeypatch.setattr(index_choice, "MOST_INDEXES", 1)
    there = {index_name(Space("0", 3, 0))}

    assert indexed(within_cap(choices(10, 14), there, kept=0)) == ["0"]
    assert indexed(within_cap(choices(10, 16), there, kept=0)) == ["1"]


def test_as_many_indexes_as_there_may_be_are_kept_whole():
    assert len(indexed(within_cap(choices(*[5] * MOST_INDEXES), (), kept=0))) == MOST_INDEXES
    assert len(indexed(within_cap(choices(*[5] * (MOST_INDEXES + 1)), (), kept=0))) == MOST_INDEXES


@pytest.mark.parametrize(
    ("lists", "rows", "fits"),
    [(4, 4_000, True), (4, 7_999, True), (4, 8_000, False), (4, 2_000, False), (4, 3_000, True)],
)
def test_lists_are_outgrown_when_they_should_be_twice_or_half_as_many(lists, rows, fits):
    made = Made("i", "ivfflat", "vector", {"lists": lists}, True, 0, None)

    assert made.is_as(SpaceIndex("i", Space("m", 3, rows), "ivfflat", "vector")) is fits


def test_lists_that_somebody_has_said_are_not_outgrown():
    made = Made("i", "ivfflat", "vector", {"lists": 4}, True, 0, None)
    said = SpaceIndex("i", Space("m", 3, 900_000), "ivfflat", "vector", {"lists": 4})

    assert made.is_as(said)


def test_parameters_that_are_pgvector_s_own_need_not_be_said():
    made = Made("i", "hnsw", "vector", {}, True, 0, None)
    space = Space("m", 3, 10)

    assert made.is_as(SpaceIndex("i", space, "hnsw", "vector", {"m": 16}))
    assert not made.is_as(SpaceIndex("i", space, "hnsw", "vector", {"m": 17}))
    assert not made.is_as(SpaceIndex("i", space, "hnsw", "halfvec"))


@pytest.mark.parametrize(
    ("version", "told"),
    [
        ((0, 8, 1), 2),
        ((0, 8, 2), 1),
        ((0, 8, 3), 1),
        ((0, 8, 4), 0),
        ((0, 5, 1), 1),
        ((0, 4, 4), 1),
        ((), 0),
    ],
)
def test_versions_that_are_known_to_be_bad_are_warned_of(version, told):
    assert len(Capabilities(version).warnings) == told


def test_a_version_that_can_crash_in_a_parallel_build_builds_by_one_process():
    large = SpaceIndex("i", Space("m", 384, 1_000_000), "hnsw", "vector")

    assert workers_for(large, Capabilities((0, 8, 1))) == 0
    assert workers_for(large, Capabilities((0, 8, 2))) > 0
