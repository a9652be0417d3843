"""The real command line as a subprocess: what it prints, how it ends, what it leaves behind."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from optstudy.launch import attempts
from tests.configs import folder_of, tiny_on

OPTSTUDY = Path(sys.executable).with_name("optstudy")
TINY = {
    "training.steps": 30,
    "training.batch_size": 4,
    "data.sequence_length": 16,
    "model.d_model": 8,
    "model.n_layers": 1,
    "validation.sequences": 8,
    "validation.points": 2,
}
STUDY = """\
title: Tiny
asks: Does it run?
axes:
  optimizer.name: [adam, sgdw]
  optimizer.lr: [1e-3, 1e-2, 1e-1]
"""


def optstudy(*arguments, **options):
    return subprocess.run(
        [OPTSTUDY, *map(str, arguments)], capture_output=True, text=True, timeout=240, check=False, **options
    )


def settings(corpus, **changes):
    return [f"--set={key}={value}" for key, value in {"data.corpus": corpus, **TINY, **changes}.items()]


@pytest.fixture
def study_file(tmp_path):
    file = tmp_path / "tiny.yaml"
    file.write_text(STUDY)
    return file


def losses(runs):
    results = (json.loads(path.read_text()) for path in sorted(Path(runs).glob("*/result.json")))
    return {result["id"]: (result["val_loss"], result["weights_sha256"]) for result in results}


def test_help_and_lists_import_no_torch():
    code = (
        "import sys; from optstudy.cli import run; code = run(sys.argv[1:]); "
        "assert 'torch' not in sys.modules, 'torch was imported'; sys.exit(code)"
    )
    for arguments in (
        ["--help"],
        ["run", "--help"],
        ["studies"],
        ["optimizers"],
        ["show", "demo"],
        ["status", "demo"],
    ):
        ended = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stderr
    assert "demo" in optstudy("studies").stdout


def test_optimizers_are_listed_with_their_second_moments_and_state():
    listed = {one["name"]: one for one in json.loads(optstudy("optimizers", "--json").stdout)}
    assert {"adam", "adafactor", "adalayer_star", "hybrid_last_norm", "lion", "sophia"} <= listed.keys()
    assert listed["adam"]["state_bytes_per_param"] == pytest.approx(8, abs=1e-3)
    assert listed["hybrid_last_norm"]["second_moment"]["head"] == "row"
    assert "hybrid_last_norm" in optstudy("optimizers").stdout


def test_a_study_runs_to_a_report_and_is_never_run_twice(corpus_slice, study_file, tmp_path):
    runs, out = tmp_path / "runs", tmp_path / "out"
    command = ["run", study_file, "--runs", runs, "--out", out, *settings(corpus_slice)]
    first = optstudy(*command)
    assert first.returncode == 0, first.stderr
    assert "[6/6]" in first.stdout and "0 done before" in first.stdout
    page, png, svg = (out / "tiny" / "pico" / name for name in ("index.html", "figure.png", "figure.svg"))
    assert "<html" in page.read_text()
    assert png.read_bytes()[:4] == b"\x89PNG" and "<svg" in svg.read_text()
    assert str(page) in first.stdout
    stamps = {path: path.stat().st_mtime_ns for path in runs.glob("*/*")}
    again = optstudy(*command)
    assert "6 done before, 0 to do" in again.stdout
    assert {path: path.stat().st_mtime_ns for path in runs.glob("*/*")} == stamps
    listed = json.loads(
        optstudy("show", study_file, "--json", "--runs", runs, *settings(corpus_slice)).stdout
    )
    assert {run["id"] for run in listed["runs"]} == losses(runs).keys()
    assert {run["state"] for run in listed["runs"]} <= {"done", "diverged"}
    status = optstudy("status", study_file, "--runs", runs, *settings(corpus_slice))
    assert "6 runs: 6 done" in status.stdout


def test_killed_in_mid_study_and_started_again_the_table_is_that_of_an_undisturbed_one(
    corpus_slice, study_file, tmp_path
):
    slower = settings(corpus_slice, **{"training.steps": 200})
    options = ["--jobs", 1, "--out", tmp_path / "out", *slower]
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    assert optstudy("run", study_file, "--runs", undisturbed, *options).returncode == 0
    launcher = subprocess.Popen(
        [OPTSTUDY, "run", study_file, "--runs", killed, *map(str, options)],
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    while len(losses(killed)) < 2:
        assert launcher.poll() is None
        time.sleep(0.01)
    os.kill(launcher.pid, signal.SIGKILL)
    launcher.wait()
    kept = {path: path.stat().st_mtime_ns for path in killed.glob("*/result.json")}
    assert 0 < len(kept) < 6
    ended = optstudy("run", study_file, "--runs", killed, *options)
    assert ended.returncode == 0, ended.stderr
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert losses(killed) == losses(undisturbed) and len(losses(killed)) == 6


def test_a_study_s_workers_are_single_whatever_the_platform_sets(
    corpus_slice, study_file, tmp_path, monkeypatch
):
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    one = settings(corpus_slice, **{"optimizer.name": "adam", "optimizer.lr": 1e-2})
    said = optstudy("run", study_file, "--runs", tmp_path / "runs", "--out", tmp_path / "out", *one)
    assert said.returncode == 0 and len(losses(tmp_path / "runs")) == 1, said.stderr


def test_ctrl_c_stops_at_once_and_says_how_to_go_on(corpus_slice, study_file, tmp_path):
    slow = settings(corpus_slice, **{"training.steps": 1_000_000})
    runs = tmp_path / "runs"
    launcher = subprocess.Popen(
        [OPTSTUDY, "run", study_file, "--runs", runs, *slow], stderr=subprocess.PIPE, text=True
    )
    while not list(runs.glob("*/metrics.jsonl")):
        assert launcher.poll() is None
        time.sleep(0.05)
    launcher.send_signal(signal.SIGINT)
    _, said = launcher.communicate(timeout=60)
    assert launcher.returncode == 75 and "the same command continues" in said and "Traceback" not in said
    assert not losses(runs)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["run", "demo", "--set", "optimizr.lr=1"], "'optimizr.lr'; did you mean 'optimizer'?"),
        (["run", "demo", "--set", "optimizer.lr=-1"], "optimizer.lr: input should be greater than 0"),
        (["run", "demo", "--set", "optimizer.lr=.nan"], "optimizer.lr: input should be a finite number"),
        (["run", "demo", "--set", "optimizer.lr=nan"], "optimizer.lr: input should be a valid number"),
        (["run", "demo", "--set", "data.corpus=path:/no/such/file"], "/no/such/file"),
        (["run", "demo", "--set", "data.corpus=enwik"], "did you mean 'enwik8'?"),
        (["run", "demo", "--scale", "picco"], "unknown scale 'picco'; did you mean 'pico'?"),
        (["run", "dmo"], "unknown study 'dmo'; did you mean 'demo'?"),
        (["run", "nowhere.yaml"], "nowhere.yaml"),
        (["run", "demo", "--jobs", "0"], "--jobs: input should be at least 1, not 0"),
        (["run", "demo", "--job", "1"], "--job"),
        (["run", "demo", "--slurm", "partitio=gpu"], "'partitio'; did you mean 'partition'?"),
        (["run", "demo", "--launcher", "slrm", "--dry-run"], "did you mean 'slurm'?"),
        (["runn", "demo"], "run"),
        (["train", "nowhere.yaml"], "nowhere.yaml"),
        (["report", "demo", "--runs", "empty"], "no run has ended in empty"),
    ],
)
def test_the_users_mistakes_are_one_clear_line_and_code_2(arguments, named, tmp_path):
    ended = optstudy(*arguments, cwd=tmp_path)
    assert ended.returncode == 2, ended.stdout + ended.stderr
    assert named in ended.stderr + ended.stdout and "Traceback" not in ended.stderr
    assert not list(tmp_path.iterdir())


def test_an_unreadable_corpus_is_named(tmp_path):
    latin = tmp_path / "latin.txt"
    latin.write_bytes("caf\xe9".encode("latin-1") * 1000)
    ended = optstudy("run", "demo", "--set", f"data.corpus=path:{latin}", "--runs", tmp_path / "runs")
    assert ended.returncode == 2 and str(latin) in ended.stderr and "Traceback" not in ended.stderr
    assert not (tmp_path / "runs").exists()


def test_a_full_disk_ends_in_one_line_and_leaves_nothing_that_a_later_run_would_trust(
    corpus_slice, study_file, tmp_path
):
    """A limit on the size of files stands for a full disk: metrics.jsonl meets it, in mid-run."""
    runs = tmp_path / "runs"
    command = ["run", study_file, "--runs", runs, "--out", tmp_path / "out", *settings(corpus_slice)]
    tight = optstudy(*command, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)))
    assert tight.returncode == 2, tight.stdout + tight.stderr
    assert "metrics.jsonl: File too large" in tight.stderr and "Traceback" not in tight.stderr
    assert not losses(runs)
    assert optstudy(*command).returncode == 0 and len(losses(runs)) == 6


def test_one_run_is_trained_from_a_config_file_and_reported_when_asked_again(corpus_slice, tmp_path):
    config = tmp_path / "run.yaml"
    tiny = "".join(f"{key}: {value}\n" for key, value in {"data.corpus": corpus_slice, **TINY}.items())
    config.write_text(f"scale: pico\noptimizer: {{name: adam, lr: 1e-2}}\n{tiny}")
    first = optstudy("train", config, "--runs", tmp_path / "runs")
    assert first.returncode == 0 and "done at step 30: validation loss" in first.stdout, first.stderr
    (folder,) = (tmp_path / "runs").iterdir()
    again = optstudy("train", folder)
    assert again.returncode == 0 and again.stdout == first.stdout
    assert json.loads((folder / "config.json").read_text())["optimizer"]["lr"] == 1e-2


def test_a_diverged_run_ends_with_code_3(corpus_slice, tmp_path):
    config = tmp_path / "run.yaml"
    wild = {"training.clip_norm": "null", "model.qk_norm": "false"}
    tiny = "".join(f"{k}: {v}\n" for k, v in {"data.corpus": corpus_slice, **TINY, **wild}.items())
    config.write_text(f"scale: pico\noptimizer: {{name: sgdw, lr: 1e+30}}\n{tiny}")
    ended = optstudy("train", config, "--runs", tmp_path / "runs")
    assert ended.returncode == 3 and "diverged at step" in ended.stdout, ended.stderr


def test_a_worker_finds_everything_imported_that_a_run_needs(corpus_slice, tmp_path):
    """Imports in every worker would cost more than a small run itself."""
    folder = folder_of(tiny_on(corpus_slice), tmp_path)
    code = (
        "import importlib, sys; from optstudy.cli import run\n"
        "from optstudy.commands.launching import PRELOADED\n"
        "for name in PRELOADED: importlib.import_module(name)\n"
        "before = set(sys.modules); code = run(['train', sys.argv[1], '--device', 'cpu'])\n"
        "late = {name for name in sys.modules.keys() - before if name.startswith(('torch', 'optstudy'))}\n"
        "assert len(late) < 10, sorted(late)[:20]; sys.exit(code)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, folder], capture_output=True, text=True, timeout=240, check=False
    )
    assert ended.returncode == 0, ended.stderr


def test_status_names_the_runs_that_failed_and_why(study_file, tmp_path):
    runs = tmp_path / "runs"
    listed = json.loads(optstudy("show", study_file, "--json").stdout)["runs"]
    folder = runs / listed[0]["id"]
    folder.mkdir(parents=True)
    for _ in range(2):
        attempts.failed(folder, "RuntimeError: bug")
    said = optstudy("status", study_file, "--runs", runs).stdout
    assert "6 runs: 1 failed, 5 waiting" in said
    assert f"failed: adam lr 0.001 seed 0 (failed 2 times: RuntimeError: bug); see {folder}/log.txt" in said
    read = json.loads(optstudy("status", study_file, "--runs", runs, "--json").stdout)
    assert read["runs"] == {"failed": 1, "waiting": 5}
    assert read["failed"] == [{"id": folder.name, "why": "failed 2 times: RuntimeError: bug"}]


def test_an_optimizer_is_found_beside_the_study_and_asked_for_before_anything_runs(tmp_path, corpus_slice):
    own = ("run", "demo", *settings(corpus_slice, **{"optimizer.name": "mine.Own", "optimizer.lr": 1e-2}))
    missing = optstudy(*own, cwd=tmp_path)
    assert missing.returncode == 2 and "there is no module 'mine'" in missing.stderr
    assert not (tmp_path / "runs").exists()
    (tmp_path / "mine.py").write_text("import torch\n\n\nclass Own(torch.optim.SGD):\n    pass\n")
    assert optstudy(*own, cwd=tmp_path).returncode == 0
    assert list(tmp_path.glob("runs/*/result.json"))
