"""Best setting, sensitivity and safe window of every curve of a sweep, with intervals over seeds. No torch.

Loss is :attr:`optstudy.table.Row.loss`, nats per token: a diverged run counts as the loss before training.
Every estimate here is a weighted sum of the mean losses of a curve's points, so one rule gives all intervals:
a t interval whose seed variance is pooled over the finished runs within :data:`POOL_WINDOW` of the best.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from statistics import median
from typing import Any

from optstudy.curves import Curve, Point

LEVEL = 0.95
"""Coverage of every interval."""
MARGIN = 0.1
"""Nats above the best that the safe window may cost."""
POOL_WINDOW = 1.0
"""Half-width in decades of the window whose seed variances are pooled."""
WINDOWS = (1.0, 0.5)
"""Half-widths in decades that sensitivity is taken over, the widest that the grids cover first."""
SLACK = 0.02
"""Decades by which 3.16e-3 may miss a half-decade."""

Term = tuple[float, Point]
"""A weight and a point, of a weighted sum of mean losses."""


@dataclass(frozen=True)
class Estimate:
    """A number with half the width of its interval; None where no setting has two seeds."""

    value: float
    half_width: float | None = None


@dataclass(frozen=True)
class SafeWindow:
    """Contiguous settings around the best whose interpolated loss is within the margin."""

    low: float
    high: float
    """The settings at its ends."""
    decades: float
    open_low: bool
    open_high: bool
    """The grid ends before the loss rises above the margin: the window is at least this wide."""


@dataclass(frozen=True)
class Summary:
    """What a table says of one curve."""

    curve: Curve
    best: Estimate
    setting: Any
    """Where the best is."""
    seeds: int
    """Runs at the best setting."""
    lower: Estimate | None
    """Loss above the best at a third of the best setting; None outside the grid."""
    higher: Estimate | None
    """The same at three times the best setting."""
    sensitivity: Estimate | None
    """E[min(l, l0) - l*] over the window; None where the grid does not cover it."""
    window: float
    """Half-width of that window, decades; infinite: the whole grid."""
    safe: SafeWindow | None
    state_bytes: float
    """Optimizer state, bytes per parameter."""
    step_ms: float
    """Median over its runs."""
    diverged: int
    runs: int

    @property
    def label(self) -> str:
        """The curve's name."""
        return self.curve.label


@cache
def student_t(df: int, level: float = LEVEL) -> float:
    """Two-sided quantile of Student's t: P(|T| <= t) = level (Abramowitz and Stegun 26.7.3 and 26.7.4)."""
    low, high = 0.0, 1e4
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _central_probability(middle, df) < level else (low, middle)
    return high


def pooled_variance(*some: Curve) -> tuple[float, int]:
    """Seed variance of one run's loss, pooled over finished runs near each curve's best, and its degrees."""
    squares, degrees = 0.0, 0
    for curve in some:
        for point in curve.points:
            near = not curve.log or abs(point.position - curve.best.position) <= POOL_WINDOW + SLACK
            losses = [row.loss for row in point.rows if row.state == "done"]
            if near and len(losses) > 1:
                mean = math.fsum(losses) / len(losses)
                squares += math.fsum((loss - mean) ** 2 for loss in losses)
                degrees += len(losses) - 1
    return (squares / degrees, degrees) if degrees else (math.nan, 0)


def contrast(terms: Sequence[Term], *some: Curve) -> Estimate:
    """Weighted sum of points' mean losses, with an interval from the seed variance of ``some`` curves."""
    weights: dict[int, float] = {}
    points = {id(point): point for _, point in terms}
    for weight, point in terms:
        weights[id(point)] = weights.get(id(point), 0.0) + weight
    value = math.fsum(weight * points[key].loss for key, weight in weights.items())
    variance, degrees = pooled_variance(*some)
    if not degrees:
        return Estimate(value)
    spread = math.fsum(weight**2 / len(points[key].rows) for key, weight in weights.items())
    return Estimate(value, student_t(degrees) * math.sqrt(variance * spread))


def best_loss(curve: Curve) -> Estimate:
    """Lowest mean loss. The interval is that setting's; it leaves out that the setting was chosen."""
    return contrast([(1.0, curve.best)], curve)


def difference(curve: Curve, reference: Curve) -> Estimate:
    """How much worse the best of ``curve`` is than the best of ``reference``."""
    return contrast([(1.0, curve.best), (-1.0, reference.best)], curve, reference)


def rise_at(curve: Curve, factor: float) -> Estimate | None:
    """Loss above the best at ``factor`` times the setting, log-linearly interpolated; None off the grid."""
    if not curve.log:
        return None
    terms = _interpolate(curve, curve.best.position + math.log10(factor))
    return None if terms is None else contrast([*terms, (-1.0, curve.best)], curve)


def covers(curve: Curve, window: float) -> bool:
    """Whether the grid reaches ``window`` decades to both sides of the best; False without decades."""
    if not curve.log:
        return False
    reach = min(
        curve.points[-1].position - curve.best.position, curve.best.position - curve.points[0].position
    )
    return reach >= window - SLACK


def common_window(some: Iterable[Curve]) -> float:
    """The widest of :data:`WINDOWS` over which every curve with its best inside the grid has a sensitivity.

    Else the widest over which one has; infinite, the whole grid, where none has because the axis is not
    logarithmic or the grid is coarser than the windows.
    """
    curves = list(some)
    inside = [curve for curve in curves if curve.edge is None]
    if not all(curve.log for curve in curves):
        return math.inf
    for enough in (all, any):
        for window in WINDOWS:
            if inside and enough(sensitivity(curve, window) is not None for curve in inside):
                return window
    return math.inf if inside else WINDOWS[-1]


def sensitivity(curve: Curve, window: float) -> Estimate | None:
    """Wortsman et al. 2023 (2309.14322, section 2.2): E[min(l, l0) - l*], around the curve's own best.

    The expectation is the plain mean over the grid's points at most ``window`` decades from the best, all
    of them for an infinite window. None for a single point, and where the grid does not reach as far as a
    finite window to both sides or has no other point there.
    """
    terms = sensitivity_terms(curve, window)
    return None if terms is None else contrast(terms, curve)


def sensitivity_terms(curve: Curve, window: float) -> list[Term] | None:
    """The points whose weighted sum is the sensitivity; None where there is none."""
    offsets = [(abs(p.position - curve.best.position), p) for p in curve.points]
    inside = [p for offset, p in offsets if offset <= window + SLACK]
    at_end = inside[0] is curve.best or inside[-1] is curve.best
    if len(inside) < 2 or (math.isfinite(window) and (at_end or not covers(curve, window))):
        return None
    return [(1 / len(inside), p) for p in inside] + [(-1.0, curve.best)]


def safe_window(curve: Curve, margin: float = MARGIN) -> SafeWindow | None:
    """Settings around the best with loss within ``margin`` of it, log-linearly interpolated."""
    if not curve.log or len(curve.points) < 2:
        return None
    at = curve.points.index(curve.best)
    low, open_low = _crossing(curve.points[at::-1], curve.best.loss + margin)
    high, open_high = _crossing(curve.points[at:], curve.best.loss + margin)
    return SafeWindow(10**low, 10**high, high - low, open_low, open_high)


def summarise(some: Sequence[Curve], window: float | None = None) -> list[Summary]:
    """One summary per curve, best loss first; those that never trained last."""
    half = common_window(some) if window is None else window
    return sorted(
        (_summary(curve, half) for curve in some), key=lambda s: (not s.curve.trained, s.best.value)
    )


def _summary(curve: Curve, window: float) -> Summary:
    rows = curve.rows
    return Summary(
        curve=curve,
        best=best_loss(curve),
        setting=curve.best.x,
        seeds=len(curve.best.rows),
        lower=rise_at(curve, 1 / 3),
        higher=rise_at(curve, 3),
        sensitivity=sensitivity(curve, window),
        window=window,
        safe=safe_window(curve),
        state_bytes=median(row.state_bytes_per_param for row in rows),
        step_ms=median(row.step_ms for row in rows),
        diverged=sum(row.state == "diverged" for row in rows),
        runs=len(rows),
    )


def _interpolate(curve: Curve, position: float) -> list[tuple[float, Point]] | None:
    for left, right in pairwise(curve.points):
        if left.position <= position <= right.position:
            share = (position - left.position) / (right.position - left.position)
            return [(1 - share, left), (share, right)]
    return None


def _crossing(points: Sequence[Point], level: float) -> tuple[float, bool]:
    """Position where the loss first exceeds ``level``, walking along ``points``; True if it never does."""
    for here, there in pairwise(points):
        if there.loss > level:
            share = (level - here.loss) / (there.loss - here.loss)
            return here.position + share * (there.position - here.position), False
    return points[-1].position, True


def _central_probability(t: float, df: int) -> float:
    theta = math.atan(t / math.sqrt(df))
    if df == 1:
        return 2 * theta / math.pi
    cosine = math.cos(theta)
    term = total = cosine if df % 2 else 1.0
    for k in range(3 if df % 2 else 2, df - 1, 2):
        term *= cosine**2 * (k - 1) / k
        total += term
    inner = math.sin(theta) * total
    return 2 / math.pi * (theta + inner) if df % 2 else inner
