"""The config is strict, complete and hashed by what decides the result."""

import json

import pytest
from pydantic import ValidationError

from optstudy.config import RunConfig, merge, resolve
from optstudy.errors import UserError
from tests.configs import TINY, tiny


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("optimizr.lr", 1.0, "unknown key 'optimizr'; did you mean 'optimizer'?"),
        ("training.stps", 3, "unknown key 'training.stps'; did you mean 'steps'?"),
        ("optimizer.lr", -1.0, "optimizer.lr: input should be greater than 0, not -1.0"),
        ("optimizer.lr", float("nan"), "optimizer.lr: input should be a finite number, not nan"),
        ("optimizer.lr", float("inf"), "optimizer.lr: input should be a finite number, not inf"),
        ("optimizer.lr", True, "optimizer.lr: input should be a valid number, not True"),
        ("optimizer.name", "adm", "did you mean 'adam'?"),
        ("optimizer.options", {"betsa": [0.9, 0.9]}, "did you mean 'betas'?"),
        ("training.steps", "20", "training.steps: input should be a valid integer, not '20'"),
        ("training.steps", 0, "training.steps: input should be greater than 0, not 0"),
        ("model.n_heads", 3, "d_model (8) must be n_heads (3) times an even one"),
        ("training.precision", "float16", "training.precision: input should be 'float32'"),
        ("data", 3, "data: must be a mapping of keys to values, not 3"),
    ],
)
def test_a_wrong_value_is_named_with_what_was_allowed(key, value, said):
    with pytest.raises(UserError) as error:
        resolve(TINY, {key: value})
    assert said in str(error.value) and "\n" not in str(error.value)


def test_every_wrong_key_is_named_at_once():
    with pytest.raises(UserError) as error:
        resolve(TINY, {"seeed": 1, "optimizer.lr": -1.0})
    assert "did you mean 'seed'?" in str(error.value) and "optimizer.lr" in str(error.value)


def test_a_config_is_frozen():
    with pytest.raises(ValidationError):
        tiny().seed = 1


def test_what_is_recorded_is_complete_and_reads_back_to_the_same_id():
    config = tiny()
    recorded = json.loads(json.dumps(config.model_dump(mode="json")))
    assert RunConfig.model_validate(recorded) == config
    assert recorded["optimizer"]["options"] == {
        "betas": [0.9, 0.95],
        "eps": 1e-15,
        "second_moment": "weight",
        "estimate_steps": 0,
        "freeze": False,
    }
    assert recorded["schedule"]["warmup"] == 0.1 and recorded["training"]["clip_norm"] == 1.0


def test_layers_merge_by_dotted_keys_and_later_ones_win():
    merged = merge({"a": {"b": 1, "c": 2}}, {"a.b": 3}, {"a": {"d": {"e": 4}}}, {"a.d.f": 5})
    assert merged == {"a": {"b": 3, "c": 2, "d": {"e": 4, "f": 5}}}


def test_merging_changes_no_layer():
    first = {"a": {"b": 1}}
    merge(first, {"a.b": 2})
    assert first == {"a": {"b": 1}}


def test_keys_below_a_plain_value_are_refused_and_not_put_in_its_place():
    for first in ({"optimizer.options": [1]}, {"optimizer": {"options": 0}}):
        with pytest.raises(UserError, match="options must be a mapping, not"):
            merge(first, {"optimizer.options.eps": 1e-8})
    assert merge({"a": None}, {"a.b": 1}) == {"a": {"b": 1}}
