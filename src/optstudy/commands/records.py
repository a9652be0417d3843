"""``optstudy export`` and ``schema``."""

import json
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from optstudy.commands.options import RUNS, Assignments, Axes, Scale, belong, existing
from optstudy.ending import DONE
from optstudy.errors import UserError
from optstudy.outcomes import RECORDED, figure_of, recorded
from optstudy.results import archive
from optstudy.results import export as tidy
from optstudy.results.catalog import expect_many
from optstudy.study import library as study
from optstudy.study.schema import config_schema, study_schema
from optstudy.study.session import Session, Shared


def export(
    name: Annotated[str | None, Parameter(name="study")] = None,
    /,
    *,
    scale: Scale = None,
    set_: Assignments = (),
    axis: Axes = (),
    runs: Path = RUNS,
    seeds: int | None = None,
    format_: Annotated[str | None, Parameter(name="--format")] = None,
    out: Path | None = None,
    record: Path | None = None,
) -> int:
    """Write finished runs as one tidy table: a row per run, a column per config key and result.

    Examples:
        optstudy export paper/fig1 --format parquet --out fig1.parquet

        optstudy export --scale pico --record src/optstudy/studies/record/pico.csv

    Args:
        name: a study, to add the names of its curves; without, all runs in the folder.
        scale: the scale of the runs; by default `pico`, or the study's first.
        axis: values that were run, as `key=value,value`.
        runs: folder of the run folders.
        seeds: seeds of every point, instead of the study's.
        format_: `csv` or `parquet`; by default from the extension of `--out`.
        out: the file; `runs.csv` or `runs.parquet` by default.
        record: add the finished runs of the package's studies to this committed record instead.
    """
    existing(runs)
    if record is not None:
        if any((name, set_, axis, seeds, format_, out)):
            raise UserError("--record: of all studies of the package; beside it go --scale and --runs alone")
        return _extend(record, scale or "pico", runs)
    kind = tidy.kind_of(out, format_)
    expect_many()
    belong("a study", name is not None, scale=scale, set_=set_, axis=axis, seeds=seeds)
    if name is None:
        records = tidy.runs(tidy.every(runs))
    else:
        chosen = study.load(name).over(axis)
        kept = recorded(name, chosen.scale(scale))
        session = Session(chosen, scale, runs, study.overrides(set_), seeds, kept=kept, all_seeds=True)
        records = tidy.table(figure_of(session))
        session.remember()
    if not records:
        raise UserError(f"export: no run{f' of {name}' if name else ''} has ended in {runs}")
    path = out or Path(f"runs.{kind}")
    tidy.write(records, path, kind)
    sys.stdout.write(f"wrote {len(records)} runs to {path}\n")
    return DONE


def _extend(record: Path, scale: str, runs: Path) -> int:
    """Add the finished runs of the studies that the record covers."""
    kept = {**archive.beside(record), **archive.read(record)}
    shared = Shared()
    plans = [
        Session(study.load(name), scale, runs, kept=kept, shared=shared).plan
        for name in study.names()
        if name.startswith(RECORDED)
    ]
    ids = dict.fromkeys(point.id for plan in plans for point in (*plan.first, *plan.points))
    added, total = archive.extend(record, archive.collect(runs, ids))
    sys.stdout.write(f"added {added} runs to {record}, which has {total} of {len(ids)} known so far\n")
    return DONE


def schema(*, config: bool = False) -> int:
    """Print the JSON Schema of study files, for completion and checks in an editor.

    Save it and start a study file with `# yaml-language-server: $schema=study.schema.json`.

    Args:
        config: print the schema of config files for `optstudy train` instead.
    """
    sys.stdout.write(json.dumps(config_schema() if config else study_schema(), indent=1) + "\n")
    return DONE
