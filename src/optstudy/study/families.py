"""A study file's layers and axes as families: runs that differ in one axis and the seed."""

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optstudy import scales
from optstudy.config import merge
from optstudy.errors import UserError
from optstudy.study.file import NAME, BestOf, Layer, Panel, ScaleLayer, StudyFile, axes_of

FIDELITY = "fidelity"
"""The override that chooses between the released code and the paper's text."""
MOST_RUNS = 100_000
"""Of one study; more is taken for a mistake."""


@dataclass(frozen=True)
class Family:
    """Runs that differ in one axis and the seed."""

    curve: str
    layers: list[Mapping[str, Any]]
    axis: str | None
    values: list[Any]
    best_of: BestOf | None
    scale: str
    x: str
    printed: bool = False
    """By the paper's text where it differs from the released code."""


class Families:
    """The families of one study file at one scale.

    Args:
        name: the study's.
        file: what it says.
        scale: a name of :data:`optstudy.scales.SCALES`, or ``paper``: every panel at its own.
        chosen: overrides by dotted key.
        seeds: number of seeds.
    """

    def __init__(self, name: str, file: StudyFile, scale: str, chosen: Mapping[str, Any], seeds: int) -> None:
        self.name, self.file, self.scale, self.chosen, self.seeds = name, file, scale, chosen, seeds

    def panels(self) -> list[tuple[str, Panel, str]]:
        """Title, layer and scale of the panels to run; at a small scale every one, at that scale."""
        panels = self.file.panels or {"": Panel()}
        if self.scale == "paper":
            return [(title, panel, panel.scale or "150m") for title, panel in panels.items()]
        here = any(panel.scale == self.scale for panel in panels.values())
        return [
            (title, panel, self.scale)
            for title, panel in panels.items()
            if not here or panel.scale in (None, self.scale)
        ]

    def of(self, panel: Panel, scale: str) -> Iterator[Family]:
        """Yield the families of a panel at its scale.

        Raises:
            UserError: more than :data:`MOST_RUNS` runs.
        """
        common: list[ScaleLayer] = [
            self.file,
            *(self.file.scales.get(name, ScaleLayer()) for name in scales.layers(scale)),
            panel,
            *(panel.scales.get(name, ScaleLayer()) for name in scales.layers(scale)),
        ]
        named = list(dict.fromkeys(label for layer in common for label in layer.curves))
        curves: list[str | None] = [*named] or [None]
        left = MOST_RUNS
        for curve in curves:
            variants = [
                layer.curves[curve] for layer in common if curve is not None and curve in layer.curves
            ]
            names = axes_of([*common, *variants]).get(NAME, [None])
            if NAME in self.chosen:
                names = [self.chosen[NAME]]
            fixed = merge(*(layer.base for layer in (*common, *variants))).get("optimizer")
            for name in names:
                own = name if name is not None else fixed.get("name") if isinstance(fixed, Mapping) else None
                layers: list[Layer] = [*common]
                layers += [where.optimizers[str(own)] for where in common if str(own) in where.optimizers]
                layers += variants
                for family in self._products(layers, name, curve, scale, panel.x or self.file.figure.x):
                    left -= len(family.values) * self.seeds
                    if left < 0:
                        raise UserError(f"{self.name}: axes: more than {MOST_RUNS:,} runs")
                    yield family

    def _products(
        self, layers: Sequence[Layer], name: Any, curve: str | None, scale: str, x: str
    ) -> Iterator[Family]:
        axes = axes_of(layers)
        axes.pop(NAME, None)
        best = next((layer.best_of for layer in reversed(layers) if layer.best_of is not None), None)
        for taken in best.taken.values() if best is not None else ():
            if taken.startswith("$"):
                axes.pop(taken, None)
        for key in self.chosen.keys() & axes.keys():
            axes[key] = [self.chosen[key]]
        rules = (self.file.adaptive, self.file.refine)
        spread = next((rule.axis for rule in rules if rule is not None and rule.axis in axes), None)
        values = axes.pop(spread) if spread is not None else [None]
        said = [layer.fidelity for layer in layers if layer.fidelity is not None]
        printed = self.chosen.get(FIDELITY, said[-1] if said else "released") == "printed"
        base = [layer.base for layer in layers]
        named: Mapping[str, Any] = {} if name is None else {NAME: name}
        if math.prod(len(axis) for axis in axes.values()) > MOST_RUNS:
            raise UserError(f"{self.name}: axes: more than {MOST_RUNS:,} runs")
        label = curve if curve is not None else str(name)
        for combination in itertools.product(*axes.values()):
            point = dict(zip(axes, combination, strict=True))
            yield Family(label, [named, *base, point], spread, values, best, scale, x, printed)
