"""Checkpoints of a run: written atomically, with checksums, last two kept, loaded without unpickling.

A checkpoint is one file written by ``torch.save``, ``checkpoints/step-STEP-HASH.pt``. HASH is the first 16
hexadecimal digits of its SHA-256.
"""

import hashlib
import io
import os
import pickle
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import torch

from optstudy.ending import Unloadable, out_of_memory
from optstudy.errors import UserError, first_line, say_once, shortened

KEPT = 2
_NAME = re.compile(r"step-(\d+)-([0-9a-f]{16})\.pt")


def save(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write ``state`` as the checkpoint of ``step`` and remove all but the last two.

    Args:
        folder: the run's folder.
        step: steps taken so far.
        state: tensors, numbers, strings, and lists, tuples and dictionaries of them.
    """
    directory = folder / "checkpoints"
    directory.mkdir(exist_ok=True)
    for leftover in directory.glob(".step-*"):
        leftover.unlink()
    descriptor, temporary = tempfile.mkstemp(prefix=".step-", dir=directory)
    writer = _HashingWriter(os.fdopen(descriptor, "wb", buffering=0))
    try:
        with writer:
            torch.save(state, writer)  # type: ignore[arg-type]  # it calls write and flush alone
    except BaseException as error:
        Path(temporary).unlink()
        if writer.error is None:
            raise
        writer.error.filename = str(directory)
        raise writer.error from error  # such as a full disk, for which torch raises another error
    path = directory / f"step-{step:09d}-{writer.digest()}.pt"
    Path(temporary).chmod(0o644)
    Path(temporary).replace(path)
    for old in _newest_first(folder)[KEPT:]:
        old.unlink()
    return path


class Odd(Exception):
    """A checkpoint has a correct checksum but does not contain what a run saves.

    Args:
        path: the checkpoint.
        why: what is wrong with it.
    """

    def __init__(self, path: Path, why: str) -> None:
        super().__init__(f"{path}: this checkpoint cannot be loaded ({why})")
        self.path = path


def load(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """Return the content of the newest undamaged checkpoint, or None; damaged ones are reported."""
    path = newest(folder)
    return None if path is None else read(path, device)


def newest(folder: Path) -> Path | None:
    """Return the path of the newest undamaged checkpoint, or None; damaged ones are reported."""
    for path in _newest_first(folder):
        match = _NAME.fullmatch(path.name)
        assert match is not None
        try:
            if _digest(path) == match[2]:
                return path
            why = "is damaged"
        except OSError as error:
            why = f"cannot be read ({error.strerror})"
        say_once(f"{path}: checkpoint {why}; using the previous one")
    return None


def read(path: Path, device: torch.device, mmap: bool = False) -> dict[str, Any]:
    """Return the content of an undamaged checkpoint; with ``mmap``, on the CPU and read on demand.

    Raises:
        Odd: it does not load, or not without unpickling.
    """
    with refused(path):
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True, mmap=mmap)
    return state


@contextmanager
def refused(path: Path) -> Iterator[None]:
    """Turn any error caused by the content of a checkpoint into :class:`Odd`."""
    try:
        yield
    except (OSError, Odd):
        raise
    except UserError as error:
        raise Odd(path, str(error)) from None
    except pickle.UnpicklingError:
        raise Odd(path, "it contains something that does not load without unpickling") from None
    except Exception as error:  # from torch, or an optimizer's load_state_dict
        if out_of_memory(error):
            raise
        raise Odd(path, f"{type(error).__name__}: {shortened(first_line(error), 200)}") from error


def set_aside(odd: Odd) -> None:
    """Rename a checkpoint that cannot be loaded, so that the previous one is the newest.

    Raises:
        Unloadable: there is no previous one.
    """
    if not [path for path in _newest_first(odd.path.parent.parent) if path != odd.path]:
        raise Unloadable(f"{odd}, and there is no previous one; delete {odd.path.parent} to begin again")
    odd.path.rename(odd.path.with_suffix(".odd"))
    say_once(f"{odd}; continuing from the previous one")


def step_of(path: Path) -> int:
    """Return the number of steps in a checkpoint's name."""
    match = _NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1])


def clear(folder: Path) -> None:
    """Remove the checkpoints of a finished run."""
    directory = folder / "checkpoints"
    if directory.is_dir():
        for path in directory.iterdir():
            path.unlink()
        directory.rmdir()


def _newest_first(folder: Path) -> list[Path]:
    found = (folder / "checkpoints").glob("step-*.pt")
    return sorted((path for path in found if _NAME.fullmatch(path.name)), reverse=True)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


class _HashingWriter:
    """Writes to a file, hashes what it writes and stores the operating system's error."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        """Write and hash all data."""
        left = memoryview(data)
        self._hash.update(left)
        try:
            while left:
                left = left[self._file.write(left) :]
        except OSError as error:
            self.error = error
            raise
        return len(data)

    def flush(self) -> None:
        """Do nothing: there is no buffer."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        with self._file:
            if kind is None:
                os.fsync(self._file.fileno())

    def digest(self) -> str:
        """Return the first 16 hexadecimal digits of the hash of the written data."""
        return self._hash.hexdigest()[:16]
