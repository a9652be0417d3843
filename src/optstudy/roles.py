"""The role that each parameter plays, told by what its module is.

Embeddings and norms are known by their class. A linear map says what it is for in an attribute ``role``, as
in this project's model; in Hugging Face models the name of the class of the module around it, and the
attribute that holds it there, tell: :data:`USES`. No other name counts.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from optstudy.errors import UserError, nearest
from optstudy.recipes import ROLES, RULES, options_of

_SEPARATE = {"q_proj": "qkv", "k_proj": "qkv", "v_proj": "qkv", "o_proj": "attention_out"}
_GATED = {"gate_proj": "mlp_in", "up_proj": "mlp_in", "down_proj": "mlp_out"}
_LLAMA_LIKE = ("Llama", "Olmo", "Olmo2", "Olmo3", "Mistral", "Qwen2", "Qwen3", "Gemma", "Gemma2")

USES: Mapping[str, Mapping[str, str]] = {
    **{f"{family}Attention": _SEPARATE for family in _LLAMA_LIKE},
    **{f"{family}MLP": _GATED for family in _LLAMA_LIKE},
    "GPT2Attention": {"c_attn": "qkv", "c_proj": "attention_out"},
    "GPT2MLP": {"c_fc": "mlp_in", "c_proj": "mlp_out"},
    "GPTNeoXAttention": {"query_key_value": "qkv", "dense": "attention_out"},
    "GPTNeoXMLP": {"dense_h_to_4h": "mlp_in", "dense_4h_to_h": "mlp_out"},
}
"""Name of a module's class -> attribute that holds a linear map there -> the role of its parameters.

Read at every call: for other classes, put a larger mapping in its place.
"""
NORMS = frozenset(f"{family}RMSNorm" for family in _LLAMA_LIKE)
TRANSPOSED = frozenset({"Conv1D"})
"""Linear maps whose weight has one *column* per output."""
INTERLEAVED = frozenset({"GPTNeoXAttention"})
"""Modules whose fused q, k, v come head by head."""


@dataclass(frozen=True)
class Played:
    """One parameter and the part it plays."""

    name: str
    parameter: nn.Parameter
    role: str
    transposed: bool
    interleaved: bool
    fused: bool
    """Of a ``qkv``: all three in one matrix."""


def assign_roles(model: nn.Module) -> dict[str, str]:
    """Return the role of each parameter, by name; a head tied to the embedding counts as ``embedding``.

    A module's parameters, its bias too, have its role: what its attribute ``role`` says; else ``head`` for
    what the model's ``get_output_embeddings()`` returns; else ``embedding`` or ``norm`` for the classes of
    these; else what :data:`USES` says.

    Raises:
        UserError: naming a parameter that has no role, or two; a ``role`` that there is not.
    """
    return {played.name: played.role for played in _play(model)[0]}


def _play(model: nn.Module) -> tuple[list[Played], list[str]]:
    """Return every parameter with its role, and the names of heads that are tied to an embedding."""
    found: dict[int, Played] = {}
    tied = []
    for name, parameter, module, parent, attribute in _owners(model):
        role = _role(model, module, parent, attribute)
        if role is None:
            raise UserError(
                f"parameter {name!r} has no role: a {type(module).__name__} in a {type(parent).__name__}; "
                f"give the module an attribute 'role', one of {', '.join(ROLES)}"
            )
        before = found.get(id(parameter))
        if before is None:
            fused = role == "qkv" and attribute not in _SEPARATE
            transposed = type(module).__name__ in TRANSPOSED and parameter.ndim == 2
            interleaved = type(parent).__name__ in INTERLEAVED and role == "qkv"
            found[id(parameter)] = Played(name, parameter, role, transposed, interleaved, fused)
        elif {before.role, role} == {"embedding", "head"}:
            head = name if role == "head" else before.name
            tied.append(head)
        elif before.role != role:
            raise UserError(f"parameter {before.name!r} has two roles: {before.role}, and {role} as {name!r}")
    return list(found.values()), tied


def _owners(model: nn.Module) -> Iterator[tuple[str, nn.Parameter, nn.Module, nn.Module, str]]:
    """Yield name, parameter, its module, that module's parent and attribute there; tied ones repeatedly."""
    modules = dict(model.named_modules(remove_duplicate=False))
    for path, module in modules.items():
        parent, _, attribute = path.rpartition(".")
        for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
            yield f"{path}.{name}" if path else name, parameter, module, modules[parent], attribute


def _role(model: nn.Module, module: nn.Module, parent: nn.Module, attribute: str) -> str | None:
    declared = getattr(module, "role", None)
    if isinstance(declared, str):
        if declared not in ROLES:
            raise UserError(
                f"unknown role {declared!r} of a {type(module).__name__}{nearest(declared, ROLES)}"
            )
        return declared
    head = getattr(model, "get_output_embeddings", lambda: None)()
    if module is head:
        return "head"
    if isinstance(module, nn.Embedding):
        return "embedding"
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)) or type(module).__name__ in NORMS:
        return "norm"
    return USES.get(type(parent).__name__, {}).get(attribute)


def param_groups(model: nn.Module, rules: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return param groups for the options that ``rules`` give to roles.

    A role's own rule goes over that of ``matrix`` (for the four matrix roles); ``rest`` is for roles with
    neither. ``train: false`` leaves parameters out. Each group carries the ``role`` it was made for.

    Raises:
        UserError: an unknown rule; a rule for ``head`` where the head is tied; a granularity that the layout
            of a weight makes wrong.
    """
    for rule in rules:
        if rule not in RULES:
            raise UserError(f"unknown role {rule!r}{nearest(rule, RULES)}")
    played, tied = _play(model)
    if tied and "head" in rules:
        raise UserError(f"role 'head': {tied[0]!r} is tied to the embedding, so there is no head of its own")
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for one in played:
        options = dict(options_of(one.role, rules))
        if not options.pop("train", True) or not one.parameter.requires_grad:
            continue
        if "second_moment" in options:
            options["second_moment"] = _fitting(one, options["second_moment"])
        key = (one.role, options.get("second_moment", ""))
        group = groups.setdefault(key, {"params": [], "role": one.role, **options})
        group["params"].append(one.parameter)
    return list(groups.values())


def _fitting(one: Played, kind: str) -> str:
    """Return what ``kind`` comes to for this weight: a matrix of q, k or v alone is not split in three."""
    splits = re.fullmatch(r"split-\d+", kind)
    if kind == "split-3" and one.role == "qkv" and not one.fused:
        return "tensor"
    if one.transposed and (splits or kind.startswith("row")):
        raise UserError(f"second_moment {kind!r}: {one.name!r} is stored transposed, its rows are inputs")
    if one.interleaved and splits:
        raise UserError(
            f"second_moment {kind!r}: {one.name!r} holds q, k, v head by head, not in equal parts"
        )
    return kind
