"""Text and tokenizers of one's own: other keys and ends, datasets and tokenizers of the hub by name."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from optstudy import cli
from optstudy.config import merge
from optstudy.data import files, names, text, tokenizer, tokens
from optstudy.errors import UserError
from optstudy.folders import settle
from tests.configs import TINY, tiny_on

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WORDS = ["one", "two", "three"]


def rows(key: str, folder: Path, count: int = 40) -> Path:
    path = folder / "text.jsonl"
    path.write_text("".join(json.dumps({"id": str(i), key: f"document {i}"}) + "\n" for i in range(count)))
    return path


def of_words(path: Path, *ends: str) -> Path:
    """Write a tokenizer of whole words."""
    vocabulary = {word: i for i, word in enumerate([*WORDS, *ends])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token=WORDS[0]))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.save(str(path))
    return path


def test_the_text_may_have_another_key(tmp_path: Path) -> None:
    path = f"path:{rows('content', tmp_path)}"
    corpus = text.corpus(path, "content")
    assert list(corpus.documents("train"))[:2] == ["document 0", "document 2"]
    with pytest.raises(UserError, match=r'line 1: must be an object whose "text" is a string.*id, content'):
        list(text.documents(path, "train"))
    assert (
        corpus.fingerprint != text.fingerprint(path)
        and text.fingerprint(path) == text.corpus(path).fingerprint
    )
    made = tiny_on(path, **{"data.text_key": "content"})
    assert made.data.fingerprint == corpus.fingerprint and made.id != tiny_on(path).id


def test_a_key_where_there_are_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "plain.txt").write_text("Some text.")
    with pytest.raises(UserError, match=r"data\.text_key: .*plain text has no key 'content'"):
        tiny_on(f"path:{tmp_path / 'plain.txt'}", **{"data.text_key": "content"})
    with pytest.raises(UserError, match=r"data\.text_key: enwik8 has no key 'content'"):
        settle(merge(TINY, {"data.text_key": "content"}))


@pytest.mark.parametrize("name", ["a.csv", "a.CSV", "a.csv.gz", "a.tsv", "a.parquet", "b.txt"])
def test_a_table_is_never_read_as_text(name: str, tmp_path: Path) -> None:
    content = b"PAR1\x15\x04" if name == "b.txt" else b"text,label\nhello,1\n"
    (tmp_path / name).write_bytes(content)
    for path in (tmp_path / name, tmp_path):
        with pytest.raises(
            UserError, match="a table, which is not read as text; write its text column as JSON"
        ):
            [document for found in files.listing(path) for document in files.documents(found)]


class Datasets(SimpleNamespace):
    """Stands for the library ``datasets``."""

    def load_dataset(self, *what: str, **told: Any) -> list[dict[str, Any]]:
        self.asked = (what, told)
        return [{"body": f"row {i}", "label": i} for i in range(40)]

    def disable_progress_bars(self) -> None:
        pass


def test_a_dataset_of_the_hub_by_name(
    monkeypatch: pytest.MonkeyPatch, own_cache: Path, tmp_path: Path
) -> None:
    library = Datasets()
    monkeypatch.setitem(sys.modules, "datasets", library)
    corpus = text.corpus(f"hf:owner/name:part@{COMMIT}", "body")
    assert list(corpus.documents("validation")) == ["row 1", "row 21"]
    told = {"name": "part", "revision": COMMIT, "split": "train", "streaming": True}
    assert library.asked == (("owner/name",), told)
    with pytest.raises(UserError, match=r"without a text 'text'; set data\.text_key to one of body"):
        next(text.documents(f"hf:owner/name@{COMMIT}", "train"))
    with pytest.raises(UserError, match="too large to take whole: say how many tokens"):
        tokens.prepare(corpus, "bpe-300")
    made = tokens.prepare(corpus, "bpe-300", tokens=20)
    assert len(made.train) == 20 and len(made.validation)
    assert len({text.fingerprint(f"hf:a/b@{c * 40}") for c in "01"}) == 2


@pytest.mark.parametrize("name", ["hf:owner/name", "hf:owner/name@main", f"hf:name@{COMMIT}", "hf:"])
def test_a_name_on_the_hub_needs_a_commit(name: str) -> None:
    with pytest.raises(UserError, match=r"hf:OWNER/NAME\[:SUBSET\]@COMMIT, with the 40 digits of a commit"):
        text.corpus(name)
    with pytest.raises(UserError, match="hf:OWNER/NAME@COMMIT, with the 40 digits of a commit"):
        names.path(name)


def test_a_tokenizer_of_the_hub_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the hub's cache, as it lies there after a download."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    name = f"hf:owner/name@{COMMIT}"
    with pytest.raises(UserError, match=r"its tokenizer\.json cannot be had .*give the file's path"):
        names.fingerprint(name)
    home = tmp_path / "models--owner--name" / "snapshots" / COMMIT
    home.mkdir(parents=True)
    file = of_words(home / "tokenizer.json", "</s>")
    assert tokenizer.file(name, "enwik8") == file
    of_hub, of_file = (settle(merge(TINY, {"data.tokenizer": one})) for one in (name, str(file)))
    assert of_hub.id == of_file.id and of_hub.data.tokenizer_fingerprint == names.fingerprint(str(file))


def test_the_end_of_documents_may_be_another_piece(tmp_path: Path, own_cache: Path) -> None:
    file = of_words(tmp_path / "tokenizer.json", "[STOP]")
    with pytest.raises(UserError, match=r"no token to end a document with.*data\.end_token says which"):
        tokenizer.load(file)
    with pytest.raises(UserError, match=r"data\.end_token: .* has no token '\[END\]'"):
        tokenizer.load(file, "[END]")
    encoder = tokenizer.load(file, "[STOP]")
    assert encoder.encode(["two three"])[0].tolist() == [1, 2, 3]
    corpus = f"path:{rows('text', tmp_path)}"
    made = tokens.prepare(corpus, str(file), end_token="[STOP]")
    assert made.train[:3].tolist() == [0, 0, 3]  # two unknown words
    again = of_words(tmp_path / "two.json", "</s>", "[STOP]")
    for end, wanted in ((None, 3), ("[STOP]", 4)):
        assert tokens.prepare(corpus, str(again), end_token=end).train[2:3].tolist() == [wanted]


def test_data_prepare_takes_a_key_and_an_end(
    tmp_path: Path, own_cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = of_words(tmp_path / "tokenizer.json", "[STOP]")
    words = ["data", "prepare", f"path:{rows('content', tmp_path)}", "--tokenizer", str(file), "--jobs", "1"]
    assert cli.run([*words, "--text-key", "content", "--end-token", "[STOP]"]) == 0
    assert cli.run(words) == 2
    assert "must be an object" in capsys.readouterr().err
