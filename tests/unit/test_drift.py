"""What counts as a drift, and what does not."""

import random

import numpy as np
import pytest

from harca.drift import FEWEST, drift, mann_kendall, theil_sen
from harca.histogram import Histogram


def series(count, *, growth=0.0, noise=0.0, base=100.0):
    chance = random.Random(7)
    return [
        base * (1 + growth * number / (count - 1) + chance.gauss(0, noise))
        for number in range(count)
    ]


def trend(times, values):
    found = drift(times, values)
    assert found is not None
    return found


def test_the_slope_is_the_median_slope_between_pairs():
    # Conover, Practical Nonparametric Statistics: the definition, by hand.
    times, values = np.array([0.0, 1.0, 2.0, 4.0]), np.array([1.0, 2.0, 4.0, 5.0])

    # 1, 1.5, 1, 2, 1, 0.5
    assert theil_sen(times, values) == pytest.approx(1.0)


def test_a_minority_of_outliers_does_not_move_the_slope():
    values = series(40, growth=0.5)
    for number in range(0, 40, 4):
        values[number] = 100_000.0

    assert trend(range(40), values).per_hour == pytest.approx(100 * 0.5 / 39 * 3600, rel=0.05)


def test_the_chance_of_a_rise_is_that_of_mann_and_kendall():
    # S = 45 of 45 pairs, variance 125: z = 44 / 11.18.
    assert mann_kendall(np.arange(10.0)) == pytest.approx(4.15e-5, rel=0.01)
    assert mann_kendall(np.arange(10.0)[::-1]) == 1.0
    assert mann_kendall(np.ones(10)) == 1.0


@pytest.mark.parametrize("noise", [0.0, 0.02, 0.1], ids=["no noise", "2 %", "10 %"])
def test_a_growth_beyond_the_limit_is_a_drift(noise):
    found = trend(range(60), series(60, growth=0.6, noise=noise))

    assert found.exceeds(0.25)
    assert found.growth == pytest.approx(0.6, abs=0.15)
    assert found.between_thirds > 0.25


@pytest.mark.parametrize(
    "values",
    [
        series(60),
        series(60, noise=0.3),
        series(60, growth=0.1, noise=0.02),
        series(60, growth=-0.6, noise=0.02),
        [100.0] * 55 + [900.0] * 5,
        [100.0, 900.0] * 30,
        [0.0] * 60,
    ],
    ids=["flat", "noisy", "small", "falling", "a slow end", "in turns", "nothing"],
)
def test_what_only_looks_like_it_is_none(values):
    assert not trend(range(len(values)), values).exceeds(0.25)


def test_a_growth_too_small_to_matter_is_none():
    found = trend(range(20), series(20, growth=1.0, base=0.1))

    assert found.exceeds(0.25)
    assert not found.exceeds(0.25, least=0.5)


def test_a_growth_from_nothing_is_a_drift():
    found = trend(range(30), [0.0] * 10 + [float(number) for number in range(20)])

    assert found.exceeds(0.25)


def test_what_was_not_measured_is_left_out():
    values = series(30, growth=0.6)
    values[3:9] = [None] * 6

    assert trend(range(30), values).points == 24
    assert trend(range(30), values).per_hour == pytest.approx(100 * 0.6 / 29 * 3600)


def test_a_few_values_are_not_judged():
    assert drift(range(FEWEST - 1), [1.0] * (FEWEST - 1)) is None
    assert drift(range(20), [None] * 20) is None


def test_quantiles_are_within_a_hundredth():
    chance, histogram = random.Random(3), Histogram()
    values = sorted(chance.lognormvariate(-6, 1) for _ in range(5000))
    for value in values:
        histogram.add(value)

    for share in (0.01, 0.5, 0.95, 0.99):
        exact = values[max(0, int(np.ceil(share * 5000)) - 1)]
        assert histogram.quantile(share) == pytest.approx(exact, rel=0.0101)
    assert histogram.quantile(1.0) == pytest.approx(values[-1], rel=0.0101)
    assert histogram.longest_s == values[-1]


def test_histograms_add_up():
    parts, whole, added = [Histogram(), Histogram()], Histogram(), Histogram()
    for number in range(100):
        parts[number % 2].add(0.001 * (number + 1))
        whole.add(0.001 * (number + 1))
    for part in parts:
        added.add_all(part)

    assert added.count == whole.count == 100
    assert [added.quantile(q) for q in (0.1, 0.5, 0.9)] == [
        whole.quantile(q) for q in (0.1, 0.5, 0.9)
    ]


def test_nothing_has_no_quantile_and_no_time_is_a_time():
    histogram = Histogram()
    assert histogram.quantile(0.5) is None

    histogram.add(0.0)

    assert histogram.quantile(0.5) == 0.0
