"""Adafactor as big_vision trains with it."""

from collections.abc import Hashable, Mapping
from typing import Any

from torch import Tensor

from optstudy.optim.blocks import Granularity, Shape, big_vision
from optstudy.optim.options import AdafactorBigVisionOptions
from optstudy.optim.rule import Rule, where


class AdafactorBigVision(Rule):
    r"""Shazeer and Stern 2018 (arXiv 1804.04235), varied by Zhai et al. 2022 (arXiv 2106.04560, section 3.5).

    .. math::
        \hat\beta_t &= \min(\beta_2, 1 - t^{-\gamma}) \\
        r_t, c_t &= \hat\beta_t r_{t-1} + (1 - \hat\beta_t) \operatorname{mean}(g_t^2 + \epsilon)
            \quad\text{along rows, columns} \\
        u_t &= g_t / \sqrt{r_t c_t / \operatorname{mean}(r_t)} \\
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1)\, u_t \\
        p_t &= (1 - \eta\lambda)\, p_{t-1} - \eta\, m_t

    Differs from :class:`optstudy.optim.Adafactor` in four points: the *preconditioned* gradient is averaged,
    beta2 follows a schedule, eps is added to g^2, and there is no bias correction. Rows and columns are those
    of the two largest dimensions. A tensor whose second-largest dimension is below ``min_dim`` has one second
    moment per weight. m is stored in bfloat16 (float64 for float64 parameters), as in big_vision; the step
    itself uses it unrounded.
    """

    options = AdafactorBigVisionOptions

    def numbers(self, group: Mapping[str, Any], t: Any) -> dict[str, Any]:
        """Return the weights of the new values in m and in the averages of g^2, and eps."""
        beta2 = 1 - t ** -group["decay_rate"]
        w2 = 1 - where(beta2 < group["beta2_cap"], beta2, group["beta2_cap"])
        return {"w1": 1 - group["beta1"], "w2": w2, "eps": group["eps"]}

    def static(self, group: Mapping[str, Any], shape: Shape) -> dict[str, Hashable]:
        """Return the granularity."""
        return {"moment": big_vision(shape, group["min_dim"])}

    @staticmethod
    def update(
        p: Tensor, g: Tensor, m: Tensor, *, lr: Any, decay: Any, w1: Any, w2: Any, eps: Any,
        moment: Granularity, means: tuple[Tensor, ...] = (), **averages: Tensor,
    ) -> None:  # fmt: skip
        """Take one step of one parameter, in place."""
        for average, mean in zip(averages.values(), means or moment.means(g.square()), strict=True):
            average.lerp_(mean + eps, w2)
        m.lerp_(g / moment.root(*averages.values()), w1)
        p.mul_(decay).sub_(lr * m)
