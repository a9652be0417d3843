"""Verdicts: each part of a claim is a number that must be in a range; its interval decides. No torch.

A claim of several parts is decided at :data:`optstudy.results.estimate.LEVEL` as a whole: the p-values of its
parts are corrected for their number (Holm 1979). The interval shown for each part is uncorrected.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from optstudy.claims.measures import AXIS, Relation
from optstudy.results.equivalents import Ratio
from optstudy.results.estimate import LEVEL, Estimate

Word = Literal["holds", "does not hold", "not decided"]
LOOKS = {3: 0.99, 6: 0.985, 12: 0.974}
"""Numbers of seeds at which ``--decide`` looks, and the confidence level of each look.

The three looks together have an error of at most 5 %, as a single look at :data:`LEVEL` has. The levels were
found by simulation (``tests/test_deciding.py``), because each look includes the data of the previous ones.
The Bonferroni bound is 5.1 %.
"""


@dataclass(frozen=True)
class Range:
    """A number measured many times in one run: its median, and the range of the values."""

    value: float
    low: float
    high: float
    seeds: int = 1

    @property
    def interval(self) -> tuple[float, float]:
        """The range."""
        return self.low, self.high


@dataclass(frozen=True)
class Part:
    """One number and the range that it must be in."""

    measured: Estimate | Range | None
    """None if runs are missing."""
    low: float = -math.inf
    high: float = math.inf
    missing: str = ""
    """What is missing."""

    @property
    def slack(self) -> float:
        """Distance of the number from the nearest end of the range; negative outside the range."""
        if self.measured is None:
            return -math.inf
        return min(self.measured.value - self.low, self.high - self.measured.value)

    @property
    def chance(self) -> float:
        """The p-value for the number being inside or outside the range, as measured."""
        m = self.measured
        if m is None:
            return 1.0
        if isinstance(m, Ratio):
            return m.chance(self.low, self.high)
        if isinstance(m, Estimate):
            return m.beyond(abs(self.slack))
        inside = self.low <= m.low and m.high <= self.high
        return 0.0 if inside or m.high < self.low or m.low > self.high else 1.0

    def interval(self, level: float = LEVEL) -> tuple[float, float] | None:
        """The interval at a level; None without several seeds."""
        m = self.measured
        if isinstance(m, Ratio):
            return m.ends(level)
        if not isinstance(m, Estimate):
            return None if m is None else m.interval
        half = m.half(level)
        return None if half is None else (m.value - half, m.value + half)

    def verdict(self, correction: int = 1, level: float = LEVEL) -> Word:
        """``holds``: the whole interval is in the range; ``does not hold``: no part of it is.

        Args:
            correction: factor on the p-value.
            level: confidence level of the interval.
        """
        if self.chance * correction > 1 - level + 1e-12:
            return "not decided"
        return "holds" if self.slack >= 0 else "does not hold"


@dataclass(frozen=True)
class Claim:
    """A statement and the test that decides it."""

    name: str
    statement: str
    figure: str
    """The study whose file contains it."""
    test: str
    """The test as written, on one line."""
    relations: tuple[Relation, ...] = ()
    """The parsed test: all must hold."""


@dataclass(frozen=True)
class Verdict:
    """The result of a claim at a scale."""

    claim: Claim
    scale: str
    parts: tuple[Part, ...]
    changed: str = ""
    """``changed after N runs`` if the claim was changed after its first runs; else empty."""
    look: int | None = None
    """The look, in seeds, that gave it, see :data:`LOOKS`; None: judged without looks."""

    @property
    def level(self) -> float:
        """Confidence level of its intervals."""
        return LEVEL if self.look is None else LOOKS[self.look]

    @cached_property
    def words(self) -> tuple[Word, ...]:
        """The verdict on each part, corrected for the number of parts (Holm's step-down)."""
        words: dict[int, Word] = {}
        open_ = False
        for rank, k in enumerate(sorted(range(len(self.parts)), key=lambda k: self.parts[k].chance)):
            word = self.parts[k].verdict(len(self.parts) - rank, self.level)
            open_ = open_ or word == "not decided"
            words[k] = "not decided" if open_ else word
        return tuple(words[k] for k in range(len(self.parts)))

    @property
    def word(self) -> Word:
        """Holds if every part does; does not hold if any does not; else not decided."""
        if "does not hold" in self.words:
            return "does not hold"
        return "holds" if set(self.words) == {"holds"} else "not decided"

    @property
    def deciding(self) -> Part:
        """Among the parts with the claim's verdict, the one closest to failing or failing most."""
        mine = [part for part, word in zip(self.parts, self.words, strict=True) if word == self.word]
        return min(mine, key=lambda part: part.slack)

    @property
    def unit(self) -> str:
        """Unit of the deciding part's number."""
        units = [one.quantities[0].unit for one in self.claim.relations]
        return next((u for u, part in zip(units, self.parts, strict=False) if part is self.deciding), "")

    @property
    def why_not(self) -> str:
        """Why it is not decided; empty if it is."""
        if self.word != "not decided":
            return ""
        part = self.deciding
        if part.measured is None:
            return f"missing: {part.missing}"
        if part.interval() is None:
            return "one seed"
        if part.verdict(level=self.level) == "not decided":
            return "the interval reaches over the threshold"
        return f"decided alone, but not as one of {len(self.parts)} parts"

    @property
    def short(self) -> str:
        """The verdict and the interval that it rests on, as Markdown."""
        interval = self.tree()["interval"]
        if self.why_not.startswith("missing"):
            return "not run yet"
        return f"**{self.word}**" + (f" ({interval[0]:+.3f} to {interval[1]:+.3f})" if interval else "")

    def tree(self) -> dict[str, Any]:
        """As JSON for programs; estimate, interval and seeds are those of the deciding part.

        ``sign`` is ``<`` or ``>`` if the estimate is only a bound.
        """
        m, interval = self.deciding.measured, self.deciding.interval(self.level)
        value = None if m is None else m.value
        if self.unit == AXIS:  # measured in log10
            value = None if value is None else 10**value
            interval = None if interval is None else (10 ** interval[0], 10 ** interval[1])
        return {
            "name": self.claim.name,
            "statement": self.claim.statement,
            "figure": self.claim.figure,
            "scale": self.scale,
            "verdict": self.word,
            "estimate": value,
            "sign": m.sign if isinstance(m, Ratio) else "",
            "unit": self.unit,
            "interval": list(interval) if interval is not None and max(interval) < math.inf else None,
            "seeds": 0 if m is None else m.seeds,
            "test": self.claim.test,
            "why": self.why_not,
            "changed": self.changed,
            "look": self.look,
            "level": self.level,
        }
