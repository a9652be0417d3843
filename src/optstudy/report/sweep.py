"""What a report is made from: a study's finished runs and what the study asks. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from optstudy import curves, stats
from optstudy.report import style
from optstudy.table import Row


@dataclass(frozen=True)
class Sweep:
    """One study at one scale."""

    name: str
    """The study's name, e.g. ``paper/fig1``."""
    title: str
    rows: Sequence[Row]
    """Finished runs."""
    labels: Mapping[str, str]
    """The curve of each run's id; ``PANEL / CURVE`` puts it in a panel, ``PANEL / ROW / COLUMN`` in a map."""
    scale: str = ""
    asks: str = ""
    """The question, a sentence."""
    kind: str = "sweep"
    """``sweep``, ``map``, or ``effective``: effective learning rates over the best run."""
    x: str = "optimizer.lr"
    """Config key of the axis."""
    missing: int = 0
    """Runs of the study that have no result yet."""
    runs: Path | None = None
    """Runs folder, for training curves and environments; None draws none."""
    command: str = ""
    """What makes the runs again."""
    claims: Sequence[Mapping[str, Any]] = field(default=())
    """Verdicts: ``name``, ``statement``, ``verdict``, ``estimate``, ``interval``, ``seeds``."""

    @cached_property
    def curves(self) -> list[curves.Curve]:
        """One curve per label."""
        return curves.group(self.rows, self.labels, self.x)

    @cached_property
    def summaries(self) -> list[stats.Summary]:
        """One summary per curve, by panel, the best of each first."""
        order = {panel: k for k, panel in enumerate(self.panels)} if self.kind == "sweep" else {}
        return sorted(stats.summarise(self.curves), key=lambda s: order.get(style.panel(s.label), 0))

    @cached_property
    def groups(self) -> list[list[stats.Summary]]:
        """The summaries that are compared with each other: those of one panel, or all of a map."""
        if self.kind == "map":
            return [self.summaries]
        return [[s for s in self.summaries if style.panel(s.label) == panel] for panel in self.panels]

    @cached_property
    def panels(self) -> list[str]:
        """Panels in order; one empty name where there are none."""
        return list(dict.fromkeys(style.panel(curve.label) for curve in self.curves))

    @property
    def axis(self) -> str:
        """What the axis is called."""
        return style.axis(self.x)

    @property
    def reference(self) -> stats.Summary | None:
        """Adam, which step times are compared with."""
        names = {style.name(s.label): s for s in reversed(self.summaries)}
        return names.get("Adam")

    @property
    def one_seed(self) -> bool:
        """Whether no setting was run with two seeds."""
        return all(len(point.rows) == 1 for curve in self.curves for point in curve.points)
