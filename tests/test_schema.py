"""The schema of study files: it allows what is read, and names what is not."""

import re
from importlib import resources

import pytest

from optstudy.study import library as study
from optstudy.study import yamlfile
from optstudy.study.schema import study_schema

SCHEMA = study_schema()
KINDS = {
    "string": str, "boolean": bool, "object": dict, "array": list, "null": type(None), "integer": int,
    "number": (int, float),
}  # fmt: skip


def allows(schema, value):
    """As much of JSON Schema as this one uses."""
    if "$ref" in schema and not allows(SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]], value):
        return False
    if "not" in schema and allows(schema["not"], value):
        return False
    for word in ("anyOf", "oneOf"):
        if word in schema and not any(allows(one, value) for one in schema[word]):
            return False
    if "type" in schema:
        right = isinstance(value, KINDS[schema["type"]])
        if not right or (isinstance(value, bool) and schema["type"] in ("integer", "number")):
            return False
    limits = {
        "enum": lambda limit: value in limit,
        "minimum": lambda limit: value >= limit,
        "exclusiveMinimum": lambda limit: value > limit,
        "maximum": lambda limit: value <= limit,
        "exclusiveMaximum": lambda limit: value < limit,
        "pattern": lambda limit: re.search(limit, value),
        "minItems": lambda limit: len(value) >= limit,
        "maxItems": lambda limit: len(value) <= limit,
        "minProperties": lambda limit: len(value) >= limit,
        "required": lambda limit: set(limit) <= value.keys(),
        "items": lambda limit: all(allows(limit, one) for one in value),
        "prefixItems": lambda limit: all(map(allows, limit, value)),
    }
    if not all(check(schema[word]) for word, check in limits.items() if word in schema):
        return False
    if isinstance(value, dict):
        known, other = schema.get("properties", {}), schema.get("additionalProperties", True)
        other = {} if other is True else other
        return all(
            allows(known[key], one) if key in known else other is not False and allows(other, one)
            for key, one in value.items()
        )
    return True


@pytest.mark.parametrize("name", study.names())
def test_every_study_of_the_package_is_allowed(name):
    content = (resources.files("optstudy") / "studies" / f"{name}.yaml").read_text()
    assert allows(SCHEMA, yamlfile.plain(yamlfile.parse(content, name), name))


RIGHT = {"title": "T", "asks": "Q?", "base": {"training.steps": 3}}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("optimizer.name", "adm"), ("optimizer.lr", -1), ("optimizer.options.betas", 0.9),
        ("optimizer.options.betas", [0.9]), ("optimizer.options.betas", [0.9, 1.0]),
        ("optimizer.options.freeze", "no"), ("optimizer.options.eps", "1e-3"), ("optimizer.options", [1]),
        ("optimizer.options", {"nesterov": "false"}), ("optimizer.roles", {"heads": {}}),
        ("optimizer.roles", {"head": {"lr": 0}}), ("training.steps", 1.5), ("training.precision", "float16"),
    ],
)  # fmt: skip
def test_wrong_values_are_not(key, value):
    assert allows(SCHEMA, RIGHT)
    assert not allows(SCHEMA, {**RIGHT, "base": {key: value}})
    assert not allows(SCHEMA, {**RIGHT, "curves": {"a": {"base": {key: value}}}})


@pytest.mark.parametrize(
    ("value", "allowed"),
    [
        ({"on": {"training.steps": 3}, "off": {}}, True),
        ({"on": {"base": {"training.steps": 3}, "axes": {"optimizer.lr": [1e-3]}}}, True),
        ({"on": {"training.steps": -3}}, False),
        ({"on": {"base": {"training.steps": -3}}}, False),
        ({"on": {"base": {}, "training.steps": 3}}, False),
        ({"on": 3}, False),
        ({}, False),
    ],
)
def test_an_axis_of_named_settings_is_settings_or_layers_by_name(value, allowed):
    for axes in ({"head": value}, {"optimizer.lr": [1e-3], "head": value}):
        assert allows(SCHEMA, {**RIGHT, "axes": axes}) == allowed
        assert allows(SCHEMA, {**RIGHT, "panels": {"p": {"axes": axes}}}) == allowed


def test_options_are_explained():
    described = str(SCHEMA["$defs"]["Settings"]["properties"]["optimizer.options.nesterov"])
    assert "Step by g + beta b" in described
