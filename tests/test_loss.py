"""The chunked loss equals the plain formulas, in value and gradient."""

import pytest
import torch
import torch.nn.functional as F

from optstudy import loss as loss_module
from optstudy.loss import language_model_loss


def plain(h, w, y, z):
    logits = h @ w.T
    cross_entropy = F.cross_entropy(logits, y)
    return cross_entropy + z * logits.logsumexp(-1).square().mean(), cross_entropy


def example(dtype, n=150, d=7, v=37):
    generator = torch.Generator().manual_seed(0)
    h = torch.randn(n, d, generator=generator, dtype=dtype) * 3
    w = torch.randn(v, d, generator=generator, dtype=dtype)
    y = torch.randint(0, v, (n,), generator=generator)
    return h.requires_grad_(), w.requires_grad_(), y


@pytest.mark.parametrize("z", [0.0, 1e-4, 0.3])
@pytest.mark.parametrize("chunk_bytes", [1, 64 * 37 * 8, 1 << 30])
def test_chunked_loss_is_cross_entropy_plus_z_loss(z, chunk_bytes, monkeypatch):
    monkeypatch.setattr(loss_module, "CHUNK_BYTES", chunk_bytes)
    h, w, y = example(torch.float64)
    total, cross_entropy = language_model_loss(h, w, y, z)
    expected, expected_cross_entropy = plain(h, w, y, z)
    torch.testing.assert_close(total, expected, rtol=1e-13, atol=0)
    torch.testing.assert_close(cross_entropy, expected_cross_entropy.detach(), rtol=1e-13, atol=0)
    got = torch.autograd.grad(2.5 * total, (h, w))
    torch.testing.assert_close(got, torch.autograd.grad(2.5 * expected, (h, w)), rtol=1e-11, atol=1e-14)


def test_large_logits_do_not_overflow():
    h, w, y = example(torch.float32)
    total, _ = language_model_loss(h * 1e3, w, y, 1e-4)
    total.backward()
    expected, _ = plain((h * 1e3).double(), w.double(), y, 1e-4)
    torch.testing.assert_close(total.double(), expected, rtol=1e-5, atol=0)
    assert torch.isfinite(h.grad).all() and torch.isfinite(w.grad).all()


def test_nan_is_passed_on():
    h, w, y = example(torch.float32)
    total, _ = language_model_loss(h * float("nan"), w, y, 1e-4)
    assert total.isnan()


def test_without_gradients_only_the_value_is_computed():
    h, w, y = example(torch.float64)
    with torch.no_grad():
        total, cross_entropy = language_model_loss(h, w, y)
    assert not total.requires_grad and torch.equal(total, cross_entropy)


def test_under_autocast_logits_are_bfloat16_and_the_loss_float32():
    h, w, y = example(torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        total, _ = language_model_loss(h, w, y, 1e-4)
    total.backward()
    expected, _ = plain(h.bfloat16().float(), w.bfloat16().float(), y, 1e-4)
    assert total.dtype == h.grad.dtype == w.grad.dtype == torch.float32
    torch.testing.assert_close(total, expected, rtol=5e-3, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_rows_are_the_plain_ones(dtype):
    h, w, y = example(dtype)
    found = []
    for rows in (None, torch.compile(loss_module.loss_rows, dynamic=False)):
        leaves = [x.detach().requires_grad_() for x in (h, w)]
        total, cross_entropy = language_model_loss(*leaves, y, 1e-4, rows)
        found.append([total, cross_entropy, *torch.autograd.grad(total, leaves)])
    for plainly, compiled in zip(*found, strict=True):
        tolerance = 1e-5 if dtype == torch.float32 else 2**-7
        torch.testing.assert_close(compiled, plainly, rtol=tolerance, atol=tolerance / 100)
