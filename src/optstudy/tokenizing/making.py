"""Making the shards of one split: one process reads the text and writes the shards, several encode.

A shard is the shortest run of documents of a given size, so what it holds follows from the text alone. A
shard that is there and whole is kept; reading then goes on behind it. The encoding processes touch no file of
the token set: one that outlives its killed parent for a moment can change nothing that the next preparation
makes.
"""

import hashlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ParamSpec, TypeVar

from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from optstudy import record, text
from optstudy.errors import UserError
from optstudy.text import START, Position
from optstudy.tokenizing import shards, tokenizer
from optstudy.tokenizing.shards import Damaged, Header

P = ParamSpec("P")
T = TypeVar("T")

SHARD_CHARACTERS = 1 << 24
"""A shard ends behind the document that reaches this many characters."""


class Recipe(BaseModel):
    """What decides the bytes of a token set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fingerprint: str
    """Of the corpus."""
    tokenizer_sha256: str
    shard_characters: int
    format: int = shards.FORMAT

    @property
    def digest(self) -> str:
        """Twelve hexadecimal digits."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Work:
    """One split to be made."""

    corpus: str
    split: str
    recipe: Recipe
    tokenizer_file: Path
    home: Path
    jobs: int
    progress: bool


@dataclass(frozen=True)
class _Block:
    """The documents of one shard."""

    work: Work
    number: int
    start: Position
    stop: Position
    empty: int
    characters: int
    documents: list[str]


Pending = dict[Future[tuple[Header, bytes]], int]
"""Shards that are being encoded, with their numbers."""


def name(split: str, number: int) -> str:
    """Return the file name of a shard."""
    return f"{split}-{number:06d}.safetensors"


def make(work: Work, wanted: int | None, at_least: int, complete: bool) -> list[Header]:
    """Make the shards of a split, from the first on, until they hold ``wanted`` tokens or the text ends.

    Args:
        work: what to make.
        wanted: tokens; None: all.
        at_least: shards to have in any case.
        complete: whether these are known to be all.
    """
    headers: dict[int, Header] = {}
    with _pool(work.jobs) as pool, _progress(work, wanted) as show:
        pending: Pending = {}
        reader = _Reader(work)
        number, position = 0, START
        while not (number >= at_least and (complete or _enough(headers, wanted))):
            kept = _kept(work, number, position)
            if kept:
                headers[number], position = kept, Position(*kept.stop)
            else:
                block = reader.take(number, position)
                if block is None:
                    break
                pending[pool.submit(encode, block)] = number
                position = block.stop
            number += 1
            if len(pending) > (work.jobs if work.jobs > 1 else 0):
                _collect(work, pending, headers)
            show(headers)
        while pending:
            _collect(work, pending, headers)
            show(headers)
    count = max(at_least, _shortest(headers, wanted))
    listed = {name(work.split, i) for i in range(count)}
    for surplus in work.home.glob(f"{work.split}-*"):
        if surplus.name not in listed:
            surplus.unlink()
    return [headers[i] for i in range(count)]


def _collect(work: Work, pending: Pending, headers: dict[int, Header]) -> None:
    """Wait for a shard, and write it."""
    for future in wait(pending, return_when=FIRST_COMPLETED).done:
        number = pending.pop(future)
        headers[number], data = future.result()
        record.write_atomically(work.home / name(work.split, number), data)


def _shortest(headers: dict[int, Header], wanted: int | None) -> int:
    """Count the shards, from the first on, that hold ``wanted`` tokens; all if they do not."""
    total = count = 0
    while count in headers and (wanted is None or total < wanted):
        total += headers[count].tokens
        count += 1
    return count


def _enough(headers: dict[int, Header], wanted: int | None) -> bool:
    count = _shortest(headers, wanted)
    return wanted is not None and sum(headers[i].tokens for i in range(count)) >= wanted


def _kept(work: Work, number: int, position: Position) -> Header | None:
    """Return the header of a shard that is there, whole and what would be made again."""
    path = work.home / name(work.split, number)
    if not path.exists():
        return None
    try:
        shard = shards.open_shard(path)
        shard.check()
    except Damaged:
        return None
    header = shard.header
    expected = (work.recipe.digest, number, position)
    return header if (header.recipe, header.number, header.start) == expected else None


class _Reader:
    """Takes blocks off a split, from any position; in a row without seeking."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.position: Position | None = None
        self.stream: Iterator[tuple[Position, str]] = iter(())

    def take(self, number: int, start: Position) -> _Block | None:
        """Read the block that begins at ``start``; None behind the last document."""
        work = self.work
        if self.position != start:
            self.stream, self.position = text.read(work.corpus, work.split, start), start
        documents: list[str] = []
        empty = characters = 0
        while characters < work.recipe.shard_characters and (item := next(self.stream, None)):
            self.position, document = item
            if document.strip():
                documents.append(document)
                characters += len(document)
            else:
                empty += 1
        if self.position == start:
            return None
        return _Block(work, number, start, self.position, empty, characters, documents)


def encode(block: _Block) -> tuple[Header, bytes]:
    """Return a block's shard; runs in a worker process."""
    encoder = _encoder(block.work.tokenizer_file)
    tokens, ends = encoder.encode(block.documents)
    return shards.pack(
        tokens,
        ends,
        recipe=block.work.recipe.digest,
        vocab_size=encoder.vocab_size,
        split=block.work.split,
        number=block.number,
        start=block.start,
        stop=block.stop,
        empty=block.empty,
        characters=block.characters,
    )


@lru_cache(maxsize=1)
def _encoder(path: Path) -> tokenizer.Encoder:
    return tokenizer.load(path)


@contextmanager
def _pool(jobs: int) -> Iterator[Executor]:
    """Run blocks in ``jobs`` processes; in this one if there is but one."""
    if jobs == 1:
        yield _Here()
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, context, initializer=_start_worker)
    try:
        yield pool
    except BrokenProcessPool:
        raise UserError(
            "an encoding process died, perhaps for want of memory: try fewer jobs "
            "(a script may only ask for several below: if __name__ == '__main__')"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tokenizer.serial()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this process when its parent is gone: the pool itself would leave it waiting for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


class _Here(Executor):
    """Runs what is submitted at once, in this thread."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


@contextmanager
def _progress(work: Work, wanted: int | None) -> Iterator[Callable[[dict[int, Header]], None]]:
    """Show tokens made and, if it is known how many are wanted, the time left."""
    console = Console(stderr=True)
    columns: list[ProgressColumn] = [SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()]
    if wanted is not None:
        columns += [BarColumn(), TimeRemainingColumn()]
    hidden = not (work.progress and console.is_terminal)
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task("", total=wanted)

        def show(headers: dict[int, Header]) -> None:
            tokens = sum(header.tokens for header in headers.values())
            description = f"{work.corpus}, {work.split}: {tokens / 1e6:,.1f} M tokens"
            bar.update(task, description=description, completed=tokens)

        show({})
        yield show
