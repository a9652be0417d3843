"""Tables of the attribute and class names that known language models use for their parts.

:mod:`optstudy.roles` reads them. An attribute's name counts only together with the sizes and names of the
other maps in its module; the name of a class decides what names and sizes cannot.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any

_PARTS = r"q|k|v|query|key|value|queries|keys|values|qkv|kv|query_key_value|key_value"
_ATTENTION = re.compile(
    rf"(?:to|c|w|project|proj|linear|lin|in_proj|x)?_?({_PARTS})"
    r"_?(?:proj|projection|lin|linear|layer|attn|dense|map)?",
    re.IGNORECASE,
)
_FUSED = ("c_attn", "W_pack", "att_proj", "in_proj_weight", "in_proj_bias", "attn_qkv", "linear_qkv", "c_qkv")
_LATENT = {
    "q_a_proj": "q", "q_b_proj": "q", "kv_a_proj_with_mqa": "kv", "kv_a_proj": "kv", "kv_b_proj": "kv",
    "k_b_proj": "k", "v_b_proj": "v",
}  # fmt: skip


def _names(text: str) -> frozenset[str]:
    return frozenset(text.split())


ATTENTION_OUT = _names(
    "o_proj out_proj output_proj dense c_proj wo w_o Wo o to_out out_lin out proj proj_out output c_o "
    "attention_out linear_out"
)
"""Names of the output map of attention, next to the maps of q, k and v."""
ATTENTION_GATES = _names("gate_proj g_proj output_gate gate")
"""Names of gate maps there."""
MLP_IN = _names(
    "gate_proj up_proj gate_up_proj w1 w3 w12 w13 fc1 fc_in c_fc dense_h_to_4h lin1 linear1 linear_1 wi wi_0 "
    "wi_1 Wi input_linear up gate gate_up fc_gate fc_up proj_up proj_up_gate layer_1 intermediate"
)
"""Names of the input maps of an MLP, next to one of :data:`MLP_OUT`."""
MLP_OUT = _names(
    "down_proj w2 fc2 fc_out c_proj dense_4h_to_h lin2 linear2 linear_2 wo Wo output_linear down fc_down "
    "proj_down layer_2 output w_out"
)
"""Names of the output map of an MLP."""

MAP = re.compile(r"Linear|Experts$|Conv1D$|Dense$|Projection$")
"""Classes that are one linear map, or one per expert, if they have a ``weight`` themselves."""
NORM = re.compile(r"Norm(alization)?(\d?d|Gated|\d+)?$|RMSNorm")
"""Classes that normalise, if they contain no other module."""
OF_NORMS = _names("weight bias scale gamma beta gain offset shift g w b")
"""Names of their parameters."""
NO_ROLE = re.compile(
    r"Router|Gating$|Gat(e|ing)MLP$|MoEGate$|MoeStatics|Indexer|Compressor|Hyper(Connection|Head)|Mamba2?(Mixer|Layer|Block)?$"
    r"|BambaMixer|FalconH1Mixer|Rwkv(SelfAttention|FeedForward)|Rglru|RecurrentBlock"
    r"|xLSTMLayer|mLSTM|ShortConv|Activation$|AltUp|Laurel|ResidualScaling"
)
"""Classes in which everything except embeddings and norms is ``other``, at any depth: routers and indexers,
recurrent mixers (state spaces, RWKV, xLSTM), activations, weighted residuals."""
LINEAR_ATTENTION = re.compile(r"DeltaNet|DeltaAttention")
"""Classes in which everything except q, k, v and out is ``other``."""
OUTSIDE = re.compile(r"Vision|Audio|Speech|Multi[mM]odal|MoA$")
"""Classes in which names do not identify roles: other modalities, and attention with experts."""
LIBRARY = "transformers."
"""Package of the modules that the tables below apply to."""
OTHERS = _names(
    "shared_expert_gate embeddings_project project_in project_out embedding_hidden_mapping_in "
    "per_layer_model_projection per_layer_input_gate per_layer_projection pooler"
)
"""Attributes of Hugging Face models whose maps have no other role."""
BERT: Mapping[str, str] = {
    r".*(Self|Cross)Output": "attention_out",
    r".*Intermediate": "mlp_in",
    r".*(?<!Self)(?<!Cross)(?<!Model)Output": "mlp_out",
    r".*(LMHead|HeadTransform|PredictionHead|GeneratorPredictions)": "other",
}
"""Maps classes of BERT's descendants to the role of their map ``dense``."""


def letters(attribute: str) -> str:
    """Return which of q, k, v an attention map produces, by its name, such as ``kv``; empty for none."""
    if attribute in _LATENT:
        return _LATENT[attribute]
    if attribute in _FUSED:
        return "qkv"
    found = _ATTENTION.fullmatch(attribute)
    if not found:
        return ""
    words = re.split("_", found[1].lower())
    return "".join(word[0] if word not in ("qkv", "kv") else word for word in words)


def _number(module: Any, *names: str) -> int:
    """Return the first positive number of a module, or its config, under one of ``names``; else 0."""
    for owner in (module, getattr(module, "config", None)):
        for name in names:
            if isinstance(value := getattr(owner, name, None), int) and value > 0:
                return int(value)
    return 0


_HEADS = ("num_attention_heads", "num_heads", "n_head", "n_heads", "heads")


def is_latent(attribute: str) -> bool:
    """Whether a map of attention goes into or comes out of a latent space of lower rank."""
    return attribute in _LATENT


def head_width(module: Any, queries: int) -> int | None:
    """Return the rows of one head in a module of attention whose queries have ``queries`` rows, if told."""
    heads = _number(module, *_HEADS)
    return queries // heads if heads and queries % heads == 0 else None


def _head_by_head(module: Any, outputs: int) -> tuple[int, ...] | None:
    heads = _number(module, *_HEADS)
    return (outputs // (3 * heads),) * 3 if heads and outputs % (3 * heads) == 0 else None


def _falcon(module: Any, outputs: int) -> tuple[int, ...] | None:
    heads, width = _number(module, "num_heads"), _number(module, "head_dim")
    if module.new_decoder_architecture:
        return (heads // _number(module, "num_kv_heads") * width, width, width)
    return (heads * width, width, width) if module.multi_query else _head_by_head(module, outputs)


def _big_code(module: Any, outputs: int) -> tuple[int, ...] | None:
    width = _number(module, "head_dim")
    if not module.multi_query:
        return _head_by_head(module, outputs)
    return (outputs - 2 * width, width, width)


def _gated_queries(module: Any, outputs: int) -> tuple[int, ...] | None:
    width = _number(module, "head_dim")
    return (width, width)


def _latent(module: Any, outputs: int) -> tuple[int, ...] | None:
    return (_number(module, "qk_nope_head_dim"), _number(module, "v_head_dim"))


def _latent_in(module: Any, outputs: int) -> tuple[int, ...] | None:
    return (_number(module, "kv_lora_rank"), _number(module, "qk_rope_head_dim"))


def _gated_delta(module: Any, outputs: int) -> tuple[int, ...] | None:
    return (_number(module, "key_dim"),) * 2 + (_number(module, "value_dim"),)


def _thirds(module: Any, outputs: int) -> tuple[int, ...] | None:
    return (outputs // 3,) * 3


def _contiguous(module: Any, outputs: int) -> tuple[int, ...] | None:
    width, keys = _number(module, "head_dim"), _number(module, "num_key_value_heads")
    return (outputs - 2 * keys * width, keys * width, keys * width) if width and keys else None


SIZES: Mapping[tuple[str, str], Callable[[Any, int], tuple[int, ...] | None]] = {
    (r"(GPTNeoX|GPTNeoXJapanese|Bloom|Persimmon)Attention", "query_key_value"): _head_by_head,
    (r"MiniMaxLightningAttention", "qkv_proj"): _head_by_head,
    (r"Falcon(Flash)?Attention2?", "query_key_value"): _falcon,
    (r"GPTBigCodeAttention", "c_attn"): _big_code,
    (r"CodeGenAttention", "qkv_proj"): lambda module, outputs: (outputs // 12,) * 3,
    (r"(GPT2|DecisionTransformerGPT2|ImageGPT|CausalSelf)?Attention", "c_attn"): _thirds,
    (r"MptAttention", "Wqkv"): _thirds,
    (r"MultiheadAttention", "in_proj_weight"): _thirds,
    (r"MultiheadAttention", "in_proj_bias"): _thirds,
    (r"Phi(3|4Multimodal)Attention", "qkv_proj"): _contiguous,
    (r".*GatedDeltaNet", "in_proj_qkv"): _gated_delta,
    (r".*", "kv_b_proj"): _latent,
    (r".*", "kv_a_proj_with_mqa"): _latent_in,
    (r"Qwen3(Next|_5|_5Moe)Attention", "q_proj"): _gated_queries,
    (r"JetMoeAttention", "kv_proj"): lambda module, outputs: (outputs // 2,) * 2,
    (r"DeepseekV4Attention", "kv_proj"): lambda module, outputs: (outputs,),
}
"""Maps a class of attention and an attribute to the sizes of the matrices fused there, in rows; the sequence
of sizes repeats."""


def sizes_by_class(name: str, attribute: str, module: Any, outputs: int) -> tuple[int, ...] | None:
    """Return the sizes of fused matrices for a known class; None for others."""
    for (known, held), sizes in SIZES.items():
        if held == attribute and re.fullmatch(known, name):
            return sizes(module, outputs)
    return None
