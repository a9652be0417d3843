"""What the record in the package says of a study, for the pages that show it. No number stands here."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from optstudy import archive, study
from optstudy import report as reports
from optstudy.commands.sweeps import sweep_of
from optstudy.report import style
from optstudy.scales import SCALES
from optstudy.session import Session
from optstudy.stats import Summary

Load = Callable[[str], archive.Archive]
"""A scale -> its record."""
Found = Mapping[str, Sequence[tuple[str, list[Summary]]]]
"""A figure -> its summaries at each scale that has a record."""

NO_RECORD = (
    "**Nothing has been measured for this page yet.** The record of runs is not part of this version. "
    "`make record` makes it; the next build of this page shows it."
)
WINDOW = ("optimizer", "best loss", "seeds", "at", "safe window", "decades")


def table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A pipe table."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)


def recorded(load: Load, name: str = "paper/fig1") -> list[tuple[str, list[Summary]]]:
    """The summaries of a study's curves at each scale that has a record, smallest first."""
    found = []
    for scale in SCALES:
        if kept := load(scale):
            sweep = swept(name, scale, kept)
            if sweep.rows:
                found.append((scale, sweep.summaries))
    return found


def swept(name: str, scale: str, kept: archive.Archive) -> reports.Sweep:
    """A study as the record has it."""
    return sweep_of(Session(study.load(name), scale, Path("no-runs"), kept=kept))


def window_row(summary: Summary) -> tuple[str, ...]:
    """One curve of a sweep: best loss, setting, safe window."""
    best, safe = summary.best, summary.safe
    ends = f"{style.number(safe.low)} to {style.number(safe.high)}" if safe else ""
    decades = f"{'≥ ' if safe.open_low or safe.open_high else ''}{safe.decades:.1f}" if safe else ""
    loss, setting = style.nats(best.value, best.half_width), style.number(summary.setting)
    return style.full_name(summary.label), loss, str(summary.seeds), setting, ends, decades
