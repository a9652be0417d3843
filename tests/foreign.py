"""Optimizers as others write them, to be named by import path."""

import collections
import dataclasses
import enum
import random
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.optim.optimizer import Optimizer


class Descent(Optimizer):
    """Plain descent, and whatever a subclass keeps for it."""

    def __init__(self, params: Any, lr: float = 1e-3) -> None:
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Go down the gradient, by what :meth:`factor` says."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p.add_(p.grad, alpha=-group["lr"] * self.factor(self.state[p], group))

    def factor(self, state: dict[str, Any], group: dict[str, Any]) -> float:
        """Keep something, and say how long the step is."""
        return 1.0


class Switching(Descent):
    """Has ``eval`` and ``train`` that look for state which the first step makes."""

    def factor(self, state: dict[str, Any], group: dict[str, Any]) -> float:
        state["seen"] = 1
        return 1.0

    def eval(self) -> None:
        """Look for state."""
        for group in self.param_groups:
            for p in group["params"]:
                self.state[p]["seen"] += 0

    def train(self) -> None:
        """Look for state."""
        self.eval()


class Phase(enum.Enum):
    """An enumeration."""

    EARLY = "early"
    LATE = "late"


class Pair(NamedTuple):
    """A named tuple."""

    steps: int
    factor: Any


@dataclasses.dataclass
class Note:
    """A dataclass that holds others and a tensor."""

    steps: int
    pair: Pair
    tensor: torch.Tensor = dataclasses.field(default_factory=lambda: torch.ones(2))


@dataclasses.dataclass(frozen=True, slots=True)
class Fixed:
    """A frozen dataclass with slots."""

    steps: int


class Projector:
    """A plain class with a tensor, as GaLore's."""

    def __init__(self, steps: int) -> None:
        self.steps, self.basis = steps, torch.ones(3)


def kept(steps: int) -> dict[str, Any]:
    """One of everything that an optimizer may keep."""
    return {
        "float64": np.sqrt(np.float64(2.0)) * steps,
        "float32": np.float32(steps),
        "projector": Projector(steps),
        "integer": np.int64(steps),
        "boolean": np.bool_(True),
        "array": np.arange(6.0).reshape(2, 3) * steps,
        "big-endian": np.arange(3, dtype=">i4"),
        "empty": np.zeros((0, 3)),
        "date": np.datetime64("2024-05-01"),
        "deque": collections.deque([steps, np.float64(1.0)], maxlen=3),
        "set": {1, steps},
        "frozenset": frozenset([(1, 2), "a"]),
        "ordered": collections.OrderedDict(b=1.0, a={"inner": np.float64(3.0)}),
        "counter": collections.Counter("aab"),
        "defaultdict": collections.defaultdict(list, {1: [steps]}),
        "by tuple": {(1, "a"): steps},
        "text": "adam",
        "bytes": (b"\x00\xff", b"", bytearray(b"\x80"), {b"key": 1}),
        "complex": 1j * steps,
        "big": 10**40,
        "shape": torch.Size([2, 3]),
        "dtype": torch.bfloat16,
        "list": [torch.ones(2) * steps, (None, [np.float64(1.0)])],
        "note": Note(steps, Pair(steps, np.float64(0.5))),
        "fixed": Fixed(steps),
        "phase": Phase.LATE,
        "optstudy.kind": "a name of their own",
    }


class Hoarder(Descent):
    """Keeps everything, of a parameter and of a group, and steps as long as a number in it says."""

    def factor(self, state: dict[str, Any], group: dict[str, Any]) -> float:
        steps = state["kept"]["fixed"].steps + 1 if "kept" in state else 1
        state["kept"] = group["kept"] = kept(steps)
        state["window"] = collections.deque([*state.get("window", ()), steps], maxlen=3)
        return 1 / len(state["window"]) / float(state["kept"]["note"].pair.steps)


class Averaging(Descent):
    """Steps along the mean of the last gradients, which it keeps in a deque."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Step along the mean."""
        for group in self.param_groups:
            for p in group["params"]:
                last = self.state[p].setdefault("last", collections.deque(maxlen=3))
                last.append(p.grad.clone())
                p.sub_(group["lr"] / len(last) * sum(last))


class Drawing(Descent):
    """Draws the length of each step from a generator."""

    def draw(self, state: dict[str, Any], group: dict[str, Any]) -> float:
        """Return a number in [0, 1)."""
        raise NotImplementedError

    def factor(self, state: dict[str, Any], group: dict[str, Any]) -> float:
        return 2 * self.draw(state, group)


def drawn(generator: Any) -> float:
    """Draw from a generator of any kind."""
    if isinstance(generator, torch.Generator):
        return float(torch.rand((), generator=generator))
    return float(generator.random())


class OfTheOptimizer(Drawing):
    """One of torch's and one of numpy's, in attributes."""

    def __init__(self, params: Any, lr: float = 1e-3) -> None:
        super().__init__(params, lr)
        self.torch = torch.Generator().manual_seed(1)
        self.others = {"numpy": np.random.default_rng(2), "legacy": np.random.RandomState(3)}
        self.helper = Helper()

    def draw(self, state: dict[str, Any], group: dict[str, Any]) -> float:
        return drawn(self.torch) * drawn(self.others["numpy"]) + drawn(self.others["legacy"]) * self.helper()


class Helper:
    """An object with one of Python's."""

    def __init__(self) -> None:
        self.generator = random.Random(4)

    def __call__(self) -> float:
        return drawn(self.generator)


class OfTheState(Drawing):
    """In state and groups, some of them the optimizer's own."""

    def __init__(self, params: Any, lr: float = 1e-3) -> None:
        super().__init__(params, lr)
        self.shared = np.random.Generator(np.random.Philox(5))
        for group in self.param_groups:
            group["shared"] = self.shared

    def draw(self, state: dict[str, Any], group: dict[str, Any]) -> float:
        state.setdefault("own", random.Random(6))
        state.setdefault("shared", self.shared)
        state.setdefault("torch", torch.Generator().manual_seed(7))
        shared = drawn(self.shared) + drawn(state["shared"]) + drawn(group["shared"])
        return shared / 3 + drawn(state["own"]) * drawn(state["torch"])


class Late(Drawing):
    """Made in the first step."""

    def draw(self, state: dict[str, Any], group: dict[str, Any]) -> float:
        if not hasattr(self, "generator"):
            self.generator = random.Random(8)
        return drawn(self.generator)


OF_THE_MODULE = np.random.default_rng(9)


class OfTheModule(Drawing):
    """Of the module, of the class, and in a function's closure."""

    of_the_class = random.Random(10)

    def __init__(self, params: Any, lr: float = 1e-3) -> None:
        super().__init__(params, lr)
        inner = random.Random(11)
        self.enclosed = lambda: drawn(inner)

    def draw(self, state: dict[str, Any], group: dict[str, Any]) -> float:
        return drawn(OF_THE_MODULE) * drawn(self.of_the_class) + self.enclosed()


class Global(Drawing):
    """Python's, numpy's and torch's global ones."""

    def draw(self, state: dict[str, Any], group: dict[str, Any]) -> float:
        return random.random() * np.random.rand() + float(torch.rand(()))


class Unsaved(Drawing):
    """Counts with an iterator, which cannot be saved, and keeps a generator where no other run finds it."""

    made: dict[int, Any] = {}

    def __init__(self, params: Any, lr: float = 1e-3) -> None:
        super().__init__(params, lr)
        self.numbers = iter(range(10**9))

    def draw(self, state: dict[str, Any], group: dict[str, Any]) -> float:
        return drawn(self.made.setdefault(id(self), random.Random(12))) / (1 + next(self.numbers))


class Thing:
    """What no checkpoint holds: something happens when it ends."""

    def __del__(self) -> None:
        pass


class Unkept(Descent):
    """Keeps such a thing."""

    def factor(self, state: dict[str, Any], group: dict[str, Any]) -> float:
        state["thing"] = [Thing()]
        return 1.0


class UnkeptInAGroup(Descent):
    """Keeps a function."""

    def factor(self, state: dict[str, Any], group: dict[str, Any]) -> float:
        group["thing"] = lambda: 1
        return 1.0
