"""A model's modules: where each parameter is, the linear maps next to it, and the role that follows.

A module's maps get their roles as a group: q, k and v with the output map of attention, the input and output
maps of an MLP. They are recognised by usual names (:mod:`optstudy.architectures`) with matching sizes.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import nn

from optstudy import architectures as known
from optstudy.errors import UserError, nearest
from optstudy.recipes import MATRICES, ROLES

TRANSPOSED = frozenset({"Conv1D"})
"""Linear maps whose weight has one *column* per output."""
WRAPPERS = {
    "OptimizedModule": "_orig_mod",
    "DistributedDataParallel": "module",
    "DataParallel": "module",
    "FullyShardedDataParallel": "_fsdp_wrapped_module",
    "CheckpointWrapper": "_checkpoint_wrapped_module",
}
"""Maps classes that wrap a module to the attribute that holds it."""


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


def declared(module: nn.Module) -> str | None:
    """Return the role that a module gives itself by an attribute ``role``; None without one."""
    role = getattr(module, "role", None)
    return role if isinstance(role, str) else None


def _is_map(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    if not isinstance(weight, nn.Parameter) or weight.ndim not in (2, 3) or isinstance(module, nn.Embedding):
        return False
    named = known.MAP.search(class_of(module)) and not known.NO_ROLE.search(class_of(module))
    return isinstance(module, nn.Linear) or bool(declared(module)) or bool(named)


class Maps:
    """The linear maps and matrices of one module, by attribute, and their roles as a group.

    Args:
        module: the module that holds them.
        width: width of the residual stream; None if unknown.
    """

    def __init__(self, module: nn.Module, width: int | None) -> None:
        self.module, self.width = module, width
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.owners: dict[str, nn.Module] = {}
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim in (2, 3) and not name.endswith("bias") and not _is_map(module):
                self._enter(name, module, parameter)
        for name, child in module.named_children():
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
        usual = isinstance(owner, (nn.Linear, nn.MultiheadAttention)) or declared(owner) is not None
        return False if usual and len(self.shapes[name]) == 2 else None

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


@dataclass(frozen=True)
class Place:
    """Location of a parameter in the model."""

    name: str
    leaf: str
    """The parameter's name within its module."""
    parameter: nn.Parameter
    path: tuple[tuple[str, nn.Module], ...]
    """Attributes and modules from the model down to the parameter's module, without wrappers."""
    tree: "Tree"

    @property
    def module(self) -> nn.Module:
        """The module that contains the parameter."""
        return self.path[-1][1]

    @property
    def parent(self) -> nn.Module:
        """The module's parent; the model is its own parent."""
        return self.path[-2 if len(self.path) > 1 else -1][1]

    @property
    def attribute(self) -> str:
        """The module's attribute in its parent."""
        return self.path[-1][0]

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
    def held(self) -> tuple[Maps, str]:
        """The group of maps that contains its matrix, and its attribute there."""
        if _is_map(self.module):
            return self.tree.maps(self.parent), self.attribute
        maps = self.tree.maps(self.module)
        base = re.sub(r"[_.]?bias$", "", self.leaf)
        named = [name for name in (self.leaf, base, f"{base}_weight") if name in maps.shapes]
        return maps, named[0] if named else self.leaf

    @cached_property
    def experts(self) -> bool:
        """Whether the first dimension enumerates experts."""
        maps, attribute = self.held
        shape = maps.shapes.get(attribute, ())
        return len(shape) == 3 and self.parameter.ndim == (2 if self.leaf.endswith("bias") else 3)

    @cached_property
    def transposed(self) -> bool | None:
        """Whether the outputs are columns; None if unknown."""
        maps, attribute = self.held
        if attribute not in maps.shapes:
            return False
        said = maps.fixed(attribute)
        if said is None:
            said = maps.columns
        if said is None and maps.width and (role := self.tree.role(self)) in MATRICES:
            *_, a, b = maps.shapes[attribute]
            if (a == maps.width) != (b == maps.width):
                return (a if role in ("qkv", "mlp_in") else b) == maps.width
        return said


@dataclass(frozen=True)
class Played:
    """One parameter and its role."""

    name: str
    parameter: nn.Parameter
    role: str | None
    """None if it is unknown."""
    place: Place

    @property
    def layout(self) -> str:
        """How the parameter is stored, one of :data:`optstudy.optim.blocks.LAYOUTS`."""
        of_experts = "experts" if self.role in MATRICES and self.place.experts else ""
        columns = "columns" if self.place.transposed and self.parameter.ndim >= 2 else ""
        return "-".join(filter(None, (of_experts, columns)))


class Tree:
    """A model's modules, and the roles of their parameters.

    Args:
        model: may be wrapped: compiled, DDP, FSDP.
        uses: see :data:`optstudy.roles.USES`.
        norms: see :data:`optstudy.roles.NORMS`.
    """

    def __init__(
        self, model: nn.Module, uses: Mapping[str, Mapping[str, str]], norms: AbstractSet[str]
    ) -> None:
        self._model, self.uses, self._norms = model, uses, norms
        self._maps: dict[int, Maps] = {}
        modules = [module for _, module in model.named_modules()]
        embeddings = [module for module in modules if isinstance(module, nn.Embedding)]
        heads = [getattr(module, "get_output_embeddings", lambda: None)() for module in modules]
        self._heads = {id(_unwrapped(head)) for head in heads if isinstance(head, nn.Module)}
        sizes = (getattr(getattr(module, "config", None), "hidden_size", None) for module in modules)
        widths = [size for size in sizes if isinstance(size, int)] + [e.embedding_dim for e in embeddings]
        self._width = widths[0] if widths else None
        if not self._heads:
            self._heads = self._maps_to_the_vocabulary(embeddings)

    def _maps_to_the_vocabulary(self, embeddings: Sequence[nn.Embedding]) -> set[int]:
        """Return the only linear map, outside lists of layers, from the width to the size of an embedding."""
        tied = {id(embedding.weight) for embedding in embeddings}
        sizes = {tuple(embedding.weight.shape) for embedding in embeddings}
        found = set()
        for place in self.places():
            if not isinstance(place.module, nn.Linear) or place.leaf != "weight":
                continue
            if any(isinstance(module, nn.ModuleList) for _, module in place.path):
                continue
            shape = tuple(place.parameter.shape)
            if id(place.parameter) in tied or (shape in sizes and shape[0] > shape[1]):
                found.add(id(place.module))
        return found if len(found) == 1 else set()

    def places(self) -> Iterator[Place]:
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
                yield Place(f"{path}.{name}" if path else name, name, parameter, tuple(chain), self)

    def maps(self, module: nn.Module) -> Maps:
        """Return the maps of a module."""
        if id(module) not in self._maps:
            self._maps[id(module)] = Maps(module, self._width)
        return self._maps[id(module)]

    def role(self, place: Place) -> str | None:
        """Return the role of the parameter at a location; None if unknown."""
        module, leaf = place.module, place.leaf
        if (own := declared(module)) is not None:
            if own not in ROLES:
                raise UserError(f"unknown role {own!r} of a {place.cls}{nearest(own, ROLES)}")
            return own
        if id(module) in self._heads:
            return "head" if leaf in ("weight", "bias") else "other"
        classes = [class_of(one) for _, one in place.path]
        if isinstance(module, nn.Embedding):
            return "other" if "Attention" in place.parent_class else "embedding"
        if self._is_norm(module):
            return "norm" if leaf in known.OF_NORMS else None
        maps, held = place.held
        if place.attribute in (uses := self.uses.get(place.parent_class, {})):
            return uses[place.attribute]
        if held in (uses := self.uses.get(place.cls, {})):
            return uses[held]
        if any(map(known.NO_ROLE.search, classes)) or isinstance(module, nn.modules.conv._ConvNd):
            return "other"
        if any(map(known.OUTSIDE.search, classes)):
            return None
        told = maps.role(held) or self._out_of_heads(place) or _by_library(place)
        return "other" if told is None and any(map(known.LINEAR_ATTENTION.search, classes)) else told

    def _out_of_heads(self, place: Place) -> str | None:
        """Return ``attention_out`` for the only map next to modules with q, k, v and no output map."""
        maps, held = place.held
        if [*maps.shapes] != [held] or held not in known.ATTENTION_OUT:
            return None
        for child in maps.module.children():
            for one in child.children() if isinstance(child, nn.ModuleList) else (child,):
                inner = self.maps(_unwrapped(one))
                if inner.makes_queries and not known.ATTENTION_OUT & inner.shapes.keys():
                    return "attention_out"
        return None

    def role_beside(self, maps: Maps, name: str) -> str | None:
        """Return the role of a map next to another."""
        uses = self.uses.get(class_of(maps.module), {})
        return declared(maps.owners[name]) or uses.get(name) or maps.role(name)

    def _is_norm(self, module: nn.Module) -> bool:
        if isinstance(module, (nn.LayerNorm, nn.RMSNorm)):
            return True
        named = class_of(module) in self._norms or known.NORM.search(class_of(module))
        return bool(named) and next(module.children(), None) is None


def _by_library(place: Place) -> str | None:
    """Return the role of other parameters in Hugging Face modules next to known linear maps."""
    homes = (type(module).__module__ for module in (place.module, place.parent))
    if not any(home.startswith(known.LIBRARY) for home in homes):
        return None
    if isinstance(place.module, nn.Linear):
        if place.attribute == "dense":
            roles = (role for name, role in known.BERT.items() if re.fullmatch(name, place.parent_class))
            return next(roles, None)
        return "other" if place.attribute in known.OTHERS else None
    many = next(place.module.children(), None) is not None
    return "other" if place.parameter.ndim < 2 and many and place.leaf != "bias" else None
