"""The golden trajectories: how their parameters and gradients are made, and what a fingerprint is.

They record what the research code released with arXiv 2407.07972 does (github.com/rosieyzh/optimizers-llm,
commit a1f8a3f, Apache-2.0; SGDW is timm 1.0.31's) under PyTorch 2.13 on a CPU. They are data; no code was
copied.
"""

import gzip
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tests.device import DEVICE

FOLDER = Path(__file__).parent / "golden"
NAMES = sorted(path.name.removesuffix(".f64.json.gz") for path in FOLDER.glob("*.f64.json.gz"))
LIMITS = {"float64": (1e-10, 1e-10, 1e-10), "float32": (1e-4, 1e-6, 1e-5)}
"""Largest deviation of samples (of RMS; in float64 of the sample if larger), of L2, of the sum (of L2)."""


def read(name: str) -> dict[str, Any]:
    """One golden file."""
    return json.loads(gzip.decompress((FOLDER / f"{name}.json.gz").read_bytes()))


def initial(recipe: dict[str, Any], dtype: str) -> dict[str, Tensor]:
    """Parameters before the first step."""
    draw = np.random.RandomState(recipe["seed"]).standard_normal
    return {p["name"]: _tensor(recipe["init_scale"] * draw(p["shape"]), dtype) for p in recipe["params"]}


def gradients(recipe: dict[str, Any], step: int, dtype: str, hessian: bool = False) -> dict[str, Tensor]:
    """Gradients of one step; with ``hessian`` those that Sophia squares."""
    shapes = tuple(tuple(p["shape"]) for p in recipe["params"])
    drawn = _draw(1000 * recipe["seed"] + step + (500 if hessian else 0), shapes)
    result, zero = {}, recipe["zero_gradient"]
    for p, z in zip(recipe["params"], drawn, strict=True):
        g = p["grad_scale"] * z
        if p["name"] == recipe["head_row_scaling"]["name"]:
            g /= np.arange(1, len(g) + 1)[:, None]
        if not hessian and (step, p["name"]) == (zero["step"], zero["name"]):
            g = np.zeros_like(g)
        result[p["name"]] = _tensor(g, dtype)
    return result


@cache
def _draw(seed: int, shapes: tuple[tuple[int, ...], ...]) -> list[np.ndarray]:
    draw = np.random.RandomState(seed).standard_normal
    return [draw(shape) for shape in shapes]


def _tensor(x: np.ndarray, dtype: str) -> Tensor:
    return torch.from_numpy(x.astype(dtype)).to(DEVICE)


def excess(x: Tensor, golden: list[float], dtype: str) -> float:
    """Largest deviation of an array from its fingerprint, in units of what is allowed."""
    flat = x.detach().double().flatten().cpu().numpy()
    expected_sum, l2, *expected = golden
    n = flat.size
    positions = [*range(min(6, n)), *((2 * j + 1) * n // 12 for j in range(6))]
    expected = np.array(expected)
    unit = np.full_like(expected, l2 / np.sqrt(n))
    if dtype == "float64":
        unit = np.maximum(unit, np.abs(expected))
    deviations = (
        np.max(np.abs(flat[positions] - expected) / np.maximum(unit, 1e-300)),
        abs(np.linalg.norm(flat) - l2) / max(l2, 1e-300),
        abs(flat.sum() - expected_sum) / max(l2, 1e-300),
    )
    return max(deviation / limit for deviation, limit in zip(deviations, LIMITS[dtype], strict=True))
