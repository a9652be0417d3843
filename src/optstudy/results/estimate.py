"""Numbers with t intervals, and means and sums of such numbers. No torch."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

LEVEL = 0.95
"""Confidence level of every interval."""
UNLIKELY = 0.05
"""Significance level of the tests within an estimate: does a parabola fit, do variances differ."""


class Variance(NamedTuple):
    """An estimated variance."""

    value: float
    degrees: float
    """Degrees of freedom; 0 if it is unknown."""


UNKNOWN = Variance(math.nan, 0)


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
        """Half the width of the interval at a level; None without several seeds."""
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


def student_t(degrees: float, level: float = LEVEL) -> float:
    """Two-sided quantile of Student's t: P(|T| <= t) = level."""
    from scipy.special import stdtrit  # what scipy.stats.t.ppf calls; scipy.stats takes half a second more

    return float(stdtrit(degrees, 0.5 + level / 2))


def tails(t: float, degrees: float) -> float:
    """P(|T| > t) of Student's t."""
    from scipy.special import stdtr

    return float(2 * stdtr(degrees, -t))


def exceeds(one: Variance, other: Variance) -> bool:
    """Whether a variance is significantly larger than another (F test at :data:`UNLIKELY`)."""
    from scipy.special import fdtrc

    if other.value == 0 or one.value == 0:
        return other.value < one.value
    return bool(fdtrc(one.degrees, other.degrees, one.value / other.value) < UNLIKELY)


def pooled(samples: Iterable[Sequence[float]]) -> Variance:
    """The variance within samples, pooled over them; samples of one number do not count."""
    squares, degrees = 0.0, 0.0
    for sample in samples:
        if len(sample) > 1:
            centre = fmean(sample)
            squares += math.fsum((x - centre) ** 2 for x in sample)
            degrees += len(sample) - 1
    return Variance(squares / degrees, degrees) if degrees else UNKNOWN


def mean_of(value: float, variance: Variance, seeds: int) -> Estimate:
    """A mean over seeds; ``variance`` is that of one seed's number."""
    if not variance.degrees:
        return Estimate(value, seeds=seeds)
    return Estimate(value, math.sqrt(variance.value / seeds), variance.degrees, seeds=seeds)


def over_seeds(
    values: Sequence[float], near: Sequence[Sequence[float]] = (), noise: Variance = UNKNOWN
) -> Estimate:
    """The mean of one number per seed, with a t interval.

    Args:
        values: the number for each seed.
        near: similar numbers with the same kind of variation; their variance is pooled with that of the
            values, unless the latter is significantly larger.
        noise: the variance to use if there are no two seeds anywhere.
    """
    variance = pooled([values, *near])
    if not variance.degrees:
        variance = noise
    own, others = pooled([values]), pooled(near)
    if own.degrees and others.degrees and exceeds(own, others):
        variance = own
    return mean_of(fmean(values), variance, len(values))


def minus(one: Estimate, other: Estimate) -> Estimate:
    """The difference of two numbers from independent runs (Welch and Satterthwaite)."""
    return combined([(1.0, one), (-1.0, other)])


def combined(parts: Sequence[tuple[float, Estimate]]) -> Estimate:
    """A weighted sum of numbers from independent runs (Welch and Satterthwaite)."""
    value = math.fsum(weight * part.value for weight, part in parts)
    seeds = min(part.seeds for _, part in parts)
    slack = math.hypot(*(weight * part.slack for weight, part in parts))
    variances = [Variance((weight * p.error) ** 2, p.degrees) for weight, p in parts if p.error is not None]
    if len(variances) < len(parts):
        return Estimate(value, slack=slack, seeds=seeds)
    choices = sum(part.choices for _, part in parts) - len(parts) + 1
    error, degrees = satterthwaite(variances)
    return Estimate(value, error, degrees, slack, choices, seeds)


def satterthwaite(parts: Sequence[Variance]) -> tuple[float, float]:
    """The standard error of a sum of independent parts with these variances, and its degrees of freedom."""
    total = math.fsum(part.value for part in parts)
    below = math.fsum(part.value**2 / part.degrees for part in parts if part.value)
    return math.sqrt(total), total**2 / below if below else math.inf
