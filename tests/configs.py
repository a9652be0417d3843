"""Small configs for tests, and the run folders made of them."""

from pathlib import Path
from typing import Any

from optstudy.config import RunConfig, merge, resolve
from optstudy.folders import settle
from optstudy.record import read_metrics, write_json

TINY = {
    "scale": "pico",
    "data": {"corpus": "enwik8", "fingerprint": "0", "tokenizer": "bpe-2048", "sequence_length": 16},
    "model": {"vocab_size": 2048, "d_model": 8, "n_layers": 2, "n_heads": 2},
    "optimizer": {"name": "adam", "lr": 1e-2},
    "training": {"steps": 20, "batch_size": 4, "precision": "float32", "threads": 1},
    "validation": {"sequences": 8, "points": 2},
}


def tiny(**overrides: Any) -> RunConfig:
    """A config that trains in a fraction of a second, on a corpus that need not exist."""
    return resolve(TINY, overrides)


def tiny_on(corpus: str, **overrides: Any) -> RunConfig:
    """The same on a real corpus."""
    return settle(merge(TINY, {"data.corpus": corpus, **overrides}))


def folder_of(config: RunConfig, parent: Path) -> Path:
    """A run folder, ready to be trained."""
    folder = parent / config.id
    folder.mkdir(parents=True)
    write_json(folder / "config.json", config.model_dump(mode="json"))
    return folder


def losses(folder: Path) -> list[tuple[int, float | None, float | None]]:
    """What a run's metrics say, without times."""
    return [(row["step"], row.get("loss"), row.get("val_loss")) for row in read_metrics(folder)]
