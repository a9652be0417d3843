"""The columns of the summary table, once for the terminal, the page, Markdown and LaTeX."""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass

from optstudy import stats
from optstudy.report import style
from optstudy.report.sweep import Sweep
from optstudy.stats import Estimate, Summary

MISSING = "–"
EDGE = "edge of the grid"
SENSITIVITY = ("sens.", "Sensitivity")


@dataclass(frozen=True)
class Column:
    """One column: a heading, what it means, and a cell per summary."""

    short: str
    heading: str
    about: str
    cells: tuple[str, ...]
    notes: tuple[str, ...] = ()
    """A second, smaller line per cell, where there is room."""
    text: bool = False
    """Aligned left."""
    extra: bool = False
    """Left out where there is no room."""


def columns(sweep: Sweep) -> list[Column]:
    """The table, in the order of ``sweep.summaries``."""
    reference = sweep.reference
    windows = {summary.window for summary in sweep.summaries}
    log = any(summary.curve.log for summary in sweep.summaries)
    made: list[Column] = []

    def add(
        short: str,
        heading: str,
        about: str,
        cell: Callable[[Summary], str],
        note: Callable[[Summary], str] = _nothing,
        **layout: bool,
    ) -> None:
        cells, notes = tuple(map(cell, sweep.summaries)), tuple(map(note, sweep.summaries))
        made.append(Column(short, heading, about, cells, notes, **layout))

    curve = "curve" if sweep.kind == "map" else "optimizer"
    add(curve, curve.capitalize(), "", lambda s: style.full_name(s.label), text=True)
    about = (
        f"validation cross-entropy, nats per token, mean over seeds; ± {stats.LEVEL:.0%} t interval, "
        "seed variance pooled over settings near the best; that the best was chosen is not in it"
    )
    add("best loss", "Best loss", about, lambda s: _estimate(s.best), _seeds)
    axis = sweep.axis_of_all
    short = f"best {'lr' if axis == 'learning rate' else axis.split(',')[0]}"
    add(short, f"Best {axis}", f"of {_grid(sweep)}", _setting, lambda s: _edge(sweep, s))
    if log:
        about = "nats above the best at a third of the best setting, interpolated"
        add("÷3", "3× too low", about, lambda s: _rise(s, s.lower), extra=True)
        about = "nats above the best at three times the best setting, interpolated"
        add("×3", "3× too high", about, lambda s: _rise(s, s.higher), extra=True)
    short, heading, about = _sensitivity(windows)
    add(
        short,
        heading,
        f"mean of min(l, l0) - l* over the settings {about}, around the own best, nats",
        lambda s: _estimate(s.sensitivity),
        lambda s: style.window(s.window) if len(windows) > 1 and s.sensitivity else "",
        extra=True,
    )
    if log:
        about = f"decades within {stats.MARGIN:g} nats of the best; ≥ where the grid ends first"
        add(f"decades ≤{stats.MARGIN:g}", "Safe window, decades", about, _safe, _safe_range)
    about = "optimizer state, bytes per parameter"
    add("state B/param", "State, bytes/param", about, lambda s: f"{s.state_bytes:.3g}")
    if not sweep.recorded:  # a record's steps were timed on other machines, beside other work
        add("step ms", "Step,\u00a0ms", "median over the curve's runs", lambda s: f"{s.step_ms:.3g}")
        if reference:
            add(
                "vs Adam",
                "Step, ×\u00a0Adam",
                "step time as a multiple of Adam's",
                lambda s: f"{s.step_ms / reference.step_ms:.2f}",
                extra=True,
            )
    add("diverged", "Diverged", "runs that diverged, of all finished", lambda s: f"{s.diverged}/{s.runs}")
    return made


def _grid(sweep: Sweep) -> str:
    sizes = sorted({len(summary.curve.points) for summary in sweep.summaries})
    return f"{sizes[0]} to {sizes[-1]} settings" if len(sizes) > 1 else f"{sizes[0]} settings"


def _setting(summary: Summary) -> str:
    return {"lowest": "↓ ", "highest": "↑ ", None: ""}[summary.curve.edge] + style.number(summary.setting)


def _edge(sweep: Sweep, summary: Summary) -> str:
    if not summary.curve.edge:
        return ""
    return "edge so far" if summary.label in sweep.unfinished else EDGE


def _sensitivity(windows: Collection[float]) -> tuple[str, str, str]:
    """Short and long heading of the sensitivities, and the window they are over."""
    window, *others = sorted(windows)
    if others:
        return *SENSITIVITY, "of each panel's window: " + " or ".join(map(style.window, (window, *others)))
    if math.isfinite(window):
        return f"sens. ±{window:g}", f"Sensitivity, ±{window:g}\u00a0dec.", style.window(window)
    return *SENSITIVITY, style.window(window)


def _nothing(summary: Summary) -> str:
    return ""


def _seeds(summary: Summary) -> str:
    return f"{summary.seeds} seed" + "s" * (summary.seeds != 1)


def _rise(summary: Summary, estimate: Estimate | None) -> str:
    if not summary.curve.log:
        return MISSING
    return "not tried" if estimate is None else f"+{style.nats(estimate.value, estimate.half_width)}"


def _estimate(estimate: Estimate | None) -> str:
    return MISSING if estimate is None else style.nats(estimate.value, estimate.half_width)


def _safe(summary: Summary) -> str:
    safe = summary.safe
    if safe is None:
        return MISSING
    return ("≥ " if safe.open_low or safe.open_high else "") + f"{safe.decades:.2f}"


def _safe_range(summary: Summary) -> str:
    safe = summary.safe
    return f"{style.number(safe.low)} to {style.number(safe.high)}" if safe else ""
