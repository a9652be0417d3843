"""Records survive kills and full disks, and read back as they were written."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from optstudy.errors import UserError
from optstudy.record import (
    MetricsWriter,
    read_json,
    read_metrics,
    read_result,
    remove_leftovers,
    write_atomically,
    write_json,
)

KILLED_WRITER = """
import itertools, sys
from pathlib import Path
from optstudy.record import write_json
for i in itertools.count():
    write_json(Path(sys.argv[1]), {"i": i, "padding": list(range(5000))})
"""


def test_a_reader_never_sees_half_a_file(tmp_path):
    path = tmp_path / "result.json"
    for wait in (0.05, 0.11, 0.17):
        writer = subprocess.Popen([sys.executable, "-c", KILLED_WRITER, str(path)])
        while not path.exists():
            time.sleep(0.01)
        deadline = time.monotonic() + wait
        while time.monotonic() < deadline:
            assert len(read_json(path)["padding"]) == 5000
        os.kill(writer.pid, signal.SIGKILL)
        writer.wait()
        assert len(read_json(path)["padding"]) == 5000


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    write_json(path, {"old": True})

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space") as error:
        write_atomically(path, "new")
    assert error.value.filename == str(path)
    assert read_json(path) == {"old": True} and list(tmp_path.iterdir()) == [path]


def test_leftovers_of_killed_writers_are_removed(tmp_path):
    kept = [tmp_path / "a.json", tmp_path / "lock", tmp_path / ".nfs01"]
    for path in kept:
        path.touch()
    kill = "import os, signal; os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
    for name in ("a.json", "b.json"):
        code = (
            f"{kill}from optstudy import record\nrecord.write_atomically(Path({str(tmp_path / name)!r}), '')"
        )
        command = [sys.executable, "-c", f"from pathlib import Path; {code}"]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 5
    remove_leftovers(tmp_path, "a.json")
    assert len(list(tmp_path.iterdir())) == 4
    remove_leftovers(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted(kept)


def test_nan_is_refused(tmp_path):
    with pytest.raises(ValueError):
        write_json(tmp_path / "a.json", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


def test_metrics_read_back_without_a_torn_last_line(tmp_path):
    writer = MetricsWriter(tmp_path)
    rows = [{"step": i, "loss": i / 7} for i in range(3)]
    for row in rows:
        writer.write(row)
    writer.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')
    assert read_metrics(tmp_path) == rows


def test_a_torn_line_in_the_middle_is_not_hidden(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step"\n{"step": 1}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl:1: damaged"):
        read_metrics(tmp_path)


DAMAGE = {
    "empty": b"",
    "half": b'{"id": "0c6ffb1a97e2", "state": "do',
    "a list": b"[1, 2]",
    "zeros": bytes(300),
    "binary": b"\x89PNG\r\n\x1a\n\xff\xfe",
    "a number": b"7",
    "deep": b"[" * 100_000,
    "a long number": b'{"step": ' + b"1" * 5000 + b"}",
    "not finite": b'{"val_loss": NaN}',
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_one_line_that_names_it(tmp_path, damage):
    path = tmp_path / "config.json"
    path.write_bytes(DAMAGE[damage])
    with pytest.raises(UserError) as error:
        read_json(path)
    assert str(error.value).startswith(f"{path}: damaged: ") and "\n" not in str(error.value)
    assert len(str(error.value)) < len(str(path)) + 150


RESULT = {
    **{"id": "0c6ffb1a97e2", "state": "done", "reason": None, "val_loss": 5.0, "train_loss": 5.0},
    **{"initial_val_loss": 8.0, "step": 20, "tokens": 1280, "tokens_per_s": 1e4, "seconds": 0.1},
    **{"step_ms": 5.0, "peak_memory_mb": 300.0, "params": 1000, "state_bytes_per_param": 8.0},
}
DIVERGED = {**RESULT, "state": "diverged", "val_loss": None, "train_loss": None}
WRONG = {
    "nothing in it": {},
    **{f"without {key}": {k: v for k, v in RESULT.items() if k != key} for key in RESULT},
    "a text for a number": {**RESULT, "val_loss": "5.0"},
    "a truth for a number": {**RESULT, "step": True},
    "done without a loss": {**RESULT, "val_loss": None},
    "a number for an id": {**RESULT, "id": 7},
    "a number beyond all": {**RESULT, "tokens": 10**400},
    "a loss before the first step that is none": {**DIVERGED, "initial_val_loss": None},
}


def test_whole_results_are_read(tmp_path):
    for result in (RESULT, DIVERGED):
        write_json(tmp_path / "result.json", result)
        assert read_result(tmp_path) == result


@pytest.mark.parametrize("damage", [*DAMAGE, *WRONG])
def test_a_damaged_result_is_refused_by_name(tmp_path, damage):
    content = json.dumps(WRONG[damage]).encode() if damage in WRONG else DAMAGE[damage]
    (tmp_path / "result.json").write_bytes(content)
    with pytest.raises(UserError, match=f"{tmp_path}/result.json: damaged: "):
        read_result(tmp_path)


def resumed(folder, kept):
    """Write a row as a resumed run does."""
    writer = MetricsWriter(folder, kept)
    writer.write({"step": 2})
    writer.close()
    return (folder / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize("found", [b"", b'{"step": 0', None, b'{"step": 9}\n{"step": 1}\n', bytes(500)])
def test_rows_that_were_lost_since_the_checkpoint_are_written_again_and_said(tmp_path, found, capsys):
    path, kept = tmp_path / "metrics.jsonl", b'{"step": 0}\n{"step": 1}\n'
    if found is not None:
        path.write_bytes(found)
    assert resumed(tmp_path, kept) == kept + b'{"step": 2}\n'
    assert f"{path}: was cut or changed since the checkpoint" in capsys.readouterr().err


def test_rows_after_the_checkpoint_are_dropped_without_a_word(tmp_path, capsys):
    kept = b'{"step": 0}\n{"step": 1}\n'
    (tmp_path / "metrics.jsonl").write_bytes(kept + b'{"step": 2}\n{"st')
    assert resumed(tmp_path, kept) == kept + b'{"step": 2}\n'
    assert capsys.readouterr().err == ""


def test_missing_files_are_none_or_empty(tmp_path):
    assert read_json(tmp_path / "a.json") is None and read_metrics(tmp_path) == []
