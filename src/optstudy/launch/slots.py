"""How many workers run on this machine, and which GPU each of them uses."""

import os
import subprocess
from collections.abc import Iterable
from itertools import cycle, islice

from optstudy.config import SMALL
from optstudy.program import AnyConfig, Program, gpus_of, threads_of
from optstudy.sizes import size_of


def slots(configs: Iterable[AnyConfig], jobs: int | None, device: str, per_gpu: int) -> list[str]:
    """Return each worker's value of ``CUDA_VISIBLE_DEVICES``; an empty one leaves it unchanged.

    Args:
        configs: the runs.
        jobs: number of workers; None: ``per_gpu`` for each GPU, or one per core without GPUs.
        device: ``auto``, ``cpu`` or ``cuda``.
        per_gpu: runs at a time on one GPU.
    """
    configs = list(configs)
    found = gpus() if want_gpu(configs, device) else []
    if found:
        each = min(len(found), max(map(gpus_of, configs)))
        shares = [",".join(found[k : k + each]) for k in range(0, len(found) - each + 1, each)]
        return list(islice(cycle(shares), jobs or len(shares) * per_gpu))
    threads = max(map(threads_of, configs), default=1)
    return [""] * (jobs or max(1, cores() // threads))


def want_gpu(configs: Iterable[AnyConfig], device: str) -> bool:
    """Whether runs use a GPU if there is one; the built-in small models do so only on request."""
    large = any(
        isinstance(c, Program) or ((size := size_of(c)) and size.parameters >= SMALL) for c in configs
    )
    return device == "cuda" or (device == "auto" and large)


def cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> list[str]:
    """Return the GPUs that this process may use, without importing torch."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [one for one in visible.split(",") if one.strip() not in ("", "-1")]
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [str(i) for i, line in enumerate(listed.stdout.splitlines()) if line.startswith("GPU ")]
