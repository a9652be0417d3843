"""What ``optstudy optimizers`` shows: every optimizer and recipe, with its state at 150m. No torch."""

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optstudy.config import Model
from optstudy.optimizers import OPTIMIZERS, ROLES, complete, options_of
from optstudy.scales import SCALES
from optstudy.size import Shape, shapes_by_role

FLOAT = 4
"""Bytes of a float32; also of the counter of steps that each parameter has."""
PER_WEIGHT = {
    "optstudy.optim.Lion": ("m",),
    "optstudy.optim.Signum": ("m",),
    "optstudy.optim.SGDW": ("b",),
    "optstudy.optim.Sophia": ("m", "h"),
}
"""Classes whose state is so many float32 arrays of the parameter's shape."""


@dataclass(frozen=True)
class Listed:
    """One optimizer or recipe."""

    name: str
    target: str
    second_moment: Mapping[str, str]
    """Per role; ``not trained`` where it is left out."""
    state_bytes_per_param: float
    """On the shapes of the 150m model, with float32 parameters."""
    source: str

    @property
    def moments(self) -> str:
        """The commonest granularity, then the roles that differ."""
        common, _ = Counter(self.second_moment.values()).most_common(1)[0]
        others = [f"{role} {kind}" for role, kind in self.second_moment.items() if kind != common]
        return ", ".join([common, *others])


def listing() -> list[Listed]:
    """Return every optimizer and recipe, in the registry's order."""
    shapes = shapes_by_role(Model.model_validate(SCALES["150m"]["model"]))
    weights = sum(math.prod(shape) for of_role in shapes.values() for shape in of_role)
    result = []
    for name, spec in OPTIMIZERS.items():
        by_role = options_by_role(name)
        state = sum(
            state_bytes(spec.target, options, shape)
            for role, options in by_role.items()
            if options is not None
            for shape in shapes[role]
        )
        moments = {role: second_moment(spec.target, role, options) for role, options in by_role.items()}
        result.append(Listed(name, spec.target, moments, state / weights, spec.source))
    return result


def options_by_role(name: str) -> dict[str, dict[str, Any] | None]:
    """Return the options that each role has; None where it is not trained."""
    options, rules = complete(name, {}, {})
    result: dict[str, dict[str, Any] | None] = {}
    for role in ROLES:
        own = options_of(role, rules)
        result[role] = {**options, **own} if own.get("train", True) else None
    return result


def second_moment(target: str, role: str, options: Mapping[str, Any] | None) -> str:
    """Return the granularity that a role's second moment is kept at, and whether it freezes."""
    if options is None:
        return "not trained"
    if target in PER_WEIGHT:
        return "weight (of sampled gradients)" if "h" in PER_WEIGHT[target] else "none"
    kind: str = options.get("second_moment", "weight" if role == "norm" else "factored")
    return f"{kind}, frozen" if options.get("freeze") else kind


def state_bytes(target: str, options: Mapping[str, Any], shape: Shape) -> int:
    """Return the bytes of state of one float32 parameter."""
    n = math.prod(shape)
    if target in PER_WEIGHT:
        return FLOAT * (1 + n * len(PER_WEIGHT[target]))
    if target == "optstudy.optim.AdafactorBigVision":
        factored = len(shape) > 1 and sorted(shape)[-2] >= options["min_dim"]
        return FLOAT * (1 + values("factored" if factored else "weight", shape)) + 2 * n
    return FLOAT * (1 + n + values(options["second_moment"], shape))


def values(kind: str, shape: Shape) -> int:
    """Return how many numbers a second moment of one granularity keeps."""
    if kind.startswith("split-"):
        return int(kind.removeprefix("split-"))
    if kind.startswith("factored") and len(shape) < 2:
        kind = "tensor" if kind == "factored" else "weight"
    n = math.prod(shape)
    return {
        "weight": n,
        "tensor": 1,
        "row": shape[0],
        "none": 0,
        "factored": n // shape[-1] + n // (shape[-2] if len(shape) > 1 else 1),
        "factored-textbook": n // shape[-1] + n // (shape[-2] if len(shape) > 1 else 1),
    }[kind]
