"""The figure of losses by how common the token to predict is: each optimizer's gap to the reference."""

from typing import Any

from optstudy.config import DECILES
from optstudy.report import style
from optstudy.report.parts import band, draw_bands, draw_legend, draw_note
from optstudy.results.deciles import gaps
from optstudy.results.estimate import Estimate
from optstudy.results.figure import Figure

WIDTH, HEIGHT = 4.2, 2.2
"""Inches of a panel; panels are stacked, to be readable on a phone and in a column of print."""


def draw_deciles(made: Any, figure: Figure) -> None:
    """Draw a panel per panel of the study, a line per curve, from the commonest tokens to the rarest."""
    found = gaps(figure)
    if not found:
        draw_note(made, "No two curves of a panel recorded losses by decile.")
        return
    made.set_size_inches(WIDTH, HEIGHT * len(found) + 0.5)
    slots = style.slots(figure.curves)
    axes = made.subplots(len(found), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    for axis, (panel, series) in zip(axes, found.items(), strict=True):
        axis.axhline(0.0, color=style.INK, alpha=0.4, lw=0.7)
        for one in series:
            told = ((x, gap) for x, gap in enumerate(reversed(one.gaps)) if gap is not None)
            draw_bands(axis, {float(x): band(gap) for x, gap in told}, slots[one.curve.label])
        axis.set_title(style.drawn(figure.title_of(panel)), loc="left", fontsize=9)
        axis.set_ylabel(f"nats above {style.drawn(style.known(figure.against))}")
    axes[-1].set_xticks(range(DECILES), ["1\ncommonest", *map(str, range(2, DECILES)), f"{DECILES}\nrarest"])
    axes[-1].set_xlabel("tenth of the text, by how common its tokens are")
    names = {style.name(one.curve): slots[one.curve.label] for some in found.values() for one in some}
    draw_legend(made, names, 1)


def sentences(figure: Figure) -> list[str]:
    """Each curve's gap on the rarest tenth of the text and on the commonest, by panel."""
    against, said = style.known(figure.against), []
    for panel, series in gaps(figure).items():
        where = f"In “{figure.title_of(panel)}”, " if panel else ""
        for one in series:
            rare, common = (_value(figure, one.gaps[k]) for k in (0, -1))
            name = style.name(one.curve)
            said.append(
                f"{where}{name} is {rare} above {against} on the rarest tokens, {common} on the commonest."
            )
    return said


def _value(figure: Figure, gap: Estimate | None) -> str:
    return "unknown" if gap is None else style.value(figure.metric, gap, "+") + figure.metric.units
