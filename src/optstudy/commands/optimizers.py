"""``optstudy optimizers``."""

import json
import math
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from optstudy import presets
from optstudy.commands.options import Json
from optstudy.commands.tables import show_table
from optstudy.config import Model, Shape, shapes_by_role
from optstudy.ending import DONE
from optstudy.optim.options import Options
from optstudy.provenance import installed
from optstudy.recipes import FROM_RUN, OPTIMIZERS, ROLES, Spec, complete, trained
from optstudy.scales import SCALES

FLOAT, BFLOAT16 = 4, 2
"""Bytes of a float32 (also of each parameter's step counter) and of a bfloat16."""
MOMENTUM = ("m", "b")
"""Names of the average of gradients in the state of classes."""


@dataclass(frozen=True)
class Listed:
    """One optimizer or recipe."""

    name: str
    target: str
    second_moment: Mapping[str, str]
    """Granularity by role; ``not trained`` if the role is left out."""
    state_bytes_per_param: float
    """For the shapes of the 150m model, with float32 parameters."""
    source: str
    options: list[dict[str, Any]]
    """Name, type, default, allowed and meaning of each (:func:`described`); of a preset name and default."""
    about: str = ""
    roles: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Of a preset: what differs for a role."""
    schedule: Mapping[str, Any] = field(default_factory=dict)
    """Of a preset: what it asks of the schedule."""
    lr: Mapping[str, float] | None = None
    """Of a preset: the rates that a sweep begins with, ``from``, ``to`` and ``per_decade``."""
    published: str = ""
    faults: list[str] = field(default_factory=list)
    package: str = "optstudy"
    tried: str | None = None
    """The package's version that a preset was tried with."""
    extra: str | None = None
    """The extra of optstudy that installs the package; None: it is there with optstudy."""
    installed: bool = True

    @property
    def moments(self) -> str:
        """The commonest granularity, then the roles that differ; of ours alone."""
        common, _ = Counter(self.second_moment.values()).most_common(1)[0]
        others = [f"{role} {kind}" for role, kind in self.second_moment.items() if kind != common]
        return ", ".join([common, *others])


def listing() -> list[Listed]:
    """Return every optimizer and recipe, in the registry's order."""
    shapes = shapes_by_role(Model.model_validate(SCALES["150m"]["model"]))
    weights = sum(math.prod(shape) for of_role in shapes.values() for shape in of_role)
    result = []
    for name, spec in OPTIMIZERS.items():
        by_role = options_by_role(name)
        state = sum(
            state_bytes(options, shape)
            for role, options in by_role.items()
            if options is not None
            for shape in shapes[role]
        )
        moments = {role: second_moment(options, shapes[role][0]) for role, options in by_role.items()}
        result.append(Listed(name, spec.target, moments, state / weights, spec.source, described(spec)))
    return result


def listed_presets() -> list[Listed]:
    """Return every preset, in the order of their file. Imports none of them."""
    return [
        Listed(
            name, one.target, {}, one.state_bytes_per_param, one.source,
            [{"name": key, "default": value} for key, value in one.options.items()],
            one.about, one.roles, one.schedule, one.lr.model_dump(by_alias=True), one.published, one.faults,
            one.package, one.tried, one.extra, installed(one.target),
        )
        for name, one in presets.load().items()
    ]  # fmt: skip


def options_by_role(name: str) -> dict[str, Options | None]:
    """Return the options of each role of the paper's model; None if it is not trained."""
    options, roles = complete(name, {}, {})
    chosen = {"name": name, "lr": 1.0, "options": options, "roles": roles}
    played = [role for role in ROLES if role != "other"]
    how = {role: trained(chosen, role, dict.fromkeys(FROM_RUN, 1)) for role in played}
    return {role: one.known if one.train else None for role, one in how.items()}


def second_moment(options: Options | None, shape: Shape) -> str:
    """Return the granularity of a role's second moment, and whether it is frozen."""
    if options is None:
        return "not trained"
    kind: str | None = getattr(options, "second_moment", None)
    if kind is None:
        averages = [one for name, one in options.state(shape).items() if name not in MOMENTUM]
        kind = "none" if not averages else "weight" if shape in averages else "factored"
    return f"{kind}, frozen" if getattr(options, "freeze", False) else kind


def state_bytes(options: Options, shape: Shape) -> int:
    """Return the bytes of state of one float32 parameter."""
    return FLOAT + sum(
        (BFLOAT16 if name in options.in_bfloat16 else FLOAT) * math.prod(own)
        for name, own in options.state(shape).items()
    )


def described(spec: Spec) -> list[dict[str, Any]]:
    """Return an optimizer's options: name, type, default, allowed values, and meaning."""
    assert spec.known is not None
    fields = spec.known.model_json_schema()["properties"]
    return [
        {
            "name": key,
            "type": type_of(field),
            "default": spec.options.get(key, field["default"]),
            "allowed": allowed(field),
            "meaning": " ".join(field["description"].split()),
        }
        for key, field in fields.items()
        if key not in Options.model_fields
    ]


def type_of(field: Mapping[str, Any]) -> str:
    """Return the type of a JSON schema field in one or two words."""
    if field["type"] == "array":
        return f"{field['minItems']} numbers"
    return {"number": "number", "integer": "integer", "boolean": "true or false", "string": "word"}[
        field["type"]
    ]


def allowed(field: Mapping[str, Any]) -> str:
    """Return the range of a JSON schema field, such as ``[0, 1)``; empty if the type implies it."""
    one = field["prefixItems"][0] if field["type"] == "array" else field
    if "pattern" in one:
        return str(one["pattern"]).strip("^$()")
    bounds = {key: one.get(key) for key in ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")}
    if all(bound is None for bound in bounds.values()):
        return ""
    low = f"[{bounds['minimum']:g}" if bounds["minimum"] is not None else f"({bounds['exclusiveMinimum']:g}"
    if bounds["maximum"] is not None:
        return f"{low}, {bounds['maximum']:g}]"
    return f"{low}, inf)" if bounds["exclusiveMaximum"] is None else f"{low}, {bounds['exclusiveMaximum']:g})"


WIDTH = 160
"""Minimum width of the table in characters, because sources are long."""


def optimizers(*, json_: Json = False) -> int:
    """List every optimizer, recipe and preset: its second moment by role, its state at 150m, its source.

    Presets are optimizers of others: of these the table says what they are, and whether they are installed.

    Args:
        json_: write JSON.
    """
    found = [*listing(), *listed_presets()]
    if json_:
        sys.stdout.write(json.dumps([asdict(one) for one in found], indent=1) + "\n")
        return DONE
    rows = [
        (
            one.name,
            one.about or one.moments,
            f"{one.state_bytes_per_param:.2f}",
            "yes" if one.installed else f"no: optstudy[{one.extra}]",
            one.source,
        )
        for one in found
    ]
    show_table(("optimizer", "second moment, or rule", "B/param", "installed", "source"), rows, least=WIDTH)
    return DONE
