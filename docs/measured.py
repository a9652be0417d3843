"""Results from the record in the package, for the pages that show them. No numbers are written here."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from optstudy.outcomes import LENGTH, figure_of
from optstudy.report import style
from optstudy.results import archive
from optstudy.results.figure import Figure
from optstudy.results.stats import Summary
from optstudy.scales import SCALES
from optstudy.study import library as study
from optstudy.study.session import Session, Shared

Load = Callable[[str], archive.Archive]
"""Maps a scale to its record."""
Found = Mapping[str, Sequence[tuple[str, Figure]]]
"""Maps a study to its figure at each scale and length with a record."""
LENGTHS: Sequence[tuple[str, str, Mapping[str, Any]]] = [
    place
    for scale in SCALES
    for place in ((scale, scale, {}), ("pico, 600 steps", "pico", {LENGTH: 600}))
    if scale == "pico" or place[0] == scale
]
"""A record's label, its scale, and the overrides of its runs."""

NO_RECORD = (
    "**Nothing has been measured for this page yet.** The record of runs is not part of this version. "
    "`make record` makes it; the next build of this page shows it."
)
WINDOW = ("optimizer", "best loss", "seeds", "at", "best run", "safe window", "decades")


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A pipe table."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


@cache
def recorded(load: Load, name: str = "paper/fig1") -> list[tuple[str, Figure]]:
    """A study's figure at each scale and length with a record, smallest scale first, without duplicates."""
    found: list[tuple[str, Figure]] = []
    for label, scale, overrides in LENGTHS:
        if kept := load(scale):
            shared = _shared(load, scale)
            figure = figure_of(
                Session(study.load(name), scale, Path("no-runs"), overrides, kept=kept, shared=shared)
            )
            seen = {row.id for _, known in found for row in known.rows}
            if not {row.id for row in figure.rows} <= seen:
                lacks = f" (so far: {figure.missing} of its runs are missing)" if figure.missing else ""
                found.append((label + lacks, figure))
    return found


@cache
def _shared(load: Load, scale: str) -> Shared:
    """What all sessions of a scale share."""
    return Shared()


def window_row(figure: Figure, summary: Summary) -> tuple[str, ...]:
    """One curve of a figure: best loss, setting, the best run, safe window."""
    name, safe = style.full_name(figure, summary.curve), summary.safe
    if summary.best is None:
        return name, "never trained", *[""] * (len(WINDOW) - 2)
    ends = f"{style.number(safe.low)} to {style.number(safe.high)}" if safe else ""
    decades = f"{'≥ ' if safe.open_low or safe.open_high else ''}{safe.decades:.1f}" if safe else ""
    seeds = str(summary.best.seeds)
    return (
        name,
        style.value(figure.metric, summary.best),
        seeds,
        style.setting(summary),
        style.tried(figure.metric, summary),
        ends,
        decades,
    )
