"""The plan of a study, and the points that a sweep needs next given the known losses. No torch."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from optstudy.grids import rounded, spaced
from optstudy.program import AnyConfig
from optstudy.results.curves import numeric
from optstudy.results.table import Row
from optstudy.study.file import Adaptive, Refine

Loss = Callable[[float, int], float | None]
"""Maps a value on the axis and a seed to the loss, or None while the run has no result."""
Results = Callable[[str], Row | None]
"""Maps a run's id to its row, or None while it has no result."""


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study, before it is carried out."""

    config: AnyConfig
    curve: str
    """The curve of the figure that it is on; ``PANEL / CURVE`` if there are panels."""
    x: Any = None
    """Its value on the horizontal axis."""
    known_id: str = field(default="", compare=False, repr=False)
    """The run's id, if it is known without hashing the config."""

    @cached_property
    def id(self) -> str:
        """The run's id."""
        return self.known_id or self.config.id

    def labelled(self, curve: str) -> "PlannedRun":
        """Return the same run with another curve."""
        return self if curve == self.curve else PlannedRun(self.config, curve, self.x, self.id)


@dataclass(frozen=True)
class Pending:
    """A run whose config is unknown until another study is done."""

    settings: dict[str, Any]
    """Its config, with null for values from the other study."""
    curve: str
    depends_on: str
    """The other study's name."""
    like: AnyConfig = field(compare=False, repr=False)
    """The same config with sample values instead of the unknown ones."""

    def labelled(self, curve: str) -> "Pending":
        """Return the same run with another curve."""
        return replace(self, curve=curve)


@dataclass
class Plan:
    """The runs of a study, given the results so far."""

    points: list[PlannedRun]
    pending: list[Pending]
    first: list[PlannedRun]
    """Runs of other studies that ``pending`` waits for."""

    @property
    def curves(self) -> list[str]:
        """Labels of all curves."""
        labels = [point.curve for point in self.points] + [wait.curve for wait in self.pending]
        return list(dict.fromkeys(labels))


def grown(
    initial: Sequence[float],
    losses: Mapping[float, float],
    rule: Adaptive,
    has_run: Callable[[float], bool] = lambda value: False,
) -> list[float]:
    """Return the values to add to the axis: one step beyond each end at which the loss has not risen.

    The loss has risen at an end if some value between it and the best is ``rule.rise`` above the best.

    Args:
        initial: the file's values, evenly spaced in the logarithm.
        losses: mean loss of every value run so far, in ``initial`` and earlier extensions.
        rule: the required rise, and the maximum number of values added at either end.
        has_run: whether a value has a result. If a run exists where an earlier version of optstudy placed a
            step, its value is used.
    """
    best = _lowest(losses)
    level = losses[best] + rule.rise
    low, high = beyond(initial, list(losses), has_run)
    below = sum(value < min(initial) for value in losses)
    above = sum(value > max(initial) for value in losses)
    found = []
    if below < rule.most and not any(losses[v] >= level for v in losses if v < best):
        found += low
    if above < rule.most and not any(losses[v] >= level for v in losses if v > best):
        found += high
    return found


def beyond(
    initial: Sequence[float], values: Sequence[float], has_run: Callable[[float], bool]
) -> tuple[list[float], list[float]]:
    """Return the next value below and above an axis; none if its values have no constant spacing.

    Args:
        initial: the file's values, evenly spaced in the logarithm.
        values: all values of the axis so far.
        has_run: see :func:`grown`.
    """
    first, last = min(initial), max(initial)
    if len(initial) < 2 or first <= 0:
        return [], []
    exactly = (len(initial) - 1) / math.log10(last / first)
    per_decade = round(exactly) if abs(exactly - round(exactly)) < 0.01 else exactly

    def step(steps: int) -> list[float]:
        value, earlier = spaced(first, steps, per_decade), rounded(first * 10 ** (steps / exactly))
        found = earlier if has_run(earlier) and not has_run(value) else value
        return [] if found in values else [found]  # rounding may give a value that exists already

    below, above = sum(value < first for value in values), sum(value > last for value in values)
    return step(-(below + 1)), step(len(initial) + above)


def extended(initial: Sequence[float], seeds: Sequence[int], rule: Adaptive, loss: Loss) -> list[float]:
    """Return every value of the axis so far, in increasing order."""
    values = list(initial)
    while (losses := _means(values, seeds, loss)) is not None:
        new = grown(initial, losses, rule, lambda v: any(loss(v, seed) is not None for seed in seeds))
        if not new:
            break
        values += new
    return sorted(values)


def with_runs_beyond(
    initial: Sequence[float], values: Sequence[float], seeds: Sequence[int], loss: Loss
) -> list[float]:
    """Return an axis with further values that have run, outwards up to the first gap, in increasing order.

    They were run for a wider grid, of another study or of this one earlier.
    """

    def has_run(value: float) -> bool:
        return any(loss(value, seed) is not None for seed in seeds)

    found = list(values)
    while new := [v for side in beyond(initial, found, has_run) for v in side if has_run(v)]:
        found += new
    return sorted(found)


def refined(
    values: Sequence[float], seeds: Sequence[int], rule: Refine, loss: Loss
) -> list[tuple[float, int]]:
    """Return (value, seed) pairs beyond ``seeds`` for the best point and its neighbours.

    The best has the lowest mean over the seeds known so far. If more seeds move the best, its new neighbours
    are added too.
    """
    extra = [seed for seed in range(rule.seeds) if seed not in seeds]
    means = _means(values, seeds, loss)
    ordered = sorted(values)
    wanted: dict[float, None] = {}
    while means is not None:
        best = ordered.index(_lowest(means))
        near = ordered[max(0, best - rule.neighbours) : best + rule.neighbours + 1]
        if all(value in wanted for value in near):
            break
        wanted.update(dict.fromkeys(near))
        more = _means(list(wanted), [*seeds, *extra], loss)
        means = None if more is None else {**means, **more}
    return [(value, seed) for value in sorted(wanted) for seed in extra]


def seeds_that_ran(
    values: Sequence[float],
    seeds: Sequence[int],
    rule: Refine,
    wanted: Sequence[tuple[float, int]],
    loss: Loss,
) -> list[tuple[float, int]]:
    """Return (value, seed) pairs of a rule that were not requested, but have run for another study."""
    others = [seed for seed in range(rule.seeds) if seed not in seeds]
    pairs = [(value, seed) for value in values for seed in others if (value, seed) not in wanted]
    return [pair for pair in pairs if loss(*pair) is not None]


def best(points: Sequence[PlannedRun], losses: Sequence[float]) -> AnyConfig:
    """Return the config with the lowest mean loss over seeds.

    Args:
        points: runs.
        losses: the loss of each run.
    """
    by_config: dict[str, list[float]] = {}
    configs: dict[str, AnyConfig] = {}
    for point, loss in zip(points, losses, strict=True):
        key = point.config.model_copy(update={"seed": 0}).id
        configs.setdefault(key, point.config)
        by_config.setdefault(key, []).append(loss)
    return configs[min(by_config, key=lambda key: math.fsum(by_config[key]) / len(by_config[key]))]


def numbers(values: Sequence[object]) -> list[float] | None:
    """Return an axis's values if all are positive numbers, else None."""
    found = [float(v) for v in values if numeric(v) and v > 0]
    return found if len(found) == len(values) else None


def _lowest(losses: Mapping[float, float]) -> float:
    return min(losses, key=lambda value: (losses[value], value))


def _means(values: Sequence[float], seeds: Sequence[int], loss: Loss) -> dict[float, float] | None:
    """Mean loss of every value; None while a run is missing."""
    means = {}
    for value in values:
        known = [loss(value, seed) for seed in seeds]
        if any(one is None for one in known):
            return None
        means[value] = math.fsum(one for one in known if one is not None) / len(known)
    return means
