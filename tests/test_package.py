"""The wheel: what is in it, and that a stranger can install and use it outside the repository."""

import os
import subprocess
import sys
import venv
import zipfile
from email import message_from_string
from pathlib import Path

import pytest

import optstudy
from tests import pages
from tests.pages import ROOT
from tests.test_cli import TINY


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel, built from the tree by what pyproject.toml names."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr + ended.stdout
    (file,) = out.glob("*.whl")
    return file


def test_the_wheel_has_every_file_of_the_package_and_nothing_else(wheel):
    root = ROOT / "src"
    real = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    real = {name for name in real if "__pycache__" not in name}
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert names == real
    assert {
        "optstudy/py.typed",
        "optstudy/studies/paper/fig1.yaml",
        "optstudy/report/templates/page.html",
    } <= names


def test_the_wheels_metadata(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("dist-info/METADATA"))
        told = message_from_string(archive.read(name).decode())
        (scripts,) = (archive.read(name) for name in archive.namelist() if name.endswith("entry_points.txt"))
    assert told["Version"] == optstudy.__version__ and told["Name"] == "optstudy"
    assert told["License-Expression"] == "Apache-2.0" and told["Requires-Python"] == ">=3.11"
    assert b"optstudy = optstudy.cli:main" in scripts


@pytest.mark.long
@pytest.mark.timeout(1200)
def test_in_an_empty_environment_outside_the_repository(wheel, corpus_slice, tmp_path):
    venv.create(tmp_path / "venv", with_pip=True)
    python, program = (tmp_path / "venv" / "bin" / name for name in ("python", "optstudy"))
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    folder = tmp_path / "elsewhere"
    folder.mkdir()

    def ran(*command: object) -> str:
        ended = subprocess.run(
            list(map(str, command)), cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"
        return ended.stdout

    constraints = ROOT / "constraints.txt"
    (torch,) = (line for line in constraints.read_text().splitlines() if line.startswith("torch=="))
    ran(python, "-m", "pip", "install", "-q", torch, "-c", constraints)
    ran(python, "-m", "pip", "install", "-q", wheel, "-c", constraints)
    where = Path(ran(python, "-c", "import optstudy; print(optstudy.__file__)").strip())
    assert where.is_relative_to(tmp_path / "venv")
    ran(python, "-c", pages.of("README.md", "python")[0].text)
    assert "demo" in ran(program, "--help")
    assert "paper/fig18" in ran(program, "studies")
    assert ran(program, "--version").strip() == optstudy.__version__
    small = [f"--set={key}={value}" for key, value in {"data.corpus": corpus_slice, **TINY}.items()]
    assert "wrote" in ran(program, "run", "demo", "--set", "optimizer.lr=1e-2", *small)
    assert (folder / "report" / "demo" / "pico" / "index.html").exists()
    ran(python, "-m", "optstudy", "claims", "--scale", "pico")
