"""``$names`` in the settings of study files, and what they stand for."""

import re
from collections.abc import Mapping
from typing import Any

from optstudy.errors import UserError, nearest
from optstudy.grids import rounded

_TIMES = re.compile(r"([-+.\de]+) *\* *(\$.+)", re.IGNORECASE)
"""A multiple of a value: ``0.5 * $steps``."""


def parsed(value: Any) -> tuple[str, str] | None:
    """Return the factor, empty if there is none, and the ``$name`` of a setting; None for plain values."""
    if not isinstance(value, str):
        return None
    if found := _TIMES.fullmatch(value):
        return found[1], found[2]
    return ("", value) if value.startswith("$") else None


def stands_for(value: Any, name: str) -> bool:
    """Whether a setting is this ``$name`` or a multiple of it."""
    found = parsed(value)
    return found is not None and found[1] == name


def names(node: Any) -> set[str]:
    """Return the ``$names`` used in nested settings."""
    if found := parsed(node):
        return {found[1]}
    below = node.values() if isinstance(node, Mapping) else node if isinstance(node, list) else ()
    return {name for one in below for name in names(one)}


def substituted(node: Any, values: Mapping[str, Any]) -> Any:
    """Replace the ``$names`` in nested settings by their values.

    Raises:
        UserError: a name has no value, or a multiple is of something else than a number.
    """
    if isinstance(node, Mapping):
        return {key: substituted(value, values) for key, value in node.items()}
    if isinstance(node, list):
        return [substituted(value, values) for value in node]
    found = parsed(node)
    if found is None:
        return node
    factor, name = found
    if name not in values:
        raise UserError(f"no axis {name!r}{nearest(name, values)}")
    return _times(factor, values[name], node) if factor else values[name]


def _times(factor: str, value: Any, said: str) -> float:
    """Multiply a value: integers stay integers, others are rounded to three digits."""
    try:
        product = float(factor) * value
    except (TypeError, ValueError):
        raise UserError(
            f"{said!r} is not a number times a number: {said.split('$')[-1]} is {value!r}"
        ) from None
    return max(1, round(product)) if type(value) is int else rounded(product)
