"""Gives a study's runs to the user's own training loop, one after the other. No torch."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from optstudy.ending import DONE, PREEMPTED, ProgramError, result_code
from optstudy.errors import UserError
from optstudy.folders import read_config
from optstudy.launch.attempts import Attempt, Held, attempt
from optstudy.launch.events import Board
from optstudy.program import Program
from optstudy.record import write_json
from optstudy.study import places
from optstudy.study.session import Session
from optstudy.training.external import Output, begin, outcome
from optstudy.trials import Trial

LOOK_SECONDS = 1.0
"""Seconds between checks of the runs that other processes work on."""


def ask(session: Session) -> Iterator[Trial]:
    """Yield every run that has no result yet, until all have one or are set aside.

    Raises:
        UserError: the study uses optstudy's own trainer.
    """
    if session.study.file.trainer is None:
        raise UserError(f"{session.study.name}: ask: only for a study with trainer:; this one runs by run()")
    return _each(session)


def _each(session: Session) -> Iterator[Trial]:
    places.remember(session.study, session.runs)
    board = Board(session.todo, lambda event: None)
    while board.open:
        folder = board.startable([])
        if folder is None:  # other processes work on the remaining runs
            time.sleep(LOOK_SECONDS)
        else:
            try:
                yield from _one(folder)
            except Held:
                pass
            except ProgramError as error:
                sys.stderr.write(f"optstudy: {folder}: {error}\n")
        board.look()


def _one(folder: Path) -> Iterator[Trial]:
    """Yield one run; write its result when the loop continues; if the loop is left, the run stays open."""
    config = read_config(folder)
    assert isinstance(config, Program)
    with attempt(folder, on_loss=lambda: None) as current:
        begin(folder)
        began = time.monotonic()
        trial = Trial(folder)
        try:
            yield trial
        except GeneratorExit:
            if trial.finished:
                _end(folder, config, current, time.monotonic() - began)
            else:
                current.code, current.reason = PREEMPTED, "the loop was left"
            raise
        if not trial.finished:
            raise ProgramError("the loop went on without trial.finish()")
        _end(folder, config, current, time.monotonic() - began)


def _end(folder: Path, config: Program, current: Attempt, seconds: float) -> None:
    result = outcome(folder, config, DONE, Output(config.trainer.metric), seconds)
    current.lease.check()
    write_json(folder / "result.json", result)
    current.code, current.reason = result_code(result), result["reason"]
