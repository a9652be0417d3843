"""Where the loss of a curve is lowest, and which other settings may be the best. No torch.

The lowest point may be between the settings that were tried. :func:`best` fits a parabola, in the logarithm
of the setting, through the best setting tried and its neighbours. The next settings outwards show how far
off the parabola may be. If it fits, that error is added to the interval. If it does not, the best is the
best setting tried, and the interval accounts for its being selected.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from optstudy.results.curves import Curve, Point
from optstudy.results.estimate import UNLIKELY, Estimate
from optstudy.results.noise import Term, above, loss_of, once, rest, total

FINEST = 0.03
"""Decades: minimum uncertainty of a best setting, since the curve's shape between settings is unknown."""
ROUGH = 0.01
"""Maximum error of a parabola, in nats, at which it still counts as fitting."""
MOST = 0.05
"""Maximum error of a parabola, in nats and including seed noise, at which it is still used."""
CONTENDS = 0.9
"""Level of the interval that decides which settings may be the best instead of the best one tried."""


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


def best(curve: Curve) -> Best | None:
    """Where the loss is lowest, from a parabola in the logarithm of the setting if one fits.

    The parabola goes through the best setting tried and both its neighbours. If a neighbour diverged, or the
    next settings outwards show that no parabola fits there (as at a cliff), it goes through the best setting
    and two settings on one side. None for a curve that never trained.
    """
    if not curve.trained:
        return None
    at = curve.points.index(curve.best)
    for first in (at - 1, at - 2, at):
        if (found := _parabola(curve, first, at)) is not None:
            return found
    return Best(((1.0, curve.best),), curve.best.position, False)


def _parabola(curve: Curve, first: int, at: int) -> Best | None:
    """The minimum of the parabola through the three settings from ``first`` on; ``at`` is the best one.

    None if there are no three such settings with all of the best one's seeds, if the minimum is beyond the
    best one's neighbours, or if the next settings outwards show that the parabola does not fit: its error may
    exceed :data:`ROUGH` and what seed noise explains.
    """
    last = first + 2
    if not curve.log or first < 0 or last >= len(curve.points) or not 0 < at < len(curve.points) - 1:
        return None
    points = curve.points[first : last + 1]
    seeds = set(curve.best.by_seed)
    if any(point.diverged or not seeds <= set(point.by_seed) for point in points):
        return None
    if not first < at < last and not seeds <= set(_left_out(curve, first, at).by_seed):
        return None
    x = [point.position for point in points]
    y = [point.loss for point in points]
    tilt, bend = _divided(x[:2], y[:2]), _divided(x, y)
    if bend <= 0:
        return None
    low = (x[0] + x[1]) / 2 - tilt / (2 * bend)
    if not curve.points[at - 1].position < low < curve.points[at + 1].position:
        return None
    weights = [math.prod(low - b for b in x if b != a) / math.prod(a - b for b in x if b != a) for a in x]
    terms = tuple(zip(weights, points, strict=True))
    error = _error(curve, first, at, bend, curve.best.loss - total(terms))
    if error is None:
        return None
    tilts = (1 / (x[0] - x[1]), 1 / (x[1] - x[0]), 0.0)
    bends = [math.prod(1 / (a - b) for b in x if b != a) for a in x]
    slope = tuple(
        (-(of_tilt * bend - tilt * of_bend) / (2 * bend**2), point)  # d low / d y of this setting
        for of_tilt, of_bend, point in zip(tilts, bends, points, strict=True)
    )
    return Best(terms, low, True, *error, slope)


def _error(curve: Curve, first: int, at: int, bend: float, drop: float) -> tuple[float, float] | None:
    """The possible error of a parabola through three settings at its minimum: in nats, and in decades.

    The cubic through one more setting differs from the parabola by its third divided difference times a
    product of distances. The best is within half a spacing of the best setting tried; for a one-sided
    parabola, on the side of the cliff. There the product is at most 3/8 (one-sided: 15/8), its slope at most
    1 (23/4). Three settings alone do not suffice, except for three next to a cliff: the error is then at most
    the whole distance of the parabola's minimum below the best setting tried.

    Args:
        first: index of the first of the three settings.
        at: index of the best setting tried.
        bend: the parabola's leading coefficient.
        drop: nats by which its minimum is below the best setting tried.

    Returns:
        None if the parabola does not fit: its error is more than seed noise explains, or too large.
    """
    last, inside = first + 2, first < at < first + 2
    outwards = [k for k, side in ((first - 1, at != first), (last + 1, at != last)) if side]
    outwards = [k for k in outwards if 0 <= k < len(curve.points) and not curve.points[k].diverged]
    spacing = (curve.points[last].position - curve.points[first].position) / 2
    slack, reach = (0.0, FINEST) if outwards else (drop, spacing / 2)
    if not outwards and (inside or not _left_out(curve, first, at).diverged):
        return None
    for k in outwards:
        points = [*curve.points[first : last + 1], curve.points[k]]
        positions = [point.position for point in points]
        rates = [1 / math.prod(a - b for b in positions if b != a) for a in positions]
        third = above(curve, list(zip(rates, points, strict=True)))
        size = abs(third.value)
        most = size * spacing**3 * (3 / 8 if inside else 15 / 8)
        if most > ROUGH and (third.error is None or third.beyond(size) < UNLIKELY):
            return None
        slack = max(slack, most)
        reach = max(reach, size * spacing**2 / (2 * bend) * (1 if inside else 23 / 4))
    return None if slack > MOST else (slack, min(reach, spacing))


def _left_out(curve: Curve, first: int, at: int) -> Point:
    """The neighbour of the best setting tried that a one-sided parabola from ``first`` on leaves out."""
    return curve.points[at - 1 if at == first else at + 1]


def _divided(x: Sequence[float], y: Sequence[float]) -> float:
    """Newton's divided difference: the leading coefficient of the polynomial through the points."""
    return math.fsum(here / math.prod(a - b for b in x if b != a) for a, here in zip(x, y, strict=True))


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


def choices(curve: Curve, found: Best) -> int:
    """Number of settings among which noise chose the best; a parabola's three settings count as one."""
    return max(1, len(contenders(curve)) - (2 if found.fitted else 0))


def contenders(curve: Curve, noise: Curve | None = None) -> list[Point]:
    """The settings that do not differ significantly from the best one tried, including that one."""
    return _contenders(curve) if noise is None else _contending(curve, noise)


@once
def _contenders(curve: Curve) -> list[Point]:
    return _contending(curve, None)


def _contending(curve: Curve, noise: Curve | None) -> list[Point]:
    found = [curve.best]
    for point in curve.points:
        if point is not curve.best:
            gap = above(curve, [(1.0, point)], noise=noise)
            if gap.error is not None and gap.value <= (gap.half(CONTENDS) or 0.0):
                found.append(point)
    return found
