"""Rules that claims are made of: what is measured, and the range that it must lie in. No torch.

Losses in nats per token, distances between settings in decades. Each rule yields a part per pair or curve;
one whose runs are missing is a part without a number.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from statistics import median

from optstudy import stats
from optstudy.claims.evidence import Evidence, Measured, Missing, Of, Pair, best_settings, measure
from optstudy.claims.verdict import Part, Rule
from optstudy.curves import Curve, Point

Both = tuple[Of, Of]
ALL = math.inf


def every(*rules: Rule) -> Rule:
    """All of several rules."""

    def parts(evidence: Evidence) -> Iterator[Part]:
        for rule in rules:
            yield from rule(evidence)

    return parts


def best(*pairs: Both, low: float = -ALL, high: float = ALL) -> Rule:
    """Best loss of the first of each pair above that of the second."""
    return _paired(pairs, low, high, Pair.best)


def sensitivity(*pairs: Both, low: float = -ALL, high: float = ALL, whole: bool = False) -> Rule:
    """Sensitivity of the first of each pair above that of the second, around each one's own best."""

    return _paired(pairs, low, high, lambda pair: pair.sensitivity(whole))


def average(*pairs: Both, low: float = -ALL, high: float = ALL, whole: bool = False) -> Rule:
    """The same, the mean over all pairs."""

    def parts(evidence: Evidence) -> Iterator[Part]:
        terms, curves = [], []
        for one, other in pairs:
            pair = _pair(evidence, one, other)
            for window in (math.inf,) if whole else stats.WINDOWS:
                mine, theirs = (stats.sensitivity_terms(c, window) for c in (pair.one, pair.other))
                if mine and theirs:
                    break
            else:
                raise Missing(f"a window around the bests of {_said(one)} and {_said(other)}")
            terms += [(w / len(pairs), p) for w, p in mine] + [(-w / len(pairs), p) for w, p in theirs]
            curves += [pair.one, pair.other, *pair.noise]
        yield Part(measure(terms, curves), low, high)

    return parts


def at(setting: float, *pairs: Both, low: float = -ALL, high: float = ALL) -> Rule:
    """Loss of the first of each pair at one setting above that of the second there."""

    def found(pair: Pair) -> Measured:
        one, other = (_at(curve, setting) for curve in (pair.one, pair.other))
        return pair.sum([(1.0, one), (-1.0, other)])

    return _paired(pairs, low, high, found)


def mean(*pairs: Both, low: float = -ALL, high: float = ALL) -> Rule:
    """Mean loss over all settings of the first of each pair above that of the second."""

    def found(pair: Pair) -> Measured:
        mine = [(1 / len(pair.one.points), p) for p in pair.one.points]
        theirs = [(-1 / len(pair.other.points), p) for p in pair.other.points]
        return pair.sum([*mine, *theirs])

    return _paired(pairs, low, high, found)


def gain(default: float, *some: Of, low: float = -ALL, high: float = ALL) -> Rule:
    """Loss at a default setting above that at the best one."""

    def parts(evidence: Evidence) -> Iterator[Part]:
        for of in some:
            try:
                curve = evidence.curve(of)
                terms = [(1.0, _at(curve, default)), (-1.0, curve.best)]
                yield Part(measure(terms, [curve, *evidence.noise(of)]), low, high)
            except Missing as missing:
                yield Part(None, low, high, str(missing))

    return parts


def settings(*pairs: Both, low: float = -ALL, high: float = ALL) -> Rule:
    """Decades between the best settings of each pair, with the settings that cannot be told from the best."""

    def found(pair: Pair) -> Measured:
        value = pair.one.best.position - pair.other.best.position
        mine, theirs = (best_settings(curve, pair.noise) for curve in (pair.one, pair.other))
        seeds = min(len(pair.one.best.rows), len(pair.other.best.rows))
        if mine is None or theirs is None:
            return Measured(value, None, None, seeds)
        return Measured(value, mine[0] - theirs[1], mine[1] - theirs[0], seeds)

    return _paired(pairs, low, high, found)


def rates(of: Callable[[dict[str, dict[str, float]]], float], low: float, high: float = ALL) -> Rule:
    """A number taken from effective learning rates by role; the interval is its range over training."""

    def parts(evidence: Evidence) -> Iterator[Part]:
        rows = evidence.figure("paper/fig2").effective
        last = max((row["step"] for row in rows), default=0)
        values = sorted(of(row["effective_lr"]) for row in rows if row["step"] >= last / 10)
        if not values:
            raise Missing("effective learning rates of paper/fig2")
        yield Part(Measured(median(values), values[0], values[-1], 1), low, high)

    return parts


def spread(by_role: dict[str, dict[str, float]], roles: Sequence[str]) -> float:
    """Decades from the lowest 5 % quantile to the highest 95 % quantile of some roles."""
    found = [by_role[role] for role in roles if role in by_role]
    return math.log10(max(q["q95"] for q in found) / min(q["q05"] for q in found))


def middle(by_role: dict[str, dict[str, float]], roles: Sequence[str]) -> float:
    """The mean over some roles of log10 of the median."""
    found = [math.log10(by_role[role]["q50"]) for role in roles if role in by_role]
    return math.fsum(found) / len(found)


def _paired(pairs: Sequence[Both], low: float, high: float, found: Callable[[Pair], Measured]) -> Rule:
    def parts(evidence: Evidence) -> Iterator[Part]:
        for one, other in pairs:
            try:
                yield Part(found(_pair(evidence, one, other)), low, high)
            except Missing as missing:
                yield Part(None, low, high, str(missing))

    return parts


def _pair(evidence: Evidence, one: Of, other: Of) -> Pair:
    return Pair(evidence.curve(one), evidence.curve(other), evidence.noise(one, other))


def _at(curve: Curve, setting: float) -> Point:
    for point in curve.points:
        if point.x == setting:
            return point
    raise Missing(f"{curve.label} at {setting:g}")


def _said(of: Of) -> str:
    where = of.study.rpartition("/")[2]
    return f"{of.curve} ({where}{f', {of.panel}' if of.panel else ''})"
