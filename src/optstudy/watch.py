"""A study while it runs: a live table on a terminal, one plain line per finished run elsewhere."""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from optstudy.launch.local import Event, last_line
from optstudy.record import read_metrics
from optstudy.study import Point
from optstudy.table import Row, read_row


class Watch:
    """Shows how a study goes on; its method :meth:`on_event` is what a launcher calls.

    Args:
        points: the runs of the study.
        runs: where their folders are.
        jobs: runs at a time, for the time left.
        console: where to show it; standard output by default.
    """

    def __init__(
        self, points: Sequence[Point], runs: Path, jobs: int, console: Console | None = None
    ) -> None:
        self._points = {point.config.id: point for point in points}
        self._jobs = jobs
        self._console = console or Console(file=sys.stdout)
        rows = ((run_id, read_row(runs / run_id)) for run_id in self._points)
        self._rows: dict[str, Row] = {run_id: row for run_id, row in rows if row is not None}
        self._already = len(self._rows)
        self._running: dict[str, Path] = {}
        self._failed: list[str] = []
        self._started = time.monotonic()
        self._live = Live(console=self._console, auto_refresh=False, transient=True)

    def __enter__(self) -> "Watch":
        total = len(self._points)
        self._say(f"{total} runs: {self._already} done before, {total - self._already} to do")
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def on_event(self, event: Event) -> None:
        """Take note of what a launcher reports."""
        if event.folder is not None:
            run_id = event.folder.name
            if event.kind == "started":
                self._running[run_id] = event.folder
            else:
                self._running.pop(run_id, None)
                if event.kind == "ended":
                    self._ended(run_id, event.folder)
                else:
                    self._failed.append(run_id)
                    self._say(f"failed: {run_id} ({last_line(event.folder)}); see {event.folder}/log.txt")
        if self._console.is_terminal:
            self._live.update(self._render(), refresh=True)

    def _ended(self, run_id: str, folder: Path) -> None:
        row = read_row(folder)
        assert row is not None
        self._rows[run_id] = row
        outcome = f"val loss {row.val_loss:.3f}" if row.val_loss is not None else f"diverged: {row.reason}"
        count = f"[{len(self._rows)}/{len(self._points)}]"
        curve = self._points[run_id].curve
        self._say(f"{count} {curve} lr {row.lr:g} seed {row.seed}: {outcome}  ({self._left()})")

    def _left(self) -> str:
        done = len(self._rows) - self._already
        left = len(self._points) - len(self._rows) - len(self._failed)
        if not left:
            return "all done"
        if not done:
            return f"{left} runs left"
        seconds = (time.monotonic() - self._started) / done * left
        return f"{left} runs, about {duration(seconds)} left"

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _render(self) -> Group:
        diverged = sum(row.state == "diverged" for row in self._rows.values())
        waiting = len(self._points) - len(self._rows) - len(self._running) - len(self._failed)
        counts = (
            f"{len(self._rows)} done ({diverged} diverged), {len(self._running)} running, {waiting} waiting, "
            f"{len(self._failed)} failed; {self._left()}"
        )
        return Group(Text(counts, style="bold"), self._running_table(), self._best_table())

    def _running_table(self) -> Table:
        table = Table.grid(padding=(0, 1))
        for run_id, folder in self._running.items():
            point = self._points[run_id]
            rows = [row for row in read_metrics(folder) if "loss" in row]
            step, total = (rows[-1]["step"] if rows else 0), point.config.total_steps
            said = ""
            if rows and step:
                left = rows[-1]["seconds"] / step * (total - step)
                said = f"loss {rows[-1]['loss']:.3f}, {duration(left)} left"
            label = f"{point.curve} lr {point.config.optimizer.lr:g} seed {point.config.seed}"
            table.add_row(label, ProgressBar(total=total, completed=step, width=30), said)
        return table

    def _best_table(self) -> Table:
        best: dict[str, Row] = {}
        for run_id, row in self._rows.items():
            curve = self._points[run_id].curve
            if curve not in best or row.loss < best[curve].loss:
                best[curve] = row
        table = Table.grid(padding=(0, 1))
        for curve, row in sorted(best.items(), key=lambda item: item[1].loss):
            table.add_row("best so far", curve, f"{row.loss:.3f}", f"at lr {row.lr:g}")
        return table


def duration(seconds: float) -> str:
    """Say a time in the unit that suits it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
