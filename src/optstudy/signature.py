"""What a class's constructor takes, read from its source: nothing is imported, so neither is torch."""

import ast
import importlib.util
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from optstudy.errors import UserError


@dataclass(frozen=True)
class Signature:
    """The arguments of a constructor."""

    names: tuple[str, ...]
    defaults: Mapping[str, Any]
    """Of the arguments whose default is a literal."""
    limits: Mapping[str, str]
    """The class's attribute ``limits``: intervals, or patterns of words."""
    open_ended: bool
    """It takes ``**kwargs``."""


def require(target: str) -> None:
    """Check that the package of an import path can be found, without importing it.

    Raises:
        UserError: it cannot.
    """
    top = target.partition(".")[0]
    if _spec(top) is None:
        raise UserError(
            f"optimizer {target!r}: there is no module {top!r}; start optstudy in the folder of {top}.py, "
            "put that folder on PYTHONPATH, or install the package"
        )


@cache
def signature(target: str) -> Signature | None:
    """Return the signature of the class at an import path; None if its source cannot be found."""
    module, _, name = target.rpartition(".")
    found = _find(module, name)
    if found is None:
        return None
    module, definition = found
    inherited = _inherited(module, definition) or Signature((), {}, {}, open_ended=False)
    limits = inherited.limits
    function: ast.FunctionDef | None = None
    for statement in definition.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            function = statement
        if isinstance(statement, ast.AnnAssign) and ast.unparse(statement.target) == "limits":
            limits = ast.literal_eval(statement.value) if statement.value else limits
    if function is None:
        return replace(inherited, limits=limits)
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    padding = [None] * (len(positional) - len(arguments.defaults))
    pairs = [
        *zip(positional, [*padding, *arguments.defaults], strict=True),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    names = [a.arg for a, _ in pairs][1:]
    defaults = {a.arg: value for a, node in pairs if node and (value := _literal(node)) is not _NOT_LITERAL}
    if arguments.kwarg is None:
        return Signature(tuple(names), defaults, limits, open_ended=False)
    names += [name for name in inherited.names if name not in names]
    open_ended = not inherited.names or inherited.open_ended
    return Signature(tuple(names), {**inherited.defaults, **defaults}, limits, open_ended)


_NOT_LITERAL = object()


def _literal(node: ast.expr) -> Any:
    try:
        value = ast.literal_eval(node)
    except ValueError:
        return _NOT_LITERAL
    return list(value) if isinstance(value, tuple) else value


def _inherited(module: str, definition: ast.ClassDef) -> Signature | None:
    for base in definition.bases:
        if isinstance(base, ast.Name) and (found := signature(f"{module}.{base.id}")):
            return found
    return None


def _find(module: str, name: str) -> tuple[str, ast.ClassDef] | None:
    """Return the module that defines a class, and the definition, following ``from a import b as c``."""
    path = _source(module)
    if path is None:
        return None
    for statement in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(statement, ast.ClassDef) and statement.name == name:
            return module, statement
        if isinstance(statement, ast.ImportFrom):
            for alias in statement.names:
                if (alias.asname or alias.name) == name:
                    return _find(_absolute(module, path, statement), alias.name)
    return None


def _absolute(module: str, path: Path, statement: ast.ImportFrom) -> str:
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    parents = package[: len(package) - statement.level + 1] if statement.level else []
    return ".".join([*parents, *filter(None, [statement.module])])


def _source(module: str) -> Path | None:
    """Return the file of a module; only its top-level package is looked up, which imports nothing."""
    top, *rest = module.split(".")
    spec = _spec(top)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin)
    if rest:
        path = path.parent.joinpath(*rest)
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return path if path.suffix == ".py" and path.is_file() else None


@cache
def _spec(top: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(top) if top else None
    except (ImportError, ValueError):
        return None


def outside(value: Any, limit: str) -> str:
    """Return what was wanted, such as ``"a number in [0, 1)"``, if a value is outside a limit, else ``""``.

    A limit is an interval for numbers and for pairs of them, or a pattern for words.
    """
    if limit[0] not in "[(":
        return "" if isinstance(value, str) and re.fullmatch(limit, value) else f"one of {limit}"
    low, high = (float(end) for end in limit[1:-1].split(","))
    numbers = value if isinstance(value, (list, tuple)) else [value]
    for x in numbers:
        if isinstance(x, bool) or not isinstance(x, (int, float)):
            return f"a number in {limit}"
        above = low <= x if limit[0] == "[" else low < x
        if not (above and (x <= high if limit[-1] == "]" else x < high)):
            return f"in {limit}"
    return ""
