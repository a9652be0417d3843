"""What a study file may say, as pydantic models. Imports no torch.

A layer sets config values (``base``) and lists values to run (``axes``). Layers, later ones winning: the
scale's config, the file, the panel, their entries for the scale, the optimizer, the curve, the point on the
axes, ``--set``.
"""

import itertools
import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    Discriminator,
    Field,
    PrivateAttr,
    Tag,
    ValidationError,
    model_validator,
)

from optstudy.config import Count, NonNegative, Positive
from optstudy.errors import Strict, UserError, explain
from optstudy.launch.options import Slurm
from optstudy.study import yamlfile

NAME = "optimizer.name"
FINE = 100
"""Values per decade, from which on neighbours of three digits are hardly apart."""
MOST_VALUES = 1_000
"""On one axis."""


class HalfDecades(Strict):
    """Values spaced evenly in the logarithm, rounded to three digits: 1e-3, 3.16e-3, 1e-2 ..."""

    start: Annotated[Positive, Field(alias="from")]
    stop: Annotated[Positive, Field(alias="to")]
    per_decade: Count = 2

    @model_validator(mode="after")
    def _some_values(self) -> Self:
        if self.stop < self.start:
            raise ValueError(f"'to' ({self.stop:g}) must not be below 'from' ({self.start:g})")
        if math.log10(self.stop / self.start) * self.per_decade > MOST_VALUES:
            raise ValueError(f"more than {MOST_VALUES} values")
        if _repeats(self.values()):
            raise ValueError(f"'per_decade' ({self.per_decade}) is too fine for values of three digits")
        return self

    def values(self) -> list[float]:
        """All values, both ends included."""
        steps = math.log10(self.stop / self.start) * self.per_decade
        count = math.floor(steps + min(0.5, max(0.01, 0.002 * self.per_decade)))  # both ends are rounded
        return [spaced(self.start, i, self.per_decade) for i in range(count + 1)]


def spaced(start: float, steps: int, per_decade: float) -> float:
    """Return the value ``steps`` steps above ``start``, to three significant digits.

    Grids that start from different numbers of one grid meet in the same numbers: where ``start`` is a
    rounded value of a grid through a number of one or two digits, as 3.16e-3 is of that through 1e-2, it
    stands for the exact one.
    """
    number, k = _exact(start, per_decade)
    return rounded(number * 10 ** ((steps - k) / per_decade))


@lru_cache(maxsize=1024)
def _exact(start: float, per_decade: float) -> tuple[float, int]:
    """Return a number of the grid through ``start``, and how many steps above it lies.

    It is a power of ten if there is one, else one of one digit, else of two, else ``start`` itself.
    """
    steps = range(math.ceil(per_decade)) if per_decade < FINE else ()
    near = [(rounded(start * 10 ** (k / per_decade), n), k, n) for n, k in itertools.product((1, 2), steps)]
    found = [one for one in near if rounded(one[0] * 10 ** (-one[1] / per_decade)) == start]
    number, k, _ = min(found, key=lambda one: (f"{one[0]:.1e}"[:3] != "1.0", one[2]), default=(start, 0, 3))
    return number, k


def rounded(value: float, digits: int = 3) -> float:
    """Return a number of so many significant digits."""
    return float(f"{value:.{digits}g}")


def _repeats(values: Sequence[Any]) -> bool:
    """Whether a number stands there twice: an axis that grows takes its spacing from how many there are."""
    numbers = [value for value in values if type(value) in (int, float)]
    return len(set(numbers)) < len(numbers)


def _distinct(values: list[Any]) -> list[Any]:
    if _repeats(values):
        raise ValueError("each number must stand there once")
    return values


def _kind(value: Any) -> str:
    return "grid" if isinstance(value, (Mapping, HalfDecades)) else "list"


Values = Annotated[list[Any], Field(min_length=1, max_length=MOST_VALUES), AfterValidator(_distinct)]
Axis = Annotated[Annotated[HalfDecades, Tag("grid")] | Annotated[Values, Tag("list")], Discriminator(_kind)]


class BestOf(Strict):
    """Values taken from the best point of another study at the same scale."""

    study: str
    """Which study."""
    keys: Annotated[list[str] | dict[str, str], Field(min_length=1)] = ["optimizer.lr"]
    """Config keys whose values are taken; a mapping says what each becomes: another key, or a ``$name``."""
    curve: str | None = None
    """Which of its curves; null: the one of the same name."""
    panel: str | None = None
    """Which of its panels; null, or one not run at this scale: the first that has the curve."""

    @property
    def taken(self) -> Mapping[str, str]:
        """What each key becomes."""
        return self.keys if isinstance(self.keys, dict) else {key: key for key in self.keys}


class Layer(Strict):
    """Settings and axes over those of the layers before."""

    base: dict[str, Any] = {}
    """Config values by dotted key. ``$name`` stands for the value on the axis ``$name``, or for what
    ``best_of`` calls so; ``$steps`` for the steps of the scale or of ``--set training.steps``; and
    ``0.5 * $name`` for so many times it, steps to whole ones and other numbers to three digits."""
    axes: dict[str, Axis] = {}
    """Values to run, by dotted key or ``$name``; the product of all axes is run."""
    best_of: BestOf | None = None
    fidelity: Literal["released", "printed"] | None = None
    """What the released code computed, or what the paper's text says where that differs."""


class ScaleLayer(Layer):
    """A layer with entries for some optimizers and curves."""

    optimizers: dict[str, Layer] = {}
    """What differs for one optimizer, by its name."""
    curves: dict[str, Layer] = {}
    """Named variants: each is run over all axes and is a curve of the figure."""


class Panel(ScaleLayer):
    """One plot of several."""

    scale: str | None = None
    """Its size, where the figure shows several sizes."""
    include: dict[str, list[str]] = {}
    """As the file's, in this panel only."""
    x: str | None = None
    """Its horizontal axis, where it is not the figure's."""
    scales: dict[str, ScaleLayer] = {}
    """What differs at one scale."""


class Figure(Strict):
    """What the study draws."""

    kind: Literal["sweep", "map", "gaps"] = "sweep"
    """``gaps``: each optimizer's best beside that of the reference of ``tokens``, over a setting."""
    over: str = "training.steps"
    """The setting of ``gaps``, a config key."""
    x: str = "optimizer.lr"
    """Config key, or axis ``$name``, on the horizontal axis."""
    curve: str = NAME
    """Config key whose values are the curves, where none are named."""


class Adaptive(Strict):
    """Extend an axis until the best is inside it and the loss has risen on both sides."""

    axis: str = "optimizer.lr"
    rise: NonNegative = 0.1
    """Nats by which some point on either side must lie above the best."""
    most: Count = 6
    """Values that may be added at either end."""


class Tokens(Strict):
    """Token-equivalents: the tokens with which a reference would reach each curve's loss, over its own."""

    reference: str = "adam"
    """The reference's curve."""
    source: Annotated[str | None, Field(alias="from")] = None
    """The study that has it at several lengths; null: this one."""


class Refine(Strict):
    """Add seeds where a comparison needs them: at the best point and its neighbours."""

    seeds: Annotated[int, Field(ge=2)] = 3
    """Seeds of these points, 0 and up."""
    neighbours: Annotated[int, Field(ge=0)] = 1
    """Points on either side of the best."""
    axis: str = "optimizer.lr"


class StudyFile(ScaleLayer):
    """The whole file."""

    title: str
    asks: str
    """The question that it answers."""
    notes: str = ""
    panels: Annotated[dict[str, Panel], Field(max_length=100)] = {}
    """Plots by title, in order."""
    scales: dict[str, ScaleLayer] = {}
    """What differs at one scale."""
    include: dict[str, list[str]] = {}
    """Curves of other studies that are drawn too, by study."""
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=MOST_VALUES)] = [0]
    adaptive: Adaptive | None = None
    refine: Refine | None = None
    tokens: Tokens | None = None
    figure: Figure = Figure()
    slurm: Slurm = Slurm()
    _places: yamlfile.Places = PrivateAttr(default=())

    @property
    def places(self) -> yamlfile.Places:
        """Path, line and value of every key of the file."""
        return self._places


def axes_of(layers: Sequence[Layer]) -> dict[str, list[Any]]:
    """Return the values of every axis, later layers winning."""
    found: dict[str, list[Any]] = {}
    for layer in layers:
        for key, axis in layer.axes.items():
            found[key] = list(axis.values()) if isinstance(axis, HalfDecades) else axis
    return found


def parse(content: str, where: str) -> StudyFile:
    """Check a study file's text; errors name file, line, key and the nearest valid name."""
    tree = yamlfile.parse(content, where)
    if not isinstance(tree, Mapping):
        raise UserError(f"{where}:1: a study file is a mapping with the keys title, asks, axes ...")
    try:
        file = StudyFile.model_validate(yamlfile.plain(tree, where))
    except ValidationError as error:
        first = error.errors()[0]
        loc = [part for part in first["loc"] if part not in ("grid", "list")]
        said = explain(first, loc, _keys_at(loc[:-1]), "file")
        raise UserError(f"{where}:{yamlfile.line(tree, loc)}: {said}") from None
    except RecursionError:
        raise UserError(f"{where}: nested too deeply") from None
    file._places = tuple(yamlfile.places(tree))
    return file


_BELOW: Mapping[str, type[BaseModel]] = {
    "optimizers": Layer, "curves": Layer, "panels": Panel, "scales": ScaleLayer, "axes": HalfDecades,
}  # fmt: skip
_SINGLE: Mapping[str, type[BaseModel]] = {
    "best_of": BestOf, "figure": Figure, "adaptive": Adaptive, "refine": Refine, "tokens": Tokens,
    "slurm": Slurm,
}  # fmt: skip


def _keys_at(loc: list[Any]) -> list[str]:
    """Keys that a file allows in the mapping at ``loc``."""
    kind: type[BaseModel] = StudyFile
    parts = iter(loc)
    for part in parts:
        if part in _BELOW and next(parts, None) is not None:
            kind = _BELOW[part]
        elif part in _SINGLE:
            kind = _SINGLE[part]
    return [field.alias or name for name, field in kind.model_fields.items()]
