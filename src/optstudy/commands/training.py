"""``optstudy train``."""

import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from optstudy import study
from optstudy.cli import DIVERGED, DONE, PREEMPTED
from optstudy.config import merge
from optstudy.errors import UserError
from optstudy.launch import attempts
from optstudy.launch.attempts import Attempt, Held, attempt
from optstudy.record import read_json, read_result, write_json


def train(
    config_or_run_folder: Path,
    /,
    *,
    runs: Path = Path("runs"),
    device: str = "auto",
    set_: Annotated[tuple[str, ...], Parameter(name="--set", allow_leading_hyphen=True)] = (),
) -> int:
    """Carry out one run, or continue it from its newest checkpoint.

    A finished run is only reported. Ends with 0 when done, 3 when it diverged, 75 when it was asked to stop
    and can be resumed.

    Examples:
        optstudy train my-run.yaml --set optimizer.lr=3e-3

        optstudy train runs/0c6ffb1a97e2

    Args:
        config_or_run_folder: a run's folder, or a YAML or JSON file: `scale: pico` and what differs from it.
        runs: where run folders are, for a config file.
        device: `auto`, `cpu` or `cuda`.
        set_: a config value over the file's, as `key=value`; may be given several times.
    """
    folder = config_or_run_folder
    if not folder.is_dir():
        folder = _folder_of(config_or_run_folder, runs, study.overrides(set_))
    elif set_:
        raise UserError("--set: a run folder's config is fixed; give a config file instead")
    result = read_result(folder)
    if result is None:
        try:
            with attempt(folder) as current:
                result = _carry_out(folder, device, current)
        except Held as held:
            sys.stderr.write(f"optstudy: {held}\n")
            return PREEMPTED
    if result is None:
        return PREEMPTED
    outcome = result["reason"] or f"validation loss {result['val_loss']:.4f}"
    sys.stdout.write(f"{folder}: {result['state']} at step {result['step']}: {outcome}\n")
    return DIVERGED if result["state"] == "diverged" else DONE


def _carry_out(folder: Path, device: str, current: Attempt) -> dict[str, Any] | None:
    """Train; None where the run was asked to stop. The more often it was killed, the sooner it saves."""
    from optstudy.train import CHECKPOINT_MINUTES, Preempted
    from optstudy.train import train as carry_out

    minutes = CHECKPOINT_MINUTES / 2 ** (attempts.kills(folder) - 1)

    with _Bar(folder) as bar:
        try:
            result = carry_out(folder, device, bar.update, minutes, current.lease.check)
        except Preempted as stop:
            sys.stderr.write(f"optstudy: {folder}: {stop}; the same command continues\n")
            current.code = PREEMPTED
            return None
    current.code = DIVERGED if result["state"] == "diverged" else DONE
    return result


def _folder_of(file: Path, runs: Path, overrides: dict[str, Any]) -> Path:
    config = study.single(file, overrides)
    folder = runs / config.id
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "config.json").exists():
        write_json(folder / "config.json", config.model_dump(mode="json"))
    return folder


class _Bar:
    """A progress bar with the loss on a terminal; nothing elsewhere."""

    def __init__(self, folder: Path) -> None:
        config = merge(read_json(folder / "config.json") or {})
        steps = config.get("training", {}).get("steps", 0) + config.get("schedule", {}).get("freeze_steps", 0)
        self._progress = Progress(
            TextColumn(folder.name),
            BarColumn(),
            TextColumn("step {task.completed:.0f}/{task.total:.0f}  {task.fields[said]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._task = self._progress.add_task("", total=steps, said="")

    def __enter__(self) -> "_Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, row: dict[str, Any]) -> None:
        """Show one row of the metrics."""
        self._progress.update(self._task, completed=row["step"])
        if "loss" in row:
            said = f"loss {row['loss']:.3f}  {row['tokens'] / row['seconds']:,.0f} tokens/s"
            self._progress.update(self._task, said=said)
