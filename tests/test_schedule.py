"""The learning rate's course, at its corners and against the formula written out."""

import math

import pytest

from optstudy import schedule
from tests.configs import tiny


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


def test_frozen_steps_come_before_the_whole_course_at_rate_zero():
    plain = course(**{"training.steps": 50})
    frozen = course(**{"training.steps": 50, "schedule.freeze_steps": 7})
    assert frozen[:6] == [0.0] * 6 and frozen[6] == 0.1
    assert frozen[7:] == plain
