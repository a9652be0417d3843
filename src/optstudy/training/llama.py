"""A Llama (Touvron et al. 2023, arXiv 2302.13971): the paper's transformer with today's customary parts.

RMSNorm for LayerNorm, SwiGLU for the GELU, heads of queries that share keys and values (Ainslie et al. 2023),
no QK-norm. Attention, residual stream, positions, initial weights and the head are those of
:mod:`optstudy.training.model`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from optstudy.config import gated_width
from optstudy.training.model import MLP, NORM_EPS, Block, Linear, Transformer


class RMSNorm(nn.RMSNorm):
    """RMSNorm with a weight, in float32 under autocast; returns the input's dtype."""

    def __init__(self, width: int) -> None:
        super().__init__(width, eps=NORM_EPS)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        with torch.autocast(x.device.type, enabled=False):
            wide = torch.promote_types(x.dtype, self.weight.dtype)
            return F.rms_norm(x.to(wide), self.normalized_shape, self.weight, self.eps).to(x.dtype)


class SwiGLU(MLP):
    """down(silu(gate(x)) * up(x)), 8/3 as wide as its input (Shazeer 2020)."""

    def __init__(self, width: int) -> None:
        nn.Module.__init__(self)
        hidden = gated_width(width)
        self.gate = Linear(width, hidden, "mlp_in")
        self.up = Linear(width, hidden, "mlp_in")
        self.down = Linear(hidden, width, "mlp_out")

    def initialise(self, generator: torch.Generator, residual: float) -> None:
        """Draw the weights."""
        self.gate.initialise(generator)
        super().initialise(generator, residual)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """Act on each position alone."""
        out: Tensor = self.down(F.silu(self.gate(x_BTD)) * self.up(x_BTD))
        return out


class LlamaBlock(Block):
    """Block of RMSNorm and SwiGLU."""

    Norm = RMSNorm
    Mlp = SwiGLU


class Llama(Transformer):
    """Tokens to the hidden states that ``head`` turns into logits."""

    Block = LlamaBlock
