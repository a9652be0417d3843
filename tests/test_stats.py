"""Statistics against published tables, formulas by hand and properties."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optstudy import curves, stats
from optstudy.curves import Curve
from optstudy.table import Row
from tests import sweeps

HALF_DECADES = [1e-4, 3.16e-4, 1e-3, 3.16e-3, 1e-2, 3.16e-2, 1e-1]


def of(rows: list[Row], x: str = "optimizer.lr") -> list[Curve]:
    log = True if x == "optimizer.lr" else None
    return curves.group(sweeps.placed(rows, {row.id: row.optimizer for row in rows}, x), log)


def curve(points: dict[float, Sequence[float | None]], name: str = "adam") -> Curve:
    rows = [
        sweeps.row(name, lr, loss, seed) for lr, losses in points.items() for seed, loss in enumerate(losses)
    ]
    return of(rows)[0]


def shaped(loss: Callable[[float], float], lrs: Sequence[float] = HALF_DECADES) -> Curve:
    return curve({lr: [loss(math.log10(lr))] for lr in lrs})


@pytest.mark.parametrize(
    ("df", "quantile"),
    [
        (1, 12.7062),
        (2, 4.3027),
        (3, 3.1824),
        (4, 2.7764),
        (5, 2.5706),
        (9, 2.2622),
        (30, 2.0423),
        (120, 1.9799),
    ],
)
def test_t_quantiles_are_those_of_the_printed_tables(df: int, quantile: float) -> None:
    assert stats.student_t(df) == pytest.approx(quantile, abs=5e-5)


def test_best_is_the_lowest_mean_over_seeds_not_the_luckiest_seed() -> None:
    found = curve({1e-3: [5.0, 6.0], 1e-2: [5.4, 5.4], 1e-1: [5.9, 5.9]})
    assert found.best.x == 1e-2
    assert stats.best_loss(found).value == pytest.approx(5.4)


def test_a_diverged_run_counts_as_the_loss_before_training_and_is_kept() -> None:
    found = curve({1e-3: [5.0], 1e-2: [None]})
    assert [point.loss for point in found.points] == [5.0, sweeps.INITIAL]
    assert stats.summarise([found])[0].diverged == 1


def test_a_loss_above_the_initial_one_counts_as_the_initial_one() -> None:
    assert curve({1e-3: [5.0], 1e-2: [11.0]}).points[1].loss == sweeps.INITIAL


def test_sensitivity_is_wortsmans_mean_over_the_grid_in_the_window() -> None:
    losses = [6.0, 5.6, 5.1, 5.0, 5.3, 5.9, None]
    found = curve({lr: [loss] for lr, loss in zip(HALF_DECADES, losses, strict=True)})
    by_hand = np.mean([5.6, 5.1, 5.0, 5.3, 5.9]) - 5.0
    assert stats.sensitivity(found, 1.0).value == pytest.approx(by_hand)  # type: ignore[union-attr]
    whole = np.mean([6.0, 5.6, 5.1, 5.0, 5.3, 5.9, sweeps.INITIAL]) - 5.0
    assert stats.sensitivity(found, 1.5).value == pytest.approx(whole)  # type: ignore[union-attr]


def test_sensitivity_is_not_given_where_the_grid_does_not_reach() -> None:
    found = shaped(lambda x: 5 + abs(x + 1.5))
    assert found.best.x == 3.16e-2
    assert stats.sensitivity(found, 1.0) is None
    assert stats.sensitivity(found, 0.5) is not None


def test_sensitivity_is_not_given_where_the_window_falls_between_the_points() -> None:
    found = curve({x: [5 + abs(math.log10(x) + 8) / 10] for x in (1e-15, 1e-12, 1e-8, 1e-5)})
    assert found.best.x == 1e-8
    assert stats.sensitivity(found, 1.0) is None
    assert stats.common_window([found]) == math.inf
    whole = stats.sensitivity(found, math.inf)
    assert whole is not None and whole.value == pytest.approx((0.7 + 0.4 + 0 + 0.3) / 4)
    assert (
        stats.sensitivity(curve({x: [5 + abs(math.log10(x) + 2)] for x in (1e-3, 1e-2, 1e-1)}), 1.0)
        is not None
    )


def test_a_single_setting_says_nothing_of_sensitivity() -> None:
    found = stats.summarise([curve({1e-3: [5.0]})])[0]
    assert (found.sensitivity, found.lower, found.higher, found.safe) == (None, None, None, None)


def test_common_window_is_the_widest_that_every_inner_optimum_covers() -> None:
    centred, near, edge = (shaped(lambda x, c=c: 5 + (x - c) ** 2) for c in (-2.5, -1.5, 0.0))
    assert stats.common_window([centred]) == 1.0
    assert stats.common_window([centred, near]) == 0.5
    assert stats.common_window([centred, edge]) == 1.0


@pytest.mark.parametrize(("best", "edge"), [(-4.0, "lowest"), (-1.0, "highest"), (-2.5, None)])
def test_an_optimum_at_the_edge_of_the_grid_is_flagged(best: float, edge: str | None) -> None:
    assert shaped(lambda x: 5 + abs(x - best)).edge == edge


def test_zero_is_a_natural_end_of_an_axis_and_no_edge() -> None:
    rows = [sweeps.row(lr=1e-3 * (k + 1), loss=5 + 0.1 * k) for k in range(3)]
    for k, row in enumerate(rows):
        row.config["optimizer"]["weight_decay"] = k / 10
    found = of(rows, "optimizer.weight_decay")[0]
    assert (found.log, found.best.x, found.edge) == (False, 0.0, None)


def test_rise_is_log_linear_between_grid_points() -> None:
    found = shaped(lambda x: 5 + 0.7 * abs(x + 2.5), [10 ** (k / 2) for k in range(-8, -1)])
    for factor in (3, 1 / 3, 2.5):
        rise = stats.rise_at(found, factor)
        assert rise is not None
        assert rise.value == pytest.approx(0.7 * abs(math.log10(factor)), abs=1e-9)


def test_a_summary_tells_what_a_third_and_three_times_the_setting_cost() -> None:
    found = stats.summarise([shaped(lambda x: 5 + abs(x + 2.5) ** 3 + 0.1 * x)])[0]
    assert found.lower == stats.rise_at(found.curve, 1 / 3) != stats.rise_at(found.curve, 1 / 2)
    assert found.higher == stats.rise_at(found.curve, 3)


def test_rise_off_the_grid_is_unknown_not_extrapolated() -> None:
    found = shaped(lambda x: 5 + abs(x + 1))
    assert stats.rise_at(found, 3) is None
    assert stats.rise_at(found, 1 / 3) is not None


@pytest.mark.parametrize("slope", [0.3, 1.0, 4.0])
def test_safe_window_of_a_v_is_twice_the_margin_over_its_slope(slope: float) -> None:
    found = stats.safe_window(
        shaped(lambda x: 5 + slope * abs(x + 2.5), [10 ** (k / 2) for k in range(-8, -1)])
    )
    assert found is not None
    assert found.decades == pytest.approx(2 * stats.MARGIN / slope)
    assert (found.open_low, found.open_high) == (False, False)


def test_safe_window_is_contiguous_and_open_where_the_grid_ends() -> None:
    losses = [5.05, 5.9, 5.05, 5.0, 5.02]
    found = stats.safe_window(curve({10.0**-k: [loss] for k, loss in enumerate(losses)}))
    assert found is not None
    assert (found.open_low, found.open_high) == (True, False)
    assert found.low == pytest.approx(1e-4)
    assert 1e-2 < found.high < 1e-1


def test_an_interval_of_one_setting_is_students() -> None:
    losses = [5.01, 5.05, 4.98, 5.03]
    estimate = stats.best_loss(curve({1e-3: losses}))
    assert estimate.value == pytest.approx(np.mean(losses))
    assert estimate.half_width == pytest.approx(3.1824 * np.std(losses, ddof=1) / 2, rel=1e-4)


def test_seed_variance_is_pooled_over_the_window_without_diverged_runs() -> None:
    found = curve({1e-3: [5.0, 5.2], 1e-2: [5.6, 5.9, 6.0], 3e-3: [7.0, None], 1.0: [5.7, 8.0]})
    pooled, degrees = stats.pooled_variance(found)
    near = [np.array([5.0, 5.2]), np.array([5.6, 5.9, 6.0])]
    assert degrees == 3
    assert pooled == pytest.approx(sum(((a - a.mean()) ** 2).sum() for a in near) / 3)


def test_without_a_second_seed_there_is_no_interval() -> None:
    summary = stats.summarise([shaped(lambda x: 5 + (x + 2.5) ** 2)])[0]
    estimates = (summary.best, summary.lower, summary.higher, summary.sensitivity)
    assert all(estimate is not None and estimate.half_width is None for estimate in estimates)


def test_a_point_with_one_seed_borrows_the_variance_of_its_neighbours() -> None:
    found = curve({1e-3: [5.3, 5.5], 1e-2: [5.0]})
    estimate = stats.best_loss(found)
    assert estimate.half_width == pytest.approx(stats.student_t(1) * math.sqrt(0.02))


def test_a_difference_has_the_interval_of_two_independent_means() -> None:
    one, other = curve({1e-3: [5.0, 5.1]}), curve({1e-3: [5.4, 5.6]}, "lion")
    gap = stats.difference(other, one)
    pooled = (0.005 + 0.02) / 2
    assert gap.value == pytest.approx(0.45)
    assert gap.half_width == pytest.approx(stats.student_t(2) * math.sqrt(pooled * (1 / 2 + 1 / 2)))


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    random = np.random.default_rng(0)
    held, n = 0, 400
    for _ in range(n):
        losses = 5 + 0.05 * random.standard_normal(3)
        estimate = stats.best_loss(curve({1e-3: list(losses)}))
        assert estimate.half_width is not None
        held += abs(estimate.value - 5) <= estimate.half_width
    assert abs(held / n - 0.95) < 3 * math.sqrt(0.95 * 0.05 / n)


@given(
    losses=st.lists(st.integers(256, 384).map(lambda k: k / 64), min_size=5, max_size=9, unique=True),
    shift=st.integers(-64, 64).map(lambda k: k / 64),
    decades=st.integers(-3, 3),
)
def test_moving_the_axes_moves_the_best_and_nothing_else(
    losses: list[float], shift: float, decades: int
) -> None:
    here = curve({10 ** (k / 2): [loss] for k, loss in enumerate(losses)})
    there = curve({10 ** (k / 2 + decades): [loss + shift] for k, loss in enumerate(losses)})
    one, other = stats.summarise([here], 0.5)[0], stats.summarise([there], 0.5)[0]
    assert other.best.value - one.best.value == pytest.approx(shift, abs=1e-9)
    assert math.log10(other.setting / one.setting) == pytest.approx(decades, abs=1e-9)
    assert one.safe is not None and other.safe is not None
    assert other.safe.decades == pytest.approx(one.safe.decades, abs=1e-6)
    assert (one.sensitivity is None) == (other.sensitivity is None)
    if one.sensitivity and other.sensitivity:
        assert other.sensitivity.value == pytest.approx(one.sensitivity.value, abs=1e-9)
        assert one.sensitivity.value >= 0


def test_an_axis_with_a_zero_or_words_is_not_logarithmic_and_uses_the_whole_grid() -> None:
    assert curves.is_log([1e-4, 1e-2])
    assert not curves.is_log([0, 0.5, 0.99])
    assert not curves.is_log([256, 512])
    assert not curves.is_log(["bfloat16", "float32"])
    rows = [sweeps.row(lr=k + 1.0, loss=loss) for k, loss in enumerate((5.5, 5.0, 5.3))]
    for row, precision in zip(rows, ("float64", "float32", "bfloat16"), strict=True):
        row.config["training"]["precision"] = precision
    found = of(rows, "training.precision")[0]
    assert [point.x for point in found.points] == ["bfloat16", "float32", "float64"]
    summary = stats.summarise([found])[0]
    assert summary.sensitivity is not None
    assert summary.sensitivity.value == pytest.approx((5.5 + 5.0 + 5.3) / 3 - 5.0)
    assert (summary.safe, summary.lower, summary.curve.edge) == (None, None, None)


def test_curves_are_listed_best_first_and_those_that_never_trained_last() -> None:
    rows = [sweeps.row("lion", lr, None, initial_val_loss=4.0) for lr in (1e-3, 1e-2)]
    (dead,) = of(rows)
    names = [s.label for s in stats.summarise([dead, curve({1e-3: [5.5]}), curve({1e-3: [5.1]}, "sgdw")])]
    assert names == ["sgdw", "adam", "lion"]


def test_state_and_step_time_are_medians_over_the_curve() -> None:
    rows = [
        dataclasses.replace(sweeps.row(lr=10.0**-k), step_ms=ms) for k, ms in enumerate((30.0, 31.0, 500.0))
    ]
    found = stats.summarise(of(rows))[0]
    assert found.step_ms == 31.0
