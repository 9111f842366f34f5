"""Linear layers whose products are another library's."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from vlm4st_models import batch, calm, made

from vlm4st.models import linear as module
from vlm4st.models.linear import Linear, is_faster, linear, make_linear

pytestmark = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="this torch has no such operation"
)


@pytest.fixture(autouse=True)
def _anywhere(monkeypatch):
    """Take the way around on every processor."""
    monkeypatch.setattr(module, "is_faster", lambda: True)


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float32, requires_grad=True)


@pytest.mark.parametrize("tokens", [(40,), (5, 8), (2, 5, 4), (1, 40)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("frozen", [True, False])
def test_output_and_gradients_are_those_of_torch(monkeypatch, tokens, bias, frozen):
    torch.manual_seed(0)
    x, weight, offset = drawn(*tokens, 24), drawn(17, 24).detach().requires_grad_(not frozen), drawn(17)
    found = []
    for worth in (0, 1 << 60):
        monkeypatch.setattr(module, "WORTH", worth)
        y = linear(x, weight, offset if bias else None)
        wanted = [each for each in (x, weight, offset if bias else None) if each is not None and each.requires_grad]
        found.append([y, *torch.autograd.grad(y.square().sum(), wanted)])
    assert found[0][0].shape == (*tokens, 17)
    for ours, torchs in zip(*found, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-5, atol=1e-4)


def test_weights_that_are_no_whole_rows(monkeypatch):
    """As those of a layer over two maps side by side, which are taken apart."""
    monkeypatch.setattr(module, "WORTH", 0)
    x, whole = drawn(30, 8), drawn(12, 16)
    for weight in whole.chunk(2, dim=1):
        torch.testing.assert_close(linear(x, weight), F.linear(x, weight), rtol=1e-5, atol=1e-5)


def test_what_it_is_not_for_is_left_to_torch(monkeypatch):
    monkeypatch.setattr(module, "_product", None)
    small = linear(drawn(3, 4), drawn(5, 4))
    monkeypatch.setattr(module, "WORTH", 0)
    double = linear(drawn(3, 4).double(), drawn(5, 4).double())
    with torch.autocast("cpu", torch.bfloat16):
        half = linear(drawn(3, 4), drawn(5, 4))
    assert (small.dtype, double.dtype, half.dtype) == (torch.float32, torch.float64, torch.bfloat16)


@pytest.mark.parametrize(("said", "faster"), [("AuthenticAMD", True), ("GenuineIntel", False), (None, False)])
def test_only_where_it_was_measured(monkeypatch, tmp_path, said, faster):
    place = tmp_path / "cpuinfo"
    if said:
        place.write_text(f"vendor_id\t: {said}\n")
    monkeypatch.setattr(module, "PROCESSOR", place)
    assert is_faster.__wrapped__() == faster


def test_layers_keep_parameters_and_names():
    layers = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.Linear(4, 2, bias=False)), nn.LayerNorm(2))
    before = {name: id(value) for name, value in layers.named_parameters()}
    make_linear(layers)
    assert type(layers[0]) is type(layers[1][0]) is Linear
    assert {name: id(value) for name, value in layers.named_parameters()} == before


def test_a_whole_model_forecasts_the_same(monkeypatch):
    """In training, so that gradients pass through every layer; without dropout."""
    model = made(calm()).train()
    for part in model.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    x, stamps, _ = batch()
    found, taken, product = [], [], module._product
    monkeypatch.setattr(module, "_product", lambda *given: taken.append(given) or product(*given))
    for worth in (0, 1 << 60):
        monkeypatch.setattr(module, "WORTH", worth)
        model.zero_grad()
        forecast = model(x, stamps)
        forecast.square().sum().backward()
        found.append([forecast, *(part.grad for part in model.parameters() if part.grad is not None)])
        used = len(taken)
        taken.clear()
        assert (used > 0) == (worth == 0)
    for ours, torchs in zip(*found, strict=True):
        torch.testing.assert_close(ours, torchs, rtol=1e-3, atol=1e-4)
