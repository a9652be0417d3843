"""YAML 1.2 as plain Python values, with the line of every key. Errors name file and line."""

import itertools
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ruamel.yaml import YAML
from ruamel.yaml.constructor import ConstructorError, RoundTripConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError, YAMLWarning
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from optstudy.data import files
from optstudy.errors import MOST_WHOLE, UserError, first_line, printable, shortened, shown

BROKEN = (YAMLError, YAMLWarning, ValueError, TypeError, AttributeError, LookupError, AssertionError)
"""Exceptions that ruamel.yaml raises for invalid files."""
MOST_SAID = 200
"""Maximum length of an error of ruamel.yaml, which may quote half a file."""
MOST_NODES = 100_000
"""Maximum number of values in a file, with aliases expanded."""
MOST_BYTES = 1 << 20
"""Maximum size of a file; reading about ten thousand bytes takes a second."""
DEEPEST = 200
"""Maximum nesting of lists and mappings in a file."""
WORDS = ("trainer", "command")
"""Place of a list whose words are text: ``1e3``, ``1.10`` and ``~`` stay as written."""

L = TypeVar("L", bound=int | None)
Places = Sequence[tuple[str, int, Any]]
"""The result of :func:`places`."""


class _Constructor(RoundTripConstructor):
    """Builds values from YAML; a value that cannot be built is an error with its line."""

    def construct_document(self, node: Node) -> Any:
        left, seen = [node], set[int]()
        while left:
            one = left.pop()
            if id(one) in seen or isinstance(one, ScalarNode):
                continue
            seen.add(id(one))
            for part in one.value:
                key, value = part if isinstance(one, MappingNode) else (None, part)
                if key is not None and not isinstance(
                    key, ScalarNode
                ):  # ruamel takes exponential time for it
                    raise ConstructorError(None, None, "a key must be a plain text", key.start_mark)
                left.append(value)
        for word in _at(node, WORDS):
            if isinstance(word, ScalarNode):
                word.tag = "tag:yaml.org,2002:str"
        return super().construct_document(node)

    def construct_non_recursive_object(self, node: Node, tag: str | None = None) -> Any:
        try:
            return super().construct_non_recursive_object(node, tag)
        except BROKEN as error:
            if isinstance(error, MarkedYAMLError):
                raise
            if isinstance(node.value, str) and node.value.lstrip("+-").replace("_", "").isdecimal():
                return MOST_WHOLE + 1  # more digits than Python reads; refused with its key by `plain`
            raise ConstructorError(None, None, first_line(error), node.start_mark) from None


def _at(node: Node, keys: Sequence[str]) -> Sequence[Node]:
    """Return the items of the list at a place of a document; none if there is no list."""
    for key in keys:
        parts = node.value if isinstance(node, MappingNode) else []
        node = next((value for name, value in parts if name.value == key), Node(None, [], None, None))
    return node.value if isinstance(node, SequenceNode) else []


def read(path: Path) -> str:
    """Read a UTF-8 text file.

    Raises:
        UserError: it is missing, unreadable, a pipe or device, too large, or not UTF-8.
    """
    try:
        size = files.regular(path).st_size
        if size > MOST_BYTES:
            raise UserError(f"{path}: {size:,} bytes, and a file of settings has at most {MOST_BYTES:,}")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


def parse(content: str, where: str) -> Any:
    """Parse YAML; the resulting mappings and lists know their lines (:func:`line`).

    Raises:
        UserError: it is not valid YAML, or nested so deeply that reading would take minutes.
    """
    _check_depth(content, where)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", YAMLWarning)
            return _yaml().load(content)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f"{where}:{mark.line + 1}" if mark else where
        said = " ".join(f"{error.context or ''} {error.problem or ''}".split())
        raise UserError(f"{at}: {shortened(said, MOST_SAID) or 'no YAML'}") from None
    except BROKEN as error:
        raise UserError(f"{where}: no YAML: {shortened(' '.join(str(error).split()), MOST_SAID)}") from None
    except RecursionError:
        raise UserError(f"{where}: nested too deeply") from None


def _check_depth(content: str, where: str) -> None:
    """Refuse nesting that ruamel.yaml would need minutes to read."""
    levels = itertools.accumulate((1 if c in "[{" else -1 for c in re.findall(r"[][{}]", content)), initial=0)
    if max(levels) > DEEPEST:
        raise UserError(f"{where}: nested too deeply")


def _yaml() -> YAML:
    reader = YAML()
    reader.Constructor = _Constructor
    return reader


def plain(tree: Any, where: str) -> Any:
    """Convert ruamel's containers and numbers to Python's own.

    Raises:
        UserError: the file is nested too deeply, expands to too many values, or has a number or text that no
            key accepts: one beyond 2^63, or half a character.
    """
    return _Plain(where).value(tree, (), None)


def assigned(written: str) -> Any:
    """Read the value after the ``=`` of an assignment.

    Numbers, ``true``, ``false``, ``null``, quoted text, a ``[list]`` or a ``{key: value}`` are read as YAML
    1.2. Anything else is literal text, because YAML would read only a part of ``notes #2``, ``a: b`` or
    ``*x``, or something else.

    Raises:
        UserError: a list or mapping has a mistake, such as a duplicate key.
    """
    return plain(parse(written, shown(written)), shown(written)) if _is_value(written) else written


def assignment(value: Any) -> str:
    """Return the text that :func:`assigned` reads as ``value``."""
    if isinstance(value, str) and value and not _is_value(value):
        return value
    return printable(json.dumps(value, ensure_ascii=False))


def listed(values: Iterable[Any]) -> str:
    """Return values separated by commas, as in a YAML list; reading them back gives the same values."""
    return ",".join(_in_a_list(value) for value in values)


def _in_a_list(value: Any) -> str:
    if isinstance(value, str) and not value.startswith(" ") and assigned(f"[{value}]") == [value]:
        return value
    return printable(json.dumps(value, ensure_ascii=False))


def _is_value(written: str) -> bool:
    """Whether a text is a single complete YAML value other than plain text."""
    whole = written.strip(" ")
    if "\n" in whole:
        return False
    _check_depth(whole, shown(whole))
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
    """Line (from 1) of the deepest part of ``loc`` that exists in the file."""
    found = 1
    for part in loc:
        if isinstance(tree, Mapping) and part in tree:
            found = _key_line(tree, part, found)
            tree = tree[part]
        elif isinstance(tree, list) and isinstance(part, int) and part < len(tree) and hasattr(tree, "lc"):
            found = tree.lc.item(part)[0] + 1
            tree = tree[part]
    return found


def _key_line(tree: Any, key: Any, otherwise: L) -> int | L:
    """Line of a key; keys merged by ``<<`` have no line."""
    try:
        return int(tree.lc.key(key)[0]) + 1
    except (AttributeError, KeyError, TypeError):
        return otherwise


def places(tree: Any, above: str = "", otherwise: int = 1) -> Iterator[tuple[str, int, Any]]:
    """Yield the dotted path, the line and the value of every key of a file."""
    if isinstance(tree, Mapping):
        for key, value in tree.items():
            at = _key_line(tree, key, otherwise)
            yield f"{above}{key}", at, value
            yield from places(value, f"{above}{key}.", at)
    elif isinstance(tree, list):
        for value in tree:
            yield from places(value, above, otherwise)


def place(known: Places, key: str, came: Any) -> int | None:
    """Return the line on which a config key, or its nearest ancestor, gets a value; None if there is none.

    If several lines do, it is the last one with exactly this value (for an axis: among others), else the
    last.
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


class _Plain:
    """Converts the values of one file, called ``where`` in errors, to plain Python values."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._left = MOST_NODES

    def value(self, node: Any, above: tuple[str, ...], line: int | None) -> Any:
        """Return a plain value.

        Args:
            node: ruamel's value.
            above: the keys that lead to it.
            line: its line, if known.
        """
        self._left -= 1
        if self._left < 0 or len(above) > DEEPEST:
            raise UserError(f"{self._where}: nested too deeply or too large")
        if isinstance(node, Mapping):
            found = {}
            for key, inner in node.items():
                at = _key_line(node, key, line)
                name = str(self.value(key, above, at))
                found[name] = self.value(inner, (*above, name), at)
            return found
        if isinstance(node, list):
            return [self.value(inner, (*above, str(i)), line) for i, inner in enumerate(node)]
        for kind in (bool, int, float, str):
            if isinstance(node, kind):
                return self._scalar(kind(node), above, line)
        return None if node is None else str(node)

    def _scalar(self, value: Any, above: tuple[str, ...], line: int | None) -> Any:
        why = None
        if isinstance(value, int) and abs(value) > MOST_WHOLE:
            why = f"must be between -2^63 and 2^63, not {shown(value)}"
        elif isinstance(value, str):
            whole = value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
            if "\0" in value or (whole != value and "\ufffd" in whole):
                why = f"no text has half a character or a NUL in it, as {shown(value)} has"
            value = whole
        if why is None:
            return value
        place = self._where if line is None else f"{self._where}:{line}"
        raise UserError(": ".join([place, *filter(None, [".".join(above)]), why]))


def located(error: UserError, where: str, places: Places, chosen: Iterable[str] = ()) -> UserError:
    """Add the position of a wrong value to an error: a line of a file, or the command line.

    Args:
        error: names the config key.
        where: the file, or the study's name.
        places: the places of the file's keys.
        chosen: keys that were given by ``--set``.
    """
    in_file = any(path == error.key or path.endswith(f".{error.key}") for path, _, _ in places)
    for one in chosen:
        below = (
            one.startswith(f"{error.key}.") and error.key and not in_file
        )  # of an unknown key, its beginning
        if below or error.key == one or error.key.startswith(f"{one}."):
            return UserError(f"{where}: --set: {error}")
    line = place(places, error.key, error.came) if error.key else None
    return UserError(f"{where}: {error}" if line is None else f"{where}:{line}: {error}")
