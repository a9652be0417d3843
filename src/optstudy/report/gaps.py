"""The figure of gaps: each optimizer's best compared with the reference's, in nats and tokens, with bands."""

from collections.abc import Callable, Sequence
from typing import Any

from optstudy.report import style
from optstudy.report.parts import Band, band, draw_bands, draw_legend
from optstudy.results.curves import axis
from optstudy.results.equivalents import LENGTHS
from optstudy.results.figure import Figure
from optstudy.results.gaps import Gap, Series, gaps


def draw_gaps(made: Any, figure: Figure) -> None:
    """Draw nats above the reference, and token-equivalents if there is a horizon."""
    found = gaps(figure)
    against = style.known(figure.against)
    kinds: list[tuple[str, float, Callable[[Gap], Band | None]]] = [(f"nats above {against}", 0.0, _nats)]
    if any(_tokens(gap) is not None for series in found for gap in series.gaps):
        kinds.append((f"tokens {against} needs, over those spent", 1.0, _tokens))
    made.set_size_inches(3.9 * len(kinds) + 0.4, 3.7)
    axes = made.subplots(1, len(kinds), squeeze=False)[0]
    slots = style.slots(series.curve for series in found)
    for plot, (label, zero, band_of) in zip(axes, kinds, strict=True):
        for series in found:
            bands = {gap.x: one for gap in series.gaps if (one := band_of(gap)) is not None}
            draw_bands(plot, bands, slots[series.curve.label])
        _axes(plot, figure, found, label, zero)
    names = {style.series(series): slots[series.curve.label] for series in found}
    draw_legend(made, names, min(len(names), 3))


def _nats(gap: Gap) -> Band | None:
    return None if gap.nats is None else band(gap.nats)


def _tokens(gap: Gap) -> Band | None:
    ratio = gap.tokens
    if ratio is None or ratio.sign:
        return None
    low, high = ratio.interval or (ratio.value, ratio.value)
    first, last = (ratio.ratios[0], ratio.ratios[-1]) if ratio.gaps else (low, high)
    return ratio.value, max(low, float(first)), min(high, float(last))


def _axes(plot: Any, figure: Figure, found: Sequence[Series], label: str, zero: float) -> None:
    places = sorted({gap.x for series in found for gap in series.gaps})
    long = figure.over in LENGTHS
    plot.set_xscale("log")
    plot.minorticks_off()
    plot.set_xticks(places, [style.count(x) if long else style.number(x) for x in places])
    plot.set_xlabel("tokens of a run" if long else style.drawn(axis(figure.over)))
    plot.set_ylabel(label)
    plot.axhline(zero, color=style.INK, alpha=0.4, lw=0.7)
    bands = [one for line in plot.lines[:-1] for one in line.get_ydata()]
    pad = 0.15 * (max(bands, default=1.0) - min(bands, default=0.0) or 1.0)
    plot.set_ylim(min([zero, *bands]) - pad, max([zero, *bands]) + pad)
