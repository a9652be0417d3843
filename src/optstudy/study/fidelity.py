"""Where the paper's text differs from its released code, which made the figures. No torch.

The rules of ``fidelity: printed`` are applied to a run's merged settings. The result is recorded as plain
settings, so configs and run ids do not depend on the switch. docs/fidelity.md lists the differences.
"""

from collections.abc import Mapping
from typing import Any

from optstudy import recipes as optimizers
from optstudy.config import merge
from optstudy.errors import UserError, nearest

FIDELITIES = ("released", "printed")

MOMENTS = {
    "tensor": "tensor-printed",  # Algorithm 1: the sum over p^(1/2), not the mean
    "row": "row-printed",
    "split-3": "tensor-printed",  # a layer is one block; the text does not split fused query, key and value
    "factored": "factored-textbook",  # Adafactor: a 1-D weight keeps one second moment per weight
}
SETTINGS: Mapping[str, Any] = {
    "training.clip_norm": None,  # the text has no gradient clipping
    "schedule.warmup_start": 0.0,  # the text starts at zero
}
TRUNK: Mapping[str, Any] = {"momentum": 0.9}
"""SGD in hybrids: timm's SGDW (Appendix B), undamped; the code's is damped and bias-corrected."""


def check(value: Any) -> None:
    """Refuse a value that is neither ``released`` nor ``printed``.

    Raises:
        UserError: names both.
    """
    if value not in FIDELITIES:
        raise UserError(f"fidelity: unknown value {value!r}{nearest(str(value), FIDELITIES)}")


def printed(tree: Mapping[str, Any], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return a run's settings according to the paper's text.

    Args:
        tree: a dumped config.
        chosen: dotted keys that the user set; these do not change.
    """
    own = {key: value for key, value in SETTINGS.items() if key not in chosen}
    optimizer = dict(tree["optimizer"])
    name, options, roles = (optimizer[key] for key in ("name", "options", "roles"))
    if optimizers.spec_of(name).known is not None:
        if options.get("second_moment") == "none":
            name, options, roles = "sgdw", dict(TRUNK), {r: _adaptive(o) for r, o in roles.items()}
        optimizer |= {
            "name": name, "options": _moments(options), "roles": {r: _moments(o) for r, o in roles.items()}
        }  # fmt: skip
    return merge({**tree, "optimizer": optimizer}, own)


def _moments(options: Mapping[str, Any]) -> dict[str, Any]:
    if options.get("second_moment") not in MOMENTS:
        return dict(options)
    return {**options, "second_moment": MOMENTS[options["second_moment"]]}


def _adaptive(own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a hybrid's adaptive role, if its SGD is a different class."""
    return dict(own) if "train" in own else {"name": "adalayer", **own}
