"""Made-up study tables for the tests of statistics and reports."""

import hashlib
import math
from collections.abc import Iterable
from typing import Any

from optstudy.results.curves import FinishedRun, Place, Placed
from optstudy.results.figure import Figure
from optstudy.results.table import Row

INITIAL = 8.3
OPTIMIZERS = {
    "adam": (5.21, 3.2e-3, 0.35, 8.0, 31.0),
    "adafactor": (5.24, 3.2e-3, 0.33, 4.1, 35.0),
    "lion": (5.33, 3.2e-4, 0.5, 4.0, 29.0),
    "signum": (5.37, 3.2e-4, 0.55, 4.0, 28.0),
    "sgdw": (6.37, 0.32, 0.9, 4.0, 26.0),
}
"""Best loss, where, nats per squared decade, state bytes per parameter, step time in ms."""


def row(name: str = "adam", lr: float = 1e-3, loss: float | None = 5.0, seed: int = 0, **changes: Any) -> Row:
    """One finished run; ``loss`` None: it diverged."""
    config = {
        "scale": "pico",
        "seed": seed,
        "data": {
            "corpus": "enwik8",
            "fingerprint": "f00d5eed",
            "tokenizer": "bpe-4096",
            "sequence_length": 128,
        },
        "model": {"vocab_size": 4096, "d_model": 64, "n_layers": 2, "n_heads": 2, "qk_norm": True},
        "optimizer": {"name": name, "lr": lr, "weight_decay": 0.0, "options": {"betas": [0.9, 0.95]}},
        "schedule": {"warmup": 0.1},
        "training": {"steps": 400, "batch_size": 32, "precision": "float32", "threads": 1},
        "numerics": 1,
    }
    values: dict[str, Any] = {
        "id": hashlib.sha256(f"{name} {lr!r} {seed}".encode()).hexdigest()[:12],
        "state": "done" if loss is not None else "diverged",
        "reason": None if loss is not None else "loss is not finite",
        "config": config,
        "val_loss": loss,
        "initial_val_loss": INITIAL,
        "train_loss": loss,
        "step": 400 if loss is not None else 57,
        "tokens": 1_638_400,
        "tokens_per_s": 110_000.0,
        "seconds": 15.2,
        "step_ms": 30.0,
        "peak_memory_mb": 310.0,
        "params": 620_000,
        "state_bytes_per_param": 8.0,
    }
    return Row(**{**values, **changes})


def loss_at(name: str, lr: float, seed: int) -> float | None:
    """A parabola over log10(lr) with a seed's share; None above twenty times the best."""
    best, where, bend, _, _ = OPTIMIZERS[name]
    decades = math.log10(lr / where)
    if decades > 1.3:
        return None
    jitter = 0.01 * math.sin(7.0 * seed + 3 * decades + len(name))
    return min(best + bend * decades**2 + jitter, INITIAL + 0.2)


def place(run: str, label: str, x: Any) -> Place:
    """A run at a setting on ``PANEL / CURVE``, or ``PANEL / ROW / COLUMN`` of a map."""
    *head, curve = label.split(" / ")
    panel, row = (*head, "", "")[:2]
    return Place(run, curve, x, panel, row)


def placed(rows: Iterable[Row], x: str = "optimizer.lr") -> list[Placed]:
    """Runs where their configs say: on their optimizer's curve, at the value of the dotted key ``x``."""
    return [(FinishedRun(row), place(row.id, row.optimizer, row.value(x))) for row in rows]


def figure(seeds: int = 3, points: int = 7, **changes: Any) -> Figure:
    """Five optimizers, half-decades around each one's best."""
    rows = []
    for name, (_, where, _, state, ms) in OPTIMIZERS.items():
        for k in range(points):
            lr = float(f"{where * 10 ** ((k - points // 2) / 2):.3g}")
            rows += [
                row(name, lr, loss_at(name, lr, seed), seed, state_bytes_per_param=state, step_ms=ms)
                for seed in range(seeds)
            ]
    rows, labels = changes.pop("rows", rows), changes.pop("labels", None) or {}
    x = changes.get("x", "optimizer.lr")
    values: dict[str, Any] = {
        "name": "paper/fig1",
        "title": "Five optimizers over the learning rate",
        "asks": "How do the optimizers compare at their best, and how much does the learning rate matter?",
        "scale": "pico",
        "rows": rows,
        "places": [
            place(r.id, labels.get(r.id, r.optimizer), r.value(x))
            for r in rows
            if not labels or r.id in labels
        ],
        "command": "optstudy run paper/fig1 --scale pico",
    }
    return Figure(**{**values, **changes})
