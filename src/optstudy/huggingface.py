"""A callback for Hugging Face's ``Trainer``: logs its losses to a trial, and finishes with its last
evaluation.

transformers is only imported when a callback is created.
"""

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optstudy.trials import Trial


def callback(trial: "Trial", metric: str = "eval_loss") -> Any:
    """Return a ``TrainerCallback``: use it as ``Trainer(callbacks=[optstudy.trial().callback()])``.

    Each log of the Trainer becomes a row with ``step``, ``tokens`` if it counts them, ``loss`` and
    ``val_loss``. When training ends, the trial is finished with the metric of the last evaluation. So the
    Trainer must evaluate, for example with ``eval_strategy="steps"``.

    Args:
        trial: the run.
        metric: the number of an evaluation that is the study's metric.
    """
    base: Any = importlib.import_module("transformers").TrainerCallback

    class Callback(base):  # type: ignore[misc]
        """Passes the logs of a Trainer to a trial."""

        def __init__(self) -> None:
            super().__init__()
            self.result: dict[str, Any] = {}

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            """Write a row."""
            row = _row(state, logs or {}, metric)
            if row.keys() & {"loss", "val_loss"} and state.is_world_process_zero:
                trial.log(**row)

        def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **_: Any) -> None:
            """Keep the numbers of the last evaluation."""
            self.result = dict(metrics or {})

        def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            """Finish the trial if there was an evaluation; otherwise the program must do it."""
            if metric in self.result and state.is_world_process_zero:
                told = {"step": state.global_step, trial.metric: self.result[metric]}
                if tokens := getattr(state, "num_input_tokens_seen", 0):
                    told["tokens"] = int(tokens)
                trial.finish(**{**self.result, **told})

    return Callback()


def _row(state: Any, logs: Mapping[str, Any], metric: str) -> dict[str, Any]:
    row = {"step": state.global_step}
    if tokens := getattr(state, "num_input_tokens_seen", 0):
        row["tokens"] = int(tokens)
    for key, name in (("loss", "loss"), (metric, "val_loss"), ("learning_rate", "lr")):
        if key in logs:
            row[name] = logs[key]
    return row
