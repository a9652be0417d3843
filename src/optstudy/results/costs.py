"""Costs of curves (state, memory, time), and the front: curves that none beats in both loss and cost."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from optstudy.results import archive
from optstudy.results.curves import Curve
from optstudy.results.estimate import Estimate
from optstudy.results.figure import Cost, Figure, Panel

MACHINE = ("cpu", "device", "platform", "compiled")
"""Keys of a run's environment in which runs agree that were timed alike."""


@dataclass(frozen=True)
class Spot:
    """A curve's loss at its best setting, and what it costs."""

    curve: Curve
    cost: float
    """Bytes of state per parameter, step time over the reference's, or MiB."""
    loss: Estimate


def plots(figure: Figure) -> list[tuple[Panel, Cost]]:
    """Panel and cost of each plot of loss against cost that the study asks for, with two curves or more."""
    wanted = [(panel, cost) for panel in figure.panels for cost in figure.costs]
    return [(panel, cost) for panel, cost in wanted if len(spots(figure, panel, cost)) > 1]


def spots(figure: Figure, panel: Panel, cost: Cost) -> list[Spot]:
    """The panel's curves of known loss and cost, cheapest first."""
    costs = of_curves(figure, cost)
    found = [(s.curve, costs.get(s.curve.label), s.best) for s in panel.summaries]
    some = [Spot(curve, at, loss) for curve, at, loss in found if at is not None and loss is not None]
    return sorted(some, key=lambda spot: (spot.cost, spot.loss.value))


def front(some: Sequence[Spot]) -> list[Spot]:
    """Those that are better than all cheaper ones, cheapest first, by the losses without their intervals."""
    found: list[Spot] = []
    for spot in sorted(some, key=lambda spot: (spot.cost, spot.loss.value)):
        if not found or spot.loss.value < found[-1].loss.value:
            found.append(spot)
    return found


def of_curves(figure: Figure, cost: Cost) -> Mapping[str, float]:
    """The known costs of the figure's curves, by label; step times are those of :func:`step_times`."""
    if cost == "step_ms":
        return step_times(figure).ratios
    state = cost == "state_bytes_per_param"
    known = {s.curve.label: s.state_bytes if state else s.peak_memory_mb for s in figure.summaries}
    return {label: value for label, value in known.items() if value is not None}


@dataclass(frozen=True)
class StepTimes:
    """Times of a step as multiples of Adam's."""

    ratios: Mapping[str, float]
    """By the label of the curve; only where known."""
    apart: bool = False
    """They are not those of the runs but the record's own measurement."""


def step_times(figure: Figure) -> StepTimes:
    """The step times of a figure's curves.

    They are from the runs, or, if the study asks for step times and has only runs of the record, which were
    timed beside other work, from :func:`optstudy.results.archive.step_ratios`.
    """
    if ratios := _of_runs(figure):
        return StepTimes(ratios)
    kept = archive.step_ratios(figure.scale) if "step_ms" in figure.costs and figure.recorded else {}
    ratios = {curve.label: kept[curve.name] for curve in figure.curves if curve.name in kept}
    return StepTimes(ratios, apart=bool(ratios))


def _of_runs(figure: Figure) -> dict[str, float]:
    """Ratios of medians over runs on the same machine; of several machines, the median of their ratios."""
    if figure.reference is None:
        return {}
    seen = figure.environments
    times: dict[str, Mapping[Any, float]] = {}
    for curve in figure.curves:
        found: dict[Any, list[float]] = {}
        for row in curve.rows:
            known = row.id not in figure.recorded and (row.id in seen or not seen)
            if known and row.step_ms:
                machine = tuple(str(seen.get(row.id, {}).get(key)) for key in MACHINE)
                found.setdefault(machine, []).append(row.step_ms)
        times[curve.label] = {machine: median(some) for machine, some in found.items()}
    base = times[figure.reference.curve.label]
    ratios = {label: [own[m] / base[m] for m in own if m in base] for label, own in times.items()}
    return {label: median(some) for label, some in ratios.items() if some}
