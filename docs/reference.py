"""The reference of every config key and every study-file key, from the classes that validate them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from measured import table
from pydantic import BaseModel

from optstudy.config import RunConfig
from optstudy.launch.options import Slurm
from optstudy.program import MetricSpec, TrainerSpec
from optstudy.record import leaves
from optstudy.scales import SCALES
from optstudy.study.file import (
    Adaptive,
    BestOf,
    ClaimSpec,
    FigureSpec,
    HalfDecades,
    Layer,
    Noise,
    PanelSpec,
    Refine,
    ScaleLayer,
    StudyFile,
)
from optstudy.study.schema import FILLED_IN

SET = frozenset(key for tree in SCALES.values() for key, _ in leaves(tree))
"""Config keys set by a scale."""
HEADING = ("key", "meaning", "unit", "type", "default")
BOUNDS = (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
PARTS: Sequence[tuple[str, str, type[BaseModel]]] = (
    ("The file", "Top-level keys of a study file.", StudyFile),
    ("A panel", "Keys under `panels: {TITLE: ...}`.", PanelSpec),
    ("What differs at a scale", "Keys under `scales: {SCALE: ...}`.", ScaleLayer),
    ("For one optimizer or curve", "Keys under `optimizers: {NAME: ...}`, `curves: {NAME: ...}`.", Layer),
    ("A grid of values", "Instead of a list under `axes`: values even in the logarithm.", HalfDecades),
    ("Values from another study", "Keys under `best_of`.", BestOf),
    ("A claim", "Keys under `claims: {NAME: ...}`: a statement and its test.", ClaimSpec),
    ("Noise", "Keys under `noise`.", Noise),
    ("Another training program", "Keys under `trainer`; see [its page](../contract.md).", TrainerSpec),
    ("The metric", "Keys under `trainer.metric`, or its name alone.", MetricSpec),
    ("The figure", "Keys under `figure`.", FigureSpec),
    ("An axis that grows", "Keys under `adaptive`; `adaptive: {}` uses all defaults.", Adaptive),
    ("More seeds where needed", "Keys under `refine`; `refine: {}` uses all defaults.", Refine),
    ("Slurm", "Keys under `slurm`; `--slurm key=value` overrides them.", Slurm),
)  # fmt: skip
"""Heading, location and class of each part of a study file."""


def reference_pages() -> dict[str, str]:
    """The two pages."""
    return {"config.md": config_page(), "study-file.md": study_page()}


def config_page() -> str:
    """Every key of a run's config."""
    parts = [
        "# Every config key\n",
        "One run as data. A study file sets these under `base` and `axes`, `--set key=value` on the command\n"
        "line; `optstudy train FILE.yaml` takes a file of them, nested or dotted. Omitted keys have\n"
        "the scale's value, else the default. Wrong input is refused, with the nearest valid name.\n",
        in_editor(
            "my-run.yaml", "config.schema.json", "optstudy schema --config", "scale: pico\noptimizer.lr: 3e-3"
        ),
    ]
    groups: dict[str, list[tuple[str, ...]]] = {}
    for key, *cells in keys_of(RunConfig):
        groups.setdefault(key.rpartition(".")[0], []).append((f"`{key}`", *cells))
    for group, rows in groups.items():
        parts += [f"## {group or 'The run'}\n", table(HEADING, rows)]
    parts += [
        "Options of an optimizer are under `optimizer.options`, those of one role under\n"
        "`optimizer.roles`: [the pages of the optimizers](optimizers/index.md) list their meanings, ranges\n"
        "and defaults.\n",
        "## What a scale sets\n",
        table(("key", *SCALES), scale_rows()),
    ]
    return "\n".join(parts)


def study_page() -> str:
    """Every key of a study file."""
    example = "title: Adam\nasks: At which rate?\naxes: {optimizer.name: [adam], optimizer.lr: [1e-3, 1e-2]}"
    parts = [
        "# Every study-file key\n",
        "A study is a YAML file: a title, a question, values to set and values to vary\n"
        "([add a study in three steps](../add-a-study.md)). The config keys under `base` and `axes` have\n"
        "[a separate page](config.md).\n",
        in_editor("my-study.yaml", "study.schema.json", "optstudy schema", example),
    ]
    for heading, place, kind in PARTS:
        rows = [(f"`{key}`", *cells) for key, *cells in own_keys(kind)]
        parts += [f"## {heading}\n", f"{place}\n", table(HEADING, rows)]
    return "\n".join(parts)


def in_editor(name: str, schema: str, command: str, content: str) -> str:
    """How to use the schema in an editor."""
    return (
        "## In an editor\n\nEditors with the YAML language server (VS Code's YAML extension, Neovim, Emacs,\n"
        "Helix) complete keys and options, show their meaning and mark mistakes, once the schema is\n"
        "next to the file:\n\n"
        f"```sh\n{command} > {schema}\n```\n\nand the file starts with a line that names it:\n\n"
        f"```text\n# {name}\n# yaml-language-server: $schema={schema}\n{content}\n```\n"
    )


def keys_of(kind: type[BaseModel], above: str = "") -> Iterator[tuple[str, ...]]:
    """Key, meaning, unit, type and default of every dotted config key."""
    kinds = {field: info.annotation for field, info in kind.model_fields.items()}
    for key, *cells, default in own_keys(kind):
        inner, full = kinds[key], f"{above}{key}"
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from keys_of(inner, f"{full}.")
        elif full == "scale":
            yield full, *cells, "`pico`"
        else:
            yield (
                full,
                *cells,
                "filled in" if full in FILLED_IN else "of the scale" if full in SET else default,
            )


def own_keys(kind: type[BaseModel]) -> Iterator[tuple[str, ...]]:
    """Key, meaning, unit, type and default of a class's own keys."""
    schema = kind.model_json_schema()
    whole = schema["$defs"][schema["$ref"].rpartition("/")[2]] if "$ref" in schema else schema
    fields = whole["properties"]
    for name, info in kind.model_fields.items():
        key = info.alias or name
        meaning = re.sub(r":\w+:`", "`", " ".join((info.description or "").replace("``", "`").split()))
        default = "required" if info.is_required() else said(fields[key].get("default"))
        yield key, meaning, units(fields[key]), typed(fields[key]), default


def units(field: Mapping[str, Any]) -> str:
    """The unit of a number; empty for anything else."""
    parts = [field, *field.get("anyOf", ())]
    return next((str(part["unit"]) for part in parts if "unit" in part), "")


def typed(field: Mapping[str, Any]) -> str:
    """A field's type and range in one or two words."""
    if "$ref" in field:
        return "mapping"
    for several in ("anyOf", "oneOf"):
        if several in field:
            return " or ".join(dict.fromkeys(typed(one) for one in field[several]))
    if "enum" in field:
        return ", ".join(f"`{one}`" for one in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    kind = str(field.get("type", "any value"))
    if kind == "array":
        return f"list of {typed(field.get('items', {}))}"
    names = {"integer": "whole number", "string": "text", "boolean": "`true`, `false`", "object": "mapping"}
    limits = [f"{sign} {field[bound]:g}" for bound, sign in BOUNDS if bound in field]
    return " ".join([names.get(kind, kind), *limits])


def said(value: Any) -> str:
    """A default as in YAML."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return "none" if value in ({}, [], "") else "see its keys" if isinstance(value, Mapping) else f"`{value}`"


def scale_rows() -> list[tuple[str, ...]]:
    """A row per key that some scale sets, with its value at each scale."""
    flat = {name: dict(leaves(tree)) for name, tree in SCALES.items()}
    keys = dict.fromkeys(key for values in flat.values() for key in values)
    return [(f"`{key}`", *(str(flat[name].get(key, "")) for name in SCALES)) for key in keys]
