"""The learning rate's course, at its corners and against the formula written out."""

import math

import pytest

from optstudy.errors import UserError
from optstudy.training import schedule
from tests.configs import tiny
from tests.golden_recipe import NAMES, read


def course(**settings):
    config = tiny(**settings)
    return [schedule.factor(config, step) for step in range(config.total_steps)]


def test_warm_up_starts_just_above_a_tenth_and_cosine_ends_at_a_tenth():
    factors = course(**{"training.steps": 100})
    assert factors[0] == pytest.approx(0.1 + 0.9 / 10)
    assert factors[9] == 1.0 == max(factors)
    assert factors[-1] == 0.1
    assert factors[54] == pytest.approx(0.1 + 0.9 / 2)
    assert factors[10:] == sorted(factors[10:], reverse=True)


def test_middle_of_the_course_is_the_printed_formula():
    factors = course(**{"training.steps": 200, "schedule.warmup": 0.25, "schedule.final": 0.2})
    for s in range(50, 200):
        assert factors[s - 1] == pytest.approx(0.2 + 0.8 * (1 + math.cos(math.pi * (s - 50) / 150)) / 2)
    for s in range(1, 50):
        assert factors[s - 1] == pytest.approx(0.1 + 0.9 * s / 50)


def test_no_warm_up_starts_at_the_top_of_the_cosine():
    assert course(**{"training.steps": 100, "schedule.warmup": 0.0})[0] == pytest.approx(1, abs=1e-3)


def test_of_f_frozen_steps_all_but_the_last_have_rate_0_and_the_course_follows():
    plain = course(**{"training.steps": 50})
    for freeze_steps in (1, 2, 7):
        frozen = course(**{"training.steps": 50, "schedule.freeze_steps": freeze_steps})
        assert frozen[: freeze_steps - 1] == [0.0] * (freeze_steps - 1) and frozen[freeze_steps - 1] == 0.1
        assert frozen[freeze_steps:] == plain


RELEASED = [name for name in NAMES if read(f"{name}.f64")["schedule"].get("index_offset") == 1]


@pytest.mark.parametrize("name", RELEASED)
def test_the_course_is_that_of_the_released_loop(name):
    golden = read(f"{name}.f64")
    said = golden["schedule"]
    freeze_steps = said.get("t_freeze") or 0
    steps = said["total"] - freeze_steps
    settings = {"warmup": said["warmup"] / steps, "warmup_start": said["alpha_0"], "final": said["alpha_f"]}
    settings["freeze_steps"] = freeze_steps
    factors = course(**{"training.steps": steps, "schedule": settings})
    for group in golden["groups"]:
        assert [group["peak_lr"] * f for f in factors] == pytest.approx(group["lr"], rel=1e-12)


def test_the_released_loop_is_recorded_with_and_without_a_freeze():
    assert len(RELEASED) > 1 and any("frozen" in name for name in RELEASED)


def test_linear_falls_on_a_line_and_may_end_at_zero():
    factors = course(**{"training.steps": 100, "schedule": {"kind": "linear", "final": 0.0}})
    assert factors[:10] == course(**{"training.steps": 100})[:10]  # every kind has the same warm-up
    for s in range(10, 101):
        assert factors[s - 1] == pytest.approx(1 - (s - 10) / 90, abs=1e-12)
    assert factors[-1] == 0.0


@pytest.mark.parametrize(("decay", "share"), [(None, 0.2), (0.4, 0.4), (0.9, 0.9)])
def test_wsd_stays_at_its_peak_and_falls_on_a_line_over_the_last_steps(decay, share):
    settings = {"kind": "wsd", "final": 0.1, "decay": decay}
    factors = course(**{"training.steps": 100, "schedule": settings})
    last = round(100 * share)
    for s in range(10, 101):
        assert factors[s - 1] == pytest.approx(0.1 + 0.9 * min(1, (100 - s) / last))


def test_constant_stays_and_is_the_run_of_a_cosine_that_ends_at_its_peak():
    constant = tiny(**{"schedule.kind": "constant"})
    assert course(**{"schedule.kind": "constant"}) == course(**{"schedule.final": 1.0})
    assert constant.schedule.final == 1.0
    assert constant.id == tiny(**{"schedule.final": 1.0}).id != tiny().id


def test_kinds_are_runs_of_their_own_and_the_default_is_the_run_that_it_was():
    kinds = ("cosine", "linear", "wsd", "constant")
    assert len({tiny(**{"schedule.kind": kind}).id for kind in kinds}) == 4
    assert tiny(**{"schedule.kind": "cosine", "schedule.decay": None}).id == tiny().id
    wsd = {"schedule.kind": "wsd"}
    assert tiny(**wsd, **{"schedule.decay": 0.3}).id != tiny(**wsd).id


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"kind": "constant", "final": 0.0}, "final \\(0\\) must be 1 where kind is constant"),
        ({"decay": 0.2}, "decay \\(0.2\\) is of kind wsd alone"),
        ({"kind": "wsd", "decay": 0.0}, "greater than 0"),
        ({"kind": "wsd", "decay": 0.8, "warmup": 0.3}, "must not exceed 1"),
        ({"kind": "WSD"}, "'cosine', 'linear', 'wsd' or 'constant'"),
    ],
)
def test_what_would_have_no_effect_is_refused(settings, said):
    with pytest.raises(UserError, match=said):
        tiny(**{"schedule": settings})
