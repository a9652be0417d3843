"""Every example of README and docs does what it says, every link leads somewhere, no number is made up."""

import contextlib
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from cyclopts import MissingArgumentError
from filelock import FileLock
from pydantic import BaseModel

from optstudy.cli import app
from optstudy.config import RunConfig
from optstudy.errors import UserError
from optstudy.program import MetricSpec
from optstudy.recipes import OPTIMIZERS
from optstudy.results import archive
from optstudy.scales import SCALES
from optstudy.study import file as studyfile
from optstudy.study import library as study
from tests import pages
from tests.pages import DOCS, ROOT, SHELL, Block
from tests.test_archive import finished

CONTRACT = "docs/contract.md"
"""Whose programs are started by a study: see test_trainer.py."""
PYTHON = [
    block
    for block in pages.all_blocks()
    if block.kind == "python" and not block.name.startswith(("src/", "tests/")) and block.page != CONTRACT
]
YAML = [block for block in pages.all_blocks() if block.kind == "yaml" and not block.name.startswith("src/")]
OTHERS = ("cd", "export", "make", "pip", "python", "source", "torchrun", "tensorboard", "wandb", "git")
"""Commands besides ours that a shell block may have."""
OPTIONAL = ("accelerate", "transformers")
"""Libraries of others that an example is of, and is skipped without."""
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The pages as sphinx sees them, those generated included; made once for all of pytest's processes."""
    own = tmp_path_factory.getbasetemp()
    root = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "site"
    with FileLock(f"{root}.lock"):
        if not (root / "whole").exists():
            shutil.copytree(DOCS, root / "docs", ignore=shutil.ignore_patterns("generated", "_build"))
            for name in (
                "README.md",
                "CONTRIBUTING.md",
                "CHANGELOG.md",
                "LICENSE",
                "CITATION.cff",
                "src",
                "examples",
            ):
                (root / name).symlink_to(ROOT / name)
            pages.generator().write(root / "docs" / "generated")
            (root / "whole").touch()
    return root


def generated(site):
    return sorted((site / "docs" / "generated").rglob("*.md"))


@pytest.mark.parametrize("block", PYTHON, ids=str)
def test_a_python_example_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_python(block)


def run_python(block: Block) -> None:
    """In a namespace of its own; what it patches in the package is put back."""
    from optstudy import roles

    uses = roles.USES
    try:
        exec(compile(block.text, str(block), "exec"), {"__name__": "example"})
    except ModuleNotFoundError as error:
        if error.name not in OPTIONAL:
            raise
        pytest.skip(f"needs {error.name}")
    finally:
        roles.USES = uses


def test_the_example_of_every_optimizers_page_runs(site):
    examples = [
        block
        for page in generated(site)
        if page.parent.name == "optimizers"
        for block in pages.blocks(page.read_text(), page.name)
        if block.kind == "python"
    ]
    assert len(examples) == len({spec.target for spec in OPTIMIZERS.values()})
    for block in examples:
        run_python(block)


def test_every_command_line_is_one_that_the_program_takes(site):
    said = [
        (page.name, content) for page in [*pages.written(), *generated(site)] if (content := page.read_text())
    ]
    lines = [
        (name, line)
        for name, content in said
        if name != "cli.md"
        for block in pages.blocks(content, name)
        if block.kind in SHELL
        for line in pages.commands(block)
    ]
    for where, line in lines:
        check(where, line)
    mentions = [
        (name, span)
        for name, content in said
        for span in pages.spans(content)
        if span.startswith("optstudy ")
    ]
    assert sum("optstudy" in line for _, line in lines) > 40 and len(mentions) > 20
    for where, mention in mentions:
        with contextlib.suppress(MissingArgumentError):  # a command's name alone
            check(where, mention)


def check(where: str, line: str) -> None:
    """A line of ours is parsed by the program's own parser; any other is a command that is known."""
    words = [word for word in shlex.split(line) if not re.fullmatch(r"[A-Z_]+=\S*", word)]
    if not words:
        return
    if ">" in words:
        words = words[: words.index(">")]
    if words[:1] == ["torchrun"]:
        words = words[words.index("-m") + 1 :]
    program, *arguments = words
    if program.removeprefix(".venv/bin/") == "optstudy":
        if arguments and arguments[0].startswith("--"):
            return
        command, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
        name = (
            bound.arguments.get("name", "demo") if command.__module__ != "optstudy.commands.data" else "demo"
        )
        known = {*study.names(), "paper", "beyond", "STUDY", "NAME"}
        assert name in known or str(name).endswith(".yaml"), f"{where}: {line}"
        assert bound.arguments.get("scale", "pico") in {*SCALES, "S"}, f"{where}: {line}"
    else:
        assert program.removeprefix(".venv/bin/") in (*OTHERS, "pytest"), f"{where}: {line}"
        if program == "make":
            assert set(arguments) - {word for word in arguments if "=" in word} <= TARGETS, f"{where}: {line}"


def test_a_command_that_the_program_does_not_take_is_found():
    for wrong in (
        "optstudy runs demo",
        "optstudy run demo --scales pico",
        "optstudy show paper/fig99",
        "make tests",
        "frobnicate",
    ):
        with pytest.raises(Exception):  # noqa: B017 - of cyclopts, or an assertion
            check("here", wrong)


def test_make_targets_that_pages_name_exist():
    for page in pages.written():
        for span in pages.spans(page.read_text()):
            if found := re.match(r"make ([a-z-]+)", span):
                assert found[1] in TARGETS, f"{page}: {span}"


@pytest.mark.parametrize("block", YAML, ids=str)
def test_a_yaml_example_is_a_study_that_plans(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for other in pages.of(block.page, "python"):
        if other.name:
            (tmp_path / other.name).write_text(other.text)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    file = studyfile.parse(block.text, block.name or str(block))
    for name in (file.trainer and file.trainer.code) or ():
        (tmp_path / name).touch()
    example = study.Study("example", file)
    assert example.points(example.scale(None))


def test_links_lead_somewhere(site):
    sources = {page: site / page.relative_to(ROOT) for page in pages.written()}
    for page in [*sources.values(), *generated(site)]:
        for link in re.findall(r"\]\(([^)\s]+)\)", pages.BLOCK.sub("", page.read_text())):
            if "://" in link or link.startswith("#"):
                continue
            path, _, anchor = link.partition("#")
            target = site / "docs" / path.lstrip("/") if path.startswith("/") else page.parent / path
            if page.parent.name == "parts":  # included by a page of docs
                target = site / "docs" / path.lstrip("/")
            assert target.exists(), f"{page}: {link}"
            if anchor and target.suffix == ".md":
                headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
                slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
                assert anchor in slugs, f"{page}: {link}"


def measured_pages(load):
    """Those pages of Figure 1 that show numbers of a record."""
    made = pages.generator()
    some = made.optimizer_pages(load)
    return made.NO_RECORD, [
        made.choosing(load, "paper/fig1"),
        some["optimizers/lion.md"],
        made.one_study("paper/fig1", load),
    ]


def test_without_a_record_the_pages_say_so_and_show_no_number():
    no_record, made = measured_pages(lambda scale: {})
    assert all(no_record in page for page in made)
    assert not re.search(r"\d\.\d{3}", made[0])


def test_with_a_record_the_pages_show_what_it_says(tmp_path):
    points = study.load("paper/fig1").plan("pico", adaptive=False).points
    kept = finished(tmp_path / "runs", points)
    no_record, made = measured_pages(lambda scale: kept if scale == "pico" else {})
    best = min(
        entry.row.loss
        for entry in kept.values()
        if entry.row.optimizer == "lion" and isinstance(entry, archive.Entry)
    )
    assert all(f"{best:.3f}" in page and no_record not in page for page in made)


def test_every_study_claim_and_optimizer_has_its_place(site):
    folder = site / "docs" / "generated"
    for name in study.names():
        content = (folder / "studies" / f"{name.replace('/', '-')}.md").read_text()
        for claim in study.load(name).claims:
            assert claim.statement.replace("|", "\\|") in content and f"`{claim.test}`" in content
    together = "".join(page.read_text() for page in (folder / "optimizers").glob("*.md"))
    assert all(f"`{name}`" in together for name in OPTIMIZERS)
    help_page = (folder / "cli.md").read_text()
    commands = [command for command in app if not command.startswith("-")]
    assert len(commands) > 10 and all(f"## optstudy {command}\n" in help_page for command in commands)


def config_keys(kind, above=""):
    for name, field in kind.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from config_keys(inner, f"{above}{name}.")
        else:
            yield f"{above}{name}"


def test_every_config_key_is_in_the_reference_with_meaning_unit_and_default(site):
    rows = cells_of((site / "docs" / "generated" / "config.md").read_text())
    assert set(config_keys(RunConfig)) <= rows.keys()
    for key in config_keys(RunConfig):
        meaning, unit, kind, default = rows[key]
        assert len(meaning.split()) > 1 and ":func:" not in meaning and kind and default, key
        if "number" in kind and key not in ("seed", "numerics"):
            assert unit, key
    assert rows["training.clip_norm"][-1] == "`1.0`" and rows["training.steps"][-1] == "of the scale"
    assert rows["optimizer.lr"][-1] == "required" and rows["optimizer.code"][-1] == "filled in"


def test_every_study_file_key_is_in_the_reference_with_meaning_and_default(site):
    content = (site / "docs" / "generated" / "study-file.md").read_text()
    rows = [line for line in content.splitlines() if line.startswith("| `")]
    known = {"StudyFile": studyfile.StudyFile}
    known |= {kind.__name__: kind for kind in vars(studyfile).values() if kind in (
        studyfile.PanelSpec, studyfile.ScaleLayer, studyfile.Layer, studyfile.HalfDecades, studyfile.BestOf,
        studyfile.FigureSpec, studyfile.Adaptive, studyfile.Refine, studyfile.Slurm, studyfile.ClaimSpec,
        studyfile.Noise, studyfile.TrainerSpec,
    )}  # fmt: skip
    known["MetricSpec"] = MetricSpec
    assert len(rows) == sum(len(kind.model_fields) for kind in known.values())
    for row in rows:
        _, meaning, unit, kind, default = (cell.strip() for cell in row.strip("|").split(" | "))
        assert len(meaning.split()) > 0 and meaning and kind and default, row
        assert unit or "number" not in kind or kind.startswith("list"), row


def cells_of(content):
    """Rows of a page's tables by the key in their first cell."""
    rows = re.findall(r"^\| `([^`]+)` \| (.*) \|$", content, re.MULTILINE)
    return {key: [cell.strip() for cell in rest.split(" | ")] for key, rest in rows if rest.count(" | ") == 3}


def test_an_editor_is_given_the_schema_by_a_line_that_the_program_reads_over(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for page, words in (("study-file", ["show", "my-study.yaml"]), ("config", ["train", "my-run.yaml"])):
        content = pages.generator().reference_pages()[f"{page}.md"]
        (block,) = [one for one in pages.blocks(content, page) if one.kind == "text"]
        assert "# yaml-language-server: $schema=" in block.text
        (tmp_path / block.name).write_text(block.text)
        if page == "study-file":
            assert study.load(block.name).points("pico")
        else:
            with pytest.raises(UserError, match=r"optimizer\.name: missing"):
                study.single(tmp_path / words[1], {"data.corpus": "enwik8", "data.fingerprint": "0"})


NOT_RUN = [
    f"beyond/{name}" for name in ("axes", "distances", "momentum-where", "rare-tokens", "rates-per-role")
]


def test_each_study_page_and_the_gallery_show_its_figure(site):
    folder = site / "docs" / "generated"
    gallery = (folder / "gallery.md").read_text()
    for name in study.names():
        page = folder / "studies" / f"{name.replace('/', '-')}.md"
        images = re.findall(r"!\[[^\]]+\]\(([^)]+\.png)\)", page.read_text())
        if name in NOT_RUN and not images:
            continue
        image = images[0]
        assert all((page.parent / one).exists() for one in images)
        assert f"(studies/{page.name})" in gallery and image.removeprefix("../../") in gallery


def test_the_readme_links_what_was_reproduced_once_there_is_a_page():
    readme = (ROOT / "README.md").read_text()
    assert ("(docs/reproduction.md)" in readme) == (DOCS / "reproduction.md").exists()
