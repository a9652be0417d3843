"""``optstudy init``: writes starter files for a study, or tries the first run of an existing one."""

import math
import shlex
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from optstudy.commands.options import RUNS, Assignments, belong
from optstudy.ending import DONE, FAILED, Asked, Preempted, ProgramError
from optstudy.errors import UserError
from optstudy.folders import prepare
from optstudy.program import Program, require
from optstudy.record import leaves, read_metrics
from optstudy.study import library as study
from optstudy.study.session import Session
from optstudy.study.yamlfile import located
from optstudy.training.external import Output, carry_out

Kind = Literal["script", "trainer", "function"]
STUDY = "study.yaml"
PROGRAM = "train.py"
OURS = ("config.json", "env.json", "metrics.jsonl", "result.json")
"""Files in every run's folder."""
OK, NOTE, MISSING = "ok", "note", "missing"
Finding = tuple[str, str]


def init(
    kind: Kind | None = None,
    folder: Path = Path(),
    /,
    *,
    check: Path | None = None,
    seconds: float = 60.0,
    set_: Assignments = (),
    runs: Path = RUNS,
) -> int:
    """Write a study file and a program to start with, or try one run of an existing study.

    `optstudy init script` writes `study.yaml` and `train.py`, which run as they are, for you to change.
    With `--check`, the first run of a study is run for at most a minute in a temporary folder, and its output
    is checked. Exit code 1 means that something is missing.

    Examples:
        optstudy init script my-study

        optstudy init --check my-study.yaml --set steps=20

    Args:
        kind: `script`: a program; `trainer`: a program with Hugging Face's `Trainer`; `function`: a
            Python function.
        folder: folder for the files; by default the current one. No file is overwritten.
        check: try this study file, which has a `trainer:`, instead.
        seconds: time after which that run is stopped.
        runs: folder of the study's run folders, if it has been run; nothing is written there.
    """
    if (kind is None) == (check is None):
        raise UserError(
            "init: give either what to begin with, script, trainer or function, or --check STUDY.yaml"
        )
    if kind is not None:
        belong("--check", False, set_=set_)
        return _write(kind, folder)
    assert check is not None
    if not seconds > 0:
        raise UserError(f"--seconds: input should be above 0, not {seconds:g}")
    return _try(str(check), seconds, set_, runs)


def _write(kind: Kind, folder: Path) -> int:
    """Write both files, or neither."""
    root = resources.files("optstudy.commands") / "starters"
    trainer = (root / f"{kind}.yaml").read_text(encoding="utf-8").rstrip()
    content = (root / STUDY).read_text(encoding="utf-8").replace("TRAINER", trainer)
    files = {STUDY: content, PROGRAM: (root / f"{kind}.py.txt").read_text(encoding="utf-8")}
    for name in files:
        if (folder / name).exists():
            raise UserError(f"{folder / name}: exists already, and is not overwritten; give another folder")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
        sys.stdout.write(f"wrote {folder / name}\n")
    there = "" if folder == Path() else f"cd {shlex.quote(str(folder))} && "
    sys.stdout.write(f"try one run: {there}optstudy init --check {STUDY}\n")
    return DONE


def _try(name: str, seconds: float, set_: Assignments, runs: Path) -> int:
    """Try a study's first run for a limited time, and report what it wrote and what is missing."""
    config = _first(name, set_, runs, seconds)
    with tempfile.TemporaryDirectory() as temporary:
        folder = prepare(Path(temporary), config, lambda folder: None)
        point = leaves(config.model_dump(mode="json", exclude={"trainer"}))
        said = " ".join(f"{key}={value}" for key, value in point)
        command = shlex.join(config.command(folder)) or f"the function {config.trainer.function}"
        sys.stdout.write(f"{name}: one run, for {seconds:g} s at most: {said}\n{command}\n")
        sys.stdout.flush()
        output, result, failure = Output(config.trainer.metric), None, ""
        began = time.monotonic()
        try:
            result = carry_out(folder, config, output=output)
        except (ProgramError, Asked) as error:
            failure = str(error)
        except Preempted as stop:
            raise KeyboardInterrupt from stop
        stopped = time.monotonic() - began >= (config.trainer.timeout or math.inf)
        if result is None and stopped:
            metric = _so_far(folder, config, output, seconds)
        elif result is None:
            metric = (MISSING, failure)
        else:
            metric = _ended(config, result)
        found = [metric, *_rows(folder), *_files(folder), *_seed(config)]
    for mark, said in found:
        sys.stdout.write(f"{mark:8} {said}\n")
    return FAILED if any(mark == MISSING for mark, _ in found) else DONE


def _first(name: str, set_: Assignments, runs: Path, seconds: float) -> Program:
    """Return the first run of a study, with a time limit."""
    session = Session(study.load(name), None, runs, study.overrides(set_), adaptive=False)
    trainer = session.study.file.trainer
    if trainer is None:
        raise UserError(
            f"{name}: init --check: the study has no trainer:, its runs are those of optstudy's own; "
            "optstudy run --dry-run checks it"
        )
    try:
        require(trainer, session.study.folder)
    except UserError as error:
        raise located(error, name, session.study.file.places, session.overrides) from None
    config = next(iter(session.runs_known.values())).config
    assert isinstance(config, Program)
    least = min(seconds, config.trainer.timeout or seconds)
    return config.model_copy(update={"trainer": config.trainer.model_copy(update={"timeout": least})})


def _ended(config: Program, result: Mapping[str, Any]) -> Finding:
    metric = config.trainer.metric.name
    if result["state"] == "diverged":
        return NOTE, f"{metric}: the run diverged: {result['reason']}"
    return OK, f"{metric}: {result['val_loss']:g}, after {result['seconds']:.1f} s"


def _so_far(folder: Path, config: Program, output: Output, seconds: float) -> Finding:
    """Report whether a stopped run had begun to report its metric."""
    metric = config.trainer.metric.name
    if output.found or output.matched is not None or (folder / "result.json").exists():
        return OK, f"{metric}: told within {seconds:g} s, after which the run was stopped"
    more = "give it more time by --seconds, or less to do by --set"
    last = output.last and f"; its last line: {output.last}"
    return MISSING, f"{metric}: not told within {seconds:g} s, after which the run was stopped: {more}{last}"


def _rows(folder: Path) -> list[Finding]:
    try:
        rows = read_metrics(folder)
    except UserError as error:
        return [(MISSING, str(error))]
    if not rows:
        return [
            (
                NOTE,
                "metrics.jsonl: no rows, so that reports have no losses over a run (trial.log writes them)",
            )
        ]
    keys = list(dict.fromkeys(key for row in rows for key in row))
    unseen = [key for key in ("step", "loss") if key not in keys]
    lacks = f"; {' and '.join(unseen)} would be drawn" if unseen else ""
    return [(NOTE if unseen else OK, f"metrics.jsonl: {len(rows)} rows with {', '.join(keys)}{lacks}")]


def _files(folder: Path) -> list[Finding]:
    own = sorted(
        path.name for path in folder.iterdir() if path.name not in OURS and not path.name.startswith(".")
    )
    if own:
        return [(OK, f"the run's folder: has its own {', '.join(own)}")]
    said = "the run's folder: no files of its own; any that it writes elsewhere are overwritten by other runs"
    return [(NOTE, f"{said}: {{folder}} in trainer.command, or trial.folder, is the place for them")]


def _seed(config: Program) -> list[Finding]:
    if config.trainer.sees_all or "seed" in config.trainer.names:
        return []
    return [(NOTE, "seed: no word of trainer.command has {seed}, so that the study can have one seed only")]
