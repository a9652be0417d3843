"""The findings of a study: its figure and the verdicts; the Python interface. No torch.
study = optstudy.open_study("paper/fig1", scale="pico", runs="runs")
study.run(jobs=2).claims()
"""

import math
import shlex
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from optstudy import report as reports
from optstudy.claims.evaluation import Evidence
from optstudy.claims.verdict import Verdict
from optstudy.ending import DONE, USERS_MISTAKE
from optstudy.errors import UserError
from optstudy.program import AnyConfig, Program
from optstudy.report.live import version
from optstudy.results import archive
from optstudy.results.curves import Curve, Place, apart, split_label
from optstudy.results.equivalents import Ratio
from optstudy.results.export import plain, table
from optstudy.results.figure import Figure, Metric
from optstudy.results.table import with_worst
from optstudy.study import library as study
from optstudy.study import registered
from optstudy.study.asking import ask
from optstudy.study.plan import PlannedRun
from optstudy.study.session import Session, Shared
from optstudy.study.trainer import scales_of
from optstudy.study.yamlfile import assignment, listed
from optstudy.trials import Trial

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

LENGTH = "training.steps"
"""The override for the length of runs."""
RECORDED = ("paper/", "beyond/")
"""Studies covered by the package's record; all others start from nothing."""


def open_study(
    name: str | Path,
    *,
    scale: str | None = None,
    runs: Path | str = "runs",
    overrides: Mapping[str, Any] | None = None,
    axes: Mapping[str, Sequence[Any]] | None = None,
    seeds: int | None = None,
    fresh: bool = False,
) -> "Findings":
    """Open a study with a runs folder. Nothing runs, and torch is not imported.

    Args:
        name: one of ``optstudy studies``, or your own file, ``mine.yaml``.
        scale: the scale; by default ``pico``, or the file's first.
        runs: the folder that holds the run folders; it need not exist.
        overrides: config values that override the study's, by dotted key.
        axes: values to run instead of the study's, by dotted key.
        seeds: seeds of every point, instead of the study's; if not given, further ones that have run are
            shown.
        fresh: ignore the package's own record, whose runs count as done in the paper's studies.

    Raises:
        UserError: no such study or scale, or a mistake in the study's file.
    """
    chosen = study.load(str(name))
    for key, values in (axes or {}).items():
        if isinstance(values, str) or not isinstance(values, Iterable) or not list(values):
            raise UserError(f"axes: {key}: must be a list of values, such as [1e-3, 1e-2], not {values!r}")
    if axes:
        chosen = replace(chosen, axes={key: list(values) for key, values in axes.items()})
    kept = {} if fresh else recorded(str(name), chosen.scale(scale))
    return Findings(Session(chosen, scale, Path(runs), overrides, seeds, kept=kept, all_seeds=True), fresh)


class Findings:
    """A study at one scale, and the results of its finished runs. Every method reads the runs folder again.

    Args:
        session: the study with its runs folder.
        fresh: the package's record is ignored.
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
        """Run what has no result yet, as ``optstudy run`` does, in a separate process.

        Its output goes to standard output. Ctrl-C stops it, and the next call continues.

        Args:
            jobs: runs at a time; by default one per core, or per GPU.

        Raises:
            UserError: a mistake that can be corrected, in one line; or runs that failed.
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
                errors="replace",
                start_new_session=True,  # Ctrl-C reaches it once, through this process
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

    def ask(self) -> Iterator[Trial]:
        """Yield the study's runs without a result, for your own training loop.

        ``for trial in study.ask(): ...; trial.finish(val_loss=...)``. Points of adaptive axes and further
        seeds follow when results require them. A run that is not finished when the next is requested has
        failed, and is yielded once more. If the loop is left or raises an error, its run is yielded again
        next time. Several processes may iterate at the same time: each run goes to one of them.

        Raises:
            UserError: the study's file has no ``trainer``.
        """
        return ask(self._session)

    def table(self) -> list[dict[str, Any]]:
        """One record per finished run and curve: ``id``, ``curve``, results, the config by dotted key.

        Values are plain, with one type per column, as ``pandas.DataFrame(study.table())`` and
        ``polars.DataFrame(...)`` expect.
        """
        return plain(table(self.data()))

    def curves(self) -> list[Curve]:
        """Every curve, with its points, their runs and the runs' training curves.

        ``curve.points[0].runs[0].history`` holds the rows of a run's metrics.
        """
        return self.data().curves

    def summary(self) -> list[dict[str, Any]]:
        """One record per curve: best loss and setting with their intervals, sensitivity, safe window.

        For another program, ``best_loss`` is the best value of its metric.
        """
        return [_summarised(self.data(), panel, s) for panel in self.data().panels for s in panel.summaries]

    def figure(self) -> "Drawing":
        """The study's figure, drawn by matplotlib.

        Raises:
            UserError: no run has ended.
        """
        drawing: Drawing = reports.drawing(self._some())
        return drawing

    def claims(self) -> list[dict[str, Any]]:
        """The study's claims, each with its verdict.

        Each has ``name``, ``statement``, ``figure``, ``scale``, ``verdict``, ``estimate``, ``sign`` (``<`` or
        ``>`` if the estimate is only a bound), ``unit``, ``interval``, ``seeds``, ``test``, ``why`` (why it
        is not decided) and ``changed`` (after how many runs), as in ``optstudy claims --json``.
        """
        return [dict(claim) for claim in self.data().claims]

    def report(self, folder: Path | str, formats: Iterable[str] = reports.DEFAULT_FORMATS) -> list[Path]:
        """Write the report into a folder, which is created, and return its files.

        Args:
            folder: the report's folder.
            formats: one or several of ``html``, ``pdf``, ``svg``, ``png``, ``md`` and ``tex``.

        Raises:
            UserError: no run has ended, or an unknown format.
        """
        chosen = [formats] if isinstance(formats, str) else formats
        return reports.write(self._some(), Path(folder), chosen)

    def _repr_html_(self) -> str:
        """The HTML that Jupyter shows: the answer, the table and the figure."""
        return reports.fragment(self.data())

    def _some(self) -> Figure:
        found = self.data()
        if not found.rows:
            raise UserError(f"{found.name}: no run has ended in {self._session.runs}; first: {found.command}")
        return found


def _summarised(figure: Figure, panel: Any, summary: Any) -> dict[str, Any]:
    best, setting, sensitivity, safe = summary.best, summary.setting, summary.sensitivity, summary.safe
    low, high = (best and best.interval) or (None, None)
    value = best and best.value
    if figure.metric.maximise and best is not None:
        value, low, high = (None if one is None else -one for one in (best.value, high, low))
    around = (setting and setting.interval) or (None, None)
    return {
        "panel": figure.title_of(summary.curve.panel),
        "curve": summary.curve.label,
        "best_loss": value,
        "best_loss_low": low,
        "best_loss_high": high,
        "seeds": len(summary.tried.rows),
        "axis": panel.key,
        "best_setting": summary.at if best else None,
        "best_setting_low": None if around[0] is None else 10 ** around[0],
        "best_setting_high": None if around[1] is None else 10 ** around[1],
        "fitted": summary.fitted,
        "best_tried": summary.tried.x if best else None,
        "best_tried_loss": (-summary.tried.loss if figure.metric.maximise else summary.tried.loss)
        if best
        else None,
        "sensitivity": sensitivity and sensitivity.value,
        "sensitivity_window": summary.window,
        **_tokens(figure.equivalents.get(summary.curve.label)),
        "safe_low": safe and safe.low,
        "safe_high": safe and safe.high,
        "state_bytes_per_param": summary.state_bytes,
        "step_ms": summary.step_ms,
        "peak_memory_mb": summary.peak_memory_mb,
        "diverged": summary.diverged,
        "runs": summary.runs,
    }


def _tokens(found: Ratio | None) -> dict[str, Any]:
    """A token-equivalent; if it is only a bound, ``token_equivalent_sign`` says in which direction."""
    low, high = (found and found.interval) or (None, None)
    return {
        "token_equivalent": found and found.value,
        "token_equivalent_sign": found and found.sign,
        "token_equivalent_low": low,
        "token_equivalent_high": None if high == math.inf else high,
        "token_equivalent_fitted": found and found.fitted,
    }


def recorded(name: str, scale: str) -> archive.Archive:
    """Return the runs of the package's record that count as done in a study; none if it is not covered."""
    return archive.load(scale) if name.startswith(RECORDED) else {}


def figure_of(session: Session) -> Figure:
    """Return a session's study as a figure, with its runs read again."""
    wanted = session.study.file.tokens
    if wanted is None:
        return _figure_of(session)
    if wanted.source is None:
        return replace(_figure_of(session), lengths="own", against=wanted.reference)
    others = session.shared.sessions
    if wanted.source not in others:
        kept = recorded(wanted.source, session.scale) if session.kept else {}
        rest = {key: value for key, value in session.overrides.items() if key != LENGTH}
        others[wanted.source] = Session(
            study.load(wanted.source),
            session.scale,
            session.runs,
            rest,
            kept=kept,
            shared=session.shared,
        )
    lengths = _figure_of(others[wanted.source])
    return replace(_figure_of(session), lengths=lengths, against=wanted.reference)


def _figure_of(session: Session) -> Figure:
    """The figure without token-equivalents."""
    session.replan()
    file, points = session.study.file, session.plan.points
    rows = with_worst(session.rows())
    titles = _titles(session)
    first: dict[str, str] = {}

    def where(label: str) -> tuple[str, str, str]:
        """Panel, row and curve; panels with the same title are merged under the first one's name."""
        panel, row, curve = split_label(label, file.panels, file.figure.kind == "map")
        return first.setdefault(titles.get(panel, panel), panel), row, curve

    lying: dict[tuple[str, str, str], dict[tuple[str, str], PlannedRun]] = {}
    for point in points:
        lying.setdefault(where(point.curve), {})[point.id, str(point.x)] = point
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
        metric=metric_of(session),
        kind="effective" if all(_effective(p.config) for p in points) else file.figure.kind,
        x=file.figure.x,
        over=file.figure.over,
        costs=file.figure.costs,
        axes={title: panel.x for title, panel in file.panels.items() if panel.x},
        titles=titles,
        baselines=frozenset(_included(session.study)),
        waiting=frozenset((panel, curve) for panel, _, curve in waiting),
        noise=("", {}) if file.noise is None else (file.noise.study, file.noise.curves),
        further=session.further,
        missing=len({point.id for point in points}) - len(rows) + len(session.plan.pending),
        runs=session.runs,
        recorded={row.id: session.kept[row.id].metrics for row in rows if row.id in session.kept},
        command=_command(session),
    )


def metric_of(session: Session) -> Metric:
    """Return the metric of a session's study, as reports name it."""
    trainer = session.study.file.trainer
    if trainer is None:
        return Metric()
    return Metric.of(trainer.metric.name, trainer.maximise, (row.loss for row in session.rows()))


def _effective(config: AnyConfig) -> bool:
    return not isinstance(config, Program) and config.training.effective_lr


class Loader:
    """Reads the figures that claims refer to.

    Args:
        scale: the scale of the runs; studies without it use their default.
        runs: the folder that holds the run folders.
        fresh: ignore the package's record.
        overrides: config values of the runs that override the studies', by dotted key.
    """

    def __init__(
        self,
        scale: str | None,
        runs: Path,
        fresh: bool = False,
        overrides: Mapping[str, Any] | None = None,
        shared: Shared | None = None,
    ) -> None:
        self._scale, self._runs, self._fresh, self._overrides = scale, runs, fresh, overrides
        self._planned: dict[str, Session] = {}
        self._shared = shared or Shared()

    def knowing(self, sessions: Iterable[Session]) -> Self:
        """Reuse sessions that exist already; returns self."""
        self._planned |= {session.study.name: session for session in sessions}
        return self

    def __call__(self, name: str) -> Figure:
        """Return a study's figure."""
        planned = self._planned.get(name)
        return figure_of(planned if planned is not None else self.session(study.load(name)))

    def session(self, chosen: study.Study) -> Session:
        """Return a session of a study in the runs folder."""
        scale = chosen.scale(self._scale if self._scale in scales_of(chosen.file) else None)
        kept: archive.Archive = {} if self._fresh else recorded(chosen.name, scale)
        decides = any(session.decides for session in self._planned.values())
        return Session(
            chosen, scale, self._runs, self._overrides, kept=kept, decides=decides, shared=self._shared
        )


class Judge:
    """Figures of studies with the verdicts on their claims.

    Args:
        sessions: sessions with the same scale, runs folder and overrides.
    """

    def __init__(self, sessions: Sequence[Session]) -> None:
        self._sessions = sessions
        for session in sessions:
            session.shared = sessions[0].shared
        self._now: list[str] = []
        self._claims: list[list[dict[str, Any]]] = []

    def figures(self) -> list[Figure]:
        """Read the studies again; claims are only judged again if one of their runs has ended."""
        made = [figure_of(session) for session in self._sessions]
        now = [version(figure) for figure in made]
        if now != self._now:
            evidence = evidence_of(self._sessions)
            self._claims = [[one.tree() for one in _judged(s, evidence)] for s in self._sessions]
            self._now = now
        return [replace(figure, claims=claims) for figure, claims in zip(made, self._claims, strict=True)]


def evidence_of(sessions: Sequence[Session]) -> Evidence:
    """The evidence for the claims of some studies.

    Args:
        sessions: sessions with the same scale, runs folder and overrides.
    """
    first, fresh = sessions[0], not any(session.kept for session in sessions)
    own = [session.without_shown() for session in sessions]
    return Evidence(Loader(first.scale, first.runs, fresh, first.overrides, first.shared).knowing(own))


def verdicts(
    scale: str | None,
    runs: Path,
    fresh: bool = False,
    names: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
) -> list[Verdict]:
    """Return the verdict on every claim of some studies.

    Args:
        scale: the scale of the runs; None: each study's default.
        runs: the folder that holds the run folders.
        fresh: ignore the package's record.
        names: the studies or files; by default, all studies in the package.
        overrides: config values of the runs that override the studies', by dotted key.

    Raises:
        UserError: an unknown scale or study.
    """
    loaded = [study.load(name) for name in names or study.names()]
    for one in loaded:
        one.scale(scale)
    load = Loader(scale, runs, fresh, overrides)
    sessions = [load.session(one) for one in loaded if one.claims]
    evidence = Evidence(load.knowing(sessions))
    return [verdict for session in sessions for verdict in _judged(session, evidence)]


def _judged(session: Session, evidence: Evidence) -> list[Verdict]:
    claims = session.study.claims
    changed = registered.changes(session) if claims else {}
    if session.decides:  # seeds added to other studies' curves count only for its claims
        evidence = evidence_of([session])
    return [evidence.judge(one, session.scale, changed.get(one.name, ""), session.decides) for one in claims]


def _apart(points: Sequence[PlannedRun]) -> tuple[str, ...]:
    """Config keys that split a curve's planned runs if several of one seed have the same setting."""
    if len({(str(point.x), point.config.seed) for point in points}) == len(points):
        return ()
    return apart((point.x, point.config.model_dump(mode="json")) for point in points)


def _titles(session: Session) -> dict[str, str]:
    """Titles of the panels without the paper's scale, which was not run: at pico, plain "150m" is "pico"."""
    panels = session.study.file.panels
    if session.scale == "paper":
        return {title: title for title in panels}
    titles = {}
    for title, panel in panels.items():
        titles[title] = session.scale if title == panel.scale else title.removeprefix(f"{panel.scale}, ")
    drawn = {titles.get(split_label(p.curve, panels)[0], "") for p in session.plan.points}
    return dict.fromkeys(panels, "") if drawn <= {session.scale, ""} else titles


def _included(chosen: study.Study) -> list[tuple[str, str]]:
    """Panel and name of other studies' curves on this study's figure; an empty panel: in all panels."""
    file = chosen.file
    found = [("", curve) for curves in file.include.values() for curve in curves]
    for title, panel in file.panels.items():
        found += [(title, curve) for curves in panel.include.values() for curve in curves]
    return found


def _arguments(session: Session) -> list[str]:
    """The command-line arguments that run a session's study as it is."""
    words = ["run", session.study.path or session.study.name]
    words += ["--scale", session.scale] if session.scale else []
    for key, values in session.study.axes.items():
        words += ["--axis", f"{key}={listed(values)}"]
    for key, value in session.overrides.items():
        words += ["--set", f"{key}={assignment(value)}"]
    if session.seeds is not None:
        words += ["--seeds", str(session.seeds)]
    return words


def _command(session: Session) -> str:
    return shlex.join(["optstudy", *_arguments(session)])
