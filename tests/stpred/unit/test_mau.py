"""MAU: the unit's attention and exchange, the decoder's recall, sizes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from stcore.errors import UserError
from stpred.models import FrameShape, build
from stpred.models.configs import MAUConfig
from stpred.models.mau import MotionUnit

SMALL = MAUConfig(hidden=(4, 4), kernel=3, window=3, downsample=2)


def _unit(*, residual=False):
    torch.manual_seed(0)
    return MotionUnit(4, kernel=3, area=(5, 7), residual=residual)


def test_a_unit_follows_the_paper_step_by_step():
    unit = _unit()
    spatial, past_temporal, past_spatial = (
        torch.randn(2, 4, 5, 7),
        torch.randn(2, 3, 4, 5, 7),
        torch.randn(2, 3, 4, 5, 7),
    )
    query = unit.query(spatial)
    scores = torch.stack([(query * past_spatial[:, j]).sum((1, 2, 3)) / (4 * 5 * 7) ** 0.5 for j in range(3)])
    trend = sum(weight[:, None, None, None] * past_temporal[:, j] for j, weight in enumerate(scores.softmax(0)))
    keep = torch.sigmoid(unit.keep(past_temporal[:, -1]))
    fused = keep * past_temporal[:, -1] + (1 - keep) * trend
    t_gate, t_t, t_s = unit.temporal(fused).chunk(3, 1)
    s_gate, s_t, s_s = unit.spatial(spatial).chunk(3, 1)
    temporal, above = unit(spatial, past_temporal, past_spatial)
    torch.testing.assert_close(temporal, t_gate.sigmoid() * t_t + (1 - t_gate.sigmoid()) * s_t)
    torch.testing.assert_close(above, s_gate.sigmoid() * s_s + (1 - s_gate.sigmoid()) * t_s)


def test_a_residual_unit_adds_its_input():
    plain, residual = _unit(), _unit(residual=True)
    spatial, past = torch.randn(2, 4, 5, 7), torch.randn(2, 3, 4, 5, 7)
    (temporal, above), (same, more) = plain(spatial, past, past), residual(spatial, past, past)
    assert torch.equal(temporal, same)
    torch.testing.assert_close(more - above, spatial)


def test_only_the_last_steps_are_attended_to():
    torch.manual_seed(1)
    model = build(SMALL, FrameShape(1, 6, 10))
    step = model.advance(model.project(torch.rand(2, 1, 6, 10)), None)
    for _ in range(4):
        step = model.advance(model.project(torch.rand(2, 1, 6, 10)), step.state)
    assert [part.shape for part in step.state[0]] == [(2, 3, 4, 3, 5)] * 2
    # The layer below hands on what it attends with: its spatial inputs end with that of this step.
    code = model.project(torch.ones(2, 1, 6, 10))
    after = model.advance(code, step.state)
    assert torch.equal(after.state[0][1][:, -1].flatten(1), code)
    assert torch.equal(after.state[0][1][:, :-1], step.state[0][1][:, 1:])


@pytest.mark.parametrize("downsample", [1, 2, 4])
def test_the_decoder_recalls_the_features_of_the_encoder(downsample):
    torch.manual_seed(2)
    frame = FrameShape(1, 4 * 3, 4 * 5)
    config = replace(SMALL, downsample=downsample)
    normal, recalling = build(config, frame), build(replace(config, mode="recall"), frame)
    recalling.load_state_dict(normal.state_dict())
    picture = torch.rand(2, 1, 12, 20)
    plain, more = (model.advance(model.project(picture), None).hidden for model in (normal, recalling))
    if downsample == 1:
        assert torch.equal(plain, more)
    if downsample == 2:
        torch.testing.assert_close(more - plain, torch.nn.functional.leaky_relu(normal.embed(picture), 0.2))
    if downsample == 4:
        assert (more - plain).abs().max() > 1e-3


@pytest.mark.parametrize(("downsample", "patch", "mode"), [(1, 1, "normal"), (2, 2, "recall"), (4, 1, "recall")])
def test_states_of_odd_sizes(downsample, patch, mode):
    torch.manual_seed(3)
    height, width = 3 * downsample * patch, 5 * downsample * patch
    model = build(replace(SMALL, downsample=downsample, patch=patch, mode=mode), FrameShape(2, height, width))
    assert model(torch.rand(1, 2, 2, height, width), 3).shape == (1, 3, 2, height, width)


def test_published_size_has_the_published_number_of_parameters():
    with torch.device("meta"):
        model = build(MAUConfig(), FrameShape(1, 64, 64))
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == 4_475_329
    # OpenSTL counts its two unused convolutions too.
    assert f"{(count + 64 * 128 + 64 + 2 + 1) / 1e6:.1f}" == "4.5"


def test_unfit_sizes_are_refused():
    with pytest.raises(
        UserError, match=r"model.downsample: 2 with model.patch 1 on frames of 6 x 5; .* multiples of 2"
    ):
        build(SMALL, FrameShape(1, 6, 5))
    with pytest.raises(UserError, match=r"model.downsample: 3; expected a power of two"):
        replace(SMALL, downsample=3)
    with pytest.raises(UserError, match=r"frames of 8 x 8; expected 4 x 4"):
        build(SMALL, FrameShape(1, 4, 4))(torch.rand(1, 2, 1, 8, 8), 1)
