"""The optimizers in numpy, from the papers' formulas: one parameter, its gradients, k = 1, 2, ...

Independent of the package: explicit loops over blocks, sums of all squares for the estimates.
"""

import numpy as np

Array = np.ndarray


def block_means(s: Array, kind: str) -> Array:
    """V's raw material: for each weight the mean of ``s`` over the block it is in."""
    out = np.empty_like(s)
    if kind == "weight":
        return s.copy()
    if kind == "column" and s.ndim > 1:
        parts = [(..., slice(i, i + 1)) for i in range(s.shape[-1])]
    elif kind in ("tensor", "column"):
        parts = [slice(None)]
    elif kind == "row":
        parts = [slice(i, i + 1) for i in range(len(s))]
    else:
        n = int(kind.removeprefix("split-"))
        size = len(s) // n
        parts = [slice(i * size, (i + 1) * size) for i in range(n)]
    for part in parts:
        out[part] = s[part].sum() / s[part].size
    return out


def preconditioned(p, gs, lrs, *, betas, eps, weight_decay, kind, estimate_steps=0, freeze=False):
    """A factored matrix has means r of rows and c of columns; all else one array of block means."""
    b1, b2 = betas
    m, total, trajectory = np.zeros_like(p), np.zeros_like(p), []
    factored = kind.startswith("factored") and p.ndim == 2
    blocks = {"factored": "tensor", "factored-textbook": "weight"}.get(kind, kind)
    averages = [0.0, 0.0] if factored else [0.0]
    for k, (g, lr) in enumerate(zip(gs, lrs, strict=True), 1):
        m = b1 * m + (1 - b1) * g
        total += g**2
        if kind != "none":
            s = total / (k + 1) if k <= estimate_steps else g**2
            means = [s.mean(1), s.mean(0)] if factored else [block_means(s, blocks)]
            if k <= estimate_steps:
                averages = means
            elif not freeze:
                averages = [b2 * old + (1 - b2) * new for old, new in zip(averages, means, strict=True)]
            v = np.outer(*averages) / averages[0].mean() if factored else averages[0]
            denominator = np.sqrt(v) / (1 if estimate_steps else np.sqrt(1 - b2**k)) + eps
        else:
            denominator = 1.0
        p = (1 - lr * weight_decay) * p - lr / (1 - b1**k) * m / denominator
        trajectory.append(p)
    return trajectory


def lion(p, gs, lrs, *, betas, weight_decay):
    b1, b2 = betas
    m, trajectory = np.zeros_like(p), []
    for g, lr in zip(gs, lrs, strict=True):
        u = b1 * m + (1 - b1) * g
        p = (1 - lr * weight_decay) * p - lr * np.sign(u)
        m = b2 * m + (1 - b2) * g
        trajectory.append(p)
    return trajectory


def sgdw(p, gs, lrs, *, momentum, dampening, nesterov, weight_decay):
    b, trajectory = None, []
    for g, lr in zip(gs, lrs, strict=True):
        b = g if b is None else momentum * b + (1 - dampening) * g
        step = g + momentum * b if nesterov else (b if momentum else g)
        p = (1 - lr * weight_decay) * p - lr * step
        trajectory.append(p)
    return trajectory


def sophia(p, gs, lrs, *, betas, rho, batch_tokens, weight_decay, sampled=()):
    """``sampled``: (k, g-hat) pairs; h moves after step k."""
    m, h, trajectory = np.zeros_like(p), np.zeros_like(p), []
    for k, (g, lr) in enumerate(zip(gs, lrs, strict=True), 1):
        m = betas[0] * m + (1 - betas[0]) * g
        ratio = np.minimum(1, np.abs(m) / (rho * batch_tokens * h + 1e-15))
        p = (1 - lr * weight_decay) * p - lr * np.sign(m) * ratio
        for at, ghat in sampled:
            if at == k:
                h = betas[1] * h + (1 - betas[1]) * ghat**2
        trajectory.append(p)
    return trajectory


def adafactor_bigvision(p, gs, lrs, *, beta1, beta2_cap, decay_rate, eps, min_dim, weight_decay):
    m, v, r, c, trajectory = np.zeros_like(p), 0, 0, 0, []
    for k, (g, lr) in enumerate(zip(gs, lrs, strict=True), 1):
        b2 = min(beta2_cap, 1 - k**-decay_rate)
        s = g**2 + eps
        if p.ndim == 2 and min(p.shape) >= min_dim:
            r, c = b2 * r + (1 - b2) * s.mean(1), b2 * c + (1 - b2) * s.mean(0)
            v = np.outer(r, c) / r.mean()
        else:
            v = b2 * v + (1 - b2) * s
        m = beta1 * m + (1 - beta1) * g / np.sqrt(v)
        p = (1 - lr * weight_decay) * p - lr * m
        trajectory.append(p)
    return trajectory


def _blocks_of_later_papers(name, role, shape, heads):
    """The weights that share a second moment, as indices: a tensor cut up by explicit loops."""
    rows = [np.s_[i : i + 1] for i in range(shape[0])]
    columns = [np.s_[:, i : i + 1] for i in range(shape[-1])]
    tokens = {"embedding": rows, "head": rows}
    if name == "slim_adam":
        return {**tokens, "qkv": rows, "attention_out": columns, "mlp_in": columns, "mlp_out": columns}.get(
            role
        )
    if name == "scale_like":
        return None if len(shape) == 1 else columns if role == "embedding" else rows
    if role != "qkv":
        return [np.s_[:]] if len(shape) == 1 else rows
    width = shape[0] // 3 // heads
    of_heads = [np.s_[i : i + width] for i in range(0, 2 * heads * width, width)]
    return [*of_heads, *rows[2 * heads * width :]]


def of_a_later_paper(name, role, p, gs, lr, heads):
    """SlimAdam, Adam-mini and what is like SCALE, for one parameter; None for blocks: a value per weight."""
    normalised = name == "scale_like" and p.ndim > 1
    b1, b2, eps = 0.9, 0.95, 1e-15
    if name == "scale_like":
        b1, b2, eps = (0.9 if role == "head" else 0.0, 0.0, 0.0) if normalised else (0.9, 0.999, 1e-8)
    blocks = _blocks_of_later_papers(name, role, p.shape, heads)
    m, v = np.zeros_like(p), np.zeros_like(p)
    for t, g in enumerate(gs, 1):
        square = g * g
        for block in blocks or ():
            square[block] = square[block].sum() / square[block].size
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * square
        p = p - lr * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
    return p
