"""One step of many parameters: as a plain loop, or as one compiled function.

Numbers that change between steps are passed to compiled code as tensors, so that it is compiled once.
"""

import types
import warnings
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from optstudy.errors import first_line

LARGE = 10_000_000
"""Number of weights from which compiling (tens of seconds, once per machine) pays off by default."""
MOST = 3
"""Maximum number of functions compiled per kind and optimizer; other sets of parameters use the loop."""
ON_GPU: dict[str, Any] = {
    "emulate_precision_casts": True,
    "eager_numerics.division_rounding": True,
    "eager_numerics.disable_ftz": True,
    "combo_kernels": True,
}
"""Round each operation like the plain loop, and combine the launches of parameters, since the kernel of a
small parameter ends before it fills the GPU."""
ON_CPU: dict[str, Any] = {
    "cpp.simdlen": {"AVX512": 512, "AVX2": 256, "DEFAULT": 1}.get(torch.backends.cpu.get_cpu_capability()),
    "realize_reads_threshold": 1000,
    "realize_opcount_threshold": 1000,
}
"""The vector width in bits. Torch detects it too, but its cache of compiled code does not distinguish widths:
after a change of ATEN_CPU_CAPABILITY, or with a cache shared by several machines, it runs code that skips
weights.

Torch stores an intermediate result that takes more reads or operations than this. Adafactor's would be as
large as its weights, and writing and reading them would take most of a step."""
ADVICE = "TensorFloat32 tensor cores"
"""Start of torch's advice to round float32 products on a GPU, which is not wanted here."""

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
    """One mapping object for all parameters that share these numbers."""
    static: Mapping[str, Any]
    """Further arguments, hashable and constant over steps."""
    means: tuple[Tensor, ...] = ()
    """Means of g^2, if some rows of its blocks are on other processes."""


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype in which a step of parameters of ``dtype`` is computed: at least float32."""
    return torch.promote_types(dtype, torch.float32)


def run(jobs: Sequence[Job], compile_: bool, known: Compiled) -> None:
    """Carry out jobs, all on one device and of one dtype.

    Args:
        jobs: the jobs.
        compile_: use one compiled function, up to :data:`MOST` per optimizer; else a plain loop.
        known: keys of the functions compiled for the optimizer so far; new ones are added.
    """
    global _failed
    if not compile_ or _failed or torch.compiler.is_compiling():
        return each(jobs)
    first = jobs[0].tensors["p"]
    shared = {one: i for i, one in enumerate(dict.fromkeys(id(job.numbers) for job in jobs))}
    constant = [(*j.static.items(), *(x.shape for x in (*j.tensors.values(), *j.means))) for j in jobs]
    kind = (first.device, first.dtype, jobs[0].update)
    key = (kind, *((j.update, shared[id(j.numbers)], c) for j, c in zip(jobs, constant, strict=True)))
    versions = known.setdefault(kind, set())
    if key not in versions and len(versions) >= MOST:
        return each(jobs)
    versions.add(key)
    with_tensors = _with_tensors(jobs, first)
    if key in _functions:
        return _functions[key](with_tensors)
    # Torch limits the compiled versions per code object, so each function has a separate code object.
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
    """Carry out jobs one by one, in at least float32; state of lower precision is read and rounded once."""
    for update, tensors, numbers, static, means in jobs:
        device, dtype = tensors["p"].device, wide(tensors["p"].dtype)
        cast = {name: x.to(dtype) for name, x in tensors.items()}
        put = {k: x.to(device, dtype).reshape(()) if isinstance(x, Tensor) else x for k, x in numbers.items()}
        update(**cast, **put, **static, **({"means": means} if means else {}))
        for name, x in tensors.items():
            if x.dtype != dtype and name != "g":
                x.copy_(cast[name])


def _with_tensors(jobs: Sequence[Job], p: Tensor) -> list[Job]:
    """Return jobs with numbers as tensors where ``p`` is; floats reach a GPU in one copy, without waiting."""
    distinct = {id(job.numbers): job.numbers for job in jobs}
    floats = [x for numbers in distinct.values() for x in numbers.values() if not isinstance(x, Tensor)]
    together = torch.tensor(floats, dtype=wide(p.dtype), device="cpu", pin_memory=p.is_cuda)
    in_turn = iter(together.to(p.device, non_blocking=p.is_cuda).unbind())
    put = {
        i: {name: x if isinstance(x, Tensor) else next(in_turn) for name, x in numbers.items()}
        for i, numbers in distinct.items()
    }
    return [job._replace(numbers=put[id(job.numbers)]) for job in jobs]
