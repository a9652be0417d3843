"""Loss against cost: each curve at its best with its interval, its name beside it, and the front as steps."""

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from statistics import median
from textwrap import shorten
from typing import Any

from optstudy.report import style
from optstudy.results.costs import Spot, front, plots, spots, step_times
from optstudy.results.figure import Cost, Figure, Metric, Panel

AXES: dict[Cost, str] = {
    "state_bytes_per_param": "optimizer state, bytes per parameter",
    "step_ms": "time of a step, × Adam's",
    "peak_memory_mb": "peak memory, MiB",
}
ABOUT: dict[Cost, str] = {
    "state_bytes_per_param": "State: what the optimizer keeps for each parameter of the model.",
    "step_ms": (
        "Time: the median step of a curve's runs over that of Adam's on the same machine, as they ran; other "
        "work beside them counts."
    ),
    "peak_memory_mb": "Memory: the highest of the process, or of the GPU where it ran on one.",
}
APART = (
    "Time: a step over Adam's, as all optimizers took turns in one run on one machine (benchmarks/field.py)."
)
UNKNOWN = (
    "No figure of time: these runs were not timed against Adam's on one machine. The record's were timed on "
    "various machines beside other work."
)
MANY_FOLD = 8
"""Ratio of the highest to the lowest cost above which the axis is logarithmic."""
RADII = (7, 12, 18, 25, 33, 42, 52, 64, 78, 94, 112, 132, 154)
"""Distances of a name from its point, in points."""
ANGLES = (0, 180, *range(15, 180, 15), *range(-15, -180, -15))
OVER, COVERS = 8, 10_000
"""Distance that a name is moved to keep a piece of its line, or the name itself, off anything."""
MARKER, GAP = 4, 3
"""Room that a marker takes on each side, and between two names, in points."""
LETTERS = 32
"""Letters of a name that are written."""
FAR = 2.5
"""How much farther from the best than the middle curve one may be and still be on the axis."""
Box = tuple[float, float, float, float]
"""Left, bottom, right and top in pixels."""


def about(figure: Figure) -> list[str]:
    """How each cost that the study draws was measured, or why it is not drawn."""
    drawn = {cost for _, cost in plots(figure)}
    about = {**ABOUT, "step_ms": APART} if step_times(figure).apart else ABOUT
    told = [about[cost] for cost in figure.costs if cost in drawn]
    if "step_ms" in figure.costs and "step_ms" not in drawn:
        told.append(UNKNOWN)
    return told


def draw_costs(made: Any, figure: Figure, some: Sequence[tuple[Panel, Cost]]) -> None:
    """Draw some of a study's plots of loss against cost on a matplotlib figure, two in a row."""
    columns = min(2, len(some))
    rows = -(-len(some) // columns)
    made.set_size_inches(4.2 * columns, 3.8 * rows)
    grid = made.subplots(rows, columns, squeeze=False)
    slots = style.slots(figure.curves)
    for axis in grid.flat[len(some) :]:
        axis.set_axis_off()
    found = [spots(figure, panel, cost) for panel, cost in some]
    for axis, (panel, cost), points in zip(grid.flat, some, found, strict=False):
        _plot(axis, points, slots, figure.metric)
        axis.set_xlabel(AXES[cost])
        axis.set_title(style.drawn(panel.title), loc="left", fontsize=9)
    made.draw_without_rendering()  # places the axes, without which no name has a place
    for axis, points in zip(grid.flat, found, strict=False):
        _names(axis, points, figure.metric)


def _plot(axis: Any, found: Sequence[Spot], slots: Any, metric: Metric) -> None:
    costs = [spot.cost for spot in found]
    if costs[0] > 0 and costs[-1] > MANY_FOLD * costs[0]:
        axis.set_xscale("log")
        axis.set_xlim(costs[0] / 1.5, costs[-1] * 1.5)
    else:
        pad = 0.12 * (costs[-1] - costs[0] or costs[0] or 1.0)
        axis.set_xlim(costs[0] - pad, costs[-1] + pad)
    if metric.maximise:
        axis.yaxis.set_major_formatter(lambda y, _: f"{-y:g}")
    axis.set_ylabel(style.drawn(metric.label))
    steps = front(found)
    x = [spot.cost for spot in steps] + [axis.get_xlim()[1]]
    y = [spot.loss.value for spot in steps] + [steps[-1].loss.value]
    axis.plot(x, y, drawstyle="steps-post", color=style.INK, alpha=0.4, lw=1.2, zorder=1)
    top = _top(found)
    ends = [spot.loss.value + side * (spot.loss.half_width or 0.0) for spot in found for side in (-1, 1)]
    pad = 0.08 * (top - min(ends))
    axis.set_ylim(min(ends) - pad, min(top, max(ends)) + pad)
    for spot in found:
        look = style.look(slots[spot.curve.label], 3.4)
        if spot.loss.value > top:
            axis.plot(spot.cost, top, ls="", **{**look, "marker": 6, "markersize": 6})
        else:
            axis.errorbar(spot.cost, spot.loss.value, spot.loss.half_width, elinewidth=0.9, ls="", **look)


def _top(found: Sequence[Spot]) -> float:
    """The highest loss on the axis: one far above the middle one would leave no room for the others."""
    losses = sorted(spot.loss.value for spot in found)
    return min(losses[-1], losses[0] + FAR * (median(losses) - losses[0]) or losses[-1])


def _names(axis: Any, found: Sequence[Spot], metric: Metric) -> None:
    """Write each curve's name where it covers nothing, with a line to its point unless it is next to it."""
    frame, scale = axis.get_window_extent(), axis.figure.dpi / 72

    def pixels(cost: float, loss: float) -> tuple[float, float]:
        x, y = axis.transData.transform((cost, loss))
        return float(x), float(y)

    top = _top(found)
    steps = [pixels(spot.cost, spot.loss.value) for spot in front(found)]
    taken = [(*steps[-1], frame.x1, steps[-1][1])]
    for (x, y), (right, low) in pairwise(steps):
        taken += [(x, y, right, y), (right, low, right, y)]
    places = [pixels(spot.cost, min(spot.loss.value, top)) for spot in found]
    for spot, (x, y) in zip(found, places, strict=True):
        reach = pixels(spot.cost, min(spot.loss.value, top) + (spot.loss.half_width or 0.0))[1] - y
        taken += [_around(x, y, MARKER * scale, MARKER * scale), _around(x, y, scale, reach)]
    for spot, (x, y) in sorted(zip(found, places, strict=True), key=lambda one: -one[1][1]):
        far = f", {metric.text(spot.loss.value)}" if spot.loss.value > top else ""
        name = shorten(style.name(spot.curve), LETTERS, placeholder="…") + far
        here = {"xy": (spot.cost, min(spot.loss.value, top)), "textcoords": "offset points"}
        text = axis.annotate(style.drawn(name), xytext=(0, 0), va="bottom", fontsize=8, **here)
        text.set_in_layout(False)
        (left, low, right, high), line = _place(x, y, text.get_window_extent(), frame, taken, scale)
        taken += [(left - GAP * scale, low, right + GAP * scale, high), *line]
        text.set_position(((left - x) / scale, (low - y) / scale))
        if line:
            end = ((line[0][0] - x) / scale, (line[0][1] - y) / scale)
            look = {
                "arrowstyle": "-",
                "lw": 0.5,
                "color": style.INK,
                "alpha": 0.5,
                "shrinkA": 0,
                "shrinkB": 3,
            }
            axis.annotate("", xytext=end, arrowprops=look, **here).set_in_layout(False)


def _place(
    x: float, y: float, size: Any, frame: Any, taken: Sequence[Box], scale: float
) -> tuple[Box, list[Box]]:
    """The place of a name around its point, and the pieces of its line; none if it is next to the point.

    The nearest place in the frame that covers nothing, where each piece of the line that crosses something
    counts as :data:`OVER` points of distance.
    """
    least, found = math.inf, (frame.extents, list[Box]())
    for radius, box in _candidates(x, y, size.width, size.height, scale):
        if radius >= least:
            break
        if frame.x0 > box[0] or box[2] > frame.x1 or frame.y0 > box[1] or box[3] > frame.y1:
            continue
        line = _line(x, y, box, scale) if radius > RADII[0] else []
        score = radius + OVER * _hits(line, taken) + COVERS * _hits([box], taken)
        if score < least:
            least, found = score, (box, line)
    return found


def _candidates(x: float, y: float, width: float, height: float, scale: float) -> Iterator[tuple[int, Box]]:
    """Boxes for a name of this size around a point, the nearest first, with their distance."""
    for radius in RADII:
        for angle in ANGLES:
            cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
            left = x + radius * scale * cos - width * (0.5 - 0.5 * cos)
            low = y + radius * scale * sin - height * (0.5 - 0.5 * sin)
            yield radius, (left, low, left + width, low + height)


def _line(x: float, y: float, box: Box, scale: float) -> list[Box]:
    """Pieces of the line from the nearest place of a box to a point, without the point's marker."""
    fromx, fromy = min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3])
    far = math.hypot(fromx - x, fromy - y)
    shares = [k / 16 for k in range(17) if far * (1 - k / 16) > 2 * MARKER * scale]
    return [_around(fromx + (x - fromx) * k, fromy + (y - fromy) * k, 0.5, 0.5) for k in shares]


def _around(x: float, y: float, right: float, up: float) -> Box:
    return x - right, y - up, x + right, y + up


def _hits(some: Sequence[Box], taken: Sequence[Box]) -> int:
    """Number of pairs of a box and a taken one that overlap."""
    if not some:
        return 0
    import numpy

    one, other = numpy.array(some)[:, None], numpy.array(taken)[None]
    return int(((one[..., :2] <= other[..., 2:]) & (other[..., :2] <= one[..., 2:])).all(-1).sum())
