"""``optstudy export`` and ``schema``."""

import json
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from optstudy.commands.options import RUNS, Assignments, Axes, Scale
from optstudy.ending import DONE
from optstudy.findings import RECORDED, figure_of, recorded
from optstudy.results import archive
from optstudy.results import export as tidy
from optstudy.results.catalog import expect_many
from optstudy.study import library as study
from optstudy.study.schema import study_schema
from optstudy.study.session import Session


def export(
    name: Annotated[str | None, Parameter(name="study")] = None,
    /,
    *,
    scale: Scale = None,
    set_: Assignments = (),
    axis: Axes = (),
    runs: Path = RUNS,
    seeds: int | None = None,
    format_: Annotated[str, Parameter(name="--format")] = "csv",
    out: Path | None = None,
    record: Path | None = None,
) -> int:
    """Write finished runs as one tidy table: a row per run, a column per config key and result.

    Examples:
        optstudy export paper/fig1 --format parquet --out fig1.parquet

        optstudy export --scale pico --record src/optstudy/studies/record/pico.csv

    Args:
        name: a study, whose curves are then named; all runs of the folder without.
        scale: the scale the study ran at; by default `pico`, or a study's own first.
        set_: config values that it ran with, as `key=value`.
        axis: values that it ran, as `key=value,value`.
        runs: where run folders are.
        seeds: seeds of every point, instead of the study's.
        format_: `csv` or `parquet`.
        out: the file; `runs.csv` or `runs.parquet` by default.
        record: a committed record to add the finished runs of the package's studies to, instead.
    """
    if record is not None:
        return _extend(record, scale or "pico", runs)
    expect_many()
    if name is None:
        records = tidy.runs(tidy.every(runs))
    else:
        chosen = study.load(name).over(axis)
        kept = recorded(name, chosen.scale(scale))
        session = Session(chosen, scale, runs, study.overrides(set_), seeds, kept=kept)
        records = tidy.table(figure_of(session))
        session.remember()
    path = out or Path(f"runs.{format_}")
    tidy.write(records, path, format_)
    sys.stdout.write(f"wrote {len(records)} runs to {path}\n")
    return DONE


def _extend(record: Path, scale: str, runs: Path) -> int:
    """Add the finished runs of the studies that a record holds."""
    kept = archive.read(record)
    plans = [
        Session(study.load(name), scale, runs, kept=kept).plan
        for name in study.names()
        if name.startswith(RECORDED)
    ]
    ids = dict.fromkeys(point.id for plan in plans for point in (*plan.first, *plan.points))
    added, total = archive.extend(record, archive.collect(runs, ids))
    sys.stdout.write(f"added {added} runs to {record}, which has {total} of {len(ids)} known so far\n")
    return DONE


def schema() -> int:
    """Print the JSON Schema of study files, for completion and checks in an editor.

    Save it and start a study file with `# yaml-language-server: $schema=study.schema.json`.
    """
    sys.stdout.write(json.dumps(study_schema(), indent=1) + "\n")
    return DONE
