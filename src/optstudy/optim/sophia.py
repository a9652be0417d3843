"""Sophia-G: momentum, divided by a diagonal curvature and clipped."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from optstudy.optim.options import SophiaOptions
from optstudy.optim.rule import Rule
from optstudy.optim.sharded import here


class Sophia(Rule):
    r"""Sophia-G (Liu et al. 2023, arXiv 2305.14342, Algorithm 3), as its authors' code computes it.

    .. math::
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1)\, g_t \\
        p_t &= (1 - \eta\lambda)\, p_{t-1}
            - \eta \operatorname{sign}(m_t) \min(1, |m_t| / (\rho B h_{t-1} + 10^{-15})) \\
        h_t &= \beta_2 h_{t-1} + (1 - \beta_2)\, \hat g_t^2 \qquad \text{every few steps}

    g-hat is the gradient of the mean loss on labels drawn from the model's own output; B is the number of
    tokens it is averaged over. The learning rate is the paper's times rho. h starts at 0, so until the first
    :meth:`update_hessian` a step is Signum's. No bias correction. State: m and h, with the parameter's
    shape.
    """

    options = SophiaOptions

    def numbers(self, group: Mapping[str, Any], t: Any) -> dict[str, Any]:
        """Return the weight of g in m, and rho B."""
        return {"w1": 1 - group["betas"][0], "rho_batch": group["rho"] * group["batch_tokens"]}

    @staticmethod
    def update(
        p: Tensor, g: Tensor, m: Tensor, h: Tensor, *, lr: Any, decay: Any, w1: Any, rho_batch: Any
    ) -> None:
        """Take one step of one parameter, in place."""
        m.lerp_(g, w1)
        p.mul_(decay).sub_(lr * (m / (rho_batch * h + 1e-15)).clamp(-1, 1))

    @torch.no_grad()
    def update_hessian(self) -> None:
        """Update h with the squares of the current gradients of the parameters (g-hat).

        Call it every few steps (the paper: 10), with gradients of the mean loss on drawn labels in ``.grad``.
        """
        self._init_group()
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None and p.numel():
                    h, g = here(self.state[p]["h"]), here(p.grad)
                    h.lerp_(g.to(h.dtype).square(), 1 - group["betas"][1])
