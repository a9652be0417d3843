"""How a run ends before its end, asked to stop or out of memory; how a process ends. Imports no torch."""

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any, NoReturn, Self

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
"""Requests to stop: preemption by Slurm, a time limit, a user's kill, Ctrl-C."""


class Preempted(Exception):
    """The run was asked to stop; it can be resumed, from a checkpoint if it had taken a step."""


class OutOfMemory(Exception):
    """Memory was asked for that was not there."""


class Interruption:
    """Turns the signals of :data:`SIGNALS` into an orderly end.

    At first a signal raises :class:`Preempted` where it finds the program. Once :attr:`deferred` is set, it
    is only noted in :attr:`came`, to be looked at where state is whole; a second Ctrl-C then raises
    KeyboardInterrupt. A signal that was ignored before stays ignored.
    """

    def __init__(self) -> None:
        self.came: str | None = None
        """Name of the signal that came."""
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


def of_several() -> bool:
    """Whether ``torchrun`` started this process as one of several that train a run together."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def end(code: int) -> NoReturn:
    """End this process with an exit code; one of several skips Python's own clean-up, atexit included.

    A thread of gloo may be about to let go of a collective's tensor, for which it needs Python's lock. Python
    ends threads that ask for it during the clean-up, and C++ then aborts the process: code -6 for a run that
    has ended well. ``destroy_process_group`` ends these threads only once nothing holds the group, and
    DTensor's caches hold it for good (https://github.com/pytorch/pytorch/issues/190489).
    """
    if of_several():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def out_of_memory(error: BaseException) -> OutOfMemory | None:
    """Say in one line that an allocation failed, on CPU or GPU; None for an error of another kind."""
    names = {kind.__name__ for kind in type(error).__mro__}
    on_cpu = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    if not (on_cpu or names & {"MemoryError", "OutOfMemoryError"}):
        return None
    said = " ".join(str(error).split()) or "an allocation failed"
    said = said[said.find("you tried") :] if "you tried" in said else said
    hint = "lower training.micro_batch_size, or run fewer at a time (--jobs)"
    return OutOfMemory(f"out of memory: {said[:200].rstrip('. ')}; {hint}")
