"""Token files: each is one shard of a split, in the safetensors format.

A shard has a JSON header and two arrays: ``tokens`` (uint16 or uint32) and ``ends`` (uint32: where each
document ends, in tokens from the shard's start). The header gives its origin, its contents and the SHA-256
of the arrays. It depends only on the documents and the tokenizer.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from optstudy.errors import UserError, printable

FORMAT = 1
OPEN_AT_ONCE = 512
"""Maximum number of shards of a split that are kept memory-mapped."""

TokenArray = npt.NDArray[Any]
"""An array of uint16 or uint32."""
DTYPES = ("U16", "U32")
"""Types of ``tokens``, as safetensors names them."""


class Header(BaseModel):
    """The metadata of a shard."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = FORMAT
    recipe: str
    """The settings it was created with: :attr:`optstudy.data.making.Recipe.digest`."""
    vocab_size: int
    split: str
    number: int
    start: tuple[int, int, int]
    """Position of the first document in the corpus (:class:`optstudy.data.text.Position`)."""
    stop: tuple[int, int, int]
    documents: int
    empty: int
    """Number of documents left out because they contain only white space."""
    characters: int
    tokens: int
    max_id: int
    sha256: str
    """SHA-256 of the arrays' bytes."""


class Damaged(Exception):
    """A shard that is invalid; the text gives the reason in one line."""


def pack(tokens: TokenArray, ends: npt.NDArray[np.uint32], **header: Any) -> tuple[Header, bytes]:
    """Return the header of a shard, and the contents of its file."""
    described = Header(
        **header,
        tokens=tokens.size,
        documents=ends.size,
        max_id=int(tokens.max(initial=0)),
        sha256=_checksum(tokens, ends),
    )
    return described, save({"tokens": tokens, "ends": ends}, {"header": described.model_dump_json()})


def _checksum(tokens: TokenArray, ends: npt.NDArray[np.uint32]) -> str:
    return hashlib.sha256(tokens.tobytes() + ends.tobytes()).hexdigest()


@dataclass(frozen=True)
class Shard:
    """An open shard; its arrays stay on disk until they are read."""

    header: Header
    file: Any
    """A handle of :class:`safetensors.safe_open`."""
    stretch: Any
    """A lazy slice: indexing it reads a range of the tokens."""

    @property
    def tokens(self) -> TokenArray:
        """All tokens, read into memory."""
        array: TokenArray = self.file.get_tensor("tokens")
        return array

    @property
    def ends(self) -> npt.NDArray[np.uint32]:
        """Where each document ends, read into memory."""
        array: npt.NDArray[np.uint32] = self.file.get_tensor("ends")
        return array

    def check(self) -> None:
        """Read everything.

        Raises:
            Damaged: the arrays do not match the header.
        """
        tokens = self.tokens
        if _checksum(tokens, self.ends) != self.header.sha256:
            raise Damaged("wrong checksum")
        if tokens.size and int(tokens.max()) >= self.header.vocab_size:
            raise Damaged(f"token {int(tokens.max())} is beyond the vocabulary of {self.header.vocab_size:,}")


def open_shard(path: Path) -> Shard:
    """Open a shard by memory-mapping.

    Raises:
        Damaged: it is not a shard of this format, is truncated, or has ids beyond the vocabulary.
    """
    try:
        file: Any = safe_open(path, framework="np")
        header = Header.model_validate_json((file.metadata() or {})["header"])
        tokens, ends = file.get_slice("tokens"), file.get_slice("ends")
    except ValidationError:
        raise Damaged(f"no token file of format {FORMAT}") from None
    except (OSError, KeyError, SafetensorError) as error:
        raise Damaged(f"no token file, or cut short ({error})") from None
    if header.format != FORMAT or (
        (tokens.get_shape(), ends.get_shape(), ends.get_dtype())
        != ([header.tokens], [header.documents], "U32")
        or tokens.get_dtype() not in DTYPES
    ):
        raise Damaged("its header contradicts itself")
    if header.max_id >= header.vocab_size:
        raise Damaged(f"token {header.max_id} is beyond the vocabulary of {header.vocab_size:,}")
    return Shard(header, file, tokens)


class ShardedStream:
    """The first ``limit`` tokens of several shards, sliced like one array."""

    def __init__(self, paths: Sequence[Path], counts: Sequence[int], limit: int | None) -> None:
        self.paths = list(paths)
        self.starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        total = int(self.starts[-1])
        self.limit = total if limit is None else min(limit, total)
        self._shard = lru_cache(maxsize=OPEN_AT_ONCE)(self._open)

    def __len__(self) -> int:
        return self.limit

    def __getitem__(self, part: slice) -> TokenArray:
        start, stop, step = part.indices(self.limit)
        first = int(np.searchsorted(self.starts, start, side="right")) - 1
        found = []
        while start < stop:
            offset = int(self.starts[first])
            last = min(stop, int(self.starts[first + 1]))
            found.append(self._shard(first).stretch[start - offset : last - offset])
            start = last
            first += 1
        array = found[0] if len(found) == 1 else np.concatenate(found or [np.empty(0, dtype=np.uint16)])
        return array[::step]

    def _open(self, number: int) -> Shard:
        try:
            shard = open_shard(self.paths[number])
            if shard.header.tokens != self.starts[number + 1] - self.starts[number]:
                raise Damaged("not as many tokens as its set lists")
            return shard
        except Damaged as reason:
            raise UserError(
                f"{printable(self.paths[number])}: {reason}; run `optstudy data prepare` again"
            ) from None
