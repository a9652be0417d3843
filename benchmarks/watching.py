"""Cost of all that a run may record of itself, as a share of its training steps.

    python benchmarks/watching.py [SCALE] [ROWS]

Norms, effective learning rates and second moments are measured once per row, losses by token frequency with
each validation. Steps of a run of Adam, and validations, without and with them alternate in one process; the
medians of their processor time are compared.
"""

import statistics
import sys
import time

import torch

from optstudy.config import RunConfig, resolve
from optstudy.scales import SCALES
from optstudy.training.progress import LOGGED_ROWS
from optstudy.training.run import Run

CPU = torch.device("cpu")


def main(scale: str, rows: int) -> None:
    """Print the medians and their ratios."""
    rowwise = {"watch.norms": True, "watch.moments": True, "training.effective_lr": True}
    base = {"scale": scale, "data.fingerprint": "0", "optimizer": {"name": "adam", "lr": 1e-3}}
    config = resolve(SCALES[scale], base, rowwise)
    run = Run(config, CPU)
    every = max(1, config.total_steps // LOGGED_ROWS)
    plain, watched = list[float](), list[float]()
    for step in range(rows * every + 1):
        last = step % every == 0
        began = time.process_time()
        run.probe.expect(last)
        run.step(step)
        if last:
            run.probe()
        if step:  # the first warms up
            (watched if last else plain).append(1e3 * (time.process_time() - began))
    a_step = statistics.median(plain)
    by_row = (statistics.median(watched) - a_step) / every / a_step
    times = len(run.validation_steps) + 1
    by_validation = 1e3 * _validations(config, rows) * times / config.total_steps / a_step
    sys.stdout.write(
        f"{scale}: {a_step:.2f} ms a step\n"
        f"norms, effective learning rates, second moments every {every} steps: {by_row:+.1%}\n"
        f"losses by token frequency in {times} validations: {by_validation:+.1%}\n"
        f"together: {by_row + by_validation:+.1%}\n"
    )


def _validations(config: RunConfig, rows: int) -> float:
    """Return the seconds that losses by token frequency add to one validation."""
    runs = [Run(resolve(config.model_dump(), {"watch.deciles": on}), CPU) for on in (False, True)]
    seconds: tuple[list[float], list[float]] = ([], [])
    for repeat in range(rows + 1):
        for run, taken in zip(runs, seconds, strict=True):
            began = time.process_time()
            run.validation_loss()
            if repeat:  # the first warms up
                taken.append(time.process_time() - began)
    without, with_deciles = map(statistics.median, seconds)
    return with_deciles - without


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "pico", int(sys.argv[2]) if len(sys.argv) > 2 else 15)
