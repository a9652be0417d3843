"""The contents of study files, as pydantic models. Imports no torch.

A layer sets config values (``base``) and lists values to run (``axes``). Layers in order of precedence, last
wins: the scale's config, the file, the panel, their entries for the scale, the optimizer, the curve, the
named settings of axes, the point on the other axes, ``--set``. :mod:`optstudy.study.checks` checks that every
name in the file matches something.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Discriminator,
    Field,
    NonNegativeFloat,
    PrivateAttr,
    Tag,
    ValidationError,
    model_validator,
)

from optstudy import presets
from optstudy.claims.measures import FUNCTIONS
from optstudy.config import Seed, merge
from optstudy.errors import Strict, UserError, explain, unit
from optstudy.grids import MOST_VALUES, HalfDecades, repeats
from optstudy.launch.options import Slurm
from optstudy.program import TrainerSpec
from optstudy.record import leaves
from optstudy.results.figure import Cost
from optstudy.study import yamlfile

NAME, RATE = "optimizer.name", "optimizer.lr"
PRESETS: Literal["presets"] = "presets"
"""In the place of values: every preset on the axis ``optimizer.name``, its rates on ``optimizer.lr``."""
ADAM = "$adam"
"""The rate of those roles of a preset that are Adam's, where a study has an axis of this name."""
MOST_CLAIMS = 1_000
LANGUAGE = (
    "A test on the study's curves C, such as best('mine.Tiger') - best(adam) < 0: a measure, or "
    "a difference of two by one function, compared with numbers; all(..., ...), average(..., ...) over "
    'several. C is a curve\'s name, quoted unless it is an identifier, with in "panel" where there are '
    'several; "paper/fig1: adam" is another study\'s. Measures: '
    + "; ".join(f"{one.forms} ({one.unit}): {one.about}" for one in FUNCTIONS.values())
    + "."
)


def _distinct(values: list[Any]) -> list[Any]:
    if repeats(values):
        raise ValueError("each number may appear only once")
    return values


def _kind(value: Any) -> str:
    if value == PRESETS:
        return PRESETS
    if isinstance(value, HalfDecades):
        return "grid"
    if isinstance(value, Mapping):
        return "labels" if any(isinstance(one, (Mapping, Layer)) for one in value.values()) else "grid"
    return "list"


def _layer(value: Any) -> Any:
    """Accept plain settings in place of a layer, as its ``base``."""
    plain = isinstance(value, Mapping) and not value.keys() & Layer.model_fields.keys()
    return {"base": value} if plain else value


Values = Annotated[list[Any], Field(min_length=1, max_length=MOST_VALUES), AfterValidator(_distinct)]
Labels = Annotated[
    dict[str, Annotated["Layer", BeforeValidator(_layer)]], Field(min_length=1, max_length=MOST_VALUES)
]
"""Values that are names: each stands for settings or for a layer."""
Axis = Annotated[
    Annotated[HalfDecades, Tag("grid")]
    | Annotated[Values, Tag("list")]
    | Annotated[Labels, Tag("labels")]
    | Annotated[Literal["presets"], Tag("presets")],
    Discriminator(_kind),
]


class BestOf(Strict):
    """Values taken from the best point of another study at the same scale."""

    study: str
    """The other study."""
    keys: Annotated[list[str] | dict[str, str], Field(min_length=1)] = ["optimizer.lr"]
    """Config keys whose values are taken; a mapping renames each to another key or to a ``$name``."""
    curve: str | None = None
    """The other study's curve; null: the curve of the same name."""
    panel: str | None = None
    """The other study's panel; null, or one not run at this scale: the first that has the curve."""

    @property
    def taken(self) -> Mapping[str, str]:
        """The new name of each key."""
        return self.keys if isinstance(self.keys, dict) else {key: key for key in self.keys}


class Layer(Strict):
    """Settings and axes that override those of earlier layers."""

    base: dict[str, Any] = {}
    """Config values by dotted key. ``$name`` is replaced by the value on the axis ``$name``, or by the value
    that ``best_of`` stores under this name; ``$steps`` by the steps of the scale or of ``--set
    training.steps``. ``0.5 * $name`` is a multiple: integers stay integers, others are rounded to three
    digits."""
    axes: dict[str, Axis] = {}
    """Values to run; the product of all axes is run. An axis is a config key, dotted; or ``$name``, whose
    values stand where a setting is ``$name``; or has a name of its own and named settings as its values. The
    word ``presets`` is every preset on the axis ``optimizer.name``, and each one's own rates on
    ``optimizer.lr``; there ``$adam``, if it is an axis, is the rate of roles that a preset leaves to Adam."""
    best_of: BestOf | None = None
    """Values taken from the best point of another study."""
    fidelity: Literal["released", "printed"] | None = None
    """What the released code computed, or the paper's text where it differs."""

    @model_validator(mode="after")
    def _presets_have_names_and_rates(self) -> Self:
        for key, axis in self.axes.items():
            if axis == PRESETS and key not in (NAME, RATE):
                raise ValueError(f"axes.{key}: presets have values for {NAME} and {RATE} alone")
        return self


class ScaleLayer(Layer):
    """A layer with entries for some optimizers and curves."""

    optimizers: dict[str, Layer] = {}
    """Settings for one optimizer, by its name."""
    curves: dict[str, Layer] = {}
    """Named variants: each is run over all axes and is a curve of the figure. If an axis names the curves or
    the cells (:class:`FigureSpec`): settings for one of them."""


class PanelSpec(ScaleLayer):
    """One of several plots."""

    scale: str | None = None
    """The panel's scale, if the figure shows several scales."""
    include: dict[str, list[str]] = {}
    """Like the file's ``include``, for this panel only."""
    x: str | None = None
    """Its horizontal axis, if it differs from the figure's."""
    scales: dict[str, ScaleLayer] = {}
    """Settings for one scale."""


class FigureSpec(Strict):
    """What the study draws."""

    kind: Literal["sweep", "map", "gaps", "deciles", "distances"] = "sweep"
    """``sweep``: loss over one axis; ``map``: the best loss of every cell of a table; ``gaps``: each
    optimizer's best compared with that of the reference of ``tokens``, over a setting; ``deciles``: the same
    by how common the token to predict is, of runs with ``watch.deciles``; ``distances``: how far Adam's step
    is from others' over its best run, by role, of runs with ``watch.moments``."""
    over: str = "training.steps"
    """The setting on the axis of ``gaps``, a config key."""
    x: str = "optimizer.lr"
    """The horizontal axis: a config key, or an axis with another name."""
    curve: str = NAME
    """If no curves are named, the config key, or axis of names, whose values are the curves. Empty: there is
    one curve."""
    rows: str | None = None
    """For a map: the axis whose values are its rows, if curves are not named ``ROW / COLUMN``."""
    columns: str | None = None
    """For a map: the axis whose values are its columns."""
    costs: list[Cost] = []
    """Costs over which each curve's best loss is drawn in addition, with the front of the curves that none
    beats in both: optimizer state, the time of a step as a multiple of Adam's, peak memory. Not for a map."""

    @model_validator(mode="after")
    def _both(self) -> Self:
        if "over" in self.model_fields_set and self.kind != "gaps":
            raise ValueError("'over' goes with 'kind: gaps'")
        if self.costs and self.kind == "map":
            raise ValueError("'costs' are drawn for curves: not with 'kind: map'")
        if len(set(self.costs)) < len(self.costs):
            raise ValueError("'costs' has one of them twice")
        if (self.rows is None) != (self.columns is None) or (self.rows is not None and self.kind != "map"):
            raise ValueError("'rows' and 'columns' go together, with 'kind: map'")
        if self.rows is not None and self.rows == self.columns:
            raise ValueError(f"'rows' and 'columns' are both {self.rows!r}: they must be two axes")
        return self


class Adaptive(Strict):
    """Extends an axis until the best is inside it and the loss has risen on both sides."""

    axis: str = "optimizer.lr"
    """Config key of the axis that is extended."""
    rise: Annotated[NonNegativeFloat, unit("nats")] = 0.1
    """Required rise: nats by which some point on either side must be above the best."""
    most: Annotated[int, Field(gt=0, le=MOST_VALUES), unit("values")] = 6
    """Maximum number of values added at either end."""


class TokensSpec(Strict):
    """Token-equivalents: the tokens with which a reference reaches each curve's loss, over the curve's."""

    reference: str = "adam"
    """The reference's curve."""
    source: Annotated[str | None, Field(alias="from")] = None
    """The study with the reference at several lengths; null: this one."""


class Refine(Strict):
    """Adds seeds where a comparison needs them: at the best point and its neighbours."""

    seeds: Annotated[int, Field(ge=2, le=MOST_VALUES), unit("seeds")] = 3
    """Number of seeds of these points, 0 and up."""
    neighbours: Annotated[int, Field(ge=0, le=MOST_VALUES), unit("points")] = 1
    """Number of points on either side of the best."""
    axis: str = "optimizer.lr"
    """Config key of the axis on which the best is searched."""


class ClaimSpec(Strict):
    """A statement and the test that decides it."""

    says: Annotated[str, Field(min_length=1)]
    """The claim, a sentence."""
    test: Annotated[str, Field(min_length=1, max_length=10_000, description=LANGUAGE)]


class Noise(Strict):
    """The study that gives the variance over seeds for claims on curves with one seed."""

    study: str
    """The other study."""
    curves: dict[str, str] = {}
    """Names of curves in the other study, if they differ from those here."""


class StudyFile(ScaleLayer):
    """The whole file."""

    title: str
    """Title of its report."""
    asks: str
    """The question that it answers."""
    notes: str = ""
    """Notes for the reader, in Markdown."""
    panels: Annotated[dict[str, PanelSpec], Field(max_length=100)] = {}
    """Plots by title, in order."""
    scales: dict[str, ScaleLayer] = {}
    """Settings for one scale."""
    include: dict[str, list[str]] = {}
    """Curves of other studies that are drawn as well, by study."""
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=MOST_VALUES)] = [0]
    """Seeds of every point; ``--seeds`` replaces them."""
    adaptive: Adaptive | None = None
    """Extends an axis until its best is inside; null: it does not grow."""
    refine: Refine | None = None
    """Adds seeds to the best points; null: no seeds are added."""
    tokens: TokensSpec | None = None
    """Reports losses in tokens of a reference as well; null: it does not."""
    claims: Annotated[dict[str, ClaimSpec], Field(max_length=MOST_CLAIMS)] = {}
    """Statements about the expected results, by name; ``optstudy claims`` and the reports judge them."""
    decide: bool = False
    """Seeds were added until the claims were decided (``run --decide``): they are judged at several looks."""
    noise: Noise | None = None
    """The source of the variance for curves with one seed; null: there is none."""
    figure: FigureSpec = FigureSpec()
    """What the study draws."""
    slurm: Slurm = Slurm()
    """Slurm options for its runs; ``--slurm`` overrides them."""
    trainer: TrainerSpec | None = None
    """Another program that does the training; its config may have any keys. Null: optstudy's own trainer."""
    _places: yamlfile.Places = PrivateAttr(default=())

    @property
    def places(self) -> yamlfile.Places:
        """Path, line and value of every key of the file."""
        return self._places


def axes_of(layers: Sequence[Layer]) -> dict[str, list[Any] | dict[str, Layer]]:
    """Return the values of every axis, later layers winning; those of a labelled axis by name.

    Rates of presets are an empty list: :func:`layer_of` has those of one.
    """
    found: dict[str, list[Any] | dict[str, Layer]] = {}
    for layer in layers:
        for key, axis in layer.axes.items():
            if axis == PRESETS:
                found[key] = list(presets.load()) if key == NAME else []
            else:
                found[key] = list(axis.values()) if isinstance(axis, HalfDecades) else axis
    return found


def layer_of(optimizer: str | None, layers: Sequence[Layer]) -> Layer | None:
    """Return what an optimizer's preset says in a study whose rates are the presets'; None without one."""
    if not any(layer.axes.get(RATE) == PRESETS for layer in layers):
        return None
    preset = presets.load().get(optimizer or "")
    if preset is None:
        return None
    adams = [role for role, own in preset.roles.items() if own.get("name") == "adam"]
    known = any(ADAM in layer.axes for layer in layers)
    base = {f"optimizer.roles.{role}.lr": ADAM for role in adams if known}
    return Layer(axes={RATE: preset.lr}, base=base)


def parse(content: str, where: str) -> StudyFile:
    """Check a study file's text; errors name file, line, key and the nearest valid name."""
    tree = yamlfile.parse(content, where)
    if not isinstance(tree, Mapping):
        raise UserError(f"{where}:1: a study file is a mapping with the keys title, asks, axes ...")
    try:
        file = StudyFile.model_validate(yamlfile.plain(tree, where))
    except ValidationError as error:
        first = min(error.errors(), key=lambda one: one["type"] == "missing")  # misspelt keys are missing too
        loc = [part for part in first["loc"] if part not in ("grid", "list", "labels")]
        said = explain(first, loc, _keys_at(loc[:-1]), "file")
        raise UserError(f"{where}:{yamlfile.line(tree, loc)}: {said}") from None
    except RecursionError:
        raise UserError(f"{where}: nested too deeply") from None
    if file.trainer is not None:
        file = _fitted(file)
    file._places = tuple(yamlfile.places(tree))
    return file


def _fitted(file: StudyFile) -> StudyFile:
    """Choose the axes that a study of another program does not give, if its config lacks the usual keys.

    The figure's axis is the one that grows or is refined, else the first numeric one. The next axis gives the
    curves.
    """
    layers = list(_layers(file))
    axes = axes_of(layers)
    known = {*axes, *(key for layer in layers for key, _ in leaves(merge(layer.base)))}
    rules = [rule for rule in (file.adaptive, file.refine) if rule is not None]
    ruled = [rule.axis for rule in rules if "axis" in rule.model_fields_set]
    figure = file.figure
    x, curve = figure.x, figure.curve
    if "x" not in figure.model_fields_set and x not in known:
        numbers = [key for key, values in axes.items() if isinstance(values, list) and _all_numbers(values)]
        x = next(iter([*ruled, *numbers, *axes]), "seed")
    if "curve" not in figure.model_fields_set and curve not in known:
        curve = next((key for key in axes if key != x and not key.startswith("$")), "")
    own: dict[str, Any] = {"figure": figure.model_copy(update={"x": x, "curve": curve})}
    for name, rule in (("adaptive", file.adaptive), ("refine", file.refine)):
        if rule is not None and "axis" not in rule.model_fields_set and rule.axis not in axes:
            own[name] = rule.model_copy(update={"axis": x})
    return file.model_copy(update=own)


def _layers(layer: Layer) -> Iterator[Layer]:
    """Yield a layer and all layers inside it."""
    yield layer
    below = [getattr(layer, kind, {}) for kind in ("panels", "scales", "optimizers", "curves")]
    below += [axis for axis in layer.axes.values() if isinstance(axis, dict)]
    for named in below:
        for one in named.values():
            yield from _layers(one)


def _all_numbers(values: Sequence[Any]) -> bool:
    return all(type(value) in (int, float) for value in values)


_BELOW: Mapping[str, type[BaseModel]] = {
    "optimizers": Layer, "curves": Layer, "panels": PanelSpec, "scales": ScaleLayer, "axes": HalfDecades,
    "claims": ClaimSpec,
}  # fmt: skip
_SINGLE: Mapping[str, type[BaseModel]] = {
    "best_of": BestOf, "figure": FigureSpec, "adaptive": Adaptive, "refine": Refine, "slurm": Slurm,
    "noise": Noise, "tokens": TokensSpec, "trainer": TrainerSpec,
}  # fmt: skip


def _keys_at(loc: list[Any]) -> list[str]:
    """Keys that a file allows in the mapping at ``loc``."""
    kind: type[BaseModel] = StudyFile
    parts = iter(loc)
    for part in parts:
        if part in _BELOW and next(parts, None) is not None:
            kind = _BELOW[part]
        elif kind is HalfDecades:
            kind = Layer  # for a name on a labelled axis
        elif part in _SINGLE:
            kind = _SINGLE[part]
    return [field.alias or name for name, field in kind.model_fields.items()]
