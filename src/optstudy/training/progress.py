"""The progress of a run: what it records during training, and the rule by which it has diverged."""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from optstudy.config import RunConfig
from optstudy.errors import UserError, shown

FACTOR = 2.0
"""Limit of the smoothed loss, as a multiple of the first step's loss."""
SHARE = 0.1
"""How long the loss must stay above the limit, as a share of the steps after the freeze."""
SMOOTHING = 0.01
"""Time constant of the exponential mean, as a share of the same steps."""


class DivergenceRule:
    """Decides whether a run has diverged, from the training losses of all steps in order.

    Args:
        steps: optimizer steps after any freeze.
        freeze_steps: steps before them that estimate second moments.
        warmup: share of ``steps`` spent warming up.
    """

    def __init__(self, steps: int, freeze_steps: int = 0, warmup: float = 0.0) -> None:
        self.patience = max(1, math.ceil(SHARE * steps))
        self._counted_from = freeze_steps + round(warmup * steps)
        self._keep = 1 - 1 / max(1.0, SMOOTHING * steps)
        self._steps = 0
        self._above = 0
        self._start = self._smoothed = math.nan

    def update(self, loss: float) -> str | None:
        """Add the next step's loss; return why the run has diverged, or None."""
        step = self._steps
        self._steps += 1
        if not math.isfinite(loss):
            return f"loss was {loss} at step {step}"
        if step == 0:
            self._start = self._smoothed = loss
        self._smoothed = self._keep * self._smoothed + (1 - self._keep) * loss
        high = self._smoothed > FACTOR * self._start
        self._above = self._above + 1 if high and step >= self._counted_from else 0
        if self._above < self.patience:
            return None
        return f"loss stayed above {FACTOR:g} times its start ({self._start:.3f}) up to step {step}"


Progress = Callable[[dict[str, Any]], None]
Probe = Callable[[], dict[str, Any]]
"""Returns values to add to a training row."""
LOGGED_ROWS = 100
"""Number of training rows that a run writes."""


@dataclass
class Diverged(Exception):
    """The run has diverged by the rule of :mod:`optstudy.training.progress`."""

    step: int
    reason: str


class TrainingLog:
    """Collects the numbers of each step and writes their means in rows; reads the device once per row."""

    def __init__(self, config: RunConfig, emit: Progress, probe: Probe = dict) -> None:
        self.emit = emit
        self.probe = probe
        self.steps = 0
        self.validated = -1
        """Step at whose start the validation loss was last taken."""
        self.initial_val_loss = float("nan")
        self._every = max(1, config.total_steps // LOGGED_ROWS)
        self._tokens_per_step = config.training.batch_size * config.data.sequence_length
        self._total = config.total_steps
        self._rule = DivergenceRule(
            config.training.steps, config.schedule.freeze_steps, config.schedule.warmup
        )
        self._pending: list[tuple[Tensor, Tensor, float]] = []
        self._losses: list[float] = []
        self._seconds_per_step: list[float] = []
        self._earlier_seconds = 0.0
        self._started = self._mark = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds of training and validation so far, over all attempts."""
        return self._earlier_seconds + time.perf_counter() - self._started

    def state_dict(self) -> dict[str, Any]:
        """Return the state from which a resumed run continues as if it had never stopped."""
        return {
            "steps": self.steps,
            "validated": self.validated,
            "initial_val_loss": self.initial_val_loss,
            "pending": list(self._pending),
            "losses": list(self._losses),
            "seconds_per_step": list(self._seconds_per_step),
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what :meth:`state_dict` returned.

        Raises:
            ValueError: a run of this length cannot have this state.
        """
        steps, numbers = state["steps"], [*state["losses"], *state["seconds_per_step"], state["seconds"]]
        known = len(state["losses"]) + len(state["pending"])
        if not 0 < steps <= self._total or known != steps or not all(map(_is_finite, numbers)):
            raise ValueError(f"of {self._total} steps it has {shown(steps)}, with {known} losses")
        if not math.isfinite(state["initial_val_loss"]):
            raise ValueError("it has no validation loss before the first step")
        self.steps = steps
        self.validated = state["validated"]
        self.initial_val_loss = state["initial_val_loss"]
        self._pending = list(state["pending"])
        self._losses = list(state["losses"])
        self._seconds_per_step = list(state["seconds_per_step"])
        self._earlier_seconds = state["seconds"]
        for loss in self._losses:
            self._rule.update(loss)

    @property
    def row_due(self) -> bool:
        """Whether the next step ends a row."""
        return len(self._pending) + 1 == self._every

    def training(self, step: int, loss: Tensor, norm: Tensor, lr: float) -> None:
        """Record one step; write a row when enough steps are pending."""
        self._pending.append((loss, norm, lr))
        self.steps = step + 1
        if len(self._pending) == self._every:
            self.flush()

    def flush(self) -> None:
        """Write the pending steps as one row.

        Raises:
            Diverged: the run had diverged at one of them.
        """
        if not self._pending:
            return
        losses = torch.stack([loss for loss, _, _ in self._pending]).tolist()
        norms = torch.stack([norm for _, norm, _ in self._pending]).tolist()
        first = self.steps - len(losses)
        for step, (loss, norm) in enumerate(zip(losses, norms, strict=True), first):
            reason = self._rule.update(loss)
            if reason is None and not math.isfinite(norm):
                reason = f"gradient norm was {norm} at step {step}"
            if reason is not None:
                raise Diverged(step, reason)
        now = time.perf_counter()
        self._seconds_per_step.append((now - self._mark) / len(losses))
        self._losses += losses
        self.emit(
            {
                "step": self.steps,
                "tokens": self.steps * self._tokens_per_step,
                "loss": statistics.fmean(losses),
                "lr": self._pending[-1][2],
                "grad_norm": statistics.fmean(norms),
                "seconds": self.seconds,
                **self.probe(),
            }
        )
        self._pending.clear()
        self._mark = time.perf_counter()

    def validation(self, step: int, loss: float, deciles: Sequence[float | None] = ()) -> None:
        """Write a validation loss, and those by decile of the target's frequency where there are any.

        Raises:
            Diverged: it is not finite.
            UserError: it is not finite before the first step, so there is nothing to compare with.
        """
        self.flush()
        self.validated = step
        if step == 0 and not math.isfinite(loss):
            raise UserError(
                f"the validation loss of the initial weights is {loss}: the model's forward, or the "
                "optimizer's eval(), makes numbers that are not finite"
            )
        if not math.isfinite(loss):
            raise Diverged(step, f"validation loss was {loss} at step {step}")
        if step == 0:
            self.initial_val_loss = loss
        self.emit(
            {
                "step": step,
                "tokens": step * self._tokens_per_step,
                "val_loss": loss,
                **({"deciles": list(deciles)} if deciles else {}),
                "seconds": self.seconds,
            }
        )
        self._mark = time.perf_counter()

    def final_train_loss(self) -> float:
        """Return the mean training loss over the last tenth of the steps."""
        return statistics.fmean(self._losses[-max(1, self._total // 10) :])

    def step_ms(self) -> float:
        """Return the median over rows of milliseconds per step, validation excluded."""
        return 1e3 * statistics.median(self._seconds_per_step or [0.0])


def _is_finite(value: Any) -> bool:
    return type(value) is float and math.isfinite(value)
