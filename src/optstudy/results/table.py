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
    """One finished run. Of another training program's, what it did not report is None."""

    id: str
    """The hash of the config, twelve hexadecimal digits."""
    state: str
    """``done`` or ``diverged``."""
    reason: str | None
    """Why it diverged."""
    config: dict[str, Any]
    """The run's whole config."""
    val_loss: float | None
    """Final cross-entropy on the validation split, nats per token; None where it is not finite. Of another
    program the number that its ``trainer.metric`` names."""
    initial_val_loss: float | None
    """The same before the first step, nats per token."""
    train_loss: float | None
    """Mean over the last tenth of the steps, nats per token, z-loss included; None where it diverged."""
    step: int | None
    """Steps taken; where it diverged, the step at which it certainly had."""
    tokens: int | None
    """Tokens read in these steps."""
    tokens_per_s: float | None
    """``tokens`` over ``seconds``."""
    seconds: float
    """Seconds of training and validation, over all attempts."""
    step_ms: float | None
    """Median milliseconds per step, validation left out."""
    peak_memory_mb: float | None
    """Peak memory of the process, or of the GPU where it ran on one, in MiB (2^20 bytes)."""
    params: int | None
    """Number of weights."""
    state_bytes_per_param: float | None
    """Bytes of optimizer state per parameter."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of torch and of the packages that its optimizer comes from; empty where they were not recorded."""

    reported: Mapping[str, Any] | None = None
    """What another training program reported, by its own names; None of optstudy's own trainer."""
    maximise: bool = False
    """Larger is better."""
    worst: float | None = None
    """What counts where nothing else is known of a diverged run, see :func:`with_worst`."""

    @property
    def optimizer(self) -> str:
        """The optimizer's name; empty where a config has none."""
        return str(self._of_optimizer("name", ""))

    @property
    def lr(self) -> float | None:
        """Peak learning rate, in the optimizer's own unit; None where a config has none."""
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
        """What a run that learned nothing counts as: the loss before training, or the worst known."""
        if self.initial_val_loss is None:
            return math.inf if self.worst is None else self.worst
        return -self.initial_val_loss if self.maximise else self.initial_val_loss

    @cached_property
    def loss(self) -> float:
        """The loss that counts, the lower the better: the smaller of final and initial, or that if diverged.

        Nats per token; of another program its metric, which is negated where larger is better.
        """
        if self.state == "diverged" or self.val_loss is None:
            return self.start
        return min(-self.val_loss if self.maximise else self.val_loss, self.start)

    @property
    def code(self) -> str | None:
        """Hash of the source of a program, or of classes that no installed package holds."""
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
    """Return another program's run with one of the numbers that it reported as what counts.

    Raises:
        UserError: it is done, and reported no such number.
    """
    if row.reported is None or row.state == "diverged":
        return replace(row, maximise=maximise)
    value = row.reported.get(metric)
    if type(value) not in (int, float):
        known = [key for key, one in row.reported.items() if type(one) in (int, float)]
        raise UserError(f"it reported no number {metric!r}{nearest(metric, known)}")
    return replace(row, val_loss=value, maximise=maximise)


def with_worst(rows: Sequence[Row]) -> list[Row]:
    """Return a study's rows; diverged ones of which no start is known count as worse than all the others.

    What a program does not say is not made up: the order is all that is known of such a run.
    """
    known = [row.loss for row in rows if math.isfinite(row.loss)]
    worst = math.nextafter(max(known), math.inf) if known else 0.0
    return [replace(row, worst=worst) if row.initial_val_loss is None else row for row in rows]


def read_row(folder: Path, shared: Callable[[dict[str, Any]], dict[str, Any]] | None = None) -> Row | None:
    """Read one run's folder; None while the run has no result.

    Args:
        folder: the run's.
        shared: gives the config to hold in place of an equal one, so that many runs share its parts.

    Raises:
        UserError: a file is damaged, or the folder is named as one run and holds another.
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
        raise UserError(f"{path}: damaged: it is not of the program that the result is of")
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
    """Read the finished ones among the named runs, in the order of ``ids``."""
    rows = (read_row(runs / run_id) for run_id in ids)
    return [row for row in rows if row is not None]
