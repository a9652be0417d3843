"""Adam, Adafactor, Adalayer, hybrids with SGD: one algorithm with increasingly coarse second moments."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from torch import Tensor

from optstudy.optim.blocks import Granularity, Shape, second_moment
from optstudy.optim.options import AdafactorOptions, AdalayerOptions, AdamOptions, PreconditionedOptions
from optstudy.optim.rule import Rule, where
from optstudy.optim.sharded import whole


class Preconditioned(Rule):
    r"""Momentum divided by the root of a second moment (Zhao et al. 2025, arXiv 2407.07972, Algorithm 1).

    .. math::
        m_t &= \beta_1 m_{t-1} + (1 - \beta_1)\, g_t \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2)\, \operatorname{mean}_{block}(g_t^2) \\
        p_t &= (1 - \eta\lambda)\, p_{t-1}
            - \eta\, \frac{m_t / (1 - \beta_1^t)}{\sqrt{V_t} / \sqrt{1 - \beta_2^t} + \epsilon}

    V is v broadcast to each weight, or for ``factored`` r c / mean(r), where r and c are the running averages
    of the row and column means of g^2. Algorithm 1 prints the block's sum divided by the *root* of its size;
    its text and the released code use the mean, as here. ``tensor-printed`` and ``row-printed`` follow the
    printed form. For ``none`` the denominator is 1, without eps: SGD with EMA momentum and bias correction.

    State: m, with the parameter's shape, unless beta1 is 0 in the first step, and the averages of g^2: a
    number per block, or r and c. It is float32 for parameters in half precision, otherwise of the parameter's
    dtype.
    """

    options = PreconditionedOptions

    def numbers(self, group: Mapping[str, Any], t: Any) -> dict[str, Any]:
        """Return eta with the bias correction of m, V's correction, the weights of new values, and eps."""
        (beta1, beta2), estimate = group["betas"], group["estimate_steps"]
        afterwards = 0.0 if group["freeze"] else 1 - beta2
        return {
            "lr": group["lr"] / (1 - beta1**t),
            "w1": 1 - beta1,
            "w2": where(t <= estimate, 1 / (t + 1), afterwards),
            "correction": 1.0 if estimate else (1 - beta2**t) ** -0.5,
            "eps": group["eps"],
        }

    def static(self, group: Mapping[str, Any], shape: Shape) -> dict[str, Hashable]:
        """Return the granularity."""
        return {"moment": second_moment(group["second_moment"], shape, group.get("layout", ""))}

    @staticmethod
    def update(
        p: Tensor, g: Tensor, m: Tensor | None = None, *,
        lr: Any, decay: Any, w1: Any, w2: Any, correction: Any, eps: Any,
        moment: Granularity | None, means: tuple[Tensor, ...] = (), **averages: Tensor,
    ) -> None:  # fmt: skip
        """Take one step of one parameter, in place."""
        step = g if m is None else m.lerp_(g, w1)
        if moment is not None:
            for average, mean in zip(averages.values(), means or moment.means(g.square()), strict=True):
                average.lerp_(mean, w2)
            step = step / (moment.root(*averages.values()) * correction + eps)
        p.mul_(decay).sub_(lr * step)

    @torch.no_grad()
    def effective_lr(self, p: Tensor, group: Mapping[str, Any]) -> Tensor:
        """Return the learning rate divided by the denominator of the last step (Figure 2).

        Args:
            p: a parameter that has taken a step.
            group: its group.

        Returns:
            Numbers that broadcast against p: with p's shape, or with 1 in dimensions inside blocks; for
            ``none``, lr itself.

        Raises:
            KeyError: p has taken no step.
        """
        state = self.state[p]
        numbers = self.numbers(group, int(state["step"]))
        moment: Any = self.static(group, tuple(p.shape))["moment"]
        if moment is None:
            return torch.as_tensor(group["lr"])
        root = moment.root(*(whole(state[name]) for name in moment.state(tuple(p.shape))))
        return torch.as_tensor(group["lr"] / (root * numbers["correction"] + numbers["eps"]))


class Adam(Preconditioned):
    """One second moment per weight (Kingma and Ba 2015, arXiv 1412.6980, Algorithm 1).

    Weight decay is as in AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101), times lr as in torch's AdamW.
    State: m and v, with the parameter's shape.
    """

    options = AdamOptions


class Adafactor(Preconditioned):
    """A second moment of rank one, with momentum and constant betas (the paper's Appendix B).

    The rank-one estimate is from Shazeer and Stern 2018 (arXiv 1804.04235). It differs from big_vision's
    algorithm, :class:`optstudy.optim.AdafactorBigVision`: no clipping of the update, no relative step, no
    schedule of beta2, but bias correction. State: m, with the parameter's shape, and R + C numbers for a
    matrix of R rows and C columns.
    """

    options = AdafactorOptions


class Adalayer(Preconditioned):
    """One second moment per tensor (the paper's Algorithm 1); Adalayer* uses ``row`` for the head's group.

    State: m, with the parameter's shape, and one number per block: a tensor, or a row or part of it.
    """

    options = AdalayerOptions
