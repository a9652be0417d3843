"""How large a model is, and what a token through it takes: all from the shapes of its weights. No torch."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from optstudy.config import Model

SMALL = 1_000_000
"""Parameters below which a step is too short to fill a GPU, and to gain by compiling or bfloat16."""
MLP_RATIO = 4

Shape = tuple[int, ...]


def shapes_by_role(model: "Model") -> dict[str, list[Shape]]:
    """Return the shapes of the transformer's weights, by role."""
    d, layers = model.d_model, model.n_layers
    return {
        "embedding": [(model.vocab_size, d)],
        "head": [(model.vocab_size, d)],
        "norm": [(d,)] * ((4 if model.qk_norm else 2) * layers + 1),
        "qkv": [(3 * d, d)] * layers,
        "attention_out": [(d, d)] * layers,
        "mlp_in": [(MLP_RATIO * d, d)] * layers,
        "mlp_out": [(d, MLP_RATIO * d)] * layers,
    }


def parameter_count(model: "Model") -> int:
    """Parameters of the whole model, embedding and head included."""
    return sum(math.prod(shape) for shapes in shapes_by_role(model).values() for shape in shapes)


def forward_flops(model: "Model", sequence_length: int) -> int:
    """Floating-point operations of matrix products per token, forward; a step takes three times that.

    2 per weight of a matrix, the embedding left out, and 2 L D T for causal attention: half of what Chowdhery
    et al. 2022 ("PaLM", appendix B) count, as a position meets only those before it.
    """
    shapes = {role: some for role, some in shapes_by_role(model).items() if role not in ("embedding", "norm")}
    weights = sum(math.prod(shape) for some in shapes.values() for shape in some)
    return 2 * weights + 2 * model.n_layers * model.d_model * sequence_length
