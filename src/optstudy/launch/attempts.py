"""What has been tried on a run, in its folder: ``attempts.jsonl``, a line when one starts and when it ends.

An attempt without an end was killed. From this file alone every launcher knows whether a run may be started
again or is set aside.
"""

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optstudy.ending import DONE, FAILED, HELD, PREEMPTED, USERS_MISTAKE, exit_code
from optstudy.errors import UserError, say_once
from optstudy.launch import lease
from optstudy.launch.lease import Lease
from optstudy.record import parse

FAILURES = 2
"""Attempts that failed by themselves after which a run is set aside."""
KILLS = 25
"""Attempts in a row that were killed before the run got any further, after which it is set aside."""
_CHECKPOINT = re.compile(r"step-(\d+)-")


class Held(Exception):
    """Another process works on the run."""


@dataclass
class Attempt:
    """One process's try at a run."""

    lease: Lease
    code: int = DONE
    """Exit code that it ends with; one that raises need not set it."""
    reason: str | None = None
    """Why, where it is not done."""


@contextmanager
def attempt(folder: Path) -> Iterator[Attempt]:
    """Hold a run's lease and note the attempt's start and end; an exception is noted and passed on.

    Raises:
        Held: another process works on it.
    """
    held = lease.claim(folder, on_loss=lambda: os._exit(PREEMPTED))
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
        try:  # from the start's line on: a signal may come within it
            _note(folder, {"event": "start", "step": _checkpointed(folder), **lease.identity()})
            yield current
        except BaseException as error:
            said = " ".join(f"{type(error).__name__}: {error}".split())[:500]
            with suppress(OSError):  # the disk may be full
                _note(folder, {"event": "end", "code": exit_code(error), "error": said})
            raise
        reason = {} if current.reason is None else {"reason": current.reason}
        _note(folder, {"event": "end", "code": current.code, **reason})


def set_aside(folder: Path) -> str | None:
    """Say why a run is not to be started again, or None."""
    return verdict(read(folder))


def verdict(rows: list[dict[str, Any]]) -> str | None:
    """Judge the lines of ``attempts.jsonl``: the reason to set the run aside, or None.

    A failure is an end with code 1. A kill is a start that has no end; it counts while the next start finds
    no newer checkpoint than it had found itself.
    """
    failures, kills, error = _counted(rows)
    if failures >= FAILURES:
        return f"failed {failures} times: {error}"
    if kills >= KILLS:
        return f"killed {kills} times in a row without getting further"
    return None


def kills(folder: Path) -> int:
    """Attempts that were killed since the run last got further; of those that have begun, the last too."""
    return _counted(read(folder))[1]


def _counted(rows: list[dict[str, Any]]) -> tuple[int, int, str]:
    """Failures, kills without progress, and the last error."""
    failures = kills = 0
    last_step = -1
    open_start = False
    error = ""
    for row in rows:
        if row["event"] == "retry":
            failures, kills, open_start = 0, 0, False
        elif row["event"] == "start":
            kills = kills + 1 if open_start and row["step"] <= last_step else 0
            last_step, open_start = row["step"], True
        elif row["event"] == "end":
            open_start = False
            if row["code"] == FAILED:
                failures += 1
                error = row.get("error", "")
    return failures, kills + open_start, error


def account(folder: Path, lines: int) -> None:
    """See to it that a worker which ended on its own has left word, so that none is started without end.

    Args:
        folder: the run's.
        lines: of ``attempts.jsonl`` when the worker was started; as many now say that it never got to work.

    Raises:
        UserError: the run found a mistake that the others would find too, such as a full disk.
    """
    rows = read(folder)
    if len(rows) == lines and not (folder / "result.json").exists():
        failed(folder, last_line(folder))
    elif len(rows) > lines and rows[-1].get("code") == USERS_MISTAKE:
        raise UserError(last_line(folder))


def failed(folder: Path, error: str) -> None:
    """Note a failure that came before the attempt could."""
    _note(folder, {"event": "end", "code": FAILED, "error": error})


def last_line(folder: Path) -> str:
    """Return the last line of a run's log, without the program's name."""
    try:
        lines = (folder / "log.txt").read_text(errors="replace").strip().splitlines()
    except FileNotFoundError:
        lines = []
    return lines[-1].removeprefix("optstudy: ") if lines else f"{folder}: ended without a word"


def forgive(folder: Path) -> None:
    """Let a run that was set aside be tried again."""
    _note(folder, {"event": "retry"})


def read(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's ``attempts.jsonl``.

    A last line torn by a kill is left out; another that is no attempt is left out and said.
    """
    path = folder / "attempts.jsonl"
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(_attempt_line(line, f"{path}:{number}"))
        except UserError as error:
            if number < len(lines):
                say_once(f"{error}; left out")
    return rows


def _attempt_line(line: bytes, where: str) -> dict[str, Any]:
    row = parse(line, where)
    event = row.get("event")
    number = {"start": "step", "end": "code"}.get(event) if isinstance(event, str) else "event"
    if number is not None and type(row.get(number)) is not int:
        raise UserError(f"{where}: damaged: {number} is {row.get(number)!r}")
    return row


def _note(folder: Path, row: dict[str, Any]) -> None:
    stamped = {**row, "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    descriptor = os.open(folder / "attempts.jsonl", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    try:
        os.write(descriptor, (json.dumps(stamped) + "\n").encode())
    finally:
        os.close(descriptor)


def _checkpointed(folder: Path) -> int:
    """Step of the newest checkpoint; 0 without one."""
    names = (path.name for path in (folder / "checkpoints").glob("step-*"))
    return max((int(match[1]) for name in names if (match := _CHECKPOINT.match(name))), default=0)
