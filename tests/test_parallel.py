"""Several processes that train together do what one does: losses, state, checkpoints, and how they end."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from optstudy.launch import attempts
from optstudy.recipes import OPTIMIZERS
from optstudy.record import read_json, read_result
from optstudy.training.train import train
from tests import oracles, several
from tests.configs import TINY, folder_of, losses, tiny_on
from tests.several import HALF, STEPS, end, job, start, together

UNEVEN = {
    "model.d_model": 6,
    "model.n_heads": 1,
    "model.vocab_size": 2050,
    "training.batch_size": 8,
    "validation.sequences": 7,
}
"""Shapes that two or four processes cannot share equally: one may even hold no row of a norm."""
MIXED = {
    "torch.optim.AdamW": {"optimizer.name": "torch.optim.AdamW", "optimizer.options": {"eps": 1e-8}},
    "two classes": {"optimizer.name": "adafactor", "optimizer.roles": {"head": {"name": "lion", "lr": 1e-3}}},
    "micro-batches": {"optimizer.name": "sophia", "training.micro_batch_size": 1},
}


def settings(name):
    """A recipe with everything on that it can do."""
    own = MIXED.get(name, {"optimizer.name": name})
    recipe = own["optimizer.name"]
    # In float32 Sophia, which draws labels and clips, makes one part in 10^7 one in 10^4 within a few steps.
    exact = {"training.precision": "float64"} if recipe == "sophia" else {}
    spec = OPTIMIZERS.get(recipe)
    divides = spec is not None and spec.target.rpartition(".")[2] in (
        "Adam", "Adafactor", "Adalayer", "Preconditioned"
    )  # fmt: skip
    return {
        **UNEVEN,
        **exact,
        "training.hessian_interval": 3,
        "training.effective_lr": divides and name not in MIXED,
        **({"schedule.freeze_steps": 5} if recipe.startswith("frozen") else {}),
        **({"optimizer.options": {"min_dim": 4}} if recipe == "adafactor_bigvision" else {}),
        **own,
    }


EVERY = [*OPTIMIZERS, *MIXED]
KINDS = [
    "adam", "adafactor_bigvision", "adalayer_star", "lion", "sgdw", "frozen_keep_last", "slim_adam",
    "adam_mini", *MIXED,
]  # fmt: skip
"""One of each rule, granularity and kind of recipe; the long tests have all."""
SOME = ["hybrid_adafactor_last_norm", *MIXED]
RESUMED = ["adafactor", "adalayer_star", "sophia", *MIXED]
ODD = [
    *(several.odd_job("Preconditioned", second_moment=kind, weight_decay=0.1) for kind in (
        "weight", "factored", "factored-textbook", "tensor", "row", "column", "split-3", "none",
        "tensor-printed", "row-printed",
    )),
    several.odd_job("Adalayer", estimate_steps=2, freeze=True),
    several.odd_job("Preconditioned", second_moment="split-3", estimate_steps=2, freeze=True),
    *(several.odd_job("Adalayer", shapes, layout, second_moment=kind) for kind, layout, shapes in (
        ("split-4-2-1", "", ((7, 3), (14, 5), (7,), (21, 2))),
        ("tensor", "columns", ((5, 6), (3, 4), (1, 3))), ("row", "columns", ((5, 6), (1, 3))),
        ("split-3", "columns", ((5, 6), (1, 3), (4, 12))), ("split-4-2-1", "columns", ((5, 7), (3, 14))),
        ("tensor", "experts", ((3, 4, 5), (5, 2, 6), (3, 4))), ("row", "experts", ((3, 4, 5), (3, 4))),
        ("split-2", "experts", ((3, 4, 5), (5, 2, 6), (3, 4))),
        ("split-1-1", "experts-columns", ((3, 5, 4), (5, 2, 6), (3, 4))),
        ("row", "experts-columns", ((3, 5, 4), (3, 4))), ("factored", "experts", ((3, 4, 5), (3, 4))),
    )),
    several.odd_job("AdafactorBigVision", min_dim=2),
    several.odd_job("SGDW", momentum=0.9, dampening=0.1, maximize=True),
    several.odd_job("Lion", weight_decay=0.1),
    several.odd_job("Signum"),
    several.odd_job("Sophia", batch_tokens=100),
]  # fmt: skip


def recipes(corpus, how, names, **own):
    return [tiny_on(corpus, **{**settings(name), "training.parallel": how, **own}) for name in names]


SIZES = {**TINY["model"], "vocab_size": 67, "d_model": 12, "n_heads": 3}
"""Two processes cut a head of the fused q, k and v in two."""
LATER = [several.recipe_job(name, SIZES) for name in ("slim_adam", "adam_mini", "scale_like")]


def assert_later_recipes_are_their_restatements(results):
    """In float64, from weights and gradients that are the same whatever the number of processes."""
    for job_, found in zip(LATER, results, strict=True):
        for name, after in found["after"].items():
            before, *gradients = map(np.asarray, (found["before"][name], *found["gradients"][name]))
            role, heads = found["roles"][name], job_["model"]["n_heads"]
            expected = oracles.of_a_later_paper(job_["recipe"], role, before, gradients, 1e-2, heads)
            np.testing.assert_allclose(after, expected, rtol=1e-12, atol=1e-12, err_msg=name)


def halves(configs, folder):
    return [job(config, 0, HALF, save=folder / str(i)) for i, config in enumerate(configs)]


def rests(configs, folder):
    return [job(config, HALF, STEPS, load=folder / str(i)) for i, config in enumerate(configs)]


def split(results, *lists):
    starts = [sum(map(len, lists[:i])) for i in range(len(lists))]
    return [results[start : start + len(own)] for start, own in zip(starts, lists, strict=True)]


def assert_agree(configs, results, alone, first=0):
    """Compare runs, the one process's from step ``first`` on."""
    for config, many, one in zip(configs, results, alone, strict=True):
        what = (config.optimizer.name, config.training.parallel)
        assert many["losses"] == pytest.approx(one["losses"][first:], rel=1e-5), what
        assert many["val_loss"] == pytest.approx(one["val_loss"], rel=1e-5), what
        assert many["norms"] == pytest.approx(one["norms"][first:], rel=1e-4), what
        assert many["state_bytes_per_param"] == one["state_bytes_per_param"], what
        assert many["probed"].keys() == one["probed"].keys(), what
        for role, quantiles in one["probed"].get("effective_lr", {}).items():
            assert many["probed"]["effective_lr"][role] == pytest.approx(quantiles, rel=1e-3), (what, role)


def assert_odd_shapes_agree(results, alone):
    """In float64, where a mean over the wrong rows cannot hide behind rounding."""
    for job_, many, one in zip(ODD, results, alone, strict=True):
        for a, b in zip(many["weights"], one["weights"], strict=True):
            assert a == pytest.approx(b, rel=1e-9, abs=1e-12), job_
        for a, b in zip(many["state"], one["state"], strict=True):
            assert a.keys() == b.keys(), job_
            for name in a:
                assert a[name] == pytest.approx(b[name], rel=1e-9, abs=1e-12), (job_, name)


@pytest.mark.timeout(900)
def test_two_processes_do_what_one_does_and_resume_what_one_or_two_saved(corpus_slice, tmp_path):
    """One test, for processes are slow to start: recipes, odd shapes, and checkpoints both ways."""
    configs = recipes(corpus_slice, "fsdp", KINDS) + recipes(corpus_slice, "ddp", SOME)
    resumed = recipes(corpus_slice, "fsdp", RESUMED) + recipes(corpus_slice, "ddp", RESUMED[:1])
    of_one, of_two = tmp_path / "one", tmp_path / "two"
    of_one.mkdir()
    of_two.mkdir()
    jobs = [*map(job, configs), *map(job, resumed), *ODD]
    alone = split(together(1, [*jobs, *halves(resumed, of_one)], tmp_path), configs, resumed, ODD, resumed)
    more = [*halves(resumed, of_two), *rests(resumed, of_two), *rests(resumed, of_one), *LATER]
    lists = (configs, resumed, ODD, resumed, resumed, resumed, LATER)
    two = split(together(2, [*jobs, *more], tmp_path), *lists)
    assert_later_recipes_are_their_restatements(two[6])
    assert_agree(configs, two[0], alone[0])
    assert_odd_shapes_agree(two[2], alone[2])
    for undisturbed, rest in zip(two[1], two[4], strict=True):
        assert undisturbed["losses"][HALF:] == rest["losses"]
        assert undisturbed["weights_sha256"] == rest["weights_sha256"]
    assert_agree(resumed, two[5], alone[1], first=HALF)
    assert_agree(resumed, together(1, rests(resumed, of_two), tmp_path), alone[1], first=HALF)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_four_processes_agree_and_their_checkpoints_resume_on_two_and_then_on_one(corpus_slice, tmp_path):
    configs = recipes(corpus_slice, "fsdp", EVERY) + recipes(corpus_slice, "ddp", EVERY)
    folders = {k: tmp_path / str(k) for k in (4, 2, 1)}
    for folder in folders.values():
        folder.mkdir()

    def stretch(start, stop, source, target):
        ways = ({"load": source} if source else {}) | ({"save": target} if target else {})
        return [
            job(config, start, stop, **{way: folder / str(i) for way, folder in ways.items()})
            for i, config in enumerate(configs)
        ]

    alone = together(1, [*map(job, configs)], tmp_path)
    four = together(4, [*map(job, configs), *stretch(0, 4, None, folders[4])], folders[4])
    assert_agree(configs, four[: len(configs)], alone)
    two = together(2, stretch(4, 8, folders[4], folders[2]), folders[2])
    one = together(1, stretch(8, STEPS, folders[2], None), folders[1])
    joined = [
        {**last, **{key: a[key] + b[key] + last[key] for key in ("losses", "norms")}}
        for a, b, last in zip(four[len(configs) :], two, one, strict=True)
    ]
    assert_agree(configs, joined, alone)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_compiled_steps_over_parts_of_odd_shapes_are_those_over_the_whole(tmp_path):
    jobs = [{**j, "options": {**j["options"], "compile": True}} for j in ODD]
    compiled = together(2, jobs, tmp_path, warnings="error:optimizer steps are not compiled")
    for many, one in zip(compiled, together(1, ODD, tmp_path), strict=True):
        for a, b in zip(many["weights"], one["weights"], strict=True):
            assert a == pytest.approx(b, rel=1e-12, abs=1e-12)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_compiled_runs_on_two_processes_do_what_plain_ones_do_on_one(corpus_slice, tmp_path, monkeypatch):
    names = ["adam", "adalayer_star", "sophia"]
    exact = {"training.precision": "float64"}
    configs = recipes(corpus_slice, "fsdp", names, **exact) + recipes(corpus_slice, "ddp", names, **exact)
    alone = together(1, [*map(job, configs)], tmp_path)
    monkeypatch.setenv("OPTSTUDY_COMPILE", "1")
    compiled = together(2, [*map(job, configs)], tmp_path, warnings="error:training steps are not compiled")
    assert_agree(configs, compiled, alone)


def test_stopped_by_a_signal_to_any_process_a_run_goes_on_under_torchrun(corpus_slice, tmp_path):
    settings = {"training.parallel": "fsdp", "training.steps": 80, "training.precision": "float64"}
    config = tiny_on(corpus_slice, **settings)
    undisturbed = folder_of(config, tmp_path / "undisturbed")
    train(undisturbed, device="cpu")
    folder = folder_of(config, tmp_path)
    command = ["-m", "optstudy", "train", str(folder), "--device", "cpu"]
    processes = start(2, command)
    while len(losses(folder)) < 3 and processes[0].poll() is None:
        time.sleep(0.01)
    processes[1].send_signal(signal.SIGTERM)
    codes, said = end(processes)
    assert codes == [75, 75] and "with a checkpoint" in said[0] and said[1] == ""
    assert attempts.read(folder)[-1]["code"] == 75
    assert len(list((folder / "checkpoints").iterdir())) == 1 and read_result(folder) is None
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    ended = subprocess.run([sys.executable, *torchrun, *command], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("done at step 80") == 1
    for (step, *found), (other_step, *expected) in zip(losses(folder), losses(undisturbed), strict=True):
        assert step == other_step
        assert [x or 0.0 for x in found] == pytest.approx([x or 0.0 for x in expected], rel=1e-5)
    assert read_json(folder / "env.json")["processes"] == 2
    files = {"attempts.jsonl", *(path.name for path in undisturbed.iterdir())}
    assert {path.name for path in folder.iterdir()} == files


LATE = """
import sys, time
import torch
from torch import distributed as dist
from optstudy.ending import end
from optstudy.training.parallel import joined

with joined() as ranks:
    group = dist.group.WORLD
    if ranks.first:
        time.sleep(0.5)
    dist.all_reduce(torch.ones(1), async_op=not ranks.first)
if not ranks.first:
    sys.setswitchinterval(1000)
    until = time.monotonic() + 1
    while time.monotonic() < until:
        pass
end(7)
"""
"""Its second process ends while a thread of gloo waits for Python's lock, to let go of a tensor."""


def test_a_thread_that_still_holds_a_tensor_does_not_abort_the_end():
    codes, said = end(start(2, ["-c", LATE]))
    assert (codes, said) == ([7, 7], ["", ""])


def test_every_process_ends_a_diverged_run_as_such_and_a_mistake_is_told_once(corpus_slice, tmp_path):
    wild = {
        "optimizer.name": "sgdw",
        "optimizer.lr": 1e30,
        "training.clip_norm": None,
        "model.qk_norm": False,
    }
    folder = folder_of(tiny_on(corpus_slice, **wild), tmp_path)
    codes, said = end(start(2, ["-m", "optstudy", "train", str(folder), "--device", "cpu"]))
    assert codes == [3, 3], said
    assert read_result(folder)["state"] == "diverged"
    codes, said = end(start(2, ["-m", "optstudy", "train", str(tmp_path / "empty.yaml")]))
    assert codes == [2, 0] and "empty.yaml" in said[0] and said[1] == ""
