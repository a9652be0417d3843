"""Where optimizers of others come from: an installed package, or code of one's own. Imports none of it.

Runs of a class that no installed package holds are told apart by its source: that of its module and of the
modules of one's own which that imports, as far as ``import`` statements say. An editable installation counts
as code of one's own, too.
"""

import ast
import hashlib
import importlib.metadata
import importlib.util
import sys
from collections.abc import Iterable, Iterator
from functools import cache, lru_cache
from importlib.machinery import ModuleSpec
from pathlib import Path

from optstudy.errors import UserError

OURS = frozenset({"optstudy"})
"""Code whose changes a config's ``numerics`` stands for."""


def fingerprint(targets: Iterable[str]) -> str | None:
    """Return a hash of the source behind some import paths of classes; None where all are installed.

    Raises:
        UserError: source that cannot be read, with its place.
    """
    modules = [target.rpartition(".")[0] for target in targets if target.partition(".")[0] not in OURS]
    if modules:
        importlib.invalidate_caches()  # a module may just have been written
    found: dict[str, bytes] = {}
    for module in modules:
        _collect(module, found)
    if not found:
        return None
    return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()[:12]


def versions(targets: Iterable[str]) -> dict[str, str]:
    """Return the versions of the installed packages that classes come from, by package."""
    modules = {target.partition(".")[0] for target in targets} - OURS
    packages = {name for module in modules for name in _packages(module)}
    return {name: importlib.metadata.version(name) for name in sorted(packages)}


def require(target: str) -> None:
    """Check that the module of an import path can be found, without importing it.

    Raises:
        UserError: it cannot.
    """
    top = target.partition(".")[0]
    if _spec(top) is None:
        raise UserError(
            f"optimizer {target!r}: there is no module {top!r}; start optstudy in the folder of {top}.py, "
            "put that folder on PYTHONPATH, or install the package",
            "optimizer.name",
            target,
        )


def _collect(module: str, found: dict[str, bytes]) -> None:
    """Add the source of a module of one's own, of the packages it is in, and of what these import."""
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
    """Return a module's source, line ends as on Unix, and the modules that it may import."""
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
    """Return the file of a module; only its top-level package is looked up, which imports nothing."""
    top, *rest = module.split(".")
    spec = _spec(top)
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.has_location and spec.origin else None
    for folder in spec.submodule_search_locations or ():
        base = Path(folder).joinpath(*rest)
        for path in (base / "__init__.py", base.with_name(f"{base.name}.py")):
            if path.is_file():
                return path
    return None


@cache
def _packages(top: str) -> tuple[str, ...]:
    """Return the installed packages that hold a top-level module; editable ones hold none."""
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
