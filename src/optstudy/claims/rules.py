"""Rules that claims are made of: what is measured, and the range that it must lie in. No torch.

Losses in nats per token, distances between settings in decades. Each rule yields a part per pair or curve;
one whose runs are missing is a part without a number.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from statistics import median

from optstudy.claims.evidence import Evidence, Missing, Of, Pair
from optstudy.claims.evidence import at as point_at
from optstudy.claims.verdict import Part, Range, Rule
from optstudy.results import stats
from optstudy.results.stats import Estimate

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
        found = [evidence.pair(one, other).sensitivity(whole) for one, other in pairs]
        yield Part(stats.combined([(1 / len(found), one) for one in found]), low, high)

    return parts


def at(setting: float, *pairs: Both, low: float = -ALL, high: float = ALL) -> Rule:
    """Loss of the first of each pair at one setting above that of the second there."""
    return _paired(pairs, low, high, lambda pair: pair.at(setting))


def mean(*pairs: Both, low: float = -ALL, high: float = ALL) -> Rule:
    """Mean loss over all settings of the first of each pair above that of the second."""
    return _paired(pairs, low, high, Pair.mean)


def gain(default: float, *some: Of, low: float = -ALL, high: float = ALL) -> Rule:
    """Loss at a default setting above that at the best one tried."""

    def found(evidence: Evidence, of: Of) -> Estimate:
        curve = evidence.curve(of)
        return stats.above(curve, point_at(curve, default), evidence.noise(of))

    def parts(evidence: Evidence) -> Iterator[Part]:
        for of in some:
            yield _part(low, high, lambda of=of: found(evidence, of))  # type: ignore[misc]

    return parts


def settings(*pairs: Both, low: float = -ALL, high: float = ALL) -> Rule:
    """Decades between the best settings of each pair."""
    return _paired(pairs, low, high, Pair.setting)


def rates(of: Callable[[dict[str, dict[str, float]]], float], low: float, high: float = ALL) -> Rule:
    """A number taken from effective learning rates by role; the interval is its range over training."""

    def parts(evidence: Evidence) -> Iterator[Part]:
        rows = evidence.figure("paper/fig2").effective
        last = max((row["step"] for row in rows), default=0)
        values = sorted(of(row["effective_lr"]) for row in rows if row["step"] >= last / 10)
        if not values:
            raise Missing("effective learning rates of paper/fig2")
        yield Part(Range(median(values), values[0], values[-1]), low, high)

    return parts


def spread(by_role: dict[str, dict[str, float]], roles: Sequence[str]) -> float:
    """Decades from the lowest 5 % quantile to the highest 95 % quantile of some roles."""
    found = [by_role[role] for role in roles if role in by_role]
    return math.log10(max(q["q95"] for q in found) / min(q["q05"] for q in found))


def middle(by_role: dict[str, dict[str, float]], roles: Sequence[str]) -> float:
    """The mean over some roles of log10 of the median."""
    found = [math.log10(by_role[role]["q50"]) for role in roles if role in by_role]
    return math.fsum(found) / len(found)


def _paired(pairs: Sequence[Both], low: float, high: float, found: Callable[[Pair], Estimate]) -> Rule:
    def parts(evidence: Evidence) -> Iterator[Part]:
        for one, other in pairs:
            yield _part(low, high, lambda one=one, other=other: found(evidence.pair(one, other)))  # type: ignore[misc]

    return parts


def _part(low: float, high: float, found: Callable[[], Estimate]) -> Part:
    try:
        return Part(found(), low, high)
    except Missing as missing:
        return Part(None, low, high, str(missing))
