"""Shared by all launchers: the runs to do, events, and which runs may be started."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from optstudy.launch import attempts, lease
from optstudy.record import ended

Todo = Callable[[], Sequence[Path]]
"""Returns the folders of all runs known so far, each with a ``config.json``; called again after results."""


@dataclass(frozen=True)
class Event:
    """A run ``started``, ``stopped``, ``ended`` (has a result), ``failed`` (is set aside); or a ``tick``."""

    kind: str
    folder: Path | None = None


OnEvent = Callable[[Event], None]


class Board:
    """Tracks which runs are open according to their folders, and which were reported.

    Args:
        todo: the runs.
        on_event: called once when a run has ended, in whichever process, or was set aside.
    """

    def __init__(self, todo: Todo, on_event: OnEvent) -> None:
        self._todo, self.on_event = todo, on_event
        self.failed: list[Path] = []
        self._open: dict[Path, None] = {}
        self._known: set[Path] = set()
        self.refresh()

    @property
    def open(self) -> list[Path]:
        """Runs that have no result and are not set aside."""
        return list(self._open)

    def refresh(self) -> None:
        """Read the folders again; get new runs from ``todo`` if one has ended."""
        self._take()
        while self._settle():
            self._take()

    def look(self) -> None:
        """Read the folders again; get new runs from ``todo`` only if one has ended."""
        if self._settle():
            self.refresh()

    def startable(self, running: Sequence[Path]) -> Path | None:
        """Return the first run without an active process that is not to be set aside."""
        mine = set(running)
        free = (f for f in self._open if f not in mine and self.free(f))
        return next((f for f in free if attempts.set_aside(f) is None), None)

    def free(self, folder: Path) -> bool:
        """Whether a run has no result and no active process."""
        return lease.holder(folder) is None and not ended(folder)

    def _take(self) -> None:
        new = [folder for folder in self._todo() if folder not in self._known]
        self._known.update(new)
        self._open.update(dict.fromkeys(f for f in new if not ended(f)))

    def _settle(self) -> bool:
        """Remove runs that ended or were set aside; return whether any ended."""
        done = [folder for folder in self._open if ended(folder) and lease.holder(folder) is None]
        for folder in done:
            del self._open[folder]
            self.on_event(Event("ended", folder))
        for folder in [f for f in self._open if attempts.set_aside(f) and lease.holder(f) is None]:
            del self._open[folder]
            self.failed.append(folder)
            self.on_event(Event("failed", folder))
        return bool(done)
