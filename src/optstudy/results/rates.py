"""The best learning rate of longer runs, by a power law through the bests at several lengths. No torch.

``tests/test_equivalents.py`` simulates how often the intervals contain the truth.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from optstudy.results.curves import Curve
from optstudy.results.equivalents import LEAST, lengths
from optstudy.results.estimate import Estimate
from optstudy.results.minimum import Best, best_setting

UNIFORM = 3
"""Divisor of the variance r^2 / 3 of an error that is uniform within ±r."""


@dataclass(frozen=True)
class PowerLaw:
    """The best learning rate as a function of a run's tokens: a straight line in both logarithms."""

    tokens: tuple[int, ...]
    bests: tuple[Estimate, ...]
    """log10 of the best rate at each length; the slack is the uncertainty from the grid spacing."""

    @property
    def exponent(self) -> Estimate:
        """The exponent of the tokens."""
        return self._weighted(self._x / (self._x**2).sum())

    def predict(self, tokens: float) -> Estimate:
        """log10 of the best rate for runs of another length."""
        x, share = self._x, math.log10(tokens) - float(np.log10(self.tokens).mean())
        return self._weighted(1 / len(x) + share * x / (x**2).sum())

    @property
    def _x(self) -> np.ndarray:
        found: np.ndarray = np.log10(self.tokens) - np.log10(self.tokens).mean()
        return found

    def _weighted(self, weights: np.ndarray) -> Estimate:
        """A weighted sum of the bests, with the larger of two errors: their own, and their scatter's."""
        y = np.array([best.value for best in self.bests])
        own = [(best.error or 0.0) ** 2 + best.slack**2 / UNIFORM for best in self.bests]
        degrees = len(y) - 2
        left = y - y.mean() - self._x * (self._x @ y) / (self._x**2).sum()
        value = float(weights @ y)
        options = (
            Estimate(value, math.sqrt(float(weights**2 @ np.array(own)))),
            Estimate(value, math.sqrt(float((weights**2).sum() * (left @ left) / degrees)), degrees),
        )
        return max(options, key=lambda one: one.half() or 0.0)


def power_law(curves: Iterable[Curve], name: str) -> PowerLaw | None:
    """An optimizer's power law; None with fewer than :data:`LEAST` lengths or without rates."""
    bests = {}
    for length in lengths(curves, name):
        if (setting := _setting(length.curve, length.best)) is not None:
            bests[length.tokens] = setting
    return PowerLaw(tuple(bests), tuple(bests.values())) if len(bests) >= LEAST else None


def _setting(curve: Curve, found: Best) -> Estimate | None:
    """log10 of the best setting; if no parabola fits, an estimate from the best and its neighbours.

    The slack is then half a spacing. None at the end of a grid and if the axis is not logarithmic.
    """
    at = curve.points.index(curve.best)
    if not curve.log or not 0 < at < len(curve.points) - 1:
        return None
    if found.fitted:
        return best_setting(curve)
    left, here, right = curve.points[at - 1 : at + 2]
    spacing = (right.position - left.position) / 2
    down, up = left.loss - here.loss, right.loss - here.loss
    shift = 0.0 if left.diverged or right.diverged else spacing * (down - up) / (2 * (down + up))
    return Estimate(here.position + shift, slack=spacing / 2, seeds=len(here.rows))


def predictions(curves: Sequence[Curve], tokens: float) -> list[tuple[str, PowerLaw, Estimate]]:
    """Each optimizer's power law, and log10 of its best rate for this many tokens, in order of curves."""
    names = dict.fromkeys(curve.name for curve in curves)
    laws = [(name, power_law(curves, name)) for name in names]
    return [(name, law, law.predict(tokens)) for name, law in laws if law is not None]
