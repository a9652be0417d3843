"""Any training program as the trainer of a study: the real command line, with programs of a few lines."""

import json
import math
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import optstudy
from optstudy.errors import UserError
from optstudy.program import MetricSpec
from optstudy.record import read_metrics, read_result
from optstudy.results.table import read_row
from optstudy.training.external import Output
from optstudy.trials import Trial
from tests import pages

PROGRAM = """
    import json, os, pathlib, subprocess, sys, time
    how, out = sys.argv[1], pathlib.Path(sys.argv[2])

    def finish(**result):
        (out / "result.json").write_text(json.dumps(result))

    print("here is", how, flush=True)
    if how == "fine":
        finish(val_loss=1.5, tokens=100, note="kept")
    elif how == "crash":
        raise ValueError("boom")
    elif how == "hang":
        time.sleep(1000)
    elif how == "word":
        finish(val_loss="low")
    elif how == "other":
        finish(loss=1.0)
    elif how == "nan":
        finish(val_loss=float("nan"))
    elif how == "three":
        print("it blew up")
        sys.exit(3)
    elif how == "stopped":  # as a scheduler stops all processes of a job
        if not (out / "begun").exists():
            (out / "begun").touch()
            os.kill(os.getpid(), 15)
        finish(val_loss=5.5)
    elif how == "half":
        (out / "result.json").write_text('{"val_')
    elif how == "list":
        (out / "result.json").write_text("[1]")
    elif how == "again":
        if not (out / "begun").exists():
            (out / "begun").touch()
            sys.exit(75)
        finish(val_loss=2.5)
    elif how == "endless":
        while True:
            print("x" * 1000)
    elif how == "child":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
        (out / "child").write_text(str(child.pid))
        finish(val_loss=3.5)
    elif how == "killed":
        os.kill(os.getpid(), 9)
    elif how == "line":
        print(json.dumps({"val_loss": 4.5}))
        print("good bye", file=sys.stderr)
"""
HEAD = "title: Mine\nasks: Which?\n"


def optstudy_command(*words, cwd, **environment):
    return subprocess.run(
        [sys.executable, "-m", "optstudy", *map(str, words)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def write(folder, files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(textwrap.dedent(text))


def a_study(folder, text, **files):
    write(folder, {"mine.yaml": HEAD + textwrap.dedent(text), **{f"{k}.py": v for k, v in files.items()}})
    return str(folder / "mine.yaml")


def results(runs):
    """Results of all runs, by their config without trainer and seed, as JSON."""
    found = {}
    for folder in sorted(runs.iterdir()):
        if folder.is_dir():
            config = json.loads((folder / "config.json").read_text())
            config.pop("trainer")
            found[json.dumps(config, sort_keys=True)] = read_result(folder)
    return found


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def until(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


SAID = {
    "crash": "it ended with code 1: ValueError: boom",
    "hang": "it did not end within 2 s (trainer.timeout): here is hang",
    "nothing": "neither a result.json in its folder, nor a line of output",
    "word": "its val_loss is 'low', and not a number",
    "other": "its result.json has no 'val_loss' (trainer.metric), only loss",
    "half": "its result.json is not JSON",
    "list": "its result.json is not a JSON object",
    "endless": "it did not end within 2 s",
    "killed": "it was ended by SIGKILL",
}
LOSS = {"fine": 1.5, "again": 2.5, "child": 3.5, "line": 4.5, "stopped": 5.5}
DIVERGED = {"nan": "val_loss was nan", "three": "it blew up"}


def test_every_way_to_end_is_a_line_and_loses_no_study(tmp_path):
    command = f"[{sys.executable}, train.py, '{{how}}', '{{folder}}']"
    ways = ", ".join([*LOSS, *DIVERGED, *SAID])
    study = f"trainer: {{command: {command}, timeout: 2s}}\naxes: {{how: [{ways}]}}\n"
    a_study(tmp_path, study, train=PROGRAM)
    said = optstudy_command("run", "mine.yaml", "--jobs", 3, cwd=tmp_path)
    assert said.returncode == 1, said.stderr
    assert "Traceback" not in said.stdout + said.stderr
    assert (tmp_path / "report/mine/index.html").exists()
    failed = dict(re.findall(r"failed: mine at (\w+) seed 0 \((.*)\); see", said.stdout))
    assert failed.keys() == SAID.keys()
    for how, why in SAID.items():
        assert why in failed[how]
    found = {json.loads(key)["how"]: one for key, one in results(tmp_path / "runs").items()}
    assert {how: one["val_loss"] for how, one in found.items() if one and one["state"] == "done"} == LOSS
    assert {how: one["reason"] for how, one in found.items() if one and one["reason"]} == DIVERGED
    assert found["fine"]["reported"] == {"val_loss": 1.5, "tokens": 100, "note": "kept"}
    assert found["fine"]["tokens"] == 100
    assert max(path.stat().st_size for path in (tmp_path / "runs").glob("*/log.txt")) < 20e6
    (child,) = (tmp_path / "runs").glob("*/child")
    until(lambda: not alive(int(child.read_text())))


ODD = """
    import json, os, pathlib, shutil, sys, time
    how, out = sys.argv[1], pathlib.Path(os.environ["OPTSTUDY_RUN"])

    def finish(value):
        (out / "result.json").write_text(json.dumps({"val_loss": value}))

    if how == "folder":
        (out / "result.json").mkdir()
    elif how == "device":
        (out / "result.json").symlink_to("/dev/zero")
    elif how == "pipe":
        os.mkfifo(out / "result.json")
    elif how == "removed":
        shutil.rmtree(out)
    elif how == "crash":  # after it has emptied the folder, as of an earlier run of its own
        shutil.rmtree(out)
        out.mkdir()
        raise ValueError("boom")
    elif how == "emptied":
        shutil.rmtree(out)
        out.mkdir()
        time.sleep(6)  # longer than a heartbeat of the lease
        finish(1)
    elif how == "config":  # as save_pretrained does
        (out / "config.json").write_text('{"model_type": "gpt2"}')
        finish(2)
    elif how == "metrics":
        (out / "metrics.jsonl").mkdir()
        finish(3)
    elif how == "attempts":
        (out / "attempts.jsonl").unlink()
        (out / "attempts.jsonl").mkdir()
        finish(4)
"""


def test_a_program_may_do_anything_to_the_folder_of_its_run(tmp_path):
    said = {
        "folder": "cannot be removed: Is a directory",
        "device": "its result.json is no regular file",
        "pipe": "its result.json is no regular file",
        "removed": "neither a result.json in its folder",
        "crash": "it ended with code 1: ValueError: boom",
    }
    fine = {"emptied": 1, "config": 2, "metrics": 3, "attempts": 4}
    command = f"[{sys.executable}, t.py, '{{how}}'], timeout: 20s"
    a_study(
        tmp_path, f"trainer: {{command: {command}}}\naxes: {{how: [{', '.join({**fine, **said})}]}}\n", t=ODD
    )
    told = optstudy_command("run", "mine.yaml", "--jobs", "4", cwd=tmp_path)
    assert told.returncode == 1 and "Traceback" not in told.stdout + told.stderr, told.stderr
    for how, why in said.items():
        (line,) = [one for one in told.stdout.splitlines() if one.startswith(f"failed: mine at {how} ")]
        assert "failed 2 times" in line and why in line
    shown = json.loads(optstudy_command("show", "mine.yaml", "--json", cwd=tmp_path).stdout)["runs"]
    assert {run["config"]["how"] for run in shown if run["state"] == "done"} == {*fine}
    for run in shown:
        if run["config"]["how"] in fine:
            folder = tmp_path / "runs" / run["id"]
            assert read_result(folder)["val_loss"] == fine[run["config"]["how"]]
            assert json.loads((folder / "config.json").read_text()) == run["config"]
            theirs = folder / "config.program.json"
            assert theirs.exists() == (run["config"]["how"] == "config")


def test_a_command_is_filled_in_without_a_shell(tmp_path):
    program = """
        import json, os, sys
        with open(os.environ["OPTSTUDY_RUN"] + "/result.json", "w") as file:
            json.dump({"val_loss": 1, "argv": sys.argv[1:]}, file)
    """
    study = f"""
        trainer:
          command:
            - {sys.executable}
            - train.py
            - "$HOME; `ls` {{name}}"
            - '{{{{"lr": {{lr}}}}}}'
            - --steps={{steps}}
            - '{{model.deep.flag}}{{model.deep.none}}'
            - '{{betas}}'
            - '{{model.deep}}'
            - '{{seed}}'
            - '{{folder}}'
            - '{{config}}'
            - 1e3
            - 1.10
            - ~
            - no
        base:
          {{name: "it's *", lr: 1e-5, steps: 1e3, betas: [0.9, 0.95], model.deep: {{flag: true, none: null}}}}
        seeds: [3]
    """
    a_study(tmp_path, study, train=program)
    said = optstudy_command("run", "mine.yaml", "--runs", "some runs", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    (found,) = results(tmp_path / "some runs").values()
    folder = tmp_path / "some runs" / found["id"]
    assert found["reported"]["argv"] == [
        *("$HOME; `ls` it's *", '{"lr": 1e-05}', "--steps=1000", "truenull", "[0.9, 0.95]"),
        *('{"flag": true, "none": null}', "3", str(folder), str(folder / "config.json")),
        *("1e3", "1.10", "~", "no"),
    ]


def test_a_whole_number_has_no_point_however_it_was_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def words(text, **options):
        program = f"trainer: {{command: [python3, train.py, '{{n}}', '{{many}}', '{{deep}}']}}\n{text}\n"
        study = optstudy.open_study(a_study(tmp_path, program, train=""), **options)
        return [point.config.command(tmp_path)[2:] for point in study._session.plan.points]

    base = "base: {n: 1.0, many: [1.0, 2e0, 0.5], deep: {n: -0.0}}"
    assert words(base) == words(base.replace("1.0", "1")) == [["1", "[1, 2, 0.5]", '{"n": 0}']]
    assert words(base, overrides={"n": 1e3})[0][0] == "1000"
    assert [one[0] for one in words(base, axes={"n": [2.0, 1e-3, 1e16]})] == ["2", "0.001", "1" + 16 * "0"]


WRONG = [
    (
        "command: [python3, train.py, '{lrr}']",
        "4: trainer.command: the config has no key for {lrr}; did you mean 'lr'?",
    ),
    ("command: [python3, train.py]", "5: lr: no word of trainer.command has {lr}"),
    ("command: [python3, trian.py, '{lr}']", "4: trainer.command: there is no file 'trian.py'"),
    ("command: [python3, train.py, '{lr']", "4: trainer: '{' in '{lr'"),
    (
        "command: [python3, '{lr}'], code: [train.py, absent.py]",
        "4: trainer.code: there is no file 'absent.py'",
    ),
    (
        "command: [python3, train.py, {lr}]",
        "4: trainer.command.2: braces without quotes are a mapping in YAML",
    ),
    ("command: []", "4: trainer.command: list should have at least 1 item"),
    ("command: [a], function: a.b", "4: trainer: give a 'command' or a 'function', not both"),
    ("function: train.absent", "4: trainer.function: "),
    ("function: nowhere.train", "4: trainer.function: there is no module 'nowhere'"),
    ("function: train", "4: trainer: 'function' must be an import path"),
    ("function: train.go, timeout: soon", "4: trainer.timeout: must be a number of seconds"),
    ("function: train.go, timeout: 0", "4: trainer.timeout: "),
    ("function: train.go, metric: {pattern: 'loss'}", "4: trainer.metric: 'pattern' must have one group"),
    (
        "function: train.go, metric: {pattern: '('}",
        "4: trainer.metric: 'pattern' is not a regular expression",
    ),
    ("function: train.go, metrics: val_loss", "4: unknown key 'trainer.metrics'; did you mean 'metric'?"),
    ("function: train.go, folder: /tmp", "4: unknown key 'trainer.folder'"),
]


@pytest.mark.parametrize(("trainer", "said"), WRONG)
def test_a_wrong_trainer_is_refused_with_its_line(tmp_path, monkeypatch, trainer, said):
    a_study(
        tmp_path, f"# one\ntrainer: {{{trainer}}}\naxes: {{lr: [0.1, 0.2]}}\n", train="def go(trial): pass\n"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        optstudy.open_study("mine.yaml")
    assert str(error.value).startswith(f"mine.yaml:{said}"), error.value
    assert "\n" not in str(error.value)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("no-such-program", "there is no program 'no-such-program' in the folders of PATH"),
        ("./no-such-program", "there is no program './no-such-program' in "),
        ("./t.py", "'./t.py' may not be executed: chmod +x it"),
    ],
)
def test_a_program_that_is_not_there_is_refused_where_it_would_run(tmp_path, program, said):
    a_study(tmp_path, f"trainer: {{command: [{program}, '{{lr}}']}}\naxes: {{lr: [0.1]}}\n", t="")
    ended = optstudy_command("run", "mine.yaml", cwd=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"optstudy: mine.yaml:3: trainer.command: {said}")
    assert not (tmp_path / "runs").exists()
    assert optstudy_command("status", "mine.yaml", cwd=tmp_path).returncode == 0, "others may have it"


def test_what_is_refused_is_one_line_of_the_command(tmp_path):
    a_study(tmp_path, "trainer: {function: train.go}\naxes: {lr: [0.1]}\n", train="def go(trial): pass\n")
    for words, code, said in (
        (
            ["--set", "trainer.command=x"],
            2,
            "mine.yaml: --set: trainer.command: the trainer is not part of the config",
        ),
        (["--scale", "pico"], 2, "mine.yaml: --scale pico: the file has no scales of its own"),
        (["--axis", "lr"], 2, "--axis: 'lr' is not key=value,value, such as optimizer.lr=1e-3,1e-2"),
        (["--axis", "lr=1,1"], 2, "--axis: lr: each number may appear only once"),
        (["--axis", "seed=0,1"], 2, "mine.yaml: --axis: seed=[0, 1]: seeds are not set one by one"),
    ):
        ended = optstudy_command("show", "mine.yaml", *words, cwd=tmp_path)
        assert (ended.returncode, ended.stderr.count("\n")) == (code, 1), ended.stderr
        assert said in ended.stderr


@pytest.mark.parametrize(
    "unseen",
    [
        "seeds: [0, 1]",
        "refine: {seeds: 2, axis: lr}",
        "curves: {a: {base: {width: 1}}, b: {base: {width: 2}}}",
    ],
)
def test_what_varies_must_be_named_by_the_command(tmp_path, monkeypatch, unseen):
    monkeypatch.chdir(tmp_path)
    program = {"train": "import sys\n"}
    said = "axes: {lr: [0.1, 0.2]}\n" + unseen
    a_study(tmp_path, f"trainer: {{command: [python3, train.py, '{{lr}}']}}\n{said}\n", **program)
    with pytest.raises(UserError, match=r"mine.yaml(:\d+)?: (seed|width): no word of trainer.command has"):
        optstudy.open_study("mine.yaml")
    for way in ("reads: config", "metric: loss"):
        command = "'{lr}'" if way.startswith("reads") else "'{config}'"
        a_study(tmp_path, f"trainer: {{command: [python3, train.py, {command}], {way}}}\n{said}\n", **program)
        optstudy.open_study("mine.yaml")


def ids(folder, trainer, extra="", **files):
    a_study(folder, f"trainer: {{{trainer}}}\naxes: {{lr: [0.1]}}\n{extra}", **files)
    return [point.id for point in optstudy.open_study(str(folder / "mine.yaml"))._session.plan.points]


def test_the_id_is_of_config_seed_command_and_code(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = "command: [python3, train.py, '{lr}', '{seed}', '{a}']"
    files = {"train": "import helper\nimport json\n", "helper": "import package.part\n", "other": "x = 1\n"}
    write(tmp_path, {"package/__init__.py": "", "package/part.py": "y = 1\n", "notes.txt": "1\n"})
    base = "base: {a: 1}\n"
    first = ids(tmp_path, command, base, **files)
    assert len(first) == 1
    same = f"{command}, metric: acc, maximise: true, timeout: 1h, threads: 2"
    assert ids(tmp_path, same, base, **files) == first
    assert ids(tmp_path, command, "base: {a: 1.0}\n", **files) == first
    assert ids(tmp_path, command, base, **{**files, "other": "x = 2\n"}) == first, "it is not imported"
    changed = [
        ids(tmp_path, command.replace("'{a}'", "'--a={a}'"), base, **files),
        ids(tmp_path, command, "base: {a: 2}\n", **files),
        ids(tmp_path, command, "base: {a: 1, b: 2}\n", **files),
        ids(tmp_path, command, base + "seeds: [1]\n", **files),
        ids(tmp_path, command, base, **{**files, "train": "import helper, json\n"}),
        ids(tmp_path, command, base, **{**files, "helper": "import package.part as p\n"}),
        ids(tmp_path, f"{command}, code: [notes.txt]", base, **files),
    ]
    write(tmp_path, {"notes.txt": "2\n"})
    changed.append(ids(tmp_path, f"{command}, code: [notes.txt]", base, **files))
    write(tmp_path, {"package/part.py": "y = 2\n"})
    changed.append(ids(tmp_path, command, base, **files))
    assert len({*map(tuple, changed), tuple(first)}) == len(changed) + 1
    shell = "command: [bash, ./go.sh, '{lr}']"
    write(tmp_path, {"go.sh": "echo 1\n"})
    before = ids(tmp_path, shell)
    write(tmp_path, {"go.sh": "echo 2\n"})
    assert ids(tmp_path, shell) != before, "of any language"


def test_reading_code_imports_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loud = "import pathlib\npathlib.Path('imported').touch()\nimport absent_module\ndef go(trial): pass\n"
    assert ids(tmp_path, "function: loud.go", loud=loud) != ids(
        tmp_path, "function: loud.go", loud=loud + "#\n"
    )
    assert not (tmp_path / "imported").exists()


FUNCTION = """
    import math

    def train(trial):
        lr = trial["optimizer.lr"]
        for step in range(3):
            trial.log(step=step, tokens=10 * step, loss=3 - step)
        return {"val_loss": 2 + math.log10(lr / trial.config["best"]) ** 2, "tokens": 30}
"""


def test_a_function_over_axes_scales_and_settings_of_the_command_line(tmp_path):
    study = """
        trainer: {function: mytrain.train}
        base: {best: 0.01}
        axes: {optimizer.lr: [0.001, 0.01]}
        scales: {small: {base: {width: 8}}, large: {base: {width: 16}}}
    """
    a_study(tmp_path, study, mytrain=FUNCTION)
    words = ["mine.yaml", "--axis", "optimizer.lr=1e-3,1e-2,0.1", "--set", "best=0.1"]
    said = optstudy_command("run", *words, cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    found = {key: one["val_loss"] for key, one in results(tmp_path / "runs").items()}
    wanted = {0.001: 6.0, 0.01: 3.0, 0.1: 2.0}
    assert {json.loads(key)["optimizer"]["lr"]: loss for key, loss in found.items()} == pytest.approx(wanted)
    assert {json.loads(key)["width"] for key in found} == {8}, "the first scale is the default"
    page = (tmp_path / "report/mine/small/index.html").read_text()
    assert "Loss against tokens" in page or '"progress":"tokens"' in page
    large = optstudy_command("show", *words, "--scale", "large", "--json", cwd=tmp_path)
    assert {run["state"] for run in json.loads(large.stdout)["runs"]} == {"waiting"}
    (row, *_) = [read_row(folder) for folder in (tmp_path / "runs").iterdir() if folder.is_dir()]
    assert row.optimizer == "" and row.tokens == 30 and row.params is None
    exported = optstudy_command("export", *words, "--out", "runs.csv", cwd=tmp_path)
    assert exported.returncode == 0, exported.stderr
    head = (tmp_path / "runs.csv").read_text().splitlines()[0].split(",")
    assert {"id", "val_loss", "optimizer.lr", "best", "reported.tokens"} <= {*head}
    left = optstudy_command(
        "show", "mine.yaml", "--set", "best=0.1", "--axis", "optimizer.lr=0.1,1,10", cwd=tmp_path
    )
    assert "3 runs, 2 to do: about" in left.stdout and "finished runs of this program" in left.stdout


def test_the_metric_of_a_program_that_cannot_be_changed(tmp_path):
    program = """
        import sys
        lr = float(sys.argv[1])
        for step in range(3):
            end = "\\r" if step < 2 else "\\n"
            print(f"step {step}: train loss 9.9, val acc {lr * (step + 1):.2f}", end=end)
        print("saved")
    """
    pattern = r"{pattern: 'val acc ([0-9.]+)', name: accuracy}"
    command = f"[{sys.executable}, t.py, '{{lr}}']"
    study = f"trainer: {{command: {command}, metric: {pattern}, maximise: true}}\n"
    a_study(tmp_path, study + "axes: {lr: [0.1, 0.2, 0.3]}\n", t=program)
    said = optstudy_command("run", "mine.yaml", cwd=tmp_path)
    assert said.returncode == 0, said.stderr
    assert optstudy_command("report", "mine.yaml", "--format", "md", cwd=tmp_path).returncode == 0
    assert "mine at learning rate 0.3 has the highest accuracy: 0.9000 (" in said.stdout
    written = "".join(
        path.read_text() for path in (tmp_path / "report").rglob("*.*") if path.suffix in (".html", ".md")
    )
    assert "accuracy" in written
    assert not re.search(
        r"\bnats\b|enwik8|validation loss|cross-entropy", written.partition("<script>")[0] + said.stdout
    )
    assert {one["val_loss"] for one in results(tmp_path / "runs").values()} == {0.3, 0.6, 0.9}


def test_another_metric_runs_nothing_again(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = "trainer: {{function: m.go, metric: {}}}\naxes: {{lr: [0.1, 0.2]}}\n"
    program = {"m": "def go(trial):\n    trial.finish(a=trial['lr'], b=-trial['lr'])\n"}
    a_study(tmp_path, text.format("a"), **program)
    optstudy.open_study("mine.yaml").run()
    best = optstudy.open_study("mine.yaml").summary()[0]
    assert (best["best_setting"], best["best_loss"]) == (0.1, 0.1)
    a_study(tmp_path, text.format("b"), **program)
    best = optstudy.open_study("mine.yaml").summary()[0]
    assert (best["best_setting"], best["best_loss"]) == (0.2, -0.2)
    a_study(tmp_path, text.format("c"), **program)
    said = optstudy_command("status", "mine.yaml", cwd=tmp_path)
    assert "2 failed" in said.stdout and "it reported no number 'c'" in said.stdout
    a_study(tmp_path, text.format("a"), m=program["m"] + "# changed\n")
    shown = json.loads(optstudy_command("show", "mine.yaml", "--json", cwd=tmp_path).stdout)
    assert [run["state"] for run in shown["runs"]] == ["waiting"] * 2 and len(shown["older_code"]) == 2


@pytest.mark.parametrize(
    ("pattern", "lines", "found"),
    [
        (r"val loss ([0-9.]+)", "val loss 3.5\nval loss nan", "nan"),
        (r"val loss ([0-9.]+)", "val loss 3.5\nval loss -inf,", "nan"),
        (r"val loss ([0-9.]+)", "val loss nan\nval loss 3.5", "3.5"),
        (r"val loss ([0-9.]+)", "train loss nan, val loss 3.5", "3.5"),
        (r"val loss ([0-9.]+)", "val loss 3.5\ntrain loss nan\nval loss banana", "3.5"),
        (r"loss [0-9.]+, accuracy ([0-9.]+)", "loss nan, accuracy 0.5", None),
        (r"val loss (\S+)", "val loss 3.5\nval loss nan", "nan"),
    ],
)
def test_a_pattern_for_digits_does_not_pass_over_what_is_not_finite(pattern, lines, found, tmp_path):
    (tmp_path / "log").write_text(lines)
    output = Output(MetricSpec(pattern=pattern))
    with (tmp_path / "log").open("rb") as log:
        output.follow(log)
    assert output.matched == found


def test_where_every_run_fails_the_failures_are_what_is_told(tmp_path):
    a_study(
        tmp_path, "trainer: {command: [python, train.py], reads: config}\naxes: {x: [1]}\n", train="1 / 0"
    )
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    said = optstudy_command("run", "mine.yaml", cwd=tmp_path, PATH=path)
    assert (said.returncode, said.stderr) == (1, "")
    assert "ZeroDivisionError: division by zero); see runs/" in said.stdout


def valley(trial):
    """Lowest at 1e-2, half a decade from a grid of decades; the seed adds its own."""
    return 2 + (math.log10(trial["lr"]) + 2) ** 2 + 0.01 * trial.seed


ADAPTIVE = """
    trainer: {metric: val_loss}
    axes: {lr: {from: 0.1, to: 1, per_decade: 1}}
    adaptive: {rise: 0.5}
    refine: {seeds: 3, neighbours: 1}
"""


def test_asked_points_and_seeds_come_as_they_are_needed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    a_study(tmp_path, ADAPTIVE)
    study = optstudy.open_study("mine.yaml")
    asked = []
    for trial in study.ask():
        asked.append((trial["lr"], trial.seed))
        trial.log(step=1, loss=valley(trial))
        trial.finish(val_loss=valley(trial), tokens=7)
    assert len(set(asked)) == len(asked)
    assert {lr for lr, seed in asked if seed == 0} == {0.001, 0.01, 0.1, 1}
    assert {one for one in asked if one[1]} == {(lr, seed) for lr in (0.001, 0.01, 0.1) for seed in (1, 2)}
    assert not list(study.ask())
    assert study.summary()[0]["best_setting"] == pytest.approx(0.01)
    assert study.summary()[0]["best_loss"] == pytest.approx(2.01)
    assert study.curves()[0].points[0].runs[0].history == [{"step": 1, "loss": pytest.approx(3)}]
    shown = optstudy_command("show", "mine.yaml", cwd=tmp_path)
    assert "10 runs, 0 to do" in shown.stdout
    assert optstudy_command("run", "mine.yaml", cwd=tmp_path).returncode == 2, "there is nothing to start"


def test_a_loop_that_is_left_or_goes_on_without_a_result(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    a_study(tmp_path, "trainer: {}\naxes: {lr: [0.1, 0.2]}\n")
    study = optstudy.open_study("mine.yaml")
    for trial in study.ask():
        trial.finish(val_loss=1.0)
        break
    assert len(study.table()) == 1
    with pytest.raises(ZeroDivisionError):
        for trial in study.ask():
            assert trial["lr"] == 0.2
            raise ZeroDivisionError
    asked = [trial["lr"] for trial in study.ask()]
    assert asked == [0.2, 0.2], "it failed twice, and was set aside"
    assert "the loop went on without trial.finish()" in capfd.readouterr().err
    assert not list(optstudy.open_study("mine.yaml").ask())
    with pytest.raises(UserError, match="only for a study with trainer"):
        optstudy.open_study("demo").ask()
    with pytest.raises(TypeError, match="give val_loss="):
        trial.finish(loss=1.0)


@pytest.mark.parametrize("maximise", [False, True])
def test_claims_speak_of_the_metric_in_its_own_sign(tmp_path, monkeypatch, maximise):
    monkeypatch.chdir(tmp_path)
    study = f"""
        trainer: {{metric: score, maximise: {str(maximise).lower()}}}
        axes: {{opt: [a, b], lr: [0.1, 0.2]}}
        seeds: [0, 1, 2]
        claims:
          higher: {{says: a scores higher, test: best(a) - best(b) > 0.5}}
          value: {{says: a scores about 3, test: 2.8 <= best(a) <= 3.2}}
    """
    a_study(tmp_path, study)
    opened = optstudy.open_study("mine.yaml")
    for trial in opened.ask():
        wanted = trial["lr"] == (0.2 if maximise else 0.1)
        worse = 0 if wanted else -1 if maximise else 1
        trial.finish(score={"a": 3, "b": 2}[trial["opt"]] + worse + 0.01 * trial.seed)
    assert {claim["name"]: claim["verdict"] for claim in opened.claims()} == {
        "higher": "holds",
        "value": "holds",
    }
    told = optstudy_command("claims", "./mine.yaml", cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    assert "2 claims: 2 holds" in told.stdout


def test_panels_curves_and_bests_of_other_studies(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = """
        trainer: {reads: config}
        axes: {opt.name: [a, b], opt.rate: [0.1, 1]}
        figure: {x: opt.rate, curve: opt.name}
    """
    second = """
        trainer: {reads: config}
        base: {opt.name: a}
        best_of: {study: ./first.yaml, curve: a, keys: [opt.rate]}
        axes: {decay: [0.01, 0.1]}
        panels:
          wide: {base: {width: 8}, include: {./first.yaml: [b]}, x: opt.rate}
          deep: {curves: {plain: {}, more: {base: {depth: 3}}}}
        figure: {x: decay}
    """
    write(
        tmp_path, {"first.yaml": HEAD + textwrap.dedent(first), "second.yaml": HEAD + textwrap.dedent(second)}
    )
    study = optstudy.open_study("second.yaml")
    asked = []
    for trial in study.ask():
        asked.append(trial.config)
        trial.finish(val_loss=abs(trial["opt.rate"] - 1) + trial.config.get("decay", 0))
    mine = [one for one in asked if "decay" in one]
    assert len(asked) == 4 + 6 and len(mine) == 6
    assert {one["opt"]["rate"] for one in mine} == {1}, "the best of the first study"
    labels = {curve.label for curve in study.curves()}
    assert {"deep / plain", "deep / more"} <= labels and any(label.startswith("wide / ") for label in labels)
    study.report("report")


def test_what_is_not_finite_has_diverged_and_counts_as_worst(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    a_study(tmp_path, "trainer: {maximise: true, metric: acc}\naxes: {lr: [0.1, 0.2, 0.3]}\n")
    study = optstudy.open_study("mine.yaml")
    for trial in study.ask():
        trial.finish(acc={0.1: 0.5, 0.2: math.inf, 0.3: 0.7}[trial["lr"]])
    assert {row["config.lr" if "config.lr" in row else "lr"]: row["state"] for row in study.table()} == {
        0.1: "done", 0.2: "diverged", 0.3: "done",
    }  # fmt: skip
    assert (study.summary()[0]["best_loss"], study.summary()[0]["best_setting"]) == (0.7, 0.3)
    losses = {point.x: point.loss for point in study.curves()[0].points}
    assert losses[0.3] < losses[0.1] < losses[0.2]
    study.report("report", ["html", "svg", "md"])


STEPS = """
    import optstudy, signal, sys, time

    trial = optstudy.trial()
    state = trial.folder / "state"
    step = int(state.read_text()) if state.exists() else 0

    def stop(*_):
        state.write_text(str(step))
        sys.exit(75)

    signal.signal(signal.SIGTERM, stop)
    while step < trial["steps"]:
        step += 1
        trial.log(step=step, loss=1 / step)
        time.sleep(0.05)
    trial.finish(val_loss=1 / step)
"""


def begun(tmp_path, monkeypatch, steps):
    """A study's only run, begun."""
    text = f"trainer: {{command: [{sys.executable}, steps.py], reads: config}}\nbase: {{steps: {steps}}}\n"
    path = a_study(tmp_path, text + "axes: {lr: [0.1]}\n", steps=STEPS)
    monkeypatch.chdir(tmp_path)
    session = optstudy.open_study(path, runs=tmp_path / "runs")._session
    (folder,) = session.todo()
    process = subprocess.Popen(
        [sys.executable, "-m", "optstudy", "train", folder], cwd=tmp_path, stdout=subprocess.DEVNULL
    )
    until(lambda: len(read_metrics(folder)) > 5)
    (program,) = [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/environ")
        if _has(path, folder) and b"steps.py" in (path.parent / "cmdline").read_bytes().split(b"\0")[1]
    ]
    return folder, process, program


def _has(path, folder):
    try:
        return f"OPTSTUDY_RUN={folder.resolve()}".encode() in path.read_bytes()
    except OSError:
        return False


def test_a_stopped_program_goes_on_from_its_own_checkpoint(tmp_path, monkeypatch):
    folder, process, program = begun(tmp_path, monkeypatch, 40)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 75
    assert not alive(program)
    before = len(read_metrics(folder))
    ended = optstudy_command("train", folder, cwd="/")
    assert ended.returncode == 0, ended.stderr
    assert f"{folder}: done" in ended.stdout
    steps = [row["step"] for row in read_metrics(folder)]
    assert steps == list(range(1, 41)), "rows of both attempts, each once"
    assert 5 < before < 40


def test_a_program_ends_with_who_watches_it_and_its_file_alone_is_no_result(tmp_path, monkeypatch):
    folder, process, program = begun(tmp_path, monkeypatch, 10_000)
    (folder / "result.json").write_text('{"val_loss": 1.0}')
    process.kill()
    process.wait()
    until(lambda: not alive(program), 5)
    assert read_result(folder) is None
    status = optstudy_command("status", "mine.yaml", cwd=tmp_path)
    assert "1 runs: 1 begun" in status.stdout
    (folder / "result.json").write_text('{"val_')
    assert "1 runs: 1 begun" in optstudy_command("status", "mine.yaml", cwd=tmp_path).stdout


def test_paths_mean_the_folder_in_which_a_study_was_first_run(tmp_path):
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    program = """
        import json, os, pathlib, own
        place = {"val_loss": own.VALUE, "data": pathlib.Path("data.txt").read_text(), "cwd": os.getcwd()}
        pathlib.Path(os.environ["OPTSTUDY_RUN"], "result.json").write_text(json.dumps(place))
    """
    text = f"trainer: {{command: [{sys.executable}, code/train.py], reads: config}}\naxes: {{lr: [1]}}\n"
    a_study(home / "studies", text)
    write(home, {"code/train.py": program, "code/own.py": "VALUE = 2.5\n", "data.txt": "words"})
    elsewhere.mkdir()
    first = optstudy_command("run", "studies/mine.yaml", "--runs", tmp_path / "runs", cwd=home)
    assert first.returncode == 0, first.stderr
    study = home / "studies/mine.yaml"
    more = [study, "--runs", tmp_path / "runs", "--axis", "lr=1,2"]
    second = optstudy_command("run", *more, cwd=elsewhere)
    assert second.returncode == 0, second.stderr
    assert "2 runs: 1 done before, 1 to do" in second.stdout
    told = [one["reported"] for one in results(tmp_path / "runs").values()]
    assert told == [{"val_loss": 2.5, "data": "words", "cwd": str(home)}] * 2


SBATCH = """#!/bin/bash
# runs each task of an array at once, in --chdir, as slurmd would
for word in "$@"; do case $word in --chdir=*) there=${word#--chdir=};; esac; done
script=$(mktemp); cat > $script
last=$(grep -o -- '--array=0-[0-9]*' $script | grep -o '[0-9]*$')
for i in $(seq 0 $last); do
  (cd $there; SLURM_ARRAY_TASK_ID=$i SLURM_ARRAY_JOB_ID=77 bash $script) >/dev/null 2>&1
done
echo 77
"""


def test_slurm_gives_the_same_table_as_this_machine(tmp_path):
    study = "trainer: {function: mytrain.train}\nbase: {best: 0.01}\naxes: {optimizer.lr: [0.001, 0.01]}\n"
    a_study(tmp_path, study, mytrain=FUNCTION)
    write(tmp_path, {"bin/sbatch": SBATCH, "bin/squeue": "#!/bin/bash\n", "bin/scontrol": "#!/bin/bash\n"})
    for name in ("sbatch", "squeue", "scontrol"):
        (tmp_path / "bin" / name).chmod(0o755)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    words = ["run", "mine.yaml", "--launcher", "slurm", "--runs", "slurm"]
    by_slurm = optstudy_command(*words, cwd=tmp_path, PATH=path)
    assert by_slurm.returncode == 0, by_slurm.stderr
    here = optstudy_command("run", "mine.yaml", "--runs", "here", cwd=tmp_path)
    assert here.returncode == 0, here.stderr
    told = [
        {key: (one["id"], one["val_loss"]) for key, one in results(tmp_path / name).items()}
        for name in ("slurm", "here")
    ]
    assert told[0] == told[1] and len(told[0]) == 2


def test_devices_and_threads_are_handed_out(tmp_path):
    program = """
        import json, os, sys, time
        time.sleep(1)
        names = ("CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS")
        print(json.dumps({"val_loss": 1, **{name: os.environ.get(name) for name in names}}))
    """
    command = f"[{sys.executable}, t.py, '{{lr}}']"
    study = f"trainer: {{command: {command}, threads: 3, gpus: 2}}\naxes: {{lr: [1, 2]}}\n"
    a_study(tmp_path, study, t=program)
    said = optstudy_command("run", "mine.yaml", cwd=tmp_path, CUDA_VISIBLE_DEVICES="4,5,6,7,9")
    assert said.returncode == 0, said.stderr
    told = [one["reported"] for one in results(tmp_path / "runs").values()]
    assert {one["CUDA_VISIBLE_DEVICES"] for one in told} == {"4,5", "6,7"}
    for gpus, known in (("4,5", True), ("", False)):
        longer = ("show", "mine.yaml", "--axis", "lr=7")
        said = optstudy_command(*longer, cwd=tmp_path, CUDA_VISIBLE_DEVICES=gpus)
        assert ("finished runs of this program" in said.stdout) == known, "hours of GPUs come from GPUs"
    assert {one["OMP_NUM_THREADS"] for one in told} == {"3"}


def test_the_helper_imports_nothing_heavy(tmp_path):
    (tmp_path / "config.json").write_text('{"seed": 1, "lr": 0.1}')
    program = """
        import sys
        import optstudy
        trial = optstudy.trial()
        trial.log(step=0, loss=float("nan"))
        trial.finish(val_loss=1.0)
        heavy = {"torch", "numpy", "pydantic", "scipy"}
        print(sorted({name.partition(".")[0] for name in sys.modules} & heavy))
    """
    said = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        env={**os.environ, "OPTSTUDY_RUN": str(tmp_path)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert said.stdout == "[]\n", said.stderr
    assert json.loads((tmp_path / "metrics.jsonl").read_text()) == {"step": 0, "loss": None}
    with pytest.raises(UserError, match="OPTSTUDY_RUN is not set"):
        optstudy.trial()


def test_a_trial_gives_its_optimizer(tmp_path):
    import torch

    config = {
        "optimizer": {"name": "lion", "lr": 0.01, "weight_decay": 0.1, "options": {"betas": [0.8, 0.9]}}
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    made = Trial(tmp_path).optimizer(torch.nn.Linear(2, 2))
    group = made.param_groups[0]
    assert (type(made).__name__, group["lr"], tuple(group["betas"])) == ("Lion", 0.01, (0.8, 0.9))


@pytest.mark.parametrize("batches", [1, 2])
def test_a_callback_of_lightning(batches, tmp_path):
    import warnings

    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lightning = pytest.importorskip("pytorch_lightning")

    class Module(lightning.LightningModule):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor(1.0))
            self.losses, self.seen = [], 0.0

        def training_step(self, batch, index):
            loss = (self.weight * batch).square().mean()
            self.losses.append(loss.item())
            self.seen += batch.numel()
            self.log("tokens", self.seen)
            return loss

        def validation_step(self, batch, index):
            self.log("loss/val", (self.weight * batch).square().mean())

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.01)

    (tmp_path / "config.json").write_text('{"trainer": {"metric": {"name": "score"}}}')
    rows = torch.utils.data.DataLoader(torch.arange(1.0, 9.0), batch_size=1)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = lightning.Trainer(
            max_epochs=2, accelerator="cpu", log_every_n_steps=2, default_root_dir=tmp_path,
            accumulate_grad_batches=batches, enable_checkpointing=False, **quiet,
            callbacks=[Trial(tmp_path).lightning_callback("loss/val")],
        )  # fmt: skip
        module = Module()
        trainer.fit(module, rows, rows)
    written = read_metrics(tmp_path)
    steps, each = 16 // batches, 8 // batches
    assert [row["step"] for row in written if "loss" in row] == list(range(2, steps + 1, 2))
    means = [sum(module.losses[k : k + batches]) / batches for k in range(0, 16, batches)]
    assert [row["loss"] for row in written if "loss" in row] == pytest.approx(means[1::2])
    assert [row["tokens"] for row in written if "loss" in row] == list(range(2 * batches, 17, 2 * batches))
    assert {row["lr"] for row in written if "lr" in row} == {0.01}
    validated = [row for row in written if "val_loss" in row]
    assert [row["step"] for row in validated] == [each, steps]
    last = (module.weight * torch.arange(1.0, 9.0)).square().mean().item()
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["score"] == validated[-1]["val_loss"] == pytest.approx(last)
    assert (result["step"], result["tokens"]) == (steps, 16)


def test_a_callback_of_hugging_face(tmp_path, monkeypatch):
    from types import SimpleNamespace

    monkeypatch.setitem(sys.modules, "transformers", SimpleNamespace(TrainerCallback=object))
    (tmp_path / "config.json").write_text('{"trainer": {"metric": {"name": "loss"}}}')
    trial = Trial(tmp_path)
    callback = trial.callback()
    state = SimpleNamespace(global_step=3, num_input_tokens_seen=30, is_world_process_zero=True)
    callback.on_log(None, state, None, logs={"loss": 2.0, "learning_rate": 0.1, "epoch": 0.5})
    callback.on_log(None, state, None, logs={"train_runtime": 1.0})
    callback.on_evaluate(None, state, None, metrics={"eval_loss": 1.5, "eval_runtime": 1.0})
    callback.on_train_end(None, state, None)
    assert read_metrics(tmp_path) == [{"step": 3, "tokens": 30, "loss": 2.0, "lr": 0.1}]
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["loss"], result["eval_loss"], result["tokens"]) == (1.5, 1.5, 30)


def test_the_page_on_the_contract(tmp_path, monkeypatch):
    page = [block for block in pages.all_blocks() if block.page == "docs/contract.md"]
    for block in page:
        if block.name:
            (tmp_path / block.name).write_text(block.text)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    said = optstudy_command("run", "mine.yaml", cwd=tmp_path, PATH=path)
    assert said.returncode == 0, said.stderr
    assert "mine at learning rate 0.1 has the lowest val_loss: 2.000 (" in said.stdout
    monkeypatch.chdir(tmp_path)
    (loop,) = [block.text for block in page if block.kind == "python" and not block.name]
    exec(loop, {})
