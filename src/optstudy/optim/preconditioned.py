"""Adam, Adafactor, Adalayer, hybrids with SGD: one algorithm, with a coarser and coarser second moment."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim.optimizer import ParamsT

from optstudy.optim.compiled import Numbers, sided, stored
from optstudy.optim.rule import Rule, ema, product, put, write
from optstudy.optim.second_moment import Absent, second_moment
from optstudy.optim.sharded import BlockKernel, whole, zeros


class Preconditioned(Rule):
    r"""Momentum divided by the root of a second moment (Zhao et al. 2025, arXiv 2407.07972, Algorithm 1).

    .. math::
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1)\, g_t \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2)\, \operatorname{mean}_{block}(g_t^2) \\
        p_t &= (1 - \eta\lambda)\, p_{t-1}
            - \eta\, \frac{m_t / (1 - \beta_1^t)}{\sqrt{V_t} / \sqrt{1 - \beta_2^t} + \epsilon}

    V is v, seen from each weight, or for ``factored`` r c / mean(r), where r and c are such averages of the
    row and column means of g^2. Algorithm 1 prints the block's sum over the *root* of its size; its prose
    and the released code take the mean, as here; ``tensor-printed`` and ``row-printed`` do what is printed.
    For ``none`` the denominator is 1, without eps: SGD with EMA momentum and bias correction.

    State: m, of the parameter's shape, and the averages of g^2: a number per block, or r and c. It is float32
    for parameters in half precision, else of the parameter's dtype.

    Args:
        params: parameters, or groups of them; every option can be set by group.
        lr: learning rate; a float or a tensor of one element.
        betas: decay of the first and second moment.
        eps: added outside the root, in the gradient's unit.
        weight_decay: lambda, decoupled, per unit of lr: a step multiplies weights by 1 - lr lambda.
        second_moment: ``weight``, ``factored``, ``factored-textbook``, ``tensor``, ``tensor-printed``,
            ``row``, ``row-printed``, ``split-N`` or ``none``; see
            :func:`optstudy.optim.second_moment.second_moment`.
        estimate_steps: F, in steps; for t <= F the averages of g^2 take the weight 1 / (t + 1) for 1 - beta2,
            which makes them sums over t + 1 (one more than their terms); they are then never bias-corrected.
        freeze: keep the averages of g^2 as they are after ``estimate_steps``.
        maximize: ascend.
        compile: run one compiled kernel (True), the plain loop (False), or the first from
            :data:`optstudy.optim.compiled.LARGE` weights on (None).

    Raises:
        ValueError: an unknown option of a group, or a value out of range; ``freeze`` without
            ``estimate_steps``; at the first step, ``split-N`` for a parameter whose first dimension N does
            not divide.
    """

    limits: ClassVar = {
        "lr": "[0, inf]", "betas": "[0, 1)", "eps": "[0, inf)", "weight_decay": "[0, inf)",
        "second_moment": r"weight|factored(-textbook)?|(tensor|row)(-printed)?|split-[1-9]\d*|none",
        "estimate_steps": "[0, inf)",
    }  # fmt: skip

    def __init__(
        self,
        params: ParamsT,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.95),
        eps: float = 1e-15,
        weight_decay: float = 0.0,
        second_moment: str = "weight",
        estimate_steps: int = 0,
        freeze: bool = False,
        *,
        maximize: bool = False,
        compile: bool | None = None,
    ) -> None:
        super().__init__(
            params,
            lr=lr,
            betas=betas,
            eps=eps,
            weight_decay=weight_decay,
            second_moment=second_moment,
            estimate_steps=estimate_steps,
            freeze=freeze,
            maximize=maximize,
            compile=compile,
        )

    def check(self, group: Mapping[str, Any]) -> None:
        """Refuse a freeze without an estimate."""
        if group["freeze"] and not group["estimate_steps"]:
            raise ValueError("Invalid freeze: True, must be False where estimate_steps is 0")

    def initial(self, like: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return m and the averages of g^2: zeros."""
        moment = second_moment(group["second_moment"], like.ndim)
        return {"m": torch.zeros_like(like), **zeros(moment, like)}

    def kernel(self, group: Mapping[str, Any], k: int, shape: torch.Size) -> "PreconditionedKernel":
        """Return the update."""
        frozen = group["freeze"] and k > group["estimate_steps"]
        return PreconditionedKernel(second_moment(group["second_moment"], len(shape)), frozen=frozen)

    def numbers(self, group: Mapping[str, Any], k: int) -> Numbers:
        """Return its numbers: bias corrections and the weights of the averages."""
        beta1, beta2 = group["betas"]
        estimating, never_corrected = k <= group["estimate_steps"], group["estimate_steps"] > 0
        return {
            "lr": group["lr"] / (1 - beta1**k),
            "decay": 1 - group["lr"] * group["weight_decay"],
            "w1": sided(1 - beta1),
            "w2": sided(1 / (k + 1) if estimating else 1 - beta2),
            "correction": 1.0 if never_corrected else (1 - beta2**k) ** -0.5,
            "eps": group["eps"],
        }

    @torch.no_grad()
    def effective_lr(self, p: Tensor, group: Mapping[str, Any]) -> Tensor:
        """Return the learning rate over the denominator of the last step, one value per block (Figure 2).

        Args:
            p: a parameter that has taken a step.
            group: its group.

        Returns:
            For ``weight``, and a matrix's ``factored``, p's shape; else that shape with 1 in place of each
            dimension that a block goes over, for ``split-N`` that of p cut in N parts along a new first
            dimension; for ``none`` lr itself.

        Raises:
            KeyError: p has taken no step.
        """
        state = self.state[p]
        k = int(state["step"])
        moment, numbers = self.kernel(group, k, p.shape).moment, self.numbers(group, k)
        if isinstance(moment, Absent):
            return torch.as_tensor(group["lr"])
        factors = moment.roots(*(whole(state[name]) for name in moment.names))
        rate: Tensor = group["lr"] / (product(factors) * numbers["correction"] + numbers["eps"])
        return rate


@dataclass(frozen=True)
class PreconditionedKernel(BlockKernel):
    """The update of one parameter, for one granularity."""

    frozen: bool

    def measures(self) -> bool:
        """Say whether the averages change."""
        return not self.frozen

    def __call__(
        self, p: Tensor, g: Tensor, m: Tensor, *, lr: Any, decay: Any, w1: Any, w2: Any, correction: Any,
        eps: Any, **averages: Tensor,
    ) -> None:  # fmt: skip
        """Take one step, in place; ``lr`` has the bias correction of m in it, ``correction`` corrects v."""
        p, g, m = (self.moment.blocks(x) for x in (p, g, m))
        average = ema(m, g, w1)
        if isinstance(self.moment, Absent):
            write(p, lr, decay, average)
            put(m, average)
            return
        newest = kept = [averages[name] for name in self.moment.names]
        if not self.frozen:
            newest = [ema(v, mean, w2) for v, mean in zip(kept, self.newest(g, averages), strict=True)]
        first, *others = self.moment.roots(*newest)
        root = product(stored(factor, p) for factor in (first * correction, *others))
        write(p, lr, decay, average / (root + eps))
        put(m, average)
        if not self.frozen:
            for v, new in zip(kept, newest, strict=True):
                put(v, new)


class Adam(Preconditioned):
    """One second moment per weight (Kingma and Ba 2015, arXiv 1412.6980, Algorithm 1).

    The decay is that of AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101), times lr as in torch's AdamW.
    State: m and v, of the parameter's shape. Arguments and errors are those of
    :class:`optstudy.optim.Preconditioned`.
    """


class Adafactor(Preconditioned):
    """A second moment of rank one, with momentum and constant betas (the paper's Appendix B).

    The rank-one estimate is that of Shazeer and Stern 2018 (arXiv 1804.04235). Not big_vision's algorithm,
    see :class:`optstudy.optim.AdafactorBigVision`: no clipping of the update, no relative step, no schedule
    of beta2, bias-corrected. State: m, of the parameter's shape, and of a matrix of R rows and C columns R
    and C numbers.

    Args:
        params: parameters, or groups of them; every option can be set by group.
        lr: learning rate; a float or a tensor of one element.
        second_moment: ``factored``: a vector keeps one number, as in the released code;
            ``factored-textbook``: one per weight, as printed.
        options: the other arguments of :class:`optstudy.optim.Preconditioned`.

    Raises:
        ValueError: as :class:`optstudy.optim.Preconditioned`.
    """

    def __init__(
        self, params: ParamsT, lr: float | Tensor = 1e-3, *, second_moment: str = "factored", **options: Any
    ) -> None:
        super().__init__(params, lr, second_moment=second_moment, **options)


class Adalayer(Preconditioned):
    """One second moment per tensor (the paper's Algorithm 1); its star is ``row`` for the head's group.

    State: m, of the parameter's shape, and one number per block: a tensor, or a row of one.

    Args:
        params: parameters, or groups of them; every option can be set by group.
        lr: learning rate; a float or a tensor of one element.
        second_moment: ``tensor``, or by group ``row``, or ``split-3`` for fused query, key and value: the
            mean of g^2 over a block; ``tensor-printed``, ``row-printed``: its sum over the root of the
            block's size, as Algorithm 1 prints it.
        options: the other arguments of :class:`optstudy.optim.Preconditioned`.

    Raises:
        ValueError: as :class:`optstudy.optim.Preconditioned`.
    """

    def __init__(
        self, params: ParamsT, lr: float | Tensor = 1e-3, *, second_moment: str = "tensor", **options: Any
    ) -> None:
        super().__init__(params, lr, second_moment=second_moment, **options)
