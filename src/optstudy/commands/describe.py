"""``optstudy show``: lists a study's runs, and the cost of those to do."""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from optstudy.commands.watch import described, duration
from optstudy.errors import UserError
from optstudy.launch.slots import gpus, slots, want_gpu
from optstudy.program import AnyConfig, Program
from optstudy.record import read_json
from optstudy.results import export
from optstudy.sizes import size_of
from optstudy.study import cost
from optstudy.study.session import FINISHED, Session

OLDER = "older code"
"""State of runs whose optimizer has changed since: they are kept but not used."""


def listed(session: Session) -> list[dict[str, Any]]:
    """Return every run with its id, config, state, and the study for whose best it waits."""
    found: list[dict[str, Any]] = []
    for run_id, point in {point.id: point for point in session.plan.points}.items():
        config = point.config.model_dump(mode="json")
        found.append({"id": run_id, "config": config, "state": session.state(run_id), "depends_on": None})
    for wait in session.plan.pending:
        found.append({"id": None, "config": wait.settings, "state": "waiting", "depends_on": wait.depends_on})
    return found


def describe(session: Session, jobs: int | None, device: str, per_gpu: int) -> None:
    """Print the runs and the cost of those left."""
    say = sys.stdout.write
    states = session.states()
    for run_id, point in session.runs_known.items():
        say(f"{run_id}  {states[run_id]:8}  {described(point)}\n")
    for wait in session.plan.pending:
        say(f"{'-' * 12}  waiting   {wait.curve}: around the best of {wait.depends_on}\n")
    for row in session.older():
        about = f"{row.optimizer}, lr {row.lr:g}, " if row.lr is not None else ""
        say(f"{row.id}  {OLDER:8}  {about}seed {row.seed}: left out\n")
    for line in _sizes([point.config for point in session.runs_known.values()]):
        say(f"{line}\n")
    say(f"{len(states) + len(session.plan.pending)} runs, ")
    _say_cost(_left(session), jobs, device, per_gpu, session.runs)


def _sizes(configs: Iterable[AnyConfig]) -> list[str]:
    """Say how large models are whose size no scale says, and how many tokens a parameter gets."""
    found: dict[str, None] = {}
    for config in configs:
        if isinstance(config, Program) or not config.model.imported:
            continue
        if (size := size_of(config)) is None:
            found[f"{config.model.name}: size not counted; optstudy run --dry-run counts it"] = None
        else:
            each = config.tokens / size.parameters
            found[f"{config.model.name}: {size.parameters:,} parameters, {each:.3g} tokens each"] = None
    return list(found)


def describe_all(sessions: Sequence[Session], jobs: int | None, device: str, per_gpu: int) -> None:
    """Print the number of runs of each study, and the cost of all of them, each run counted once."""
    left: dict[str, AnyConfig] = {}
    for session in sessions:
        mine = {config.id: config for config in _left(session)}
        new = len(mine.keys() - left.keys())
        left |= mine
        runs = len(session.runs_known) + len(session.plan.pending)
        sys.stdout.write(f"{session.study.name:24} {runs:4} runs, {new:4} to do that no other has\n")
    sys.stdout.write("all: ")
    _say_cost(list(left.values()), jobs, device, per_gpu, sessions[0].runs)


def _left(session: Session) -> list[AnyConfig]:
    """Configs of the runs to do; a run that waits for another study's best has a sample config."""
    states = session.states()
    found = [p.config for run_id, p in session.runs_known.items() if states[run_id] not in FINISHED]
    return [*found, *(wait.like for wait in session.plan.pending)]


def _say_cost(todo: Sequence[AnyConfig], jobs: int | None, device: str, per_gpu: int, runs: Path) -> None:
    say = sys.stdout.write
    say(f"{len(todo)} to do")
    if not todo:
        say("\n")
        return
    places = slots(todo, jobs, device, per_gpu)
    for_gpu = want_gpu(todo, device)
    on_gpu = for_gpu and (device == "cuda" or bool(gpus()))
    everything = export.every(runs) if runs.is_dir() else []
    timed = [row for row in everything if _on_gpu(runs / row.id) == on_gpu]
    folders = (runs / row.id for row in everything)
    spent = cost.estimate(todo, cost.Speed(timed, for_gpu), len(places), cost.record_bytes(folders))
    own = not any(isinstance(config, Program) for config in todo)
    flops = "FLOPs not counted" if spent.flops is None else f"{spent.flops:.2g} FLOPs"
    work = f" {spent.tokens:,} tokens, {flops}," if own else ""
    time = f"hours unknown: {spent.measured_on}"
    if spent.seconds is not None:
        time = f"about {duration(spent.seconds)} with {len(places)} at a time (from {spent.measured_on})"
    say(f":{work} {time}, {spent.disk_bytes / 1e6:,.1f} MB of disk\n")


def _on_gpu(folder: Path) -> bool:
    """Whether a run was trained on a GPU; a run with an unreadable record counts as a CPU run.

    For another program, only the GPUs that it was given are known.
    """
    try:
        env = read_json(folder / "env.json") or {}
    except UserError:
        return False
    return bool(env.get("gpus")) or env.get("device", "cpu") != "cpu"
