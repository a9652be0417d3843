"""``optstudy claims``."""

import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from optstudy import claims as paper
from optstudy import study
from optstudy.archive import Archive
from optstudy.commands.options import RUNS, Json
from optstudy.commands.sweeps import recorded, sweep_of
from optstudy.curves import Placed, group
from optstudy.ending import DONE
from optstudy.labels import cut
from optstudy.report import Sweep
from optstudy.report.effective import recorded as effective_of
from optstudy.report.live import version
from optstudy.session import Session
from optstudy.settling import check_scale


def claims(
    *,
    scale: str = "pico",
    runs: Path = RUNS,
    fresh: bool = False,
    json_: Json = False,
) -> int:
    """Judge every statement of the paper by what has been run: holds, does not hold, or not decided.

    Estimates are in nats per token (decades, for learning rates), with a 95 % interval over seeds.

    Examples:
        optstudy claims

        optstudy claims --scale nano --runs runs --json

    Args:
        scale: the scale of the runs.
        runs: where run folders are; the package's own record is read besides.
        fresh: leave out the package's record.
        json_: for programs.
    """
    check_scale(scale)
    verdicts = paper.judge(Loader(scale, runs, fresh), scale)
    if json_:
        sys.stdout.write(json.dumps({"claims": [v.tree() for v in verdicts]}, indent=1) + "\n")
        return DONE
    Console(file=sys.stdout).print(_table(verdicts))
    said = ", ".join(f"{count} {word}" for word, count in Counter(v.word for v in verdicts).items())
    sys.stdout.write(f"{len(verdicts)} claims at {scale}: {said}\n")
    return DONE


class Loader:
    """Reads the figures that claims look at.

    Args:
        scale: the scale of the runs.
        runs: where run folders are.
        fresh: leave out the package's record.
        planned: studies that are at hand already, by name.
    """

    def __init__(
        self, scale: str, runs: Path, fresh: bool = False, planned: Mapping[str, Session] | None = None
    ) -> None:
        self._scale, self._runs, self._fresh = scale, runs, fresh
        self._planned = planned or {}

    def __call__(self, name: str) -> paper.Figure:
        """Return a study's figure."""
        if name in self._planned:
            return figure_of(self._planned[name])
        kept: Archive = {} if self._fresh else recorded(name, self._scale)
        return figure_of(Session(study.load(name), self._scale, self._runs, kept=kept))


class Judge:
    """What reports of studies are made from, with the verdicts on the paper's statements of their figures.

    Args:
        sessions: of one scale and runs folder; one whose config was overridden is not judged.
    """

    def __init__(self, sessions: Sequence[Session]) -> None:
        self._sessions = sessions
        self._now: list[str] = []
        self._claims: list[list[dict[str, Any]]] = []

    def sweeps(self) -> list[Sweep]:
        """Read the studies again; claims are judged again only when a run of them has ended."""
        made = [sweep_of(session) for session in self._sessions]
        now = [version(sweep) for sweep in made]
        if now != self._now:
            planned = {s.study.name: s for s in self._sessions if not s.overrides and s.seeds is None}
            first = self._sessions[0]
            fresh = not any(session.kept for session in self._sessions)
            evidence = paper.Evidence(Loader(first.scale, first.runs, fresh, planned))
            self._claims = [self._verdicts(session, evidence) for session in self._sessions]
            self._now = now
        return [replace(sweep, claims=claims) for sweep, claims in zip(made, self._claims, strict=True)]

    def _verdicts(self, session: Session, evidence: paper.Evidence) -> list[dict[str, Any]]:
        mine = [] if session.overrides else [c for c in paper.CLAIMS if c.figure == session.study.name]
        return [claim.judge(evidence, session.scale).tree() for claim in mine]


def figure_of(session: Session) -> paper.Figure:
    """Return the finished part of a study under its file's own labels, and which curves lack runs."""
    file, points = session.study.file, session.plan.points
    panels: dict[str, dict[tuple[str, str], Placed]] = {}
    for point in points:
        if (row := session.row(point.id)) is not None:
            title = cut(point.curve)[0]
            panels.setdefault(title, {})[point.id, point.curve] = (row, point.curve, point.x)
    curves = []
    for title, runs in panels.items():
        key = (file.panels[title].x if title in file.panels else None) or file.figure.x
        log = True if key.endswith(".lr") else None
        curves += group(runs.values(), log)
    lacking = {point.curve for point in points if session.row(point.id) is None}
    lacking |= {wait.curve for wait in session.plan.pending}
    rates: list[dict[str, Any]] = []
    if points and all(point.config.training.effective_lr for point in points):
        found = effective_of(sweep_of(session))
        rates = [{"step": at, "effective_lr": by_role} for at, by_role in found]
    return paper.Figure({curve.label: curve for curve in curves}, frozenset(lacking), rates)


def _table(verdicts: Iterable[paper.Verdict]) -> Table:
    table = Table(
        "figure", "claim", "verdict", "estimate", "interval", "seeds", box=None, header_style="bold"
    )
    for verdict in verdicts:
        tree = verdict.tree()
        interval = tree["interval"]
        table.add_row(
            tree["figure"].rpartition("/")[2],
            f"{tree['statement']}\n({verdict.claim.test})",
            f"{verdict.word}\n{verdict.why_not}".rstrip(),
            "" if tree["estimate"] is None else f"{tree['estimate']:+.3f}",
            "" if interval is None else f"{interval[0]:+.3f} to {interval[1]:+.3f}",
            str(tree["seeds"]),
        )
    return table
