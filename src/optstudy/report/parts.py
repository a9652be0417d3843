"""What several figures draw: a line with its band, a legend, a note in place of a figure."""

from collections.abc import Mapping
from typing import Any

from optstudy.report import style
from optstudy.results.estimate import Estimate

Band = tuple[float, float, float]
"""A value and the ends of its interval."""


def band(estimate: Estimate) -> Band:
    """A value with its interval; with one seed, the ends are the value."""
    value = estimate.value
    return (value, *(estimate.interval or (value, value)))


def draw_bands(axis: Any, bands: Mapping[float, Band], slot: int) -> None:
    """Draw values over their keys as a line with markers, and their intervals as a band around it."""
    if not bands:
        return
    look, x = style.look(slot, 3.0), list(bands)
    values, low, high = zip(*bands.values(), strict=True)
    axis.plot(x, values, **look)
    axis.fill_between(x, low, high, color=look["color"], alpha=0.12, lw=0)


def draw_legend(made: Any, slots: Mapping[str, int], columns: int) -> None:
    """Draw a legend below the plots of a matplotlib figure, from palette slots by name."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], **style.look(slot, 3.4)) for slot in slots.values()]
    made.legend(handles, list(map(style.drawn, slots)), loc="outside lower center", ncols=columns)


def draw_note(made: Any, text: str) -> None:
    """Write a text on a matplotlib figure that has nothing to draw."""
    made.add_subplot().set_axis_off()
    made.text(0.1, 0.5, text)
