"""What claims are judged by: curves of finished sweeps, and numbers with intervals taken from them. No torch.

Every number is a weighted sum of mean losses of settings. Where it compares two bests whose runs share seeds,
it is the mean of the seed-matched differences; its t interval pools the variance of such differences over the
settings within :data:`optstudy.stats.POOL_WINDOW` decades of the bests. Otherwise the variance of one run is
pooled over all settings near the bests that have several seeds. An interval takes the choice of the best as
given.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from optstudy import stats
from optstudy.curves import Curve, Point
from optstudy.labels import in_panel, is_curve
from optstudy.stats import Term


class Missing(Exception):
    """What a claim needs and there is not, in words."""


@dataclass(frozen=True)
class Figure:
    """The finished part of one study."""

    curves: Mapping[str, Curve]
    """By label, ``PANEL / CURVE`` where there are panels."""
    incomplete: frozenset[str] = frozenset()
    """Labels of curves of which runs are missing."""
    effective: Sequence[Mapping[str, Any]] = ()
    """Effective learning rates over the best run: rows of ``step`` and ``effective_lr``, by role."""


Load = Callable[[str], Figure]
"""A study's name -> its figure."""


@dataclass(frozen=True)
class Of:
    """A curve by where it is found."""

    study: str
    curve: str
    panel: str | None = None
    """Which panel; None, or one not run at this scale: the first that has the curve."""
    noise: "Of | None" = None
    """A curve of the same optimizer with several seeds, where this one has a single seed throughout."""
    least: float = -math.inf
    most: float = math.inf
    """Only settings in this range."""


@dataclass(frozen=True)
class Measured:
    """A number, its interval (None without seeds to take it from) and the seeds of the settings compared."""

    value: float
    low: float | None
    high: float | None
    seeds: int


@dataclass
class Evidence:
    """The figures that claims look at, each read once."""

    load: Load
    _figures: dict[str, Figure] = field(default_factory=dict)

    def figure(self, study: str) -> Figure:
        """Return a study's figure."""
        if study not in self._figures:
            self._figures[study] = self.load(study)
        return self._figures[study]

    def curve(self, of: Of) -> Curve:
        """Return a complete curve.

        Raises:
            Missing: none of that name, or runs of it are missing.
        """
        figure = self.figure(of.study)
        labels = [*figure.curves, *figure.incomplete]
        ends = [label for label in labels if is_curve(label, of.curve)]
        here = [label for label in ends if in_panel(label, of.panel)]
        label = next(iter(here or ends), None)
        if label is None or label in figure.incomplete:
            raise Missing(f"runs of {of.study} {of.curve}")
        curve = figure.curves[label]
        if (of.least, of.most) == (-math.inf, math.inf):
            return curve
        inside = tuple(p for p in curve.points if of.least <= p.x <= of.most)
        if not inside:
            raise Missing(f"settings of {of.study} {of.curve} in that range")
        return Curve(curve.label, inside, curve.log)

    def noise(self, *some: Of) -> list[Curve]:
        """Return further curves to take seed variance from, for those that have no seeds of their own."""
        found = []
        for of in some:
            if of.noise is not None and all(len(p.rows) < 2 for p in self.curve(of).points):
                found.append(self.curve(of.noise))
        return found


@dataclass(frozen=True)
class Pair:
    """Two curves side by side."""

    one: Curve
    other: Curve
    noise: Sequence[Curve] = ()

    def best(self) -> Measured:
        """Best loss of the one above that of the other, nats."""
        matched = _matched(self.one.best, self.other.best)
        variance, degrees = self._matched_variance
        if matched and degrees:
            half = stats.student_t(degrees) * math.sqrt(variance / len(matched))
            value = math.fsum(matched) / len(matched)
            return Measured(value, value - half, value + half, len(matched))
        return self.sum([(1.0, self.one.best), (-1.0, self.other.best)])

    def sensitivity(self, whole: bool = False) -> Measured:
        """Sensitivity of the one above that of the other, over the widest window that both have.

        Args:
            whole: over all settings of each curve.

        Raises:
            Missing: a best lies at the edge of its grid.
        """
        for window in (math.inf,) if whole else stats.WINDOWS:
            mine = stats.sensitivity_terms(self.one, window)
            theirs = stats.sensitivity_terms(self.other, window)
            if mine and theirs:
                return self.sum([*mine, *((-weight, point) for weight, point in theirs)])
        raise Missing(f"a window around the bests of {self.one.label} and {self.other.label}")

    def sum(self, terms: Sequence[Term]) -> Measured:
        """A weighted sum of mean losses of points of both."""
        return measure(terms, [self.one, self.other, *self.noise])

    @cached_property
    def _matched_variance(self) -> tuple[float, int]:
        """Variance of one seed-matched difference, pooled over settings equally far from each best."""
        squares, degrees = 0.0, 0
        for point in self.one.points:
            offset = point.position - self.one.best.position
            if self.one.log and abs(offset) > stats.POOL_WINDOW + stats.SLACK:
                continue
            for twin in self.other.points:
                if abs(twin.position - self.other.best.position - offset) <= stats.SLACK:
                    found = _matched(point, twin)
                    if len(found) > 1:
                        mean = math.fsum(found) / len(found)
                        squares += math.fsum((d - mean) ** 2 for d in found)
                        degrees += len(found) - 1
        return (squares / degrees, degrees) if degrees else (math.nan, 0)


def measure(terms: Sequence[Term], curves: Sequence[Curve]) -> Measured:
    """Return a weighted sum of mean losses, its interval from the seed variance of ``curves``."""
    distinct = list({id(curve): curve for curve in curves}.values())
    estimate = stats.contrast(terms, *distinct)
    seeds = max((len(p.rows) for _, p in terms), default=0)
    if estimate.half_width is None:
        return Measured(estimate.value, None, None, seeds)
    half = estimate.half_width
    return Measured(estimate.value, estimate.value - half, estimate.value + half, seeds)


def best_settings(curve: Curve, noise: Sequence[Curve] = ()) -> tuple[float, float] | None:
    """Lowest and highest position whose loss cannot be told from the best; None without seeds."""
    found = [curve.best.position]
    for point in curve.points:
        if point is not curve.best:
            above = measure([(1.0, point), (-1.0, curve.best)], [curve, *noise])
            if above.low is None:
                return None
            if above.low <= 0:
                found.append(point.position)
    return min(found), max(found)


def _matched(point: Point, twin: Point) -> list[float]:
    """Differences of finished runs with the same seed."""
    losses = {row.seed: row.loss for row in twin.rows if row.state == "done"}
    return [r.loss - losses[r.seed] for r in point.rows if r.state == "done" and r.seed in losses]
