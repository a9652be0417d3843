"""Tokenizers give the ids of the reference, document by document."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from optstudy import cache
from optstudy.errors import UserError
from optstudy.sources import download
from optstudy.sources.download import IndexFile
from optstudy.tokenizing import sentencepiece, tokenizer

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
    "a <extra_id_5> b</s> c <pad>x",
    "ﬁ ½ Å Ａ",
]
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
    with pytest.raises(UserError, match="did you mean 'bpe-4096'"):
        tokenizer.file("bpe4096", "enwik8")
    with pytest.raises(UserError, match="257 to 65536"):
        tokenizer.file("bpe-100", "enwik8")
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
