"""Cost of norms, effective learning rates and second moments in each row, as a share of the step.

    python benchmarks/watching.py [SCALE] [ROWS]

Rows of a run of Adam alternate between without and with watching, in one process; the medians of their
processor time are compared.
"""

import statistics
import sys
import time

import torch

from optstudy.config import resolve
from optstudy.scales import SCALES
from optstudy.training.progress import LOGGED_ROWS
from optstudy.training.run import Run


def main(scale: str, rows: int) -> None:
    """Print the two medians and their ratio."""
    watching = {"watch.norms": True, "watch.moments": True, "training.effective_lr": True}
    base = {"scale": scale, "data.fingerprint": "0", "optimizer": {"name": "adam", "lr": 1e-3}}
    config = resolve(SCALES[scale], base, watching)
    run = Run(config, torch.device("cpu"))
    every = max(1, config.total_steps // LOGGED_ROWS)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for row in range(2 * rows + 1):
        watched = row % 2 == 1
        began = time.process_time()
        for step in range(row * every, (row + 1) * every):
            run.probe.expect(watched and step == (row + 1) * every - 1)
            run.step(step)
        if watched:
            run.probe()
        if row:  # the first warms up
            seconds[watched].append((time.process_time() - began) / every)
    plain, with_watching = (1e3 * statistics.median(seconds[watched]) for watched in (False, True))
    sys.stdout.write(
        f"{scale}: {plain:.2f} ms a step, {with_watching:.2f} ms with all of it every "
        f"{every} steps: {with_watching / plain - 1:+.1%}\n"
    )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "pico", int(sys.argv[2]) if len(sys.argv) > 2 else 15)
