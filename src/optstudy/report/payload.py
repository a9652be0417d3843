"""The data for the page's script: curves, runs and training curves as compact JSON."""

from collections.abc import Mapping, Sequence
from typing import Any

from optstudy.record import is_number, leaves
from optstudy.report import style
from optstudy.results.curves import NO_SETTING, Curve
from optstudy.results.figure import Figure, Panel
from optstudy.results.table import Row

ALL_RUNS = 300
"""With up to this many runs, all have training curves on the page; with more, those near each best."""
POINTS = 40_000
"""Maximum number of points of training curves on one page."""


def payload(figure: Figure) -> dict[str, Any]:
    """The complete data for the script; names are unescaped."""
    slots, metric = style.slots(figure.curves), figure.metric
    index = {row.id: k for k, row in enumerate(figure.rows)}
    found = series(figure, index)
    keys, settings = _varying([row.config for row in figure.rows])
    return {
        "metric": {
            "name": metric.name,
            "label": metric.label,
            "unit": metric.unit,
            "units": metric.units,
            "digits": metric.digits + 1,
            "sign": -1 if metric.maximise else 1,
        },
        "progress": figure.progress,
        "many": style.MANY,
        "panels": [_panel(panel) for panel in figure.panels],
        "colours": style.COLOURS,
        "markers": [[list(corner) for corner in marker] for marker in style.MARKERS],
        "curves": [
            _curve(curve, k, slots[curve.label], figure, index)
            for k, panel in enumerate(figure.panels)
            for curve in panel.curves
        ],
        "keys": keys,
        "runs": [
            [row.id, row.seed, _round(row.loss), row.state, row.reason, row.step, values]
            for row, values in zip(figure.rows, settings, strict=True)
        ],
        "series": found,
        "pace": {key: pace for key in found if (pace := _pace(figure, figure.rows[int(key)])) is not None},
    }


def series(figure: Figure, index: Mapping[str, int]) -> dict[str, Any]:
    """Training curves of the chosen runs by their position in ``index``, thinned to fit the page."""
    rows = chosen(figure)
    limit = max(20, min(200, POINTS // max(1, len(rows))))
    read = ((row, figure.history(row.id)) for row in rows)
    return {str(index[row.id]): _series(metrics, limit, figure.progress) for row, metrics in read if metrics}


def chosen(figure: Figure) -> list[Row]:
    """Runs whose training curves are on the page."""
    if len(figure.rows) <= ALL_RUNS:
        return list(figure.rows)
    rows = []
    for curve in figure.curves:
        at = curve.points.index(curve.best)
        rows += [point.rows[0] for point in curve.points[max(0, at - 1) : at + 2]]
    return rows[:ALL_RUNS]


def _pace(figure: Figure, row: Row) -> float | None:
    """Seconds of training per token, or per step, at a run's median step; None for runs of a record."""
    if row.id in figure.recorded or not row.step_ms or not row.step or not row.tokens:
        return None
    return _round(row.step_ms / 1000 * (row.step / row.tokens if figure.progress == "tokens" else 1.0))


def _panel(panel: Panel) -> dict[str, Any]:
    return {"name": panel.title, "axis": panel.axis, "log": panel.log, "plots": panel.plots}


def _curve(curve: Curve, panel: int, slot: int, figure: Figure, index: Mapping[str, int]) -> dict[str, Any]:
    return {
        "label": curve.label,
        "name": style.name_in(figure, curve),
        "panel": panel,
        "slot": slot,
        "dashed": figure.baseline(curve),
        "reference": curve.name == figure.against and not curve.apart,
        "best": curve.points.index(curve.best),
        "points": [
            [style.number(p.x), round(p.position, 5), _round(p.loss), [index[row.id] for row in p.rows]]
            for p in curve.points
        ],
    }


def _varying(configs: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Dotted keys whose values differ between configs, and each config's values of them; without the seed.

    Runs that differ only in the seed share parsed parts from the index, so each part is compared once.
    """
    names = dict.fromkeys(name for config in configs for name in config if name not in NO_SETTING)
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


def _series(metrics: Sequence[Mapping[str, Any]], limit: int, progress: str = "tokens") -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key in ("loss", "val_loss"):
        points = [(row[progress], _round(row[key])) for row in metrics if is_number(row.get(key))]
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


def _round(value: float) -> float:
    return round(value, 4) if abs(value) >= 0.1 else float(f"{value:.4g}")
