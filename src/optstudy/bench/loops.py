"""Common training loops for comparison: plain PyTorch, and transformers' model."""

import importlib
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from optstudy.config import RunConfig
from optstudy.training.model import rotary_table, rotate

Z_LOSS = 1e-4
Step = Callable[[], object]


class PlainBlock(nn.Module):
    """A straightforward decoder block without machine-specific optimization."""

    def __init__(self, width: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.norms = nn.ModuleList(nn.LayerNorm(width, bias=False) for _ in range(4))
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width, bias=False), nn.GELU(), nn.Linear(4 * width, width, bias=False)
        )

    def forward(self, x_BTD: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        """Apply attention, then the MLP, each with a residual connection."""
        q, k, v = self.qkv(self.norms[0](x_BTD)).chunk(3, -1)
        q, k = self.norms[1](q), self.norms[2](k)
        q, k, v = (y.view(*y.shape[:2], self.n_heads, -1).transpose(1, 2) for y in (q, k, v))
        q, k = (rotate(y, *rope).to(v.dtype) for y in (q, k))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x_BTD = x_BTD + self.out(y.transpose(1, 2).flatten(2))
        out: Tensor = x_BTD + self.mlp(self.norms[3](x_BTD))
        return out


class PlainModel(nn.Module):
    """A decoder that maps tokens to logits."""

    def __init__(self, config: RunConfig) -> None:
        super().__init__()
        model = config.model
        width, layers, heads = model.sizes
        self.embedding = nn.Embedding(model.vocab_size, width)
        self.blocks = nn.ModuleList(PlainBlock(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width, bias=False)
        self.head = nn.Linear(width, model.vocab_size, bias=False)
        self.head_width = width // heads

    def forward(self, x_BT: Tensor) -> Tensor:
        """Return logits BTV."""
        rope = rotary_table(x_BT.shape[1], self.head_width, x_BT.device)
        y_BTD = self.embedding(x_BT)
        for block in self.blocks:
            y_BTD = block(y_BTD, rope)
        logits: Tensor = self.head(self.norm(y_BTD))
        return logits


def plain(config: RunConfig, device: torch.device) -> Step:
    """Return the training step of a plain compiled loop."""
    return _loop(PlainModel(config), config, device)


def transformers(config: RunConfig, device: torch.device) -> Step:
    """Return the same loop around transformers' GPT-NeoX: 4x exact GELU, rotary positions, untied."""
    library: Any = importlib.import_module("transformers")
    model, length = config.model, config.data.sequence_length
    theirs = library.GPTNeoXForCausalLM(
        library.GPTNeoXConfig(
            vocab_size=model.vocab_size,
            hidden_size=model.d_model,
            num_hidden_layers=model.n_layers,
            num_attention_heads=model.n_heads,
            intermediate_size=4 * model.sizes.width,
            max_position_embeddings=length,
            rope_parameters={"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 1.0},
            use_parallel_residual=False,
            attention_bias=False,
            use_cache=False,
        )
    )
    return _loop(_Logits(theirs), config, device)


class _Logits(nn.Module):
    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, x_BT: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=x_BT).logits
        return logits


def _loop(model: nn.Module, config: RunConfig, device: torch.device) -> Step:
    model.to(device)
    size, micro = config.training.batch_size, config.training.micro_batch_size or config.training.batch_size
    x_BT = torch.randint(config.model.vocab_size, (size, config.data.sequence_length), device=device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0, fused=True)

    def loss_of(x_BT: Tensor) -> Tensor:
        logits_NV = model(x_BT)[:, :-1].flatten(0, 1).float()
        z_loss = Z_LOSS * logits_NV.logsumexp(-1).square().mean()
        cross_entropy = F.cross_entropy(logits_NV, x_BT[:, 1:].flatten())
        total: Tensor = cross_entropy + z_loss
        return total

    compiled = torch.compile(loss_of)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        for part in x_BT.split(micro):  # type: ignore[no-untyped-call]
            with torch.autocast(device.type, torch.bfloat16):
                loss = compiled(part) * (len(part) / size)
            loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return step
