"""The end of a run or process: exit codes, signals, out of memory, several processes. Imports no torch."""

import errno
import os
import signal
import sys
import threading
from collections.abc import Mapping
from types import FrameType
from typing import Any, NoReturn, Self

from optstudy.errors import NO_ROOM, UserError

DONE = 0
FAILED = 1
"""A bug, or out of memory."""
USERS_MISTAKE = 2
"""A mistake that the user can correct, or a full disk."""
DIVERGED = 3
"""The run has a result: it diverged."""
HELD = 4
"""Another process is working on the run; nothing was done."""
PREEMPTED = 75
"""The run was asked to stop; the same command continues it."""


def result_code(result: Mapping[str, Any]) -> int:
    """Return the exit code of a run with a result."""
    return DIVERGED if result["state"] == "diverged" else DONE


USERS_ERRNOS = frozenset(
    NO_ROOM
    | {errno.EACCES, errno.EPERM, errno.EROFS}  # no permission
    | {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENXIO}  # the wrong kind of file
    | {errno.ENAMETOOLONG, errno.ELOOP}
)
"""Operating-system errors that the user can correct; they are reported in one line."""

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
"""Requests to stop: preemption by Slurm, a time limit, a user's kill, Ctrl-C."""


class Preempted(Exception):
    """The run was asked to stop; it can be resumed, from a checkpoint if it has taken a step."""


class Asked(Preempted):
    """Another training program asked to be run again."""


class RunFailed(Exception):
    """A run ended without a result; reported in one line."""


class OutOfMemory(RunFailed):
    """An allocation failed."""


class ProgramError(RunFailed):
    """Another training program failed, took too long, or left no result."""


class Unloadable(RunFailed):
    """No checkpoint of the run can be loaded, and its work is not discarded without asking."""


class Interruption:
    """Turns the signals of :data:`SIGNALS` into an orderly end.

    Initially a signal raises :class:`Preempted` immediately. Once :attr:`deferred` is set, it is only stored
    in :attr:`came`, and the program checks it whenever its state is consistent; a second Ctrl-C then raises
    KeyboardInterrupt. Signals that were ignored before stay ignored.
    """

    def __init__(self) -> None:
        self.came: str | None = None
        """Name of the received signal."""
        self.deferred = False

    def __enter__(self) -> Self:
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        again = self.came is not None
        self.came = signal.Signals(number).name
        if not self.deferred:
            raise Preempted(f"{self.came}: stopped before it had taken a step")
        if again and number == signal.SIGINT:
            raise KeyboardInterrupt

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def exit_code(error: BaseException) -> int:
    """Return the exit code of the command line for an error."""
    if isinstance(error, (KeyboardInterrupt, Preempted)):
        return PREEMPTED
    users = isinstance(error, UserError) or (isinstance(error, OSError) and error.errno in USERS_ERRNOS)
    return USERS_MISTAKE if users else FAILED


OF_SEVERAL = (
    *("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "ROLE_RANK"),
    *("ROLE_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"),
)
"""Environment variables by which ``torchrun`` and some platforms mark a process as one of several."""

_several = False


def of_several() -> bool:
    """Whether ``torchrun`` started this process as one of several that train one run.

    Only ``optstudy train`` uses this; a study's workers are started without these variables.

    Raises:
        UserError: the variables say so, but do not identify this process.
    """
    global _several
    if not os.environ.get("WORLD_SIZE", "").strip():
        return False
    size = _number("WORLD_SIZE", 1)
    if size == 1:
        return False
    _number("RANK", 0, size)
    if "LOCAL_RANK" in os.environ:
        _number("LOCAL_RANK", 0, size)
    missing = [name for name in ("MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if missing:
        raise UserError(f"WORLD_SIZE is {size}, but {missing[0]} is not set; {_START_OR_UNSET}")
    _several = True
    return True


_START_OR_UNSET = "start the processes of one run with torchrun, or unset WORLD_SIZE for a single one"


def _number(name: str, least: int, below: int | None = None) -> int:
    """Read an integer from the environment."""
    said = os.environ.get(name)
    try:
        number = int(said or "")
    except ValueError:
        number = least - 1
    if number < least or (below is not None and number >= below):
        came = "is not set" if said is None else f"is {said!r}"
        allowed = f"at least {least}" if below is None else f"from {least} to {below - 1}"
        raise UserError(f"{name} {came}, where a whole number {allowed} is needed; {_START_OR_UNSET}")
    return number


def end(code: int) -> NoReturn:
    """Exit with a code; in one of several processes, skip Python's clean-up, including atexit.

    A gloo thread may still have to release a collective's tensor and needs the GIL for it. During clean-up,
    Python ends threads that request the GIL, and C++ then aborts the process: code -6 for a successful run.
    ``destroy_process_group`` ends these threads only when nothing refers to the group, but DTensor's caches
    keep a reference forever (https://github.com/pytorch/pytorch/issues/190489).
    """
    if _several:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def out_of_memory(error: BaseException) -> OutOfMemory | None:
    """Return a failed allocation, on CPU or GPU, as a one-line error; None for any other error."""
    names = {kind.__name__ for kind in type(error).__mro__}
    on_cpu = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    if not (on_cpu or names & {"MemoryError", "OutOfMemoryError"}):
        return None
    said = " ".join(str(error).split()) or "an allocation failed"
    said = said[said.find("you tried") :] if "you tried" in said else said
    hint = "lower training.micro_batch_size, or run fewer at a time (--jobs)"
    return OutOfMemory(f"out of memory: {said[:200].rstrip('. ')}; {hint}")
