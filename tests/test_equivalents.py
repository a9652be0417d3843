"""Token-equivalents and predicted rates: right on studies whose truth is known, and as often as they say."""

import math
import re
from dataclasses import dataclass

import numpy as np
import pytest

from optstudy.claims.verdict import Part
from optstudy.report import style
from optstudy.results import equivalents, rates
from optstudy.results.curves import Curve, FinishedRun, Point
from optstudy.results.estimate import Estimate
from optstudy.results.figure import Figure
from optstudy.results.table import Row

LENGTHS = (600, 1_200, 2_400, 4_800, 9_600)
PER_STEP = 1_024
INITIAL = 8.0


@dataclass(frozen=True)
class Law:
    """A synthetic optimizer: its best loss and rate over steps."""

    floor: float = 3.83
    scale: float = 9.0
    power: float = 0.33
    spent: float = 1.0
    """It does with D tokens what the reference does with ``spent`` D."""
    rate: float = -2.0
    """log10 of its best rate at 600 steps."""
    slope: float = -0.25
    bend: float = 0.5
    """Nats a decade off squared."""

    def loss(self, steps: float) -> float:
        return self.floor + self.scale * (self.spent * steps) ** -self.power

    def best(self, steps: float) -> float:
        return self.rate + self.slope * math.log10(steps / 600)


def curve(law, steps, shared, own, random, name="adam", grid=5, apart=True):
    """A sweep over half-decades, with the seeds' shared effects and each run's own."""
    near = round(law.best(steps) * 2) / 2
    points = {}

    def run(at):
        loss = law.loss(steps) + law.bend * (at - law.best(steps)) ** 2
        runs = []
        for seed, effect in enumerate(shared if abs(at - near) <= 0.5 else shared[:1]):
            value = loss + effect + own * random.standard_normal()
            config = {
                "seed": seed,
                "training": {"steps": steps, "batch_size": 16},
                "data": {"sequence_length": 64},
                "optimizer": {"name": name, "lr": 10**at},
            }
            row = Row(
                f"{name} {steps} {at} {seed}",
                "done",
                None,
                config,
                value,
                INITIAL,
                value,
                1,
                1,
                1.0,
                1.0,
                1.0,
                1.0,
                1,
                8.0,
            )
            runs.append(FinishedRun(row))
        points[at] = Point(10**at, at, tuple(runs))

    for k in range(-(grid // 2), grid // 2 + 1):
        run(near + k / 2)
    while (best := min(points, key=lambda at: points[at].loss)) in (min(points), max(points)):
        run(best + 0.5 if best == max(points) else best - 0.5)
    points = [points[at] for at in sorted(points)]
    return Curve(name, tuple(points), True, apart=(("training.steps", steps),) if apart else ())


def trial(seed, other, seeds=3, own=0.006, reference=None, lengths=LENGTHS):
    """Curves of a reference and of another optimizer at every length, one world of seeds' effects."""
    random = np.random.default_rng(seed)
    reference = reference or Law()
    curves = {}
    for steps in lengths:
        shared = 0.02 * random.standard_normal(seeds)
        for name, law in (("adam", reference), ("mine", other)):
            curves[name, steps] = curve(law, steps, shared, own, random, name)
    return curves


def of(curves, name):
    return [found for (which, _), found in curves.items() if which == name]


@pytest.mark.parametrize(("spent", "steps"), [(0.8, 4_800), (0.5, 2_400), (1.25, 2_400)])
def test_intervals_of_token_equivalents_hold_the_truth_as_often_as_they_say(spent, steps):
    """SGD's, Signum's and Lion's kind of share; the truth lies between lengths, where it is interpolated."""
    held, widths = [], []
    for seed in range(1_000, 1_150):
        curves = trial(seed, Law(spent=spent, rate=-2.3))
        horizon = equivalents.horizon(of(curves, "adam"), "adam")
        siblings = [one for one in of(curves, "mine") if one is not curves["mine", steps]]
        found = equivalents.ratio(curves["mine", steps], horizon, siblings)
        low, high = found.interval
        held.append(low <= spent <= high)
        widths.append(min(high, 9.0) - low)
        assert found.sign == "" and low <= found.value <= high
        if found.fitted is not None:
            assert found.fitted == pytest.approx(found.value, abs=0.25)
    assert sum(held) / len(held) >= 0.93
    assert np.median(widths) < 0.45 * spent, "an interval that says nothing would hold the truth too"


def test_without_noise_both_ways_find_the_truth():
    random, flat = np.random.default_rng(0), {}
    for steps in LENGTHS:
        for name, spent in (("adam", 1.0), ("mine", 0.8)):
            flat[name, steps] = curve(Law(spent=spent, slope=0), steps, [0.0] * 3, 0.0, random, name)
    horizon = equivalents.horizon(of(flat, "adam"), "adam")
    assert horizon.fit.power == pytest.approx(0.33, abs=0.002)
    assert horizon.fit.floor == pytest.approx(3.83, abs=0.01)
    for steps in LENGTHS[1:]:
        found = equivalents.ratio(flat["mine", steps], horizon)
        assert found.fitted == pytest.approx(0.8, abs=0.005)
        assert found.value == pytest.approx(0.8, abs=0.02)
        low, high = found.interval
        assert low - 1e-4 <= 0.8 <= high + 1e-4


def test_outside_the_lengths_there_is_a_sign_and_no_number():
    better, worse = trial(1, Law(spent=2.5)), trial(1, Law(spent=0.2))
    horizon = equivalents.horizon(of(better, "adam"), "adam")
    above = equivalents.ratio(better["mine", 9_600], horizon)
    assert (above.sign, above.value, above.fitted) == (">", 1.0, None)
    assert style.ratio(above) == "> 1.00"
    assert above.above(0.8) < 0.01 and above.above(1.2) == 1.0 and above.below(1.2) == 1.0
    below = equivalents.ratio(worse["mine", 600], horizon)
    assert (below.sign, below.value) == ("<", 1.0) and style.ratio(below).startswith("< 1.00")
    assert below.below(1.5) < 0.01 and below.below(0.9) == 1.0 and below.beyond(0.1) == 1.0


@dataclass(frozen=True)
class Stalled(Law):
    """A reference that gains next to nothing between its first two lengths."""

    gain: float = 1e-9

    def loss(self, steps: float) -> float:
        return super().loss(600) - self.gain if steps == 1_200 else super().loss(steps)


@pytest.mark.parametrize("gain", [1e-6, 1e-9, 1e-12])
def test_beyond_a_reference_that_stalled_there_is_a_sign_too(gain):
    """The line through its first losses meets a much lower loss at more tokens than a float can hold."""
    curves = trial(0, Law(floor=2.5), own=0.0, reference=Stalled(gain=gain))
    horizon = equivalents.horizon(of(curves, "adam"), "adam")
    found = equivalents.ratio(curves["mine", 1_200], horizon)
    assert (found.sign, found.value) == (">", 8.0)


def test_p_values_agree_with_the_interval():
    curves = trial(2, Law(spent=0.8))
    found = equivalents.ratio(curves["mine", 2_400], equivalents.horizon(of(curves, "adam"), "adam"))
    low, high = found.interval
    assert found.above(0.97 * low) < 0.05 < found.above(1.03 * low)
    assert found.below(1.03 * high) < 0.05 < found.below(0.97 * high)
    assert found.beyond(0.9 * (found.value - low)) > 0.05
    assert (high - low) / 7 < found.error < (high - low) / 3.8
    part = Part(found, low=0.97 * low, high=1.03 * high)
    assert part.chance < 0.05 and part.verdict() == "holds" and part.interval() == (low, high)
    assert Part(found, high=0.95 * low).verdict() == "does not hold"
    assert Part(found, low=0.99 * found.value).verdict() == "not decided"
    above = equivalents.ratio(
        trial(1, Law(spent=2.5))["mine", 9_600], equivalents.horizon(of(trial(1, Law()), "adam"), "adam")
    )
    assert Part(above, low=0.8).verdict() == "holds" and Part(above, high=0.9).verdict() == "does not hold"
    assert Part(above, low=1.1).verdict() == Part(above, high=1.1).verdict() == "not decided"
    assert found.half() == pytest.approx(max(found.value - low, high - found.value))


def test_the_reference_needs_its_own_tokens_and_one_seed_gives_no_interval():
    curves = trial(3, Law(spent=0.8))
    horizon = equivalents.horizon(of(curves, "adam"), "adam")
    same = equivalents.ratio(curves["adam", 2_400], horizon)
    assert (same.value, same.interval, same.fitted, style.ratio(same)) == (1.0, (1.0, 1.0), 1.0, "1")
    assert (same.above(0.9), same.above(1.1), same.below(1.1)) == (0.0, 1.0, 0.0)
    single = trial(3, Law(spent=0.8), seeds=1)
    found = equivalents.ratio(single["mine", 2_400], equivalents.horizon(of(single, "adam"), "adam"))
    assert found.interval is None and re.fullmatch(r"0\.\d\d", style.ratio(found))


def test_a_horizon_needs_four_lengths_and_losses_that_fall():
    curves = trial(4, Law())
    adam = of(curves, "adam")
    assert equivalents.horizon(adam[:3], "adam") is None and equivalents.horizon(adam[:4], "adam") is not None
    assert equivalents.horizon(adam, "lion") is None
    assert equivalents.horizon(of(trial(4, Law(), reference=Law(scale=0.0)), "adam"), "adam") is None


def test_a_figure_gives_the_token_equivalents_of_its_curves():
    curves = trial(5, Law(spent=0.8))
    horizon = equivalents.horizon(of(curves, "adam"), "adam")
    figure = Figure("s", "S", [], [], lengths="own")
    vars(figure)["curves"] = list(curves.values())
    assert figure.horizon == horizon
    found = equivalents.tokens_of(figure, curves["mine", 1_200])
    assert isinstance(found, Estimate) and found.value == pytest.approx(0.8, abs=0.2)
    assert equivalents.tokens_of(Figure("s", "S", [], []), curves["mine", 1_200]) is None


@pytest.mark.parametrize("grid", [3, 5])
@pytest.mark.parametrize("slope", [-0.3, 0.0])
def test_intervals_of_predicted_rates_hold_the_truth_as_often_as_they_say(grid, slope):
    held, widths = [], []
    for seed in range(150):
        random = np.random.default_rng([7, seed])
        law = Law(slope=slope, rate=-2 + random.uniform(-0.25, 0.25))
        curves = [
            curve(law, steps, 0.02 * random.standard_normal(3), 0.006, random, grid=grid) for steps in LENGTHS
        ]
        ((name, power, found),) = rates.predictions(curves, 40_000 * PER_STEP)
        low, high = found.interval
        held.append(low <= law.best(40_000) <= high)
        widths.append(high - low)
        assert name == "adam" and len(power.tokens) == 5
    assert sum(held) / len(held) >= 0.93
    assert np.median(widths) < (1.2 if grid == 3 else 0.5), "in decades"


def test_a_power_law_needs_bests_inside_the_grid():
    random = np.random.default_rng(0)
    law = Law()
    curves = [curve(law, steps, [0.0], 0.0, random, grid=5) for steps in LENGTHS]
    assert rates.power_law(curves, "adam").exponent.value == pytest.approx(-0.25, abs=0.03)
    cut = [Curve(c.name, c.points[2:], True, apart=c.apart) for c in curves]
    assert rates.power_law(cut, "adam") is None
    assert rates.power_law(curves[:3], "adam") is None
