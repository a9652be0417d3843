"""What a report is made from: a study's finished runs and what the study asks. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from optstudy import stats
from optstudy.curves import Curve, Placed, group, positive
from optstudy.report import style
from optstudy.table import Row


@dataclass(frozen=True)
class Place:
    """A run's place on a figure."""

    run: str
    """Its id."""
    curve: str
    """Its curve; ``PANEL / CURVE`` puts it in a panel, ``PANEL / ROW / COLUMN`` in a map."""
    x: Any
    """Its setting on the horizontal axis."""


@dataclass(frozen=True)
class Sweep:
    """One study at one scale."""

    name: str
    """The study's name, e.g. ``paper/fig1``."""
    title: str
    rows: Sequence[Row]
    """Finished runs."""
    places: Sequence[Place]
    """Where on the figure each run lies; a run may lie on several curves."""
    scale: str = ""
    asks: str = ""
    """The question, a sentence."""
    kind: str = "sweep"
    """``sweep``, ``map``, or ``effective``: effective learning rates over the best run."""
    x: str = "optimizer.lr"
    """Config key of the axis, or a name for it."""
    axes: Mapping[str, str] = field(default_factory=dict)
    """The same for a panel whose axis is another."""
    baselines: frozenset[str] = frozenset()
    """Labels of the curves that other studies ran and this one is compared with; drawn dashed."""
    missing: int = 0
    """Runs of the study that have no result yet."""
    runs: Path | None = None
    """Runs folder, for training curves and environments; None draws none."""
    recorded: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Training curves of runs that have no folder, by id."""
    command: str = ""
    """What makes the runs again."""
    claims: Sequence[Mapping[str, Any]] = field(default=())
    """Verdicts of this study: ``name``, ``statement``, ``verdict``, ``estimate``, ``interval``, ``seeds``."""

    @cached_property
    def curves(self) -> list[Curve]:
        """One curve per label, panel by panel."""
        rows = {row.id: row for row in self.rows}
        panels: dict[str, list[Placed]] = {}
        for place in self.places:
            if place.run in rows:
                panels.setdefault(self.panel(place.curve), []).append((rows[place.run], place.curve, place.x))
        return [curve for panel, runs in panels.items() for curve in group(runs, self._log(panel, runs))]

    @property
    def labels(self) -> list[str]:
        """Labels of all curves."""
        return [curve.label for curve in self.curves]

    @cached_property
    def summaries(self) -> list[stats.Summary]:
        """One summary per curve, by panel, the best of each first."""
        by_panel = ([c for c in self.curves if self.panel(c.label) == panel] for panel in self.panels)
        return [summary for some in by_panel for summary in stats.summarise(some)]

    @cached_property
    def groups(self) -> list[list[stats.Summary]]:
        """The summaries that are compared with each other: those of one panel, or all of a map."""
        return [[s for s in self.summaries if self.panel(s.label) == panel] for panel in self.panels]

    @cached_property
    def panels(self) -> list[str]:
        """Panels in order; one empty name where there are none, and in a map."""
        return list(dict.fromkeys(self.panel(curve.label) for curve in self.curves))

    def panel(self, label: str) -> str:
        """The panel of a curve."""
        return "" if self.kind == "map" else style.panel(label)

    def name_of(self, label: str) -> str:
        """The curve's name without its panel, as the paper writes it."""
        return style.full_name(label) if self.kind == "map" else style.name(label)

    def key(self, label: str) -> str:
        """The key of the axis that a curve lies along."""
        return self.axes.get(self.panel(label), self.x)

    def axis(self, label: str) -> str:
        """What the axis that a curve lies along is called."""
        return style.axis(self.key(label))

    @cached_property
    def unfinished(self) -> frozenset[str]:
        """Labels of the curves some of whose runs have not ended: their best may move."""
        ended = {row.id for row in self.rows}
        return frozenset(place.curve for place in self.places if place.run not in ended)

    @property
    def swept(self) -> bool:
        """Whether any curve has more than one setting."""
        return any(len(curve.points) > 1 for curve in self.curves)

    @property
    def plots(self) -> list[tuple[str, bool]]:
        """Panel of each plot and whether it is aligned at each best: learning rates are drawn both ways."""
        both = {p: self.axes.get(p, self.x).endswith(".lr") for p in self.panels}
        return [(panel, aligned) for panel in self.panels for aligned in (False, True)[: 1 + both[panel]]]

    @property
    def axis_of_all(self) -> str:
        """What the axis is called; ``setting`` where panels differ."""
        names = {self.axis(curve.label) for curve in self.curves}
        return names.pop() if len(names) == 1 else "setting"

    def _log(self, panel: str, runs: Sequence[Placed]) -> bool | None:
        key = self.axes.get(panel, self.x)
        return True if key.endswith(".lr") and positive(x for _, _, x in runs) else None

    @property
    def reference(self) -> stats.Summary | None:
        """Adam, which step times are compared with."""
        names = {style.name(s.label): s for s in reversed(self.summaries)}
        return names.get("Adam")

    @property
    def one_seed(self) -> bool:
        """Whether no setting was run with two seeds."""
        return all(len(point.rows) == 1 for curve in self.curves for point in curve.points)
