"""The JSON Schema of study files, for editors: all config keys and options with type, range and meaning."""

from collections.abc import Iterator, Mapping
from typing import Any

from optstudy.config import RunConfig
from optstudy.optim.options import Options
from optstudy.recipes import CLASSES, FROM_RUN, RULES, names
from optstudy.scales import SCALES
from optstudy.study.file import NAME, PRESETS, RATE, Layer, StudyFile

FILLED_IN = frozenset(
    {"scale", "numerics", "data.fingerprint", "data.tokenizer_fingerprint", "model.code", "optimizer.code"}
)
"""Config keys that no study file sets."""
VARIABLE = {"type": "string", "pattern": r"^([0-9.e+-]+ *\* *)?\$"}
"""A reference to the value on an axis, or a multiple of it."""


def study_schema() -> dict[str, Any]:
    """Return the schema: pydantic's, with the config's keys under ``base`` and ``axes``."""
    schema = StudyFile.model_json_schema()
    keys = {key: _or_variable(one) for key, one in sorted(settings().items())}
    schema["$defs"]["Settings"] = {
        "type": "object",
        "description": "Config values by dotted key, or nested.",
        "properties": keys,
    }
    grid = {"$ref": "#/$defs/HalfDecades"}
    plain = {
        "$ref": "#/$defs/Settings",
        "not": {"anyOf": [{"required": [key]} for key in Layer.model_fields]},
    }
    named = {"anyOf": [plain, {"$ref": "#/$defs/Layer"}]}
    labels = {"type": "object", "minProperties": 1, "additionalProperties": named}
    axes = {key: {"anyOf": [grid, {"type": "array", "items": one}]} for key, one in keys.items()}
    for key in (NAME, RATE):
        axes[key]["anyOf"].append({"const": PRESETS})
    schema["$defs"]["Axes"] = {
        "type": "object",
        "description": "Values to run, by dotted key or $name; or named settings, by any other name.",
        "properties": axes,
        "additionalProperties": {"anyOf": [grid, {"type": "array"}, labels]},
    }
    for kind in (schema, *schema["$defs"].values()):
        for key, name in (("base", "Settings"), ("axes", "Axes")):
            if key in kind.get("properties", {}) and kind.get("title") != name:
                kind["properties"][key] = {"$ref": f"#/$defs/{name}"}
    return schema


def config_schema() -> dict[str, Any]:
    """Return the schema of a config file for ``optstudy train``: keys nested or dotted, none required."""
    known = {
        "scale": {"enum": list(SCALES), "description": "The scale that provides all omitted values."},
        **settings(),
    }
    tree: dict[str, Any] = {}
    for key, one in known.items():
        *groups, leaf = key.split(".")
        node = tree
        for group in groups[:1]:
            node = node.setdefault(group, {"type": "object", "properties": {}})["properties"]
        if len(groups) < 2:  # an optimizer's options are also in the schema of `options`
            node[leaf] = one
    return {
        "title": "A run's config",
        "type": "object",
        "properties": {**tree, **known},
        "additionalProperties": False,
    }


def settings() -> dict[str, Any]:
    """Return the schema of each dotted config key, including the options of every optimizer."""
    config = RunConfig.model_json_schema()
    found = {key: one for key, one in _leaves(config, config["$defs"], "") if key not in FILLED_IN}
    found["optimizer.name"] = {
        "description": found["optimizer.name"]["description"],
        "anyOf": [{"enum": names()}, {"type": "string", "pattern": r"\."}],
    }
    by_option = options()
    rule = {
        "type": "object",
        "properties": {
            **by_option,
            "lr": {"type": "number", "exclusiveMinimum": 0, "description": "Peak of the role's own."},
            "weight_decay": {
                "type": "number",
                "minimum": 0,
                "description": "Independent decay of the role's own.",
            },
            "train": {"type": "boolean", "description": "false: parameters stay as they are."},
            "name": found["optimizer.name"],
        },
    }
    found["optimizer.options"] |= {"properties": by_option}
    found["optimizer.roles"] = {
        "type": "object",
        "description": found["optimizer.roles"]["description"],
        "properties": dict.fromkeys(RULES, rule),
        "additionalProperties": False,
    }
    return found | {f"optimizer.options.{key}": one for key, one in by_option.items()}


def options() -> dict[str, Any]:
    """Return the schema of each option of every class; options of the same name allow any of their types."""
    found: dict[str, list[Any]] = {}
    for kind in CLASSES.values():
        for key, one in kind.model_json_schema()["properties"].items():
            if key not in Options.model_fields:
                own = {name: value for name, value in one.items() if name not in ("title", "default")}
                own = {"anyOf": [own, {"type": "null"}]} if key in FROM_RUN else own
                if own not in found.setdefault(key, []):
                    found[key].append(own)
    return {key: some[0] if len(some) == 1 else {"anyOf": some} for key, some in found.items()}


def _or_variable(one: dict[str, Any]) -> dict[str, Any]:
    """Return a schema that also allows ``$name`` for every value."""
    inner = {
        key: [_or_variable(part) for part in value]
        if key in ("prefixItems", "anyOf")
        else {name: _or_variable(part) for name, part in value.items()}
        if key == "properties"
        else value
        for key, value in one.items()
    }
    return {"anyOf": [inner, VARIABLE]}


def _leaves(
    kind: Mapping[str, Any], known: Mapping[str, Any], above: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    for key, one in kind["properties"].items():
        if "$ref" in one:
            yield from _leaves(known[one["$ref"].rpartition("/")[2]], known, f"{above}{key}.")
        else:
            yield f"{above}{key}", {name: value for name, value in one.items() if name != "title"}
