"""A run's id: a hash of everything that decides its result, designed to stay stable. Imports no torch.

Before hashing, names of optimizers and recipes are resolved to classes and options of each role, numbers are
written in one format, and values equal to those of :data:`DEFAULTS` and :data:`OPTIONS` are left out. These
tables are separate data, never read from the code. So a key that is added with its default to the code and to
a table changes no id. A default that is changed only in the code is written into new ids, and old ids keep
their meaning. An entry of a table is never changed.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from optstudy.recipes import OF_A_ROLE, filled, lent, spec_of
from optstudy.record import leaves

NOT_IN_ID = frozenset({"scale", "data.corpus", "model.config", "training.parallel"})
"""Names and locations; the text itself is identified by ``data.fingerprint``, the contents of a model's file
by ``model.options``. ``watch`` is not hashed either.

How a run is distributed over processes, and over how many, is not part of its id: both may change from one
checkpoint to the next, and results stay the same up to rounding.
"""
DEFAULTS: Mapping[str, Any] = {
    "seed": 0,
    "data.tokens": None,
    "data.text_key": "text",
    "data.end_token": None,
    "data.tokenizer_fingerprint": None,
    "model.name": "paper",
    "model.qk_norm": True,
    "model.scale_attention_by_layer": False,
    "model.n_kv_heads": None,
    "model.tie_embeddings": None,
    "model.options": {},
    "model.code": None,
    "optimizer.weight_decay": 0,
    "optimizer.tied": "embedding",
    "optimizer.named": {},
    "optimizer.code": None,
    "schedule.kind": "cosine",
    "schedule.decay": None,
    "schedule.warmup": 0.1,
    "schedule.warmup_start": 0.1,
    "schedule.final": 0.1,
    "schedule.freeze_steps": 0,
    "training.micro_batch_size": None,
    "training.z_loss": 1e-4,
    "training.clip_norm": 1,
    "training.hessian_interval": 10,
    "training.effective_lr": False,
    "validation.points": 10,
}
"""Default values of config keys."""

_PRECONDITIONED = {"betas": [0.9, 0.95], "eps": 1e-15, "estimate_steps": 0, "freeze": False}
OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "optstudy.optim.Preconditioned": {**_PRECONDITIONED, "second_moment": "weight"},
    "optstudy.optim.Adam": {**_PRECONDITIONED, "second_moment": "weight"},
    "optstudy.optim.Adafactor": {**_PRECONDITIONED, "second_moment": "factored"},
    "optstudy.optim.Adalayer": {**_PRECONDITIONED, "second_moment": "tensor"},
    "optstudy.optim.AdafactorBigVision": {
        "beta1": 0.9, "beta2_cap": 0.999, "decay_rate": 0.8, "eps": 1e-30, "min_dim": 32,
    },
    "optstudy.optim.Lion": {"betas": [0.9, 0.95]},
    "optstudy.optim.Signum": {"beta": 0.9},
    "optstudy.optim.SGDW": {"momentum": 0.9, "dampening": 0, "nesterov": False},
    "optstudy.optim.Sophia": {"betas": [0.965, 0.99], "rho": 0.04, "batch_tokens": 131_072},
    "torch.optim.Muon": {"ns_coefficients": [3.4445, -4.775, 2.0315], "eps": 1e-7, "ns_steps": 5},
}  # fmt: skip
"""Default values of options, by class."""

_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def run_id(config: Mapping[str, Any]) -> str:
    """Return the hash of a dumped config: twelve hexadecimal digits."""
    return _hashed(_canonical(config))


def ids_by_seed(config: Mapping[str, Any]) -> Callable[[int], str]:
    """Return a function from a seed to the id of the config's run; the rest is processed once."""
    values = _canonical(config)
    values.pop("seed", None)
    return lambda seed: _hashed(values if seed == DEFAULTS["seed"] else {**values, "seed": seed})


def without_code(config: Mapping[str, Any]) -> str:
    """Return the id of a run regardless of the source code of its classes or its program.

    Two runs for which this is equal but whose ids differ were made with different versions of that code.
    """
    own = {"trainer": "fingerprint"} if "trainer" in config else {"optimizer": "code", "model": "code"}
    return run_id({**config, **{part: {**config[part], key: None} for part, key in own.items()}})


def _canonical(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that decide a config's result, by dotted key."""
    if "trainer" in config:
        return _of_program(config)
    tree = {key: part for key, part in config.items() if key != "watch"}
    tree["optimizer"] = _optimizer(config)
    if config["schedule"].get("kind") == "constant":  # the same rates as a cosine that ends at the peak
        tree["schedule"] = {**config["schedule"], "kind": "cosine"}
    if config["data"].get("tokenizer_fingerprint") is not None:
        tree["data"] = {key: part for key, part in config["data"].items() if key != "tokenizer"}
    return _but(_LEFT_OUT, {key: value for key, value in leaves(tree) if key not in NOT_IN_ID})


def _of_program(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that decide the result of another program's run: see :mod:`optstudy.program`."""
    own = {key: part for key, part in config.items() if key not in ("trainer", "seed")}
    trainer = {key: config["trainer"].get(key) for key in ("command", "function", "fingerprint")}
    seed = {} if config.get("seed", 0) == 0 else {"seed": config["seed"]}
    return {"config": plain(own), "trainer": trainer, **seed}


def _but(defaults: Mapping[str, str], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the plain values that differ from the defaults; true is not 1."""
    written = {key: plain(value) for key, value in values.items()}
    return {key: value for key, value in written.items() if repr(value) != defaults.get(key)}


def _optimizer(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return an optimizer with names resolved to classes, and with the options that the run determines."""
    from_run = lent(config)
    chosen = dict(config["optimizer"])
    roles = {rule: _resolved(own, from_run) for rule, own in chosen.pop("roles", {}).items()}
    options = chosen.pop("options", {})
    own = _resolved({"name": chosen.pop("name"), **options}, from_run)
    return {**chosen, **own, **({"roles": roles} if roles else {})}


def _resolved(given: Mapping[str, Any], from_run: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of an optimizer or of a rule for a role; where one is named, without defaults."""
    told = {key: given[key] for key in OF_A_ROLE if key in given and key != "name"}
    options = filled({key: value for key, value in given.items() if key not in OF_A_ROLE}, from_run)
    if "name" in given:
        told["class"] = spec_of(given["name"]).target
        options = _but(_LEFT_OUT_OPTIONS.get(told["class"], {}), options)
    return {**told, **({"options": options} if options else {})}


def plain(value: Any) -> Any:
    """Return a value in the form that is hashed: one format per number, and 0 for -0.0."""
    if type(value) is float:
        return int(value) if value.is_integer() else value
    if type(value) is dict:
        return {key: plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if type(value) in (list, tuple) else value


_LEFT_OUT = {key: repr(plain(value)) for key, value in DEFAULTS.items()}
_LEFT_OUT_OPTIONS = {
    name: {key: repr(plain(value)) for key, value in options.items()} for name, options in OPTIONS.items()
}


def encoded(value: Any) -> str:
    """Return a value as JSON on one line, as Python writes it."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _hashed(values: Mapping[str, Any]) -> str:
    return hashlib.sha256(_ENCODER.encode(values).encode()).hexdigest()[:12]
