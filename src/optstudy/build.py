"""A model and a config -> the optimizer that a run steps.

What a trainer does with it, whatever its name:

1. At every step it sets ``group["lr"] = group["peak_lr"] * share`` for each group, share in [0, 1].
2. If the optimizer has a method ``update_hessian``, then after the parameter step of each ``step`` (from 0)
   with ``step % training.hessian_interval == training.hessian_interval - 1`` it draws labels from the
   model's own output on that step's batch, takes the gradient of their mean cross-entropy (micro-batches
   averaged, no z-loss), clips it like any gradient, and calls the method.
"""

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn
from torch.optim.optimizer import Optimizer

from optstudy.config import RunConfig
from optstudy.errors import UserError
from optstudy.optim import Together
from optstudy.optimizers import ROLES, check_freeze, options_of, spec_of
from optstudy.roles import param_groups
from optstudy.signature import require, signature


def build_optimizer(model: nn.Module, config: RunConfig) -> Optimizer:
    """Return the config's optimizer over the model's parameters; every group has its ``peak_lr``.

    Weight decay is independent (Wortsman et al. 2023): the coefficient that multiplies the learning rate is
    ``optimizer.weight_decay / optimizer.lr``, also for groups with a peak of their own.

    Raises:
        UserError: a class or option that does not exist, or roles that the model does not have.
    """
    chosen = config.optimizer
    check_freeze(chosen.options, chosen.roles, config.schedule.freeze_steps)
    rules = {role: _whole(options_of(role, chosen.roles), config) for role in ROLES}
    if "head" not in chosen.roles:
        rules["rest"] = rules.pop("head")  # asked of no one: a tied head is no error
    groups = param_groups(model, rules)
    by_class: dict[str, list[dict[str, Any]]] = {}
    for group in groups:
        by_class.setdefault(spec_of(group.pop("name")).target, []).append(group)
    parts = [_construct(target, own, config) for target, own in by_class.items()]
    if not parts:
        raise UserError("optimizer.roles: every parameter is 'train: false', nothing is left to train")
    optimizer = parts[0] if len(parts) == 1 else Together(parts)
    for group in optimizer.param_groups:
        group["peak_lr"] = group["lr"]
    return optimizer


def _whole(own: Mapping[str, Any], config: RunConfig) -> dict[str, Any]:
    """Return all options of one rule, with what the run itself decides."""
    chosen = config.optimizer
    base = {} if "name" in own else {"name": chosen.name, **chosen.options}
    whole = {"lr": chosen.lr, **base, **own}
    tokens = config.training.batch_size * config.data.sequence_length
    for key, value in {"estimate_steps": config.schedule.freeze_steps, "batch_tokens": tokens}.items():
        if key in whole and whole[key] is None:
            whole[key] = value
    return whole


def _construct(target: str, groups: list[dict[str, Any]], config: RunConfig) -> Optimizer:
    """Return an instance of the class at an import path."""
    require(target)
    module, _, name = target.rpartition(".")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"optimizer {target!r} cannot be imported: {error}") from None
    if not (isinstance(cls, type) and issubclass(cls, Optimizer)):
        raise UserError(f"optimizer {target!r} is no torch.optim.Optimizer")
    decay = config.optimizer.weight_decay / config.optimizer.lr
    known = signature(target)
    takes = known.names if known else inspect.signature(cls).parameters
    if "weight_decay" in takes:
        groups = [{"weight_decay": decay, **group} for group in groups]
    elif decay:
        raise UserError(f"optimizer {target!r} takes no weight_decay; leave optimizer.weight_decay at 0")
    options = {key: value for key, value in groups[0].items() if key not in ("params", "role")}
    try:
        return cls(groups, **options)
    except (TypeError, ValueError) as error:
        raise UserError(f"optimizer {target!r}: {error}") from None
