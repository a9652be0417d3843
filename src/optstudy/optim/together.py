"""Several optimizers combined into one."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import islice
from typing import Any

from torch.optim.optimizer import Optimizer

from optstudy.optim.base import Base


class Together(Base):
    """Steps each of ``optimizers`` in turn. Its groups are theirs, and all share one state.

    Args:
        optimizers: optimizers of disjoint parameters.

    Raises:
        ValueError: the list is empty, or two of them have a parameter in common.
    """

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self.optimizers = list(optimizers)
        if not self.optimizers:
            raise ValueError("Together was given no optimizers")
        params = [p for group in self.param_groups for p in group["params"]]
        if len(set(params)) < len(params):
            raise ValueError("some parameters appear in more than one of Together's optimizers")
        state = {key: value for o in self.optimizers for key, value in o.state.items()}
        first, *others = (o.defaults for o in self.optimizers)
        common = {key: value for key, value in first.items() if all(key in other for other in others)}
        super().__init__(self.param_groups, common)
        self.state.update(state)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The groups of all parts, in order: the same objects, in a new list."""
        return [group for o in self.optimizers for group in o.param_groups]

    @param_groups.setter
    def param_groups(self, _: Any) -> None:
        """Ignore the list that the base class sets."""

    @property
    def state(self) -> defaultdict[Any, Any]:
        """The state of every parameter."""
        state: defaultdict[Any, Any] = self.optimizers[0].state
        return state

    @state.setter
    def state(self, state: Any) -> None:
        for o in self.optimizers:
            o.state = state

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Refuse a new group, because it is unknown which of the optimizers should step it.

        Raises:
            ValueError: always; add the group to one of ``optimizers`` instead.
        """
        if not any(param_group is known for known in self.param_groups):  # the base class adds these
            raise ValueError("add the group to the one of Together.optimizers that should step it")

    def __getstate__(self) -> dict[str, Any]:
        return {"optimizers": self.optimizers, "defaults": self.defaults}

    def __setstate__(self, state: dict[str, Any]) -> None:
        own = {key: value for key, value in state.items() if key not in ("state", "param_groups")}
        super().__setstate__(own)
        if "param_groups" in state:  # during a load
            groups = iter(state["param_groups"])
            for o in self.optimizers:
                mine = list(islice(groups, len(o.param_groups)))
                o.__setstate__({"state": state["state"], "param_groups": mine})

    def __getattr__(self, name: str) -> Any:
        if name == "update_hessian" and (parts := [o for o in self.optimizers if hasattr(o, name)]):
            return lambda: [getattr(part, name)() for part in parts]
        raise AttributeError(name)

    def take_step(self) -> None:
        """Take a step with every part."""
        for o in self.optimizers:
            o.step()
