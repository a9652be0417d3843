"""A run in memory: data, model and optimizer, and one step of training."""

import ctypes
import hashlib
import platform
import random
import resource
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor

from optstudy.config import DECILES, SMALL, RunConfig
from optstudy.data import text, tokens
from optstudy.data.batches import Batches, IntArray, ReadAhead, Stream
from optstudy.errors import UserError
from optstudy.optim.sharded import whole
from optstudy.training import compiling, models, schedule
from optstudy.training.build import build_optimizer
from optstudy.training.keeping import Keeping
from optstudy.training.loss import language_model_loss, logits_loss, loss_rows
from optstudy.training.parallel import Ranks, accumulating, load_model, load_optimizer, reshard
from optstudy.training.portable import Packing, Unpacking
from optstudy.training.probe import Probe
from optstudy.training.progress import Diverged

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Constants from glibc's malloc.h."""
COUNTED = 10_000_000
"""Tokens of the training text that frequencies are counted in."""


def choose_device(config: RunConfig, device: str) -> torch.device:
    """Resolve ``auto``: a GPU if there is one, but the CPU for models too small to use it well."""
    if device == "auto":
        small = models.size_of(config).parameters < SMALL
        device = "cuda" if torch.cuda.is_available() and not small else "cpu"
    elif device == "cuda" and not torch.cuda.is_available():
        raise UserError("device: 'cuda' was asked for and torch sees no CUDA device; use 'cpu' or 'auto'")
    elif device not in ("cpu", "cuda"):
        raise UserError(f"device: input should be 'auto', 'cpu' or 'cuda', not {device!r}")
    return torch.device(device)


def _keep_freed_memory() -> None:
    """Make glibc keep freed tensor memory: mapping and clearing it again takes 5 to 10 % of a step."""
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for parameter, size in ((M_MMAP_THRESHOLD, 1 << 30), (M_TRIM_THRESHOLD, (1 << 31) - 1)):
            libc.mallopt(parameter, size)


def _nothing() -> None:
    """Default action between batches: nothing."""


class Run:
    """A run in memory: data, model, optimizer and the training loop.

    With several ``ranks`` it is this process's part of the run, and every process must call each method.
    """

    def __init__(self, config: RunConfig, device: torch.device, ranks: Ranks | None = None) -> None:
        torch.set_num_threads(config.training.threads)
        torch.set_flush_denormal(True)  # else a run that diverges on a CPU takes twice as long
        _keep_freed_memory()
        torch.manual_seed(config.seed)  # only used by optimizers that draw random numbers
        random.seed(config.seed)
        np.random.seed(config.seed % 2**32)
        self.config = config
        self.ranks = ranks or Ranks()
        self.device = device = self.ranks.device(device)
        data, training = config.data, config.training
        corpus = text.corpus(data.corpus, data.text_key)
        made = tokens.prepare(corpus, data.tokenizer, tokens=data.tokens, end_token=data.end_token)
        if made.vocab_size > config.model.vocab_size:
            raise UserError(
                f"model.vocab_size: {data.tokenizer} has {made.vocab_size} pieces, "
                f"and the model only {config.model.vocab_size} rows; raise it"
            )
        self.batches = Batches(
            made.train,
            data.sequence_length,
            training.batch_size,
            config.seed,
            self.ranks.rank,
            self.ranks.size,
        )
        self.held_out = _sequences(made.validation, data.sequence_length, config.validation.sequences)
        dtype = torch.float64 if training.precision == "float64" else torch.float32
        self.built = models.build(config)
        self.model = self.built.module.to(device, dtype)
        self.compiled = compiling.pays(config, device)
        self.loss_rows = compiling.compiled(loss_rows) if self.compiled else None
        if self.compiled:
            compiling.compile_blocks(self.built.blocks)
        self.forward = self.ranks.spread(self.model, self.built.blocks, training.parallel)
        self.optimizer = build_optimizer(self.model, config)
        for group in self.optimizer.param_groups:
            if self.compiled and group.get("compile", False) is None:
                group["compile"] = True
        self._keeping = Keeping(self.optimizer)
        self.probe = Probe(config, self.optimizer)
        points = config.validation.points
        self.validation_steps = frozenset(round(config.total_steps * i / points) for i in range(points))
        self.deciles: list[float | None] = []
        """Losses of the last validation by the target's frequency, rarest first; empty unless requested."""
        self._decile_of = (
            torch.from_numpy(decile_of(made.train, config.model.vocab_size)).to(device)
            if config.watch.deciles
            else None
        )
        self.upcoming = ReadAhead(self.batches)
        self._stepped = False
        # several processes of a run must not wait for one that waits for them
        self._fresh = self.compiled and self.ranks.size == 1

    def state_dict(self) -> dict[str, Any]:
        """Return everything that later steps depend on; batches are a function of the step alone.

        Weights and optimizer state are whole, and only on the first rank.

        Raises:
            UserError: the optimizer contains something that no checkpoint can store.
        """
        reshard(self.model)
        optimizer, beside = self._keeping.state()
        packing = Packing("")
        state = {
            "model": self.ranks.gather(self.model.state_dict()),
            "optimizer": self.ranks.gather(optimizer),
            "beside": self.ranks.gather(beside),
            "cpu_rng": torch.get_rng_state(),
            "python_rng": random.getstate(),
            "numpy_rng": packing.pack(np.random.get_state(legacy=False)),
        }
        if self.device.type == "cuda":
            state["cuda_rng"] = torch.cuda.get_rng_state(self.device)
        return state

    def load_state_dict(self, state: dict[str, Any]) -> list[str]:
        """Restore what :meth:`state_dict` returned; values that an older version did not save stay unchanged.

        Returns:
            Places of the optimizer's random generators that could not be restored.
        """
        load_model(self.model, state["model"])
        beside = state.get("beside", {})
        lost = self._keeping.load(state["optimizer"], beside, load_optimizer, self.device)
        self._stepped = True
        torch.set_rng_state(state["cpu_rng"].cpu())
        if "python_rng" in state:
            random.setstate(state["python_rng"])
            np.random.set_state(Unpacking({}).unpack(state["numpy_rng"]))
        if self.device.type == "cuda" and "cuda_rng" in state:
            torch.cuda.set_rng_state(state["cuda_rng"].cpu(), self.device)
        return lost

    def unsaved(self) -> list[str]:
        """Return, after a step, the places in the optimizer whose state checkpoints do not contain.

        Raises:
            UserError: it contains something that no checkpoint can store.
        """
        self._keeping.state()
        return self._keeping.lost()

    def step(self, step: int, between: Callable[[], None] = _nothing) -> tuple[Tensor, Tensor, float]:
        """Take one optimizer step; return loss (with z-loss), gradient norm and learning rate.

        ``between`` is called before each micro-batch, while model and optimizer are as before the step; an
        exception from it ends the step.

        Raises:
            Diverged: a number of the step, such as the learning rate, is out of range of the weights' dtype.
        """
        share = schedule.factor(self.config, step)
        for group in self.optimizer.param_groups:
            group["lr"] = group["peak_lr"] * share
        batch, z = self.upcoming[step], self.config.training.z_loss
        with compiling.one_at_a_time(self.config, self.device) if self._fresh else nullcontext():
            loss, norm = self._gradient(batch, lambda rows: self._losses(batch[rows], z)[0], between)
        self._fresh = False
        self._update(step)
        interval = self.config.training.hessian_interval
        if hasattr(self.optimizer, "update_hessian") and step % interval == interval - 1:
            self._refresh_hessian(batch, step)
        return loss, norm, self.config.optimizer.lr * share

    def _update(self, step: int) -> None:
        """Step the optimizer.

        Raises:
            Diverged: a number of the step, such as the learning rate, is out of range of the weights' dtype.
        """
        self._stepped = True
        try:
            self.optimizer.step()
        except RuntimeError as error:
            if "without overflow" not in str(error):  # torch's wording
                raise
            raise Diverged(step, f"the update could not be computed at step {step}: {error}") from error

    def _gradient(
        self, batch: IntArray, loss_of: Callable[[slice], Tensor], between: Callable[[], None] = _nothing
    ) -> tuple[Tensor, Tensor]:
        """Compute the clipped gradient of ``loss_of(rows)`` over all micro-batches; return loss and norm."""
        self.model.zero_grad(set_to_none=True)  # includes parameters that no optimizer trains
        total = torch.zeros((), device=self.device)
        for rows in _micro_batches(len(batch), self.config.training.micro_batch_size):
            between()
            with accumulating(self.forward, more=rows.stop < len(batch)):
                with self._autocast():
                    loss = loss_of(rows)
                weight = len(batch[rows]) / len(batch)
                (loss * weight).backward()  # type: ignore[no-untyped-call]
            total += loss.detach() * weight
        clip_norm = self.config.training.clip_norm
        limit = float("inf") if clip_norm is None else clip_norm
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), limit)
        return self.ranks.mean(total), whole(norm)

    def _refresh_hessian(self, batch: IntArray, step: int) -> None:
        """Give Sophia the gradient at labels drawn from the model (Liu et al. 2023, Algorithm 2)."""
        generator = torch.Generator().manual_seed((self.config.seed << 32) + step)
        uniform_BT = torch.rand(self.batches.batch_size, batch.shape[1] - 1, generator=generator)
        uniform_BT = uniform_BT[self.batches.rows].to(self.device)

        def sampled_loss(rows: slice) -> Tensor:
            out_NX = self._output(torch.from_numpy(batch[rows]).to(self.device))
            with torch.no_grad():
                cdf_NV = self.built.logits(out_NX).float().softmax(-1).cumsum(-1)
                at_N1 = uniform_BT[rows].flatten()[:, None] * cdf_NV[:, -1:]
                y_N = torch.searchsorted(cdf_NV, at_N1).flatten().clamp_max(cdf_NV.shape[1] - 1)
            return self._loss(out_NX, y_N)[0]

        self._gradient(batch, sampled_loss)
        self.optimizer.update_hessian()  # type: ignore[attr-defined]

    def _output(self, x_BT: Tensor) -> Tensor:
        """Hidden states, or logits, that have a target: shape ND or NV with N = B (T - 1)."""
        out_BTX = models.tensor_of(self.forward(x_BT))
        assert out_BTX is not None  # a model was tried when it was built
        return out_BTX[:, :-1].flatten(0, 1)

    def _loss(
        self, out_NX: Tensor, y_N: Tensor, z: float = 0.0, each_N: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Training loss and cross-entropy of what :meth:`_output` returned; ``each_N``: see the functions."""
        if self.built.head is None:
            return logits_loss(out_NX, y_N, z, each_N)
        return language_model_loss(out_NX, self.built.head.weight, y_N, z, self.loss_rows, each_N)

    def _losses(self, batch: IntArray, z: float) -> tuple[Tensor, Tensor]:
        """Training loss and cross-entropy of sequences BT, which have T - 1 targets each."""
        return self._loss(*self._predicted(batch), z)

    def _predicted(self, batch: IntArray) -> tuple[Tensor, Tensor]:
        """Output of the model for sequences BT, as :meth:`_output` returns it, and their targets y_N."""
        x_BT = torch.from_numpy(batch).to(self.device, non_blocking=True)
        return self._output(x_BT), x_BT[:, 1:].flatten()

    @torch.no_grad()
    def validation_loss(self, between: Callable[[], None] = _nothing) -> float:
        """Mean cross-entropy over the held-out sequences, nats per token, without z-loss.

        ``between`` is called before each batch; an exception from it ends the evaluation.
        """
        size = self.config.training.micro_batch_size or self.config.training.batch_size
        total = torch.zeros((), device=self.device, dtype=torch.float64)
        by_decile = torch.zeros(2, DECILES, device=self.device, dtype=torch.float64)
        with self._evaluated(), self._autocast():
            for rows in self.ranks.rounds(len(self.held_out), size):
                between()
                part = self.held_out[rows]
                out_NX, y_N = self._predicted(part if len(part) else self.held_out[:1])
                each_N = None if self._decile_of is None else torch.empty_like(y_N, dtype=torch.float64)
                total += self._loss(out_NX, y_N, each_N=each_N)[1].double() * len(part)
                if self._decile_of is not None and each_N is not None and len(part):
                    both_2N = torch.stack([each_N, torch.ones_like(each_N)])
                    by_decile.index_add_(1, self._decile_of[y_N], both_2N)
        reshard(self.model)
        if self._decile_of is not None:
            sums, counts = self.ranks.sum(by_decile).tolist()
            self.deciles = [loss / n if n else None for loss, n in zip(sums, counts, strict=True)]
        return float(self.ranks.sum(total)) / len(self.held_out)

    @contextmanager
    def _evaluated(self) -> Iterator[None]:
        """Switch off dropout, and an optimizer with ``eval`` and ``train`` to its evaluation weights.

        Before its first step these are the initial weights. Then only ``train`` is called: some optimizers
        (Schedule-Free) need it before a step; others raise an error, as they have no state yet.
        """
        parts = getattr(self.optimizer, "optimizers", [self.optimizer])
        switching = [part for part in parts if hasattr(part, "eval") and hasattr(part, "train")]
        self.model.eval()
        if self._stepped:
            for part in switching:
                part.eval()
        try:
            yield
        finally:
            self.model.train()
            for part in switching:
                with nullcontext() if self._stepped else suppress(Exception):
                    part.train()

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(
            self.device.type, torch.bfloat16, enabled=self.config.training.precision == "bfloat16"
        )

    def weights_sha256(self) -> str:
        """Hash of all parameters, in order: equal hashes mean bitwise equal weights."""
        digest = hashlib.sha256()
        for parameter in self.model.parameters():
            digest.update(whole(parameter.detach()).cpu().contiguous().numpy().tobytes())
        return digest.hexdigest()

    def footprint(self) -> dict[str, float]:
        """Peak memory, parameters and bytes of optimizer state per parameter."""
        params = sum(p.numel() for p in self.model.parameters())
        return {
            "peak_memory_mb": peak_memory_mb(self.device),
            "params": params,
            "state_bytes_per_param": bytes_held(self.optimizer.state) / params,
        }


def bytes_held(state: Any, deepest: int = 8) -> int:
    """Return the bytes of all tensors in an optimizer's state, also in containers and in objects."""
    if isinstance(state, Tensor):
        return state.numel() * state.element_size()
    if isinstance(state, Mapping):
        parts = list(state.values())
    elif isinstance(state, list | tuple):
        parts = list(state)
    else:
        parts = list(getattr(state, "__dict__", {}).values())
    return sum(bytes_held(part, deepest - 1) for part in parts) if deepest else 0


def peak_memory_mb(device: torch.device) -> float:
    """Return the process's peak memory in MiB: of tensors for a GPU, of the whole process for a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _micro_batches(batch_size: int, micro_batch_size: int | None) -> Iterator[slice]:
    size = micro_batch_size or batch_size
    for start in range(0, batch_size, size):
        yield slice(start, min(start + size, batch_size))


def decile_of(stream: Stream, pieces: int) -> IntArray:
    """Return the decile of each piece by its frequency in a text, int64: 0 for the rarest.

    Each decile holds about a tenth of the text's tokens. At most :data:`COUNTED` tokens are counted.
    """
    counts = np.bincount(np.asarray(stream[: min(len(stream), COUNTED)], np.int64), minlength=pieces)
    order = np.argsort(counts, kind="stable")
    middle = np.cumsum(counts[order]) - counts[order] / 2
    found = np.empty(pieces, np.int64)
    found[order] = np.minimum(DECILES * middle / counts.sum(), DECILES - 1).astype(np.int64)
    return found


def _sequences(stream: Stream, length: int, count: int) -> IntArray:
    """Cut the first ``count`` sequences, without overlap, from a token stream: int64, shape (count, T)."""
    if len(stream) < count * length:
        raise UserError(
            f"validation.sequences: the validation split has {len(stream)} tokens, "
            f"enough for {len(stream) // length} sequences of {length}, not {count}"
        )
    return np.asarray(stream[: count * length]).reshape(count, length).astype(np.int64)
