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
from contextlib import suppress
from pathlib import Path

from optstudy.data import shards, tokens


def contents(cache: Path) -> dict[str, bytes]:
    """What a finished preparation left, by file name."""
    [folder] = (cache / "tokens").iterdir()
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "lock"}


def compare(found: dict[str, bytes], expected: dict[str, bytes]) -> None:
    """Name the files that differ."""
    differ = {name for name in found | expected if found.get(name) != expected.get(name)}
    assert not differ, differ


def start(cache: Path, jobs: int, writes: int | None = None) -> int:
    """Prepare in a child process, which dies in the midst of its ``writes``-th write; return its id."""
    child = os.fork()
    if child:
        return child
    if writes is not None:
        left = iter(range(writes - 1))
        os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL) if next(left, None) is None else None
    os.environ["OPTSTUDY_CACHE"] = str(cache)
    tokens.prepare(*sys.argv[1:3], tokens=110_000, jobs=jobs, shard_characters=20_000)
    os._exit(0)


def finish(cache: Path, jobs: int) -> float:
    """Let a preparation end; return its seconds."""
    began = time.monotonic()
    _, status = os.waitpid(start(cache, jobs), 0)
    assert status == 0
    return time.monotonic() - began


def kill(cache: Path, jobs: int, seconds: float) -> tuple[bool, list[int]]:
    """Kill a preparation after some seconds; say whether it was still at work.

    Its worker processes are stopped where they are, and returned: :func:`go_on` lets them outlive it.
    """
    child = start(cache, jobs)
    time.sleep(seconds)
    workers = [int(pid) for pid in Path(f"/proc/{child}/task/{child}/children").read_text().split()]
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status), workers


def go_on(workers: list[int]) -> None:
    """Let stopped processes go on, and wait for their end."""
    for pid in workers:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    while any(alive(pid) for pid in workers):
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """Say whether a process has not ended; one that waits to be reaped has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def main(folder: Path, wanted: int) -> None:
    """Compare every preparation that ends with one that nobody disturbed."""
    durations = {jobs: finish(folder / f"undisturbed-{jobs}", jobs) for jobs in (1, 2)}
    expected = contents(folder / "undisturbed-1")
    assert contents(folder / "undisturbed-2") == expected
    killed_while_writing(folder / "writing", expected)
    killed_at_random(folder / "disturbed", expected, durations, wanted)


def killed_while_writing(cache: Path, expected: dict[str, bytes]) -> None:
    """Let each preparation write one file and die in the midst of the second."""
    for _ in expected:
        _, status = os.waitpid(start(cache, 1, writes=2), 0)
        assert os.WIFSIGNALED(status)
    finish(cache, 1)
    compare(contents(cache), expected)


def killed_at_random(
    cache: Path, expected: dict[str, bytes], durations: dict[int, float], wanted: int
) -> None:
    """Kill at random moments; workers go on when the next preparation has ended or been killed."""
    rng = random.Random(0)
    kills = 0
    orphans: list[int] = []
    while kills < wanted:
        jobs = rng.choice((1, 1, 1, 2))
        killed, workers = kill(cache, jobs, rng.random() * durations[jobs])
        go_on(orphans)
        orphans = workers
        if killed:
            kills += 1
            for shard in cache.rglob("train-*.safetensors"):
                shards.open_shard(shard).check()
        else:
            finish(cache, 1)
            go_on(orphans)
            compare(contents(cache), expected)
            shutil.rmtree(cache)
    finish(cache, 1)
    go_on(orphans)
    compare(contents(cache), expected)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(name), int(sys.argv[3]))
    sys.stdout.write("the same\n")
