"""Sophia-G: momentum, divided by a diagonal curvature and clipped."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from optstudy.optim.compiled import Kernel, Numbers, sided
from optstudy.optim.rule import Rule, ema, put, write
from optstudy.optim.sharded import here


class Sophia(Rule):
    r"""Sophia-G (Liu et al. 2023, arXiv 2305.14342, Algorithm 3), as its authors' code computes it.

    .. math::
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1)\, g_t \\
        p_t &= (1 - \eta\lambda)\, p_{t-1}
            - \eta \operatorname{sign}(m_t) \min(1, |m_t| / (\rho B h_{t-1} + 10^{-15})) \\
        h_t &= \beta_2 h_{t-1} + (1 - \beta_2)\, \hat g_t^2 \qquad \text{every few steps}

    g-hat is the gradient of the mean loss on labels drawn from the model's own output, B the tokens it was
    averaged over. Its learning rate is the paper's times rho, and h starts at 0, so that until the first
    :meth:`update_hessian` a step is that of Signum. No bias correction. State: m and h, of the parameter's
    shape.

    Args:
        params: parameters, or groups of them; every option can be set by group.
        lr: learning rate; a float or a tensor of one element; decay apart, it is the farthest that a step
            moves a weight.
        betas: decay of m and of h.
        rho: how much of the curvature counts; the larger, the fewer weights are clipped.
        batch_tokens: B, in tokens.
        weight_decay: lambda, per unit of lr: a step multiplies weights by 1 - lr lambda.
        maximize: ascend.
        compile: as in :class:`optstudy.optim.Preconditioned`.

    Raises:
        ValueError: an unknown option of a group, or a value out of range.
    """

    limits: ClassVar = {
        "lr": "[0, inf]", "betas": "[0, 1)", "rho": "[0, inf)", "batch_tokens": "(0, inf)",
        "weight_decay": "[0, inf)",
    }  # fmt: skip

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.965, 0.99),
        rho: float = 0.04,
        batch_tokens: int = 131_072,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        compile: bool | None = None,
    ) -> None:
        super().__init__(
            params, lr=lr, betas=betas, rho=rho, batch_tokens=batch_tokens, weight_decay=weight_decay,
            maximize=maximize,
            compile=compile,
        )  # fmt: skip

    def initial(self, like: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return m and h: zeros."""
        return {"m": torch.zeros_like(like), "h": torch.zeros_like(like)}

    def kernel(self, group: Mapping[str, Any], k: int, shape: torch.Size) -> Kernel:
        """Return the update."""
        return sophia

    def numbers(self, group: Mapping[str, Any], k: int) -> Numbers:
        """Return its numbers."""
        return {
            "lr": group["lr"],
            "decay": 1 - group["lr"] * group["weight_decay"],
            "w1": sided(1 - group["betas"][0]),
            "rho_batch": group["rho"] * group["batch_tokens"],
        }

    @torch.no_grad()
    def update_hessian(self) -> None:
        """Average h with the squares of the gradients that the parameters hold now (g-hat).

        Call it every few steps (the paper: 10), with gradients of the mean loss on drawn labels in ``.grad``.
        """
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None and p.numel():
                    state = self.state_of(p, group)
                    h, g = here(state["h"]), here(p.grad)
                    h.copy_(ema(h, g.to(h.dtype).square(), 1 - group["betas"][1]))


def sophia(
    p: Tensor, g: Tensor, m: Tensor, h: Tensor, *, lr: Any, decay: Any, w1: Any, rho_batch: Any
) -> None:
    """Take one step of one parameter, in place."""
    average = ema(m, g, w1)
    write(p, lr, decay, (average / (rho_batch * h + 1e-15)).clamp(-1, 1))
    put(m, average)
