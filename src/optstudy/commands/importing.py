"""Optimizers of others are imported and tried before anything runs; of all else no code is imported."""

from collections.abc import Iterable

from optstudy.config import RunConfig
from optstudy.program import AnyConfig, Program
from optstudy.recipes import CLASSES


def try_optimizers(configs: Iterable[AnyConfig]) -> None:
    """Import every class of others, and build it with its options on a small model.

    Raises:
        UserError: it cannot be imported or built, with the config key that is wrong.
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
