"""Laws that hold for every size: both forms of SVQ agree, padding is never seen, schedules stay in their bounds."""

from __future__ import annotations

import copy

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from svq.models import FrameShape, QuantizerConfig, SimVPConfig, build
from svq.models.sparse import SVQ, perplexity
from svq.schedules import cosine, one_cycle

QUICK = settings(max_examples=15, deadline=None)


@QUICK
@given(channels=st.integers(1, 9), codes=st.integers(1, 60), middle=st.integers(1, 20), relu=st.booleans(),
       nonlinear=st.booleans(), rows=st.integers(1, 6), seed=st.integers(0, 999))  # fmt: skip
def test_both_forms_agree_for_every_size(channels, codes, middle, relu, nonlinear, rows, seed):
    torch.manual_seed(seed)
    config = QuantizerConfig(codebook_size=codes, middle=middle, hidden_relu=relu, nonlinear=nonlinear)
    short = SVQ(config, channels).double()
    long = copy.deepcopy(short)
    x = torch.randn(2, channels, rows, 3, dtype=torch.float64)
    found, expected = short.folded(x), long.unfolded(x, chunk=4)[0]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    found.square().sum().backward()
    expected.square().sum().backward()
    for own, other in zip(short.parameters(), long.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-10, atol=1e-10 * codes)


@QUICK
@given(height=st.integers(1, 23), width=st.integers(1, 23), horizon=st.integers(1, 4), pairs=st.integers(1, 3))
def test_forecasts_have_the_size_of_the_frames(height, width, horizon, pairs):
    sizes = SimVPConfig(translator="convnext", hid_spatial=2, hid_temporal=4, depth_spatial=2 * pairs,
                        depth_temporal=2, mlp_ratio=1.0)  # fmt: skip
    model = build(sizes, QuantizerConfig(codebook_size=3, middle=2), FrameShape(1, height, width), 2).eval()
    x = torch.rand(1, 2, 1, height, width)
    with torch.no_grad():
        future = model(x, horizon)
    assert future.shape == (1, horizon, 1, height, width)
    assert bool(future.isfinite().all())
    assert all(
        0 <= padded - side < 2**pairs for padded, side in zip(model.padded(height, width), (height, width), strict=True)
    )


@given(counts=st.lists(st.integers(0, 50), min_size=1, max_size=20))
def test_perplexity_lies_between_one_and_the_number_of_codes_in_use(counts):
    used = sum(count > 0 for count in counts)
    found = perplexity(torch.tensor(counts, dtype=torch.float64))
    assert (found == 0.0) if not used else (1.0 - 1e-6 <= found <= used + 1e-6)


@given(step=st.integers(0, 300), total=st.integers(1, 200), lr=st.floats(1e-5, 1.0))
def test_one_cycle_stays_in_its_bounds_and_the_momentum_goes_the_other_way(step, total, lr):
    now = one_cycle(step, max_lr=lr, total_steps=total)
    assert lr / 25 / 1e4 * (1 - 1e-9) <= now.lr <= lr * (1 + 1e-9)
    assert 0.85 - 1e-12 <= now.beta1 <= 0.95 + 1e-12
    later = one_cycle(step + 1, max_lr=lr, total_steps=total)
    assert (later.lr - now.lr) * (later.beta1 - now.beta1) <= 1e-15


@given(epoch=st.integers(0, 100), epochs=st.integers(1, 60), warmup=st.integers(0, 8), lr=st.floats(1e-4, 1.0))
def test_the_cosine_stays_in_its_bounds_and_falls_behind_the_way_up(epoch, epochs, warmup, lr):
    rate = cosine(epoch, lr=lr, epochs=epochs, warmup_epochs=warmup)
    assert 1e-6 * (1 - 1e-9) <= rate <= lr * (1 + 1e-9)
    if epoch >= warmup:
        assert cosine(epoch + 1, lr=lr, epochs=epochs, warmup_epochs=warmup) <= rate
