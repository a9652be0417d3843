"""Kernels over many parameters: in a plain loop, or as one compiled function.

Numbers that change from step to step go into compiled code as 0-d tensors, so that nothing is compiled twice.
Both ways round each operation in the same order, so rules without means give the same bits.
"""

import types
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

LARGE = 10_000_000
"""Weights from which compiling (tens of seconds, once per machine) pays by itself."""

INDUCTOR: dict[str, Any] = {
    "size_asserts": False,
    "realize_reads_threshold": 64,
    "realize_opcount_threshold": 1000,
    "realize_acc_reads_threshold": 64,
}
"""Compute what is used twice twice, in one loop, rather than store it for another; check shapes once only."""

FEW: dict[str, Any] = {"max_fusion_size": 8}
"""On a CPU: two to four parameters in one loop; a core fetches ahead for a few arrays, not for dozens."""

AHEAD: dict[str, Any] = {
    "cpp.enable_floating_point_contract_flag": "off -fprefetch-loop-arrays"
    " --param=prefetch-latency=200 --param=simultaneous-prefetches=100"
    " --param=min-insn-to-prefetch-ratio=0 --param=prefetch-min-insn-to-mem-ratio=0"
}
"""With gcc: fetch what a loop reads and writes some hundred instructions ahead, however long the loop and
many the arrays; left alone, a core stops at each page's end. Inductor has no option for it, but puts this
one, which says that products are not contracted, on the compiler's command line as it is."""

Kernel: TypeAlias = Callable[..., tuple[Tensor, ...] | None]
"""``kernel(p, g, **state, **numbers)``, in place; hashable."""
Tensors: TypeAlias = dict[str, Tensor]
Numbers: TypeAlias = dict[str, Any]
"""Floats, tensors of one element, or :class:`Sided`."""
Rows: TypeAlias = list[tuple[Tensors, Numbers]]
"""By parameter: what a kernel is called with."""


class Sided(NamedTuple):
    """A weight in an average, and what compiled code may know of it: whether it is at most a half."""

    weight: Any
    small: bool


def sided(weight: float) -> Sided:
    """Return a weight that stays on one side of a half: for each side code is compiled anew."""
    return Sided(weight, weight <= 0.5)


_functions: dict[tuple[Any, ...], Callable[..., Any]] = {}
_failed = False


def run(kernel: Kernel, rows: Rows, compile_: bool | None, weights: int) -> list[Any]:
    """Call a kernel for each parameter, with its tensors and numbers; return what it returned."""
    if compile_ is False or _failed or (compile_ is None and weights < LARGE):
        return each(kernel, [tensors for tensors, _ in rows], [numbers for _, numbers in rows])
    first = rows[0][0]["p"]
    # What else differs, such as strides, torch notices itself, and compiles anew.
    key = (kernel, first.device, first.dtype, *(tensors["p"].shape for tensors, _ in rows))
    function = _functions.get(key)
    as_tensors = _as_tensors(rows)
    if function is not None:
        returned: list[Any] = function(kernel, [tensors for tensors, _ in rows], as_tensors)
        return returned
    return _compile(key, kernel, rows, as_tensors)


def each(kernel: Kernel, tensors: Sequence[Tensors], numbers: Sequence[Numbers]) -> list[Any]:
    """Call a kernel for each parameter, with gradients in at least float32."""
    returned = []
    for t, n in zip(tensors, numbers, strict=True):
        g = t["g"]
        returned.append(kernel(**{**t, "g": g.to(torch.promote_types(g.dtype, torch.float32))}, **n))
    return returned


def _compile(key: tuple[Any, ...], kernel: Kernel, rows: Rows, numbers: Sequence[Numbers]) -> list[Any]:
    """Compile for these shapes, and call; without a compiler say so, once, and call the plain loop."""
    global _failed
    own_code = types.FunctionType(each.__code__.replace(), globals())  # its own place in torch's code cache
    tensors = [tensors for tensors, _ in rows]
    try:
        options = INDUCTOR | (_on_cpu() if tensors[0]["p"].device.type == "cpu" else {})
        function = torch.compile(own_code, fullgraph=True, dynamic=False, options=options)
        returned: list[Any] = function(kernel, tensors, numbers)
    except Exception as error:
        _failed = True
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        warnings.warn(f"optimizer steps are not compiled and will be slower: {reason}", stacklevel=2)
        return each(kernel, tensors, [n for _, n in rows])
    _functions[key] = function
    return returned


def _on_cpu() -> dict[str, Any]:
    """Return Inductor's options for a CPU and its compiler."""
    from torch._inductor import cpp_builder  # seconds, of which a plain loop has no need

    return FEW | (AHEAD if cpp_builder.is_gcc() else {})


def _as_tensors(rows: Rows) -> list[Numbers]:
    """Return the numbers as 0-d tensors; parameters that share a dictionary go on sharing it."""
    made: dict[int, Numbers] = {}
    for tensors, numbers in rows:
        if id(numbers) not in made:
            p = tensors["p"]
            made[id(numbers)] = {name: _as_tensor(x, p) for name, x in numbers.items()}
    return [made[id(numbers)] for _, numbers in rows]


def _as_tensor(x: Any, p: Tensor) -> Any:
    """Return a number as a 0-d tensor for computing with ``p``."""
    if isinstance(x, Sided):
        return Sided(_as_tensor(x.weight, p), x.small)
    dtype = torch.promote_types(p.dtype, torch.float32)
    if isinstance(x, Tensor):
        return x.to(p.device, dtype).reshape(())
    return torch.full((), x, dtype=dtype, device=p.device)
