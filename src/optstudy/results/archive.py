"""The committed record: finished runs as tables inside the package. Imports no torch.

``pico.csv`` holds the runs of the scale ``pico``; ``pico-600.csv`` holds runs of the same model with 600
steps. Runs of different length have different ids, so a scale reads all files of its model.

Each file is a CSV with a row per run, sorted by id: results, the whole config by dotted key, machine, and
training curve. A cell is empty where the run has no such key. Otherwise it is JSON, or the bare text if that
is not valid JSON. So a row restores its run exactly, and other programs can read the table too.
"""

import csv
import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

from optstudy.config import NUMERICS, merge
from optstudy.data import files
from optstudy.errors import UserError, say_once
from optstudy.record import leaves, read_json, read_metrics, write_atomically
from optstudy.results.table import RESULTS, Row, read_row

FOLDER = "studies/record"
MACHINE = ("cpu", "torch")
"""What a result may depend on apart from its config."""
PACKAGES = "versions"
"""The column with the versions of the packages that the optimizer comes from."""
POINTS = 20
"""Points kept of a training curve, in addition to validations."""


@dataclass(frozen=True)
class Entry:
    """One run of the record."""

    row: Row
    machine: Mapping[str, str] = field(default_factory=dict)
    """The processor type and the version of torch."""
    metrics: list[dict[str, Any]] = field(default_factory=list)
    """Its ``metrics.jsonl``, thinned."""


Archive = Mapping[str, Entry]
"""Entries by run id."""


@cache
def load(scale: str) -> Archive:
    """Read the record that ships with the package; empty if there is none for that scale's model."""
    return _family(resources.files("optstudy") / FOLDER, scale)


@cache
def step_ratios(scale: str) -> Mapping[str, float]:
    """Return the step time of each optimizer over Adam's, as ``benchmarks/field.py`` measured it in one run.

    Empty if it was not measured at that scale.
    """
    path = resources.files("optstudy") / FOLDER / f"{scale}-steps.json"
    rows = json.loads(path.read_text(encoding="utf-8"))["rows"] if path.is_file() else ()
    return {row["optimizer"]: row["over_adam"] for row in rows}


def beside(path: Path) -> Archive:
    """Read the other records of the same model in a record's folder."""
    return _family(path.parent, path.stem, path.name)


def _family(folder: Any, scale: str, but: str = "") -> Archive:
    """Read the files of one model in a folder, which may be missing."""
    found: dict[str, Entry] = {}
    for file in sorted(folder.iterdir(), key=lambda file: str(file.name)) if folder.is_dir() else ():
        stem, _, kind = file.name.rpartition(".")
        if kind == "csv" and stem.split("-")[0] == scale.split("-")[0] and file.name != but:
            found |= parse(file.read_text(encoding="utf-8"), str(file))
    return found


def read(path: Path) -> Archive:
    """Read a record; empty if the file does not exist."""
    if not path.exists():
        return {}
    files.regular(path)
    try:
        return parse(path.read_text(encoding="utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from None


def parse(text: str, where: str) -> Archive:
    """Parse a record's text.

    Raises:
        UserError: a row is not a valid run; the message gives its line.
    """
    found = {}
    reader = csv.DictReader(io.StringIO(text, newline=""))
    csv.field_size_limit(1 << 24)
    for record in reader:
        try:
            entry = _entry(record)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{where}:{reader.line_num}: not a run of a record: {error}") from None
        found[entry.row.id] = entry
    return found


def dump(archive: Archive) -> str:
    """Return a record as text; equal entries give equal text."""
    records = [_record(archive[run_id]) for run_id in sorted(archive)]
    config = sorted({key for record in records for key in record if key.startswith("config.")})
    packages = [PACKAGES] if any(PACKAGES in record for record in records) else []
    columns = [*RESULTS, *config, *MACHINE, *packages, "metrics"]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def collect(runs: Path, ids: Iterable[str]) -> Archive:
    """Read those of the given runs that have finished; damaged ones are reported and left out."""
    found = {}
    for run_id in ids:
        try:
            row = read_row(runs / run_id)
            if row is not None:
                env = read_json(runs / run_id / "env.json") or {}
                machine = {key: str(env.get(key, "")) for key in MACHINE}
                row = replace(row, versions={**_torch(machine), **row.versions})
                found[run_id] = Entry(row, machine, _thinned(read_metrics(runs / run_id)))
        except UserError as error:
            say_once(f"{error}; left out")
    return found


def extend(path: Path, found: Archive) -> tuple[int, int]:
    """Add runs to a record's file, except those already in it or in another record of the model.

    Runs that older numerics computed are removed.

    Returns:
        The number of runs added, and the number now in the file.
    """
    before = {run_id: e for run_id, e in read(path).items() if e.row.config["numerics"] == NUMERICS}
    others = beside(path)
    after = {**{run_id: entry for run_id, entry in found.items() if run_id not in others}, **before}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, dump(after))
    return len(after) - len(before), len(after)


def _cell(value: Any) -> str:
    """Return a value as JSON; a one-line text that is not valid JSON stays as it is."""
    if isinstance(value, str) and value and value.isprintable():
        try:
            json.loads(value)
        except ValueError:
            return value
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _value(cell: str) -> Any:
    try:
        return json.loads(cell)
    except ValueError:
        return cell


def _record(entry: Entry) -> dict[str, str]:
    values = {name: getattr(entry.row, name) for name in RESULTS}
    values |= {f"config.{key}": value for key, value in leaves(entry.row.config)}
    values |= {key: entry.machine.get(key, "") for key in MACHINE}
    if packages := {name: version for name, version in entry.row.versions.items() if name != "torch"}:
        values[PACKAGES] = packages
    return {key: _cell(value) for key, value in {**values, "metrics": _packed(entry.metrics)}.items()}


def _entry(record: Mapping[str, str]) -> Entry:
    values = {key: _value(cell) for key, cell in record.items() if cell}
    config = {key.removeprefix("config."): v for key, v in values.items() if key.startswith("config.")}
    results = {name: values[name] for name in RESULTS}
    machine = {key: values.get(key, "") for key in MACHINE}
    versions = {**_torch(machine), **values.get(PACKAGES, {})}
    row = Row(config=merge(config), versions=versions, **results)
    return Entry(row, machine, _unpacked(values.get("metrics", [])))


def _torch(machine: Mapping[str, str]) -> dict[str, str]:
    return {"torch": machine["torch"]} if machine["torch"] else {}


def _thinned(metrics: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Keep validations, effective learning rates, and some training losses."""
    metrics = [row for row in metrics if row.get("step") is not None and row.get("tokens") is not None]
    losses = [row for row in metrics if "loss" in row]
    every = max(1, -(-len(losses) // POINTS))
    kept = {id(row) for row in losses[every - 1 :: every]}
    return [row for row in metrics if id(row) in kept or "val_loss" in row or "effective_lr" in row]


def _packed(metrics: list[dict[str, Any]]) -> list[list[Any]]:
    """Step, tokens, losses, and what else the run recorded; missing ones at the end left out."""
    packed = []
    for row in metrics:
        values = [row["step"], row["tokens"], _short(row.get("loss")), _short(row.get("val_loss"))]
        values += [row.get("effective_lr"), _short_all(row.get("deciles")), _short_all(row.get("moments"))]
        while values[-1] is None:
            values.pop()
        packed.append(values)
    return packed


def _unpacked(packed: list[list[Any]]) -> list[dict[str, Any]]:
    names = ("step", "tokens", "loss", "val_loss", "effective_lr", "deciles", "moments")
    return [{k: v for k, v in zip(names, row, strict=False) if v is not None} for row in packed]


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.6g}")


def _short_all(tree: Any) -> Any:
    """Shorten every number of a JSON value."""
    if isinstance(tree, Mapping):
        return {key: _short_all(value) for key, value in tree.items()}
    return [_short_all(value) for value in tree] if isinstance(tree, list) else _short(tree)
