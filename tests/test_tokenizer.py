"""Tokenizers give the ids of the reference, document by document."""

import hashlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import sentencepiece as library
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from optstudy import cache
from optstudy.data import download, names, sentencepiece, tokenizer
from optstudy.data.download import IndexFile
from optstudy.errors import UserError
from tests.conftest import write_lines

GOLDEN = Path(__file__).parent / "golden"
REFERENCE = IndexFile(
    "diffsynth==1.1.9",
    tokenizer.FETCHED["t5/spiece.model"][2].sha256,
    True,
    "diffsynth/tokenizer_configs/flux/tokenizer_2/tokenizer.json",
)
REFERENCE_SHA256 = "f5dfec163765e18e270537fe896c49f5fad74db1525641d9b255a3008b999596"
ODD = [
    "  two  spaces ",
    "\n\nnew\n\n\nlines\n",
    "tab\tb\xa0c\u3000d",
    "ﬁ ½ Å Ａ",
]
SPELT = [
    "a </s> b",
    "a</s>b",
    "</s>",
    "</s></s",
    "<pad>x<unk>y",
    "<s> begin",
    "＜/s＞",
    "a <extra_id_5> b<extra_id_99>",
    "x <0x41><0x0A> y",
]
"""Special pieces and their like, spelt out."""
ODD += ["日本語 😀😀 x", "a▁b", "x\u200by", " leading", "don't stop 123,456.789", "x"]


def fetched(name: str) -> tokenizer.Encoder:
    try:
        return tokenizer.load(tokenizer.file(name, "enwik8"))
    except UserError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def t5() -> tokenizer.Encoder:
    return fetched("t5")


def test_t5_has_the_published_ids(t5: tokenizer.Encoder) -> None:
    ids, ends = t5.encode(["Hello world, this is a test."])
    assert ids.tolist() == [8774, 296, 6, 48, 19, 3, 9, 794, 5, 1]
    assert ends.tolist() == [10]
    assert (t5.vocab_size, t5.end, ids.dtype, t5.cuts) == (32_100, 1, np.uint16, True)


def test_t5_equals_its_reference_tokenizer_document_by_document(
    t5: tokenizer.Encoder, some_articles: list[str]
) -> None:
    path = cache.folder("tokenizers", "t5") / "tokenizer.json"
    try:
        reference = Tokenizer.from_file(str(download.obtain(path, REFERENCE_SHA256, [REFERENCE])))
    except UserError as error:
        pytest.skip(str(error))
    assert t5.model.get_vocab() == reference.get_vocab()
    documents = some_articles + ODD
    ids, ends = t5.encode(documents)
    for document, start, end in zip(documents, [0, *ends], ends, strict=False):
        assert ids[start:end].tolist() == reference.encode(document).ids, document[:60]


def test_gpt2_has_the_published_ids() -> None:
    gpt2 = fetched("gpt2")
    ids, _ = gpt2.encode(["Hello world", "Attention is all you need"])
    assert ids.tolist() == [15496, 995, 50256, 8086, 1463, 318, 477, 345, 761, 50256]
    assert gpt2.vocab_size == 50_257


def test_byte_level_bpe_loses_nothing(corpus_slice: str, some_articles: list[str]) -> None:
    encoder = tokenizer.load(tokenizer.file("bpe-2048", corpus_slice))
    documents = [*some_articles, *ODD, "".join(map(chr, range(1, 3000)))]
    ids, ends = encoder.encode(documents)
    assert encoder.vocab_size == 2048
    assert int(ids.max()) < 2048
    for document, start, end in zip(documents, [0, *ends], ends, strict=False):
        assert ids[end - 1] == encoder.end
        assert encoder.model.decode(ids[start : end - 1].tolist()) == document


def test_bpe_training_is_deterministic_and_its_file_named_by_what_it_saw(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, some_articles: list[str]
) -> None:
    (tmp_path / "a.txt").write_text("\n\n".join(some_articles))
    files = []
    for name in ("first", "second"):
        monkeypatch.setenv("OPTSTUDY_CACHE", str(tmp_path / name))
        files.append(tokenizer.file("bpe-700", f"path:{tmp_path / 'a.txt'}"))
    assert files[0] != files[1]
    assert files[0].name == files[1].name
    assert files[0].read_bytes() == files[1].read_bytes()
    (tmp_path / "a.txt").write_text("other text " * 3000)
    assert tokenizer.file("bpe-700", f"path:{tmp_path / 'a.txt'}").name != files[0].name


@pytest.mark.parametrize("name", ["bpe", "unigram", "identity"])
def test_sentencepiece_files_give_the_ids_of_their_own_library(name: str) -> None:
    """Golden ids: models trained on this package's source, applied by sentencepiece 0.2."""
    model = sentencepiece.load(GOLDEN / f"sentencepiece-{name}.model")
    for sample, ids in json.loads((GOLDEN / "sentencepiece.json").read_text())[name]:
        assert model.encode(sample, add_special_tokens=False).ids == ids, sample


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, some_articles: list[str]) -> dict[str, Path]:
    """SentencePiece models of both kinds with pieces for bytes, trained by their own library."""
    folder = tmp_path_factory.mktemp("sentencepiece")
    paths = {}
    for kind in ("unigram", "bpe"):
        file = io.BytesIO()
        library.SentencePieceTrainer.train(
            sentence_iterator=iter(line for article in some_articles[:10] for line in article.splitlines()),
            model_writer=file,
            vocab_size=600,
            model_type=kind,
            byte_fallback=True,
            minloglevel=2,
        )
        paths[kind] = folder / f"{kind}.model"
        paths[kind].write_bytes(file.getvalue())
    return paths


@pytest.mark.parametrize("kind", ["unigram", "bpe", "t5"])
def test_what_special_pieces_look_like_is_text_as_sentencepiece_has_it(
    kind: str, trained: dict[str, Path]
) -> None:
    path = Path(tokenizer.file("t5", "enwik8")) if kind == "t5" else trained[kind]
    encoder = tokenizer.load(path)
    theirs = library.SentencePieceProcessor(model_file=str(path))
    documents = SPELT if kind == "t5" else [*SPELT, "日本 and 😀"]
    for document in documents:
        ids, _ = encoder.encode([document])
        assert ids.tolist() == [*theirs.encode(document), theirs.eos_id()], document


def specials() -> dict[str, Tokenizer]:
    """Tokenizers that find an end token in a text, each in a way of its own."""
    vocabulary = {"[UNK]": 0, "</s>": 1, "a": 2, "b": 3}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    added = Tokenizer(models.BPE(vocab={"a": 0, "b": 1, " ": 2}, merges=[]))
    added.add_tokens(["<|endoftext|>"])
    special = Tokenizer(models.BPE(vocab={"a": 0, "b": 1, " ": 2}, merges=[]))
    special.add_special_tokens(["<|endoftext|>"])
    pieces = [("<unk>", 0.0), ("</s>", 0.0), *((piece, -5.0) for piece in "ab </s>")]
    whole = Tokenizer(models.BPE(vocab={**{c: i for i, c in enumerate("ab </s>")}, "</s>": 9}, merges=[]))
    whole.model.ignore_merges = True
    return {
        "word": words,
        "added": added,
        "special": special,
        "unigram": Tokenizer(models.Unigram(pieces, 0)),
        "ignored merges": whole,
    }


@pytest.mark.parametrize("name", ["gpt2", "bpe-2048", "t5", *specials()])
def test_an_end_token_stands_behind_each_document_and_nowhere_else(
    name: str, tmp_path: Path, some_articles: list[str]
) -> None:
    if name in specials():
        specials()[name].save(str(tmp_path / "tokenizer.json"))
        encoder = tokenizer.load(tmp_path / "tokenizer.json")
    else:
        encoder = fetched(name)
    end = encoder.model.id_to_token(encoder.end)
    documents = [end, f"a {end} b", f"a{end}b", f"{end}{end}", f"a {end}", some_articles[0] + end]
    documents += [f"{end[:-1]} {end[1:]}", *tokenizer.ENDS]
    ids, ends = encoder.encode(documents)
    assert np.flatnonzero(ids == encoder.end).tolist() == [place - 1 for place in ends]
    assert len(ends) == len(documents)


def test_special_pieces_of_a_unigram_tokenizer_json_are_text_too(t5: tokenizer.Encoder) -> None:
    path = cache.folder("tokenizers", "t5") / "tokenizer.json"
    try:
        published = tokenizer.load(download.obtain(path, REFERENCE_SHA256, [REFERENCE]))
    except UserError as error:
        pytest.skip(str(error))
    assert published.encode(SPELT)[0].tolist() == t5.encode(SPELT)[0].tolist()


def test_long_words_are_cut_in_training_and_change_nothing_for_others(some_articles: list[str]) -> None:
    words = ["x" * tokenizer.LONGEST_WORD, "7" * 1024, "-" * 1024, "\n" * 1024]
    documents = [*some_articles, *words]
    plain = tokenizer._byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=[tokenizer.END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    plain.train_from_iterator(documents, trainer)
    assert tokenizer._train(iter(documents), 700).to_str() == plain.to_str()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("letter", ["x", "\u00e9", "7", "-", " ", "ab", "\u6c49"])
def test_training_on_one_word_without_end_ends(letter: str) -> None:
    """A million letters would take minutes as one word, whatever the kind of letter."""
    model = tokenizer._train(iter([letter * 1_000_000]), 300)
    assert model.get_vocab_size() >= 257


def test_no_more_of_a_document_is_trained_on_than_of_the_corpus(
    monkeypatch: pytest.MonkeyPatch, some_articles: list[str]
) -> None:
    monkeypatch.setattr(tokenizer, "TRAINED_ON", 20_000)
    long = " ".join(some_articles)
    assert len(long) > 100_000
    cut = tokenizer._train(iter([long]), 400).to_str()
    assert cut == tokenizer._train(iter([long[:20_000], "never read " * 100]), 400).to_str()


def test_a_tokenizer_file_is_known_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = tmp_path / "tokenizer.json", tmp_path / "Other.JSON"
    one.write_bytes(b"first")
    other.write_bytes(b"first")
    first = names.fingerprint(str(one))
    assert first == names.fingerprint(str(other)) == hashlib.sha256(b"first").hexdigest()[:12]
    stamps = one.stat()
    one.write_bytes(b"secon")
    os.utime(one, ns=(stamps.st_atime_ns, stamps.st_mtime_ns))
    assert names.fingerprint(str(one)) == hashlib.sha256(b"secon").hexdigest()[:12]
    monkeypatch.chdir(tmp_path)
    assert names.fingerprint("Other.JSON") == first
    assert [names.fingerprint(name) for name in ("t5", "gpt2", "bpe-2048")] == [None] * 3


def test_names_of_tokenizers_cost_no_import_of_torch_or_tokenizers() -> None:
    program = "import sys; import optstudy.data.names; print({'torch', 'tokenizers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("bpe4096", "did you mean 'bpe-4096'"),
        ("bpe-100", "257 to 65536"),
        ("bpe-" + "9" * 5000, "257 to 65536"),
        ("bpe-\u0663\u0660\u0660", "unknown tokenizer"),
        ("~nosuchuser/a.json", "No such file"),
        ("a\0.json", "NUL"),
        ("\ud83d.model", "half a character"),
        ("two\nlines", "two\\\\nlines"),
        ("PIPE/a.json", "a named pipe"),
        ("PIPE/folder.model", "a folder"),
        ("PIPE/missing.json", "No such file"),
    ],
)
def test_a_name_that_is_no_tokenizer_is_refused_in_one_line(name: str, words: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    (tmp_path / "folder.model").mkdir()
    name = name.replace("PIPE", str(tmp_path))
    corpus = f"path:{write_lines(tmp_path / 'corpus.jsonl', ['one', 'two'])}"
    for read in (names.fingerprint, lambda named: tokenizer.file(named, corpus)):
        with pytest.raises(UserError, match=words) as error:
            read(name)
        assert "\n" not in str(error.value)


def test_sentencepiece_file_ends_documents_with_its_own_end() -> None:
    encoder = tokenizer.load(GOLDEN / "sentencepiece-bpe.model")
    ids, _ = encoder.encode(["a document"])
    assert ids[-1] == encoder.model.token_to_id("</s>") == encoder.end
    assert encoder.model.decode(ids[:-1].tolist()) == "a document"


@given(st.text("ab \n.é", max_size=200), st.integers(1, 20))
def test_pieces_are_the_text(document: str, size: int) -> None:
    parts = list(tokenizer.pieces(document, size))
    assert "".join(parts) == document
    assert all(part.startswith(" ") and not part.startswith("  ") for part in parts[1:])


@pytest.mark.parametrize("name", ["t5", "gpt2", "bpe-2048"])
def test_long_document_is_cut_without_another_result(
    name: str, some_articles: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    encoder = fetched(name)
    whole = encoder.encode([" ".join(some_articles)])
    monkeypatch.setattr(tokenizer, "CHUNK", 1000)
    cut = encoder.encode([" ".join(some_articles)])
    assert all(np.array_equal(a, b) for a, b in zip(whole, cut, strict=True))


def test_tokenizer_that_must_not_be_cut_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = tokenizer.load(GOLDEN / "sentencepiece-identity.model")
    document = "some words and more " * 200
    assert not encoder.cuts
    whole = encoder.model.encode(document, add_special_tokens=False).ids
    monkeypatch.setattr(tokenizer, "CHUNK", 100)
    assert encoder.encode([document])[0].tolist() == [*whole, encoder.end]


def test_how_documents_are_grouped_changes_nothing(
    t5: tokenizer.Encoder, some_articles: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = t5.encode(some_articles)
    for chunk in (1, 5_000, 70_000):
        monkeypatch.setattr(tokenizer, "CHUNK", chunk)
        assert all(np.array_equal(a, b) for a, b in zip(whole, t5.encode(some_articles), strict=True))


def test_more_than_65536_ids_take_four_bytes(tmp_path: Path) -> None:
    vocabulary = {f"w{i}": i for i in range(70_000)} | {"</s>": 70_000, "[UNK]": 70_001}
    Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]")).save(str(tmp_path / "t.json"))
    ids, _ = tokenizer.load(tmp_path / "t.json").encode(["w69999"])
    assert (ids.dtype, ids.tolist()) == (np.uint32, [69_999, 70_000])


def test_what_is_no_tokenizer_is_named(tmp_path: Path) -> None:
    for name, content in {
        "a.json": b"{}",
        "b.model": b"no model",
        "c.model": b"",
        "d.model": b"\x0a\x7f\x00",
    }.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=name):
            tokenizer.load(tmp_path / name)
    with pytest.raises(UserError, match=r"missing\.json"):
        tokenizer.load(tmp_path / "missing.json")
    Tokenizer(models.WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / "endless.json"))
    with pytest.raises(UserError, match="no token to end a document with"):
        tokenizer.load(tmp_path / "endless.json")


def test_damaged_tokenizer_in_the_cache_is_not_trusted(own_cache: Path) -> None:
    (own_cache / "tokenizers" / "t5").mkdir(parents=True)
    (own_cache / "tokenizers" / "t5" / "spiece.model").write_bytes(b"half")
    with pytest.raises(UserError, match="damaged"):
        tokenizer.file("t5", "enwik8")
