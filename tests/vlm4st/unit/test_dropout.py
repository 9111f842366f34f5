"""Dropout that shares random numbers among values."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from vlm4st_models import made

from vlm4st.models.dropout import Dropout, cheap_dropout, make_cheap


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_rate_and_mean(rate):
    torch.manual_seed(0)
    found = cheap_dropout(torch.ones(400, 501), rate)
    kept = found != 0
    deviation = (rate * (1 - rate) / kept.numel()) ** 0.5
    assert abs(1 - float(kept.float().mean()) - rate) < 4 * deviation + 1 / 65536
    assert torch.allclose(found[kept], torch.tensor(1 / (1 - round(rate * 65536) / 65536)))


def test_neighbours_are_independent():
    """Values that share a number, too."""
    torch.manual_seed(0)
    dropped = (cheap_dropout(torch.ones(4 * 50_000), 0.5) == 0).float().view(-1, 4)
    correlation = torch.corrcoef(dropped.T) - torch.eye(4)
    assert float(correlation.abs().max()) < 4 / 50_000**0.5


def test_gradients_pass_where_values_do():
    x = torch.randn(7, 3, requires_grad=True)
    torch.manual_seed(1)
    y = cheap_dropout(x, 0.4)
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad != 0, y != 0) and torch.allclose(x.grad * x, y)


def test_a_seed_decides_and_evaluation_changes_nothing():
    layer, x = Dropout(0.3), torch.randn(11)
    torch.manual_seed(2)
    first = layer(x)
    torch.manual_seed(2)
    assert torch.equal(layer(x), first) and not torch.equal(layer(x), first)
    assert layer.eval()(x) is x
    assert Dropout(0.0)(x) is x
    assert not Dropout(1.0)(torch.ones(2000)).ne(0).sum() > 1


def test_half_precision_keeps_its_type():
    assert cheap_dropout(torch.ones(5, dtype=torch.bfloat16), 0.2).dtype == torch.bfloat16


def test_all_dropouts_of_a_model_are_such():
    model = made()
    rates = [part.p for part in model.modules() if isinstance(part, nn.Dropout)]
    assert {type(part) for part in model.modules() if isinstance(part, nn.Dropout)} == {Dropout}
    assert 0.1 in rates
    wrapped = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Dropout(0.2)))
    make_cheap(wrapped)
    assert isinstance(wrapped[1][0], Dropout) and wrapped[1][0].p == 0.2
