"""Corpora: the same text from every format, a fixed split, and errors that name file and line."""

import codecs
import gzip
import hashlib
import itertools
import json
import os
import random
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from optstudy.data import enwik8, files, text, wikitext
from optstudy.data.hub import HubFiles
from optstudy.errors import UserError
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


LINES = ["a.jsonl", "a.json", "a.ndjson", "a.jl", "a.jsonlines", "A.JSONL", "a.NdJson", "a.b.JL"]
TEXTS = ["a.txt", "a.text", "a.md", "A.TXT", "read.Me.MD"]


@pytest.mark.parametrize("packed", ["", ".gz", ".GZ"])
@pytest.mark.parametrize("name", LINES + TEXTS)
def test_a_name_says_how_a_file_is_read_alone_and_in_a_folder(
    tmp_path: Path, name: str, packed: str, own_cache: Path
) -> None:
    rows = ["one", "two", "three"]
    data = write_lines(tmp_path / "rows", rows).read_bytes()
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / (name + packed)).write_bytes(gzip.compress(data) if packed else data)
    expected = sorted(rows) if name in LINES else [data.decode().strip()]
    for root in (folder, folder / (name + packed)):
        corpus = text.corpus(f"path:{root}")
        assert sorted(d for split in text.SPLITS for d in corpus.documents(split)) == expected


def test_what_begins_like_json_under_another_name_is_not_read_as_plain_text(tmp_path: Path) -> None:
    line = b'{"text": "a"}\n'
    for name, content in {
        "part-00000": line,
        "data.jsonl.bak": b"\xef\xbb\xbf \n" + line,
        "data.log.gz": gzip.compress(line * 1000),
        "list": b"[\n  " + line + b"]",
    }.items():
        (tmp_path / name).write_bytes(content)
        assert ".jsonl, one object per line, or in .txt" in _error(tmp_path / name)
    (tmp_path / "notes.log").write_bytes(b"plain text\n" + line)
    assert list(text.documents(f"path:{tmp_path / 'notes.log'}", "train")) == ['plain text\n{"text": "a"}']


TABLES = ["a.csv", "a.TSV", "a.csv.gz", "a.parquet", "a.Parquet", "a.arrow", "a.feather", "a.xlsx", "a.XLS"]
TABLES += ["a.zip", "a.jsonl.zip", "a.tar", "a.tar.gz", "a.tgz", "a.jsonl.zst", "a.jsonl.bz2", "a.txt.xz"]
DOCUMENTS = ["a.pdf", "a.docx", "a.epub", "a.npy", "a.pt", "a.pkl"]


@pytest.mark.parametrize("name", TABLES + DOCUMENTS)
def test_tables_and_archives_are_refused_with_what_to_do(tmp_path: Path, name: str, own_cache: Path) -> None:
    (tmp_path / name).write_text("id,text\n" + "1,some text that could be read\n" * 100)
    for read in (text.fingerprint, lambda corpus: list(text.documents(corpus, "train"))):
        with pytest.raises(UserError) as error:
            read(f"path:{tmp_path / name}")
        assert f"{tmp_path / name}: " in str(error.value)
        assert "JSON lines" in str(error.value) or "unpack it" in str(error.value)
    write_lines(tmp_path / "b.jsonl", ["one", "two"])
    if name in TABLES:  # half of the corpus may be in it
        assert name in _error(tmp_path)
    else:
        assert list(text.documents(f"path:{tmp_path}", "train")) == ["one"]


@pytest.mark.parametrize(
    ("beginning", "words"),
    [
        (b"PAR1\x15\x04", "a table"),
        (b"ARROW1\0\0", "a table"),
        (b"SQLite format 3\0", "a table"),
        (b"PK\x03\x04", "unpack it"),
        (b"\x28\xb5\x2f\xfd", "unpack it"),
        (b"BZh91AY&SY", "unpack it"),
        (b"%PDF-1.7", "plain text"),
        (gzip.compress(b"text", mtime=0), r"end in \.gz"),
        (codecs.BOM_UTF16_LE + "text".encode("utf-16-le"), "UTF-8"),
        (codecs.BOM_UTF16_BE + "text".encode("utf-16-be"), "UTF-8"),
    ],
)
@pytest.mark.parametrize("name", ["a", "a.txt", "a.jsonl"])
def test_a_beginning_gives_away_what_a_name_hides(
    tmp_path: Path, beginning: bytes, words: str, name: str, own_cache: Path
) -> None:
    (tmp_path / name).write_bytes(beginning)
    with pytest.raises(UserError, match=words):
        text.fingerprint(f"path:{tmp_path / name}")
    with pytest.raises(UserError, match=words):
        list(files.documents(tmp_path / name))


def test_words_that_resemble_such_beginnings_are_text(tmp_path: Path) -> None:
    for words in ("PAR1 of the report", "BZhang wrote", "PK is a name", "Rar! said he", "Obj"):
        (tmp_path / "a.txt").write_text(words)
        assert list(text.documents(f"path:{tmp_path / 'a.txt'}", "train")) == [words]


@pytest.mark.parametrize("packed", [False, True])
def test_a_byte_order_mark_is_no_part_of_the_text(tmp_path: Path, packed: bool, own_cache: Path) -> None:
    pack: Callable[[bytes], bytes] = gzip.compress if packed else bytes
    rows = write_lines(tmp_path / "rows", ["one", "\ufefftwo", "three"]).read_bytes()
    marked = codecs.BOM_UTF8 + rows
    lines, plain = (tmp_path / f"a{ending}{'.gz' if packed else ''}" for ending in (".jsonl", ".txt"))
    lines.write_bytes(pack(marked + marked + codecs.BOM_UTF8))  # of files that were joined, too
    assert list(files.documents(lines)) == ["one", "\ufefftwo", "three"] * 2
    plain.write_bytes(pack(codecs.BOM_UTF8 + "first \ufeff line".encode()))
    assert list(files.documents(plain)) == ["first \ufeff line"]
    with_mark = text.fingerprint(f"path:{plain}")
    assert with_mark != _identity(plain, lines=False)


def _identity(path: Path, lines: bool) -> str:
    """The fingerprint of a file since the first release: those of runs that exist must not change."""
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return hashlib.sha256(f"reading:1 [({lines}, False, '{digest}')]".encode()).hexdigest()[:12]


def test_fingerprints_of_runs_that_exist_stay(tmp_path: Path, own_cache: Path) -> None:
    assert (text.fingerprint("enwik8"), text.fingerprint("c4")) == ("9b0c112f738e", "140b043d8fbd")
    for name in ("a.txt", "a.jsonl", "a.json.gz", "notes"):
        path = tmp_path / name
        path.write_bytes(gzip.compress(b'{"text": "a"}', mtime=0) if name.endswith(".gz") else b"words")
        assert text.fingerprint(f"path:{path}") == _identity(path, "json" in name)


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
    corpus = text.corpus(f"path:{tmp_path}")
    whole = list(corpus.read(split))
    for i, (position, _) in enumerate(whole):
        assert list(corpus.read(split, position)) == whole[i + 1 :]


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
        (_line({"text": "a"}) + b'{"text": "b", "id": ' + b"9" * 5000 + b"}\n", "line 2", "4,300 digits"),
        (_line({"text": "a"}) + b'{"text": "b", "id": [-' + b"1" * 10**6 + b"]}\n", "line 2", "digits"),
        (b'{"text": "b", "meta": ' + b"[" * 3000 + b"]" * 3000 + b"}\n", "line 1", "nested too deeply"),
        (_line({"text": "a"}) + b'{"a":' * 200_000, "line 2", "nested too deeply"),
        (_line({"text": "a"}) + b"[" * 200_000, "line 2", "nested too deeply"),
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


@pytest.mark.parametrize("name", ["a.json.gz", "a.jsonl.GZ", "a.txt.gz", "a.gz"])
def test_a_gzip_file_without_a_byte_is_a_failed_download(tmp_path: Path, name: str, own_cache: Path) -> None:
    (tmp_path / name).write_bytes(b"")
    assert f"{tmp_path / name}: empty" in _error(tmp_path / name)
    write_lines(tmp_path / "b.jsonl", ["one", "two"])
    if name != "a.gz":
        assert f"{tmp_path / name}: empty" in _error(tmp_path)
    for beginning in (b"\x1f", b"\x1f\x8b\x08", gzip.compress(b'{"text": "a"}')[:-1]):
        (tmp_path / name).write_bytes(beginning)
        assert "gzip" in _error(tmp_path / name)
    (tmp_path / name).write_bytes(gzip.compress(b"", mtime=0))
    assert list(files.documents(tmp_path / name)) == []


@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "pipe.txt", "pipe.jsonl.gz"])
@pytest.mark.timeout(60)
def test_what_is_no_regular_file_is_refused_unopened(
    tmp_path: Path, kind: str, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    path = tmp_path / kind
    with socket.socket(socket.AF_UNIX) as there:
        if kind == "socket":
            there.bind(kind)
        elif kind == "device":
            path.symlink_to("/dev/zero")
        else:
            os.mkfifo(path)
        words = f"{path}: a {kind.partition('.')[0].replace('pipe', 'named pipe')}, "
        assert words in _error(path)
        with pytest.raises(UserError, match="where a regular file is needed"):
            list(files.documents(path))
        if "." in kind:
            write_lines(tmp_path / "b.jsonl", ["one", "two"])
            assert words in _error(tmp_path)


def test_a_broken_link_is_named_not_left_out(tmp_path: Path) -> None:
    write_lines(tmp_path / "b.jsonl", ["one", "two"])
    (tmp_path / "a.jsonl").symlink_to(tmp_path / "gone")
    assert f"{tmp_path / 'a.jsonl'}: No such file" in _error(tmp_path)


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.jsonl.gz"])
def test_a_line_without_end_is_read_to_its_bound(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LONGEST_LINE", 1000)
    pack: Callable[[bytes], bytes] = gzip.compress if name.endswith("gz") else bytes
    fits = _line({"text": "x" * 987})
    assert len(fits) == 1000
    (tmp_path / name).write_bytes(pack(fits * 3))
    assert len(list(files.documents(tmp_path / name))) == (3 if "json" in name else 1)
    (tmp_path / name).write_bytes(pack(fits + _line({"text": "x" * 988})))
    assert f"{tmp_path / name}, line 2: more than 1,000 bytes without a line end" in _error(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("~nosuchuser/x", "~nosuchuser/x: No such file"),
        ("~nosuchuser", "~nosuchuser: No such file"),
        ("a\0b", "a\\x00b: no file can have this name: a NUL"),
        ("a\ud83d.jsonl", "a\\ud83d.jsonl: no file can have this name: half a character"),
        ("caf\udce9", "caf\\udce9: No such file"),
        ("two\nlines", "two\\nlines: No such file"),
        ("x" * 5000, "File name too long"),
    ],
)
def test_a_name_that_no_file_has_is_named_in_one_line(name: str, words: str, own_cache: Path) -> None:
    assert words in _error(Path(name))


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("~backup.jsonl", b"~backup.jsonl"),
        ("caf\udce9.jsonl", b"caf\xe9.jsonl"),
        ("\ud83d\ude00.jsonl", "\U0001f600.jsonl".encode()),
        ("\U0001f600 \u6c49.jsonl", "\U0001f600 \u6c49.jsonl".encode()),
        ("two\nlines [b] #2: a=b.jsonl", b"two\nlines [b] #2: a=b.jsonl"),
    ],
)
def test_any_name_that_a_file_has_is_found(
    written: str, name: bytes, tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = write_lines(tmp_path / "rows", ["one", "two"]).read_bytes()
    Path(os.fsdecode(name)).write_bytes(data)
    corpus = text.corpus(f"path:{written}")
    assert list(corpus.documents("train")) == ["one"]
    assert corpus.fingerprint == text.fingerprint(f"path:{tmp_path / os.fsdecode(name)}")


def test_a_home_folder_stands_for_its_tilde(
    tmp_path: Path, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_lines(tmp_path / "a.jsonl", ["one", "two"])
    assert list(text.documents("path:~/a.jsonl", "train")) == ["one"]


def test_text_that_changes_while_it_is_read_is_noticed(tmp_path: Path, own_cache: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", ["one", "two"])
    corpus = text.corpus(f"path:{path}")
    corpus.check_unchanged()
    stamps = path.stat()
    write_lines(path, ["one", "twx"])
    os.utime(path, ns=(stamps.st_atime_ns, stamps.st_mtime_ns))  # as a copy that keeps times does
    with pytest.raises(UserError, match="changed while"):
        corpus.check_unchanged()


def test_what_is_remembered_of_files_may_be_lost_or_damaged(tmp_path: Path, own_cache: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", ["one", "two"])
    fingerprint = text.fingerprint(f"path:{path}")
    [memory] = (own_cache / "files").iterdir()
    for content in (b"", b"[]", b"5", b'{".": 5}', b'{".": [1]}', b"\xff", b"[" * 100_000):
        memory.write_bytes(content)
        assert text.fingerprint(f"path:{path}") == fingerprint


@pytest.mark.parametrize("count", [400, pytest.param(2000, marks=pytest.mark.long)])
def test_damaged_files_are_read_or_refused_in_one_line(tmp_path: Path, own_cache: Path, count: int) -> None:
    """Each with a few random damages, under a random name: documents or one line, nothing else."""
    rng = random.Random(count)
    good = write_lines(tmp_path / "rows", ["one \u00e9l\u00e8ve", "", "two\n\nparts"] * 5).read_bytes()
    inserts = [
        codecs.BOM_UTF8,
        b"\0",
        b"\xff\xfe",
        b"\r",
        b"\n\n",
        b"[" * 5000,
        b"9" * 5000,
        b'"',
        b"\\ud800",
    ]
    refused = 0
    for number in range(count):
        data = bytearray(good)
        for _ in range(rng.randrange(3)):
            at = rng.randrange(len(data) + 1)
            match rng.randrange(3):
                case 0:
                    data[at:at] = rng.choice(inserts)
                case 1:
                    del data[at:]
                case _:
                    data[at : at + 1] = rng.randbytes(1)
        name = rng.choice([*LINES, *TEXTS, *TABLES, "a", "a.log"])
        packed = rng.random() < 0.3
        content = gzip.compress(bytes(data)) if packed else bytes(data)
        if packed and rng.random() < 0.5:
            content = content[: rng.randrange(len(content))]
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / (name + ".gz" * packed)).write_bytes(content)
        for root in (folder, folder / (name + ".gz" * packed)):
            try:
                documents = list(text.documents(f"path:{root}", "train"))
            except UserError as error:
                refused += 1
                assert str(root) in str(error)
                assert "\n" not in str(error)
            else:
                assert all(name in LINES or document.encode() in data for document in documents)
    assert count / 2 < refused < 2 * count * 0.9


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
