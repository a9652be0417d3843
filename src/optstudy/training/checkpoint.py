"""Checkpoints of one run: written atomically, checksummed, the last two kept, loaded without unpickling.

A checkpoint is one file written by ``torch.save``, ``checkpoints/step-STEP-HASH.pt``. HASH is the first 16
hexadecimal digits of its SHA-256.
"""

import hashlib
import io
import os
import pickle
import re
import tempfile
import warnings
from pathlib import Path
from typing import Any, Self

import torch

from optstudy.errors import UserError

KEPT = 2
_NAME = re.compile(r"step-(\d+)-([0-9a-f]{16})\.pt")


def save(folder: Path, step: int, state: dict[str, Any]) -> Path:
    """Write ``state`` as the checkpoint of ``step`` and remove all but the last two.

    Args:
        folder: the run's folder.
        step: steps taken so far.
        state: tensors, numbers, texts, and lists, tuples and dictionaries of them.
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
        raise writer.error from error  # such as a full disk, for which torch raises something else
    path = directory / f"step-{step:09d}-{writer.digest()}.pt"
    Path(temporary).chmod(0o644)
    Path(temporary).replace(path)
    for old in _newest_first(folder)[KEPT:]:
        old.unlink()
    return path


def load(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """Return the newest undamaged checkpoint, or None; warn of damaged ones."""
    path = newest(folder)
    return None if path is None else read(path, device)


def newest(folder: Path) -> Path | None:
    """Return the path of the newest undamaged checkpoint, or None; warn of damaged ones."""
    for path in _newest_first(folder):
        match = _NAME.fullmatch(path.name)
        assert match is not None
        if _digest(path) != match[2]:
            warnings.warn(f"{path}: checkpoint is damaged; falling back to the one before", stacklevel=2)
            continue
        return path
    return None


def read(path: Path, device: torch.device, mmap: bool = False) -> dict[str, Any]:
    """Return the content of an undamaged checkpoint; with ``mmap``, on the CPU and read as it is used.

    Raises:
        UserError: it holds what does not load without unpickling.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True, mmap=mmap)
    except pickle.UnpicklingError:
        raise UserError(
            f"{path}: holds what does not load without unpickling; delete {path.parent} to begin again"
        ) from None
    return state


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
    """Writes to a file, hashes what it writes and keeps the operating system's error."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        """Write and hash all of it."""
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
        """Return 16 hexadecimal digits of the hash of what was written."""
        return self._hash.hexdigest()[:16]
