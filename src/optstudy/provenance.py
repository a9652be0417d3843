"""The origin of other people's classes: an installed package, or the user's own code. Imports none of it.

Runs with a class that is not from an installed package are identified by its source: its module and the
user's own modules that it imports, according to ``import`` statements. An editable installation counts as the
user's own code.
"""

import ast
import hashlib
import importlib.metadata
import importlib.util
import os
import sys
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from importlib.machinery import ModuleSpec
from pathlib import Path

from optstudy import presets
from optstudy.errors import UserError

OURS = frozenset({"optstudy"})
"""Code whose changes are tracked by a config's ``numerics`` instead."""


def fingerprint(targets: Iterable[str]) -> str | None:
    """Return a hash of the source behind the given import paths of classes; None if all are installed.

    Raises:
        UserError: source that cannot be read; gives the file and line.
    """
    modules = [target.rpartition(".")[0] for target in targets if target.partition(".")[0] not in OURS]
    if modules:
        importlib.invalidate_caches()  # a module may have just been written
    found: dict[str, bytes] = {}
    for module in modules:
        _collect(module, found)
    if not found:
        return None
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()[:12]


def versions(targets: Iterable[str]) -> dict[str, str]:
    """Return the versions of the installed packages that the classes come from, by package."""
    modules = {target.partition(".")[0] for target in targets} - OURS
    packages = {name for module in modules for name in _packages(module)}
    return {name: importlib.metadata.version(name) for name in sorted(packages)}


def require(target: str, kind: str = "optimizer") -> None:
    """Check that the module of an import path exists, without importing it.

    Args:
        target: the path.
        kind: what it leads to; the config key ``KIND.name`` says the path.

    Raises:
        UserError: it does not exist.
    """
    top = target.partition(".")[0]
    if _spec(top) is None:
        extra = presets.that_brings(top)
        if extra is not None:
            said = f"{kind} {target!r}: {top} is not installed; pip install 'optstudy[{extra}]'"
            raise UserError(said, f"{kind}.name", target)
        raise UserError(
            f"{kind} {target!r}: there is no module {top!r}; start optstudy in the folder of {top}.py, "
            "put that folder on PYTHONPATH, or install the package",
            f"{kind}.name",
            target,
        )


def of_files(files: Iterable[Path], home: Path) -> str | None:
    """Return a hash of files, and of the modules that Python files import from their folder or from home.

    Imports are found by parsing; a file that this Python cannot parse is hashed as it is. None: no files.

    Raises:
        UserError: a file cannot be read.
    """
    found: dict[str, str] = {}
    todo = [(path, (path.parent, home)) for path in files]
    while todo:
        path, roots = todo.pop()
        name = os.path.relpath(path, home)
        if name in found:
            continue
        module = name.removesuffix("/__init__.py").removesuffix(".py").replace("/", ".")
        try:
            changed = path.stat()
            found[name], imported = _digest(module, path, changed.st_mtime_ns, changed.st_size)
        except OSError as error:
            raise UserError(f"{path}: {error.strerror}") from None
        for other in (module.rpartition(".")[0], *imported):
            if (file := module_file(other, roots)) is not None:
                todo.append((file, roots))
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()[:12] if found else None


def module_file(module: str, roots: Iterable[Path]) -> Path | None:
    """Return a module's file below one of the folders; packages do not need ``__init__.py``."""
    for root in roots:
        base = root.joinpath(*module.split("."))
        for path in (base / "__init__.py", base.with_name(f"{base.name}.py")):
            if module and path.is_file():
                return path
    return None


def installed(module: str) -> bool:
    """Whether a module's top-level package exists, without importing it."""
    return _spec(module.partition(".")[0]) is not None


def top_names(file: Path) -> set[str] | None:
    """Return the names that a module defines at its top level; None if they cannot be determined."""
    try:
        body = ast.parse(file.read_bytes()).body
    except (SyntaxError, ValueError):
        return None
    found: set[str] = set()
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        else:  # an assignment, or a block that may contain anything
            found |= {one.id for one in ast.walk(node) if isinstance(one, ast.Name)}
            found |= {one.name for one in ast.walk(node) if isinstance(one, (ast.FunctionDef, ast.ClassDef))}
    return None if "*" in found else found


@lru_cache(maxsize=1024)
def _digest(module: str, path: Path, changed: int, size: int) -> tuple[str, tuple[str, ...]]:
    """Return the hash of a file, with Unix line ends in Python's, and the modules that it may import."""
    if path.suffix == ".py":
        try:
            source, imported = _read(module, path, changed, size)
            return hashlib.sha256(source).hexdigest(), imported
        except UserError:  # written for another version of Python
            pass
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest(), ()


def _collect(module: str, found: dict[str, bytes]) -> None:
    """Add the source of the user's module, of the packages that contain it, and of what these import."""
    top = module.partition(".")[0]
    if module in found or top in sys.stdlib_module_names | OURS or _packages(top):
        return
    path = _file(module)
    if path is None:
        return
    changed = path.stat()
    found[module], imported = _read(module, path, changed.st_mtime_ns, changed.st_size)
    for other in (module.rpartition(".")[0], *imported):
        _collect(other, found)


@lru_cache(maxsize=1024)
def _read(module: str, path: Path, changed: int, size: int) -> tuple[bytes, tuple[str, ...]]:
    """Return a module's source with Unix line ends, and the modules that it may import."""
    source = path.read_bytes().replace(b"\r\n", b"\n")
    if path.suffix != ".py":
        return source, ()
    try:
        tree = ast.parse(source, str(path))
    except SyntaxError as error:
        raise UserError(f"{path}:{error.lineno or 1}: {error.msg}") from None
    except ValueError as error:
        raise UserError(f"{path}: {error}") from None
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return source, tuple(dict.fromkeys(_imports(tree, package)))


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".") if node.level else []
            base = ".".join([*parents[: len(parents) - node.level + 1], *filter(None, [node.module])])
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _file(module: str) -> Path | None:
    """Return the file of a module; only its top-level package is looked up, without importing anything."""
    top, *rest = module.split(".")
    spec = _spec(top)
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.has_location and spec.origin else None
    return module_file(".".join(rest), map(Path, spec.submodule_search_locations or ()))


@cache
def _packages(top: str) -> tuple[str, ...]:
    """Return the installed packages with a top-level module; editable ones count as none."""
    spec = _spec(top)
    places = [] if spec is None else [spec.origin or "", *(spec.submodule_search_locations or ())]
    found = []
    for name in _by_module().get(top, ()):
        package = importlib.metadata.distribution(name)
        root = Path(str(package.locate_file("")))
        installed = package.read_text("RECORD") or root.name in ("site-packages", "dist-packages")
        if installed and any(Path(place).is_relative_to(root) for place in places):
            found.append(name)
    return tuple(dict.fromkeys(found))


@cache
def _by_module() -> dict[str, list[str]]:
    return dict(importlib.metadata.packages_distributions())


def _spec(top: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(top) if top else None
    except (ImportError, ValueError):
        return None
