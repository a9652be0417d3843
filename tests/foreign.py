"""Optimizers as others write them, to be named by import path."""

from typing import Any

import torch
from torch.optim.optimizer import Optimizer


class Descent(Optimizer):
    """Plain descent, and whatever a subclass keeps for it."""

    def __init__(self, params: Any, lr: float = 1e-3) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Go down the gradient, by what :meth:`factor` says."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.add_(p.grad, alpha=-group["lr"] * self.factor(self.state[p], group))

    def factor(self, state: dict[str, Any], group: dict[str, Any]) -> float:
        """Keep something, and say how long the step is."""
        return 1.0


class Switching(Descent):
    """Has ``eval`` and ``train`` that look for state which the first step makes."""

    def factor(self, state: dict[str, Any], group: dict[str, Any]) -> float:
        state["seen"] = 1
        return 1.0

    def eval(self) -> None:
        """Look for state."""
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["seen"] += 0

    def train(self) -> None:
        """Look for state."""
        self.eval()
