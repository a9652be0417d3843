"""Builds the optimizer of a run from a model and a config.

A trainer uses it as follows, whatever its name:

1. At every step it sets ``group["lr"] = group["peak_lr"] * share`` for each group, share in [0, 1].
2. If the optimizer has a method ``update_hessian``, then after the parameter step of each ``step`` (from 0)
   with ``step % training.hessian_interval == training.hessian_interval - 1`` it draws labels from the
   model's own output on that step's batch, takes the gradient of their mean cross-entropy (averaged over
   micro-batches, without z-loss), clips it like any gradient, and calls the method.
"""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from torch import nn
from torch.optim.optimizer import Optimizer

from optstudy.config import Optimizer as Chosen
from optstudy.config import RunConfig
from optstudy.errors import UserError, validate
from optstudy.optim import Together
from optstudy.recipes import FROM_RUN, MATRICES, OURS, ROLES, STEPS, filled, lent, options_of, spec_of
from optstudy.roles import param_groups, say_others
from optstudy.training import outside
from optstudy.training.model import Transformer

SMALL = {"vocab_size": 32, "d_model": 16, "n_layers": 1, "n_heads": 2}
"""Config of the small model on which other people's optimizers are tried."""


def build_optimizer(model: nn.Module, config: RunConfig) -> Optimizer:
    """Return the config's optimizer for the model's parameters; every group has its ``peak_lr``.

    Weight decay is independent (Wortsman et al. 2023): the coefficient that multiplies the learning rate is
    ``optimizer.weight_decay / optimizer.lr``, also for groups with a peak of their own; a role's own
    ``weight_decay`` takes the place of the first.

    Raises:
        UserError: an unknown class or option, or roles that the model does not have.
    """
    chosen = config.optimizer
    groups = _groups(model, chosen, lent(config.model_dump()), chosen.named, chosen.tied)
    optimizer = _assembled(chosen, groups)
    for group in optimizer.param_groups:
        group["peak_lr"] = group["lr"]
    return optimizer


def try_on_a_small_model(config: RunConfig) -> None:
    """Build the config's optimizer and discard it, so that errors show before anything runs.

    Raises:
        UserError: see :func:`build_optimizer`.
    """
    build_optimizer(Transformer(config.model.model_copy(update=SMALL), seed=0), config)


def create_optimizer(
    name: str,
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float = 0.0,
    roles: Mapping[str, Mapping[str, Any]] | None = None,
    named: Mapping[str, str] | None = None,
    tied: str = "embedding",
    **options: Any,
) -> Optimizer:
    """Return any optimizer or recipe for any model.

    Args:
        name: a name of ``optstudy optimizers``, or the import path of a ``torch.optim.Optimizer``.
        model: the model; parameters that need a gradient are optimized. Options by role require roles, see
            :func:`optstudy.roles.assign_roles`.
        lr: learning rate.
        weight_decay: decoupled, per unit of lr: a step multiplies weights by 1 - lr weight_decay. A role
            may have its own.
        roles: options of the parameters that play one role, over ``options`` and the recipe's.
        named: roles by parameter name, see :func:`optstudy.roles.assign_roles`.
        tied: the role of a weight that is both embedding and head, see :func:`optstudy.roles.assign_roles`.
        options: options of the class, which override the recipe's.

    Raises:
        UserError: an unknown name, option or role; a wrong value; a missing value that the recipe takes from
            a run; or a parameter whose role is unknown.
    """
    chosen = validate(
        Chosen,
        {"name": name, "lr": lr, "weight_decay": weight_decay * lr, "options": options, "roles": roles or {}},
    )
    rules = {rule: dict(own) for rule, own in chosen.roles.items()}
    for own in rules.values():
        if "weight_decay" in own:
            own["weight_decay"] *= lr
    chosen = chosen.model_copy(update={"roles": rules})
    for own in (chosen.options, *chosen.roles.values()):
        for key, value in own.items():
            if value == STEPS or (key in FROM_RUN and value is None):
                raise UserError(f"{name} takes {key} from a run: give {key}=, a number", key)
    if chosen.roles:
        return _assembled(chosen, _groups(model, chosen, {}, named, tied))
    params = [p for p in model.parameters() if p.requires_grad]
    return _assembled(chosen, [{"params": params, **_whole({}, chosen, {})}])


def _groups(
    model: nn.Module,
    chosen: Chosen,
    from_run: Mapping[str, Any],
    named: Mapping[str, str] | None = None,
    tied: str = "embedding",
) -> list[dict[str, Any]]:
    """Return parameter groups by role, with all options."""
    asked = {role for rule in chosen.roles for role in (MATRICES if rule == "matrix" else (rule,))}
    rules = {
        role: _whole(options_of(role, chosen.roles), chosen, from_run) for role in ROLES if role in asked
    }
    rules["rest"] = _whole(chosen.roles.get("rest", {}), chosen, from_run)
    groups = param_groups(model, rules, named=named, tied=tied)
    if not {"other", "rest"} & chosen.roles.keys():
        say_others(groups)
    return groups


def _assembled(chosen: Chosen, groups: list[dict[str, Any]]) -> Optimizer:
    by_class: dict[str, list[dict[str, Any]]] = {}
    for group in groups:
        by_class.setdefault(spec_of(group.pop("name")).target, []).append(group)
    parts = [_construct(target, own) for target, own in by_class.items()]
    if not parts:
        raise UserError("optimizer.roles: every parameter is 'train: false', nothing is left to train")
    return parts[0] if len(parts) == 1 else Together(parts)


def _whole(own: Mapping[str, Any], chosen: Chosen, from_run: Mapping[str, Any]) -> dict[str, Any]:
    """Return all options of one rule, including those that the run determines."""
    base = {} if "name" in own else {"name": chosen.name, **chosen.options}
    decay = own.get("weight_decay", chosen.weight_decay) / chosen.lr
    return filled({"lr": chosen.lr, **base, **own, "weight_decay": decay}, from_run)


def _construct(target: str, groups: list[dict[str, Any]]) -> Optimizer:
    """Return an instance of the class at an import path."""
    if not target.startswith(OURS):
        return outside.construct(target, groups)
    cls = getattr(import_module("optstudy.optim"), target.removeprefix(OURS))
    try:
        made: Optimizer = cls(groups, lr=groups[0]["lr"])
    except (TypeError, ValueError) as error:
        raise UserError(f"optimizer {target!r}: {error}") from None
    return made
