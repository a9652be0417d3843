"""Text: corpora by name, each with its source, licence, size and identity, and the user's own files.

A corpus is a sequence of sources (files), each a sequence of documents. Its validation split is fixed: the
source's own where it has one, else the second of every twenty documents.
"""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import NamedTuple

from optstudy import cache
from optstudy.data import enwik8, files, held_out, wikitext
from optstudy.data.hub import PREFIX, HubFiles, HubName, numbered, parsed
from optstudy.errors import UserError, nearest, printable

SPLITS = ("train", "validation")
TEXT = "text"
"""The key of a document's text where nothing else is said."""


class Source(NamedTuple):
    """One file's documents."""

    name: str
    documents: Callable[[], Iterator[str]]


class Position(NamedTuple):
    """A position between two documents of a split."""

    source: int
    """Number of the source."""
    document: int
    """Number of documents of that source before it."""
    total: int
    """Number of documents of all sources before it."""


START = Position(0, 0, 0)


@dataclass(frozen=True)
class Corpus:
    """A corpus: its description and its documents. :func:`corpus` returns one; callers pass it on."""

    name: str
    """The name that :func:`corpus` accepts."""
    source: str
    licence: str
    size: str
    identity: str
    """Checksum or revision of the source, and version of the cleaning."""
    sources: Callable[[str], list[Source]]
    """Sources of a split."""
    splits_itself: bool = True
    """The splits have different sources; else they share them, and one of twenty documents is held out."""
    large: bool = False
    """Too large to use whole: the user must give the number of tokens."""
    text_key: str = TEXT
    """The key of the text, of JSON lines and rows of the hub."""

    @property
    def fingerprint(self) -> str:
        """Hash that identifies the cleaned text, wherever it is stored: twelve hexadecimal digits."""
        return hashlib.sha256(self.identity.encode()).hexdigest()[:12]

    def check_unchanged(self) -> None:
        """Check its files again: anything made from them is invalid if they changed meanwhile.

        Raises:
            UserError: they differ from those that :func:`corpus` saw.
        """
        if corpus(self.name, self.text_key).identity != self.identity:
            raise UserError(f"{printable(self.name)}: its files changed while they were read; run again")

    def documents(self, split: str) -> Iterator[str]:
        """Yield the documents of a split, ``train`` or ``validation``.

        Raises:
            UserError: an unknown split, or text that is not available or cannot be read.
        """
        return (document for _, document in self.read(split))

    def read(self, split: str, start: Position = START) -> Iterator[tuple[Position, str]]:
        """Yield each document of a split after ``start``, with the position after it."""
        if split not in SPLITS:
            raise UserError(f"unknown split {split!r}{nearest(split, SPLITS)}")
        total = start.total
        for number, source in enumerate(self.sources(split)):
            if number < start.source:
                continue
            before = start.document if number == start.source else 0
            for count, document in enumerate(islice(source.documents(), before, None), before + 1):
                here = self.splits_itself or held_out(total) == (split == "validation")
                total += 1
                if here:
                    yield Position(number, count, total), document


def _enwik8(split: str) -> list[Source]:
    path = enwik8.prepare()[split]
    return [Source(path.name, partial(files.documents, path))]


def _hub(hub: HubFiles, split: str) -> list[Source]:
    return [Source(name, partial(hub.texts, name)) for name in hub.names[split]]


def _articles(hub: HubFiles, split: str) -> list[Source]:
    """Join the lines of WikiText, across its files, to articles: each starts with a level-one heading."""

    def documents() -> Iterator[str]:
        held: list[str] = []
        for line in (line for name in hub.names[split] for line in hub.texts(name)):
            if line.startswith(" = ") and not line.startswith(" = = ") and held:
                yield "".join(held).strip()
                held = []
            held.append(line)
        yield "".join(held).strip()

    return [Source(f"{split} of {hub.root}", documents)]


C4 = HubFiles(
    "hf://datasets/allenai/c4@1588ec454efa1a09f29cd18ddd04fe05fc8653a2",
    "json",
    {
        "train": numbered("en/c4-train.{:05d}-of-{:05d}.json.gz", 1024),
        "validation": numbered("en/c4-validation.{:05d}-of-{:05d}.json.gz", 8),
    },
)
WIKITEXT = HubFiles(
    "hf://datasets/Salesforce/wikitext@b08601e04326c79dfdd32d625aee71d232d685c3",
    "parquet",
    {
        "train": numbered("wikitext-103-raw-v1/train-{:05d}-of-{:05d}.parquet", 2),
        "validation": numbered("wikitext-103-raw-v1/validation-{:05d}-of-{:05d}.parquet", 1),
    },
)
_FINEWEB_FILES = numbered("sample/10BT/{:03d}_00000.parquet", 15)
FINEWEB = HubFiles(
    "hf://datasets/HuggingFaceFW/fineweb@9bb295ddab0e05d785b879661af7260fed5140fc",
    "parquet",
    {"train": _FINEWEB_FILES, "validation": _FINEWEB_FILES},
)

_REGISTERED = (
    Corpus(
        name="enwik8",
        source=enwik8.URL,
        licence="GFDL and CC BY-SA",
        size="10^8 bytes of dump, 73 MB of prose in 8,655 articles",
        identity=f"md5:{enwik8.MD5} cleaning:{wikitext.CLEANING}",
        sources=_enwik8,
    ),
    Corpus(
        name="c4",
        source=C4.root,
        licence="ODC-BY",
        size="305 GB of json.gz, 364,868,892 documents",
        identity=C4.root,
        sources=partial(_hub, C4),
        large=True,
    ),
    Corpus(
        name="wikitext-103",
        source=WIKITEXT.root,
        licence="CC BY-SA 3.0 and GFDL",
        size="540 MB of text in 28,475 articles",
        identity=WIKITEXT.root,
        sources=partial(_articles, WIKITEXT),
    ),
    Corpus(
        name="fineweb",
        source=f"{FINEWEB.root} (sample-10BT)",
        licence="ODC-BY",
        size="about 10^10 GPT-2 tokens",
        identity=FINEWEB.root,
        sources=partial(_hub, FINEWEB),
        splits_itself=False,
        large=True,
    ),
)
CORPORA = {corpus.name: corpus for corpus in _REGISTERED}


def corpus(name: str | Corpus, text_key: str = TEXT) -> Corpus:
    """Return a registered corpus, or the one that a name stands for; a corpus stands for itself.

    ``path:FILE_OR_FOLDER`` are local files: in a folder, those whose relative path has the word
    ``validation`` are the validation split. ``hf:OWNER/NAME@COMMIT``, or ``hf:OWNER/NAME:SUBSET@COMMIT``, is
    the split ``train`` of a dataset of the Hugging Face hub.

    Args:
        name: of the corpus.
        text_key: the key of the text, of JSON lines and rows of the hub.

    Raises:
        UserError: an unknown name, files that cannot be read or hold no text, or a key where there are none.
    """
    if isinstance(name, Corpus):
        return name
    if name == "path:":
        raise UserError("path: needs a file or folder after it")
    if name.startswith("path:"):
        return _local(name, text_key)
    if name.startswith(PREFIX):
        return _of_hub(parsed(name, "dataset"), text_key)
    if name not in CORPORA:
        raise UserError(
            f"unknown corpus {name!r}{nearest(name, CORPORA)}; or path: and a file or folder, or "
            "hf:OWNER/NAME@COMMIT"
        )
    if text_key != TEXT:
        raise UserError(f"{name} has no key {text_key!r}; leave it out", "data.text_key", text_key)
    return CORPORA[name]


def _of_hub(named: HubName, text_key: str) -> Corpus:
    return Corpus(
        name=str(named),
        source=f"https://huggingface.co/datasets/{named.repository}",
        licence="see its page",
        size="see its page",
        identity=f"{named} {text_key}",
        sources=lambda split: [Source(str(named), partial(named.texts, text_key))],
        splits_itself=False,
        large=True,
        text_key=text_key,
    )


def _local(name: str, text_key: str) -> Corpus:
    written = cache.joined(name.removeprefix("path:"))
    root = cache.expanded(written)
    digests = files.digests(root)
    held_out = {name for name in digests if "validation" in name}
    splits_itself = 0 < len(held_out) < len(digests)
    if text_key != TEXT and not any(files.ending(root / name) in files.LINES for name in digests):
        said = f"{printable(root)}: plain text has no key {text_key!r}; leave it out"
        raise UserError(said, "data.text_key", text_key)

    def sources(split: str) -> list[Source]:
        chosen = (n for n in digests if not splits_itself or (n in held_out) == (split == "validation"))
        return [Source(name, partial(files.documents, root / name, text_key)) for name in chosen]

    megabytes = sum((root / name).stat().st_size for name in digests) / 1e6
    contents = [
        (files.ending(root / name) in files.LINES, splits_itself and name in held_out, digest)
        for name, digest in digests.items()
    ]
    return Corpus(
        name=f"path:{written}",
        source=printable(root),
        licence="the owner's",
        size=f"{megabytes:,.1f} MB in {len(digests):,} files",
        identity=f"reading:{files.READING} {contents}" + (f" key:{text_key}" if text_key != TEXT else ""),
        sources=sources,
        splits_itself=splits_itself,
        text_key=text_key,
    )


def fingerprint(name: str | Corpus, text_key: str = TEXT) -> str:
    """Return :attr:`Corpus.fingerprint` of a corpus, given as an object or by name.

    Raises:
        UserError: an unknown corpus, or a file that cannot be read.
    """
    return corpus(name, text_key).fingerprint


def documents(name: str | Corpus, split: str) -> Iterator[str]:
    """Yield the documents of a split, ``train`` or ``validation``, of a corpus or of its name."""
    return corpus(name).documents(split)
