"""Adafactor as big_vision trains with it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from optstudy.optim.compiled import Numbers, Sided, sided, stored
from optstudy.optim.rule import Rule, ema, product, put, write
from optstudy.optim.second_moment import Factored, Weight
from optstudy.optim.sharded import BlockKernel, zeros


class AdafactorBigVision(Rule):
    r"""Shazeer and Stern 2018 (arXiv 1804.04235), varied by Zhai et al. 2022 (arXiv 2106.04560, section 3.5).

    .. math::
        \hat\beta_t &= \min(\beta_2, 1 - t^{-\gamma}) \\
        r_t, c_t &= \hat\beta_t r_{t-1} + (1 - \hat\beta_t) \operatorname{mean}(g_t^2 + \epsilon)
            \quad\text{along rows, columns} \\
        u_t &= g_t / \sqrt{r_t c_t / \operatorname{mean}(r_t)} \\
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1)\, u_t \\
        p_t &= (1 - \eta\lambda)\, p_{t-1} - \eta\, m_t

    Differs from :class:`optstudy.optim.Adafactor` in order (the *preconditioned* gradient is averaged), in
    the schedule of beta2, in eps (added to g^2) and in having no bias correction. Tensors whose
    second-largest dimension is under ``min_dim`` keep one second moment per weight. m is stored in bfloat16
    (float64 for float64 parameters), as big_vision stores it; a step uses it unrounded. Rows and columns are
    those of the two largest dimensions, of which the larger is averaged over for r.

    Args:
        params: parameters, or groups of them; every option can be set by group.
        lr: learning rate; a float or a tensor of one element.
        beta1: decay of m.
        beta2_cap: beta_2, the most that the decay of r and c grows to.
        decay_rate: gamma; the larger, the sooner it grows.
        eps: added to g^2.
        min_dim: entries; see above.
        weight_decay: lambda, per unit of lr: a step multiplies weights by 1 - lr lambda.
        maximize: ascend.
        compile: as in :class:`optstudy.optim.Preconditioned`.

    Raises:
        ValueError: an unknown option of a group, or a value out of range.
    """

    limits: ClassVar = {
        "lr": "[0, inf]", "beta1": "[0, 1)", "beta2_cap": "[0, 1]", "decay_rate": "(0, inf)",
        "eps": "[0, inf)", "weight_decay": "[0, inf)",
    }  # fmt: skip

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        beta1: float = 0.9,
        beta2_cap: float = 0.999,
        decay_rate: float = 0.8,
        eps: float = 1e-30,
        min_dim: int = 32,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        compile: bool | None = None,
    ) -> None:
        super().__init__(
            params, lr=lr, beta1=beta1, beta2_cap=beta2_cap, decay_rate=decay_rate, eps=eps, min_dim=min_dim,
            weight_decay=weight_decay, maximize=maximize,
            compile=compile,
        )  # fmt: skip

    def initial(self, like: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return m and the averages of g^2: zeros."""
        moment = granularity(like.shape, group["min_dim"])
        dtype = like.dtype if like.dtype == torch.float64 else torch.bfloat16
        return {"m": torch.zeros_like(like, dtype=dtype), **zeros(moment, like)}

    def kernel(self, group: Mapping[str, Any], k: int, shape: torch.Size) -> "BigVisionKernel":
        """Return the update."""
        return BigVisionKernel(granularity(shape, group["min_dim"]))

    def numbers(self, group: Mapping[str, Any], k: int) -> Numbers:
        """Return its numbers."""
        w2 = 1 - min(group["beta2_cap"], 1 - k ** -group["decay_rate"])
        # Reckoned from the averages at first too, so that code is compiled once: they are 0 at t = 1, and
        # 0.57, the weight at t = 2, is as good as a half.
        near = k == 1 or w2 <= 0.6
        return {
            "lr": group["lr"],
            "decay": 1 - group["lr"] * group["weight_decay"],
            "w1": sided(1 - group["beta1"]),
            "w2": Sided(w2, near),
            "eps": group["eps"],
        }


def granularity(shape: torch.Size, min_dim: int) -> Weight:
    """Return rank one over the two largest dimensions, or per weight if the smaller is under ``min_dim``."""
    if len(shape) < 2:
        return Weight()
    row, column = sorted(range(len(shape)), key=lambda dim: shape[dim])[-2:]
    return Factored(row, column) if shape[row] >= min_dim else Weight()


@dataclass(frozen=True)
class BigVisionKernel(BlockKernel):
    """The update of one parameter, for one granularity."""

    def __call__(
        self, p: Tensor, g: Tensor, m: Tensor, *, lr: Any, decay: Any, w1: Any, w2: Any, eps: Any,
        **averages: Tensor,
    ) -> None:  # fmt: skip
        """Take one step, in place."""
        kept = [averages[name] for name in self.moment.names]
        newest = [ema(v, s + eps, w2) for v, s in zip(kept, self.newest(g, averages), strict=True)]
        u = g / product(stored(factor, p) for factor in self.moment.roots(*newest))
        average = ema(m.to(u.dtype), u, w1)
        write(p, lr, decay, average)
        put(m, average)
        for v, new in zip(kept, newest, strict=True):
            put(v, new)
