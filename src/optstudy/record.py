"""Run records: plain folders of JSON that are readable without this program. Standard library only.

Readers raise a :class:`UserError` that names the damaged file; the caller decides how to continue.

A run's folder contains ``config.json`` (the settings), ``env.json`` (versions and machine), ``metrics.jsonl``
(losses, appended during the run) and ``result.json``, which is written last and marks the run as ended.
"""

import errno
import json
import math
import os
import re
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from optstudy.errors import MOST_WHOLE, UserError, first_line, say_once, shortened, shown

FORMAT = 1
"""Version of the files in a run's folder; increased when their meaning changes."""
ID = re.compile("[0-9a-f]{12}")
"""A run's id, which is the name of its folder."""
TEMPORARY = ".tmp"
"""Suffix of files that are being written; their names start with a dot."""


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write to a temporary file in the same folder, sync and rename it, so readers never see a partial file.

    Lone surrogates, which UTF-8 cannot encode, are written as escapes.
    """
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    if path.exists() and not path.is_file() and not path.is_dir():  # do not replace a device or pipe
        path.write_bytes(data)
        return
    try:
        descriptor, temporary = tempfile.mkstemp(TEMPORARY, f".{path.name}.", path.parent)
    except OSError as error:
        error.filename = str(path)
        raise
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
    """Remove temporary files left in ``folder`` by killed writers; only for the folder's single writer."""
    for leftover in folder.glob(f".{name}.*{TEMPORARY}"):
        leftover.unlink()


def put_away(path: Path) -> None:
    """Rename an unreadable file, and report it."""
    away = path.with_name(f"{path.name}.damaged")
    path.replace(away)
    say_once(f"{path}: damaged; kept as {away.name}")


def write_json(path: Path, tree: Any) -> None:
    """Write a JSON document atomically; NaN and infinities raise ValueError."""
    write_atomically(path, json.dumps(tree, indent=1, allow_nan=False) + "\n")


def finite(tree: Any) -> Any:
    """Return nested mappings and lists with NaN and infinities replaced by None, as JSON has neither."""
    if isinstance(tree, dict):
        return {key: finite(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [finite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def read_json(path: Path | str) -> dict[str, Any] | None:
    """Read one JSON object, or None if the file does not exist.

    Raises:
        UserError: it is not a file, or is not text, not JSON, or not an object.
    """
    content = _read(path)
    return None if content is None else parse(content, str(path))


def read_lines(
    path: Path, check: Callable[[dict[str, Any], str], None], damaged: Callable[[UserError], None]
) -> list[dict[str, Any]]:
    """Read one JSON object per line; a last line cut off by a kill is left out silently.

    Args:
        path: the file; a missing file has no lines.
        check: raises :class:`UserError` for an invalid row; its second argument is the line's location.
        damaged: called for each damaged line, which is left out unless this raises.

    Raises:
        UserError: it is not a file.
    """
    content = _read(path) or b""
    lines = content.splitlines()
    rows = []
    for number, line in enumerate(lines, 1):
        row = None
        try:
            row = parse(line, f"{path}:{number}")
            check(row, f"{path}:{number}")
            rows.append(row)
        except UserError as error:
            at_end = number == len(lines) and not content.endswith(b"\n")
            if not (at_end and row is None and line.startswith(b"{")):  # else half a row
                damaged(error)
    return rows


def _read(path: Path | str) -> bytes | None:
    """Return a file's bytes, or None if it does not exist.

    Raises:
        UserError: it is a folder, a pipe or a device, which may have no end, or must not be read.
    """
    try:
        with open(path, "rb", buffering=0, opener=_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise OSError(errno.EINVAL, "a pipe or device")
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: damaged: {getattr(error, 'strerror', error)}; {_MEND}") from None


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def parse(content: bytes, where: str) -> dict[str, Any]:
    """Parse the text of one JSON object.

    Raises:
        UserError: it is damaged; ``where`` is its location.
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

STATES = ("done", "diverged")
NUMBERS = (
    *("initial_val_loss", "step", "tokens", "tokens_per_s", "seconds", "step_ms"),
    *("peak_memory_mb", "params", "state_bytes_per_param"),
)
"""Numbers in every result; another program's result has null for those it did not report."""
LOSSES = ("val_loss", "train_loss")
"""Numbers in the result of a done run; numbers or null if it diverged."""
MEASURED = ("step", "tokens", "loss", "val_loss", "seconds")
"""Numbers that a row of metrics may have; null if not finite. Other keys are not checked."""


def read_result(folder: Path | str) -> dict[str, Any] | None:
    """Return a finished run's result, or None if there is none yet; a file that a program wrote is not one.

    Raises:
        UserError: it is damaged, incomplete, or has a value of a wrong type.
    """
    path = f"{folder}/result.json"
    try:
        result = read_json(path)
    except UserError:
        if of_program(folder):
            return None
        raise
    if result is None or (wrong := _wrong_in_result(result)) is None:
        return result
    if not isinstance(result.get("reported"), dict) and of_program(folder):
        return None
    raise _wrong_value(path, wrong, result)


def _wrong_in_result(result: Mapping[str, Any]) -> str | None:
    """Return the first key of a result that is missing or has an invalid value."""
    done, foreign = result.get("state") == "done", isinstance(result.get("reported"), dict)
    always, when_done = (("seconds",), ("val_loss",)) if foreign else (NUMBERS, LOSSES)
    never_null = {*always, *(when_done if done else ())}
    for key in (*NUMBERS, *LOSSES):
        null = key in result and result[key] is None
        if not is_number(result.get(key)) and not (null and key not in never_null):
            return key
    if not isinstance(result.get("id"), str):
        return "id"
    if result.get("state") not in STATES:
        return "state"
    if "reason" not in result or not isinstance(result["reason"], (str, type(None))):
        return "reason"
    versions = result.get("versions", {})
    texts = isinstance(versions, dict) and all(isinstance(value, str) for value in versions.values())
    return None if texts else "versions"


def _wrong_value(where: str, key: str, tree: Mapping[str, Any]) -> UserError:
    came = shown(tree[key]) if key in tree else "missing"
    return UserError(f"{where}: damaged: {key} is {came}; {_MEND}")


def ended(folder: Path) -> bool:
    """Whether a run has a result, even a damaged one. A program's own file counts once it is checked."""
    if not (folder / "result.json").exists():
        return False
    try:
        return read_result(folder) is not None
    except UserError:
        return True


def of_program(folder: Path | str) -> bool:
    """Whether a run belongs to another training program, according to its ``config.json``."""
    try:
        return "trainer" in (read_json(f"{folder}/config.json") or {})
    except UserError:
        return False


def is_number(value: Any) -> bool:
    """Whether a value of a record is a finite number and, if an integer, not beyond 2^63."""
    return (type(value) is int and abs(value) <= MOST_WHOLE) or (
        type(value) is float and math.isfinite(value)
    )


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the rows of ``metrics.jsonl``; a last line cut off by a kill is left out.

    Raises:
        UserError: another line is damaged; gives its number.
    """

    def check(row: dict[str, Any], where: str) -> None:
        for key in MEASURED:
            if row.get(key) is not None and not is_number(row[key]):
                raise _wrong_value(where, key, row)

    def damaged(error: UserError) -> None:
        raise error

    return read_lines(folder / "metrics.jsonl", check, damaged)


class MetricsWriter:
    """Appends rows to ``metrics.jsonl``, each by a single write.

    Rows that a killed attempt wrote after its last checkpoint are dropped. Rows that the file has lost since
    then are written again and reported.

    Args:
        folder: the run's folder.
        kept: the file's content when the checkpoint was written.
    """

    def __init__(self, folder: Path, kept: bytes = b"") -> None:
        self._path = folder / "metrics.jsonl"
        self.content = kept
        """The file's content."""
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
        """Wait until the written rows are on disk."""
        os.fsync(self._descriptor)

    def close(self) -> None:
        """Sync and close the file."""
        self.sync()
        os.close(self._descriptor)


def leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield a config's values by dotted key; lists and empty mappings count as values."""
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def at_key(tree: Any, key: str) -> Any:
    """Return the value of nested mappings at a dotted key; None if there is none."""
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree
