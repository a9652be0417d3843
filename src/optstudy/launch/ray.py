"""Ray core: one task per run, each a process ``optstudy train`` on any node that sees the runs folder."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from optstudy.cli import USERS_MISTAKE
from optstudy.errors import UserError
from optstudy.launch.events import Board, Event, OnEvent, Todo
from optstudy.launch.local import last_line

LOOK_SECONDS = 1.0


def launch(
    todo: Todo,
    threads: int,
    device: str = "auto",
    on_event: OnEvent = lambda event: None,
    jobs: int | None = None,
    gpus: float = 0.0,
) -> list[Path]:
    """Run everything on the cluster of ``RAY_ADDRESS``, or on this machine; return the runs set aside.

    Args:
        todo: the runs, in a folder that every node sees under the same path.
        threads: CPUs of each run.
        device: as for ``optstudy train``.
        on_event: called when a run starts or ends, and every second.
        jobs: CPUs of the cluster that is started where there is none; None: all of this machine.
        gpus: share of a GPU that each run gets.

    Raises:
        UserError: Ray is not installed, or a run found a mistake that the others would find too.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise UserError("--launcher ray needs Ray: pip install 'optstudy[ray]'") from None
    local = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": jobs, "include_dashboard": False}
    ray.init(log_to_driver=False, logging_level="error", **local)
    task = ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=0)(_train)
    board = Board(todo, on_event)
    running: dict[Any, Path] = {}
    try:
        while board.open:
            for folder in board.open:
                if folder not in running.values() and board.free(folder):
                    running[task.remote(str(folder.resolve()), device, threads)] = folder
            ended, _ = ray.wait(list(running), timeout=LOOK_SECONDS) if running else ([], [])
            for reference in ended:
                folder = running.pop(reference)
                if _code(ray, reference) == USERS_MISTAKE:
                    raise UserError(last_line(folder))
                on_event(Event("stopped", folder))
            board.look()
            on_event(Event("tick"))
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
        ray.shutdown()
    return board.failed


def _train(folder: str, device: str, threads: int) -> int:
    """Do one run, in a process of its own, on the node that Ray chose."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "optstudy", "train", folder, "--device", device]
    with (Path(folder) / "log.txt").open("a") as log:
        return subprocess.run(command, env=environment, stdout=log, stderr=log, check=False).returncode


def _code(ray: Any, reference: Any) -> int:
    """Exit code of a run; that of a task whose worker died does not matter, its folder tells."""
    try:
        return int(ray.get(reference))
    except ray.exceptions.RayError:
        return 1
