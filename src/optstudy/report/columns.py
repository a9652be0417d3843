"""The columns of the summary table, defined once for the terminal, HTML, Markdown and LaTeX."""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

from optstudy.report import style
from optstudy.results.costs import step_times
from optstudy.results.estimate import LEVEL, Estimate
from optstudy.results.figure import Figure, Metric
from optstudy.results.gaps import beside
from optstudy.results.stats import MARGIN, Summary

MISSING = "–"
EDGE = "edge of the grid"
SENSITIVITY = ("sens.", "Sensitivity")


@dataclass(frozen=True)
class Column:
    """One column: heading, explanation, and a cell per summary."""

    short: str
    heading: str
    about: str
    cells: tuple[str, ...]
    notes: tuple[str, ...] = ()
    """A second, smaller line per cell, shown if there is room."""
    text: bool = False
    """Text, aligned left."""
    extra: bool = False
    """Left out if there is no room."""


def columns(figure: Figure) -> list[Column]:
    """The table's columns; cells are in the order of ``figure.summaries``."""
    windows = {summary.window for summary in figure.summaries}
    log = any(summary.curve.log for summary in figure.summaries)
    made: list[Column] = []
    worse = "below" if figure.metric.maximise else "above"

    def add(
        short: str,
        heading: str,
        about: str,
        cell: Callable[[Summary], str],
        note: Callable[[Summary], str] = _nothing,
        **layout: bool,
    ) -> None:
        cells, notes = tuple(map(cell, figure.summaries)), tuple(map(note, figure.summaries))
        made.append(Column(short, heading, about, cells, notes, **layout))

    curve = "curve" if figure.kind == "map" or figure.foreign else "optimizer"
    add(curve, curve.capitalize(), "", lambda s: style.full_name(figure, s.curve), text=True)
    metric = figure.metric
    nats = metric.unit or f"{metric.name},"
    about = (
        f"{'validation cross-entropy, nats per token' if metric.unit else metric.name}, "
        "by a parabola through the best setting tried and its "
        "neighbours where one fits, else of the best setting tried; "
        f"± {LEVEL:.0%} t interval over seeds, widened by what a parabola may miss or, without one, by "
        "the choice of the best"
    )
    short = "best loss" if metric.unit else f"best {metric.name}"
    add(short, short.capitalize() if metric.unit else short, about, lambda s: _level(metric, s.best), _seeds)
    axis = figure.axis
    short = f"best {'lr' if axis == 'learning rate' else axis.split(',')[0]}"
    about = f"where the best {'loss' if metric.unit else metric.name} is; {_grid(figure)} tried"
    add(short, f"Best {axis}", about, _setting, lambda s: _edge(figure, s))
    if any(summary.fitted for summary in figure.summaries):
        about = "mean of the best setting that was run, and that setting"
        add("best run", "Best run", about, lambda s: _tried(metric, s), extra=True)
    if log:
        about = f"{nats} {worse} the best setting run at a third of it, interpolated"
        add("÷3", "3× too low", about, lambda s: _rise(metric, s, s.lower), extra=True)
        about = f"{nats} {worse} the best setting run at three times it, interpolated"
        add("×3", "3× too high", about, lambda s: _rise(metric, s, s.higher), extra=True)
    against = style.known(figure.against)
    if figure.kind == "gaps":
        about = f"best loss above {against}'s at the same setting, {figure.metric.unit}"
        above = beside(figure)
        add(f"over {against}", f"Above {against}", about, lambda s: _gap(metric, above.get(s.curve.label)))
    if figure.horizon is not None:
        about = (
            f"tokens with which {against} would reach the best loss, over the tokens of a run: 0.8 says that "
            f"{against} needs 80 % of them; interpolated between the lengths of its runs, < and > outside; "
            f"{LEVEL:.0%} interval by the seeds of both"
        )
        add("tokens", "Token-equivalent", about, lambda s: _ratio(figure, s))
        about = "the same by a fit of E + A D^-a to these lengths"
        add("by fit", "By a fit", about, lambda s: _by_fit(figure, s), extra=True)
    short, heading, about = _sensitivity(windows)
    add(
        short,
        heading,
        f"mean of min(l, l0) - l* over the settings {about}, around the own best, {nats.rstrip(',')}",
        lambda s: MISSING if s.sensitivity is None else style.distance(metric, s.sensitivity),
        lambda s: style.window(s.window) if len(windows) > 1 and s.sensitivity else "",
        extra=True,
    )
    if log:
        margin = f"{MARGIN:g}{metric.units}"
        about = f"decades within {margin} of the best setting run; ≥ where the grid ends first"
        add(f"decades ≤{MARGIN:g}", "Safe window, decades", about, _safe, _safe_range)
    about = "optimizer state, bytes per parameter"
    if any(summary.state_bytes is not None for summary in figure.summaries):
        add("state B/param", "State, bytes/param", about, lambda s: _known(s.state_bytes))
    if any(summary.peak_memory_mb is not None for summary in figure.summaries):
        about = (
            "peak memory of the process, or of the GPU where it ran on one, MiB; median over the curve's runs"
        )
        add("peak MiB", "Peak memory, MiB", about, _peak, extra=True)
    timed = any(summary.step_ms is not None for summary in figure.summaries)
    if timed and not figure.recorded:  # a record's steps were timed on various machines under load
        add("step ms", "Step,\u00a0ms", "median over the curve's runs", lambda s: _known(s.step_ms))
    times = step_times(figure)
    if ratios := times.ratios:
        about = "step time as a multiple of Adam's on the same machine"
        about += "" if times.apart else ", median over the runs, beside whatever else it did"
        add("vs Adam", "Step, ×\u00a0Adam", about, lambda s: _times(ratios.get(s.curve.label)), extra=True)
    add("diverged", "Diverged", "runs that diverged, of all finished", lambda s: f"{s.diverged}/{s.runs}")
    return made


def _grid(figure: Figure) -> str:
    sizes = sorted({len(summary.curve.points) for summary in figure.summaries})
    if len(sizes) > 1:
        return f"{sizes[0]} to {sizes[-1]} settings were"
    return "1 setting was" if sizes == [1] else f"{sizes[0]} settings were"


def _setting(summary: Summary) -> str:
    if summary.best is None:
        return MISSING
    return {"lowest": "↓ ", "highest": "↑ ", None: ""}[summary.curve.edge] + style.setting(summary)


def _edge(figure: Figure, summary: Summary) -> str:
    if not summary.curve.edge:
        return style.around(summary) if summary.fitted else ""
    return "edge so far" if figure.unfinished(summary.curve) else EDGE


def _tried(metric: Metric, summary: Summary) -> str:
    return MISSING if summary.best is None else style.tried(metric, summary)


def _sensitivity(windows: Collection[float]) -> tuple[str, str, str]:
    """Short and long heading of the sensitivity column, and its window."""
    window, *others = sorted(windows)
    if others:
        return *SENSITIVITY, "of each panel's window: " + " or ".join(map(style.window, (window, *others)))
    if math.isfinite(window):
        return f"sens. ±{window:g}", f"Sensitivity, ±{window:g}\u00a0dec.", style.window(window)
    return *SENSITIVITY, style.window(window)


def _nothing(summary: Summary) -> str:
    return ""


def _seeds(summary: Summary) -> str:
    if summary.best is None:
        return "never trained"
    return f"{summary.best.seeds} seed" + "s" * (summary.best.seeds != 1)


def _rise(metric: Metric, summary: Summary, estimate: Estimate | None) -> str:
    if not summary.curve.log or summary.best is None:
        return MISSING
    return "not tried" if estimate is None else style.value(metric, estimate, "+")


def _level(metric: Metric, estimate: Estimate | None) -> str:
    return MISSING if estimate is None else style.value(metric, estimate)


def _known(value: float | None) -> str:
    return MISSING if value is None else f"{value:.3g}"


def _times(ratio: float | None) -> str:
    return MISSING if ratio is None else f"{ratio:.2f}"


def _peak(summary: Summary) -> str:
    return MISSING if summary.peak_memory_mb is None else f"{summary.peak_memory_mb:.0f}"


def _gap(metric: Metric, found: Estimate | None) -> str:
    return MISSING if found is None else style.value(metric, found, "+")


def _ratio(figure: Figure, summary: Summary) -> str:
    found = figure.equivalents.get(summary.curve.label)
    return MISSING if found is None else style.ratio(found)


def _by_fit(figure: Figure, summary: Summary) -> str:
    found = figure.equivalents.get(summary.curve.label)
    return MISSING if found is None or found.fitted is None else f"{found.fitted:.2f}"


def _safe(summary: Summary) -> str:
    safe = summary.safe
    if safe is None:
        return MISSING
    return ("≥ " if safe.open_low or safe.open_high else "") + f"{safe.decades:.2f}"


def _safe_range(summary: Summary) -> str:
    safe = summary.safe
    return f"{style.number(safe.low)} to {style.number(safe.high)}" if safe else ""
