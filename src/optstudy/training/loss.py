"""Cross-entropy and z-loss over a linear head, in nats per token, without keeping the logits.

Shapes: N targets, D width, V vocabulary size, C rows of one chunk.

The training loss of the released code is, over the N targets,

    mean(lse_n - logits_n[y_n]) + z * mean(lse_n^2),   lse_n = logsumexp(logits_n)

with z = 1e-4 (Wortsman et al. 2023, section 3.3); validation omits the z term. The gradient of row n
with respect to its logits is (softmax(logits_n) (1 + 2 z lse_n) - onehot(y_n)) / N. So loss and gradient
come from one pass over chunks of rows small enough to stay in cache, and the N x V logits are never stored.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK_BYTES = 1 << 21
"""Bytes of logits per chunk on a CPU: about one core's second-level cache."""
CHUNK_BYTES_COMPILED = 1 << 24
"""The same if the passes over a chunk are compiled into one."""
CHUNK_BYTES_CUDA = 1 << 28
"""The same on a GPU, where large matrix products matter more than cache."""

Rows: TypeAlias = Callable[..., tuple[Tensor, Tensor | None]]
"""Type of :func:`loss_rows`."""


def language_model_loss(
    h_ND: Tensor,
    w_VD: Tensor,
    y_N: Tensor,
    z: float = 0.0,
    rows: Rows | None = None,
    each_N: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Loss of predicting ``y_N`` from ``h_ND @ w_VD.T``.

    Args:
        h_ND: hidden states, after the final norm.
        w_VD: the head's weight.
        y_N: targets, int64 in [0, V).
        z: z-loss coefficient.
        rows: a compiled :func:`loss_rows`.
        each_N: set to the cross-entropy of each target.

    Returns:
        Two scalars, at least float32: the training loss (with z-loss, differentiable once in h and w) and the
        cross-entropy alone, without gradient.
    """
    if torch.is_autocast_enabled(h_ND.device.type):
        dtype = torch.get_autocast_dtype(h_ND.device.type)
        h_ND, w_VD = h_ND.to(dtype), w_VD.to(dtype)
    loss, cross_entropy = _LinearCrossEntropy.apply(h_ND, w_VD, y_N, z, rows, each_N)  # type: ignore[no-untyped-call]
    return loss, cross_entropy


def logits_loss(
    logits_NV: Tensor, y_N: Tensor, z: float = 0.0, each_N: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Return the same two losses of logits that a model makes itself, which are kept whole."""
    wide_NV = logits_NV.to(torch.promote_types(logits_NV.dtype, torch.float32))
    lse_N = wide_NV.logsumexp(-1)
    cross_entropy_N = lse_N - wide_NV.gather(-1, y_N[:, None])[:, 0]
    if each_N is not None:
        each_N.copy_(cross_entropy_N.detach())
    cross_entropy = cross_entropy_N.mean()
    return cross_entropy + z * lse_N.square().mean(), cross_entropy.detach()


def loss_rows(
    logits_CV: Tensor, y_C1: Tensor, z: float, n: int, gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """Return logsumexp of some rows, shape C1, and the gradient of the loss with respect to their logits.

    Args:
        logits_CV: logits; overwritten if they are at least float32.
        y_C1: targets.
        z: z-loss coefficient.
        n: number of rows in the whole mean.
        gradient: whether to compute the gradient; if not, it is None.
    """
    wide_CV = logits_CV.to(torch.promote_types(logits_CV.dtype, torch.float32))
    max_C1 = wide_CV.amax(1, keepdim=True)
    exp_CV = wide_CV.sub_(max_C1).exp_()
    sum_C1 = exp_CV.sum(1, keepdim=True)
    lse_C1 = max_C1 + sum_C1.log()
    if not gradient:
        return lse_C1, None
    grad_CV = exp_CV.mul_((1 + 2 * z * lse_C1) / (sum_C1 * n))
    grad_CV.scatter_add_(1, y_C1, torch.full_like(lse_C1, -1 / n))
    return lse_C1, grad_CV.to(logits_CV.dtype)


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        h_ND: Tensor,
        w_VD: Tensor,
        y_N: Tensor,
        z: float,
        rows: Rows | None,
        each_N: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        n = len(h_ND)
        wide = torch.promote_types(h_ND.dtype, torch.float32)
        need_h, need_w = ctx.needs_input_grad[:2]
        grad_h = torch.empty_like(h_ND) if need_h else None
        grad_w = torch.zeros(w_VD.shape, dtype=wide, device=w_VD.device) if need_w else None
        cross_entropy = h_ND.new_zeros((), dtype=wide)
        z_loss = h_ND.new_zeros((), dtype=wide)
        for chunk in _chunks(n, w_VD, rows is not None):
            h_CD = h_ND[chunk]
            logits_CV = h_CD @ w_VD.T
            y_C1 = y_N[chunk, None]
            target_C1 = logits_CV.gather(1, y_C1).to(wide)
            lse_C1, grad_CV = (rows or loss_rows)(logits_CV, y_C1, z, n, need_h or need_w)
            cross_entropy_C1 = lse_C1 - target_C1
            if each_N is not None:
                each_N[chunk] = cross_entropy_C1[:, 0]
            cross_entropy += cross_entropy_C1.sum()
            z_loss += lse_C1.square().sum()
            if grad_CV is None:
                continue
            if grad_h is not None:
                torch.mm(grad_CV, w_VD, out=grad_h[chunk])
            if grad_w is not None and grad_w.dtype == grad_CV.dtype:
                grad_w.addmm_(grad_CV.T, h_CD)
            elif grad_w is not None:
                grad_w += grad_CV.T @ h_CD
        ctx.save_for_backward(grad_h, grad_w)
        ctx.weight_dtype = w_VD.dtype
        mean = cross_entropy / n
        ctx.mark_non_differentiable(mean)
        return (cross_entropy + z * z_loss) / n, mean

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None, None]:
        grad_h, grad_w = ctx.saved_tensors
        scale = grads[0]  # a float32 scalar: products keep the gradients' dtype
        return (
            None if grad_h is None else grad_h * scale,
            None if grad_w is None else (grad_w * scale).to(ctx.weight_dtype),
            None,
            None,
            None,
            None,
        )


def _chunks(n: int, w_VD: Tensor, compiled: bool) -> list[slice]:
    limit = CHUNK_BYTES_CUDA if w_VD.is_cuda else CHUNK_BYTES_COMPILED if compiled else CHUNK_BYTES
    wide = torch.promote_types(w_VD.dtype, torch.float32)
    rows = max(64, limit // (len(w_VD) * wide.itemsize))
    return [slice(start, min(start + rows, n)) for start in range(0, n, rows)]
