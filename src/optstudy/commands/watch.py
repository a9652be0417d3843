"""Progress of a study: a live table on a terminal, otherwise one line per finished run."""

import sys
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from optstudy.errors import UserError, say_once
from optstudy.launch import attempts
from optstudy.launch.events import Event
from optstudy.outcomes import metric_of
from optstudy.program import AnyConfig, Program
from optstudy.record import read_metrics
from optstudy.results.curves import numeric
from optstudy.results.table import Row
from optstudy.study.cost import Speed
from optstudy.study.plan import PlannedRun
from optstudy.study.session import FINISHED, Session

REDRAW_SECONDS = 0.5
ORDER = ("done", "diverged", "running", "begun", "waiting", "failed")


class ProgressView:
    """Shows the progress of a study; a launcher calls :meth:`on_event`.

    Args:
        session: the study.
        slots: number of workers, to estimate the time left.
        console: output; by default, standard output.
    """

    def __init__(self, session: Session, slots: int, console: Console | None = None) -> None:
        self._session = session
        self._slots = slots
        self._console = console or Console(file=sys.stdout)
        self._live = Live(console=self._console, auto_refresh=False, transient=True)
        self._drawn = 0.0
        self._ended_runs: set[str] = set()

    def __enter__(self) -> "ProgressView":
        states = self._session.states()
        self._ended_runs = {run_id for run_id, state in states.items() if state in FINISHED}
        done = len(self._ended_runs)
        later = f", and {len(self._session.plan.pending)} that depend on them" * bool(
            self._session.plan.pending
        )
        self._say(f"{len(states)} runs: {done} done before, {len(states) - done} to do{later}")
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def on_event(self, event: Event) -> None:
        """Print what a launcher reports; redraw the table at most every half second."""
        if event.folder is not None and event.kind in ("ended", "failed"):
            run_id = event.folder.name
            point = self._session.runs_known[run_id]
            if event.kind == "ended":
                self._ended(point)
            else:
                self._say(failure(self._session, run_id))
        if self._console.is_terminal and time.monotonic() - self._drawn > REDRAW_SECONDS:
            self.draw()

    def draw(self) -> None:
        """Draw the live table."""
        self._live.update(self.render(), refresh=True)
        self._drawn = time.monotonic()

    def render(self) -> Group:
        """Return counts by state, a bar for each running run, and each curve's best loss so far."""
        session = self._session
        states = session.states()
        counted = Counter(states.values())
        said = ", ".join(f"{counted[state]} {state}" for state in ORDER if counted[state])
        if session.plan.pending:
            said += f", {len(session.plan.pending)} waiting for another study's best"
        known = session.runs_known
        running = [known[run_id] for run_id, state in states.items() if state == "running"]
        return Group(
            Text(f"{named(session)}: {said}; {self._left(states)}", style="bold"),
            self._bars(running),
            self._best(),
        )

    def _ended(self, point: PlannedRun) -> None:
        row = self._session.row(point.id)
        if row is None:  # its damaged record has been reported
            return
        if row.val_loss is None:
            outcome = f"diverged: {row.reason}"
        elif row.reported is None:
            outcome = f"val loss {row.val_loss:.3f}"
        else:
            metric = metric_of(self._session)
            outcome = f"{metric.name} {metric.text(row.loss)}"
        states = self._session.states()
        self._ended_runs.add(point.id)
        self._say(
            f"[{len(self._ended_runs)}/{len(states)}] {described(point)}: {outcome}  ({self._left(states)})"
        )

    def _left(self, states: dict[str, str]) -> str:
        session, known = self._session, self._session.runs_known
        todo = [known[run_id] for run_id, state in states.items() if state not in (*FINISHED, "failed")]
        if not todo:
            return "all done"
        finished = (run_id for run_id, state in states.items() if state in FINISHED)
        rows = [row for run_id in finished if (row := session.row(run_id)) is not None]
        if not rows:
            return f"{len(todo)} left"
        speed = Speed(rows)
        each = [seconds for point in todo if (seconds := speed.seconds(point.config)[0]) is not None]
        if len(each) < len(todo):
            return f"{len(todo)} left"
        return f"{len(todo)} left, about {duration(sum(each) / self._slots)}"

    def _say(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _bars(self, running: list[PlannedRun]) -> Table:
        table = Table.grid(padding=(0, 1))
        for point in running:
            try:
                rows = [row for row in read_metrics(self._session.runs / point.id) if _shows(row)]
            except UserError as error:
                say_once(str(error))
                rows = []
            table.add_row(described(point), *_progress(point.config, rows[-1] if rows else {}))
        return table

    def _best(self) -> Table:
        best: dict[str, tuple[Row, PlannedRun]] = {}
        for point in self._session.plan.points:
            row = self._session.row(point.id)
            if row is not None and (point.curve not in best or row.loss < best[point.curve][0].loss):
                best[point.curve] = row, point
        table = Table.grid(padding=(0, 1))
        for curve, (row, point) in sorted(best.items(), key=lambda item: item[1][0].loss):
            value = metric_of(self._session).text(row.loss)
            table.add_row("best so far", curve, value, f"at {_number(point.x)}")
        return table


def _progress(config: AnyConfig, row: Mapping[str, Any]) -> tuple[RenderableType, str]:
    """A bar and a text next to it; for another program, whose number of steps is unknown, its own numbers."""
    step = row.get("step", 0)
    if isinstance(config, Program):
        told = [f"{key} {_number(row[key])}" for key in ("step", "loss") if key in row]
        return "", ", ".join(told) or "running"
    bar = ProgressBar(total=config.total_steps, completed=step, width=30)
    if not step:
        return bar, ""
    left = row["seconds"] / step * (config.total_steps - step)
    return bar, f"loss {row['loss']:.3f}, {duration(left)} left"


def named(session: Session) -> str:
    """Return a study's name, with its scale if it has scales."""
    return session.study.name + (f" at {session.scale}" if session.scale else "")


def described(point: PlannedRun) -> str:
    """Return a readable name of a run: its curve, its value on the axis, its seed."""
    if isinstance(point.config, Program):
        place = "" if point.x is None else f" at {_number(point.x)}"
        return f"{point.curve}{place} seed {point.config.seed}"
    lr = point.config.optimizer.lr
    place = "" if point.x in (lr, None) else f" at {_number(point.x)}"
    return f"{point.curve}{place} lr {lr:g} seed {point.config.seed}"


def failure(session: Session, run_id: str) -> str:
    """Return a line about a run that was set aside or is damaged: the reason, and the path of its log."""
    folder = session.runs / run_id
    why = session.why(run_id) or attempts.last_line(folder)
    return f"failed: {described(session.runs_known[run_id])} ({why}); see {folder}/log.txt"


def duration(seconds: float) -> str:
    """Return a time in seconds, minutes or hours, whichever fits."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def _shows(row: Mapping[str, object]) -> bool:
    """Whether a row of metrics shows the progress and the loss of a run."""
    return all(row.get(key) is not None for key in ("step", "loss", "seconds"))


def _number(value: object) -> str:
    return f"{value:g}" if numeric(value) else str(value)
