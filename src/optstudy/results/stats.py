"""Best loss, best setting, differences, sensitivity and safe window, with intervals over seeds. No torch.

Loss is :attr:`optstudy.results.table.Row.loss` in nats per token. A diverged run counts as the loss before
training.

**Seeds are paired.** Runs of one seed share initial weights and batches, so most of a seed's effect on the
loss is the same for every setting and every optimizer. Comparisons of settings or curves are computed seed by
seed, over the seeds that both have, with a t interval over these differences. One seed gives no interval, so
nothing is decided.

**The best may be between the settings that were tried.** :func:`best` fits a parabola, in the logarithm of
the setting, through the best setting tried and its neighbours. The next settings outwards show how far off
the parabola may be. If it fits, that error is added to the interval. If it does not, the best is the best
setting tried, and the interval accounts for its being selected.

**There is one estimator of a difference**, :func:`difference`; table, answer, claims and comparisons use it.
``tests/test_coverage.py`` simulates how often the intervals contain the truth, and how wide they are.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from itertools import pairwise
from statistics import median
from typing import Any, TypeVar

import numpy as np

from optstudy.results.curves import Curve, Point

LEVEL = 0.95
"""Confidence level of every interval."""
MARGIN = 0.1
"""Nats above the best that the safe window allows."""
POOL_WINDOW = 1.0
"""Half-width, in decades, of the window around the best over which seed variances are pooled."""
WINDOWS = (1.0, 0.5)
"""Half-widths, in decades, of the windows for sensitivity; the widest one that the grids cover is used."""
SLACK = 0.02
"""Tolerance in decades, so that 3.16e-3 counts as a half-decade."""
FINEST = 0.03
"""Decades: minimum uncertainty of a best setting, since the curve's shape between settings is unknown."""
ROUGH = 0.01
"""Maximum error of a parabola, in nats, at which it still counts as fitting."""
MOST = 0.05
"""Maximum error of a parabola, in nats and including seed noise, at which it is still used."""
CONTENDS = 0.9
"""Level of the interval that decides which settings may be the best instead of the best one tried."""
UNLIKELY = 0.05
"""Significance level of the tests within an estimate: does a parabola fit, do variances differ."""

T = TypeVar("T")
Term = tuple[float, Point]
"""A weight and a point, of a weighted sum of losses."""


@dataclass(frozen=True)
class Estimate:
    """A number with its t interval over seeds, widened by errors that more seeds would not reduce."""

    value: float
    error: float | None = None
    """Standard error; None without several seeds: then there is no interval."""
    degrees: float = math.inf
    """Degrees of freedom of the standard error."""
    slack: float = 0.0
    """Added to the interval on either side, for any number of seeds."""
    choices: int = 1
    """Number of settings among which noise chose the best: the t interval is Bonferroni-corrected for it."""
    seeds: int = 1
    """Seeds of the runs compared."""

    def half(self, level: float = LEVEL) -> float | None:
        """Half the width of the interval at a level."""
        if self.error is None:
            return None
        if self.error == 0:
            return self.slack
        return student_t(self.degrees, 1 - (1 - level) / self.choices) * self.error + self.slack

    @property
    def half_width(self) -> float | None:
        """Half the width of the interval at :data:`LEVEL`; None without several seeds."""
        return self.half()

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval at :data:`LEVEL`; None without several seeds."""
        half = self.half()
        return None if half is None else (self.value - half, self.value + half)

    def beyond(self, distance: float) -> float:
        """The p-value of a number that is ``distance`` away from a threshold, on the right side.

        It is 1 minus the highest level at which the interval stays on that side; 1 if there is no such level.
        """
        if self.error is None or distance < self.slack:
            return 1.0
        if self.error == 0:
            return 0.0
        return min(1.0, self.choices * tails((distance - self.slack) / self.error, self.degrees))


@dataclass(frozen=True)
class Best:
    """Where the loss of a curve is lowest: between the settings tried, or at the best of them."""

    terms: tuple[Term, ...]
    """The loss there, as a weighted sum of losses of settings; the weights add to 1."""
    position: float
    """The position of the minimum, as :attr:`optstudy.results.curves.Point.position`."""
    fitted: bool
    """Whether it is a parabola's minimum; else it is the best setting tried."""
    slack: float = 0.0
    """Nats by which the loss may be off, for any number of seeds."""
    reach: float = 0.0
    """Decades by which the position may be off."""
    slope: tuple[Term, ...] = ()
    """Derivative of the position by each setting's loss, decades per nat; the weights add to 0."""


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


@dataclass(frozen=True)
class Summary:
    """A table's statistics of one curve; a curve that never trained has no best and nothing that needs it."""

    curve: Curve
    best: Estimate | None
    """The lowest loss, see :func:`best_loss`."""
    setting: Estimate | None
    """log10 of the best setting, see :func:`best_setting`; None if the axis is not logarithmic."""
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


def student_t(degrees: float, level: float = LEVEL) -> float:
    """Two-sided quantile of Student's t: P(|T| <= t) = level."""
    from scipy.special import stdtrit  # what scipy.stats.t.ppf calls; scipy.stats takes half a second more

    return float(stdtrit(degrees, 0.5 + level / 2))


def tails(t: float, degrees: float) -> float:
    """P(|T| > t) of Student's t."""
    from scipy.special import stdtr

    return float(2 * stdtr(degrees, -t))


def exceeds(variance: float, degrees: float, other: float, others: float) -> bool:
    """Whether a variance is significantly larger than another (F test at :data:`UNLIKELY`)."""
    from scipy.special import fdtrc

    return other == 0 < variance or (variance > 0 and fdtrc(degrees, others, variance / other) < UNLIKELY)


def mean(values: Sequence[float]) -> Estimate:
    """Mean of independent numbers with a t interval; a single number has no interval."""
    if len(values) < 2:
        return Estimate(_mean(values), seeds=len(values))
    variance, degrees = _variance([values])
    return Estimate(_mean(values), math.sqrt(variance / len(values)), degrees, seeds=len(values))


# The best


def best(curve: Curve) -> Best | None:
    """Where the loss is lowest, from a parabola in the logarithm of the setting if one fits.

    The parabola goes through the best setting tried and both its neighbours. If a neighbour diverged, or the
    next settings outwards show that no parabola fits there (as at a cliff), it goes through the best setting
    and two settings on one side. None for a curve that never trained.
    """
    if not curve.trained:
        return None
    at = curve.points.index(curve.best)
    found = [fit for first in (at - 1, at - 2, at) if (fit := _parabola(curve, first, at)) is not None]
    return found[0] if found else Best(((1.0, curve.best),), curve.best.position, False)


def _parabola(curve: Curve, first: int, at: int) -> Best | None:
    """The minimum of the parabola through the three settings from ``first`` on; ``at`` is the best one.

    None if there are no three such settings with all of the best one's seeds, if the minimum is beyond the
    best one's neighbours, or if the next settings outwards show that the parabola does not fit: its error may
    exceed :data:`ROUGH` and what seed noise explains.
    """
    last = first + 2
    if not curve.log or first < 0 or last >= len(curve.points):
        return None
    points = curve.points[first : last + 1]
    seeds = set(curve.best.by_seed)
    if any(point.diverged or not seeds <= set(point.by_seed) for point in points):
        return None
    if not first < at < last and not any(seeds <= set(point.by_seed) for point in _beyond(curve, first, at)):
        return None
    x = [point.position for point in points]
    y = [point.loss for point in points]
    bend = _divided(x, y)
    if bend <= 0:
        return None
    low = (x[0] + x[1]) / 2 - _divided(x[:2], y[:2]) / (2 * bend)
    ends = [curve.points[k].position for k in (at - 1, at + 1) if 0 <= k < len(curve.points)]
    if len(ends) < 2 or not ends[0] < low < ends[1]:
        return None
    weights = [_product(low - b for b in x if b != a) / _product(a - b for b in x if b != a) for a in x]
    terms = tuple(zip(weights, points, strict=True))
    # d low / d y: how the minimum moves with the loss of each setting.
    rates = [_product(1 / (a - b) for b in x if b != a) for a in x]
    slants = [(1 / (x[0] - x[1]) if k == 0 else 1 / (x[1] - x[0])) if k < 2 else 0.0 for k in range(3)]
    tilt = _divided(x[:2], y[:2])
    slope = tuple(
        (-(slant * bend - tilt * rate) / (2 * bend**2), point)
        for slant, rate, point in zip(slants, rates, points, strict=True)
    )
    missed = _missed(curve, first, at, bend, curve.best.loss - _sum(terms))
    return None if missed is None else Best(terms, low, True, *missed, slope)


def _missed(curve: Curve, first: int, at: int, bend: float, drop: float) -> tuple[float, float] | None:
    """The possible error of a parabola through three settings at its minimum: in nats, and in decades.

    The cubic through one more setting differs from the parabola by its third divided difference times a
    product of distances. The best is within half a spacing of the best setting tried; for a one-sided
    parabola, on the side of the cliff. There the product is at most 3/8 (one-sided: 15/8), its slope at most
    1 (23/4). Three settings alone do not suffice, except for three next to a cliff: the error is then at most
    the whole distance of the parabola's minimum below the best setting tried.

    Returns:
        None if the parabola does not fit: its error is more than seed noise explains, or too large.
    """
    last, inside = first + 2, first < at < first + 2
    outwards = [k for k, side in ((first - 1, at != first), (last + 1, at != last)) if side]
    outwards = [k for k in outwards if 0 <= k < len(curve.points) and not curve.points[k].diverged]
    x = [point.position for point in curve.points[first : last + 1]]
    spacing = (x[2] - x[0]) / 2
    slack, reach = (0.0, FINEST) if outwards else (drop, spacing / 2)
    if not outwards and (inside or not any(point.diverged for point in _beyond(curve, first, at))):
        return None
    for k in outwards:
        points = [*curve.points[first : last + 1], curve.points[k]]
        positions = [point.position for point in points]
        rates = [1 / _product(a - b for b in positions if b != a) for a in positions]
        third = _above(curve, list(zip(rates, points, strict=True)), curve.best)
        size = abs(third.value)
        most = size * spacing**3 * (3 / 8 if inside else 15 / 8)
        if most > ROUGH and (third.error is None or third.beyond(size) < UNLIKELY):
            return None
        slack = max(slack, most)
        reach = max(reach, size * spacing**2 / (2 * bend) * (1 if inside else 23 / 4))
    return None if slack > MOST else (slack, min(reach, spacing))


def _beyond(curve: Curve, first: int, at: int) -> tuple[Point, ...]:
    """The neighbour of the best setting tried that a one-sided parabola leaves out."""
    return curve.points[at - 1 : at] if at == first else curve.points[at + 1 : at + 2]


def best_loss(curve: Curve) -> Estimate | None:
    """The lowest loss, nats; None for a curve that never trained."""
    found = best(curve)
    if found is None:
        return None
    return replace(loss_of(found.terms, curve), slack=found.slack, choices=choices(curve, found))


def best_setting(curve: Curve) -> Estimate | None:
    """log10 of the setting with the lowest loss; None on other axes and for a curve that never trained."""
    found = best(curve)
    if found is None or not curve.log:
        return None
    seeds = len(curve.best.rows)
    variance, degrees = rest(curve)
    if not degrees:
        return Estimate(found.position, seeds=seeds)
    if found.fitted:
        error = math.sqrt(variance * sum(weight**2 / len(p.rows) for weight, p in found.slope))
        return Estimate(found.position, error, degrees, found.reach, seeds=seeds)
    reach = max(abs(point.position - found.position) for point in contenders(curve))
    return Estimate(found.position, 0.0, degrees, reach, seeds=seeds)


def contenders(curve: Curve, noise: Curve | None = None) -> list[Point]:
    """The settings that do not differ significantly from the best one tried, including that one."""
    return _contenders(curve) if noise is None else _contending(curve, noise)


def _contending(curve: Curve, noise: Curve | None) -> list[Point]:
    found = [curve.best]
    for point in curve.points:
        if point is not curve.best:
            gap = above(curve, point, noise)
            if gap.error is not None and gap.value <= (gap.half(CONTENDS) or 0.0):
                found.append(point)
    return found


# Differences


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
        value = _sum(terms) - _sum(others)
        return minus(loss_of(terms, curve), loss_of(others, reference), value)
    near = matched(curve, reference, own=len(differences) < 2)
    return over_seeds(differences, near, (math.nan, 0) if noise is None else _noise(*noise))


def over_seeds(
    values: Sequence[float], near: Sequence[Sequence[float]] = (), noise: tuple[float, float] = (math.nan, 0)
) -> Estimate:
    """The mean of one number per seed, with a t interval.

    Args:
        values: the number for each seed.
        near: similar numbers with the same kind of variation; their variance is pooled with that of the
            values, unless the latter is significantly larger.
        noise: variance and its degrees of freedom, used if there are no two seeds anywhere.
    """
    value, n = _mean(values), len(values)
    pooled, degrees = _variance([values, *near])
    if not degrees:
        pooled, degrees = noise
    own, few = _variance([values])
    if few and degrees > few:
        rest_of, many = _variance(near)
        if exceeds(own, few, rest_of, many):
            pooled, degrees = own, few
    if not degrees:
        return Estimate(value, seeds=n)
    return Estimate(value, math.sqrt(pooled / n), degrees, seeds=n)


def minus(one: Estimate, other: Estimate, value: float | None = None) -> Estimate:
    """The difference of two numbers from independent runs (Welch and Satterthwaite)."""
    value = one.value - other.value if value is None else value
    total = combined([(1.0, one), (-1.0, other)])
    return replace(total, value=value)


def combined(parts: Sequence[tuple[float, Estimate]]) -> Estimate:
    """A weighted sum of numbers from independent runs (Welch and Satterthwaite)."""
    value = math.fsum(weight * part.value for weight, part in parts)
    seeds = min(part.seeds for _, part in parts)
    slack = math.hypot(*(weight * part.slack for weight, part in parts))
    squares = [((weight * part.error) ** 2, part.degrees) for weight, part in parts if part.error is not None]
    if len(squares) < len(parts):
        return Estimate(value, slack=slack, seeds=seeds)
    choices = sum(part.choices for _, part in parts) - len(parts) + 1
    error, degrees = _satterthwaite(squares)
    return Estimate(value, error, degrees, slack, choices, seeds)


# Off the best


def rise_at(curve: Curve, factor: float) -> Estimate | None:
    """Loss at ``factor`` times the best setting tried, minus the loss there, interpolated over the logarithm.

    None outside the grid, if the axis is not logarithmic, and for a curve that never trained.
    """
    if not curve.log or not curve.trained:
        return None
    terms = _interpolate(curve, curve.best.position + math.log10(factor))
    return None if terms is None else _above(curve, terms, curve.best)


def covers(curve: Curve, window: float, centre: Point | None = None) -> bool:
    """Whether the grid extends ``window`` decades to both sides of the best; False if not logarithmic."""
    if not curve.log:
        return False
    at = (centre or curve.best).position
    return min(curve.points[-1].position - at, at - curve.points[0].position) >= window - SLACK


def common_window(some: Iterable[Curve]) -> float:
    """The widest of :data:`WINDOWS` over which every curve with its best inside the grid has a sensitivity.

    Otherwise the widest over which any curve has one. If none has, because the axis is not logarithmic or the
    grid is too coarse, infinite: the whole grid.
    """
    curves = [curve for curve in some if curve.trained]
    inside = [curve for curve in curves if curve.edge is None]
    if not all(curve.log for curve in curves):
        return math.inf
    for enough in (all, any):
        for window in WINDOWS:
            if inside and enough(_window(curve, window, curve.best) is not None for curve in inside):
                return window
    return math.inf if inside else WINDOWS[-1]


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
    estimate = _sensitivity(curve, inside, curve.best, noise)
    half = estimate.half()
    if half is None:
        return estimate
    ends = [half]
    for centre in contenders(curve, noise):
        around = _window(curve, window, centre)
        if around is not None:
            other = _sensitivity(curve, around, centre, noise)
            ends.append(abs(other.value - estimate.value) + (other.half() or 0.0))
    return replace(estimate, slack=estimate.slack + max(ends) - half)


def within(curve: Curve, window: float) -> list[Point] | None:
    """The points that a curve's sensitivity averages over; None if it has no sensitivity."""
    return _window(curve, window, curve.best) if curve.trained else None


def _window(curve: Curve, window: float, centre: Point) -> list[Point] | None:
    """The points that the sensitivity around a centre averages over; None if there are none."""
    inside = [p for p in curve.points if abs(p.position - centre.position) <= window + SLACK]
    at_end = inside[0] is centre or inside[-1] is centre
    if len(inside) < 2 or (math.isfinite(window) and (at_end or not covers(curve, window, centre))):
        return None
    return inside


def _sensitivity(curve: Curve, inside: Sequence[Point], centre: Point, noise: Curve | None) -> Estimate:
    return _above(curve, [(1 / len(inside), point) for point in inside], centre, noise)


def safe_window(curve: Curve, margin: float = MARGIN) -> SafeWindow | None:
    """Settings around the best one tried with loss within ``margin`` of it, by log-linear interpolation."""
    if not curve.log or len(curve.points) < 2 or not curve.trained:
        return None
    at = curve.points.index(curve.best)
    low, open_low = _crossing(curve.points[at::-1], curve.best.loss + margin)
    high, open_high = _crossing(curve.points[at:], curve.best.loss + margin)
    return SafeWindow(10**low, 10**high, high - low, open_low, open_high)


def above(curve: Curve, point: Point, noise: Curve | None = None, base: Point | None = None) -> Estimate:
    """Loss of one setting minus that of the best one tried, or of ``base``."""
    return _above(curve, [(1.0, point)], base or curve.best, noise)


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


# Seeds


def _once(function: Callable[[Curve], T]) -> Callable[[Curve], T]:
    """Cache a function of a curve on the curve object, as ``cached_property`` would."""

    @wraps(function)
    def kept(curve: Curve) -> T:
        found: dict[str, Any] = vars(curve)
        if function.__name__ not in found:
            found[function.__name__] = function(curve)
        value: T = found[function.__name__]
        return value

    return kept


@_once
def rest(curve: Curve) -> tuple[float, float]:
    """Residual variance of one run's loss beyond setting and seed effects, and its degrees of freedom.

    It is the residual of an additive model, setting plus seed, over the settings near the best that have all
    of the best one's seeds and no diverged run.
    """
    seeds = sorted(curve.best.by_seed)
    block = [
        [point.by_seed[seed] for seed in seeds]
        for point in _near(curve)
        if not point.diverged and set(seeds) <= set(point.by_seed)
    ]
    if len(seeds) < 2 or len(block) < 2:
        return _variance(map(_done, _near(curve)))
    losses = np.array(block)
    left = losses - losses.mean(0) - losses.mean(1, keepdims=True) + losses.mean()
    degrees = (len(block) - 1) * (len(seeds) - 1)
    return float((left**2).sum()) / degrees, degrees


@_once
def spread(curve: Curve) -> tuple[float, float]:
    """Variance of one run's loss over seeds, pooled over settings near the best, and its degrees of freedom.

    Settings share their seeds, so their variances are correlated: the degrees are divided by the design
    effect 1 + (m - 1) r of m settings with correlation r.
    """
    some = [losses for losses in map(_done, _near(curve)) if len(losses) > 1]
    variance, degrees = _variance(some)
    if not degrees:
        return variance, 0
    left, _ = rest(curve)
    shared = min(1.0, max(0.0, 1 - left / variance)) if variance else 1.0
    return variance, degrees / (1 + (len(some) - 1) * shared)


def _done(point: Point) -> list[float]:
    return [row.loss for row in point.rows if row.state == "done"]


@_once
def _contenders(curve: Curve) -> list[Point]:
    return _contending(curve, None)


def _above(curve: Curve, terms: Sequence[Term], base: Point, noise: Curve | None = None) -> Estimate:
    """A weighted sum of losses minus that of one point, each over the seeds that both have.

    A setting with diverged runs shares no seed effect with the point, and has a separate variance.
    """
    variance, degrees = rest(curve)
    whole, shared = spread(curve)
    if not degrees and noise is not None:
        (variance, degrees), (whole, shared) = rest(noise), spread(noise)
    value, lost = 0.0, 0.0
    weights: dict[tuple[float, int], float] = {}
    parts: list[tuple[float, float]] = []
    for weight, point in terms:
        if point is base:
            continue
        common = [seed for seed in point.by_seed if seed in base.by_seed]
        if point.diverged or not common:
            value += weight * (point.loss - base.loss)
            lost += weight
            square, few = _variance([list(point.by_seed.values())])
            parts += [(weight**2 * square / len(point.rows), few)] if few else []
            continue
        for seed in common:
            value += weight * (point.by_seed[seed] - base.by_seed[seed]) / len(common)
            for where, sign in ((point, 1), (base, -1)):
                key = where.position, seed
                weights[key] = weights.get(key, 0.0) + sign * weight / len(common)
    seeds = len(base.rows)
    if not degrees:
        return Estimate(value, seeds=seeds)
    for seed in base.by_seed if lost else ():
        weights[base.position, seed] = weights.get((base.position, seed), 0.0) - lost / seeds
    parts += [(variance * math.fsum(weight**2 for weight in weights.values()), degrees)]
    parts += [(lost**2 * max(0.0, whole - variance) / seeds, shared)]
    return Estimate(value, *_satterthwaite(parts), seeds=seeds)


def _satterthwaite(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Standard error of a sum of independent parts, and its degrees of freedom.

    Args:
        parts: variance and degrees of freedom of each.
    """
    total = math.fsum(square for square, _ in parts)
    below = math.fsum(square**2 / degrees for square, degrees in parts if square)
    return math.sqrt(total), total**2 / below if below else math.inf


def loss_of(terms: Sequence[Term], curve: Curve) -> Estimate:
    """A weighted sum of losses of one curve over its seeds; the weights add to 1."""
    values = list(by_seed(terms).values()) or [_sum(terms)]
    variance, degrees = spread(curve)
    own, few = _variance([values])
    if few and degrees and exceeds(own, few, variance, degrees):
        variance, degrees = own, few
    if not degrees:
        return Estimate(_mean(values), seeds=len(values))
    return Estimate(_mean(values), math.sqrt(variance / len(values)), degrees, seeds=len(values))


def choices(curve: Curve, found: Best) -> int:
    """Number of settings among which noise chose the best; a parabola's three settings count as one."""
    return max(1, len(contenders(curve)) - (2 if found.fitted else 0))


def matched(one: Curve, other: Curve, own: bool = False) -> list[list[float]]:
    """Differences between settings equally far from both bests, by seed; ``own``: including the bests."""
    found = []
    for point in _near(one):
        offset = point.position - one.best.position
        for twin in other.points:
            if abs(twin.position - other.best.position - offset) > SLACK or (point is one.best and not own):
                continue
            if not (point.diverged or twin.diverged):
                found.append(
                    [loss - twin.by_seed[s] for s, loss in point.by_seed.items() if s in twin.by_seed]
                )
    return [differences for differences in found if len(differences) > 1]


def _noise(one: Curve, other: Curve) -> tuple[float, float]:
    """Variance of one seed's difference between two curves; of a curve with itself, as if unpaired."""
    if one is other:
        variance, degrees = spread(one)
        return 2 * variance, degrees
    return _variance(matched(one, other, own=True))


def _near(curve: Curve) -> list[Point]:
    """Points used for the variance over seeds: those near the best; all if the axis is not logarithmic."""
    if not curve.log:
        return list(curve.points)
    return [p for p in curve.points if abs(p.position - curve.best.position) <= POOL_WINDOW + SLACK]


def by_seed(terms: Sequence[Term]) -> dict[int, float]:
    """A weighted sum of losses, for each seed that all its points have."""
    first, *others = (point.by_seed for _, point in terms)
    common = [seed for seed in first if all(seed in other for other in others)]
    return {s: math.fsum(weight * point.by_seed[s] for weight, point in terms) for s in common}


def _variance(samples: Iterable[Sequence[float]]) -> tuple[float, float]:
    """Variance pooled over samples, and its degrees of freedom."""
    squares, degrees = 0.0, 0.0
    for sample in samples:
        if len(sample) > 1:
            centre = _mean(sample)
            squares += math.fsum((x - centre) ** 2 for x in sample)
            degrees += len(sample) - 1
    return (squares / degrees, degrees) if degrees else (math.nan, 0)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _sum(terms: Iterable[Term]) -> float:
    return math.fsum(weight * point.loss for weight, point in terms)


def _divided(x: Sequence[float], y: Sequence[float]) -> float:
    """Newton's divided difference: the leading coefficient of the polynomial through the points."""
    return math.fsum(here / _product(a - b for b in x if b != a) for a, here in zip(x, y, strict=True))


def _product(factors: Iterable[float]) -> float:
    return math.prod(factors)


def _interpolate(curve: Curve, position: float) -> list[Term] | None:
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
