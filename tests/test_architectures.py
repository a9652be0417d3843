"""Roles and blocks of language models that exist: each weight's true matrices, and every family tried."""

import ast
import logging
import re
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optstudy.errors import UserError
from optstudy.optim import Adalayer
from optstudy.roles import assign_roles, param_groups
from optstudy.training.build import create_optimizer
from tests import families

transformers = pytest.importorskip("transformers")

SIZES = {"hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2, "num_attention_heads": 4}
WORDS = {"vocab_size": 64, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
TRUE = {"qkv": {"second_moment": "split-3"}, "mlp_in": {"second_moment": "split-2"}}
ROWS = {role: {"second_moment": "row"} for role in ("qkv", "mlp_in", "mlp_out")}
Index = Callable[[Tensor], list[Tensor]]
"""The numbers of a weight's entries, in its shape -> those of each block."""


def tiny(family: str, **own: Any) -> nn.Module:
    config = getattr(transformers, f"{family}Config")(**{**SIZES, **WORDS, **own})
    torch.manual_seed(0)
    return getattr(transformers, f"{family}ForCausalLM")(config)


def gpt2(**own: Any) -> nn.Module:
    torch.manual_seed(0)
    sizes = {"n_embd": 24, "n_layer": 2, "n_head": 4, "n_positions": 32}
    return transformers.GPT2LMHeadModel(transformers.GPT2Config(**{**sizes, **WORDS, **own}))


def second_moments(model: nn.Module, rules: dict[str, Any]) -> dict[str, tuple[Tensor, Tensor]]:
    """Gradient and second moments of each parameter after one step of Adalayer, by name, in float64."""
    model.double()
    optimizer = Adalayer(param_groups(model, {**rules, "rest": {}}), lr=1e-3, betas=(0.9, 0.75))
    generator = torch.Generator().manual_seed(1)
    for p in model.parameters():
        p.grad = torch.randn(p.shape, generator=generator, dtype=torch.float64)
    optimizer.step()
    return {n: (p.grad, optimizer.state[p]["v"]) for n, p in model.named_parameters()}


def assert_blocks(found: dict[str, tuple[Tensor, Tensor]], ends: str, index: Index) -> None:
    """Each value is (1 - beta2) times the mean of g^2 over the entries of one true block, to 1e-12."""
    some = {name: pair for name, pair in found.items() if name.endswith(ends)}
    assert some, ends
    for name, (g, v) in some.items():
        blocks = index(torch.arange(g.numel()).view(g.shape))
        assert sorted(torch.cat([b.flatten() for b in blocks]).tolist()) == list(range(g.numel()))
        means = torch.stack([0.25 * sum(x * x for x in g.flatten()[b.flatten()]) / b.numel() for b in blocks])
        assert v.numel() == len(blocks), name
        torch.testing.assert_close(v.flatten(), means, rtol=1e-12, atol=0.0)


def at(*sizes: int, turns: int = 1) -> Index:
    """Rows in matrices of these sizes, over and over."""

    def index(i: Tensor) -> list[Tensor]:
        owner = torch.tensor([k for k, size in enumerate(sizes) for _ in range(size)] * turns)
        assert len(owner) == len(i)
        return [i[owner == k] for k in range(len(sizes))]

    return index


def whole(i: Tensor) -> list[Tensor]:
    return [i]


FUSED = {
    "phi3": (lambda: tiny("Phi3", num_key_value_heads=2), ".qkv_proj.weight", at(24, 12, 12)),
    "phi3, one head of k and v": (
        lambda: tiny("Phi3", num_key_value_heads=1),
        ".qkv_proj.weight",
        at(24, 6, 6),
    ),
    "phi3, gate and up": (lambda: tiny("Phi3"), ".gate_up_proj.weight", at(40, 40)),
    "bloom": (
        lambda: tiny("Bloom", n_layer=1, n_head=4),
        ".query_key_value.weight",
        at(6, 6, 6, turns=4),
    ),
    "bloom, bias": (
        lambda: tiny("Bloom", n_layer=1, n_head=4),
        ".query_key_value.bias",
        at(6, 6, 6, turns=4),
    ),
    "pythia": (lambda: tiny("GPTNeoX"), ".query_key_value.weight", at(6, 6, 6, turns=4)),
    "falcon, one head of k and v": (
        lambda: tiny("Falcon", new_decoder_architecture=False, multi_query=True),
        ".query_key_value.weight",
        at(24, 6, 6),
    ),
    "falcon, head by head": (
        lambda: tiny("Falcon", new_decoder_architecture=False, multi_query=False),
        ".query_key_value.weight",
        at(6, 6, 6, turns=4),
    ),
    "falcon, groups": (
        lambda: tiny("Falcon", new_decoder_architecture=True, num_kv_heads=2),
        ".query_key_value.weight",
        at(12, 6, 6, turns=2),
    ),
    "persimmon": (lambda: tiny("Persimmon"), ".query_key_value.weight", at(6, 6, 6, turns=4)),
    "codegen": (
        lambda: tiny("CodeGen", rotary_dim=4, n_positions=16),
        ".qkv_proj.weight",
        at(6, 6, 6, turns=4),
    ),
    "starcoder": (
        lambda: tiny("GPTBigCode", n_embd=24, n_head=4, n_layer=1, n_positions=16, multi_query=True),
        ".c_attn.weight",
        at(24, 6, 6),
    ),
    "starcoder, head by head": (
        lambda: tiny("GPTBigCode", n_embd=24, n_head=4, n_layer=1, n_positions=16, multi_query=False),
        ".c_attn.weight",
        at(6, 6, 6, turns=4),
    ),
    "gpt2": (gpt2, ".c_attn.weight", lambda i: [i[:, :24], i[:, 24:48], i[:, 48:]]),
    "gpt2, bias": (gpt2, ".c_attn.bias", at(24, 24, 24)),
    "gpt2, an MLP": (gpt2, ".c_fc.weight", whole),
    "llama": (lambda: tiny("Llama", num_key_value_heads=2), "_proj.weight", whole),
    "bert": (
        lambda: transformers.BertLMHeadModel(
            transformers.BertConfig(**SIZES, vocab_size=64, is_decoder=True)
        ),
        ".key.weight",
        whole,
    ),
}


@pytest.mark.parametrize("case", FUSED)
def test_adalayer_has_one_value_for_each_matrix_that_is_fused_in_a_weight(case: str) -> None:
    make, ends, index = FUSED[case]
    assert_blocks(second_moments(make(), TRUE), ends, index)


def test_experts_have_values_of_their_own() -> None:
    mixtral = lambda: tiny("Mixtral", num_local_experts=3)  # noqa: E731
    for ends in (".gate_up_proj", ".experts.down_proj"):
        assert_blocks(second_moments(mixtral(), {}), ends, list)
        assert_blocks(
            second_moments(mixtral(), ROWS), ends, lambda i: [row for expert in i for row in expert]
        )
    halves = second_moments(mixtral(), TRUE)
    assert_blocks(halves, ".gate_up_proj", lambda i: [half for e in i for half in (e[:40], e[40:])])
    oss = lambda: tiny("GptOss", num_local_experts=3, num_key_value_heads=2, head_dim=6)  # noqa: E731
    assert_blocks(second_moments(oss(), {}), ".gate_up_proj_bias", list)
    assert_blocks(second_moments(oss(), ROWS), ".gate_up_proj", lambda i: [c for e in i for c in e.T])
    turns = second_moments(oss(), TRUE)
    assert_blocks(turns, ".gate_up_proj", lambda i: [part for e in i for part in (e[:, ::2], e[:, 1::2])])
    assert_blocks(turns, ".gate_up_proj_bias", lambda i: [part for e in i for part in (e[::2], e[1::2])])


def test_a_row_of_a_transposed_weight_is_a_column() -> None:
    assert_blocks(second_moments(gpt2(), ROWS), ".c_attn.weight", lambda i: list(i.T))
    untied = second_moments(gpt2(tie_word_embeddings=False), {"head": {"second_moment": "row"}})
    assert_blocks(untied, "lm_head.weight", list)


class Attention(nn.Module):
    """Maps of q, k and v under names of one's own, each with a bias."""

    def __init__(self, sizes: dict[str, int], out: str = "", role: str | None = "qkv") -> None:
        super().__init__()
        for name, rows in sizes.items():
            setattr(self, name, nn.Linear(24, rows))
            getattr(self, name).role = role
        if out:
            setattr(self, out, nn.Linear(24, 24))
            getattr(self, out).role = "attention_out" if role else None


def kinds(model: nn.Module, rule: str = "split-3") -> dict[str, str]:
    groups = param_groups(model, {"qkv": {"second_moment": rule}, "rest": {}})
    found = {
        id(p): group["second_moment"] for group in groups if group["role"] == "qkv" for p in group["params"]
    }
    return {name: found[id(p)] for name, p in model.named_parameters() if id(p) in found}


NAMES = (
    "q_proj k_proj v_proj",
    "wq wk wv",
    "c_q c_k c_v",
    "query key value",
    "q k v",
    "to_q to_k to_v",
    "Q K V",
    "W_q W_k W_v",
    "q_linear k_linear v_linear",
    "anything at all",
)


@pytest.mark.parametrize("names", NAMES)
def test_maps_of_q_k_and_v_that_stand_apart_are_never_cut(names: str) -> None:
    assert set(kinds(Attention(dict.fromkeys(names.split(), 24), "out")).values()) == {"tensor"}
    assert set(kinds(Attention(dict(zip(names.split(), (24, 6, 6), strict=True)))).values()) == {"tensor"}
    if names != "anything at all":  # the names tell without roles, too
        undeclared = Attention(dict.fromkeys(names.split(), 24), "out_proj", role=None)
        assert set(kinds(undeclared).values()) == {"tensor"}


def test_fused_maps_are_cut_where_their_sizes_say_or_refused() -> None:
    assert set(kinds(Attention({"mixer": 72})).values()) == {"split-3"}
    assert set(kinds(Attention({"mixer": 36}, "back")).values()) == {"split-24-6-6"}
    assert kinds(Attention({"to_q": 24, "to_kv": 12}))["to_kv.weight"] == "split-2"
    model = Attention({"query_key_value": 72}, "dense", role=None)
    with pytest.raises(UserError, match=r"'query_key_value.weight', \(72, 24\), cannot be told; .*'parts'"):
        kinds(model)
    model.query_key_value.parts = (6, 6, 6)
    assert set(kinds(model).values()) == {"split-6-6-6"}
    model.query_key_value.parts = (24, 24, 12)
    with pytest.raises(UserError, match="parts"):
        kinds(model)
    with pytest.raises(UserError, match="head by head"):
        kinds(tiny("Bloom", n_layer=1, n_head=4), "split-9")


class Block(nn.Module):
    """A layer as many write it, with no role said."""

    def __init__(self) -> None:
        super().__init__()
        self.ln1, self.ln2 = nn.LayerNorm(24), nn.RMSNorm(24)
        self.attn = Attention(dict.fromkeys(("wq", "wk", "wv"), 24), "wo", role=None)
        self.mlp = nn.Sequential(nn.Linear(24, 96), nn.GELU(), nn.Linear(96, 24))
        self.gate = nn.Linear(24, 3, bias=False)
        self.experts = nn.ModuleList(
            nn.ModuleDict({"w1": nn.Linear(24, 8), "w2": nn.Linear(8, 24)}) for _ in range(3)
        )


class Own(nn.Module):
    """A model of one's own, whose head is its embedding."""

    def __init__(self, tied: bool = True) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(50, 24), nn.Embedding(9, 24)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.scores = nn.Linear(24, 50, bias=False)
        if tied:
            self.scores.weight = self.tokens.weight


def test_a_model_of_ones_own_is_told_by_structure() -> None:
    roles = assign_roles(Own(tied=False))
    expected = {
        "attn.wq": "qkv", "attn.wo": "attention_out", "mlp.0": "mlp_in", "mlp.2": "mlp_out", "gate": "other",
        "experts.1.w1": "mlp_in", "experts.2.w2": "mlp_out", "ln1": "norm", "ln2": "norm",
    }  # fmt: skip
    for place, role in expected.items():
        assert roles[f"blocks.0.{place}.weight"] == role
    assert roles["blocks.1.mlp.0.bias"] == "mlp_in"
    assert (roles["tokens.weight"], roles["scores.weight"]) == ("embedding", "head")


def test_what_a_tied_weight_plays_can_be_said() -> None:
    for model, name in ((Own(), "tokens.weight"), (gpt2(), "transformer.wte.weight")):
        assert assign_roles(model)[name] == "embedding"
        assert assign_roles(model, tied="head")[name] == "head"
        star = {"head": {"second_moment": "row"}, "rest": {}}
        with pytest.raises(UserError, match=r"pass tied='head'"):
            param_groups(model, star)
        groups = {group["role"]: group for group in param_groups(model, star, tied="head")}
        assert groups["head"]["second_moment"] == "row"
        assert groups["head"]["params"][0] is dict(model.named_parameters())[name]
        with pytest.raises(UserError, match=r"pass tied='embedding'"):
            param_groups(model, {"embedding": {"lr": 1.0}}, tied="head")
    optimizer = create_optimizer("adalayer_star", gpt2(), lr=1e-3, tied="head")
    assert {g["role"] for g in optimizer.param_groups} >= {"head"}
    with pytest.raises(UserError, match="did you mean 'head'"):
        assign_roles(Own(), tied="heed")


class Strange(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Bilinear(24, 24, 8)
        self.gain = nn.Parameter(torch.ones(24))


def strange() -> nn.Module:
    model = Own(tied=False)
    model.strange = nn.ModuleList(Strange() for _ in range(2))
    return model


def test_one_error_names_all_unknown_parameters_and_what_to_paste() -> None:
    with pytest.raises(UserError, match=r"'strange.0.gain' has no role, nor have 5 others") as error:
        assign_roles(strange())
    block = ast.literal_eval(str(error.value)[str(error.value).index("{") :])
    assert block == {
        "strange.*.gain": "other", "strange.*.mix.weight": "other", "strange.*.mix.bias": "other"
    }  # fmt: skip
    roles = assign_roles(strange(), named={**block, "strange.*.gain": "norm"})
    assert (roles["strange.1.gain"], roles["strange.0.mix.weight"]) == ("norm", "other")
    with pytest.raises(UserError, match=r"no parameter is called 'strange\.\*\.gian'; did you mean"):
        assign_roles(strange(), named={**block, "strange.*.gian": "norm"})
    with pytest.raises(UserError, match="unknown role 'nrom'"):
        assign_roles(strange(), named={"strange.*.gain": "nrom"})


def test_no_more_need_be_known_than_the_rules_name() -> None:
    star = {"head": {"second_moment": "row"}}
    groups = param_groups(strange(), star)
    assert next(group for group in groups if group["role"] == "head")["second_moment"] == "row"
    assert sum(len(group["params"]) for group in groups) == len(list(strange().parameters()))
    assert param_groups(strange(), {"embedding": {}, **star})
    for rules, name in (
        ({"norm": {}}, "strange.0.gain"),
        ({"matrix": {}}, "strange.0.mix.weight"),
        ({"other": {}}, ""),
    ):
        with pytest.raises(UserError, match=f"'{name}.*has no role"):
            param_groups(strange(), rules)
    headless = strange()
    del headless.scores
    with pytest.raises(UserError, match="has no role"):
        param_groups(headless, star)
    assert create_optimizer("adam", strange(), lr=1e-3, roles={"head": {"lr": 1e-2}})


def test_a_recipe_that_does_not_name_other_says_how_many_get_the_base_options(caplog) -> None:
    mixtral = tiny("Mixtral", num_local_experts=3)
    with caplog.at_level(logging.WARNING):
        create_optimizer("adalayer_star", mixtral, lr=1e-3)
        assert "2 parameters (144 weights) play 'other'" in caplog.text
        caplog.clear()
        create_optimizer("adalayer_star", mixtral, lr=1e-3, roles={"other": {"lr": 1e-4}})
        param_groups(mixtral, {"head": {}, "rest": {}})
        assert not caplog.records


@pytest.fixture
def alone():
    import torch.distributed as dist

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_wrappers_change_no_role(alone) -> None:
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
    from torch.distributed.fsdp import fully_shard

    def sharded(model: nn.Module) -> nn.Module:
        for layer in model.model.layers:
            fully_shard(layer.self_attn)
            fully_shard(layer)
        return fully_shard(model)

    def checkpointed(model: nn.Module) -> nn.Module:
        layer = model.model.layers[0]
        layer.self_attn.q_proj = checkpoint_wrapper(layer.self_attn.q_proj)
        model.model.layers[0] = torch.compile(checkpoint_wrapper(layer))
        return model

    def nested(model: nn.Module) -> nn.Module:
        outer = nn.Module()
        outer.inner = model
        return outer

    for make in (lambda: tiny("Qwen3", head_dim=6), lambda: tiny("Mixtral", num_local_experts=3)):
        plain = assign_roles(make())
        for wrap in (torch.compile, nn.parallel.DistributedDataParallel, sharded, checkpointed, nested):
            wrapped = assign_roles(wrap(make()))
            bare = {
                re.sub(r"\b(module|_orig_mod|_checkpoint_wrapped_module|inner)\.", "", n): r
                for n, r in wrapped.items()
            }
            assert bare == plain, wrap


LAYER = {
    "llama": {
        "self_attn.q_proj": "qkv", "self_attn.k_proj": "qkv", "self_attn.v_proj": "qkv",
        "self_attn.o_proj": "attention_out", "mlp.gate_proj": "mlp_in", "mlp.up_proj": "mlp_in",
        "mlp.down_proj": "mlp_out", "input_layernorm": "norm", "post_attention_layernorm": "norm",
    },
}  # fmt: skip
QK_NORMS = {"self_attn.q_norm": "norm", "self_attn.k_norm": "norm"}
FFN_NORMS = {"pre_feedforward_layernorm": "norm", "post_feedforward_layernorm": "norm"}
MOE = {"mlp.gate": "other", "mlp.experts.gate_up_proj!": "mlp_in", "mlp.experts.down_proj!": "mlp_out"}
ATTENTION = {k: r for k, r in LAYER["llama"].items() if "mlp." not in k}
MATRICES = {k: r for k, r in LAYER["llama"].items() if "layernorm" not in k}
OUTER = {"model.embed_tokens": "embedding", "model.norm": "norm", "lm_head": "head"}
HF = "model.layers.{}."
PINNED: dict[str, tuple[Callable[[], nn.Module], str, Sequence[dict[str, str]], dict[str, str]]] = {
    "Llama": (lambda: tiny("Llama"), HF, [LAYER["llama"]] * 2, OUTER),
    "Mistral": (lambda: tiny("Mistral", num_key_value_heads=2), HF, [LAYER["llama"]] * 2, OUTER),
    "Qwen3": (lambda: tiny("Qwen3", head_dim=6), HF, [LAYER["llama"] | QK_NORMS] * 2, OUTER),
    "Gemma3": (
        lambda: transformers.Gemma3ForCausalLM(transformers.Gemma3TextConfig(**SIZES, **WORDS, head_dim=6)),
        HF,
        [LAYER["llama"] | QK_NORMS | FFN_NORMS] * 2,
        {k: r for k, r in OUTER.items() if r != "head"},
    ),
    "OLMo2": (
        lambda: tiny("Olmo2"),
        HF,
        [MATRICES | QK_NORMS | {"post_attention_layernorm": "norm", "post_feedforward_layernorm": "norm"}]
        * 2,
        OUTER,
    ),
    "Phi3": (
        lambda: tiny("Phi3"),
        HF,
        [
            {
                "self_attn.qkv_proj": "qkv",
                "self_attn.o_proj": "attention_out",
                "mlp.gate_up_proj": "mlp_in",
                "mlp.down_proj": "mlp_out",
                "input_layernorm": "norm",
                "post_attention_layernorm": "norm",
            }
        ]
        * 2,
        OUTER,
    ),
    "Mixtral": (lambda: tiny("Mixtral", num_local_experts=3), HF, [ATTENTION | MOE] * 2, OUTER),
    "GPT-2": (
        gpt2,
        "transformer.h.{}.",
        [
            {
                "attn.c_attn+": "qkv",
                "attn.c_proj+": "attention_out",
                "mlp.c_fc+": "mlp_in",
                "mlp.c_proj+": "mlp_out",
                "ln_1+": "norm",
                "ln_2+": "norm",
            }
        ]
        * 2,
        {"transformer.wte": "embedding", "transformer.wpe": "embedding", "transformer.ln_f+": "norm"},
    ),
    "GPT-NeoX": (
        lambda: tiny("GPTNeoX"),
        "gpt_neox.layers.{}.",
        [
            {
                "attention.query_key_value+": "qkv",
                "attention.dense+": "attention_out",
                "mlp.dense_h_to_4h+": "mlp_in",
                "mlp.dense_4h_to_h+": "mlp_out",
                "input_layernorm+": "norm",
                "post_attention_layernorm+": "norm",
            }
        ]
        * 2,
        {"gpt_neox.embed_in": "embedding", "gpt_neox.final_layer_norm+": "norm", "lm_head": "head"},
    ),
    "DeepSeek-V3": (
        lambda: tiny(
            "DeepseekV3",
            first_k_dense_replace=1,
            n_routed_experts=4,
            n_group=2,
            topk_group=1,
            num_experts_per_tok=2,
            moe_intermediate_size=8,
            q_lora_rank=10,
            kv_lora_rank=8,
            qk_rope_head_dim=4,
            qk_nope_head_dim=4,
            v_head_dim=6,
            num_key_value_heads=4,
        ),
        HF,
        [
            {
                **{
                    f"self_attn.{k}": "qkv"
                    for k in ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj")
                },
                "self_attn.o_proj": "attention_out",
                "self_attn.q_a_layernorm": "norm",
                "self_attn.kv_a_layernorm": "norm",
                "input_layernorm": "norm",
                "post_attention_layernorm": "norm",
                **mlp,
            }
            for mlp in (
                {"mlp.gate_proj": "mlp_in", "mlp.up_proj": "mlp_in", "mlp.down_proj": "mlp_out"},
                {
                    **MOE,
                    "mlp.shared_experts.gate_proj": "mlp_in",
                    "mlp.shared_experts.up_proj": "mlp_in",
                    "mlp.shared_experts.down_proj": "mlp_out",
                },
            )
        ],
        OUTER,
    ),
}
"""A model, what its layers' names begin with, roles in each layer, roles outside; ``+``: weight and bias,
``!``: the parameter itself, else the weight."""


@pytest.mark.parametrize("family", PINNED)
def test_every_parameter_has_the_role_that_its_family_gives_it(family: str) -> None:
    make, prefix, layers, outside = PINNED[family]
    pinned = {
        prefix.format(i) + k: role for i, layer in enumerate(layers) for k, role in layer.items()
    } | outside
    expected = {}
    for key, role in pinned.items():
        ends = ("",) if key.endswith("!") else (".weight", ".bias") if key.endswith("+") else (".weight",)
        expected.update({key.rstrip("+!") + end: role for end in ends})
    model = make()
    assert assign_roles(model) == expected
    assert param_groups(model, {**TRUE, "norm": {"lr": 1.0}, "rest": {}})


def assert_as_a_reader_says(model: nn.Module) -> int:
    """Compare with :func:`tests.families.meant`; return how many parameters have no role."""
    roles, unknown = families.found(model)
    wrong = {name: role for name, role in roles.items() if role not in families.meant(name).split(" or ")}
    assert not wrong, type(model).__name__
    if not unknown:
        param_groups(model, {"norm": {}, "other": {}, "rest": {}, **ROWS})  # every orientation can be told
    return len(unknown)


SAMPLE = (
    "llama",
    "gemma2",
    "qwen3_moe",
    "gpt_oss",
    "bloom",
    "falcon",
    "mpt",
    "opt",
    "jamba",
    "rwkv",
    "bert",
    "cohere",
)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("model_type", SAMPLE)
def test_no_role_is_wrong_in_a_sample_of_families(model_type: str) -> None:
    model = families.built(model_type)
    assert model is not None
    assert assert_as_a_reader_says(model) == 0


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
def test_every_causal_language_model_there_is_has_right_roles_or_none_and_the_page_says_which() -> None:
    models = [model for model in map(families.built, families.model_types()) if model is not None]
    found = [assert_as_a_reader_says(model) == 0 for model in models]
    assert sum(found) >= 45
    page = Path(__file__).parent.parent / "docs/models.md"
    if f"transformers {transformers.__version__}," in page.read_text():
        assert page.read_text() == "\n".join(families.page()) + "\n"
