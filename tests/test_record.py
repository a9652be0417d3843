"""Records survive kills and full disks, and read back as they were written."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from optstudy.record import (
    MetricsWriter,
    read_json,
    read_metrics,
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
    with pytest.raises(json.JSONDecodeError):
        read_metrics(tmp_path)


def test_missing_files_are_none_or_empty(tmp_path):
    assert read_json(tmp_path / "a.json") is None and read_metrics(tmp_path) == []
