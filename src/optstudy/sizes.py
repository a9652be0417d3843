"""How large a run's model is: parameters and FLOPs, by formula, or as counted before. Imports no torch.

An imported class is counted from its module by ``optstudy run`` (:mod:`optstudy.training.models`). What was
found is kept in the cache, so that commands that import no code of others know it too.
"""

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from optstudy import cache
from optstudy.config import RunConfig, forward_flops, parameter_count
from optstudy.errors import UserError
from optstudy.identity import plain
from optstudy.record import read_json, write_json


@dataclass(frozen=True)
class Size:
    """What a model has and does."""

    parameters: int
    forward_flops: float
    """Floating-point operations of matrix products per token, forward; a step takes three times that."""


def size_of(config: RunConfig) -> Size | None:
    """Return the size of a run's model; None: an imported class that was not counted yet."""
    if not config.model.imported:
        flops = forward_flops(config.model, config.data.sequence_length)
        return Size(parameter_count(config.model), flops)
    try:
        found = read_json(_path(config))
        return None if found is None else Size(int(found["parameters"]), float(found["forward_flops"]))
    except (UserError, KeyError, TypeError, ValueError):  # damaged: it is counted again
        return None


def keep(config: RunConfig, size: Size) -> None:
    """Keep what was counted of a run's model."""
    write_json(_path(config), asdict(size))


def _path(config: RunConfig) -> Path:
    model = config.model.model_dump(mode="json", exclude={"config"})
    text = json.dumps([plain(model), config.data.sequence_length], sort_keys=True)
    return cache.folder("sizes") / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
