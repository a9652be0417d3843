"""Measures what a claim's test states: takes finished figures, returns numbers with intervals. No torch.

All numbers come from :mod:`optstudy.results.stats`, so claims and reports agree on the same runs.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

from optstudy.claims.measures import OVER_A_RUN, WHOLE, Measure, Quantity, Relation, Where
from optstudy.claims.verdict import LOOKS, Claim, Part, Range, Verdict
from optstudy.recipes import MATRICES
from optstudy.results import deciles, stats
from optstudy.results.curves import Curve, Point, numeric
from optstudy.results.equivalents import Ratio, tokens_of
from optstudy.results.estimate import Estimate, combined, minus
from optstudy.results.figure import Figure
from optstudy.results.minimum import best_loss, best_setting, contenders
from optstudy.results.noise import Term, above, loss_of

LEARNED = 0.1
"""Share of the steps at the start whose effective learning rates are ignored."""
REACH = 2
"""Settings on either side of the best that are needed to test whether a parabola fits."""
LEVELS = ("best", "at", "mean")
"""Measures that are values of the metric and have its sign; the others are distances from the best."""


class Missing(Exception):
    """Something that a claim needs does not exist; the text names it."""


Load = Callable[[str], Figure]
"""Maps a study's name to its figure."""


@dataclass
class Evidence:
    """The figures that claims refer to, each read once."""

    load: Load
    look: int | None = None
    """Only seeds below this one, see :data:`optstudy.claims.verdict.LOOKS`."""
    _figures: dict[str, Figure] = field(default_factory=dict)
    _looks: dict[int, "Evidence"] = field(default_factory=dict)

    def judge(self, claim: Claim, scale: str, changed: str = "", decide: bool = False) -> Verdict:
        """Return the verdict on a claim from the finished runs.

        Args:
            scale: the scale that was run, stored in the verdict.
            changed: see :attr:`optstudy.claims.verdict.Verdict.changed`.
            decide: judge look by look: the first look that decides counts, else the last one.
        """
        if not decide:
            return self.now(claim, scale, changed)
        verdicts = [self.at(look).now(claim, scale, changed) for look in LOOKS if self.had(claim, look)]
        for verdict in verdicts:
            if verdict.word != "not decided":
                return verdict
        return verdicts[-1] if verdicts else self.at(min(LOOKS)).now(claim, scale, changed)

    def now(self, claim: Claim, scale: str, changed: str = "") -> Verdict:
        """Return the verdict from all seeds, or from the seeds of this look."""
        return Verdict(claim, scale, tuple(map(self._part, claim.relations)), changed, self.look)

    def at(self, look: int) -> "Evidence":
        """Return the evidence restricted to the seeds of a look."""
        if look not in self._looks:
            self._looks[look] = Evidence(lambda name: self.figure(name).below(look), look)
        return self._looks[look]

    def had(self, claim: Claim, look: int) -> bool:
        """Whether a claim's look is complete: some part compares this many seeds, and no point lacks any."""
        at = self.at(look)
        found = (part.measured for part in at.now(claim, "").parts)
        return any(m is not None and m.seeds >= look for m in found) and at.equal(claim)

    def points(self, relation: Relation) -> list[tuple[str, Point]]:
        """The settings whose seeds decide a relation, each with its curve's label.

        Raises:
            Missing: a curve lacks runs.
        """
        found = []
        for measure in _measures(relation):
            if measure.function not in (*OVER_A_RUN, "tokens"):
                side = self._side(measure)
                found += [(side.curve.label, point) for point in side.points]
        return found

    def equal(self, claim: Claim) -> bool:
        """Whether every point that was given seeds for this look has all of them."""
        look = self.look or 0
        before = max((n for n in LOOKS if n < look), default=1)
        for where in curves(claim):
            figure = self.figure(where.study)
            for point in (p for c in figure.curves if named(c, where.curve) for p in c.points):
                added = any(row.id in figure.further and row.seed >= before for row in point.rows)
                if added and len(point.rows) < look:
                    return False
        return True

    def figure(self, study: str) -> Figure:
        """Return a study's figure."""
        if study not in self._figures:
            self._figures[study] = self.load(study)
        return self._figures[study]

    def curve(self, where: Where) -> Curve:
        """Return a curve that has all its runs.

        Raises:
            Missing: no curve or several have that name, or runs of it are missing.
        """
        figure = self.figure(where.study)
        some = [curve for curve in figure.curves if named(curve, where.curve)]
        waiting = sorted(panel for panel, name in figure.incomplete if alike(name, where.curve))
        panels = [*(curve.panel for curve in some), *waiting]
        panel = where.panel if where.panel in panels else next(iter(panels), None)
        found = [curve for curve in some if curve.panel == panel]
        if not found or panel in waiting or any(map(figure.unfinished, found)):
            raise Missing(f"runs of {where.study} {where.curve}")
        if len(found) > 1:
            several = ", ".join(repr(label_in_panel(curve)) for curve in found)
            raise Missing(f"which {where.curve} of {where.study} is meant: name one of {several}")
        return found[0]

    def noise(self, where: Where) -> Curve | None:
        """Return a curve that gives the variance over seeds for one with a single seed."""
        study, names = self.figure(where.study).noise
        if not study or any(len(point.rows) > 1 for point in self.curve(where).points):
            return None
        return self.curve(Where(study, names.get(where.curve, where.curve)))

    def _part(self, relation: Relation) -> Part:
        low, high = relation.low, relation.high
        first, *more = relation.quantities
        try:
            if first.one.function in OVER_A_RUN:
                return Part(self._over_a_run(first.one, first.other), low, high)
            found = [self._quantity(one, not more) for one in (first, *more)]
        except Missing as missing:
            return Part(None, low, high, str(missing))
        if more:
            weights = (one.weight for one in relation.quantities)
            return Part(combined(list(zip(weights, found, strict=True))), low, high)
        return Part(found[0], low, high)

    def _quantity(self, quantity: Quantity, alone: bool) -> Estimate:
        one, other = quantity.one, quantity.other
        alone = alone and other is None
        if one.function == "tokens":
            mine_of = self._tokens(one, alone)
            return mine_of if other is None else minus(mine_of, self._tokens(other, alone))
        mine = self._side(one)
        found = mine.alone() if other is None else Pair(mine, self._side(other)).difference()
        turned = one.function in LEVELS and self.figure(one.curve.study).metric.maximise
        return replace(found, value=-found.value) if turned else found

    def _tokens(self, measure: Measure, alone: bool) -> Ratio:
        """A token-equivalent; a mere bound is one only ``alone``, as it has no difference to another."""
        where, figure = measure.curve, self.figure(measure.curve.study)
        found = tokens_of(figure, self.curve(where))
        if found is None:
            why = figure.no_horizon or f"{figure.against} and it have no seed in common at all lengths"
            raise Missing(f"tokens of {where.study} {where.curve}: {why}")
        if found.sign and not alone:
            known = f"only {found.sign} {found.value:.2f} is known"
            raise Missing(f"tokens of {where.study} {where.curve} as a number: {known}")
        return found

    def _side(self, measure: Measure) -> "Side":
        curve = self.curve(measure.curve)
        whole = measure.arguments == (WHOLE,)
        if measure.function == "decile":
            return self._decile(measure, curve)
        if measure.function in ("mean", "sensitivity") and not whole and measure.arguments:
            low, high = (float(one) for one in measure.arguments)
            inside = tuple(p for p in curve.points if numeric(p.x) and low <= p.x <= high)
            if not inside:
                raise Missing(
                    f"settings of {measure.curve.study} {measure.curve.curve} from {low:g} to {high:g}"
                )
            curve, whole = replace(curve, points=inside), True
        setting = measure.arguments[0] if measure.function in ("at", "gain") else None
        return Side(measure.function, curve, self.noise(measure.curve), setting, whole)

    def _decile(self, measure: Measure, curve: Curve) -> "Side":
        first, last = (int(measure.arguments[k]) for k in (0, -1))
        found = deciles.curve(self.figure(measure.curve.study), curve, range(first - 1, last))
        if found is None:
            raise Missing(f"losses by decile of {curve.label}, which watch.deciles records")
        return Side("at", found, None, curve.best.x)

    def _over_a_run(self, one: Measure, other: Measure | None) -> Range:
        """The median over training, with the range of the measured values."""
        measured = self._rates if one.function == "rate" else self._distances
        mine = measured(one)
        if other is not None:
            theirs = measured(other)
            mine = {step: value - theirs[step] for step, value in mine.items() if step in theirs}
        if not mine:
            what = "effective learning rates" if one.function == "rate" else "second moments (watch.moments)"
            raise Missing(f"{what} of {one.curve.study}")
        values = sorted(mine.values())
        return Range(median(values), values[0], values[-1])

    def _rates(self, measure: Measure) -> dict[int, float]:
        """Decades by step: log10 of a role's median rate, or the distance of two quantiles."""
        _, *quantiles = measure.arguments
        recorded = self._recorded(measure, "effective_lr").items()
        return {step: _decades(some, *map(float, quantiles)) for step, some in recorded}

    def _distances(self, measure: Measure) -> dict[int, float]:
        """1 - cosine by step, the mean over roles."""
        key = f"from_{measure.arguments[1]}"
        recorded = self._recorded(measure, "moments").items()
        told = {step: [one[key] for one in some if numeric(one.get(key))] for step, some in recorded}
        return {step: math.fsum(some) / len(some) for step, some in told.items() if some}

    def _recorded(self, measure: Measure, key: str) -> dict[int, list[dict[str, float]]]:
        """What the best run with ``key`` recorded of the measure's roles, by step."""
        figure, role = self.figure(measure.curve.study), measure.arguments[0]
        roles = MATRICES if role == "matrix" else (str(role),)
        histories = (figure.history(row.id) for row in self.curve(measure.curve).best.rows)
        measured = ([row for row in history if row.get(key)] for history in histories)
        rows = next(filter(None, measured), [])
        last = max((row["step"] for row in rows), default=0)
        some = {row["step"]: [row[key][role] for role in roles if role in row[key]] for row in rows}
        return {step: found for step, found in some.items() if found and step >= LEARNED * last}


def curves(claim: Claim) -> list[Where]:
    """All curves that a claim mentions."""
    return list(dict.fromkeys(m.curve for relation in claim.relations for m in _measures(relation)))


def _measures(relation: Relation) -> list[Measure]:
    return [one for q in relation.quantities for one in (q.one, q.other) if one is not None]


@dataclass(frozen=True)
class Side:
    """One curve of a comparison, and which of its numbers is compared."""

    function: str
    curve: Curve
    noise: Curve | None = None
    """See :meth:`Evidence.noise`."""
    setting: float | str | None = None
    """The setting that ``at`` and ``gain`` refer to."""
    whole: bool = False
    """``sensitivity`` is over all settings."""

    def alone(self) -> Estimate:
        """The number itself, without a comparison.

        Raises:
            Missing: the curve never trained, or lacks the setting or the window.
        """
        if self.function in ("at", "mean"):
            return loss_of(self.terms, self.curve)
        if self.function == "gain":
            return above(self.curve, [(1.0, self.point)], noise=self.noise)
        found: Estimate | None
        if self.function == "best":
            found = best_loss(self.curve)
        elif self.function == "setting":
            found = best_setting(self.curve)
        else:
            found = next((one for window in self.windows if (one := self.sensitivity(window))), None)
        if found is None:
            raise Missing(
                f"the {self.function} of {self.curve.label}: it never trained, or its grid is too small"
            )
        return found

    @property
    def point(self) -> Point:
        """The point at the setting.

        Raises:
            Missing: the setting was not run.
        """
        for point in self.curve.points:
            if point.x == self.setting:
                return point
        shown = f"{self.setting:g}" if isinstance(self.setting, float) else self.setting
        raise Missing(f"{self.curve.label} at {shown}")

    @property
    def terms(self) -> Sequence[Term]:
        """The compared loss, as a weighted sum of losses of settings."""
        if self.function == "at":
            return [(1.0, self.point)]
        return [(1 / len(self.curve.points), point) for point in self.curve.points]

    @property
    def points(self) -> Sequence[Point]:
        """The settings whose seeds determine the number."""
        curve = self.curve
        if self.function in ("best", "setting"):
            at = curve.points.index(curve.best)
            near = curve.points[max(0, at - REACH) : at + REACH + 1] if curve.log else ()
            return [*(point for point in near if not point.diverged), *contenders(curve)]
        if self.function == "sensitivity":
            inside = (stats.within(curve, window) for window in self.windows)
            return next((some for some in inside if some is not None), ())
        return [point for _, point in self.terms] if self.setting is None else [self.point, curve.best]

    @property
    def windows(self) -> tuple[float, ...]:
        """Windows for its sensitivity, in order of preference."""
        return (math.inf,) if self.whole else stats.WINDOWS

    def sensitivity(self, window: float) -> Estimate | None:
        """Its sensitivity over a window, if its grid covers the window."""
        return stats.sensitivity(self.curve, window, self.noise)


@dataclass(frozen=True)
class Pair:
    """Two compared curves: the first minus the second, paired by seed if that is more precise."""

    one: Side
    other: Side

    def difference(self) -> Estimate:
        """The difference of the two by their function.

        Raises:
            Missing: one of them lacks the compared number.
        """
        function, (one, other) = self.one.function, (self.one.curve, self.other.curve)
        if function == "best":
            found = stats.difference(one, other, self.noise)
            if found is None:
                raise Missing(f"a run of {(other if one.trained else one).label} that trained")
            return found
        if function == "at" and one is other:
            return above(one, self.one.terms, self.other.point, self.one.noise)
        if function in ("at", "mean"):
            return stats.paired(self.one.terms, self.other.terms, one, other, self.noise)
        if function == "sensitivity":
            return self.sensitivity()
        return minus(self.one.alone(), self.other.alone())

    @property
    def noise(self) -> tuple[Curve, Curve] | None:
        """Both curves from a study with several seeds, if one of the two has a single seed."""
        if self.one.noise is None and self.other.noise is None:
            return None
        return self.one.noise or self.one.curve, self.other.noise or self.other.curve

    def sensitivity(self) -> Estimate:
        """The difference over the widest window that both grids cover.

        Raises:
            Missing: a best is at the edge of its grid, or a curve never trained.
        """
        for window in self.one.windows:
            mine, theirs = self.one.sensitivity(window), self.other.sensitivity(window)
            if mine is not None and theirs is not None:
                if _shape(self.one.curve) == _shape(self.other.curve):
                    return Estimate(0.0, 0.0, seeds=mine.seeds)
                return minus(mine, theirs)
        raise Missing(f"a window around the bests of {self.one.curve.label} and {self.other.curve.label}")


def named(curve: Curve, name: str) -> bool:
    """Whether a name means this curve: its name alone, with its map row, or with what distinguishes it."""
    return alike(curve.name, name) or name in (label_in_panel(curve), f"{curve.row} / {curve.name}")


def label_in_panel(curve: Curve) -> str:
    """A curve's label without its panel: its name, with its map row or what distinguishes it."""
    return curve.label.removeprefix(f"{curve.panel} / ") if curve.panel else curve.label


def alike(one: str, other: str) -> bool:
    """Whether two names are equal, or denote the same number: 0.1 and 1e-1."""
    try:
        return one == other or float(one) == float(other)
    except ValueError:
        return False


def _shape(curve: Curve) -> list[tuple[float, dict[int, float]]]:
    """The losses at settings equally far from the best."""
    return [(round(p.position - curve.best.position, 2), p.by_seed) for p in curve.points]


def _decades(quantiles: Sequence[dict[str, float]], low: float = math.nan, high: float = math.nan) -> float:
    """Over several roles: the mean log10 of their medians, or from the lowest to the highest quantile."""
    if math.isnan(low):
        return math.fsum(math.log10(one["q50"]) for one in quantiles) / len(quantiles)
    return math.log10(max(one[_key(high)] for one in quantiles) / min(one[_key(low)] for one in quantiles))


def _key(quantile: float) -> str:
    return f"q{round(100 * quantile):02}"
