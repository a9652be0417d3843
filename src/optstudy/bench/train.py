"""Training speed, compared with a plain loop and Hugging Face's closest model on the same shapes.

All train on the same number of tokens per step, in bfloat16, with Adam's rule, clipping and z-loss. Each runs
in a separate process. Each round takes one step of every row. The fastest step of a row counts, so that load
on the machine affects all rows alike. FLOPs are those that the model needs (6 per matrix weight and token,
plus causal attention), not those that a program executes. The share is relative to the fastest bfloat16
product of two square matrices, measured between the rounds.
"""

import itertools
import multiprocessing
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch

from optstudy.bench.loops import Step, plain, transformers
from optstudy.config import RunConfig, forward_flops, resolve
from optstudy.data import text
from optstudy.scales import SCALES
from optstudy.training.run import Run, choose_device, peak_memory_mb

Shape = tuple[int, int, int, int, int]
"""Vocabulary, width, depth, tokens per sequence, sequences per step."""
CPU_SHAPES: tuple[Shape, ...] = (
    (4096, 128, 4, 128, 32),
    (8192, 256, 6, 256, 16),
    (8192, 512, 8, 512, 8),
)
GPU_SHAPES: tuple[Shape, ...] = ((32_128, 1024, 12, 512, 256),)
"""The paper's 150m with its global batch."""
GPU_MICRO_BATCH = 64
ROUNDS = 20
MATRIX = {"cpu": 2048, "cuda": 8192}
"""Side of the matrices whose product gives the machine's peak speed."""


@dataclass(frozen=True)
class Speed:
    """One program's speed for one shape."""

    name: str
    peer: bool
    shape: str
    """Vocabulary/width/depth/sequence length/sequences per step."""
    tokens_per_s: float
    flops_per_s: float
    peak_share: float
    """Share of the speed of the machine's bfloat16 matrix product, as measured."""
    peak_memory_mb: float


def bench(
    peers: bool = True,
    rounds: int = ROUNDS,
    shapes: Sequence[Shape] = (),
    threads: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> list[Speed]:
    """Measure this project's training step, and those of installed peers.

    Args:
        peers: include a plain loop and transformers' model.
        rounds: steps of each; the fastest counts.
        shapes: shapes to measure; if empty, three for a CPU, or the paper's 150m for a GPU.
        threads: CPU threads of each; 0: torch's default.
        say: called with progress messages.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows = []
    for shape in shapes or (GPU_SHAPES if device == "cuda" else CPU_SHAPES):
        config = _config(shape, device, threads or torch.get_num_threads())
        rows += _measure(config, device, ["optstudy", *(PEERS if peers else ())], rounds, say)
    return rows


def _config(shape: Shape, device: str, threads: int) -> RunConfig:
    vocab_size, width, depth, length, batch = shape
    micro = {"micro_batch_size": GPU_MICRO_BATCH} if device == "cuda" else {}
    return resolve(
        {"scale": "bench", **SCALES["pico"]},
        {
            "data": {
                "fingerprint": text.fingerprint("enwik8"),
                "tokenizer": f"bpe-{min(vocab_size, 8192)}",
                "sequence_length": length,
            },
            "model": {"vocab_size": vocab_size, "d_model": width, "n_layers": depth, "n_heads": width // 64},
            "optimizer": {"name": "adam", "lr": 1e-3},
            "training": {"batch_size": batch, "precision": "bfloat16", "threads": threads, **micro},
            "validation": {"sequences": batch},
        },
    )


def _measure(
    config: RunConfig, device: str, names: Sequence[str], rounds: int, say: Callable[[str], None]
) -> list[Speed]:
    """Time the programs for one shape, one step of each in turn."""
    shape = "/".join(map(str, _shape(config)))
    context = multiprocessing.get_context("spawn")
    workers: dict[str, tuple[Any, Connection]] = {}
    try:
        for name in names:
            say(f"{shape}: {name}")
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(name, config, device, theirs), daemon=True)
            process.start()
            theirs.close()
            if (problem := ours.recv()) is None:
                workers[name] = process, ours
            else:
                say(f"{name}: {problem}, left out")
        seconds = dict.fromkeys(workers, float("inf"))
        memory = dict.fromkeys(workers, 0.0)
        peak = 0.0
        for _ in range(rounds):
            peak = max(peak, _matmul_flops(device))
            for name, (_, pipe) in workers.items():
                pipe.send("step")
                taken, memory[name] = pipe.recv()
                seconds[name] = min(seconds[name], taken)
    finally:
        for process, pipe in workers.values():
            pipe.close()
            process.join()
    return [_row(config, name, shape, seconds[name], peak, memory[name]) for name in workers]


def _row(config: RunConfig, name: str, shape: str, seconds: float, peak: float, memory_mb: float) -> Speed:
    per_s = config.training.batch_size * config.data.sequence_length / seconds
    flops = 3 * per_s * forward_flops(config.model, config.data.sequence_length)
    return Speed(name, name in PEERS, shape, per_s, flops, flops / peak, memory_mb)


def _shape(config: RunConfig) -> Shape:
    model = config.model
    return (
        model.vocab_size,
        model.sizes.width,
        model.sizes.layers,
        config.data.sequence_length,
        config.training.batch_size,
    )


def _matmul_flops(device: str) -> float:
    """Return the floating-point operations per second of a large bfloat16 product."""
    side = MATRIX[device]
    a = torch.ones(side, side, dtype=torch.bfloat16, device=device)
    seconds = min(_time(lambda: a @ a, device) for _ in range(3))
    return 2.0 * side**3 / seconds


def _time(step: Step, device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def _work(name: str, config: RunConfig, device: str, pipe: Connection) -> None:
    """Build one program's step and take it on request; runs in a separate process."""
    torch.set_num_threads(config.training.threads)
    torch.set_flush_denormal(True)
    try:
        step = (PEERS.get(name) or _ours)(config, torch.device(device))
    except ImportError as error:
        pipe.send(str(error))
        return
    for _ in range(3):
        step()
    pipe.send(None)
    while True:
        try:
            pipe.recv()
        except EOFError:
            return
        pipe.send((_time(step, device), peak_memory_mb(torch.device(device))))


def _ours(config: RunConfig, device: torch.device) -> Step:
    """Return the training step of ``optstudy train``."""
    run = Run(config, choose_device(config, device.type))
    steps = itertools.count()
    return lambda: run.step(next(steps))


PEERS: dict[str, Callable[[RunConfig, torch.device], Step]] = {
    "plain loop": plain,
    "transformers GPT-NeoX": transformers,
}


def as_json(rows: Iterable[Speed]) -> list[dict[str, Any]]:
    """Return the rows as JSON objects."""
    return [asdict(row) for row in rows]


def as_table(rows: Sequence[Speed]) -> list[tuple[str, ...]]:
    """Return a header and the rows as text for a terminal."""
    lines: list[tuple[str, ...]] = [("shape", "program", "tokens/s", "GFLOP/s", "of matmul", "peak MB")]
    return lines + [
        (
            row.shape,
            row.name,
            f"{row.tokens_per_s:,.0f}",
            f"{row.flops_per_s / 1e9:,.0f}",
            f"{row.peak_share:.0%}",
            f"{row.peak_memory_mb:,.0f}",
        )
        for row in rows
    ]
