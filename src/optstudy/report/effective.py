"""Quantiles of the effective learning rates lr / (sqrt(v) + eps) over a run, by role (Figure 2)."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from optstudy.report import style
from optstudy.results.figure import Figure

Recorded = Sequence[tuple[int, Mapping[str, Mapping[str, float]]]]
"""Tokens read, and the quantiles for each role."""


def recorded(figure: Figure) -> Recorded:
    """What the best run of the best curve recorded; empty if no curve recorded any."""
    return [(row["tokens"], row["effective_lr"]) for row in figure.effective]


@dataclass(frozen=True)
class Spread:
    """The range of a role's effective learning rates."""

    decades: float
    """log10 of the ratio of the outer quantiles, median over the run; independent of the schedule."""
    low: str
    high: str
    """Names of the outer quantiles, such as 5 % and 95 %."""


def spreads(figure: Figure) -> dict[str, Spread]:
    """The spread of each role that the drawn run recorded, widest first."""
    ratios: dict[str, list[float]] = {}
    outer: dict[str, tuple[str, str]] = {}
    for _, roles in recorded(figure):
        for role, quantiles in roles.items():
            if len(quantiles) < 2 or min(quantiles.values()) <= 0:
                continue
            low, *_, high = sorted(quantiles, key=lambda name: quantiles[name])
            ratios.setdefault(role, []).append(math.log10(quantiles[high] / quantiles[low]))
            outer[role] = quantile(low), quantile(high)
    found = {role: Spread(median(some), *outer[role]) for role, some in ratios.items()}
    return dict(sorted(found.items(), key=lambda item: -item[1].decades))


def quantile(name: str) -> str:
    """A recorded quantile for display: ``q05`` is 5 %, ``q50`` the median."""
    percent = name.removeprefix("q")
    if name == "q50":
        return "median"
    return f"{int(percent)} %" if name.startswith("q") and percent.isdecimal() else name


def draw_effective(drawing: Any, figure: Figure) -> None:
    """Draw one panel per role on a matplotlib figure: a line per quantile, the median darkest."""
    rows = recorded(figure)
    roles = sorted({role for _, found in rows for role in found}, key=style.role)
    colour = style.colour(style.slots(figure.curves)[figure.summaries[0].curve.label])
    columns = max(1, min(4, len(roles)))
    lines = max(1, -(-len(roles) // columns))
    drawing.set_size_inches(max(3.0, 2.2 * columns), 2.2 * lines)
    grid = drawing.subplots(lines, columns, sharey=True, squeeze=False)
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
            look = {"color": colour, "alpha": 1 - 0.65 * centred, "label": style.drawn(quantile(name))}
            axis.plot([x for x, _ in points], [y for _, y in points], **look)
        axis.set_yscale("log")
        axis.locator_params(axis="x", nbins=3)
        axis.xaxis.set_major_formatter(lambda tokens, _: style.count(tokens))
        axis.set_title(style.drawn(role), loc="left", fontsize=9)
        axis.set_xlabel("tokens")
    if roles:
        handles, names = axes[0].get_legend_handles_labels()
        drawing.legend(
            handles, names, loc="outside lower center", ncols=5, title="quantile", title_fontsize=8
        )
