"""Plans by results, leases, attempts: what makes a study never repeat and never lose a run."""

import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from optstudy.errors import UserError
from optstudy.launch import attempts, lease
from optstudy.launch.events import Board, Event
from optstudy.record import write_json
from optstudy.study import library as study
from optstudy.study import plan
from optstudy.study.file import Adaptive, Refine, StudyFile, parse
from optstudy.study.session import Session
from tests.configs import folder_of

SWEEP = """\
title: Sweep
asks: What?
axes:
  optimizer.name: [adam, sgdw]
  optimizer.lr: {from: 1e-3, to: 1e-1}
"""


def valley(best, seed_effect=0.0):
    """Loss falls a nat per decade towards ``best`` and rises beyond it."""
    import math

    return lambda value, seed: 5 + abs(math.log10(value / best)) + seed_effect * seed


def a_study(content, name="mine"):
    return study.Study(name, parse(content, f"{name}.yaml"))


def finish(runs, point, loss=5.0, state="done"):
    """Record a run as if it had been trained."""
    folder = runs / point.id
    if not folder.exists():
        folder_of(point.config, runs)
    write_json(
        folder / "result.json",
        {
            "id": point.id, "state": state, "reason": None, "step": 9, "val_loss": loss,
            "initial_val_loss": 9.0,
            "train_loss": loss, "tokens": 900, "tokens_per_s": 100.0, "seconds": 9.0, "step_ms": 1.0,
            "peak_memory_mb": 1.0, "params": 10, "state_bytes_per_param": 8.0, "format": 1,
        },
    )  # fmt: skip


@pytest.mark.parametrize(
    ("best", "axis"),
    [
        (1e-2, [1e-3, 3.16e-3, 1e-2, 3.16e-2, 1e-1]),
        (1e-3, [3.16e-4, 1e-3, 3.16e-3, 1e-2, 3.16e-2, 1e-1]),
        (1.0, [1e-3, 3.16e-3, 1e-2, 3.16e-2, 1e-1, 3.16e-1, 1.0, 3.16]),
        (1e4, [1e-3, 3.16e-3, 1e-2, 3.16e-2, 1e-1, 3.16e-1, 1.0, 3.16]),
    ],
)
def test_a_grid_grows_until_both_shoulders_have_risen_or_the_limit_is_hit(best, axis):
    rule = Adaptive(rise=0.4, most=3)
    assert plan.extended([1e-3, 3.16e-3, 1e-2, 3.16e-2, 1e-1], [0], rule, valley(best)) == axis


def test_a_grid_too_fine_for_three_digits_stops_growing_where_a_value_comes_again():
    grid = [9.9, 9.93, 9.96, 9.99]
    losses = {value: -value for value in (*grid, 10.0, 10.1)}
    assert plan.grown(grid, losses, Adaptive(rise=0.01)) == []


def test_a_grid_waits_for_its_missing_runs():
    grid = [1e-3, 1e-2]
    assert plan.extended(grid, [0], Adaptive(), lambda value, seed: None) == grid
    assert plan.refined(grid, [0], Refine(), lambda value, seed: None) == []


def test_seeds_are_added_at_the_best_and_its_neighbours_only():
    grid = [1e-3, 3.16e-3, 1e-2, 3.16e-2, 1e-1]
    added = plan.refined(grid, [0], Refine(seeds=3), valley(1e-2))
    assert added == [(v, s) for v in (3.16e-3, 1e-2, 3.16e-2) for s in (1, 2)]


def test_seeds_follow_a_best_that_they_move():
    """With one seed 1e-2 looks best; more seeds show 3.16e-2 to be, so its other neighbour gets seeds too."""
    grid = [1e-3, 3.16e-3, 1e-2, 3.16e-2, 1e-1]

    def loss(value, seed):
        return valley(1e-2)(value, 0) if seed == 0 else valley(3.16e-2)(value, 0) - 1

    added = plan.refined(grid, [0], Refine(seeds=3), loss)
    assert {value for value, _ in added} == {3.16e-3, 1e-2, 3.16e-2, 1e-1}


def test_a_sweep_around_the_best_of_another_has_no_ids_before_that_is_done(tmp_path):
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    source = study.load(str(tmp_path / "sweep.yaml"))
    decay = a_study(
        f"title: Decay\nasks: What?\nbest_of: {{study: {tmp_path}/sweep.yaml}}\n"
        "axes: {optimizer.name: [adam], optimizer.weight_decay: [0, 1e-3]}\n"
        "figure: {x: optimizer.weight_decay}\n"
    )
    runs = tmp_path / "runs"
    session = Session(decay, "pico", runs)
    adams = [point for point in source.points("pico") if point.curve == "adam"]
    assert session.plan.points == [] and [p.id for p in session.plan.first] == [p.id for p in adams]
    assert [wait.depends_on for wait in session.plan.pending] == [f"{tmp_path}/sweep.yaml"] * 2
    assert all(wait.settings["optimizer"]["lr"] is None for wait in session.plan.pending)
    for point in adams:
        finish(runs, point, valley(3.16e-2)(point.config.optimizer.lr, 0))
    plan_now = session.replan()
    assert plan_now.pending == [] and plan_now.first == []
    assert [(p.config.optimizer.lr, p.x) for p in plan_now.points] == [(3.16e-2, 0.0), (3.16e-2, 1e-3)]


def test_a_study_that_depends_on_itself_is_refused(tmp_path):
    file = tmp_path / "circle.yaml"
    file.write_text(f"title: C\nasks: C?\nbest_of: {{study: {file}}}\naxes: {{optimizer.name: [adam]}}\n")
    with pytest.raises(UserError, match="depends on itself"):
        study.load(str(file)).points("pico")


PANELS = """\
title: Sizes
asks: What?
axes: {optimizer.name: [adam], optimizer.lr: [1e-3, 1e-2]}
panels:
  150M: {scale: 150m}
  300M: {scale: 300m}
  no QK-norm: {scale: 150m, base: {model.qk_norm: false}}
"""


def test_panels_of_one_size_run_there_and_those_that_differ_run_at_a_small_scale():
    sizes = a_study(PANELS)
    assert len(sizes.points("300m")) == 2
    assert [p.curve for p in sizes.points("150m")] == ["150M / adam"] * 2 + ["no QK-norm / adam"] * 2
    assert [p.curve for p in sizes.points("pico")] == ["150M / adam"] * 2 + ["no QK-norm / adam"] * 2
    assert [p.config.scale for p in sizes.points("paper")] == ["150m"] * 2 + ["300m"] * 2 + ["150m"] * 2


def test_runs_that_wait_lose_the_panel_too_where_all_panels_are_one(tmp_path):
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    sizes = a_study(
        f"title: S\nasks: S?\nbest_of: {{study: {tmp_path}/sweep.yaml}}\n"
        "axes: {optimizer.name: [adam], optimizer.weight_decay: [0, 1e-3]}\n"
        "panels: {150M: {scale: 150m}, 300M: {scale: 300m}}\n"
    )
    assert [wait.curve for wait in sizes.plan("pico").pending] == ["adam"] * 2


def test_curves_are_variants_by_name_and_axes_of_free_names_stand_in_settings():
    tied = a_study(
        "title: T\nasks: T?\n"
        "axes: {$beta: [0.9, 0.95]}\nbase: {optimizer.name: adam, optimizer.lr: 1e-2}\n"
        "curves:\n"
        "  Adam, tied: {base: {optimizer.options.betas: [$beta, $beta]}}\n"
        "  Adam, 0.95: {base: {optimizer.options.betas: [$beta, 0.95]}}\n"
        "figure: {x: $beta}\n"
    )
    points = tied.points("pico")
    assert [(p.curve, p.x, p.config.optimizer.options["betas"]) for p in points] == [
        ("Adam, tied", 0.9, [0.9, 0.9]),
        ("Adam, tied", 0.95, [0.95, 0.95]),
        ("Adam, 0.95", 0.9, [0.9, 0.95]),
        ("Adam, 0.95", 0.95, [0.95, 0.95]),
    ]
    assert len({p.id for p in points}) == 3, "the run that both curves pass through is one run"


def test_another_studys_curves_are_drawn_by_their_own_runs(tmp_path):
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    mine = a_study(
        f"title: T\nasks: T?\naxes: {{optimizer.name: [lion], optimizer.lr: [1e-3]}}\n"
        f"include: {{{tmp_path}/sweep.yaml: [adam]}}\n"
    )
    adams = [p.id for p in study.load(str(tmp_path / "sweep.yaml")).points("pico") if p.curve == "adam"]
    assert [p.id for p in mine.points("pico") if p.curve == "adam"] == adams and len(adams) == 5


def test_a_mistake_in_a_setting_is_named_with_the_line_of_its_key():
    wrong = SWEEP + "base:\n  optimizer.options.bets: [0.9, 0.95]\n"
    with pytest.raises(UserError, match=r"mine:7: .*bets"):
        a_study(wrong).points("pico")


def test_the_schema_allows_what_is_read_and_names_every_key():
    schema = StudyFile.model_json_schema()
    assert {"title", "asks", "axes", "best_of", "panels", "adaptive", "refine"} <= schema["properties"].keys()
    assert schema["additionalProperties"] is False and set(schema["required"]) == {"title", "asks"}


def claim(folder, **options):
    return lease.claim(folder, on_loss=lambda: None, **options)


def test_a_lease_is_one_processs_until_it_is_released(tmp_path):
    first = claim(tmp_path)
    assert first is not None and claim(tmp_path) is None
    assert lease.holder(tmp_path)["pid"] == os.getpid()
    assert [path.stat().st_mode & 0o777 for path in tmp_path.iterdir()] == [0o644], "others may read it"
    first.release(done=False)
    assert lease.holder(tmp_path) is None
    second = claim(tmp_path)
    second.release(done=True)
    assert not list(tmp_path.iterdir())


def test_of_many_that_find_a_stale_lease_exactly_one_takes_over(tmp_path):
    write_json(
        tmp_path / "lease-000001.json", {"machine": "elsewhere", "host": "h", "pid": 1, "started": "1"}
    )
    os.utime(tmp_path / "lease-000001.json", (0, 0))
    won, barrier = [], threading.Barrier(16)

    def attempt():
        barrier.wait()
        if (held := claim(tmp_path)) is not None:
            won.append(held)

    threads = [threading.Thread(target=attempt) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    won[0].release(done=True)


def test_a_lease_of_another_machine_holds_while_its_heart_beats(tmp_path):
    path = tmp_path / "lease-000001.json"
    write_json(path, {"machine": "elsewhere", "host": "h", "pid": 1, "started": "1"})
    assert claim(tmp_path) is None
    stale = time.time() - lease.STALE_SECONDS - 1
    os.utime(path, (stale, stale))
    taken = claim(tmp_path)
    assert taken is not None
    taken.release(done=True)


def test_a_lease_of_a_dead_process_of_this_machine_is_free_at_once(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from optstudy.launch import lease; "
        "assert lease.claim(Path(sys.argv[1]), on_loss=lambda: None); os._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True)
    assert list(tmp_path.glob("lease-*")) and lease.holder(tmp_path) is None
    taken = claim(tmp_path)
    assert taken is not None
    taken.release(done=True)


def test_who_lost_a_lease_may_write_no_more(tmp_path):
    mine = claim(tmp_path)
    mine.check()
    write_json(
        tmp_path / "lease-000002.json", {"machine": "elsewhere", "host": "h", "pid": 1, "started": "1"}
    )
    with pytest.raises(lease.LeaseLost):
        mine.check()
    mine.release(done=True)
    assert (tmp_path / "lease-000002.json").exists()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"pid": [1]}', "\0" * 40, '{"machine": 1, "pid": 2}'])
def test_a_damaged_lease_holds_for_its_minute_and_is_named(tmp_path, content, capsys):
    path = tmp_path / "lease-000001.json"
    path.write_text(content)
    (tmp_path / "lease-mine.json").write_text("no lease")
    assert claim(tmp_path) is None and f"{path}: damaged" in capsys.readouterr().err
    stale = time.time() - lease.STALE_SECONDS - 1
    os.utime(path, (stale, stale))
    taken = claim(tmp_path)
    assert taken is not None and taken.path.name == "lease-000002.json"
    taken.release(done=True)


def test_lines_that_are_no_attempts_are_named_and_left_out(tmp_path, capsys):
    lines = [
        "",
        "[]",
        "{}",
        '{"event": "start"}',
        '{"event": "end", "code": "1"}',
        '{"event": []}',
        "\0" * 9,
    ]
    torn = '{"event": "sta'
    (tmp_path / "attempts.jsonl").write_text("\n".join([*lines, '{"event": "start", "step": 3}', torn]))
    assert attempts.read(tmp_path) == [{"event": "start", "step": 3}]
    said = capsys.readouterr().err
    assert all(f"attempts.jsonl:{number}: damaged" in said for number in range(1, 1 + len(lines)))
    assert said.count("\n") == len(lines) and attempts.kills(tmp_path) == 1


START, FAIL, STOP = (
    {"event": "start", "step": 0},
    {"event": "end", "code": 1, "error": "bug"},
    {"event": "end", "code": 75},
)


@pytest.mark.parametrize(
    ("rows", "aside"),
    [
        ([START], False),
        ([START, FAIL], False),
        ([START, FAIL, START, FAIL], True),
        ([START, FAIL, START, FAIL, {"event": "retry"}], False),
        ([START, STOP] * 50, False),
        ([START] * (attempts.KILLS - 1), False),
        ([START] * attempts.KILLS, True),
        ([{"event": "start", "step": step} for step in range(50)], False),
    ],
)
def test_a_run_that_fails_twice_is_set_aside_and_one_that_is_killed_only_without_progress(rows, aside):
    assert (attempts.verdict(rows) is not None) == aside


def test_an_attempt_notes_how_it_ended(tmp_path):
    with pytest.raises(RuntimeError), attempts.attempt(tmp_path):
        raise RuntimeError("bug\nin two lines")
    with pytest.raises(UserError), attempts.attempt(tmp_path):
        raise UserError("no such corpus")
    with attempts.attempt(tmp_path) as current:
        current.code = 75
        with pytest.raises(attempts.Held), attempts.attempt(tmp_path):
            pass
    ends = [row for row in attempts.read(tmp_path) if row["event"] == "end"]
    assert [row["code"] for row in ends] == [1, 2, 75]
    assert ends[0]["error"] == "RuntimeError: bug in two lines"
    assert lease.holder(tmp_path) is None


def test_a_worker_that_leaves_no_word_is_a_failure_and_a_users_mistake_ends_the_study(tmp_path):
    (tmp_path / "log.txt").write_text("optstudy: no module\n")
    for _ in range(2):
        attempts.account(tmp_path, len(attempts.read(tmp_path)))
    assert attempts.set_aside(tmp_path) == "failed 2 times: no module"
    attempts._note(tmp_path, {"event": "end", "code": 75})
    attempts.account(tmp_path, 2)
    attempts._note(tmp_path, {"event": "end", "code": 2})
    with pytest.raises(UserError, match="no module"):
        attempts.account(tmp_path, 3)


def test_a_run_that_has_ended_or_is_worked_on_is_not_free(tmp_path):
    points = study.load("demo").points("pico")[:2]
    ended, held = (folder_of(point.config, tmp_path) for point in points)
    board = Board(lambda: [ended, held], lambda event: None)
    assert board.free(ended) and board.free(held)
    finish(tmp_path, points[0])
    mine = claim(held)
    assert not board.free(ended) and not board.free(held)
    mine.release(done=False)


def test_the_board_asks_for_more_as_results_come_and_sets_failures_aside(tmp_path):
    points = study.load("demo").points("pico")[:3]
    known = [folder_of(point.config, tmp_path) for point in points]
    shown, events = known[:2], []
    board = Board(lambda: shown, events.append)
    assert board.open == known[:2] and board.startable([known[0]]) == known[1]
    shown = known
    finish(tmp_path, points[0])
    board.look()
    assert board.open == known[1:] and events == [Event("ended", known[0])]
    for _ in range(2):
        attempts.failed(known[1], "bug")
    board.look()
    assert board.open == known[2:] and board.failed == [known[1]] and events[-1].kind == "failed"


def test_states_are_told_by_the_folders_alone(tmp_path):
    session = Session(study.load("demo"), "pico", tmp_path)
    _, _, failed, begun, running, *_ = session.todo()
    points = list(session.runs_known.values())
    finish(tmp_path, points[0])
    finish(tmp_path, points[1], 5.0, "diverged")
    for _ in range(2):
        attempts.failed(failed, "bug")
    attempts._note(begun, {"event": "start", "step": 0})
    held = claim(running)
    states = list(session.states().values())
    assert states[:6] == ["done", "diverged", "failed", "begun", "running", "waiting"]
    assert session.forgive() == 1 and session.state(failed.name) == "begun"
    held.release(done=False)


def test_merge_keys_are_read_and_do_not_lose_the_line_of_a_mistake():
    merged = "axes: &a {optimizer.name: [adam], optimizer.lr: [1e-3]}\noptimizers: {adam: {axes: {<<: *a}}}\n"
    assert len(a_study("title: M\nasks: M?\n" + merged).points("pico")) == 1
    with pytest.raises(UserError, match=r"mine.yaml:\d+: .*seeds"):
        a_study("title: M\nasks: M?\n" + merged + "seeds: [-1]\n")


SHARES = """\
title: Shares
asks: What?
axes: {optimizer.lr: [1e-2], $share: [0.2, 0.4]}
base:
  optimizer.name: adam
  training.steps: 4 * $steps
  schedule.warmup: 0.5 * $share
  schedule.freeze_steps: 0.001 * $steps
figure: {x: $share}
"""


def test_a_multiple_of_a_name_is_taken_and_steps_stay_whole():
    shares = study.Study("shares", study.parse(SHARES, "shares.yaml"))
    points = shares.points("pico")
    assert [(p.config.training.steps, p.config.schedule.warmup) for p in points] == [
        (9_600, 0.1),
        (9_600, 0.2),
    ]
    assert {p.config.schedule.freeze_steps for p in points} == {2}
    shorter = shares.points("pico", {"training.steps": 100})
    assert {(p.config.training.steps, p.config.schedule.freeze_steps) for p in shorter} == {(400, 1)}
    own = study.Study("own", study.parse(SHARES.replace("4 * $steps", "300"), "own.yaml"))
    assert {p.config.training.steps for p in own.points("pico", {"training.steps": 100})} == {100}


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (SHARES.replace("0.5 * $share", "0.5 * $shar"), "axes.$share: sets nothing: no setting is $share"),
        (SHARES.replace("[0.2, 0.4]", "[none, some]"), "times a number: share is 'none'"),
        (SHARES.replace("0.5 * $share", "0.5.1 * $share"), "'0.5.1 * $share' is not a number times a number"),
    ],
)  # fmt: skip
def test_a_multiple_of_what_is_no_number_is_named(wrong, said):
    with pytest.raises(UserError, match=re.escape(said)):
        study.Study("shares", study.parse(wrong, "shares.yaml")).points("pico")


def test_a_best_is_taken_under_another_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("first.yaml").write_text(
        "title: F\nasks: F?\nbase: {optimizer.name: adam}\naxes: {optimizer.lr: [1e-3, 1e-2]}\n"
    )
    Path("second.yaml").write_text(
        "title: S\nasks: S?\nbase: {optimizer.name: hybrid_last, optimizer.roles.head.lr: 3.16 * $best}\n"
        "axes: {optimizer.lr: [1.0], $best: [7.0]}\n"
        "best_of: {study: first.yaml, curve: adam, keys: {optimizer.lr: $best}}\n"
    )
    first, second = (study.load(f"{name}.yaml") for name in ("first", "second"))
    plan = second.plan("pico")
    assert [wait.settings["optimizer"]["roles"]["head"]["lr"] for wait in plan.pending] == [None]
    for k, point in enumerate(first.points("pico")):
        finish(tmp_path, point, 5.0 - k)
    session = Session(second, "pico", tmp_path)
    (point,) = session.plan.points
    assert point.config.optimizer.roles["head"]["lr"] == 0.0316 and point.config.optimizer.lr == 1.0


def test_values_beyond_the_grid_that_have_run_are_on_the_curve():
    losses = dict.fromkeys((1e-05, 0.001, 0.00316, 0.01, 0.0316, 0.1, 1.0), 5.0)
    grid = [1e-3, 3.16e-3, 1e-2]
    values = plan.with_runs_beyond(grid, grid, [0], lambda v, seed: losses.get(v))
    assert values == [1e-3, 3.16e-3, 1e-2, 3.16e-2, 1e-1]  # 1e-5 and 1 lie beyond a gap
