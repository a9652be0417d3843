"""Which seeds would decide a claim that is open, and how many of them. No torch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from optstudy.claims.evaluation import Evidence, Missing
from optstudy.claims.grammar import Relation
from optstudy.claims.verdict import LOOKS, Claim, Part, Verdict
from optstudy.results.curves import Point
from optstudy.results.stats import Estimate

FUTILE = 3
"""Seeds are not added where this many times as many would be needed as may be had at most."""


@dataclass(frozen=True)
class Need:
    """What an open claim needs."""

    claim: Claim
    points: Sequence[tuple[str, Point]]
    """Labels of curves, and the settings of these that decide it."""
    seeds: float | None
    """How many at each would decide it, if the numbers stay as they are; None: more seeds will not."""
    why: str
    """In words."""


def need(verdict: Verdict, evidence: Evidence) -> Need:
    """Return what a claim needs whose verdict is not decided, by what there is.

    That it does not hold takes one part outside its range; that it holds takes all of them inside.
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
    """How many seeds would bring a part's interval to one side; None: no number of them.

    Args:
        points: what decides it. Where some have fewer seeds than what is compared, what a parabola may be off
            by is mostly noise, and is taken to vanish.
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
    """What there must be before seeds can decide."""
    missing = [part.missing for part in parts if part.measured is None]
    if missing:
        return f"missing: {missing[0]}"
    slack = max((p.measured.slack for p in parts if isinstance(p.measured, Estimate)), default=0.0)
    if slack:
        return f"a finer grid around the best: between settings it may be off by {slack:.3f}"
    return "more than seeds: it lies on its threshold, or is a range within one run"
