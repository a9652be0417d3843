"""Progress of a run: a bar on a terminal, otherwise one line per minute."""

import sys
import time
from pathlib import Path
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from optstudy.commands.watch import duration
from optstudy.config import RunConfig
from optstudy.errors import validate
from optstudy.record import read_json

LINE_SECONDS = 60.0
"""Seconds between lines if there is no terminal."""


class ProgressBar:
    """Shows rows of a run's metrics on standard error: step, loss, tokens/s, time left."""

    def __init__(self, folder: Path) -> None:
        config = validate(RunConfig, read_json(folder / "config.json") or {}, str(folder / "config.json"))
        self._name, self._total = folder.name, config.total_steps
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("step {task.completed:.0f}/{task.total:.0f}  {task.fields[said]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._task = self._progress.add_task(folder.name, total=self._total, said="")
        self._last: dict[str, Any] | None = None
        self._said_at = time.monotonic()

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, row: dict[str, Any]) -> None:
        """Show one row of the metrics, with the speed since the previous row."""
        self._progress.update(self._task, completed=row["step"])
        if "loss" not in row:
            return
        before, self._last = self._last or {"tokens": 0, "seconds": 0.0, "step": 0}, row
        seconds = row["seconds"] - before["seconds"]
        if seconds <= 0 or row["step"] <= before["step"]:
            return
        said = f"loss {row['loss']:.3f}  {(row['tokens'] - before['tokens']) / seconds:,.0f} tokens/s"
        self._progress.update(self._task, said=said)
        if self._progress.disable and time.monotonic() - self._said_at >= LINE_SECONDS:
            left = seconds / (row["step"] - before["step"]) * (self._total - row["step"])
            sys.stderr.write(
                f"{self._name}: step {row['step']}/{self._total}  {said}  {duration(left)} left\n"
            )
            self._said_at = time.monotonic()
