"""Quantiles of the effective learning rates lr / (sqrt(v) + eps) over a run, by role (Figure 2)."""

from collections.abc import Mapping, Sequence
from typing import Any

from optstudy.report import style
from optstudy.report.payload import read_metrics
from optstudy.report.sweep import Sweep

Recorded = Sequence[tuple[int, Mapping[str, Mapping[str, float]]]]
"""Tokens read, and the quantiles by role."""


def recorded(sweep: Sweep) -> Recorded:
    """What the best run of the best curve that recorded any holds; empty where none did."""
    if sweep.runs is None:
        return []
    for summary in sweep.summaries:
        for run in summary.curve.best.rows:
            metrics = read_metrics(sweep.runs / run.id)
            found = [(row["tokens"], row["effective_lr"]) for row in metrics if row.get("effective_lr")]
            if found:
                return found
    return []


def draw_effective(figure: Any, sweep: Sweep) -> None:
    """Draw one panel per role on a matplotlib figure: a line per quantile, the median darkest."""
    rows = recorded(sweep)
    roles = list(dict.fromkeys(role for _, found in rows for role in found))
    columns = max(1, min(4, len(roles)))
    lines = max(1, -(-len(roles) // columns))
    figure.set_size_inches(max(3.0, 2.2 * columns), 2.2 * lines)
    grid = figure.subplots(lines, columns, sharey=True, squeeze=False)
    axes = list(grid.flat)
    for unused in axes[len(roles) :]:
        unused.set_axis_off()
    for row in grid:
        row[0].set_ylabel("effective learning rate")
    for axis, role in zip(axes, roles, strict=False):
        of = [(tokens, found[role]) for tokens, found in rows if role in found]
        names = sorted({name for _, quantiles in of for name in quantiles})
        for k, name in enumerate(names):
            centred = abs(2 * k - (len(names) - 1)) / max(1, len(names) - 1)
            points = [(tokens, quantiles[name]) for tokens, quantiles in of if quantiles.get(name)]
            colour = {"color": style.COLOURS[0], "alpha": 1 - 0.65 * centred, "label": style.drawn(name)}
            axis.plot([x for x, _ in points], [y for _, y in points], **colour)
        axis.set_yscale("log")
        axis.set_title(style.drawn(role), loc="left", fontsize=9)
        axis.set_xlabel("tokens")
