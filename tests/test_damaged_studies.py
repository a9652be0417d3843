"""Study files damaged at random: each is either still a study or one clear line; never a traceback."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from optstudy import cli
from optstudy.errors import UserError
from optstudy.study import library as study

FILES = sorted((Path(study.__file__).parents[1] / "studies").rglob("*.yaml"))
OWN = """\
title: Everything that a file may say
asks: Is it read?
base: {training.steps: 50}
axes:
  optimizer.name: [adam, signum]
  optimizer.lr: {from: 1e-3, to: 1e-2, per_decade: 2}
  head: {on: {}, off: {base: {optimizer.roles: {head: {train: false}}}}}
optimizers:
  signum: {base: {optimizer.options.beta: 0.95}, axes: {optimizer.lr: [1e-4, 1e-3]}}
panels:
  large: {scale: 300m, x: training.batch_size, axes: {training.batch_size: [8, 16]}}
  free:
    axes: {optimizer.name: [adam], $b: [0.9, 0.95]}
    curves: {tied: {base: {optimizer.options.betas: [$b, $b]}}}
scales: {nano: {base: {training.steps: 70}}}
best_of: {study: paper/fig1, keys: [optimizer.lr], curve: adam}
include: {paper/fig1: [adam]}
seeds: [0, 1]
adaptive: {axis: optimizer.lr, rise: 0.1, most: 4}
refine: {seeds: 3, neighbours: 1}
figure: {kind: sweep, x: optimizer.lr, curve: optimizer.name}
slurm: {partition: main, time: "01:00:00"}
"""
TOKENS = (
    "", "nan", ".nan", ".inf", "-1", "0", "1e999", "null", "~", "[]", "{}", "{", "]", ":", "- ", "\t", "*x",
    "!!python/object:os.system", "!!binary x", "true", "yes", "'", '"', "#", "|", ">", "%", "@", "\x00", "&x",
    "\ud7ff", "é", "1_000", "0x10", "2026-11-24", "optimizer.lrr", "99999999999999999999", "from", "<<: *x",
    "? x", "$b", "/",
)  # fmt: skip


def damaged(text: str, rng: random.Random) -> bytes:
    """One file with one to four wounds in keys, types, values or encoding."""
    for _ in range(rng.randint(1, 4)):
        at, upto = sorted(rng.randrange(len(text) + 1) for _ in range(2))
        lines = text.split("\n")
        i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
        kind = rng.randrange(8)
        if kind == 0:
            text = text[:at] + rng.choice(TOKENS) + text[at:]
        elif kind == 1:
            text = text[:at] + text[min(upto, at + 20) :]
        elif kind == 2:
            lines[i], lines[j] = lines[j], lines[i]
            text = "\n".join(lines)
        elif kind == 3:
            lines.insert(i, lines[j])
            text = "\n".join(lines)
        elif kind == 4:
            text = text[:at]
        elif kind == 5:
            words = text.split(" ")
            words[rng.randrange(len(words))] = rng.choice(TOKENS)
            text = " ".join(words)
        elif kind == 6:
            lines[i] = " " * rng.randint(1, 3) + lines[i]
            text = "\n".join(lines)
        else:
            text = text[:at] + chr(rng.randrange(1, 0x2FFF)) + text[at + 1 :]
    encoding = rng.choice(["utf-8"] * 8 + ["utf-16", "latin-1"])
    return text.encode(encoding, errors="replace")


@pytest.mark.parametrize("count", [80, pytest.param(1000, marks=pytest.mark.long)])
def test_damaged_files_give_one_clear_line_each(count, tmp_path, monkeypatch, capsys):
    """In this process, for speed: :func:`optstudy.cli.run` is what the command calls."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "damaged.yaml").write_text(OWN)
    assert cli.run(["run", "damaged.yaml", "--dry-run"]) == 0, capsys.readouterr().err
    texts = [OWN, *(file.read_text() for file in FILES)]
    rng, refused = random.Random(count), 0
    while refused < count:
        file = tmp_path / "damaged.yaml"
        content = damaged(rng.choice(texts), rng)
        file.write_bytes(content)
        code = cli.run(["run", str(file), "--dry-run"])
        said = capsys.readouterr()
        assert code in (0, 2), content
        if code == 2:
            refused += 1
            assert said.err.startswith("optstudy: ") and said.err.count("\n") == 1, (content, said.err)
            assert len(said.err) < 2000, said.err
        assert [path.name for path in tmp_path.iterdir()] == ["damaged.yaml"], content


@pytest.mark.parametrize("content", [b"a: " + b"[" * 5000, b"&a [*a, *a]", b"\xff\xfe\x00", b"title: \x07"])
def test_files_made_to_hurt_are_refused_by_the_real_command(content, tmp_path):
    (tmp_path / "bad.yaml").write_bytes(content)
    command = [Path(sys.executable).with_name("optstudy"), "run", "bad.yaml"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2 and ended.stderr.count("\n") == 1, ended.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["bad.yaml"]


def test_an_error_that_quotes_half_the_file_is_cut():
    many = "{" + ", ".join(f"x{i}: 1" for i in range(1000)) + "}"
    with pytest.raises(UserError, match="duplicate key") as error:
        study.parse(f"panels: {many}\npanels: {many}\n", "long.yaml")
    assert len(str(error.value)) < 300


def test_a_file_that_unfolds_without_end_is_refused():
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    with pytest.raises(UserError, match="too large"):
        study.parse("\n".join(lines), "laughs.yaml")
