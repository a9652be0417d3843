"""The one optimizer loop: a ``torch.optim.Optimizer`` in front of a rule, which is a function of tensors.

A rule is written once, as a kernel that changes one parameter and its state in place. Here is what no rule
should have to say: parameter groups, closures, checks, the count of steps, the dtype of state (float32 for
half-precision parameters, which a step reads and writes once), and whether kernels are compiled.
"""

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

from optstudy.optim.compiled import Kernel, Numbers, Rows, Sided, Tensors, run
from optstudy.optim.sharded import exchange, is_sharded, localise, shard_like

Parts: TypeAlias = dict[tuple[Any, ...], dict[Kernel, Rows]]
"""What a step goes over, by the processes that hold other rows, whether to compile, device and dtype."""

NOT_HYPERPARAMETERS = frozenset({"params", "param_names", "initial_lr", "role"})


def ema(average: Tensor, new: Tensor, weight: Sided | float) -> Tensor:
    """Return ``average + weight (new - average)``, reckoned from the nearer of the two.

    From the farther one a new value much smaller than the average would be lost: at weight 1 all of it.
    Compiled code has to be told which one is nearer: there ``weight`` is :class:`Sided`.
    """
    w, small = weight if isinstance(weight, Sided) else (weight, weight <= 0.5)
    # No name for the change: it is freed on the way.
    result: Tensor = average + w * (new - average) if small else new - (1 - w) * (new - average)
    return result


def product(factors: Iterable[Tensor]) -> Tensor:
    """Return the product; ``math.prod`` multiplies by 1 first, which is work for each weight."""
    return functools.reduce(torch.mul, factors)


def write(p: Tensor, lr: Any, decay: Any, update: Tensor) -> None:
    """Set ``p`` to ``decay p - lr update``, computed in the update's dtype."""
    put(p, decay * p.to(update.dtype) - lr * update)


def put(target: Tensor, value: Tensor) -> None:
    """Set ``target`` to ``value``; last in a kernel, and the parameter before its state.

    On a CPU as a list of one: Inductor then writes the value where it belongs, where for ``copy_`` it makes a
    loop of its own for the copy. That loop would join the others, but without a bfloat16 in it all would take
    bfloat16 state by half vectors, whose masked stores take as long as all else. On a GPU a list would be a
    launch of its own, which joins no others.
    """
    if target.device.type == "cpu":
        torch._foreach_copy_([target], [value])
    else:
        target.copy_(value)


class Rule(Optimizer):
    """A ``torch.optim.Optimizer`` whose subclass says :meth:`initial`, :meth:`kernel` and :meth:`numbers`.

    Its every option can be set by group. ``compile``: run one compiled kernel (True), the plain loop (False),
    or the first for models of :data:`optstudy.optim.compiled.LARGE` weights or more (None).
    """

    limits: ClassVar[Mapping[str, str]] = {}
    """For each number the interval it must lie in, as ``"[0, 1)"``; for each word a pattern."""

    def __init__(self, params: ParamsT, **defaults: Any) -> None:
        super().__init__(params, defaults)

    def initial(self, like: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the state of a parameter before its first step; ``like`` has its shape and state's dtype."""
        raise NotImplementedError

    def kernel(self, group: Mapping[str, Any], k: int, shape: torch.Size) -> Kernel:
        """Return the kernel of step ``k``, counted from 1, for tensors of ``shape``."""
        raise NotImplementedError

    def numbers(self, group: Mapping[str, Any], k: int) -> Numbers:
        """Return the numbers that kernels are given in step ``k``."""
        raise NotImplementedError

    def check(self, group: Mapping[str, Any]) -> None:
        """Refuse options of a group that :attr:`limits` cannot tell.

        Raises:
            ValueError: naming option and value.
        """

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, after checking its options.

        Raises:
            ValueError: an unknown option, or a value out of range.
        """
        unknown = param_group.keys() - self.defaults.keys() - NOT_HYPERPARAMETERS
        if unknown:
            known = ", ".join(self.defaults)
            raise ValueError(f"{type(self).__name__} has no option {sorted(unknown)}; it has {known}")
        group = {**self.defaults, **param_group}
        if isinstance(group["lr"], Tensor) and group["lr"].numel() != 1:
            raise ValueError("Tensor lr must be 1-element")
        for key, limit in self.limits.items():
            values = group[key] if isinstance(group[key], (tuple, list)) else (group[key],)
            if not all(inside(value, limit) for value in values):
                raise ValueError(f"Invalid {key}: {group[key]}, must be in {limit}")
        self.check(group)
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step over every parameter that has a gradient; return the closure's loss.

        Args:
            closure: computes the loss and its gradients, and returns the loss.

        Raises:
            RuntimeError: a sparse or complex gradient.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        weights = sum(p.numel() for group in self.param_groups for p in group["params"])
        parts: Parts = {}
        for group in self.param_groups:
            self._add_to(parts, group)
        exchange(parts, weights)
        for (_, compile_, *_), work in parts.items():
            run([(kernel, _by_size(rows)) for kernel, rows in work.items()], compile_, weights)
        return loss

    def _add_to(self, parts: Parts, group: Mapping[str, Any]) -> None:
        """Add a group's parameters to those that a step has to go over."""
        lr = group["lr"]
        options = {**group, "lr": lr.reshape(())} if isinstance(lr, Tensor) else group
        alike: dict[tuple[Any, ...], list[Tensors]] = {}
        for k, tensors in self._counted(group):
            p = tensors["p"]
            alike.setdefault((k, p.shape, p.device, p.dtype, is_sharded(p)), []).append(tensors)
        numbers = {k: self.numbers(options, k) for k in {k for k, *_ in alike}}
        for (k, shape, device, dtype, sharded), rows in alike.items():
            kernel = self.kernel(group, k, shape)
            compile_ = group["compile"] if shape else False  # Inductor errs where it writes to scalars
            if sharded:
                for tensors in rows:
                    local, tensors, ranks = localise(kernel, tensors)
                    part = parts.setdefault((ranks, compile_, device, dtype), {})
                    part.setdefault(local, []).append((tensors, numbers[k]))
            else:
                part = parts.setdefault((None, compile_, device, dtype), {})
                part.setdefault(kernel, []).extend((tensors, numbers[k]) for tensors in rows)

    def _counted(self, group: Mapping[str, Any]) -> list[tuple[int, Tensors]]:
        """Return the number of this step and the tensors of each of a group's parameters that take it."""
        taking = [p for p in group["params"] if p.grad is not None and p.numel()]
        gradients = [self._gradient(p, group) for p in taking]
        states = [self.state_of(p, group) for p in taking]
        counts = _count(states)
        rows = [{**state, "p": p, "g": g} for p, g, state in zip(taking, gradients, states, strict=True)]
        for tensors in rows:
            del tensors["step"]
        return list(zip(counts, rows, strict=True))

    def _gradient(self, p: Tensor, group: Mapping[str, Any]) -> Tensor:
        g = p.grad
        assert g is not None
        if g.is_sparse or g.is_complex():
            kind = "sparse" if g.is_sparse else "complex"
            raise RuntimeError(f"{type(self).__name__} does not support {kind} gradients")
        return -g if group["maximize"] else g

    def state_of(self, p: Tensor, group: Mapping[str, Any]) -> dict[str, Any]:
        """Return a parameter's state, made if it has none yet."""
        state: dict[str, Any] = self.state[p]
        if not state:
            state.update({"step": torch.tensor(0.0), **self._fresh(p, group)})
        return state

    def _fresh(self, p: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
        return self.initial(torch.empty_like(p, dtype=torch.promote_types(p.dtype, torch.float32)), group)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state, each tensor in the dtype it was saved in (torch casts to its parameter's).

        Of a sharded parameter's state, whole tensors are taken as well as sharded ones.
        """
        ours = [(p, group) for group in self.param_groups for p in group["params"]]
        theirs = [index for group in state_dict["param_groups"] for index in group["params"]]
        saved = dict(state_dict["state"])
        for (p, group), index in zip(ours, theirs, strict=False):
            if is_sharded(p) and index in saved:
                saved[index] = _sharded(saved[index], p, self._fresh(p, group))
        super().load_state_dict({**state_dict, "state": saved})
        for (p, _), index in zip(ours, theirs, strict=True):
            for name, value in saved.get(index, {}).items():
                if isinstance(value, Tensor) and self.state[p][name].dtype != value.dtype:
                    self.state[p][name] = value.to(p.device, copy=True)


def _by_size(rows: Rows) -> Rows:
    """Return a kernel's parameters, whatever their groups, with those of one shape side by side.

    Inductor looks nearby for loops to join. A language model's two tall matrices, embedding and head, are
    updated in one where they are neighbours and share a number: 8 % of a factored rule's step.
    """
    return sorted(rows, key=lambda row: (-row[0]["p"].numel(), row[0]["p"].shape))


def _count(states: Sequence[dict[str, Any]]) -> list[int]:
    """Add 1 to each state's step and return the steps.

    Steps that were counted together stay so, as views of one tensor: one addition for all.
    """
    if not states:
        return []
    base = states[0]["step"]._base
    together = base is not None and base.shape == (len(states),)
    if not together or any(state["step"]._base is not base for state in states):
        base = torch.stack([state["step"].cpu() for state in states])
        for state, step in zip(states, base.unbind(), strict=True):
            state["step"] = step
    base.add_(1)
    counts = [int(count) for count in base.tolist()]
    return counts if len({*counts}) == 1 else [int(state["step"]) for state in states]


def _sharded(state: Mapping[str, Any], p: Any, fresh: Mapping[str, Tensor]) -> dict[str, Any]:
    """Return a parameter's state with each tensor sharded that is so in a fresh one."""
    return {
        name: shard_like(x, p) if name in fresh and is_sharded(fresh[name]) and not is_sharded(x) else x
        for name, x in state.items()
    }


def inside(value: Any, limit: str) -> bool:
    """Say whether a number lies in an interval such as ``"[0, 1)"`` (NaN lies in none), or a word fits."""
    if limit[0] not in "[(":
        return isinstance(value, str) and re.fullmatch(limit, value) is not None
    low, high = (float(end) for end in limit[1:-1].split(","))
    above = low <= value if limit[0] == "[" else low < value
    return bool(above and (value <= high if limit[-1] == "]" else value < high))
