"""Roles: what each parameter plays, on this project's model and on Hugging Face's."""

from typing import Any

import pytest
import torch
from torch import nn

from optstudy.errors import UserError
from optstudy.optim import Adalayer
from optstudy.roles import assign_roles, param_groups
from optstudy.training.model import Transformer
from tests.configs import tiny


def own_model() -> Transformer:
    return Transformer(tiny().model, seed=0)


class Declared(nn.Linear):
    def __init__(self, role: str, bias: bool = False) -> None:
        super().__init__(4, 4, bias=bias)
        self.role = role


def test_every_parameter_of_our_model_has_the_role_it_was_built_for() -> None:
    roles = assign_roles(own_model())
    assert roles["embedding.weight"] == "embedding"
    assert roles["head.weight"] == "head"
    assert {name for name, role in roles.items() if role == "norm"} == {
        "norm.weight",
        *(
            f"blocks.{i}.{norm}.weight"
            for i in range(2)
            for norm in ("attention_norm", "mlp_norm", "attention.query_norm", "attention.key_norm")
        ),
    }
    for i in range(2):
        block = {
            "attention.qkv": "qkv",
            "attention.out": "attention_out",
            "mlp.up": "mlp_in",
            "mlp.down": "mlp_out",
        }
        for name, role in block.items():
            assert roles[f"blocks.{i}.{name}.weight"] == role
    assert set(roles) == {name for name, _ in own_model().named_parameters()}


def test_roles_do_not_depend_on_names() -> None:
    misnamed = nn.ModuleDict(
        {"embedding": Declared("head"), "head": nn.Embedding(4, 4), "qkv": nn.LayerNorm(4)}
    )
    assert assign_roles(misnamed) == {
        "embedding.weight": "head", "head.weight": "embedding", "qkv.weight": "norm", "qkv.bias": "norm"
    }  # fmt: skip


def test_a_bias_takes_its_modules_role() -> None:
    assert assign_roles(nn.Sequential(Declared("qkv", bias=True))) == {"0.weight": "qkv", "0.bias": "qkv"}


def test_a_parameter_without_role_is_named() -> None:
    with pytest.raises(UserError, match=r"'1.weight' has no role"):
        assign_roles(nn.Sequential(nn.Embedding(4, 4), nn.Linear(4, 4)))


def test_a_parameter_with_two_roles_is_named() -> None:
    model = nn.Sequential(Declared("qkv"), Declared("mlp_in"))
    model[1].weight = model[0].weight
    with pytest.raises(UserError, match=r"'0.weight' has two roles: qkv, and mlp_in as '1.weight'"):
        assign_roles(model)


def test_an_unknown_declared_role_is_refused() -> None:
    with pytest.raises(UserError, match="did you mean 'qkv'"):
        assign_roles(nn.Sequential(Declared("qkw")))


def test_a_tied_head_is_an_embedding_unless_a_head_is_asked_for() -> None:
    model = nn.Sequential(nn.Embedding(4, 4), Declared("head"))
    model[1].weight = model[0].weight
    assert assign_roles(model) == {"0.weight": "embedding"}
    assert len(param_groups(model, {"embedding": {}})) == 1
    with pytest.raises(UserError, match=r"'1.weight' is tied"):
        param_groups(model, {"head": {"lr": 1.0}})


def test_rules_take_each_parameter_once_and_matrix_stands_under_its_roles() -> None:
    model = own_model()
    rules = {
        "qkv": {"second_moment": "split-3"},
        "matrix": {"lr": 0.5, "second_moment": "tensor"},
        "norm": {"train": False},
        "rest": {"lr": 0.25},
    }
    groups = {group["role"]: group for group in param_groups(model, rules)}
    assert "norm" not in groups
    assert (groups["qkv"]["lr"], groups["qkv"]["second_moment"]) == (0.5, "split-3")
    assert (groups["mlp_in"]["lr"], groups["mlp_in"]["second_moment"]) == (0.5, "tensor")
    assert groups["head"]["lr"] == groups["embedding"]["lr"] == 0.25
    taken = [id(p) for group in groups.values() for p in group["params"]]
    trained = [id(p) for name, p in model.named_parameters() if "norm" not in name]
    assert sorted(taken) == sorted(trained)


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(UserError, match="did you mean 'norm'"):
        param_groups(own_model(), {"norms": {}})


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (3, "role 'head': must be options by name, such as {'lr': 1e-3}, not 3"),
        (None, "role 'head': must be options by name, such as {'lr': 1e-3}, not None"),
        ({"train": "no"}, "role 'head': train: must be true or false, not 'no'"),
    ],
)
def test_a_rule_that_is_not_options_is_refused(rule: Any, said: str) -> None:
    with pytest.raises(UserError) as error:
        param_groups(own_model(), {"head": rule})
    assert str(error.value) == said


def test_groups_serve_an_optimizer_as_they_are() -> None:
    groups = param_groups(own_model(), {"head": {"second_moment": "row"}, "rest": {}})
    optimizer = Adalayer(groups)
    assert {g["role"]: g["second_moment"] for g in optimizer.param_groups}["head"] == "row"


def hugging_face(family: str, tied: bool = False) -> nn.Module:
    """A small causal LM of a family, randomly initialised."""
    transformers = pytest.importorskip("transformers")
    small = {"vocab_size": 64, "tie_word_embeddings": tied}
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = {
        "gpt2": lambda: transformers.GPT2Config(**small, n_embd=16, n_layer=2, n_head=2, n_positions=32),
        "llama": lambda: transformers.LlamaConfig(**small, **sizes),
        "olmo": lambda: transformers.OlmoConfig(**small, **sizes),
        "olmo2": lambda: transformers.Olmo2Config(**small, **sizes),
        "pythia": lambda: transformers.GPTNeoXConfig(**small, **sizes),
    }[family]()
    return transformers.AutoModelForCausalLM.from_config(config)


EXPECTED = {
    "gpt2": {
        "transformer.wte.weight": "embedding", "transformer.wpe.weight": "embedding",
        "transformer.h.0.attn.c_attn.weight": "qkv", "transformer.h.0.attn.c_attn.bias": "qkv",
        "transformer.h.1.attn.c_proj.weight": "attention_out", "transformer.h.0.mlp.c_fc.bias": "mlp_in",
        "transformer.h.0.mlp.c_proj.weight": "mlp_out", "transformer.ln_f.bias": "norm",
        "lm_head.weight": "head",
    },
    "llama": {
        "model.embed_tokens.weight": "embedding", "model.layers.0.self_attn.k_proj.weight": "qkv",
        "model.layers.1.self_attn.o_proj.weight": "attention_out", "lm_head.weight": "head",
        "model.layers.0.mlp.gate_proj.weight": "mlp_in", "model.norm.weight": "norm",
        "model.layers.0.mlp.down_proj.weight": "mlp_out",
    },
    "olmo": {"model.layers.0.self_attn.v_proj.weight": "qkv", "lm_head.weight": "head"},
    "olmo2": {
        "model.layers.0.self_attn.q_norm.weight": "norm", "model.layers.0.mlp.up_proj.weight": "mlp_in",
    },
    "pythia": {
        "gpt_neox.layers.0.attention.query_key_value.bias": "qkv",
        "gpt_neox.layers.0.attention.dense.weight": "attention_out",
        "gpt_neox.layers.0.mlp.dense_h_to_4h.weight": "mlp_in",
        "gpt_neox.layers.1.mlp.dense_4h_to_h.bias": "mlp_out",
        "gpt_neox.layers.0.input_layernorm.bias": "norm", "gpt_neox.embed_in.weight": "embedding",
    },
}  # fmt: skip


@pytest.mark.parametrize("family", EXPECTED)
def test_roles_of_hugging_face_models(family: str) -> None:
    model = hugging_face(family)
    roles = assign_roles(model)
    assert set(roles) == {name for name, _ in model.named_parameters()}
    assert EXPECTED[family].items() <= roles.items()
    assert "head" in roles.values()


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_tied_heads_of_hugging_face_models(family: str) -> None:
    model = hugging_face(family, tied=True)
    assert "head" not in assign_roles(model).values()
    with pytest.raises(UserError, match="tied"):
        param_groups(model, {"head": {"second_moment": "row"}})


def test_separate_queries_keys_and_values_are_three_blocks_already() -> None:
    groups = param_groups(hugging_face("llama"), {"qkv": {"second_moment": "split-3"}})
    assert {g.get("second_moment") for g in groups if g["role"] == "qkv"} == {"tensor"}


def test_an_optimizer_on_hugging_face_groups_lowers_the_loss() -> None:
    torch.manual_seed(0)
    model = hugging_face("llama")
    rules = {"qkv": {"second_moment": "split-3"}, "head": {"second_moment": "row"}, "rest": {}}
    optimizer = Adalayer(param_groups(model, rules), lr=1e-2)
    tokens = torch.randint(0, 64, (4, 16))
    losses = []
    for _ in range(10):
        loss = model(input_ids=tokens, labels=tokens).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.5


def kinds_by_head(model: nn.Module) -> dict[str, str]:
    """The granularity that each map of q, k and v of the first layer gets under ``head``."""
    groups = param_groups(model, {"qkv": {"second_moment": "head"}, "rest": {"second_moment": "tensor"}})
    kinds = {id(p): group["second_moment"] for group in groups for p in group["params"]}
    return {
        name: kinds[id(p)]
        for name, p in model.named_parameters()
        if assign_roles(model)[name] == "qkv" and ".0." in name and p.ndim > 1
    }


def test_head_is_a_value_per_head_of_q_and_k_and_per_row_of_v() -> None:
    import transformers

    def rows(*heads: int, v: int) -> str:
        return "split-" + "-".join(map(str, [*heads, *[1] * v]))

    assert kinds_by_head(own_model()) == {"blocks.0.attention.qkv.weight": rows(*[4] * 4, v=8)}
    config = transformers.Qwen3Config(
        vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, head_dim=4,
    )  # fmt: skip
    layer = "model.layers.0.self_attn."
    assert kinds_by_head(transformers.Qwen3ForCausalLM(config)) == {
        f"{layer}q_proj.weight": "split-4", f"{layer}k_proj.weight": "split-2", f"{layer}v_proj.weight": "row"
    }  # fmt: skip
    gpt2 = transformers.GPT2Config(vocab_size=64, n_embd=16, n_layer=1, n_head=2)
    assert kinds_by_head(transformers.GPT2LMHeadModel(gpt2)) == {
        "transformer.h.0.attn.c_attn.weight": rows(*[8] * 4, v=16)
    }
    neox = transformers.GPTNeoXConfig(
        vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    head_by_head = "split-" + "-".join(map(str, [8, 8, *[1] * 8] * 2))
    found = kinds_by_head(transformers.GPTNeoXForCausalLM(neox))
    assert found == {"gpt_neox.layers.0.attention.query_key_value.weight": head_by_head}


def test_head_gives_the_means_over_heads() -> None:
    """Two heads of two rows: q's and k's values are means over a head, v's over a row."""
    model = own_model().double()
    qkv = model.blocks[0].attention.qkv.weight
    groups = param_groups(model, {"qkv": {"second_moment": "head"}, "rest": {"train": False}})
    optimizer = Adalayer(groups, lr=1e-3, betas=(0.9, 0.0), eps=0.0)
    qkv.grad = torch.randn(qkv.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    before = qkv.detach().clone()
    optimizer.step()
    squares = qkv.grad.square()
    v = torch.cat([squares[i : i + 4].mean().expand(4) for i in (0, 4, 8, 12)] + [squares[16:].mean(1)])
    assert torch.allclose(before - qkv.detach(), 1e-3 * qkv.grad / v.sqrt()[:, None], rtol=1e-9)


class Heads(nn.Module):
    """Attention that does not say how many heads it has."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(8, 8, bias=False) for _ in range(4))


def test_head_is_refused_where_heads_cannot_be_told_and_for_other_roles() -> None:
    model = nn.ModuleDict({"table": nn.Embedding(16, 8), "attention": Heads()})
    rules = {"qkv": {"second_moment": "head"}}
    with pytest.raises(
        UserError, match=r"'attention.q_proj.weight': its heads cannot be told; give the Heads"
    ):
        param_groups(model, rules)
    model["attention"].n_heads = 2
    kinds = [group["second_moment"] for group in param_groups(model, rules) if group["role"] == "qkv"]
    assert kinds == ["split-2", "row"]
    with pytest.raises(UserError, match=r"plays 'attention_out'; only the role 'qkv' has heads"):
        param_groups(model, {"attention_out": {"second_moment": "head"}})
    with pytest.raises(UserError, match="only q, k and v have heads"):
        tiny(**{"optimizer.name": "adalayer", "optimizer.roles.norm.second_moment": "head"})
    tiny(**{"optimizer.name": "adalayer", "optimizer.roles.qkv.second_moment": "head"})
