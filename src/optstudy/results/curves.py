"""Finished runs grouped into curves, the basis of figures, tables, statistics and claims. No torch.

A point is one setting: its runs differ only in the seed. If a study varies something that is neither the
figure's horizontal axis nor its curve, each of its values becomes a separate curve.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeGuard

from optstudy import record
from optstudy.errors import UserError, say_once
from optstudy.identity import DEFAULTS
from optstudy.record import leaves
from optstudy.results.table import Row

SEPARATOR = " / "


def joined(panel: str, curve: str) -> str:
    """Return the label of a curve in a panel; without a panel, the curve's name."""
    return SEPARATOR.join(filter(None, (panel, curve)))


def split_label(label: str, panels: Iterable[str], is_map: bool = False) -> tuple[str, str, str]:
    """Split a label into panel, row and curve; missing parts are empty.

    Args:
        label: the curve's label in a plan.
        panels: names of the study's panels.
        is_map: curves are named ``ROW / COLUMN``; labels of other studies are not split into rows.
    """
    panel = max((name for name in panels if name and in_panel(label, name)), key=len, default="")
    curve = label.removeprefix(f"{panel}{SEPARATOR}") if panel else label
    row, _, column = curve.rpartition(SEPARATOR) if is_map else ("", "", curve)
    return panel, row, column


def is_curve(label: str, curve: str, panel: str | None = None) -> bool:
    """Whether a label names this curve, in the given panel or in any."""
    if panel is not None:
        return label == joined(panel, curve)
    return label == curve or label.endswith(SEPARATOR + curve)


def in_panel(label: str, panel: str | None) -> bool:
    """Whether a label names a curve of that panel."""
    return panel is not None and label.startswith(panel + SEPARATOR)


@dataclass(frozen=True)
class Place:
    """Where a run belongs on a figure; a run may belong to several curves."""

    run: str
    """The run's id."""
    curve: str
    """The curve's name; in a map, the name of its column."""
    x: Any
    """Its setting on the horizontal axis."""
    panel: str = ""
    """The panel's name in the study file; empty where there are none."""
    row: str = ""
    """The row of a map."""
    note: str = ""
    """A short phrase that readers must know about this run; empty for most."""
    apart: tuple[str, ...] = ()
    """Config keys whose values name the part of the curve that the run is in, see :func:`apart`."""


@dataclass(frozen=True)
class FinishedRun:
    """One finished run on a figure."""

    row: Row
    note: str = ""
    """See :attr:`Place.note`."""
    runs: Path | None = None
    """The runs folder that contains this run's folder; None if there is none."""
    kept: Sequence[Mapping[str, Any]] = ()
    """The metrics of a run without a folder, from a committed record."""

    @property
    def history(self) -> list[dict[str, Any]]:
        """Its metrics as rows, in order of steps; empty if the file is missing or unreadable."""
        return history(None if self.runs is None else self.runs / self.row.id, self.kept)


@dataclass(frozen=True)
class Point:
    """All runs of a curve at one setting, one per seed."""

    x: Any
    position: float
    """log10(x), or the rank of x if the axis is not logarithmic."""
    runs: tuple[FinishedRun, ...]

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The rows of its runs, in order of seeds."""
        return tuple(run.row for run in self.runs)

    @cached_property
    def loss(self) -> float:
        """Mean over seeds, nats per token."""
        return math.fsum(row.loss for row in self.rows) / len(self.rows)

    @cached_property
    def by_seed(self) -> dict[int, float]:
        """The loss of each seed."""
        return {row.seed: row.loss for row in self.rows}

    @property
    def diverged(self) -> int:
        """Runs that diverged."""
        return sum(row.state == "diverged" for row in self.rows)

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes on its runs, each once."""
        return tuple(dict.fromkeys(run.note for run in self.runs if run.note))


@dataclass(frozen=True)
class Curve:
    """One line of a figure: points in order of position."""

    name: str
    """The curve's name in the study file; in a map, the name of its column."""
    points: tuple[Point, ...]
    log: bool
    """Positions are log10 of the setting, so distances are in decades."""
    panel: str = ""
    """The panel's name in the study file."""
    row: str = ""
    """The row of a map."""
    apart: tuple[tuple[str, Any], ...] = ()
    """Config keys and values that distinguish it from curves of the same name in the same panel."""

    @cached_property
    def label(self) -> str:
        """A text unique within the figure: ``PANEL / NAME`` or ``PANEL / ROW / COLUMN``."""
        return joined(joined(self.panel, self.row), self.name) + said(self.apart)

    @cached_property
    def best(self) -> Point:
        """The point with the lowest mean loss; if equal, the one with fewer diverged runs."""
        return min(self.points, key=lambda point: (point.loss, point.diverged))

    @cached_property
    def trained(self) -> bool:
        """Whether any run got below the loss before training; if none did, there is no best."""
        return any(row.loss < row.start for row in self.rows)

    @property
    def edge(self) -> Literal["lowest", "highest"] | None:
        """The end of the grid at which the best is; None inside it, at zero, or if the axis has no order."""
        if not all(numeric(p.x) for p in self.points) or len(self.points) < 2 or not self.trained:
            return None
        if self.best is self.points[0]:
            return "lowest" if self.best.x > 0 else None
        return "highest" if self.best is self.points[-1] else None

    @property
    def rows(self) -> list[Row]:
        """Every run of the curve."""
        return [row for point in self.points for row in point.rows]

    @property
    def notes(self) -> tuple[str, ...]:
        """The notes on its runs, each once."""
        return tuple(dict.fromkeys(note for point in self.points for note in point.notes))


AXES = {
    "optimizer.name": "optimizer",
    "optimizer.lr": "learning rate",
    "lr": "learning rate",
    "optimizer.weight_decay": "weight decay",
    "optimizer.options.eps": "epsilon",
    "optimizer.options.momentum": "momentum",
    "schedule.warmup": "warm-up, share of the steps",
    "training.batch_size": "batch size, sequences",
    "training.steps": "steps",
}
"""Axis labels of config keys."""


def axis(key: str) -> str:
    """The axis label of a config key, or of a variable ``$name`` of the study."""
    return AXES.get(key, key.rpartition(".")[2].removeprefix("$").replace("_", " "))


def numeric(x: Any) -> TypeGuard[int | float]:
    """Whether a value is a number; true and false are not."""
    return isinstance(x, (int, float)) and not isinstance(x, bool)


def number(x: Any) -> str:
    """Format a setting to three significant digits: 3.16e-3, 0.1, 31.6; other values as text."""
    if not numeric(x):
        return str(x)
    if x == 0 or 0.01 <= abs(x) < 1e5:
        return f"{x:.3g}" if abs(x) < 1000 else f"{x:g}"
    mantissa, _, exponent = f"{x:.2e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def said(apart: Iterable[tuple[str, Any]]) -> str:
    """What distinguishes a curve, as text to append to its name: ``, batch size 16``."""
    parts = ((axis(key).partition(",")[0], "none" if v is None else number(v)) for key, v in apart)
    return "".join(f", {name} {value}" for name, value in parts)


def is_log(values: Iterable[Any]) -> bool:
    """Whether an axis is logarithmic: positive numbers that span a decade or more."""
    numbers = list(values)
    return positive(numbers) and max(numbers) >= 10 * min(numbers)


def positive(values: Iterable[Any]) -> bool:
    """Whether there is at least one value and all are positive numbers."""
    found = list(values)
    return bool(found) and all(numeric(x) and x > 0 for x in found)


def history(folder: Path | None, kept: Sequence[Mapping[str, Any]] = ()) -> list[dict[str, Any]]:
    """Read a run's metrics from its folder, or else those that a record kept; empty if neither has any.

    Damaged metrics are reported once and left out.
    """
    try:
        rows = [] if folder is None else record.read_metrics(folder)
    except UserError as error:
        say_once(f"{error}; its curve is left out")
        rows = []
    return [_measured(row) for row in rows or kept if isinstance(row, dict)]


def _measured(row: dict[str, Any]) -> dict[str, Any]:
    """Drop the effective learning rates of roles with a null, which stands for a non-finite number."""
    rates = row.get("effective_lr")
    if not isinstance(rates, dict):
        return row if rates is None else {**row, "effective_lr": None}
    kept = {role: of for role, of in rates.items() if isinstance(of, dict) and all(map(numeric, of.values()))}
    return {**row, "effective_lr": kept or None}


Placed = tuple[FinishedRun, Place]
"""A finished run and its place on the figure."""


def group(placed: Iterable[Placed], log: bool | None = None, order: Iterable[Any] = ()) -> list[Curve]:
    """Return the curves of one panel in the order of their first run.

    Args:
        placed: finished runs, each with its place.
        log: whether the axis is logarithmic; by default :func:`is_log` of the settings decides.
        order: non-numeric settings in their order on the axis; others follow in alphabetical order.
    """
    rank = {x: k for k, x in enumerate(dict.fromkeys(map(_setting, order)))}
    found: dict[Curve, dict[Any, list[FinishedRun]]] = {}
    for name, runs in _by_name(placed).items():
        for apart, own in _split(runs):
            settings = found.setdefault(replace(name, apart=apart), {})
            for run, place in own:
                settings.setdefault(_setting(place.x), []).append(run)
    ordered = sorted({s for settings in found.values() for s in settings}, key=lambda s: _order(s, rank))
    if log is None:
        log = is_log(ordered)
    position = {s: math.log10(s) if log else float(rank) for rank, s in enumerate(ordered)}
    curves = []
    for name, settings in found.items():
        points = [
            Point(s, position[s], tuple(sorted(runs, key=lambda run: (run.row.seed, run.row.id))))
            for s, runs in sorted(settings.items(), key=lambda item: position[item[0]])
        ]
        curves.append(replace(name, points=tuple(points), log=log))
    return curves


def _by_name(placed: Iterable[Placed]) -> dict[Curve, list[Placed]]:
    """Group runs by the curve that the study names; keys are curves without points."""
    found: dict[Curve, list[Placed]] = {}
    for run, place in placed:
        found.setdefault(Curve(place.curve, (), False, place.panel, place.row), []).append((run, place))
    return found


def _split(placed: Sequence[Placed]) -> Iterable[tuple[tuple[tuple[str, Any], ...], list[Placed]]]:
    """Split the runs of one name so that runs at one setting differ only in the seed.

    Yields:
        The keys and values that name a part, and its runs. Most curves give a single part without keys.
    """
    named = list(dict.fromkeys(key for _, place in placed for key in place.apart))
    found = _varying((place.x, run.row.config) for run, place in placed)
    keys = list(dict.fromkeys([*named, *found]))
    parts: dict[tuple[str, ...], list[Placed]] = {}
    values: dict[tuple[str, ...], list[Any]] = {}
    for run, place in placed:
        text, own = _values(run.row.config, keys)
        parts.setdefault(text, []).append((run, place))
        values.setdefault(text, own)
    chosen = _naming(list(parts), keys, len(named))
    for text, runs in parts.items():
        yield tuple((keys[k], _plain(values[text][k])) for k in chosen), runs


def apart(settings: Iterable[tuple[Any, dict[str, Any]]]) -> tuple[str, ...]:
    """Return the keys that name the parts of a curve whose runs at one setting differ in more than the seed.

    Args:
        settings: the setting and the config of every run of the curve, finished or not.
    """
    some = list(settings)
    keys = _varying(some)
    return tuple(keys[k] for k in _naming([*{_values(config, keys)[0] for _, config in some}], keys))


def _varying(settings: Iterable[tuple[Any, dict[str, Any]]]) -> list[str]:
    at: dict[Any, list[dict[str, Any]]] = {}
    for x, config in settings:
        at.setdefault(_setting(x), []).append(config)
    return list(dict.fromkeys(key for configs in at.values() for key in _differing(configs)))


def _values(config: dict[str, Any], keys: Sequence[str]) -> tuple[tuple[str, ...], list[Any]]:
    """A config's values of the given keys, as JSON and as they are."""
    flat = _flat(config) if keys else {}
    own = [flat.get(key) for key in keys]
    return tuple(json.dumps(value, sort_keys=True) for value in own), own


def _flat(config: dict[str, Any]) -> dict[str, Any]:
    """A config by dotted key.

    One of our own trainer's is seen as by its id: where it is older than a key it has the key's default, and
    what it watches does not count.
    """
    if "trainer" in config:
        return dict(leaves(config))
    return {**DEFAULTS, **dict(leaves({key: part for key, part in config.items() if key != "watch"}))}


NO_SETTING = frozenset({"seed", "trainer"})
"""Config keys that are not settings: runs of one setting may differ in them."""


def _differing(configs: Sequence[dict[str, Any]]) -> list[str]:
    """Dotted keys in which configs differ from the first one, except the seed and the trainer."""
    first = configs[0]
    odd = [one for one in configs[1:] if any(one.get(k) != first.get(k) for k in {*one, *first} - NO_SETTING)]
    if not odd:
        return []
    flat = [_flat(config) for config in (first, *odd)]
    keys = dict.fromkeys(key for one in flat for key in one if key.partition(".")[0] not in NO_SETTING)
    return [key for key in keys if any(one.get(key) != flat[0].get(key) for one in flat)]


def _naming(parts: Sequence[tuple[str, ...]], keys: Sequence[str], given: int = 0) -> list[int]:
    """Return the first keys that together distinguish all parts; keys in :data:`AXES` come before others.

    Args:
        parts: each part's values of the keys.
        keys: keys that may name a part.
        given: the number of leading keys that are always used.
    """
    order = sorted(range(len(keys)), key=lambda k: (keys[k] != "optimizer.name", keys[k] not in AXES, k))
    chosen = list(range(given))
    for k in order:
        told = {tuple(part[j] for j in chosen) for part in parts}
        if len(told) == len(parts):
            break
        if len({tuple(part[j] for j in (*chosen, k)) for part in parts}) > len(told):
            chosen.append(k)
    return sorted(chosen)


def _plain(value: Any) -> Any:
    """A hashable form of the value."""
    return json.dumps(value) if isinstance(value, (list, dict)) else value


def _setting(x: Any) -> Any:
    return x if isinstance(x, (int, float)) else str(x)


def _order(setting: Any, rank: Mapping[Any, int]) -> tuple[int, float, str]:
    if isinstance(setting, (int, float)):
        return (0, float(setting), "")
    return (1, rank.get(setting, math.inf), str(setting))
