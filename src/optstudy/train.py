"""Training: a config in, a run folder out. No branch on an optimizer's name."""

import os
import platform
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

import optstudy
from optstudy import checkpoint
from optstudy.config import RunConfig, validate
from optstudy.errors import UserError
from optstudy.progress import Diverged, Progress, TrainingLog
from optstudy.record import FORMAT, MetricsWriter, read_json, read_result, write_json
from optstudy.run import Run, choose_device

CHECKPOINT_MINUTES = 10.0
FINISHED_EARLY = (signal.SIGTERM, signal.SIGUSR1)
"""Signals that ask for a checkpoint and an end: preemption by Slurm, a time limit, a user's kill."""


class Preempted(Exception):
    """The run was asked to stop; it left a checkpoint and can be resumed."""


def train(
    folder: Path,
    device: str = "auto",
    on_progress: Progress | None = None,
    checkpoint_minutes: float = CHECKPOINT_MINUTES,
    still_mine: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Carry out the run in ``folder``, from its newest checkpoint if it has one, and return its result.

    A finished run is returned as it is.

    Args:
        folder: holds ``config.json``; gets everything else.
        device: ``auto``, ``cpu`` or ``cuda``.
        on_progress: called with every row that is written to ``metrics.jsonl``.
        checkpoint_minutes: time between checkpoints.
        still_mine: called before a checkpoint or the result is written; raises if another process has taken
            the run over.

    Raises:
        UserError: no readable config, or a corpus that cannot be had.
        Preempted: SIGTERM or SIGUSR1 came; a checkpoint was written.
    """
    if (result := read_result(folder)) is not None:
        return result
    tree = read_json(folder / "config.json")
    if tree is None:
        raise UserError(f"{folder}: no config.json there; give a run folder or a config file")
    config = validate(RunConfig, tree, str(folder / "config.json"))
    with _Interruption() as interruption:
        run = Run(config, choose_device(config, device))
        write_json(folder / "env.json", environment(run.device))
        attempt = _Attempt(run, folder, on_progress, checkpoint_minutes, interruption, still_mine)
        outcome = attempt.carry_out()
    result = {"id": config.id, **outcome, "format": FORMAT}
    still_mine()
    write_json(folder / "result.json", result)
    checkpoint.clear(folder)
    return result


class _Interruption:
    """Notes a signal of :data:`FINISHED_EARLY`, to be looked at between steps."""

    def __init__(self) -> None:
        self.came = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in FINISHED_EARLY}
        else:
            self._before = {}
        return self

    def _note(self, *_: Any) -> None:
        self.came = True

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class _Attempt:
    """One process's work on a run: the loop over its steps, its records and its checkpoints."""

    def __init__(
        self,
        run: Run,
        folder: Path,
        on_progress: Progress | None,
        checkpoint_minutes: float,
        interruption: _Interruption,
        still_mine: Callable[[], None],
    ) -> None:
        self.run, self.folder, self.interruption = run, folder, interruption
        self._still_mine = still_mine
        self._on_progress = on_progress
        self._period = 60 * checkpoint_minutes
        self._saved_at = time.monotonic()
        self.log = TrainingLog(run.config, self._emit, run.probe)
        saved = checkpoint.load(folder, run.device)
        if saved is not None:
            run.load_state_dict(saved["run"])
            self.log.load_state_dict(saved["log"])
        self.metrics = MetricsWriter(folder, keep=saved["metrics_bytes"] if saved else 0)

    def _emit(self, row: dict[str, Any]) -> None:
        self.metrics.write(row)
        if self._on_progress is not None:
            self._on_progress(row)

    def carry_out(self) -> dict[str, Any]:
        """Train to the end or to divergence; return everything ``result.json`` says but id and format."""
        run, log = self.run, self.log
        state, reason, final = "done", None, None
        try:
            for step in range(log.steps, run.config.total_steps):
                if step in run.validation_steps:
                    log.validation(step, run.validation_loss())
                log.training(step, *run.step(step))
                self._checkpoint_if_due()
            log.flush()
            final = run.validation_loss()
            log.validation(run.config.total_steps, final)
        except Diverged as divergence:
            state, reason, final = "diverged", divergence.reason, None
            log.steps = divergence.step
        finally:
            self.metrics.close()
        tokens_seen = log.steps * run.config.training.batch_size * run.config.data.sequence_length
        return {
            "state": state,
            "reason": reason,
            "step": log.steps,
            "val_loss": final,
            "initial_val_loss": log.initial_val_loss,
            "train_loss": log.final_train_loss() if state == "done" else None,
            "tokens": tokens_seen,
            "tokens_per_s": tokens_seen / log.seconds,
            "seconds": log.seconds,
            "step_ms": log.step_ms(),
            **run.footprint(),
            "weights_sha256": run.weights_sha256(),
        }

    def _checkpoint_if_due(self) -> None:
        if not self.interruption.came and time.monotonic() - self._saved_at < self._period:
            return
        self._still_mine()
        self.metrics.sync()
        state = {
            "run": self.run.state_dict(),
            "log": self.log.state_dict(),
            "metrics_bytes": self.metrics.size,
        }
        checkpoint.save(self.folder, self.log.steps, state)
        self._saved_at = time.monotonic()
        if self.interruption.came:
            raise Preempted(f"stopped at step {self.log.steps} with a checkpoint")


def environment(device: torch.device) -> dict[str, Any]:
    """Versions and machine: what may explain a difference, and is no part of a run's id."""
    return {
        "optstudy": optstudy.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "platform": platform.platform(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "argv": sys.argv,
        "pid": os.getpid(),
    }
