"""The model is the paper's transformer: against a float64 re-statement, and its initial statistics."""

import math

import pytest
import torch
import torch.nn.functional as F

from optstudy import scales
from optstudy.config import Model, forward_flops, parameter_count
from optstudy.training.model import (
    LayerNorm,
    Transformer,
    attend,
    rotary_table,
    rotate,
)

SMALL = Model(vocab_size=50, d_model=24, n_layers=3, n_heads=3)


def norm(x, weight):
    """LayerNorm without bias, eps 1e-5."""
    centred = x - x.mean(-1, keepdim=True)
    return weight * centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt()


def rope(x):
    """Rotate pairs (k, k + K/2) of each position t by t / 10000^(2k/K); x of shape (T, K)."""
    length, width = x.shape
    out = torch.empty_like(x)
    for t in range(length):
        for k in range(width // 2):
            angle = t / 10_000 ** (2 * k / width)
            a, b = x[t, k], x[t, k + width // 2]
            out[t, k] = a * math.cos(angle) - b * math.sin(angle)
            out[t, k + width // 2] = b * math.cos(angle) + a * math.sin(angle)
    return out


def restatement(weights, x_T, model):
    """Hidden states of one sequence by loops, from the state dict alone."""
    width = model.d_model // model.n_heads
    y = weights["embedding.weight"][x_T]
    length = len(x_T)
    for layer in range(model.n_layers):

        def w(name, layer=layer):
            return weights[f"blocks.{layer}.{name}.weight"]

        q, k, v = (norm(y, w("attention_norm")) @ w("attention.qkv").T).split(model.d_model, dim=-1)
        if model.qk_norm:
            q, k = norm(q, w("attention.query_norm")), norm(k, w("attention.key_norm"))
        heads = []
        for head in range(model.n_heads):
            part = slice(head * width, (head + 1) * width)
            scores = rope(q[:, part]) @ rope(k[:, part]).T / math.sqrt(width)
            if model.scale_attention_by_layer:
                scores = scores / (layer + 1)
            future = torch.ones(length, length).triu(1).bool()
            heads.append(scores.masked_fill(future, -torch.inf).softmax(-1) @ v[:, part])
        y = y + torch.cat(heads, -1) @ w("attention.out").T
        hidden = norm(y, w("mlp_norm")) @ w("mlp.up").T
        gelu = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
        y = y + gelu @ w("mlp.down").T
    return norm(y, weights["norm.weight"])


@pytest.mark.parametrize("changes", [{}, {"qk_norm": False}, {"scale_attention_by_layer": True}])
def test_forward_equals_the_restatement(changes):
    model = SMALL.model_copy(update=changes)
    transformer = Transformer(model, seed=0).double()
    generator = torch.Generator().manual_seed(1)
    for parameter in transformer.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    x_BT = torch.randint(0, 50, (2, 11), generator=generator)
    expected = torch.stack([restatement(transformer.state_dict(), x, model) for x in x_BT])
    torch.testing.assert_close(transformer(x_BT), expected, rtol=1e-6, atol=1e-6)


def test_a_later_token_changes_no_earlier_output():
    transformer = Transformer(SMALL, seed=0)
    x = torch.arange(12)[None]
    y = x.clone()
    y[0, 7] = 40
    same, differs = transformer(x) - transformer(y), (transformer(x) - transformer(y)).abs().amax(-1)[0]
    assert torch.equal(same[0, :7], torch.zeros(7, 24)) and (differs[7:] > 0).all()


def test_initial_weights_are_truncated_normals_of_the_released_widths():
    model = Model(vocab_size=3000, d_model=128, n_layers=3, n_heads=2)
    transformer = Transformer(model, seed=0)
    expected = {"embedding.weight": 128**-0.5, "head.weight": 128**-0.5}
    for layer in range(3):
        residual = (2 * (layer + 1)) ** -0.5
        expected |= {
            f"blocks.{layer}.attention.qkv.weight": 128**-0.5,
            f"blocks.{layer}.attention.out.weight": 128**-0.5 * residual,
            f"blocks.{layer}.mlp.up.weight": 128**-0.5,
            f"blocks.{layer}.mlp.down.weight": 512**-0.5 * residual,
        }
    truncated_at_3 = 0.98658  # standard deviation of a unit normal truncated at +-3
    for name, parameter in transformer.named_parameters():
        if name in expected:
            std = expected.pop(name)
            assert parameter.abs().max() <= 3 * std * (1 + 1e-6)
            assert parameter.std().item() == pytest.approx(std * truncated_at_3, rel=0.03), name
            assert abs(parameter.mean().item()) < 5 * std / math.sqrt(parameter.numel())
        else:
            assert torch.equal(parameter, torch.ones(128)), name
    assert not expected


def test_the_seed_decides_the_weights():
    first, again, other = (Transformer(SMALL, seed) for seed in (0, 0, 1))
    assert torch.equal(first.head.weight, again.head.weight)
    assert not torch.equal(first.head.weight, other.head.weight)


def test_qk_norm_is_one_weight_of_full_width_before_the_heads():
    attention = Transformer(SMALL, seed=0).blocks[0].attention
    assert attention.query_norm.weight.shape == attention.key_norm.weight.shape == (24,)
    without = Transformer(SMALL.model_copy(update={"qk_norm": False}), seed=0)
    assert not any("query" in name or "key" in name for name, _ in without.named_parameters())


def test_norms_and_rope_are_computed_in_float32_under_autocast():
    x = torch.randn(4, 24).bfloat16() * 1e3
    layer = LayerNorm(24)
    with torch.autocast("cpu", torch.bfloat16):
        got = layer(x)
    expected = norm(x.double(), torch.ones(24).double())
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got, expected.bfloat16(), rtol=2**-7, atol=1e-6)
    turned = rotate(x[None, None], *rotary_table(4, 24, x.device))
    torch.testing.assert_close(turned[0, 0], rope(x.double()).bfloat16(), rtol=2**-7, atol=1e-2)


@pytest.mark.parametrize(
    ("scale", "matrices_and_norms", "total"),
    [("150m", 151.0, 216.8), ("300m", 302.1, 367.9), ("600m", 571.1, 661.6), ("1.2b", 1208.2, 1339.8)],
)
def test_parameter_counts_are_the_papers(scale, matrices_and_norms, total):
    model = Model(**scales.SCALES[scale]["model"])
    count = parameter_count(model)
    assert round(count / 1e6, 1) == total
    assert round((count - 2 * model.vocab_size * model.d_model) / 1e6, 1) == matrices_and_norms


def test_counted_parameters_are_the_models():
    for model in (SMALL, SMALL.model_copy(update={"qk_norm": False})):
        assert parameter_count(model) == sum(p.numel() for p in Transformer(model, 0).parameters())


def test_flops_are_two_per_matrix_weight_and_token_plus_causal_attention():
    matrices = 50 * 24 + 3 * (3 + 1 + 8) * 24 * 24
    assert forward_flops(SMALL, 7) == 2 * matrices + 2 * 3 * 24 * 7


@pytest.mark.parametrize("length", [1, 64, 128, 129, 300])
def test_attention_in_bfloat16_is_softmax_of_the_past_to_rounding(length):
    generator = torch.Generator().manual_seed(length)
    q, k, v = (
        torch.randn(2, 3, length, 8, generator=generator).bfloat16().requires_grad_() for _ in range(3)
    )
    wide = [x.detach().double().requires_grad_() for x in (q, k, v)]
    ours = attend(q, k, v, 0.3)
    theirs = F.scaled_dot_product_attention(*wide, is_causal=True, scale=0.3)
    torch.testing.assert_close(ours.double(), theirs, rtol=0.02, atol=0.02)
    weights = torch.randn(ours.shape, generator=generator)
    for a, b in zip(
        torch.autograd.grad((ours * weights).sum(), (q, k, v)),
        torch.autograd.grad((theirs * weights).sum(), wide),
        strict=True,
    ):
        torch.testing.assert_close(a.double(), b, rtol=0.05, atol=0.05)
