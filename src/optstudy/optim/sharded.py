"""Steps over parameters of which each process holds some rows (a DTensor, as FSDP2's ``fully_shard`` makes).

Blocks stay those of the whole tensor. A kernel acts on the rows that are here. Where it needs means over rows
that are elsewhere, each process first computes what its own rows add to them, and one all-reduce for all
parameters sums that. So averages over rows are the same on every process, and the rest of an optimizer's
state is sharded as its parameter is. Rows are cut as ``torch.chunk`` cuts them: unevenly where they must be.
"""

import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol, TypeGuard

import torch
from torch import Tensor
from torch import distributed as dist

from optstudy.optim.compiled import Rows, Tensors, run
from optstudy.optim.second_moment import Absent, Factored, Split, Weight, Whole

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

_SUMMED = "mean_"
"""With the name of an average: the newest mean that goes into it, of all rows."""


def is_sharded(x: Tensor) -> TypeGuard["DTensor"]:
    """Say whether a tensor is a DTensor, without importing what no other tensor needs."""
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(x, module.DTensor)


def whole(x: Tensor) -> Tensor:
    """Return all of a tensor; every process must call it."""
    return x.full_tensor() if is_sharded(x) else x


def here(x: Tensor) -> Tensor:
    """Return the part of a tensor that this process holds; it shares its memory."""
    return x.to_local().detach() if is_sharded(x) else x


def _cut(p: "DTensor") -> tuple[slice, int | None]:
    """Return which rows of the whole this process holds, and along which dimension of the mesh they are cut.

    Raises:
        ValueError: the tensor is cut otherwise than by rows, over one dimension of the mesh.
    """
    from torch.distributed.tensor import Replicate, Shard

    cut = [i for i, placement in enumerate(p.placements) if not isinstance(placement, Replicate)]
    if not cut:
        return slice(None), None
    if len(cut) > 1 or type(p.placements[cut[0]]) is not Shard or not p.placements[cut[0]].is_shard(0):
        raise ValueError(
            f"a parameter is placed as {p.placements}: blocks and checkpoints need it whole, or sharded "
            "along its first dimension, over one dimension of the mesh, as fully_shard does"
        )
    chunk = -(-p.shape[0] // p.device_mesh.size(cut[0]))
    start = min(p.shape[0], chunk * p.device_mesh.get_local_rank(cut[0]))
    return slice(start, min(p.shape[0], start + chunk)), cut[0]


def shard_like(value: Tensor, p: "DTensor") -> "DTensor":
    """Return a whole tensor of as many rows as ``p`` has, sharded as it is; nothing is communicated."""
    rows, _ = _cut(p)
    return _of_rows(value[rows].to(p.device, copy=True) if p.ndim else value.to(p.device), p, value.shape)


def _of_rows(rows: Tensor, p: "DTensor", shape: torch.Size) -> "DTensor":
    from torch.distributed.tensor import DTensor

    stride = torch.empty(shape, device="meta").stride()
    return DTensor.from_local(rows, p.device_mesh, p.placements, run_check=False, shape=shape, stride=stride)


def zeros(moment: Weight, like: Tensor) -> dict[str, Tensor]:
    """Return a granularity's averages before the first step, sharded where ``like`` is and they can be."""
    means = moment.means(moment.blocks(torch.empty(like.shape, device="meta")))
    averages: dict[str, Tensor] = {}
    for name, mean, crosses in zip(moment.names, means, moment.crosses(like.ndim), strict=True):
        if is_sharded(like) and not crosses:
            shape = (*here(like).shape[:1], *mean.shape[1:])
            averages[name] = _of_rows(here(like).new_zeros(shape), like, mean.shape)
        else:
            averages[name] = here(like).new_zeros(mean.shape)
    return averages


class Granularity(Protocol):
    """What a kernel needs of a granularity; see :class:`optstudy.optim.second_moment.Weight`."""

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the averages."""

    def blocks(self, x: Tensor) -> Tensor:
        """Return ``x`` in the shape that :meth:`means` reduces."""

    def means(self, s: Tensor) -> tuple[Tensor, ...]:
        """Return the means of ``s``, in the order of ``names``."""

    def roots(self, *averages: Tensor) -> tuple[Tensor, ...]:
        """Return factors whose product, broadcast, is the root of V."""


@dataclass(frozen=True)
class LocalRows:
    """A granularity of a whole tensor, as seen from some of its rows."""

    whole: Weight
    crosses: tuple[bool, ...]
    """Of each mean, whether it goes over rows that are elsewhere."""
    rows: int
    """Of each block, rows in all."""
    counts: tuple[int, ...]
    """Of each block, rows here."""
    scale: float = 1.0
    """What means that go over rows elsewhere are multiplied by."""

    @property
    def names(self) -> tuple[str, ...]:
        """Return the whole's."""
        return self.whole.names

    def blocks(self, x: Tensor) -> Tensor:
        """Return ``x``: blocks may begin and end anywhere in it."""
        return x

    def means(self, s: Tensor) -> tuple[Tensor, ...]:
        """Return the means of ``s``; of those that go over rows elsewhere, what the rows here add to them."""
        if isinstance(self.whole, Split):
            pieces = torch.split(s, list(self.counts))
            return (torch.stack([self._means(Whole(), piece)[0] for piece in pieces]),)
        return self._means(self.whole, s)

    def _means(self, moment: Weight, s: Tensor) -> tuple[Tensor, ...]:
        padded = s if len(s) else s.new_zeros(1, *s.shape[1:])  # no rows add 0, not the mean of nothing
        return tuple(
            mean * (len(s) / self.rows * self.scale) if crosses else mean[: len(s)]
            for mean, crosses in zip(moment.means(padded), self.crosses, strict=True)
        )

    def roots(self, *averages: Tensor) -> tuple[Tensor, ...]:
        """Return factors whose product, broadcast, is the root of V for the rows here."""
        if isinstance(self.whole, Split):
            (root,) = self.whole.roots(*averages)
            each = zip(root.unbind(), self.counts, strict=True)
            return (torch.cat([r.expand(n, *r.shape[1:]) for r, n in each]),)
        if isinstance(self.whole, Factored) and not self.crosses[0]:
            r, c = averages  # mean(r) = mean(c), and c is whole
            return self.whole.rooted(r, c, c.mean(self.whole.column, keepdim=True))
        return self.whole.roots(*averages)


@dataclass(frozen=True)
class BlockKernel:
    """A kernel that averages means of the gradient's square over blocks."""

    moment: Granularity

    def measures(self) -> bool:
        """Say whether a step takes the gradient's means at all."""
        return True

    def measure(self, g: Tensor) -> tuple[Tensor, ...]:
        """Return the means of g^2, for a gradient in the shape of its blocks."""
        return self.moment.means(g.square())

    def newest(self, g: Tensor, tensors: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Return the same, as they have been summed over all processes where the moment is one of rows."""
        if isinstance(self.moment, LocalRows):
            return tuple(tensors[_SUMMED + name] for name in self.moment.names)
        return self.measure(g)


@dataclass(frozen=True)
class _Shares:
    """The first half of a kernel whose blocks go over rows elsewhere: what the rows here add to its means."""

    kernel: BlockKernel

    def __call__(self, p: Tensor, g: Tensor) -> tuple[Tensor, ...]:
        return self.kernel.measure(g)


def localise(kernel: Any, tensors: Tensors) -> tuple[Any, Tensors, Any]:
    """Return a kernel and a sharded parameter's tensors for the rows here, and who holds the other rows.

    The last is None where no block goes over other rows, and nothing has to be exchanged.
    """
    p: Any = tensors["p"]
    local = {name: here(x) for name, x in tensors.items()}
    moment = kernel.moment if isinstance(kernel, BlockKernel) else Absent()
    if type(moment) in (Absent, Weight):
        return kernel, local, None
    assert isinstance(moment, Weight)
    crosses = moment.crosses(p.ndim)
    rows, mesh_dim = _cut(p)
    if mesh_dim is None or not any(crosses):
        return kernel, local, None
    parts = moment.parts if isinstance(moment, Split) else 1
    size = p.shape[0] // parts
    ends = [min(max(block * size, rows.start), rows.stop) for block in range(parts + 1)]
    counts = tuple(end - start for start, end in pairwise(ends))
    scale = 1.0
    if isinstance(moment, Whole) and moment.printed:  # the size in its formula is the whole tensor's
        moment, scale = replace(moment, printed=False), p.numel() ** 0.5
    kernel = replace(kernel, moment=LocalRows(moment, crosses, size, counts, scale))
    return kernel, local, p.device_mesh.get_group(mesh_dim)


def exchange(parts: Mapping[tuple[Any, ...], Mapping[Any, Rows]], weights: int) -> None:
    """Give the parameters of which rows are elsewhere the means of their whole tensors: one all-reduce.

    Args:
        parts: process group, whether to compile, and more -> the parameters that these are for, by kernel.
        weights: of all parameters together.
    """
    sums: dict[tuple[Any, ...], list[tuple[Tensors, str]]] = {}
    for (group, compile_, *_), work in parts.items():
        if group is None:
            continue
        measuring: list[tuple[Any, Rows]] = [(k, rows) for k, rows in work.items() if k.measures()]
        targets = [(kernel.moment, tensors) for kernel, rows in measuring for tensors, _ in rows]
        gradients: list[tuple[Any, Rows]] = [
            (_Shares(kernel), [({"p": t["p"], "g": t["g"]}, {}) for t, _ in rows])
            for kernel, rows in measuring
        ]
        measured = run(gradients, compile_, weights) if gradients else []
        for (moment, tensors), means in zip(targets, measured, strict=True):
            for name, crosses, mean in zip(moment.names, moment.crosses, means, strict=True):
                tensors[_SUMMED + name] = mean
                if crosses:
                    sums.setdefault((group, mean.dtype, mean.device), []).append((tensors, _SUMMED + name))
    for (group, *_), places in sums.items():
        shares = [tensors[name] for tensors, name in places]
        flat = torch.cat([share.flatten() for share in shares])
        dist.all_reduce(flat, group=group)
        summed = torch.split(flat, [share.numel() for share in shares])
        for (tensors, name), share, total in zip(places, shares, summed, strict=True):
            tensors[name] = total.view_as(share)
