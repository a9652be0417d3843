"""Experiment trackers that also receive a run's metrics: TensorBoard, Weights & Biases.

They are enabled by ``watch`` in the config, which is not part of a run's id. Each is an optional extra.
"""

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, Self

from optstudy.config import RunConfig
from optstudy.errors import UserError

Row = Mapping[str, Any]


class Tracker(Protocol):
    """Receives each row of ``metrics.jsonl`` as it is written."""

    def write(self, row: Row) -> None:
        """Log one row; it has a ``step``."""

    def close(self, code: int) -> None:
        """Send pending data; ``code`` is 0 unless the run failed."""


class Trackers:
    """The trackers that a run's config enables.

    Args:
        config: the run's config.
        folder: the run's folder; local files go there.
        steps: steps of the checkpoint from which the run resumes, else 0.

    Raises:
        UserError: a tracker is not installed, or cannot be reached.
    """

    def __init__(self, config: RunConfig, folder: Path, steps: int) -> None:
        self._open: list[Tracker] = []
        if config.watch.tensorboard:
            self._open.append(TensorBoard(folder, steps))
        if config.watch.wandb is not None:
            self._open.append(WeightsAndBiases(config, folder, config.watch.wandb))

    def write(self, row: Row) -> None:
        """Log one row to all of them."""
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
        # hides rows that a killed attempt wrote after its checkpoint
        self._writer = module.SummaryWriter(str(folder / "tensorboard"), purge_step=steps + 1)

    def write(self, row: Row) -> None:
        """Log one row."""
        for name, value in flat(row):
            self._writer.add_scalar(name, value, row["step"])

    def close(self, code: int) -> None:
        """Flush and close."""
        self._writer.close()


class WeightsAndBiases:
    """A W&B run with this run's id, resumed with it; stored in ``FOLDER/wandb`` if ``WANDB_MODE=offline``."""

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
        self._run.define_metric("*", step_metric="step")  # a resumed run may write a step twice

    def write(self, row: Row) -> None:
        """Log one row."""
        self._run.log({"step": row["step"], **dict(flat(row))})

    def close(self, code: int) -> None:
        """Send pending data."""
        self._run.finish(exit_code=code)


def flat(row: Row, prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield finite numbers by their path, such as ``norms/head/gradient``, except the step."""
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
