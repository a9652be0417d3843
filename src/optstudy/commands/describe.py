"""What ``optstudy show`` says of a study: its runs, and what those to do cost."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optstudy.commands.watch import described, duration
from optstudy.config import RunConfig
from optstudy.launch.slots import slots
from optstudy.results import export
from optstudy.study import cost
from optstudy.study.session import FINISHED, Session

OLDER = "older code"
"""The state of runs whose optimizer has been changed since: they stay, and count for nothing."""


def listed(session: Session) -> list[dict[str, Any]]:
    """Return every run with its id, config, state, and the study whose best it waits for."""
    found: list[dict[str, Any]] = []
    for run_id, point in {point.id: point for point in session.plan.points}.items():
        config = point.config.model_dump(mode="json")
        found.append({"id": run_id, "config": config, "state": session.state(run_id), "depends_on": None})
    for wait in session.plan.pending:
        found.append({"id": None, "config": wait.settings, "state": "waiting", "depends_on": wait.depends_on})
    return found


def describe(session: Session, jobs: int | None, device: str, per_gpu: int) -> None:
    """Say which runs there are and what those left cost."""
    say = sys.stdout.write
    states = session.states()
    for run_id, point in session.runs_known.items():
        say(f"{run_id}  {states[run_id]:8}  {described(point)}\n")
    for wait in session.plan.pending:
        say(f"{'-' * 12}  waiting   {wait.curve}: around the best of {wait.depends_on}\n")
    for row in session.older():
        say(f"{row.id}  {OLDER:8}  {row.optimizer}, lr {row.lr:g}, seed {row.seed}: left out\n")
    say(f"{len(states) + len(session.plan.pending)} runs, ")
    _say_cost(_left(session), jobs, device, per_gpu, session.runs)


def describe_all(sessions: Sequence[Session], jobs: int | None) -> None:
    """Say how many runs each study has, and what all of them, each once, cost."""
    left: dict[str, RunConfig] = {}
    for session in sessions:
        mine = {config.id: config for config in _left(session)}
        new = len(mine.keys() - left.keys())
        left |= mine
        runs = len(session.runs_known) + len(session.plan.pending)
        sys.stdout.write(f"{session.study.name:24} {runs:4} runs, {new:4} to do that no other has\n")
    sys.stdout.write("all: ")
    _say_cost(list(left.values()), jobs, "auto", 1, sessions[0].runs)


def _left(session: Session) -> list[RunConfig]:
    """Configs of the runs to do; what waits for another study's best has a stand-in for it."""
    states = session.states()
    found = [p.config for run_id, p in session.runs_known.items() if states[run_id] not in FINISHED]
    return [*found, *(wait.like for wait in session.plan.pending)]


def _say_cost(todo: Sequence[RunConfig], jobs: int | None, device: str, per_gpu: int, runs: Path) -> None:
    say = sys.stdout.write
    say(f"{len(todo)} to do")
    if not todo:
        say("\n")
        return
    places = slots(todo, jobs, device, per_gpu)
    everything = export.every(runs) if runs.is_dir() else []
    folders = (runs / row.id for row in everything)
    spent = cost.estimate(todo, cost.Speed(everything), len(places), cost.record_bytes(folders))
    say(
        f": {spent.tokens:,} tokens, {spent.flops:.2g} FLOPs, about {duration(spent.seconds)} "
        f"with {len(places)} at a time (from {spent.measured_on}), {spent.disk_bytes / 1e6:,.1f} MB of disk\n"
    )
