"""SGD with heavy-ball momentum and decoupled weight decay."""

from collections.abc import Hashable, Mapping
from typing import Any

from torch import Tensor

from optstudy.optim.blocks import Shape
from optstudy.optim.options import SGDWOptions
from optstudy.optim.rule import Rule, where


class SGDW(Rule):
    r"""Heavy ball (Polyak 1964) with decoupled decay, as timm's SGDW computes it.

    The decay is from Loshchilov and Hutter 2019 (arXiv 1711.05101, Algorithm 1, SGDW), times lr.

    .. math::
        b_1 &= g_1, \qquad b_t = \beta b_{t-1} + (1 - d)\, g_t \\
        p_t &= (1 - \eta\lambda)\, p_{t-1} - \eta\, b_t
            \qquad (\text{nesterov: } \eta\, (g_t + \beta b_t))

    Undamped by default (d = 0), so a step can be as long as 1 / (1 - beta) times the learning rate; no bias
    correction. The first buffer is g even if d > 0. The paper's sweep used beta = 0.98. State: b, with the
    parameter's shape; none if beta = 0.
    """

    options = SGDWOptions

    def numbers(self, group: Mapping[str, Any], t: Any) -> dict[str, Any]:
        """Return beta and the share of g that is added to b."""
        return {"beta": group["momentum"], "share": where(t == 1, 1.0, 1 - group["dampening"])}

    def static(self, group: Mapping[str, Any], shape: Shape) -> dict[str, Hashable]:
        """Return whether momentum is Nesterov's."""
        return {"nesterov": group["nesterov"]}

    @staticmethod
    def update(
        p: Tensor, g: Tensor, b: Tensor | None = None, *,
        lr: Any, decay: Any, beta: Any, share: Any, nesterov: bool,
    ) -> None:  # fmt: skip
        """Take one step of one parameter, in place; without b there is no momentum."""
        step = g
        if b is not None:
            b.mul_(beta).add_(share * g)
            step = g + beta * b if nesterov else b
        p.mul_(decay).sub_(lr * step)
