"""Figures for a paper by matplotlib: loss against the setting, as it is and aligned at each curve's best.

Files are byte-stable: no dates, a fixed hash salt, text kept as text in SVG and TrueType in PDF.
"""

import io
import math
from collections.abc import Sequence
from typing import Any

from optstudy.report import style
from optstudy.report.sweep import Sweep
from optstudy.stats import Curve

SETTINGS = {
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "optstudy",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
    "savefig.bbox": "tight",
}
METADATA: dict[str, dict[str, Any]] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "ModDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}
ROOM = 0.06
"""Share of the loss axis above the highest finished loss, where diverged runs are marked."""


def draw(sweep: Sweep, file_format: str) -> bytes:
    """Draw a study as ``pdf``, ``svg`` or ``png``."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(7.2, 2.9 * len(sweep.panels)), layout="constrained")
        _panels(figure, sweep)
        buffer = io.BytesIO()
        figure.savefig(buffer, format=file_format, dpi=200, metadata=METADATA[file_format])
    return buffer.getvalue()


def loss_range(curves: Sequence[Curve]) -> tuple[float, float]:
    """Losses the axis shows: all that trained, at most 2.5 times as far above the best as the worst best."""
    means = [p.loss for c in curves for p in c.points if p.diverged < len(p.rows)] or [
        p.loss for c in curves for p in c.points
    ]
    low, high = min(means), max(means)
    bests = [c.best.loss for c in curves]
    high = min(high, max(low + 2.5 * (max(bests) - low), low + 1.5))
    pad = 0.04 * (high - low or 1.0)
    return low - pad, high + pad


def _panels(figure: Any, sweep: Sweep) -> None:
    slots = style.slots(curve.label for curve in sweep.curves)
    log = sweep.curves[0].log
    axes = figure.subplots(len(sweep.panels), 2 if log else 1, sharey="row", squeeze=False)
    for row, panel in zip(axes, sweep.panels, strict=True):
        curves = [curve for curve in sweep.curves if style.panel(curve.label) == panel]
        low, high = loss_range(curves)
        for axis, aligned in zip(row, (False, True), strict=False):
            for curve in curves:
                _curve(axis, curve, slots[curve.label], high, aligned)
            axis.set_ylim(low, high + ROOM * (high - low))
            if log:
                axis.set_xscale("log")
            else:
                _categories(axis, curves)
            axis.set_xlabel(f"{sweep.axis}, relative to each best" if aligned else sweep.axis)
        row[0].set_ylabel("validation loss, nats")
        row[0].set_title(panel, loc="left", fontsize=9)
    handles, names = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=min(len(names), 5))


def _curve(axis: Any, curve: Curve, slot: int, top: float, aligned: bool) -> None:
    colour = style.COLOURS[slot % len(style.COLOURS)]
    marker = [(x, -y) for x, y in style.MARKERS[slot % len(style.MARKERS)]]
    shift = curve.best.position if aligned else 0.0
    place = [10 ** (p.position - shift) if curve.log else p.position for p in curve.points]
    losses = [min(p.loss, top) for p in curve.points]
    axis.plot(place, losses, color=colour, marker=marker, markersize=5, label=style.name(curve.label))
    spread = [[r.loss for r in p.rows] for p in curve.points]
    if any(len(seeds) > 1 for seeds in spread):
        low = [min(*seeds, top) for seeds in spread]
        axis.fill_between(place, low, [min(max(s), top) for s in spread], color=colour, alpha=0.15, lw=0)
    seeds = [(x, loss) for x, losses in zip(place, spread, strict=True) for loss in losses if loss <= top]
    axis.plot(*zip(*seeds, strict=True), ls="", marker=".", ms=2.5, color=colour, alpha=0.6)
    beyond = [x for x, p in zip(place, curve.points, strict=True) if p.diverged or p.loss > top]
    axis.plot(beyond, [top] * len(beyond), ls="", marker=6, ms=5, color=colour, clip_on=False)


def _categories(axis: Any, curves: Sequence[Curve]) -> None:
    ticks = {p.position: style.number(p.x) for c in curves for p in c.points}
    axis.set_xticks(sorted(ticks), [ticks[k] for k in sorted(ticks)])
    if max(map(len, ticks.values())) > math.ceil(60 / len(ticks)):
        axis.tick_params(axis="x", rotation=30)
