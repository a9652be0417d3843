"""The study table: one row per finished run, diverged ones included. Imports no torch."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from optstudy.errors import UserError
from optstudy.record import ID, read_json, read_result


@dataclass(frozen=True)
class Row:
    """One finished run."""

    id: str
    """The hash of the config, twelve hexadecimal digits."""
    state: str
    """``done`` or ``diverged``."""
    reason: str | None
    """Why it diverged."""
    config: dict[str, Any]
    """The run's whole config."""
    val_loss: float | None
    """Final cross-entropy on the validation split, nats per token; None where it is not finite."""
    initial_val_loss: float
    """The same before the first step, nats per token."""
    train_loss: float | None
    """Mean over the last tenth of the steps, nats per token, z-loss included; None where it diverged."""
    step: int
    """Steps taken; where it diverged, the step at which it certainly had."""
    tokens: int
    """Tokens read in these steps."""
    tokens_per_s: float
    """``tokens`` over ``seconds``."""
    seconds: float
    """Seconds of training and validation, over all attempts."""
    step_ms: float
    """Median milliseconds per step, validation left out."""
    peak_memory_mb: float
    """Peak memory of the process, or of the GPU where it ran on one, in MiB (2^20 bytes)."""
    params: int
    """Number of weights."""
    state_bytes_per_param: float
    """Bytes of optimizer state per parameter."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of torch and of the packages that its optimizer comes from; empty where they were not recorded."""

    @property
    def optimizer(self) -> str:
        """The optimizer's name."""
        return str(self.config["optimizer"]["name"])

    @property
    def lr(self) -> float:
        """Peak learning rate, in the optimizer's own unit."""
        return float(self.config["optimizer"]["lr"])

    @property
    def seed(self) -> int:
        """The run's seed."""
        return int(self.config["seed"])

    @cached_property
    def loss(self) -> float:
        """The loss that counts, nats per token: the smaller of final and initial, the latter if diverged."""
        if self.state == "diverged" or self.val_loss is None:
            return self.initial_val_loss
        return min(self.val_loss, self.initial_val_loss)

    @property
    def code(self) -> str | None:
        """Hash of the source of an optimizer that no installed package holds."""
        found: str | None = self.config["optimizer"].get("code")
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


RESULTS = tuple(f.name for f in fields(Row) if f.name not in ("config", "versions"))
"""Fields that every ``result.json`` has."""


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
    results = {name: result[name] for name in RESULTS}
    versions = result.get("versions", {})
    row = Row(config=config if shared is None else shared(config), versions=versions, **results)
    try:
        row.optimizer, row.lr, row.seed  # noqa: B018
    except (KeyError, TypeError, ValueError):
        raise UserError(f"{path}: damaged: it lacks the optimizer's name, its lr or the seed") from None
    return row


def read_rows(runs: Path, ids: Iterable[str]) -> list[Row]:
    """Read the finished ones among the named runs, in the order of ``ids``."""
    rows = (read_row(runs / run_id) for run_id in ids)
    return [row for row in rows if row is not None]
