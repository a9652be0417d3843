"""What a training step of each optimizer of the field costs beside Adam's, measured in one process.

``python benchmarks/field.py --scale pico --json field.json``. Runs of all optimizers are held at once and
take turns of ten steps, so that whatever else the machine does meets all alike; the mean counts, with what
is done every tenth or hundredth step in it. For numbers that are to be kept the machine should be idle.
Packages that are not installed are left out and named.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from optstudy import presets
from optstudy.config import RunConfig, merge
from optstudy.folders import settle
from optstudy.optim.options import REGISTRY
from optstudy.provenance import installed
from optstudy.scales import SCALES
from optstudy.training.run import Run, choose_device

TURN = 10
"""Steps in a row: as often as SOAP and Shampoo make their bases anew."""


def measure(scale: str, steps: int, device: str, names: list[str]) -> list[dict[str, Any]]:
    """Return a row per optimizer: milliseconds of a step, over Adam's, bytes of state per parameter."""
    runs = {
        name: Run(config, choose_device(config, device)) for name in names for config in [of(name, scale)]
    }
    for run in runs.values():
        run.validation_loss()  # some must be told to train before they step
        for step in range(2):  # what is allocated and compiled at first
            run.step(step)
    seconds = dict.fromkeys(runs, 0.0)
    for first in range(2, 2 + steps, TURN):
        for name, run in runs.items():
            seconds[name] += timed(run, range(first, first + TURN))
    mine = {name: 1e3 * spent / (TURN * len(range(0, steps, TURN))) for name, spent in seconds.items()}
    return [
        {
            "optimizer": name,
            "step_ms": round(mine[name], 3),
            "over_adam": round(mine[name] / mine["adam"], 3),
            "state_bytes_per_param": round(run.footprint()["state_bytes_per_param"], 3),
        }
        for name, run in sorted(runs.items(), key=lambda one: mine[one[0]])
    ]


def of(name: str, scale: str) -> RunConfig:
    """A run of an optimizer at a rate that it trains at."""
    preset = presets.load().get(name)
    rate = 1e-3 if preset is None else preset.lr.start
    return settle(merge(SCALES[scale], {"scale": scale, "optimizer.name": name, "optimizer.lr": rate}))


def timed(run: Run, steps: range) -> float:
    """Return the seconds that some steps took, the GPU's queue included."""
    start = time.perf_counter()
    for step in steps:
        run.step(step)
    if run.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    """Measure, print a table, and write JSON where it is asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", default="pico", choices=list(SCALES))
    parser.add_argument("--steps", type=int, default=200, help="of each, in turns of ten")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--only", nargs="*", default=[], help="optimizers beside adam; all without")
    parser.add_argument("--json", type=Path, help="a file to write")
    chosen = parser.parse_args()
    known = {**dict.fromkeys(REGISTRY, "optstudy"), **{k: one.target for k, one in presets.load().items()}}
    wanted = ["adam", *(name for name in chosen.only or known if name != "adam")]
    for name in (missing := [name for name in wanted if not installed(known[name])]):
        sys.stderr.write(f"{name}: {presets.load()[name].package} is not installed, left out\n")
    names = [name for name in wanted if name not in missing]
    rows = measure(chosen.scale, chosen.steps, chosen.device, names)
    sys.stdout.write("| optimizer | step, ms | x Adam | state, B/param |\n|---|--:|--:|--:|\n")
    for row in rows:
        line = (row["optimizer"], row["step_ms"], row["over_adam"], row["state_bytes_per_param"])
        sys.stdout.write("| `{}` | {:.2f} | {:.2f} | {:.2f} |\n".format(*line))
    if chosen.json is not None:
        on_gpu = chosen.device == "cuda"
        where = torch.cuda.get_device_name() if on_gpu else torch.backends.cpu.get_cpu_capability()
        told = {"scale": chosen.scale, "steps": chosen.steps, "machine": where, "torch": torch.__version__}
        chosen.json.write_text(json.dumps({**told, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
