"""Expands a study file's layers and axes into families: runs that differ in one axis and the seed."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from optstudy import scales
from optstudy.config import merge
from optstudy.errors import UserError, nearest
from optstudy.results.curves import SEPARATOR
from optstudy.study.file import (
    NAME,
    RATE,
    BestOf,
    Layer,
    PanelSpec,
    ScaleLayer,
    StudyFile,
    axes_of,
    layer_of,
)

FIDELITY = "fidelity"
"""The override that selects the released code or the paper's text."""
MOST_RUNS = 100_000
"""Maximum number of runs of a study; more is assumed to be a mistake."""
MOST_COMBINATIONS = 10_000
"""Maximum number of curves, optimizers and named settings in a panel."""


@dataclass(frozen=True)
class Family:
    """Runs that differ in one axis and the seed."""

    curve: str | None
    """The curve's name; None: the runs' values of the figure's ``curve``."""
    suffix: str
    """Suffix of the curve's name: the chosen names on axes that are not drawn otherwise."""
    like: Sequence[str]
    """Names of a curve in another study that bests are taken from; the first that exists counts."""
    layers: list[Mapping[str, Any]]
    """Settings, last wins: the optimizer's name if it is an axis, layers, layers of axes."""
    axis: str | None
    values: list[Any]
    best_of: BestOf | None
    scale: str
    x: str
    labels: Mapping[str, str]
    """The chosen name on every labelled axis."""
    printed: bool = False
    """Follow the paper's text where it differs from the released code."""

    @property
    def axes(self) -> list[str]:
        """The config keys of its axes."""
        own = [] if self.axis is None else [self.axis]
        return list(dict.fromkeys([*self.layers[0], *self.labels, *self.layers[-1], *own]))


@dataclass(frozen=True)
class Combination:
    """An optimizer and a name on every labelled axis, which together determine the layers."""

    roots: tuple[ScaleLayer, ScaleLayer]
    """The file and the panel."""
    common: Sequence[ScaleLayer]
    """File and panel with their entries for the scale."""
    naming: Sequence[str]
    """Axes whose values name the curve, or the row and column."""
    named: str | None = None
    """Name of a curve that the file lists."""
    chosen: Mapping[str, tuple[Any, Layer]] = field(default_factory=dict)
    """The value chosen on each axis so far, and the layer of that value."""

    def choose(self, key: str, value: Any, layer: Layer) -> "Combination":
        """Return a copy with a value chosen on one more axis."""
        return replace(self, chosen={**self.chosen, key: (value, layer)})

    @cached_property
    def curve(self) -> str | None:
        """The curve's name; None if it depends on the config, or not enough is chosen yet."""
        if self.naming:
            values = [str(self.chosen[key][0]) for key in self.naming if key in self.chosen]
            return SEPARATOR.join(values) if len(values) == len(self.naming) else None
        if self.named is None and NAME in self.chosen:
            return str(self.chosen[NAME][0])
        return self.named

    @cached_property
    def optimizer(self) -> str | None:
        """The optimizer's name."""
        if NAME in self.chosen:
            return str(self.chosen[NAME][0])
        layers = (*self.common, *self.variants, *self.labels)
        optimizer = merge(*(layer.base for layer in layers)).get("optimizer")
        name = optimizer.get("name") if isinstance(optimizer, Mapping) else None
        return None if name is None else str(name)

    @cached_property
    def variants(self) -> list[Layer]:
        """The file's entries for the curve."""
        name = self.curve
        return [layer.curves[name] for layer in self.common if name in layer.curves]

    @property
    def labels(self) -> list[Layer]:
        """The layers of the chosen values."""
        return [layer for _, layer in self.chosen.values()]

    @cached_property
    def own(self) -> list[Layer]:
        """What its preset and the file say of the optimizer."""
        name = self.optimizer
        preset = layer_of(name, self.common)
        mine = [layer.optimizers[name] for layer in self.common if name in layer.optimizers]
        return mine if preset is None else [preset, *mine]

    @cached_property
    def layers(self) -> list[Layer]:
        """All layers, last wins; if axes name the curves, the curve's own entry comes last."""
        last = [*self.labels, *self.variants] if self.naming else [*self.variants, *self.labels]
        return [*self.common, *self.own, *last]


class Families:
    """The families of one study file at one scale.

    Args:
        name: the study's name.
        file: the parsed file.
        scale: one of the trainer's scales, or ``paper``: each panel at its own.
        chosen: overrides by dotted key.
        seeds: number of seeds.
        axes: further axes, which replace the file's; for an axis of named settings, the names to run.
    """

    def __init__(
        self,
        name: str,
        file: StudyFile,
        scale: str,
        chosen: Mapping[str, Any],
        seeds: int,
        axes: Mapping[str, list[Any]] | None = None,
    ) -> None:
        self.name, self.file, self.scale, self.chosen, self.seeds = name, file, scale, chosen, seeds
        self._more = axes or {}

    def panels(self) -> list[tuple[str, PanelSpec, str]]:
        """Title, layer and scale of the panels to run; at a small scale, all panels at that scale."""
        panels = self.file.panels or {"": PanelSpec()}
        if self.scale == "paper":
            return [(title, panel, panel.scale or "150m") for title, panel in panels.items()]
        here = any(panel.scale == self.scale for panel in panels.values())
        return [
            (title, panel, self.scale)
            for title, panel in panels.items()
            if not here or panel.scale in (None, self.scale)
        ]

    def of(self, panel: PanelSpec, scale: str) -> Iterator[Family]:
        """Yield the families of a panel at its scale.

        Raises:
            UserError: more than :data:`MOST_RUNS` runs, or an override is not a name on its axis.
        """
        left = MOST_RUNS
        for combination in self.combinations(panel, scale):
            for family in self.products(combination, scale, panel.x or self.file.figure.x):
                left -= len(family.values) * self.seeds
                if left < 0:
                    raise UserError(f"{self.name}: axes: more than {MOST_RUNS:,} runs")
                yield family

    def combinations(self, panel: PanelSpec, scale: str) -> Iterator[Combination]:
        """Yield a panel's combinations at its scale.

        Raises:
            UserError: more than :data:`MOST_COMBINATIONS`, or an override is not a name on its axis.
        """
        roots = (self.file, panel)
        names = scales.layers(scale) if self.file.trainer is None else (scale,)
        common = [
            one for root in roots for one in (root, *(root.scales[n] for n in names if n in root.scales))
        ]
        naming = self._naming(self._axes(common))
        named = list(dict.fromkeys(label for layer in common for label in layer.curves))
        curves: list[str | None] = [*named] if named and not naming else [None]
        made = (one for curve in curves for one in self._completed(Combination(roots, common, naming, curve)))
        for count, one in enumerate(made):
            if count == MOST_COMBINATIONS:
                raise UserError(f"{self.name}: axes: more than {MOST_COMBINATIONS:,} combinations of names")
            yield one

    def _axes(self, layers: Sequence[Layer]) -> dict[str, list[Any] | dict[str, Layer]]:
        """The axes of the layers, replaced by those of the command line."""
        axes = axes_of(layers)
        for key, values in self._more.items():
            named = axes.get(key)
            if isinstance(named, dict):
                axes[key] = {label: self._named(key, label, named, "--axis") for label in map(str, values)}
            else:
                axes[key] = values
        return axes

    def _named(self, key: str, label: str, named: Mapping[str, Layer], option: str) -> Layer:
        if label not in named:
            raise UserError(f"{self.name}: {option}: {key}: unknown name {label!r}{nearest(label, named)}")
        return named[label]

    def _naming(self, axes: Mapping[str, Any]) -> list[str]:
        """The axes that name the curves, or rows and columns; none if the file itself names curves."""
        figure = self.file.figure
        if figure.rows is not None and figure.columns is not None:
            wanted = [figure.rows, figure.columns]
        else:
            wanted = [figure.curve] if isinstance(axes.get(figure.curve), dict) else []
        return wanted if all(key in axes for key in wanted) else []

    def _completed(self, some: Combination) -> Iterator[Combination]:
        """Choose a value on every axis that needs a choice; a chosen value may add further axes."""
        axes = self._axes(some.layers)
        if NAME in self.chosen:
            axes[NAME] = [self.chosen[NAME]]
        open_ = [key for key in axes if key not in some.chosen]
        key = next((k for k in (NAME, *open_) if k in open_ and self._chooses(k, axes[k], some)), None)
        if key is None:
            yield some
            return
        for value, layer in self._values(key, axes[key]):
            yield from self._completed(some.choose(key, value, layer))

    @staticmethod
    def _chooses(key: str, axis: Any, some: Combination) -> bool:
        return key == NAME or key in some.naming or isinstance(axis, dict)

    def _values(self, key: str, axis: list[Any] | dict[str, Layer]) -> list[tuple[Any, Layer]]:
        """The values to choose from on an axis, each with its layer."""
        if not isinstance(axis, dict):
            values = [self.chosen[key]] if key in self.chosen else axis
            return [(value, Layer() if key == NAME else Layer(axes={key: [value]})) for value in values]
        if key not in self.chosen:
            return list(axis.items())
        label = str(self.chosen[key])
        return [(label, self._named(key, label, axis, "--set"))]

    def products(self, some: Combination, scale: str, x: str) -> Iterator[Family]:
        """Yield a combination's families: the product of its plain axes, except the varying one."""
        layers = some.layers
        best = next((layer.best_of for layer in reversed(layers) if layer.best_of is not None), None)
        taken = {name for name in (best.taken.values() if best is not None else ()) if name.startswith("$")}
        plain = ((k, v) for k, v in self._axes(layers).items() if k != NAME and k not in taken)
        axes = {k: v for k, v in plain if not isinstance(v, dict)}
        for key in self.chosen.keys() & axes.keys():
            axes[key] = [self.chosen[key]]
        if axes.get(RATE) == []:
            lacking = f"axes.{RATE}: presets: {some.optimizer} is none; give it values under optimizers"
            raise UserError(f"{self.name}: {lacking}", f"axes.{RATE}")
        rules = (self.file.adaptive, self.file.refine)
        spread = next((rule.axis for rule in rules if rule is not None and rule.axis in axes), None)
        values = axes.pop(spread) if spread is not None else [None]
        said = [layer.fidelity for layer in layers if layer.fidelity is not None]
        printed = self.chosen.get(FIDELITY, said[-1] if said else "released") == "printed"
        base = [layer.base for layer in layers]
        named = {NAME: some.chosen[NAME][0]} if NAME in some.chosen else {}
        if math.prod(len(axis) for axis in axes.values()) > MOST_RUNS:
            raise UserError(f"{self.name}: axes: more than {MOST_RUNS:,} runs")
        labels = {key: str(v) for key, (v, _) in some.chosen.items() if key not in axes and key != NAME}
        apart = [f", {key} {label}" for key, label in labels.items() if key != x and key not in some.naming]
        suffix = "".join(apart)
        like = [f"{some.curve}{suffix}", str(some.curve if some.named else some.optimizer)]
        for combination in itertools.product(*axes.values()):
            point = dict(zip(axes, combination, strict=True))
            yield Family(
                some.curve,
                suffix,
                like,
                [named, *base, point],
                spread,
                values,
                best,
                scale,
                x,
                labels,
                printed,
            )
