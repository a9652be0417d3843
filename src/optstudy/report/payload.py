"""What the page's script draws: curves, runs and training curves as small JSON."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from optstudy import record
from optstudy.curves import Curve
from optstudy.report import style
from optstudy.report.sweep import Sweep
from optstudy.table import Row, leaves

ALL_RUNS = 300
"""Up to this many runs each has its training curve on the page; beyond, those at and beside each best."""
POINTS = 40_000
"""Points of training curves on one page."""


def payload(sweep: Sweep) -> dict[str, Any]:
    """Everything the script needs, names unescaped."""
    slots = style.slots(curve.label for curve in sweep.curves)
    index = {row.id: k for k, row in enumerate(sweep.rows)}
    keys, settings = _varying([row.config for row in sweep.rows])
    return {
        "panels": [_panel(sweep, panel) for panel in sweep.panels],
        "colours": style.COLOURS,
        "markers": [[list(corner) for corner in marker] for marker in style.MARKERS],
        "curves": [_curve(curve, slots[curve.label], sweep, index) for curve in sweep.curves],
        "keys": keys,
        "runs": [
            [row.id, row.seed, _round(row.loss), row.state, row.reason, row.step, values]
            for row, values in zip(sweep.rows, settings, strict=True)
        ],
        "series": series(sweep, index),
    }


def series(sweep: Sweep, index: Mapping[str, int]) -> dict[str, Any]:
    """Training curves of chosen runs by their place in ``index``, thinned to fit the page."""
    rows = chosen(sweep)
    limit = max(20, min(200, POINTS // max(1, len(rows))))
    read = ((row, read_metrics(sweep, row.id)) for row in rows)
    return {str(index[row.id]): _series(metrics, limit) for row, metrics in read if metrics}


def chosen(sweep: Sweep) -> list[Row]:
    """Runs whose training curves go on the page."""
    if len(sweep.rows) <= ALL_RUNS:
        return list(sweep.rows)
    rows = []
    for curve in sweep.curves:
        at = curve.points.index(curve.best)
        rows += [point.rows[0] for point in curve.points[max(0, at - 1) : at + 2]]
    return rows[:ALL_RUNS]


def read_metrics(sweep: Sweep, run: str) -> list[dict[str, Any]]:
    """Rows of a run's metrics that say how many tokens were read; none where the file cannot be read."""
    try:
        rows: list[Any] = [] if sweep.runs is None else record.read_metrics(sweep.runs / run)
    except (OSError, ValueError):
        rows = []
    rows = rows or sweep.recorded.get(run, [])
    return [_measured(row) for row in rows if isinstance(row, dict) and _finite(row.get("tokens"))]


def _measured(row: dict[str, Any]) -> dict[str, Any]:
    """Leave out the effective learning rates of roles where one was not finite."""
    rates = row.get("effective_lr")
    if not isinstance(rates, dict):
        return row
    whole = {
        role: of for role, of in rates.items() if isinstance(of, dict) and all(map(_finite, of.values()))
    }
    return {**row, "effective_lr": whole or None}


def _panel(sweep: Sweep, panel: str) -> dict[str, Any]:
    curve = next(curve for curve in sweep.curves if sweep.panel(curve.label) == panel)
    aligned = [both for name, both in sweep.plots if name == panel]
    return {"name": panel, "axis": sweep.axis(curve.label), "log": curve.log, "plots": aligned}


def _curve(curve: Curve, slot: int, sweep: Sweep, index: Mapping[str, int]) -> dict[str, Any]:
    return {
        "label": curve.label,
        "name": sweep.name_of(curve.label),
        "panel": sweep.panels.index(sweep.panel(curve.label)),
        "slot": slot,
        "dashed": curve.label in sweep.baselines,
        "best": curve.points.index(curve.best),
        "points": [
            [style.number(p.x), round(p.position, 5), _round(p.loss), [index[row.id] for row in p.rows]]
            for p in curve.points
        ],
    }


def _varying(configs: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Dotted keys whose values differ between configs, and these values of each; the seed left out.

    Runs that differ in the seed share what the index read of them, so each part is looked at once.
    """
    names = dict.fromkeys(name for config in configs for name in config if name != "seed")
    keys: list[str] = []
    values: list[list[Any]] = [[] for _ in configs]
    for name in names:
        distinct = {id(part): part for config in configs if (part := config.get(name)) is not None}
        flat = {key: dict(leaves({name: part})) for key, part in distinct.items()}
        lacking = any(config.get(name) is None for config in configs)
        first = flat.get(id(configs[0].get(name)), {})
        different = [one for one in (*flat.values(), *[{}] * lacking) if one != first]
        mine = dict.fromkeys(key for one in (first, *different) for key in one)
        varying = [key for key in mine if any(one.get(key) != first.get(key) for one in different)]
        if varying:
            picked = {key: [one.get(k) for k in varying] for key, one in flat.items()}
            absent = [None] * len(varying)
            for config, into in zip(configs, values, strict=True):
                into += picked.get(id(config.get(name)), absent)
        keys += varying
    return keys, values


def _series(metrics: Sequence[Mapping[str, Any]], limit: int) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key in ("loss", "val_loss"):
        points = [(row["tokens"], _round(row[key])) for row in metrics if _finite(row.get(key))]
        if points:
            result[key] = _thin(points, limit)
    found = [row for row in metrics if isinstance(row.get("effective_lr"), dict)]
    if found:
        result["effective"] = [
            [row["tokens"], dict(sorted(row["effective_lr"].items(), key=lambda item: style.role(item[0])))]
            for row in _thin(found, 40)
        ]
    return result


def _thin(points: Sequence[Any], limit: int) -> list[Any]:
    if len(points) <= limit:
        return list(points)
    step = (len(points) - 1) / (limit - 1)
    return [points[round(k * step)] for k in range(limit)]


def _finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _round(value: float) -> float:
    return round(value, 4)
