"""Statistics against published tables, formulas by hand and properties."""

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optstudy.results import curves, minimum, stats
from optstudy.results.curves import Curve
from optstudy.results.estimate import Estimate, student_t
from optstudy.results.table import Row
from tests import sweeps

HALF_DECADES = [1e-4, 3.16e-4, 1e-3, 3.16e-3, 1e-2, 3.16e-2, 1e-1]


def of(rows: list[Row], x: str = "optimizer.lr") -> list[Curve]:
    log = True if x == "optimizer.lr" else None
    return curves.group(sweeps.placed(rows, x), log)


def curve(points: dict[float, Sequence[float | None]], name: str = "adam") -> Curve:
    rows = [
        sweeps.row(name, lr, loss, seed) for lr, losses in points.items() for seed, loss in enumerate(losses)
    ]
    return of(rows)[0]


def shaped(loss: Callable[[float], float | None], lrs: Sequence[float] = HALF_DECADES) -> Curve:
    return curve({lr: [loss(math.log10(lr))] for lr in lrs})


def loss_of(found: Curve) -> Estimate:
    estimate = minimum.best_loss(found)
    assert estimate is not None
    return estimate


def gap(one: Curve, other: Curve) -> Estimate:
    estimate = stats.difference(one, other)
    assert estimate is not None
    return estimate


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
    assert student_t(df) == pytest.approx(quantile, abs=5e-5)


def test_best_is_the_lowest_mean_over_seeds_not_the_luckiest_seed() -> None:
    found = curve({1e-3: [5.0, 6.0], 1e-2: [5.4, 5.4], 1e-1: [5.9, 5.9]})
    assert found.best.x == 1e-2
    assert loss_of(found).value == pytest.approx(5.4)


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
    estimate = loss_of(curve({1e-3: losses}))
    assert estimate.value == pytest.approx(np.mean(losses))
    assert estimate.half_width == pytest.approx(3.1824 * np.std(losses, ddof=1) / 2, rel=1e-4)


def test_without_a_second_seed_there_is_no_interval() -> None:
    summary = stats.summarise([shaped(lambda x: 5 + (x + 2.5) ** 2)])[0]
    estimates = (summary.best, summary.setting, summary.lower, summary.higher, summary.sensitivity)
    assert all(estimate is not None and estimate.half_width is None for estimate in estimates)
    assert gap(shaped(lambda x: 5.1), shaped(lambda x: 5.0)).interval is None


def test_a_point_with_one_seed_borrows_the_variance_of_its_neighbours() -> None:
    found = curve({1e-3: [5.3, 5.5], 1e-2: [5.0]})
    chosen = 1 - 0.05 / 2  # of two settings that cannot be told apart
    assert loss_of(found).half_width == pytest.approx(student_t(1, chosen) * math.sqrt(0.02))


def test_a_parabola_is_found_exactly_wherever_the_settings_lie() -> None:
    for lowest in (-2.5, -2.37, -2.74):
        found = shaped(lambda x, lowest=lowest: 5 + 0.7 * (x - lowest) ** 2)
        best = minimum.best(found)
        assert best is not None and best.fitted
        assert (best.position, loss_of(found).value) == pytest.approx((lowest, 5.0), abs=1e-9)
        assert best.slack == pytest.approx(0, abs=1e-9)


def test_beyond_a_cliff_the_other_side_tells_where_the_best_is() -> None:
    found = shaped(lambda x: None if x > -2.2 else 5 + 0.7 * (x + 2.37) ** 2)
    best = minimum.best(found)
    assert best is not None and best.fitted and found.best.x == 3.16e-3
    assert (best.position, loss_of(found).value) == pytest.approx((-2.37, 5.0), abs=2e-3)


@pytest.mark.parametrize(
    "losses",
    [
        [6.5, 6.4, 6.38, 5.95, 5.72, 7.9, 8.0],  # a cliff too steep on its left for a parabola, too
        [5.9, 5.4, 5.2, 5.0, 5.3],  # a kink
        [5.3, 5.0, 5.4],  # three settings do not tell whether a parabola fits
        [5.0, 5.2, 5.4, 5.6],  # the best is at the edge
    ],
)
def test_where_no_parabola_fits_the_best_setting_tried_stands_for_itself(losses: list[float]) -> None:
    found = curve({lr: [loss] for lr, loss in zip(HALF_DECADES, losses, strict=False)})
    summary = stats.summarise([found])[0]
    assert not summary.fitted and summary.best is not None
    assert (summary.best.value, summary.at) == (min(losses), found.best.x)


def test_a_parabola_needs_the_best_settings_seeds_beside_it() -> None:
    points = {lr: [5 + (math.log10(lr) + 2.4) ** 2 + s / 100 for s in range(3)] for lr in HALF_DECADES}
    assert (found := minimum.best(curve(points))) is not None and found.fitted
    points[3.16e-3], points[1e-2] = points[3.16e-3], points[1e-2][:1]
    assert (found := minimum.best(curve(points))) is not None and not found.fitted


def test_a_difference_is_paired_over_the_seeds_that_both_have() -> None:
    """What a seed does to both leaves the difference alone; a seed that one lacks is left out."""
    one, other = curve({1e-3: [5.0, 5.3, 5.1, 9.0]}), curve({1e-3: [5.41, 5.69, 5.5]}, "lion")
    found = gap(other, one)
    differences = np.array([0.41, 0.39, 0.40])
    assert found.value == pytest.approx(differences.mean()) and found.seeds == 3
    assert found.half_width == pytest.approx(4.30265 * differences.std(ddof=1) / math.sqrt(3), rel=1e-4)


def test_without_common_seeds_a_difference_has_the_interval_of_two_independent_means() -> None:
    from scipy import stats as library

    mine, theirs = [5.4, 5.6, 5.45], [5.0, 5.1, 5.02]
    one = of([sweeps.row("lion", 1e-3, loss, seed) for seed, loss in enumerate(mine)])[0]
    other = of([sweeps.row("adam", 1e-3, loss, seed + 10) for seed, loss in enumerate(theirs)])[0]
    found = gap(one, other)
    interval = library.ttest_ind(mine, theirs, equal_var=False).confidence_interval(0.95)
    assert found.interval == pytest.approx((interval.low, interval.high), abs=1e-6)


def test_the_variance_of_a_difference_is_pooled_with_its_neighbours_unless_theirs_is_smaller() -> None:
    def pair(own: float) -> Estimate:
        points = {1e-3: [5.4, 5.4, 5.4], 1e-2: [5.0, 5.0, 5.0], 1e-1: [5.4, 5.4, 5.4]}
        noisy = {x: list(losses) for x, losses in points.items()}
        for x, size in ((1e-3, 0.01), (1e-2, own), (1e-1, 0.01)):
            noisy[x] = [loss + size * k for loss, k in zip(noisy[x], (-1, 0, 1), strict=True)]
        return gap(curve(noisy), curve(points, "lion"))

    alike, larger = pair(0.012), pair(0.1)
    assert (alike.degrees, larger.degrees) == (6, 2)
    assert alike.error == pytest.approx(math.sqrt((0.012**2 + 2 * 0.01**2) / 3 / 3))
    assert larger.error == pytest.approx(0.1 / math.sqrt(3))


def test_equal_losses_are_equal() -> None:
    for seeds in (1, 3):
        points = {
            lr: [5 + (math.log10(lr) + 2.4) ** 2 + s / 100 for s in range(seeds)] for lr in HALF_DECADES
        }
        found = gap(curve(points), curve(points, "signum"))
        assert found.value == 0 and not found.error and not found.slack
        assert found.interval == ((0.0, 0.0) if seeds > 1 else None)


def test_a_curve_that_never_trained_has_no_best_no_rise_and_no_window() -> None:
    dead = curve({lr: [None, None] for lr in HALF_DECADES}, "sgdw")
    live = curve({lr: [5.0 + k / 10, 5.1 + k / 10] for k, lr in enumerate(HALF_DECADES)})
    summary = stats.summarise([dead, live])[1]
    assert summary.curve is dead and (dead.trained, dead.edge, summary.fitted) == (False, None, False)
    for nothing in ("best", "setting", "lower", "higher", "sensitivity", "safe"):
        assert getattr(summary, nothing) is None, nothing
    assert stats.difference(dead, live) is stats.difference(live, dead) is minimum.best(dead) is None
    assert stats.common_window([dead, live]) == stats.common_window([live])


def test_the_interval_of_the_best_includes_that_it_was_chosen() -> None:
    close = curve({1e-3: [5.0, 5.03, 4.97], 1e-2: [5.01, 5.0, 5.01], 1e-1: [5.02, 5.0, 5.0]})
    far = curve({1e-3: [5.0, 5.03, 4.97], 1e-2: [6.01, 6.0, 6.01], 1e-1: [6.02, 6.0, 6.0]})
    assert (loss_of(close).choices, loss_of(far).choices) == (3, 1)
    assert minimum.contenders(far) == [far.best]
    setting = minimum.best_setting(close)
    assert setting is not None and setting.interval is not None
    assert setting.interval[1] >= -1 - 1e-9


def test_what_a_seed_does_to_all_settings_alike_leaves_rises_and_sensitivity_alone() -> None:
    losses = [6.0, 5.6, 5.1, 5.0, 5.35, 5.9, 7.0]
    points = {lr: [loss + s for s in (0.0, 0.3, -0.2)] for lr, loss in zip(HALF_DECADES, losses, strict=True)}
    found = stats.summarise([curve(points)])[0]
    for estimate in (found.lower, found.higher, found.sensitivity):
        assert estimate is not None and estimate.half_width == pytest.approx(0, abs=1e-9)
    assert found.best is not None and found.best.half_width is not None and found.best.half_width > 0.3


def test_a_setting_with_one_seed_is_compared_over_that_seed() -> None:
    losses = [6.0, 5.6, 5.1, 5.0, 5.3, 5.9, 7.0]
    seeds = [(0.0,), (0.0,), (0.0, 0.3, -0.2), (0.0, 0.3, -0.2), (0.0, 0.3, -0.2), (0.0,), (0.0,)]
    made = zip(HALF_DECADES, losses, seeds, strict=True)
    found = stats.sensitivity(curve({lr: [loss + s for s in some] for lr, loss, some in made}), 1.0)
    assert found is not None and found.value == pytest.approx(np.mean([5.6, 5.1, 5.0, 5.3, 5.9]) - 5.0)


@given(st.floats(-3, 3), st.floats(1e-3, 1), st.integers(1, 30), st.floats(0, 0.5))
def test_a_p_value_is_one_minus_the_level_at_which_the_interval_touches_the_threshold(
    value: float, error: float, degrees: int, slack: float
) -> None:
    estimate = Estimate(value, error, degrees, slack)
    p = estimate.beyond(abs(value))
    if 1e-9 < p < 1 - 1e-9:
        assert estimate.half(1 - p) == pytest.approx(abs(value), rel=1e-5)
    else:
        assert p < 0.5 or abs(value) <= slack + 1e-6


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
    assert one.best is not None and other.best is not None
    assert other.best.value - one.best.value == pytest.approx(shift, abs=1e-9)
    assert one.setting is not None and other.setting is not None
    assert other.setting.value - one.setting.value == pytest.approx(decades, abs=1e-9)
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
    names = [
        s.curve.name for s in stats.summarise([dead, curve({1e-3: [5.5]}), curve({1e-3: [5.1]}, "sgdw")])
    ]
    assert names == ["sgdw", "adam", "lion"]


def test_state_and_step_time_are_medians_over_the_curve() -> None:
    rows = [
        dataclasses.replace(sweeps.row(lr=10.0**-k), step_ms=ms) for k, ms in enumerate((30.0, 31.0, 500.0))
    ]
    found = stats.summarise(of(rows))[0]
    assert found.step_ms == 31.0
