"""The one optimizer loop: a ``torch.optim.Optimizer`` in front of a rule, which is a function of tensors.

A rule is written once, as ``rule(p, g, **state, **numbers)``: it changes the parameter ``p`` and its state in
place. Here are the things that no rule should have to say: parameter groups, closures, checks, the dtype of
state, the count of steps. Rules compute in the dtype of their state (float32 for half-precision parameters).
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, ParamsT

Kernel = Callable[..., None]
"""``kernel(p, g, **state, **numbers)``, in place; ``numbers`` are floats or 0-d tensors."""

NOT_HYPERPARAMETERS = frozenset({"params", "param_names", "initial_lr", "role"})


def ema(average: Tensor, new: Tensor, weight: Any) -> Tensor:
    """Return ``average + weight (new - average)``."""
    return average + weight * (new - average)


def write(p: Tensor, lr: Any, decay: Any, update: Tensor) -> None:
    """Set ``p`` to ``decay p - lr update``, computed in the update's dtype."""
    p.copy_(decay * p.to(update.dtype) - lr * update)


class Rule(Optimizer):
    """A ``torch.optim.Optimizer`` whose subclass says :meth:`initial` and :meth:`plan`."""

    limits: ClassVar[Mapping[str, str]] = {}
    """For each number the interval it must lie in, as ``"[0, 1)"``; for each word a pattern."""

    def __init__(self, params: ParamsT, **defaults: Any) -> None:
        super().__init__(params, {"maximize": False, **defaults})

    def initial(self, like: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the state of a parameter before its first step; ``like`` has its shape and state's dtype."""
        raise NotImplementedError

    def plan(self, group: Mapping[str, Any], k: int, shape: torch.Size) -> tuple[Kernel, dict[str, Any]]:
        """Return the kernel and the numbers of step ``k``, counted from 1, for tensors of ``shape``."""
        raise NotImplementedError

    def check(self, group: Mapping[str, Any]) -> None:
        """Refuse options of a group that :attr:`limits` cannot tell.

        Raises:
            ValueError: naming option and value.
        """

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, after checking its options."""
        unknown = param_group.keys() - self.defaults.keys() - NOT_HYPERPARAMETERS
        if unknown:
            raise ValueError(
                f"{type(self).__name__} has no option {sorted(unknown)}; it has {sorted(self.defaults)}"
            )
        group = {**self.defaults, **param_group}
        for key, interval in self.limits.items():
            values = group[key] if isinstance(group[key], (tuple, list)) else (group[key],)
            for value in values:
                if not inside(value, interval):
                    raise ValueError(f"Invalid {key}: {group[key]}, must be in {interval}")
        self.check(group)
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step over every parameter that has a gradient; return the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None and p.numel():
                    self._step_one(p, group)
        return loss

    def _step_one(self, p: Tensor, group: dict[str, Any]) -> None:
        g = p.grad
        assert g is not None
        if g.is_sparse or g.is_complex():
            kind = "sparse" if g.is_sparse else "complex"
            raise RuntimeError(f"{type(self).__name__} does not support {kind} gradients")
        state = self.state_of(p, group)
        state["step"] += 1
        kernel, numbers = self.plan(group, int(state["step"]), p.shape)
        tensors = {name: value for name, value in state.items() if name != "step"}
        wide = g.to(torch.promote_types(p.dtype, torch.float32))
        kernel(p, -wide if group["maximize"] else wide, **tensors, **numbers)

    def state_of(self, p: Tensor, group: Mapping[str, Any]) -> dict[str, Any]:
        """Return a parameter's state, made if it has none yet."""
        state: dict[str, Any] = self.state[p]
        if not state:
            like = torch.empty_like(p, dtype=torch.promote_types(p.dtype, torch.float32))
            state.update({"step": torch.tensor(0.0), **self.initial(like, group)})
        return state


def inside(value: Any, limit: str) -> bool:
    """Say whether a number lies in an interval such as ``"[0, 1)"`` (NaN lies in none), or a word fits."""
    if limit[0] not in "[(":
        return isinstance(value, str) and re.fullmatch(limit, value) is not None
    low, high = (float(end) for end in limit[1:-1].split(","))
    above = low <= value if limit[0] == "[" else low < value
    return bool(above and (value <= high if limit[-1] == "]" else value < high))
