"""Shared by all our optimizers: closures, and loading a state without casting it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from optstudy.optim.sharded import by_row, is_sharded, shard_like


class Base(Optimizer):
    """An optimizer whose subclass defines a step in :meth:`take_step`."""

    def take_step(self) -> None:
        """Update every parameter that has a gradient."""
        raise NotImplementedError

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step over every parameter that has a gradient; return the closure's loss.

        Args:
            closure: computes the loss and its gradients, and returns the loss; called once.

        Raises:
            RuntimeError: a sparse or complex gradient.
        """
        with torch.enable_grad():
            loss = None if closure is None else closure()
        self.take_step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state dictionary; each tensor keeps its dtype (torch would cast to the parameter's).

        The state of a sharded parameter may be given whole: it is sharded like the parameter. Hooks see the
        same as with any optimizer: this happens after the pre-hooks of a load and before its post-hooks.
        """
        final: dict[str, Any] = {}

        def before(_: Optimizer, state_dict: dict[str, Any]) -> dict[str, Any]:
            state = dict(state_dict["state"])
            for p, index in self._pairs(state_dict):
                if is_sharded(p) and index in state:
                    state[index] = {key: _like(p, x) for key, x in state[index].items()}
            final.update(state_dict, state=state)
            return final

        def after(_: Optimizer) -> None:
            for p, index in self._pairs(final):
                for key, x in final["state"].get(index, {}).items():
                    if isinstance(x, Tensor) and self.state[p][key].dtype != x.dtype:
                        self.state[p][key] = x.to(p.device, copy=True)

        hooks = (
            self.register_load_state_dict_pre_hook(before),
            self.register_load_state_dict_post_hook(after, prepend=True),
        )
        try:
            super().load_state_dict(state_dict)
        finally:
            for hook in hooks:
                hook.remove()

    def _pairs(self, state_dict: dict[str, Any]) -> list[tuple[Any, Any]]:
        """Return each parameter with its index in the dictionary; torch refuses mismatches."""
        params = (p for group in self.param_groups for p in group["params"])
        indices = (index for group in state_dict["param_groups"] for index in group["params"])
        return list(zip(params, indices, strict=False))


def _like(p: Any, x: Any) -> Any:
    """Return a tensor with as many rows as p and size 1 in all other dimensions, sharded like p."""
    fits = isinstance(x, Tensor) and not is_sharded(x) and by_row(x.shape, p)
    return shard_like(x, p) if fits and all(n <= of for n, of in zip(x.shape, p.shape, strict=True)) else x
