"""How finely a second moment is kept: one small class per granularity.

A granularity turns g^2 into one or two arrays of means, of which the optimizer keeps running averages, and
turns those averages back into V, which broadcasts against g.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor


@dataclass(frozen=True)
class Weight:
    """One value per weight: Adam."""

    names: ClassVar[tuple[str, ...]] = ("v",)

    def blocks(self, x: Tensor) -> Tensor:
        """Return ``x`` in the shape that :meth:`means` reduces."""
        return x

    def means(self, s: Tensor) -> tuple[Tensor, ...]:
        """Return the means of ``s``, in the order of ``names``."""
        return (s,)

    def estimate(self, *averages: Tensor) -> Tensor:
        """Return V."""
        return averages[0]


@dataclass(frozen=True)
class Whole(Weight):
    """One value per tensor: Adalayer."""

    def means(self, s: Tensor) -> tuple[Tensor, ...]:
        """Return one mean."""
        return (s.mean(tuple(range(s.ndim)), keepdim=True),)


@dataclass(frozen=True)
class Rows(Weight):
    """One value per index of the first dimension, an output row: the star of Adalayer*."""

    def means(self, s: Tensor) -> tuple[Tensor, ...]:
        """Return one mean per row; each entry of a 1-D tensor is a row."""
        return (s.mean(tuple(range(1, s.ndim)), keepdim=True) if s.ndim > 1 else s,)


@dataclass(frozen=True)
class Split(Weight):
    """One value for each of ``parts`` equal parts along the first dimension, such as fused q, k and v."""

    parts: int

    def blocks(self, x: Tensor) -> Tensor:
        """Return ``x`` with its parts along a dimension of their own."""
        if x.ndim == 0 or x.shape[0] % self.parts:
            raise ValueError(f"split-{self.parts} does not divide the rows of shape {tuple(x.shape)}")
        return x.view(self.parts, -1, *x.shape[1:])

    def means(self, s: Tensor) -> tuple[Tensor, ...]:
        """Return one mean per part."""
        return (s.mean(tuple(range(1, s.ndim)), keepdim=True),)


@dataclass(frozen=True)
class Factored(Weight):
    """Rank one: a mean per row times a mean per column, Adafactor's."""

    names: ClassVar[tuple[str, ...]] = ("r", "c")
    row: int = -2
    column: int = -1

    def means(self, s: Tensor) -> tuple[Tensor, ...]:
        """Return the means over columns and over rows."""
        return s.mean(self.column, keepdim=True), s.mean(self.row, keepdim=True)

    def estimate(self, *averages: Tensor) -> Tensor:
        """Return r c / mean(r), 0 where r is."""
        r, c = averages
        return r / r.mean(self.row, keepdim=True).clamp_min(torch.finfo(r.dtype).tiny) * c


@dataclass(frozen=True)
class Absent(Weight):
    """V = 1: no second moment, momentum SGD."""

    names: ClassVar[tuple[str, ...]] = ()

    def means(self, s: Tensor) -> tuple[Tensor, ...]:
        """Return nothing."""
        return ()


def second_moment(kind: str, ndim: int) -> Weight:
    """Return the granularity called ``kind`` for tensors of ``ndim`` dimensions.

    ``factored`` gives tensors of fewer than two dimensions one value, as the paper's released code does by
    reducing over an empty list of dimensions; ``factored-textbook`` gives them one value per weight.
    """
    if kind.startswith("split-"):
        return Split(int(kind.removeprefix("split-")))
    factored = Factored() if ndim > 1 else Whole() if kind == "factored" else Weight()
    return {
        "weight": Weight(),
        "factored": factored,
        "factored-textbook": factored,
        "tensor": Whole(),
        "row": Rows(),
        "none": Absent(),
    }[kind]
