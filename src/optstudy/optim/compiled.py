"""Kernels over many parameters: in a plain loop, or as one compiled function for all of them.

Numbers that change from step to step go into compiled code as 0-d tensors, so that nothing is compiled twice.
Both ways take the same operations in the same order: sign rules give the same bits, elementwise rules differ
by two units in the last place at most.
"""

import types
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

LARGE = 10_000_000
"""Weights from which compiling (tens of seconds, once per machine) pays by itself."""

ANYWHERE: dict[str, Any] = {"size_asserts": False}
"""Inductor's options: check shapes once only."""

ON_CPU: dict[str, Any] = {
    "realize_reads_threshold": 64,
    "realize_opcount_threshold": 1000,
    "realize_acc_reads_threshold": 64,
    "score_fusion_memory_threshold": 1,
    "max_fusion_size": 64,
    "cpp.max_horizontal_fusion_size": 8,
}
"""Compute what is used twice twice, in one loop, rather than store it for another. Loops that share a number
join, but of others, such as those of two parameters, a few at most: a core keeps up with a few arrays, not
with dozens."""

AHEAD: dict[str, Any] = {
    "cpp.enable_floating_point_contract_flag": "off -fprefetch-loop-arrays"
    " --param=prefetch-latency=500 --param=simultaneous-prefetches=100"
    " --param=min-insn-to-prefetch-ratio=0 --param=prefetch-min-insn-to-mem-ratio=0"
}
"""With gcc: fetch what a loop reads and writes some hundred instructions ahead, however long the loop and
many the arrays; left alone, a core stops at each page's end. Inductor has no option for it, but puts this
one, which says that products are not contracted, on the compiler's command line as it is."""

ON_GPU: dict[str, Any] = {
    "emulate_precision_casts": True,
    "eager_numerics.division_rounding": True,
    "eager_numerics.disable_ftz": True,
    "combo_kernels": True,
}
"""Round each operation as the plain loop does; else products are contracted, quotients near their values and
the smallest numbers 0. Loops over several parameters share a launch; alone, a small one ends before it fills
the GPU."""

ADVICE = "TensorFloat32 tensor cores"
"""How the compiler begins when it advises to round float32 products on a GPU, which is not wanted here."""

CONSTANT = ("w1", "beta", "eps")
"""Numbers that no schedule moves."""

Kernel: TypeAlias = Callable[..., tuple[Tensor, ...] | None]
"""``kernel(p, g, **state, **numbers)``, in place; hashable."""
Tensors: TypeAlias = dict[str, Tensor]
Numbers: TypeAlias = dict[str, Any]
"""Floats, tensors of one element, or :class:`Sided`."""
Rows: TypeAlias = list[tuple[Tensors, Numbers]]
"""By parameter: what a kernel is called with."""
Work: TypeAlias = Sequence[tuple[Kernel, Rows]]
"""Kernels, each with its parameters; all of one device and dtype."""


class Sided(NamedTuple):
    """A weight in an average, and what compiled code may know of it: whether it is about a half or less."""

    weight: Any
    small: bool


def sided(weight: float) -> Sided:
    """Return a weight that stays on one side of a half: for each side code is compiled anew."""
    return Sided(weight, weight <= 0.5)


def stored(x: Tensor, like: Tensor) -> Tensor:
    """Return ``x`` as compiled code stores it, where it would compute it anew for each entry of ``like``."""
    return x if x.shape == like.shape else x.as_strided(x.shape, x.stride())


_functions: dict[tuple[Any, ...], Callable[..., Any]] = {}
_failed = False


def run(work: Work, compile_: bool | None, weights: int) -> list[Any]:
    """Call kernels for each of their parameters, with its tensors and numbers; return what they returned."""
    if compile_ is False or _failed or (compile_ is None and weights < LARGE):
        return each(work)
    first = work[0][1][0][0]["p"]
    # What else differs, such as strides, torch notices itself, and compiles anew.
    shapes = tuple((kernel, *(tensors["p"].shape for tensors, _ in rows)) for kernel, rows in work)
    arguments, pattern = _as_tensors(work)
    key = (first.device, first.dtype, shapes, pattern)
    if key not in _functions:
        return _compile(key, arguments, work)
    returned: list[Any] = _functions[key](arguments)
    return returned


def each(work: Work) -> list[Any]:
    """Call kernels for each of their parameters, with gradients in at least float32."""
    returned = []
    for kernel, rows in work:
        for tensors, numbers in rows:
            g = tensors["g"]
            g = g.to(torch.promote_types(g.dtype, torch.float32))
            returned.append(kernel(**{**tensors, "g": g}, **numbers))
    return returned


def _compile(key: tuple[Any, ...], arguments: Work, work: Work) -> list[Any]:
    """Compile for these shapes, and call; without a compiler say so, once, and call the plain loop."""
    global _failed
    own_code = types.FunctionType(each.__code__.replace(), globals())  # its own place in torch's code cache
    try:
        options = ANYWHERE | (_on_cpu() if key[0].type == "cpu" else ON_GPU)
        function = torch.compile(own_code, fullgraph=True, dynamic=False, options=options)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=ADVICE)
            returned: list[Any] = function(arguments)
    except Exception as error:
        _failed = True
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        warnings.warn(f"optimizer steps are not compiled and will be slower: {reason}", stacklevel=2)
        return each(work)
    _functions[key] = function
    return returned


def _on_cpu() -> dict[str, Any]:
    """Return Inductor's options for a CPU and its compiler."""
    from torch._inductor import cpp_builder  # seconds, of which a plain loop has no need

    return ON_CPU | (AHEAD if cpp_builder.is_gcc() else {})


def _as_tensors(work: Work) -> tuple[Work, tuple[Any, ...]]:
    """Return the same with numbers as 0-d tensors, and which of them are one: code is compiled for that.

    Of two groups, equal numbers that no schedule moves are one, as loops that share a number can join.
    """
    distinct = {id(numbers): numbers for _, rows in work for _, numbers in rows}
    keys = {
        i: {name: (name, x if name in CONSTANT and not isinstance(x, Tensor) else i) for name, x in n.items()}
        for i, n in distinct.items()
    }
    values = {key: distinct[i][name] for i, named in keys.items() for name, key in named.items()}
    made = dict(zip(values, _tensors([*values.values()], work[0][1][0][0]["p"]), strict=True))
    arguments = {i: {name: made[key] for name, key in named.items()} for i, named in keys.items()}
    place, owner = ({key: at for at, key in enumerate(known)} for known in (values, distinct))
    pattern = (
        tuple(owner[id(numbers)] for _, rows in work for _, numbers in rows),
        tuple(place[key] for named in keys.values() for key in named.values()),
        tuple(x.small if isinstance(x, Sided) else None for x in values.values()),
    )
    return [(kernel, [(mine, arguments[id(n)]) for mine, n in rows]) for kernel, rows in work], pattern


def _tensors(numbers: Sequence[Any], p: Tensor) -> list[Any]:
    """Return numbers as 0-d tensors for computing with ``p``, a :class:`Sided` as one of such.

    Floats reach a GPU in one copy, which nothing waits for.
    """
    dtype = torch.promote_types(p.dtype, torch.float32)
    weights = [x.weight if isinstance(x, Sided) else x for x in numbers]
    floats = [x for x in weights if not isinstance(x, Tensor)]
    together = torch.tensor(floats, dtype=dtype, device="cpu", pin_memory=p.is_cuda)
    in_turn = iter(together.to(p.device, non_blocking=p.is_cuda).unbind())
    tensors = [
        x.to(p.device, dtype, non_blocking=p.is_cuda).reshape(()) if isinstance(x, Tensor) else next(in_turn)
        for x in weights
    ]
    return [Sided(t, x.small) if isinstance(x, Sided) else t for x, t in zip(numbers, tensors, strict=True)]
