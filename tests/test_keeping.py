"""A resumed run of another's optimizer ends bitwise as an undisturbed one, whatever the optimizer keeps."""

import random
import signal
import subprocess
import sys
from contextlib import nullcontext

import numpy as np
import pytest
import torch

from optstudy.ending import Preempted
from optstudy.errors import UserError
from optstudy.record import read_json, read_result
from optstudy.training import checkpoint
from optstudy.training.run import Run
from optstudy.training.train import train
from tests import foreign
from tests.configs import folder_of, losses, tiny_on
from tests.several import job, together

CPU = torch.device("cpu")
GENERATORS = ("OfTheOptimizer", "OfTheState", "Late", "OfTheModule", "Global")


def of(corpus, name, **changes):
    return tiny_on(corpus, **{"optimizer.name": f"tests.foreign.{name}", "training.steps": 12, **changes})


def stop(row):
    if row["step"] == 6:
        signal.raise_signal(signal.SIGTERM)


def resumed(config, folder):
    """Two runs: one of eight steps, and one that took over its checkpoint of the fourth and went on."""
    first = Run(config, CPU)
    for step in range(8):
        if step == 4:
            checkpoint.save(folder, 4, first.state_dict())
        first.step(step)
    second = Run(config, CPU)
    assert second.load_state_dict(checkpoint.load(folder, CPU)) == []
    for step in range(4, 8):
        second.step(step)
    assert first.unsaved() == second.unsaved() == []
    return first, second


@pytest.mark.parametrize("name", ["Hoarder", "Averaging", *GENERATORS])
def test_a_resumed_run_ends_bitwise_as_an_undisturbed_one(corpus_slice, tmp_path, name):
    first, second = resumed(of(corpus_slice, name), tmp_path)
    assert first.weights_sha256() == second.weights_sha256()


def test_so_it_does_from_one_process_to_the_next(corpus_slice, tmp_path):
    roles = {"head": {"name": "tests.foreign.OfTheModule"}}
    config = of(corpus_slice, "Hoarder", **{"optimizer.roles": roles})
    undisturbed, folder = (folder_of(config, tmp_path / parent) for parent in ("undisturbed", "stopped"))
    for one, on_progress in ((undisturbed, None), (folder, stop)):
        foreign.OF_THE_MODULE.bit_generator.state = np.random.default_rng(9).bit_generator.state
        foreign.OfTheModule.of_the_class.seed(10)
        with pytest.raises(Preempted) if on_progress else nullcontext():
            train(one, on_progress=on_progress)
    command = [sys.executable, "-m", "optstudy", "train", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert read_result(folder)["weights_sha256"] == read_result(undisturbed)["weights_sha256"]
    assert losses(folder) == losses(undisturbed) and read_json(folder / "env.json")["not_saved"] == []


def test_everything_that_is_kept_comes_back_with_its_type_and_value(corpus_slice, tmp_path):
    first, second = resumed(of(corpus_slice, "Hoarder"), tmp_path)
    before, after = (list(run.optimizer.state.values()) for run in (first, second))
    before += [{"kept": group["kept"]} for group in first.optimizer.param_groups]
    after += [{"kept": group["kept"]} for group in second.optimizer.param_groups]
    assert len(before) == len(after) > 1
    for one, other in zip(before, after, strict=True):
        same(one, other)
    assert after[0]["window"].maxlen == 3 and after[0]["kept"]["deque"].maxlen == 3
    assert after[0]["kept"]["defaultdict"][99] == []


def same(one, other):
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other) and one.dtype == other.dtype
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype and np.array_equal(one, other) and other.flags.writeable
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key in one:
            same(one[key], other[key])
    elif isinstance(one, (list, tuple, foreign.collections.deque)):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            same(a, b)
    elif isinstance(one, (foreign.Note, foreign.Projector)):
        same(vars(one), vars(other))
    else:
        assert one == other


def test_a_generator_in_several_places_is_one_again(corpus_slice, tmp_path):
    _, second = resumed(of(corpus_slice, "OfTheState"), tmp_path)
    shared = second.optimizer.shared
    states = second.optimizer.state.values()
    assert {id(state["shared"]) for state in states} == {id(shared)}
    assert {id(group["shared"]) for group in second.optimizer.param_groups} == {id(shared)}
    assert len({id(state["own"]) for state in states}) == len(states)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "Unkept",
            "optimizer Unkept: state.0.thing.0 is of tests.foreign.Thing, which no checkpoint can hold",
        ),
        ("UnkeptInAGroup", "optimizer UnkeptInAGroup: param_groups.0.thing is of function"),
    ],
)
def test_what_no_checkpoint_can_hold_is_refused_after_the_first_step(corpus_slice, tmp_path, name, said):
    folder = folder_of(of(corpus_slice, name), tmp_path)
    with pytest.raises(UserError, match=said) as refused:
        train(folder)
    assert "\n" not in str(refused.value) and len(losses(folder)) == 1  # the validation before it


def test_a_container_that_holds_itself_is_refused(corpus_slice):
    run = Run(of(corpus_slice, "Descent"), CPU)
    run.optimizer.param_groups[0]["loop"] = loop = []
    loop.append(loop)
    with pytest.raises(Exception, match="no checkpoint can hold"):
        run.unsaved()


def test_what_draws_and_cannot_be_saved_is_named_once_and_in_the_record(corpus_slice, tmp_path, capsys):
    folder = folder_of(of(corpus_slice, "Unsaved"), tmp_path)
    with pytest.raises(Preempted):
        train(folder, on_progress=stop)
    said = capsys.readouterr().err
    assert said.count("will not continue bitwise") == said.count("\n") == 1
    assert "numbers" in said and "made" in said and len(read_json(folder / "env.json")["not_saved"]) == 2
    train(folder)
    assert capsys.readouterr().err.count("bitwise") == 1
    assert len(read_json(folder / "env.json")["not_saved"]) == 2


@pytest.mark.long
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_tensors_in_containers_are_whole_in_a_checkpoint_and_spread_again(corpus_slice, tmp_path, parallel):
    config = of(corpus_slice, "Averaging", **{"training.parallel": parallel, "training.precision": "float64"})
    (alone,) = together(1, [job(config, 0, 8)], tmp_path)
    (first,) = together(2, [job(config, 0, 4, save=tmp_path / "0")], tmp_path)
    (second,) = together(2, [job(config, 4, 8, load=tmp_path / "0")], tmp_path)
    assert first["losses"] + second["losses"] == pytest.approx(alone["losses"], rel=1e-6)
    assert second["val_loss"] == pytest.approx(alone["val_loss"], rel=1e-9)
    (one,) = together(1, [job(config, 4, 8, load=tmp_path / "0")], tmp_path)
    assert one["losses"] == pytest.approx(second["losses"], rel=1e-6)


def test_a_checkpoint_of_an_older_version_is_read(corpus_slice, tmp_path):
    config = tiny_on(corpus_slice)
    first, second = (Run(config, CPU) for _ in range(2))
    first.step(0)
    state = first.state_dict()
    for newer in ("beside", "python_rng", "numpy_rng"):
        del state[newer]
    checkpoint.save(tmp_path, 1, state)
    assert second.load_state_dict(checkpoint.load(tmp_path, CPU)) == []
    assert first.weights_sha256() == second.weights_sha256()
    first.step(1), second.step(1)
    assert first.weights_sha256() == second.weights_sha256()


def test_optimizers_of_this_package_are_not_searched(corpus_slice, tmp_path):
    folder = folder_of(tiny_on(corpus_slice, **{"watch.norms": True}), tmp_path)
    random.seed(5)
    train(folder)
    assert read_json(folder / "env.json")["not_saved"] == []
