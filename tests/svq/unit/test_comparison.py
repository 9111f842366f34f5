"""The quantisers of vector-quantize-pytorch: gradients, losses, which codes were used."""

from __future__ import annotations

import pytest
import torch

from stcore.errors import UserError
from svq.models import FrameShape, QuantizerConfig, SimVPConfig, build
from svq.models.comparison import CodeUsage, LibraryQuantizer
from svq.models.configs import COMPARISONS

SIZES = {"codebook_size": 16, "quantizers": 3, "heads": 2, "head_dim": 4, "levels": (4, 3)}


def _quantizer(kind, **options):
    torch.manual_seed(0)
    return LibraryQuantizer(QuantizerConfig(kind=kind, **SIZES | options), 8)


def _latent():
    return torch.randn(3, 8, 4, 5, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", COMPARISONS)
def test_a_step_of_training_in_a_model(kind):
    sizes = SimVPConfig(hid_spatial=8, hid_temporal=16, depth_spatial=2, depth_temporal=2, mlp_ratio=2.0)
    torch.manual_seed(0)
    model = build(sizes, QuantizerConfig(kind=kind, **SIZES), FrameShape(1, 8, 10), 2)
    x = torch.rand(2, 2, 1, 8, 10)
    future, auxiliary = model.loss_terms(x, 3)
    (future.mean() + auxiliary).backward()
    assert auxiliary.shape == () and bool(auxiliary.isfinite())
    assert (float(auxiliary.detach()) != 0.0) == (kind != "residual-fsq")
    assert float(model.encoder.layers[0].conv.weight.grad.abs().sum()) > 0
    model.eval()
    with torch.no_grad():
        assert float(model.loss_terms(x).auxiliary) == 0.0


def test_gradients_pass_straight_through():
    quantizer, x = _quantizer("vq", commitment=0.0), _latent().requires_grad_()
    values = quantizer(x).values
    weights = torch.rand(values.shape)
    (values * weights).sum().backward()
    torch.testing.assert_close(x.grad, weights)


def test_the_commitment_loss_is_the_mean_squared_distance_to_the_code():
    quantizer, x = _quantizer("vq"), _latent()
    values, loss, _ = quantizer(x)
    torch.testing.assert_close(loss, (values - x).square().mean())
    torch.testing.assert_close(_quantizer("vq", commitment=2.5)(x).loss, 2.5 * loss)


def test_half_precision_around_it_changes_nothing():
    quantizer, x = _quantizer("residual-vq").eval(), _latent()
    expected = quantizer(x)
    with torch.autocast("cpu", torch.bfloat16):
        found = quantizer(x)
    assert torch.equal(found.values, expected.values) and torch.equal(found.indices, expected.indices)


@pytest.mark.parametrize(("kind", "rows", "codes"), [
    ("vq", 1, 16), ("residual-vq", 3, 16), ("residual-vq-stochastic", 3, 16), ("grouped-residual-vq", 6, 16),
    ("multi-head-vq", 2, 16), ("lfq", 1, 16), ("residual-lfq", 3, 16), ("residual-fsq", 3, 12),
])  # fmt: skip
def test_usage_is_counted_for_every_quantiser(kind, rows, codes):
    quantizer = _quantizer(kind).eval()
    usage = CodeUsage(quantizer)
    with pytest.raises(UserError, match="codes: none were counted"):
        usage.compute()
    indices = quantizer(_latent()).indices
    for _ in range(2):
        usage.update(indices)
    assert quantizer.codes == codes
    assert quantizer.by_quantizer(indices).shape == (rows, 3 * 4 * 5)
    found = usage.compute()
    assert len(found["used"]) == len(found["perplexity"]) == rows
    for row, used, spread in zip(quantizer.by_quantizer(indices), found["used"], found["perplexity"], strict=True):
        share = torch.unique(row, return_counts=True)[1].double() / len(row)
        assert used == len(share)
        assert spread == pytest.approx(float(torch.exp(-(share * share.log()).sum())), rel=1e-6)


def test_groups_that_do_not_divide_the_channels():
    with pytest.raises(UserError, match=r"quantizer.groups: 3 on 8 channels; expected a divisor of them"):
        _quantizer("grouped-residual-vq", groups=3)
