"""Figures for a paper by matplotlib: loss against the setting, as swept and aligned at each curve's best.

Files are byte-stable: no dates, a fixed hash salt, text kept as text in SVG and as TrueType in PDF.
"""

import io
import warnings
from collections.abc import Sequence
from typing import Any

from optstudy.curves import Curve
from optstudy.report import style
from optstudy.report.effective import draw_effective
from optstudy.report.maps import draw_map
from optstudy.report.sweep import Sweep

SETTINGS: Any = {
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "optstudy",
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.7,
    "axes.grid": True,
    "axes.axisbelow": True,
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
STRIP = 0.045
"""Height of one curve's row of diverged runs above the plot, as a share of the loss axis."""


def draw(sweep: Sweep, file_format: str, dpi: int = 200) -> bytes:
    """Draw a study as ``pdf``, ``svg`` or ``png``."""
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context(SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(layout="constrained")
        if sweep.kind == "map":
            draw_map(figure, sweep)
        elif sweep.kind == "effective":
            draw_effective(figure, sweep)
        else:
            _panels(figure, sweep)
        buffer = io.BytesIO()
        figure.savefig(buffer, format=file_format, dpi=dpi, metadata=METADATA[file_format])
    return buffer.getvalue()


def loss_range(curves: Sequence[Curve]) -> tuple[float, float]:
    """Losses the axis shows: what trained, up to 2.5 times as far above the best as the worst best is."""
    means = [p.loss for c in curves for p in c.points if not p.diverged] or [c.best.loss for c in curves]
    low, high = min(means), max(means)
    worst = max(curve.best.loss for curve in curves)
    high = min(high, max(low + 2.5 * (worst - low), low + 1.5))
    pad = 0.04 * (high - low or 1.0)
    return low - pad, high + pad


def _panels(figure: Any, sweep: Sweep) -> None:
    slots = style.slots(curve.label for curve in sweep.curves)
    low, high = loss_range(sweep.curves)
    lost = [curve for curve in sweep.curves if any(_lost(point, high) for point in curve.points)]
    names = list(dict.fromkeys(style.name(curve.label) for curve in lost))
    strip = {name: high + (high - low) * STRIP * (k + 1) for k, name in enumerate(names)}
    ceiling = high + (high - low) * STRIP * (len(names) + 1) if names else high
    for axis, (panel, aligned) in zip(_grid(figure, sweep.plots), sweep.plots, strict=True):
        curves = [curve for curve in sweep.curves if sweep.panel(curve.label) == panel]
        for curve in reversed(curves):
            above = strip.get(style.name(curve.label), high)
            _curve(axis, curve, slots[curve.label], high, above, aligned)
        axis.axhspan(high, ceiling, color="#fdf1e7", lw=0, zorder=0)
        axis.set_ylim(low, ceiling)
        axis.set_yticks([tick for tick in axis.get_yticks() if low <= tick <= high])
        _ticks(axis, curves, aligned)
        name = sweep.axis(curves[0].label)
        axis.set_xlabel(style.drawn(f"{name}, relative to each best" if aligned else name))
        if not aligned:
            axis.set_title(style.drawn(panel), loc="left", fontsize=9)
        if names and axis.get_subplotspec().is_first_col():
            spot = {"xycoords": ("axes fraction", "data"), "va": "center", "fontsize": 7, "color": "#9a3d00"}
            axis.annotate("diverged", (0.01, (high + ceiling) / 2), **spot)
    _legend(figure, sweep, slots)


def _grid(figure: Any, plots: Sequence[tuple[str, bool]]) -> list[Any]:
    """Axes for all plots on one loss axis: pairs side by side, else up to three in a row as in the paper."""
    columns = 2 if any(aligned for _, aligned in plots) else min(3, len(plots))
    rows = -(-len(plots) // columns)
    figure.set_size_inches(2.6 * columns + 2.0 if columns < 3 else 8.6, 2.6 * rows + 0.5)
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False)
    for row in axes:
        row[0].set_ylabel("validation loss, nats")
    for unused in axes.flat[len(plots) :]:
        unused.set_axis_off()
    return list(axes.flat[: len(plots)])


def _legend(figure: Any, sweep: Sweep, slots: Any) -> None:
    from matplotlib.lines import Line2D

    names = {style.name(curve.label): slots[curve.label] for curve in sweep.curves}
    handles = [Line2D([], [], **style.look(slot, 3.4)) for slot in names.values()]
    legend = figure.legend(
        handles, [" " * len(n) for n in names], loc="outside lower center", ncols=min(len(names), 5)
    )
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(style.drawn(name))


def _curve(axis: Any, curve: Curve, slot: int, top: float, strip: float, aligned: bool) -> None:
    look = style.look(slot, 3.0)
    colour = look["color"]
    shift = curve.best.position if aligned else 0.0
    place = [10 ** (p.position - shift) if curve.log else p.position for p in curve.points]
    ran = [(x, p) for x, p in zip(place, curve.points, strict=True) if p.diverged < len(p.rows)]
    inside = [(x, p) for x, p in ran if p.loss <= top]
    axis.plot(place, [min(p.loss, top) for p in curve.points], color=colour)
    axis.plot([x for x, _ in inside], [p.loss for _, p in inside], ls="", **look)
    if any(len(p.rows) > 1 for p in curve.points):
        low = [min(min(r.loss for r in p.rows), top) for p in curve.points]
        high = [min(max(r.loss for r in p.rows), top) for p in curve.points]
        axis.fill_between(place, low, high, color=colour, alpha=0.15, lw=0)
        seeds = [(x, r.loss) for x, p in ran for r in p.rows if r.state == "done" and r.loss <= top]
        dots = {"ls": "", "marker": ".", "ms": 2.5, "color": colour, "alpha": 0.6}
        axis.plot([x for x, _ in seeds], [y for _, y in seeds], **dots)
    gone = [x for x, p in zip(place, curve.points, strict=True) if p.diverged]
    above = [x for x, p in zip(place, curve.points, strict=True) if _lost(p, top) and not p.diverged]
    axis.plot(gone, [strip] * len(gone), ls="", marker="x", ms=4, mew=1.2, color=colour)
    axis.plot(above, [strip] * len(above), ls="", marker=6, ms=4, color=colour)


def _lost(point: Any, top: float) -> bool:
    return point.diverged > 0 or any(row.loss > top for row in point.rows)


def _ticks(axis: Any, curves: Sequence[Curve], aligned: bool) -> None:
    """Powers of ten where they suffice, else the settings themselves."""
    log = curves[0].log
    named = {10**p.position if log else p.position: style.number(p.x) for c in curves for p in c.points}
    if log:
        axis.set_xscale("log")
        if aligned or max(named) >= 100 * min(named):
            return
    axis.minorticks_off()
    axis.set_xticks(sorted(named), [style.drawn(named[k]) for k in sorted(named)])
    if sum(map(len, named.values())) > 40:
        axis.tick_params(axis="x", rotation=30)
