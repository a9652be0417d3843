"""The role of each parameter, derived from its module and the modules next to it.

Applied in this order: a name that the caller gives a role; an attribute ``role`` of the module, as in this
project's model; the head, by Hugging Face's interface or as the map to the vocabulary; embeddings and norms,
by class; :data:`USES`; routers, state spaces and the like, by class. Then groups of maps: q, k and v with the
output map of attention, and the input and output maps of an MLP, recognised by usual names with matching
sizes (:mod:`optstudy.architectures`). Anything else has no role.
"""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import nn

from optstudy import architectures as known
from optstudy.errors import UserError, nearest
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
TRANSPOSED = frozenset({"Conv1D"})
"""Linear maps whose weight has one *column* per output."""
TIED = ("embedding", "head")
FUSED = {"qkv": "split-3", "mlp_in": "split-2"}
"""The option that gives one value to each of the matrices fused in a weight, by role."""
WRAPPERS = {
    "OptimizedModule": "_orig_mod",
    "DistributedDataParallel": "module",
    "DataParallel": "module",
    "FullyShardedDataParallel": "_fsdp_wrapped_module",
    "CheckpointWrapper": "_checkpoint_wrapped_module",
}
"""Maps classes that wrap a module to the attribute that holds it."""

_say = logging.getLogger(__name__)


@dataclass(frozen=True)
class Played:
    """One parameter and its role."""

    name: str
    parameter: nn.Parameter
    role: str | None
    """None if it is unknown."""
    place: "_Place"

    @property
    def layout(self) -> str:
        """How the parameter is stored, one of :data:`optstudy.optim.blocks.LAYOUTS`."""
        of_experts = "experts" if self.role in MATRICES and self.place.experts else ""
        columns = "columns" if self.place.transposed and self.parameter.ndim >= 2 else ""
        return "-".join(filter(None, (of_experts, columns)))


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
            options["second_moment"] = _fitting(one, options["second_moment"])
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
    tree = _Tree(model)
    for place in tree.places():
        given = next((key for key in named if _matches(place.name, key)), None)
        used.add(given)
        role: str | None = tree.role(place) if given is None else named[given]
        new = Played(place.name, place.parameter, role, place)
        before = found.setdefault(id(place.parameter), new)
        if before is new or role is None or before.role == role:
            continue
        if before.role is None:
            found[id(place.parameter)] = Played(before.name, before.parameter, role, place)
        elif {before.role, role} == set(TIED):
            ties.append(place.name if role == "head" else before.name)
            found[id(place.parameter)] = Played(before.name, before.parameter, tied, before.place)
        else:
            raise UserError(
                f"parameter {before.name!r} has two roles: {before.role}, and {role} as {place.name!r}"
            )
    for key in named:
        if key not in used:
            raise UserError(
                f"named: no parameter is called {key!r}{nearest(key, [o.name for o in found.values()])}"
            )
    return list(found.values()), ties


def _matches(name: str, pattern: str) -> bool:
    return re.fullmatch(re.escape(pattern).replace(r"\*", "[^.]+"), name) is not None


def class_of(module: nn.Module) -> str:
    """Return the class name of a module, without the class that ``fully_shard`` derives from it."""
    cls = type(module)
    while cls.__bases__[0].__name__ in ("FSDPModule", "ReplicateModule") and len(cls.__bases__) > 1:
        cls = cls.__bases__[1]
    return cls.__name__


def _unwrapped(module: nn.Module) -> nn.Module:
    while (inner := getattr(module, WRAPPERS.get(class_of(module), ""), None)) is not None:
        module = inner
    return module


@dataclass(frozen=True)
class _Around:
    """The linear maps and matrices of one module, by attribute, and their roles as a group."""

    module: nn.Module
    width: int | None
    """Width of the residual stream."""
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    owners: dict[str, nn.Module] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, parameter in self.module.named_parameters(recurse=False):
            if parameter.ndim in (2, 3) and not name.endswith("bias") and not _is_map(self.module):
                self._enter(name, self.module, parameter)
        for name, child in self.module.named_children():
            inner = _unwrapped(child)
            if _is_map(inner):
                self._enter(name, inner, inner.weight)

    def _enter(self, name: str, owner: nn.Module, weight: Any) -> None:
        self.shapes[name], self.owners[name] = tuple(weight.shape), owner

    @cached_property
    def makes_queries(self) -> bool:
        """Whether the module is attention, judging by its maps."""
        return any("q" in known.letters(name) for name in self.shapes)

    @cached_property
    def count(self) -> int | None:
        """Number of experts in the module."""
        for name, child in self.module.named_children():
            if "expert" in name and isinstance(child, nn.ModuleList):
                return len(child)
            stacked = [p for p in child.parameters(recurse=False) if p.ndim == 3]
            if stacked and not isinstance(child, nn.modules.conv._ConvNd):
                return len(stacked[0])
        stacked = [p for p in self.module.parameters(recurse=False) if p.ndim == 3]
        return len(stacked[0]) if stacked else None

    def sides(self, name: str, columns: bool | None = None) -> tuple[int, int]:
        """Return the numbers of outputs and inputs of a map."""
        *_, a, b = self.shapes[name]
        turned = self.fixed(name)
        return (b, a) if (columns if turned is None else turned) else (a, b)

    def fixed(self, name: str) -> bool | None:
        """Whether outputs are columns, if the class of the map determines it."""
        owner = self.owners[name]
        if class_of(owner) in TRANSPOSED:
            return True
        said = getattr(owner, "transposed", None)
        if isinstance(said, bool):
            return said
        if isinstance(owner, (nn.Linear, nn.MultiheadAttention)) or isinstance(
            getattr(owner, "role", None), str
        ):
            return False if len(self.shapes[name]) == 2 else None
        return None

    @cached_property
    def mlp(self) -> tuple[list[str], str, list[bool]] | None:
        """The input maps, the output map, and the storage orders with which their sizes match."""
        downs = [name for name in self.shapes if name in known.MLP_OUT]
        ups = [name for name in self.shapes if name in known.MLP_IN]
        if isinstance(self.module, nn.Sequential) and len(self.shapes) == 2:
            (up, down), shapes = self.shapes, list(self.shapes.values())
            if shapes[0] == shapes[1][::-1] and shapes[0][-1] == self.width != shapes[0][0] > shapes[0][-1]:
                ups, downs = [up], [down]
        if self.makes_queries or len(downs) != 1 or not ups:
            return None
        ways = [columns for columns in (False, True) if self._agree(ups, downs[0], columns)]
        return (ups, downs[0], ways) if ways else None

    def _agree(self, ups: Sequence[str], down: str, columns: bool) -> bool:
        out, hidden = self.sides(down, columns)
        sides = [self.sides(up, columns) for up in ups]
        return all(given == out and made in (hidden, 2 * hidden) for made, given in sides)

    @cached_property
    def columns(self) -> bool | None:
        """Whether outputs are columns in maps whose class does not determine it; None if unknown."""
        if not self.mlp:
            return None
        _, down, ways = self.mlp
        if len(ways) > 1 and self.width in self.shapes[down] and len(set(self.shapes[down][-2:])) == 2:
            ways = [columns for columns in ways if self.sides(down, columns)[0] == self.width]
        said = getattr(self.module, "is_transposed", None)
        if len(ways) > 1 and isinstance(said, bool):
            return said
        return ways[0] if len(ways) == 1 else None

    def role(self, name: str) -> str | None:
        """Return the role of the map at an attribute."""
        if name not in self.shapes:
            return None
        if self.count and self.sides(name)[0] == self.count and len(self.shapes[name]) == 2:
            return "other"  # a router
        if self.makes_queries and len(self.shapes[name]) == 2:
            if known.letters(name):
                return "qkv"
            if name in known.ATTENTION_OUT and self.sides(name)[0] in self._inputs | {self.width}:
                return "attention_out"
            return "other" if name in known.ATTENTION_GATES else None
        if self.mlp and (name in self.mlp[0] or name == self.mlp[1]):
            return "mlp_out" if name == self.mlp[1] else "mlp_in"
        return None

    @cached_property
    def _inputs(self) -> set[int]:
        """Number of inputs of the maps of q, k and v."""
        return {self.sides(name)[1] for name in self.shapes if known.letters(name)}


def _is_map(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    if not isinstance(weight, nn.Parameter) or weight.ndim not in (2, 3) or isinstance(module, nn.Embedding):
        return False
    named = known.MAP.search(class_of(module)) and not known.NO_ROLE.search(class_of(module))
    return isinstance(module, nn.Linear) or bool(_declared(module)) or bool(named)


@dataclass(frozen=True)
class _Place:
    """Location of a parameter in the model."""

    name: str
    leaf: str
    """The parameter's name within its module."""
    parameter: nn.Parameter
    path: tuple[tuple[str, nn.Module], ...]
    """Attributes and modules from the model down to the parameter's module, without wrappers."""
    tree: "_Tree"

    @property
    def module(self) -> nn.Module:
        """The module that contains the parameter."""
        return self.path[-1][1]

    @property
    def parent(self) -> nn.Module:
        """The module's parent; the model is its own parent."""
        return self.path[-2 if len(self.path) > 1 else -1][1]

    @property
    def cls(self) -> str:
        """Name of the module's class."""
        return class_of(self.module)

    @property
    def said(self) -> str:
        """The module in words, for messages."""
        return f"a {self.cls} in a {self.parent_class}"

    @property
    def parent_class(self) -> str:
        """Class name of the parent."""
        return class_of(self.parent)

    @cached_property
    def held(self) -> tuple[_Around, str]:
        """The group of maps that contains its matrix, and its attribute there."""
        if _is_map(self.module):
            return self.tree.around(self.parent), self.path[-1][0]
        around = self.tree.around(self.module)
        base = re.sub(r"[_.]?bias$", "", self.leaf)
        named = [name for name in (self.leaf, base, f"{base}_weight") if name in around.shapes]
        return around, named[0] if named else self.leaf

    @cached_property
    def experts(self) -> bool:
        """Whether the first dimension enumerates experts."""
        around, attribute = self.held
        shape = around.shapes.get(attribute, ())
        return len(shape) == 3 and self.parameter.ndim == (2 if self.leaf.endswith("bias") else 3)

    @cached_property
    def transposed(self) -> bool | None:
        """Whether the outputs are columns; None if unknown."""
        around, attribute = self.held
        if attribute not in around.shapes:
            return False
        said = around.fixed(attribute)
        if said is None:
            said = around.columns if self.tree.around(around.module).mlp else None
        if said is None and around.width and (role := self.tree.role(self)) in MATRICES:
            *_, a, b = around.shapes[attribute]
            if (a == around.width) != (b == around.width):
                return (a if role in ("qkv", "mlp_in") else b) == around.width
        return said


class _Tree:
    """A model's modules, and the roles of their parameters."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._around: dict[int, _Around] = {}
        modules = [module for _, module in model.named_modules()]
        embeddings = [module for module in modules if isinstance(module, nn.Embedding)]
        heads = [getattr(module, "get_output_embeddings", _nothing)() for module in modules]
        self._heads = {id(_unwrapped(head)) for head in heads if isinstance(head, nn.Module)}
        self.width = next((e.embedding_dim for e in embeddings), None)
        config = getattr(model, "config", None)
        for owner in [config, *(getattr(module, "config", None) for module in modules)]:
            if isinstance(size := getattr(owner, "hidden_size", None), int):
                self.width = size
                break
        if not self._heads:
            self._heads = self._maps_to_the_vocabulary(embeddings)

    def _maps_to_the_vocabulary(self, embeddings: Sequence[nn.Embedding]) -> set[int]:
        """Return the only linear map, outside lists of layers, from the width to the size of an embedding."""
        tied = {id(embedding.weight) for embedding in embeddings}
        sizes = {tuple(embedding.weight.shape) for embedding in embeddings}
        found = {}
        for place in self.places():
            if not isinstance(place.module, nn.Linear) or place.leaf != "weight":
                continue
            if any(isinstance(module, nn.ModuleList) for _, module in place.path):
                continue
            shape = tuple(place.parameter.shape)
            if id(place.parameter) in tied or (shape in sizes and shape[0] > shape[1]):
                found[id(place.module)] = place
        return set(found) if len(found) == 1 else set()

    def places(self) -> Iterator[_Place]:
        """Yield the location of each parameter; tied ones repeatedly."""
        modules = dict(self._model.named_modules(remove_duplicate=False))
        for path, module in modules.items():
            chain: list[tuple[str, nn.Module]] = []
            steps = path.split(".") if path else []
            for i, attribute in enumerate(["", *steps]):
                step = modules[".".join(steps[:i])]
                wrapped = bool(chain) and WRAPPERS.get(class_of(chain[-1][1])) == attribute
                if wrapped:
                    attribute = chain.pop()[0]
                chain.append((attribute, step))
            for name, parameter in module.named_parameters(recurse=False, remove_duplicate=False):
                yield _Place(f"{path}.{name}" if path else name, name, parameter, tuple(chain), self)

    def around(self, module: nn.Module) -> _Around:
        """Return the maps of a module."""
        if id(module) not in self._around:
            self._around[id(module)] = _Around(module, self.width)
        return self._around[id(module)]

    def role(self, place: _Place) -> str | None:
        """Return the role of the parameter at a location; None if unknown."""
        module, leaf, attribute = place.module, place.leaf, place.path[-1][0]
        declared = _declared(module)
        if declared is not None:
            if declared not in ROLES:
                said = f"unknown role {declared!r} of a {place.cls}"
                raise UserError(f"{said}{nearest(declared, ROLES)}")
            return declared
        if id(module) in self._heads:
            return "head" if leaf in ("weight", "bias") else "other"
        classes = [class_of(one) for _, one in place.path]
        if isinstance(module, nn.Embedding):
            return "other" if "Attention" in place.parent_class else "embedding"
        if _is_norm(module):
            return "norm" if leaf in known.OF_NORMS else None
        if attribute in (uses := USES.get(place.parent_class, {})):
            return uses[attribute]
        if place.cls in USES and (held := place.held[1]) in USES[place.cls]:
            return USES[place.cls][held]
        if any(map(known.NO_ROLE.search, classes)) or isinstance(module, nn.modules.conv._ConvNd):
            return "other"
        if any(map(known.OUTSIDE.search, classes)):
            return None
        around, held = place.held
        told = around.role(held) or self._out_of_heads(place) or _by_library(place)
        return "other" if told is None and any(map(known.LINEAR_ATTENTION.search, classes)) else told

    def _out_of_heads(self, place: _Place) -> str | None:
        """Return ``attention_out`` for the only map next to modules with q, k, v and no output map."""
        around, held = place.held
        if [*around.shapes] != [held] or held not in known.ATTENTION_OUT:
            return None
        for child in around.module.children():
            for one in child.children() if isinstance(child, nn.ModuleList) else (child,):
                inner = self.around(_unwrapped(one))
                if inner.makes_queries and not known.ATTENTION_OUT & inner.shapes.keys():
                    return "attention_out"
        return None


def _nothing() -> None:
    return None


def _is_norm(module: nn.Module) -> bool:
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
        return True
    named = class_of(module) in NORMS or known.NORM.search(class_of(module))
    return bool(named) and next(module.children(), None) is None


def _by_library(place: _Place) -> str | None:
    """Return the role of other parameters in Hugging Face modules next to known linear maps."""
    homes = (type(module).__module__ for module in (place.module, place.parent))
    if not any(home.startswith(known.LIBRARY) for home in homes):
        return None
    attribute = place.path[-1][0]
    if isinstance(place.module, nn.Linear):
        if attribute in known.OTHERS:
            return "other"
        for pattern, role in known.BERT.items():
            if attribute == "dense" and re.fullmatch(pattern, place.parent_class):
                return role
        return None
    many = next(place.module.children(), None) is not None
    return "other" if place.parameter.ndim < 2 and many and place.leaf != "bias" else None


def _fitting(one: Played, kind: str) -> str:
    """Return ``kind`` adapted to this weight: if matrices are fused, its blocks are those matrices."""
    if kind in ("weight", "none") or one.role is None:
        return kind
    flat = isinstance(one.place.module, nn.Linear) and one.place.leaf == "weight" and one.parameter.ndim != 2
    if flat:
        raise UserError(
            f"second_moment {kind!r}: {one.name!r} is stored flat, which hides its blocks; shard the model "
            "with torch.distributed.fsdp.fully_shard"
        )
    split = kind.startswith("split")
    if (
        (split or kind.startswith("row") or kind == "head")
        and one.role in MATRICES
        and one.place.transposed is None
    ):
        raise UserError(
            f"second_moment {kind!r}: which dimension of {one.name!r}, {tuple(one.parameter.shape)}, counts "
            "outputs cannot be told; give its module an attribute 'transposed', true or false"
        )
    if kind == "head":
        return _by_head(one)
    if FUSED.get(one.role) != kind:
        if split and one.role == "qkv" and 0 < sum(_sizes(one) or ()) < _outputs(one):
            raise UserError(
                f"second_moment {kind!r}: {one.name!r} holds q, k, v head by head, not in equal parts; "
                f"{FUSED['qkv']!r} gives each a value"
            )
        return kind
    sizes, rows = _sizes(one), _outputs(one)
    if sizes is None or rows % sum(sizes):
        said = "cannot be told" if sizes is None else f"is not as parts {sizes} of its module say"
        raise UserError(
            f"second_moment {kind!r}: where q, k and v begin in {one.name!r}, {tuple(one.parameter.shape)}, "
            f"{said}; give its module an attribute 'parts', their sizes in rows, such as (64, 16, 16), which "
            "repeat: (8, 8, 8) for q, k, v head by head"
        )
    if len(sizes) == 1:
        return "tensor"
    equal = len(set(sizes)) == 1 and sum(sizes) == rows
    return f"split-{len(sizes)}" if equal else "split-" + "-".join(map(str, sizes))


def _by_head(one: Played) -> str:
    """Return Adam-mini's blocks (Zhang et al. 2024, arXiv 2406.16793): heads of q and k, rows of v."""
    said = f"second_moment 'head': {one.name!r}"
    if one.role != "qkv":
        raise UserError(f"{said} plays {one.role!r}; only the role 'qkv' has heads")
    sizes, rows, (around, attribute) = _sizes(one), _outputs(one), one.place.held
    letters = known.letters(attribute) or known.letters(one.place.path[-2][0])
    if (
        sizes is None
        or rows % sum(sizes)
        or not 0 < len(sizes) <= 3
        or (len(sizes) == 1 and len(letters) != 1)
    ):
        raise UserError(
            f"{said}: where q, k and v begin cannot be told; give its module an attribute 'parts'"
        )
    parts = list(zip("qkv"[-len(sizes) :] if len(sizes) > 1 else letters, sizes, strict=True))
    turns = rows // sum(sizes)
    queries = sizes[0] * turns if parts[0][0] == "q" else _rows_of_queries(around)
    width = known.head_width(around.module, queries) if queries and not known.is_latent(attribute) else None
    if width is None or any(size % width for letter, size in parts if letter != "v"):
        owner = class_of(around.module)
        raise UserError(
            f"{said}: its heads cannot be told; give the {owner} around it an attribute 'n_heads'"
        )
    blocks = [
        part
        for letter, size in parts
        for part in ([1] * size if letter == "v" else [width] * (size // width))
    ] * turns
    if len(blocks) == rows:
        return "row"
    return f"split-{len(blocks)}" if len(set(blocks)) == 1 else "split-" + "-".join(map(str, blocks))


def _rows_of_queries(around: _Around) -> int:
    """Return the rows of the map that makes q alone; 0 for none."""
    return next((around.sides(name)[0] for name in around.shapes if known.letters(name) == "q"), 0)


def _outputs(one: Played) -> int:
    """Return the number of outputs of the matrix that this parameter is, or is the bias of."""
    of_bias = one.parameter.ndim < 2 or one.place.leaf.endswith("bias")
    return one.parameter.shape[-1 if of_bias or one.place.transposed else -2]


def _sizes(one: Played) -> tuple[int, ...] | None:
    """Return the rows of each matrix in a weight; None if unknown."""
    place, rows = one.place, _outputs(one)
    said = getattr(place.module, "parts", None)
    if said is not None:
        if not isinstance(said, (tuple, list)) or not all(type(size) is int and size > 0 for size in said):
            raise UserError(
                f"parts of {one.name!r}: must be sizes in rows, such as (64, 16, 16), got {said!r}"
            )
        return tuple(said)
    around, attribute = place.held
    if one.role == "mlp_in":
        return _gate_and_up(place, rows)
    name, declared = class_of(around.module), _declared(place.module)
    if (known_sizes := known.sizes_by_class(name, attribute, around.module, rows)) is not None:
        return known_sizes
    beside = {other: _role_beside(around, other) for other in around.shapes if other != attribute}
    outs = [other for other, role in beside.items() if role == "attention_out"]
    queries = around.sides(outs[0])[1] if len(outs) == 1 else None
    made = known.letters(attribute) or known.letters(place.path[-2][0] if len(place.path) > 1 else "")
    others = list(beside.values()).count("qkv")
    if len(made) == 1 or (others > 1 and not made):
        gated = attribute == "q_proj" and queries is not None and rows == 2 * queries and not declared
        return None if gated else (rows,)
    if others:
        return (rows // 2,) * 2 if len(made) == 2 and rows % 2 == 0 else None
    if not (declared or attribute in USES.get(name, {})):
        return None
    queries = queries or (around.sides(attribute)[1] if attribute in around.shapes else rows // 3)
    keys, left = divmod(rows - queries, 2)
    return (queries, keys, keys) if keys > 0 and not left else None


def _gate_and_up(place: _Place, rows: int) -> tuple[int, ...]:
    """Return the rows of gate and up in an MLP's input map, or all rows if it is a single matrix."""
    mlp = place.held[0].mlp
    if mlp and rows == 2 * (hidden := place.held[0].sides(mlp[1], place.transposed)[1]):
        interleaved = getattr(place.held[0].module, "is_concatenated", True) is False
        return (1, 1) if interleaved else (hidden, hidden)
    alone = mlp is not None and len(mlp[0]) > 1
    return (rows // 2,) * 2 if _declared(place.module) and not alone and rows % 2 == 0 else (rows,)


def _declared(module: nn.Module) -> str | None:
    role = getattr(module, "role", None)
    return role if isinstance(role, str) else None


def _role_beside(around: _Around, name: str) -> str | None:
    """Return the role of a map next to another."""
    uses = USES.get(class_of(around.module), {})
    return _declared(around.owners[name]) or uses.get(name) or around.role(name)
