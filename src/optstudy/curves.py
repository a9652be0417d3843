"""Run records as curves: what a sweep's figure and statistics are made of. No torch."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from optstudy.table import Row


@dataclass(frozen=True)
class Point:
    """All runs of a curve at one setting, one per seed."""

    x: Any
    position: float
    """log10(x), or the rank of x on an axis that is not logarithmic."""
    rows: tuple[Row, ...]

    @cached_property
    def loss(self) -> float:
        """Mean over seeds."""
        return math.fsum(row.loss for row in self.rows) / len(self.rows)

    @property
    def diverged(self) -> int:
        """Runs that diverged."""
        return sum(row.state == "diverged" for row in self.rows)


@dataclass(frozen=True)
class Curve:
    """One line of a figure: points in order of position."""

    label: str
    points: tuple[Point, ...]
    log: bool
    """Positions are log10 of the setting, so distances are decades."""

    @cached_property
    def best(self) -> Point:
        """The point with the lowest mean loss; of equal ones the one with fewer diverged runs."""
        return min(self.points, key=lambda point: (point.loss, point.diverged))

    @property
    def trained(self) -> bool:
        """Whether any run got below the loss before training."""
        return any(row.loss < row.initial_val_loss for point in self.points for row in point.rows)

    @property
    def edge(self) -> Literal["lowest", "highest"] | None:
        """Which end of the grid the best lies on; None inside it, at zero, or where the axis has no order."""
        numeric = all(isinstance(p.x, (int, float)) and not isinstance(p.x, bool) for p in self.points)
        if not numeric or len(self.points) < 2:
            return None
        if self.best is self.points[0]:
            return "lowest" if self.best.x > 0 else None
        return "highest" if self.best is self.points[-1] else None

    @property
    def rows(self) -> list[Row]:
        """Every run of the curve."""
        return [row for point in self.points for row in point.rows]


def is_log(values: Iterable[Any]) -> bool:
    """Whether an axis is logarithmic: positive numbers that span a decade or more."""
    numbers = list(values)
    return positive(numbers) and max(numbers) >= 10 * min(numbers)


def positive(values: Iterable[Any]) -> bool:
    """Whether there are values, and all are positive numbers."""
    found = list(values)
    return bool(found) and all(isinstance(x, (int, float)) and type(x) is not bool and x > 0 for x in found)


Placed = tuple[Row, str, Any]
"""A run, the label of its curve, and its setting."""


def group(runs: Iterable[Placed], log: bool | None = None) -> list[Curve]:
    """Curves in the order of their first run.

    Args:
        runs: finished runs with curve and setting.
        log: whether the axis is logarithmic; by default what :func:`is_log` says of the settings.
    """
    groups: dict[str, dict[Any, list[Row]]] = {}
    for row, label, x in runs:
        setting = x if isinstance(x, (int, float)) else str(x)
        groups.setdefault(label, {}).setdefault(setting, []).append(row)
    settings = sorted({s for found in groups.values() for s in found}, key=_order)
    if log is None:
        log = is_log(settings)
    position = {s: math.log10(s) if log else float(rank) for rank, s in enumerate(settings)}
    result = []
    for label, found in groups.items():
        ordered = sorted(found.items(), key=lambda item: position[item[0]])
        points = tuple(Point(s, position[s], tuple(sorted(rs, key=_by_seed))) for s, rs in ordered)
        result.append(Curve(label, points, log))
    return result


def _order(setting: Any) -> tuple[int, float, str]:
    if isinstance(setting, (int, float)):
        return (0, float(setting), "")
    return (1, 0.0, str(setting))


def _by_seed(row: Row) -> tuple[int, str]:
    return row.seed, row.id
