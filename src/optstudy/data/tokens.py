"""Token sets: documents -> token files.

A token set is a folder in the cache with the shards of both splits and ``tokens.json``, which lists them.
Shards cover fixed ranges of the text, so their bytes depend only on the corpus and the tokenizer, not on the
number of processes that wrote them or on interruptions. Existing shards are kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, field_validator

from optstudy import cache, record
from optstudy.data import VALIDATION_EVERY, files, making, text, tokenizer
from optstudy.data.making import Recipe
from optstudy.data.shards import Header, ShardedStream
from optstudy.data.text import Corpus
from optstudy.errors import UserError, first_line, printable

VALIDATION_TOKENS = 1 << 24
"""Maximum number of tokens of the validation split (the paper reads 16,384,000)."""
MANIFEST = "tokens.json"


class Split(BaseModel):
    """The shards of one split, in order."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    complete: bool
    """Whether they contain the whole split."""
    shards: dict[str, Header]

    @property
    def tokens(self) -> int:
        """Number of tokens in all shards."""
        return sum(header.tokens for header in self.shards.values())

    def holds(self, wanted: int | None) -> bool:
        """Return whether there are at least ``wanted`` tokens, or the whole split."""
        return self.complete or (wanted is not None and self.tokens >= wanted)


class Manifest(BaseModel):
    """The contents of ``tokens.json``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    corpus: str
    tokenizer: str
    tokenizer_file: str
    """A copy of the tokenizer's file, in the same folder."""
    recipe: Recipe
    text_key: str | None = None
    """The key of the text, where it is not the usual one."""
    splits: dict[str, Split]

    @field_validator("splits")
    @classmethod
    def _has_both(cls, splits: dict[str, Split]) -> dict[str, Split]:
        if set(splits) != set(text.SPLITS):
            raise ValueError("there must be a train and a validation split")
        return splits


@dataclass(frozen=True)
class Tokens:
    """A tokenised corpus."""

    train: ShardedStream
    validation: ShardedStream
    vocab_size: int
    folder: Path
    manifest: Manifest


def prepare(
    corpus: Corpus | str,
    tokenizer_name: str,
    progress: bool = True,
    *,
    tokens: int | None = None,
    fewer: bool = False,
    jobs: int = 1,
    check: bool = False,
    end_token: str | None = None,
    shard_characters: int = making.SHARD_CHARACTERS,
) -> Tokens:
    """Return the tokens of a corpus; they are created if they are not in the cache.

    Args:
        corpus: a corpus, or a name that :func:`optstudy.data.text.corpus` knows.
        tokenizer_name: a name that :func:`optstudy.data.tokenizer.file` knows.
        progress: show progress, if standard error is a terminal.
        tokens: number of tokens from the start of the train split; None: all.
        fewer: use all if the train split has fewer than ``tokens``.
        jobs: number of encoding processes; with one, the tokenizer uses its own threads.
        end_token: see :func:`optstudy.data.tokenizer.load`.
        check: read every existing shard, and recreate damaged ones.
        shard_characters: see :data:`optstudy.data.making.SHARD_CHARACTERS`.

    Raises:
        UserError: text or tokenizer is not available, the corpus is too large to use whole, or it has
            fewer tokens than requested.
    """
    making.check_jobs(jobs)
    corpus = text.corpus(corpus)
    if tokens is None and corpus.large:
        raise UserError(f"{corpus.name} is too large to take whole: say how many tokens, such as 3e9")
    path = tokenizer.file(tokenizer_name, corpus)
    recipe = Recipe(
        fingerprint=corpus.fingerprint,
        tokenizer_sha256=files.sha256(path),
        shard_characters=shard_characters,
        encoding=making.ENCODING,
        end_token=end_token,
    )
    home = cache.folder("tokens", f"{_slug(corpus.name)}-{_slug(tokenizer_name)}-{recipe.digest}")
    wanted = {"train": tokens, "validation": VALIDATION_TOKENS}
    manifest = read_manifest(home)
    if manifest is None or check or not all(manifest.splits[s].holds(n) for s, n in wanted.items()):
        with cache.locked(home / "lock"):
            record.remove_leftovers(home)
            old = read_manifest(home)
            splits = {
                name: _make(making.Work(corpus, name, recipe, path, home, jobs, progress), count, old)
                for name, count in wanted.items()
            }
            corpus.check_unchanged()
            manifest = Manifest(
                corpus=printable(corpus.name),
                tokenizer=printable(tokenizer_name),
                tokenizer_file=f"tokenizer{path.suffix.lower()}",
                recipe=recipe,
                text_key=None if corpus.text_key == text.TEXT else corpus.text_key,
                splits=splits,
            )
            record.write_atomically(home / manifest.tokenizer_file, path.read_bytes())
            record.write_atomically(
                home / MANIFEST, manifest.model_dump_json(indent=1, exclude_none=True) + "\n"
            )
    made = _open(home, manifest, wanted)
    if tokens is not None and len(made.train) < tokens and not fewer:
        raise UserError(
            f"data.tokens: {printable(corpus.name)} has {len(made.train):,} training tokens with "
            f"{printable(tokenizer_name)}, not {tokens:,}; ask for fewer, or leave it out to take all"
        )
    return made


def _make(work: making.Work, wanted: int | None, old: Manifest | None) -> Split:
    """Create the missing shards of a split; listed shards stay."""
    before = old.splits[work.split] if old else Split(complete=False, shards={})
    headers = making.make(work, wanted, len(before.shards), before.complete)
    found = Split(complete=False, shards={making.name(work.split, h.number): h for h in headers})
    complete = before.complete or wanted is None or found.tokens < wanted
    return found.model_copy(update={"complete": complete})


def _open(home: Path, manifest: Manifest, wanted: Mapping[str, int | None]) -> Tokens:
    """Open both splits, at most as many tokens of each as wanted; None: all."""
    streams = {}
    for name, split in manifest.splits.items():
        counts = [header.tokens for header in split.shards.values()]
        streams[name] = ShardedStream([home / shard for shard in split.shards], counts, wanted[name])
        if not len(streams[name]):
            raise UserError(
                f"{manifest.corpus}: its {name} split holds no text; the second of every "
                f"{VALIDATION_EVERY} documents is for validation, so there must be at least two"
            )
    header = next(iter(manifest.splits["train"].shards.values()))
    return Tokens(streams["train"], streams["validation"], header.vocab_size, home, manifest)


def read_manifest(home: Path) -> Manifest | None:
    """Return the manifest of a token set; None if it has none yet.

    Raises:
        UserError: it is damaged, or from another version.
    """
    try:
        return Manifest.model_validate_json((home / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(
            f"{printable(home / MANIFEST)}: cannot be read ({first_line(error)}); delete it and run again"
        ) from None


def _slug(name: str) -> str:
    base = Path(name.removeprefix("path:")).name
    return "".join(c if c.isalnum() else "-" for c in base)[:40]
