"""Intervals hold the truth as often as they say, and are no wider than they need to be."""

import math
from collections.abc import Iterable
from functools import cache
from itertools import chain

import pytest
from scipy.stats import binom

from optstudy.results import estimate
from tests import coverage
from tests.coverage import QUANTITIES, SEEDS, SETTINGS, TRUTHS, Count

LEAST = 0.93
BIAS = 0.01
WIDEST = {
    ("best loss", 3): 0.080, ("best loss", 6): 0.040, ("best loss", 12): 0.030,
    ("difference, near", 3): 0.035, ("difference, near", 6): 0.025, ("difference, near", 12): 0.020,
    ("difference, far", 3): 0.085, ("difference, far", 6): 0.055, ("difference, far", 12): 0.040,
    ("sensitivity", 3): 0.030, ("sensitivity", 6): 0.020, ("sensitivity", 12): 0.015,
}  # fmt: skip
"""Median half-widths, nats: so that nobody buys coverage with width."""


def pooled(counts: Iterable[dict[str, Count]]) -> dict[str, Count]:
    some = list(counts)

    def joined(name: str, part: str) -> list:
        return list(chain.from_iterable(getattr(count[name], part) for count in some))

    return {
        name: Count(*(joined(name, part) for part in ("held", "widths", "errors"))) for name in QUANTITIES
    }


@cache
def simulated(truth: str, seeds: int) -> dict[str, Count]:
    return pooled(coverage.simulate(TRUTHS[truth], settings, seeds, trials=30)[0] for settings in SETTINGS)


def held_too_seldom(count: Count) -> bool:
    """Whether fewer hold the truth than chance explains if :data:`LEAST` did."""
    return bool(binom.cdf(sum(count.held), len(count.held), LEAST) < 0.025)


@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("truth", TRUTHS)
def test_intervals_hold_the_truth_as_often_as_they_say(truth: str, seeds: int) -> None:
    counts = simulated(truth, seeds)
    for name, count in counts.items():
        assert not held_too_seldom(count), (name, count.coverage)
        assert count.width <= WIDEST.get((name, seeds), math.inf), (name, count.width)
    assert abs(counts["best loss"].bias) <= BIAS


def test_over_all_truths_and_numbers_of_seeds_they_hold_it_often_enough() -> None:
    for name, count in pooled(simulated(truth, seeds) for truth in TRUTHS for seeds in SEEDS).items():
        assert count.coverage >= LEAST, (name, count.coverage)


def test_intervals_hold_where_the_sweep_was_refined_beside_its_best() -> None:
    """Three seeds beside the best, one elsewhere: how the paper's studies run."""
    counts = pooled(coverage.simulate(make, 9, 3, trials=100, refined=True)[0] for make in TRUTHS.values())
    for name, count in counts.items():
        assert count.coverage >= LEAST, (name, count.coverage)


def test_the_simulation_finds_intervals_that_are_too_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three seeds are three, however many settings they ran at."""
    monkeypatch.setattr(estimate, "student_t", lambda degrees, level=0.95: 2.0)
    counts, _ = coverage.simulate(TRUTHS["quadratic"], 7, 3, trials=100)
    assert held_too_seldom(counts["best loss"])


@pytest.mark.long
@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("truth", TRUTHS)
def test_intervals_hold_at_every_number_of_settings_and_seeds(truth: str, settings: int) -> None:
    for seeds in SEEDS:
        counts, _ = coverage.simulate(TRUTHS[truth], settings, seeds, trials=2000)
        for name, count in counts.items():
            assert count.coverage >= LEAST, (name, seeds, count.coverage)
        assert abs(counts["best loss"].bias) <= BIAS
