"""Worker processes on this machine, one per run, forked from a server that has imported torch."""

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
"""Seconds between checks of what other launchers have done."""
PATIENCE_SECONDS = 30.0
"""Seconds for a worker to write a checkpoint before it is killed."""

Command = Callable[[list[str]], int]
"""The command line: takes arguments, returns an exit code. Workers must be able to import it by name."""


def launch(
    todo: Todo,
    slots: Sequence[str],
    threads: int,
    command: Command,
    preload: Sequence[str] = (),
    device: str = "auto",
    on_event: OnEvent = lambda event: None,
) -> list[Path]:
    """Run everything until it has results; return the runs that were set aside.

    A worker that dies does not affect the others. Runs that other launchers work on are waited for, and taken
    over if their workers are gone. On Ctrl-C and SIGTERM the workers write checkpoints.

    Args:
        todo: the runs, see :class:`optstudy.launch.events.Board`.
        slots: one worker at a time per slot; its value of ``CUDA_VISIBLE_DEVICES``, empty to leave it unset.
        threads: CPU threads per worker.
        command: what a worker calls with ``train FOLDER``.
        preload: modules that the server imports before it forks workers.
        device: as for ``optstudy train``.
        on_event: called when a run starts or ends, and a few times per second in between.

    Raises:
        UserError: a run failed for a reason that affects all runs, such as a full disk.
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
                board.look()  # after starting workers, so that they need not wait for it
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
    """Run ``optstudy train FOLDER`` in a separate process, with its output in ``log.txt``."""
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
    """Stop this process when its launcher is gone, with a checkpoint if there is time."""
    wait([sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(PATIENCE_SECONDS)
    os._exit(PREEMPTED)
