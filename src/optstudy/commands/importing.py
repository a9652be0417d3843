"""Imports and tries other people's optimizers before anything runs; no other code is imported."""

from collections.abc import Iterable

from optstudy.config import RunConfig
from optstudy.program import AnyConfig, Program
from optstudy.recipes import CLASSES


def try_optimizers(configs: Iterable[AnyConfig]) -> None:
    """Import every class from other packages, and build it with its options on a small model.

    Raises:
        UserError: it cannot be imported or built; names the wrong config key.
    """
    tried: dict[str, RunConfig] = {}
    for config in configs:
        if isinstance(config, Program):
            continue
        chosen = config.optimizer
        if any(target not in CLASSES for target in chosen.targets):
            decays = chosen.weight_decay > 0
            tried.setdefault(repr((chosen.name, chosen.options, chosen.roles, decays)), config)
    if tried:
        from optstudy.training.build import try_on_a_small_model

        for config in tried.values():
            try_on_a_small_model(config)
