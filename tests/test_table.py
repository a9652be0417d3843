"""One row per finished run; the loss that counts is min(loss, loss before training)."""

import pytest

from optstudy.record import write_json
from optstudy.results.table import read_row, read_rows
from tests.configs import tiny

RESULT = {
    "state": "done",
    "reason": None,
    "step": 20,
    "val_loss": 5.0,
    "initial_val_loss": 7.6,
    "train_loss": 5.1,
    "tokens": 1280,
    "tokens_per_s": 1e4,
    "seconds": 0.1,
    "step_ms": 5.0,
    "peak_memory_mb": 300.0,
    "params": 1000,
    "state_bytes_per_param": 8.0,
    "format": 1,
}


def finished(runs, **changes):
    config = tiny()
    folder = runs / config.id
    folder.mkdir()
    write_json(folder / "config.json", config.model_dump(mode="json"))
    write_json(folder / "result.json", {"id": config.id, **RESULT, **changes})
    return folder


def test_a_row_is_the_result_with_its_config(tmp_path):
    row = read_row(finished(tmp_path))
    assert (row.optimizer, row.lr, row.seed, row.loss) == ("adam", 1e-2, 0, 5.0)
    assert row.value("optimizer.options.betas") == [0.9, 0.95]
    with pytest.raises(KeyError):
        row.value("optimizer.momentum")


@pytest.mark.parametrize(
    ("changes", "loss"),
    [
        ({"state": "diverged", "val_loss": None, "reason": "loss was nan at step 3"}, 7.6),
        ({"val_loss": 9.0}, 7.6),
        ({"val_loss": 7.5}, 7.5),
    ],
)
def test_a_diverged_run_counts_as_the_loss_before_training(tmp_path, changes, loss):
    assert read_row(finished(tmp_path, **changes)).loss == loss


def test_unfinished_runs_are_no_rows(tmp_path):
    folder = finished(tmp_path)
    assert [row.id for row in read_rows(tmp_path, ["absent", folder.name])] == [folder.name]
    (folder / "result.json").unlink()
    assert read_rows(tmp_path, [folder.name]) == []
