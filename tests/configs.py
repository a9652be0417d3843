"""Small configs for tests."""

from optstudy.config import RunConfig, resolve

TINY = {
    "scale": "pico",
    "data": {"corpus": "enwik8", "fingerprint": "0", "tokenizer": "bpe-2048", "sequence_length": 16},
    "model": {"vocab_size": 2048, "d_model": 8, "n_layers": 2, "n_heads": 2},
    "optimizer": {"name": "adam", "lr": 1e-2},
    "training": {"steps": 20, "batch_size": 4, "precision": "float32", "threads": 1},
    "validation": {"sequences": 8, "points": 2},
}


def tiny(**overrides) -> RunConfig:
    return resolve(TINY, overrides)
