"""YAML 1.2 as plain Python values, with the line of every key. Errors name file and line."""

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError, YAMLWarning
from ruamel.yaml.nodes import ScalarNode

from optstudy.errors import UserError, printable, shortened

BROKEN = (YAMLError, YAMLWarning, ValueError, TypeError, AttributeError, LookupError, AssertionError)
"""What ruamel.yaml raises on damaged files."""
MOST_SAID = 200
"""Characters of an error of ruamel.yaml, which may quote half a file."""
MOST_NODES = 100_000
"""Values that a file may hold, aliases unfolded."""


Places = Sequence[tuple[str, int, Any]]
"""Of :func:`places`."""


def read(path: Path) -> str:
    """Read a UTF-8 text file.

    Raises:
        UserError: no such file, no right to it, or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: {getattr(error, 'strerror', None) or error}") from None


def parse(content: str, where: str) -> Any:
    """Parse YAML; the result's mappings and lists know their lines (:func:`line`)."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", YAMLWarning)
            return YAML().load(content)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f"{where}:{mark.line + 1}" if mark else where
        said = " ".join(f"{error.context or ''} {error.problem or ''}".split())
        raise UserError(f"{at}: {shortened(said, MOST_SAID) or 'no YAML'}") from None
    except BROKEN as error:
        raise UserError(f"{where}: no YAML: {shortened(' '.join(str(error).split()), MOST_SAID)}") from None
    except RecursionError:
        raise UserError(f"{where}: nested too deeply") from None


def plain(tree: Any, where: str) -> Any:
    """Turn ruamel's containers and numbers into Python's own.

    Raises:
        UserError: the file is nested too deeply, or unfolds to too many values.
    """
    left = iter(range(MOST_NODES))
    try:
        return _plain(tree, left)
    except (RecursionError, StopIteration):
        raise UserError(f"{where}: nested too deeply or too large") from None


def assigned(written: str) -> Any:
    """Read what stands after the ``=`` of an assignment.

    A number, ``true``, ``false``, ``null``, a quoted text, a ``[list]`` or a ``{key: value}`` is read as YAML
    1.2 reads it. Anything else is text to the letter: of ``notes #2``, ``a: b`` or ``*x`` YAML would read a
    part, or something else.

    Raises:
        UserError: a list or mapping with a mistake in it, such as a key that stands there twice.
    """
    return plain(parse(written, repr(written)), repr(written)) if _is_value(written) else written


def assignment(value: Any) -> str:
    """Return what :func:`assigned` reads as ``value``."""
    if isinstance(value, str) and value and not _is_value(value):
        return value
    return printable(json.dumps(value, ensure_ascii=False))


def listed(values: Iterable[Any]) -> str:
    """Return values with commas between them, as they stand in a YAML list: what is read back is the same."""
    return ",".join(_in_a_list(value) for value in values)


def _in_a_list(value: Any) -> str:
    if isinstance(value, str) and not value.startswith(" ") and assigned(f"[{value}]") == [value]:
        return value
    return printable(json.dumps(value, ensure_ascii=False))


def _is_value(written: str) -> bool:
    """Whether a text is one YAML value from end to end, and no plain text."""
    whole = written.strip(" ")
    if "\n" in whole:
        return False
    try:
        node = YAML().compose(whole)
    except BROKEN:
        return False
    except RecursionError:
        raise UserError(f"{shortened(whole, MOST_SAID)}: nested too deeply") from None
    if node is None or (node.start_mark.index, node.end_mark.index) != (0, len(whole)) or whole[0] in "&!|>":
        return False
    if isinstance(node, ScalarNode):
        return bool(node.style) or str(node.tag).rpartition(":")[2] in ("bool", "float", "int", "null")
    return bool(node.flow_style)


def line(tree: Any, loc: Sequence[Any]) -> int:
    """Line (from 1) of the deepest part of ``loc`` that the file has."""
    found = 1
    for part in loc:
        if isinstance(tree, Mapping) and part in tree and hasattr(tree, "lc"):
            found = _key_line(tree, part, found)
            tree = tree[part]
        elif isinstance(tree, list) and isinstance(part, int) and part < len(tree) and hasattr(tree, "lc"):
            found = tree.lc.item(part)[0] + 1
            tree = tree[part]
    return found


def _key_line(tree: Any, key: Any, otherwise: int) -> int:
    """Line of a key; keys merged in by ``<<`` have none of their own."""
    try:
        return int(tree.lc.key(key)[0]) + 1
    except (KeyError, TypeError):
        return otherwise


def places(tree: Any, above: str = "", otherwise: int = 1) -> Iterator[tuple[str, int, Any]]:
    """Yield the dotted path, the line and the value of every key of a file."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            at = _key_line(tree, key, otherwise) if hasattr(tree, "lc") else otherwise
            yield f"{above}{key}", at, value
            yield from places(value, f"{above}{key}.", at)
    elif isinstance(tree, list):
        for value in tree:
            yield from places(value, above, otherwise)


def place(known: Places, key: str, came: Any) -> int | None:
    """Return the line at which a config key, or the nearest key above it, has a value; None without.

    Of several lines, the last that has the value itself (an axis: among others), else the last.
    """
    while key:
        found = [one for one in known if one[0] == key or one[0].endswith(f".{key}")]
        exact = [one for one in found if _has(one[2], came)]
        if found:
            return (exact or found)[-1][1]
        key = key.rpartition(".")[0]
    return None


def _has(value: Any, came: Any) -> bool:
    values = [value, *value] if isinstance(value, list) else [value]
    return any(type(one) is type(came) and one == came for one in (plain(v, "") for v in values))


def _plain(node: Any, left: Iterator[int]) -> Any:
    next(left)
    if isinstance(node, Mapping):
        return {str(_plain(key, left)): _plain(value, left) for key, value in node.items()}
    if isinstance(node, list):
        return [_plain(value, left) for value in node]
    for kind in (bool, int, float, str):
        if isinstance(node, kind):
            return kind(node)
    return None if node is None else str(node)


def located(error: UserError, where: str, places: Places, chosen: Iterable[str] = ()) -> UserError:
    """Add where a wrong value stands: in a line of a file, or on the command line.

    Args:
        error: names the config key.
        where: the file, or the study's name.
        places: of the file's keys.
        chosen: keys that were given by ``--set``.
    """
    if any(error.key == one or error.key.startswith(f"{one}.") for one in chosen):
        return UserError(f"{where}: --set: {error}")
    line = place(places, error.key, error.came) if error.key else None
    return UserError(f"{where}: {error}" if line is None else f"{where}:{line}: {error}")
