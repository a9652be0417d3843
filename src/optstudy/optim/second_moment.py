"""How finely a second moment is kept: one small class per granularity.

A granularity turns g^2 into one or two arrays of means, of which the optimizer keeps running averages, and
turns those averages back into the root of V, as factors that broadcast against g.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from optstudy.optim.compiled import stored

BLOCK = 64
"""Entries that are added up first where a mean goes along any but the last dimension."""
STREAMS = 4
"""Parts of a tensor that are added up side by side first, where one running sum would wait for itself."""
ROWS = 32
"""Rows that are added up both along and across while they are in a core's cache, or in its registers."""
TALL = 8192
"""Rows from which those that are added up together lie far apart."""


def cut_by_compiler(s: Tensor) -> bool:
    """Say whether sums are left whole: in code for a GPU, where the compiler cuts them best itself."""
    return torch.compiler.is_compiling() and s.device.type != "cpu"


def mean(s: Tensor, dim: int) -> Tensor:
    """Return the mean over one dimension, kept; in two stages where that is faster (and more exact)."""
    dim %= s.ndim
    if dim == s.ndim - 1 or s.shape[dim] % BLOCK or cut_by_compiler(s):
        return s.mean(dim, keepdim=True)
    shape = (*s.shape[:dim], -1, BLOCK, *s.shape[dim + 1 :])
    return s.view(shape).mean(dim + 1).mean(dim, keepdim=True)


def mean_of_rest(s: Tensor, kept: int) -> Tensor:
    """Return the mean over all but the first ``kept`` dimensions: of rows first, then of their means.

    Rows of a whole tensor are added up from several places first. Not so compiled for a GPU.
    """
    rest = tuple(range(kept, s.ndim))
    if rest and cut_by_compiler(s):
        return s.mean(rest, keepdim=True)
    if kept == 0 and len(rest) > 1 and s.shape[0] % STREAMS == 0:
        s = side_by_side(s, 0) / STREAMS
    if len(rest) > 1:
        s = s.mean(-1, keepdim=True)
    return s.mean(rest, keepdim=True) if rest else s


def side_by_side(s: Tensor, dim: int, parts: int = STREAMS) -> Tensor:
    """Return the sum of equal parts along a dimension, or ``s`` if they would be unequal."""
    if s.shape[dim] % parts:
        return s
    first, *others = s.chunk(parts, dim)
    return sum(others, first)


def in_one_pass(s: Tensor) -> tuple[Tensor, Tensor]:
    """Return :func:`mean` of squares over the last dimension and over the one before; compiled, in one pass.

    A block of rows is added up both ways while it is in a core's cache; of a tall matrix, rows that lie far
    apart are added up in one loop, as memory answers sooner where it is asked in many places. Inductor joins
    such loops only where each reads a result of the one before, and takes apart only rows that also read
    something of their own: hence the maxima with what no sum of squares is below, which change nothing.
    """
    if s.shape[-2] >= TALL:
        return _far_apart(s)
    blocks = s.view(*s.shape[:-2], -1, ROWS, s.shape[-1])
    rows = torch.maximum(side_by_side(blocks, -1, 2 * STREAMS), -blocks[..., :1, :1]).sum(-1)
    columns = torch.maximum(side_by_side(blocks, -2), -rows.sum(-1)[..., None, None]).sum(-2)
    return rows.flatten(-2).unsqueeze(-1) / s.shape[-1], columns.sum(-2, keepdim=True) / s.shape[-2]


def _far_apart(s: Tensor) -> tuple[Tensor, Tensor]:
    """Return what :func:`in_one_pass` does."""
    parts = s.chunk(ROWS, -2)
    below = -parts[0][..., :1]
    across = stored(torch.maximum(side_by_side(s, -2, ROWS), below), s)
    rows = [torch.maximum(part, below - across).sum(-1, keepdim=True) for part in parts]
    return torch.cat(rows, -2) / s.shape[-1], mean(across, -2) / ROWS


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

    def crosses(self, ndim: int) -> tuple[bool, ...]:
        """Say of each mean of a tensor of ``ndim`` dimensions whether it goes over the first one."""
        return (False,)

    def roots(self, *averages: Tensor) -> tuple[Tensor, ...]:
        """Return factors whose product, broadcast, is the root of V."""
        return (averages[0].sqrt(),)


@dataclass(frozen=True)
class Whole(Weight):
    """One value per tensor: Adalayer."""

    printed: bool = False
    """The block's sum over the root of its size, as Algorithm 1 prints it, in place of the mean."""

    def means(self, s: Tensor) -> tuple[Tensor, ...]:
        """Return one mean."""
        return (self.scaled(mean_of_rest(s, 0), s),)

    def scaled(self, means: Tensor, s: Tensor) -> Tensor:
        """Return the means, times the root of the block's size where that is what was printed."""
        return means * (s.numel() / max(1, means.numel())) ** 0.5 if self.printed else means

    def crosses(self, ndim: int) -> tuple[bool, ...]:
        """Say that it does."""
        return (True,)


@dataclass(frozen=True)
class Rows(Whole):
    """One value per index of the first dimension, an output row: the star of Adalayer*."""

    def means(self, s: Tensor) -> tuple[Tensor, ...]:
        """Return one mean per row; each entry of a 1-D tensor is a row."""
        return (self.scaled(mean_of_rest(s, 1), s),)

    def crosses(self, ndim: int) -> tuple[bool, ...]:
        """Say that it does not."""
        return (False,)


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
        return (mean_of_rest(s, 1),)

    def crosses(self, ndim: int) -> tuple[bool, ...]:
        """Say that it does."""
        return (True,)


@dataclass(frozen=True)
class Factored(Weight):
    """Rank one: a mean per row times a mean per column, Adafactor's."""

    names: ClassVar[tuple[str, ...]] = ("r", "c")
    row: int = -2
    column: int = -1

    def means(self, s: Tensor) -> tuple[Tensor, ...]:
        """Return the means over columns and over rows."""
        dims = self.row % s.ndim, self.column % s.ndim
        together = torch.compiler.is_compiling() and not cut_by_compiler(s)
        if not together or sorted(dims)[0] != s.ndim - 2 or s.shape[-2] % ROWS:
            return mean(s, self.column), mean(s, self.row)
        last, before = in_one_pass(s)
        return (last, before) if dims[0] < dims[1] else (before, last)

    def crosses(self, ndim: int) -> tuple[bool, ...]:
        """Say of the means over columns and over rows whether those are the first dimension."""
        return self.column % ndim == 0, self.row % ndim == 0

    def roots(self, *averages: Tensor) -> tuple[Tensor, ...]:
        """Return the roots of r / mean(r), 0 where r is, and of c."""
        r, c = averages
        return self.rooted(r, c, r.mean(self.row, keepdim=True))

    def rooted(self, r: Tensor, c: Tensor, mean_r: Tensor) -> tuple[Tensor, ...]:
        """Return the same, the mean of r given."""
        return (r / mean_r.clamp_min(torch.finfo(r.dtype).tiny)).sqrt(), c.sqrt()


@dataclass(frozen=True)
class Absent(Weight):
    """V = 1: no second moment, momentum SGD."""

    names: ClassVar[tuple[str, ...]] = ()

    def means(self, s: Tensor) -> tuple[Tensor, ...]:
        """Return nothing."""
        return ()

    def crosses(self, ndim: int) -> tuple[bool, ...]:
        """Say nothing."""
        return ()


def second_moment(kind: str, ndim: int) -> Weight:
    """Return the granularity called ``kind`` for tensors of ``ndim`` dimensions.

    A block is what shares a value, the mean of g^2 over it: each weight (``weight``), the tensor
    (``tensor``), each index of the first dimension, an output row (``row``), each of N equal parts along it
    (``split-N``). ``none`` keeps nothing. ``tensor-printed`` and ``row-printed`` take the block's sum over
    the root of its size, as the paper's Algorithm 1 prints it: the mean times that root.

    ``factored`` keeps the means over the last dimension and over the one before it. It gives tensors of fewer
    than two dimensions one value, as the paper's released code does by reducing over an empty list of
    dimensions; ``factored-textbook`` gives them one value per weight.

    Args:
        kind: one of these names.
        ndim: the tensor's number of dimensions.

    Raises:
        KeyError: an unknown name.
    """
    if kind.startswith("split-"):
        return Split(int(kind.removeprefix("split-")))
    factored = Factored() if ndim > 1 else Whole() if kind == "factored" else Weight()
    return {
        "weight": Weight(),
        "factored": factored,
        "factored-textbook": factored,
        "tensor": Whole(),
        "tensor-printed": Whole(printed=True),
        "row": Rows(),
        "row-printed": Rows(printed=True),
        "none": Absent(),
    }[kind]
