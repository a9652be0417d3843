"""Validation losses by how common the token to predict is, of runs with ``watch.deciles``. No torch."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from optstudy.config import DECILES
from optstudy.results.curves import Curve, FinishedRun
from optstudy.results.estimate import Estimate
from optstudy.results.figure import Figure
from optstudy.results.noise import Term
from optstudy.results.stats import paired


@dataclass(frozen=True)
class Series:
    """One curve's gaps to the reference at their best settings."""

    curve: Curve
    gaps: tuple[Estimate | None, ...]
    """By decile, the rarest tokens first, nats per token; None where one of the two lacks the loss."""


def gaps(figure: Figure) -> dict[str, list[Series]]:
    """Return, by panel, the gaps of each curve that recorded losses by decile to the reference's."""
    found: dict[str, list[Series]] = {}
    for panel in figure.panels:
        reference = next((one for one in panel.curves if one.name == figure.against and not one.apart), None)
        for one in panel.curves:
            if reference is not None and one is not reference:
                series = Series(one, tuple(_gap(figure, one, reference, k) for k in range(DECILES)))
                if any(gap is not None for gap in series.gaps):
                    found.setdefault(panel.name, []).append(series)
    return found


def curve(figure: Figure, of: Curve, some: Iterable[int]) -> Curve | None:
    """Return a curve whose losses are means over some deciles, 0 for that of the rarest tokens.

    A run that did not record them is left out; None if the best setting would be.
    """
    deciles = tuple(some)
    points = []
    for point in of.points:
        runs = (_of_run(figure, run, deciles) for run in point.runs)
        if kept := tuple(run for run in runs if run is not None):
            points.append(replace(point, runs=kept))
    found = replace(of, points=tuple(points))
    return found if any(point.x == of.best.x for point in points) else None


def _gap(figure: Figure, one: Curve, reference: Curve, decile: int) -> Estimate | None:
    mine, theirs = curve(figure, one, [decile]), curve(figure, reference, [decile])
    if mine is None or theirs is None:
        return None
    return paired(_at(mine, one.best.x), _at(theirs, reference.best.x), mine, theirs)


def _at(of: Curve, x: Any) -> list[Term]:
    return [(1.0, point) for point in of.points if point.x == x]


def _of_run(figure: Figure, run: FinishedRun, deciles: tuple[int, ...]) -> FinishedRun | None:
    rows = [row["deciles"] for row in figure.history(run.row.id) if isinstance(row.get("deciles"), list)]
    first, last = (_mean(rows[k], deciles) if rows else None for k in (0, -1))
    if first is None or last is None:
        return None
    start = first if run.row.state == "diverged" else max(first, last)  # rare tokens may get worse first
    return replace(run, row=replace(run.row, val_loss=last, initial_val_loss=start))


def _mean(row: Sequence[Any], deciles: tuple[int, ...]) -> float | None:
    """The mean of some deciles' losses, each over about as many tokens; None if one had no token."""
    losses = [row[k] if k < len(row) else None for k in deciles]
    known = [float(loss) for loss in losses if isinstance(loss, (int, float))]
    return sum(known) / len(known) if len(known) == len(losses) else None
