"""Experiment trackers that a run's metrics go to besides ``metrics.jsonl``: TensorBoard, Weights & Biases.

Switched on by ``watch`` of a config, no part of a run's id. Each is an optional extra.
"""

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, Self

from optstudy.config import RunConfig
from optstudy.errors import UserError

Row = Mapping[str, Any]


class Tracker(Protocol):
    """Takes rows of ``metrics.jsonl`` as they come."""

    def write(self, row: Row) -> None:
        """Take one row; it has a ``step``."""

    def close(self, code: int) -> None:
        """Send what is pending; ``code`` is 0 where the run did not fail."""


class Trackers:
    """Those that a run's config switches on.

    Args:
        config: the run's.
        folder: the run's; local files go there.
        steps: steps that the checkpoint it is resumed from had seen, else 0.

    Raises:
        UserError: one that is not installed, or that cannot be reached.
    """

    def __init__(self, config: RunConfig, folder: Path, steps: int) -> None:
        self._open: list[Tracker] = []
        if config.watch.tensorboard:
            self._open.append(TensorBoard(folder, steps))
        if config.watch.wandb is not None:
            self._open.append(WeightsAndBiases(config, folder, config.watch.wandb))

    def write(self, row: Row) -> None:
        """Pass one row on to all."""
        for tracker in self._open:
            tracker.write(row)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for tracker in self._open:
            tracker.close(0 if kind is None else 1)


class TensorBoard:
    """Event files in the run's folder ``tensorboard``; ``tensorboard --logdir RUNS`` shows all runs."""

    def __init__(self, folder: Path, steps: int) -> None:
        module = _import("torch.utils.tensorboard", "tensorboard")
        # what a killed attempt wrote after its checkpoint is hidden
        self._writer = module.SummaryWriter(str(folder / "tensorboard"), purge_step=steps + 1)

    def write(self, row: Row) -> None:
        """Take one row."""
        for name, value in flat(row):
            self._writer.add_scalar(name, value, row["step"])

    def close(self, code: int) -> None:
        """Write out and close."""
        self._writer.close()


class WeightsAndBiases:
    """One W&B run with our run's id, resumed with it; with ``WANDB_MODE=offline`` in ``FOLDER/wandb``."""

    def __init__(self, config: RunConfig, folder: Path, project: str) -> None:
        wandb = _import("wandb", "wandb")
        try:
            self._run = wandb.init(
                project=project,
                id=config.id,
                name=f"{config.optimizer.name} lr {config.optimizer.lr:g} seed {config.seed}",
                dir=str(folder),
                config=config.model_dump(mode="json"),
                resume="allow",
                settings=wandb.Settings(console="off", silent=True),
            )
        except wandb.Error as error:
            raise UserError(f"watch.wandb: {error}; or set WANDB_MODE=offline") from error
        self._run.define_metric("*", step_metric="step")  # a resumed run may write a step again

    def write(self, row: Row) -> None:
        """Take one row."""
        self._run.log({"step": row["step"], **dict(flat(row))})

    def close(self, code: int) -> None:
        """Send what is pending."""
        self._run.finish(exit_code=code)


def flat(row: Row, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield numbers by their path, as ``norms/head/gradient``; not the step, nor what was not finite."""
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}/")
        elif value is not None and (prefix or name != "step"):
            yield prefix + name, value


def _import(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"watch.{extra}: {extra} is not installed; pip install 'optstudy[{extra}]', or switch it off"
        ) from error
