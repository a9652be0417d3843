"""Speed and memory of the data path: encoding, preparing, loading.

    python benchmarks/data.py

encodes enwik8 with the T5 tokenizer, with ``tokenizers`` alone and with ``optstudy data prepare`` (in turn,
the best of three each, on two cores), prepares a document of 50 MB, and reads batches.
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from optstudy import cache
from optstudy.data import text, tokenizer, tokens
from optstudy.data.batches import Batches

CORES = 2
ROUNDS = 3


def batch_encoding(documents: Sequence[str], model: Tokenizer) -> float:
    """Seconds of ``encode_batch``, in groups that fit into memory; its threads use all cores."""
    began = time.perf_counter()
    for start in range(0, len(documents), 500):
        for encoding in model.encode_batch(documents[start : start + 500]):
            encoding.ids  # noqa: B018  # what anyone would read
    return time.perf_counter() - began


def preparation(corpus: str, name: str) -> float:
    """Seconds of a preparation with an empty token cache, with worker processes started."""
    with tempfile.TemporaryDirectory() as own:
        for shared in ("enwik8", "tokenizers"):
            (Path(own) / shared).symlink_to(cache.folder(shared))
        os.environ["OPTSTUDY_CACHE"] = own
        began = time.perf_counter()
        tokens.prepare(corpus, name, progress=False, jobs=CORES)
        seconds = time.perf_counter() - began
        del os.environ["OPTSTUDY_CACHE"]
    return seconds


def peak_of(corpus: str, name: str) -> tuple[float, float]:
    """Seconds of a preparation, and the peak memory of its processes in MB."""
    with tempfile.TemporaryDirectory() as own:
        (Path(own) / "tokenizers").symlink_to(cache.folder("tokenizers"))
        command = [sys.executable, __file__, "--prepare", corpus, name]
        environment = os.environ | {"OPTSTUDY_CACHE": own}
        began = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    return time.perf_counter() - began, float(done.stdout)


def loading(made: tokens.Tokens, batch_size: int, length: int) -> float:
    """Tokens per second of random batches."""
    batches = Batches(made.train, length, batch_size, seed=0)
    steps = 200
    began = time.perf_counter()
    for step in range(steps):
        batches[step]
    return steps * batch_size * length / (time.perf_counter() - began)


def main() -> None:
    """Measure and report."""
    documents = [d for split in text.SPLITS for d in text.documents("enwik8", split)]
    model = tokenizer.load(tokenizer.file("t5", "enwik8")).model
    made = tokens.prepare("enwik8", "t5")
    count = sum(split.tokens for split in made.manifest.splits.values())
    pairs = [(batch_encoding(documents, model), preparation("enwik8", "t5")) for _ in range(ROUNDS)]
    alone, ours = (min(column) for column in zip(*pairs, strict=True))
    report(f"tokenizers.encode_batch alone   {count / alone / 1e6:8.2f} M tokens/s")
    report(f"optstudy data prepare           {count / ours / 1e6:8.2f} M tokens/s   {alone / ours:.0%} of it")
    with tempfile.TemporaryDirectory() as folder:
        huge = " ".join(documents)[:50_000_000]
        rows = [{"text": t} for t in ("before", "second", huge)]
        (Path(folder) / "huge.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        for label, corpus in (("enwik8, 73 MB", None), ("one document of 50 MB", f"path:{folder}")):
            if corpus is None:
                corpus = f"path:{cache.folder('enwik8') / 'train-1.jsonl'}"
            seconds, peak = peak_of(corpus, "t5")
            report(f"{label:<31} {seconds:8.1f} s, peak of all processes {peak:,.0f} MB")
    for batch_size, length in ((256, 512), (32, 512), (16, 64)):
        speed = loading(made, batch_size, length)
        report(f"batches of {batch_size:3} x {length:3}            {speed / 1e6:8.1f} M tokens/s")


def report(line: str) -> None:
    """Write a line immediately."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def prepare_and_tell(corpus: str, name: str) -> None:
    """Started by ``peak_of``: prepare, and write the peak of all processes' resident memory in MB."""
    done = threading.Event()
    samples = [0.0]

    def watch() -> None:
        while not done.wait(0.02):
            samples.append(sum(map(resident, [os.getpid(), *children()])))

    watcher = threading.Thread(target=watch)
    watcher.start()
    tokens.prepare(corpus, name, progress=False, jobs=CORES)
    done.set()
    watcher.join()
    report(str(max(samples)))


def children() -> list[int]:
    """Process ids of this process's children."""
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def resident(pid: int) -> float:
    """Resident memory in MB, including shared pages; 0 if the process is gone."""
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 1e6
    except OSError:
        return 0.0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--prepare"]:
        prepare_and_tell(*sys.argv[2:])
    else:
        main()
