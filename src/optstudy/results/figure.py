"""One study at one scale as a figure: panels, curves, points and runs, and the study's question. No torch.

Reports, claims, tables, exports and the Python interface read this object; nothing else groups runs.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from optstudy.errors import UserError, say_once
from optstudy.record import is_number, read_json
from optstudy.results import curves as _curves
from optstudy.results.curves import Curve, FinishedRun, Place, Placed, axis, group, positive
from optstudy.results.equivalents import Horizon, Ratio, horizon, lacking, lengths, tokens_of
from optstudy.results.stats import Summary, summarise
from optstudy.results.table import Row

Cost = Literal["state_bytes_per_param", "step_ms", "peak_memory_mb"]
"""What a curve costs: columns of its runs. Step times are shown as multiples of Adam's."""
SOME = 20
"""Number of runs whose metrics are inspected to find out which columns they have."""
READ = 300
"""Number of runs whose environments are read, evenly spaced."""


@dataclass(frozen=True)
class Panel:
    """One plot: curves over one axis."""

    name: str
    """Its name in the study file; empty if there are no panels."""
    title: str
    """The text above it; empty if the plot needs none."""
    key: str
    """The config key of its axis, or a variable ``$name`` of the study."""
    curves: tuple[Curve, ...]

    @property
    def axis(self) -> str:
        """The axis label."""
        return axis(self.key)

    @property
    def log(self) -> bool:
        """Whether its axis is logarithmic."""
        return self.curves[0].log

    @property
    def plots(self) -> list[bool]:
        """Its plots, by whether curves are aligned at their bests: learning rates are drawn both ways."""
        return [False, True] if self.key.endswith(".lr") else [False]

    @cached_property
    def summaries(self) -> list[Summary]:
        """One summary per curve, best first."""
        return summarise(self.curves)


@dataclass(frozen=True)
class Metric:
    """The compared number, as reports name it. Rows hold it so that lower is better, see ``Row.loss``."""

    name: str = "validation loss"
    unit: str = "nats"
    """Empty if unknown; then it is not shown."""
    maximise: bool = False
    """Larger is better: shown values have the opposite sign of computed ones."""
    digits: int = 3
    """Decimal places."""

    @property
    def label(self) -> str:
        """The axis label."""
        better = " (better downwards)" if self.maximise else ""
        return ", ".join(filter(None, (self.name, self.unit))) + better

    @property
    def best(self) -> str:
        """Whether the lowest or the highest value is best."""
        return "highest" if self.maximise else "lowest"

    @property
    def units(self) -> str:
        """The unit with a leading space, or nothing."""
        return f" {self.unit}" if self.unit else ""

    def text(self, value: float, sign: str = "") -> str:
        """A value, or a difference of values, as shown."""
        return f"{-value if self.maximise else value:{sign}.{self.digits}f}"

    def size(self, value: float) -> str:
        """The size of a difference, without its sign."""
        return f"{abs(value):.{self.digits}f}"

    @classmethod
    def of(cls, name: str, maximise: bool, values: Iterable[float]) -> "Metric":
        """Return a metric of unknown unit, shown to four digits of the largest of the values."""
        largest = max((abs(value) for value in values if math.isfinite(value)), default=1.0) or 1.0
        return cls(name, "", maximise, min(12, max(0, 3 - math.floor(math.log10(largest)))))


@dataclass(frozen=True)
class Figure:
    """One study at one scale."""

    name: str
    """The study's name, such as ``paper/fig1``."""
    title: str
    rows: Sequence[Row]
    """Finished runs."""
    places: Sequence[Place]
    """Where each run belongs, including runs that have not finished."""
    scale: str = ""
    metric: Metric = Metric()
    asks: str = ""
    """The question, one sentence."""
    kind: str = "sweep"
    """``sweep``, ``map``, ``gaps``, ``deciles``, ``distances``, or ``effective``: effective learning rates
    over the best run."""
    over: str = "training.steps"
    """The config key that gaps are shown over."""
    against: str = "adam"
    """The curve that gaps and tokens are compared with."""
    x: str = "optimizer.lr"
    """Config key of the axis, or a name for it."""
    axes: Mapping[str, str] = field(default_factory=dict)
    """Axes of panels that differ from ``x``, by the panel's name."""
    titles: Mapping[str, str] = field(default_factory=dict)
    """Titles of panels that differ from their names."""
    costs: Sequence[Cost] = ()
    """Costs over which the best losses are drawn."""
    baselines: frozenset[tuple[str, str]] = frozenset()
    """Panel and name of curves from other studies, shown for comparison; drawn dashed."""
    waiting: frozenset[tuple[str, str]] = frozenset()
    """Panel and name of curves with runs that cannot be planned yet."""
    missing: int = 0
    """Runs of the study that have no result yet."""
    runs: Path | None = None
    """Runs folder, for training curves and environments; with None, none are drawn."""
    recorded: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    """Training curves of runs without a folder, by id."""
    command: str = ""
    """The command that repeats the runs."""
    lengths: "Figure | Literal['own'] | None" = None
    """The figure with the reference at several lengths; ``own``: this one; None: no token-equivalents."""
    claims: Sequence[Mapping[str, Any]] = field(default=())
    """Verdicts on this study's claims, as :meth:`optstudy.claims.verdict.Verdict.tree` returns them."""
    further: frozenset[str] = frozenset()
    """Runs with seeds beyond the study's own, which ``--decide`` added."""
    noise: tuple[str, Mapping[str, str]] = ("", {})
    """A study that gives the variance over seeds for this one, if any, and the names of curves there."""

    @cached_property
    def panels(self) -> list[Panel]:
        """The panels in the order of their first run; a map has one panel with all its cells."""
        rows = {row.id: row for row in self.rows}
        found: dict[str, list[Placed]] = {}
        order: dict[str, list[Any]] = {}
        for place in self.places:
            where = "" if self.kind == "map" else place.panel
            order.setdefault(where, []).append(place.x)
            if place.run in rows:
                found.setdefault(where, []).append((self._run(rows[place.run], place), place))
        return [self._panel(name, runs, order[name]) for name, runs in found.items()]

    def _panel(self, name: str, runs: Sequence[Placed], order: Iterable[Any]) -> Panel:
        key = self.axes.get(name, self.x)
        log = True if key.endswith(".lr") and positive(place.x for _, place in runs) else None
        return Panel(name, self.title_of(name), key, tuple(group(runs, log, order)))

    @cached_property
    def curves(self) -> list[Curve]:
        """Every curve, panel by panel."""
        return [curve for panel in self.panels for curve in panel.curves]

    @cached_property
    def summaries(self) -> list[Summary]:
        """One summary per curve, panel by panel, best first."""
        return [summary for panel in self.panels for summary in panel.summaries]

    @cached_property
    def horizon(self) -> Horizon | None:
        """The reference's loss as a function of a run's tokens; None if too few lengths are known."""
        return None if self.lengths is None else horizon(self._along.curves, self.against)

    @property
    def no_horizon(self) -> str:
        """Why there are no token-equivalents though the study asks for them; else empty."""
        if self.lengths is None or self.horizon is not None:
            return ""
        return f"{self.against} {lacking(lengths(self._along.curves, self.against))}, in {self._along.name}"

    @property
    def _along(self) -> "Figure":
        """The figure with the reference at several lengths."""
        return self.lengths if isinstance(self.lengths, Figure) else self

    @cached_property
    def equivalents(self) -> Mapping[str, Ratio]:
        """The available token-equivalents, by the curve's label."""
        found = {curve.label: tokens_of(self, curve) for curve in self.curves}
        return {label: one for label, one in found.items() if one is not None}

    def below(self, seed: int) -> "Figure":
        """The same figure without runs of this seed and higher ones."""
        later = {row.id for row in self.rows if row.seed >= seed}
        return replace(
            self,
            rows=[row for row in self.rows if row.id not in later],
            places=[place for place in self.places if place.run not in later],
        )

    def history(self, run: str) -> list[dict[str, Any]]:
        """A run's metrics that have a progress column; empty if they cannot be read."""
        folder = None if self.runs is None else self.runs / run
        rows = _curves.history(folder, self.recorded.get(run, ()))
        return [row for row in rows if is_number(row.get(self.progress))]

    @cached_property
    def environments(self) -> Mapping[str, Mapping[str, Any]]:
        """``env.json`` of up to :data:`READ` runs that have a folder, by id; damaged ones are told of."""
        found: dict[str, Mapping[str, Any]] = {}
        if self.runs is None:
            return found
        for row in self.rows[:: 1 + len(self.rows) // READ]:
            try:
                tree = read_json(self.runs / row.id / "env.json")
            except UserError as error:
                say_once(f"{error}; left out")
                continue
            if tree is not None:
                found[row.id] = tree
        return found

    @property
    def foreign(self) -> bool:
        """Whether another program trains: only what its runs reported is known."""
        return any(row.reported is not None for row in self.rows)

    @cached_property
    def progress(self) -> str:
        """The horizontal axis of training curves: ``tokens``, or ``step`` if a program logs no tokens."""
        if not self.foreign:
            return "tokens"
        read = (_curves.history(self.runs and self.runs / row.id) for row in self.rows[:SOME])
        return "tokens" if any(is_number(row.get("tokens")) for rows in read for row in rows) else "step"

    def title_of(self, panel: str) -> str:
        """The text above a panel."""
        return self.titles.get(panel, panel)

    def panel_of(self, curve: Curve) -> Panel:
        """The panel that a curve is drawn in."""
        return next(panel for panel in self.panels if self.kind == "map" or panel.name == curve.panel)

    def baseline(self, curve: Curve) -> bool:
        """Whether the curve comes from another study."""
        return (curve.panel, curve.name) in self.baselines or ("", curve.name) in self.baselines

    @cached_property
    def _unfinished(self) -> frozenset[tuple[str, str, str]]:
        ended = {row.id for row in self.rows}
        return frozenset((p.panel, p.row, p.curve) for p in self.places if p.run not in ended)

    def unfinished(self, curve: Curve) -> bool:
        """Whether some runs of the curve have not finished: its best may change."""
        return (curve.panel, curve.row, curve.name) in self._unfinished

    @property
    def incomplete(self) -> frozenset[tuple[str, str]]:
        """Panel and name of every curve with missing runs, including runs that cannot be planned."""
        return self.waiting | {(panel, name) for panel, _, name in self._unfinished}

    def bare(self, panel: Panel) -> list[str]:
        """Names of a panel's curves without any finished run."""
        ended = {row.id for row in self.rows}
        mine = [place for place in self.places if place.panel == panel.name]
        begun = {place.curve for place in mine if place.run in ended}
        names = [place.curve for place in mine] + sorted(
            name for of, name in self.waiting if of == panel.name
        )
        return [name for name in dict.fromkeys(names) if name not in begun]

    @property
    def swept(self) -> bool:
        """Whether any curve has more than one setting."""
        return any(len(curve.points) > 1 for curve in self.curves)

    @property
    def axis(self) -> str:
        """The axis label; ``setting`` if panels differ."""
        names = {panel.axis for panel in self.panels}
        return names.pop() if len(names) == 1 else "setting"

    @property
    def reference(self) -> Summary | None:
        """Adam, the reference for step times."""
        return next((s for s in self.summaries if s.curve.name == "adam" and not s.curve.apart), None)

    @property
    def one_seed(self) -> bool:
        """Whether no setting was run with more than one seed."""
        return all(len(point.rows) == 1 for curve in self.curves for point in curve.points)

    @property
    def effective(self) -> list[dict[str, Any]]:
        """Effective learning rates over the best run of the best curve that recorded any.

        Returns:
            Rows of its metrics with ``step``, ``tokens`` and ``effective_lr`` by role; empty if none has any.
        """
        for summary in self.summaries:
            for row in summary.curve.best.rows:
                if found := [one for one in self.history(row.id) if one.get("effective_lr")]:
                    return found
        return []

    def _run(self, row: Row, place: Place) -> FinishedRun:
        return FinishedRun(row, place.note, self.runs, self.recorded.get(row.id, ()))
