"""Worker processes on this machine, one run each, forked from a server that has imported torch."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from optstudy.ending import FAILED, OF_SEVERAL, PREEMPTED, USERS_MISTAKE
from optstudy.errors import UserError
from optstudy.launch import attempts
from optstudy.launch.events import Board, Event, OnEvent, Todo

LOOK_SECONDS = 1.0
"""Time between checks of what other launchers have done."""
PATIENCE_SECONDS = 30.0
"""Time for a worker to write a checkpoint before it is killed."""

Command = Callable[[list[str]], int]
"""The command line: takes arguments, returns an exit code. A worker must be able to import it by name."""


def launch(
    todo: Todo,
    slots: Sequence[str],
    threads: int,
    command: Command,
    preload: Sequence[str] = (),
    device: str = "auto",
    on_event: OnEvent = lambda event: None,
) -> list[Path]:
    """Run everything to its result and return the runs that were set aside.

    A worker that dies takes no other with it. Runs that other launchers work on are waited for, and taken
    over when their workers are gone. On Ctrl-C and SIGTERM the workers leave checkpoints.

    Args:
        todo: the runs, see :class:`optstudy.launch.events.Board`.
        slots: one worker at a time for each; what ``CUDA_VISIBLE_DEVICES`` is in it, empty to leave it.
        threads: CPU threads of each worker.
        command: what a worker calls with ``train FOLDER``.
        preload: modules that the server imports before it forks workers.
        device: as for ``optstudy train``.
        on_event: called when a run starts or ends, and a few times a second between.

    Raises:
        UserError: a run found a mistake that the others would find too, such as a full disk.
    """
    for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(threads)
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(preload))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    board = Board(todo, on_event)
    free = list(slots)
    running: dict[BaseProcess, tuple[Path, str, int]] = {}
    ended: list[BaseProcess] = []
    looked = time.monotonic()
    try:
        while board.open:
            while free and (folder := board.startable([f for f, *_ in running.values()])) is not None:
                slot = free.pop(0)
                worker: BaseProcess = context.Process(
                    target=_work, args=(command, str(folder), device, slot), daemon=True
                )
                lines = len(attempts.read(folder))  # before the worker can add any
                worker.start()
                running[worker] = (folder, slot, lines)
                on_event(Event("started", folder))
            if ended or time.monotonic() - looked > LOOK_SECONDS:
                board.look()  # after workers have been started, so that they need not wait for it
                looked = time.monotonic()
            wait([worker.sentinel for worker in running], timeout=0.2)
            ended = [worker for worker in running if worker.exitcode is not None]
            for worker in ended:
                folder, slot, lines = running.pop(worker)
                free.append(slot)
                if worker.exitcode == USERS_MISTAKE:
                    raise UserError(attempts.last_line(folder))
                if worker.exitcode == FAILED and len(attempts.read(folder)) == lines:
                    attempts.failed(folder, attempts.last_line(folder))
                on_event(Event("stopped", folder))
            on_event(Event("tick"))
    finally:
        _stop(list(running))
    return board.failed


def _stop(workers: list[BaseProcess]) -> None:
    for worker in workers:
        worker.terminate()
    deadline = time.monotonic() + PATIENCE_SECONDS
    for worker in workers:
        worker.join(max(0.0, deadline - time.monotonic()))
        if worker.exitcode is None:
            worker.kill()
            worker.join()


def _work(command: Command, folder: str, device: str, slot: str) -> None:
    """Run ``optstudy train FOLDER`` in a process of its own, with its output in ``log.txt``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for variable in OF_SEVERAL:
        os.environ.pop(variable, None)
    if slot:
        os.environ["CUDA_VISIBLE_DEVICES"] = slot
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    log = os.open(Path(folder) / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os._exit(command(["train", folder, "--device", device]))


def _end_with(sentinel: Any) -> None:
    """End this process when its launcher is gone, with a checkpoint if there is time for one."""
    wait([sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE_SECONDS)
    os._exit(PREEMPTED)
