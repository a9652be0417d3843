"""Every optimizer and recipe by name, as data: target class, options, options per role. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from optstudy.errors import UserError, nearest


@dataclass(frozen=True)
class Spec:
    """One optimizer or recipe."""

    target: str
    """Import path of the class."""
    options: Mapping[str, Any]
    """Every option with the value the paper used."""
    roles: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Options per role, over ``options``."""
    source: str = ""


OPTIMIZERS: dict[str, Spec] = {
    "adam": Spec("optstudy.optim.Adam", {"betas": [0.9, 0.95], "eps": 1e-15}),
    "adafactor": Spec("optstudy.optim.Adafactor", {"betas": [0.9, 0.95], "eps": 1e-15}),
    "lion": Spec("optstudy.optim.Lion", {"betas": [0.9, 0.95]}),
    "signum": Spec("optstudy.optim.Signum", {"beta": 0.9}),
    "sgdw": Spec("optstudy.optim.SGDW", {"momentum": 0.98, "dampening": 0.0, "nesterov": False}),
}


def complete(
    name: str, options: Mapping[str, Any], roles: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Check an optimizer's options and fill in those left out.

    Raises:
        ValueError: an unknown name, option or role, or a value out of range.
    """
    spec = OPTIMIZERS.get(name)
    if spec is None:
        raise UserError(f"unknown optimizer {name!r}{nearest(name, OPTIMIZERS)}")
    for key in options:
        if key not in spec.options:
            raise UserError(f"unknown option {key!r} of {name}{nearest(key, spec.options)}")
    return {**spec.options, **options}, {r: dict(o) for r, o in {**spec.roles, **roles}.items()}
