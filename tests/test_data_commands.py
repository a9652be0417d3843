"""``optstudy data`` through the real command line."""

import gzip
import json
import os
import re
import resource
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

from tests.configs import TINY
from tests.conftest import write_lines


class Data:
    """Runs ``optstudy data`` on a small corpus with a cache of its own."""

    def __init__(self, folder: Path, articles: list[str]) -> None:
        self.corpus = f"path:{write_lines(folder / 'corpus.jsonl', articles)}"
        self.cache = folder / "cache"

    def __call__(self, *arguments: str, code: int = 0) -> str:
        environment = os.environ | {"OPTSTUDY_CACHE": str(self.cache), "COLUMNS": "200"}
        command = [str(Path(sys.executable).with_name("optstudy")), "data", *arguments]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        if code:
            assert done.stderr.count("\n") == 1
            return done.stderr
        assert done.stderr == ""
        return done.stdout


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, some_articles: list[str]) -> Data:
    made = Data(tmp_path_factory.mktemp("data"), some_articles)
    out = made("prepare", made.corpus, "--tokenizer", "bpe-600", "--jobs", "2")
    assert "train: " in out
    assert "38 documents (0 empty ones left out), the whole split, shards: 1" in out
    return made


def run(*arguments: str, cache: Path, cwd: Path, most_memory: int | None = None) -> tuple[int, str, str]:
    """Run the command line in a folder; paths are given as bytes where they are no Unicode."""
    environment = os.environ | {"OPTSTUDY_CACHE": str(cache), "COLUMNS": "200"}
    command = [os.fsencode(sys.executable), b"-m", b"optstudy", *map(os.fsencode, arguments)]
    limit = (
        partial(resource.setrlimit, resource.RLIMIT_AS, (most_memory, most_memory)) if most_memory else None
    )
    done = subprocess.run(
        command, capture_output=True, env=environment, cwd=cwd, preexec_fn=limit, timeout=100, check=False
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize(
    "name", ["caf\udce9.jsonl", "[draft] #1: a=b 😀.jsonl", "~backup.jsonl", "two\nlines.jsonl"]
)
def test_a_file_of_any_name_is_prepared_listed_and_verified(
    name: str, tmp_path: Path, some_articles: list[str]
) -> None:
    write_lines(tmp_path / name, some_articles[:5])
    cache = tmp_path / "c[red]che"
    for arguments in (
        ("prepare", f"path:{name}", "--tokenizer", "bpe-300", "--jobs", "1"),
        ("list",),
        ("info", ""),
        ("verify",),
        ("list", "--json"),
    ):
        code, out, error = run("data", *arguments, cache=cache, cwd=tmp_path)
        assert (code, error) == (0, "")
        assert "c[red]che" in out or arguments == ("verify",)
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
    assert json.loads(out)["sets"][0]["corpus"] == f"path:{shown}"


def test_gigabytes_that_a_few_megabytes_unfold_to_are_not_read(tmp_path: Path) -> None:
    """One line of 1 GB in 1 MB of gzip, in memory for a fraction of it."""
    (tmp_path / "bomb.jsonl.gz").write_bytes(gzip.compress(b'{"text": "' + b"x" * (1 << 24), 9) * 64)
    arguments = ("data", "prepare", "path:bomb.jsonl.gz", "--tokenizer", "bpe-300", "--jobs", "1")
    code, out, error = run(*arguments, cache=tmp_path / "cache", cwd=tmp_path, most_memory=3 << 29)
    assert (code, out) == (2, "")
    assert error == (
        "optstudy: bomb.jsonl.gz, line 1: more than 134,217,728 bytes without a line end; "
        "cut it into several documents\n"
    )


def test_a_run_of_more_tokens_than_there_are_is_refused_before_it_trains(
    tmp_path: Path, some_articles: list[str]
) -> None:
    write_lines(tmp_path / "corpus.jsonl", some_articles)
    tree = TINY | {"data": TINY["data"] | {"corpus": "path:corpus.jsonl", "tokenizer": "bpe-300"}}
    del tree["data"]["fingerprint"]
    (tmp_path / "run.yaml").write_text(json.dumps(tree))
    arguments = ("train", "run.yaml", "--runs", "runs", "--set", "data.tokens=999999999")
    code, _, error = run(*arguments, cache=tmp_path / "cache", cwd=tmp_path)
    assert code == 2
    assert error.count("\n") == 1
    assert re.search(r"data\.tokens: path:corpus\.jsonl has [0-9,]+ training tokens .*999,999,999", error)
    assert not list(tmp_path.glob("runs/*/metrics.jsonl"))


def test_list_shows_corpora_and_what_is_prepared(data: Data) -> None:
    out = data("list")
    for name in ("enwik8", "c4", "wikitext-103", "fineweb", "ODC-BY", "corpus-jsonl-bpe-600-"):
        assert name in out


def test_a_set_whose_manifest_is_damaged_keeps_no_other_from_being_listed(data: Data) -> None:
    home = next((data.cache / "tokens").iterdir()).with_name("broken-bpe-600-0")
    home.mkdir()
    (home / "tokens.json").write_text("{")
    try:
        out = data("list")
        assert "corpus-jsonl-bpe-600-" in out
        assert f"{home / 'tokens.json'}: cannot be read" in out
        listed = json.loads(data("list", "--json"))
        assert [one["set"] for one in listed["damaged"]] == [home.name]
        assert "600 ids" in data("info", "corpus-jsonl")
        assert "cannot be read" in data("info", "broken", code=2)
        assert "cannot be read" in data("verify", code=2)
    finally:
        (home / "tokens.json").unlink()
        home.rmdir()


def test_info_says_what_a_set_holds(data: Data) -> None:
    out = data("info", "corpus-jsonl")
    assert f"{data.corpus} (fingerprint" in out
    assert "600 ids" in out
    assert "38 documents" in out


def test_programs_read_what_a_set_is(data: Data) -> None:
    facts = json.loads(data("info", "corpus-jsonl", "--json"))
    assert (facts["corpus"], facts["tokenizer"], facts["vocab_size"]) == (data.corpus, "bpe-600", 600)
    train, validation = (facts["splits"][name] for name in ("train", "validation"))
    assert (train["documents"], train["empty"], train["complete"]) == (38, 0, True)
    assert validation["documents"] == 2
    folder = Path(facts["folder"])
    assert facts["bytes"] == sum(path.stat().st_size for path in folder.iterdir())
    assert json.loads((folder / "tokens.json").read_text())["splits"]["train"]["shards"].keys() == set(
        train["shards"]
    )
    listed = json.loads(data("list", "--json"))
    assert listed["sets"] == [facts]
    assert {"enwik8", "c4"} < {corpus["corpus"] for corpus in listed["corpora"]}
    assert json.loads(data("prepare", data.corpus, "--tokenizer", "bpe-600", "--json")) == facts
    assert json.loads(data("verify", "--json")) == [{"set": facts["set"], "faults": []}]


def test_show_has_no_more_sequences_than_there_are(data: Data) -> None:
    out = data("show", "corpus-jsonl", "--sequences", "1000000000", "--sequence-length", "20000")
    assert 1 <= out.count("sequence ") < 20


def test_fewer_tokens_than_asked_for_are_prepared_and_said(data: Data) -> None:
    out = data("prepare", data.corpus, "--tokenizer", "bpe-600", "--tokens", "1e12")
    assert "these are all training tokens; 1,000,000,000,000 were requested" in out


def test_show_decodes_sequences_of_the_corpus(data: Data, some_articles: list[str]) -> None:
    out = data("show", "corpus-jsonl", "--sequences", "2", "--sequence-length", "32")
    assert out.count(" of ") >= 2
    line = out.splitlines()[1].strip()
    assert any(line.split("<|endoftext|>")[0][1:60] in article for article in some_articles)


def test_verify_finds_damage_and_prepare_mends_it(data: Data) -> None:
    assert "good" in data("verify")
    shard = next((data.cache / "tokens").rglob("train-*"))
    good = shard.read_bytes()
    shard.write_bytes(good[:-1000] + b"\x02\x02" + good[-998:])
    message = data("verify", code=2)
    assert f"optstudy data prepare {data.corpus} --tokenizer bpe-600" in message
    data("prepare", data.corpus, "--tokenizer", "bpe-600", "--jobs", "1")
    assert shard.read_bytes() == good
    assert "good" in data("verify", "corpus-jsonl")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("prepare", "enwik9"), "did you mean 'enwik8'"),
        (("prepare", "c4", "--tokens", "lots"), "--tokens must be a whole number such as 3e9, not 'lots'"),
        (("prepare", "path:/nowhere"), "/nowhere: No such file"),
        (("info", "enwik8"), "no token set 'enwik8'"),
        (("prepare", "CORPUS", "--jobs", "0"), "at least 1"),
        (("prepare", "CORPUS", "--jobs", "1000000000"), "--jobs: at most 1,024"),
        (("prepare", "CORPUS", "--tokens", "9" * 5000), "--tokens must be a whole number"),
        (("prepare", "path:~nosuchuser/x"), "~nosuchuser/x: No such file"),
        (("prepare", "path:/dev/zero"), "/dev/zero: a device"),
        (("prepare", "path:[/x]\n.csv"), "[/x]\\n.csv: No such file"),
        (("prepare", "CORPUS", "--tokenizer", "/dev/zero.json"), "No such file"),
        (("prepare", "CORPUS", "--tokenizer", "~nosuchuser/x.model"), "No such file"),
        (("show", "corpus-jsonl", "--sequence-length", "1000000000"), "do not fill one sequence"),
    ],
)
def test_mistake_is_one_line(data: Data, arguments: tuple[str, ...], words: str) -> None:
    assert words in data(*(data.corpus if a == "CORPUS" else a for a in arguments), code=2)
