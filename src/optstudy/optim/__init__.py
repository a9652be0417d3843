"""The paper's optimizers for any model: each is a ``torch.optim.Optimizer`` documented by its algorithm.

The public names are those of :data:`optstudy.optim.options.REGISTRY`; ``Preconditioned``, the rule behind
Adam, Adafactor and Adalayer; and ``Together``, which combines several optimizers. Torch is imported when a
class is first used, so that :mod:`optstudy.optim.options` can be read without it.
"""

from importlib import import_module
from typing import Any

from optstudy.optim.options import REGISTRY

_BESIDES = ("optstudy.optim.preconditioned.Preconditioned", "optstudy.optim.together.Together")
_TARGETS = (*_BESIDES, *(options.target for options in REGISTRY.values()))
_MODULES = {target.rpartition(".")[2]: target.rpartition(".")[0] for target in _TARGETS}

__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    """Import a public class from its module."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)
