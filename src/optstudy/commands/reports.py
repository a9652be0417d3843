"""``optstudy report`` and ``compare``."""

import itertools
import math
import os
import sys
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from optstudy import report as reports
from optstudy.commands.options import RUNS, Assignments, Axes, Scale, StudyName, belong, existing
from optstudy.ending import DONE
from optstudy.errors import UserError
from optstudy.outcomes import Judge, figure_of, recorded
from optstudy.report import style
from optstudy.report.live import LOOPBACK
from optstudy.results.catalog import expect_many
from optstudy.results.equivalents import LEAST
from optstudy.results.figure import Figure
from optstudy.results.rates import predictions
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
    predict: float | None = None,
    serve: bool = False,
    host: str = LOOPBACK[0],
    port: int = PORT,
) -> int:
    """Write the report of a study, or of all studies in a folder, from the finished runs.

    The report goes to `report/STUDY/SCALE`. Another study of that name, or the study with other `--set`,
    `--axis` or runs, gets a separate folder. Seeds beyond the study's that have run are shown; claims ignore
    them.

    Examples:
        optstudy report paper/fig1 --format pdf --format tex

        optstudy report paper --scale pico

        optstudy report paper/fig1 --serve

        optstudy report beyond/horizon --predict 1e9

    Args:
        name: a name from `optstudy studies`, a folder of them (`paper`), or your own file.
        scale: the scale of the runs; by default `pico`, or the study's first.
        axis: values that were run, as `key=value,value`.
        runs: folder of the run folders.
        seeds: seeds of every point, instead of the study's.
        out: folder for the report.
        format_: `html`, `pdf`, `svg`, `png`, `md` or `tex`; may be repeated.
        predict: also print each optimizer's best learning rate for runs of this many tokens, from runs of at
            least four lengths.
        serve: show the report in a browser and update it as runs end, until Ctrl-C; nothing is written.
        host: address to serve on; other machines can connect only if it is not loopback.
        port: port to serve on; 0 picks a free one.
    """
    existing(runs)
    belong("--serve", serve, host=host != LOOPBACK[0], port=port != PORT)
    expect_many()
    names = [name] if name.endswith((".yaml", ".yml")) else names_in(name)
    formats = reports.check(format_)
    if predict is not None and not 1 <= predict < math.inf:
        raise UserError(f"--predict: a number of tokens, such as 1e9, not {predict:g}")
    if predict is not None and (serve or names != [name]):
        raise UserError("--predict: only for the report of one study, not for a folder or with --serve")
    draws = not serve and any(kind not in reports.TABLES for kind in formats)
    with reports.drawing_pool(len(names)) if draws else nullcontext() as pool:
        chosen = study.overrides(set_)
        studies = [study.load(n).over(axis) for n in names]
        kept = [recorded(one.name, one.scale(scale)) for one in studies]
        sessions = [
            Session(one, scale, runs, chosen, seeds, kept=own, all_seeds=True)
            for one, own in zip(studies, kept, strict=True)
        ]
        if serve:
            reports.serve(Judge(sessions).figures, host, port, _serving)
            _remember(sessions)
        elif names == [name]:
            write_report(sessions[0], out, formats, pool)
            if predict is not None:
                _predict(sessions[0], predict)
        else:
            at = sessions[0].scale
            where = reports.place(out / name, _made_of(sessions[0], name, out), at)
            _write_all(sessions, where, formats, f"{name} at {at}", pool)
    return DONE


def _predict(session: Session, tokens: float) -> None:
    """Print each optimizer's best learning rate for runs of another length."""
    figure = figure_of(session)
    found = predictions(
        [c for panel in figure.panels if panel.key == "optimizer.lr" for c in panel.curves], tokens
    )
    if not found:
        raise UserError(
            f"--predict: {session.study.name} has no optimizer with its best learning rate inside the grid "
            f"at {LEAST} lengths or more; beyond/horizon has, once it has run"
        )
    sys.stdout.write(f"best learning rate with {style.count(tokens)} tokens, by a power law:\n")
    for name, law, rate in found:
        low, high = rate.interval or (rate.value, rate.value)
        value, *ends = (style.number(float(f"{10**end:.2g}")) for end in (rate.value, low, high))
        power, n = law.exponent, len(law.tokens)
        read = f"{style.count(law.tokens[0])} to {style.count(law.tokens[-1])} tokens"
        spread = f" ± {power.half():.2f}" if power.half() is not None else ""
        sys.stdout.write(
            f"  {style.known(name)}: {value} ({ends[0]} to {ends[1]}), tokens^({power.value:.2f}{spread}) "
            f"by {n} lengths of {read}\n"
        )


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
    """Compare two runs folders run by run, such as before and after a change.

    Runs are paired by id; if a change gave them new ids, by config.

    Args:
        before: a runs folder.
        after: another runs folder.
        out: folder for the page; if another comparison's page is there, a folder next to it.
    """
    found = reports.compare(before, after)
    reports.show_comparison(found)
    where = reports.place(out, {"before": relative(before, out), "after": relative(after, out)})
    for path in reports.write_comparison(found, where):
        sys.stdout.write(f"wrote {path}\n")
    return DONE


def write_report(
    session: Session,
    out: Path,
    formats: Sequence[str] = reports.DEFAULT_FORMATS,
    pool: Executor | None = None,
) -> None:
    """Print a study's table and write its report; figures are drawn by the pool or here.

    Raises:
        UserError: no run has ended, or an unknown format.
    """
    (figure,) = Judge([session]).figures()
    if not figure.rows:
        raise UserError(f"{figure.name}: no run has ended in {session.runs}; first: {figure.command}")
    drawn = reports.draw(figure, formats, pool)
    session.remember()
    reports.show(figure)
    made_of = _made_of(session, figure.name, out)
    where = reports.place(out / figure.name, made_of, figure.scale)
    for path in reports.write(figure, where, formats, drawn=drawn):
        sys.stdout.write(f"wrote {path}\n")


def _made_of(session: Session, name: str, out: Path) -> dict[str, Any]:
    """What distinguishes a report from others of its name; paths are relative to the reports' folder."""
    file = session.study.path
    return {
        "study": relative(file, out) if file else name,
        "set": session.overrides,
        "axes": session.study.axes,
        "runs": relative(session.runs, out),
    }


def relative(path: Path | str, start: Path) -> str:
    """Return a path relative to a folder."""
    return os.path.relpath(Path(path).resolve(), start.resolve())


def names_in(name: str) -> list[str]:
    """Return the studies of a folder of studies, or the one with that name."""
    inside = [known for known in study.names() if known.startswith(f"{name.rstrip('/')}/")]
    return inside or [name]


def _serving(address: str) -> None:
    sys.stdout.write(f"serving {address} until Ctrl-C\n")
    sys.stdout.flush()
