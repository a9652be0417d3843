"""Any language model trains: Llama, classes of one's own, Hugging Face's; what is none is refused."""

import json
import re
from functools import partial

import pytest
import torch
from torch import nn

from optstudy import cli
from optstudy.config import forward_flops, merge, parameter_count, resolve
from optstudy.errors import UserError
from optstudy.folders import settle
from optstudy.study import library
from optstudy.training import models
from optstudy.training.build import build_optimizer
from optstudy.training.loss import language_model_loss, logits_loss
from optstudy.training.model import ROPE_BASE
from optstudy.training.run import Run
from tests.configs import TINY, tiny_on
from tests.several import HALF, STEPS, job, together

CPU = torch.device("cpu")
NO_SIZES = dict.fromkeys(("model.d_model", "model.n_layers", "model.n_heads"))
SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
QWEN = {
    **NO_SIZES,
    "model.name": "transformers.Qwen3ForCausalLM",
    "model.options": {**SMALL, "num_key_value_heads": 2, "head_dim": 4},
}
GPT2 = {
    **NO_SIZES,
    "model.name": "transformers.GPT2LMHeadModel",
    "model.options": {"n_embd": 16, "n_layer": 2, "n_head": 2},
}
LLAMA = {"model.name": "llama"}
TIED = {**LLAMA, "model.tie_embeddings": True}
HEAD = "import torch\nfrom torch import nn\n"
OWN = """
class Own(nn.Module):
    def __init__(self, vocab_size, width=8):
        super().__init__()
        self.table = nn.Embedding(vocab_size, width)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocab_size, bias=False)

    def forward(self, ids):
        return {}
"""
LOGITS = "self.head(self.norm(self.table(ids)))"


def own(monkeypatch, folder, returns=LOGITS, body=OWN):
    """Write a module with a small model; return the config keys that name it."""
    own.count = getattr(own, "count", 0) + 1
    name = f"own_model_{own.count}"
    (folder / f"{name}.py").write_text(HEAD + body.format(returns))
    monkeypatch.syspath_prepend(folder)
    return {**NO_SIZES, "model.name": f"{name}.Own"}


def made(**overrides):
    return models.build(resolve(TINY, overrides))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kv", [1, 2, 4])
def test_llama_is_transformers_llama(tied, kv):
    import transformers

    told = {"d_model": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": kv, "tie_embeddings": tied}
    ours = made(**{"model.name": "llama", **{f"model.{key}": value for key, value in told.items()}})
    config = transformers.LlamaConfig(
        vocab_size=2048, hidden_size=32, intermediate_size=88, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=kv, rms_norm_eps=1e-5, tie_word_embeddings=tied,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_BASE},
    )  # fmt: skip
    theirs = transformers.LlamaForCausalLM(config).double()
    module = ours.module.double()
    weights = {
        "model.embed_tokens.weight": module.embedding.weight,
        "model.norm.weight": module.norm.weight,
        "lm_head.weight": module.head.weight,
    }
    for i, block in enumerate(module.blocks):
        layer = f"model.layers.{i}."
        parts = block.attention.qkv.weight.split((32, 8 * kv, 8 * kv))
        weights |= {f"{layer}self_attn.{n}_proj.weight": p for n, p in zip("qkv", parts, strict=True)}
        weights |= {
            f"{layer}self_attn.o_proj.weight": block.attention.out.weight,
            f"{layer}mlp.gate_proj.weight": block.mlp.gate.weight,
            f"{layer}mlp.up_proj.weight": block.mlp.up.weight,
            f"{layer}mlp.down_proj.weight": block.mlp.down.weight,
            f"{layer}input_layernorm.weight": block.attention_norm.weight,
            f"{layer}post_attention_layernorm.weight": block.mlp_norm.weight,
        }
    theirs.load_state_dict(weights)
    x_BT = torch.randint(2048, (3, 21), generator=torch.Generator().manual_seed(0))
    logits = ours.logits(module(x_BT))
    assert torch.allclose(logits, theirs(x_BT).logits, rtol=0, atol=1e-5)
    # theirs rounds in two places whatever the type: in norms, and of frequencies, as one over the power
    theirs.model.rotary_emb.inv_freq = ROPE_BASE ** -(torch.arange(0, 8, 2, dtype=torch.float32) / 8)
    for norm in [one for one in theirs.modules() if type(one).__name__ == "LlamaRMSNorm"]:
        norm.forward = partial(nn.functional.rms_norm, normalized_shape=(32,), weight=norm.weight, eps=1e-5)
    assert torch.allclose(logits, theirs(x_BT).logits, rtol=0, atol=1e-10)


@pytest.mark.parametrize("own_keys", [LLAMA, TIED, {**LLAMA, "model.d_model": 96, "model.n_heads": 6}])
def test_the_formulas_of_llama_count_its_module(own_keys):
    config = resolve(TINY, own_keys)
    counted = models._counted(models.build(config), config)
    assert parameter_count(config.model) == counted.parameters
    width, layers, _ = config.model.sizes
    half = 2 * layers * width * config.data.sequence_length  # the counter takes attention whole
    assert forward_flops(config.model, config.data.sequence_length) + half == counted.forward_flops


def test_a_scale_has_sizes_for_llama_and_none_for_other_models():
    for scale, width, hidden in (("pico", 64, 176), ("nano", 128, 344), ("micro", 256, 688)):
        tree = {"scale": scale, "optimizer": {"name": "adam", "lr": 1e-3}}
        config = settle(merge(library.for_any_model(scale), tree, {"model.name": "llama"}))
        built = models.outline(config).module
        assert config.model.sizes.width == width and built.blocks[0].mlp.up.weight.shape == (hidden, width)
        assert config.model.n_kv_heads == config.model.sizes.heads // 2
        other = settle(merge(library.for_any_model(scale), tree, {"model.name": "mine.Own"}))
        assert other.model.vocab_size == config.model.vocab_size and other.model.d_model is None


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"model.name": "lama"}, "unknown model 'lama'; did you mean 'llama'?"),
        ({"model.name": "my model"}, "unknown model 'my model'"),
        ({**LLAMA, "model.qk_norm": True}, "model.qk_norm: llama has no such key"),
        ({**LLAMA, "model.n_kv_heads": 3}, "n_kv_heads (3) must divide n_heads (2)"),
        ({"model.tie_embeddings": True}, "model.tie_embeddings: paper has no such key"),
        ({"model.options": {"width": 3}}, "model.options: paper has no such key"),
        ({"model.name": "mine.Own"}, "model.d_model: mine.Own has no such key; its own keys stand under"),
        ({"model.d_model": None}, "model.d_model: missing"),
        ({**NO_SIZES, "model.name": "mine.Own", "model.options.vocab_size": 8}, "set model.vocab_size"),
        ({"optimizer.tied": "heads"}, "optimizer.tied: input should be 'embedding' or 'head', not 'heads'"),
        ({"optimizer.named": {"head.weight": "heads"}}, "unknown role 'heads'; did you mean 'head'?"),
    ],
)
def test_a_key_that_a_model_does_not_have_is_refused(keys, said):
    with pytest.raises(UserError, match=re.escape(said)):
        resolve(TINY, keys)


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("transformers.Qwen4ForCausalLM", {}, "did you mean 'Qwen"),
        ("transformers.Qwen3ForCausalLM", {"hidden_sise": 8}, "unknown option 'hidden_sise'"),
        ("transformers.Qwen3Config", {}, "is not a torch.nn.Module, but another class"),
        ("transformers.GPT2LMHeadModel", {"rope_theta": 1e4}, "unknown option 'rope_theta'"),
        ("transformers.Qwen3ForCausalLM", {"hidden_size": "wide"}, "expected int, got str (value: 'wide')"),
        (
            "transformers.Qwen3Model",
            {**SMALL, "num_key_value_heads": 2},
            "must return logits of shape (2, 8, 2048)",
        ),
        ("transformers.BertLMHeadModel", {**SMALL}, "it is not causal"),
        ("nowhere.Own", {}, "there is no module 'nowhere'"),
        ("torch.nn.Linear", {}, "its constructor must take vocab_size"),
    ],
)
def test_a_path_that_leads_to_no_language_model_is_one_line(name, options, said):
    with pytest.raises(UserError) as refused:
        models.try_out(resolve(TINY, {**NO_SIZES, "model.name": name, "model.options": options}))
    assert said in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("returns", "said"),
    [
        (
            "self.table(ids).sum(1)",
            "must return logits of shape (2, 8, 2048) for ids of shape (2, 8), not shape (2, 8)",
        ),
        (f"{LOGITS}[:, -1:]", "not shape (2, 1, 2048)"),
        ("None", "not a NoneType"),
        ("self.head(self.table(ids).mean(1, keepdim=True).expand(-1, 8, -1))", "it is not causal"),
        ("self.missing(ids)", "own_model_"),
        ("exit(3)", "SystemExit: 3"),
        (f"{LOGITS}.detach()", "what forward(ids) returns has no gradient"),
        (f"{LOGITS}.to(torch.complex64)", "must return real numbers, not complex64"),
        (f"{LOGITS} + torch.zeros(12)[torch.arange(ids.shape[1])][:, None]", "fails on 16 pieces (data.seq"),
        (f"{LOGITS} + torch.zeros(999)[ids][..., None]", "from 0 to 2047 (model.vocab_size)"),
    ],
)
def test_what_is_no_causal_language_model_is_refused(returns, said, monkeypatch, tmp_path):
    with pytest.raises(UserError, match="own_model_") as refused:
        models.try_out(resolve(TINY, own(monkeypatch, tmp_path, returns)))
    assert said in str(refused.value)


def test_a_model_without_parameters_is_refused(monkeypatch, tmp_path):
    body = OWN.replace("super().__init__()", "super().__init__(); self.size = vocab_size; return")
    keys = own(monkeypatch, tmp_path, "torch.zeros(*ids.shape, self.size)", body)
    with pytest.raises(UserError, match="has no parameters to train"):
        models.try_out(resolve(TINY, keys))


@pytest.mark.parametrize(
    ("returns", "fused"),
    [
        (LOGITS, True),
        (f"({LOGITS}, None)", True),
        ("self.norm(self.table(ids))", True),
        (f"2 * {LOGITS}", False),
    ],
)
def test_logits_or_hidden_states_give_the_loss_of_the_logits(returns, fused, monkeypatch, tmp_path):
    keys = own(monkeypatch, tmp_path, returns)
    built = models.build(resolve(TINY, keys))
    assert (built.head is not None) is fused
    module, x_BT = built.module, torch.randint(2048, (2, 9))
    logits = (2 if not fused else 1) * nn.functional.linear(
        module.norm(module.table(x_BT)), module.head.weight
    )
    output, y_N = models.tensor_of(module(x_BT))[:, :-1].flatten(0, 1), x_BT[:, 1:].flatten()
    wanted = nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), y_N).detach()
    found = language_model_loss(output, built.head.weight, y_N) if fused else logits_loss(output, y_N)
    assert float(found[1]) == pytest.approx(float(wanted), rel=1e-6)


def test_the_loss_of_logits_is_that_of_hidden_states():
    h, w, y = (
        torch.randn(20, 5, dtype=torch.float64),
        torch.randn(30, 5, dtype=torch.float64),
        torch.arange(20),
    )
    h.requires_grad_()
    for one, other in zip(logits_loss(h @ w.T, y, 0.1), language_model_loss(h, w, y, 0.1), strict=True):
        assert float(one.detach()) == pytest.approx(float(other.detach()), rel=1e-12)
    (one,) = torch.autograd.grad(logits_loss(h @ w.T, y, 0.1)[0], h)
    (other,) = torch.autograd.grad(language_model_loss(h, w, y, 0.1)[0], h)
    assert torch.allclose(one, other, rtol=1e-10)


@pytest.mark.parametrize("model", [TIED, QWEN, GPT2], ids=["llama", "qwen3", "gpt2 with dropout"])
def test_a_resumed_run_goes_on_bitwise(model, corpus_slice):
    """GPT-2 has dropout, so the generator's state counts; all evaluate without it."""
    config = tiny_on(corpus_slice, **model)

    def steps(run, first, last):
        return [tuple(map(float, run.step(step))) for step in range(first, last)]

    whole = Run(config, CPU)
    wanted, first = steps(whole, 0, 8), Run(config, CPU)
    assert steps(first, 0, 4) == wanted[:4] and first.validation_loss() == first.validation_loss()
    state, second = first.state_dict(), Run(config, CPU)
    second.load_state_dict(state)
    assert steps(second, 4, 8) == wanted[4:]
    assert second.weights_sha256() == whole.weights_sha256()


def test_the_seed_decides_the_initial_weights():
    first, again, other = (made(**{**QWEN, "seed": seed}).module.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])
    assert 0.015 < float(first["lm_head.weight"].std()) < 0.025


@pytest.mark.long
@pytest.mark.timeout(900)
def test_two_processes_do_what_one_does(corpus_slice, tmp_path):
    for how in ("fsdp", "ddp"):
        common = {"training.parallel": how, "training.batch_size": 8, "optimizer.name": "adalayer"}
        configs = [tiny_on(corpus_slice, **model, **common) for model in (LLAMA, TIED, QWEN)]
        folder = tmp_path / how
        folder.mkdir()
        (folder / "one").mkdir()
        halves = [job(config, 0, HALF, save=folder / "one" / str(i)) for i, config in enumerate(configs)]
        alone = together(1, [*map(job, configs), *halves], folder)[:3]
        rests = [job(config, HALF, STEPS, load=folder / "one" / str(i)) for i, config in enumerate(configs)]
        two = together(2, [*map(job, configs), *rests], folder)
        for one, both, rest in zip(alone, two[:3], two[3:], strict=True):
            assert both["losses"] == pytest.approx(one["losses"], rel=1e-5)
            assert rest["losses"] == pytest.approx(one["losses"][HALF:], rel=1e-5)
            assert both["val_loss"] == pytest.approx(one["val_loss"], rel=1e-5)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_compiled_blocks_do_what_plain_ones_do(corpus_slice, monkeypatch):
    for model in (TIED, QWEN):
        config = tiny_on(corpus_slice, **model, **{"training.precision": "float64"})
        plain = [float(Run(config, CPU).step(0)[0])]
        monkeypatch.setenv("OPTSTUDY_COMPILE", "1")
        run = Run(config, CPU)
        assert run.compiled and [float(run.step(0)[0])] == pytest.approx(plain, rel=1e-9)
        monkeypatch.delenv("OPTSTUDY_COMPILE")


def test_norms_and_effective_rates_are_told_by_role(corpus_slice):
    watched = {"watch.norms": True, "training.effective_lr": True, "optimizer.name": "adam"}
    run = Run(tiny_on(corpus_slice, **QWEN, **watched, **{"optimizer.roles.norm.lr": 1e-3}), CPU)
    run.probe.expect(True)
    run.step(0)
    probed = run.probe()
    assert set(probed["norms"]) == set(probed["effective_lr"]) == {
        "embedding", "norm", "qkv", "attention_out", "mlp_in", "mlp_out", "head",
    }  # fmt: skip


def test_a_tied_weight_plays_what_the_config_says():
    star = {"optimizer.name": "adalayer_star"}
    with pytest.raises(UserError, match=r"optimizer\.tied in a config"):
        build_optimizer(made(**TIED).module, resolve(TINY, {**TIED, **star}))
    config = resolve(TINY, {**TIED, **star, "optimizer.tied": "head"})
    groups = {group["role"]: group for group in build_optimizer(made(**TIED).module, config).param_groups}
    assert "embedding" not in groups and groups["head"]["second_moment"] == "row"


def test_roles_by_name_come_before_all_else():
    named = {"optimizer.named": {"blocks.*.mlp.gate.weight": "other"}, "optimizer.roles.other.lr": 1e-4}
    config = resolve(TINY, {**LLAMA, **named})
    assert config.optimizer.named == {"blocks.*.mlp.gate.weight": "other"}
    groups = {group["role"]: group for group in build_optimizer(made(**LLAMA).module, config).param_groups}
    assert len(groups["other"]["params"]) == 2 and groups["other"]["lr"] == 1e-4
    assert config.id != resolve(TINY, {**LLAMA, "optimizer.roles.other.lr": 1e-4}).id


def test_a_file_of_hugging_face_says_what_options_leave_out(tmp_path, monkeypatch):
    saved = {
        **SMALL, "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": 151_936,
        "eos_token_id": 151_645, "rope_theta": 1_000_000, "rope_scaling": None, "sliding_window": None,
        "max_window_layers": 28, "torch_dtype": "bfloat16", "transformers_version": "4.51.0",
        "tie_word_embeddings": True, "head_dim": 4, "num_key_value_heads": 2, "num_hidden_layers": 28,
    }  # fmt: skip
    path = tmp_path / "qwen3.json"
    path.write_text(json.dumps(saved))
    keys = {
        **NO_SIZES,
        "model.name": "transformers.Qwen3ForCausalLM",
        "model.options": {"num_hidden_layers": 2},
    }
    from_file = settle(merge(TINY, {**keys, "model.config": str(path)}, {"data.corpus": "enwik8"}))
    assert from_file.model.options["num_hidden_layers"] == 2
    module = models.build(from_file).module
    assert module.config.vocab_size == 2048 and len(module.model.layers) == 2
    assert module.model.embed_tokens.weight.dtype == torch.float32
    copy = tmp_path / "copy.json"
    copy.write_text(json.dumps(saved))
    assert settle(merge(TINY, {**keys, "model.config": str(copy)})).id == from_file.id
    path.write_text("[1]")
    with pytest.raises(UserError, match=r"model\.config: .*qwen3\.json"):
        settle(merge(TINY, {**keys, "model.config": str(path)}))
    with pytest.raises(UserError, match="No such file"):
        settle(merge(TINY, {**keys, "model.config": str(tmp_path / "none.json")}))


def test_the_source_of_an_own_class_is_in_the_id(tmp_path, monkeypatch):
    keys = own(monkeypatch, tmp_path)
    before = settle(merge(TINY, keys))
    assert before.model.code is not None
    (path,) = tmp_path.glob("own_model_*.py")
    path.write_text(path.read_text() + "# changed\n")
    after = settle(merge(TINY, keys))
    assert after.model.code != before.model.code and after.id != before.id


STUDY = """
title: Own
asks: Which?
base: {model: {name: ours.Own, options: {width: 4}}, training.steps: 20}
axes: {optimizer.name: [adam, sgdw], optimizer.lr: [1e-3]}
"""


def test_show_imports_no_model_and_says_that_it_was_not_counted(tmp_path, own_cache, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "ours.py").write_text("print('imported')\n" + HEAD + OWN.format(LOGITS))
    (tmp_path / "own.yaml").write_text(STUDY)
    assert cli.run(["show", "own.yaml"]) == 0
    said = capsys.readouterr().out
    assert "ours.Own: size not counted; optstudy run --dry-run counts it" in said and "imported" not in said
    assert cli.run(["run", "own.yaml", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "imported" in said
    parameters = 2 * 2048 * 4 + 2 * 4
    assert f"ours.Own: {parameters:,} parameters, {20 * 16 * 64 / parameters:.3g} tokens each" in said
    assert cli.run(["show", "own.yaml"]) == 0
    assert "FLOPs, about" in capsys.readouterr().out
    assert cli.run(["run", "own.yaml", "--dry-run", "--set", "model.options.widht=4"]) == 2
    assert "unknown option 'widht' of ours.Own; did you mean 'width'?" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_an_imported_model_is_counted_without_memory_experts_by_those_that_act():
    experts = {"num_key_value_heads": 2, "num_local_experts": 4, "num_experts_per_tok": 2}
    name = "transformers.MixtralForCausalLM"
    config = resolve(TINY, {**NO_SIZES, "model.name": name, "model.options": {**SMALL, **experts}})
    outline = models.outline(config)
    assert all(p.is_meta for p in outline.module.parameters()) and len(outline.blocks) == 2
    size = models.size_of(config)
    assert size.parameters == sum(p.numel() for p in models.build(config).module.parameters())
    attention = 2 * (2 * 16 * 16 + 2 * 16 * 8) + 4 * 16 * config.data.sequence_length
    layer = attention + 2 * 16 * 4 + 2 * 2 * 3 * 16 * 24  # router, two experts of three matrices
    assert size.forward_flops == 2 * layer + 2 * 16 * 2048


@pytest.mark.parametrize("value", [float("inf"), {"a": [float("nan")]}, 1 << 70])
def test_options_of_a_model_are_finite(value):
    with pytest.raises(UserError, match=r"model\.options\.width: must be finite"):
        resolve(TINY, {**NO_SIZES, "model.name": "mine.Own", "model.options": {"width": value}})
