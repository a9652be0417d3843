"""Export of runs for other programs: one table, a row per run, a column per config key and result."""

import csv
import importlib.util
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from optstudy.errors import UserError, say_once
from optstudy.record import ID, leaves, write_atomically
from optstudy.results.catalog import Catalog
from optstudy.results.equivalents import Ratio
from optstudy.results.figure import Figure
from optstudy.results.table import RESULTS, Row

FORMATS = ("csv", "parquet")


TAKEN = frozenset({*RESULTS, "versions", "curve", "note"})
"""Reserved columns: a key of another program's config that clashes gets the prefix ``config.``."""


def table(figure: Figure) -> list[dict[str, Any]]:
    """Return a figure's runs as flat records: ``id``, ``curve``, then the columns of :func:`runs`.

    A run on two curves gives two records. ``note`` holds a remark on a run, if any run has one.
    ``token_equivalent`` is the curve's (:func:`optstudy.results.equivalents.tokens_of`), the same in all its
    records. ``token_equivalent_sign`` is ``<`` or ``>`` for a mere bound. Both columns exist if the study
    has a reference for them.
    """
    labels: dict[str, list[str]] = {}
    notes: dict[str, str] = {}
    for curve in figure.curves:
        for point in curve.points:
            for run in point.runs:
                labels.setdefault(run.row.id, []).append(curve.label)
                notes |= {run.row.id: run.note} if run.note else {}
    records = [
        {
            "id": record["id"],
            "curve": label,
            **record,
            **({"note": notes.get(record["id"], "")} if notes else {}),
            **(_equivalent(figure.equivalents.get(label)) if figure.horizon is not None else {}),
        }
        for record in runs(figure.rows)
        for label in labels.get(record["id"], [""])
    ]
    return records


def _equivalent(found: Ratio | None) -> dict[str, Any]:
    return {"token_equivalent": found and found.value, "token_equivalent_sign": found and found.sign}


def runs(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """Return runs as flat records: ``id``, results, then the config by dotted key, lists as JSON.

    Numbers reported by another program follow as ``reported.KEY``.
    """
    results = [name for name in RESULTS if name != "id"]
    records = []
    for row in rows:
        config = {key: _cell(value) for key, value in leaves(row.config)}
        values = {name: getattr(row, name) for name in results}
        own = {f"config.{key}" if key in TAKEN else key: value for key, value in config.items()}
        told = {f"reported.{key}": _cell(value) for key, value in leaves(row.reported or {})}
        records.append({"id": row.id, **values, **own, **told, "versions": json.dumps(dict(row.versions))})
    columns = list(dict.fromkeys(key for record in records for key in record))
    return [{column: record.get(column) for column in columns} for record in records]


def _cell(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, (list, dict)) else value


def plain(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return records with one type per column, see :func:`_column`."""
    columns = list(records[0]) if records else []
    made = [_column([record[name] for record in records]) for name in columns]
    return [dict(zip(columns, values, strict=True)) for values in zip(*made, strict=True)]


def every(folder: Path) -> list[Row]:
    """Return the rows of all finished runs in a runs folder, by id.

    Raises:
        UserError: the folder does not exist.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such runs folder")
    by_id: dict[str, Row] = {}
    catalog = Catalog(folder)
    names = [path.name for path in folder.iterdir()]
    for name in sorted(names, key=lambda name: (ID.fullmatch(name) is None, name)):
        row = catalog.row(name)
        if row is not None and row.id in by_id:
            say_once(f"{folder / name}: holds run {row.id}, which another folder holds already; left out")
        elif row is not None:
            by_id[row.id] = row
    catalog.save()
    return [by_id[run_id] for run_id in sorted(by_id)]


def kind_of(path: Path | None, kind: str | None) -> str:
    """Return the output format: the one given, else from the file's extension, else ``csv``.

    Raises:
        UserError: it is unknown, contradicts the extension, or its library is not installed.
    """
    ending = path.suffix.lower().removeprefix(".") if path is not None else ""
    if kind is None and path is not None and ending not in FORMATS:
        raise UserError(
            f"--out: {path}: must end in one of {', '.join(f'.{one}' for one in FORMATS)}; or give --format"
        )
    chosen = kind or ending or "csv"
    if chosen not in FORMATS:
        raise UserError(f"--format: {chosen!r} is none of {', '.join(FORMATS)}")
    if ending in FORMATS and ending != chosen:
        raise UserError(f"--out: {path}: ends in .{ending}, but --format is {chosen}; leave one of them out")
    if chosen == "parquet" and importlib.util.find_spec("pyarrow") is None:
        raise UserError("parquet needs pyarrow: pip install 'optstudy[parquet]', or write a .csv")
    return chosen


def write(records: Sequence[Mapping[str, Any]], path: Path, kind: str) -> None:
    """Write a table atomically, as ``csv`` or ``parquet``.

    Raises:
        UserError: the format is unknown, or its library is not installed.
    """
    write_atomically(path, _csv(records) if kind_of(None, kind) == "csv" else _parquet(records))


def _csv(records: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO(newline="")
    columns = list(records[0]) if records else ["id"]
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(records)
    return text.getvalue()


def _parquet(records: Sequence[Mapping[str, Any]]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    columns = list(records[0]) if records else ["id"]
    arrays = {name: _column([record[name] for record in records]) for name in columns}
    buffer = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(arrays), buffer)
    return buffer.getvalue()


def _column(values: list[Any]) -> list[Any]:
    """Give a column one type: mixed integers and floats become floats, any other mix becomes text."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int, float}:
        return [None if value is None else float(value) for value in values]
    if len(kinds) > 1:
        return [None if value is None else str(value) for value in values]
    return values
