"""Corpora: the same text from every format, a fixed split, and errors that name file and line."""

import gzip
import hashlib
import itertools
import json
import sys
from pathlib import Path

import pytest

from optstudy import text
from optstudy.errors import UserError
from optstudy.sources import enwik8, files, wikitext
from optstudy.sources.hub import HubFiles
from tests.conftest import write_lines

CLEANED = {
    "train": (8222, "9fe597e5d2226247e50b2561fd219108f1367365b820b313863df6db967668e4"),
    "validation": (433, "d3253b209f580a2f165eb70e298cc463f2fa8605ca0909e93c743be8201b8477"),
}


@pytest.mark.parametrize(
    ("markup", "prose"),
    [
        ("'''Ada''' is a ''language''.", "Ada is a language."),
        ("[[working class|workers]] and [[anarchy]]", "workers and anarchy"),
        ("see [http://a.org/b the page] or http://a.org", "see the page or"),
        ("a{{cite|{{inner}}|x}}b{{POV}}", "ab"),
        ("a<ref>[http://x y]</ref>b<ref name=x />c<!-- no -->d", "abcd"),
        ("[[Image:x.jpg|thumb|a [[link]] in it]]text", "text"),
        ("[[Category:Births|Ada]]\n[[de:Ada]]\ntext", "text"),
        ("== Life ==\n* one\n# two\n:three\n----", "Life\none\ntwo\nthree"),
        ("{| class=x\n|-\n| a || b\n|}\nafter", "after"),
        ("one\n \n\n\n\ntwo   three\xa0four", "one\n\ntwo three four"),
        ("x<br>y<small>z</small> 1 < 2", "xyz 1 < 2"),
    ],
)
def test_markup_is_cleaned(markup: str, prose: str) -> None:
    assert wikitext.clean(markup) == prose


def test_articles_leave_out_redirects_empty_and_unfinished_pages() -> None:
    begin = '<text xml:space="preserve">'
    dump = f"{begin}#REDIRECT [[A]]</text>{begin}{{{{stub}}}}</text>{begin}a &amp;lt; b</text>{begin}cut"
    assert list(wikitext.articles(dump)) == ["a < b"]


def test_cleaned_enwik8_is_the_same_on_every_machine() -> None:
    """Its fingerprint says so; whoever changes the cleaning raises CLEANING."""
    assert wikitext.CLEANING == 1
    for split, path in enwik8.prepare().items():
        data = path.read_bytes()
        assert (data.count(b"\n"), hashlib.sha256(data).hexdigest()) == CLEANED[split]


def test_every_format_gives_the_same_documents(tmp_path: Path, some_articles: list[str]) -> None:
    lines = write_lines(tmp_path / "a.jsonl", some_articles).read_bytes()
    for name in ("b.json.gz", "c.jsonl.gz"):
        (tmp_path / name).write_bytes(gzip.compress(lines))
    (tmp_path / "d.json").write_bytes(lines.replace(b"\n", b"\r\n\r\n"))
    for path in tmp_path.iterdir():
        assert list(files.documents(path)) == some_articles


def test_plain_text_is_cut_at_blank_lines_and_loses_nothing(tmp_path: Path, some_articles: list[str]) -> None:
    whole = "\n\n".join(some_articles)
    (tmp_path / "a.txt").write_text(whole)
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(whole.encode()))
    found = list(files.documents(tmp_path / "a.txt"))
    assert list(files.documents(tmp_path / "b.txt.gz")) == found
    assert "".join(found).replace("\n", "") == whole.replace("\n", "")
    assert len(found) > 40
    assert all(files.PARAGRAPHS_END - 3 <= len(d.encode()) <= files.LINES_END + 20_000 for d in found[:-1])


def test_plain_text_without_blank_lines_is_cut_at_line_ends(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(
        "ninety-nine bytes and a newline".ljust(99) + "\n" * 1 + ("x" * 99 + "\n") * 2000
    )
    assert [len(d) + 1 for d in files.documents(tmp_path / "a.txt")] == [65_600, 65_600, 65_600, 3_300]


def test_second_of_twenty_documents_is_for_validation(tmp_path: Path) -> None:
    names = [f"{i:03}" for i in range(50)]
    for i, name in enumerate(names):
        (tmp_path / f"{name}.txt").write_text(f"document {i}")
    corpus = f"path:{tmp_path}"
    validation = list(text.documents(corpus, "validation"))
    assert validation == ["document 1", "document 21", "document 41"]
    train = list(text.documents(corpus, "train"))
    assert len(train) == 47
    assert not set(train) & set(validation)


def test_files_named_validation_are_the_validation_split(tmp_path: Path, some_articles: list[str]) -> None:
    write_lines(tmp_path / "c4-train.00000-of-00002.json", some_articles[:20])
    write_lines(tmp_path / "c4-train.00001-of-00002.json", some_articles[20:30])
    write_lines(tmp_path / "c4-validation.00000-of-00001.json", some_articles[30:])
    assert list(text.documents(f"path:{tmp_path}", "train")) == some_articles[:30]
    assert list(text.documents(f"path:{tmp_path}", "validation")) == some_articles[30:]


@pytest.mark.parametrize("split", text.SPLITS)
def test_reading_goes_on_from_any_position(tmp_path: Path, split: str) -> None:
    for i in range(7):
        write_lines(tmp_path / f"{i}.jsonl", [f"{i}/{j}" for j in range(i * 3)])
    whole = list(text.read(f"path:{tmp_path}", split))
    for i, (position, _) in enumerate(whole):
        assert list(text.read(f"path:{tmp_path}", split, position)) == whole[i + 1 :]


def test_fingerprint_follows_the_contents_wherever_they_lie(tmp_path: Path, own_cache: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
        write_lines(folder / "a.jsonl", ["one", "two"])
    before = text.fingerprint(f"path:{first}")
    assert before == text.fingerprint(f"path:{second}") == text.fingerprint(f"path:{first / 'a.jsonl'}")
    assert before == text.fingerprint(f"path:{first}")
    write_lines(first / "a.jsonl", ["one", "twx"])
    assert text.fingerprint(f"path:{first}") != before
    (second / "a.jsonl").rename(second / "a.txt")
    assert text.fingerprint(f"path:{second}") != before


def _error(path: Path) -> str:
    with pytest.raises(UserError) as error:
        list(text.documents(f"path:{path}", "train"))
    message = str(error.value)
    assert "\n" not in message
    return message


def _line(value: object) -> bytes:
    return json.dumps(value).encode() + b"\n"


@pytest.mark.parametrize(
    ("content", "line", "words"),
    [
        (_line({"text": "a"}) + b'{"text": "b\xff"}\n', "line 2", "not UTF-8"),
        (_line({"text": "a"}) * 3 + b'{"text": \n', "line 4", "not JSON"),
        (_line({"text": "a"}) + _line({"txt": "b"}), "line 2", '"text"'),
        (_line({"text": "a"}) + _line(["b"]), "line 2", '"text"'),
        (_line({"text": 5}), "line 1", '"text"'),
        (_line({"text": "a"}) + b'{"text": "\\ud800"}\n', "line 2", "surrogate"),
    ],
)
def test_bad_line_is_named(tmp_path: Path, content: bytes, line: str, words: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    message = _error(path)
    assert f"{path}, {line}: " in message
    assert words in message


def test_bad_byte_in_plain_text_is_named_by_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"good line of text\n" * 5000 + b"bad \xff line\n")
    assert "line 5,001: not UTF-8" in _error(tmp_path / "a.txt")


def test_truncated_gzip_is_named(tmp_path: Path, some_articles: list[str]) -> None:
    data = gzip.compress(write_lines(tmp_path / "a", some_articles).read_bytes())
    (tmp_path / "a.json.gz").write_bytes(data[: len(data) // 2])
    assert "a.json.gz: truncated or damaged gzip after line " in _error(tmp_path / "a.json.gz")
    (tmp_path / "a.json.gz").write_bytes(data[:1000] + b"junk" + data[1004:])
    assert "gzip" in _error(tmp_path / "a.json.gz")
    (tmp_path / "a.json.gz").write_bytes(b"no gzip at all")
    assert "gzip" in _error(tmp_path / "a.json.gz")


def test_what_is_no_corpus_is_named(tmp_path: Path) -> None:
    assert str(tmp_path / "nothing") in _error(tmp_path / "nothing")
    (tmp_path / "picture.png").write_bytes(b"x")
    assert "no text in this folder" in _error(tmp_path)
    with pytest.raises(UserError, match="did you mean 'enwik8'"):
        text.fingerprint("enwiki8")
    with pytest.raises(UserError, match="path: needs a file or folder"):
        text.fingerprint("path:")


def test_hub_corpus_without_its_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match=r"pip install 'optstudy\[data\]'.*path:FOLDER"):
        next(iter(text.documents("c4", "train")))


class FakeHub:
    """Stands for the library ``datasets``: reads JSON lines that were made for the test."""

    def __init__(self, rows: dict[str, list[str]]) -> None:
        self.rows = rows

    def disable_progress_bars(self) -> None:
        pass

    def load_dataset(
        self, builder: str, *, data_files: str, split: str, streaming: bool
    ) -> list[dict[str, str]]:
        assert (split, streaming) == ("train", True)
        return [{"text": t} for t in self.rows[data_files]]


def test_wikitext_lines_are_joined_to_articles(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (f"{text.WIKITEXT.root}/{name}" for name in text.WIKITEXT.names["train"])
    rows = {
        first: ["", " = One = \n", " text \n", " = = Part = = \n", " more \n", " = Two = \n", " begins \n"],
        second: [" ends \n", " = Three = \n", " = = = Deep = = = \n"],
    }
    monkeypatch.setitem(sys.modules, "datasets", FakeHub(rows))
    assert list(text.documents("wikitext-103", "train")) == [
        "",
        "= One = \n text \n = = Part = = \n more",
        "= Two = \n begins \n ends",
        "= Three = \n = = = Deep = = =",
    ]


def test_hub_files_give_the_documents_of_local_shards(
    tmp_path: Path, some_articles: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    halves = {"en/c4-train.00000-of-01024.json.gz": some_articles[:20]}
    halves |= {"en/c4-train.00001-of-01024.json.gz": some_articles[20:]}
    rows = {f"{text.C4.root}/{name}": documents for name, documents in halves.items()}
    monkeypatch.setitem(sys.modules, "datasets", FakeHub(rows))
    for name, documents in halves.items():
        path = tmp_path / Path(name).name
        path.write_bytes(gzip.compress(write_lines(tmp_path / "rows", documents).read_bytes()))
    (tmp_path / "rows").unlink()
    remote = list(itertools.islice(text.documents("c4", "train"), len(some_articles)))
    assert remote == [d for path in files.listing(tmp_path) for d in files.documents(path)]


def test_library_streams_what_local_files_give(
    tmp_path: Path, some_articles: list[str], own_cache: Path
) -> None:
    """With the real ``datasets``: gzipped JSON lines and parquet, from a folder in the hub's place."""
    pytest.importorskip("datasets")
    parquet = pytest.importorskip("pyarrow.parquet")
    table = pytest.importorskip("pyarrow").table({"text": some_articles})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=7)
    packed = gzip.compress(write_lines(tmp_path / "rows", some_articles).read_bytes())
    (tmp_path / "a.json.gz").write_bytes(packed)
    (tmp_path / "b.json.gz").write_bytes(packed[:-9])
    assert list(HubFiles(str(tmp_path), "json", {}).texts("a.json.gz")) == some_articles
    assert list(HubFiles(str(tmp_path), "parquet", {}).texts("a.parquet")) == some_articles
    for name in ("b.json.gz", "c.json.gz"):
        with pytest.raises(UserError, match=f"{name} cannot be read .*path:FOLDER"):
            list(HubFiles(str(tmp_path), "json", {}).texts(name))
