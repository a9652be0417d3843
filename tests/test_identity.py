"""Ids that last: of the same run for ever the same, of another run another one."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from optstudy import identity
from optstudy.cli import run
from optstudy.config import RunConfig, resolve
from optstudy.errors import UserError
from optstudy.folders import settle
from optstudy.identity import ids_by_seed, run_id, without_code
from optstudy.recipes import CLASSES
from optstudy.record import leaves
from optstudy.study import library as study
from optstudy.study.session import Session
from optstudy.training.train import train
from tests.configs import TINY, folder_of, tiny
from tests.test_engine import finish

FREEZE = {"schedule.freeze_steps": 5}
SAMPLES = {
    "adam": ({}, "7a015521087c"),
    "seed 3": ({"seed": 3}, "c40aa598903b"),
    "rate": ({"optimizer.lr": 3.16e-3}, "6cac4376eeeb"),
    "decay": ({"optimizer.weight_decay": 1e-4}, "159f36254c42"),
    "betas": ({"optimizer.options.betas": [0.9, 0.99]}, "72fcdaef78a1"),
    "eps": ({"optimizer.options.eps": 1e-8}, "20a21a729637"),
    "tied betas": ({"optimizer.name": "adam_tied_betas"}, "45c612a8652a"),
    "adafactor": ({"optimizer.name": "adafactor"}, "ea7c94f85691"),
    "adafactor, printed": (
        {"optimizer.name": "adafactor", "optimizer.options.second_moment": "factored-textbook"},
        "7f8ad67cc40b",
    ),
    "big_vision": ({"optimizer.name": "adafactor_bigvision"}, "f7a84a146f9b"),
    "lion": ({"optimizer.name": "lion"}, "87f23bbf44fe"),
    "signum": ({"optimizer.name": "signum", "optimizer.options.beta": 0.95}, "2360d3568510"),
    "sgdw": ({"optimizer.name": "sgdw", "optimizer.lr": 1.0}, "042809bf9031"),
    "sgdw, nesterov": ({"optimizer.name": "sgdw", "optimizer.options.nesterov": True}, "eebf85c62346"),
    "sophia": ({"optimizer.name": "sophia"}, "253268bbcef7"),
    "adalayer": ({"optimizer.name": "adalayer"}, "2ef1d90a2732"),
    "adalayer_star": ({"optimizer.name": "adalayer_star"}, "09f24af63cb8"),
    "norms off": ({"optimizer.name": "adalayer_star_norms_off"}, "52688cc2c68c"),
    "hybrid": ({"optimizer.name": "hybrid_last_norm", "optimizer.lr": 316.0}, "1bdec7cc159d"),
    "matrices": ({"optimizer.name": "hybrid_matrix_only"}, "861da7c3482b"),
    "frozen": ({"optimizer.name": "frozen_keep_last_norm", **FREEZE}, "65ae2447aa4d"),
    "preconditioned": (
        {"optimizer.name": "optstudy.optim.Preconditioned", "optimizer.options.second_moment": "row"},
        "f20d043e7ca5",
    ),
    "a role's rate": ({"optimizer.roles": {"head": {"lr": 1e-3}, "rest": {"eps": 1e-8}}}, "e92c8675356a"),
    "two optimizers": ({"optimizer.roles": {"matrix": {"name": "lion", "lr": 1e-4}}}, "1b03d77a425f"),
    "of others": (
        {"optimizer.name": "torch.optim.Muon", "optimizer.options": {"momentum": 0.9, "eps": None}},
        "1bea34693c82",
    ),
    "muon beside adam": (
        {"optimizer.roles": {"matrix": {"name": "torch.optim.Muon", "nesterov": False}}},
        "516c4d70a45a",
    ),
    "schedule": ({"schedule": {"warmup": 0.2, "warmup_start": 0.0, "final": 1.0}}, "f46969b9e680"),
    "training": (
        {"training.micro_batch_size": 2, "training.clip_norm": None, "training.z_loss": 0},
        "7163989dbe47",
    ),
    "model": ({"model.qk_norm": False, "model.scale_attention_by_layer": True}, "ffa381726ea4"),
    "data": (
        {"data.tokens": 10_000, "data.tokenizer": "x.json", "data.tokenizer_fingerprint": "ab"},
        "b13180240e2d",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SAMPLES)
def test_ids_never_change(name):
    """A change here makes recorded runs strangers; raise ``numerics`` instead if results changed."""
    changes, expected = SAMPLES[name]
    assert tiny(**changes).id == expected


def test_ids_of_samples_differ():
    assert len({tiny(**changes).id for changes, _ in SAMPLES.values()}) == len(SAMPLES) == 30


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"optimizer.name": "adam_tied_betas"}, {"optimizer.options.betas": [0.95, 0.95]}),
        ({}, {"optimizer.name": "optstudy.optim.Adam"}),
        ({}, {"optimizer.name": "optstudy.optim.preconditioned.Adam"}),
        (
            {"optimizer.name": "adalayer_star"},
            {
                "optimizer.name": "optstudy.optim.Adalayer",
                "optimizer.roles": {"head": {"second_moment": "row"}, "qkv": {"second_moment": "split-3"}},
            },
        ),
        (
            {"optimizer.name": "frozen_all", **FREEZE},
            {"optimizer.name": "frozen_all", "optimizer.options.estimate_steps": 5, **FREEZE},
        ),
        ({"optimizer.name": "sophia"}, {"optimizer.name": "sophia", "optimizer.options.batch_tokens": 64}),
        ({"optimizer.lr": 1}, {"optimizer.lr": 1.0}),
        ({"training.z_loss": 0}, {"training.z_loss": 0.0}),
        ({"schedule.warmup_start": 0.0}, {"schedule.warmup_start": -0.0}),
        ({"optimizer.name": "mine.X", "optimizer.options.a": [1, {"b": 2.0}]},
         {"optimizer.name": "mine.X", "optimizer.options.a": [1.0, {"b": 2}]}),
        ({}, {"optimizer.options": {"eps": 1e-15, "freeze": False}, "optimizer.weight_decay": 0}),
        ({"data.tokenizer": "a.json", "data.tokenizer_fingerprint": "x"},
         {"data.tokenizer": "b/c.json", "data.tokenizer_fingerprint": "x"}),
        ({}, {"scale": "nano", "data.corpus": "path:/a", "training.parallel": "fsdp", "watch.norms": True}),
    ],
)  # fmt: skip
def test_what_is_the_same_run_has_the_same_id(one, other):
    assert tiny(**one).id == tiny(**other).id


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 1}, {"data.fingerprint": "1"}, {"data.tokenizer": "bpe-4096"}, {"data.sequence_length": 32},
        {"data.tokenizer_fingerprint": "1"}, {"data.tokens": 99},
        {"model.qk_norm": False}, {"model.vocab_size": 4096}, {"optimizer.lr": 2e-2},
        {"optimizer.weight_decay": 0.1}, {"optimizer.options.eps": 1e-8}, {"optimizer.code": "1"},
        {"optimizer.roles.head.second_moment": "row"}, {"optimizer.roles.head.lr": 1e-3},
        {"optimizer.roles.head.train": False}, {"schedule.warmup": 0.2}, {"training.z_loss": 0.0},
        {"training.clip_norm": None}, {"training.precision": "bfloat16"}, {"training.threads": 2},
        {"validation.sequences": 9}, {"validation.points": 3},
    ],
    ids=str,
)  # fmt: skip
def test_what_decides_the_result_is_in_the_id(change):
    assert resolve(tiny().model_dump(mode="json"), change).id != tiny().id


def test_true_is_not_one():
    one, true = ({"optimizer.name": "mine.X", "optimizer.options": {"a": a}} for a in (1, True))
    assert tiny(**one).id != tiny(**true).id


def test_a_key_that_comes_with_its_default_changes_no_id():
    """So was every key before it came: a config without it has the id of one with the default."""
    config = tiny(**{"validation.points": 10})
    tree = config.model_dump(mode="json")
    for key in identity.DEFAULTS:
        older = json.loads(json.dumps(tree))
        *parents, leaf = key.split(".")
        node = older
        for parent in parents:
            node = node[parent]
        del node[leaf]
        assert run_id(older) == config.id, key


def test_the_tables_have_every_default_that_there_is():
    """A default that no table has would be a new part of every id; add it, and never change what is there."""
    keys = {key for key, _ in leaves(tiny().model_dump(mode="json"))}
    given = {key for key, _ in leaves(TINY)} - {"validation.points"} | {"numerics"}
    keys = {key for key in keys if not key.startswith(("optimizer.options", "optimizer.roles", "watch."))}
    assert keys - given == identity.DEFAULTS.keys() | {"training.parallel", "model.config"}
    for target, options in CLASSES.items():
        fields = options.model_fields.keys() - {"lr", "weight_decay", "maximize", "compile"}
        assert fields == identity.OPTIONS[target].keys(), target


def test_ids_by_seed_are_those_of_whole_configs():
    config = tiny()
    ids = ids_by_seed(config.model_dump(mode="json"))
    assert [ids(seed) for seed in (0, 1, 70)] == [
        config.model_copy(update={"seed": seed}).id for seed in (0, 1, 70)
    ]


def test_a_recorded_config_reads_back_to_its_id():
    for changes, _ in SAMPLES.values():
        dumped = json.loads(json.dumps(tiny(**changes).model_dump(mode="json")))
        assert RunConfig.model_validate(dumped).id == run_id(dumped) == tiny(**changes).id


def test_a_tokenizers_file_counts_by_its_content(corpus_slice, tmp_path):
    def config(name, content):
        (tmp_path / name).write_text(content)
        tree = tiny().model_dump(mode="json")
        tree["data"] |= {"corpus": corpus_slice, "tokenizer": str(tmp_path / name)}
        return settle(tree)

    first = config("a.json", "one")
    assert config("b.json", "one").id == first.id
    assert config("a.json", "two").id != first.id


CLASS = "import torch\nimport helper\nclass X(torch.optim.SGD):\n    pass\n"


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with a class of one's own and a module that it imports, and a study of it."""
    monkeypatch.chdir(tmp_path)
    Path("own.py").write_text(CLASS)
    Path("helper.py").write_text("import json\nfrom pieces import part\n")
    Path("pieces").mkdir()
    Path("pieces/__init__.py").write_text("")
    Path("pieces/part.py").write_text("from . import other\n")
    Path("pieces/other.py").write_text("number = 1\n")
    Path("unrelated.py").write_text("")
    Path("s.yaml").write_text(
        "title: T\nasks: Q?\nbase: {optimizer.name: own.X}\naxes: {optimizer.lr: [0.01, 0.02]}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("own", "helper", "pieces", "pieces.part", "pieces.other"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def ids():
    return [point.id for point in study.load("s.yaml").points("pico")]


def test_code_of_ones_own_is_part_of_the_id_and_so_is_what_it_imports(own):
    before = ids()
    for name in ("own.py", "helper.py", "pieces/__init__.py", "pieces/part.py", "pieces/other.py"):
        source = Path(name).read_text()
        Path(name).write_text(f"{source}\nmore = 2\n")
        assert not set(ids()) & set(before), name
        Path(name).write_text(source)
        assert ids() == before
    Path("unrelated.py").write_text("x = 1\n")
    Path("own.py").write_bytes(CLASS.replace("\n", "\r\n").encode())
    assert ids() == before
    assert not {"own", "helper", "pieces"} & sys.modules.keys(), "nothing is imported"


def test_runs_of_older_code_stay_and_are_never_counted(own, capsys):
    session = Session(study.load("s.yaml"), "pico", own / "runs")
    old = session.plan.points
    for point in old:
        finish(own / "runs", point)
    Path("own.py").write_text(CLASS + "# faster\n")
    session = Session(study.load("s.yaml"), "pico", own / "runs")
    assert set(session.states().values()) == {"waiting"} and session.rows() == []
    assert {row.id for row in session.older()} == {point.id for point in old}
    assert {without_code(row.config) for row in session.older()} == {
        without_code(point.config.model_dump(mode="json")) for point in session.plan.points
    }
    finish(own / "runs", session.plan.points[0], loss=4.0)
    assert [row.loss for row in session.rows()] == [4.0]
    assert run(["show", "s.yaml", "--runs", "runs"]) == 0
    assert capsys.readouterr().out.count("older code") == 2
    assert run(["status", "s.yaml", "--runs", "runs", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["runs"] == {"done": 1, "waiting": 1} and set(told["older_code"]) == {p.id for p in old}


def test_a_run_of_older_code_is_not_continued(own, corpus_slice):
    """Its folder's id would not be that of what then ran."""
    changes = {"data.corpus": corpus_slice, "optimizer.name": "own.X"}
    folder = folder_of(settle(tiny(**changes).model_dump(mode="json")), own / "runs")
    for name, more in (("own.py", "# x\n"), ("pieces/other.py", "# x\n")):
        before = Path(name).read_text()
        Path(name).write_text(before + more)
        with pytest.raises(UserError, match=r"optimizer.name: own.X has changed since this run was made"):
            train(folder)
        Path(name).write_text(before)
    assert train(folder)["state"] == "done"


def test_packages_are_no_part_of_the_id_and_editable_ones_are(tmp_path):
    """Installed in a folder of its own as pip installs; editable as setuptools and as hatchling note it."""

    def package(root, name, files, **notes):
        info = root / f"{name}-1.2.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
        (info / "RECORD").write_text("".join(f"{file},,\n" for file in [*files, f"{info.name}/METADATA"]))
        for note, text in notes.items():
            (info / note.replace("_txt", ".txt")).write_text(text)

    site, source = tmp_path / "site", tmp_path / "source"
    source.mkdir()
    package(site, "bought", ["bought.py"])
    package(site, "mended", ["__editable__.mended.pth"], top_level_txt="mended\n")
    (site / "bought.py").write_text("import loose\n")
    (site / "loose.py").write_text("")
    (source / "mended.py").write_text("import bought\n")
    egg = source / "mended.egg-info"
    egg.mkdir()
    (egg / "top_level.txt").write_text("mended\n")
    (egg / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: mended\nVersion: 1.2\n")
    code = (
        "import json; from optstudy import provenance as p\n"
        "names = 'bought.X mended.X loose.X absent.X torch.optim.Muon json.X optstudy.optim.Adam'.split()\n"
        "print(json.dumps({n: [p.fingerprint([n]), p.versions([n])] for n in names}))\n"
        "import sys; assert not {'bought', 'mended', 'torch'} & sys.modules.keys()"
    )
    environment = {"PYTHONPATH": f"{Path(identity.__file__).parents[1]}:{site}:{source}"}
    ended = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    found = json.loads(ended.stdout)
    assert found["bought.X"] == [None, {"bought": "1.2"}]
    assert found["mended.X"][0] and found["loose.X"][0] and found["mended.X"][1] == found["loose.X"][1] == {}
    assert found["absent.X"] == [None, {}] and found["json.X"] == [None, {}]
    assert found["torch.optim.Muon"][0] is None and "torch" in found["torch.optim.Muon"][1]
    assert found["optstudy.optim.Adam"] == [None, {}]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (b"import torch\nclass X(torch.optim.SGD)\n    pass\n", "own.py:2: "),
        (b"x = 'caf\xe9'\n", "own.py:1: "),
        (b"x = 1\0\n", "own.py"),
    ],
)
def test_source_that_cannot_be_read_is_named_with_its_place(own, capsys, source, said):
    Path("own.py").write_bytes(source)
    assert run(["show", "s.yaml", "--runs", "runs"]) == 2
    told = capsys.readouterr().err
    assert said in told and told.count("\n") == 1
