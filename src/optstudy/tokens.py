"""Tokens: documents -> memory-mapped token files."""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from optstudy import cache, record, text
from optstudy.errors import UserError

BPE_CHARACTERS = 1 << 23
END = "<|endoftext|>"


@dataclass(frozen=True)
class Tokens:
    """A tokenised corpus."""

    train: npt.NDArray[Any]
    validation: npt.NDArray[Any]
    vocab_size: int


def prepare(corpus: str, tokenizer: str, progress: bool = True) -> Tokens:
    """Return the tokens of ``corpus``, made if they are not in the cache."""
    home = cache.folder("tokens", f"{corpus}-{text.fingerprint(corpus)}-{tokenizer}")
    files = {split: home / f"{split}.bin" for split in ("train", "validation")}
    with cache.locked(home / "lock"):
        model = _bpe(corpus, tokenizer, home / "tokenizer.json")
        for split, path in files.items():
            if not path.exists():
                record.write_atomically(path, _encode(model, text.documents(corpus, split)).tobytes())
    train, validation = (np.memmap(path, dtype=np.uint16, mode="r") for path in files.values())
    return Tokens(train, validation, model.get_vocab_size())


def _bpe(corpus: str, name: str, path: Path) -> Tokenizer:
    match = re.fullmatch(r"bpe-(\d+)", name)
    if match is None or not 257 < int(match[1]) <= 1 << 16:
        raise UserError(f"unknown tokenizer {name!r}; allowed: bpe-N with N from 258 to 65536")
    if path.exists():
        return Tokenizer.from_file(str(path))
    model = Tokenizer(models.BPE())
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=int(match[1]),
        special_tokens=[END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    model.train_from_iterator(_first(text.documents(corpus, "train"), BPE_CHARACTERS), trainer)
    record.write_atomically(path, model.to_str())
    return model


def _first(documents: Iterator[str], characters: int) -> Iterator[str]:
    for document in documents:
        yield document
        characters -= len(document)
        if characters <= 0:
            return


def _encode(model: Tokenizer, documents: Iterator[str]) -> npt.NDArray[np.uint16]:
    end = model.token_to_id(END)
    pieces = []
    while chunk := list(itertools.islice(documents, 512)):
        for encoding in model.encode_batch_fast(chunk, add_special_tokens=False):
            pieces.append(np.array([*encoding.ids, end], dtype=np.uint16))
    return np.concatenate(pieces)
