"""Figures for papers, by matplotlib: loss against the setting, as swept and aligned at each curve's best.

Files are byte-stable: no dates, a fixed hash salt, text stored as text in SVG and as TrueType in PDF.
"""

import io
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from textwrap import fill
from typing import Any

from optstudy.report import costs, style, training
from optstudy.report.deciles import draw_deciles
from optstudy.report.distances import draw_distances
from optstudy.report.effective import draw_effective
from optstudy.report.gaps import draw_gaps
from optstudy.report.maps import draw_map
from optstudy.results.costs import plots
from optstudy.results.curves import Curve
from optstudy.results.figure import Figure, Metric, Panel

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
    "axes.facecolor": "none",
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color"),
        style.INK,
    ),
    "grid.alpha": 0.12,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "lines.linewidth": 1.5,
}
METADATA: dict[str, dict[str, Any]] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "ModDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}
THEME = (
    f"<style>svg:root{{color:{style.INK};background:{style.LIGHT}}}@media screen and "
    f"(prefers-color-scheme:dark){{svg:root{{color:#e9ebef;background:{style.DARK}}}}}</style>"
)
"""Colours of an SVG of its own; inside a page it takes the page's."""
KINDS: Mapping[str, Callable[[Any, Figure], None]] = {
    "map": draw_map,
    "effective": draw_effective,
    "gaps": draw_gaps,
    "deciles": draw_deciles,
    "distances": draw_distances,
}
"""What draws figures of a kind on a matplotlib figure; sweeps are drawn here."""
DPI = 200
"""Resolution of raster files, and of points that are rasterized in vector files."""
MANY = 1000
"""Number of runs above which a curve's points are rasterized, so that vector files stay small."""
COLUMNS = 5
"""Number of small axes side by side."""
RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
WARM = "#d57c00"
"""Colour of that row, drawn thin."""
STRIP = 0.045
"""Height of the row of diverged runs above the plot, per curve, as a share of the loss axis."""


def load() -> None:
    """Load matplotlib, including what it loads at the first drawing, such as fonts."""
    from matplotlib.figure import Figure as Drawing

    made = Drawing(layout="constrained")
    made.add_subplot(xscale="log", title=" ")
    for name in ("svg", "png"):
        made.savefig(io.BytesIO(), format=name)


def draw(figure: Figure, file_format: str, dpi: int = DPI) -> bytes:
    """Draw a study as ``pdf``, ``svg`` or ``png``."""
    return draw_all(figure, [file_format], dpi)[file_format]


def draw_all(figure: Figure, formats: Iterable[str], dpi: int = DPI) -> dict[str, bytes]:
    """Draw a study once and return it in each of several formats."""
    with _settings():
        return _saved(drawing(figure), formats, dpi)


def pictures(figure: Figure, formats: Iterable[str], page: bool = False) -> dict[str, bytes]:
    """Draw every picture of a report: ``figure.svg``, and ``costs.svg`` if the study draws costs.

    Args:
        page: draw also what only the page shows, as SVG: ``cost-N`` for each plot of costs, and ``training``.

    Returns:
        Contents by file name.
    """
    wanted = [*formats, "svg"] if page else formats
    drawn = {f"figure.{name}": made for name, made in draw_all(figure, wanted).items()}
    some = plots(figure)
    if some:
        drawn |= _drawn("costs", formats, costs.draw_costs, figure, some)
    for k, one in enumerate(some if page else ()):
        drawn |= _drawn(f"cost-{k}", ["svg"], costs.draw_costs, figure, [one])
    if page and (lines := training.lines(figure)):
        drawn |= _drawn("training", ["svg"], training.draw_training, figure, lines)
    return drawn


def _drawn(file: str, formats: Iterable[str], draw: Callable[..., None], *what: Any) -> dict[str, bytes]:
    from matplotlib.figure import Figure as Drawing

    with _settings():
        made = Drawing(layout="constrained")
        draw(made, *what)
        return {f"{file}.{name}": content for name, content in _saved(made, formats, DPI).items()}


def _saved(made: Any, formats: Iterable[str], dpi: int) -> dict[str, bytes]:
    import matplotlib

    if (layout := made.get_layout_engine()) is not None:
        layout.execute(made)
        made.set_layout_engine(None)
    extent = made.get_tightbbox().padded(matplotlib.rcParams["savefig.pad_inches"])
    drawn = {}
    for name in formats:
        buffer, paper = io.BytesIO(), "none" if name == "svg" else style.LIGHT
        made.savefig(
            buffer, format=name, dpi=dpi, metadata=METADATA[name], bbox_inches=extent, facecolor=paper
        )
        drawn[name] = _themed(buffer.getvalue()) if name == "svg" else buffer.getvalue()
    return drawn


def _themed(svg: bytes) -> bytes:
    """An SVG whose text, axes and grid have the colour of the text around, and colours of its own alone."""
    text = svg.decode().replace(style.INK, "currentColor")
    return text.replace("<defs>", f"{THEME}<defs>", 1).encode()


def drawing(figure: Figure) -> Any:
    """A study as a ``matplotlib.figure.Figure``, to change, show or save."""
    from matplotlib.figure import Figure as Drawing

    with _settings():
        made = Drawing(layout="constrained")
        if (draw_kind := KINDS.get(figure.kind)) is not None:
            draw_kind(made, figure)
        elif len(figure.panels) == 1 and len(figure.curves) > style.MANY:
            _multiples(made, figure, figure.panels[0])
        else:
            _panels(made, figure)
    return made


@contextmanager
def _settings() -> Iterator[None]:
    import matplotlib

    with matplotlib.rc_context(SETTINGS), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def loss_range(curves: Sequence[Curve]) -> tuple[float, float]:
    """Range of the loss axis: trained runs, up to 2.5 times as far above the best as the worst best is."""
    means = [p.loss for c in curves for p in c.points if not p.diverged] or [c.best.loss for c in curves]
    low, high = min(means), max(means)
    worst = max(curve.best.loss for curve in curves)
    high = min(high, max(low + 2.5 * (worst - low), low + 1.5))
    pad = 0.04 * (high - low or 1.0)
    return low - pad, high + pad


@dataclass(frozen=True)
class _Frame:
    """The loss axis shared by panels over the same setting."""

    low: float
    high: float
    rows: Mapping[str, float]
    """Height above the plot at which a curve's diverged runs are drawn, by its name."""

    @property
    def ceiling(self) -> float:
        return self.high + (self.high - self.low) * STRIP * (
            len({*self.rows.values()}) + 1 if self.rows else 0
        )


def _frame(curves: Sequence[Curve], apart: bool = False) -> _Frame:
    """The axis for curves that are drawn together, or each on axes of its own."""
    low, high = loss_range(curves)
    lost = [curve for curve in curves if any(_lost(point, high) for point in curve.points)]
    names = dict.fromkeys(style.name(curve) for curve in lost)
    rows = {name: high + (high - low) * STRIP * (1 if apart else k + 1) for k, name in enumerate(names)}
    return _Frame(low, high, rows)


def _multiples(made: Any, figure: Figure, panel: Panel) -> None:
    """Small axes for each of many curves, best first, with the reference in grey behind it."""
    slots, frame, aligned = style.slots(figure.curves), _frame(panel.curves, apart=True), panel.plots[-1]
    rows = -(-len(panel.curves) // COLUMNS)
    made.set_size_inches(1.75 * COLUMNS, 1.5 * rows + 0.3)
    axes = made.subplots(rows, COLUMNS, sharex=True, sharey=True, squeeze=False)
    reference = [curve for curve in panel.curves if curve.name == figure.against and not curve.apart]
    for axis, summary in zip(axes.flat, panel.summaries, strict=False):
        for behind in reference:
            x, y = _places_of(behind, aligned), [point.loss for point in behind.points]
            axis.plot(x, y, color=style.INK, alpha=0.25, lw=3, clip_on=True)
        _curve(axis, summary.curve, slots[summary.curve.label], frame, aligned, dashed=False)
        _axis(axis, panel, frame, aligned)
        axis.set_title(style.drawn(fill(style.name(summary.curve), 24)), loc="left", fontsize=8)
    for unused in axes.flat[len(panel.curves) :]:
        unused.set_axis_off()
    if figure.metric.maximise:
        axes[0][0].yaxis.set_major_formatter(lambda y, _: f"{-y:g}")
    told = f"{panel.axis}, relative to each best" if aligned else panel.axis
    made.supxlabel(
        style.drawn(f"{told}; grey: {style.known(figure.against)}" if reference else told), fontsize=9
    )
    made.supylabel(style.drawn(figure.metric.label), fontsize=9)


def _panels(made: Any, figure: Figure) -> None:
    slots = style.slots(figure.curves)
    keys = {panel.key for panel in figure.panels}
    frames = {key: _frame([c for p in figure.panels if p.key == key for c in p.curves]) for key in keys}
    plots = [(panel, aligned) for panel in figure.panels for aligned in panel.plots]
    for axis, (panel, aligned) in _places(made, plots, figure.metric, shared=len(keys) == 1):
        frame = frames[panel.key]
        for curve in reversed(panel.curves):
            _curve(axis, curve, slots[curve.label], frame, aligned, figure.baseline(curve))
        _axis(axis, panel, frame, aligned)
        axis.set_xlabel(style.drawn(f"{panel.axis}, relative to each best" if aligned else panel.axis))
        axis.set_title(style.drawn(panel.title), loc="left", fontsize=9)
        if frame.rows and axis.get_subplotspec().is_first_col():
            spot = {"xycoords": ("axes fraction", "data"), "va": "center", "ha": "right"}
            words = {"fontsize": 7, "color": style.INK}
            axis.annotate("diverged", (-0.015, (frame.high + frame.ceiling) / 2), **spot, **words)
    _legend(made, figure, slots)


def _axis(axis: Any, panel: Panel, frame: _Frame, aligned: bool) -> None:
    axis.axhspan(frame.high, frame.ceiling, color=WARM, alpha=0.13, lw=0, zorder=0)
    axis.set_ylim(frame.low, frame.ceiling)
    axis.set_yticks([tick for tick in axis.get_yticks() if frame.low <= tick <= frame.high])
    _ticks(axis, panel.curves, aligned)


def _places(
    made: Any, plots: Sequence[tuple[Panel, bool]], metric: Metric, shared: bool
) -> list[tuple[Any, tuple[Panel, bool]]]:
    """Axes of all plots: one panel as swept and aligned side by side, several in columns, aligned on top.

    As in the paper, which shows aligned figures with one column per size. At most four columns, or three if
    nothing is aligned.
    """
    aligned, swept = ([plot for plot in plots if plot[1] is kind] for kind in (True, False))
    if len(aligned) < 2:
        columns = 2 if aligned else min(3, len(plots))
        wanted = dict(enumerate(plots))
    else:
        columns = min(4, len(aligned))
        below = columns * -(-len(aligned) // columns)
        wanted = {**dict(enumerate(aligned)), **dict(enumerate(swept, below))}
    rows = -(-(max(wanted) + 1) // columns)
    made.set_size_inches({1: 4.6, 2: 7.2, 3: 8.6}.get(columns, 10.5), 2.6 * rows + 0.5)
    axes = made.subplots(rows, columns, sharey=shared, squeeze=False)
    for row in axes:
        row[0].set_ylabel(style.drawn(metric.label))
    for axis in axes.flat if metric.maximise else ():
        axis.yaxis.set_major_formatter(lambda y, _: f"{-y:g}")
    for cell, axis in enumerate(axes.flat):
        if cell not in wanted:
            axis.set_axis_off()
    return [(axes.flat[cell], plot) for cell, plot in wanted.items()]


def _legend(made: Any, figure: Figure, slots: Any) -> None:
    from matplotlib.lines import Line2D

    names = {style.name(curve): slots[curve.label] for curve in figure.curves}
    handles = [Line2D([], [], **style.look(slot, 3.4)) for slot in names.values()]
    legend = made.legend(
        handles, [" " * len(n) for n in names], loc="outside lower center", ncols=min(len(names), 5)
    )
    for text, name in zip(legend.get_texts(), names, strict=True):
        text.set_text(style.drawn(name))


def _curve(axis: Any, curve: Curve, slot: int, frame: _Frame, aligned: bool, dashed: bool) -> None:
    from matplotlib.patches import Rectangle

    look = style.look(slot, 3.0)
    colour, top = look["color"], frame.high
    strip = frame.rows.get(style.name(curve), top)
    size = (1.0, top - frame.low)
    inner = Rectangle((0.0, frame.low), *size, transform=axis.get_yaxis_transform())
    place = _places_of(curve, aligned)
    ran = [(x, p) for x, p in zip(place, curve.points, strict=True) if p.diverged < len(p.rows)]
    inside = [(x, p) for x, p in ran if p.loss <= top]
    (line,) = axis.plot(place, [p.loss for p in curve.points], color=colour, ls="--" if dashed else "-")
    line.set_clip_path(inner)
    axis.plot([x for x, _ in inside], [p.loss for _, p in inside], ls="", **look)
    if any(len(p.rows) > 1 for p in curve.points):
        low, high = ([end(r.loss for r in p.rows) for p in curve.points] for end in (min, max))
        axis.fill_between(place, low, high, color=colour, alpha=0.15, lw=0).set_clip_path(inner)
        seeds = [(x, r.loss) for x, p in ran for r in p.rows if r.state == "done" and r.loss <= top]
        dots = {
            "ls": "",
            "marker": ".",
            "ms": 2.5,
            "color": colour,
            "alpha": 0.6,
            "zorder": 1.9,  # below all lines and consecutive, so that they are rasterized as one
            "rasterized": len(seeds) > MANY,
        }
        axis.plot([x for x, _ in seeds], [y for _, y in seeds], **dots)
    gone = [x for x, p in zip(place, curve.points, strict=True) if p.diverged]
    above = [x for x, p in zip(place, curve.points, strict=True) if _lost(p, top) and not p.diverged]
    axis.plot(gone, [strip] * len(gone), ls="", marker="x", ms=4, mew=1.2, color=colour)
    axis.plot(above, [strip] * len(above), ls="", marker=6, ms=4, color=colour)


def _places_of(curve: Curve, aligned: bool) -> list[float]:
    shift = curve.best.position if aligned else 0.0
    return [10 ** (p.position - shift) if curve.log else p.position for p in curve.points]


def _lost(point: Any, top: float) -> bool:
    return point.diverged > 0 or any(row.loss > top for row in point.rows)


def _ticks(axis: Any, curves: Sequence[Curve], aligned: bool) -> None:
    """Label powers of ten if there are enough, else the settings themselves."""
    log = curves[0].log
    named = {10**p.position if log else p.position: style.number(p.x) for c in curves for p in c.points}
    if log:
        axis.set_xscale("log", subs=[math.sqrt(10)])  # minor ticks at half-decades, where the settings are
        axis.xaxis.set_major_formatter(_power)
        axis.xaxis.set_minor_formatter("")
        if aligned or max(named) >= 100 * min(named):
            return
    axis.minorticks_off()
    axis.set_xticks(sorted(named), [style.drawn(named[k]) for k in sorted(named)])
    if _crowded(sorted(named), log, named):
        axis.tick_params(axis="x", rotation=40)


def _power(x: float, _: int = 0) -> str:
    """A power of ten as plain text, which stays text in SVG."""
    exponent = round(math.log10(x))
    return "10" + str(exponent).translate(RAISED) if math.isclose(x, 10**exponent) else ""


def _crowded(at: Sequence[float], log: bool, named: Mapping[float, str]) -> bool:
    """Whether labels would overlap: a character takes about 1/30 of a plot's width."""
    position = [math.log10(x) if log else x for x in at]
    width = (position[-1] - position[0]) or 1.0
    gaps = [(right - left) / width for left, right in pairwise(position)]
    need = [(len(named[p]) + len(named[q]) + 1) / 60 for p, q in pairwise(at)]
    return any(gap < least for gap, least in zip(gaps, need, strict=True))
