"""``optstudy data``: prepare, list, verify, info, show."""

import os
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from optstudy import cache, text
from optstudy.batches import Batches
from optstudy.errors import UserError, nearest
from optstudy.tokenizing import shards, tokenizer
from optstudy.tokenizing.shards import Damaged, Stream
from optstudy.tokens import MANIFEST, Manifest, Split, read_manifest
from optstudy.tokens import prepare as make


def prepare(
    corpus: str, *, tokenizer: str = "t5", tokens: str | None = None, jobs: int | None = None
) -> None:
    """Turn a corpus to token files. What is there is checked and kept, so that it can be stopped at any time.

    Parameters
    ----------
    corpus
        A name that `optstudy data list` shows, or path: and a file or folder of text.
    tokenizer
        t5, gpt2, bpe-N (N pieces, trained on the corpus), a tokenizer.json or a SentencePiece .model file.
    tokens
        How many tokens to have for training, such as 3e9; all, if not given.
    jobs
        Processes that encode; one per core, if not given.
    """
    count = None if tokens is None else _count(tokens)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    made = make(corpus, tokenizer, tokens=count, jobs=_positive(cores if jobs is None else jobs), check=True)
    out = Console(highlight=False)
    for name, split in made.manifest.splits.items():
        out.print(f"{name}: {_summary(split)}", soft_wrap=True)
    out.print(str(made.folder), soft_wrap=True)


def list_() -> None:
    """Show the corpora that can be prepared, and the token sets that are."""
    out = Console(highlight=False)
    table = Table("corpus", "size", "licence", Column("source", overflow="fold"), box=None)
    for name, corpus in text.CORPORA.items():
        table.add_row(name, corpus.size, corpus.licence, corpus.source)
    out.print(table)
    sets = _sets()
    out.print(f"\n{len(sets)} token sets in {cache.folder('tokens')}", soft_wrap=True)
    if sets:
        table = Table(
            "set", "tokenizer", "train tokens", "validation tokens", "MB", box=None, header_style="bold"
        )
        for home, manifest in sets.items():
            counts = (f"{manifest.splits[split].tokens:,}" for split in text.SPLITS)
            size = sum(path.stat().st_size for path in home.iterdir()) / 1e6
            table.add_row(home.name, manifest.tokenizer, *counts, f"{size:,.1f}")
        out.print(table)


def info(name: str) -> None:
    """Show what a token set was made from and holds.

    Parameters
    ----------
    name
        A set that `optstudy data list` shows, or the beginning of its name.
    """
    home, manifest = _set(name)
    out = Console(highlight=False)
    facts = {
        "folder": str(home),
        "corpus": f"{manifest.corpus} (fingerprint {manifest.recipe.fingerprint})",
        "tokenizer": f"{manifest.tokenizer} (SHA-256 {manifest.recipe.tokenizer_sha256})",
        "vocabulary": f"{_vocabulary(manifest):,} ids",
    } | {split: _summary(manifest.splits[split]) for split in text.SPLITS}
    for key, value in facts.items():
        out.print(Text(f"{key:<15} {value}"), soft_wrap=True)


def verify(name: str | None = None) -> None:
    """Read token sets whole and compare them with their checksums.

    Parameters
    ----------
    name
        A set that `optstudy data list` shows, or the beginning of its name; all, if not given.
    """
    out = Console(highlight=False)
    broken = []
    for home, manifest in [_set(name)] if name else _sets().items():
        faults = _faults(home, manifest)
        out.print("\n".join(faults) or f"{home.name}: good", soft_wrap=True)
        if faults:
            broken.append(f"optstudy data prepare {manifest.corpus} --tokenizer {manifest.tokenizer}")
    if broken:
        raise UserError(f"damaged; this makes them again: {'; '.join(broken)}")


def show(
    name: str, *, sequences: int = 3, sequence_length: int = 64, split: str = "train", seed: int = 0
) -> None:
    """Decode a few sequences as a run would read them.

    Parameters
    ----------
    name
        A set that `optstudy data list` shows, or the beginning of its name.
    sequences
        How many.
    sequence_length
        Tokens of each.
    split
        train or validation.
    seed
        Of the order.
    """
    home, manifest = _set(name)
    if split not in manifest.splits:
        raise UserError(f"unknown split {split!r}{nearest(split, manifest.splits)}")
    held = manifest.splits[split].shards
    stream = Stream([home / shard for shard in held], [header.tokens for header in held.values()], None)
    batches = Batches(stream, _positive(sequence_length), _positive(sequences), seed)
    model = tokenizer.load(home / manifest.tokenizer_file).model
    out = Console(highlight=False)
    for number, ids in zip(batches.order(0), batches[0], strict=True):
        out.rule(f"sequence {number:,} of {len(batches):,}")
        out.print(Text(model.decode(ids.tolist(), skip_special_tokens=False)))


def _sets() -> dict[Path, Manifest]:
    found = {home: read_manifest(home) for home in sorted(cache.folder("tokens").iterdir())}
    return {home: manifest for home, manifest in found.items() if manifest is not None}


def _set(name: str) -> tuple[Path, Manifest]:
    sets = _sets()
    chosen = [home for home in sets if home.name.startswith(name)]
    if len(chosen) == 1:
        return chosen[0], sets[chosen[0]]
    if chosen:
        raise UserError(f"{name!r} begins several sets: {', '.join(home.name for home in chosen)}")
    raise UserError(f"no token set {name!r}{nearest(name, [home.name for home in sets])}")


def _faults(home: Path, manifest: Manifest) -> list[str]:
    vocabulary = home / manifest.tokenizer_file
    whole = vocabulary.exists() and tokenizer.identity(vocabulary) == manifest.recipe.tokenizer_sha256
    return ([] if whole else [f"{vocabulary}: missing, or wrong checksum"]) + [
        f"{home / shard}: {fault}"
        for split in manifest.splits.values()
        for shard, header in split.shards.items()
        if (fault := _fault(home / shard, header))
    ]


def _fault(path: Path, listed: shards.Header) -> str:
    """Say in one line what is wrong with a shard; nothing if it is good."""
    try:
        shard = shards.open_shard(path)
        shard.check()
    except Damaged as reason:
        return str(reason)
    return "" if shard.header == listed else f"not the shard that {MANIFEST} lists"


def _summary(split: Split) -> str:
    headers = split.shards.values()
    documents, empty = (sum(getattr(header, key) for header in headers) for key in ("documents", "empty"))
    return (
        f"{split.tokens:,} tokens of {documents:,} documents ({empty:,} empty ones left out), "
        f"{'the whole split' if split.complete else 'the beginning of the split'}, shards: {len(headers):,}"
    )


def _vocabulary(manifest: Manifest) -> int:
    return max(h.vocab_size for split in manifest.splits.values() for h in split.shards.values())


def _count(written: str) -> int:
    try:
        value = float(written.replace("_", ""))
    except ValueError:
        value = 0.0
    if not (value >= 1 and value.is_integer()):
        raise UserError(f"--tokens must be a whole number such as 3e9, not {written!r}")
    return int(value)


def _positive(value: int) -> int:
    if value < 1:
        raise UserError(f"a count must be at least 1, not {value}")
    return value
