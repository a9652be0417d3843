"""Creates the shards of one split: one process reads the text and writes the shards, several encode.

A shard is the shortest sequence of documents that reaches a given size, so its content depends only on the
text. Existing intact shards are kept, and reading continues after them. The encoding processes access no
file of the token set, so one that briefly outlives its killed parent does no harm.
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
from typing import Any, ParamSpec, TypeVar

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

from optstudy import record
from optstudy.data import shards, tokenizer
from optstudy.data.shards import Damaged, Header
from optstudy.data.text import START, Corpus, Position
from optstudy.errors import UserError, printable

P = ParamSpec("P")
T = TypeVar("T")

SHARD_CHARACTERS = 1 << 24
"""A shard ends after the document that reaches this many characters."""
ENCODING = 2
"""Increased when the same text and tokenizer file give other ids than before. 2: special tokens that are
spelled out in a text are text."""


class Recipe(BaseModel):
    """The settings that determine the bytes of a token set."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fingerprint: str
    """Fingerprint of the corpus."""
    tokenizer_sha256: str
    shard_characters: int
    format: int = shards.FORMAT
    encoding: int = 1
    """:data:`ENCODING` at its creation; older sets lack it."""
    end_token: str | None = None
    """What ends documents; None, which leaves no trace: what the tokenizer has for it."""

    @property
    def digest(self) -> str:
        """The hash of these settings, twelve hexadecimal digits."""
        return hashlib.sha256(self.model_dump_json(exclude_none=True).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Work:
    """A split to create."""

    corpus: Corpus
    split: str
    recipe: Recipe
    tokenizer_file: Path
    home: Path
    jobs: int
    progress: bool


@dataclass(frozen=True)
class ShardText:
    """The documents of one shard, for the process that encodes them."""

    tokenizer_file: Path
    end_token: str | None
    stop: Position
    documents: list[str]
    facts: dict[str, Any]
    """Entries for the shard's header."""


Pending = dict[Future[tuple[Header, bytes]], int]
"""Shards that are being encoded, by number."""


def check_jobs(jobs: int) -> None:
    """Refuse several processes while a worker imports a script, which would deadlock on its parent's lock.

    Raises:
        UserError: the script asks for several outside ``if __name__ == "__main__"``.
    """
    if jobs > 1 and getattr(multiprocessing.current_process(), "_inheriting", False):
        raise UserError("a script may use several jobs only under: if __name__ == '__main__'")


def name(split: str, number: int) -> str:
    """Return the file name of a shard."""
    return f"{split}-{number:06d}.safetensors"


def make(work: Work, wanted: int | None, at_least: int, complete: bool) -> list[Header]:
    """Create the shards of a split, from the first on, until they hold ``wanted`` tokens or the text ends.

    Args:
        work: the split to create.
        wanted: number of tokens; None: all.
        at_least: minimum number of shards.
        complete: whether these are known to be all shards.
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
    """Wait for at least one shard and write it."""
    for future in wait(pending, return_when=FIRST_COMPLETED).done:
        number = pending.pop(future)
        headers[number], data = future.result()
        record.write_atomically(work.home / name(work.split, number), data)


def _shortest(headers: dict[int, Header], wanted: int | None) -> int:
    """Return how many shards, from the first on, are needed for ``wanted`` tokens; all if too few."""
    total = count = 0
    while count in headers and (wanted is None or total < wanted):
        total += headers[count].tokens
        count += 1
    return count


def _enough(headers: dict[int, Header], wanted: int | None) -> bool:
    count = _shortest(headers, wanted)
    return wanted is not None and sum(headers[i].tokens for i in range(count)) >= wanted


def _kept(work: Work, number: int, position: Position) -> Header | None:
    """Return the header of a shard that exists, is intact and equals the one that would be created."""
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
    """Reads the blocks of a split from any position; consecutive blocks without seeking."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.position: Position | None = None
        self.stream: Iterator[tuple[Position, str]] = iter(())

    def take(self, number: int, start: Position) -> ShardText | None:
        """Read the block that starts at ``start``; None after the last document."""
        work = self.work
        if self.position != start:
            self.stream, self.position = work.corpus.read(work.split, start), start
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
        facts = {
            "recipe": work.recipe.digest,
            "split": work.split,
            "number": number,
            "start": start,
            "stop": self.position,
            "empty": empty,
            "characters": characters,
        }
        return ShardText(work.tokenizer_file, work.recipe.end_token, self.position, documents, facts)


def encode(block: ShardText) -> tuple[Header, bytes]:
    """Return the header and the file contents of a block's shard; runs in a worker process."""
    encoder = _encoder(block.tokenizer_file, block.end_token)
    tokens, ends = encoder.encode(block.documents)
    return shards.pack(tokens, ends, vocab_size=encoder.vocab_size, **block.facts)


@lru_cache(maxsize=1)
def _encoder(path: Path, end: str | None) -> tokenizer.Encoder:
    return tokenizer.load(path, end)


@contextmanager
def _pool(jobs: int) -> Iterator[Executor]:
    """Encode blocks in ``jobs`` processes, or in this one if ``jobs`` is 1."""
    if jobs == 1:
        yield _Here()
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, context, initializer=_start_worker)
    try:
        yield pool
    except BrokenProcessPool:
        raise UserError(
            "an encoding process died, perhaps of too little memory: try fewer jobs "
            "(a script may use several only under: if __name__ == '__main__')"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _start_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tokenizer.serial()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Exit when the parent process is gone; otherwise this process would wait for work forever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


class _Here(Executor):
    """Runs submitted calls immediately, in this thread."""

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        future: Future[T] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


@contextmanager
def _progress(work: Work, wanted: int | None) -> Iterator[Callable[[dict[int, Header]], None]]:
    """Show the tokens made and, if the number wanted is known, the time left."""
    console = Console(stderr=True)
    columns: list[ProgressColumn] = [
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        TimeElapsedColumn(),
    ]
    if wanted is not None:
        columns += [BarColumn(), TimeRemainingColumn()]
    hidden = not (work.progress and console.is_terminal)
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task("", total=wanted)

        def show(headers: dict[int, Header]) -> None:
            tokens = sum(header.tokens for header in headers.values())
            description = f"{printable(work.corpus.name)}, {work.split}: {tokens / 1e6:,.1f} M tokens"
            bar.update(task, description=description, completed=tokens)

        show({})
        yield show
