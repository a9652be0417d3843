"""Heat maps: the best loss of every cell of a map study, minus the reference's.

The reference is Adam unless the study file says otherwise, with as many tokens as the panel's runs. If it is
not known at that length, the best cell of the panel is used instead.
"""

import textwrap
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from optstudy.report import style
from optstudy.report.parts import draw_note
from optstudy.results.curves import Curve
from optstudy.results.equivalents import read
from optstudy.results.estimate import Estimate
from optstudy.results.figure import Figure
from optstudy.results.stats import Summary, difference

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
    """Half of the 95 % interval of ``excess``; None with one seed."""
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
    zero = reference or min(bests, key=lambda one: one[1].value)
    widest = max(abs(best.value - zero[1].value) for _, best in bests)
    cells = {(s.curve.row, s.curve.name): _cell(s, best, zero, widest) for s, best in bests}
    rows, columns = (tuple(dict.fromkeys(key[i] for key in cells)) for i in (0, 1))
    name = "the best of the panel" if reference is None else f"{style.known(figure.against)}'s best"
    return Heat(title, rows, columns, cells, name)


def _reference(figure: Figure, tokens: Set[int | None]) -> tuple[Summary, Estimate] | None:
    """The reference and its best loss at the panel's number of tokens; None if its runs differ in tokens."""
    if figure.lengths is None or len(tokens) != 1:
        return None
    known = (figure if figure.lengths == "own" else figure.lengths).summaries
    same = [s for s in known if s.curve.name == figure.against and {read(s.curve)} == tokens]
    return next(((s, s.best) for s in same if s.best is not None), None)


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
        draw_note(drawing, "No run got below the loss before training.")
        return
    most = max(len(heat.columns) for heat in panels)
    rows = [len(heat.rows) for heat in panels]
    under = {heat.title: [wrapped(column) for column in heat.columns] for heat in panels}
    lines = sum(1 + max(label.count("\n") for label in labels) for labels in under.values())
    width = max(4.0, 1.2 + 0.8 * most)
    drawing.set_size_inches(width, 0.4 + 0.5 * sum(rows) + 0.15 * lines + 0.3 * len(panels))
    axes = drawing.subplots(len(panels), 1, squeeze=False, height_ratios=rows)[:, 0]  # print is a column wide
    for axis, heat in zip(axes, panels, strict=True):
        axis.grid(False)
        axis.set_title(style.drawn(heat.title), loc="left", fontsize=9)
        axis.set_xticks(range(len(heat.columns)), under[heat.title], fontsize=8)
        axis.set_yticks(range(len(heat.rows)), [style.drawn(style.known(r)) for r in heat.rows])
        axis.tick_params(length=0)
        axis.set_xlim(-0.5, most - 0.5)
        axis.set_ylim(len(heat.rows) - 0.5, -0.5)
        for spine in axis.spines.values():
            spine.set_visible(False)
        for (row, column), cell in heat.cells.items():
            x, y = heat.columns.index(column), heat.rows.index(row)
            axis.fill_between([x - 0.48, x + 0.48], y - 0.47, y + 0.47, color=cell.shade, lw=0)
            words = {"ha": "center", "color": cell.ink}
            axis.text(x, y - 0.04, f"{cell.excess:+.3f}", va="bottom", fontsize=8, **words)
            axis.text(x, y + 0.02, _small(cell), va="top", fontsize=6, linespacing=1.1, **words)
    metric = figure.metric
    zero = " or ".join(dict.fromkeys(heat.zero for heat in panels))
    above = f"{'below' if metric.maximise else 'above'} {zero}{metric.unit and f', {metric.unit}'}"
    setting = figure.panels[0].axis.partition(",")[0]
    drawing.supxlabel(style.drawn(f"best {metric.name} {above}; below it, its {setting}"), fontsize=8)


def wrapped(column: str) -> str:
    """A column's name, wrapped to about the width of its cells."""
    return textwrap.fill(style.drawn(style.known(column)), LETTERS, break_long_words=False)


def _small(cell: Cell) -> str:
    """The lines under a cell's number: its interval if there is one, and its setting."""
    half = [] if cell.half_width is None else [f"± {cell.half_width:.3f}"]
    return "\n".join([*half, f"at {style.drawn(cell.setting)}"])


def _cell(summary: Summary, best: Estimate, zero: tuple[Summary, Estimate], widest: float) -> Cell:
    excess = best.value - zero[1].value
    colour = shade(excess / widest if widest else 0.0)
    text = "#" + "".join(f"{round(255 * part):02x}" for part in colour)
    ink = max(("#000000", "#ffffff"), key=lambda candidate: style.contrast(candidate, text))
    gap = None if summary is zero[0] else difference(summary.curve, zero[0].curve)
    return Cell(excess, style.setting(summary), None if gap is None else gap.half_width, text, ink)
