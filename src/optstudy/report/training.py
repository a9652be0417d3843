"""The training curves of each curve's best run as a still picture, for readers without script."""

from collections.abc import Sequence
from typing import Any

from optstudy.record import is_number
from optstudy.report import style
from optstudy.results.figure import Figure

Line = tuple[str, int, list[tuple[float, float]]]
"""A name, its palette slot, and points of progress and validation loss."""


def lines(figure: Figure) -> list[Line]:
    """The recorded validation losses of each curve's best run, one seed, after the first step."""
    slots, found = style.slots(figure.curves), []
    for curve in figure.curves:
        history = figure.history(curve.best.rows[0].id)
        rows = [row for row in history if is_number(row.get("val_loss")) and row[figure.progress] > 0]
        points = [(float(row[figure.progress]), float(row["val_loss"])) for row in rows]
        if points:
            found.append((style.name_in(figure, curve), slots[curve.label], points))
    return found


def draw_training(made: Any, figure: Figure, found: Sequence[Line]) -> None:
    """Draw them on a matplotlib figure, on logarithmic axes if all losses are positive."""
    made.set_size_inches(7.2, 3.4 + 0.16 * (len(found) // 4))
    axis = made.subplots()
    for name, slot, points in found:
        axis.plot(*zip(*points, strict=True), label=style.drawn(name), lw=1.2, **style.look(slot, 2.4))
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(lambda x, _: style.count(x))
    if all(y > 0 for _, _, points in found for _, y in points):
        axis.set_yscale("log")
        for one in (axis.yaxis.set_major_formatter, axis.yaxis.set_minor_formatter):
            one(lambda y, _: f"{y:g}")
    axis.set_xlabel(style.drawn(figure.progress))
    axis.set_ylabel(style.drawn(", ".join(filter(None, ("validation loss", figure.metric.unit)))))
    made.legend(loc="outside lower center", ncols=min(len(found), 4))
