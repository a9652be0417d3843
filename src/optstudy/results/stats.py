"""Best loss, best setting, differences, sensitivity and safe window, with intervals over seeds. No torch.

Loss is :attr:`optstudy.results.table.Row.loss` in nats per token. A diverged run counts as the loss before
training.

**Seeds are paired.** Runs of one seed share initial weights and batches, so most of what a seed does to the
loss it does to every setting and every optimizer alike. Whatever compares settings or curves is computed seed
by seed, over the seeds that both have, and its interval is a t interval over these numbers. One seed gives no
interval: nothing is decided.

**The best may lie between the settings that were tried.** :func:`best` fits a parabola in the logarithm of
the setting through the best setting tried and its neighbours. The next settings outwards tell what a parabola
may miss: where it fits, that is added to the interval; where it does not, the best is that of the settings
tried, and its interval includes that it was chosen from them.

**There is one estimator of a difference**, :func:`difference`; table, answer, claims and comparisons use it.
``tests/test_coverage.py`` simulates how often the intervals hold the truth, and how wide they are.
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
"""Coverage of every interval."""
MARGIN = 0.1
"""Nats above the best that the safe window may cost."""
POOL_WINDOW = 1.0
"""Half-width in decades of the window around the best whose seed variances are pooled."""
WINDOWS = (1.0, 0.5)
"""Half-widths in decades that sensitivity is taken over, the widest that the grids cover first."""
SLACK = 0.02
"""Decades by which 3.16e-3 may miss a half-decade."""
FINEST = 0.03
"""Decades: no best setting is told more finely, as the shape between settings is not known so well."""
ROUGH = 0.01
"""Nats by which a parabola may be off and still be said to fit."""
MOST = 0.05
"""Nats by which a parabola may be off, seeds included, and still be used."""
CONTENDS = 0.9
"""Level of the interval by which other settings contend with the best one tried for being the best."""
UNLIKELY = 0.05
"""Significance of the tests within an estimate: whether a parabola fits, whether variances differ."""

T = TypeVar("T")
Term = tuple[float, Point]
"""A weight and a point, of a weighted sum of losses."""


@dataclass(frozen=True)
class Estimate:
    """A number with its interval: a t interval over seeds, widened by what more seeds would not tell."""

    value: float
    error: float | None = None
    """Standard error; None where there are no seeds to take it from: then there is no interval."""
    degrees: float = math.inf
    """Degrees of freedom of the standard error."""
    slack: float = 0.0
    """What the interval is wider by on either side, whatever the number of seeds."""
    choices: int = 1
    """Settings among which the best was chosen by chance: the t interval is Bonferroni's for so many."""
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
        """Half the width of the interval at :data:`LEVEL`; None without seeds."""
        return self.half()

    @property
    def interval(self) -> tuple[float, float] | None:
        """Its ends at :data:`LEVEL`; None without seeds."""
        half = self.half()
        return None if half is None else (self.value - half, self.value + half)

    def beyond(self, distance: float) -> float:
        """The p-value of a number that lies ``distance`` on the right side of a threshold.

        It is 1 minus the highest level at which the interval stays on that side; 1 where none does.
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
    """The loss there as a weighted sum of losses of settings; the weights add to 1."""
    position: float
    """Where, as :attr:`optstudy.results.curves.Point.position`."""
    fitted: bool
    """A parabola's; else the best setting tried."""
    slack: float = 0.0
    """Nats by which the loss may be off, whatever the number of seeds."""
    reach: float = 0.0
    """The same of the position, decades."""
    slope: tuple[Term, ...] = ()
    """The position's change with the losses of settings, decades per nat; the weights add to 0."""


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
    """What a table says of one curve; of one that never trained there is no best and what depends on it."""

    curve: Curve
    best: Estimate | None
    """The lowest loss, see :func:`best_loss`."""
    setting: Estimate | None
    """log10 of where it is, see :func:`best_setting`; None where the axis is not logarithmic."""
    fitted: bool
    """The best is a parabola's; else that of the best setting tried."""
    lower: Estimate | None
    """Loss above the best setting tried at a third of it; None outside the grid."""
    higher: Estimate | None
    """The same at three times the best setting."""
    sensitivity: Estimate | None
    """E[min(l, l0) - l*] over the window; None where the grid does not cover it."""
    window: float
    """Half-width of that window, decades; infinite: the whole grid."""
    safe: SafeWindow | None
    state_bytes: float | None
    """Optimizer state, bytes per parameter; None where no run reported it."""
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
        """The best setting: the parabola's to three digits, else the best one tried."""
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
    """Mean of independent numbers with a t interval; none with a single one."""
    if len(values) < 2:
        return Estimate(_mean(values), seeds=len(values))
    variance, degrees = _variance([values])
    return Estimate(_mean(values), math.sqrt(variance / len(values)), degrees, seeds=len(values))


# The best


def best(curve: Curve) -> Best | None:
    """Where the loss is lowest: by a parabola in the logarithm of the setting where one fits.

    The parabola goes through the best setting tried and both its neighbours; where a neighbour is lost or the
    next settings outwards show that no parabola fits there, as at a cliff, through the best and two settings
    on one side. None for a curve that never trained.
    """
    if not curve.trained:
        return None
    at = curve.points.index(curve.best)
    found = [fit for first in (at - 1, at - 2, at) if (fit := _parabola(curve, first, at)) is not None]
    return found[0] if found else Best(((1.0, curve.best),), curve.best.position, False)


def _parabola(curve: Curve, first: int, at: int) -> Best | None:
    """The lowest point of the parabola through three settings from ``first`` on, of which ``at`` is the best.

    None where there are not three such settings with the best one's seeds, where the parabola is lowest
    beyond the best one's neighbours, and where the next settings outwards show that it does not fit: it may
    be off by more than :data:`ROUGH`, and by more than seeds explain.
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
    # d low / d y: how the lowest point moves with the loss of each setting.
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
    """What a parabola through three settings may be off by at its lowest point: nats, and decades.

    The cubic through one setting more differs from the parabola by its third divided difference times a
    product of distances. The best lies within half a spacing of the best setting tried, on the side of the
    cliff for a parabola of one side: there the product is at most 3/8 or 15/8, its slope at most 1 or 23/4.
    Three settings alone are not enough, but for those before a cliff: what their parabola may be off by is
    then all that it lies below the best setting tried.

    Returns:
        None where the parabola does not fit: it is off by more than seeds explain, or by too much to be used.
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
    """The neighbour of the best setting tried that a parabola of one side leaves out."""
    return curve.points[at - 1 : at] if at == first else curve.points[at + 1 : at + 2]


def best_loss(curve: Curve) -> Estimate | None:
    """The lowest loss, nats; None for a curve that never trained."""
    found = best(curve)
    if found is None:
        return None
    return replace(loss_of(found.terms, curve), slack=found.slack, choices=choices(curve, found))


def best_setting(curve: Curve) -> Estimate | None:
    """log10 of the setting with the lowest loss; None for other axes and for a curve that never trained."""
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
    """The settings that cannot be told from the best one tried, that one included."""
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
    """How much worse the best of ``curve`` is than that of ``reference``, nats.

    Args:
        noise: curves of the same two optimizers with several seeds, for two that have one.

    Returns:
        None where one of them never trained.
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
    from both bests, unless it is significantly larger. Without a common seed the two are taken to be
    independent.

    Args:
        terms: of points of ``curve``; the weights of either add to 1.
        others: of points of ``reference``.
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
    """The mean of one number a seed, with a t interval.

    Args:
        values: of each seed.
        near: the same of numbers that vary alike: their variance is pooled with that of the values, unless
            that is significantly larger.
        noise: variance and its degrees of freedom, where there are no two seeds anywhere.
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
    """Loss above the best setting tried at ``factor`` times it, interpolated over the logarithm.

    None off the grid, on an axis that is not logarithmic, and for a curve that never trained.
    """
    if not curve.log or not curve.trained:
        return None
    terms = _interpolate(curve, curve.best.position + math.log10(factor))
    return None if terms is None else _above(curve, terms, curve.best)


def covers(curve: Curve, window: float, centre: Point | None = None) -> bool:
    """Whether the grid reaches ``window`` decades to both sides of the best; False without decades."""
    if not curve.log:
        return False
    at = (centre or curve.best).position
    return min(curve.points[-1].position - at, at - curve.points[0].position) >= window - SLACK


def common_window(some: Iterable[Curve]) -> float:
    """The widest of :data:`WINDOWS` over which every curve with its best inside the grid has a sensitivity.

    Else the widest over which one has; infinite, the whole grid, where none has because the axis is not
    logarithmic or the grid is coarser than the windows.
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
    tried, all of them for an infinite window. Where other settings cannot be told from the best, the interval
    spans the sensitivities around each.

    Args:
        window: half-width in decades.
        noise: a curve of the same optimizer with several seeds, for one that has a single seed.

    Returns:
        None for a single point, where the grid does not reach as far as a finite window to both sides or has
        no other point there, and for a curve that never trained.
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
    """The points that a curve's sensitivity is the mean over; None where it has none."""
    return _window(curve, window, curve.best) if curve.trained else None


def _window(curve: Curve, window: float, centre: Point) -> list[Point] | None:
    """The points that the sensitivity around one is the mean over; None where there is none."""
    inside = [p for p in curve.points if abs(p.position - centre.position) <= window + SLACK]
    at_end = inside[0] is centre or inside[-1] is centre
    if len(inside) < 2 or (math.isfinite(window) and (at_end or not covers(curve, window, centre))):
        return None
    return inside


def _sensitivity(curve: Curve, inside: Sequence[Point], centre: Point, noise: Curve | None) -> Estimate:
    return _above(curve, [(1 / len(inside), point) for point in inside], centre, noise)


def safe_window(curve: Curve, margin: float = MARGIN) -> SafeWindow | None:
    """Settings around the best one tried with loss within ``margin`` of it, log-linearly interpolated."""
    if not curve.log or len(curve.points) < 2 or not curve.trained:
        return None
    at = curve.points.index(curve.best)
    low, open_low = _crossing(curve.points[at::-1], curve.best.loss + margin)
    high, open_high = _crossing(curve.points[at:], curve.best.loss + margin)
    return SafeWindow(10**low, 10**high, high - low, open_low, open_high)


def above(curve: Curve, point: Point, noise: Curve | None = None, base: Point | None = None) -> Estimate:
    """Loss of one setting above that of the best one tried, or of another."""
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
    """Compute once what is asked of every point of a curve; keep it with the curve, as a property would."""

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
    """Variance of one run's loss that is neither its setting's nor its seed's, and its degrees of freedom.

    From the settings near the best that have all of the best one's seeds, without diverged runs: what a model
    of setting plus seed leaves over.
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
    """A weighted sum of losses above that of one point, each over the seeds that both have.

    A setting at which runs diverged shares no seed's effect with the point, and has a variance of its own.
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
    """Settings that the best was chosen from by chance; a parabola takes three of them together."""
    return max(1, len(contenders(curve)) - (2 if found.fitted else 0))


def matched(one: Curve, other: Curve, own: bool = False) -> list[list[float]]:
    """Differences between settings equally far from both bests, by seed; ``own``: between the bests too."""
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
    """Variance of one seed's difference between two curves; of a curve twice, as if seeds were not paired."""
    if one is other:
        variance, degrees = spread(one)
        return 2 * variance, degrees
    return _variance(matched(one, other, own=True))


def _near(curve: Curve) -> list[Point]:
    """The points whose seeds tell how much seeds matter: those near the best, all without decades."""
    if not curve.log:
        return list(curve.points)
    return [p for p in curve.points if abs(p.position - curve.best.position) <= POOL_WINDOW + SLACK]


def by_seed(terms: Sequence[Term]) -> dict[int, float]:
    """A weighted sum of losses for each seed that all its points have."""
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
