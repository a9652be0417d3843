"""Causal language models of the installed transformers, built small on the meta device; also the script that

    python -m tests.families > docs/models.md

writes the table of what is found in them.
"""

import re
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from optstudy.errors import UserError
from optstudy.roles import assign_roles

SMALL: dict[str, int] = {
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "n_layers"), 4),
    **dict.fromkeys(("decoder_layers", "encoder_layers", "num_decoder_layers"), 2),
    "vocab_size": 512, "num_experts": 4, "num_local_experts": 4, "n_routed_experts": 8,
}  # fmt: skip
"""What is made small of a configuration; its widths stay, on the meta device they cost nothing."""
OTHER = (
    r"router|\.gate\.(weight|layer|e_score|global|classifier|proj|bias)|sinks?$|indexer|compressor|_hc\.|hc_head"
    r"|act_fn|lambda_|altup|laurel|shared_expert_gate|residual|logit_scale|moe_statics|expert_bias|\.(A|A_log|D)$"
    r"|dt_bias|suv_|sqk$|s_gate$|gate_bias|per_layer_(input_gate|projection|model_projection)\.|z_L_init|pooler"
    r"|embeddings_project|embedding_hidden_mapping|cross_attn_\w+_gate|project_(in|out)\.|conv1d|forget_gate"
    r"|(transform|lm_head|generator_predictions|predictions|^head)\.dense\.|output_gate|attn\.(g|b|a|gate|g_a|g_b)_proj"
    r"|^rwkv\.blocks\S*(attention|feed_forward)\.|mlstm_layer|rg_lru|temporal_block\.(linear|conv)|in_proj_(a|b|z|ba|qkvz)\.|conv\.conv"
    r"|(mamba|mixer|conv|short_conv)\.(in_proj|out_proj|x_proj\w*|dt_proj\w*)"
)
TRUTH: tuple[tuple[str, str], ...] = (
    (r"(?i)(norm\w*|layrnorm|\b(pre_)?ln\w*|norms)(\.\d+)?\.\w+$", "norm"),
    (r"embed_positions|wpe|positions?_embed|segment_embedding|token_type|shape_embed|pronunciation"
     r"|(tok|word|input|token)s?_embed|embed_tokens|embed_in|\bwte\.|transformer\.w\.weight|hash_tok"
     r"|^(backbone|model|rwkv|transformer)\.embeddings\.weight|ngram_embeddings", "embedding"),
    (OTHER, "other"),
    (r"lm_head\.decoder\.weight", "head or embedding"),  # tied
    (r"^lm_head|^embed_out|predictions\.(decoder|bias)|^head\.|^decoder\.|pred_layer|^output\."
     r"|lm_head\.(weight|bias|decoder)", "head"),
    (r"linear_attn\.out_proj", "attention_out or other"),  # other where q, k, v are fused with a gate
    (r"(attn|attentions?|self|mla|mixer|temporal_block)\b.*(\b|_)(q|k|v|qkv|query|key|value|query_key_value|kv"
     r"|q_a|q_b|kv_a|kv_b|c_attn|W[qkv]|Wqkv)(_proj|_lin|_proj_with_mqa)?\.(weight|bias)$"
     r"|project_[qkv]\.", "qkv"),
    (r"(attn|attentions?|self|mla|mixer|temporal_block)\b.*\.(o_proj|out_proj|dense|c_proj|Wo|out_lin"
     r"|attention_out)(\.|_)(weight|bias)$", "attention_out"),
    (r"(gate_proj|up_proj|gate_up_proj|c_fc|fc1|fc_in|dense_h_to_4h|lin1|w1|w3|Wi|w_0|w_1|proj_up|proj_up_gate"
     r"|input_linear|intermediate\.dense|ffn\.0)(\.weight|\.bias|_bias)?$", "mlp_in"),
    (r"(down_proj|c_proj|fc2|fc_out|dense_4h_to_h|lin2|w2|Wo|w_out|proj_down|output_linear|output\.dense|ffn\.2)"
     r"(\.weight|\.bias|_bias)?$", "mlp_out"),
)  # fmt: skip
"""What the names of parameters mean to a reader, first match: said apart from how the package tells it."""


def meant(name: str) -> str:
    """What a reader takes a parameter's name for."""
    return next((role for pattern, role in TRUTH if re.search(pattern, name)), "nothing")


def model_types() -> list[str]:
    """Every model type of the mapping of causal language models."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as NAMES

    return sorted(NAMES)


def built(model_type: str) -> nn.Module | None:
    """The model of a type's default configuration, made small; None where that cannot be built."""
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as NAMES

    try:
        config = CONFIG_MAPPING[model_type]
        cls: Any = getattr(transformers, NAMES[model_type])
        small = {key: n for key, n in SMALL.items() if getattr(config(), key, None) is not None}
    except Exception:
        return None
    for without in ((), ("expert",), tuple(SMALL)):
        wanted = {key: n for key, n in small.items() if not any(part in key for part in without)}
        try:
            with torch.device("meta"):
                model: nn.Module = cls(config(**wanted))
            return model
        except Exception:  # whatever a configuration of its own cannot stand
            continue
    return None


def found(model: nn.Module) -> tuple[dict[str, str], list[str]]:
    """The roles of a model, or the names, with ``*`` for numbers, that have none."""
    try:
        return assign_roles(model), []
    except UserError as error:
        return {}, re.findall(r'^    "(.+)": "other"', str(error), re.MULTILINE)


def page() -> Iterator[str]:
    """The lines of docs/models.md."""
    import transformers

    rows, counts = [], {"types": 0, "built": 0, "found": 0}
    for model_type in model_types():
        counts["types"] += 1
        model = built(model_type)
        if model is None:
            rows.append(f"| `{model_type}` | | its default configuration cannot be built |")
            continue
        counts["built"] += 1
        roles, unknown = found(model)
        counts["found"] += not unknown
        others = sum(role == "other" for role in roles.values())
        said = f"all, {others} of {len(roles)} are `other`" if others else f"all {len(roles)}"
        if unknown:
            more = f" and {len(unknown) - 2} more" if len(unknown) > 2 else ""
            said = f"none for {', '.join(f'`{name}`' for name in unknown[:2])}{more}"
        rows.append(f"| `{model_type}` | `{type(model).__name__}` | {said} |")
    version, (types, built_, found_) = transformers.__version__, counts.values()
    yield f"""# Language models whose roles are known

Every causal language model of transformers {version}, built from its default configuration with few layers:
{built_} of {types} types can be built this way, and in {found_} of these every parameter has a
[role](tutorials/roles.md). In the others, the parameters listed here have none; `param_groups` names them,
and takes their roles as `named`.
`python -m tests.families > docs/models.md` writes this page, `make test-long` checks it.
"""
    yield "| type | class | parameters with a role |"
    yield "| --- | --- | --- |"
    yield from rows


if __name__ == "__main__":
    sys.stdout.write("\n".join(page()) + "\n")
