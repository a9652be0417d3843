"""Run records: plain folders of JSON that are readable without this program. Standard library only.

A run's folder holds ``config.json`` (what runs), ``env.json`` (versions and machine), ``metrics.jsonl``
(losses as they come) and, written last, ``result.json``: its presence says that the run ended.
"""

import json
import math
import os
import tempfile
from pathlib import Path
from typing import Any

FORMAT = 1
"""Raised when the meaning of a file in a run's folder changes."""
TEMPORARY = ".tmp"
"""Ends the names of files that are being written; those begin with a dot."""


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write to a temporary name beside ``path``, sync, rename: a reader never sees half a file."""
    data = content.encode() if isinstance(content, str) else content
    descriptor, temporary = tempfile.mkstemp(TEMPORARY, f".{path.name}.", path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    except OSError as error:
        Path(temporary).unlink(missing_ok=True)
        error.filename = str(path)
        raise
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def remove_leftovers(folder: Path, name: str = "*") -> None:
    """Remove what killed writers of ``folder``'s files left there; only for who alone may write these."""
    for leftover in folder.glob(f".{name}.*{TEMPORARY}"):
        leftover.unlink()


def write_json(path: Path, tree: Any) -> None:
    """Write one JSON document atomically; NaN and infinities are refused."""
    write_atomically(path, json.dumps(tree, indent=1, allow_nan=False) + "\n")


def finite(tree: Any) -> Any:
    """Return nested mappings and lists with None for NaN and infinities, which JSON cannot say."""
    if isinstance(tree, dict):
        return {key: finite(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [finite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def read_json(path: Path | str) -> Any:
    """Read one JSON document, or None where there is no such file."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123  # of 10,000 runs a Path's calls take longer
            return json.loads(file.read())
    except FileNotFoundError:
        return None


def read_result(folder: Path) -> dict[str, Any] | None:
    """Return a finished run's result, or None while there is none."""
    result: dict[str, Any] | None = read_json(f"{folder}/result.json")
    return result


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of ``metrics.jsonl``; a last line torn by a kill is left out."""
    try:
        lines = (folder / "metrics.jsonl").read_text().splitlines()
    except FileNotFoundError:
        return []
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            if number < len(lines):
                raise
    return rows


class MetricsWriter:
    """Appends rows to ``metrics.jsonl``, each by a single write.

    Args:
        folder: the run's folder.
        keep: bytes of the file to keep; what a killed attempt wrote after its last checkpoint is dropped.
    """

    def __init__(self, folder: Path, keep: int = 0) -> None:
        self._path = folder / "metrics.jsonl"
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o644)
        os.ftruncate(self._descriptor, keep)
        self.size = os.lseek(self._descriptor, 0, os.SEEK_END)

    def write(self, row: dict[str, Any]) -> None:
        """Append one row."""
        line = (json.dumps(row, allow_nan=False) + "\n").encode()
        try:
            while line:
                written = os.write(self._descriptor, line)
                self.size += written
                line = line[written:]
        except OSError as error:
            error.filename = str(self._path)
            raise

    def sync(self) -> None:
        """Return once what was written is on disk."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Sync and close the file."""
        self.sync()
        os.close(self._descriptor)
