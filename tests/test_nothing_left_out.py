"""What is asked for is done as it stands there, or refused: nothing is cut, guessed or passed over."""

import csv
import json
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as settings_of
from hypothesis import strategies as st

from optstudy.cli import run
from optstudy.study.library import overrides
from optstudy.study.yamlfile import assigned, assignment
from tests.configs import folder_of, tiny_on
from tests.test_cli import STUDY, optstudy, settings
from tests.test_engine import finish

NAMES = [
    "notes #2.jsonl", "a: b.jsonl", "x=1,y=2.jsonl", "[draft] (1).jsonl", "{a}.jsonl", "*star.jsonl",
    "&and.jsonl", "!bang.jsonl", "%cent.jsonl", "@at.jsonl", "`tick`.jsonl", "'half.jsonl", "a\tb.jsonl",
    "two\nlines.jsonl", "- dash.jsonl", "? what.jsonl", "| bar.jsonl", "> more.jsonl", " space.jsonl",
    "--- three.jsonl", "smile 😀 汉字.jsonl", "caf\udce9.jsonl", "tail #.jsonl ", "2001-01-01",
]  # fmt: skip
"""Names of files that YAML would cut, take for something else or not read at all."""


@pytest.mark.parametrize("name", NAMES)
def test_set_takes_a_text_to_the_letter(name):
    assert overrides([f"data.corpus=path:{name}"]) == {"data.corpus": f"path:{name}"}
    assert overrides([f"watch.wandb={name}"]) == {"watch.wandb": name}


def test_a_file_whose_name_yaml_cuts_is_the_one_that_is_read(corpus_slice, tmp_path, monkeypatch, capsys):
    source = Path(corpus_slice.removeprefix("path:"))
    source = source if source.is_file() else next(path for path in source.rglob("*") if path.is_file())
    ending = "".join(source.suffixes)
    monkeypatch.chdir(tmp_path)
    for name in (f"notes #2{ending}", f"a: b{ending}", f"caf\udce9{ending}"):
        shutil.copy(source, name)
        (tmp_path / "notes").write_text("Something else.\n\n" * 9000)
        assert run(["show", "demo", "--json", "--set", f"data.corpus=path:{name}"]) == 0
        shown = json.loads(capsys.readouterr().out)["runs"]
        assert {one["config"]["data"]["corpus"] for one in shown} == {f"path:{name}"}


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("3e-3", 3e-3), (" 3", 3), ("0x1F", 31), ("true", True), ("null", None), ("~", None), (".5", 0.5),
        ("no", "no"), ('"3"', "3"), ("'it''s'", "it's"), ('"a: #b"', "a: #b"), ("[0.9, 0.95]", [0.9, 0.95]),
        ("{a: 1, b: [x]}", {"a": 1, "b": ["x"]}), ("3 # three", "3 # three"), ("[1] # one", "[1] # one"),
        ("!!int 3", "!!int 3"), ("&a 3", "&a 3"), ("--- 3", "--- 3"), ("a: 1", "a: 1"), ("- 1", "- 1"),
        ("3\n", "3\n"), ("[1,\n2]", "[1,\n2]"), ("'q' r", "'q' r"), ("[0.9, 0.95", "[0.9, 0.95"),
    ],
)  # fmt: skip
def test_a_value_is_yaml_from_end_to_end_or_text(written, value):
    assert assigned(written) == value and type(assigned(written)) is type(value)


KEYS = st.text("abc.$", min_size=1, max_size=3)
LEAVES = [
    st.none(),
    st.booleans(),
    st.integers(-(2**63) + 1, 2**63 - 1),
    st.floats(-1e9, 1e9),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=9),
]
TREES = st.recursive(
    st.one_of(LEAVES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=4,
)


@settings_of(max_examples=50, deadline=None)
@given(TREES)
def test_an_assignment_that_a_report_prints_gives_the_same_value(value):
    assert assigned(assignment(value)) == value


@pytest.mark.parametrize(
    ("assignments", "said"),
    [
        (["training.clip_norm="], "has no value; training.clip_norm=null means none"),
        (["training.steps"], "is not key=value, such as optimizer.lr=3e-3"),
        (["optimizer.roles={head: {lr: 1}, head: {lr: 2}}"], "--set: optimizer.roles: "),
        (["training.steps=3 # three"], "training.steps: input should be a valid integer, not '3 # three'"),
        (["optimizer.options.betas=[0.9, 0.95"], "not '[0.9, 0.95'"),
        (["training.steps=*three"], "not '*three'"),
    ],
)
def test_an_assignment_that_gives_no_such_value_is_refused(assignments, said, capsys):
    assert run(["show", "demo", *(f"--set={one}" for one in assignments)]) == 2
    assert said in capsys.readouterr().err


def test_help_says_how_a_value_is_read(capsys):
    for command in ("run", "train", "show", "status", "report", "export"):
        assert run([command, "--help"]) == 0
        assert "literal text" in " ".join(capsys.readouterr().out.replace("│", " ").split())


@pytest.mark.parametrize("value", ["foo", "foo=bar", "=x", "partition="])
def test_a_mistake_in_slurms_values_names_their_option(value, capsys):
    assert run(["run", "demo", "--launcher", "slurm", "--dry-run", "--slurm", value]) == 2
    said = capsys.readouterr().err
    assert "--slurm" in said and "--set" not in said


@pytest.fixture
def runs(corpus_slice, tmp_path):
    """A runs folder with one finished run of each of two optimizers."""
    from optstudy.study.plan import PlannedRun

    folder = tmp_path / "runs"
    for name in ("adam", "lion"):
        config = tiny_on(corpus_slice, **{"optimizer.name": name})
        folder_of(config, folder)
        finish(folder, PlannedRun(config, name, 1e-2))
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ["--out", "x.xlsx"], ["--out", "x"], ["--out", "x.csv.gz"], ["--out", "x.csv", "--format", "parquet"],
        ["--out", "x.parquet", "--format", "csv"], ["--format", "xlsx"], ["--format", "CSV"],
    ],
)  # fmt: skip
def test_a_table_is_written_as_its_name_says_or_not_at_all(arguments, runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["export", "--runs", str(runs), *arguments]) == 2
    assert capsys.readouterr().err.startswith("optstudy: --")
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]


def test_a_table_named_parquet_is_parquet_or_refused(runs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        from pyarrow import parquet
    except ImportError:
        assert run(["export", "--runs", str(runs), "--out", "x.parquet"]) == 2
        assert "pip install 'optstudy[parquet]'" in capsys.readouterr().err and not Path("x.parquet").exists()
    else:
        assert run(["export", "--runs", str(runs), "--out", "x.parquet"]) == 0
        assert parquet.read_table("x.parquet").num_rows == 2


def test_a_table_named_csv_or_not_named_is_csv(runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments in (["--out", "X.CSV"], [], ["--out", "x.txt", "--format", "csv"]):
        assert run(["export", "--runs", str(runs), *arguments]) == 0
    for name in ("X.CSV", "runs.csv", "x.txt"):
        with Path(name).open(newline="") as file:
            assert len(list(csv.DictReader(file))) == 2


def test_a_table_of_no_runs_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    for arguments in (["--runs", "empty"], ["demo", "--runs", "empty"], []):
        assert run(["export", *arguments]) == 2
        assert "no" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]


@pytest.mark.parametrize(
    "command",
    ["claims", "claims --json", "status demo", "report demo", "report paper", "export", "export demo"],
)
def test_a_runs_folder_that_was_named_and_is_not_there_is_refused(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run([*command.split(), "--runs", "typo"]) == 2
    assert "no run has ended in typo: there is no such folder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_without_a_runs_folder_of_ones_own_the_record_is_read(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["status", "demo"]) == 0 and run(["show", "demo", "--runs", "to-come"]) == 0
    assert "waiting" in capsys.readouterr().out


@pytest.mark.parametrize("device", ["gpu", "cuda:1", "CPU", "", "cpu\ntouch x", "cpu; touch x", "$(touch x)"])
def test_a_device_that_is_none_is_refused_before_anything_runs(device, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text("scale: pico\n")
    for command in (["run", "demo", "--dry-run"], ["run", "demo", "--launcher", "slurm", "--dry-run"],
                    ["show", "demo"], ["train", "a.yaml"], ["bench", "optim"]):  # fmt: skip
        assert run([*command, "--device", device]) == 2
        said = capsys.readouterr()
        assert f"--device: unknown device {device!r}" in said.err and not said.out
    assert [path.name for path in tmp_path.iterdir()] == ["a.yaml"]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("math.sqrt", "not a torch.optim.Optimizer, but of type builtin_function_or_method"),
        ("torch.optim", "of type module"),
        ("torch.nn.Linear", "another class"),
        ("torch.optim.lr_scheduler.LambdaLR", "another class"),
        ("torch.optim.SGD.step", "cannot be imported"),
        ("torch.optim.SDG", "did you mean 'SGD'?"),
        ("torch.optim.Optimizer", "'defaults'"),
        ("nowhere.Opt", "there is no module 'nowhere'"),
        ("./mine.py", "MODULE.CLASS"),
        ("mine:Opt", "MODULE.CLASS"),
        ("a..b", "MODULE.CLASS"),
        (".", "MODULE.CLASS"),
    ],
)
@pytest.mark.parametrize("command", ["run --dry-run"])
def test_a_path_that_leads_to_no_optimizer_is_refused_before_anything_runs(path, said, command, capsys):
    first, *more = command.split()
    assert run([first, "demo", *more, "--set", f"optimizer.name={path}"]) == 2
    shown = capsys.readouterr()
    assert said in shown.err and not shown.out


def test_a_study_that_asks_for_more_tokens_than_there_are_is_refused(corpus_slice, tmp_path):
    (tmp_path / "s.yaml").write_text(STUDY)
    chosen = settings(corpus_slice, **{"data.tokens": 999_999_999})
    ended = optstudy("run", "s.yaml", *chosen, cwd=tmp_path)
    assert ended.returncode == 2 and "data.tokens" in ended.stderr
