"""Scales at which studies run, as partial configs.

A scale fixes precision and threads, so that a run's id means the same on every machine. The small scales
train on at least 20 tokens per parameter, not counting embedding and head; the paper's smallest uses 22.
"""

from collections.abc import Mapping
from typing import Any

from optstudy.errors import UserError, nearest


def _small(d_model: int, n_layers: int, pieces: int, length: int, batch: int, steps: int) -> dict[str, Any]:
    return {
        "data": {"corpus": "enwik8", "tokenizer": f"bpe-{pieces}", "sequence_length": length},
        "model": {
            "vocab_size": pieces,
            "d_model": d_model,
            "n_layers": n_layers,
            "n_heads": max(2, d_model // 64),
        },
        "training": {"steps": steps, "batch_size": batch, "precision": "float32", "threads": 1},
        "validation": {"sequences": 32_768 // length, "points": 5},
    }


def _paper(width: int, n_layers: int, steps: int, micro_batch: int) -> dict[str, Any]:
    """Appendix B and the released configs: C4, T5 vocabulary padded to 32,128, 256 x 512 tokens a batch."""
    return {
        "data": {
            "corpus": "c4",
            "tokenizer": "t5",
            "tokens": steps * 256 * 512,
            "sequence_length": 512,
        },
        "model": {
            "vocab_size": 32_128,
            "d_model": width,
            "n_layers": n_layers,
            "n_heads": width // 64,
        },
        "training": {
            "steps": steps,
            "batch_size": 256,
            "micro_batch_size": micro_batch,
            "precision": "bfloat16",
            "threads": 1,
        },
        "validation": {"sequences": 32_000, "points": 10},
    }


SCALES: Mapping[str, Mapping[str, Any]] = {
    "pico": _small(d_model=64, n_layers=2, pieces=2048, length=64, batch=16, steps=2_400),
    "nano": _small(d_model=128, n_layers=4, pieces=4096, length=128, batch=32, steps=4_000),
    "micro": _small(d_model=256, n_layers=6, pieces=8192, length=256, batch=32, steps=12_000),
    "pico-long": _small(d_model=64, n_layers=2, pieces=2048, length=64, batch=16, steps=9_600),
    "150m": _paper(1024, 12, 25_000, 128),
    "300m": _paper(1024, 24, 50_000, 128),
    "600m": _paper(1408, 24, 100_000, 64),
    "1.2b": _paper(2048, 24, 200_000, 64),
    "150m-long": _paper(1024, 12, 100_000, 128),
}
"""``pico`` takes about a minute on one core, ``nano`` minutes on a GPU, ``micro`` hours."""
SIZED = ("paper", "llama")
"""Models whose sizes a scale sets; for others it sets data, batch, steps and vocabulary."""
LONG = "-long"
"""Suffix of the name of a scale with runs four times as long."""


def for_any_model(scale: str) -> dict[str, Any]:
    """Return what a scale says whatever the model is: all but sizes."""
    chosen = SCALES[scale]
    return {**chosen, "model": {"vocab_size": chosen["model"]["vocab_size"]}}


def with_sizes(tree: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return nested settings with the sizes that their scale has for their model, where they say none."""
    model, scale = tree.get("model", {}), tree.get("scale")
    if not isinstance(model, Mapping) or not isinstance(scale, str) or scale not in SCALES:
        return tree
    if model.get("name", "paper") not in SIZED:
        return tree
    return {**tree, "model": {**SCALES[scale]["model"], **model}}


def layers(scale: str) -> tuple[str, ...]:
    """Names of the study-file entries that apply at a scale, last wins.

    ``pico-long`` uses the entries of ``pico``, then its own.
    """
    shorter = scale.removesuffix(LONG)
    return (scale,) if shorter == scale else (shorter, scale)


def check_scale(scale: Any, where: str = "") -> str:
    """Return ``scale`` if it exists.

    Raises:
        UserError: there is no such scale.
    """
    if not isinstance(scale, str) or scale not in SCALES:
        raise UserError(f"{where}unknown scale {scale!r}{nearest(str(scale), SCALES)}", "scale", scale)
    return scale
