"""Token-equivalents: tokens the reference needs for the same loss, divided by tokens used. No torch.

0.8 means that the reference needs 80 % of the tokens. The reference's best loss is known at some lengths, in
tokens read by a run. Between them it is interpolated over the logarithm of the tokens by a monotone cubic
(scipy's ``PchipInterpolator``); a fit of E + A D^-a is given for comparison. Outside the lengths there is no
number.

**The interval comes from losses.** The ratio of a curve with D tokens is above c if and only if its best loss
is below the reference's at c D, a weighted sum of the reference's losses at its lengths. So every c is
tested by a difference of losses; those not rejected are the interval (Fieller 1954). At one length seeds
are paired, as in :mod:`optstudy.results.stats`. Between lengths they are not, because the effect of a seed on
a short run says little about a long one. Where fit and interpolation differ between lengths, the interval is
wider. ``tests/test_equivalents.py`` simulates how often they contain the truth.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from optstudy.results.curves import Curve
from optstudy.results.estimate import LEVEL, UNKNOWN, Estimate, Variance, combined, mean_of, over_seeds
from optstudy.results.minimum import Best, best, choices
from optstudy.results.noise import by_seed, spread, total
from optstudy.results.stats import matched

if TYPE_CHECKING:
    from optstudy.results.figure import Figure

LEAST = 4
"""Minimum number of lengths of a horizon."""
GRID = 321
"""Number of token counts, evenly spaced in the logarithm, at which losses are compared."""
LENGTHS = frozenset({"training.steps", "schedule.freeze_steps"})
"""Config keys in which the curves of a horizon may differ."""


def read(curve: Curve) -> int | None:
    """Tokens that each run of a curve reads; None if they differ."""
    found = {_read(row.config) for row in curve.rows}
    return found.pop() if len(found) == 1 else None


def _read(config: Mapping[str, Any]) -> int | None:
    if "training" not in config or "data" not in config:  # another program's
        return None
    training = config["training"]
    steps = training["steps"] + config.get("schedule", {}).get("freeze_steps", 0)
    return int(steps * training["batch_size"] * config["data"]["sequence_length"])


@dataclass(frozen=True)
class Length:
    """An optimizer, such as the reference, at one length."""

    tokens: int
    curve: Curve
    best: Best

    @cached_property
    def by_seed(self) -> dict[int, float]:
        """Its best loss for each seed."""
        return by_seed(self.best.terms)

    @cached_property
    def loss(self) -> float:
        """Its best loss, nats per token."""
        return total(self.best.terms)


@dataclass(frozen=True)
class Fit:
    """E + A D^-a."""

    floor: float
    """E, nats."""
    scale: float
    """A."""
    power: float
    """a."""

    def loss(self, tokens: Any) -> Any:
        """The loss after this many tokens, nats."""
        return self.floor + self.scale * np.asarray(tokens, float) ** -self.power

    def tokens(self, loss: float) -> float:
        """The tokens needed to reach a loss; infinite if it is at or below the floor."""
        above = (loss - self.floor) / self.scale
        return float(above ** (-1 / self.power)) if above > 0 else math.inf


@dataclass(frozen=True)
class Horizon:
    """A reference's best loss as a function of a run's tokens."""

    name: str
    """The name of the reference's curve."""
    lengths: tuple[Length, ...]
    """At least :data:`LEAST`, in order of tokens, with decreasing losses."""

    @cached_property
    def tokens(self) -> np.ndarray:
        """The tokens of each length."""
        return np.array([length.tokens for length in self.lengths], float)

    @cached_property
    def losses(self) -> np.ndarray:
        """The loss at each length, nats."""
        return np.array([length.loss for length in self.lengths])

    @cached_property
    def fit(self) -> Fit:
        """Least squares: over the power, and for each power over the other two parameters."""
        return fitted(self.tokens, self.losses)

    @cached_property
    def grid(self) -> np.ndarray:
        """Tokens from its shortest length to its longest."""
        found: np.ndarray = np.geomspace(self.tokens[0], self.tokens[-1], GRID)
        return found

    @cached_property
    def weights(self) -> np.ndarray:
        """Weights of the losses at its lengths, for each token count of the grid; they add to 1.

        The interpolation is not linear in the losses, but homogeneous. With its derivatives as weights, the
        weighted sum equals the interpolation.
        """
        from scipy.interpolate import PchipInterpolator

        x, at, step = np.log(self.tokens), np.log(self.grid), 1e-6
        shifted = [self.losses + step * row for row in np.eye(len(x))]
        below = [self.losses - step * row for row in np.eye(len(x))]
        values = np.array([PchipInterpolator(x, y)(at) for y in (*shifted, *below)])
        found: np.ndarray = (values[: len(x)] - values[len(x) :]).T / (2 * step)
        return found

    @cached_property
    def between(self) -> np.ndarray:
        """Nats by which the shapes of fit and interpolation differ between lengths; 0 at each length."""
        off = np.interp(np.log(self.grid), np.log(self.tokens), self.losses - self.fit.loss(self.tokens))
        found: np.ndarray = np.abs(self.fit.loss(self.grid) + off - self.weights @ self.losses)
        return found

    @cached_property
    def slacks(self) -> np.ndarray:
        """Nats by which each loss may be off, for any number of seeds."""
        return np.array([length.best.slack for length in self.lengths])

    @cached_property
    def variance(self) -> Variance:
        """Variance of one run's loss over seeds, pooled over lengths."""
        spreads = [spread(length.curve) for length in self.lengths]
        degrees = math.fsum(one.degrees for one in spreads)
        squares = math.fsum(one.value * one.degrees for one in spreads if one.degrees)
        return Variance(squares / degrees, degrees) if degrees else UNKNOWN

    def at(self, tokens: int) -> int | None:
        """The index of the length with this many tokens."""
        return next((k for k, length in enumerate(self.lengths) if length.tokens == tokens), None)


def horizon(curves: Iterable[Curve], name: str) -> Horizon | None:
    """Return a reference's horizon; None with fewer than :data:`LEAST` lengths or if losses do not decrease.

    Args:
        curves: the curves of a figure, among them one of the reference per length.
        name: the reference's name.
    """
    known = lengths(curves, name)
    return None if lacking(known) else Horizon(name, tuple(known))


def lacking(known: Sequence[Length]) -> str:
    """Why a reference has no horizon; empty if it has one.

    Args:
        known: the reference at each length, shortest first.
    """
    if len(known) < LEAST:
        return f"has a best loss at {len(known)} lengths, and {LEAST} are needed"
    for a, b in pairwise(known):
        if a.loss <= b.loss:
            return f"has no lower loss with {b.tokens:,} tokens than with {a.tokens:,}"
    return ""


def lengths(curves: Iterable[Curve], name: str) -> list[Length]:
    """The curves of one name that differ only in length, shortest first."""
    found: dict[int, Length] = {}
    for curve in curves:
        tokens, lowest = read(curve), best(curve)
        if curve.name == name and {key for key, _ in curve.apart} <= LENGTHS and tokens and lowest:
            found.setdefault(tokens, Length(tokens, curve, lowest))
    return [found[tokens] for tokens in sorted(found)]


def fitted(tokens: np.ndarray, losses: np.ndarray) -> Fit:
    """Fit E + A D^-a by least squares: linear for each a, which is searched on successively finer grids."""
    log = np.log(tokens)
    low, high = 0.02, 3.0
    for _ in range(4):
        powers = np.geomspace(low, high, 61)
        basis = [np.exp(-a * (log - log.mean())) for a in powers]
        sums = [np.polyfit(one, losses, 1, full=True) for one in basis]
        errors = [
            float(((losses - np.polyval(p, one)) ** 2).sum())
            for (p, *_), one in zip(sums, basis, strict=True)
        ]
        k = int(np.argmin(errors))
        low, high = powers[max(0, k - 1)], powers[min(len(powers) - 1, k + 1)]
    (slope, floor), a = sums[k][0], float(powers[k])
    return Fit(float(floor), float(slope * math.exp(a * log.mean())), a)


@dataclass(frozen=True)
class Ratio(Estimate):
    """A token-equivalent. Its interval is not symmetric and may be open: an end may be 0 or infinite.

    The reference's own is 1 by definition, without any comparison. The standard error is for sums with
    other numbers: it is the error of the loss divided by the slope of the reference's loss.
    """

    sign: Literal["", "<", ">"] = ""
    """The value is the end of the reference's lengths, and the ratio is below or above it."""
    fitted: float | None = None
    """The same from the fit; None outside the lengths."""
    ratios: np.ndarray = field(default_factory=lambda: np.empty(0), repr=False, compare=False)
    """Ratios at which losses were compared, in increasing order."""
    gaps: tuple[Estimate, ...] = field(default=(), repr=False, compare=False)
    """At each ratio, the curve's loss minus the reference's with that share of the tokens, nats."""

    def ends(self, level: float = LEVEL) -> tuple[float, float] | None:
        """The ends of its interval; None without several seeds."""
        halves = [gap.half(level) for gap in self.gaps]
        if not halves:
            return self.value, self.value
        if any(half is None for half in halves):
            return None
        values = np.array([gap.value for gap in self.gaps])
        half = np.array(halves, float)
        log = np.log(self.ratios)
        below, above = np.flatnonzero(values + half < 0), np.flatnonzero(values - half > 0)
        low = math.exp(_root(log, values + half, int(below[-1]))) if len(below) else 0.0
        high = math.exp(_root(log, values - half, int(above[0]) - 1)) if len(above) else math.inf
        return low, high

    @cached_property
    def interval(self) -> tuple[float, float] | None:
        """Its interval at :data:`optstudy.results.estimate.LEVEL`; None without several seeds."""
        return self.ends()

    def half(self, level: float = LEVEL) -> float | None:
        """The longer half of the interval; None without several seeds, infinite if an end is open."""
        ends = self.ends(level)
        return (
            None if ends is None else max(self.value - ends[0] if ends[0] else math.inf, ends[1] - self.value)
        )

    def above(self, threshold: float) -> float:
        """The p-value for a ratio above a threshold; 1 if it is below, or outside the lengths."""
        if not self.gaps:
            return float(self.value <= threshold)
        gap = self._gap(threshold)
        return 1.0 if gap is None or gap.value >= 0 else gap.beyond(-gap.value)

    def below(self, threshold: float) -> float:
        """The p-value for a ratio below a threshold."""
        if not self.gaps:
            return float(self.value >= threshold)
        gap = self._gap(threshold)
        return 1.0 if gap is None or gap.value <= 0 else gap.beyond(gap.value)

    def chance(self, low: float, high: float) -> float:
        """The p-value for the ratio being on the side of both ends of a range on which it was found."""
        if self.value < low:
            return self.below(low)
        if self.value > high:
            return self.above(high)
        return max(
            0.0 if low == -math.inf else self.above(low), 0.0 if high == math.inf else self.below(high)
        )

    def beyond(self, distance: float) -> float:
        """The larger p-value of the thresholds at a distance on both sides; 1 for a mere bound."""
        if self.sign:
            return 1.0
        return max(self.above(self.value - distance), self.below(self.value + distance))

    def _gap(self, ratio: float) -> Estimate | None:
        """The comparison nearest to a ratio; None outside the lengths."""
        if not self.ratios[0] <= ratio <= self.ratios[-1]:
            return None
        return self.gaps[int(np.argmin(np.abs(np.log(self.ratios / ratio))))]


def _root(x: np.ndarray, y: np.ndarray, k: int) -> float:
    """Where the line through two neighbours crosses zero; at the end of the grid, that end."""
    if k < 0 or k + 1 >= len(x):
        return float(x[max(0, min(k, len(x) - 1))])
    share = -y[k] / (y[k + 1] - y[k])
    return float(x[k] + share * (x[k + 1] - x[k]))


def ratio(curve: Curve, horizon: Horizon, siblings: Iterable[Curve] = ()) -> Ratio | None:
    """The token-equivalent of a curve; None if it never trained or its runs differ in length.

    Args:
        curve: one optimizer at one length.
        horizon: the reference's.
        siblings: the same optimizer's curves at other lengths, used to estimate the variance over seeds.
    """
    found, tokens = best(curve), read(curve)
    if found is None or tokens is None:
        return None
    mine = by_seed(found.terms)
    seeds = [s for s in mine if all(s in length.by_seed for length in horizon.lengths)]
    if not seeds:
        return None
    losses = np.array([mine[seed] for seed in seeds])
    theirs = np.array([[length.by_seed[seed] for seed in seeds] for length in horizon.lengths])
    here = horizon.at(tokens)
    if here is None:
        own = mean_of(float(losses.mean()), spread(curve), len(seeds))
        start, count = np.zeros(len(theirs)), choices(curve, found)
    else:
        length, start = horizon.lengths[here], np.eye(len(theirs))[here]
        if _runs(curve) == _runs(length.curve):
            return Ratio(1.0, 0.0, seeds=len(seeds), fitted=1.0)
        near = [*matched(curve, length.curve), *_differences(siblings, horizon)]
        own = over_seeds(list(losses - theirs[here]), near)
        count = choices(curve, found) + choices(length.curve, length.best) - 1
    spent = np.interp(math.log(tokens), np.log(horizon.grid), horizon.between)
    gaps = []
    for weights, between in zip(horizon.weights, horizon.between, strict=True):
        contrast = start - weights
        variance = horizon.variance._replace(value=horizon.variance.value * float(contrast @ contrast))
        rest = mean_of(float((contrast @ theirs).mean()), variance, len(seeds))
        both = combined([(1.0, own), (1.0, rest)])
        slack = math.hypot(*contrast * horizon.slacks, found.slack)
        gaps.append(replace(both, slack=slack + abs(float(between - spent)), choices=count))
    values, ratios = (losses - horizon.weights @ theirs).mean(1), horizon.grid / tokens
    k = max(0, int(np.argmax(values >= 0)) - 1)
    sign, value = _crossing(ratios, values, k)
    by_fit = horizon.fit.tokens(float(losses.mean()))
    steep = (values[k + 1] - values[k]) / (ratios[k + 1] - ratios[k])
    error = gaps[k].error
    return Ratio(
        value,
        None if sign or error is None else float(error / steep),
        gaps[k].degrees,
        float(gaps[k].slack / steep),
        count,
        seeds=len(seeds),
        sign=sign,
        fitted=by_fit / tokens if horizon.tokens[0] <= by_fit <= horizon.tokens[-1] else None,
        ratios=ratios,
        gaps=tuple(gaps),
    )


def _crossing(ratios: np.ndarray, values: np.ndarray, k: int) -> tuple[Literal["", "<", ">"], float]:
    """The ratio at which a gap crosses zero, after index ``k``; an end of the ratios if it is beyond."""
    if values[0] > 0:
        return "<", float(ratios[0])
    if values[-1] < 0:
        return ">", float(ratios[-1])
    if values[k] >= 0:
        return "", float(ratios[k])
    return "", math.exp(_root(np.log(ratios), values, k))


def _runs(curve: Curve) -> set[str]:
    return {row.id for row in curve.best.rows}


def _differences(siblings: Iterable[Curve], horizon: Horizon) -> list[list[float]]:
    """For each seed, each sibling's best loss minus the reference's at the same length."""
    at = {length.tokens: length for length in horizon.lengths}
    found = []
    for curve in siblings:
        lowest, length = best(curve), at.get(read(curve) or 0)
        if lowest is not None and length is not None:
            mine = by_seed(lowest.terms)
            found.append([mine[seed] - length.by_seed[seed] for seed in mine if seed in length.by_seed])
    return found


def tokens_of(figure: "Figure", curve: Curve) -> Ratio | None:
    """The token-equivalent of a figure's curve; None if the reference has no horizon, see :func:`ratio`."""
    if figure.horizon is None:
        return None
    family = [one.curve for one in lengths(figure.curves, curve.name) if one.curve.panel == curve.panel]
    return ratio(curve, figure.horizon, [one for one in family if one is not curve])
