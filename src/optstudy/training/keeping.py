"""What a checkpoint stores of an optimizer, so that a resumed run continues as if it had never stopped.

It stores the ``state_dict``, packed (:mod:`optstudy.training.portable`); values of its state and groups that
torch's ``load_state_dict`` would change (strings become generators, deques lose their limit); and the
optimizer's random generators, wherever they are found.
"""

import io
import random
import sys
import types
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer

from optstudy.optim.sharded import is_sharded, shard_like
from optstudy.training.parallel import to_device
from optstudy.training.portable import KIND, PLAIN, Packing, Unpacking, is_generator, put

DEEPEST = 8
"""Levels of attributes and containers that are searched for random generators."""
DRAWS = (torch.Generator, np.random.Generator, np.random.RandomState, np.random.BitGenerator, random.Random)

Place = tuple[str | int, ...]
"""A path of attribute names, keys and element numbers."""


class Keeping:
    """Saves and restores one optimizer.

    Args:
        optimizer: the optimizer, before its first step.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._at_first = set(_Search(optimizer).found)

    def state(self) -> tuple[Any, dict[str, Any]]:
        """Return the optimizer's packed ``state_dict``, and further values to store.

        Raises:
            UserError: it contains something that no checkpoint can store.
        """
        packing = Packing(type(self._optimizer).__name__)
        state = packing.pack(self._optimizer.state_dict())
        found = _Search(self._optimizer).found
        states, groups = self._changed(self._states()), self._changed(self._groups())
        beside = {
            "state": [[i, key, packing.pack(v, "state", i, key)] for i, key, v in states],
            "groups": [[i, key, packing.pack(v, "groups", i, key)] for i, key, v in groups],
            "generators": [[place, packing.pack(one, *place)] for place, one in found.items()],
        }
        return state, beside

    def load(
        self, state: Any, beside: dict[str, Any], take: Callable[[Optimizer, Any], None], device: torch.device
    ) -> list[str]:
        """Restore what :meth:`state` returned.

        Args:
            state: the packed ``state_dict``.
            beside: the further values; empty in checkpoints of older versions.
            take: loads a ``state_dict`` into an optimizer.
            device: device for tensors among the further values.

        Returns:
            Places of random generators that no longer exist.
        """
        found = _Search(self._optimizer).found
        known, missing = {}, []
        for place, packed in beside.get("generators", []):
            generator = found.get(tuple(place))
            if generator is not None and _fits(generator, packed):
                put(generator, packed)
                known[packed["number"]] = generator
            else:
                missing.append((tuple(place), packed))
        unpacking = Unpacking(known)
        take(self._optimizer, _unpacked(state, unpacking))
        parameters = self._parameters()
        states, groups = dict(self._states()), dict(self._groups())
        for i, name, packed in beside.get("state", []):
            if i in states:
                placed = _sharded(to_device(packed, device), parameters[i])
                states[i][name] = unpacking.unpack(placed)
        for i, name, packed in beside.get("groups", []):
            groups[i][name] = unpacking.unpack(to_device(packed, device))
        parts = _parts(self._optimizer)
        lost = []
        for place, packed in missing:
            if len(place) == 2 and place[0] in range(len(parts)):  # it is created in the first step
                setattr(parts[int(place[0])], str(place[1]), unpacking.unpack(packed))
            else:
                lost.append(_said(place))
        return lost

    def lost(self) -> list[str]:
        """Places of generators and iterators in the optimizer that cannot be saved or restored."""
        search = _Search(self._optimizer)
        late = [place for place in search.found if place not in self._at_first and len(place) != 2]
        return [*search.lost, *map(_said, late)]

    def _states(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """State by parameter, numbered in the order of the groups."""
        state = self._optimizer.state
        return ((i, state[p]) for i, p in enumerate(self._parameters()) if p in state)

    def _parameters(self) -> list[Tensor]:
        return [p for group in self._optimizer.param_groups for p in group["params"]]

    def _groups(self) -> Iterator[tuple[int, dict[str, Any]]]:
        return enumerate(self._optimizer.param_groups)

    def _changed(self, dictionaries: Iterator[tuple[int, dict[str, Any]]]) -> Iterator[tuple[int, str, Any]]:
        """Values that torch's loading of a ``state_dict`` would change."""
        for i, values in dictionaries:
            yield from ((i, key, v) for key, v in values.items() if key != "params" and not _stays(v))


def _unpacked(state: Any, unpacking: Unpacking) -> Any:
    """Unpack a ``state_dict`` except for parameter state, where arrays make torch's loading fail.

    Packed values of that state are restored afterwards.
    """
    if isinstance(state, list):
        return [_unpacked(part, unpacking) for part in state]
    if not isinstance(state, dict) or KIND in state:
        return unpacking.unpack(state)
    if not {"state", "param_groups"} <= state.keys():
        return {key: _unpacked(value, unpacking) for key, value in state.items()}
    rest = {key: unpacking.unpack(value) for key, value in state.items() if key != "state"}
    own = {key: v if isinstance(key, int) else unpacking.unpack(v) for key, v in state["state"].items()}
    return {**rest, "state": own}


def _sharded(packed: Any, parameter: Tensor) -> Any:
    """Return a packed value in which tensors of a sharded parameter's shape are sharded like it."""
    if not is_sharded(parameter):
        return packed
    if isinstance(packed, dict):
        return {key: _sharded(value, parameter) for key, value in packed.items()}
    if type(packed) in (list, tuple):
        return type(packed)(_sharded(value, parameter) for value in packed)
    same = isinstance(packed, Tensor) and packed.shape == parameter.shape
    return shard_like(packed, parameter) if same else packed


def _stays(value: Any) -> bool:
    """Whether torch's ``load_state_dict`` leaves a value unchanged."""
    kind = type(value)
    if kind is list:
        return all(map(_stays, value))
    if kind is dict:
        return all(map(_stays, value.values()))
    return isinstance(value, Tensor) or kind in (type(None), bool, int, float, complex)


def _fits(generator: Any, packed: dict[str, Any]) -> bool:
    """Whether a packed state can be loaded into a generator."""
    now = Packing("").pack(generator)
    same_device = now.get("device", "").partition(":")[0] == packed.get("device", "").partition(":")[0]
    same_bits = now["of"] in ("torch", "random") or (
        now["state"]["bit_generator"] == packed["state"]["bit_generator"]
    )
    return bool(now["of"] == packed["of"] and same_device and same_bits)


def _said(place: Place) -> str:
    return ".".join(map(str, place[1:] if isinstance(place[0], int) else place))


def _parts(optimizer: Optimizer) -> list[Optimizer]:
    return list(getattr(optimizer, "optimizers", [optimizer]))


def _ours(cls: type) -> bool:
    """Whether a class is torch's, Python's or this package's; these have no random generators."""
    return cls.__module__.partition(".")[0] in ("torch", "optstudy", "builtins", "abc", "typing")


class _Search:
    """Finds random generators of other people's optimizers outside groups and state, by their first place.

    It searches attributes, those of objects and functions found there, the class and its module. :attr:`lost`
    names what cannot be saved, such as an iterator.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self.found: dict[Place, Any] = {}
        self.lost: list[str] = []
        self._seen: dict[int, Any] = {}
        for number, part in enumerate(_parts(optimizer)):
            foreign = [cls for cls in type(part).__mro__ if not _ours(cls)]
            if foreign:
                self._visit(part, (number,))
            for cls in foreign:
                self._visit(dict(vars(cls)), (cls.__module__, cls.__qualname__))
                for name, value in vars(sys.modules[cls.__module__]).items():
                    if not name.startswith("__") and isinstance(value, (*DRAWS, list, tuple, dict, deque)):
                        self._visit(value, (cls.__module__, name))

    def _visit(self, value: Any, place: Place) -> None:
        if isinstance(value, (*PLAIN, Tensor, np.ndarray, type, types.ModuleType)):
            return
        if id(value) in self._seen or len(place) > DEEPEST:
            return
        self._seen[id(value)] = value  # keeps it alive, so that its id is not reused
        if is_generator(value):
            self.found[place] = value
        elif isinstance(value, DRAWS) or (isinstance(value, Iterator) and not isinstance(value, io.IOBase)):
            self.lost.append(_said(place))
        else:
            for name, inner in _inside(value):
                self._visit(inner, (*place, name))


def _inside(value: Any) -> Iterator[tuple[str | int, Any]]:
    """Yield the contents of an object with their names; nothing for classes of the standard library."""
    if isinstance(value, dict):
        yield from ((key if isinstance(key, str) else i, item) for i, (key, item) in enumerate(value.items()))
    elif isinstance(value, (list, tuple, deque)):
        yield from enumerate(value)
    elif isinstance(value, types.FunctionType):
        for name, cell in zip(value.__code__.co_freevars, value.__closure__ or (), strict=True):
            if cell != types.CellType():  # not empty
                yield name, cell.cell_contents
    elif isinstance(value, types.MethodType):
        yield "self", value.__self__
    elif isinstance(value, partial):
        yield from (("func", value.func), ("args", value.args), ("keywords", value.keywords))
    elif type(value).__module__.partition(".")[0] not in sys.stdlib_module_names:
        hidden = ("state", "param_groups") if isinstance(value, Optimizer) else ()
        slots = (name for cls in type(value).__mro__ for name in _slots(cls))
        for name in dict.fromkeys((*getattr(value, "__dict__", {}), *slots)):
            if name not in hidden and hasattr(value, name):
                yield name, getattr(value, name)


def _slots(cls: type) -> tuple[str, ...]:
    slots = vars(cls).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(slots)
