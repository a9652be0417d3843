"""Studies beyond the paper, and the switch between its text and its code."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from optstudy import presets
from optstudy.config import resolve
from optstudy.errors import UserError
from optstudy.recipes import ROLES, options_of
from optstudy.results import archive
from optstudy.study import library as study
from optstudy.study.file import parse

GROUPS = {"embedding": ("embedding",), "head": ("head",), "norm": ("norm",), "qkv": ("qkv",),
          "matrices": ("attention_out", "mlp_in", "mlp_out")}  # fmt: skip


def points(name, scale="pico", **chosen):
    """A study's runs, at pico those of 600 steps, whose bests are known from the record."""
    kept = archive.load(scale)
    chosen = {"training.steps": 600, **chosen} if scale == "pico" else chosen
    known = {run_id: entry.row for run_id, entry in kept.items()}
    return study.load(name).plan(scale, chosen, results=known.get, adaptive=False).points


def moments(config):
    """Second moment and own learning rate of each role."""
    chosen = config.optimizer
    found = {}
    for role in ROLES:
        own = {**chosen.options, **options_of(role, chosen.roles)}
        found[role] = (own["second_moment"], own.get("lr"))
    return found


def test_the_map_has_every_cell_and_each_is_what_its_label_says():
    cells = {}
    for point in points("beyond/adaptivity-map"):
        panel, row, column = point.curve.split(" / ")
        cells.setdefault((panel, row, column), moments(point.config))
    on_off = [key for key in cells if key[0] == "on and off"]
    assert len(on_off) == 32 and len(cells) == 15 + 15 + 32
    for (panel, row, column), found in cells.items():
        if panel == "on and off":
            on = {name for label in (row, column) for name in label.split(" + ")}
            for group, roles in GROUPS.items():
                for role in roles:
                    assert found[role] == (("weight", 1e-2) if group in on else ("none", None))
        else:
            for group, roles in GROUPS.items():
                for role in roles:
                    kind = "split-3" if (role, column) == ("qkv", "tensor") else column
                    down = panel == "from Adam down"
                    changed = (kind, None if down else 1e-2)
                    other = ("weight", 1e-2) if down else ("none", None)
                    assert found[role] == (changed if group == row else other), (panel, row, column, role)


def test_the_map_takes_adams_best_rate_of_the_scale():
    assert {moments(p.config)["head"][1] for p in points("beyond/adaptivity-map", "150m")} == {3.16e-3, None}
    plan = study.load("beyond/adaptivity-map").plan("nano")
    waits = [wait for wait in plan.pending if wait.curve == "from Adam down / embedding / none"]
    assert waits and {wait.depends_on for wait in waits} == {"paper/fig1"}
    assert {wait.settings["optimizer"]["roles"]["head"]["lr"] for wait in waits} == {None}
    assert {wait.settings["optimizer"]["lr"] for wait in waits} == {1.0, 3.16, 10.0, 31.6, 100.0, 316.0}


def test_rivals_are_the_whole_field_each_over_its_own_rates():
    found = points("beyond/rivals")
    rivals = {p.curve: p.config for p in found}
    assert rivals.keys() == {*presets.load(), "adam", "adafactor", "lion", "signum", "sgdw", "sophia"}
    assert all(config.optimizer.code is None for config in rivals.values())
    for name, preset in presets.load().items():
        rates = sorted({p.config.optimizer.lr for p in found if p.curve == name})
        assert len(rates) == 5 and (rates[0], rates[-1]) == (preset.lr.start, preset.lr.stop)
    assert rivals["schedule_free"].schedule.kind == "constant" and rivals["splus"].schedule.kind == "cosine"


def test_what_rivals_leave_to_adam_has_its_best_rate():
    for scale, best in (("pico", 1e-2), ("150m", 3.16e-3)):
        rivals = {p.curve: p.config.optimizer for p in points("beyond/rivals", scale)}
        for name in ("muon", "normuon", "racs"):
            adams = {role: own["lr"] for role, own in rivals[name].roles.items() if own["name"] == "adam"}
            assert adams == dict.fromkeys(("embedding", "head", "norm"), best)
        assert rivals["scion"].roles["norm"]["lr"] == best and "lr" not in rivals["scion"].roles["head"]


def test_rivals_recorded_at_600_steps_stay_found():
    """Under import paths, before they had names: five rates and two seeds more at the best, at least."""
    kept, mine = archive.load("pico"), points("beyond/rivals")
    for name in ("muon", "soap", "adopt", "schedule_free"):
        own = [p for p in mine if p.curve == name]
        assert len(own) == 5 and all(p.id in kept for p in own)
        assert {kept[p.id].row.config["optimizer"]["name"] for p in own} == {presets.load()[name].target}


def test_rates_of_presets_are_for_presets():
    with pytest.raises(UserError, match=r"axes.optimizer.lr: presets: adam is none; give it values"):
        study.load("beyond/rivals").plan("150m", {"optimizer.name": "adam"})
    file = "title: t\nasks: a\naxes: {optimizer.name: [muon], optimizer.lr: [1e-3], seed: presets}\n"
    with pytest.raises(UserError, match=r"presets have values for optimizer.name and optimizer.lr alone"):
        parse(file, "s.yaml")


def test_the_printed_second_moment_is_the_sum_over_the_root_of_the_size():
    import torch

    from optstudy.optim.blocks import second_moment

    g = torch.from_numpy(np.random.default_rng(0).normal(size=(6, 5)))
    (whole,) = second_moment("tensor-printed", (6, 5)).means(g.square())
    assert whole.item() == pytest.approx((g**2).sum().item() / math.sqrt(30))
    (rows,) = second_moment("row-printed", (6, 5)).means(g.square())
    assert rows.flatten().tolist() == pytest.approx(((g**2).sum(1) / math.sqrt(5)).tolist())
    assert rows.shape == (6, 1)


def test_printed_settings_are_the_texts_and_only_where_it_differs():
    released = {p.curve: p.config for p in points("paper/fig9")}
    printed = {p.curve: p.config for p in points("paper/fig9", fidelity="printed")}
    star, before = printed["adalayer_star"], released["adalayer_star"]
    assert star.optimizer.roles["head"]["second_moment"] == "row-printed"
    assert star.optimizer.roles["qkv"]["second_moment"] == "tensor-printed"
    assert (star.training.clip_norm, star.schedule.warmup_start) == (None, 0.0)
    assert (before.training.clip_norm, before.schedule.warmup_start) == (1.0, 0.1)
    undone = {
        "training.clip_norm": 1.0, "schedule.warmup_start": 0.1,
        "optimizer.options": before.optimizer.options, "optimizer.roles": before.optimizer.roles,
        "optimizer.lr": before.optimizer.lr,
    }  # fmt: skip
    assert resolve(star.model_dump(mode="json"), undone).id == before.id
    plan = study.load("paper/fig3").plan("150m", {"fidelity": "printed"})
    hybrid = plan.points[0].config.optimizer
    assert hybrid.name == "sgdw" and hybrid.options["momentum"] == 0.9
    assert hybrid.roles["head"]["name"] == "adalayer" and hybrid.roles["head"]["lr"] == 3.16e-3


def test_released_is_the_default_and_what_is_set_by_hand_stays():
    assert [p.id for p in points("paper/fig9", fidelity="released")] == [p.id for p in points("paper/fig9")]
    clipped = points("paper/fig9", **{"fidelity": "printed", "training.clip_norm": 2.0})
    assert {p.config.training.clip_norm for p in clipped} == {2.0}
    assert {p.config.training.clip_norm for p in points("beyond/fidelity")} == {None}
    with pytest.raises(UserError, match="fidelity: unknown value 'print'; did you mean 'printed'"):
        points("paper/fig9", fidelity="print")


@pytest.mark.long
def test_the_page_of_what_was_reproduced_keeps_its_remarks(tmp_path):
    script = Path(__file__).parent.parent / "benchmarks" / "reproduction.py"
    (tmp_path / "fidelity.md").write_text("")
    command = [sys.executable, script, "--scale", "micro", "--runs", tmp_path / "none", "--docs", tmp_path]
    subprocess.run(command, check=True, capture_output=True)
    page = tmp_path / "reproduction.md"
    place = "<!-- remarks: paper/fig3 -->\n"
    assert place in page.read_text() and "Not run at micro yet" in page.read_text()
    page.write_text(page.read_text().replace(place, f"{place}Smaller models differ.\n"))
    before = page.read_text()
    subprocess.run(command, check=True, capture_output=True)
    assert page.read_text() == before


def test_schedules_differ_in_the_course_alone_and_its_cosines_are_figure_1s_runs():
    kinds = {"cosine": ("cosine", 0.1), "cosine to 0": ("cosine", 0.0), "linear to 0": ("linear", 0.0),
             "wsd to 0": ("wsd", 0.0)}  # fmt: skip
    found = points("beyond/schedules")
    seen = {}
    for point in found:
        panel, course = point.curve.split(" / ")
        config = point.config
        assert (config.schedule.kind, config.schedule.final) == kinds[course]
        plain = resolve(config.model_dump(mode="json"), {"schedule.kind": "cosine", "schedule.final": 0.1})
        seen.setdefault((panel, point.x), set()).add(plain.id)
    assert all(len(ids) == 1 for ids in seen.values()) and len(seen) == 20
    known = {p.id for name in ("paper/fig1", "beyond/rivals") for p in points(name)}
    assert all(ids <= known for ids in seen.values())


def test_coupled_decay_grows_with_the_rate_and_independent_does_not():
    found = {}
    for point in points("beyond/weight-decay"):
        chosen = point.config.optimizer
        assert chosen.lr == point.x
        found.setdefault(point.curve, []).append((chosen.lr, chosen.weight_decay))
    assert {len(of) for of in found.values()} == {5} and len(found) == 4 * 8 + 3
    for panel, share in (("adam", 0.1), ("muon", 0.1), ("lion", 1), ("signum", 1)):
        assert {decay for _, decay in found[f"{panel} / none"]} == {0.0}
        assert {decay for _, decay in found[f"{panel} / independent 1e-3"]} == {1e-3}
        for lr, decay in found[f"{panel} / coupled, middle"]:
            assert decay == pytest.approx(share * lr, rel=1e-2)
    one = next(p for p in points("beyond/weight-decay") if p.curve == "muon / matrices 1e-3").config.optimizer
    assert {own["weight_decay"] for own in one.roles.values()} == {0.0} and one.roles["head"][
        "name"
    ] == "adam"
