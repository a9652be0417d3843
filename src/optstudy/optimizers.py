"""Every optimizer and recipe by name, as data: class, options, options per role. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from optstudy.errors import UserError, nearest
from optstudy.signature import Signature, outside, require, signature

MATRICES = ("qkv", "attention_out", "mlp_in", "mlp_out")
ROLES = ("embedding", "head", "norm", *MATRICES)
RULES = (*ROLES, "matrix", "rest")
"""What options can be set for: a role, ``matrix`` (the last four), ``rest`` (what no other rule takes)."""

OF_THE_CONFIG = ("self", "params", "lr", "weight_decay", "maximize", "compile")
"""Arguments of optimizers that are no options: the config says them, or nobody should."""

PAPER = "Zhao et al. 2025 (arXiv 2407.07972)"


@dataclass(frozen=True)
class Spec:
    """One optimizer or recipe."""

    target: str
    """Import path of the class."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The paper's values, where they are not the class's own defaults."""
    roles: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Options per role, over ``options``; ``lr``: a peak of its own; ``train: false``: not trained."""
    source: str = PAPER


_FUSED_QKV = {"qkv": {"second_moment": "split-3"}}
_HEAD_ROWS = {"head": {"second_moment": "row"}}
_STAR = {**_FUSED_QKV, **_HEAD_ROWS}
_NORMS_OFF = {"norm": {"train": False}}
_FIXED_LR = 3.16e-3
"""Learning rate of the adaptive parts of the hybrids (Figure 3)."""


def _adalayer(roles: Mapping[str, Any], source: str) -> Spec:
    return Spec("optstudy.optim.Adalayer", roles=roles, source=f"{PAPER}, {source}")


def _hybrid(roles: Mapping[str, Any], source: str) -> Spec:
    adaptive = {r: o if "train" in o else {**o, "lr": _FIXED_LR} for r, o in roles.items()}
    trunk = {"second_moment": "none"}
    return Spec("optstudy.optim.Preconditioned", trunk, adaptive, f"{PAPER}, {source}")


def _frozen(keep: tuple[str, ...], source: str, **roles: Mapping[str, Any]) -> Spec:
    rules: dict[str, dict[str, Any]] = {rule: dict(options) for rule, options in {**_STAR, **roles}.items()}
    for role in keep:
        rules.setdefault(role, {})["freeze"] = False
    options = {"estimate_steps": None, "freeze": True}
    return Spec("optstudy.optim.Adalayer", options, rules, f"{PAPER}, {source}")


OPTIMIZERS: dict[str, Spec] = {
    "adam": Spec("optstudy.optim.Adam", source=f"Kingma and Ba 2015; {PAPER}"),
    "adam_tied_betas": Spec(
        "optstudy.optim.Adam", {"betas": [0.95, 0.95]}, source=f"{PAPER}, Figure 8: beta1 = beta2"
    ),
    "adafactor": Spec("optstudy.optim.Adafactor", source=f"{PAPER}, Appendix B; Shazeer and Stern 2018"),
    "adafactor_bigvision": Spec(
        "optstudy.optim.AdafactorBigVision", source="Zhai et al. 2022 (arXiv 2106.04560), big_vision"
    ),
    "lion": Spec("optstudy.optim.Lion", source=f"Chen et al. 2023 (arXiv 2302.06675); {PAPER}"),
    "signum": Spec("optstudy.optim.Signum", source=f"Bernstein et al. 2018 (arXiv 1802.04434); {PAPER}"),
    "sgdw": Spec(
        "optstudy.optim.SGDW", {"momentum": 0.98}, source=f"Polyak 1964; timm's SGDW, undamped; {PAPER}"
    ),
    "sophia": Spec(
        "optstudy.optim.Sophia", {"batch_tokens": None}, source="Liu et al. 2023 (arXiv 2305.14342)"
    ),
    "adalayer": _adalayer(_FUSED_QKV, "Algorithm 1"),
    "adalayer_star": _adalayer(_STAR, "section 3.1: one block per row of the last layer"),
    "adalayer_star_first": _adalayer(
        {**_STAR, "embedding": {"second_moment": "row"}}, "released code: also per row of the first layer"
    ),
    "adalayer_star_norms_off": _adalayer({**_STAR, **_NORMS_OFF}, "LayerNorm training off"),
    "hybrid_last": _hybrid(_HEAD_ROWS, "Figure 3 left: SGD but for the last layer"),
    "hybrid_last_norm": _hybrid(
        {**_HEAD_ROWS, "norm": {"second_moment": "tensor"}},
        "Figure 3 middle: SGD but for last layer and norms",
    ),
    "hybrid_last_norms_off": _hybrid(
        {**_HEAD_ROWS, **_NORMS_OFF}, "Figure 12: SGD but for the last layer, LayerNorm training off"
    ),
    "hybrid_adafactor_last_norm": _hybrid(
        {"head": {"second_moment": "factored"}, "norm": {"second_moment": "factored"}},
        "Adafactor on last layer and norms, SGD elsewhere",
    ),
    "hybrid_matrix_only": Spec(
        "optstudy.optim.Preconditioned",
        {"second_moment": "none"},
        {
            "matrix": {"second_moment": "tensor", "lr": 1e-3},
            "embedding": {"second_moment": "tensor", "lr": 1e-3},
            **_FUSED_QKV,
        },
        f"{PAPER}, Figure 11: SGD on last layer and norms only",
    ),
    "frozen_all": _frozen((), "Figure 15: ratios frozen at initialization"),
    "frozen_keep_last": _frozen(("head",), "Figure 16: all frozen but the last layer"),
    "frozen_keep_norm": _frozen(("norm",), "Figure 16: all frozen but the norms", norm={}),
    "frozen_keep_last_norm": _frozen(
        ("head", "norm"), "Figure 14: all frozen but last layer and norms", norm={}
    ),
    "frozen_all_norms_off": _frozen((), "Figure 15, LayerNorm training off", **_NORMS_OFF),
    "frozen_keep_last_norms_off": _frozen(("head",), "Figure 17: LayerNorm training off", **_NORMS_OFF),
}


def spec_of(name: str) -> Spec:
    """Return what a name stands for; a name with a dot is the import path of a class.

    Raises:
        UserError: an unknown name.
    """
    if name in OPTIMIZERS:
        return OPTIMIZERS[name]
    if "." in name:
        return Spec(name, source=name)
    raise UserError(
        f"unknown optimizer {name!r}{nearest(name, OPTIMIZERS)} (or give the import path of a class)"
    )


def complete(
    name: str, options: Mapping[str, Any], roles: Mapping[str, Mapping[str, Any]]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Check an optimizer's options and fill in those left out.

    Options of a class outside this package are checked against its source as far as that can be read without
    importing it; the rest is checked when it is built.

    Raises:
        UserError: an unknown name, option or role, or a value out of range.
    """
    spec = spec_of(name)
    known = signature(spec.target)
    whole = {**_defaults(known), **spec.options, **options}
    _check(name, known, spec, whole)
    rules = {rule: dict(own) for rule, own in spec.roles.items()}
    for rule, own in roles.items():
        if rule not in RULES:
            raise UserError(f"unknown role {rule!r}{nearest(rule, RULES)}")
        if not isinstance(own, Mapping):
            raise UserError(f"options of role {rule!r} must be a mapping such as {{lr: 1e-3}}, not {own!r}")
        rules[rule] = {**rules.get(rule, {}), **own}
    for rule, own in rules.items():
        _check_rule(name, rule, own, known, spec)
        if "name" in own:
            rules[rule] = {**own, **complete(own["name"], _without(own, "name", "lr", "train"), {})[0]}
    return whole, rules


def check_importable(name: str, roles: Mapping[str, Mapping[str, Any]]) -> None:
    """Check that the packages of an optimizer's classes can be found, before anything is run.

    Raises:
        UserError: one cannot.
    """
    for one in {name, *(own["name"] for own in roles.values() if "name" in own)}:
        require(spec_of(one).target)


def options_of(role: str, rules: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the options of a role: its own over ``matrix``'s, or ``rest``'s."""
    taken = [rules[rule] for rule in (("matrix",) if role in MATRICES else ()) + (role,) if rule in rules]
    return {k: v for options in taken or [rules.get("rest", {})] for k, v in options.items()}


def check_freeze(
    options: Mapping[str, Any], roles: Mapping[str, Mapping[str, Any]], freeze_steps: int
) -> None:
    """Refuse ``estimate_steps`` that are not the schedule's ``freeze_steps``; null takes them over.

    Raises:
        UserError: they differ, or there is nothing to take over.
    """
    for own in (options, *roles.values()):
        steps = own.get("estimate_steps", 0)
        if steps is None and freeze_steps == 0:
            raise UserError(
                "schedule.freeze_steps must be above 0: a frozen second moment is estimated in them"
            )
        if steps and steps != freeze_steps:
            raise UserError(
                f"estimate_steps ({steps}) and schedule.freeze_steps ({freeze_steps}) must be equal"
            )


def _defaults(known: Signature | None) -> dict[str, Any]:
    return _without(known.defaults, *OF_THE_CONFIG) if known else {}


def _without(options: Mapping[str, Any], *keys: str) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key not in keys}


def _check_rule(name: str, rule: str, own: Mapping[str, Any], known: Signature | None, spec: Spec) -> None:
    wrong = {
        "lr": outside(own.get("lr", 1.0), "(0, inf)"),
        "train": "" if isinstance(own.get("train", True), bool) else "true or false",
        "name": "" if isinstance(own.get("name", ""), str) else "the name of an optimizer",
    }
    for key, wanted in wrong.items():
        if wanted:
            raise UserError(f"{key} of role {rule!r} must be {wanted}, not {own[key]!r}")
    if "name" not in own:
        _check(
            f"{name} for role {rule!r}",
            known,
            spec,
            _without(own, "lr", "train"),
            also=("lr", "train", "name"),
        )


def _check(
    who: str, known: Signature | None, spec: Spec, options: Mapping[str, Any], also: tuple[str, ...] = ()
) -> None:
    if known is None:
        return
    allowed = [key for key in known.names if key not in OF_THE_CONFIG]
    for key, value in options.items():
        if key in OF_THE_CONFIG:
            raise UserError(f"{key!r} is no option of {who}: set optimizer.{key}")
        if key not in known.names and not known.open_ended:
            raise UserError(f"unknown option {key!r} of {who}{nearest(key, (*allowed, *also))}")
        if value is None and key in spec.options and spec.options[key] is None:
            continue  # taken from the run when it is built
        if key in known.limits and (wanted := outside(value, known.limits[key])):
            raise UserError(f"{key} of {who} must be {wanted}, not {value!r}")
