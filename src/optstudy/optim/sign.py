"""The sign of a momentum: Lion (Chen et al. 2023, arXiv 2302.06675, Algorithm 2) and Signum."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from optstudy.optim.compiled import Kernel, Numbers, sided
from optstudy.optim.rule import Rule, ema, put, write


class Lion(Rule):
    r"""Evolved sign momentum (Chen et al. 2023, arXiv 2302.06675, Algorithm 2).

    .. math::
        u_t &= \beta_1 m_{t-1} + (1 - \beta_1)\, g_t \\
        p_t &= (1 - \eta\lambda)\, p_{t-1} - \eta \operatorname{sign}(u_t) \\
        m_t &= \beta_2 m_{t-1} + (1 - \beta_2)\, g_t

    No bias correction; sign(0) = 0. Lion's authors use betas (0.9, 0.99), the paper's runs (0.9, 0.95).
    State: m, of the parameter's shape.

    Args:
        params: parameters, or groups of them; every option can be set by group.
        lr: learning rate; a float or a tensor of one element; decay apart, it is how far a step moves a
            weight.
        betas: the share of m in u, and the decay of m.
        weight_decay: lambda, per unit of lr: a step multiplies weights by 1 - lr lambda.
        maximize: ascend.
        compile: as in :class:`optstudy.optim.Preconditioned`.

    Raises:
        ValueError: an unknown option of a group, or a value out of range.
    """

    limits: ClassVar = {"lr": "[0, inf]", "betas": "[0, 1)", "weight_decay": "[0, inf)"}

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-4,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        compile: bool | None = None,
    ) -> None:
        super().__init__(
            params, lr=lr, betas=betas, weight_decay=weight_decay, maximize=maximize, compile=compile
        )

    def initial(self, like: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return m: zeros."""
        return {"m": torch.zeros_like(like)}

    def kernel(self, group: Mapping[str, Any], k: int, shape: torch.Size) -> Kernel:
        """Return the update."""
        return lion

    def numbers(self, group: Mapping[str, Any], k: int) -> Numbers:
        """Return its numbers, which are those of every step."""
        beta1, beta2 = group["betas"]
        decay = 1 - group["lr"] * group["weight_decay"]
        return {"lr": group["lr"], "decay": decay, "w1": sided(1 - beta1), "w2": sided(1 - beta2)}


def lion(p: Tensor, g: Tensor, m: Tensor, *, lr: Any, decay: Any, w1: Any, w2: Any) -> None:
    """Take one step of one parameter, in place."""
    u = ema(m, g, w1)
    write(p, lr, decay, u.sign())
    put(m, ema(m, g, w2))


class Signum(Lion):
    r"""The sign of an average gradient (Bernstein et al. 2018, arXiv 1802.04434, Algorithm 2).

    It is Lion with equal betas.

    .. math::
        m_t &= \beta m_{t-1} + (1 - \beta)\, g_t \\
        p_t &= (1 - \eta\lambda)\, p_{t-1} - \eta \operatorname{sign}(m_t)

    No bias correction; sign(0) = 0. State: m, of the parameter's shape.

    Args:
        params: parameters, or groups of them; every option can be set by group.
        lr: learning rate; a float or a tensor of one element; decay apart, it is how far a step moves a
            weight.
        beta: decay of m.
        weight_decay: lambda, per unit of lr: a step multiplies weights by 1 - lr lambda.
        maximize: ascend.
        compile: as in :class:`optstudy.optim.Preconditioned`.

    Raises:
        ValueError: an unknown option of a group, or a value out of range.
    """

    limits: ClassVar = {"lr": "[0, inf]", "beta": "[0, 1)", "weight_decay": "[0, inf)"}

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-4,
        beta: float = 0.9,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        compile: bool | None = None,
    ) -> None:
        Rule.__init__(
            self, params, lr=lr, beta=beta, weight_decay=weight_decay, maximize=maximize, compile=compile
        )

    def numbers(self, group: Mapping[str, Any], k: int) -> Numbers:
        """Return Lion's with both betas equal."""
        return super().numbers({**group, "betas": (group["beta"], group["beta"])}, k)
