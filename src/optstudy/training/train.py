"""Training: takes a config and fills a run folder. Nothing here depends on an optimizer's name."""

import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

import optstudy
from optstudy import provenance
from optstudy.config import Watch
from optstudy.ending import Interruption, Preempted, out_of_memory
from optstudy.errors import UserError, say_once, shown
from optstudy.folders import check_unchanged, read_config
from optstudy.program import Program
from optstudy.record import (
    FORMAT,
    ID,
    MetricsWriter,
    finite,
    read_result,
    write_json,
)
from optstudy.training import checkpoint
from optstudy.training.parallel import Ranks, to_device
from optstudy.training.progress import Diverged, Progress, TrainingLog
from optstudy.training.run import Run, choose_device
from optstudy.training.trackers import Trackers

CHECKPOINT_MINUTES = 10.0
SAVED: Mapping[str, type] = {"run": dict, "log": dict, "metrics": str, "id": str, "folder": str}
"""Contents of a checkpoint; older versions saved only the first two, and the length of the metrics."""


def train(
    folder: Path,
    device: str = "auto",
    on_progress: Progress | None = None,
    checkpoint_minutes: float = CHECKPOINT_MINUTES,
    still_mine: Callable[[], None] = lambda: None,
    ranks: Ranks | None = None,
) -> dict[str, Any]:
    """Train the run in ``folder``, from its newest checkpoint if there is one, and return its result.

    For a finished run, its result is returned. With several ranks, each calls this, and only the first one
    writes to the folder.

    Args:
        folder: contains ``config.json``; receives everything else.
        device: ``auto``, ``cpu`` or ``cuda``.
        on_progress: called with every row that is written to ``metrics.jsonl``.
        checkpoint_minutes: time between checkpoints.
        still_mine: called before a checkpoint or the result is written; raises if another process has taken
            over the run.
        ranks: the processes that train together, see :mod:`optstudy.training.parallel`.

    Raises:
        UserError: no readable config, or the corpus is not available.
        Unloadable: none of its checkpoints can be loaded.
        Preempted: some rank received SIGTERM, SIGUSR1 or SIGINT; a checkpoint was written if a step was
            taken.
        OutOfMemory: an allocation failed, on CPU or GPU.
    """
    ranks = ranks or Ranks()
    if (result := read_result(folder)) is not None:
        return result
    config = read_config(folder)
    if isinstance(config, Program):
        raise UserError(f"{folder}: another program trains it: optstudy train {folder}")
    check_unchanged(config)
    with Interruption() as interruption, ranks.own(folder) as own:
        interruption.deferred = ranks.size > 1  # they stop together
        try:
            while True:
                run = Run(config, choose_device(config, device), ranks)
                write_json(own / "env.json", environment(run))
                try:
                    attempt = _Attempt(
                        run, folder, own, on_progress, checkpoint_minutes, interruption, still_mine
                    )
                    break
                except checkpoint.Odd as odd:
                    if ranks.first:
                        checkpoint.set_aside(odd)
                    ranks.wait()
            outcome = attempt.carry_out()
        except (MemoryError, RuntimeError) as error:
            if (shortage := out_of_memory(error)) is None:
                raise
            raise shortage from error
        result = {"id": config.id, **finite(outcome), "format": FORMAT}
        still_mine()
        write_json(own / "result.json", result)
        checkpoint.clear(own)
        return result


class _Attempt:
    """One process's attempt at a run: the loop over steps, records and checkpoints."""

    def __init__(
        self,
        run: Run,
        folder: Path,
        own: Path,
        on_progress: Progress | None,
        checkpoint_minutes: float,
        interruption: Interruption,
        still_mine: Callable[[], None],
    ) -> None:
        self.run, self.ranks, self.interruption = run, run.ranks, interruption
        self.folder = own
        self._still_mine = still_mine
        self._on_progress = on_progress
        self._period = 60 * checkpoint_minutes
        self._saved_at = time.monotonic()
        self._lost: list[str] = []
        self.log = TrainingLog(run.config, self._emit, run.probe)
        path = self.ranks.same(checkpoint.newest(folder) if self.ranks.first else None)
        kept = b"" if path is None else self._resume(path, folder)
        self.metrics = MetricsWriter(own, kept)
        watched = run.config if self.ranks.first else run.config.model_copy(update={"watch": Watch()})
        self.trackers = Trackers(watched, own, self.log.steps)

    def _resume(self, path: Path, folder: Path) -> bytes:
        """Resume from a checkpoint chosen by the first rank; return the content that ``metrics.jsonl`` should
        have.

        Raises:
            Odd: it cannot be loaded; this attempt is then unusable.
            UserError: it belongs to another run.
        """
        run = self.run
        in_parts = self.ranks.size > 1 and run.config.training.parallel == "fsdp"
        saved = checkpoint.read(path, torch.device("cpu") if in_parts else run.device, mmap=in_parts)
        with checkpoint.refused(path):
            for key, kind in SAVED.items():
                if not isinstance(saved.get(key, kind()), kind):
                    raise TypeError(f"{key} is of type {type(saved[key]).__name__}")
            if saved["log"]["steps"] != checkpoint.step_of(path):
                raise ValueError(f"it is of step {shown(saved['log']['steps'])}")
        self._check_owner(saved, path, folder)
        with checkpoint.refused(path):
            self._say_lost(run.load_state_dict(saved["run"]))
            self.log.load_state_dict(to_device(saved["log"], run.device))
        return self._metrics_of(saved, folder) if self.ranks.first else b""

    def _check_owner(self, saved: dict[str, Any], path: Path, folder: Path) -> None:
        begun, name = saved.get("id", self.run.config.id), saved.get("folder", "")
        if begun != self.run.config.id:
            raise UserError(
                f"{folder}/config.json: is the config of run {self.run.config.id}, and the checkpoint is "
                f"of run {begun}: it was edited; undo that, or delete {path.parent} to begin again"
            )
        if ID.fullmatch(name) and name != folder.resolve().name:
            raise UserError(
                f"{folder}: is a copy of run {name}, or was renamed; give it the name {name} again"
            )

    def _metrics_of(self, saved: dict[str, Any], folder: Path) -> bytes:
        """Return the content of ``metrics.jsonl`` at a checkpoint; older versions saved only its length."""
        if "metrics" in saved:
            return bytes(saved["metrics"], "utf-8")
        path = folder / "metrics.jsonl"
        length = int(saved.get("metrics_bytes", 0))
        found = path.read_bytes()[:length] if path.exists() else b""
        if len(found) < length:
            say_once(f"{path}: was cut since the checkpoint; the rows before it are lost")
        return found

    def _emit(self, row: dict[str, Any]) -> None:
        row = finite(row)
        self.metrics.write(row)
        self.trackers.write(row)
        if self._on_progress is not None:
            self._on_progress(row)

    def carry_out(self) -> dict[str, Any]:
        """Train to the end or to divergence; return the content of ``result.json`` except id and format."""
        run, log = self.run, self.log
        state, reason, final = "done", None, None
        try:
            with self.trackers:
                final = self._train()
        except Diverged as divergence:
            state, reason = "diverged", divergence.reason
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
            "versions": {"torch": torch.__version__, **packages(run)},
        }

    def _train(self) -> float:
        """Take all remaining steps; return the final validation loss."""
        run, log = self.run, self.log
        first = log.steps
        for step in range(first, run.config.total_steps):
            if step in run.validation_steps and step != log.validated:
                log.validation(step, run.validation_loss(self._stop_if_asked), run.deciles)
            run.probe.expect(log.row_due)
            taken = run.step(step, self._stop_if_asked)
            if step == first:
                self._say_lost(run.unsaved())
            log.training(step, *taken)
            self.interruption.deferred = True
            self._stop_if_asked()
            if self.ranks.most(time.monotonic() - self._saved_at >= self._period):
                self._checkpoint()
        log.flush()
        final = run.validation_loss(self._stop_if_asked)
        log.validation(run.config.total_steps, final, run.deciles)
        return final

    def _say_lost(self, places: list[str]) -> None:
        """Report once, and in ``env.json``, why a resumed run would not continue bitwise identically."""
        if places and not self._lost and self.ranks.first:
            named = ", ".join(places)
            say_once(
                f"{self.folder}: a resumed run will not continue bitwise as it would have: "
                f"{named} of the optimizer cannot be saved"
            )
        self._lost = [*dict.fromkeys((*self._lost, *places))]
        if self._lost:
            write_json(self.folder / "env.json", {**environment(self.run), "not_saved": self._lost})

    def _stop_if_asked(self) -> None:
        """Write a checkpoint and raise if a signal came. The state is that after ``log.steps`` steps."""
        if self.ranks.most(self.interruption.came is not None):
            self._checkpoint()
            came = self.interruption.came or "a signal to another process"
            raise Preempted(f"{came}: stopped at step {self.log.steps} with a checkpoint")

    def _checkpoint(self) -> None:
        self._still_mine()
        self.metrics.sync()
        state = {
            "run": self.run.state_dict(),
            "log": self.log.state_dict(),
            "metrics": self.metrics.content.decode(),
            "id": self.run.config.id,
            "folder": self.folder.resolve().name,
        }
        if self.ranks.first:
            checkpoint.save(self.folder, self.log.steps, state)
        self.ranks.wait()
        self._saved_at = time.monotonic()


def packages(run: Run) -> dict[str, str]:
    """Versions of the installed packages that the optimizer's and the model's classes come from."""
    return provenance.versions([*run.config.optimizer.targets, *run.config.model.targets])


def environment(run: Run) -> dict[str, Any]:
    """Return versions and machine, which may explain a difference but are not part of a run's id."""
    return {
        "optstudy": optstudy.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "packages": packages(run),
        "platform": platform.platform(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name(run.device) if run.device.type == "cuda" else "cpu",
        "compiled": run.compiled,
        "processes": run.ranks.size,
        "not_saved": [],
        "argv": sys.argv,
        "pid": os.getpid(),
    }
