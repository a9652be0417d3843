"""``optstudy report`` and ``compare``."""

import itertools
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from optstudy import report as reports
from optstudy.commands.options import RUNS, Assignments, Axes, Scale, StudyName
from optstudy.ending import DONE
from optstudy.errors import UserError
from optstudy.findings import Judge, recorded
from optstudy.report.live import LOOPBACK
from optstudy.results.catalog import expect_many
from optstudy.results.figure import Figure
from optstudy.study import library as study
from optstudy.study.session import Session

PORT = 8321
Formats = Annotated[tuple[str, ...], Parameter(name="--format")]


def report(
    name: StudyName,
    /,
    *,
    scale: Scale = None,
    set_: Assignments = (),
    axis: Axes = (),
    runs: Path = RUNS,
    seeds: int | None = None,
    out: Path = Path("report"),
    format_: Formats = reports.DEFAULT_FORMATS,
    serve: bool = False,
    host: str = LOOPBACK[0],
    port: int = PORT,
) -> int:
    """Draw the report of a study, or of all studies of a folder, from the runs that have ended.

    Examples:
        optstudy report paper/fig1 --format pdf --format tex

        optstudy report paper --scale pico

        optstudy report paper/fig1 --serve

    Args:
        name: one of `optstudy studies`, their folder (`paper`), or a file of your own.
        scale: the scale it ran at; by default `pico`, or a study's own first.
        set_: config values that it ran with, as `key=value`.
        axis: values that it ran, as `key=value,value`.
        runs: where run folders are.
        seeds: seeds of every point, instead of the study's.
        out: where the report goes.
        format_: `html`, `pdf`, `svg`, `png`, `md` or `tex`; may be given several times.
        serve: show the report in a browser and refresh it as runs end, until Ctrl-C; nothing is written.
        host: address to serve on; other machines reach it only if this is not loopback.
        port: port to serve on; 0 takes a free one.
    """
    expect_many()
    names = [name] if name.endswith((".yaml", ".yml")) else names_in(name)
    formats = reports.check(format_)
    draws = not serve and any(kind not in reports.TABLES for kind in formats)
    with reports.drawing_pool(len(names)) if draws else nullcontext() as pool:
        chosen = study.overrides(set_)
        studies = [study.load(n).over(axis) for n in names]
        kept = [recorded(one.name, one.scale(scale)) for one in studies]
        sessions = [
            Session(one, scale, runs, chosen, seeds, kept=own) for one, own in zip(studies, kept, strict=True)
        ]
        if serve:
            reports.serve(Judge(sessions).figures, host, port, _serving)
            _remember(sessions)
        elif names == [name]:
            write_report(sessions[0], out, formats, pool)
        else:
            at = sessions[0].scale
            _write_all(sessions, out / name / at, formats, f"{name} at {at}", pool)
    return DONE


def _remember(sessions: Iterable[Session]) -> None:
    for session in sessions:
        session.remember()


def _write_all(
    sessions: Sequence[Session], out: Path, formats: Sequence[str], title: str, pool: Executor | None
) -> None:
    """Write the reports of several studies and their index."""
    figures = Judge(sessions).figures()
    _remember(sessions)
    progress = itertools.count(1)

    def told(figure: Figure) -> None:
        sys.stderr.write(f"[{next(progress)}/{len(figures)}] {figure.name}: {len(figure.rows)} runs\n")

    written = reports.write_index(figures, out, formats, title, told, pool)
    sys.stdout.write(f"wrote {written[0]} and {len(written) - 1} files beside it\n")


def compare(before: Path, after: Path, /, *, out: Path = Path("report/compare")) -> int:
    """Compare two runs folders, run by run: before and after a change of yours.

    Runs are paired by id; where a change gave them new ids, by their config.

    Args:
        before: a runs folder.
        after: another runs folder.
        out: where the page goes.
    """
    found = reports.compare(before, after)
    reports.show_comparison(found)
    for path in reports.write_comparison(found, out):
        sys.stdout.write(f"wrote {path}\n")
    return DONE


def write_report(
    session: Session,
    out: Path,
    formats: Sequence[str] = reports.DEFAULT_FORMATS,
    pool: Executor | None = None,
) -> None:
    """Print a study's table and write its report, drawn by the pool or here.

    Raises:
        UserError: no run has ended, or an unknown format.
    """
    (figure,) = Judge([session]).figures()
    if not figure.rows:
        raise UserError(f"{figure.name}: no run has ended in {session.runs}; first: {figure.command}")
    drawn = reports.draw(figure, formats, pool)
    session.remember()
    reports.show(figure)
    for path in reports.write(figure, out / figure.name / figure.scale, formats, drawn=drawn):
        sys.stdout.write(f"wrote {path}\n")


def names_in(name: str) -> list[str]:
    """Return the studies of a folder of them, or the one of that name."""
    inside = [known for known in study.names() if known.startswith(f"{name.rstrip('/')}/")]
    return inside or [name]


def _serving(address: str) -> None:
    sys.stdout.write(f"serving {address} until Ctrl-C\n")
    sys.stdout.flush()
