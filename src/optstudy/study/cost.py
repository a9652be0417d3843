"""Costs of runs before they start: tokens, FLOPs, time at measured speed, disk. Imports no torch."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from pydantic import ValidationError

from optstudy.config import RunConfig
from optstudy.program import AnyConfig, Program
from optstudy.record import ended
from optstudy.results.table import Row
from optstudy.sizes import size_of

EFFICIENCY = 0.6
"""Share of one core's matrix-product speed that a run reaches, used until a run has been timed. Measured: 0.8
at pico on an idle machine and 0.4 on a busy one, 0.6 at nano, 0.7 at micro (AVX-512)."""
PROBED = "one CPU core's matrix products, an estimate to a factor of about two until a run has been timed"
STATE_BYTES = 8
"""Assumed optimizer state per parameter: two float32 moments."""


@dataclass(frozen=True)
class Cost:
    """The cost of a list of runs."""

    runs: int
    tokens: int
    """Tokens, for optstudy's own trainer only, like ``flops``; for other programs they are not known."""
    flops: float | None
    """Operations of matrix products, in training and validation; None if a model was not counted yet."""
    seconds: float | None
    """Time on this machine with all its slots busy; None if there is nothing to estimate it from."""
    measured_on: str
    """The source of the estimated speed."""
    disk_bytes: int
    """The records of all runs, plus the checkpoints of those that run at the same time."""


def flops(config: RunConfig) -> float | None:
    """Operations of a run's matrix products, training and validation; None: not counted yet."""
    size = size_of(config)
    return None if size is None else size.forward_flops * 3.0 * config.tokens * _whole(config)


def _whole(config: RunConfig) -> float:
    """A run's computation as a multiple of its training; validation costs a third as much per token."""
    validated = config.validation.sequences * config.data.sequence_length * (config.validation.points + 1)
    return 1 + validated / (3 * config.tokens)


UNCOUNTED = "the size of a model was not counted; optstudy run --dry-run counts it"
UNTIMED = "no run of this program has ended"
UNKNOWN = "no run has been timed here; --device cpu estimates with this machine's cores"


class Speed:
    """Seconds per run in one slot, from finished runs, or from a matrix product timed here.

    A run's time has three parts: its steps, from their median, so that short runs give the same estimate;
    its validation; and its start, from the fastest run.

    Args:
        rows: finished runs on this machine, of any study, on the requested device.
        for_gpu: the runs want a GPU, for which timing a CPU core is useless.
    """

    def __init__(self, rows: Iterable[Row], for_gpu: bool = False) -> None:
        self._exact: dict[str, list[tuple[float, float]]] = {}
        self._shape: dict[str, list[tuple[float, float]]] = {}
        self._programs: dict[str, list[float]] = {}
        self._flops: list[float] = []
        self._for_gpu = for_gpu
        for row in rows:
            if row.state != "done" or row.seconds <= 0:
                continue
            if row.reported is not None:
                self._programs.setdefault(_program(row.config["trainer"]), []).append(row.seconds)
                continue
            if not (row.step_ms and row.step and row.tokens):
                continue
            try:
                config = RunConfig.model_validate(row.config)
            except ValidationError:  # written by another version of optstudy
                continue
            training = row.step * row.step_ms / 1e3
            took = training / row.tokens, max(0.0, row.seconds - training * _whole(config))
            shape = _shape(config)
            self._exact.setdefault(f"{shape} {row.optimizer}", []).append(took)
            self._shape.setdefault(shape, []).append(took)
            if (work := flops(config)) is not None:
                self._flops.append(work / config.tokens / _whole(config) / took[0])
        self._probed: float | None = None

    def seconds(self, config: AnyConfig) -> tuple[float | None, str]:
        """Seconds of the run in one slot, and the source of the estimate; None if nothing is known."""
        if isinstance(config, Program):
            ended = self._programs.get(_program(config.trainer.model_dump()))
            return (median(ended), "finished runs of this program") if ended else (None, UNTIMED)
        shape = _shape(config)
        for known, key in ((self._exact, f"{shape} {config.optimizer.name}"), (self._shape, shape)):
            if key in known:
                per_token = median(one for one, _ in known[key])
                start = min(more for _, more in known[key])
                return per_token * config.tokens * _whole(config) + start, "runs of this size on this machine"
        if (work := flops(config)) is None:
            return None, UNCOUNTED
        if self._flops:
            return work / median(self._flops), "runs of another size on this machine"
        if self._for_gpu:
            return None, UNKNOWN
        if self._probed is None:
            self._probed = core_flops_per_s() * EFFICIENCY
        return work / self._probed, PROBED


def estimate(configs: Sequence[AnyConfig], speed: Speed, slots: int, record_bytes: int) -> Cost:
    """Add up the costs of ``configs`` with ``slots`` of them running at a time.

    Args:
        configs: the runs to do.
        speed: this machine's speed.
        slots: number of workers.
        record_bytes: size of a finished run's folder.
    """
    timed = [speed.seconds(config) for config in configs]
    seconds = [one for one, _ in timed if one is not None]
    own = [config for config in configs if isinstance(config, RunConfig)]
    sizes = [size_of(config) for config in own]
    weights = max((size.parameters for size in sizes if size is not None), default=0)
    work = [flops(config) for config in own]
    took = max(sum(seconds) / slots, max(seconds, default=0.0))
    return Cost(
        runs=len(configs),
        tokens=sum(config.tokens for config in own),
        flops=None if None in work else sum(one for one in work if one is not None),
        seconds=took if len(seconds) == len(configs) else None,
        measured_on=next(
            (why for one, why in timed if one is None), timed[0][1] if timed else "nothing to do"
        ),
        disk_bytes=len(configs) * record_bytes + min(slots, len(configs)) * 2 * weights * (4 + STATE_BYTES),
    )


def record_bytes(folders: Iterable[Path], sample: int = 20) -> int:
    """Return the mean size of finished runs' folders, or a typical size if there are none."""
    sizes = []
    for folder in folders:
        if ended(folder):
            sizes.append(sum(file.stat().st_size for file in folder.iterdir() if file.is_file()))
        if len(sizes) == sample:
            break
    return round(sum(sizes) / len(sizes)) if sizes else 20_000


def core_flops_per_s(size: int = 96, count: int = 60, rounds: int = 20) -> float:
    """Time float32 matrix products on one core: the best of several rounds, in this thread's CPU time.

    CPU time excludes other programs, and products of this size use no other thread. So a busy machine gives
    the same result as an idle one.
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


def _shape(config: RunConfig) -> str:
    training = config.training
    told = (training.batch_size, training.micro_batch_size, training.precision, training.threads)
    return repr((sorted(dict(config.model).items(), key=str), config.data.sequence_length, told))
