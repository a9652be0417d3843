"""Names of tokenizers: ``t5``, ``gpt2``, ``bpe-N``, files and those of the hub. Loads none."""

import re
from functools import lru_cache
from pathlib import Path

from optstudy import cache
from optstudy.data import files, hub
from optstudy.errors import UserError, nearest

PUBLISHED = ("t5", "gpt2")
SIZES = range(257, (1 << 16) + 1)
"""Vocabulary sizes that ``bpe-N`` may have: 256 bytes, the end token and more."""
ENDINGS = (".json", ".model")
"""Extensions of a ``tokenizer.json`` and a SentencePiece model, in upper or lower case."""


def pieces(name: str) -> int | None:
    """Return the N of ``bpe-N``; None for another name.

    Raises:
        UserError: N is not in :data:`SIZES`.
    """
    match = re.fullmatch(r"bpe-([0-9]+)", name)
    if match is None:
        return None
    written = match[1].lstrip("0") or "0"
    if len(written) > len(str(SIZES[-1])) or int(written) not in SIZES:
        raise UserError(f"{name[:80]}: pieces must be {SIZES[0]} to {SIZES[-1]}")
    return int(written)


def path(name: str) -> Path | None:
    """Return the file that a name refers to; None for ``t5``, ``gpt2`` and ``bpe-N``.

    Raises:
        UserError: no tokenizer has that name.
    """
    if name in PUBLISHED or pieces(name) is not None:
        return None
    if name.startswith(hub.PREFIX):
        return hub.parsed(name, "tokenizer").tokenizer()
    if not name.lower().endswith(ENDINGS):
        raise UserError(
            f"unknown tokenizer {name!r}"
            f"{nearest(name, [*PUBLISHED, 'bpe-2048', 'bpe-4096', 'bpe-8192'])}; "
            "or a tokenizer.json or SentencePiece .model file, or hf:OWNER/NAME@COMMIT"
        )
    return cache.expanded(name)


def fingerprint(name: str) -> str | None:
    """Return the first twelve hexadecimal digits of a tokenizer file's SHA-256, wherever it is stored.

    None for ``t5`` and ``gpt2``, whose files are pinned, and for ``bpe-N``, which depends on the corpus.
    A process reads the file once, and again if its size or times have changed.

    Raises:
        UserError: no tokenizer has that name, or its file cannot be read.
    """
    file = path(name)
    if file is None:
        return None
    status = files.regular(file)
    return _sha256(file.absolute(), status.st_size, status.st_mtime_ns, status.st_ctime_ns)[:12]


@lru_cache
def _sha256(file: Path, *_version: int) -> str:
    return files.sha256(file)
