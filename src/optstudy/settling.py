"""From merged layers to one validated config."""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from optstudy import text
from optstudy.config import RunConfig, validate
from optstudy.errors import UserError, nearest
from optstudy.scales import SCALES


def check_scale(scale: Any, where: str = "") -> str:
    """Return ``scale`` if there is such a one.

    Raises:
        UserError: there is none.
    """
    if not isinstance(scale, str) or scale not in SCALES:
        raise UserError(f"{where}unknown scale {scale!r}{nearest(str(scale), SCALES)}")
    return scale


def settle(tree: dict[str, Any], where: str) -> RunConfig:
    """Fill in the fingerprint of the corpus and validate."""
    data = tree.get("data")
    corpus = data.get("corpus") if isinstance(data, Mapping) else None
    if isinstance(corpus, str):
        tree = {**tree, "data": {**tree["data"], "fingerprint": text.fingerprint(corpus)}}
    try:
        return validate(RunConfig, tree)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def value_at(config: RunConfig, key: str) -> Any:
    """Read a config value by dotted key.

    Raises:
        UserError: there is no such key.
    """
    node: Any = config
    for part in key.split("."):
        node = dict(node) if isinstance(node, BaseModel) else node
        if not isinstance(node, Mapping) or part not in node:
            hint = nearest(part, node) if isinstance(node, Mapping) else ""
            raise UserError(f"the config has no key {key!r}{hint}")
        node = node[part]
    return node.model_dump(mode="json") if isinstance(node, BaseModel) else node


def substituted(node: Any, variables: Mapping[str, Any], where: str) -> Any:
    """Put values in the place of ``$names``.

    Raises:
        UserError: a name that is no axis.
    """
    if isinstance(node, Mapping):
        return {key: substituted(value, variables, where) for key, value in node.items()}
    if isinstance(node, list):
        return [substituted(value, variables, where) for value in node]
    if isinstance(node, str) and node.startswith("$"):
        if node not in variables:
            raise UserError(f"{where}: no axis {node!r}{nearest(node, variables)}")
        return variables[node]
    return node
