"""``optstudy report`` and ``compare``."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from optstudy import report as reports
from optstudy import study
from optstudy.cli import DONE
from optstudy.errors import UserError
from optstudy.report.live import LOOPBACK
from optstudy.session import Session

RUNS = Path("runs")
PORT = 8321
Formats = Annotated[tuple[str, ...], Parameter(name="--format")]


def report(
    name: Annotated[str, Parameter(name="study")],
    /,
    *,
    scale: str = "pico",
    set_: Annotated[tuple[str, ...], Parameter(name="--set", allow_leading_hyphen=True)] = (),
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
        scale: the scale it ran at.
        set_: config values that it ran with, as `key=value`.
        runs: where run folders are.
        seeds: seeds of every point, instead of the study's.
        out: where the report goes.
        format_: `html`, `pdf`, `svg`, `png`, `md` or `tex`; may be given several times.
        serve: show the report in a browser and refresh it as runs end, until Ctrl-C; nothing is written.
        host: address to serve on; other machines reach it only if this is not loopback.
        port: port to serve on; 0 takes a free one.
    """
    names = [name] if name.endswith((".yaml", ".yml")) else _names(name)
    sessions = [Session(study.load(n), scale, runs, study.overrides(set_), seeds) for n in names]
    if serve:
        reports.serve(lambda: [sweep_of(session) for session in sessions], host, port, _serving)
    elif len(sessions) == 1 and names == [name]:
        write_report(sessions[0], out, format_)
    else:
        sweeps = [sweep_of(session) for session in sessions]
        written = reports.write_index(sweeps, out / name / scale, format_, f"{name} at {scale}")
        sys.stdout.write(f"wrote {written[0]} and {len(written) - 1} files beside it\n")
    return DONE


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


def sweep_of(session: Session) -> reports.Sweep:
    """What a report of a session's study is made from, read again."""
    session.replan()
    chosen, points = session.study, session.plan.points
    rows = session.rows()
    return reports.Sweep(
        name=chosen.name,
        title=chosen.file.title,
        asks=chosen.file.asks,
        scale=session.scale,
        rows=rows,
        places=[reports.Place(point.id, point.curve, point.x) for point in points],
        kind="effective" if all(p.config.training.effective_lr for p in points) else chosen.file.figure.kind,
        x=chosen.file.figure.x,
        axes={title: panel.x for title, panel in chosen.file.panels.items() if panel.x},
        missing=len({point.id for point in points}) - len(rows) + len(session.plan.pending),
        runs=session.runs,
        command=f"optstudy run {chosen.name} --scale {session.scale}",
    )


def write_report(session: Session, out: Path, formats: Sequence[str] = reports.DEFAULT_FORMATS) -> None:
    """Print a study's table and write its report.

    Raises:
        UserError: no run has ended, or an unknown format.
    """
    sweep = sweep_of(session)
    if not sweep.rows:
        raise UserError(f"{sweep.name}: no run has ended in {session.runs}; first: {sweep.command}")
    reports.show(sweep)
    for path in reports.write(sweep, out / sweep.name / sweep.scale, formats):
        sys.stdout.write(f"wrote {path}\n")


def _names(name: str) -> list[str]:
    inside = [known for known in study.names() if known.startswith(f"{name.rstrip('/')}/")]
    return inside or [name]


def _serving(address: str) -> None:
    sys.stdout.write(f"serving {address} until Ctrl-C\n")
    sys.stdout.flush()
