"""The role of each parameter, derived from its module and the modules next to it.

Applied in this order: a name that the caller gives a role; an attribute ``role`` of the module, as in this
project's model; the head, by Hugging Face's interface or as the map to the vocabulary; embeddings and norms,
by class; :data:`USES`; routers, state spaces and the like, by class. Then groups of maps: q, k and v with the
output map of attention, and the input and output maps of an MLP, recognised by usual names with matching
sizes (:mod:`optstudy.modules`). Anything else has no role.
"""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from optstudy.errors import UserError, nearest
from optstudy.fused import blocks_of
from optstudy.modules import Played, Tree
from optstudy.recipes import MATRICES, ROLES, RULES, options_of

USES: Mapping[str, Mapping[str, str]] = {
    "CpmAntDenseGatedACT": {"w_0": "mlp_in", "w_1": "mlp_in"},
    "CpmAntFeedForward": {"w_out": "mlp_out"},
    "Zamba2MLP": {"gate_up_proj": "mlp_in", "down_proj": "mlp_out"},
}
"""Maps the name of a module's class, then an attribute with a linear map or parameter, to a role.

It is read at every call: to add classes, replace it by a larger mapping.
"""
NORMS: frozenset[str] = frozenset()
"""Classes that normalise, in addition to torch's and those whose name ends in ``Norm``."""
TIED = ("embedding", "head")

_say = logging.getLogger(__name__)


def assign_roles(
    model: nn.Module, *, named: Mapping[str, str] | None = None, tied: str = "embedding"
) -> dict[str, str]:
    """Return the role of each parameter, by name.

    Args:
        model: may be wrapped: compiled, DDP, FSDP.
        named: role by parameter name, with highest priority; ``*`` matches one part between dots.
        tied: the role of a weight that is both embedding and head: ``embedding`` or ``head``.

    Raises:
        UserError: parameters have no role (lists all, and what to pass as ``named``); a parameter has two
            roles; a role does not exist.
    """
    played = _play(model, named or {}, tied)[0]
    _refuse_unknown([one for one in played if one.role is None])
    return {one.name: one.role for one in played if one.role is not None}


def param_groups(
    model: nn.Module,
    rules: Mapping[str, Mapping[str, Any]],
    *,
    named: Mapping[str, str] | None = None,
    tied: str = "embedding",
) -> list[dict[str, Any]]:
    """Return param groups for the options that ``rules`` give to roles.

    A role's own rule overrides that of ``matrix`` (for the four matrix roles); ``rest`` applies to roles with
    neither. ``train: false`` leaves parameters out, and so does ``requires_grad`` false. Each group has its
    ``role``, and ``layout`` if its weights are not stored with one row per output.

    ``second_moment: split-3`` of ``qkv`` and ``split-2`` of ``mlp_in`` give one value to each of the matrices
    fused in a weight, wherever they are in it; a separate matrix gets one value. ``head`` of ``qkv`` is
    Adam-mini's partition: one value for the rows of each head of q and of k, and one per row of v.

    Args:
        model: may be wrapped: compiled, DDP, FSDP2.
        rules: options by role, ``matrix`` or ``rest``.
        named: see :func:`assign_roles`.
        tied: see :func:`assign_roles`.

    Raises:
        UserError: an unknown rule, or one that is not options by name; parameters without a role to which a
            rule might apply; a rule for ``head`` if the head is tied; a weight whose blocks are unknown.
    """
    for rule, options in rules.items():
        if rule not in RULES:
            raise UserError(f"unknown role {rule!r}{nearest(rule, RULES)}")
        if not isinstance(options, Mapping):
            raise UserError(
                f"role {rule!r}: must be options by name, such as {{'lr': 1e-3}}, not {options!r}"
            )
        if not isinstance(train := options.get("train", True), bool):
            raise UserError(f"role {rule!r}: train: must be true or false, not {train!r}")
    played, ties = _play(model, named or {}, tied)
    _refuse_unknown(_needed(played, rules))
    other = TIED[1 - TIED.index(tied)]
    if ties and other in rules and options_of(other, rules) != options_of(tied, rules):
        said = "its weight is the embedding's" if other == "head" else "its weight plays 'head'"
        raise UserError(
            f"role {other!r}: {ties[0]!r} is tied: {said}, so there is no {other} of its own; "
            f"leave the rule out, or pass tied={other!r} (optimizer.tied in a config): then the weight plays "
            f"{other!r}"
        )
    groups: dict[tuple[str, ...], dict[str, Any]] = {}
    for one in played:
        role = one.role or "rest"
        options = dict(options_of(role, rules))
        if not options.pop("train", True) or not one.parameter.requires_grad:
            continue
        if "second_moment" in options:
            options["second_moment"] = blocks_of(one, options["second_moment"])
        layout = {"layout": one.layout} if one.layout else {}
        key = (role, options.get("second_moment", ""), one.layout)
        group = groups.setdefault(key, {"params": [], "role": role, **layout, **options})
        group["params"].append(one.parameter)
    if not {"other", "rest"} & rules.keys():
        say_others(list(groups.values()))
    return list(groups.values())


def say_others(groups: Sequence[Mapping[str, Any]]) -> None:
    """Log the number of parameters with role ``other`` if no rule names it."""
    params = [p for group in groups if group["role"] == "other" for p in group["params"]]
    if params:
        _say.warning(
            "%d parameters (%d weights) play 'other', which no rule names: they get the base options",
            len(params), sum(p.numel() for p in params),
        )  # fmt: skip


def _needed(played: Sequence[Played], rules: Mapping[str, Any]) -> list[Played]:
    """Return the parameters without a role to which one of the rules might apply.

    If the model has a head, or an embedding, no other parameter can be it. A norm's parameters are vectors; a
    matrix role has two dimensions or is called a bias.
    """
    asked = {role for rule in rules for role in (MATRICES if rule == "matrix" else (rule,))} - {"rest"}
    asked -= {role for role in TIED if role in {one.role for one in played}}
    return [one for one in played if one.role is None and any(_could_play(one, role) for role in asked)]


def _could_play(one: Played, role: str) -> bool:
    vector = one.parameter.ndim < 2
    if role == "norm":
        return vector
    return role == "other" or not vector or (one.place.leaf.endswith("bias") and role != "embedding")


def _refuse_unknown(unknown: Sequence[Played]) -> None:
    if not unknown:
        return
    alike: dict[str, list[Played]] = {}
    for one in unknown:
        alike.setdefault(re.sub(r"(?<![^.])\d+(?![^.])", "*", one.name), []).append(one)
    lines = [
        f'    "{pattern if len(some) > 1 else some[0].name}": "other",'
        f"  # {len(some)} of shape {tuple(some[0].parameter.shape)}, {some[0].place.said}"
        for pattern, some in alike.items()
    ]
    first, others = unknown[0], len(unknown) - 1
    more = f", nor {'has 1 other' if others == 1 else f'have {others} others'}" if others else ""
    raise UserError(
        f"parameter {first.name!r} has no role{more}: {first.place.said}; give modules an attribute 'role', "
        f"or correct these lines and pass them as named= (optimizer.named in a config), each one of "
        f"{', '.join(ROLES)}:\n" + "\n".join(["{", *lines, "}"])
    )


def _play(model: nn.Module, named: Mapping[str, str], tied: str) -> tuple[list[Played], list[str]]:
    """Return every parameter with its role, and the names of heads tied to an embedding."""
    if tied not in TIED:
        raise UserError(f"unknown value {tied!r} of tied{nearest(tied, TIED)}")
    for said in named.values():
        if said not in ROLES:
            raise UserError(f"named: unknown role {said!r}{nearest(said, ROLES)}")
    found: dict[int, Played] = {}
    ties, used = [], set()
    tree = Tree(model, USES, NORMS)
    for place in tree.places():
        given = next((key for key in named if _matches(place.name, key)), None)
        used.add(given)
        role = tree.role(place) if given is None else named[given]
        key = id(place.parameter)
        before = found.get(key)
        if before is None:
            found[key] = Played(place.name, place.parameter, role, place)
        elif role is None or role == before.role:
            continue
        elif before.role is None:
            found[key] = replace(before, role=role, place=place)
        elif {before.role, role} == set(TIED):
            ties.append(place.name if role == "head" else before.name)
            found[key] = replace(before, role=tied)
        else:
            raise UserError(
                f"parameter {before.name!r} has two roles: {before.role}, and {role} as {place.name!r}"
            )
    for pattern in named:
        if pattern not in used:
            raise UserError(
                f"named: no parameter is called {pattern!r}"
                f"{nearest(pattern, [one.name for one in found.values()])}"
            )
    return list(found.values()), ties


def _matches(name: str, pattern: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", "[^.]+"), name) is not None
