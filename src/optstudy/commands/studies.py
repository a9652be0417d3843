"""``optstudy demo``, ``run``, ``status``, ``show`` and ``studies``."""

import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from optstudy.commands import deciding
from optstudy.commands.describe import OLDER, describe, describe_all, listed
from optstudy.commands.importing import try_code
from optstudy.commands.launching import Launching, at_least_one
from optstudy.commands.options import RUNS, Assignments, Axes, Json, Scale, StudyName, existing, known_device
from optstudy.commands.reports import names_in, write_report
from optstudy.commands.watch import ProgressView, failure, named
from optstudy.config import RunConfig
from optstudy.ending import DONE, FAILED
from optstudy.errors import UserError
from optstudy.outcomes import Judge, recorded
from optstudy.program import AnyConfig, require
from optstudy.results.catalog import expect_many
from optstudy.study import library as study
from optstudy.study import places, registered
from optstudy.study.session import FINISHED, Session
from optstudy.study.yamlfile import located

WATCH_SECONDS = 2.0


def demo(
    *, scale: Scale = None, runs: Path = RUNS, jobs: int | None = None, out: Path = Path("report")
) -> int:
    """Train and compare five optimizers on real text, in about five minutes on two cores.

    Finished runs are not repeated: a second `optstudy demo` takes seconds.

    Args:
        scale: size of the model and length of the runs; by default `pico`.
        runs: folder of the run folders.
        jobs: runs at a time; one per core by default.
        out: folder for the report.
    """
    return run("demo", scale=scale, runs=runs, jobs=jobs, out=out)


def run(
    name: StudyName,
    /,
    *,
    scale: Scale = None,
    set_: Assignments = (),
    axis: Axes = (),
    runs: Path = RUNS,
    jobs: int | None = None,
    seeds: int | None = None,
    device: str = "auto",
    per_gpu: int = 1,
    launcher: str = "local",
    slurm: Annotated[tuple[str, ...], Parameter(allow_leading_hyphen=True)] = (),
    out: Path = Path("report"),
    adaptive: bool = True,
    retry: bool = False,
    decide: bool = False,
    most_seeds: int | None = None,
    hours: float | None = None,
    fresh: bool = False,
    dry_run: bool = False,
) -> int:
    """Run a study: keep finished runs, do the rest, then print the table and write a report.

    Ctrl-C stops it, and the same command continues. Several processes, on several machines, may work on one
    runs folder. Runs in the package's own record of the paper's studies count as done, unless `--fresh`.

    Examples:
        optstudy run paper/fig1 --scale pico

        optstudy run demo --set data.corpus=path:my.txt --set training.steps=2000

        optstudy run my-study.yaml --jobs 4 --dry-run

        optstudy run paper/fig1 --launcher slurm --slurm partition=gpu --slurm gres=gpu:1

    Args:
        name: a name from `optstudy studies`, or your own file.
        scale: `pico` (the default), `nano`, `micro`, or the paper's `150m`, `300m`, `600m`, `1.2b`,
            `150m-long`; for a study with a `trainer:`, one of its own scales, by default the first.
        axis: values to run instead of the study's, as `key=value,value`; may be repeated.
        runs: folder of the run folders.
        jobs: runs at a time; by default one per core, or `--per-gpu` for each GPU.
        seeds: seeds of every point, instead of the study's.
        device: `auto`, `cpu` or `cuda`.
        per_gpu: runs at a time on one GPU.
        launcher: `local`, `slurm` (job arrays) or `ray` (the cluster of RAY_ADDRESS, or this machine).
        slurm: Slurm option that overrides the study's `slurm:`, as `key=value`; may be repeated.
        out: folder for the report.
        adaptive: extend axes and add seeds as the study says.
        retry: start runs again that were set aside after failing.
        decide: add seeds to decide open claims, at looks of 3, 6 and 12 seeds; all looks together
            have an error of at most 5 %.
        most_seeds: the last look of `--decide`: 3, 6 or 12 (default).
        hours: `--decide` starts no runs that would end later than this.
        fresh: also repeat runs in the package's record.
        dry_run: only print what would be run; for Slurm, also the batch script.
    """
    session = _session(name, scale, set_, axis, runs, seeds, adaptive, fresh)
    deciding.check(session, decide, most_seeds, hours)
    launching = Launching(session, launcher, device, jobs, per_gpu, slurm)
    _try_programs(session, name)
    if dry_run:
        describe(session, jobs, device, per_gpu)
        sys.stdout.write(launching.script())
        return DONE
    if retry:
        session.forgive()
    places.remember(session.study, session.runs)
    registered.write(session, decide)
    _carry_out(session, launching)
    if decide:
        session.decide()
        slots = len(launching.slots())
        deciding.decide(session, lambda: _carry_out(session, launching), slots, most_seeds, hours)
    states = session.states().values()
    if "failed" not in states or any(state in FINISHED for state in states):
        write_report(session, out)  # else it is empty, and every failure has been reported
    return FAILED if "failed" in states else DONE


def _try_programs(session: Session, name: str) -> None:
    """Import and try other people's optimizers, and check the study's program."""
    try:
        if (trainer := session.study.file.trainer) is not None:
            require(trainer, session.study.folder)
        try_code(point.config for point in session.runs_known.values())
    except UserError as error:
        raise located(error, name, session.study.file.places, session.overrides) from None


def _carry_out(session: Session, launching: Launching) -> None:
    """Prepare the data for the runs, and do those that have no result."""
    from optstudy.data import text, tokens

    configs = [point.config for point in session.runs_known.values()]
    for (corpus, text_key, tokenizer, end_token), count in _texts(configs).items():
        tokens.prepare(text.corpus(corpus, text_key), tokenizer, tokens=count, end_token=end_token)
    with ProgressView(session, len(launching.slots())) as watch:
        launching.start(watch.on_event)


def _texts(configs: Sequence[AnyConfig]) -> dict[tuple[str, str, str, str | None], int | None]:
    """Corpora and tokenizers that runs read, each with the maximum number of tokens; None: all."""
    counts: dict[tuple[str, str, str, str | None], list[int | None]] = {}
    for data in (config.data for config in configs if isinstance(config, RunConfig)):
        read = data.corpus, data.text_key, data.tokenizer, data.end_token
        counts.setdefault(read, []).append(data.tokens)
    return {text: None if None in taken else max(n for n in taken if n) for text, taken in counts.items()}


def status(
    name: StudyName,
    /,
    *,
    scale: Scale = None,
    set_: Assignments = (),
    axis: Axes = (),
    runs: Path = RUNS,
    seeds: int | None = None,
    watch: bool = False,
    json_: Json = False,
) -> int:
    """Show the progress of a study, which of its runs failed and why, and its table so far.

    Examples:
        optstudy status paper/fig1 --watch

    Args:
        name: a name from `optstudy studies`, or your own file.
        scale: the scale of the runs; by default `pico`, or the study's first.
        axis: values to run, as `key=value,value`.
        runs: folder of the run folders.
        seeds: seeds of every point, instead of the study's.
        watch: show a live table until all runs have ended.
        json_: write JSON: the number of runs in each state, and the failed runs.
    """
    from optstudy import report

    existing(runs)
    session = _session(name, scale, set_, axis, runs, seeds)
    states = session.states()
    if watch:
        with ProgressView(session, max(1, sum(state == "running" for state in states.values()))) as live:
            while not all(state in (*FINISHED, "failed") for state in states.values()):
                live.draw()
                time.sleep(WATCH_SECONDS)
                session.replan()
                states = session.states()
    counted = dict(sorted(Counter(states.values()).items()))
    older = [row.id for row in session.older()]
    failed = [run_id for run_id, state in states.items() if state == "failed"]
    if json_:
        listed = [{"id": one, "why": session.why(one)} for one in failed]
        sys.stdout.write(
            json.dumps(
                {
                    "study": name,
                    "scale": session.scale,
                    "runs": counted,
                    "failed": listed,
                    "older_code": older,
                }
            )
            + "\n"
        )
        return DONE
    said = ", ".join(f"{count} {state}" for state, count in counted.items())
    sys.stdout.write(f"{named(session)}: {len(states)} runs: {said}\n")
    if older:
        sys.stdout.write(f"{len(older)} runs of {OLDER} are left out: {' '.join(older)}\n")
    for run_id in failed:
        sys.stdout.write(f"{failure(session, run_id)}\n")
    if failed:
        sys.stdout.write("optstudy run with --retry tries them again\n")
    (figure,) = Judge([session]).figures()
    if figure.rows:
        report.show(figure)
    return DONE


def show(
    name: StudyName,
    /,
    *,
    scale: Scale = None,
    set_: Assignments = (),
    axis: Axes = (),
    runs: Path = RUNS,
    jobs: int | None = None,
    seeds: int | None = None,
    device: str = "auto",
    per_gpu: int = 1,
    adaptive: bool = True,
    fresh: bool = False,
    json_: Json = False,
) -> int:
    """List a study's runs and their cost: tokens, FLOPs, hours on this machine, disk.

    For a folder of studies, such as `paper`: the number of runs of each, and the cost of all. The hours are
    estimated from runs in the runs folder; without any, from one CPU core of this machine. For models that
    need a GPU, only `--device cpu` then estimates hours, for this machine's cores.

    Args:
        name: a name from `optstudy studies`, a folder of them (`paper`), or your own file.
        scale: the scale to run; by default `pico`, or the study's first.
        axis: values to run instead of the study's, as `key=value,value`.
        runs: folder of the run folders.
        jobs: runs at a time; by default one per core, or `--per-gpu` for each GPU.
        seeds: seeds of every point, instead of the study's.
        device: `auto`, `cpu` or `cuda`.
        per_gpu: runs at a time on one GPU.
        adaptive: extend axes and add seeds as the study says and results require.
        fresh: ignore the package's record.
        json_: write JSON: ids, configs, states, and the study that a run's config waits for.
    """
    known_device(device)
    at_least_one("--jobs", jobs)
    at_least_one("--per-gpu", per_gpu)
    if (inside := names_in(name)) != [name] and not json_:
        describe_all(
            [_session(one, scale, set_, axis, runs, seeds, adaptive, fresh) for one in inside],
            jobs,
            device,
            per_gpu,
        )
        return DONE
    session = _session(name, scale, set_, axis, runs, seeds, adaptive, fresh)
    if json_:
        told = {"study": session.study.name, "runs": listed(session)}
        told["older_code"] = [row.id for row in session.older()]
        sys.stdout.write(json.dumps(told, indent=1) + "\n")
    else:
        sys.stdout.write(f"{session.study.file.title}\n{session.study.file.asks}\n")
        describe(session, jobs, device, per_gpu)
    return DONE


def studies(*, json_: Json = False) -> int:
    """List the studies in the package.

    Args:
        json_: write JSON.
    """
    loaded = [study.load(name) for name in study.names()]
    if json_:
        told = [{"name": one.name, "title": one.file.title, "asks": one.file.asks} for one in loaded]
        sys.stdout.write(json.dumps(told, indent=1) + "\n")
    else:
        for one in loaded:
            sys.stdout.write(f"{one.name:24} {one.file.title}\n")
    return DONE


def _session(
    name: str,
    scale: str | None,
    assignments: Sequence[str],
    axes: Sequence[str],
    runs: Path,
    seeds: int | None,
    adaptive: bool = True,
    fresh: bool = False,
) -> Session:
    expect_many()
    chosen = study.load(name).over(axes)
    kept = {} if fresh else recorded(name, chosen.scale(scale))
    return Session(chosen, scale, runs, study.overrides(assignments), seeds, adaptive, kept, all_seeds=True)
