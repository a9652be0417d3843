"""What the runs of a study say: its figure, and the verdicts on its claims. No torch."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from optstudy.claims.evaluation import Evidence
from optstudy.claims.verdict import Verdict
from optstudy.program import AnyConfig, Program
from optstudy.report.live import version
from optstudy.results import archive
from optstudy.results.curves import Place, apart, split_label
from optstudy.results.figure import Figure, Metric
from optstudy.results.table import with_worst
from optstudy.study import library as study
from optstudy.study import registered
from optstudy.study.plan import PlannedRun
from optstudy.study.session import Session, Shared
from optstudy.study.trainer import scales_of
from optstudy.study.yamlfile import assignment, listed

LENGTH = "training.steps"
"""The override for the length of runs."""
RECORDED = ("paper/", "beyond/")
"""Studies covered by the package's record; all others start from nothing."""


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

    placed: dict[tuple[str, str, str], dict[tuple[str, str], PlannedRun]] = {}
    for point in points:
        placed.setdefault(where(point.curve), {})[point.id, str(point.x)] = point
    places = []
    for (panel, row, curve), found in placed.items():
        keys = _apart(list(found.values()))
        places += [Place(point.id, curve, point.x, panel, row, apart=keys) for point in found.values()]
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


def arguments(session: Session) -> list[str]:
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
    return shlex.join(["optstudy", *arguments(session)])
