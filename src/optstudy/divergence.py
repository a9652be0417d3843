"""When a run has diverged and is stopped. Imports no torch.

The rule: a loss is not finite, or the smoothed training loss stays above twice the first step's for a tenth
of the steps in a row, counted after any freeze and the warm-up. Such runs, when not stopped, ended above the
loss before training, which is the loss that the table counts for a diverged run anyway.
"""

import math

FACTOR = 2.0
"""Limit of the smoothed loss, as a multiple of the first step's."""
SHARE = 0.1
"""How long the loss must stay above the limit, as a share of the steps after the freeze."""
SMOOTHING = 0.01
"""Time constant of the exponential mean, as a share of the same steps."""


class DivergenceRule:
    """Takes the training loss of every step, in order.

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
