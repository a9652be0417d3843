"""Imports and tries other people's classes before anything runs; no other code is imported."""

from collections.abc import Iterable

from optstudy.config import RunConfig
from optstudy.program import AnyConfig, Program
from optstudy.recipes import CLASSES


def try_code(configs: Iterable[AnyConfig]) -> None:
    """Import every class from other packages, build the models, and the optimizers on them.

    Optimizers of the paper's model, whose roles are known, are built on a small one.

    Raises:
        UserError: one cannot be imported or built, with the config key that is wrong.
    """
    small: dict[str, RunConfig] = {}
    own: dict[str, dict[str, RunConfig]] = {}
    for config in configs:
        if isinstance(config, Program):
            continue
        chosen, model = config.optimizer, config.model
        told = (chosen.name, chosen.options, chosen.roles, chosen.named, chosen.tied, chosen.weight_decay > 0)
        if model.name != "paper" or chosen.named:
            of_model = own.setdefault(repr((model, config.data.sequence_length)), {})
            of_model.setdefault(repr(told), config)
        elif any(target not in CLASSES for target in chosen.targets):
            small.setdefault(repr(told), config)
    if small or own:
        from optstudy.training import build, models

        for config in small.values():
            build.try_on_a_small_model(config)
        for of_model in own.values():
            made = models.try_out(next(iter(of_model.values())))
            for config in of_model.values():
                build.build_optimizer(made.module, config)
