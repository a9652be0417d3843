"""``optstudy demo``, ``run``, ``status``, ``report``, ``show`` and ``studies``."""

import json
import os
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from optstudy import study, tokens
from optstudy.cli import DONE, FAILED
from optstudy.errors import UserError
from optstudy.launch import local
from optstudy.record import read_metrics, write_json
from optstudy.study import Point, Study
from optstudy.table import read_rows
from optstudy.watch import Watch, duration

RUNS = Path("runs")
Assignments = Annotated[tuple[str, ...], Parameter(name="--set", allow_leading_hyphen=True)]


def demo(
    *, scale: str = "pico", runs: Path = RUNS, jobs: int | None = None, out: Path = Path("report")
) -> int:
    """Train and compare five optimizers on real text, in about five minutes on two cores.

    What has run is not run again: a second `optstudy demo` ends in seconds.

    Args:
        scale: size of the model and length of the runs.
        runs: where run folders are.
        jobs: runs at a time; one per core by default.
        out: where the report goes.
    """
    return run("demo", scale=scale, runs=runs, jobs=jobs, out=out)


def run(
    name: Annotated[str, Parameter(name="study")],
    /,
    *,
    scale: str = "pico",
    set_: Assignments = (),
    runs: Path = RUNS,
    jobs: int | None = None,
    seeds: int | None = None,
    device: str = "auto",
    out: Path = Path("report"),
    dry_run: bool = False,
) -> int:
    """Run a study: what has a result is kept, the rest is run, then the table and a report.

    Ctrl-C and the same command continue.

    Examples:
        optstudy run paper/fig1 --scale pico

        optstudy run demo --set data.corpus=path:my.txt --set training.steps=2000

        optstudy run my-study.yaml --jobs 4 --dry-run

    Args:
        name: one of `optstudy studies`, or a file of your own.
        scale: `pico`, `nano`, `micro`, or the paper's `150m`, `300m`, `600m`, `1.2b`, `150m-long`.
        set_: a config value over the study's, as `key=value`; may be given several times.
        runs: where run folders are.
        jobs: runs at a time; one per core by default.
        seeds: seeds of every point, instead of the study's.
        device: `auto`, `cpu` or `cuda`.
        out: where the report goes.
        dry_run: only say what would be run.
    """
    chosen, points = _points(name, scale, set_, seeds)
    if dry_run:
        _describe(points, runs, sys.stdout.write)
        return DONE
    _at_least_one("--jobs", jobs)
    for data in {(point.config.data.corpus, point.config.data.tokenizer) for point in points}:
        tokens.prepare(*data)
    folders = [_folder(point, runs) for point in points]
    threads = max(point.config.training.threads for point in points)
    jobs = jobs or max(1, (os.cpu_count() or 1) // threads)
    with Watch(points, runs, jobs) as watch:
        failed = local.launch(folders, jobs, threads, device, watch.on_event)
    _report(chosen, scale, points, runs, out, ("html", "png", "svg"))
    return FAILED if failed else DONE


def status(
    name: Annotated[str, Parameter(name="study")],
    /,
    *,
    scale: str = "pico",
    set_: Assignments = (),
    runs: Path = RUNS,
    seeds: int | None = None,
) -> int:
    """Say how far a study is, and its table so far.

    Args:
        name: one of `optstudy studies`, or a file of your own.
        scale: the scale it runs at.
        set_: config values that it runs with, as `key=value`.
        runs: where run folders are.
        seeds: seeds of every point, instead of the study's.
    """
    from optstudy import report

    chosen, points = _points(name, scale, set_, seeds)
    counts = Counter(_state(point, runs) for point in points)
    said = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    sys.stdout.write(f"{name} at {scale}: {len(points)} runs: {said}\n")
    sweep = _sweep(chosen, scale, points, runs)
    if sweep.rows:
        report.show(sweep)
    return DONE


def report(
    name: Annotated[str, Parameter(name="study")],
    /,
    *,
    scale: str = "pico",
    set_: Assignments = (),
    runs: Path = RUNS,
    seeds: int | None = None,
    out: Path = Path("report"),
    format_: Annotated[tuple[str, ...], Parameter(name="--format")] = ("html", "png", "svg"),
) -> int:
    """Draw a study's report from the runs that have ended.

    Args:
        name: one of `optstudy studies`, or a file of your own.
        scale: the scale it ran at.
        set_: config values that it ran with, as `key=value`.
        runs: where run folders are.
        seeds: seeds of every point, instead of the study's.
        out: where the report goes.
        format_: what to write; may be given several times.
    """
    chosen, points = _points(name, scale, set_, seeds)
    _report(chosen, scale, points, runs, out, format_)
    return DONE


def show(
    name: Annotated[str, Parameter(name="study")],
    /,
    *,
    scale: str = "pico",
    set_: Assignments = (),
    runs: Path = RUNS,
    seeds: int | None = None,
    json_: Annotated[bool, Parameter(name="--json")] = False,
) -> int:
    """List the runs that a study would make, their number, tokens and estimated time.

    Args:
        name: one of `optstudy studies`, or a file of your own.
        scale: the scale to run at.
        set_: a config value over the study's, as `key=value`.
        runs: where run folders are.
        seeds: seeds of every point, instead of the study's.
        json_: for programs: ids, configs and states.
    """
    chosen, points = _points(name, scale, set_, seeds)
    if json_:
        listed = [
            {
                "id": point.config.id,
                "config": point.config.model_dump(mode="json"),
                "state": _state(point, runs),
                "depends_on": None,
            }
            for point in points
        ]
        sys.stdout.write(json.dumps({"study": chosen.name, "runs": listed}, indent=1) + "\n")
    else:
        sys.stdout.write(f"{chosen.file.title}\n{chosen.file.asks}\n")
        _describe(points, runs, sys.stdout.write)
    return DONE


def studies(*, json_: Annotated[bool, Parameter(name="--json")] = False) -> int:
    """List the studies that come with the package.

    Args:
        json_: for programs.
    """
    loaded = [study.load(name) for name in study.names()]
    if json_:
        listed = [{"name": one.name, "title": one.file.title, "asks": one.file.asks} for one in loaded]
        sys.stdout.write(json.dumps(listed, indent=1) + "\n")
    else:
        for one in loaded:
            sys.stdout.write(f"{one.name:20} {one.file.title}\n")
    return DONE


def _points(
    name: str, scale: str, assignments: Sequence[str], seeds: int | None
) -> tuple[Study, list[Point]]:
    _at_least_one("--seeds", seeds)
    chosen = study.load(name)
    return chosen, chosen.points(scale, study.overrides(assignments), seeds)


def _at_least_one(option: str, value: int | None) -> None:
    if value is not None and value < 1:
        raise UserError(f"{option}: input should be at least 1, not {value}")


def _folder(point: Point, runs: Path) -> Path:
    folder = runs / point.config.id
    if not (folder / "config.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "config.json", point.config.model_dump(mode="json"))
    return folder


def _state(point: Point, runs: Path) -> str:
    folder = runs / point.config.id
    row = read_rows(runs, [point.config.id])
    if row:
        return row[0].state
    return "begun" if read_metrics(folder) else "waiting"


def _describe(points: Sequence[Point], runs: Path, write: Any) -> None:
    """Say which runs there are and what those left would cost."""
    todo = []
    for point in points:
        state = _state(point, runs)
        if state in ("waiting", "begun"):
            todo.append(point.config)
        config = point.config
        write(f"{config.id}  {state:8}  {point.curve:10} lr {config.optimizer.lr:<9g} seed {config.seed}\n")
    done = [row for row in read_rows(runs, [point.config.id for point in points]) if row.tokens]
    left = sum(config.tokens for config in todo)
    write(f"{len(points)} runs, {len(todo)} to do: {left:,} tokens")
    if done and todo:
        cores = os.cpu_count() or 1
        seconds = left * sum(row.seconds for row in done) / sum(row.tokens for row in done) / cores
        write(f", about {duration(seconds)} on {cores} cores at the speed measured here")
    write("\n")


def _sweep(chosen: Study, scale: str, points: Sequence[Point], runs: Path) -> Any:
    from optstudy import report

    rows = read_rows(runs, [point.config.id for point in points])
    return report.Sweep(
        name=chosen.name,
        title=chosen.file.title,
        asks=chosen.file.asks,
        scale=scale,
        rows=rows,
        labels={point.config.id: point.curve for point in points},
        kind=chosen.file.figure.kind,
        x=chosen.file.figure.x,
        missing=len(points) - len(rows),
        runs=runs,
        command=f"optstudy run {chosen.name} --scale {scale}",
    )


def _report(
    chosen: Study, scale: str, points: Sequence[Point], runs: Path, out: Path, formats: Sequence[str]
) -> None:
    from optstudy import report

    sweep = _sweep(chosen, scale, points, runs)
    if not sweep.rows:
        raise UserError(f"{chosen.name}: no run has ended in {runs}; first: {sweep.command}")
    report.show(sweep)
    for path in report.write(sweep, out / chosen.name / scale, tuple(formats)):
        sys.stdout.write(f"wrote {path}\n")
