"""A callback for Lightning's ``Trainer``: logs its losses to a trial, and finishes with its last validation.

Lightning is only imported when a callback is created.
"""

import importlib
import importlib.util
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optstudy.trials import Trial

PACKAGES = ("lightning.pytorch", "pytorch_lightning")
"""Lightning has two package names; a Trainer and its callbacks must come from the same one."""


def callback(trial: "Trial", metric: str) -> Any:
    """Return a ``Callback``: use it as ``Trainer(callbacks=[optstudy.trial().lightning_callback()])``.

    Every ``log_every_n_steps`` steps become a row with ``step``, ``loss`` and ``lr``; every validation
    becomes one with ``val_loss``. Both have ``tokens`` if the module logs it. When training ends, the trial
    is finished with everything that the module has logged, if this includes the metric; otherwise the program
    must do it.

    Args:
        trial: the run.
        metric: name of the logged number that is the study's metric.
    """
    base: Any = importlib.import_module(_package()).Callback

    class Callback(base):  # type: ignore[misc]
        """Passes the progress of a Trainer to a trial."""

        def __init__(self) -> None:
            super().__init__()
            self._step = 0
            self._losses: list[Any] = []

        def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, *_: Any, **__: Any) -> None:
            """Write a row if one is due."""
            loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
            self._losses += [] if loss is None else [loss]
            step, every = trainer.global_step, max(1, trainer.log_every_n_steps)
            if step == self._step:  # accumulating: it continues with the next batch
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
    """Return the package name by which the program has imported Lightning, else one that is installed."""
    for name in PACKAGES:
        if name in sys.modules:
            return name
    return next((name for name in PACKAGES if importlib.util.find_spec(name.partition(".")[0])), PACKAGES[0])
