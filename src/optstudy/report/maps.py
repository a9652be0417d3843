"""Heat maps: the best loss of every cell of a map study, minus the reference's.

The reference is Adam unless the study file says otherwise, with as many tokens as the panel's runs. If it is
not known at that length, the best cell of the panel is used instead.
"""

import textwrap
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from optstudy.report import style
from optstudy.results.curves import Curve
from optstudy.results.equivalents import read
from optstudy.results.figure import Figure
from optstudy.results.stats import Estimate, Summary

WORSE = ((0.95, 0.96, 0.97), (0.36, 0.63, 0.80), (0.03, 0.19, 0.42))
"""Colours from zero to the largest difference, light to dark: readable in grey and by the colour-blind."""
BETTER = ((0.95, 0.96, 0.97), (0.98, 0.72, 0.38), (0.62, 0.30, 0.02))
"""The same for cells below zero."""

LETTERS = 12
"""Characters of a column's name per line under its cells."""


@dataclass(frozen=True)
class Cell:
    """One cell: its best loss and the setting that reached it."""

    excess: float
    """Nats above the loss that the panel compares with."""
    setting: str
    half_width: float | None
    shade: str
    ink: str
    """Colours of the cell's background and text."""


@dataclass(frozen=True)
class Heat:
    """One panel of a map."""

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: Mapping[tuple[str, str], Cell]
    """Cells by row and column; combinations that were not run are absent."""
    zero: str
    """Name of the loss that cells are compared with."""


@dataclass(frozen=True)
class Move:
    """How much one row's choice of column changes the loss."""

    row: str
    nats: float
    best: str
    worst: str


def moves(heat: Heat) -> list[Move]:
    """The rows of a panel with more than one column, largest effect first."""
    found = []
    for row in heat.rows:
        cells = {
            column: heat.cells[row, column].excess for column in heat.columns if (row, column) in heat.cells
        }
        if len(cells) > 1:
            best, worst = min(cells, key=lambda c: cells[c]), max(cells, key=lambda c: cells[c])
            found.append(Move(row, cells[worst] - cells[best], best, worst))
    return sorted(found, key=lambda move: -move.nats)


def heats(figure: Figure) -> list[Heat]:
    """The panels of a map study, with a row and a column for each curve."""
    summaries = {summary.curve.label: summary for summary in figure.summaries}
    panels: dict[str, list[tuple[Summary, Estimate]]] = {}
    for curve in figure.curves:
        summary = summaries[curve.label]
        if summary.best is not None:
            panels.setdefault(_title(figure, curve), []).append((summary, summary.best))
    return [_heat(title, some, figure) for title, some in panels.items()]


def _heat(title: str, bests: Sequence[tuple[Summary, Estimate]], figure: Figure) -> Heat:
    reference = _reference(figure, {read(summary.curve) for summary, _ in bests})
    zero = min(best.value for _, best in bests) if reference is None else reference
    widest = max(abs(best.value - zero) for _, best in bests)
    cells = {(s.curve.row, s.curve.name): _cell(s, best, zero, widest) for s, best in bests}
    rows, columns = (tuple(dict.fromkeys(key[i] for key in cells)) for i in (0, 1))
    name = "the best of the panel" if reference is None else f"{style.known(figure.against)}'s best"
    return Heat(title, rows, columns, cells, name)


def _reference(figure: Figure, tokens: Set[int | None]) -> float | None:
    """The reference's best loss at the panel's number of tokens; None if its runs differ in tokens."""
    if figure.lengths is None or len(tokens) != 1:
        return None
    known = (figure if figure.lengths == "own" else figure.lengths).summaries
    same = [s.best for s in known if s.curve.name == figure.against and {read(s.curve)} == tokens]
    return next((best.value for best in same if best is not None), None)


def _title(figure: Figure, curve: Curve) -> str:
    """The panel of a cell; anything else that distinguishes its curve makes a separate panel."""
    return (figure.title_of(curve.panel) + style.apart(curve)).removeprefix(", ")


def shade(share: float) -> tuple[float, float, float]:
    """Colour for a share of the largest difference, from -1 to 1."""
    ramp, size = (WORSE if share >= 0 else BETTER), abs(share)
    left, right = ramp[:2] if size < 0.5 else ramp[1:]
    at = 2 * size if size < 0.5 else 2 * size - 1
    return tuple(a + at * (b - a) for a, b in zip(left, right, strict=True))  # type: ignore[return-value]


def draw_map(drawing: Any, figure: Figure) -> None:
    """Draw every panel of a map on a matplotlib figure."""
    panels = heats(figure)
    if not panels:
        drawing.text(0.1, 0.5, "No run got below the loss before training.")
        return
    widths = [len(heat.columns) for heat in panels]
    rows = max(len(heat.rows) for heat in panels)
    under = {heat.title: [wrapped(column) for column in heat.columns] for heat in panels}
    lines = max(label.count("\n") for labels in under.values() for label in labels)
    width = max(4.0, 1.4 + 0.85 * sum(widths) + 0.9 * (len(panels) - 1))
    drawing.set_size_inches(width, 1.2 + 0.42 * rows + 0.15 * lines)
    axes = drawing.subplots(1, len(panels), squeeze=False, width_ratios=widths)[0]
    for axis, heat in zip(axes, panels, strict=True):
        axis.grid(False)
        axis.set_title(style.drawn(heat.title), loc="left", fontsize=9)
        axis.set_xticks(range(len(heat.columns)), under[heat.title])
        axis.set_yticks(range(len(heat.rows)), [style.drawn(style.known(r)) for r in heat.rows])
        axis.tick_params(length=0)
        axis.set_xlim(-0.5, len(heat.columns) - 0.5)
        axis.set_ylim(len(heat.rows) - 0.5, -0.5)
        for spine in axis.spines.values():
            spine.set_visible(False)
        for (row, column), cell in heat.cells.items():
            x, y = heat.columns.index(column), heat.rows.index(row)
            axis.fill_between([x - 0.48, x + 0.48], y - 0.47, y + 0.47, color=cell.shade, lw=0)
            axis.text(x, y, f"{cell.excess:+.3f}", ha="center", va="center", color=cell.ink, fontsize=8)
    metric = figure.metric
    zero = " or ".join(dict.fromkeys(heat.zero for heat in panels))
    above = f"{'below' if metric.maximise else 'above'} {zero}{metric.unit and f', {metric.unit}'}"
    drawing.supxlabel(style.drawn(f"best {metric.name} {above}"), fontsize=8)


def wrapped(column: str) -> str:
    """A column's name, wrapped to about the width of its cells."""
    return textwrap.fill(style.drawn(style.known(column)), LETTERS, break_long_words=False)


def _cell(summary: Summary, best: Estimate, zero: float, widest: float) -> Cell:
    excess = best.value - zero
    colour = shade(excess / widest if widest else 0.0)
    text = "#" + "".join(f"{round(255 * part):02x}" for part in colour)
    ink = max(("#000000", "#ffffff"), key=lambda candidate: style.contrast(candidate, text))
    return Cell(excess, style.setting(summary), best.half_width, text, ink)
