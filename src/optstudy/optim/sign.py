"""The sign of a momentum: Lion and Signum."""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor

from optstudy.optim.options import LionOptions, Options, SignumOptions
from optstudy.optim.rule import Rule


class Lion(Rule):
    r"""Evolved sign momentum (Chen et al. 2023, arXiv 2302.06675, Algorithm 2).

    .. math::
        u_t &= \beta_1 m_{t-1} + (1 - \beta_1)\, g_t \\
        p_t &= (1 - \eta\lambda)\, p_{t-1} - \eta \operatorname{sign}(u_t) \\
        m_t &= \beta_2 m_{t-1} + (1 - \beta_2)\, g_t

    No bias correction; sign(0) = 0. Lion's authors use betas (0.9, 0.99), the paper's runs (0.9, 0.95).
    State: m, with the parameter's shape.
    """

    options: ClassVar[type[Options]] = LionOptions

    def numbers(self, group: Mapping[str, Any], t: Any) -> dict[str, Any]:
        """Return the weights of g in u and in m."""
        return {"w1": 1 - group["betas"][0], "w2": 1 - group["betas"][1]}

    @staticmethod
    def update(p: Tensor, g: Tensor, m: Tensor, *, lr: Any, decay: Any, w1: Any, w2: Any) -> None:
        """Take one step of one parameter, in place."""
        u = m.lerp(g, w1)
        p.mul_(decay).sub_(lr * u.sign())
        m.lerp_(g, w2)


class Signum(Lion):
    r"""The sign of an average gradient (Bernstein et al. 2018, arXiv 1802.04434, Algorithm 2).

    .. math::
        m_t &= \beta m_{t-1} + (1 - \beta)\, g_t \\
        p_t &= (1 - \eta\lambda)\, p_{t-1} - \eta \operatorname{sign}(m_t)

    It equals Lion with equal betas. No bias correction; sign(0) = 0. State: m, with the parameter's shape.
    """

    options = SignumOptions

    def numbers(self, group: Mapping[str, Any], t: Any) -> dict[str, Any]:
        """Return Lion's numbers with both betas equal."""
        return super().numbers({**group, "betas": (group["beta"], group["beta"])}, t)
