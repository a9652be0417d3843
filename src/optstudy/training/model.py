"""The paper's decoder-only transformer, as its released code built it (OLMo's layout, not its code).

Shapes: B sequences, T positions, D width, H heads, K width of one head (D = H K), V vocabulary size.

Embeddings untied; LayerNorm with a weight and no bias, computed in float32; queries and keys normed over
their full width D before the head split and the rotary embedding; exact GELU in a 4x MLP; no biases.
Initial weights are OLMo's "mitchell": normal, truncated at 3 standard deviations, with standard deviation
1 / sqrt(d_in), times 1 / sqrt(2 (layer + 1)) for the two matrices that write into the residual stream.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from optstudy import config
from optstudy.config import MLP_RATIO

NORM_EPS = 1e-5
ROPE_BASE = 10_000.0
ATTENTION_ROWS = 128
"""Queries that a CPU processes at a time in bfloat16; each chunk only uses keys up to its last query."""
ATTENTION_WEIGHTS = 1 << 26
"""Maximum attention weights of a layer that a CPU stores for the backward pass (128 MB)."""


class Linear(nn.Linear):
    """Linear map without bias whose ``role`` names the role of its weight (see :mod:`optstudy.roles`)."""

    parts: tuple[int, ...]
    """Outputs of each of the matrices that are fused in it, where they are several."""

    def __init__(self, d_in: int, d_out: int, role: str) -> None:
        super().__init__(d_in, d_out, bias=False)
        self.role = role

    def initialise(self, generator: torch.Generator, factor: float = 1.0) -> None:
        """Draw the weight with standard deviation ``factor / sqrt(d_in)``."""
        truncated_normal(self.weight, factor * self.in_features**-0.5, generator)


class LayerNorm(nn.LayerNorm):
    """LayerNorm with a weight, without bias, in float32 under autocast; returns the input's dtype."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=NORM_EPS, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        with torch.autocast(x.device.type, enabled=False):
            wide = torch.promote_types(x.dtype, self.weight.dtype)
            return F.layer_norm(x.to(wide), self.normalized_shape, self.weight, None, self.eps).to(x.dtype)


class Attention(nn.Module):
    """Causal self-attention with rotary positions; heads of queries share heads of keys and values."""

    def __init__(self, model: config.Model, layer: int) -> None:
        super().__init__()
        width, _, heads = model.sizes
        self.n_heads, self.head_width = heads, width // heads
        keys = self.head_width * (model.n_kv_heads or heads)
        self.qkv = Linear(width, width + 2 * keys, "qkv")
        self.qkv.parts = (width, keys, keys)
        self.query_norm = LayerNorm(width) if model.qk_norm else None
        self.key_norm = LayerNorm(width) if model.qk_norm else None
        self.out = Linear(width, width, "attention_out")
        self.scale = self.head_width**-0.5
        if model.scale_attention_by_layer:
            self.scale /= layer + 1

    def forward(self, x_BTD: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        """Attend to the same and earlier positions."""
        q_BTD, k_BTD, v_BTD = self.qkv(x_BTD).split(self.qkv.parts, dim=-1)
        if self.query_norm is not None and self.key_norm is not None:
            q_BTD, k_BTD = self.query_norm(q_BTD), self.key_norm(k_BTD)
        q_BHTK, k_BHTK, v_BHTK = (self._split_heads(x) for x in (q_BTD, k_BTD, v_BTD))
        y_BHTK = attend(rotate(q_BHTK, *rope), rotate(k_BHTK, *rope), v_BHTK, self.scale)
        out: Tensor = self.out(y_BHTK.transpose(1, 2).reshape(x_BTD.shape))
        return out

    def _split_heads(self, x_BTD: Tensor) -> Tensor:
        return x_BTD.view(*x_BTD.shape[:2], -1, self.head_width).transpose(1, 2)


class MLP(nn.Module):
    """Two matrices around an exact GELU."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = Linear(width, MLP_RATIO * width, "mlp_in")
        self.down = Linear(MLP_RATIO * width, width, "mlp_out")

    def initialise(self, generator: torch.Generator, residual: float) -> None:
        """Draw the weights; ``residual`` scales those that write into the residual stream."""
        self.up.initialise(generator)
        self.down.initialise(generator, residual)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Apply the MLP to each position separately."""
        out: Tensor = self.down(F.gelu(self.up(x_BTD)))
        return out


class Block(nn.Module):
    """Pre-norm residual block: attention, then MLP."""

    Norm: type[nn.Module] = LayerNorm
    Mlp: type[MLP] = MLP

    def __init__(self, model: config.Model, layer: int) -> None:
        super().__init__()
        width = model.sizes.width
        self.attention_norm = self.Norm(width)
        self.attention = Attention(model, layer)
        self.mlp_norm = self.Norm(width)
        self.mlp = self.Mlp(width)
        self.layer = layer

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the weights; matrices that write into the residual stream are smaller in later layers."""
        residual = (2 * (self.layer + 1)) ** -0.5
        self.attention.qkv.initialise(generator)
        self.attention.out.initialise(generator, residual)
        self.mlp.initialise(generator, residual)

    def forward(self, x_BTD: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        """Add the outputs of attention and MLP to the residual stream."""
        x_BTD = x_BTD + self.attention(self.attention_norm(x_BTD), rope)
        out: Tensor = x_BTD + self.mlp(self.mlp_norm(x_BTD))
        return out


class Transformer(nn.Module):
    """Maps tokens to the hidden states that :attr:`head` turns into logits."""

    Block: type[Block] = Block

    def __init__(self, model: config.Model, seed: int) -> None:
        super().__init__()
        width, layers, heads = model.sizes
        self.embedding = nn.Embedding(model.vocab_size, width)
        self.blocks = nn.ModuleList(self.Block(model, layer) for layer in range(layers))
        self.norm = self.Block.Norm(width)
        self.head = Linear(width, model.vocab_size, "head")
        self.head_width = width // heads
        if model.tie_embeddings:
            self.head.weight = self.embedding.weight
        self._initialise(seed)

    def forward(self, x_BT: Tensor) -> Tensor:
        """Return the normed hidden states, shape BTD; :attr:`head` maps them to logits."""
        rope = rotary_table(x_BT.shape[1], self.head_width, x_BT.device)
        y_BTD = self.embedding(x_BT)
        for block in self.blocks:
            y_BTD = block(y_BTD, rope)
        out: Tensor = self.norm(y_BTD)
        return out

    def _initialise(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        truncated_normal(self.embedding.weight, self.embedding.embedding_dim**-0.5, generator)
        for block in self.blocks:
            assert isinstance(block, Block)
            block.initialise(generator)
        if self.head.weight is not self.embedding.weight:
            self.head.initialise(generator)


@torch.no_grad()
def truncated_normal(weight: Tensor, std: float, generator: torch.Generator) -> None:
    """Fill with a normal distribution of standard deviation ``std``, truncated at 3 of them."""
    nn.init.trunc_normal_(weight, std=std, a=-3 * std, b=3 * std, generator=generator)


def attend(q_BHTK: Tensor, k_BHTK: Tensor, v_BHTK: Tensor, scale: float) -> Tensor:
    """Causal attention: softmax(scale q k^T) v, the softmax in at least float32.

    torch's kernel, except for short sequences in bfloat16 on a CPU: there plain products (whose logits are
    rounded to bfloat16 once) are 2 to 3 times faster.
    """
    B, H, T, _ = q_BHTK.shape
    if k_BHTK.shape[1] < H:  # groups of heads of queries share one of keys and values
        k_BHTK, v_BHTK = (x.repeat_interleave(H // x.shape[1], dim=1) for x in (k_BHTK, v_BHTK))
    if q_BHTK.device.type != "cpu" or q_BHTK.dtype != torch.bfloat16 or B * H * T * T > ATTENTION_WEIGHTS:
        return F.scaled_dot_product_attention(q_BHTK, k_BHTK, v_BHTK, is_causal=True, scale=scale)
    parts = []
    for start in range(0, T, ATTENTION_ROWS):
        stop = min(start + ATTENTION_ROWS, T)
        logits = scale * (q_BHTK[:, :, start:stop] @ k_BHTK[:, :, :stop].mT).float()
        position = torch.arange(stop, dtype=torch.float32)
        logits = torch.where(position <= position[start:, None], logits, -torch.inf)
        parts.append(logits.softmax(-1).to(v_BHTK.dtype) @ v_BHTK[:, :, :stop])
    return torch.cat(parts, dim=2)


def rotary_table(length: int, head_width: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cosines and sines of RoPE (Su et al. 2021), each of shape (T, K), in float32; see :func:`rotate`."""
    inverse_frequency = ROPE_BASE ** -(
        torch.arange(0, head_width, 2, device=device, dtype=torch.float32) / head_width
    )
    angle = torch.outer(torch.arange(length, device=device, dtype=torch.float32), inverse_frequency)
    cos, sin = angle.cos(), angle.sin()
    return torch.cat((cos, cos), dim=-1), torch.cat((-sin, sin), dim=-1)


def rotate(x_BHTK: Tensor, cos_TK: Tensor, sin_TK: Tensor) -> Tensor:
    """Turn each pair (k, k + K/2) by its position's angle, in at least float32; returns the input's dtype."""
    wide = x_BHTK.to(torch.promote_types(x_BHTK.dtype, torch.float32))
    swapped = wide.view(*wide.shape[:-1], 2, -1).flip(-2).flatten(-2)
    turned: Tensor = wide * cos_TK + swapped * sin_TK
    return turned.to(x_BHTK.dtype)
