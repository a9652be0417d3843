"""``optstudy data``: prepare, list, verify, info, show."""

import json
import os
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from optstudy import cache, text
from optstudy.batches import Batches
from optstudy.commands.options import Json
from optstudy.errors import UserError, nearest
from optstudy.tokenizing import shards, tokenizer
from optstudy.tokenizing.shards import Damaged, Stream
from optstudy.tokens import MANIFEST, Manifest, Split, read_manifest
from optstudy.tokens import prepare as make


def prepare(
    corpus: str,
    *,
    tokenizer: str = "t5",
    tokens: str | None = None,
    jobs: int | None = None,
    json_: Json = False,
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
    json_
        For programs.
    """
    count = None if tokens is None else _count(tokens)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    made = make(corpus, tokenizer, tokens=count, jobs=_positive(cores if jobs is None else jobs), check=True)
    if json_:
        _write_json(_facts(made.folder, made.manifest))
        return
    out = Console(highlight=False)
    for name, split in made.manifest.splits.items():
        out.print(f"{name}: {_summary(split)}", soft_wrap=True)
    out.print(str(made.folder), soft_wrap=True)


def list_(*, json_: Json = False) -> None:
    """Show the corpora that can be prepared, and the token sets that are.

    Parameters
    ----------
    json_
        For programs.
    """
    sets, damaged = _sets()
    if json_:
        keys = ("size", "licence", "source")
        corpora = [
            {"corpus": name} | {key: getattr(corpus, key) for key in keys}
            for name, corpus in text.CORPORA.items()
        ]
        broken = [{"set": home.name, "reason": reason} for home, reason in damaged.items()]
        _write_json({"corpora": corpora, "sets": [_facts(*item) for item in sets.items()], "damaged": broken})
        return
    out = Console(highlight=False)
    table = Table("corpus", "size", "licence", Column("source", overflow="fold"), box=None)
    for name, corpus in text.CORPORA.items():
        table.add_row(name, corpus.size, corpus.licence, corpus.source)
    out.print(table)
    out.print(f"\n{len(sets)} token sets in {cache.folder('tokens')}", soft_wrap=True)
    if sets:
        table = Table(
            "set", "tokenizer", "train tokens", "validation tokens", "MB", box=None, header_style="bold"
        )
        for home, manifest in sets.items():
            counts = (f"{manifest.splits[split].tokens:,}" for split in text.SPLITS)
            table.add_row(home.name, manifest.tokenizer, *counts, f"{_bytes(home) / 1e6:,.1f}")
        out.print(table)
    for reason in damaged.values():
        out.print(Text(reason), soft_wrap=True)


def info(name: str, *, json_: Json = False) -> None:
    """Show what a token set was made from and holds.

    Parameters
    ----------
    name
        A set that `optstudy data list` shows, or the beginning of its name.
    json_
        For programs.
    """
    home, manifest = _set(name)
    if json_:
        _write_json(_facts(home, manifest))
        return
    out = Console(highlight=False)
    facts = {
        "folder": str(home),
        "corpus": f"{manifest.corpus} (fingerprint {manifest.recipe.fingerprint})",
        "tokenizer": f"{manifest.tokenizer} (SHA-256 {manifest.recipe.tokenizer_sha256})",
        "vocabulary": f"{_vocabulary(manifest):,} ids",
    } | {split: _summary(manifest.splits[split]) for split in text.SPLITS}
    for key, value in facts.items():
        out.print(Text(f"{key:<15} {value}"), soft_wrap=True)


def verify(name: str | None = None, *, json_: Json = False) -> None:
    """Read token sets whole and compare them with their checksums. Damage is exit code 2.

    Parameters
    ----------
    name
        A set that `optstudy data list` shows, or the beginning of its name; all, if not given.
    json_
        For programs.
    """
    sets, damaged = (dict([_set(name)]), dict[Path, str]()) if name else _sets()
    faults = {home: [reason] for home, reason in damaged.items()} | {
        home: _faults(home, manifest) for home, manifest in sets.items()
    }
    if json_:
        _write_json([{"set": home.name, "faults": found} for home, found in faults.items()])
    else:
        out = Console(highlight=False)
        for home, found in faults.items():
            out.print("\n".join(found) or f"{home.name}: good", soft_wrap=True)
    broken = [
        f"optstudy data prepare {sets[home].corpus} --tokenizer {sets[home].tokenizer}"
        for home, found in faults.items()
        if found and home in sets
    ]
    if broken:
        raise UserError(f"damaged; this makes them again: {'; '.join(broken)}")
    if damaged:
        raise UserError("; ".join(damaged.values()))


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


def _write_json(tree: Any) -> None:
    sys.stdout.write(json.dumps(tree, indent=1) + "\n")


def _bytes(home: Path) -> int:
    return sum(path.stat().st_size for path in home.iterdir())


def _facts(home: Path, manifest: Manifest) -> dict[str, Any]:
    """What a set is, for programs."""
    splits = {
        name: {
            "tokens": split.tokens,
            "documents": _total(split, "documents"),
            "empty": _total(split, "empty"),
            "characters": _total(split, "characters"),
            "complete": split.complete,
            "shards": list(split.shards),
        }
        for name, split in manifest.splits.items()
    }
    return {
        "set": home.name,
        "folder": str(home),
        "corpus": manifest.corpus,
        "tokenizer": manifest.tokenizer,
        "vocab_size": _vocabulary(manifest),
        "bytes": _bytes(home),
        "recipe": manifest.recipe.model_dump(),
        "splits": splits,
    }


def _homes() -> list[Path]:
    return sorted(cache.folder("tokens").iterdir())


def _sets() -> tuple[dict[Path, Manifest], dict[Path, str]]:
    """The token sets, and what is wrong with those whose manifest cannot be read."""
    sets, damaged = {}, {}
    for home in _homes():
        try:
            manifest = read_manifest(home)
        except UserError as error:
            damaged[home] = str(error)
        else:
            if manifest is not None:
                sets[home] = manifest
    return sets, damaged


def _set(name: str) -> tuple[Path, Manifest]:
    homes = [home for home in _homes() if (home / MANIFEST).exists()]
    chosen = [home for home in homes if home.name.startswith(name)]
    if len(chosen) > 1:
        raise UserError(f"{name!r} begins several sets: {', '.join(home.name for home in chosen)}")
    manifest = read_manifest(chosen[0]) if chosen else None
    if manifest is None:
        raise UserError(f"no token set {name!r}{nearest(name, [home.name for home in homes])}")
    return chosen[0], manifest


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
    return (
        f"{split.tokens:,} tokens of {_total(split, 'documents'):,} documents "
        f"({_total(split, 'empty'):,} empty ones left out), "
        f"{'the whole split' if split.complete else 'the beginning of the split'}, "
        f"shards: {len(split.shards):,}"
    )


def _total(split: Split, key: str) -> int:
    return sum(getattr(header, key) for header in split.shards.values())


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
