"""A callback for Lightning's ``Trainer``: its losses are a trial's rows, its last validation the result.

Nothing of Lightning is imported before a callback is asked for.
"""

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optstudy.trials import Trial

PACKAGES = ("lightning.pytorch", "pytorch_lightning")
"""Lightning goes by two names; a Trainer and its callbacks are of one of them."""


def callback(trial: "Trial", metric: str) -> Any:
    """Return a ``Callback``: ``Trainer(callbacks=[optstudy.trial().lightning_callback()])``.

    Every ``log_every_n_steps`` steps become a row with ``step``, ``loss`` and ``lr``, every validation one
    with ``val_loss``; both have ``tokens`` where the module logs it. When training ends, the trial is
    finished with all that the module has logged, if the metric is among it; without, the program must do it.

    Args:
        trial: the run.
        metric: which number that the module logs is the study's metric.
    """
    base: Any = importlib.import_module(_package()).Callback

    class Callback(base):  # type: ignore[misc]
        """Tells a trial what a Trainer does."""

        def __init__(self) -> None:
            super().__init__()
            self._step = 0
            self._losses: list[Any] = []

        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *_: Any, **__: Any) -> None:
            """Write a row, if it is time."""
            loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
            self._losses += [] if loss is None else [loss]
            step, every = trainer.global_step, max(1, trainer.log_every_n_steps)
            if step == self._step:  # it goes on with the next batch
                return
            if step // every > self._step // every and trainer.is_global_zero:
                told = {"loss": float(sum(self._losses))} if self._losses else {}  # each a share of the mean
                rates = [group["lr"] for group in trainer.optimizers[0].param_groups]
                trial.log(step=step, **_tokens(trainer), **told, lr=float(max(rates)))
            self._step, self._losses = step, []

        def on_validation_end(self, trainer: Any, module: Any) -> None:
            """Write a row."""
            found = trainer.callback_metrics.get(metric)
            if found is not None and trainer.is_global_zero and not trainer.sanity_checking:
                trial.log(step=trainer.global_step, **_tokens(trainer), val_loss=float(found))

        def on_train_end(self, trainer: Any, module: Any) -> None:
            """Finish the trial."""
            logged = {name: float(value) for name, value in trainer.callback_metrics.items()}
            if metric in logged and trainer.is_global_zero:
                own = {"step": trainer.global_step, **_tokens(trainer), trial.metric: logged[metric]}
                trial.finish(**{**logged, **own})

    return Callback()


def _tokens(trainer: Any) -> dict[str, int]:
    found = trainer.callback_metrics.get("tokens")
    return {} if found is None else {"tokens": int(found)}


def _package() -> str:
    """Return the name that the program has imported Lightning by, or else one that is installed."""
    for name in PACKAGES:
        if name in sys.modules:
            return name
    return next((name for name in PACKAGES if importlib.util.find_spec(name.partition(".")[0])), PACKAGES[0])
