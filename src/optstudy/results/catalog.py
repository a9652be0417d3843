"""Fast reading of the finished runs in a runs folder, through an index file. Imports no torch.

The run folders are the only source of truth. The index, ``.index.json``, caches each folder's row
(:func:`optstudy.results.table.read_row`) with the size, modification time and inode of the files it was read
from. If one of these has changed, or the index is missing, outdated or damaged, the folder is read instead.
The index may be deleted at any time. Several processes may write it: each replaces the whole file, and the
last one wins.
"""

import atexit
import gc
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import fields
from pathlib import Path
from typing import Any

from optstudy.errors import UserError, say_once
from optstudy.record import write_atomically
from optstudy.results.table import Row, read_row

NAME = ".index.json"
FORMAT = 1
"""Increased when the layout of the index or the fields of a row change."""
WORTHWHILE = 500
"""Number of folders read after which writing the index pays off."""
FIELDS = tuple(f.name for f in fields(Row) if f.name not in ("config", "worst"))
FILES = ("result.json", "config.json")

Stamp = list[int]
"""Size, modification time in ns, and inode of each of a run's files."""


def expect_many() -> None:
    """Collect garbage rarely, and not at exit: many records take long to scan and have no cycles."""
    gc.freeze()
    gc.set_threshold(200_000)
    atexit.register(gc.freeze)


class Catalog:
    """Rows of finished runs by id; each run is read once.

    Args:
        runs: the folder that holds the run folders.
    """

    def __init__(self, runs: Path) -> None:
        self._runs, self._root = runs, str(runs)
        self._rows: dict[str, Row] = {}
        self._stamps: dict[str, Stamp] = {}
        self._indexed: dict[str, tuple[Stamp, list[Any], list[int]]] | None = None
        self._parts: list[tuple[str, Any]] = []
        self._shared: dict[tuple[str, str], Any] = {}
        self._read = 0
        self.damaged: dict[str, str] = {}
        """Error messages of records that could not be read, by id."""

    def __contains__(self, run_id: str) -> bool:
        return run_id in self._rows

    def row(self, run_id: str) -> Row | None:
        """The run's row, or None while it has no result; a damaged record is reported once , then skipped."""
        if run_id not in self._rows:
            self.damaged.pop(run_id, None)
            try:
                stamp = self._stamp(run_id)
                if stamp is None:
                    return None
                row = self._recalled(run_id, stamp) or self._fresh(run_id)
            except UserError as error:
                self.damaged[run_id] = str(error)
                say_once(f"{error}; left out")
                return None
            if row is None:
                return None
            self._rows[run_id], self._stamps[run_id] = row, stamp
        return self._rows[run_id]

    def forget(self, run_id: str) -> None:
        """Read the run again the next time its row is requested."""
        self._rows.pop(run_id, None)
        self.damaged.pop(run_id, None)

    def rows(self, ids: Iterable[str]) -> list[Row]:
        """Return the rows of those of the given runs that have finished, in the order of ``ids``."""
        found = [row for row in map(self.row, ids) if row is not None]
        self.save()
        return found

    def save(self) -> None:
        """Write the index if it would save enough reading; a folder without write access gets none."""
        if self._read < WORTHWHILE:
            return
        self._read = 0
        known = self._indexed or {}
        forgotten = {i: one for i, one in known.items() if i not in self._rows and (self._runs / i).exists()}
        parts: dict[str, int] = {}
        texts: dict[tuple[str, int], int] = {}

        def number(key: str, part: Any) -> int:
            if (key, id(part)) not in texts:
                text = json.dumps([key, part], separators=(",", ":"))
                texts[key, id(part)] = parts.setdefault(text, len(parts))
            return texts[key, id(part)]

        runs = {}
        for run_id, row in self._rows.items():
            values = [getattr(row, name) for name in FIELDS]
            runs[run_id] = [self._stamps[run_id], values, [number(*item) for item in row.config.items()]]
        for run_id, (stamp, values, numbers) in forgotten.items():
            runs[run_id] = [stamp, values, [number(*self._parts[k]) for k in numbers]]
        head = json.dumps({"format": FORMAT, "results": FIELDS, "runs": runs}, separators=(",", ":"))
        with suppress(OSError):
            write_atomically(self._runs / NAME, f'{head[:-1]},"parts":[{",".join(parts)}]}}\n')

    def _stamp(self, run_id: str) -> Stamp | None:
        stamp: Stamp = []
        for name in FILES:
            try:
                found = os.stat(f"{self._root}/{run_id}/{name}")  # noqa: PTH116  # a path object costs more than the call
            except (FileNotFoundError, NotADirectoryError):
                if not stamp:
                    return None
                return []  # a result without a config: damaged
            except (OSError, ValueError) as error:
                why = getattr(error, "strerror", error)
                raise UserError(f"{self._root}/{run_id}/{name}: {why}") from None
            stamp += [found.st_size, found.st_mtime_ns, found.st_ino]
        return stamp

    def _fresh(self, run_id: str) -> Row | None:
        self._read += 1
        return read_row(self._runs / run_id, self._sharing)

    def _sharing(self, config: dict[str, Any]) -> dict[str, Any]:
        """Return the config with every part that equals another run's replaced by the same object."""
        shared = self._shared
        return {
            key: shared.setdefault((key, repr(part)), part) if isinstance(part, dict) else part
            for key, part in config.items()
        }

    def _recalled(self, run_id: str, stamp: Stamp) -> Row | None:
        """Return a run's row from the index if its files are unchanged."""
        if self._indexed is None:
            self._indexed = {}
            with suppress(OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
                self._load(json.loads((self._runs / NAME).read_bytes()))
        known = self._indexed.get(run_id)
        if known is None or known[0] != stamp:
            return None
        config = dict([self._parts[k] for k in known[2]])
        return Row(config=config, **dict(zip(FIELDS, known[1], strict=True)))

    def _load(self, tree: Any) -> None:
        if tree["format"] != FORMAT or tree["results"] != list(FIELDS):
            return
        parts = [(key, part) for key, part in tree["parts"]]
        places = set(range(len(parts)))
        runs = {run_id: (stamp, values, numbers) for run_id, (stamp, values, numbers) in tree["runs"].items()}
        if all(len(values) == len(FIELDS) and places.issuperset(ks) for _, values, ks in runs.values()):
            self._parts, self._indexed = parts, runs
