"""Which weights share one second moment.

A granularity turns g^2 into one or two tensors of means, of which the optimizer keeps running averages, and
turns these averages back into the root of V, in a shape that broadcasts against g. It knows neither the
compiler nor how tensors are sharded, and imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

Shape: TypeAlias = tuple[int, ...]

KINDS = r"weight|factored(-textbook)?|(tensor|row)(-printed)?|split-[1-9]\d{0,8}|none"
"""The names of granularities, as a regular expression."""
SMALLEST = {4: 1.1754943508222875e-38, 8: 2.2250738585072014e-308}
"""Smallest normal number, by bytes of a float."""


@dataclass(frozen=True)
class PerWeight:
    """One value per weight: Adam."""

    def state(self, shape: Shape) -> Mapping[str, Shape]:
        """Return the shapes of the averages of a tensor of ``shape``, by name."""
        return {"v": shape}

    def means(self, s: Tensor) -> tuple[Tensor, ...]:
        """Return the means of ``s`` = g^2 over blocks, in the order and shapes of :meth:`state`."""
        return (s,)

    def root(self, v: Tensor) -> Tensor:
        """Return the root of V, made of the averages."""
        return v.sqrt()


@dataclass(frozen=True)
class Blocks:
    """One value for each of ``count`` equal blocks of ``rows`` rows, indices of the first dimension.

    One block is the whole tensor: Adalayer. A block per row of the last layer is the star of Adalayer*.
    """

    count: int
    rows: int
    scale: float = 1.0
    """What means are multiplied by."""

    def state(self, shape: Shape) -> Mapping[str, Shape]:
        """Return ``(count, 1, ..., 1)``."""
        return {"v": (self.count,) + (1,) * (len(shape) - 1) if shape else ()}

    def means(self, s: Tensor) -> tuple[Tensor, ...]:
        """Return the means of ``s`` over blocks."""
        return (s.reshape(self.count, -1).mean(1).view(self.state(s.shape)["v"]) * self.scale,)

    def root(self, v: Tensor) -> Tensor:
        """Return the root of V, one value per row where there are several blocks."""
        return v.sqrt() if 1 in (self.count, self.rows) else v.sqrt().repeat_interleave(self.rows, 0)


@dataclass(frozen=True)
class Factored:
    """Rank one, Adafactor's: a mean per row (r) times a mean per column (c)."""

    column: int = -2
    """The dimension that a column runs along, counted from the end; before ``row``."""
    row: int = -1
    """The dimension that a row runs along."""

    def state(self, shape: Shape) -> Mapping[str, Shape]:
        """Return the shapes of r and c."""
        r, c = list(shape), list(shape)
        r[self.row] = c[self.column] = 1
        return {"r": tuple(r), "c": tuple(c)}

    def means(self, s: Tensor) -> tuple[Tensor, ...]:
        """Return the means of ``s`` along rows and along columns.

        Columns are averaged over 64 rows at a time: these stay in a core's cache, where a running sum down a
        whole column reads and writes memory at each row.
        """
        columns = s
        if s.shape[self.column] % 64 == 0:
            columns = s.unflatten(self.column, (-1, 64)).mean(self.column)  # type: ignore[no-untyped-call]
        return s.mean(self.row, keepdim=True), columns.mean(self.column, keepdim=True)

    def root(self, r: Tensor, c: Tensor) -> Tensor:
        """Return the root of r c / mean(r), where mean(r) = mean(c); 0 where both are 0."""
        mean = c.mean(self.row, keepdim=True).clamp_min(SMALLEST[c.element_size()])
        return (r / mean).sqrt() * c.sqrt()


Granularity: TypeAlias = PerWeight | Blocks | Factored


def second_moment(kind: str, shape: Shape) -> Granularity | None:
    """Return the granularity called ``kind`` for tensors of ``shape``.

    ``weight``: a value per weight. ``tensor``: one value. ``row``: one per index of the first dimension, an
    output row. ``split-N``: one for each of N equal parts of the first dimension, such as fused query, key
    and value. ``none``: None, where V = 1. Each value is the mean of g^2 over its block; for
    ``tensor-printed`` and ``row-printed`` the sum over the *root* of the block's size, as the paper's
    Algorithm 1 prints it.

    ``factored``: the means over the last dimension and over the one before it. A tensor of fewer than two
    dimensions gets one value, as the paper's released code computes by reducing over an empty list of
    dimensions; ``factored-textbook`` gives it one value per weight.

    Raises:
        ValueError: N does not divide the first dimension.
    """
    rows = shape[0] if shape else 1
    if kind == "none":
        return None
    if kind == "weight" or (kind == "factored-textbook" and len(shape) < 2):
        return PerWeight()
    if kind.startswith("factored") and len(shape) > 1:
        return Factored()
    if kind.startswith("split-"):
        count = int(kind.removeprefix("split-"))
        if not shape or rows % count:
            raise ValueError(f"second_moment {kind!r}: {count} does not divide the rows of shape {shape}")
    else:
        count = rows if kind.startswith("row") else 1
    size = math.prod(shape) // max(count, 1)
    return Blocks(count, rows // max(count, 1), size**0.5 if kind.endswith("-printed") else 1.0)


def big_vision(shape: Shape, min_dim: int) -> Granularity:
    """Return rank one over the two largest dimensions, per weight if either is under ``min_dim``."""
    largest = sorted(sorted(range(-len(shape), 0), key=lambda i: shape[i])[-2:])
    if len(shape) < 2 or min(shape[i] for i in largest) < min_dim:
        return PerWeight()
    return Factored(*largest)
