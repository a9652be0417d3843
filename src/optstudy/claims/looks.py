"""Which settings need more seeds to decide an open claim, and how many. No torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from optstudy.claims.evaluation import Evidence, Missing
from optstudy.claims.measures import Relation
from optstudy.claims.verdict import LOOKS, Claim, Part, Verdict
from optstudy.results.curves import Point
from optstudy.results.estimate import Estimate

FUTILE = 3
"""No seeds are added if more than this many times the maximum would be needed."""


@dataclass(frozen=True)
class Need:
    """What is needed to decide an open claim."""

    claim: Claim
    points: Sequence[tuple[str, Point]]
    """The settings that decide it, each with its curve's label."""
    seeds: float | None
    """Seeds per setting that would decide it if the numbers stay the same; None: seeds alone will not."""
    why: str
    """The explanation."""


def need(verdict: Verdict, evidence: Evidence) -> Need:
    """Return what is needed to decide a claim that is not decided.

    One part outside its range shows that the claim does not hold; that it holds needs all parts inside.
    """
    open_ = [k for k, word in enumerate(verdict.words) if word == "not decided"]
    points = {k: _points(verdict.claim.relations[k], evidence) for k in open_}
    found = {k: seeds(verdict.parts[k], [point for _, point in points[k]]) for k in open_}
    failing = [(n, k) for k, n in found.items() if n is not None and verdict.parts[k].slack < 0]
    deciding = [min(failing)[1]] if failing else open_
    known = [n for k in deciding if (n := found[k]) is not None]
    if len(known) < len(deciding):
        return Need(verdict.claim, (), None, _lacking([verdict.parts[k] for k in deciding]))
    some = {(label, str(point.x)): (label, point) for k in deciding for label, point in points[k]}
    many = max(known)
    return Need(
        verdict.claim, tuple(some.values()), many, f"about {math.ceil(many)} seeds at what decides it"
    )


def seeds(part: Part, points: Sequence[Point]) -> float | None:
    """Seeds that would bring a part's interval to one side of its limits; None if no number would.

    Args:
        points: the settings that decide it. If some have fewer seeds than compared, the possible error of a
            parabola is mostly noise and is assumed to vanish.
    """
    m = part.measured
    if not isinstance(m, Estimate) or not points:
        return None
    half = m.half(min(LOOKS.values()))
    if half is None:
        return float(min(LOOKS))
    uneven = any(len(point.rows) < m.seeds for point in points)
    room = abs(part.slack) - (0.0 if uneven else m.slack)
    return m.seeds * ((half - m.slack) / room) ** 2 if room > 0 else None


def _points(relation: Relation, evidence: Evidence) -> list[tuple[str, Point]]:
    try:
        return evidence.points(relation)
    except Missing:
        return []


def _lacking(parts: Sequence[Part]) -> str:
    """What is needed before more seeds can decide."""
    missing = [part.missing for part in parts if part.measured is None]
    if missing:
        return f"missing: {missing[0]}"
    slack = max((p.measured.slack for p in parts if isinstance(p.measured, Estimate)), default=0.0)
    if slack:
        return f"a finer grid around the best: between settings it may be off by {slack:.3f}"
    return "more than seeds: it lies on its threshold, or is a range within one run"
