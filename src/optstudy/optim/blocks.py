"""Granularities: which weights share one second moment.

A granularity reduces g^2 to one or two tensors of means. The optimizer keeps running averages of these, and
the granularity turns the averages into the root of V, in a shape that broadcasts against g. It does not
depend on the compiler or on how tensors are sharded, and imports no torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

Shape: TypeAlias = tuple[int, ...]

KINDS = r"weight|factored(-textbook)?|(tensor|row)(-printed)?|column|split(-[1-9]\d{0,8})+|head|none"
"""The names of granularities, as a regular expression."""
NAMES = (
    "weight, factored, factored-textbook, tensor, row, column, split-N, split-A-B-C, "
    "tensor-printed, row-printed, none, or head for qkv"
)
"""The same for people."""
LAYOUTS = ("", "columns", "experts", "experts-columns")
"""How weights are stored: with one row per output, or, for ``columns``, one column (the last dimension); for
``experts``, the first dimension enumerates matrices."""
SMALLEST = {4: 1.1754943508222875e-38, 8: 2.2250738585072014e-308}
"""Smallest normal number, by the bytes of a float."""


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
        """Return the root of V, computed from the averages."""
        return v.sqrt()


@dataclass(frozen=True)
class Blocks:
    """One value per matrix for several matrices fused in a tensor, or one value per output.

    A single matrix is the whole tensor: Adalayer. A value per output of the last layer gives Adalayer*.
    """

    sizes: tuple[int, ...]
    """Outputs of the consecutive matrices; empty: each output has a separate value."""
    turns: int = 1
    """How often this sequence of outputs repeats: if stored head by head, once per head."""
    outputs: int = -1
    """The dimension that enumerates outputs, counted from the end."""
    experts: bool = False
    """Whether each index of the first dimension has separate values."""
    scale: float = 1.0
    """Factor on the means."""

    def state(self, shape: Shape) -> Mapping[str, Shape]:
        """Return ``shape`` with the number of matrices for outputs, and 1 for dimensions inside blocks."""
        v = [len(self.sizes) or n if i == len(shape) + self.outputs else 1 for i, n in enumerate(shape)]
        return {"v": (*shape[: self.experts], *v[self.experts :])}

    def means(self, s: Tensor) -> tuple[Tensor, ...]:
        """Return the means of ``s`` over blocks."""
        v, owners = self.state(s.shape)["v"], self._owners()
        rows = s.movedim(self.outputs, int(self.experts)) if s.ndim else s
        count = len(owners) or math.prod(v[self.experts :])
        means = rows.reshape(len(s) if self.experts else 1, self.turns, count, -1).mean((1, 3))
        if len(owners) > len(self.sizes):
            matrices = means.new_tensor(list(range(len(self.sizes))))
            share = (means.new_tensor(owners).unsqueeze(1) == matrices).to(means.dtype)
            means = (means.unsqueeze(2) * (share / share.sum(0))).sum(1)
        return (means.view(v) * self.scale,)

    def root(self, v: Tensor) -> Tensor:
        """Return the root of V, with one value per output if there are several matrices."""
        root, owners, turns = v.sqrt(), self._owners(), [1] * v.ndim
        if len(self.sizes) < 2:
            return root
        if len(owners) > len(self.sizes):
            root = root.movedim(self.outputs, 0)[owners].movedim(0, self.outputs)
        turns[self.outputs] = self.turns
        return root.repeat_interleave(math.gcd(*self.sizes), self.outputs).repeat(turns)

    def _owners(self) -> list[int]:
        """Return the matrix that each group of outputs belongs to; the group size divides all sizes."""
        return [i for i, size in enumerate(self.sizes) for _ in range(size // math.gcd(*self.sizes))]


@dataclass(frozen=True)
class Factored:
    """Adafactor's rank-one form: a mean per row (r) times a mean per column (c)."""

    column: int = -2
    """The dimension along a column, counted from the end; it comes before ``row``."""
    row: int = -1
    """The dimension along a row, counted from the end."""

    def state(self, shape: Shape) -> Mapping[str, Shape]:
        """Return the shapes of r and c."""
        r, c = list(shape), list(shape)
        r[self.row] = c[self.column] = 1
        return {"r": tuple(r), "c": tuple(c)}

    def means(self, s: Tensor) -> tuple[Tensor, ...]:
        """Return the means of ``s`` along rows and along columns."""
        return s.mean(self.row, keepdim=True), s.mean(self.column, keepdim=True)

    def root(self, r: Tensor, c: Tensor) -> Tensor:
        """Return the root of r c / mean(r), where mean(r) = mean(c); 0 where both are 0."""
        mean = c.mean(self.row, keepdim=True).clamp_min(SMALLEST[c.element_size()])
        return (r / mean).sqrt() * c.sqrt()


Granularity: TypeAlias = PerWeight | Blocks | Factored


def second_moment(kind: str, shape: Shape, layout: str = "") -> Granularity | None:
    """Return the granularity ``kind`` for tensors of ``shape``, stored as ``layout``.

    ``weight``: one value per weight. ``tensor``: one value. ``row``: one per index of the first dimension, an
    output row. ``column``: one per index of the last dimension, an input; a vector has one value.
    ``split-N``: one for each of N equal parts of the first dimension, such as fused query, key and value.
    ``split-A-B-C``: one for each of three consecutive matrices of A, B and C rows; the pattern repeats until
    the rows end. ``none``: None, where V = 1. Each value is the mean of g^2 over its block. For
    ``tensor-printed`` and ``row-printed`` it is the sum divided by the *root* of the block's size, as printed
    in the paper's Algorithm 1.

    ``factored``: the means over the last dimension and over the one before it. A tensor of fewer than two
    dimensions gets one value, because the paper's released code reduces over an empty list of dimensions;
    ``factored-textbook`` gives it one value per weight.

    ``layout`` is one of :data:`LAYOUTS`. With ``columns``, the last dimension takes the place of the rows
    above. With ``experts``, the rules apply to each index of the first dimension, a matrix or a bias.

    Raises:
        ValueError: N, or A + B + C, does not divide the rows; an unknown layout; ``head``, which
            :func:`optstudy.roles.param_groups` turns into one of these.
    """
    if kind == "head":
        raise ValueError(f"second_moment {kind!r}: only q, k and v have heads, which param_groups tells")
    if layout not in LAYOUTS:
        raise ValueError(f"Invalid layout {layout!r}: must be one of {', '.join(map(repr, LAYOUTS))}")
    experts = layout.startswith("experts")
    inner = shape[experts:]
    if kind == "none":
        return None
    if kind == "weight" or (kind == "factored-textbook" and len(inner) < 2):
        return PerWeight()
    if kind.startswith("factored") and len(inner) > 1:
        return Factored()
    by_column = kind == "column" and len(inner) > 1
    outputs = -1 if layout.endswith("columns") is not by_column else -max(len(inner), 1)
    rows = inner[outputs] if inner else 1
    sizes: tuple[int, ...] = (rows,)
    size = math.prod(inner)
    if kind.startswith("split-"):
        sizes = tuple(map(int, kind.split("-")[1:]))
        if rows % (total := sum(sizes)):
            raise ValueError(f"second_moment {kind!r}: {total} does not divide the rows of shape {shape}")
        sizes = sizes if len(sizes) > 1 else (rows // sizes[0],) * sizes[0]
    if len(sizes) == rows or by_column or kind.startswith("row"):
        size, sizes = size // max(rows, 1), ()
    scale = size**0.5 if kind.endswith("-printed") else 1.0
    return Blocks(sizes, rows // max(sum(sizes), 1) if sizes else 1, outputs, experts, scale)


def big_vision(shape: Shape, min_dim: int) -> Granularity:
    """Return rank one over the two largest dimensions, or per weight if either is below ``min_dim``."""
    largest = sorted(sorted(range(-len(shape), 0), key=lambda i: shape[i])[-2:])
    if len(shape) < 2 or min(shape[i] for i in largest) < min_dim:
        return PerWeight()
    return Factored(*largest)
