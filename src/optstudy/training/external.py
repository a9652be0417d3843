"""Runs another training program: starts it, watches it, and checks its result. Imports no torch.

docs/contract.md describes the contract for users. The program finds its run's folder with ``config.json`` in
``OPTSTUDY_RUN``. It may write ``metrics.jsonl``, and writes ``result.json`` at the end. That file is input:
after exit code 0 it is checked and replaced by ours, with the program's keys under ``reported``; until then
the run has no result. Exit codes are those of ``optstudy train``: 3 diverged, 75 to be run again.
"""

import json
import math
import os
import platform
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import optstudy
from optstudy.ending import (
    DIVERGED,
    DONE,
    OF_SEVERAL,
    PREEMPTED,
    SIGNALS,
    Asked,
    Interruption,
    Preempted,
    ProgramError,
)
from optstudy.errors import UserError, printable, shortened
from optstudy.folders import check_unchanged
from optstudy.program import MetricSpec, Program, require
from optstudy.record import FORMAT, finite, read_json, write_json
from optstudy.training import guard

GRACE_SECONDS = 20.0
"""Time for a program to exit after SIGTERM before it is killed; less than launchers give their workers."""
PIPE_SECONDS = 5.0
"""Time to read the remaining output of a program that has ended."""
MOST_LOGGED = 8_000_000
"""Bytes of output that one attempt may add to the log; of any further output only the end is kept."""
TAIL = 64_000
"""Maximum bytes of that end, and of a line."""
MOST_RESULT = 16_000_000
"""Maximum bytes of a program's ``result.json``."""
THEIRS = "config.program.json"
"""New name of a program's own ``config.json``, because the run's must stay."""
MOST_SAID = 200
"""Maximum characters of output in a reason."""
STANDS_FOR = "0.0"
"""Stands for nan and inf in a line of output, to see whether a pattern for digits looks there."""
_NOT_FINITE = re.compile(r"(?<![\w.])[-+]?(nan|inf(inity)?)(?![\w.])", re.IGNORECASE)


def carry_out(
    folder: Path,
    config: Program,
    still_mine: Callable[[], None] = lambda: None,
    output: "Output | None" = None,
) -> dict[str, Any]:
    """Run a program to its end, write the run's result and return it.

    Args:
        folder: the run's folder.
        config: the run's config.
        still_mine: called before the result is written; raises if another process has taken over the run.
        output: receives the program's output; by default, it is discarded.

    Raises:
        UserError: the code has changed, its folder is missing, or this machine does not have the program.
        Preempted: a signal was received and the program stopped; or the program exited with 75.
        ProgramError: it failed, took too long, or left no result; its output is in the log.
    """
    trainer = config.trainer
    if not Path(trainer.folder).is_dir():
        raise UserError(f"{trainer.folder}: no such folder, in which the study was first run")
    require(trainer, Path(trainer.folder))
    check_unchanged(config)
    begin(folder)
    began = time.monotonic()
    output = output or Output(trainer.metric)
    with Interruption() as interruption:
        code = _run(folder, config, output, interruption)
    _put_back(folder, config)
    result = outcome(folder, config, code, output, time.monotonic() - began)
    still_mine()
    write_json(folder / "result.json", result)
    return result


def _put_back(folder: Path, config: Program) -> None:
    """Write the run's ``config.json`` again if the program has removed or overwritten it."""
    path, wanted = folder / "config.json", config.model_dump(mode="json")
    with suppress(UserError):
        if read_json(path) == wanted:
            return
    folder.mkdir(parents=True, exist_ok=True)
    if path.exists():
        path.replace(path.with_name(THEIRS))
        _write(f"optstudy: the program's own config.json is {THEIRS} now\n".encode())
    write_json(path, wanted)


def outcome(folder: Path, config: Program, code: int, output: "Output", seconds: float) -> dict[str, Any]:
    """Return a run's result from the program's exit code, its ``result.json`` and its output.

    Raises:
        Asked: it asks to be run again, or something else stopped it, such as a scheduler stopping all
            processes.
        ProgramError: it failed, or did not report the metric.
    """
    if code == PREEMPTED or code - 128 in SIGNALS:
        raise Asked(f"{_ended(code)}: it is to be run again")
    if code not in (DONE, DIVERGED):
        raise ProgramError(f"{_ended(code)}{output.last and f': {output.last}'}")
    left = _left(folder)
    reported = {**(output.found or {}), **(left or {})}
    metric = config.trainer.metric
    if metric.pattern is not None and output.matched is not None:
        reported[metric.name] = _number(output.matched, metric)
    if code == DIVERGED:
        why = reported.get("reason")
        said = why if isinstance(why, str) and why else output.last or f"the program ended with {DIVERGED}"
        return _result(config, reported, "diverged", said, seconds)
    if metric.name not in reported:
        raise ProgramError(_nothing(metric, left))
    value = reported[metric.name]
    if type(value) not in (int, float) or (type(value) is int and abs(value) >= 1 << 63):
        raise ProgramError(f"its {metric.name} is {shortened(repr(value), 40)}, and not a number")
    if not math.isfinite(value):
        return _result(config, reported, "diverged", f"{metric.name} was {value}", seconds)
    return _result(config, reported, "done", None, seconds)


def begin(folder: Path) -> None:
    """Prepare a run's folder for an attempt: without an earlier result, versions and machine in ``env.json``.

    Raises:
        ProgramError: that result cannot be removed.
    """
    try:
        (folder / "result.json").unlink(missing_ok=True)  # from an attempt that was killed
    except OSError as error:
        raise ProgramError(
            f"the result.json of an earlier attempt cannot be removed: {error.strerror}"
        ) from None
    environment = {
        "optstudy": optstudy.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "gpus": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
        "argv": sys.argv,
        "pid": os.getpid(),
    }
    write_json(folder / "env.json", environment)


class Output:
    """The output of a program: passed on up to a limit, and searched for the metric.

    Args:
        metric: the metric to search for.
    """

    def __init__(self, metric: MetricSpec) -> None:
        self._metric = metric
        self._pattern = re.compile(metric.pattern) if metric.pattern else None
        self._written, self._line = 0, b""
        self._tail: deque[bytes] = deque()
        self.last = ""
        """The last non-empty line, shortened."""
        self.found: dict[str, Any] | None = None
        """The last line that is a JSON object with the metric, parsed."""
        self.matched: str | None = None
        """The last match of the pattern."""

    def follow(self, pipe: IO[bytes]) -> None:
        """Read the pipe to its end."""
        with suppress(OSError, ValueError):  # closed while an escaped process holds the other end
            while chunk := os.read(pipe.fileno(), TAIL):
                self._pass_on(chunk)
                *lines, self._line = re.split(rb"[\r\n]", self._line + chunk)
                self._line = self._line[-TAIL:]
                for line in lines:
                    self._look(line)
        self._look(self._line)
        self._line = b""

    def close(self) -> None:
        """Write the end of the output if a part was left out."""
        if self._tail:
            _write(b"\n[...]\n" + b"".join(self._tail)[-TAIL:] + b"\n")
            self._tail.clear()

    def _pass_on(self, chunk: bytes) -> None:
        room = MOST_LOGGED - self._written
        self._written += len(chunk)
        if room > 0:
            _write(chunk[:room])
        if len(chunk) > room:
            if not self._tail:
                _write(b"\noptstudy: more output than %d bytes: only its end is kept\n" % MOST_LOGGED)
            self._tail.append(chunk[max(0, room) :])
            while len(self._tail) > 2 and sum(map(len, self._tail)) - len(self._tail[0]) > TAIL:
                self._tail.popleft()

    def _look(self, line: bytes) -> None:
        text = line.decode(errors="replace").strip()
        if not text:
            return
        self.last = shortened(printable(text), MOST_SAID)
        if self._pattern is not None:
            if matches := self._pattern.findall(text):
                self.matched = matches[-1]
            elif self._pattern.findall(_NOT_FINITE.sub(STANDS_FOR, text))[-1:] == [STANDS_FOR]:
                self.matched = "nan"  # a pattern for digits, such as [0-9.]+, must not pass over it
        if text.startswith("{") and text.endswith("}"):
            with suppress(ValueError, RecursionError):
                tree = json.loads(text)
                if self._metric.name in tree:
                    self.found = tree


def _run(folder: Path, config: Program, output: Output, interruption: Interruption) -> int:
    """Run the program, and return its exit code as reported by the guard."""
    trainer = config.trainer
    own = [sys.executable, "-m", "optstudy.trials", trainer.function or ""]
    command = own if trainer.function is not None else config.command(folder)
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", str(Path(guard.__file__).resolve()), *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=trainer.folder,
        env=_variables(folder, config),
        start_new_session=True,
    )
    assert process.stdin is not None and process.stdout is not None
    reader = threading.Thread(target=output.follow, args=(process.stdout,), daemon=True)
    try:
        reader.start()
        try:
            code = process.wait(trainer.timeout)
        except subprocess.TimeoutExpired:
            _stop(process, interruption)
            said = f"it did not end within {trainer.timeout:g} s (trainer.timeout)"
            raise ProgramError(f"{said}{output.last and f': {output.last}'}") from None
        except Preempted as stop:
            _stop(process, interruption)
            raise Preempted(f"{interruption.came}: the program was stopped") from stop
    finally:
        interruption.deferred = True
        process.stdin.close()  # the guard kills any remaining processes
        process.wait()
        reader.join(PIPE_SECONDS)
        output.close()
    return code


def _stop(process: "subprocess.Popen[bytes]", interruption: Interruption) -> None:
    """Ask the program to exit, and wait for a while; a second Ctrl-C ends the wait."""
    interruption.deferred = True
    with suppress(subprocess.TimeoutExpired):
        process.send_signal(signal.SIGTERM)
        process.wait(GRACE_SECONDS)


def _variables(folder: Path, config: Program) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name not in OF_SEVERAL}
    threads = str(config.trainer.threads)
    ours = {"OPTSTUDY_RUN": str(folder.resolve()), "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    return {"PYTHONUNBUFFERED": "1", **inherited, **ours}


def _left(folder: Path) -> dict[str, Any] | None:
    """Read the ``result.json`` that the program left, NaN included; None if it left none.

    Raises:
        ProgramError: it is not a JSON object.
    """
    path = folder / "result.json"
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise ProgramError("its result.json is no regular file")
        if found.st_size > MOST_RESULT:
            raise ProgramError(f"its result.json has more than {MOST_RESULT} bytes")
        tree = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ProgramError(f"its result.json cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ProgramError(f"its result.json is not JSON ({shortened(str(error), 60)})") from None
    if not isinstance(tree, dict):
        raise ProgramError("its result.json is not a JSON object")
    return tree


def _result(
    config: Program, reported: Mapping[str, Any], state: str, reason: str | None, seconds: float
) -> dict[str, Any]:
    """Return the content of ``result.json``, with null for values that the program did not report."""

    def told(key: str, whole: bool = False) -> Any:
        value: Any = reported.get(key)
        fits = type(value) is int or (type(value) is float and math.isfinite(value) and not whole)
        return value if fits and abs(value) < 1 << 63 else None

    tokens = told("tokens", whole=True)
    return {
        "id": config.id,
        "state": state,
        "reason": reason,
        "step": told("step", whole=True),
        "val_loss": reported[config.trainer.metric.name] if state == "done" else None,
        "initial_val_loss": told("initial_val_loss"),
        "train_loss": told("train_loss"),
        "tokens": tokens,
        "tokens_per_s": None if tokens is None else tokens / seconds,
        "seconds": seconds,
        "step_ms": told("step_ms"),
        "peak_memory_mb": told("peak_memory_mb"),
        "params": told("params", whole=True),
        "state_bytes_per_param": told("state_bytes_per_param"),
        "reported": finite(dict(reported)),
        "format": FORMAT,
    }


def _number(text: str, metric: MetricSpec) -> float:
    try:
        return float(text)
    except ValueError:
        raise ProgramError(f"trainer.metric: the pattern found {text!r}, and not a number") from None


def _nothing(metric: MetricSpec, left: Mapping[str, Any] | None) -> str:
    if metric.pattern is not None:
        return (
            f"it ended with 0, but no line of its output matches trainer.metric's pattern {metric.pattern!r}"
        )
    if left is not None:
        keys = ", ".join(map(str, left)) or "nothing"
        return f"its result.json has no {metric.name!r} (trainer.metric), only {shortened(keys, MOST_SAID)}"
    return (
        "it ended with 0, but left no result: neither a result.json in its folder, nor a line of output that "
        f"is a JSON object with {metric.name!r} (trainer.metric)"
    )


def _ended(code: int) -> str:
    """Describe how a program ended."""
    if code == guard.NOT_STARTED:
        return "it could not be started"
    number = code - 128 if code > 128 else -code
    with suppress(ValueError):
        if code > 128 or code < 0:
            return f"it was ended by {signal.Signals(number).name}"
    return f"it ended with code {code}"


def _write(content: bytes) -> None:
    with suppress(OSError):  # the reader is gone
        sys.stdout.flush()
        while content:
            content = content[os.write(1, content) :]
