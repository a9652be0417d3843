"""Training computes what the paper's released code computed, point by point.

Each point of the released configuration and where it is tested:

- clipping to a global norm of 1, coefficient 1 / (norm + 1e-6), for every optimizer: here
- linear warm-up from 10 % over 10 % of the steps, cosine over the rest to 10 %: ``test_schedule.py``, and in
  the steps of a run here
- initial weights, each tensor's distribution: ``test_model.py``
- untied embeddings, 32,100 pieces padded to 32,128 rows, softmax over all of them: here
- LayerNorm with weight, without bias, eps 1e-5, in float32 under autocast: ``test_model.py``, and here
- QK-norm over the full width, before the heads and before RoPE; RoPE of base 10,000 in float32; exact GELU;
  no biases: ``test_model.py`` by a re-statement in loops, and here against GPT-NeoX
- z-loss 1e-4 mean(logsumexp^2) over all positions: ``test_loss.py``; not in the validation loss, which is
  over 511 of 512 positions: here
- bfloat16 autocast over float32 weights, gradients and state: here
- a loss that is NaN ends the run: ``test_ending.py``
- independent weight decay, of norms and embeddings too: here
- shapes, parameters, tokens and steps of the paper's models: ``test_model.py``, and here
"""

import math

import pytest
import torch
import torch.nn.functional as F

from optstudy import recipes as optimizers
from optstudy import scales
from optstudy.config import Model
from optstudy.training.loss import language_model_loss
from optstudy.training.model import LayerNorm, Transformer
from optstudy.training.run import Run
from tests.configs import tiny_on
from tests.test_model import norm as plain_norm
from tests.test_model import restatement

CPU = torch.device("cpu")
NAMES = sorted(optimizers.OPTIMIZERS)


@pytest.fixture
def run(corpus_slice):
    return lambda **settings: Run(tiny_on(corpus_slice, **settings), CPU)


def plain_rate(step, steps, peak):
    """The released schedule: the counter advances before the rate is asked for."""
    s, warm = step + 1, steps // 10
    if s < warm:
        return peak * (0.1 + 0.9 * s / warm)
    return peak * (0.1 + 0.9 * (1 + math.cos(math.pi * (s - warm) / (steps - warm))) / 2)


def plain_steps(weights, logits_of, batches, steps, peak, decay):
    """Train leaf tensors in plain float64: z-loss, clipping, AdamW with independent decay, written out."""
    m = {name: torch.zeros_like(w) for name, w in weights.items()}
    v = {name: torch.zeros_like(w) for name, w in weights.items()}
    losses = []
    for step, x in enumerate(batches):
        logits = logits_of(weights, x)[:, :-1]
        lse = logits.logsumexp(-1)
        loss = (lse - logits.gather(-1, x[:, 1:, None])[..., 0]).mean() + 1e-4 * lse.square().mean()
        gradients = dict(zip(weights, torch.autograd.grad(loss, list(weights.values())), strict=True))
        norm = sum(g.square().sum() for g in gradients.values()).sqrt()
        rate = plain_rate(step, steps, peak)
        with torch.no_grad():
            for name, w in weights.items():
                g = gradients[name] * (1 / (norm + 1e-6)).clamp(max=1)
                m[name] = 0.9 * m[name] + 0.1 * g
                v[name] = 0.95 * v[name] + 0.05 * g * g
                root = (v[name] / (1 - 0.95 ** (step + 1))).sqrt() + 1e-6
                w *= 1 - decay * rate / peak
                w -= rate * m[name] / (1 - 0.9 ** (step + 1)) / root
        losses.append(loss.item())
    return losses


STEPS = 40
SETTINGS = {
    "training.precision": "float64", "training.steps": STEPS, "optimizer.weight_decay": 0.01,
    "optimizer.options": {"eps": 1e-6}, "training.batch_size": 2,
}  # fmt: skip


@pytest.mark.parametrize("steps", [1, 10])
def test_steps_agree_with_a_plain_float64_statement(run, steps):
    ours = run(**SETTINGS)
    weights = {n: w.detach().clone().requires_grad_() for n, w in ours.model.state_dict().items()}
    model = ours.config.model

    def logits_of(weights, x_BT):
        return torch.stack([restatement(weights, x, model) for x in x_BT]) @ weights["head.weight"].T

    batches = [torch.from_numpy(ours.batches[step]) for step in range(steps)]
    expected = plain_steps(weights, logits_of, batches, STEPS, 1e-2, 0.01)
    assert [ours.step(step)[0].item() for step in range(steps)] == pytest.approx(expected, rel=1e-6)
    for name, w in ours.model.state_dict().items():
        torch.testing.assert_close(w, weights[name].detach(), rtol=1e-4, atol=1e-6, msg=name)


def neo_x(model):
    """Hugging Face's GPT-NeoX with the parts that ours has: sequential blocks, full rotary, zero biases."""
    transformers = pytest.importorskip("transformers")
    config = transformers.GPTNeoXConfig(
        vocab_size=model.vocab_size, hidden_size=model.d_model, num_hidden_layers=model.n_layers,
        num_attention_heads=model.n_heads, intermediate_size=4 * model.d_model, hidden_act="gelu",
        rotary_pct=1.0, rotary_emb_base=10_000, layer_norm_eps=1e-5, use_parallel_residual=False,
        tie_word_embeddings=False, attention_bias=True, hidden_dropout=0.0, attention_dropout=0.0,
        use_cache=False, attn_implementation="eager",
    )  # fmt: skip
    return transformers.GPTNeoXForCausalLM(config).double()


def copied(ours, theirs, model):
    """Load our weights; return a function from their weights to our names. Theirs interleave heads in qkv."""
    heads, width = model.n_heads, model.d_model // model.n_heads

    def interleaved(qkv):
        return qkv.view(3, heads, width, -1).transpose(0, 1).reshape(qkv.shape)

    def apart(qkv):
        return qkv.view(heads, 3, width, -1).transpose(0, 1).reshape(qkv.shape)

    names = {"gpt_neox.embed_in": "embedding", "gpt_neox.final_layer_norm": "norm"}
    (head,) = {"embed_out", "lm_head"} & dict(theirs.named_modules()).keys()
    names[head] = "head"
    for i in range(model.n_layers):
        names |= {
            f"gpt_neox.layers.{i}.{their}": f"blocks.{i}.{our}"
            for their, our in {
                "input_layernorm": "attention_norm", "post_attention_layernorm": "mlp_norm",
                "attention.query_key_value": "attention.qkv", "attention.dense": "attention.out",
                "mlp.dense_h_to_4h": "mlp.up", "mlp.dense_4h_to_h": "mlp.down",
            }.items()
        }  # fmt: skip
    parameters = dict(theirs.named_parameters())
    for name, parameter in parameters.items():
        module, kind = name.rsplit(".", 1)
        if kind == "bias":
            parameter.data.zero_()
            parameter.requires_grad_(False)
        else:
            weight = ours.state_dict()[f"{names[module]}.weight"]
            parameter.data.copy_(interleaved(weight) if "query_key_value" in name else weight)

    def ours_again():
        found = {
            f"{names[n[: -len('.weight')]]}.weight": (n, p) for n, p in parameters.items() if "weight" in n
        }
        return {k: apart(p.detach()) if "query_key_value" in n else p.detach() for k, (n, p) in found.items()}

    return ours_again


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("steps", [1, 10])
def test_steps_agree_with_hugging_faces_gpt_neox_and_torchs_adamw(run, steps):
    """Without QK-norm the architecture is GPT-NeoX's, built by others, trained by torch's own optimizer."""
    ours = run(**SETTINGS, **{"model.qk_norm": False})
    theirs = neo_x(ours.config.model)
    ours_again = copied(ours.model, theirs, ours.config.model)
    trained = [p for p in theirs.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-2, betas=(0.9, 0.95), eps=1e-6, weight_decay=0.0)
    for step in range(steps):
        x = torch.from_numpy(ours.batches[step])
        logits = theirs(input_ids=x).logits[:, :-1].flatten(0, 1)
        assert logits.dtype == torch.float64
        loss = F.cross_entropy(logits, x[:, 1:].flatten()) + 1e-4 * logits.logsumexp(-1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        (group,) = optimizer.param_groups
        group["lr"] = plain_rate(step, STEPS, 1e-2)
        group["weight_decay"] = 0.01 / 1e-2  # times the rate: 0.01 at its peak
        optimizer.step()
        assert ours.step(step)[0].item() == pytest.approx(loss.item(), rel=1e-6)
    for name, w in ours_again().items():
        torch.testing.assert_close(ours.model.state_dict()[name], w, rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_is_given_the_gradient_clipped_to_norm_1(run, name):
    """Of all parameters, those that it does not train included; at a large gradient and at a small one."""
    for factor in (1e-3, 1e3):
        frozen = {"schedule.freeze_steps": 2} if name.startswith("frozen") else {}
        ours = run(**{"optimizer.name": name}, **frozen)
        ours.model.head.weight.register_hook(lambda gradient, factor=factor: gradient * factor)
        seen = []
        ours.optimizer.register_step_pre_hook(
            lambda *_, ours=ours, seen=seen: seen.extend(p.grad.clone() for p in ours.model.parameters())
        )
        x = ours.batches[0]
        ours._losses(x, 1e-4)[0].backward()
        raw = [p.grad.clone() for p in ours.model.parameters()]
        _, norm, _ = ours.step(0)
        total = torch.stack([g.norm() for g in raw]).norm()
        assert norm.item() == pytest.approx(total.item(), rel=1e-5)
        coefficient = min(1.0, 1 / (total.item() + 1e-6))
        assert (coefficient < 0.1) == (factor == 1e3)
        for got, g in zip(seen[: len(raw)], raw, strict=True):
            torch.testing.assert_close(got, g * coefficient, rtol=1e-4, atol=1e-9)


def test_a_run_takes_the_schedule_s_rates(run):
    ours = run(**{"training.steps": 20})
    rates = [ours.step(step)[2] for step in range(20)]
    assert rates == pytest.approx([plain_rate(step, 20, 1e-2) for step in range(20)])
    assert rates[0] == pytest.approx(1e-2 * (0.1 + 0.9 / 2)) and rates[-1] == pytest.approx(1e-3)


def test_weight_decay_is_independent_of_the_rate_and_of_the_role(run):
    """At a vanishing peak rate the decay alone moves every tensor, by lambda times the schedule's share."""
    ours = run(**{"optimizer.lr": 1e-12, "optimizer.weight_decay": 0.1, "training.steps": 20})
    before = {name: p.detach().clone() for name, p in ours.model.named_parameters()}
    ours.step(0)
    for name, p in ours.model.named_parameters():
        torch.testing.assert_close(
            p.detach(), before[name] * (1 - 0.1 * 0.55), rtol=1e-5, atol=1e-9, msg=name
        )


def test_the_validation_loss_is_cross_entropy_over_all_but_the_last_position(run):
    ours = run(**{"training.precision": "float64", "training.z_loss": 10.0})
    x = torch.from_numpy(ours.held_out)
    assert x.shape == (8, 16)
    with torch.no_grad():
        logits = ours.model.head(ours.model(x))[:, :15].flatten(0, 1)
    assert len(logits) == 8 * 15
    expected = F.cross_entropy(logits, x[:, 1:].flatten()).item()
    assert ours.validation_loss() == pytest.approx(expected, rel=1e-9)


def test_rows_that_pad_the_vocabulary_take_part_in_the_softmax():
    h = torch.zeros(3, 4, requires_grad=True)
    w = torch.zeros(32_128, 4, requires_grad=True)
    loss, _ = language_model_loss(h, w, torch.tensor([0, 1, 2]))
    assert loss.item() == pytest.approx(math.log(32_128), rel=1e-6)


def test_embedding_and_head_are_untied():
    model = Transformer(Model(vocab_size=32, d_model=8, n_layers=1, n_heads=2), seed=0)
    assert model.embedding.weight.data_ptr() != model.head.weight.data_ptr()
    assert not torch.equal(model.embedding.weight, model.head.weight)


def test_the_norms_eps_is_1e_5():
    x = torch.randn(4, 24, dtype=torch.float64) * 1e-3
    layer = LayerNorm(24).double()
    torch.testing.assert_close(layer(x), plain_norm(x, layer.weight), rtol=1e-6, atol=1e-9)
    assert layer.bias is None


def test_bfloat16_is_autocast_over_float32_weights_gradients_and_state(run):
    ours, exact = run(**{"training.precision": "bfloat16"}), run(**{"training.precision": "float64"})
    seen = []
    ours.model.blocks[0].mlp.up.register_forward_hook(lambda *a: seen.append(a[2].dtype))
    loss, _, _ = ours.step(0)
    assert seen == [torch.bfloat16] and loss.dtype == torch.float32
    tensors = [(p, p.grad, ours.optimizer.state[p]) for p in ours.model.parameters()]
    assert all(p.dtype == g.dtype == torch.float32 for p, g, _ in tensors)
    assert all(t.dtype == torch.float32 for *_, state in tensors for t in state.values())
    assert loss.item() == pytest.approx(exact.step(0)[0].item(), rel=5e-3)


@pytest.mark.parametrize(
    ("scale", "width", "layers", "steps", "billions"),
    [
        ("150m", 1024, 12, 25_000, 3.3),
        ("300m", 1024, 24, 50_000, 6.6),
        ("600m", 1408, 24, 100_000, 13.1),
        ("1.2b", 2048, 24, 200_000, 26.2),
        ("150m-long", 1024, 12, 100_000, 13.1),
    ],
)
def test_the_papers_scales(scale, width, layers, steps, billions):
    config = scales.SCALES[scale]
    model, training, data = config["model"], config["training"], config["data"]
    assert (model["d_model"], model["n_layers"], model["n_heads"]) == (width, layers, width // 64)
    assert (model["vocab_size"], data["tokenizer"], data["corpus"]) == (32_128, "t5", "c4")
    assert (training["steps"], training["batch_size"], data["sequence_length"]) == (steps, 256, 512)
    assert data["tokens"] == steps * 256 * 512 and round(data["tokens"] / 1e9, 1) == billions
    assert training["precision"] == "bfloat16"
    assert config["validation"]["sequences"] == 1000 * 32
