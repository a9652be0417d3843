"""SGD with heavy-ball momentum and decoupled weight decay."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from optstudy.optim.compiled import Kernel, Numbers
from optstudy.optim.rule import Rule, put, write


class SGDW(Rule):
    r"""Heavy ball (Polyak 1964) with decoupled decay, as timm's SGDW computes it.

    The decay is that of Loshchilov and Hutter 2019 (arXiv 1711.05101, Algorithm 1, SGDW), times lr.

    .. math::
        b_1 &= g_1, \qquad b_t = \beta b_{t-1} + (1 - d)\, g_t \\
        p_t &= (1 - \eta\lambda)\, p_{t-1} - \eta\, b_t
            \qquad (\text{nesterov: } \eta\, (g_t + \beta b_t))

    Undamped by default (d = 0), so a step is up to 1 / (1 - beta) times the learning rate long; no bias
    correction. The first buffer is g even where d > 0. The paper's sweep used beta = 0.98. State: b, of the
    parameter's shape; none where beta = 0.

    Args:
        params: parameters, or groups of them; every option can be set by group.
        lr: learning rate; a float or a tensor of one element; weight per unit of gradient.
        momentum: beta.
        dampening: d.
        nesterov: step by g + beta b in place of b.
        weight_decay: lambda, per unit of lr: a step multiplies weights by 1 - lr lambda.
        maximize: ascend.
        compile: as in :class:`optstudy.optim.Preconditioned`.

    Raises:
        ValueError: an unknown option of a group, or a value out of range; ``nesterov`` without
            momentum, or with dampening.
    """

    limits: ClassVar = {
        "lr": "[0, inf]", "momentum": "[0, 1)", "dampening": "[0, 1]", "weight_decay": "[0, inf)"
    }  # fmt: skip

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-1,
        momentum: float = 0.9,
        dampening: float = 0.0,
        nesterov: bool = False,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        compile: bool | None = None,
    ) -> None:
        super().__init__(
            params, lr=lr, momentum=momentum, dampening=dampening, nesterov=nesterov,
            weight_decay=weight_decay, maximize=maximize,
            compile=compile,
        )  # fmt: skip

    def check(self, group: Mapping[str, Any]) -> None:
        """Refuse Nesterov momentum that is no momentum, or damped."""
        if group["nesterov"] and (group["momentum"] == 0 or group["dampening"] != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")

    def initial(self, like: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return b: zeros; nothing without momentum."""
        return {"b": torch.zeros_like(like)} if group["momentum"] else {}

    def kernel(self, group: Mapping[str, Any], k: int, shape: torch.Size) -> Kernel:
        """Return the update."""
        if not group["momentum"]:
            return sgd
        return nesterov if group["nesterov"] else heavy_ball

    def numbers(self, group: Mapping[str, Any], k: int) -> Numbers:
        """Return its numbers."""
        numbers = {"lr": group["lr"], "decay": 1 - group["lr"] * group["weight_decay"]}
        if not group["momentum"]:
            return numbers
        return {**numbers, "beta": group["momentum"], "share": 1.0 if k == 1 else 1 - group["dampening"]}


def sgd(p: Tensor, g: Tensor, *, lr: Any, decay: Any) -> None:
    """Take one step of one parameter, in place."""
    write(p, lr, decay, g)


def heavy_ball(p: Tensor, g: Tensor, b: Tensor, *, lr: Any, decay: Any, beta: Any, share: Any) -> None:
    """Take one step of one parameter, in place."""
    average = beta * b + share * g
    write(p, lr, decay, average)
    put(b, average)


def nesterov(p: Tensor, g: Tensor, b: Tensor, *, lr: Any, decay: Any, beta: Any, share: Any) -> None:
    """Take one step of one parameter, in place."""
    average = beta * b + share * g
    write(p, lr, decay, g + beta * average)
    put(b, average)
