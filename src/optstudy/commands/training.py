"""``optstudy train``."""

import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from optstudy.commands.importing import try_code
from optstudy.commands.options import RUNS, Assignments, known_device
from optstudy.commands.progress_bar import ProgressBar
from optstudy.config import RunConfig, merge
from optstudy.ending import DONE, HELD, PREEMPTED, Interruption, Preempted, of_several, result_code
from optstudy.errors import UserError, validate
from optstudy.folders import go_home, prepare, read_config
from optstudy.launch import attempts, lease
from optstudy.launch.attempts import Attempt, Held, attempt
from optstudy.program import AnyConfig, Program
from optstudy.record import read_result, write_json
from optstudy.study import library as study

if TYPE_CHECKING:
    from optstudy.training.parallel import Ranks

WAIT_SECONDS = 20.0
"""Seconds of waiting for the other processes of a run before a message."""


def train(
    config_or_run_folder: Path,
    /,
    *,
    runs: Path = RUNS,
    device: str = "auto",
    set_: Assignments = (),
) -> int:
    """Train one run, or continue it from its newest checkpoint.

    A finished run is only reported. A run of another program is done by that program. Exit codes: 0 done,
    2 a mistake of yours or a full disk, 3 diverged, 4 another process is working on the run, 75 asked to stop
    (the same command continues), 1 anything else, such as out of memory. The reason is in the folder's
    `result.json` or `attempts.jsonl`. Under torchrun, one process per GPU trains the run together; it may
    continue with a different number of processes. For a run's folder, `--set` can only change values that are
    not part of its id: `watch`, `training.parallel`, `data.corpus`.

    Examples:
        optstudy train my-run.yaml --set optimizer.lr=3e-3

        optstudy train my-run.yaml --set training.precision=auto --set watch.norms=true

        optstudy train my-run.yaml --set watch.tensorboard=true --set watch.wandb=my-project

        optstudy train runs/0c6ffb1a97e2

        torchrun --nproc-per-node 8 -m optstudy train my-run.yaml --set training.parallel=fsdp

    Args:
        config_or_run_folder: a run's folder, or a YAML or JSON file: `scale: pico` and what differs.
        runs: folder of the run folders, for a config file.
        device: `auto`, `cpu` or `cuda`.
    """
    known_device(device)
    if not of_several():
        with _Others() as others:
            return _lead(config_or_run_folder, runs, device, set_, others)
    from optstudy.training.parallel import joined

    waiting = threading.Timer(WAIT_SECONDS, _say_waiting)
    waiting.daemon = True
    waiting.start()
    with joined() as ranks:
        waiting.cancel()
        if not ranks.first:
            return _follow(device, ranks)
        with _Others(ranks) as others:
            return _lead(config_or_run_folder, runs, device, set_, others)


def _say_waiting() -> None:
    size = os.environ.get("WORLD_SIZE")
    sys.stderr.write(
        f"optstudy: waiting for the other processes of {size}; to train alone, unset WORLD_SIZE\n"
    )


class _Others:
    """The other processes of the run; they wait for the first one's instructions."""

    def __init__(self, ranks: "Ranks | None" = None) -> None:
        self.ranks = ranks
        self._called = False

    def call(self, folder: Path) -> None:
        """Let them train the run in a folder."""
        self._called = True
        if self.ranks is not None:
            self.ranks.same(str(folder.resolve()))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Let them exit; after a run all together, as torchrun would stop those that are still writing."""
        if self.ranks is not None and not self._called:
            from optstudy.training.parallel import leave

            self.ranks.same("")
            leave()
        elif self.ranks is not None and kind is None:
            self.ranks.wait()


def _follow(device: str, ranks: "Ranks") -> int:
    """Follow the first process's instructions."""
    from optstudy.training.train import train as carry_out

    folder = ranks.same("")
    if not folder:
        return DONE
    try:
        result = carry_out(go_home(Path(folder)), device, ranks=ranks)
    except Preempted:
        ranks.wait()
        return PREEMPTED
    ranks.wait()
    return result_code(result)


def _lead(folder: Path, runs: Path, device: str, set_: tuple[str, ...], others: _Others) -> int:
    """Train as the first process, or the only one."""
    if not folder.is_dir():
        folder = _folder_of(folder, runs, study.overrides(set_), device)
    elif set_:
        _change(folder, study.overrides(set_))
    folder = go_home(folder)
    config = read_config(folder)
    result = read_result(folder)
    if result is None:
        try:
            with Interruption(), attempt(folder) as current:
                others.call(folder)
                result = _carry_out(folder, config, device, current, others.ranks)
        except Held as held:
            sys.stderr.write(f"optstudy: {held}\n")
            return HELD
        except Preempted as stop:
            sys.stderr.write(f"optstudy: {folder}: {stop}; the same command continues\n")
            return PREEMPTED
    name = config.trainer.metric.name if isinstance(config, Program) else "validation loss"
    outcome = result["reason"] or f"{name} {result['val_loss']:.4f}"
    step = "" if result["step"] is None else f" at step {result['step']}"
    sys.stdout.write(f"{folder}: {result['state']}{step}: {outcome}\n")
    return result_code(result)


def _carry_out(
    folder: Path, config: AnyConfig, device: str, current: Attempt, ranks: "Ranks | None"
) -> dict[str, Any]:
    """Train; a run that was killed often writes checkpoints more often."""
    if isinstance(config, Program):
        result = _by_program(folder, config, current, ranks)
    else:
        result = _by_ours(folder, device, current, ranks)
    current.code, current.reason = result_code(result), result["reason"]
    return result


def _by_program(folder: Path, config: Program, current: Attempt, ranks: "Ranks | None") -> dict[str, Any]:
    if ranks is not None:
        raise UserError(f"{folder}: a program starts its own processes: put torchrun into trainer.command")
    from optstudy.training.external import carry_out

    return carry_out(folder, config, current.lease.check)


def _by_ours(folder: Path, device: str, current: Attempt, ranks: "Ranks | None") -> dict[str, Any]:
    from optstudy.training.train import CHECKPOINT_MINUTES
    from optstudy.training.train import train as carry_out

    minutes = CHECKPOINT_MINUTES / 2 ** (attempts.kills(folder) - 1)
    with ProgressBar(folder) as bar:
        return carry_out(folder, device, bar.update, minutes, current.lease.check, ranks)


def _folder_of(file: Path, runs: Path, overrides: dict[str, Any], device: str) -> Path:
    def automatic(config: RunConfig) -> str:
        from optstudy.training.compiling import choose_precision
        from optstudy.training.run import choose_device

        chosen, why = choose_precision(config, choose_device(config, device))
        sys.stderr.write(f"optstudy: training.precision: auto is {chosen} here: {why}\n")
        return chosen

    config = study.single(file, overrides, automatic)
    try:
        try_code([config])
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    return prepare(runs, config, lease.holder)


def _change(folder: Path, overrides: dict[str, Any]) -> None:
    """Change values in a run's config that are not part of its id."""
    config = read_config(folder)
    if isinstance(config, Program):
        raise UserError("--set: in the folder of a program's run nothing can change; run the study instead")
    changed = validate(RunConfig, merge(config.model_dump(mode="json"), overrides), "--set")
    if (changed.id, changed.scale) != (config.id, config.scale):
        raise UserError(
            "--set: in a run's folder only values outside its id can change: watch, training.parallel, "
            "data.corpus; give a config file instead"
        )
    if read_result(folder) is None:
        write_json(folder / "config.json", changed.model_dump(mode="json"))
