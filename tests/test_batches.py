"""The order of the data: each sequence once per epoch, from (seed, step) alone, whoever asks."""

import queue

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optstudy.data import tokens
from optstudy.data.batches import Batches, Permutation, ReadAhead
from optstudy.errors import UserError

SIZES = st.integers(1, 5000)
SEEDS = st.integers(0, 2**40)


def batches(sequences: int, length: int, size: int, seed: int, rank: int = 0, ranks: int = 1) -> Batches:
    """Over tokens that say where they are."""
    return Batches(
        np.arange(sequences * length + length - 1, dtype=np.uint32), length, size, seed, rank, ranks
    )


@given(SIZES, SEEDS, st.integers(0, 5))
def test_permutation_is_a_bijection_of_its_range(size: int, seed: int, epoch: int) -> None:
    images = Permutation(size, seed, epoch)(np.arange(size))
    assert np.array_equal(np.sort(images), np.arange(size))


@given(st.integers(10**9, 2**61), SEEDS, st.integers(1, 10**9))
def test_permutation_of_any_size_stays_in_its_range_without_collisions(size: int, seed: int, at: int) -> None:
    images = Permutation(size, seed, 0)(np.arange(at, at + 1000))
    assert images.min() >= 0
    assert images.max() < size
    assert np.unique(images).size == 1000


def test_permutation_looks_random() -> None:
    """Mean displacement and serial correlation of 2^20 positions lie within 5 standard errors of chance."""
    size = 1 << 20
    images = Permutation(size, 0, 0)(np.arange(size)) / size
    assert abs(np.abs(images - np.arange(size) / size).mean() - 1 / 3) < 5 * np.sqrt(1 / 18 / size)
    assert abs(np.corrcoef(images[1:], images[:-1])[0, 1]) < 5 / np.sqrt(size)
    assert abs(np.corrcoef(images, np.arange(size))[0, 1]) < 5 / np.sqrt(size)


def test_order_is_the_published_one() -> None:
    """Golden: whoever changes the order changes what recorded runs have read."""
    assert batches(1000, 4, 8, seed=0).order(0).tolist() == ORDER
    assert batches(1000, 4, 8, seed=0)[0][0].tolist() == [4 * ORDER[0] + i for i in range(4)]


def test_seeds_and_epochs_have_orders_of_their_own() -> None:
    orders = {
        tuple(Permutation(100, seed, epoch)(np.arange(100))) for seed in range(20) for epoch in range(20)
    }
    assert len(orders) == 400


@settings(max_examples=30)
@given(st.integers(1, 300), st.integers(1, 7), st.integers(1, 40), SEEDS)
def test_every_sequence_is_read_once_per_epoch(sequences: int, length: int, size: int, seed: int) -> None:
    data = batches(sequences, length, size, seed)
    steps = -(-2 * sequences // size)
    read = np.concatenate([data[step] for step in range(steps)])
    assert np.array_equal(read - read[:, :1], np.tile(np.arange(length), (len(read), 1)))
    for epoch in range(2):
        first = read[epoch * sequences : (epoch + 1) * sequences, 0]
        assert np.array_equal(np.sort(first), np.arange(sequences) * length)


@settings(max_examples=30)
@given(st.integers(1, 300), st.sampled_from([1, 2, 3, 4, 6]), SEEDS, st.integers(0, 10**6))
def test_ranks_partition_the_batch(sequences: int, ranks: int, seed: int, step: int) -> None:
    whole = batches(sequences, 5, 12, seed)[step]
    parts = [batches(sequences, 5, 12, seed, rank, ranks)[step] for rank in range(ranks)]
    assert np.array_equal(np.concatenate(parts), whole)


@settings(max_examples=30)
@given(st.integers(1, 300), st.integers(1, 20), SEEDS, st.integers(0, 100))
def test_resumed_anywhere_the_sequence_is_the_same(sequences: int, size: int, seed: int, start: int) -> None:
    undisturbed = [batches(sequences, 3, size, seed)[step] for step in range(start + 5)]
    ahead = ReadAhead(batches(sequences, 3, size, seed))
    resumed = [ahead[step] for step in range(start, start + 5)]
    assert np.array_equal(np.stack(undisturbed[start:]), np.stack(resumed))


@given(st.integers(1, 300), st.integers(1, 40), SEEDS, st.lists(st.integers(0, 500), min_size=1, max_size=8))
def test_the_order_of_a_step_is_the_same_whatever_was_asked_before(
    sequences: int, size: int, seed: int, steps: list[int]
) -> None:
    asked = batches(sequences, 2, size, seed)
    for step in steps:
        positions = range(step * size, (step + 1) * size)
        orders = {
            e: Permutation(sequences, seed, e)(np.arange(sequences))
            for e in {p // sequences for p in positions}
        }
        assert asked.order(step).tolist() == [orders[p // sequences][p % sequences] for p in positions]


def test_positions_beyond_two_to_the_31_are_exact() -> None:
    data = batches(10, 1, 7, seed=3)
    step = 10**15
    position = [step * 7 + i for i in range(7)]
    expected = [int(Permutation(10, 3, p // 10)(np.array([p % 10]))[0]) for p in position]
    assert data.order(step).tolist() == expected


class Watched(Batches):
    """Says what it has read; step 4 cannot be."""

    def __init__(self) -> None:
        super().__init__(np.arange(100), 5, 2, 0)
        self.read: queue.Queue[int] = queue.Queue()

    def __getitem__(self, step: int) -> np.ndarray:
        self.read.put(step)
        if step == 4:
            raise UserError("shard gone")
        return super().__getitem__(step)


def test_next_steps_are_read_while_one_is_used() -> None:
    watched = Watched()
    ahead = ReadAhead(watched, depth=2)
    for step, read in ((0, (0, 1, 2)), (1, (3,)), (7, (7, 8, 9)), (8, (10,))):
        assert np.array_equal(ahead[step], Batches(np.arange(100), 5, 2, 0)[step])
        assert [watched.read.get(timeout=10) for _ in read] == list(read)
    assert watched.read.empty()


def test_error_of_the_reader_reaches_the_trainer_at_its_step() -> None:
    ahead = ReadAhead(Watched(), depth=2)
    assert [len(ahead[step]) for step in (2, 3)] == [2, 2]
    with pytest.raises(UserError, match="shard gone"):
        ahead[4]


def test_what_cannot_be_cut_is_refused() -> None:
    with pytest.raises(UserError, match="9 tokens do not fill one sequence of 10"):
        Batches(np.arange(9), 10, 1, 0)
    for rank, ranks in ((0, 3), (2, 2), (-1, 2)):
        with pytest.raises(UserError, match="part"):
            Batches(np.arange(100), 10, 4, 0, rank, ranks)


def test_batches_of_a_corpus_are_stretches_of_it(corpus_slice: str) -> None:
    made = tokens.prepare(corpus_slice, "bpe-2048")
    data = Batches(made.train, 64, 16, seed=1)
    x_BT = data[3]
    assert (x_BT.shape, x_BT.dtype) == ((16, 64), np.int64)
    for row, number in zip(x_BT, data.order(3), strict=True):
        assert np.array_equal(row, made.train[number * 64 : (number + 1) * 64])


ORDER = [984, 275, 13, 36, 285, 9, 965, 432]
