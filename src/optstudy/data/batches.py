"""Batches: (tokens, seed, step) -> x_BT, a pure function of the step, so a run can resume at any step.

Sequence ``i`` of a split is its tokens ``[i T, (i + 1) T)``. Each epoch visits each sequence once, in an
order that is computed, not stored: a balanced Feistel network over the next even power of two, applied until
its value is in the range (cycle walking; Black and Rogaway 2002, "Ciphers with arbitrary finite domains").
"""

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

import numpy as np
import numpy.typing as npt

from optstudy.errors import UserError

ROUNDS = 8
AT_ONCE = 4096
"""Number of sequences whose order is computed at a time: for small batches, calls cost more than the work."""
IntArray = npt.NDArray[np.int64]


class Stream(Protocol):
    """A one-dimensional array of token ids, memory-mapped from one or several files."""

    def __len__(self) -> int: ...
    def __getitem__(self, part: slice, /) -> npt.NDArray[np.generic]: ...


class Permutation:
    """A keyed bijection of ``range(size)`` without a table."""

    def __init__(self, size: int, seed: int, epoch: int) -> None:
        self.size = size
        self.half_bits = max(1, (max(size - 1, 1).bit_length() + 1) // 2)
        digest = hashlib.shake_256(f"{seed}/{epoch}".encode()).digest(8 * ROUNDS)
        self.keys = np.frombuffer(digest, dtype="<u8")

    def __call__(self, index: IntArray) -> IntArray:
        """Return the images of ``index``."""
        result = self._network(index.astype(np.uint64))
        outside = np.flatnonzero(result >= self.size)
        while outside.size:
            result[outside] = self._network(result[outside])
            outside = outside[result[outside] >= self.size]
        return result.astype(np.int64)

    def _network(self, x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
        shift, mask = np.uint64(self.half_bits), np.uint64((1 << self.half_bits) - 1)
        left, right = x >> shift, x & mask
        for key in self.keys:
            left, right = right, left ^ (_mix(right + key) & mask)
        return (left << shift) | right


def _mix(z: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return SplitMix64's finalizer of ``z`` (Steele, Lea and Flood 2014)."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


class Batches:
    """``batches[step]`` is x_BT, int64 token ids; ``len(batches)`` is the number of sequences of an epoch.

    Step ``s`` reads positions ``[s B, (s + 1) B)`` of the endless series of epochs. So the last sequences of
    an epoch and the first of the next may share a batch, and every sequence is read once per epoch. Of each
    batch, ``rank`` of ``ranks`` gets the rows ``[rank B / ranks, (rank + 1) B / ranks)``, in order.

    Raises:
        UserError: the batch is not divisible by the ranks, or there are too few tokens for one sequence.
    """

    def __init__(
        self, stream: Stream, sequence_length: int, batch_size: int, seed: int, rank: int = 0, ranks: int = 1
    ) -> None:
        if not 0 <= rank < ranks or batch_size % ranks:
            raise UserError(f"a batch of {batch_size} sequences has no part {rank} of {ranks} equal parts")
        self.stream = stream
        self.sequence_length = sequence_length
        self.batch_size = batch_size
        self.seed = seed
        self.rows = slice(rank * batch_size // ranks, (rank + 1) * batch_size // ranks)
        self.sequences = len(stream) // sequence_length
        if self.sequences == 0:
            raise UserError(f"{len(stream):,} tokens do not fill one sequence of {sequence_length:,}")
        self._steps = max(1, min(AT_ONCE, self.sequences) // batch_size)
        self._orders = (-1, np.empty(0, np.int64))

    def __len__(self) -> int:
        return self.sequences

    def __getitem__(self, step: int) -> IntArray:
        order = self.order(step)[self.rows]
        x_BT = np.empty((order.size, self.sequence_length), dtype=np.int64)
        for row, start in enumerate((order * self.sequence_length).tolist()):
            x_BT[row] = self.stream[start : start + self.sequence_length]
        return x_BT

    def order(self, step: int) -> IntArray:
        """Return the numbers of the sequences that all ranks read at a step; read-only, shape (B,)."""
        block, place = divmod(step, self._steps)
        kept, orders = self._orders
        if kept != block:
            orders = self._places(block * self._steps * self.batch_size, self._steps * self.batch_size)
            self._orders = block, orders
        return orders[place * self.batch_size : (place + 1) * self.batch_size]

    def _places(self, first: int, count: int) -> IntArray:
        """Return the numbers of the sequences at ``count`` positions of the endless sequence of epochs."""
        position = first + np.arange(count, dtype=np.int64)
        epoch = position // self.sequences
        order = np.empty_like(position)
        for e in range(int(epoch[0]), int(epoch[-1]) + 1):
            here = epoch == e
            order[here] = Permutation(self.sequences, self.seed, e)(position[here] % self.sequences)
        order.flags.writeable = False
        return order


class ReadAhead:
    """Batches for a caller that takes consecutive steps: a thread reads ahead while one batch is used."""

    def __init__(self, batches: Batches, depth: int = 2) -> None:
        self.batches = batches
        self.depth = depth
        self._reader = ThreadPoolExecutor(1, "batches")
        self._pending: dict[int, Future[IntArray]] = {}

    def __getitem__(self, step: int) -> IntArray:
        wanted = range(step, step + self.depth + 1)
        self._pending = {s: self._pending.get(s) or self._read(s) for s in wanted}
        return self._pending.pop(step).result()

    def _read(self, step: int) -> Future[IntArray]:
        return self._reader.submit(self.batches.__getitem__, step)
