"""Run records: plain folders of JSON that are readable without this program. Standard library only.

Every reader raises one :class:`UserError` that names a damaged file; callers decide what to do without it.

A run's folder holds ``config.json`` (what runs), ``env.json`` (versions and machine), ``metrics.jsonl``
(losses as they come) and, written last, ``result.json``: its presence says that the run ended.
"""

import json
import math
import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from optstudy.errors import UserError, first_line, say_once, shortened

FORMAT = 1
"""Version of the files in a run's folder; increased when the meaning of one changes."""
ID = re.compile("[0-9a-f]{12}")
"""A run's id, which names its folder."""
TEMPORARY = ".tmp"
"""Suffix of files that are being written; their names begin with a dot."""


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write to a temporary file beside ``path``, sync and rename it: a reader never sees half a file."""
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
    """Remove temporary files that killed writers left in ``folder``; only for its single writer."""
    for leftover in folder.glob(f".{name}.*{TEMPORARY}"):
        leftover.unlink()


def write_json(path: Path, tree: Any) -> None:
    """Write a JSON document atomically; NaN and infinities raise ValueError."""
    write_atomically(path, json.dumps(tree, indent=1, allow_nan=False) + "\n")


def finite(tree: Any) -> Any:
    """Return nested mappings and lists with NaN and infinities replaced by None: JSON has neither."""
    if isinstance(tree, dict):
        return {key: finite(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [finite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def read_json(path: Path | str) -> dict[str, Any] | None:
    """Read one JSON object, or None where there is no such file.

    Raises:
        UserError: the file is damaged: no text, no JSON, or not an object.
    """
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123  # of 10,000 runs a Path's calls take longer
            return parse(file.read(), str(path))
    except FileNotFoundError:
        return None


def parse(content: bytes, where: str) -> dict[str, Any]:
    """Read the text of one JSON object.

    Raises:
        UserError: it is damaged, with ``where`` it is.
    """
    try:
        tree = _DECODER.decode(content.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        why = "it is empty" if not content.strip() else f"it is not JSON ({shortened(first_line(error), 60)})"
        raise UserError(f"{where}: damaged: {why}; {_MEND}") from None
    if not isinstance(tree, dict):
        raise UserError(f"{where}: damaged: it is not a JSON object; {_MEND}")
    return tree


_MEND = "restore the file or delete it"


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


_DECODER = json.JSONDecoder(parse_constant=_refused)

TEXTS = ("id", "state")
NUMBERS = (
    *("initial_val_loss", "step", "tokens", "tokens_per_s", "seconds", "step_ms"),
    *("peak_memory_mb", "params", "state_bytes_per_param"),
)
"""What every result has; null in one of another program where that did not report it."""
LOSSES = ("val_loss", "train_loss")
"""Numbers of a run that is done; null of one that diverged."""


def read_result(folder: Path | str) -> dict[str, Any] | None:
    """Return a finished run's result, or None while there is none: a program's own file is none.

    Raises:
        UserError: it is damaged, or lacks something.
    """
    path = f"{folder}/result.json"
    try:
        result = read_json(path)
    except UserError:
        if of_program(folder):
            return None
        raise
    if result is None:
        return None
    foreign = isinstance(result.get("reported"), dict)
    wrong = [key for key in TEXTS if not isinstance(result.get(key), str)]
    numbers: tuple[str, ...] = (*NUMBERS, *LOSSES) if result.get("state") == "done" else NUMBERS
    if foreign:
        needed = ("seconds", *["val_loss"] * (result.get("state") == "done"))
        numbers = tuple(key for key in numbers if key in needed or result.get(key, "") is not None)
    wrong += [key for key in numbers if not _is_number(result.get(key))]
    wrong += [key for key in ("reason", *LOSSES) if key not in result]
    if wrong:
        if not foreign and of_program(folder):
            return None
        came = shortened(repr(result.get(wrong[0])), 40)
        raise UserError(f"{path}: damaged: {wrong[0]} is {came}; {_MEND}")
    return result


def ended(folder: Path) -> bool:
    """Whether a run has a result, be it damaged. What another program wrote is one once it is checked."""
    if not (folder / "result.json").exists():
        return False
    try:
        return read_result(folder) is not None
    except UserError:
        return True


def of_program(folder: Path | str) -> bool:
    """Whether a run is one of another training program, as its ``config.json`` says."""
    try:
        return "trainer" in (read_json(f"{folder}/config.json") or {})
    except UserError:
        return False


def _is_number(value: Any) -> bool:
    return (type(value) is int and abs(value) < 1 << 63) or (type(value) is float and math.isfinite(value))


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of ``metrics.jsonl``; a last line torn by a kill is left out.

    Raises:
        UserError: another line is damaged, with its number.
    """
    path = folder / "metrics.jsonl"
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        return []
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(parse(line, f"{path}:{number}"))
        except UserError:
            if number < len(lines):
                raise
    return rows


class MetricsWriter:
    """Appends rows to ``metrics.jsonl``, each by a single write.

    What a killed attempt wrote after its last checkpoint is dropped; what was lost since then is written
    again, and said.

    Args:
        folder: the run's folder.
        kept: what the file held when the checkpoint was written.
    """

    def __init__(self, folder: Path, kept: bytes = b"") -> None:
        self._path = folder / "metrics.jsonl"
        self.content = kept
        """What the file holds."""
        found = self._path.read_bytes() if self._path.exists() else b""
        if not found.startswith(kept):
            say_once(f"{self._path}: was cut or changed since the checkpoint; written again from there")
            write_atomically(self._path, kept)
        self._descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.ftruncate(self._descriptor, len(kept))

    def write(self, row: dict[str, Any]) -> None:
        """Append one row."""
        line = (json.dumps(row, allow_nan=False) + "\n").encode()
        try:
            while line:
                written = os.write(self._descriptor, line)
                self.content += line[:written]
                line = line[written:]
        except OSError as error:
            error.filename = str(self._path)
            raise

    def sync(self) -> None:
        """Wait until what was written is on disk."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Sync and close the file."""
        self.sync()
        os.close(self._descriptor)


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield a config's values by dotted key; lists and empty mappings are values."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
