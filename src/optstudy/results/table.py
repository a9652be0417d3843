"""The study table: one row per finished run, diverged ones included. Imports no torch."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from optstudy.errors import UserError, nearest
from optstudy.record import ID, read_json, read_result


@dataclass(frozen=True)
class Row:
    """One finished run. In a run of another training program, fields that it did not report are None."""

    id: str
    """The hash of the config, twelve hexadecimal digits."""
    state: str
    """``done`` or ``diverged``."""
    reason: str | None
    """Why it diverged."""
    config: dict[str, Any]
    """The run's complete config."""
    val_loss: float | None
    """Final cross-entropy on the validation split, nats per token; None if not finite. For another program,
    the number that its ``trainer.metric`` names."""
    initial_val_loss: float | None
    """The same before the first step, nats per token."""
    train_loss: float | None
    """Mean over the last tenth of the steps, nats per token, z-loss included; None if it diverged."""
    step: int | None
    """Steps taken; for a diverged run, the first step at which divergence was certain."""
    tokens: int | None
    """Tokens read in these steps."""
    tokens_per_s: float | None
    """``tokens`` over ``seconds``."""
    seconds: float
    """Seconds of training and validation, over all attempts."""
    step_ms: float | None
    """Median milliseconds per step, without validation."""
    peak_memory_mb: float | None
    """Peak memory of the process, or of the GPU if it ran on one, in MiB (2^20 bytes)."""
    params: int | None
    """Number of parameters."""
    state_bytes_per_param: float | None
    """Bytes of optimizer state per parameter."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Versions of torch and of the packages that its optimizer comes from; empty if not recorded."""

    reported: Mapping[str, Any] | None = None
    """Numbers reported by another training program, by its own names; None for optstudy's own trainer."""
    maximise: bool = False
    """Larger is better."""
    worst: float | None = None
    """The loss that a diverged run counts as if nothing else is known of it, see :func:`with_worst`."""

    @property
    def optimizer(self) -> str:
        """The optimizer's name; empty if the config has none."""
        return str(self._of_optimizer("name", ""))

    @property
    def lr(self) -> float | None:
        """Peak learning rate, in the optimizer's own unit; None if the config has none."""
        found = self._of_optimizer("lr", None)
        return float(found) if type(found) in (int, float) else None

    def _of_optimizer(self, key: str, otherwise: Any) -> Any:
        chosen = self.config.get("optimizer")
        if self.reported is None:
            return self.config["optimizer"][key]
        return chosen.get(key, otherwise) if isinstance(chosen, Mapping) else otherwise

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.config["seed"])

    @cached_property
    def start(self) -> float:
        """The loss of a run that learned nothing: the loss before training, or the worst known one."""
        if self.initial_val_loss is None:
            return math.inf if self.worst is None else self.worst
        return -self.initial_val_loss if self.maximise else self.initial_val_loss

    @cached_property
    def loss(self) -> float:
        """The loss used in comparisons, lower is better: final or initial, the smaller; initial if diverged.

        Nats per token. For another program it is its metric, negated if larger is better.
        """
        if self.state == "diverged" or self.val_loss is None:
            return self.start
        return min(-self.val_loss if self.maximise else self.val_loss, self.start)

    @property
    def code(self) -> str | None:
        """Hash of the source of a training program, or of classes that are in no installed package."""
        found: str | None
        if self.reported is not None:
            found = self.config["trainer"].get("fingerprint")
        else:
            found = self.config["optimizer"].get("code") or self.config["model"].get("code")
        return found

    def value(self, key: str) -> Any:
        """Read a config value by its dotted key, e.g. ``optimizer.lr``.

        Raises:
            KeyError: the config has no such key.
        """
        node: Any = self.config
        for part in key.split("."):
            node = node[part]
        return node


NOT_RESULTS = ("config", "versions", "reported", "maximise", "worst")
RESULTS = tuple(f.name for f in fields(Row) if f.name not in NOT_RESULTS)
"""Fields that every ``result.json`` has."""


def measured(row: Row, metric: str, maximise: bool) -> Row:
    """Return another program's run with one of its reported numbers as its validation loss.

    Raises:
        UserError: the run is done but reported no such number.
    """
    if row.reported is None or row.state == "diverged":
        return replace(row, maximise=maximise)
    value = row.reported.get(metric)
    if type(value) not in (int, float):
        known = [key for key, one in row.reported.items() if type(one) in (int, float)]
        raise UserError(f"it reported no number {metric!r}{nearest(metric, known)}")
    return replace(row, val_loss=value, maximise=maximise)


def with_worst(rows: Sequence[Row]) -> list[Row]:
    """Return a study's rows; diverged runs without an initial loss count as worse than all others.

    Nothing is invented for a program that reports no initial loss: only such a run's rank is known.
    """
    known = [row.loss for row in rows if math.isfinite(row.loss)]
    worst = math.nextafter(max(known), math.inf) if known else 0.0
    return [replace(row, worst=worst) if row.initial_val_loss is None else row for row in rows]


def read_row(folder: Path, shared: Callable[[dict[str, Any]], dict[str, Any]] | None = None) -> Row | None:
    """Read one run's folder; None while the run has no result.

    Args:
        folder: the run's folder.
        shared: maps a config to an equal one whose parts are shared between runs, to save memory.

    Raises:
        UserError: a file is damaged, or the folder has the name of a different run.
    """
    result = read_result(folder)
    if result is None:
        return None
    if ID.fullmatch(folder.name) and folder.name != result["id"]:
        raise UserError(f"{folder}: holds run {result['id']}: it is a copy, or was renamed")
    path = f"{folder}/config.json"
    config = read_json(path)
    if config is None:
        raise UserError(f"{path}: is missing")
    results: dict[str, Any] = {name: result.get(name) for name in RESULTS}
    versions, reported = result.get("versions", {}), result.get("reported")
    trainer = config.get("trainer")
    if (trainer is None) != (reported is None) or not isinstance(trainer, (Mapping, type(None))):
        raise UserError(f"{path}: damaged: its trainer does not match that of the result")
    row = Row(
        config=config if shared is None else shared(config),
        versions=versions,
        reported=reported,
        maximise=bool(trainer and trainer.get("maximise")),
        **results,
    )
    try:
        if (row.optimizer, row.lr, row.seed)[1] is None and reported is None:
            raise ValueError("lr")
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path}: damaged: it lacks the optimizer's name, its lr or the seed") from None
    return row


def read_rows(runs: Path, ids: Iterable[str]) -> list[Row]:
    """Read those of the given runs that have finished, in the order of ``ids``."""
    rows = (read_row(runs / run_id) for run_id in ids)
    return [row for row in rows if row is not None]
