"""``optstudy data``: prepare, list, verify, info, show."""

import json
import shlex
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from optstudy import cache
from optstudy.commands.options import Json
from optstudy.commands.tables import show_table
from optstudy.data import files, shards, text, tokenizer
from optstudy.data.batches import Batches
from optstudy.data.shards import Damaged, ShardedStream
from optstudy.data.tokens import MANIFEST, Manifest, Split, read_manifest
from optstudy.data.tokens import prepare as make
from optstudy.errors import UserError, nearest, printable
from optstudy.launch.slots import cores

MOST_JOBS = 1024


def prepare(
    corpus: str,
    *,
    tokenizer: str = "t5",
    tokens: str | None = None,
    text_key: str = text.TEXT,
    end_token: str | None = None,
    jobs: int | None = None,
    json_: Json = False,
) -> None:
    """Convert a corpus to token files. Existing ones are checked and kept, so it can be stopped at any time.

    Parameters
    ----------
    corpus
        A name from `optstudy data list`; `path:` and a text file or folder; or a dataset of the
        Hugging Face hub, `hf:OWNER/NAME@COMMIT`.
    tokenizer
        `t5`, `gpt2`, `bpe-N` (N tokens, trained on the corpus), a `tokenizer.json`, a SentencePiece `.model`,
        or `hf:OWNER/NAME@COMMIT`.
    tokens
        Number of training tokens to make, such as 3e9; all, if not given or if there are fewer.
    text_key
        Key of a document's text in JSON lines and rows of the hub.
    end_token
        The tokenizer's piece that ends documents; by default a usual one that it has.
    jobs
        Number of encoding processes; one per core, if not given.
    json_
        Write JSON.
    """
    count = None if tokens is None else _count(tokens)
    jobs = _positive("--jobs", cores() if jobs is None else jobs)
    if jobs > MOST_JOBS:
        raise UserError(f"--jobs: at most {MOST_JOBS:,}, not {jobs:,}")
    made = make(
        text.corpus(corpus, text_key),
        tokenizer,
        tokens=count,
        fewer=True,
        jobs=jobs,
        check=True,
        end_token=end_token,
    )
    if json_:
        _write_json(_facts(made.folder, made.manifest))
        return
    out = _console()
    for name, split in made.manifest.splits.items():
        out.print(f"{name}: {_summary(split)}", soft_wrap=True)
    if count is not None and len(made.train) < count:
        out.print(f"these are all training tokens; {count:,} were requested", soft_wrap=True)
    out.print(printable(made.folder), soft_wrap=True)


def list_(*, json_: Json = False) -> None:
    """Show the available corpora, and the existing token sets.

    Parameters
    ----------
    json_
        Write JSON.
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
    about = [(name, corpus.size, corpus.licence, corpus.source) for name, corpus in text.CORPORA.items()]
    show_table(("corpus", "size", "licence", "source"), about)
    out = _console()
    out.print(f"\n{len(sets)} token sets in {printable(cache.folder('tokens'))}", soft_wrap=True)
    if sets:
        rows = [
            (
                home.name,
                manifest.tokenizer,
                *(f"{manifest.splits[split].tokens:,}" for split in text.SPLITS),
                f"{_bytes(home) / 1e6:,.1f}",
            )
            for home, manifest in sets.items()
        ]
        show_table(("set", "tokenizer", "train tokens", "validation tokens", "MB"), rows, right=(2, 3, 4))
    for reason in damaged.values():
        out.print(reason, soft_wrap=True)


def info(name: str, *, json_: Json = False) -> None:
    """Show what a token set was made from and what it contains.

    Parameters
    ----------
    name
        A set from `optstudy data list`, or the beginning of its name.
    json_
        Write JSON.
    """
    home, manifest = _set(name)
    if json_:
        _write_json(_facts(home, manifest))
        return
    out = _console()
    facts = {
        "folder": printable(home),
        "corpus": f"{manifest.corpus} (fingerprint {manifest.recipe.fingerprint})",
        "tokenizer": f"{manifest.tokenizer} (SHA-256 {manifest.recipe.tokenizer_sha256})",
        "vocabulary": f"{_vocabulary(manifest):,} ids",
    } | {split: _summary(manifest.splits[split]) for split in text.SPLITS}
    for key, value in facts.items():
        out.print(f"{key:<15} {value}", soft_wrap=True)


def verify(name: str | None = None, *, json_: Json = False) -> None:
    """Read token sets completely and compare them with their checksums. Damage gives exit code 2.

    Parameters
    ----------
    name
        A set from `optstudy data list`, or the beginning of its name; all, if not given.
    json_
        Write JSON.
    """
    sets, damaged = (dict([_set(name)]), dict[Path, str]()) if name else _sets()
    faults = {home: [reason] for home, reason in damaged.items()} | {
        home: _faults(home, manifest) for home, manifest in sets.items()
    }
    if json_:
        _write_json([{"set": home.name, "faults": found} for home, found in faults.items()])
    else:
        out = _console()
        for home, found in faults.items():
            out.print("\n".join(found) or f"{home.name}: good", soft_wrap=True)
    broken = [_again(sets[home]) for home, found in faults.items() if found and home in sets]
    if broken:
        raise UserError(f"damaged; make them again with: {'; '.join(broken)}")
    if damaged:
        raise UserError("; ".join(damaged.values()))


def _again(manifest: Manifest) -> str:
    """Return the command that makes a token set."""
    words = ["optstudy", "data", "prepare", manifest.corpus, "--tokenizer", manifest.tokenizer]
    told = {"--text-key": manifest.text_key, "--end-token": manifest.recipe.end_token}
    return shlex.join([*words, *(word for key, value in told.items() if value for word in (key, value))])


def show(
    name: str, *, sequences: int = 3, sequence_length: int = 64, split: str = "train", seed: int = 0
) -> None:
    """Decode a few sequences as a run reads them.

    Parameters
    ----------
    name
        A set from `optstudy data list`, or the beginning of its name.
    sequences
        Number of sequences.
    sequence_length
        Tokens per sequence.
    split
        `train` or `validation`.
    seed
        Seed of the order, as in a run.
    """
    home, manifest = _set(name)
    if split not in manifest.splits:
        raise UserError(f"unknown split {split!r}{nearest(split, manifest.splits)}")
    held = manifest.splits[split].shards
    stream = ShardedStream(
        [home / shard for shard in held], [header.tokens for header in held.values()], None
    )
    there = len(stream) // _positive("--sequence-length", sequence_length)
    batches = Batches(stream, sequence_length, min(_positive("--sequences", sequences), max(there, 1)), seed)
    model = tokenizer.load(home / manifest.tokenizer_file, manifest.recipe.end_token).model
    out = _console()
    for number, ids in zip(batches.order(0), batches[0], strict=True):
        out.rule(f"sequence {number:,} of {len(batches):,}")
        out.print(Text(model.decode(ids.tolist(), skip_special_tokens=False)))


def _console() -> Console:
    """Return a console that prints text unchanged, since a name may contain brackets."""
    return Console(highlight=False, markup=False)


def _write_json(tree: Any) -> None:
    sys.stdout.write(json.dumps(tree, indent=1) + "\n")


def _bytes(home: Path) -> int:
    return sum(path.stat().st_size for path in home.iterdir())


def _facts(home: Path, manifest: Manifest) -> dict[str, Any]:
    """Return the facts about a set as JSON for programs."""
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
    """Return the token sets, and an error for each one whose manifest cannot be read."""
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
        raise UserError(f"several token sets start with {name!r}: {', '.join(home.name for home in chosen)}")
    manifest = read_manifest(chosen[0]) if chosen else None
    if manifest is None:
        raise UserError(f"no token set {name!r}{nearest(name, [home.name for home in homes])}")
    return chosen[0], manifest


def _faults(home: Path, manifest: Manifest) -> list[str]:
    vocabulary = home / manifest.tokenizer_file
    whole = vocabulary.exists() and files.sha256(vocabulary) == manifest.recipe.tokenizer_sha256
    return ([] if whole else [f"{vocabulary}: missing, or wrong checksum"]) + [
        f"{home / shard}: {fault}"
        for split in manifest.splits.values()
        for shard, header in split.shards.items()
        if (fault := _fault(home / shard, header))
    ]


def _fault(path: Path, listed: shards.Header) -> str:
    """Return what is wrong with a shard in one line; an empty text if it is good."""
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


def _positive(option: str, value: int) -> int:
    if value < 1:
        raise UserError(f"{option}: input should be at least 1, not {value}")
    return value
