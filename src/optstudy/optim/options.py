"""The options of each optimizer, defined once: type, range, unit, default and meaning. Imports no torch.

Every named class below is an entry of the registry. The checks of configs and of the optimizers,
``optstudy optimizers``, ``optstudy schema``, the public names of :mod:`optstudy.optim`, the benchmark and the
tables in the docs are derived from it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Self

from pydantic import AfterValidator, BeforeValidator, Field, NonNegativeFloat, PositiveFloat, model_validator

from optstudy.errors import Strict
from optstudy.optim.blocks import KINDS, NAMES, Shape, big_vision, second_moment


def _two(values: Any) -> Any:
    """Convert a list to a tuple of two numbers."""
    if not isinstance(values, (list, tuple)) or len(values) != 2:
        raise ValueError("must be two numbers")
    return tuple(values)


Decay = Annotated[float, Field(ge=0, lt=1)]
"""The share of a running average's old value that a step keeps."""
Betas = Annotated[tuple[Decay, Decay], BeforeValidator(_two)]


def _kind(value: str) -> str:
    """Check the name of a granularity."""
    if not re.fullmatch(KINDS, value):
        raise ValueError(f"must be {NAMES}")
    return value


Kind = Annotated[str, AfterValidator(_kind), Field(json_schema_extra={"pattern": f"^({KINDS})$"})]
"""A granularity; see :func:`optstudy.optim.blocks.second_moment`."""

REGISTRY: dict[str, type[Options]] = {}
"""Options by the optimizer's name in a config, such as ``lion``."""


class Options(Strict):
    """Options of every optimizer. Each option can be set per parameter group."""

    lr: NonNegativeFloat = 1e-3
    """Learning rate; a float or a tensor of one element."""
    weight_decay: NonNegativeFloat = 0.0
    """Lambda, decoupled, relative to lr: a step multiplies weights by 1 - lr lambda."""
    maximize: bool = False
    """Ascend instead of descend."""
    compile: bool | None = None
    """True: one compiled function for all parameters; false: a plain loop; null: compiled if there are at
    least 10 million weights."""

    target: ClassVar[str]
    source: ClassVar[str]
    in_bfloat16: ClassVar[frozenset[str]] = frozenset()
    """State that is stored in bfloat16 (in float64 for float64 parameters)."""

    def state(self, shape: Shape, layout: str = "") -> Mapping[str, Shape]:
        """Return the shape of each state tensor of a parameter of ``shape``, except its step count.

        Args:
            shape: the parameter's shape.
            layout: how it is stored, one of :data:`optstudy.optim.blocks.LAYOUTS`.

        Raises:
            ValueError: the optimizer does not support this shape.
        """
        return {"m": shape}


def _entry(name: str, module: str, source: str) -> Callable[[type[Options]], type[Options]]:
    """Add the options of an optimizer to the registry.

    Args:
        name: its name in a config.
        module: its module in :mod:`optstudy.optim`.
        source: the publication.
    """

    def enter(cls: type[Options]) -> type[Options]:
        cls.target = f"optstudy.optim.{module}.{cls.__name__.removesuffix('Options')}"
        cls.source, REGISTRY[name] = source, cls
        return cls

    return enter


class PreconditionedOptions(Options):
    """Momentum divided by the root of a second moment."""

    betas: Betas = (0.9, 0.95)
    """Decay of the first and of the second moment; without momentum, (0, ...), there is no state m."""
    eps: NonNegativeFloat = 1e-15
    """Added to the root of the second moment, in the gradient's unit."""
    second_moment: Kind = "weight"
    """Which weights share a second moment: ``weight``, ``factored``, ``factored-textbook``, ``tensor``,
    ``row``, ``column``, ``split-N``, ``split-A-B-C``, ``tensor-printed``, ``row-printed`` or ``none``; for
    the role ``qkv`` also ``head``."""
    estimate_steps: Annotated[int, Field(ge=0, le=10**9)] = 0
    """F, in steps: up to step F the averages of g^2 use the weight 1 / (t + 1) instead of 1 - beta2, so they
    are sums divided by t + 1 (one more than the number of terms). If F > 0, they are never bias-corrected."""
    freeze: bool = False
    """Keep the averages of g^2 constant after ``estimate_steps``."""

    @model_validator(mode="after")
    def _freeze_what_is_estimated(self) -> Self:
        if self.freeze and not self.estimate_steps:
            raise ValueError("freeze: must be false where estimate_steps is 0")
        return self

    def state(self, shape: Shape, layout: str = "") -> Mapping[str, Shape]:
        """Return m, unless beta1 is 0, and the averages of g^2."""
        moment = second_moment(self.second_moment, shape, layout)
        return {**({"m": shape} if self.betas[0] else {}), **(moment.state(shape) if moment else {})}


@_entry("adam", "preconditioned", "Kingma and Ba 2015 (arXiv 1412.6980), Algorithm 1")
class AdamOptions(PreconditionedOptions):
    """One second moment per weight."""


@_entry("adafactor", "preconditioned", "Shazeer and Stern 2018; Zhao et al. 2025 (arXiv 2407.07972)")
class AdafactorOptions(PreconditionedOptions):
    """A second moment of rank one, with momentum and constant betas."""

    second_moment: Kind = "factored"
    """``factored``: a vector has one second moment, as in the released code; ``factored-textbook``: one per
    weight, as printed in the paper."""


@_entry("adalayer", "preconditioned", "Zhao et al. 2025 (arXiv 2407.07972), Algorithm 1")
class AdalayerOptions(PreconditionedOptions):
    """One second moment per tensor; Adalayer* has one per row of the last layer."""

    second_moment: Kind = "tensor"
    """``tensor``, or per group ``row``, or ``split-3`` for fused query, key and value."""


@_entry("adafactor_bigvision", "adafactor_bv", "Zhai et al. 2022 (arXiv 2106.04560), big_vision")
class AdafactorBigVisionOptions(Options):
    """Adafactor as used by big_vision."""

    beta1: Decay = 0.9
    """Decay of m."""
    beta2_cap: Annotated[float, Field(ge=0, le=1)] = 0.999
    """Upper limit of the decay of r and c."""
    decay_rate: PositiveFloat = 0.8
    """Gamma: the larger, the faster the decay grows."""
    eps: NonNegativeFloat = 1e-30
    """Added to g^2."""
    min_dim: Annotated[int, Field(ge=1, le=10**9)] = 32
    """Minimum size of the second-largest dimension for a second moment of rank one."""

    in_bfloat16: ClassVar = frozenset({"m"})

    def state(self, shape: Shape, layout: str = "") -> Mapping[str, Shape]:
        """Return m and the averages of g^2."""
        return {"m": shape, **big_vision(shape, self.min_dim).state(shape)}


@_entry("lion", "sign", "Chen et al. 2023 (arXiv 2302.06675), Algorithm 2")
class LionOptions(Options):
    """The sign of a mix of momentum and gradient."""

    lr: NonNegativeFloat = 1e-4
    """Learning rate: how far a step moves a weight, apart from decay."""
    betas: Betas = (0.9, 0.95)
    """The share of m in the sign's argument, and the decay of m; Lion's authors use (0.9, 0.99)."""


@_entry("signum", "sign", "Bernstein et al. 2018 (arXiv 1802.04434), Algorithm 2")
class SignumOptions(Options):
    """The sign of momentum."""

    lr: NonNegativeFloat = 1e-4
    """Learning rate: how far a step moves a weight, apart from decay."""
    beta: Decay = 0.9
    """Decay of m."""


@_entry("sgdw", "sgdw", "Polyak 1964; Loshchilov and Hutter 2019 (arXiv 1711.05101); timm")
class SGDWOptions(Options):
    """SGD with heavy-ball momentum and decoupled weight decay."""

    lr: NonNegativeFloat = 1e-1
    """Learning rate, in weight per unit of gradient."""
    momentum: Decay = 0.9
    """Beta; the paper's sweep used 0.98."""
    dampening: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of the gradient that is not added to the momentum; undamped, a step can be up to
    1 / (1 - beta) times the learning rate."""
    nesterov: bool = False
    """Step by g + beta b instead of b."""

    @model_validator(mode="after")
    def _nesterov_is_momentum(self) -> Self:
        if self.nesterov and (self.momentum == 0 or self.dampening != 0):
            raise ValueError("nesterov: needs a momentum above 0 and a dampening of 0")
        return self

    def state(self, shape: Shape, layout: str = "") -> Mapping[str, Shape]:
        """Return b, which exists only with momentum."""
        return {"b": shape} if self.momentum else {}


@_entry("sophia", "sophia", "Liu et al. 2023 (arXiv 2305.14342), Algorithm 3")
class SophiaOptions(Options):
    """Momentum divided by a diagonal curvature and clipped."""

    lr: NonNegativeFloat = 1e-3
    """Learning rate, the paper's times rho: the farthest that a step moves a weight, apart from decay."""
    betas: Betas = (0.965, 0.99)
    """Decay of m and of h."""
    rho: NonNegativeFloat = 0.04
    """Weight of the curvature; the larger, the fewer weights are clipped."""
    batch_tokens: Annotated[int, Field(gt=0, le=10**15)] = 131_072
    """Number of tokens over which the gradient for the curvature is averaged."""

    def state(self, shape: Shape, layout: str = "") -> Mapping[str, Shape]:
        """Return m and h."""
        return {"m": shape, "h": shape}
