"""``optstudy data`` through the real command line."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
    ],
)
def test_mistake_is_one_line(data: Data, arguments: tuple[str, ...], words: str) -> None:
    assert words in data(*(data.corpus if a == "CORPUS" else a for a in arguments), code=2)
