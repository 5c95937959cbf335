"""Reciprocal rank fusion."""

import pytest

from harca.fusion import fuse


def test_a_score_is_the_sum_of_reciprocal_ranks():
    ids, scores = zip(*fuse([[7, 8], [8]]), strict=True)

    assert ids == (8, 7)
    assert scores == pytest.approx((1 / 62 + 1 / 61, 1 / 61))


def test_what_is_in_both_comes_before_what_is_first_in_one():
    assert [id_ for id_, _ in fuse([[1, 2], [3, 2]])] == [2, 1, 3]


@pytest.mark.parametrize("rankings", [[[5, 2], [2, 5]], [[2, 5], [5, 2]]], ids=["one", "other"])
def test_equal_scores_come_in_the_order_of_ids(rankings):
    assert [id_ for id_, _ in fuse(rankings)] == [2, 5]


def test_nothing_fused_is_nothing():
    assert fuse([[], []]) == []
