"""Token files: the reference's stream, the same bytes however they came about, and no trust in damage."""

import gzip
import json
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

from optstudy.data import making, shards, text, tokenizer, tokens
from optstudy.data.shards import Damaged, ShardedStream
from optstudy.data.tokens import Tokens
from optstudy.errors import UserError
from tests.conftest import articles, write_lines

SMALL = 40_000
"""Characters of a shard, so that a small corpus has many."""


@pytest.fixture(scope="session")
def c4(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of shards like C4's, made from the real corpus."""
    folder = tmp_path_factory.mktemp("c4")
    documents = list(articles("train", 500_000))
    third = len(documents) // 3
    for i in range(3):
        part = documents[i * third : (i + 1) * third]
        path = write_lines(folder / "rows", part)
        (folder / f"c4-train.{i:05}-of-00003.json.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    rows = write_lines(folder / "rows", list(articles("validation", 60_000)))
    (folder / "c4-validation.00000-of-00001.json.gz").write_bytes(gzip.compress(rows.read_bytes()))
    rows.unlink()
    return folder


@pytest.fixture(scope="session")
def vocabulary(tmp_path_factory: pytest.TempPathFactory, corpus_slice: str) -> str:
    """A tokenizer as a file, so that the tests' caches can be empty."""
    path = tmp_path_factory.mktemp("vocabulary") / "tokenizer.json"
    path.write_bytes(tokenizer.file("bpe-2048", corpus_slice).read_bytes())
    return str(path)


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir() if p.name != "lock"}


@pytest.mark.parametrize("name", ["t5", "bpe-2048"])
def test_streams_equal_the_reference_call_document_by_document(
    name: str, c4: Path, vocabulary: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    try:
        file = tokenizer.file(name, f"path:{c4}") if name == "t5" else Path(vocabulary)
    except UserError as error:
        pytest.skip(str(error))
    monkeypatch.setenv("OPTSTUDY_CACHE", str(tmp_path))
    made = tokens.prepare(f"path:{c4}", str(file), shard_characters=SMALL)
    encoder = tokenizer.load(file)
    for split, stream in (("train", made.train), ("validation", made.validation)):
        expected = [
            i
            for document in text.documents(f"path:{c4}", split)
            for i in [*encoder.model.encode(document, add_special_tokens=False).ids, encoder.end]
        ]
        assert stream[:].tolist() == expected
        assert len(stream) == len(expected)
    assert len(made.manifest.splits["train"].shards) > 8


def test_document_boundaries_are_recorded(c4: Path, vocabulary: str, own_cache: Path) -> None:
    made = tokens.prepare(f"path:{c4}", vocabulary, shard_characters=SMALL)
    model = tokenizer.load(Path(vocabulary)).model
    documents = text.documents(f"path:{c4}", "train")
    for name in made.manifest.splits["train"].shards:
        shard = shards.open_shard(made.folder / name)
        for start, end in zip([0, *shard.ends], shard.ends, strict=False):
            assert model.decode(shard.tokens[start : end - 1].tolist()) == next(documents)
    assert next(documents, None) is None


def test_other_programs_read_the_shards(c4: Path, vocabulary: str, own_cache: Path) -> None:
    made = tokens.prepare(f"path:{c4}", vocabulary, shard_characters=SMALL)
    parts = []
    for name in made.manifest.splits["train"].shards:
        with safe_open(made.folder / name, framework="np") as file:
            parts.append(file.get_tensor("tokens"))
    assert np.array_equal(np.concatenate(parts), made.train[:])


def test_number_of_processes_changes_no_byte(
    c4: Path, vocabulary: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for jobs in (1, 2, 3):
        monkeypatch.setenv("OPTSTUDY_CACHE", str(tmp_path / str(jobs)))
        made = tokens.prepare(f"path:{c4}", vocabulary, jobs=jobs, tokens=80_000, shard_characters=SMALL)
        found.append(contents(made.folder))
    assert found[0] == found[1] == found[2]
    assert 3 < len(found[0]) - 2 < 12


def test_killed_at_random_moments_the_files_are_those_of_an_undisturbed_preparation(
    c4: Path, vocabulary: str
) -> None:
    command = [sys.executable, str(Path(__file__).with_name("killing.py")), f"path:{c4}", vocabulary, "8"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout == "the same\n", done.stderr


def test_several_at_once_make_one_set(c4: Path, vocabulary: str, own_cache: Path) -> None:
    def prepare(_: int) -> Tokens:
        return tokens.prepare(f"path:{c4}", vocabulary, shard_characters=SMALL)

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(prepare, range(4)))
    assert len({m.folder for m in made}) == 1
    assert all(m.manifest == made[0].manifest for m in made)


def test_more_tokens_extend_what_is_there(c4: Path, vocabulary: str, own_cache: Path) -> None:
    def prepare(count: int | None) -> Tokens:
        return tokens.prepare(f"path:{c4}", vocabulary, tokens=count, shard_characters=SMALL)

    few = prepare(30_000)
    kept = {p.name: p.stat().st_mtime_ns for p in few.folder.glob("train-*")}
    more = prepare(60_000)
    assert more.folder == few.folder
    assert {name: (more.folder / name).stat().st_mtime_ns for name in kept} == kept
    whole = prepare(None)
    assert (len(few.train), len(more.train)) == (30_000, 60_000)
    assert np.array_equal(few.train[:], whole.train[:30_000])
    assert np.array_equal(more.train[:], whole.train[:60_000])
    assert len(prepare(30_000).train) == 30_000
    with pytest.raises(
        UserError, match=rf"has {len(whole.train):,} training tokens .*, not 1,000,000,000,000"
    ):
        prepare(10**12)
    every = tokens.prepare(f"path:{c4}", vocabulary, tokens=10**12, fewer=True, shard_characters=SMALL)
    assert len(every.train) == len(whole.train) == len(prepare(len(whole.train)).train)
    with pytest.raises(UserError, match="ask for fewer"):
        prepare(len(whole.train) + 1)


def test_whole_set_needs_neither_text_nor_encoding(
    c4: Path, vocabulary: str, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tokens.prepare(f"path:{c4}", vocabulary, shard_characters=SMALL)
    monkeypatch.setattr(text.Corpus, "read", None)
    monkeypatch.setattr(making, "make", None)
    again = tokens.prepare(f"path:{c4}", vocabulary, shard_characters=SMALL)
    assert again.manifest == first.manifest


def test_empty_documents_are_left_out_and_counted(tmp_path: Path, vocabulary: str, own_cache: Path) -> None:
    write_lines(tmp_path / "train.jsonl", ["one", "", " \n\t", "two", ""])
    write_lines(tmp_path / "validation.jsonl", ["three"])
    made = tokens.prepare(f"path:{tmp_path}", vocabulary, shard_characters=3)
    held = made.manifest.splits["train"].shards.values()
    assert (sum(h.documents for h in held), sum(h.empty for h in held)) == (2, 3)
    model = tokenizer.load(Path(vocabulary)).model
    assert model.decode(made.train[:].tolist(), skip_special_tokens=True) == "onetwo"


def test_huge_document_is_encoded_whole(
    tmp_path: Path, vocabulary: str, some_articles: list[str], own_cache: Path
) -> None:
    huge = " ".join(some_articles) * 3
    assert len(huge) > 3 * tokenizer.CHUNK
    write_lines(tmp_path / "train.jsonl", ["before", huge, "after"])
    write_lines(tmp_path / "validation.jsonl", ["three"])
    made = tokens.prepare(f"path:{tmp_path}", vocabulary)
    shard = shards.open_shard(made.folder / "train-000000.safetensors")
    first, second, _ = shard.ends.tolist()
    whole = tokenizer.load(Path(vocabulary)).model.encode(huge).ids
    same = whole == shard.tokens[first : second - 1].tolist()
    assert same


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda data: data[: len(data) // 2], "cut short"),
        (lambda data: data[:5], "no token file"),
        (lambda data: b"", "no token file"),
        (lambda data: data[:-2000] + b"\x01\x07" + data[-1998:], "wrong checksum"),
        (lambda data: data.replace(b'\\"format\\":1', b'\\"format\\":9'), "header"),
        (
            lambda data: data.replace(b'\\"vocab_size\\":2048', b'\\"vocab_size\\":2000'),
            "beyond the vocabulary",
        ),
    ],
)
def test_damaged_shard_is_found_and_made_again(
    harm: object, words: str, c4: Path, vocabulary: str, own_cache: Path
) -> None:
    made = tokens.prepare(f"path:{c4}", vocabulary, tokens=30_000, shard_characters=SMALL)
    good = contents(made.folder)
    path = made.folder / "train-000001.safetensors"
    path.write_bytes(harm(path.read_bytes()))  # type: ignore[operator]
    with pytest.raises(Damaged, match=words):
        shards.open_shard(path).check()
    tokens.prepare(f"path:{c4}", vocabulary, tokens=30_000, check=True, shard_characters=SMALL)
    assert contents(made.folder) == good


def test_missing_shard_is_named_when_it_is_read(c4: Path, vocabulary: str, own_cache: Path) -> None:
    made = tokens.prepare(f"path:{c4}", vocabulary, shard_characters=SMALL)
    (made.folder / "train-000002.safetensors").unlink()
    with pytest.raises(UserError, match=r"train-000002.safetensors: .*data prepare"):
        made.train[:]


def test_shards_of_earlier_versions_are_read(c4: Path, vocabulary: str, own_cache: Path) -> None:
    """They have the tokens before the ends; the library writes the widest numbers first."""
    made = tokens.prepare(f"path:{c4}", vocabulary, shard_characters=SMALL)
    before = made.train[:].tolist()
    for path in made.folder.glob("train-*"):
        shard = shards.open_shard(path)
        ids, ends = shard.tokens, shard.ends
        layout = {
            "__metadata__": {"header": shard.header.model_dump_json()},
            "tokens": {"dtype": "U16", "shape": [ids.size], "data_offsets": [0, ids.nbytes]},
            "ends": {
                "dtype": "U32",
                "shape": [ends.size],
                "data_offsets": [ids.nbytes, ids.nbytes + ends.nbytes],
            },
        }
        header = json.dumps(layout).encode()
        header += b" " * (-len(header) % 8)
        path.write_bytes(len(header).to_bytes(8, "little") + header + ids.tobytes() + ends.tobytes())
        shards.open_shard(path).check()
    again = tokens.prepare(f"path:{c4}", vocabulary, shard_characters=SMALL)
    assert again.train[:].tolist() == before


@pytest.mark.parametrize("content", [b"", b"{}", b"\xff", b"[" * 10_000, b'{"splits": {}}', b"5", b"null"])
def test_a_damaged_list_of_shards_is_named(
    content: bytes, c4: Path, vocabulary: str, own_cache: Path
) -> None:
    made = tokens.prepare(f"path:{c4}", vocabulary, tokens=1000, shard_characters=SMALL)
    (made.folder / "tokens.json").write_bytes(content)
    with pytest.raises(UserError, match=r"tokens\.json: cannot be read .*; delete it") as error:
        tokens.prepare(f"path:{c4}", vocabulary, tokens=1000, shard_characters=SMALL)
    assert "\n" not in str(error.value)


def test_a_list_of_shards_without_a_split_is_damaged(c4: Path, vocabulary: str, own_cache: Path) -> None:
    made = tokens.prepare(f"path:{c4}", vocabulary, tokens=1000, shard_characters=SMALL)
    manifest = json.loads((made.folder / "tokens.json").read_text())
    del manifest["splits"]["validation"]
    (made.folder / "tokens.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="cannot be read"):
        tokens.prepare(f"path:{c4}", vocabulary, tokens=1000, shard_characters=SMALL)


def test_shard_of_another_size_than_listed_is_named(c4: Path, vocabulary: str, own_cache: Path) -> None:
    made = tokens.prepare(f"path:{c4}", vocabulary, shard_characters=SMALL)
    first, second = (made.folder / f"train-00000{i}.safetensors" for i in (1, 2))
    second.write_bytes(first.read_bytes())
    with pytest.raises(UserError, match=r"train-000002.safetensors: not as many tokens"):
        made.train[:]


def test_text_that_changes_while_it_is_tokenised_makes_no_set(
    tmp_path: Path, vocabulary: str, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_lines(tmp_path / "a.jsonl", ["one", "two", "three"])
    make = making.make

    def disturbed(*arguments: object) -> object:
        write_lines(path, ["one", "two", "other"])
        return make(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(making, "make", disturbed)
    with pytest.raises(UserError, match="changed while they were read"):
        tokens.prepare(f"path:{path}", vocabulary)
    assert not list((own_cache / "tokens").rglob("tokens.json"))


def test_id_beyond_the_vocabulary_is_found_whatever_the_header_says(tmp_path: Path) -> None:
    path = tmp_path / "shard"
    facts = {"recipe": "", "split": "train", "number": 0, "start": (0, 0, 0), "stop": (0, 1, 1), "empty": 0}
    ids, ends = np.array([1, 500, 2], dtype=np.uint16), np.array([3], dtype=np.uint32)
    path.write_bytes(shards.pack(ids, ends, vocab_size=500, characters=9, **facts)[1])
    with pytest.raises(Damaged, match="token 500 is beyond the vocabulary of 500"):
        shards.open_shard(path)
    path.write_bytes(path.read_bytes().replace(b'\\"max_id\\":500', b'\\"max_id\\":499'))
    with pytest.raises(Damaged, match="token 500 is beyond the vocabulary of 500"):
        shards.open_shard(path).check()


@pytest.mark.timeout(100)
def test_a_script_without_a_main_guard_is_told_instead_of_waiting_for_itself(
    tmp_path: Path, vocabulary: str, own_cache: Path
) -> None:
    corpus = f"path:{write_lines(tmp_path / 'a.jsonl', ['one', 'two', 'three'])}"
    script = tmp_path / "script.py"
    script.write_text(
        "from optstudy.data import tokens\n"
        f"tokens.prepare({corpus!r}, {vocabulary!r}, jobs=2, progress=False)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "only under: if __name__ == '__main__'" in done.stderr.splitlines()[-1]


def test_error_in_the_text_leaves_nothing_that_is_trusted(
    tmp_path: Path, vocabulary: str, own_cache: Path
) -> None:
    path = write_lines(tmp_path / "train.jsonl", [f"document {i}" for i in range(100)])
    write_lines(tmp_path / "validation.jsonl", ["three"])
    good = path.read_bytes()
    path.write_bytes(good + b"{broken\n")
    for jobs in (1, 2):
        with pytest.raises(UserError, match="line 101"):
            tokens.prepare(f"path:{tmp_path}", vocabulary, jobs=jobs, shard_characters=100)
    assert not list((own_cache / "tokens").rglob("tokens.json"))
    path.write_bytes(good)
    made = tokens.prepare(f"path:{tmp_path}", vocabulary, shard_characters=100)
    assert sum(h.documents for h in made.manifest.splits["train"].shards.values()) == 100


def test_corpus_of_one_document_has_no_validation_split(
    tmp_path: Path, vocabulary: str, own_cache: Path
) -> None:
    write_lines(tmp_path / "a.jsonl", ["alone"])
    with pytest.raises(UserError, match="validation split holds no text"):
        tokens.prepare(f"path:{tmp_path}", vocabulary)


def test_large_corpus_is_not_taken_whole() -> None:
    with pytest.raises(UserError, match="c4 is too large to take whole"):
        tokens.prepare("c4", "t5")


def test_stream_is_one_array_over_its_shards(c4: Path, vocabulary: str, own_cache: Path) -> None:
    made = tokens.prepare(f"path:{c4}", vocabulary, shard_characters=SMALL)
    paths = [made.folder / name for name in made.manifest.splits["train"].shards]
    whole = np.concatenate([shards.open_shard(path).tokens for path in paths])
    rng = random.Random(0)
    for limit in (None, len(whole) // 3):
        stream = ShardedStream(
            paths, [h.tokens for h in made.manifest.splits["train"].shards.values()], limit
        )
        expected = whole[:limit]
        assert len(stream) == len(expected)
        for _ in range(300):
            start, stop = sorted(rng.randrange(-10, len(whole) + 10) for _ in range(2))
            step = rng.choice([None, 1, 3])
            assert np.array_equal(stream[start:stop:step], expected[start:stop:step])
