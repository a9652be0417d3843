"""Token files: one shard of a split each, in the safetensors format.

A shard is a JSON header and two arrays: ``tokens`` (uint16 or uint32) and ``ends`` (uint32: where each
document ends, in tokens from the shard's start). Its header says what made it, what it holds and the SHA-256
of the arrays. It is a function of the documents and the tokenizer alone.
"""

import hashlib
import json
import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, ValidationError

from optstudy.errors import UserError

FORMAT = 1
OPEN_AT_ONCE = 512
"""Shards of a split kept mapped; each costs a file descriptor."""

TokenArray = npt.NDArray[Any]
"""uint16 or uint32."""
DTYPES = {"U16": np.dtype("<u2"), "U32": np.dtype("<u4")}


class Header(BaseModel):
    """What a shard says of itself."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int = FORMAT
    recipe: str
    """What it was made from: :attr:`optstudy.tokenizing.making.Recipe.digest`."""
    vocab_size: int
    split: str
    number: int
    start: tuple[int, int, int]
    """Place in the corpus of the first document (:class:`optstudy.text.Position`)."""
    stop: tuple[int, int, int]
    documents: int
    empty: int
    """Documents left out because they hold nothing but white space."""
    characters: int
    tokens: int
    max_id: int
    sha256: str
    """Of the arrays' bytes."""


class Damaged(Exception):
    """A shard that cannot be trusted; the text says why in one line."""


def pack(tokens: TokenArray, ends: npt.NDArray[np.uint32], **header: Any) -> tuple[Header, bytes]:
    """Return the header of a shard, and what its file holds."""
    body = tokens.tobytes() + ends.tobytes()
    described = Header(
        **header,
        tokens=tokens.size,
        documents=ends.size,
        max_id=int(tokens.max(initial=0)),
        sha256=hashlib.sha256(body).hexdigest(),
    )
    name = next(name for name, dtype in DTYPES.items() if dtype == tokens.dtype)
    layout = {
        "__metadata__": {"header": described.model_dump_json()},
        "tokens": {"dtype": name, "shape": [tokens.size], "data_offsets": [0, tokens.nbytes]},
        "ends": {"dtype": "U32", "shape": [ends.size], "data_offsets": [tokens.nbytes, len(body)]},
    }
    text = json.dumps(layout).encode()
    text += b" " * (-len(text) % 8)
    return described, len(text).to_bytes(8, "little") + text + body


@dataclass(frozen=True)
class Shard:
    """An opened shard; its arrays lie on the disk until they are read."""

    header: Header
    tokens: TokenArray
    ends: npt.NDArray[np.uint32]

    def check(self) -> None:
        """Read everything.

        Raises:
            Damaged: the arrays differ from what the header says.
        """
        if hashlib.sha256(self.tokens.tobytes() + self.ends.tobytes()).hexdigest() != self.header.sha256:
            raise Damaged("wrong checksum")
        if self.tokens.size and int(self.tokens.max()) >= self.header.vocab_size:
            raise Damaged(
                f"token {int(self.tokens.max())} is beyond the vocabulary of {self.header.vocab_size:,}"
            )


def open_shard(path: Path) -> Shard:
    """Map a shard.

    Raises:
        Damaged: no shard of this format, cut short, or with ids beyond the vocabulary.
    """
    try:
        with path.open("rb") as file:
            data = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype=np.uint8)
        size = int.from_bytes(data[:8].tobytes(), "little")
        layout = json.loads(data[8 : 8 + size].tobytes())
        header = Header.model_validate_json(layout["__metadata__"]["header"])
        tokens, ends = (_array(data[8 + size :], layout[name]) for name in ("tokens", "ends"))
    except ValidationError:
        raise Damaged(f"no token file of format {FORMAT}") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Damaged(f"no token file, or cut short ({error})") from None
    if header.format != FORMAT or (tokens.size, ends.size) != (header.tokens, header.documents):
        raise Damaged("its header contradicts itself")
    if header.max_id >= header.vocab_size:
        raise Damaged(f"token {header.max_id} is beyond the vocabulary of {header.vocab_size:,}")
    return Shard(header, tokens, ends)


def _array(body: npt.NDArray[np.uint8], entry: dict[str, Any]) -> Any:
    start, stop = entry["data_offsets"]
    if not 0 <= start <= stop <= body.size:
        raise ValueError("the data end early")
    return body[start:stop].view(DTYPES[entry["dtype"]])


class Stream:
    """The first ``limit`` tokens of several shards, as one array that is sliced."""

    def __init__(self, paths: Sequence[Path], counts: Sequence[int], limit: int | None) -> None:
        self.paths = list(paths)
        self.starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        total = int(self.starts[-1])
        self.limit = total if limit is None else min(limit, total)
        self._tokens = lru_cache(maxsize=OPEN_AT_ONCE)(self._map)

    def __len__(self) -> int:
        return self.limit

    def __getitem__(self, part: slice) -> TokenArray:
        start, stop, step = part.indices(self.limit)
        first = int(np.searchsorted(self.starts, start, side="right")) - 1
        found = []
        while start < stop:
            offset = int(self.starts[first])
            tokens = self._tokens(first)[start - offset : stop - offset]
            found.append(tokens)
            start += tokens.size
            first += 1
        array = found[0] if len(found) == 1 else np.concatenate(found or [np.empty(0, dtype=np.uint16)])
        return array[::step]

    def _map(self, number: int) -> TokenArray:
        try:
            return open_shard(self.paths[number]).tokens
        except Damaged as reason:
            raise UserError(f"{self.paths[number]}: {reason}; run `optstudy data prepare` again") from None
