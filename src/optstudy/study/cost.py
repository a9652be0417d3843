"""What runs cost before they are run: tokens, FLOPs, time from measured speed, disk. Imports no torch."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from pydantic import ValidationError

from optstudy.config import RunConfig, forward_flops, parameter_count
from optstudy.program import AnyConfig, Program
from optstudy.record import ended
from optstudy.results.table import Row

EFFICIENCY = 0.6
"""Share of one core's matrix products that a run reaches, used only while no run has been timed: 0.8 at pico
on a quiet machine and 0.4 on a busy one, 0.6 at nano, 0.7 at micro (AVX-512)."""
PROBED = "one CPU core's matrix products, an estimate to a factor of about two until a run has been timed"
STATE_BYTES = 8
"""Optimizer state per parameter that is reckoned with: two float32 moments."""


@dataclass(frozen=True)
class Cost:
    """What a list of runs costs."""

    runs: int
    tokens: int
    """Of optstudy's own trainer, as ``flops``; what another program will read is not known."""
    flops: float
    """Of matrix products, training and validation."""
    seconds: float | None
    """On this machine, with all its slots busy; None for a program of which no run has ended."""
    measured_on: str
    """What the speed was taken from."""
    disk_bytes: int
    """Records of all runs, and the checkpoints of those that run at a time."""


def flops(config: RunConfig) -> float:
    """Floating-point operations of a run's matrix products, training and validation."""
    length = config.data.sequence_length
    validated = config.validation.sequences * length * (config.validation.points + 1)
    return float(forward_flops(config.model, length)) * (3 * config.tokens + validated)


class Speed:
    """Seconds that a run takes in one slot, from finished runs, or from a matrix product timed here.

    Args:
        rows: finished runs on this machine, of any study.
    """

    def __init__(self, rows: Iterable[Row]) -> None:
        self._exact: dict[str, list[float]] = {}
        self._shape: dict[str, list[float]] = {}
        self._flops: list[float] = []
        for row in rows:
            if row.state != "done" or row.seconds <= 0:
                continue
            config = row.config
            if row.reported is not None:
                self._exact.setdefault(_program(config["trainer"]), []).append(row.seconds)
                continue
            try:
                done = flops(RunConfig.model_validate(config))
            except ValidationError:  # of another version of the program
                continue
            shape = _shape(config["model"], config["data"]["sequence_length"], config["training"])
            per_token = row.seconds / max(1, row.tokens or 0)
            self._exact.setdefault(f"{shape} {row.optimizer}", []).append(per_token)
            self._shape.setdefault(shape, []).append(per_token)
            self._flops.append(done / row.seconds)
        self._probed: float | None = None

    def seconds(self, config: AnyConfig) -> tuple[float | None, str]:
        """Seconds of the run in one slot, and what that rests on; None where nothing is known."""
        if isinstance(config, Program):
            known = self._exact.get(_program(config.trainer.model_dump()))
            return median(known) if known else None, "finished runs of this program"
        shape = _shape(dict(config.model), config.data.sequence_length, dict(config.training))
        for table, key in ((self._exact, f"{shape} {config.optimizer.name}"), (self._shape, shape)):
            if key in table:
                return median(table[key]) * config.tokens, "runs of this size on this machine"
        if self._flops:
            return flops(config) / median(self._flops), "runs of another size on this machine"
        if self._probed is None:
            self._probed = core_flops_per_s() * EFFICIENCY
        return flops(config) / self._probed, PROBED


def estimate(configs: Sequence[AnyConfig], speed: Speed, slots: int, record_bytes: int) -> Cost:
    """Add up what ``configs`` cost with ``slots`` of them running at a time.

    Args:
        configs: the runs to do.
        speed: of this machine.
        slots: workers.
        record_bytes: what a finished run's folder takes.
    """
    timed = [speed.seconds(config) for config in configs]
    seconds = [one for one, _ in timed if one is not None]
    own = [config for config in configs if isinstance(config, RunConfig)]
    weights = max((parameter_count(config.model) for config in own), default=0)
    took = max(sum(seconds) / slots, max(seconds, default=0.0))
    return Cost(
        runs=len(configs),
        tokens=sum(config.tokens for config in own),
        flops=sum(flops(config) for config in own),
        seconds=took if len(seconds) == len(configs) else None,
        measured_on=timed[0][1] if timed else "nothing to do",
        disk_bytes=len(configs) * record_bytes + min(slots, len(configs)) * 2 * weights * (4 + STATE_BYTES),
    )


def record_bytes(folders: Iterable[Path], sample: int = 20) -> int:
    """Return the mean size of finished runs' folders, or what one of a hundred rows takes."""
    sizes = []
    for folder in folders:
        if ended(folder):
            sizes.append(sum(file.stat().st_size for file in folder.iterdir() if file.is_file()))
        if len(sizes) == sample:
            break
    return round(sum(sizes) / len(sizes)) if sizes else 20_000


def core_flops_per_s(size: int = 96, count: int = 60, rounds: int = 20) -> float:
    """Time float32 matrix products on one core, the best of several rounds, in this thread's processor time.

    Other programs take none of that time, and products of that size no other thread, so that a busy machine
    gives what an idle one does.
    """
    import numpy as np

    a = np.ones((count, size, size), np.float32)
    a @ a
    taken = []
    for _ in range(rounds):
        start = time.thread_time()
        a @ a
        taken.append(time.thread_time() - start)
    return 2 * count * size**3 / max(min(taken), 1e-6)


def _program(trainer: Mapping[str, object]) -> str:
    return repr((trainer.get("command"), trainer.get("function")))


def _shape(model: Mapping[str, object], length: int, training: Mapping[str, object]) -> str:
    names = ("batch_size", "micro_batch_size", "precision", "threads")
    return repr((sorted(model.items()), length, *map(training.get, names)))
