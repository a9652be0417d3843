"""Every name in a study file matches something: what would be ignored is refused, with its line."""

# ruff: noqa: E501
import re
from pathlib import Path

import pytest

from optstudy.cli import run
from optstudy.errors import UserError
from optstudy.findings import open_study
from optstudy.study import library as study
from tests.configs import folder_of, tiny

WHOLE = """\
title: Everything
asks: Does every name match?
base: {training.steps: 50}
axes:
  optimizer.name: [adam, signum]
  optimizer.lr: {from: 1e-3, to: 1e-2, per_decade: 2}
  head:
    adaptive: {}
    still: {optimizer.roles: {head: {train: false}}}
optimizers:
  signum: {base: {optimizer.options.beta: 0.95}, axes: {optimizer.lr: [1e-4, 1e-3]}}
panels:
  small: {scale: 150m, x: training.batch_size, axes: {training.batch_size: [8, 16]}}
  free:
    axes: {optimizer.name: [adam], $b: [0.9, 0.95]}
    curves:
      tied: {base: {optimizer.options: {betas: [$b, $b]}}}
    scales: {pico: {curves: {tied: {base: {training.steps: 60}}}}}
scales: {nano: {base: {training.steps: 70}, optimizers: {adam: {base: {optimizer.weight_decay: 0.1}}}}}
include: {paper/fig1: [adam]}
seeds: [0, 1]
adaptive: {axis: optimizer.lr}
refine: {axis: optimizer.lr}
figure: {x: optimizer.lr, curve: optimizer.name}
"""
"""A study with a name in every place where one may stand."""
MAP = """\
title: Map
asks: Which cell?
base: {optimizer.name: adam}
axes:
  optimizer.lr: [1e-3, 1e-2]
  head: {on: {}, off: {optimizer.roles.head.train: false}}
  norm: {on: {}, off: {optimizer.roles.norm.train: false}}
curves:
  off / off: {axes: {optimizer.lr: [1.0]}}
figure: {kind: map, rows: head, columns: norm}
"""
TAKEN = """\
title: Taken
asks: How?
axes: {optimizer.name: [adam, lion], schedule.warmup: [0.1, 0.2]}
best_of:
  study: paper/fig1
  panel: 150m
figure: {x: schedule.warmup}
"""


def refused(folder: Path, content: str) -> str:
    """What is said of a study file, by the command that would run it."""
    file = folder / "mine.yaml"
    file.write_text(content)
    with pytest.raises(UserError) as error:
        study.load(str(file)).plan("pico")
    return str(error.value).removeprefix(str(file))


def test_studies_with_a_name_in_every_place_are_read() -> None:
    for content in (WHOLE, MAP, TAKEN):
        plan = study.Study("whole", study.parse(content, "whole.yaml")).plan("pico")
        assert plan.points or plan.pending


@pytest.mark.parametrize(
    ("content", "old", "new", "said"),
    [
        # entries for optimizers
        (WHOLE, "  signum: {base", "  signnum: {base", ":11: optimizers.signnum: no such optimizer: 'signnum'; did you mean 'signum'?"),
        (WHOLE, "{adam: {base", "{adm: {base", ":19: scales.nano.optimizers.adm: no such optimizer: 'adm'; did you mean 'adam'?"),
        (WHOLE, "small: {scale", "small: {optimizers: {lion: {}}, scale", ":13: panels.small.optimizers.lion: no such optimizer: 'lion'; allowed: adam, signum"),
        (MAP, "axes:\n", "optimizers: {adamm: {}}\naxes:\n", ":4: optimizers.adamm: no such optimizer: 'adamm'; did you mean 'adam'?"),
        # what sweeps follow
        (WHOLE, "adaptive: {axis: optimizer.lr}", "adaptive: {axis: optimizer.lrr}", ":22: adaptive.axis: no such axis: 'optimizer.lrr'; did you mean 'optimizer.lr'?"),
        (WHOLE, "refine: {axis: optimizer.lr}", "refine: {axis: optimizer.weight_decay}", ":23: refine.axis: no such axis: 'optimizer.weight_decay'"),
        (WHOLE, "refine: {axis: optimizer.lr}", "refine: {axis: head}", ":23: refine.axis: head has no positive numbers"),
        (WHOLE, "refine: {axis: optimizer.lr}", "refine: {axis: optimizer.name}", ":23: refine.axis: optimizer.name has no positive numbers"),
        (WHOLE, "seeds: [0, 1]\nadaptive: {axis: optimizer.lr}", "axes: {training.steps: [5, 6]}\nadaptive: {axis: optimizer.lr}", ":21: "),
        (WHOLE.replace("  head:\n", "  training.z_loss: [1e-4, 1e-3]\n  head:\n"), "refine: {axis: optimizer.lr}", "refine: {axis: training.z_loss}", ":24: refine.axis: training.z_loss is not followed where adaptive follows another axis"),
        (TAKEN, "figure:", "adaptive: {}\nfigure:", ":7: adaptive.axis: no such axis: 'optimizer.lr'; did you mean 'optimizer.name'?"),
        (TAKEN.replace("[0.1, 0.2]", "[0.0, 0.2]"), "figure:", "adaptive: {axis: schedule.warmup}\nfigure:", ":7: adaptive.axis: schedule.warmup has no positive numbers"),
        (MAP.replace("curves:\n  off / off: {axes: {optimizer.lr: [1.0]}}\n", ""), "figure: {kind: map, rows: head", "adaptive: {}\nfigure: {kind: map, rows: optimizer.lr", ":8: adaptive.axis: optimizer.lr makes the rows or columns"),
        # settings that are given otherwise
        (WHOLE, "training.steps: 50", "seed: 7", ":3: base.seed: seeds are not set one by one: seeds: [0, 1] in the study, or --seeds 2"),
        (WHOLE, "training.steps: 60", "seed: 7", ":18: panels.free.scales.pico.curves.tied.base.seed: seeds are"),
        (WHOLE, "training.steps: 50", "scale: nano", ":3: base.scale: it is filled in by --scale"),
        (WHOLE, "training.steps: 50", "data: {fingerprint: x}", ":3: base.data.fingerprint: it is filled in from the text"),
        (WHOLE, "still: {optimizer.roles", "still: {numerics: 1, optimizer.roles", ":9: axes.head.still.base.numerics: it is filled in"),
        (WHOLE, "  head:\n", "  scale: [pico, nano]\n  head:\n", ":7: axes.scale: it is filled in by --scale"),
        (WHOLE, "  head:\n", "  seed: [1, 2]\n  head:\n", ":7: axes.seed: the study has seeds already"),
        (TAKEN, "panel: 150m", "keys: [seed]", ":6: best_of.keys: seed: seeds are"),
        # the figure
        (WHOLE, "figure: {x: optimizer.lr", "figure: {x: optimizer.lrr", ":24: figure.x: no such axis or config key: 'optimizer.lrr'; did you mean 'optimizer.lr'?"),
        (TAKEN, "figure: {x: schedule.warmup", "figure: {x: $b", ":7: figure.x: no such axis or config key: '$b'"),
        (WHOLE, "curve: optimizer.name", "curve: optimizer.nme", ":24: figure.curve: no such axis or config key: 'optimizer.nme'; did you mean 'optimizer.name'?"),
        (WHOLE, "curve: optimizer.name", "curve: haed", ":24: figure.curve: no such axis or config key: 'haed'; did you mean 'head'?"),
        (WHOLE, "x: training.batch_size", "x: training.batchsize", ":13: panels.small.x: no such axis or config key: 'training.batchsize'; did you mean 'training.batch_size'?"),
        (WHOLE, "figure: {x: optimizer.lr", "figure: {x: optimizer.options.betaa", ":24: "),
        (MAP, "rows: head", "rows: haed", ":10: figure.rows: no such axis: 'haed'; did you mean 'head'?"),
        (MAP, "columns: norm", "columns: nrom", ":10: figure.columns: no such axis: 'nrom'; did you mean 'norm'?"),
        (MAP, "rows: head, ", "", ":10: figure: 'rows' and 'columns' go together, with 'kind: map'"),
        (MAP, "kind: map, ", "", ":10: figure: 'rows' and 'columns' go together, with 'kind: map'"),
        (MAP, "columns: norm", "columns: head", ":10: figure: 'rows' and 'columns' are both 'head'"),
        (MAP, "off / off", "off / of", ":9: curves.off / of: no such curve: 'off / of'; did you mean 'off / off'?"),
        # scales and panels
        (WHOLE, "{nano: {base", "{nanoo: {base", ":19: scales.nanoo: no such scale: 'nanoo'; did you mean 'nano'?"),
        (WHOLE, "scales: {pico", "scales: {picco", ":18: panels.free.scales.picco: no such scale: 'picco'; did you mean 'pico'?"),
        (WHOLE, "scale: 150m", "scale: 150n", ":13: panels.small.scale: no such scale: '150n'; did you mean '150m'?"),
        (WHOLE.replace("free:\n", "free:\n    scale: 300m\n"), "scales: {pico", "scales: {150m", ":19: panels.free.scales.150m: its panel is not run at this scale"),
        (WHOLE, "curves: {tied: {base: {training.steps: 60", "curves: {tyed: {base: {training.steps: 60", ":18: panels.free.scales.pico.curves.tyed: no such curve: 'tyed'; did you mean 'tied'?"),
        # variables
        (WHOLE, "betas: [$b, $b]", "betas: [$b, $c]", ":17: panels.free.curves.tied.base: no axis '$c'; allowed: $b"),
        (WHOLE, "$b: [0.9, 0.95]}", "$b: [0.9, 0.95], $c: [1, 2]}", ":15: panels.free.axes.$c: sets nothing: no setting is $c"),
        (WHOLE, "training.steps: 70", "training.steps: $stops", ":19: scales.nano.base: no axis '$stops'"),
        (WHOLE, "training.steps: 50", "training.steps: $b", ":3: base: no axis '$b'"),
        # other studies
        (WHOLE, "{paper/fig1: [adam]}", "{paper/fig1: [adm]}", ":20: include: paper/fig1 has no curve 'adm'; did you mean 'adam'?"),
        (WHOLE, "{paper/fig1: [adam]}", "{paper/fig01: [adam]}", ":20: include.paper/fig01: unknown study 'paper/fig01'; did you mean"),
        (WHOLE, "{paper/fig1: [adam]}", "{none.yaml: [adam]}", ":20: include.none.yaml: none.yaml: No such file"),
        (WHOLE, "small: {scale", "small: {include: {demo: [liom]}, scale", ":13: include: demo has no curve 'liom'; did you mean 'lion'?"),
        (TAKEN, "study: paper/fig1", "study: paper/fgi1", ":5: best_of.study: unknown study 'paper/fgi1'; did you mean"),
        (TAKEN, "panel: 150m", "panel: 150n", ":6: best_of.panel: paper/fig1 has no panel '150n'; did you mean '150m'?"),
        (TAKEN, "panel: 150m", "curve: adma", ":6: best_of: paper/fig1 has no curve 'adma'; did you mean 'adam'?"),
        (TAKEN, "[adam, lion]", "[adam, sophia]", ":5: best_of: paper/fig1 has no curve 'sophia'"),
        (TAKEN, "panel: 150m", "keys: [optimizer.lrr]", ":6: best_of.keys: the config has no key 'optimizer.lrr'; did you mean 'lr'?"),
        # axes of named settings
        (WHOLE, "{optimizer.roles: {head: {train: false}}}", "{optimizer.roles: {haed: {train: false}}}", ":9: optimizer.roles.haed: unknown role 'haed'; did you mean 'head'?"),
        (WHOLE, "  head:\n", "  model:\n", ":7: axes.model: an axis of named settings has a name of its own"),
        (WHOLE, "  head:\n", "  $head:\n", ":7: axes.$head: an axis of named settings has"),
        (WHOLE, "  head:\n", "  optimizer.roles.head:\n", ":7: axes.optimizer.roles.head: an axis of named settings has"),
        (WHOLE, "adaptive: {}\n", "adaptive:\n", ":8: axes.head.adaptive: "),
        (WHOLE, "adaptive: {}\n", "a / b: {}\n", ":8: axes.head.a / b: a name must not be empty, nor contain ' / '"),
        (WHOLE, "adaptive: {}\n", "adaptive: {base: {}, axs: {}}\n", ":8: unknown key 'axes.head.adaptive.axs'; did you mean 'axes'?"),
        (WHOLE, "adaptive: {}\n", "adaptive: {axes: {optimizer.name: [lion]}}\n", ":8: axes.head.adaptive.axes.optimizer.name: must be a setting"),
    ],
)  # fmt: skip
def test_a_name_that_matches_nothing_is_refused_with_its_line(
    content: str, old: str, new: str, said: str, tmp_path: Path
) -> None:
    assert content.count(old) == 1
    told = refused(tmp_path, content.replace(old, new))
    assert told[: len(said)] == said and "\n" not in told


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("scale=nano", "--set: scale=nano would only rename the runs; give --scale nano"),
        ("seed=7", "--set: seed=7: seeds are not set one by one: seeds: [0, 1] in the study, or --seeds 2"),
        ("data.fingerprint=x", "--set: data.fingerprint=x: it is filled in from the text of data.corpus"),
        ("numerics=1", "--set: numerics=1: it is filled in by the version of the code"),
        ("$bb=0.9", "--set: unknown key '$bb'; did you mean '$b'?"),
        ("haed=still", "--set: unknown key 'haed'; did you mean 'head'?"),
        ("head=stil", "--set: head: unknown name 'stil'; did you mean 'still'?"),
        ("optimiser.lr=1", "--set: unknown key 'optimiser.lr'; did you mean 'optimizer"),
        ("optimizer.lrr=1", "--set: unknown key 'optimizer.lrr'; did you mean 'lr'?"),
        ("optimizer.name=adm", "--set: optimizer.name: unknown optimizer 'adm'; did you mean 'adam'?"),
    ],
)
def test_settings_of_the_command_line_that_match_nothing_are_refused(
    setting: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(WHOLE)
    (tmp_path / "none").mkdir()
    for command in (["run", "--dry-run"], ["show"], ["status"]):
        words = [command[0], str(file), *command[1:], "--set", setting, "--runs", str(tmp_path / "none")]
        assert run(words) == 2
        told = capsys.readouterr().err
        assert f"{file}: {said}" in told and told.count("\n") == 1, told
    key, _, value = setting.partition("=")
    with pytest.raises(UserError, match=re.escape(said.partition(":")[0])):
        open_study(str(file), runs=tmp_path / "none", overrides={key: value})


def test_a_run_keeps_the_scale_that_it_was_made_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of(tiny(), tmp_path)
    before = (folder / "config.json").read_text()
    assert run(["train", str(folder), "--set", "scale=nano"]) == 2
    assert "only values outside its id can change" in capsys.readouterr().err
    assert (folder / "config.json").read_text() == before
