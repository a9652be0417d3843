"""Several processes that train one run together: their identity, communication, and sharding.

They are started by ``torchrun`` (one process per device), and each takes an equal contiguous part of every
batch's rows. With ``training.parallel: ddp`` every process holds the whole model, and gradients are averaged
over processes (``DistributedDataParallel``). With ``fsdp`` each holds some rows of every parameter, gradient
and optimizer state (``fully_shard``). In both cases a step equals that of one process with the whole batch,
up to rounding, and a checkpoint is the same file, readable by any number of processes. For a single process,
nothing here has an effect.
"""

import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.optim.optimizer import Optimizer

from optstudy.ending import of_several
from optstudy.errors import UserError
from optstudy.optim.rule import Rule
from optstudy.optim.sharded import is_sharded, shard_like, whole
from optstudy.optim.together import Together

TIMEOUT = timedelta(minutes=30)
"""Maximum time that a process waits for the others."""

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """The processes of one run, as seen by one of them; without arguments, a single process."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    """Rank among the processes of the same machine: the number of its GPU."""

    @property
    def first(self) -> bool:
        """Whether this process writes the run's folder."""
        return self.rank == 0

    @contextmanager
    def own(self, folder: Path) -> Iterator[Path]:
        """Yield the folder for this process's records: the run's, or a temporary one that is discarded."""
        if self.first:
            yield folder
        else:
            with tempfile.TemporaryDirectory(prefix="optstudy-") as temporary:
                yield Path(temporary)

    def device(self, device: torch.device) -> torch.device:
        """Return this process's GPU, if there are several.

        Raises:
            UserError: there are fewer GPUs than processes.
        """
        if device.type != "cuda" or self.size == 1:
            return device
        if self.local_rank >= torch.cuda.device_count():
            raise UserError(
                f"process {self.local_rank} of this machine has no GPU: torch sees "
                f"{torch.cuda.device_count()}; start no more processes than that (torchrun --nproc-per-node)"
            )
        own = torch.device("cuda", self.local_rank)
        torch.cuda.set_device(own)
        return own

    def spread(self, model: nn.Module, blocks: Iterable[nn.Module], how: Literal["ddp", "fsdp"]) -> nn.Module:
        """Distribute a model over the processes, with ``fsdp`` block by block; return what to call forward.

        Call it before the optimizer is created: ``fsdp`` replaces the model's parameters.
        """
        if self.size == 1:
            return model
        device = next(model.parameters()).device
        if how == "ddp":
            return nn.parallel.DistributedDataParallel(model, gradient_as_bucket_view=True)
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(device.type, (self.size,))
        for block in blocks:
            fully_shard(block, mesh=mesh)
        # the head is used after the model's forward, so the root stays unsharded until the backward pass
        fully_shard(model, mesh=mesh, reshard_after_forward=False)
        return model

    def rounds(self, count: int, size: int) -> list[slice]:
        """Split this process's share of ``count`` rows into parts of at most ``size``.

        Every process gets the same number of parts, so that each calls the model equally often;
        some may be empty.
        """
        share = -(-count // self.size)
        stop = min(count, (self.rank + 1) * share)
        starts = range(self.rank * share, (self.rank + 1) * share, size)
        return [slice(min(start, stop), min(start + size, stop)) for start in starts]

    def mean(self, x: Tensor) -> Tensor:
        """Return the mean of the processes' values, equally weighted."""
        return self.sum(x) / self.size if self.size > 1 else x

    def sum(self, x: Tensor) -> Tensor:
        """Return the sum of the processes' values, the same on each."""
        if self.size > 1:
            x = x.clone()
            dist.all_reduce(x)
        return x

    def most(self, value: int) -> int:
        """Return the maximum of the processes' values, to agree on an action that any of them needs."""
        if self.size == 1:
            return value
        shared = torch.tensor(int(value))
        dist.all_reduce(shared, dist.ReduceOp.MAX)
        return int(shared)

    def same(self, value: T) -> T:
        """Return the first process's value."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, device=torch.device("cpu"))
        return values[0]

    def wait(self) -> None:
        """Return when every process has called this."""
        self.most(0)

    def gather(self, tree: Any) -> Any:
        """Return nested containers with sharded tensors gathered on the first process's CPU."""
        if isinstance(tree, dict):
            return {key: self.gather(value) for key, value in tree.items()}
        if isinstance(tree, list):
            return [self.gather(value) for value in tree]
        if isinstance(tree, Tensor) and is_sharded(tree):
            value = whole(tree.detach())
            return value.cpu() if self.first else None
        return tree


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join the processes that ``torchrun`` started; without it, a single process.

    The process must end with :func:`optstudy.ending.end`.
    """
    if not of_several():
        yield Ranks()
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
    dist.init_process_group(backend, timeout=TIMEOUT)
    yield Ranks(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))
    leave()  # not after an error during a run: it would wait forever


def leave() -> None:
    """Leave the process group together with the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()


def accumulating(model: nn.Module, more: bool) -> AbstractContextManager[Any]:
    """Wrap forward and backward of a micro-batch; do not average gradients if ``more`` of the batch follow.

    Sharded gradients are averaged at every micro-batch: local ones would need a whole model's memory.
    """
    if more and isinstance(model, nn.parallel.DistributedDataParallel):
        return model.no_sync()
    return nullcontext()


def reshard(model: nn.Module) -> None:
    """After a forward pass without a backward pass, free the rows of other processes."""
    for module in model.modules():
        give_back = getattr(module, "reshard", None)
        if give_back is not None:
            give_back()


def to_device(tree: Any, device: torch.device) -> Any:
    """Return nested containers with their tensors on a device."""
    if isinstance(tree, dict):
        return {key: to_device(value, device) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return type(tree)(to_device(value, device) for value in tree)
    return tree.to(device) if isinstance(tree, Tensor) else tree


@torch.no_grad()
def load_model(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Load whole weights into a model, sharded or not."""
    parameters: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    sharded = {name: shard_like(state[name], p) for name, p in parameters.items() if is_sharded(p)}
    model.load_state_dict({**state, **sharded})


def load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Load a whole optimizer state.

    In other packages' optimizers, tensors of a sharded parameter's shape are sharded like it.
    """
    parts = optimizer.optimizers if isinstance(optimizer, Together) else [optimizer]
    placed = dict(state["state"])
    indices = iter([index for group in state["param_groups"] for index in group["params"]])
    for part in parts:
        for p, index in zip(
            [p for group in part.param_groups for p in group["params"]], indices, strict=False
        ):
            if is_sharded(p) and index in placed and not isinstance(part, Rule):  # a rule shards its own
                placed[index] = {
                    key: shard_like(x, p) if isinstance(x, Tensor) and x.shape == p.shape else x
                    for key, x in placed[index].items()
                }
    optimizer.load_state_dict({**state, "state": placed})
