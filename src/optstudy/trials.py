"""A run from the point of view of its training program. Standard library only, so importing it is cheap.

    import optstudy

    trial = optstudy.trial()
    ...  # trial.config, trial.seed, trial.folder; trial.log(step=..., tokens=..., loss=...)
    trial.finish(val_loss=...)

docs/contract.md describes the files that must be written. As a program, ``python -m optstudy.trials
mytrain.train`` calls a function with a trial; what it returns, a number or a mapping, is the result.
"""

import importlib
import json
import math
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn
    from torch.optim.optimizer import Optimizer

VARIABLE = "OPTSTUDY_RUN"
"""The environment variable that names the run's folder."""


class Trial:
    """One run of a study.

    Args:
        folder: the run's folder, with its ``config.json``.

    Raises:
        UserError: there is no readable ``config.json``.
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder).resolve()
        """The run's folder; the program may store checkpoints and other files in it."""
        tree = _read(self.folder / "config.json")
        self._trainer: dict[str, Any] = tree.pop("trainer", {})
        self.seed = int(tree.get("seed", 0))
        self.config: dict[str, Any] = tree
        """The run's config, nested, with its ``seed``."""
        self.finished = False
        """Whether :meth:`finish` was called."""
        self._logged = False

    def __repr__(self) -> str:
        return f"<trial {self.folder.name}: seed {self.seed}, {self.config}>"

    def __getitem__(self, key: str) -> Any:
        """Return a config value by its dotted key: ``trial["optimizer.lr"]``."""
        node: Any = self.config
        for part in key.split("."):
            node = node[part]
        return node

    @property
    def metric(self) -> str:
        """The name of the study's metric."""
        return str(self._trainer.get("metric", {}).get("name", "val_loss"))

    def log(self, **row: Any) -> None:
        """Append a row to ``metrics.jsonl``; reports draw ``step``, ``tokens``, ``loss`` and ``val_loss``.

        If several processes train together, only one calls this and :meth:`finish`.

        When a program is started again, its first row drops the earlier attempt's rows from that step on.
        """
        path = self.folder / "metrics.jsonl"
        if not self._logged:
            self._logged = True
            _cut(path, row.get("step"))
        line = json.dumps({key: _finite(value) for key, value in row.items()}, default=_number)
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{line}\n")

    def finish(self, **result: Any) -> None:
        """Write ``result.json``: the metric, and any other values to keep.

        Reports use these further values: ``tokens``, ``step``, ``train_loss``, ``initial_val_loss``,
        ``params``, ``step_ms``, ``peak_memory_mb`` and ``state_bytes_per_param``. A metric that is not finite
        means that the run has diverged.

        Raises:
            TypeError: the metric is missing or not a number; or a value cannot be written as JSON.
        """
        if self.metric not in result:
            raise TypeError(f"finish: give {self.metric}=, the trainer.metric of the study")
        content = json.dumps(result, default=_number, indent=1)
        value = json.loads(content)[self.metric]
        if type(value) not in (int, float):
            raise TypeError(f"finish: {self.metric} must be a number, not {value!r}")
        temporary = self.folder / f".result.json.{os.getpid()}.tmp"
        temporary.write_text(f"{content}\n", encoding="utf-8")
        temporary.replace(self.folder / "result.json")
        self.finished = True

    def optimizer(self, model: "nn.Module", **changes: Any) -> "Optimizer":
        """Return the optimizer that the config names under ``optimizer``, over a model's parameters.

        Its ``name``, ``lr``, ``weight_decay``, ``options`` and ``roles`` are those of
        :func:`optstudy.create_optimizer`; needs torch.

        Args:
            model: the model to train.
            changes: options that override the config's.

        Raises:
            UserError: the config has no optimizer, or an unknown one.
        """
        from optstudy.errors import UserError

        create = importlib.import_module("optstudy.training.build").create_optimizer
        told = self.config.get("optimizer")
        if not isinstance(told, Mapping) or not {"name", "lr"} <= told.keys():
            raise UserError("trial.optimizer: the config needs optimizer.name and optimizer.lr", "optimizer")
        known = {key: told[key] for key in ("lr", "weight_decay", "roles") if told.get(key) is not None}
        other = {k: v for k, v in told.items() if k not in ("name", "lr", "weight_decay", "roles", "options")}
        own = {**other, **(told.get("options") or {}), **known, **changes}
        made: Optimizer = create(told["name"], model, **own)
        return made

    def callback(self, metric: str | None = None) -> Any:
        """Return a callback for Hugging Face's ``Trainer`` that logs its losses and finishes the trial.

        Args:
            metric: the Trainer's number to use; by default ``eval_loss``, or the study's own metric
                if it is one, such as ``eval_accuracy``.
        """
        told = self.metric if self.metric.startswith("eval_") else "eval_loss"
        return importlib.import_module("optstudy.huggingface").callback(self, metric or told)

    def lightning_callback(self, metric: str | None = None) -> Any:
        """Return a callback for Lightning's ``Trainer`` that logs its losses and finishes the trial.

        Args:
            metric: name of the logged number to use; by default the name of the study's metric, such as
                ``val_loss``.
        """
        return importlib.import_module("optstudy.lightning").callback(self, metric or self.metric)


def trial() -> Trial:
    """Return the run that this program was started for.

    Raises:
        UserError: no study started the program.
    """
    folder = os.environ.get(VARIABLE)
    if not folder:
        from optstudy.errors import UserError

        raise UserError(
            f"optstudy.trial(): {VARIABLE} is not set: optstudy run sets it for the trainer of a study; "
            f"by hand, set it to a run's folder, or to any with a config.json"
        )
    return Trial(folder)


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        why = "it is not a JSON object"
    except (OSError, ValueError) as error:
        tree, why = None, str(error)
    if isinstance(tree, dict):
        return tree
    from optstudy.errors import UserError  # only here: importing it takes longer than everything else

    raise UserError(f"{path}: {why}")


def _cut(path: Path, step: Any) -> None:
    """Drop rows that an earlier attempt wrote from a step on, and a line cut off by a kill."""
    try:
        lines = path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return
    kept = []
    for line in lines:
        try:
            row = json.loads(line)
            before = not isinstance(step, int) or not row.get("step", -1) >= step
        except (ValueError, AttributeError, TypeError):
            continue
        if before and line.endswith(b"\n"):
            kept.append(line)
    temporary = path.with_name(f".metrics.jsonl.{os.getpid()}.tmp")
    temporary.write_bytes(b"".join(kept))
    temporary.replace(path)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _number(value: Any) -> Any:
    """Return the plain value of another library's number, such as a tensor with one element."""
    try:
        return value.item()
    except (AttributeError, ValueError, RuntimeError):
        raise TypeError(f"{type(value).__name__} is not a JSON value") from None


def _main(path: str) -> None:
    sys.path.insert(0, "")
    module, _, name = path.rpartition(".")
    found = trial()
    returned = getattr(importlib.import_module(module), name)(found)
    if isinstance(returned, Mapping):
        found.finish(**returned)
    elif returned is not None:
        found.finish(**{found.metric: returned})


if __name__ == "__main__":
    _main(sys.argv[1])
