"""Verdicts: a claim is parts, each a number that must lie in a range; its interval decides. No torch."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from optstudy.claims.evidence import Evidence, Measured, Missing

Word = Literal["holds", "does not hold", "not decided"]


@dataclass(frozen=True)
class Part:
    """One number and the range that it must lie in."""

    measured: Measured | None
    """None where runs are missing."""
    low: float = -math.inf
    high: float = math.inf
    missing: str = ""
    """What is missing."""

    @property
    def verdict(self) -> Word:
        """``holds``: the whole interval is in the range; ``does not hold``: none of it is."""
        m = self.measured
        if m is None or m.low is None or m.high is None:
            return "not decided"
        if self.low <= m.low and m.high <= self.high:
            return "holds"
        return "does not hold" if m.high < self.low or m.low > self.high else "not decided"

    @property
    def slack(self) -> float:
        """How far the number is inside the range; negative: outside."""
        if self.measured is None:
            return -math.inf
        return min(self.measured.value - self.low, self.high - self.measured.value)


Rule = Callable[[Evidence], Iterator[Part]]


@dataclass(frozen=True)
class Claim:
    """A statement of the paper as a predicate, with its thresholds."""

    name: str
    statement: str
    figure: str
    """The study whose figure the paper states it of."""
    test: str
    """The rule in words, thresholds included."""
    rule: Rule

    def judge(self, evidence: Evidence, scale: str) -> "Verdict":
        """Return the verdict by what has been run."""
        try:
            parts = tuple(self.rule(evidence))
        except Missing as missing:
            parts = (Part(None, missing=str(missing)),)
        return Verdict(self, scale, parts)


@dataclass(frozen=True)
class Verdict:
    """What became of a claim at a scale."""

    claim: Claim
    scale: str
    parts: tuple[Part, ...]

    @property
    def word(self) -> Word:
        """Holds if every part does; does not hold if any does not; else not decided."""
        words = {part.verdict for part in self.parts}
        if "does not hold" in words:
            return "does not hold"
        return "holds" if words == {"holds"} else "not decided"

    @property
    def deciding(self) -> Part:
        """The part that is nearest to failing, or fails the most, among those with the claim's verdict."""
        return min((p for p in self.parts if p.verdict == self.word), key=lambda part: part.slack)

    @property
    def why_not(self) -> str:
        """What keeps it from being decided, in words; empty where it is decided."""
        if self.word != "not decided":
            return ""
        part = self.deciding
        if part.measured is None:
            return f"missing: {part.missing}"
        return "no seeds" if part.measured.low is None else "the interval reaches over the threshold"

    def tree(self) -> dict[str, Any]:
        """For programs; estimate, interval and seeds are the deciding part's."""
        m = self.deciding.measured
        return {
            "name": self.claim.name,
            "statement": self.claim.statement,
            "figure": self.claim.figure,
            "scale": self.scale,
            "verdict": self.word,
            "estimate": None if m is None else m.value,
            "interval": None if m is None or m.low is None else [m.low, m.high],
            "seeds": 0 if m is None else m.seeds,
        }
