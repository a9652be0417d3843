"""The index of finished runs against the folders that it is made from."""

import json
import os
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest

from optstudy.results import catalog, export
from optstudy.results.catalog import Catalog
from optstudy.results.table import read_rows
from tests import sweeps


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of 30 runs, five of which have not ended; an index is worth while from one run on."""
    monkeypatch.setattr(catalog, "WORTHWHILE", 1)
    for k in range(30):
        row = sweeps.row(lr=1e-3 * (1 + k // 3), loss=None if k == 7 else 5.0 + k, seed=k % 3)
        values = asdict(row)
        folder = tmp_path / row.id
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps(values.pop("config"), indent=1))
        if k % 6 != 5:
            (folder / "result.json").write_text(json.dumps(values, indent=1))
    return tmp_path


def names(runs: Path) -> list[str]:
    return sorted(path.name for path in runs.iterdir() if path.is_dir())


def fresh_reads(runs: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many folders are read for the whole table."""
    read = []
    monkeypatch.setattr(catalog, "read_row", lambda folder, shared: read.append(folder))
    Catalog(runs).rows(names(runs))
    return len(read)


def test_the_index_gives_what_the_folders_hold(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    truth = read_rows(runs, names(runs))
    assert len(truth) == 25
    assert Catalog(runs).rows(names(runs)) == truth
    assert (runs / catalog.NAME).exists()
    assert Catalog(runs).rows(names(runs)) == truth == export.every(runs)
    assert fresh_reads(runs, monkeypatch) == 0


def test_few_runs_are_not_worth_an_index(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "WORTHWHILE", 26)
    Catalog(runs).rows(names(runs))
    assert not (runs / catalog.NAME).exists()


@pytest.mark.parametrize("keep_time", [False, True])
def test_a_record_that_changed_is_read_again(runs: Path, keep_time: bool) -> None:
    Catalog(runs).rows(names(runs))
    path = next(iter(sorted(runs.glob("*/result.json"))))
    before = path.stat()
    result = json.loads(path.read_text())
    other = path.with_name("other")
    other.write_text(json.dumps({**result, "val_loss": result["val_loss"] + 1}, indent=1))
    assert other.stat().st_size == before.st_size
    if keep_time:
        os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    other.replace(path)
    assert Catalog(runs).row(path.parent.name) == read_rows(runs, [path.parent.name])[0]


def test_runs_come_and_go(runs: Path) -> None:
    Catalog(runs).rows(names(runs))
    gone, moved, *rest = [path.parent.name for path in sorted(runs.glob("*/result.json"))]
    shutil.rmtree(runs / gone)
    (runs / moved / "result.json").unlink()
    assert Catalog(runs).rows([gone, moved, *rest]) == read_rows(runs, rest)


def test_a_reader_of_some_keeps_what_the_index_has_of_others(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = [path.parent.name for path in sorted(runs.glob("*/result.json"))]
    Catalog(runs).rows(every[:20])
    Catalog(runs).rows(every[15:])
    assert Catalog(runs).rows(every) == read_rows(runs, every)
    assert fresh_reads(runs, monkeypatch) == 0


@pytest.mark.parametrize(
    "damage",
    [
        "",
        "{",
        "[]",
        "null",
        '{"format": 1}',
        '{"format": 99, "results": [], "runs": {}, "parts": []}',
        lambda text: text[: len(text) // 2],
        lambda text: text.replace('"parts":[[', '"parts":[[1,'),
        lambda text: json.dumps({**json.loads(text), "parts": []}),
        lambda text: json.dumps({**json.loads(text), "runs": [1, 2]}),
        lambda text: json.dumps({**json.loads(text), "runs": {k: [1] for k in json.loads(text)["runs"]}}),
    ],
)
def test_a_damaged_index_is_made_again(runs: Path, damage: object) -> None:
    truth = Catalog(runs).rows(names(runs))
    path = runs / catalog.NAME
    path.write_text(damage(path.read_text()) if callable(damage) else str(damage))
    assert Catalog(runs).rows(names(runs)) == truth
    assert len(json.loads(path.read_text())["runs"]) == len(truth)
