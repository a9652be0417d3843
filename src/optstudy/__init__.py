"""optstudy: which optimizer, at what setting, and how safe is that choice?"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_LAZY = {
    "create_optimizer": "optstudy.training.build",
    "open_study": "optstudy.findings",
    "trial": "optstudy.trials",
}
"""Public names and the modules that define them; each is imported on first use."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
