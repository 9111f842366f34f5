"""E3D-LSTM: shortcuts against plain definitions, the memory switch, sizes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from stcore.errors import UserError
from stpred.models import FrameShape, build
from stpred.models.configs import E3DLSTMConfig
from stpred.models.e3dlstm import WindowConv, WindowHead, recall

SMALL = E3DLSTMConfig(hidden=(4, 4), kernel=3, patch=2)


def _plain_conv(conv, x):
    """OpenSTL's `tf_Conv3d`: convolve, then enlarge to the size of the input."""
    planes = F.conv3d(x, conv.weight, stride=conv.stride, padding=conv.padding)
    return F.interpolate(planes, size=x.shape[2:], mode="nearest")


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("window", [1, 2, 3])
def test_a_convolution_over_the_window_holds_at_every_depth(window, stride):
    torch.manual_seed(0)
    conv = WindowConv(3, 5, window=window, kernel=3, stride=stride)
    x = torch.randn(2, 3, window, 5, 7)
    torch.testing.assert_close(conv(x).expand(-1, -1, window, -1, -1), _plain_conv(conv, x))
    same = x[:, :, :1]
    torch.testing.assert_close(conv(same)[:, :, 0], _plain_conv(conv, same.expand_as(x))[:, :, 0])


@pytest.mark.parametrize("stride", [1, 2])
def test_frames_are_projected_once_for_every_place_in_the_window(stride):
    torch.manual_seed(1)
    conv = WindowConv(3, 5, window=2, kernel=3, stride=stride)
    old, new = torch.randn(2, 2, 3, 5, 7)
    parts = conv.project(old).chunk(2, 1)[0] + conv.project(new).chunk(2, 1)[1]
    torch.testing.assert_close(parts, conv(torch.stack([old, new], 2))[:, :, 0])


def test_the_head_reads_all_depths():
    torch.manual_seed(2)
    head = WindowHead(3, 4, 2)
    hidden = torch.randn(2, 3, 2, 5, 7)
    plain = F.conv3d(hidden, head.weight, stride=(2, 1, 1))[:, :, 0]
    torch.testing.assert_close(head(hidden.flatten(1, 2)), plain)


def test_recall_is_attention_without_scaling_over_rows_of_consecutive_values():
    torch.manual_seed(3)
    gate, cells = torch.rand(2, 4, 2, 3, 3), torch.randn(2, 3 * 4, 2, 3, 3)
    query, keys = gate.reshape(2, -1, 4), cells.reshape(2, -1, 4)
    expected = ((query @ keys.mT).softmax(-1) @ keys).reshape(gate.shape)
    torch.testing.assert_close(recall(gate, keys[:, None]), expected)


def test_the_reference_memory_stays_zero():
    torch.manual_seed(4)
    frame, history = FrameShape(1, 6, 10), torch.rand(2, 3, 1, 6, 10)
    correct, reference = build(SMALL, frame), build(replace(SMALL, memory="reference"), frame)
    reference.load_state_dict(correct.state_dict())
    before = correct(history, 2), reference(history, 2)
    assert (before[0] - before[1]).abs().max() > 1e-4
    with torch.no_grad():
        for model in (correct, reference):
            for cell in model.cells:
                cell.from_memory.weight.mul_(2.0)
    assert (correct(history, 2) - before[0]).abs().max() > 1e-5
    assert torch.equal(reference(history, 2), before[1])


def test_the_objective_is_squared_plus_absolute_error_of_all_guesses():
    torch.manual_seed(5)
    model = build(SMALL, FrameShape(2, 6, 10))
    history, future = torch.rand(2, 3, 2, 6, 10), torch.rand(2, 2, 2, 6, 10)
    guesses, truth = model.next_frames(history, future), torch.cat([history[:, 1:], future], 1)
    loss = model.loss(history, future)
    torch.testing.assert_close(loss.parts["mse"], (guesses - truth).square().mean())
    torch.testing.assert_close(loss.parts["mae"], (guesses - truth).abs().mean())
    assert loss.total == loss.parts["mse"] + loss.parts["mae"]


@pytest.mark.parametrize(("window", "stride"), [(1, 1), (2, 2), (3, 1)])
def test_odd_sizes_and_other_windows(window, stride):
    torch.manual_seed(6)
    model = build(replace(SMALL, window=window, stride=stride, patch=1), FrameShape(2, 5, 7))
    assert model(torch.rand(1, 2, 2, 5, 7), 3).shape == (1, 3, 2, 5, 7)


def test_published_size_has_this_many_parameters():
    # OpenSTL's table says 51.0 M. The layers' shapes are its own (recorded at a small width) and give 51.3 M.
    with torch.device("meta"):
        model = build(E3DLSTMConfig(), FrameShape(1, 64, 64))
    assert sum(parameter.numel() for parameter in model.parameters()) == 51_347_456


def test_unfit_sizes_are_refused():
    with pytest.raises(UserError, match=r"model.hidden: \(4, 8\); expected equal widths"):
        E3DLSTMConfig(hidden=(4, 8))
    with pytest.raises(UserError, match=r"model.patch: 2 on frames of 5 x 6"):
        build(SMALL, FrameShape(1, 5, 6))
