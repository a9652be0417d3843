"""Text: corpora by name, each with its source, licence, size and identity, and what anyone has in files."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass

from optstudy import enwik8, wikitext
from optstudy.errors import UserError, nearest


@dataclass(frozen=True)
class Corpus:
    """A registered corpus."""

    source: str
    licence: str
    size: str
    identity: str
    """Checksum of the source and version of the cleaning."""


CORPORA: dict[str, Corpus] = {
    "enwik8": Corpus(
        source=enwik8.URL,
        licence="GFDL and CC BY-SA",
        size="10^8 bytes; 73 MB of prose in 8,655 articles",
        identity=f"md5:{enwik8.MD5} cleaning:{wikitext.CLEANING}",
    ),
}


def fingerprint(corpus: str) -> str:
    """Return twelve hexadecimal digits that say what the cleaned text is."""
    if corpus not in CORPORA:
        raise UserError(f"unknown corpus {corpus!r}{nearest(corpus, CORPORA)}, or path: and a file or folder")
    return hashlib.sha256(f"{corpus} {CORPORA[corpus].identity}".encode()).hexdigest()[:12]


def documents(corpus: str, split: str) -> Iterator[str]:
    """Yield the documents of a split, ``train`` or ``validation``."""
    fingerprint(corpus)
    with enwik8.prepare()[split].open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)["text"]
