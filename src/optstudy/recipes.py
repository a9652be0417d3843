"""Every optimizer and recipe by name, as data: class, options, options per role. Imports no torch.

:mod:`optstudy.optim.options` defines the options of the classes. Other people's optimizers are named by their
import path; their options are kept as given until the class is imported (:mod:`optstudy.training.outside`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import NonNegativeFloat, PositiveFloat, ValidationError
from pydantic_core import InitErrorDetails

from optstudy import presets
from optstudy.errors import MOST_WHOLE, TOLD, Strict, UserError, nearest, refuse, wrong
from optstudy.optim.options import REGISTRY, Options, PreconditionedOptions

MATRICES = ("qkv", "attention_out", "mlp_in", "mlp_out")
ROLES = ("embedding", "head", "norm", *MATRICES, "other")
"""``other``: routers, sinks, and parameters of activations, convolutions and state spaces."""
RULES = (*ROLES, "matrix", "rest")
"""What options can be set for: a role, ``matrix`` (:data:`MATRICES`), ``rest`` (roles without a rule)."""

OF_THE_CONFIG = ("self", "params", *Options.model_fields)
"""Arguments of optimizers that are not options: the config sets them, or they are not allowed."""
FROM_RUN = ("estimate_steps", "batch_tokens")
"""Options that a recipe may leave to the run: null is the schedule's freeze_steps, or a batch's tokens."""
STEPS = "$steps"
"""The value of an option of others' classes that stands for the run's steps, any freeze included."""

OURS = "optstudy.optim."
CLASSES: dict[str, type[Options]] = {
    **{OURS + options.target.rpartition(".")[2]: options for options in REGISTRY.values()},
    f"{OURS}Preconditioned": PreconditionedOptions,
}
"""Options by the public path of the class."""

PAPER = "Zhao et al. 2025 (arXiv 2407.07972)"


@dataclass(frozen=True)
class Spec:
    """One optimizer or recipe."""

    target: str
    """Import path of the class."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The paper's values, if they differ from the class's defaults."""
    roles: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Options per role, overriding ``options``; ``lr``: the role's peak; ``train: false``: not trained."""
    source: str = PAPER

    @property
    def known(self) -> type[Options] | None:
        """The class's options; None for a class from another package."""
        return CLASSES.get(self.target)


_FUSED_QKV = {"qkv": {"second_moment": "split-3"}}
_HEAD_ROWS = {"head": {"second_moment": "row"}}
_STAR = {**_FUSED_QKV, **_HEAD_ROWS}
_NORMS_OFF = {"norm": {"train": False}}
_NORMALISED = {"betas": [0.0, 0.0], "eps": 1e-15}
"""The gradient over the root mean square of its block in the same step."""
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


_PAPERS: Mapping[str, Mapping[str, Any]] = {
    "sgdw": {"options": {"momentum": 0.98}},
    "sophia": {"options": {"batch_tokens": None}},
    "adalayer": {"roles": _FUSED_QKV},
}
"""The paper's settings of optimizers whose class has other defaults."""

OPTIMIZERS: dict[str, Spec] = {
    **{
        name: Spec(OURS + options.target.rpartition(".")[2], source=options.source, **_PAPERS.get(name, {}))
        for name, options in REGISTRY.items()
    },
    "adam_tied_betas": Spec(
        "optstudy.optim.Adam", {"betas": [0.95, 0.95]}, source=f"{PAPER}, Figure 8: beta1 = beta2"
    ),
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
    "slim_adam": Spec(
        "optstudy.optim.Adam",
        roles={
            **{role: {"second_moment": "row"} for role in ("embedding", "head", "qkv")},
            **{role: {"second_moment": "column"} for role in ("attention_out", "mlp_in", "mlp_out")},
        },
        source="Kalra et al. 2025 (arXiv 2503.01843): rows of q, k and tokens, else columns",
    ),
    "scale_like": Spec(
        "optstudy.optim.Preconditioned",
        {"betas": [0.9, 0.999], "eps": 1e-8},
        {
            "embedding": {"second_moment": "column", **_NORMALISED},
            "matrix": {"second_moment": "row", **_NORMALISED},
            "head": {"second_moment": "row", **_NORMALISED, "betas": [0.9, 0.0]},
        },
        "like SCALE (Glentis et al. 2025, arXiv 2506.16659): gradient over RMS of each output, momentum in "
        "the last layer, AdamW on norms; SCALE has that momentum over its own RMS, this over the gradient's",
    ),
}
"""The registry's optimizers, then the paper's recipes, then those of later papers."""


def spec_of(name: str) -> Spec:
    """Return what a name stands for: one of ours, a preset, or with a dot the import path of a class.

    Raises:
        UserError: an unknown name.
    """
    if name in OPTIMIZERS:
        return OPTIMIZERS[name]
    if name.startswith(OURS):
        target = OURS + name.rpartition(".")[2]
        if target in CLASSES:
            return Spec(target, source=name)
        raise UserError(f"unknown optimizer {name!r}{nearest(target, CLASSES)}")
    if "." in name and all(part.isidentifier() for part in name.split(".")):
        return Spec(name, source=name)
    if (preset := presets.load().get(name)) is not None:
        return Spec(preset.target, preset.options, preset.roles, preset.source)
    raise UserError(
        f"unknown optimizer {name!r}{nearest(name, names())} "
        "(or give the import path of a class: MODULE.CLASS)"
    )


def names() -> list[str]:
    """Return every name: the registry's optimizers, the paper's recipes, presets."""
    return [*OPTIMIZERS, *presets.load()]


def schedule_of(name: str) -> dict[str, Any]:
    """Return the keys of ``schedule`` that an optimizer asks for by itself."""
    if name in OPTIMIZERS or "." in name or (preset := presets.load().get(name)) is None:
        return {}
    return dict(preset.schedule)


class _OfARole(Strict):
    """Settings of a role in addition to options of its optimizer."""

    lr: PositiveFloat = 1.0
    weight_decay: NonNegativeFloat = 0.0
    train: bool = True
    name: str = ""


OF_A_ROLE = tuple(_OfARole.model_fields)
"""Keys of a rule for a role that are no options of its optimizer."""


Place = tuple[str | int, ...]


def complete(name: str, options: Any, roles: Any) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """Check an optimizer's options, and fill in omitted ones if the class is one of ours.

    Args:
        name: a name from :data:`OPTIMIZERS`, or an import path.
        options: options of the class, for all parameters.
        roles: by rule, see :data:`RULES`: options over ``options``, and ``lr``, ``train`` and ``name``, an
            optimizer for this role.

    Raises:
        ValidationError: an unknown name, option or role, or a wrong value; gives the place of each.
    """
    try:
        spec = spec_of(name)
    except UserError as error:
        refuse([wrong(("name",), str(error), name, TOLD)])
    for key, given, example in (("options", options, "{eps: 1e-8}"), ("roles", roles, "{head: {lr: 1e-3}}")):
        if not isinstance(given, Mapping):
            refuse([wrong((key,), f"must be a mapping such as {example}", given)])
    errors: list[InitErrorDetails] = []
    whole = _checked(name, spec, {**spec.options, **options}, ("options",))
    rules = {rule: dict(own) for rule, own in spec.roles.items()}
    for rule, own in roles.items():
        place = ("roles", rule)
        if rule not in RULES:
            errors.append(wrong(place, f"unknown role {rule!r}{nearest(rule, RULES)}", own, TOLD))
        elif not isinstance(own, Mapping):
            errors.append(wrong(place, "must be a mapping such as {lr: 1e-3}", own))
        else:
            rules[rule] = {**({} if "name" in own else rules.get(rule, {})), **own}
    refuse(errors)
    for rule, own in rules.items():
        told = {key: value for key, value in own.items() if key in OF_A_ROLE}
        errors += _errors(_OfARole, told, ("roles", rule), name)
    refuse(errors)
    return whole, {rule: _complete_rule(name, spec, whole, rules, rule) for rule in rules}


def _complete_rule(
    name: str, spec: Spec, whole: Mapping[str, Any], rules: Mapping[str, Mapping[str, Any]], rule: str
) -> dict[str, Any]:
    """Check the options of one rule together with those that they override."""
    own, place = rules[rule], ("roles", rule)
    told = {key: own[key] for key in OF_A_ROLE if key in own}
    options = {key: value for key, value in own.items() if key not in told}
    below = rules.get("matrix", {}) if rule in MATRICES and "name" not in own else {}
    chosen = own.get("name", below.get("name"))
    if chosen is not None:
        try:
            spec = spec_of(chosen)
        except UserError as error:
            refuse([wrong((*place, "name"), str(error), chosen, TOLD)])
        name, whole = chosen, spec.options
    below = {key: value for key, value in below.items() if key not in OF_A_ROLE}
    found = _checked(name, spec, {**whole, **below, **options}, place)
    return {**told, **(found if "name" in own else {key: found[key] for key in options})}


def _checked(name: str, spec: Spec, options: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """Return options as JSON values, complete if the class is one of ours.

    Args:
        name: the optimizer's name.
        spec: the optimizer or recipe.
        options: options that override the recipe's.
        place: where they are in the config.
    """
    reserved = [key for key in options if key in OF_THE_CONFIG]
    refuse(
        [
            wrong((*place, key), f"no option of {name}: set optimizer.{key}", options[key], TOLD)
            for key in reserved
        ]
    )
    if spec.known is None:
        odd = [key for key, value in options.items() if not finite(value)]
        refuse([wrong((*place, key), "must be finite", options[key]) for key in odd])
        return dict(options)
    lent = {key for key in FROM_RUN if options.get(key, 0) is None and spec.options.get(key, 0) is None}
    given = {**options, **dict.fromkeys(lent, 1)}
    refuse(_errors(spec.known, given, place, name))
    made = spec.known.model_validate(given).model_dump(mode="json", exclude=set(Options.model_fields))
    return {**made, **dict.fromkeys(lent)}


def _errors(kind: type[Strict], given: Mapping[str, Any], place: Place, name: str) -> list[InitErrorDetails]:
    """Return the errors in the fields of a class, each with its place in the config."""
    try:
        kind.model_validate(given)
    except ValidationError as error:
        return [_placed(e, kind, place, name) for e in error.errors()]
    return []


def _placed(error: Any, kind: type[Strict], place: Place, name: str) -> InitErrorDetails:
    loc, came = error["loc"], error["input"]
    if error["type"] == "extra_forbidden":
        fields = [key for key in kind.model_fields if key not in Options.model_fields]
        return wrong(
            (*place, *loc), f"unknown option {loc[-1]!r} of {name}{nearest(str(loc[-1]), fields)}", came, TOLD
        )
    said = error["msg"].removeprefix("Value error, ")
    key, _, rest = said.partition(": ")
    if key in kind.model_fields:  # from a check of all options together, which names one
        return wrong((*place, key), rest, came.get(key))
    return wrong((*place, *loc), said, came, error["type"])


def finite(value: Any) -> bool:
    """Whether all numbers of a JSON value are finite, and integers fit in 64 bits."""
    if isinstance(value, Mapping):
        return all(map(finite, value.values()))
    if isinstance(value, (list, tuple)):
        return all(map(finite, value))
    if isinstance(value, int):
        return abs(value) <= MOST_WHOLE
    return not isinstance(value, float) or math.isfinite(value)


def options_of(role: str, rules: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    """Return the options of a role: its own, which override those of ``matrix``, or else those of ``rest``.

    A rule with its own optimizer (``name``) is not merged with them.
    """
    own = rules.get(role)
    general = rules.get("matrix") if role in MATRICES else None
    if own is None and general is None:
        return rules.get("rest", {})
    return {**({} if own and "name" in own else general or {}), **(own or {})}


@dataclass(frozen=True)
class Trained:
    """How the parameters of one role are trained."""

    spec: Spec
    options: dict[str, Any]
    """Options of the class, complete if it is one of ours; options that the run determines are filled in."""
    lr: float
    train: bool

    @property
    def known(self) -> Options | None:
        """The options as an object of their class; None for a class from another package."""
        return self.spec.known.model_validate(self.options) if self.spec.known else None


def trained(chosen: Mapping[str, Any], role: str | None, lent: Mapping[str, Any]) -> Trained:
    """Return how the parameters of a role are trained.

    Args:
        chosen: ``name``, ``options``, ``roles`` and ``lr`` of a config.
        role: the role; None: parameters without a role.
        lent: what the run determines, see :data:`FROM_RUN`.
    """
    own = dict(options_of(role, chosen["roles"])) if role else {}
    name = own.pop("name", None)
    lr, train = own.pop("lr", chosen["lr"]), own.pop("train", True)
    own.pop("weight_decay", None)
    options = filled({**({} if name else chosen["options"]), **own}, lent)
    return Trained(spec_of(name or chosen["name"]), options, lr, train)


def lent(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run, as nested mappings, decides of its optimizer: :data:`FROM_RUN`, :data:`STEPS`."""
    tokens = config["training"]["batch_size"] * config["data"]["sequence_length"]
    frozen = config["schedule"].get("freeze_steps", 0)
    return {"estimate_steps": frozen, "batch_tokens": tokens, STEPS: frozen + config["training"]["steps"]}


def filled(options: Mapping[str, Any], lent: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with what the run decides in the place of null (:data:`FROM_RUN`) and :data:`STEPS`."""
    given = {key: lent.get(key) for key in FROM_RUN if key in options and options[key] is None}
    given |= {key: lent.get(STEPS) for key, value in options.items() if value == STEPS}
    return {**options, **given}


def check_fit(
    chosen: Mapping[str, Any], lent: Mapping[str, Any], shapes: Mapping[str, Sequence[tuple[int, ...]]]
) -> None:
    """Refuse options that do not fit the run or a shape of the model.

    Args:
        chosen: ``name``, ``options``, ``roles`` and ``lr``, complete.
        lent: what the run determines; ``estimate_steps`` is the schedule's freeze_steps.
        shapes: shapes of the model's parameters, by role.

    Raises:
        ValidationError: ``estimate_steps`` is not the schedule's, or a second moment does not fit a shape.
    """
    for rule, own in {"": chosen["options"], **chosen["roles"]}.items():
        steps, wanted = own.get("estimate_steps", 0), lent["estimate_steps"]
        if steps is None and not wanted:
            said = "must be above 0: a frozen second moment is estimated in these steps"
            refuse([wrong(("schedule", "freeze_steps"), said, wanted)])
        if steps and steps != wanted and isinstance(steps, int):
            place = ("optimizer", *(("roles", rule) if rule else ("options",)), "estimate_steps")
            refuse([wrong(place, f"must be schedule.freeze_steps ({wanted})", steps)])
    for role, some in shapes.items():
        how = trained(chosen, role, lent)
        if how.train and (known := how.known) is not None:
            for shape in dict.fromkeys(some):
                if getattr(known, "second_moment", "") == "head" and role == "qkv":
                    continue  # what it comes to is told by the model itself
                try:
                    known.state(shape)
                except ValueError as error:
                    refuse([_misfit(chosen, role, str(error))])


def _misfit(chosen: Mapping[str, Any], role: str, said: str) -> InitErrorDetails:
    """Return an error for a shape that is not supported, at the rule that requires it."""
    key, _, said = said.partition(" ")
    rules = [rule for rule in (role, "matrix" if role in MATRICES else "", "rest") if rule in chosen["roles"]]
    rule = next((rule for rule in rules if key in chosen["roles"][rule]), None)
    place = ("options", key) if rule is None else ("roles", rule, key)
    return wrong(("optimizer", *place), f"{said} ({role})", None, TOLD)
