"""The tutorials and the contributors' guides, carried out: their files written, their commands run."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from optstudy.results.archive import Entry
from tests import pages
from tests.configs import folder_of, tiny_on
from tests.pages import ROOT
from tests.test_cli import OPTSTUDY, TINY

SMALL = {**TINY, "training.steps": 12, "optimizer.lr": 1e-2}
"""Settings under which a command of a page takes seconds: one learning rate, a few steps."""


def small(line: str, corpus: str, settings: Mapping[str, Any] = SMALL) -> list[str]:
    """A command line of a page as it is run here: on the slice of the corpus, at a tiny size."""
    words = shlex.split(line)
    assert words[0] == "optstudy"
    if words[1] in ("run", "show", "status", "report", "claims"):
        words += [f"--set={key}={value}" for key, value in {"data.corpus": corpus, **settings}.items()]
    return [str(OPTSTUDY), *words[1:]]


def carry_out(
    page: str, folder: Path, corpus: str, source: Path, settings: Mapping[str, Any] = SMALL
) -> list[str]:
    """Write a page's files, run its commands in order; return what they printed."""
    for block in pages.all_blocks():
        if block.page == page and block.name and not block.name.startswith(("src/", "tests/")):
            (folder / block.name).write_text(block.text)
    environment = {**os.environ, "PYTHONPATH": str(source)}
    printed = []
    for block in pages.of(page, "sh"):
        for line in pages.commands(block):
            command, _, redirected = line.partition(" > ")
            ended = subprocess.run(
                small(command, corpus, settings), cwd=folder, env=environment, capture_output=True, text=True,
                timeout=240, check=False,
            )  # fmt: skip
            assert ended.returncode == 0, f"{line}\n{ended.stderr}"
            if redirected:
                (folder / redirected).write_text(ended.stdout)
            printed.append(ended.stdout)
    return printed


def test_your_own_optimizer_beside_adam_as_the_tutorial_says(corpus_slice, tmp_path):
    page = "docs/tutorials/own-optimizer.md"
    shown, *_, last = carry_out(page, tmp_path, corpus_slice, ROOT / "src")
    assert "2 runs" in shown
    report = tmp_path / "report" / "mine" / "pico" / "index.html"
    assert "Tiger" in report.read_text() and "Tiger" in last
    configs = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/config.json")]
    assert len(configs) == 6 and {one["seed"] for one in configs} == {0, 1, 2}
    assert {one["optimizer"]["name"] for one in configs} == {"adam", "mine.Tiger"}


@pytest.mark.long
def test_your_own_model_and_one_of_hugging_face_as_the_tutorial_says(corpus_slice, tmp_path):
    page = "docs/tutorials/own-model.md"
    any_model = {key: one for key, one in SMALL.items() if not key.startswith("model.")}
    counted, mine, qwen = carry_out(page, tmp_path, corpus_slice, ROOT / "src", any_model)
    assert "mygpt.MyGPT: 366," in counted and "2 runs, 2 to do" in counted
    assert "SGD" in mine and "Adalayer" in qwen
    for name, said in (("gpt", "SGD"), ("qwen", "Adalayer")):
        assert said in (tmp_path / "report" / name / "pico" / "index.html").read_text()
    configs = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/config.json")]
    assert len(configs) == 4 and sum(one["model"]["code"] is None for one in configs) == 2


def test_a_study_in_three_steps(corpus_slice, tmp_path):
    shown, ran, judged, schema = carry_out("docs/add-a-study.md", tmp_path, corpus_slice, ROOT / "src")
    assert "axes" in json.loads(schema)["properties"]
    assert "3 runs" in shown
    assert len(list(tmp_path.glob("runs/*/result.json"))) == 3
    assert "not decided: A warm-up of 30 % makes Adam" in ran and "1 claim at pico: 1 not decided" in judged
    assert (tmp_path / "report" / "warmup" / "pico" / "index.html").exists()


def test_an_optimizer_in_four_steps(corpus_slice, tmp_path):
    page = "docs/add-an-optimizer.md"
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "record"))
    (tmp_path / "tests").mkdir()
    for block in pages.of(page, "python"):
        before = (tmp_path / block.name).read_text() if block.is_added else ""
        (tmp_path / block.name).write_text(before + block.text.partition("\n")[2])
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src")}
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests"]
    subprocess.run(tests, cwd=tmp_path, env=environment, check=True, capture_output=True)
    listed, _ = carry_out(page, tmp_path, corpus_slice, tmp_path / "src")
    (line,) = [line for line in listed.splitlines() if line.startswith("adamax")]
    assert "8.00" in line
    (config,) = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/config.json")]
    assert config["optimizer"]["name"] == "adamax" and config["optimizer"]["options"]["betas"] == [0.9, 0.999]


def test_an_optimizer_of_the_field_by_one_entry(corpus_slice, tmp_path):
    page = "docs/field.md"
    shutil.copytree(ROOT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    (block,) = pages.of(page, "yaml")
    path = tmp_path / block.name
    path.write_text(path.read_text() + block.text.partition("\n")[2])
    first, ran, _, listed, shown, mine = carry_out(page, tmp_path, corpus_slice, tmp_path / "src")
    assert any(line.startswith("radam") for line in first.splitlines()) and "muon" in ran
    (entry,) = [one for one in json.loads(listed) if one["name"] == "radam"]
    assert entry["installed"] and entry["lr"]["from"] == 1e-3 and "radam" in shown and "radam" in mine
    configs = [json.loads(path.read_text()) for path in tmp_path.glob("runs/*/config.json")]
    named = {one["optimizer"]["name"]: one["optimizer"] for one in configs}
    assert (
        named["radam"]["options"]["decoupled_weight_decay"]
        and named["muon"]["roles"]["head"]["name"] == "adam"
    )


def test_the_record_has_the_keys_that_its_page_names(corpus_slice, tmp_path):
    from optstudy.training.train import train

    config = tiny_on(corpus_slice)
    folder = folder_of(config, tmp_path)
    result = train(folder)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    real = {
        "env": set(json.loads((folder / "env.json").read_text())),
        "result": set(json.loads((folder / "result.json").read_text())),
        "training": set().union(*(row for row in rows if "loss" in row)),
        "validation": set().union(*(row for row in rows if "val_loss" in row)),
    }
    assert result["state"] == "done"
    content = (ROOT / "docs" / "record.md").read_text()
    for name, table in re.findall(r"<!-- keys: (\w+) -->\n(.*?)<!-- end -->", content, re.DOTALL):
        first = [line.split("|")[1] for line in table.splitlines()[2:]]
        assert set(re.findall(r"`(\w+)`", "".join(first))) == real.pop(name), name
    assert not real
    assert set(Entry.__dataclass_fields__) == {"row", "machine", "metrics"}


@pytest.mark.parametrize("page", ["docs/tutorials/slurm.md"])
def test_the_batch_script_of_the_slurm_tutorial_is_printed_without_slurm(page, tmp_path):
    (first, *_) = [line for block in pages.of(page, "sh") for line in pages.commands(block)]
    changed = first.replace("--scale 150m", "--scale pico --fresh")
    ended = subprocess.run(
        [str(OPTSTUDY), *shlex.split(changed)[1:]], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    for line in ("--partition=gpu", "--gres=gpu:1", "--time=24:00:00", "optstudy train"):
        assert line in ended.stdout
