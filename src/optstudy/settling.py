"""From merged layers to one validated config."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

from optstudy import provenance, text, yamlfile
from optstudy.config import RunConfig
from optstudy.errors import UserError, nearest, validate
from optstudy.scales import SCALES
from optstudy.tokenizing import names


def check_scale(scale: Any, where: str = "") -> str:
    """Return ``scale`` if there is such a one.

    Raises:
        UserError: there is none.
    """
    if not isinstance(scale, str) or scale not in SCALES:
        raise UserError(f"{where}unknown scale {scale!r}{nearest(str(scale), SCALES)}", "scale", scale)
    return scale


def settle(tree: dict[str, Any]) -> RunConfig:
    """Fill in what text, tokenizer and code are, and validate.

    Raises:
        UserError: a wrong value, with its key; files that cannot be read.
    """
    data = tree.get("data")
    if isinstance(data, Mapping):
        corpus, tokenizer = data.get("corpus"), data.get("tokenizer")
        filled: dict[str, Any] = {"tokenizer_fingerprint": tokenizer_fingerprint(tokenizer)}
        if isinstance(corpus, str):
            try:
                filled["fingerprint"] = text.fingerprint(corpus)
            except UserError as error:
                raise UserError(f"data.corpus: {error}", "data.corpus", corpus) from None
        tree = {**tree, "data": {**data, **filled}}
    config = validate(RunConfig, tree)
    code = provenance.fingerprint(config.optimizer.targets)
    return config.model_copy(update={"optimizer": config.optimizer.model_copy(update={"code": code})})


def check_unchanged(config: RunConfig) -> None:
    """Refuse to go on with a run whose text, tokenizer or optimizer is no longer what it began with.

    Raises:
        UserError: naming what has changed, or cannot be read.
    """
    data, chosen = config.data, config.optimizer
    for key, name, now, then in (
        ("data.corpus", data.corpus, text.fingerprint(data.corpus), data.fingerprint),
        ("data.tokenizer", data.tokenizer, tokenizer_fingerprint(data.tokenizer), data.tokenizer_fingerprint),
        ("optimizer.name", chosen.name, provenance.fingerprint(chosen.targets), chosen.code),
    ):
        if now != then:
            raise UserError(
                f"{key}: {name} has changed since this run was made: its fingerprint is {now}, not {then}; "
                "restore it, or begin a run of its own from a config or study file"
            )


def located(error: UserError, where: str, places: yamlfile.Places, chosen: Iterable[str] = ()) -> UserError:
    """Add where a wrong value stands: in a line of a file, or on the command line.

    Args:
        error: names the config key.
        where: the file, or the study's name.
        places: of the file's keys.
        chosen: keys that were given by ``--set``.
    """
    if any(error.key == one or error.key.startswith(f"{one}.") for one in chosen):
        return UserError(f"{where}: --set: {error}")
    line = yamlfile.place(places, error.key, error.came) if error.key else None
    return UserError(f"{where}: {error}" if line is None else f"{where}:{line}: {error}")


def tokenizer_fingerprint(name: Any) -> str | None:
    """Return a hash of the tokenizer's file that ``data.tokenizer`` names; None where it names none.

    Raises:
        UserError: the file cannot be read.
    """
    if not isinstance(name, str) or not name.endswith((".json", ".model")):
        return None
    try:
        return names.fingerprint(name)
    except UserError as error:
        raise UserError(f"data.tokenizer: {error}", "data.tokenizer", name) from None


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


def substituted(node: Any, variables: Mapping[str, Any]) -> Any:
    """Put values in the place of ``$names``.

    Raises:
        UserError: a name that is no axis.
    """
    if isinstance(node, Mapping):
        return {key: substituted(value, variables) for key, value in node.items()}
    if isinstance(node, list):
        return [substituted(value, variables) for value in node]
    if isinstance(node, str) and node.startswith("$"):
        if node not in variables:
            raise UserError(f"no axis {node!r}{nearest(node, variables)}")
        return variables[node]
    return node
