"""Steps of parameters whose rows are distributed over processes (a DTensor, as FSDP2's ``fully_shard``
makes).

Blocks are those of the whole tensor. A rule acts on the local rows. If it needs means over rows on other
processes, each process computes the contribution of its rows, one all-reduce for all parameters adds the
contributions, and the rule gets the means. So averages over rows are equal on every process, and the rest of
an optimizer's state is sharded like its parameter. Rows are split as by ``torch.chunk``, unevenly if
necessary.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

import torch
from torch import Tensor
from torch import distributed as dist

from optstudy.optim.blocks import Blocks, Factored, Granularity, Shape
from optstudy.optim.compiled import Job, wide

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def is_sharded(x: Any) -> TypeGuard["DTensor"]:
    """Return whether a value is a DTensor, without importing modules that other tensors do not need."""
    return isinstance(x, Tensor) and hasattr(x, "to_local")


def whole(x: Tensor) -> Tensor:
    """Return the whole tensor; every process must call this."""
    return x.full_tensor() if is_sharded(x) else x


def here(x: Tensor) -> Tensor:
    """Return the local part of a tensor; it shares the tensor's memory."""
    return x.to_local().detach() if is_sharded(x) else x


def _cut(p: "DTensor") -> tuple[slice, int | None]:
    """Return the range of local rows, and the mesh dimension along which the rows are split.

    Raises:
        ValueError: the tensor is not split by rows over one dimension of the mesh.
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
    """Return a whole tensor with as many rows as ``p``, sharded like it; without communication."""
    from torch.distributed.tensor import DTensor

    rows = (value[_cut(p)[0]] if p.ndim else value).to(p.device, copy=True)
    stride = torch.empty(value.shape, device="meta").stride()
    where = p.device_mesh, p.placements
    return DTensor.from_local(rows, *where, run_check=False, shape=value.shape, stride=stride)


def by_row(shape: Shape, p: Tensor) -> bool:
    """Return whether a parameter's state of this shape has a row per row of it, and so is sharded like it."""
    return len(shape) == p.ndim and shape[:1] == p.shape[:1]


def zeros(p: Tensor, shape: Shape, dtype: torch.dtype) -> Tensor:
    """Return zeros for a parameter's state, sharded like ``p`` if they have a row for each of its rows."""
    if is_sharded(p) and by_row(shape, p):
        return shard_like(torch.zeros((), dtype=dtype, device=p.device).expand(shape), p)
    p = here(p)
    return torch.zeros_like(p, dtype=dtype) if shape == p.shape else p.new_zeros(shape, dtype=dtype)


@dataclass(frozen=True)
class Local:
    """A granularity of a whole tensor of ``rows`` rows, restricted to rows ``start`` to ``stop``."""

    whole: Granularity
    rows: int
    start: int
    stop: int

    def means(self, s: Tensor) -> tuple[Tensor, ...]:
        """Return what the local rows add to the means; for rows of a factored moment, their means."""
        if isinstance(self.whole, Factored):
            return s.mean(self.whole.row, keepdim=True), s.sum(self.whole.column, keepdim=True) / self.rows
        if isinstance(self.whole, Blocks) and self.whole.outputs + s.ndim:
            return self.whole.means(s.sum(0, keepdim=True) / self.rows)
        of_rows = s.reshape(len(s), math.prod(s.shape[1:])).mean(1)
        elsewhere_0 = torch.nn.functional.pad(of_rows, (self.start, self.rows - self.stop))
        return self.whole.means(elsewhere_0.view(-1, *[1] * (s.ndim - 1)))

    def root(self, *averages: Tensor) -> Tensor:
        """Return the root of V for the local rows."""
        root = self.whole.root(*averages)
        return root[self.start : self.stop] if len(root) == self.rows else root


def _local(moment: Granularity | None, p: "DTensor") -> Granularity | Local | None:
    """Return a granularity for the local rows of ``p``; a :class:`Local` one if it needs other rows."""
    rows, _ = _cut(p)
    if moment is None or all(by_row(shape, p) for shape in moment.state(tuple(p.shape)).values()):
        return moment
    return Local(moment, len(p), rows.start, rows.stop) if rows != slice(None) else moment


def localise(jobs: Sequence[Job]) -> list[Job]:
    """Return jobs on the local rows, with the means that need other rows: one all-reduce for all.

    Jobs of whole parameters are returned unchanged.
    """
    result: list[Job] = []
    sums: dict[Any, list[Tensor]] = {}
    for job in jobs:
        p: Any = job.tensors["p"]
        if not is_sharded(p):
            result.append(job)
            continue
        static = {key: _local(x, p) if key == "moment" else x for key, x in job.static.items()}
        moment = static.get("moment")
        local = {name: here(x) for name, x in job.tensors.items()}
        if isinstance(moment, Local):
            means = moment.means(local["g"].to(wide(p.dtype)).square())
            job = job._replace(means=means)
            group = p.device_mesh.get_group(_cut(p)[1])
            for name, mean in zip(moment.whole.state(tuple(p.shape)), means, strict=True):
                if not is_sharded(job.tensors[name]):
                    sums.setdefault((group, mean.dtype), []).append(mean)
        elif not local["p"].numel():
            continue
        result.append(job._replace(tensors=local, static=static))
    for (group, _), some in sums.items():
        flat = torch.cat([mean.flatten() for mean in some])
        dist.all_reduce(flat, group=group)
        for mean, total in zip(some, torch.split(flat, [mean.numel() for mean in some]), strict=True):
            mean.copy_(total.view_as(mean))
    return result
