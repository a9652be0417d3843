"""A step over many parameters: in a plain loop, or as one compiled function.

Numbers that change from step to step go into compiled code as tensors, so that it is compiled once.
"""

import types
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from optstudy.errors import first_line

LARGE = 10_000_000
"""Weights from which compiling (tens of seconds, once per machine) pays by itself."""
MOST = 3
"""Functions that an optimizer compiles of one kind; other sets of parameters with gradients take the loop."""
ON_GPU: dict[str, Any] = {
    "emulate_precision_casts": True,
    "eager_numerics.division_rounding": True,
    "eager_numerics.disable_ftz": True,
    "combo_kernels": True,
}
"""Round each operation as the plain loop does, and share launches among parameters: alone, a small one ends
before it fills the GPU."""
_BITS = {"AVX512": 512, "AVX2": 256, "DEFAULT": 1}
ON_CPU: dict[str, Any] = {
    "cpp.simdlen": _BITS.get(torch.backends.cpu.get_cpu_capability()),
    "realize_reads_threshold": 1000,
    "realize_opcount_threshold": 1000,
}
"""The width of vectors, in bits. Torch finds it too, but its cache of compiled code does not tell widths
apart: after another ATEN_CPU_CAPABILITY, or from a cache of several machines, it runs code that skips
weights.

Torch stores an intermediate result that takes more than so many reads or operations. Adafactor's would be as
large as its weights, and a step would spend most of its time on writing and reading them."""
ADVICE = "TensorFloat32 tensor cores"
"""How torch begins when it advises to round float32 products on a GPU, which is not wanted here."""

Compiled: TypeAlias = dict[Hashable, set[Hashable]]
"""Keys of an optimizer's compiled functions, by kind."""

_functions: dict[Hashable, Callable[..., None]] = {}
_failed = False


class Job(NamedTuple):
    """One parameter's step."""

    update: Callable[..., None]
    """``update(**tensors, **numbers, **static)``, in place."""
    tensors: Mapping[str, Tensor]
    """The parameter p, its gradient g, its state."""
    numbers: Mapping[str, float | Tensor]
    """One mapping for all parameters that share it."""
    static: tuple[tuple[str, Any], ...] = ()
    means: tuple[Tensor, ...] = ()
    """Means of g^2, where some rows of its blocks are elsewhere."""


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype that a step over parameters of ``dtype`` computes in: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def run(jobs: Sequence[Job], compile_: bool, known: Compiled) -> None:
    """Carry out jobs, all of one device and dtype.

    Args:
        jobs: what to do.
        compile_: as one compiled function, of which an optimizer has :data:`MOST`; else in a plain loop.
        known: what was compiled for the optimizer; gets what is compiled now.
    """
    global _failed
    if not compile_ or _failed or torch.compiler.is_compiling():
        return each(jobs)
    first = jobs[0].tensors["p"]
    shared = {one: i for i, one in enumerate(dict.fromkeys(id(job.numbers) for job in jobs))}
    shapes = (tuple(x.shape for x in (*job.tensors.values(), *job.means)) for job in jobs)
    kind = (first.device, first.dtype, jobs[0].update)
    key = (kind, *((j.update, j.static, shared[id(j.numbers)], s) for j, s in zip(jobs, shapes, strict=True)))
    versions = known.setdefault(kind, set())
    if key not in versions and len(versions) >= MOST:
        return each(jobs)
    versions.add(key)
    with_tensors = _with_tensors(jobs, first)
    if key in _functions:
        return _functions[key](with_tensors)
    # Torch keeps few compiled versions per code object, so each function has a code object of its own.
    own = types.FunctionType(each.__code__.replace(), globals())
    function = torch.compile(own, fullgraph=True, dynamic=False, options=ON_GPU if first.is_cuda else ON_CPU)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=ADVICE)
            function(with_tensors)
    except (torch._dynamo.exc.TorchDynamoException, torch._inductor.exc.InductorError) as error:
        _failed = True
        warnings.warn(f"optimizer steps are not compiled, so slower: {first_line(error)}", stacklevel=2)
        return each(jobs)
    _functions[key] = function


def each(jobs: Sequence[Job]) -> None:
    """Carry out jobs one by one, in at least float32; what is stored in less is read and rounded once."""
    for update, tensors, numbers, static, means in jobs:
        device, dtype = tensors["p"].device, wide(tensors["p"].dtype)
        cast = {name: x.to(dtype) for name, x in tensors.items()}
        put = {k: x.to(device, dtype).reshape(()) if isinstance(x, Tensor) else x for k, x in numbers.items()}
        update(**cast, **put, **dict(static), **({"means": means} if means else {}))
        for name, x in tensors.items():
            if x.dtype != dtype and name != "g":
                x.copy_(cast[name])


def _with_tensors(jobs: Sequence[Job], p: Tensor) -> list[Job]:
    """Return jobs with numbers as tensors beside ``p``; floats reach a GPU in one copy, without waiting."""
    distinct = {id(job.numbers): job.numbers for job in jobs}
    floats = [x for numbers in distinct.values() for x in numbers.values() if not isinstance(x, Tensor)]
    together = torch.tensor(floats, dtype=wide(p.dtype), device="cpu", pin_memory=p.is_cuda)
    in_turn = iter(together.to(p.device, non_blocking=p.is_cuda).unbind())
    put = {
        i: {name: x if isinstance(x, Tensor) else next(in_turn) for name, x in numbers.items()}
        for i, numbers in distinct.items()
    }
    return [job._replace(numbers=put[id(job.numbers)]) for job in jobs]
