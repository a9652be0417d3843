"""What seeds do to the losses of one curve, and weighted sums of its losses. No torch.

Runs of one seed share initial weights and batches, so most of a seed's effect on the loss is the same for
every setting. :func:`spread` is the variance of one run's loss, :func:`rest` the part of it that runs of one
seed do not share.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import wraps
from statistics import fmean
from typing import Any, TypeVar

import numpy as np

from optstudy.results.curves import Curve, Point
from optstudy.results.estimate import Estimate, Variance, exceeds, mean_of, pooled, satterthwaite

POOL_WINDOW = 1.0
"""Half-width, in decades, of the window around the best over which seed variances are pooled."""
SLACK = 0.02
"""Tolerance in decades, so that 3.16e-3 counts as a half-decade."""

T = TypeVar("T")
Term = tuple[float, Point]
"""A weight and a point, of a weighted sum of losses."""


def once(function: Callable[[Curve], T]) -> Callable[[Curve], T]:
    """Cache a function of a curve on the curve object, as ``cached_property`` would."""

    @wraps(function)
    def kept(curve: Curve) -> T:
        found: dict[str, Any] = vars(curve)
        if function.__name__ not in found:
            found[function.__name__] = function(curve)
        value: T = found[function.__name__]
        return value

    return kept


@once
def rest(curve: Curve) -> Variance:
    """Residual variance of one run's loss beyond setting and seed effects.

    It is the residual of an additive model, setting plus seed, over the settings near the best that have all
    of the best one's seeds and no diverged run.
    """
    seeds = sorted(curve.best.by_seed)
    block = [
        [point.by_seed[seed] for seed in seeds]
        for point in near(curve)
        if not point.diverged and set(seeds) <= set(point.by_seed)
    ]
    if len(seeds) < 2 or len(block) < 2:
        return pooled(map(_done, near(curve)))
    losses = np.array(block)
    left = losses - losses.mean(0) - losses.mean(1, keepdims=True) + losses.mean()
    degrees = (len(block) - 1) * (len(seeds) - 1)
    return Variance(float((left**2).sum()) / degrees, degrees)


@once
def spread(curve: Curve) -> Variance:
    """Variance of one run's loss over seeds, pooled over settings near the best.

    Settings share their seeds, so their variances are correlated: the degrees are divided by the design
    effect 1 + (m - 1) r of m settings with correlation r.
    """
    samples = [losses for losses in map(_done, near(curve)) if len(losses) > 1]
    variance = pooled(samples)
    if not variance.degrees:
        return variance
    shared = min(1.0, max(0.0, 1 - rest(curve).value / variance.value)) if variance.value else 1.0
    return Variance(variance.value, variance.degrees / (1 + (len(samples) - 1) * shared))


def near(curve: Curve) -> list[Point]:
    """Points used for the variance over seeds: those near the best; all if the axis is not logarithmic."""
    if not curve.log:
        return list(curve.points)
    return [p for p in curve.points if abs(p.position - curve.best.position) <= POOL_WINDOW + SLACK]


def _done(point: Point) -> list[float]:
    return [row.loss for row in point.rows if row.state == "done"]


def total(terms: Sequence[Term]) -> float:
    """A weighted sum of losses, each the mean over its seeds."""
    return math.fsum(weight * point.loss for weight, point in terms)


def by_seed(terms: Sequence[Term]) -> dict[int, float]:
    """A weighted sum of losses, for each seed that all its points have."""
    first, *others = (point.by_seed for _, point in terms)
    common = [seed for seed in first if all(seed in other for other in others)]
    return {s: math.fsum(weight * point.by_seed[s] for weight, point in terms) for s in common}


def loss_of(terms: Sequence[Term], curve: Curve) -> Estimate:
    """A weighted sum of losses of one curve over its seeds; the weights add to 1."""
    values = list(by_seed(terms).values()) or [total(terms)]
    variance, own = spread(curve), pooled([values])
    if own.degrees and variance.degrees and exceeds(own, variance):
        variance = own
    return mean_of(fmean(values), variance, len(values))


def above(
    curve: Curve, terms: Sequence[Term], base: Point | None = None, noise: Curve | None = None
) -> Estimate:
    """A weighted sum of losses, minus the sum of the weights times the loss of one point.

    Each term is compared with the point over the seeds that both have. A setting with diverged runs shares no
    seed effect with the point, and has a separate variance.

    Args:
        base: the point; None: the best one tried.
        noise: a curve of the same optimizer with several seeds, if this one has a single seed.
    """
    base = base or curve.best
    own, whole = rest(curve), spread(curve)
    if not own.degrees and noise is not None:
        own, whole = rest(noise), spread(noise)
    value, lost = 0.0, 0.0
    weights: defaultdict[tuple[float, int], float] = defaultdict(float)  # of each run, by position and seed
    parts: list[Variance] = []
    for weight, point in terms:
        if point is base:
            continue
        common = [seed for seed in point.by_seed if seed in base.by_seed]
        if point.diverged or not common:
            value += weight * (point.loss - base.loss)
            lost += weight
            square, degrees = pooled([list(point.by_seed.values())])
            parts += [Variance(weight**2 * square / len(point.rows), degrees)] if degrees else []
            continue
        for seed in common:
            value += weight * (point.by_seed[seed] - base.by_seed[seed]) / len(common)
            weights[point.position, seed] += weight / len(common)
            weights[base.position, seed] -= weight / len(common)
    seeds = len(base.rows)
    if not own.degrees:
        return Estimate(value, seeds=seeds)
    for seed in base.by_seed if lost else ():
        weights[base.position, seed] -= lost / seeds
    squares = math.fsum(weight**2 for weight in weights.values())
    parts += [Variance(own.value * squares, own.degrees)]
    parts += [Variance(lost**2 * max(0.0, whole.value - own.value) / seeds, whole.degrees)]
    return Estimate(value, *satterthwaite(parts), seeds=seeds)
