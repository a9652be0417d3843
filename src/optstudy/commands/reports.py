"""``optstudy report`` and ``compare``."""

import itertools
import json
import shlex
import sys
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from optstudy import archive, study
from optstudy import report as reports
from optstudy.catalog import expect_many
from optstudy.cli import DONE
from optstudy.errors import UserError
from optstudy.report.live import LOOPBACK
from optstudy.report.style import SEPARATOR
from optstudy.session import Session

RUNS = Path("runs")
PORT = 8321
RECORDED = ("paper/", "beyond/")
"""Studies that the package's record holds; any other runs everything itself."""
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
    expect_many()
    names = [name] if name.endswith((".yaml", ".yml")) else names_in(name)
    formats = reports.check(format_)

    def sessions() -> list[Session]:
        chosen = study.overrides(set_)
        return [Session(study.load(n), scale, runs, chosen, seeds, kept=recorded(n, scale)) for n in names]

    if serve:
        from optstudy.commands.claims import Judge

        reports.serve(Judge(sessions()).sweeps, host, port, _serving)
        return DONE
    with reports.draughtsmen(len(names)) as pool:
        if names == [name]:
            write_report(sessions()[0], out, formats, pool)
        else:
            _write_all(sessions(), out / name / scale, formats, f"{name} at {scale}", pool)
    return DONE


def _write_all(
    sessions: Sequence[Session], out: Path, formats: Sequence[str], title: str, pool: Executor
) -> None:
    """Write the reports of several studies and their index."""
    from optstudy.commands.claims import Judge

    sweeps = Judge(sessions).sweeps()
    for session in sessions:
        session.remember()
    progress = itertools.count(1)

    def told(sweep: reports.Sweep) -> None:
        sys.stderr.write(f"[{next(progress)}/{len(sweeps)}] {sweep.name}: {len(sweep.rows)} runs\n")

    written = reports.write_index(sweeps, out, formats, title, told, pool)
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


def sweep_of(session: Session) -> reports.Sweep:
    """What a report of a session's study is made from, read again."""
    session.replan()
    file, points = session.study.file, session.plan.points
    rows = session.rows()
    titles = _titles(session)

    def label(curve: str) -> str:
        title, separator, own = curve.rpartition(SEPARATOR)
        return SEPARATOR.join(filter(None, (titles.get(title, title), own))) if separator else curve

    places = {(point.id, label(point.curve)): point.x for point in points}
    return reports.Sweep(
        name=session.study.name,
        title=file.title,
        asks=file.asks,
        scale=session.scale,
        rows=rows,
        places=[reports.Place(run_id, curve, x) for (run_id, curve), x in places.items()],
        kind="effective" if all(p.config.training.effective_lr for p in points) else file.figure.kind,
        x=file.figure.x,
        axes={titles[title]: panel.x for title, panel in file.panels.items() if panel.x},
        baselines=frozenset(map(label, _included(session.study))),
        missing=len({point.id for point in points}) - len(rows) + len(session.plan.pending),
        runs=session.runs,
        recorded={row.id: session.kept[row.id].metrics for row in rows if row.id in session.kept},
        command=_command(session),
    )


def _titles(session: Session) -> dict[str, str]:
    """Titles of the panels without the paper's scale, which did not run; plain "150m" is "pico" at pico."""
    panels = session.study.file.panels
    if session.scale == "paper":
        return {title: title for title in panels}
    titles = {}
    for title, panel in panels.items():
        titles[title] = session.scale if title == panel.scale else title.removeprefix(f"{panel.scale}, ")
    drawn = {titles.get(p.curve.rpartition(SEPARATOR)[0], "") for p in session.plan.points}
    return dict.fromkeys(panels, "") if drawn <= {session.scale, ""} else titles


def _included(chosen: study.Study) -> list[str]:
    """Labels that the curves of other studies may have on this one's figure."""
    file = chosen.file
    found = [curve for curves in file.include.values() for curve in curves]
    for title, panel in file.panels.items():
        some = [
            curve
            for include in (file.include, panel.include)
            for curves in include.values()
            for curve in curves
        ]
        found += [*some, *(f"{title}{SEPARATOR}{curve}" for curve in some)]
    return found


def _command(session: Session) -> str:
    """What runs the study as it was run."""
    words = ["optstudy", "run", session.study.path or session.study.name, "--scale", session.scale]
    for key, value in session.overrides.items():
        words += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    if session.seeds is not None:
        words += ["--seeds", str(session.seeds)]
    return shlex.join(words)


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
    from optstudy.commands.claims import Judge

    (sweep,) = Judge([session]).sweeps()
    if not sweep.rows:
        raise UserError(f"{sweep.name}: no run has ended in {session.runs}; first: {sweep.command}")
    drawn = reports.draw(sweep, formats, pool)
    session.remember()
    reports.show(sweep)
    for path in reports.write(sweep, out / sweep.name / sweep.scale, formats, drawn=drawn):
        sys.stdout.write(f"wrote {path}\n")


def recorded(name: str, scale: str) -> archive.Archive:
    """Return the runs of the package's record that count as done in a study: one that the record is of."""
    return archive.load(scale) if name.startswith(RECORDED) else {}


def names_in(name: str) -> list[str]:
    """Return the studies of a folder of them, or the one of that name."""
    inside = [known for known in study.names() if known.startswith(f"{name.rstrip('/')}/")]
    return inside or [name]


def _serving(address: str) -> None:
    sys.stdout.write(f"serving {address} until Ctrl-C\n")
    sys.stdout.flush()
