"""What a study's runs say: its figure and the verdicts on it; the way in from Python. No torch.

study = optstudy.open_study("paper/fig1", scale="pico", runs="runs")
study.run(jobs=2).claims()
"""

import json
import math
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from optstudy import claims as paper
from optstudy import report as reports
from optstudy.ending import DONE, USERS_MISTAKE
from optstudy.errors import UserError
from optstudy.report.live import version
from optstudy.results import archive
from optstudy.results.curves import Curve, Place, apart, placed
from optstudy.results.export import plain, table
from optstudy.results.figure import Figure
from optstudy.results.tokens import Ratio
from optstudy.scales import check_scale
from optstudy.study import library as study
from optstudy.study.plan import Point
from optstudy.study.session import Session

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

LENGTH = "training.steps"
"""The override at which the paper's statements are judged too: they are of runs of some length."""
RECORDED = ("paper/", "beyond/")
"""Studies that the package's record holds; any other runs everything itself."""


def open_study(
    name: str,
    *,
    scale: str = "pico",
    runs: Path | str = "runs",
    overrides: Mapping[str, Any] | None = None,
    seeds: int | None = None,
    fresh: bool = False,
) -> "Findings":
    """Open a study over a runs folder. Nothing runs, and torch is not imported.

    Args:
        name: one of ``optstudy studies``, or a file of your own, ``mine.yaml``.
        scale: the scale it runs at.
        runs: where run folders are; it need not exist.
        overrides: config values over the study's, by dotted key.
        seeds: seeds of every point, instead of the study's.
        fresh: leave out the package's own record, whose runs count as done in the paper's studies.

    Raises:
        UserError: no such study or scale, or a mistake in the study's file.
    """
    if seeds is not None and seeds < 1:
        raise UserError(f"seeds: input should be at least 1, not {seeds}")
    kept = {} if fresh else recorded(name, scale)
    return Findings(Session(study.load(name), scale, Path(runs), overrides, seeds, kept=kept), fresh)


class Findings:
    """A study at one scale, and what its finished runs say. Every method reads the runs folder again.

    Args:
        session: the study over its runs folder.
        fresh: the package's record was left out.
    """

    def __init__(self, session: Session, fresh: bool = False) -> None:
        self._session, self._fresh = session, fresh
        self._judge = Judge([session])

    def __repr__(self) -> str:
        session = self._session
        done = len(self.data().rows)
        return f"<study {session.study.name} at {session.scale}: {done} finished runs in {session.runs}>"

    def data(self) -> Figure:
        """The study's figure as data: panels, curves, points and runs."""
        (found,) = self._judge.figures()
        return found

    def run(self, jobs: int | None = None) -> Self:
        """Run what has no result yet, as ``optstudy run`` does, in a process of its own.

        What it says goes to standard output. Ctrl-C stops it, and the next call continues.

        Args:
            jobs: runs at a time; one per core, or per GPU, by default.

        Raises:
            UserError: a mistake that can be mended, in one line; or runs that failed.
        """
        session = self._session
        words = [sys.executable, "-m", "optstudy", *_arguments(session), "--runs", str(session.runs)]
        words += ["--fresh"] * self._fresh + ([] if jobs is None else ["--jobs", str(jobs)])
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile("w+") as errors:
            process = subprocess.Popen(
                [*words, "--out", folder],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,  # Ctrl-C reaches it once, by way of this process
            )
            with process:
                assert process.stdout is not None
                try:
                    for line in process.stdout:
                        if not line.startswith("wrote "):
                            sys.stdout.write(line)
                except KeyboardInterrupt:
                    process.send_signal(signal.SIGINT)
                    process.wait()
                    raise
            errors.seek(0)
            said = errors.read().strip().splitlines() or ["no reason given"]
        if process.returncode == USERS_MISTAKE:
            raise UserError(said[-1].removeprefix("optstudy: "))
        if process.returncode != DONE:
            raise UserError(f"{shlex.join(words[2:])} ended with {process.returncode}: {said[-1]}")
        return self

    def table(self) -> list[dict[str, Any]]:
        """A record per finished run and curve: ``id``, ``curve``, results, the config by dotted key.

        Plain values, one type a column: ``pandas.DataFrame(study.table())`` and ``polars.DataFrame(...)``
        take it.
        """
        return plain(table(self.data()))

    def curves(self) -> list[Curve]:
        """Every curve, with its points, their runs and the runs' training curves.

        ``curve.points[0].runs[0].history`` are the rows of a run's metrics.
        """
        return self.data().curves

    def summary(self) -> list[dict[str, Any]]:
        """A record per curve: best loss and setting with their intervals, sensitivity, safe window."""
        return [_summarised(self.data(), panel, s) for panel in self.data().panels for s in panel.summaries]

    def figure(self) -> "Drawing":
        """The study's figure, drawn by matplotlib.

        Raises:
            UserError: no run has ended.
        """
        drawing: Drawing = reports.drawing(self._some())
        return drawing

    def claims(self) -> list[dict[str, Any]]:
        """The paper's statements on this study, each with its verdict; none for other studies.

        Each has ``name``, ``statement``, ``figure``, ``scale``, ``verdict``, ``estimate``, ``interval`` and
        ``seeds``, as ``optstudy claims --json`` has them.
        """
        return [dict(claim) for claim in self.data().claims]

    def report(self, folder: Path | str, formats: Iterable[str] = reports.DEFAULT_FORMATS) -> list[Path]:
        """Write the report into a folder, which is made, and return its files.

        Args:
            folder: where.
            formats: of ``html``, ``pdf``, ``svg``, ``png``, ``md`` and ``tex``.

        Raises:
            UserError: no run has ended, or an unknown format.
        """
        return reports.write(self._some(), Path(folder), formats)

    def _repr_html_(self) -> str:
        """What Jupyter shows: the answer, the table and the figure."""
        return reports.fragment(self.data())

    def _some(self) -> Figure:
        found = self.data()
        if not found.rows:
            raise UserError(f"{found.name}: no run has ended in {self._session.runs}; first: {found.command}")
        return found


def _summarised(figure: Figure, panel: Any, summary: Any) -> dict[str, Any]:
    best, setting, sensitivity, safe = summary.best, summary.setting, summary.sensitivity, summary.safe
    low, high = (best and best.interval) or (None, None)
    around = (setting and setting.interval) or (None, None)
    return {
        "panel": figure.title_of(summary.curve.panel),
        "curve": summary.curve.label,
        "best_loss": best and best.value,
        "best_loss_low": low,
        "best_loss_high": high,
        "seeds": len(summary.tried.rows),
        "axis": panel.key,
        "best_setting": summary.at if best else None,
        "best_setting_low": None if around[0] is None else 10 ** around[0],
        "best_setting_high": None if around[1] is None else 10 ** around[1],
        "fitted": summary.fitted,
        "best_tried": summary.tried.x if best else None,
        "best_tried_loss": summary.tried.loss if best else None,
        "sensitivity": sensitivity and sensitivity.value,
        "sensitivity_window": summary.window,
        **_tokens(figure.equivalents.get(summary.curve.label)),
        "safe_low": safe and safe.low,
        "safe_high": safe and safe.high,
        "state_bytes_per_param": summary.state_bytes,
        "step_ms": summary.step_ms,
        "diverged": summary.diverged,
        "runs": summary.runs,
    }


def _tokens(found: Ratio | None) -> dict[str, Any]:
    """A token-equivalent; where the value is only a bound, ``token_equivalent_sign`` says which."""
    low, high = (found and found.interval) or (None, None)
    return {
        "token_equivalent": found and found.value,
        "token_equivalent_sign": found and found.sign,
        "token_equivalent_low": low,
        "token_equivalent_high": None if high == math.inf else high,
        "token_equivalent_fitted": found and found.fitted,
    }


def recorded(name: str, scale: str) -> archive.Archive:
    """Return the runs of the package's record that count as done in a study: one that the record is of."""
    return archive.load(scale) if name.startswith(RECORDED) else {}


def figure_of(session: Session) -> Figure:
    """Return a session's study as a figure, its runs read again."""
    wanted = session.study.file.tokens
    if wanted is None:
        return _figure_of(session)
    if wanted.source is None:
        return replace(_figure_of(session), lengths="own", against=wanted.reference)
    kept = recorded(wanted.source, session.scale) if session.kept else {}
    rest = {key: value for key, value in session.overrides.items() if key != LENGTH}
    other = Session(study.load(wanted.source), session.scale, session.runs, rest, kept=kept)
    return replace(_figure_of(session), lengths=_figure_of(other), against=wanted.reference)


def _figure_of(session: Session) -> Figure:
    """The same without token-equivalents."""
    session.replan()
    file, points = session.study.file, session.plan.points
    rows = session.rows()
    titles = _titles(session)
    first: dict[str, str] = {}

    def where(label: str) -> tuple[str, str, str]:
        """Panel, row and curve; panels of one title are one, and have the first one's name."""
        panel, row, curve = placed(label, file.panels, file.figure.kind == "map")
        return first.setdefault(titles.get(panel, panel), panel), row, curve

    lying: dict[tuple[str, str, str], dict[str, Point]] = {}
    for point in points:
        lying.setdefault(where(point.curve), {})[point.id] = point
    places = [
        Place(point.id, curve, point.x, panel, row, apart=keys)
        for (panel, row, curve), found in lying.items()
        for keys in [_apart(list(found.values()))]
        for point in found.values()
    ]
    waiting = [where(wait.curve) for wait in session.plan.pending]
    return Figure(
        name=session.study.name,
        title=file.title,
        asks=file.asks,
        scale=session.scale,
        rows=rows,
        places=places,
        kind="effective" if all(p.config.training.effective_lr for p in points) else file.figure.kind,
        x=file.figure.x,
        over=file.figure.over,
        axes={title: panel.x for title, panel in file.panels.items() if panel.x},
        titles=titles,
        baselines=frozenset(_included(session.study)),
        waiting=frozenset((panel, curve) for panel, _, curve in waiting),
        missing=len({point.id for point in points}) - len(rows) + len(session.plan.pending),
        runs=session.runs,
        recorded={row.id: session.kept[row.id].metrics for row in rows if row.id in session.kept},
        command=_command(session),
    )


class Loader:
    """Reads the figures that claims look at.

    Args:
        scale: the scale of the runs.
        runs: where run folders are.
        fresh: leave out the package's record.
        planned: studies that are at hand already, by name.
        overrides: config values over the studies', by dotted key.
    """

    def __init__(
        self,
        scale: str,
        runs: Path,
        fresh: bool = False,
        planned: Mapping[str, Session] | None = None,
        overrides: Mapping[str, Any] | None = None,
    ) -> None:
        self._scale, self._runs, self._fresh = scale, runs, fresh
        self._planned, self._overrides = planned or {}, overrides

    def __call__(self, name: str) -> Figure:
        """Return a study's figure."""
        if name in self._planned:
            return figure_of(self._planned[name])
        kept: archive.Archive = {} if self._fresh else recorded(name, self._scale)
        return figure_of(Session(study.load(name), self._scale, self._runs, self._overrides, kept=kept))


class Judge:
    """Studies' figures with the verdicts on the paper's statements of them.

    Args:
        sessions: of one scale, runs folder and overrides; only where these are of :data:`LENGTH` alone, or
            none, is there a verdict.
    """

    def __init__(self, sessions: Sequence[Session]) -> None:
        self._sessions = sessions
        self._now: list[str] = []
        self._claims: list[list[dict[str, Any]]] = []

    def figures(self) -> list[Figure]:
        """Read the studies again; claims are judged again only when a run of them has ended."""
        made = [figure_of(session) for session in self._sessions]
        now = [version(figure) for figure in made]
        if now != self._now:
            first = self._sessions[0]
            alike = [s for s in self._sessions if s.overrides == first.overrides and s.seeds is None]
            planned = {s.study.name: s for s in alike}
            fresh = not any(session.kept for session in self._sessions)
            evidence = paper.Evidence(Loader(first.scale, first.runs, fresh, planned, first.overrides))
            self._claims = [self._verdicts(session, evidence) for session in self._sessions]
            self._now = now
        return [replace(figure, claims=claims) for figure, claims in zip(made, self._claims, strict=True)]

    def _verdicts(self, session: Session, evidence: paper.Evidence) -> list[dict[str, Any]]:
        mine = (
            []
            if session.overrides.keys() - {LENGTH}
            else [c for c in paper.CLAIMS if c.figure == session.study.name]
        )
        return [claim.judge(evidence, session.scale).tree() for claim in mine]


def verdicts(
    scale: str, runs: Path, fresh: bool = False, overrides: Mapping[str, Any] | None = None
) -> list[paper.Verdict]:
    """Return the verdict on every statement of the paper.

    Args:
        scale: the scale of the runs.
        runs: where run folders are.
        fresh: leave out the package's record.
        overrides: the length of the runs, :data:`LENGTH`, where it is not the scale's.

    Raises:
        UserError: an unknown scale, or other overrides.
    """
    check_scale(scale)
    if others := (overrides or {}).keys() - {LENGTH}:
        raise UserError(f"--set: statements are judged at another {LENGTH}, not at another {min(others)}")
    return paper.judge(Loader(scale, runs, fresh, overrides=overrides), scale)


def _apart(points: Sequence[Point]) -> tuple[str, ...]:
    """Config keys that part a curve's planned runs where several of one seed have one setting."""
    if len({(str(point.x), point.config.seed) for point in points}) == len(points):
        return ()
    return apart((point.x, point.config.model_dump(mode="json")) for point in points)


def _titles(session: Session) -> dict[str, str]:
    """Titles of the panels without the paper's scale, which did not run; plain "150m" is "pico" at pico."""
    panels = session.study.file.panels
    if session.scale == "paper":
        return {title: title for title in panels}
    titles = {}
    for title, panel in panels.items():
        titles[title] = session.scale if title == panel.scale else title.removeprefix(f"{panel.scale}, ")
    drawn = {titles.get(placed(p.curve, panels)[0], "") for p in session.plan.points}
    return dict.fromkeys(panels, "") if drawn <= {session.scale, ""} else titles


def _included(chosen: study.Study) -> list[tuple[str, str]]:
    """Panels and names that the curves of other studies have on this one's figure; no panel: in all."""
    file = chosen.file
    found = [("", curve) for curves in file.include.values() for curve in curves]
    for title, panel in file.panels.items():
        found += [(title, curve) for curves in panel.include.values() for curve in curves]
    return found


def _arguments(session: Session) -> list[str]:
    """The command line that runs a session's study as it is."""
    words = ["run", session.study.path or session.study.name, "--scale", session.scale]
    for key, value in session.overrides.items():
        words += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    if session.seeds is not None:
        words += ["--seeds", str(session.seeds)]
    return words


def _command(session: Session) -> str:
    return shlex.join(["optstudy", *_arguments(session)])
