"""The cache folder for downloaded and derived files, locks between processes, and users' paths."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from optstudy.errors import UserError, printable


def joined(written: str) -> str:
    """Return a file name with surrogate pairs (JSON's ``\\ud83d\\ude00``) joined to characters.

    Raises:
        UserError: no file can have that name.
    """
    try:
        name = written.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
        os.fsencode(name)
    except UnicodeError:
        raise UserError(f"{printable(written)}: no file can have this name: half a character") from None
    if "\0" in name:
        raise UserError(f"{printable(written)}: no file can have this name: a NUL character")
    return name


def expanded(written: str) -> Path:
    """Return the path that a user wrote; ``~`` and ``~name`` mean a home folder if there is one.

    Raises:
        UserError: no file can have that name.
    """
    path = Path(joined(written))
    try:
        return path.expanduser()
    except RuntimeError:  # no such user: the tilde is part of the file name
        return path


def folder(*parts: str) -> Path:
    """Return a folder of the cache; it is created if missing.

    The cache is ``$OPTSTUDY_CACHE``, else ``$XDG_CACHE_HOME/optstudy``, else ``~/.cache/optstudy``.

    Raises:
        UserError: the folder cannot be created.
    """
    own = os.environ.get("OPTSTUDY_CACHE")
    path = expanded(own or os.environ.get("XDG_CACHE_HOME") or "~/.cache") / ("" if own else "optstudy")
    if str(path).startswith("~"):
        raise UserError(
            f"cache folder {printable(path)}: no such home folder; set OPTSTUDY_CACHE to a folder"
        )
    path = path.joinpath(*parts)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"cache folder {printable(path)}: {error.strerror}; set OPTSTUDY_CACHE to another"
        ) from None
    return path


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file ``path``; other processes wait. The system releases it when the process ends.

    Raises:
        UserError: no permission to write there.
    """
    lock = FileLock(path)
    try:
        lock.acquire()
    except PermissionError:
        raise UserError(
            f"{printable(path)}: no permission to write; set OPTSTUDY_CACHE to another folder"
        ) from None
    try:
        yield
    finally:
        lock.release()
