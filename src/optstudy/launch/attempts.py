"""Attempts at a run: ``attempts.jsonl`` in its folder gets a line when one starts and one when it ends.

An attempt without an end was killed. From this file each launcher decides whether a run may be started again
or is set aside.
"""

import json
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optstudy.ending import DONE, FAILED, HELD, PREEMPTED, USERS_MISTAKE, Asked, exit_code
from optstudy.errors import UserError, say_once, shown
from optstudy.launch import lease
from optstudy.launch.lease import Lease
from optstudy.record import ended, of_program, put_away, read_lines, read_metrics, write_atomically

NAME = "attempts.jsonl"
FAILURES = 2
"""Number of failures after which a run is set aside."""
KILLS = 25
"""Consecutive kills without a newer checkpoint after which a run is set aside. The same limit holds for
another program that asks to be run again without a new step in its metrics."""
_CHECKPOINT = re.compile(r"step-(\d+)-")


class Held(Exception):
    """Another process is working on the run."""


@dataclass
class Attempt:
    """An attempt at a run by one process."""

    lease: Lease
    code: int = DONE
    """Its exit code; not needed if an exception ends it."""
    reason: str | None = None
    """Why the run is not done."""


@contextmanager
def attempt(folder: Path, on_loss: Callable[[], None] = lambda: os._exit(PREEMPTED)) -> Iterator[Attempt]:
    """Hold a run's lease, and record the start and end of the attempt; exceptions are recorded and re-raised.

    Args:
        folder: the run's folder.
        on_loss: called if another process has taken over the run; by default, this process exits.

    Raises:
        Held: another process is working on it.
    """
    held = lease.claim(folder, on_loss)
    if held is None:
        owner = lease.holder(folder) or {}
        with suppress(OSError):
            _note(folder, {"event": "held", "code": HELD, **lease.identity()})
        said = f"{folder}: process {owner.get('pid')} on {owner.get('host')} works on it"
        if (seconds := lease.ahead(folder)) > lease.STALE_SECONDS:
            said += (
                f"; its lease is dated {seconds:.0f} s in the future: check the clocks, or delete the lease"
            )
        raise Held(said)
    with held:
        current = Attempt(held)
        try:  # includes the first line: a signal may arrive during the write
            _note(folder, {"event": "start", "step": _checkpointed(folder), **lease.identity()})
            kept = (folder / NAME).read_bytes()
            try:
                yield current
            finally:
                if not (folder / NAME).exists():  # a program has emptied its run's folder
                    folder.mkdir(parents=True, exist_ok=True)
                    write_atomically(folder / NAME, kept)
        except GeneratorExit:
            _note(folder, {"event": "end", "code": current.code, "reason": current.reason})
            raise
        except BaseException as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())[:500]
            with suppress(OSError):  # the disk may be full
                _note(folder, {"event": "end", "code": exit_code(error), "error": said})
            raise
        reason = {} if current.reason is None else {"reason": current.reason}
        _note(folder, {"event": "end", "code": current.code, **reason})


def set_aside(folder: Path) -> str | None:
    """Return why a run must not be started again, or None."""
    return verdict(read(folder))


def verdict(rows: list[dict[str, Any]]) -> str | None:
    """Return why a run is set aside according to the lines of its ``attempts.jsonl``, or None.

    A failure is an end with code 1. A kill is a start without an end. The count of kills restarts when an
    attempt starts from a newer checkpoint than the previous one.
    """
    failures, kills, asked, error = _counted(rows)
    if failures >= FAILURES:
        return f"failed {failures} times: {error}"
    if kills >= KILLS:
        return f"killed {kills} times in a row without getting further"
    if asked >= KILLS:
        return f"asked {asked} times in a row to be run again, without getting further"
    return None


def kills(folder: Path) -> int:
    """Return the number of kills since the last progress, including an attempt that is still running."""
    return _counted(read(folder))[1]


def _counted(rows: list[dict[str, Any]]) -> tuple[int, int, int, str]:
    """Return failures, kills and requests to run again without progress, and the last error."""
    failures = kills = asked = 0
    last_step = -1
    open_start = False
    error = ""
    for row in rows:
        if row["event"] == "retry":
            failures, kills, asked, open_start = 0, 0, 0, False
        elif row["event"] == "start":
            kills = kills + 1 if open_start and row["step"] <= last_step else 0
            asked = asked if row["step"] <= last_step else 0
            last_step, open_start = row["step"], True
        elif row["event"] == "end":
            open_start = False
            if row["code"] == FAILED:
                failures += 1
                error = row.get("error", "")
            asked += str(row.get("error", "")).startswith(f"{Asked.__name__}:")
    return failures, kills + open_start, asked, error


def account(folder: Path, lines: int) -> None:
    """Record a failure if a worker exited without writing a line, so that it is not restarted forever.

    Args:
        folder: the run's folder.
        lines: number of lines in ``attempts.jsonl`` when the worker started.

    Raises:
        UserError: the cause affects all other runs too, such as a full disk.
    """
    rows = read(folder)
    if len(rows) == lines and not ended(folder):
        failed(folder, last_line(folder))
    elif len(rows) > lines and rows[-1].get("code") == USERS_MISTAKE:
        raise UserError(last_line(folder))


def failed(folder: Path, error: str) -> None:
    """Record a failure that happened before the attempt's first line."""
    _note(folder, {"event": "end", "code": FAILED, "error": error})


def last_line(folder: Path) -> str:
    """Return the last line of a run's log, without the prefix ``optstudy:``."""
    try:
        lines = (folder / "log.txt").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except FileNotFoundError:
        lines = []
    return lines[-1].removeprefix("optstudy: ") if lines else f"{folder}: ended without a message"


def forgive(folder: Path) -> None:
    """Allow a run that was set aside to be started again."""
    _note(folder, {"event": "retry"})


def read(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's ``attempts.jsonl``.

    A last line cut off by a kill is left out. Any other invalid line is left out and reported.
    """

    def leave_out(error: UserError) -> None:
        say_once(f"{error}; left out")

    try:
        return read_lines(folder / NAME, _check, leave_out)
    except UserError as error:
        leave_out(error)
        return []


def _check(row: dict[str, Any], where: str) -> None:
    event = row.get("event")
    number = {"start": "step", "end": "code"}.get(event) if isinstance(event, str) else "event"
    if number is not None and type(row.get(number)) is not int:
        raise UserError(f"{where}: damaged: {number} is {shown(row.get(number))}")


def _note(folder: Path, row: dict[str, Any]) -> None:
    stamped = {**row, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    path = folder / NAME
    if not path.is_file() and (path.exists() or path.is_symlink()):
        put_away(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, (json.dumps(stamped) + "\n").encode())
    finally:
        os.close(descriptor)


def _checkpointed(folder: Path) -> int:
    """Step of the newest checkpoint, or the last step that another program logged; 0 if there is none."""
    if of_program(folder):
        try:
            steps = [row.get("step") for row in read_metrics(folder)]
        except UserError:  # the program writes this file; its damage is not ours
            steps = []
        return max((step for step in steps if type(step) is int), default=0)
    names = (path.name for path in (folder / "checkpoints").glob("step-*"))
    return max((int(match[1]) for name in names if (match := _CHECKPOINT.match(name))), default=0)
