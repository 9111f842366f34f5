"""PhyDNet: moments, the physical cell, the loss, sizes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from stcore.errors import UserError
from stpred.models import FrameShape, build
from stpred.models.configs import PhyDNetConfig
from stpred.models.phydnet import PhyCell, ResidualCell, moment_matrix, moments

SMALL = PhyDNetConfig(encoder_width=16, width=16, hidden=(8, 16), kernel=3)


def _ideal_filters(size):
    """Filters with a single moment each, in the order of the moments."""
    inverse = torch.linalg.inv(moment_matrix(size))
    wanted = torch.eye(size**2, dtype=torch.float64).view(-1, size, size)
    return inverse @ wanted @ inverse.T


def test_central_differences_have_the_moments_of_their_derivatives():
    first = torch.tensor([[0.0, 0.0, 0.0], [-0.5, 0.0, 0.5], [0.0, 0.0, 0.0]])
    second = torch.tensor([[0.0, 1.0, 0.0], [0.0, -2.0, 0.0], [0.0, 1.0, 0.0]])
    assert moments(torch.stack([first, second]))[:, :2, :2].tolist() == [[[0, 1], [0, 0]], [[0, 0], [0, 0]]]
    assert moments(second)[2].tolist() == [1, 0, 0]


@pytest.mark.parametrize("size", [3, 5, 7])
def test_ideal_filters_take_derivatives_of_polynomials(size):
    filters = _ideal_filters(size)
    axis = torch.arange(size, dtype=torch.float64) - size // 2
    y, x = axis[:, None], axis[None]
    responses = (filters * (3 * y**2 * x + 5 * x**2 - 7 * y + 2)).sum((1, 2)).view(size, size)
    expected = torch.zeros(size, size, dtype=torch.float64)
    expected[0, 0], expected[1, 0], expected[0, 2], expected[2, 1] = 2, -7, 10, 6
    torch.testing.assert_close(responses, expected, rtol=0, atol=1e-6)


def test_moments_are_not_rounded_by_autocast():
    filters = torch.rand(4, 5, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(moments(filters), moments(filters))
        assert moments(filters).dtype == torch.float32
        rounded = moments(filters)
    assert torch.equal(rounded, moments(filters))


def test_the_penalty_is_zero_for_ideal_filters_and_one_mean_square_per_channel_otherwise():
    cell = PhyCell(4, 3)
    ideal = _ideal_filters(3).float()[:, None].expand(-1, 4, -1, -1)
    with torch.no_grad():
        cell.derivatives.weight.copy_(ideal)
        assert cell.moment_penalty() < 1e-12
        cell.derivatives.weight[:, 1] = 0.0
        # Of 9 x 9 moments, 9 should have been one.
        torch.testing.assert_close(cell.moment_penalty(), torch.tensor(9 / 81))


def test_the_physical_cell_corrects_what_it_predicts():
    torch.manual_seed(0)
    cell = PhyCell(4, 3)
    code, hidden = torch.randn(2, 2, 4, 5, 7)
    predicted = hidden + cell.combine(cell.norm(cell.derivatives(hidden)))
    with torch.no_grad():
        cell.gain.weight.zero_()
        cell.gain.bias.fill_(50.0)
        torch.testing.assert_close(cell(code, hidden), code)
        cell.gain.bias.fill_(-50.0)
        torch.testing.assert_close(cell(code, hidden), predicted)


def test_the_residual_cell_orders_its_gates_input_forget_output_content():
    cell = ResidualCell(1, 1)
    with torch.no_grad():
        cell.gates.weight.zero_()
        cell.gates.bias.copy_(torch.tensor([50.0, 0.0, 50.0, 0.5]))
    x = torch.zeros(1, 1, 1, 1)
    hidden, state = cell(x, x, torch.full_like(x, 2.0))
    torch.testing.assert_close(state, 0.5 * 2.0 + torch.tanh(torch.full_like(x, 0.5)))
    torch.testing.assert_close(hidden, torch.tanh(state))


def test_the_loss_sums_frames_and_adds_the_penalty():
    torch.manual_seed(1)
    model = build(SMALL, FrameShape(1, 8, 12))
    history, future = torch.rand(2, 3, 1, 8, 12), torch.rand(2, 2, 1, 8, 12)
    guesses, truth = model.next_frames(history, future), torch.cat([history[:, 1:], future], 1)
    loss = model.loss(history, future)
    by_frame = sum(F.mse_loss(guesses[:, i], truth[:, i]) for i in range(4))
    torch.testing.assert_close(loss.parts["mse_sum"], by_frame)
    torch.testing.assert_close(loss.total, by_frame + model.physical.moment_penalty())


def test_descending_the_loss_lowers_it_on_bright_frames():
    # OpenSTL minimises (loss - frames)^2: once the loss is below the mean pixel, that climbs.
    torch.manual_seed(2)
    model = build(SMALL, FrameShape(1, 4, 8))
    with torch.no_grad():
        model.physical.derivatives.weight.copy_(_ideal_filters(3).float()[:, None].expand(-1, 16, -1, -1))
    history, future = torch.full((1, 2, 1, 4, 8), 0.9), torch.full((1, 1, 1, 4, 8), 0.9)
    first = model.loss(history, future).total
    assert first < 0.9
    first.backward()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= 1e-3 * parameter.grad
    assert model.loss(history, future).total < first


def test_the_coin_feeds_true_frames_to_all_or_none():
    torch.manual_seed(3)
    model = build(SMALL, FrameShape(1, 4, 8))
    history, future = torch.rand(2, 2, 1, 4, 8), torch.rand(2, 3, 1, 4, 8)
    own, fed = model.next_frames(history, future), model.next_frames(history, future, truth=torch.ones(2, 2))
    torch.testing.assert_close(own[:, :2], fed[:, :2])
    assert (own[:, 2:] - fed[:, 2:]).abs().amax((0, 2, 3, 4)).min() > 1e-4
    # With true frames fed, every guess is the forecast of one step from a longer history.
    longer = torch.cat([history, future[:, :2]], 1)
    torch.testing.assert_close(fed[:, -1], model(longer, 1)[:, 0])


@pytest.mark.parametrize(("downsample", "height", "width"), [(4, 12, 20), (2, 6, 10)])
def test_latent_frames_of_odd_sizes_and_frames_of_other_sizes(downsample, height, width):
    torch.manual_seed(4)
    model = build(replace(SMALL, downsample=downsample), FrameShape(3, height, width))
    forecast = model(torch.rand(1, 2, 3, height, width), 3)
    assert forecast.shape == (1, 3, 3, height, width)
    assert forecast.min() > 0.0 and forecast.max() < 1.0
    assert model(torch.rand(1, 2, 3, 2 * height, width), 1).shape == (1, 1, 3, 2 * height, width)


def test_published_size_has_the_published_number_of_parameters():
    with torch.device("meta"):
        model = build(PhyDNetConfig(), FrameShape(1, 64, 64))
    count = sum(parameter.numel() for parameter in model.parameters())
    assert count == 3_091_732
    assert f"{count / 1e6:.1f}" == "3.1"


def test_unfit_sizes_are_refused():
    with pytest.raises(UserError, match=r"model.downsample: 4 on frames of 8 x 6; expected height and width"):
        build(SMALL, FrameShape(1, 8, 6))
    with pytest.raises(UserError, match=r"frames of 4 x 4; .*, and one of them larger than that"):
        build(SMALL, FrameShape(1, 4, 4))
    with pytest.raises(UserError, match=r"model.downsample: 4 on frames of 8 x 6"):
        build(SMALL, FrameShape(1, 8, 8))(torch.rand(1, 2, 1, 8, 6), 1)
    with pytest.raises(UserError, match=r"model.hidden: \(16, 8\); expected the last to be model.width, 16"):
        replace(SMALL, hidden=(16, 8))
    with pytest.raises(UserError, match=r"model.encoder-width: 24; expected a multiple of 16"):
        replace(SMALL, encoder_width=24)
