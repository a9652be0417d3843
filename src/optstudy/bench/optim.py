"""Step times of optimizers, compared with those of other libraries in the same run.

They use the shapes of a real transformer (59 million weights: d = 512, 8 layers, 32,768 tokens, untied) and
one set of parameters and gradients. Each round takes one step of every row. The fastest step of a row counts,
so that load on the machine affects all rows alike. A row's bandwidth is the minimum number of bytes moved
divided by that time: parameters and full-size state are read and written, gradients are read once, or twice
if a mean of squares comes first.

On a GPU, the step time is the GPU's work, which in training is queued well ahead. The host's time for the
call is given separately.
"""

import importlib
import importlib.util
import sys
import time
import types
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import Optimizer

from optstudy.config import RunConfig, resolve
from optstudy.optim.options import REGISTRY
from optstudy.scales import SCALES
from optstudy.training.build import build_optimizer
from optstudy.training.model import Transformer
from optstudy.training.run import choose_device

OURS = (*REGISTRY, "adalayer_star", "hybrid_last_norm", "frozen_keep_last_norm")
"""Every optimizer, and recipes with a step of their own."""
LR = 1e-6
ROUNDS = 50
WAIT_CYCLES = 100_000_000
"""GPU cycles, about 50 ms: longer than a host needs to queue a step."""
READ_ONLY_STATE = ("h",)
"""State that a step reads but does not write: Sophia's curvature."""

FUSED_ADAMW = "torch AdamW fused"
Maker = Callable[[list[nn.Parameter]], Optimizer]


@dataclass(frozen=True)
class StepTime:
    """One optimizer's speed."""

    name: str
    peer: bool
    step_ms: float
    """The fastest step, milliseconds."""
    host_ms: float
    """The fastest call, milliseconds: the whole step on a CPU, the host's part on a GPU."""
    gb_per_s: float
    """Minimum bytes moved per step divided by that time, 10^9 bytes per second."""
    ratio_to_fused_adamw: float
    """Its bandwidth divided by that of torch's fused AdamW in the same run."""


def _peer(module: str, name: str, **options: Any) -> Maker:
    """Build another library's optimizer on demand; ImportError if it is not installed."""

    def make(params: list[nn.Parameter]) -> Optimizer:
        if module.startswith("timm."):
            _skip_package_code("timm", "timm.optim")
        optimizer: Optimizer = getattr(importlib.import_module(module), name)(params, lr=LR, **options)
        return optimizer

    return make


def _skip_package_code(*packages: str) -> None:
    """Replace packages by empty modules, so that their submodules load without torchvision."""
    for package in packages:
        if package not in sys.modules:
            spec = importlib.util.find_spec(package)
            if spec is None:
                raise ImportError(f"no package {package}")
            sys.modules[package] = empty = types.ModuleType(package)
            empty.__path__ = list(spec.submodule_search_locations or ())


PEERS: dict[str, tuple[Maker, int]] = {
    FUSED_ADAMW: (_peer("torch.optim", "AdamW", fused=True), 28),
    "torch AdamW foreach": (_peer("torch.optim", "AdamW", foreach=True), 28),
    "torch SGD fused, momentum": (_peer("torch.optim", "SGD", fused=True, momentum=0.9), 20),
    "torch Adafactor": (_peer("torch.optim", "Adafactor"), 16),
    "timm Lion": (_peer("timm.optim.lion", "Lion"), 20),
    "timm AdafactorBigVision": (_peer("timm.optim.adafactor_bv", "AdafactorBigVision"), 20),
    "timm SGDW": (_peer("timm.optim.sgdw", "SGDW", momentum=0.9), 20),
    "pytorch-optimizer Lion": (_peer("pytorch_optimizer", "Lion"), 20),
    "pytorch-optimizer AdaFactor": (_peer("pytorch_optimizer", "AdaFactor"), 24),
    "lion-pytorch Lion": (_peer("lion_pytorch", "Lion"), 20),
    "torch-optimi Lion": (_peer("optimi", "Lion"), 20),
    "torch-optimi AdamW": (_peer("optimi", "AdamW"), 28),
    "heavyball AdamW": (_peer("heavyball", "AdamW"), 28),
}
"""Each with the minimum number of bytes moved per float32 weight."""


def bench(
    peers: bool = True,
    rounds: int = ROUNDS,
    device: str = "auto",
    say: Callable[[str], None] = lambda _: None,
) -> list[StepTime]:
    """Measure every optimizer, and the peers that are installed (torch's own always are).

    Args:
        peers: include other libraries.
        rounds: steps of each; the fastest counts.
        device: ``auto`` (a GPU if there is one), ``cpu`` or ``cuda``.
        say: called with progress messages.

    Raises:
        UserError: another device, or ``cuda`` without a GPU.
    """
    torch.set_flush_denormal(True)
    model, configs = _subjects()
    model.to(choose_device(configs[OURS[0]], device))
    params = list(model.parameters())
    generator = torch.Generator().manual_seed(0)
    gradients = [0.01 * torch.randn(p.shape, generator=generator).to(p) for p in params]
    weights = sum(p.numel() for p in params)
    steps: dict[str, tuple[Callable[[], Any], int]] = {}
    for name, config in configs.items():
        say(name)
        optimizer = build_optimizer(model, config)
        _warm_up(optimizer, params, gradients, config.schedule.freeze_steps + 2)
        steps[name] = (optimizer.step, least_bytes(optimizer))
    for name, (make, bytes_per_weight) in PEERS.items():
        if name != FUSED_ADAMW and not peers:
            continue
        say(name)
        try:
            optimizer = make(params)
        except (ImportError, AttributeError):
            say(f"{name}: not installed (or another version), left out")
            continue
        _warm_up(optimizer, params, gradients, 2)
        steps[name] = (optimizer.step, bytes_per_weight * weights)
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
    for _ in range(rounds):
        for name, (step, _) in steps.items():
            taken[name].append(_time(step, params, gradients))
    return _rows(taken, steps)


def _subjects() -> tuple[Transformer, dict[str, RunConfig]]:
    base = {
        "scale": "pico",
        **SCALES["pico"],
        "data.fingerprint": "none",
        "model": {"vocab_size": 32_768, "d_model": 512, "n_layers": 8, "n_heads": 8},
    }
    configs = {}
    for name in OURS:
        frozen = {"schedule": {"freeze_steps": 2}} if name.startswith("frozen") else {}
        own = {"optimizer": {"name": name, "lr": LR}, **frozen}
        configs[name] = resolve(base, own)
    return Transformer(configs[OURS[0]].model, seed=0), configs


def _warm_up(
    optimizer: Optimizer, params: Sequence[nn.Parameter], gradients: Sequence[Tensor], steps: int
) -> None:
    for _ in range(steps):
        _time(optimizer.step, params, gradients)


def _time(
    step: Callable[[], Any], params: Sequence[nn.Parameter], gradients: Sequence[Tensor]
) -> tuple[float, float]:
    """Return the seconds of one step, and of the call; gradients are set first, as some steps clear them."""
    for p, g in zip(params, gradients, strict=True):
        p.grad = g
    if params[0].is_cuda:
        return _time_on_gpu(step)
    start = time.perf_counter()
    step()
    seconds = time.perf_counter() - start
    return seconds, seconds


def _time_on_gpu(step: Callable[[], Any]) -> tuple[float, float]:
    """Return the GPU's seconds for a step queued while it waited, and the host's seconds for the call."""
    cuda: Any = torch.cuda
    begin, end = cuda.Event(enable_timing=True), cuda.Event(enable_timing=True)
    cuda.synchronize()
    start = time.perf_counter()
    step()
    host = time.perf_counter() - start
    cuda._sleep(WAIT_CYCLES)
    begin.record()
    step()
    end.record()
    end.synchronize()
    return float(begin.elapsed_time(end)) / 1e3, host


def _rows(
    taken: dict[str, list[tuple[float, float]]], steps: dict[str, tuple[Callable[[], Any], int]]
) -> list[StepTime]:
    fastest = {name: [min(times) for times in zip(*rounds, strict=True)] for name, rounds in taken.items()}
    bandwidth = {name: steps[name][1] / seconds for name, (seconds, _) in fastest.items()}
    return [
        StepTime(
            name=name,
            peer=name in PEERS,
            step_ms=1e3 * seconds,
            host_ms=1e3 * host,
            gb_per_s=bandwidth[name] / 1e9,
            ratio_to_fused_adamw=bandwidth[name] / bandwidth[FUSED_ADAMW],
        )
        for name, (seconds, host) in fastest.items()
    ]


def least_bytes(optimizer: Optimizer) -> int:
    """Return the minimum number of bytes that a step of one of our optimizers moves."""
    total = 0
    for group in optimizer.param_groups:
        for p in group["params"]:
            state = {k: v for k, v in optimizer.state[p].items() if isinstance(v, Tensor)}
            full = {k: v for k, v in state.items() if v.numel() == p.numel()}
            reads_first = any(k in state and k not in full for k in ("v", "r"))
            if group.get("freeze"):
                reads_first = False
            total += p.nbytes * (2 + 1 + reads_first)
            total += sum(v.nbytes * (1 if k in READ_ONLY_STATE else 2) for k, v in full.items())
    return total


def as_json(rows: Iterable[StepTime]) -> list[dict[str, Any]]:
    """Return the rows as JSON objects."""
    return [asdict(row) for row in rows]


def as_table(rows: Sequence[StepTime]) -> list[tuple[str, ...]]:
    """Return a header and the rows as text for a terminal; with the host's times if they differ."""
    columns = {"optimizer": [row.name for row in rows], "step, ms": [f"{row.step_ms:.2f}" for row in rows]}
    if any(row.host_ms != row.step_ms for row in rows):
        columns["host, ms"] = [f"{row.host_ms:.2f}" for row in rows]
    columns["GB/s"] = [f"{row.gb_per_s:.1f}" for row in rows]
    columns["to fused AdamW"] = [f"{row.ratio_to_fused_adamw:.2f}" for row in rows]
    return [tuple(columns), *zip(*columns.values(), strict=True)]
