"""Where fetched and derived files lie, and how processes share them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from optstudy.errors import UserError


def folder(*parts: str) -> Path:
    """Return a folder of the cache, made if missing.

    The cache is ``$OPTSTUDY_CACHE``, else ``$XDG_CACHE_HOME/optstudy``, else ``~/.cache/optstudy``.
    """
    root = os.environ.get("OPTSTUDY_CACHE")
    if root:
        path = Path(root).expanduser().joinpath(*parts)
    else:
        home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        path = Path(home).expanduser().joinpath("optstudy", *parts)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cache folder {path}: {error.strerror}; set OPTSTUDY_CACHE to another") from None
    return path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file ``path``; others wait. The system releases it when a process dies."""
    lock = FileLock(path)
    try:
        lock.acquire()
    except PermissionError:
        raise UserError(f"{path}: no permission to write; set OPTSTUDY_CACHE to another folder") from None
    try:
        yield
    finally:
        lock.release()
