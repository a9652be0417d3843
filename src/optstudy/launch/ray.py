"""Ray: one task per run, which starts ``optstudy train`` on any node that can access the runs folder."""

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from optstudy.ending import HELD, OF_SEVERAL, PREEMPTED
from optstudy.errors import UserError
from optstudy.launch import attempts
from optstudy.launch.events import Board, Event, OnEvent, Todo

LOOK_SECONDS = 1.0


def launch(
    todo: Todo,
    threads: int,
    device: str = "auto",
    on_event: OnEvent = lambda event: None,
    jobs: int | None = None,
    gpus: float = 0.0,
) -> list[Path]:
    """Run everything on the cluster at ``RAY_ADDRESS``, or on this machine; return the runs set aside.

    Args:
        todo: the runs, in a folder with the same path on every node.
        threads: CPUs per run.
        device: as for ``optstudy train``.
        on_event: called when a run starts or ends, and every second.
        jobs: runs at a time; None: as many as the cluster has room for.
        gpus: GPUs per run, possibly a fraction, if the cluster has any.

    Raises:
        UserError: Ray is not installed or does not start; or a run failed for a reason that affects all runs.
    """
    ray = _connected(jobs and jobs * threads)
    gpus = gpus if ray.cluster_resources().get("GPU", 0) else 0.0
    task = ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=0)(_train)
    board = Board(todo, on_event)
    running: dict[Any, tuple[Path, int]] = {}
    try:
        while board.open:
            taken = {folder for folder, _ in running.values()}
            for folder in board.open:
                if jobs is not None and len(running) >= jobs:
                    break
                if folder not in taken and board.free(folder):
                    lines = len(attempts.read(folder))
                    running[task.remote(str(folder.resolve()), device, threads)] = folder, lines
            ended, _ = ray.wait(list(running), timeout=LOOK_SECONDS) if running else ([], [])
            for reference in ended:
                folder, lines = running.pop(reference)
                if _ended_by_itself(ray, reference):
                    attempts.account(folder, lines)
                on_event(Event("stopped", folder))
            board.look()
            on_event(Event("tick"))
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
        ray.shutdown()
    return board.failed


def _connected(cpus: int | None) -> Any:
    """Return Ray, connected to the cluster, or to a new local one with this many CPUs."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        ray: Any = importlib.import_module("ray")
    except ImportError:
        raise UserError("--launcher ray needs Ray: pip install 'optstudy[ray]'") from None
    local = {} if os.environ.get("RAY_ADDRESS") else {"num_cpus": cpus, "include_dashboard": False}
    try:
        ray.init(log_to_driver=False, logging_level="error", **local)
    except Exception as error:  # Ray raises plain exceptions
        raise UserError(f"--launcher ray: {' '.join(str(error).split())[:300]}") from None
    return ray


def _train(folder: str, device: str, threads: int) -> int:
    """Train one run in a separate process, on the node that Ray chose."""
    environment = {name: value for name, value in os.environ.items() if name not in OF_SEVERAL}
    environment |= {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
    command = [sys.executable, "-m", "optstudy", "train", folder, "--device", device]
    with (Path(folder) / "log.txt").open("a") as log:
        return subprocess.run(command, env=environment, stdout=log, stderr=log, check=False).returncode


def _ended_by_itself(ray: Any, reference: Any) -> bool:
    """Whether a run ended with its own exit code, not by a signal, a lost lease or its worker's death."""
    try:
        code = int(ray.get(reference))
        return code >= 0 and code not in (HELD, PREEMPTED)
    except ray.exceptions.RayError:
        return False
