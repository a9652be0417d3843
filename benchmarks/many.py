"""How long commands take that read thousands of recorded runs.

    python benchmarks/many.py /tmp/many --seeds 10

creates a study of five optimizers at 200 learning rates with ten seeds, 10,000 runs with realistic records,
and then runs ``status``, ``report`` and ``export`` on it, each in a separate process, three times. An
existing folder is kept.
"""

import argparse
import json
import math
import random
import subprocess
import sys
import time
from pathlib import Path

from optstudy.config import RunConfig
from optstudy.grids import spaced
from optstudy.study import library as study

OPTIMIZERS = {
    "adam": (5.21, 3e-3, 0.35),
    "adafactor": (5.24, 3e-3, 0.33),
    "lion": (5.33, 3e-4, 0.5),
    "signum": (5.37, 3e-4, 0.55),
    "sgdw": (6.37, 0.3, 0.9),
}
"""Best loss, its learning rate, nats per squared decade."""
INITIAL = 8.15
ROWS = 100
"""Number of metric rows of a run."""
ENVIRONMENT = {
    "optstudy": "0.1.0",
    "python": "3.11.7",
    "torch": "2.13.0+cpu",
    "cpu": "AVX512",
    "device": "cpu",
}


def make(home: Path, rates: int, seeds: int) -> str:
    """Write the study and its runs' folders; return the study's file."""
    file = home / "many.yaml"
    if file.exists():
        return str(file)
    home.mkdir(parents=True, exist_ok=True)
    lines = [
        "title: Very many runs",
        "asks: How long do thousands of runs take to read?",
        f"seeds: {list(range(seeds))}",
        f"axes: {{optimizer.name: [{', '.join(OPTIMIZERS)}]}}",
        "optimizers:",
    ]
    for name, (_, best, _) in OPTIMIZERS.items():
        dense = max(1, rates // 4)
        low = spaced(best, round(-2.4 * dense), dense)
        grid = f"{{from: {low}, to: {spaced(low, rates - 1, dense)}, per_decade: {dense}}}"
        lines.append(f"  {name}: {{axes: {{optimizer.lr: {grid}}}}}")
    lines.append("figure: {kind: sweep, x: optimizer.lr, curve: optimizer.name}")
    text = "\n".join(lines) + "\n"
    for point in study.Study("many", study.parse(text, str(file))).points("pico"):
        _write(home / "runs" / point.id, point)
    file.write_text(text)
    return str(file)


def _write(folder: Path, point: study.PlannedRun) -> None:
    config = point.config
    assert isinstance(config, RunConfig)
    best, where, bend = OPTIMIZERS[config.optimizer.name]
    noise = random.Random(point.id)
    decades = math.log10(config.optimizer.lr / where)
    diverged = decades > 1.3
    loss = min(best + bend * decades**2 + noise.gauss(0, 0.02), INITIAL)
    steps = config.total_steps // (4 if diverged else 1)
    per_step = config.tokens // config.total_steps
    metrics = [{"step": 0, "tokens": 0, "val_loss": INITIAL, "seconds": 0.1}]
    for k in range(1, ROWS + 1):
        step = steps * k // ROWS
        at = loss + (INITIAL - loss) * math.exp(-5 * k / ROWS) + noise.gauss(0, 0.05)
        row = {"step": step, "tokens": step * per_step, "loss": at, "grad_norm": noise.random()}
        metrics.append({**row, "seconds": step * 0.0157})
        if k % 10 == 0:
            metrics.append(
                {"step": step, "tokens": step * per_step, "val_loss": at, "seconds": step * 0.0157}
            )
    result = {
        "id": point.id,
        "state": "diverged" if diverged else "done",
        "reason": "loss is not finite" if diverged else None,
        "step": steps,
        "val_loss": None if diverged else loss,
        "initial_val_loss": INITIAL,
        "train_loss": None if diverged else loss + 0.01,
        "tokens": steps * per_step,
        "tokens_per_s": per_step / 0.0157,
        "seconds": steps * 0.0157 * noise.uniform(0.98, 1.02),
        "step_ms": 15.7 * noise.uniform(0.98, 1.02),
        "peak_memory_mb": 362.4,
        "params": 361_024,
        "state_bytes_per_param": 8.0 if config.optimizer.name == "adam" else 4.0,
        "weights_sha256": noise.randbytes(32).hex(),
        "format": 1,
    }
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config.model_dump(mode="json"), indent=1) + "\n")
    (folder / "env.json").write_text(json.dumps(ENVIRONMENT, indent=1) + "\n")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in metrics))
    (folder / "result.json").write_text(json.dumps(result, indent=1) + "\n")


def main() -> None:
    """Make the runs, time the commands."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("home", type=Path)
    parser.add_argument("--rates", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    file, runs = make(chosen.home, chosen.rates, chosen.seeds), str(chosen.home / "runs")
    out, table = str(chosen.home / "report"), str(chosen.home / "runs.csv")
    for command in (
        ["status", file, "--runs", runs],
        ["report", file, "--runs", runs, "--out", out],
        ["export", "--runs", runs, "--out", table],
    ):
        took = []
        for _ in range(chosen.rounds):
            began = time.perf_counter()
            subprocess.run(
                [sys.executable, "-m", "optstudy", *command], check=True, stdout=subprocess.DEVNULL
            )
            took.append(time.perf_counter() - began)
        sys.stdout.write(f"{command[0]:8} {' '.join(f'{seconds:.2f}' for seconds in took)} s\n")


if __name__ == "__main__":
    main()
