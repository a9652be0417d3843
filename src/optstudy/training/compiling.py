"""Compiled training steps: when they pay off, and how a study's processes share the compiled code.

One transformer block is compiled, regardless of the number of layers, and the rows of the loss. Results of
compiled and plain steps differ only by rounding; ``env.json`` records which of them ran.
"""

import hashlib
import os
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import ParamSpec, TypeVar

import torch

from optstudy import cache
from optstudy.config import SMALL, RunConfig
from optstudy.errors import first_line
from optstudy.optim.compiled import ADVICE, ON_CPU
from optstudy.record import write_atomically
from optstudy.training import models

P = ParamSpec("P")
T = TypeVar("T")

SWITCH = "OPTSTUDY_COMPILE"
"""Environment variable: 0 never compiles, 1 always does."""


def pays(config: RunConfig, device: torch.device) -> bool:
    """Return whether to compile this run's steps: for all but the smallest models, if compiling works."""
    wanted = os.environ.get(SWITCH, "auto")
    if wanted == "0" or (wanted != "1" and models.size_of(config).parameters < SMALL):
        return False
    warnings.filterwarnings("ignore", message=ADVICE)  # the config sets the precision
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache.folder("compiled")))
    return _works(device.type)


@lru_cache(maxsize=2)
def _works(device_type: str) -> bool:
    """Try the compiler on a small function; warn once if it does not work."""
    try:
        torch.compile(_trial, options=ON_CPU)(torch.zeros(16, device=device_type))
    except Exception as error:
        warnings.warn(
            f"training steps are not compiled and will be slower: {first_line(error)}", stacklevel=3
        )
        return False
    return True


def _trial(x: torch.Tensor) -> torch.Tensor:
    return x.exp() + 1


def compiled(function: Callable[P, T]) -> Callable[P, T]:
    """Return ``function``, compiled for each shape that it is called with."""
    _allow_many_shapes()
    return torch.compile(function, dynamic=False, options=ON_CPU)


def compile_blocks(blocks: Iterable[torch.nn.Module]) -> None:
    """Compile each block's forward; blocks of the same shape share the code."""
    _allow_many_shapes()
    for block in blocks:
        block.compile(dynamic=False, options=ON_CPU)


def _allow_many_shapes() -> None:
    """Allow one function to be compiled for training, validation and the smaller last batch of each."""
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)


@contextmanager
def one_at_a_time(config: RunConfig, device: torch.device) -> Iterator[None]:
    """Serialise the first step of runs of one shape: the first compiles, the others use the cached code."""
    shape = (config.model, config.training.precision, config.training.batch_size, config.data.sequence_length)
    text = f"{shape} {config.training.micro_batch_size} {device.type} {torch.__version__}"
    done = cache.folder("compiled", "steps") / hashlib.sha256(text.encode()).hexdigest()[:16]
    if done.exists():
        yield
        return
    with cache.locked(done.with_suffix(".lock")):
        yield
        write_atomically(done, text + "\n")


def choose_precision(config: RunConfig, device: torch.device) -> tuple[str, str]:
    """Return ``bfloat16`` or ``float32`` for a model on a device, and the reason.

    The choice depends only on the machine and the model, so that repeating it gives the same run.
    """
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        name = torch.cuda.get_device_name(device)
        return ("bfloat16", f"{name} has it") if native else ("float32", f"{name} has no bfloat16")
    if not cpu_has_bfloat16():
        return "float32", "this CPU has no bfloat16 instructions"
    count = models.size_of(config).parameters
    if count < SMALL:
        return "float32", f"{count:,} parameters are too few to gain by bfloat16"
    return "bfloat16", "this CPU has bfloat16 instructions"


def cpu_has_bfloat16() -> bool:
    """Return whether the processor has bfloat16 multiplication (AVX512-BF16, AMX)."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
