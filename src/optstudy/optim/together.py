"""Several optimizers that step as one."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.optim.optimizer import Optimizer


class Together(Optimizer):
    """Steps each of ``optimizers`` in turn; its groups and state are theirs.

    Args:
        optimizers: over disjoint parameters.
    """

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self.optimizers = list(optimizers)
        super().__init__([group for o in optimizers for group in o.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Make the groups the very objects of the parts, so that what is set here is set there."""
        self.param_groups = [group for o in self.optimizers for group in o.param_groups]

    def __getstate__(self) -> dict[str, Any]:
        return {"optimizers": self.optimizers, "defaults": self.defaults}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._share()

    @property
    def state(self) -> Any:
        """The state of every part."""
        return {p: s for o in self.optimizers for p, s in o.state.items()}

    @state.setter
    def state(self, _: Any) -> None:
        """Ignore the empty state that the base class sets."""

    def __getattr__(self, name: str) -> Any:
        if name == "update_hessian" and (parts := [o for o in self.optimizers if hasattr(o, name)]):
            return lambda: [getattr(part, name)() for part in parts]
        raise AttributeError(name)

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Take one step with every part; the closure is called once."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for o in self.optimizers:
            o.step()
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Return the parts' dictionaries, in order."""
        return {"optimizers": [o.state_dict() for o in self.optimizers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what :meth:`state_dict` returned."""
        for o, state in zip(self.optimizers, state_dict["optimizers"], strict=True):
            o.load_state_dict(state)
        self._share()
