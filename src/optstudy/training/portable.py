"""Converts values to plain containers that load without unpickling, and back.

``torch.load(weights_only=True)`` reads tensors, numbers, strings, lists, tuples and dictionaries. Anything
else in an optimizer (numpy values, deques, sets, dataclasses, random generators) becomes a dictionary with
its kind under :data:`KIND`. A value without such a form is refused when it is packed, not when it is read.
"""

import dataclasses
import enum
import io
import pickle
import random
import sys
import types
from collections import Counter, OrderedDict, defaultdict, deque
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optstudy.errors import UserError
from optstudy.optim.sharded import is_sharded

KIND = "optstudy.kind"
PLAIN = (
    *(type(None), bool, int, float, complex, str),
    *(torch.Size, torch.dtype, torch.device, torch.layout),
)
"""Types that torch loads unchanged."""
FACTORIES = {kind.__name__: kind for kind in (bool, dict, float, int, list, set, str, tuple)}
"""Factories that a ``defaultdict`` may have."""
DEEPEST = 50
"""Maximum nesting of containers; deeper ones are assumed to contain themselves."""


class Packing:
    """Packs related values: a random generator that is in several places stays a single one.

    Args:
        owner: the name used in errors, such as the optimizer's class.
    """

    def __init__(self, owner: str) -> None:
        self._owner = owner
        self._numbers: dict[int, int] = {}

    def pack(self, value: Any, *where: Any) -> Any:
        """Return a value as plain containers.

        Raises:
            UserError: a part of it has no such form.
        """
        kind = type(value)
        if kind in PLAIN or (isinstance(value, Tensor) and _loads(value)):
            return value
        packed = None if len(where) > DEEPEST else self._container(value, kind, where)
        if packed is None:
            place = ".".join(map(str, where))
            raise UserError(
                f"optimizer {self._owner}: {place} is of {_name(kind)}, which no checkpoint can hold; "
                "keep tensors, numbers, texts, random generators, containers or dataclasses of them"
            )
        return packed

    def _each(self, values: Any, where: tuple[Any, ...]) -> list[Any]:
        return [self.pack(value, *where, i) for i, value in enumerate(values)]

    def _container(self, value: Any, kind: type, where: tuple[Any, ...]) -> Any:
        """Return the arguments from which :func:`_made` rebuilds the value; None if it could not."""
        if kind is list:
            return self._each(value, where)
        if kind is dict and KIND not in value and all(type(key) in PLAIN for key in value):
            return {key: self.pack(item, *where, key) for key, item in value.items()}
        if kind in (dict, OrderedDict, Counter, defaultdict):
            factory = getattr(value, "default_factory", None)
            named = None if factory is None else getattr(factory, "__name__", "")
            if named is not None and FACTORIES.get(named) is not factory:
                return None
            items = self._each(map(list, value.items()), where)
            return {KIND: kind.__name__, "items": items, "factory": named}
        if kind in (tuple, set, frozenset):
            return {KIND: kind.__name__, "items": self._each(value, where)}
        if kind is deque:
            return {KIND: "deque", "items": self._each(value, where), "maxlen": value.maxlen}
        if kind is np.ndarray or isinstance(value, np.generic):
            return _packed_array(value)
        if kind in (bytes, bytearray):
            return {KIND: kind.__name__, "latin-1": value.decode("latin-1")}
        if kind is types.SimpleNamespace:
            return {KIND: "SimpleNamespace", "values": self.pack(vars(value), *where)}
        if is_generator(value):
            return self._generator(value, where)
        return self._instance(value, kind, where)

    def _instance(self, value: Any, kind: type, where: tuple[Any, ...]) -> dict[str, Any] | None:
        """Pack an instance of a class that can be found by name and rebuilt without running its code."""
        named = {KIND: "instance", "module": kind.__module__, "class": kind.__qualname__}
        if _class(kind.__module__, kind.__qualname__) is not kind:
            return None
        if isinstance(value, enum.Enum):
            return {**named, "member": value.name} if value.name in type(value).__members__ else None
        if isinstance(value, tuple):
            return {**named, "items": self._each(tuple(value), where)}
        try:
            object.__new__(kind)
        except TypeError:  # it has contents of a built-in class
            return None
        fields = dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()
        names = dict.fromkeys((*(f.name for f in fields), *getattr(value, "__dict__", {})))
        values = {name: getattr(value, name) for name in names if hasattr(value, name)}
        return {**named, "values": self.pack(values, *where)}

    def _generator(self, value: Any, where: tuple[Any, ...]) -> dict[str, Any]:
        number = self._numbers.setdefault(id(value), len(self._numbers))
        packed: dict[str, Any] = {KIND: "generator", "number": number}
        if isinstance(value, torch.Generator):
            return {**packed, "of": "torch", "device": str(value.device), "state": value.get_state()}
        if isinstance(value, random.Random):
            return {**packed, "of": "random", "state": value.getstate()}
        if isinstance(value, np.random.RandomState):
            return {**packed, "of": "RandomState", "state": self.pack(value.get_state(legacy=False), *where)}
        if isinstance(value, np.random.Generator):
            return {**packed, "of": "Generator", "state": self.pack(value.bit_generator.state, *where)}
        return {**packed, "of": "bits", "state": self.pack(value.state, *where)}


class Unpacking:
    """The inverse; each generator number gives one object.

    Args:
        known: generators that exist already, by number.
    """

    def __init__(self, known: dict[int, Any]) -> None:
        self._generators = dict(known)

    def unpack(self, value: Any) -> Any:
        """Return what :meth:`Packing.pack` was given."""
        if isinstance(value, (list, tuple)) and type(value) not in PLAIN:
            return type(value)(map(self.unpack, value))
        if not isinstance(value, dict):
            return value
        inner = {key: self.unpack(item) for key, item in value.items()}
        if KIND not in inner:
            return inner
        if inner[KIND] != "generator":
            return _made(inner)
        number = inner["number"]
        if number not in self._generators:
            self._generators[number] = _new_generator(inner)
            put(self._generators[number], value)
        return self._generators[number]


def _made(packed: dict[str, Any]) -> Any:
    kind = packed[KIND]
    if kind == "defaultdict":
        return defaultdict(FACTORIES.get(packed["factory"]), packed["items"])
    if kind == "deque":
        return deque(packed["items"], packed["maxlen"])
    if kind in ("array", "scalar"):
        data = packed["data"].cpu().numpy().tobytes()
        array = np.ndarray(packed["shape"], packed["dtype"], data).copy()
        return array if kind == "array" else array[()]
    if kind in ("bytes", "bytearray"):
        return {"bytes": bytes, "bytearray": bytearray}[kind](packed["latin-1"], "latin-1")
    if kind == "SimpleNamespace":
        return types.SimpleNamespace(**packed["values"])
    if kind != "instance":
        simple = {cls.__name__: cls for cls in (dict, OrderedDict, tuple, set, frozenset)}
        return simple[kind](packed["items"]) if kind in simple else Counter(dict(packed["items"]))
    cls: Any = _class(packed["module"], packed["class"])
    if cls is None:
        raise UserError(
            f"the checkpoint holds a {packed['module']}.{packed['class']}, which no longer exists"
        )
    if "member" in packed:
        return cls[packed["member"]]
    if "items" in packed:
        return tuple.__new__(cls, packed["items"])
    made = object.__new__(cls)
    for name, value in packed["values"].items():
        object.__setattr__(made, name, value)
    return made


def _class(module: str, name: str) -> type | None:
    """Find a class in a module that is loaded; nothing is imported.

    It is a dataclass, a named tuple, an enumeration, or a plain class.
    """
    found: Any = sys.modules.get(module)
    for part in name.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, type):
        return None
    is_namedtuple = issubclass(found, tuple) and hasattr(found, "_fields")
    is_dataclass = dataclasses.is_dataclass(found) and not hasattr(found, "__del__")
    is_known = is_dataclass or is_namedtuple or issubclass(found, enum.Enum)
    return found if is_known or _is_plain(found) else None


def _is_plain(cls: type) -> bool:
    """Whether a class says nothing of how it is made, copied or ended: instances are their attributes."""
    hooks = ("__new__", "__reduce__", "__reduce_ex__", "__getstate__", "__setattr__", "__getattribute__")
    as_objects = all(getattr(cls, hook) is getattr(object, hook) for hook in hooks)
    own = [one for one in cls.__mro__ if one is not object]
    slots = any("__slots__" in vars(one) for one in own)
    of_python = all("__module__" in vars(one) for one in own)
    ends = hasattr(cls, "__setstate__") or hasattr(cls, "__del__")
    return as_objects and of_python and not slots and not ends


def _packed_array(value: Any) -> dict[str, Any] | None:
    array = np.asarray(value)
    if array.dtype.hasobject or array.dtype.names is not None:
        return None
    kind = "array" if isinstance(value, np.ndarray) else "scalar"
    data = torch.frombuffer(bytearray(array.tobytes()), dtype=torch.uint8) if array.nbytes else torch.empty(0)
    return {KIND: kind, "dtype": array.dtype.str, "shape": array.shape, "data": data}


def _loads(value: Tensor) -> bool:
    """Whether a tensor loads without unpickling; tensors of classes unknown to torch are tried."""
    if type(value) in (Tensor, torch.nn.Parameter) or is_sharded(value):
        return True
    file = io.BytesIO()
    try:
        torch.save(value, file)
        file.seek(0)
        return type(torch.load(file, weights_only=True)) is type(value)
    except (pickle.PickleError, RuntimeError, TypeError, AttributeError):
        return False


def _name(kind: type) -> str:
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def is_generator(value: Any) -> bool:
    """Whether a value is a random generator that can be packed: torch's, numpy's or Python's."""
    if type(value) in (torch.Generator, random.Random):
        return True
    if type(value) is np.random.RandomState:
        return hasattr(np.random, value.get_state(legacy=False)["bit_generator"])
    bits = value.bit_generator if type(value) is np.random.Generator else value
    known = isinstance(bits, np.random.BitGenerator)
    return known and getattr(np.random, type(bits).__name__, None) is type(bits)


def _new_generator(packed: dict[str, Any]) -> Any:
    of = packed["of"]
    if of == "torch":
        return torch.Generator(packed["device"])
    if of == "random":
        return random.Random()
    bits: Any = getattr(np.random, packed["state"]["bit_generator"])()
    made = {"bits": bits, "Generator": np.random.Generator, "RandomState": np.random.RandomState}[of]
    return made if of == "bits" else made(bits)


def put(generator: Any, packed: dict[str, Any]) -> None:
    """Set a generator to the packed state of a generator of the same kind."""
    of, state = packed["of"], Unpacking({}).unpack(packed["state"])
    if of == "torch":
        generator.set_state(state.cpu())
    elif of == "random":
        generator.setstate(state)
    elif of == "RandomState":
        generator.set_state(state)
    else:
        (generator.bit_generator if of == "Generator" else generator).state = state
