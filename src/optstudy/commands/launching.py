"""The launcher of a command and its options. Each launcher is imported only when it is used."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from optstudy.commands.options import belong, known_device
from optstudy.config import merge
from optstudy.errors import UserError, nearest, shown, validate
from optstudy.launch.events import OnEvent
from optstudy.launch.options import Slurm
from optstudy.launch.slots import slots, want_gpu
from optstudy.program import gpus_of, threads_of
from optstudy.study import library as study
from optstudy.study.session import FINISHED, Session

MOST = 10_000
"""Maximum number of workers, threads or rounds."""
LAUNCHERS = ("local", "slurm", "ray")
PRELOADED = ("optstudy.commands.training", "optstudy.training.train", "torch._dynamo")
"""Modules that local workers start with; torch.optim needs 1.2 s for torch._dynamo on first use."""


@dataclass(frozen=True)
class Launching:
    """Starts a study's runs.

    Args:
        session: the study.
        launcher: a name of :data:`LAUNCHERS`.
        device: as for ``optstudy train``.
        jobs: runs at a time; None: as many as fit.
        per_gpu: runs at a time on one GPU.
        slurm: ``key=value`` options that override the study file's ``slurm``.

    Raises:
        UserError: one of them is not allowed.
    """

    session: Session
    launcher: str
    device: str
    jobs: int | None
    per_gpu: int
    slurm: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.launcher not in LAUNCHERS:
            hint = nearest(self.launcher, LAUNCHERS)
            raise UserError(f"--launcher: unknown launcher {self.launcher!r}{hint}")
        known_device(self.device)
        at_least_one("--jobs", self.jobs)
        at_least_one("--per-gpu", self.per_gpu)
        self.submission()
        belong("--launcher slurm", self.launcher == "slurm", slurm=self.slurm)
        if self.launcher == "slurm" and self.per_gpu > 1:
            raise UserError(
                "--per-gpu: Slurm hands out GPUs: ask for a part of one, as by --slurm gres=shard:1"
            )

    def slots(self) -> list[str]:
        """Workers on this machine, see :func:`optstudy.launch.slots.slots`."""
        configs = (point.config for point in self.session.runs_known.values())
        return slots(configs, self.jobs, self.device, self.per_gpu)

    @property
    def threads(self) -> int:
        """CPU threads of each worker."""
        known = self.session.runs_known.values()
        return max((threads_of(point.config) for point in known), default=1)

    def submission(self) -> Slurm:
        """Slurm options: the study file's, overridden by ``--slurm`` and ``--jobs``."""
        chosen = study.overrides(self.slurm, "--slurm", "partition=gpu")
        if self.jobs is not None:
            chosen = {"at_once": self.jobs, **chosen}
        return validate(Slurm, merge(self.session.study.file.slurm.model_dump(), chosen), "--slurm")

    def start(self, on_event: OnEvent) -> list[Path]:
        """Run everything until it has results; return the runs that were set aside."""
        session, threads, device = self.session, self.threads, self.device
        if self.launcher == "slurm":
            from optstudy.launch import slurm

            return slurm.launch(session.todo, self.submission(), threads, device, on_event)
        if self.launcher == "ray":
            from optstudy.launch import ray

            configs = [point.config for point in session.runs_known.values()]
            each = max(map(gpus_of, configs), default=1)
            share = each / self.per_gpu if want_gpu(configs, device) else 0.0
            return ray.launch(session.todo, threads, device, on_event, self.jobs, share)
        from optstudy import cli
        from optstudy.launch import local

        own = session.study.file.trainer is None
        preloaded = PRELOADED if own else PRELOADED[:1]
        return local.launch(session.todo, self.slots(), threads, cli.run, preloaded, device, on_event)

    def script(self) -> str:
        """The first batch script that would be submitted to Slurm; empty if there is none."""
        states = self.session.states().items()
        todo = [self.session.runs / run_id for run_id, state in states if state not in FINISHED]
        if self.launcher != "slurm" or not todo:
            return ""
        from optstudy.launch import slurm

        options = self.submission()
        return slurm.script(todo[: options.array_size], options, self.threads, self.device)


def at_least_one(option: str, value: int | None) -> None:
    """Refuse a count below 1 or above the maximum."""
    if value is not None and value < 1:
        raise UserError(f"{option}: input should be at least 1, not {shown(value)}")
    if value is not None and value > MOST:
        raise UserError(f"{option}: input should be at most {MOST:,}, not {shown(value)}")
