"""Finished runs as curves: what figures, tables, statistics and claims are made of. No torch.

A point is one setting: its runs differ in the seed and in nothing else. Where an axis of a study is neither
the figure's horizontal axis nor its curve, each of its values is a curve of its own.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from optstudy import record
from optstudy.errors import UserError, say_once
from optstudy.record import leaves
from optstudy.results.table import Row

SEPARATOR = " / "


def joined(panel: str, curve: str) -> str:
    """Return the label of a panel's curve; without a panel the curve's name."""
    return SEPARATOR.join(filter(None, (panel, curve)))


def split_label(label: str, panels: Iterable[str], is_map: bool = False) -> tuple[str, str, str]:
    """Return panel, row and curve of a label; what it does not have is empty.

    Args:
        label: what a plan calls a curve.
        panels: names of the study's panels.
        is_map: curves are named ``ROW / COLUMN``; of other studies none is cut.
    """
    panel = max((name for name in panels if name and in_panel(label, name)), key=len, default="")
    curve = label.removeprefix(f"{panel}{SEPARATOR}") if panel else label
    row, _, column = curve.rpartition(SEPARATOR) if is_map else ("", "", curve)
    return panel, row, column


def is_curve(label: str, curve: str, panel: str | None = None) -> bool:
    """Whether a label is that curve's, of that panel or of any."""
    if panel is not None:
        return label == joined(panel, curve)
    return label == curve or label.endswith(SEPARATOR + curve)


def in_panel(label: str, panel: str | None) -> bool:
    """Whether a label is of a curve of that panel."""
    return panel is not None and label.startswith(panel + SEPARATOR)


@dataclass(frozen=True)
class Place:
    """Where on a figure a run lies; a run may lie on several curves."""

    run: str
    """The run's id."""
    curve: str
    """The curve's name; in a map that of its column."""
    x: Any
    """Its setting on the horizontal axis."""
    panel: str = ""
    """The panel's name in the study file; empty where there are none."""
    row: str = ""
    """The row of a map."""
    note: str = ""
    """What a reader must know of this run, a short phrase; empty for most."""
    apart: tuple[str, ...] = ()
    """Config keys whose values name the part of the curve that it is on, see :func:`apart`."""


@dataclass(frozen=True)
class FinishedRun:
    """One finished run on a figure."""

    row: Row
    note: str = ""
    """See :attr:`Place.note`."""
    runs: Path | None = None
    """The runs folder that its own folder is in; None where there is none."""
    kept: Sequence[Mapping[str, Any]] = ()
    """The metrics of a run that has no folder, from a committed record."""

    @property
    def history(self) -> list[dict[str, Any]]:
        """Rows of its metrics, in order of steps; none where the file is missing or cannot be read."""
        return history(None if self.runs is None else self.runs / self.row.id, self.kept)


@dataclass(frozen=True)
class Point:
    """All runs of a curve at one setting, one per seed."""

    x: Any
    position: float
    """log10(x), or the rank of x on an axis that is not logarithmic."""
    runs: tuple[FinishedRun, ...]

    @cached_property
    def rows(self) -> tuple[Row, ...]:
        """The records of its runs, in order of seeds."""
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
    """The curve's name in the study file; in a map that of its column."""
    points: tuple[Point, ...]
    log: bool
    """Positions are log10 of the setting, so distances are decades."""
    panel: str = ""
    """The panel's name in the study file."""
    row: str = ""
    """The row of a map."""
    apart: tuple[tuple[str, Any], ...] = ()
    """Config keys and values that set it apart from the curves of the same name beside it."""

    @cached_property
    def label(self) -> str:
        """A text that no other curve of the figure has: ``PANEL / NAME``, ``PANEL / ROW / COLUMN``."""
        return joined(joined(self.panel, self.row), self.name) + said(self.apart)

    @cached_property
    def best(self) -> Point:
        """The point with the lowest mean loss; of equal ones the one with fewer diverged runs."""
        return min(self.points, key=lambda point: (point.loss, point.diverged))

    @cached_property
    def trained(self) -> bool:
        """Whether any run got below the loss before training; without, there is no best."""
        return any(row.loss < row.start for row in self.rows)

    @property
    def edge(self) -> Literal["lowest", "highest"] | None:
        """Which end of the grid the best lies on; None inside it, at zero, or where the axis has no order."""
        numeric = all(isinstance(p.x, (int, float)) and not isinstance(p.x, bool) for p in self.points)
        if not numeric or len(self.points) < 2 or not self.trained:
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
"""What a config key is called on an axis."""


def axis(key: str) -> str:
    """What the axis of a config key, or of a study's own ``$name``, is called."""
    return AXES.get(key, key.rpartition(".")[2].removeprefix("$").replace("_", " "))


def number(x: Any) -> str:
    """A setting, to three significant digits: 3.16e-3, 0.1, 31.6."""
    if isinstance(x, bool) or not isinstance(x, (int, float)):
        return str(x)
    if x == 0 or 0.01 <= abs(x) < 1e5:
        return f"{x:.3g}" if abs(x) < 1000 else f"{x:g}"
    mantissa, _, exponent = f"{x:.2e}".partition("e")
    return f"{mantissa.rstrip('0').rstrip('.')}e{int(exponent)}"


def said(apart: Iterable[tuple[str, Any]]) -> str:
    """What sets a curve apart, as it follows its name: ``, batch size 16``."""
    parts = ((axis(key).partition(",")[0], v) for key, v in apart)
    return "".join(f", {name} {number(v) if isinstance(v, (int, float)) else _text(v)}" for name, v in parts)


def is_log(values: Iterable[Any]) -> bool:
    """Whether an axis is logarithmic: positive numbers that span a decade or more."""
    numbers = list(values)
    return positive(numbers) and max(numbers) >= 10 * min(numbers)


def positive(values: Iterable[Any]) -> bool:
    """Whether there are values, and all are positive numbers."""
    found = list(values)
    return bool(found) and all(isinstance(x, (int, float)) and type(x) is not bool and x > 0 for x in found)


def history(folder: Path | None, kept: Sequence[Mapping[str, Any]] = ()) -> list[dict[str, Any]]:
    """Read a run's metrics from its folder, or from what a record kept; none where neither has any.

    Metrics that are damaged are named, once, and left out.
    """
    try:
        rows = [] if folder is None else record.read_metrics(folder)
    except UserError as error:
        say_once(f"{error}; its curve is left out")
        rows = []
    return [_measured(row) for row in rows or kept if isinstance(row, dict)]


def _measured(row: dict[str, Any]) -> dict[str, Any]:
    """Leave out the effective learning rates of roles of which one was not finite, and is null."""
    rates = row.get("effective_lr")
    if not isinstance(rates, dict):
        return row if rates is None else {**row, "effective_lr": None}
    kept = {role: of for role, of in rates.items() if isinstance(of, dict) and all(map(_number, of.values()))}
    return {**row, "effective_lr": kept or None}


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and type(value) is not bool


Placed = tuple[FinishedRun, Place]
"""A finished run and where it lies."""


def group(placed: Iterable[Placed], log: bool | None = None, order: Iterable[Any] = ()) -> list[Curve]:
    """Return the curves of one panel in the order of their first run.

    Args:
        placed: finished runs, each with its place.
        log: whether the axis is logarithmic; by default what :func:`is_log` says of the settings.
        order: settings that are no numbers, in their order on the axis; others follow by the alphabet.
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
    """Runs by the curve that the study names, as a curve without points."""
    found: dict[Curve, list[Placed]] = {}
    for run, place in placed:
        found.setdefault(Curve(place.curve, (), False, place.panel, place.row), []).append((run, place))
    return found


def _split(placed: Sequence[Placed]) -> Iterable[tuple[tuple[tuple[str, Any], ...], list[Placed]]]:
    """Part the runs of one name so that those at one setting differ in the seed alone.

    Yields:
        Keys and values that name a part, and its runs; a single part without keys for most curves.
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
    """Return the keys that name a curve's parts, where runs at one setting differ in more than the seed.

    Args:
        settings: the setting and the config of every run of the curve, whether it has ended or not.
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
    """A config's values of some keys, as JSON and as they are."""
    flat = dict(leaves(config)) if keys else {}
    own = [flat.get(key) for key in keys]
    return tuple(json.dumps(value, sort_keys=True) for value in own), own


NO_SETTING = frozenset({"seed", "trainer"})
"""Keys of a config that are no setting: runs of one setting may differ in them."""


def _differing(configs: Sequence[dict[str, Any]]) -> list[str]:
    """Dotted keys, without the seed and the trainer, in which configs differ from the first."""
    first = configs[0]
    odd = [one for one in configs[1:] if any(one.get(k) != first.get(k) for k in {*one, *first} - NO_SETTING)]
    if not odd:
        return []
    flat = [dict(leaves(config)) for config in (first, *odd)]
    keys = dict.fromkeys(key for one in flat for key in one if key.partition(".")[0] not in NO_SETTING)
    return [key for key in keys if any(one.get(key) != flat[0].get(key) for one in flat)]


def _naming(parts: Sequence[tuple[str, ...]], keys: Sequence[str], given: int = 0) -> list[int]:
    """The first keys that together tell all parts apart: those that :data:`AXES` names before others.

    Args:
        parts: values of the keys.
        keys: what may name a part.
        given: how many of the first keys name it in any case.
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
    """A value that can be a part of a key."""
    return json.dumps(value) if isinstance(value, (list, dict)) else value


def _text(value: Any) -> str:
    return "none" if value is None else str(value)


def _setting(x: Any) -> Any:
    return x if isinstance(x, (int, float)) else str(x)


def _order(setting: Any, rank: Mapping[Any, int]) -> tuple[int, float, str]:
    if isinstance(setting, (int, float)):
        return (0, float(setting), "")
    return (1, rank.get(setting, math.inf), str(setting))
