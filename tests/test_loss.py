"""The chunked loss equals the plain formulas, in value and gradient."""

import pytest
import torch
import torch.nn.functional as F

from optstudy.training import compiling
from optstudy.training import loss as loss_module
from optstudy.training.loss import language_model_loss


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


@pytest.mark.parametrize("z", [0.0, 0.3])
@pytest.mark.parametrize("needed", ["h", "w"])
def test_a_gradient_for_one_of_the_two_alone_is_that_of_plain_autograd(z, needed):
    h, w, y = example(torch.float64)
    (w if needed == "h" else h).requires_grad_(False)
    leaf = h if needed == "h" else w
    total, _ = language_model_loss(h, w, y, z)
    (got,) = torch.autograd.grad(total, leaf)
    (expected,) = torch.autograd.grad(plain(h, w, y, z)[0], leaf)
    torch.testing.assert_close(got, expected, rtol=1e-11, atol=1e-14)


@pytest.mark.parametrize("z", [0.0, 0.3])
def test_the_cross_entropy_alone_is_a_number_without_a_gradient(z):
    h, w, y = example(torch.float64)
    total, cross_entropy = language_model_loss(h, w, y, z)
    assert total.requires_grad and not cross_entropy.requires_grad
    with pytest.raises(RuntimeError, match="does not require grad"):
        cross_entropy.backward()
    got = torch.autograd.grad(total * cross_entropy + 3 * cross_entropy, (h, w))
    expected_total, expected = plain(h, w, y, z)
    expected_gradients = torch.autograd.grad(expected_total * expected.detach(), (h, w))
    torch.testing.assert_close(got, expected_gradients, rtol=1e-11, atol=1e-14)


def test_gradients_can_be_taken_twice_but_have_no_gradient_themselves():
    h, w, y = example(torch.float64)
    total, _ = language_model_loss(h, w, y, 0.3)
    first = torch.autograd.grad(total, (h, w), retain_graph=True)
    assert all(map(torch.equal, first, torch.autograd.grad(total, (h, w), retain_graph=True)))
    (again,) = torch.autograd.grad(total.square(), h, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        again.sum().backward()


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
        total, cross_entropy = language_model_loss(h, w, y, 1e-4)
    assert total.dtype == cross_entropy.dtype == torch.float32 and not cross_entropy.requires_grad
    got = torch.autograd.grad(total / 3, (h, w))
    rounded = [x.detach().bfloat16().double().requires_grad_() for x in (h, w)]
    expected, _ = plain(*rounded, y, 1e-4)
    torch.testing.assert_close(total.double(), expected, rtol=5e-3, atol=0)
    for found, exact in zip(got, torch.autograd.grad(expected / 3, rounded), strict=True):
        assert found.dtype == torch.float32
        assert (found.double() - exact).norm() < 2**-7 * exact.norm()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiled_rows_are_the_plain_ones(dtype):
    h, w, y = example(dtype)
    found = []
    for rows in (None, compiling.compiled(loss_module.loss_rows)):
        leaves = [x.detach().requires_grad_() for x in (h, w)]
        total, cross_entropy = language_model_loss(*leaves, y, 1e-4, rows)
        found.append([total, cross_entropy, *torch.autograd.grad(total, leaves)])
    for plainly, compiled in zip(*found, strict=True):
        tolerance = 1e-5 if dtype == torch.float32 else 2**-7
        torch.testing.assert_close(compiled, plainly, rtol=tolerance, atol=tolerance / 100)
