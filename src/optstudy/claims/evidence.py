"""What claims are judged by: curves of finished figures, and numbers taken from them. No torch.

All numbers are :mod:`optstudy.results.stats`'s, so a claim and a report say the same of the same runs.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from optstudy.results import stats
from optstudy.results.curves import Curve, Point
from optstudy.results.figure import Figure
from optstudy.results.stats import Estimate, Term


class Missing(Exception):
    """What a claim needs and there is not, in words."""


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

    def __str__(self) -> str:
        where = self.study.rpartition("/")[2]
        return f"{self.curve} ({where}{f', {self.panel}' if self.panel else ''})"


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
            Missing: none of that name, several, or runs of it are missing.
        """
        figure = self.figure(of.study)
        panels = [c.panel for c in figure.curves if c.name == of.curve]
        panels += sorted(panel for panel, name in figure.incomplete if name == of.curve)
        panel = of.panel if of.panel in panels else next(iter(panels), None)
        if panel is None or (panel, of.curve) in figure.incomplete:
            raise Missing(f"runs of {of.study} {of.curve}")
        found = [c for c in figure.curves if (c.panel, c.name) == (panel, of.curve)]
        if len(found) > 1:
            raise Missing(f"one {of.curve} in {of.study}: it has {', '.join(c.label for c in found)}")
        if (of.least, of.most) == (-math.inf, math.inf):
            return found[0]
        inside = tuple(p for p in found[0].points if of.least <= p.x <= of.most)
        if not inside:
            raise Missing(f"settings of {of.study} {of.curve} in that range")
        return replace(found[0], points=inside)

    def noise(self, of: Of) -> Curve | None:
        """Return the curve to take the variance over seeds from, for one that has a single seed."""
        if of.noise is None or any(len(point.rows) > 1 for point in self.curve(of).points):
            return None
        return self.curve(of.noise)

    def pair(self, one: Of, other: Of) -> "Pair":
        """Return two curves side by side."""
        curves, noise = (self.curve(one), self.curve(other)), (self.noise(one), self.noise(other))
        seeded = [n or c for n, c in zip(noise, curves, strict=True)]
        return Pair(*curves, *noise, (seeded[0], seeded[1]) if any(noise) else None)


@dataclass(frozen=True)
class Pair:
    """Two curves side by side."""

    one: Curve
    other: Curve
    noise_one: Curve | None = None
    noise_other: Curve | None = None
    noise: tuple[Curve, Curve] | None = None
    """Both with several seeds, where one of the two has a single one."""

    def best(self) -> Estimate:
        """Best loss of the one above that of the other, nats.

        Raises:
            Missing: one of them never trained.
        """
        found = stats.difference(self.one, self.other, self.noise)
        if found is None:
            raise Missing(f"a run of {self._untrained()} that trained")
        return found

    def sensitivity(self, whole: bool = False) -> Estimate:
        """Sensitivity of the one above that of the other, over the widest window that both have.

        Args:
            whole: over all settings of each curve.

        Raises:
            Missing: a best lies at the edge of its grid, or a curve never trained.
        """
        for window in (math.inf,) if whole else stats.WINDOWS:
            mine = stats.sensitivity(self.one, window, self.noise_one)
            theirs = stats.sensitivity(self.other, window, self.noise_other)
            if mine is not None and theirs is not None:
                if _alike(self.one, self.other):
                    return Estimate(0.0, 0.0, seeds=mine.seeds)
                return stats.minus(mine, theirs)
        raise Missing(f"a window around the bests of {self.one.label} and {self.other.label}")

    def setting(self) -> Estimate:
        """Best setting of the one above that of the other, decades.

        Raises:
            Missing: one of them never trained, or has no logarithmic axis.
        """
        mine, theirs = stats.best_setting(self.one), stats.best_setting(self.other)
        if mine is None or theirs is None:
            raise Missing(f"a best of {self._untrained()}")
        return stats.minus(mine, theirs)

    def at(self, setting: float) -> Estimate:
        """Loss of the one at a setting above that of the other there."""
        return self.paired([(1.0, at(self.one, setting))], [(1.0, at(self.other, setting))])

    def mean(self) -> Estimate:
        """Mean loss over all settings of the one above that of the other."""
        return self.paired(*([(1 / len(c.points), p) for p in c.points] for c in (self.one, self.other)))

    def paired(self, mine: Sequence[Term], theirs: Sequence[Term]) -> Estimate:
        """A weighted sum of losses of the one above one of the other."""
        return stats.paired(mine, theirs, self.one, self.other, self.noise)

    def _untrained(self) -> str:
        return (self.other if self.one.trained else self.one).label


def at(curve: Curve, setting: float) -> Point:
    """The point of a curve at a setting.

    Raises:
        Missing: it has none there.
    """
    for point in curve.points:
        if point.x == setting:
            return point
    raise Missing(f"{curve.label} at {setting:g}")


def _alike(one: Curve, other: Curve) -> bool:
    """Whether two curves have the same losses at settings equally far apart."""
    return _shape(one) == _shape(other)


def _shape(curve: Curve) -> list[tuple[float, dict[int, float]]]:
    return [(round(p.position - curve.best.position, 2), p.by_seed) for p in curve.points]
