"""Worker processes on this machine, one run each, from a server that has torch loaded."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from optstudy.cli import DIVERGED, DONE, PREEMPTED, USERS_MISTAKE
from optstudy.cli import run as command_line
from optstudy.errors import UserError

ATTEMPTS = 2
"""Times that a run which fails by itself is started before it is set aside."""


@dataclass(frozen=True)
class Event:
    """Something happened to a run: ``started``, ``ended`` or ``failed``; or nothing did: ``tick``."""

    kind: str
    folder: Path | None = None


def launch(
    folders: Sequence[Path],
    jobs: int,
    threads: int,
    device: str = "auto",
    on_event: Callable[[Event], None] = lambda event: None,
) -> list[Path]:
    """Run every folder to its result, ``jobs`` at a time, and return those that failed.

    A worker that dies takes no other with it; a run that fails by itself is tried once more. On Ctrl-C the
    workers leave checkpoints.

    Args:
        folders: each holds a ``config.json``; those with a result are passed over.
        jobs: processes at a time.
        threads: CPU threads of each.
        device: as for ``optstudy train``.
        on_event: called when a run starts or ends, and a few times a second between.

    Raises:
        UserError: a run found a mistake that the others would find too, such as a full disk.
    """
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(threads)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["optstudy.train"])
    waiting = [(folder, 1) for folder in folders if not (folder / "result.json").exists()]
    running: dict[BaseProcess, tuple[Path, int]] = {}
    failed: list[Path] = []
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                folder, attempt = waiting.pop(0)
                worker: BaseProcess = context.Process(target=_work, args=(str(folder), device), daemon=True)
                worker.start()
                running[worker] = (folder, attempt)
                on_event(Event("started", folder))
            wait([worker.sentinel for worker in running], timeout=0.2)
            for ended in [worker for worker in running if worker.exitcode is not None]:
                folder, attempt = running.pop(ended)
                if ended.exitcode == USERS_MISTAKE:
                    raise UserError(last_line(folder))
                if ended.exitcode in (DONE, DIVERGED):
                    on_event(Event("ended", folder))
                elif attempt < ATTEMPTS:
                    waiting.insert(0, (folder, attempt + 1))
                else:
                    failed.append(folder)
                    on_event(Event("failed", folder))
            on_event(Event("tick"))
    finally:
        _stop(list(running))
    return failed


def last_line(folder: Path) -> str:
    """Return the last line of a run's log, without the program's name."""
    lines = (folder / "log.txt").read_text(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("optstudy: ") if lines else f"{folder}: failed without a word"


def _stop(workers: list[BaseProcess]) -> None:
    for worker in workers:
        worker.terminate()
    deadline = time.monotonic() + 30
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))
        if worker.exitcode is None:
            worker.kill()
            worker.join()


def _work(folder: str, device: str) -> None:
    """Do one run in a process of its own: exactly ``optstudy train FOLDER``, its output in ``log.txt``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    log = os.open(Path(folder) / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os._exit(command_line(["train", folder, "--device", device]))


def _end_with(sentinel: Any) -> None:
    """End this process when its launcher is gone, so that two launchers never work on one run."""
    wait([sentinel])
    os._exit(PREEMPTED)
