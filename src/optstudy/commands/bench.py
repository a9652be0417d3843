"""``optstudy bench optim`` and ``optstudy bench train``."""

import json
import sys
from collections.abc import Sequence
from typing import Any

from optstudy.bench import optim as bench_optim
from optstudy.bench import train as bench_train
from optstudy.commands.launching import at_least_one
from optstudy.commands.options import Json, known_device
from optstudy.commands.tables import show_table
from optstudy.ending import DONE


def optim(
    *,
    rounds: int = bench_optim.ROUNDS,
    peers: bool = True,
    device: str = "auto",
    json_: Json = False,
) -> int:
    """Time a step of every optimizer, and of installed other libraries, in one run.

    Uses the shapes of a transformer with 59 million weights. `make bench` installs the other libraries.

    Args:
        rounds: steps of each; the fastest counts.
        peers: time other libraries as well.
        device: `auto` (a GPU if there is one), `cpu` or `cuda`.
        json_: write JSON: a list of objects.
    """
    known_device(device)
    at_least_one("--rounds", rounds)
    rows = bench_optim.bench(peers, rounds, device, say=lambda line: _say(f"preparing {line}"))
    _show(bench_optim.as_json(rows), bench_optim.as_table(rows), json_)
    return DONE


def train(
    *,
    rounds: int = bench_train.ROUNDS,
    peers: bool = True,
    threads: int = 0,
    json_: Json = False,
) -> int:
    """Time training steps, compared with a plain compiled loop and Hugging Face's closest model, in one run.

    Uses three shapes on a CPU; on a GPU, the paper's 150m model with its global batch size.

    Args:
        rounds: steps of each; the fastest counts.
        peers: time the other two as well.
        threads: CPU threads of each; 0: all.
        json_: write JSON: a list of objects.
    """
    at_least_one("--rounds", rounds)
    at_least_one("--threads", threads or None)
    rows = bench_train.bench(peers, rounds, threads=threads, say=lambda line: _say(f"preparing {line}"))
    _show(bench_train.as_json(rows), bench_train.as_table(rows), json_)
    return DONE


def _show(objects: list[dict[str, Any]], lines: Sequence[Sequence[str]], json_: bool) -> None:
    if json_:
        sys.stdout.write(json.dumps(objects, indent=1) + "\n")
        return
    show_table(lines[0], lines[1:])


def _say(line: str) -> None:
    sys.stderr.write(line + "\n")
