"""Prepares a token set again and again, killed at random moments, until it has been killed so many times.

    python killing.py CORPUS TOKENIZER KILLS

Run by ``test_tokens.py`` as a process of its own: it forks before anything has started a thread.
"""

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from optstudy import tokens
from optstudy.tokenizing import shards


def contents(cache: Path) -> dict[str, bytes]:
    """What a finished preparation left, by file name."""
    [folder] = (cache / "tokens").iterdir()
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "lock"}


def start(cache: Path, jobs: int) -> int:
    """Prepare in a child process; return its id."""
    child = os.fork()
    if child:
        return child
    os.environ["OPTSTUDY_CACHE"] = str(cache)
    tokens.prepare(*sys.argv[1:3], tokens=110_000, jobs=jobs, shard_characters=20_000)
    os._exit(0)


def finish(cache: Path, jobs: int) -> float:
    """Let a preparation end; return its seconds."""
    began = time.monotonic()
    _, status = os.waitpid(start(cache, jobs), 0)
    assert status == 0
    return time.monotonic() - began


def kill(cache: Path, jobs: int, seconds: float) -> bool:
    """Kill a preparation after some seconds; say whether it was still at work."""
    child = start(cache, jobs)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def main(folder: Path, wanted: int) -> None:
    """Compare every preparation that ends with one that nobody disturbed."""
    durations = {jobs: finish(folder / f"undisturbed-{jobs}", jobs) for jobs in (1, 2)}
    expected = contents(folder / "undisturbed-1")
    assert contents(folder / "undisturbed-2") == expected
    rng = random.Random(0)
    cache = folder / "disturbed"
    kills = 0
    while kills < wanted:
        jobs = rng.choice((1, 1, 1, 2))
        if kill(cache, jobs, rng.random() * durations[jobs]):
            kills += 1
            for shard in cache.rglob("train-*.safetensors"):
                shards.open_shard(shard).check()
        else:
            finish(cache, 1)
            assert contents(cache) == expected
            shutil.rmtree(cache)
    finish(cache, 1)
    assert contents(cache) == expected


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(name), int(sys.argv[3]))
    sys.stdout.write("the same\n")
