"""Statistics of curves: differences, sensitivity and safe window, with intervals over seeds. No torch.

Loss is :attr:`optstudy.results.table.Row.loss` in nats per token. A diverged run counts as the loss before
training.

**Seeds are paired.** Runs of one seed share initial weights and batches, so most of a seed's effect on the
loss is the same for every setting and every optimizer. Comparisons of settings or curves are computed seed by
seed, over the seeds that both have, with a t interval over these differences. One seed gives no interval, so
nothing is decided.

**There is one estimator of a difference**, :func:`difference`; table, answer, claims and comparisons use it.
``tests/test_coverage.py`` simulates how often the intervals contain the truth, and how wide they are.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from statistics import median
from typing import Any

from optstudy.results.curves import Curve, Point
from optstudy.results.estimate import UNKNOWN, Estimate, Variance, minus, over_seeds, pooled
from optstudy.results.minimum import best, best_loss, best_setting, choices, contenders
from optstudy.results.noise import SLACK, Term, above, by_seed, loss_of, near, spread, total

MARGIN = 0.1
"""Nats above the best that the safe window allows."""
WINDOWS = (1.0, 0.5)
"""Half-widths, in decades, of the windows for sensitivity; the widest one that the grids cover is used."""


def difference(curve: Curve, reference: Curve, noise: tuple[Curve, Curve] | None = None) -> Estimate | None:
    """The best loss of ``curve`` minus the best loss of ``reference``, nats.

    Args:
        noise: curves of the same two optimizers with several seeds, if these two have only one.

    Returns:
        None if one of them never trained.
    """
    one, other = best(curve), best(reference)
    if one is None or other is None:
        return None
    estimate = paired(one.terms, other.terms, curve, reference, noise)
    same = estimate.value == 0 and estimate.error in (0, None) and one.slack == other.slack
    slack = 0.0 if same else math.hypot(one.slack, other.slack)
    count = choices(curve, one) + choices(reference, other) - 1
    return replace(estimate, slack=slack, choices=count)


def paired(
    terms: Sequence[Term],
    others: Sequence[Term],
    curve: Curve,
    reference: Curve,
    noise: tuple[Curve, Curve] | None = None,
) -> Estimate:
    """The difference of two weighted sums of losses, seed by seed over the seeds that all their points have.

    The variance of one seed's difference is pooled with that of the differences between settings equally far
    from both bests, unless it is significantly larger. Without a common seed the two are treated as
    independent.

    Args:
        terms: terms over points of ``curve``; the weights add to 1.
        others: terms over points of ``reference``; the weights add to 1.
        noise: see :func:`difference`.
    """
    mine, theirs = by_seed(terms), by_seed(others)
    differences = [mine[seed] - theirs[seed] for seed in mine if seed in theirs]
    if not differences:
        unpaired = minus(loss_of(terms, curve), loss_of(others, reference))
        return replace(unpaired, value=total(terms) - total(others))
    similar = matched(curve, reference, own=len(differences) < 2)
    return over_seeds(differences, similar, UNKNOWN if noise is None else _noise(*noise))


def matched(one: Curve, other: Curve, own: bool = False) -> list[list[float]]:
    """Differences between settings equally far from both bests, by seed; ``own``: including the bests."""
    found = []
    for point in near(one):
        if point.diverged or (point is one.best and not own):
            continue
        offset = point.position - one.best.position
        for twin in other.points:
            if abs(twin.position - other.best.position - offset) <= SLACK and not twin.diverged:
                seeds = [seed for seed in point.by_seed if seed in twin.by_seed]
                found.append([point.by_seed[seed] - twin.by_seed[seed] for seed in seeds])
    return [differences for differences in found if len(differences) > 1]


def _noise(one: Curve, other: Curve) -> Variance:
    """Variance of one seed's difference between two curves; of a curve with itself, as if unpaired."""
    if one is other:
        variance, degrees = spread(one)
        return Variance(2 * variance, degrees)
    return pooled(matched(one, other, own=True))


def rise_at(curve: Curve, factor: float) -> Estimate | None:
    """Loss at ``factor`` times the best setting tried, minus the loss there, interpolated over the logarithm.

    None outside the grid, if the axis is not logarithmic, and for a curve that never trained.
    """
    if not curve.log or not curve.trained:
        return None
    terms = _interpolated(curve, curve.best.position + math.log10(factor))
    return None if terms is None else above(curve, terms)


def _interpolated(curve: Curve, position: float) -> list[Term] | None:
    for left, right in pairwise(curve.points):
        if left.position <= position <= right.position:
            share = (position - left.position) / (right.position - left.position)
            return [(1 - share, left), (share, right)]
    return None


def common_window(some: Iterable[Curve]) -> float:
    """The widest of :data:`WINDOWS` over which every curve with its best inside the grid has a sensitivity.

    Otherwise the widest over which any curve has one. If none has, because the axis is not logarithmic or the
    grid is too coarse, infinite: the whole grid.
    """
    curves = [curve for curve in some if curve.trained]
    if not all(curve.log for curve in curves):
        return math.inf
    inside = [curve for curve in curves if curve.edge is None]
    if not inside:
        return WINDOWS[-1]
    for enough in (all, any):
        for window in WINDOWS:
            if enough(within(curve, window) is not None for curve in inside):
                return window
    return math.inf


def sensitivity(curve: Curve, window: float, noise: Curve | None = None) -> Estimate | None:
    """Wortsman et al. 2023 (2309.14322, section 2.2): E[min(l, l0) - l*], around the curve's own best.

    The expectation is the plain mean over the grid's points at most ``window`` decades from the best setting
    tried; over all of them for an infinite window. If other settings do not differ significantly from the
    best, the interval spans the sensitivities around each of them.

    Args:
        window: half-width in decades.
        noise: a curve of the same optimizer with several seeds, if this one has a single seed.

    Returns:
        None for a single point, for a curve that never trained, or if the grid does not cover a finite window
        on both sides or has no other point in it.
    """
    inside = within(curve, window)
    if inside is None:
        return None
    estimate = _mean_above(curve, inside, curve.best, noise)
    half = estimate.half()
    if half is None:
        return estimate
    widest = half
    for centre in contenders(curve, noise):
        around = within(curve, window, centre)
        if around is not None:
            other = _mean_above(curve, around, centre, noise)
            widest = max(widest, abs(other.value - estimate.value) + (other.half() or 0.0))
    return replace(estimate, slack=estimate.slack + widest - half)


def within(curve: Curve, window: float, centre: Point | None = None) -> list[Point] | None:
    """The points that the sensitivity around a setting averages over, by default around the best one tried.

    None if there is no sensitivity, see :func:`sensitivity`.
    """
    if not curve.trained:
        return None
    at = centre or curve.best
    inside = [p for p in curve.points if abs(p.position - at.position) <= window + SLACK]
    if len(inside) < 2:
        return None
    if math.isfinite(window):
        first, last = curve.points[0].position, curve.points[-1].position
        covered = curve.log and min(last - at.position, at.position - first) >= window - SLACK
        if not covered or at is inside[0] or at is inside[-1]:
            return None
    return inside


def _mean_above(curve: Curve, some: Sequence[Point], base: Point, noise: Curve | None) -> Estimate:
    return above(curve, [(1 / len(some), point) for point in some], base, noise)


@dataclass(frozen=True)
class SafeWindow:
    """Contiguous settings around the best whose interpolated loss is within the margin."""

    low: float
    high: float
    """The settings at its ends."""
    decades: float
    open_low: bool
    open_high: bool
    """The grid ends before the loss exceeds the margin: the window is at least this wide."""


def safe_window(curve: Curve) -> SafeWindow | None:
    """Settings around the best one tried whose loss is within :data:`MARGIN`, by log-linear interpolation."""
    if not curve.log or len(curve.points) < 2 or not curve.trained:
        return None
    at = curve.points.index(curve.best)
    low, open_low = _crossing(curve.points[at::-1], curve.best.loss + MARGIN)
    high, open_high = _crossing(curve.points[at:], curve.best.loss + MARGIN)
    return SafeWindow(10**low, 10**high, high - low, open_low, open_high)


def _crossing(points: Sequence[Point], level: float) -> tuple[float, bool]:
    """Position where the loss first exceeds ``level``, walking along ``points``; True if it never does."""
    for here, there in pairwise(points):
        if there.loss > level:
            share = (level - here.loss) / (there.loss - here.loss)
            return here.position + share * (there.position - here.position), False
    return points[-1].position, True


@dataclass(frozen=True)
class Summary:
    """A table's statistics of one curve; a curve that never trained has no best and nothing that needs it."""

    curve: Curve
    best: Estimate | None
    """The lowest loss, see :func:`optstudy.results.minimum.best_loss`."""
    setting: Estimate | None
    """log10 of the best setting, see :func:`optstudy.results.minimum.best_setting`; None if the axis is not
    logarithmic."""
    fitted: bool
    """The best is a parabola's minimum; else it is the best setting tried."""
    lower: Estimate | None
    """Loss at a third of the best setting tried, minus the loss at that setting; None outside the grid."""
    higher: Estimate | None
    """The same at three times the best setting tried."""
    sensitivity: Estimate | None
    """E[min(l, l0) - l*] over the window; None if the grid does not cover it."""
    window: float
    """Half-width of that window in decades; infinite for the whole grid."""
    safe: SafeWindow | None
    state_bytes: float | None
    """Optimizer state, bytes per parameter; None if no run reported it."""
    step_ms: float | None
    """Median over its runs; None where none reported it."""
    peak_memory_mb: float | None
    """Median over its runs, MiB; None where none reported it."""
    diverged: int
    runs: int

    @property
    def tried(self) -> Point:
        """The best setting tried."""
        return self.curve.best

    @property
    def at(self) -> Any:
        """The best setting: the parabola's, to three digits, else the best one tried."""
        if self.fitted and self.setting is not None:
            return float(f"{10**self.setting.value:.3g}")
        return self.tried.x


def summarise(some: Sequence[Curve], window: float | None = None) -> list[Summary]:
    """One summary per curve, best loss first; those that never trained last."""
    half = common_window(some) if window is None else window
    found = [_summary(curve, half) for curve in some]
    return sorted(found, key=lambda s: (s.best is None, s.best.value if s.best else s.tried.loss))


def _summary(curve: Curve, window: float) -> Summary:
    rows, found = curve.rows, best(curve)
    return Summary(
        curve=curve,
        best=best_loss(curve),
        setting=best_setting(curve),
        fitted=found is not None and found.fitted,
        lower=rise_at(curve, 1 / 3),
        higher=rise_at(curve, 3),
        sensitivity=sensitivity(curve, window),
        window=window,
        safe=safe_window(curve),
        state_bytes=_median(row.state_bytes_per_param for row in rows),
        step_ms=_median(row.step_ms for row in rows),
        peak_memory_mb=_median(row.peak_memory_mb for row in rows),
        diverged=sum(row.state == "diverged" for row in rows),
        runs=len(rows),
    )


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
