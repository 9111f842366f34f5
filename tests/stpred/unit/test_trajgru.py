"""TrajGRU: the warp, the update, its engine against single steps, flows, conversion both ways."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from benchmarks.stpred.plain import PlainTrajGRU
from torch import Tensor, nn

from stcore.errors import UserError
from stpred.convert.reference import read, to_ours, to_theirs
from stpred.models import FrameShape, build
from stpred.models.configs import TRAJGRU_KTH, TRAJGRU_MOVING_MNIST, TRAJGRU_TAXIBJ, TrajGRUConfig
from stpred.models.trajgru import TrajGRU_MovingMNIST, TrajGRUForecaster
from stpred.models.trajgru_cell import TrajGRUCell, warp

SMALL = TrajGRUConfig(stem=3, hidden=(4, 5, 6), links=(3, 2, 2), forecast_links=(2, 3, 2))
FRAME = FrameShape(2, 16, 24)


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype) * 0.1
    return model


def frames(*shape: int, seed: int = 1) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_warp_by_whole_pixels_moves_the_frame() -> None:
    image = frames(1, 2, 5, 6)
    flows = torch.zeros(1, 2, 2, 5, 6)
    flows[:, 0, 0], flows[:, 1, 1] = 2.0, -1.0
    found = warp(image, flows)
    torch.testing.assert_close(found[:, :, 0, :, :4], image[..., 2:])
    torch.testing.assert_close(found[:, :, 1, 1:], image[..., :-1, :])
    assert float(found[:, :, 0, :, 4:].abs().max()) < 1e-5 and float(found[:, :, 1, 0].abs().max()) < 1e-5


def test_warp_of_half_a_pixel_is_the_mean_of_two() -> None:
    image = frames(1, 1, 3, 4)
    flows = torch.zeros(1, 1, 2, 3, 4)
    flows[:, :, 0] = 0.5
    torch.testing.assert_close(warp(image, flows)[0, 0, 0, :, :3], (image[0, 0, :, :3] + image[0, 0, :, 1:]) / 2)


@pytest.mark.parametrize("update", ["corrected", "reference"])
def test_running_through_time_equals_single_steps(update: str) -> None:
    cell = randomised(TrajGRUCell(3, 4, 5, 3, update=update))
    inputs = frames(4, 2, 3, 6, 7)
    outputs, last = cell.run(inputs, None, steps=4)
    h: Tensor | None = None
    for t in range(4):
        _, h = cell(inputs[t], h)
        torch.testing.assert_close(outputs[t], h)
    assert torch.equal(last, outputs[-1])


def test_missing_input_and_missing_state_are_zeros() -> None:
    cell = randomised(TrajGRUCell(3, 4, 3, 2))
    x, h = frames(2, 3, 6, 7), frames(2, 4, 6, 7)
    torch.testing.assert_close(cell(None, h)[0], cell(torch.zeros_like(x), h)[0])
    torch.testing.assert_close(cell(x, None)[0], cell(x, torch.zeros_like(h))[0])
    with pytest.raises(ValueError, match="at least one"):
        cell(None, None)


def test_a_closed_gate_keeps_the_state_only_when_corrected() -> None:
    for update, kept in (("corrected", True), ("reference", False)):
        cell = randomised(TrajGRUCell(3, 4, 3, 2, update=update))
        with torch.no_grad():
            cell.conv_x.bias[:4] = 100.0
        h = frames(2, 4, 6, 7)
        assert torch.allclose(cell(frames(2, 3, 6, 7), h)[1], h) is kept


@pytest.mark.parametrize("act", ["none", "leaky"])
def test_engine_equals_the_plain_implementation_with_gradients(act: str) -> None:
    config = dataclasses.replace(SMALL, forecast_links=SMALL.links, clamp="none", resample_act=act)
    ours = randomised(build(config, FRAME)).double()
    plain = PlainTrajGRU(2, 3, (4, 5, 6), (3, 2, 2), (5, 4)).double()
    plain.load_state_dict(to_theirs(ours.state_dict(), "trajgru"))
    history = frames(2, 3, *FRAME).double()
    one, other = ours(history, 3), plain(history, 3)
    if act == "leaky":
        assert not torch.allclose(one, other)
        return
    torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-9)  # positions are taken in float32
    one.square().mean().backward()
    other.square().mean().backward()
    theirs = to_theirs({name: v.grad for name, v in ours.named_parameters() if v.grad is not None} | {
        name: torch.zeros_like(v) for name, v in ours.named_parameters() if v.grad is None
    }, "trajgru")  # fmt: skip
    for name, parameter in plain.named_parameters():
        if name.endswith("weight") and parameter.grad is not None:
            torch.testing.assert_close(theirs[name], parameter.grad, rtol=1e-3, atol=1e-7, msg=name)


@pytest.mark.parametrize("every", [1, 2])
def test_checkpointing_changes_no_gradient(every: int) -> None:
    plain = randomised(build(SMALL, FRAME))
    saving = build(dataclasses.replace(SMALL, checkpoint_every=every), FRAME)
    saving.load_state_dict(plain.state_dict())
    history, future = frames(2, 3, *FRAME), frames(2, 3, *FRAME, seed=2)
    for model in (plain, saving):
        model.loss(history, future).total.backward()
    for (name, one), other in zip(plain.named_parameters(), saving.parameters(), strict=True):
        assert (one.grad is None) == (other.grad is None), name
        if one.grad is not None:
            torch.testing.assert_close(other.grad, one.grad, rtol=1e-4, atol=1e-8)


def test_every_parameter_that_asks_for_a_gradient_gets_one() -> None:
    for update in ("corrected", "reference"):
        model = build(dataclasses.replace(SMALL, update=update), FRAME)
        model.loss(frames(1, 2, *FRAME), frames(1, 2, *FRAME, seed=2)).total.backward()
        waiting = [name for name, value in model.named_parameters() if value.requires_grad and value.grad is None]
        assert waiting == []


@torch.no_grad()
def test_flows_of_every_layer_and_step() -> None:
    model = randomised(build(SMALL, FRAME))
    found = model.flows(frames(2, 3, *FRAME), 4)
    assert [tuple(flow.shape) for flow in found] == [(2, 4, 2, 2, 2, 3), (2, 4, 3, 2, 4, 6), (2, 4, 2, 2, 8, 12)]
    assert all(float(flow.abs().max()) > 0.0 for flow in found)


def test_longer_horizons_begin_with_the_shorter_ones() -> None:
    model = randomised(build(SMALL, FRAME))
    history = frames(1, 3, *FRAME)
    torch.testing.assert_close(model(history, 5)[:, :2], model(history, 2))


@pytest.mark.parametrize("wrapped", [False, True])
def test_weights_survive_the_way_there_and_back(wrapped: bool) -> None:
    ours = randomised(build(SMALL, FRAME)).state_dict()
    back = to_ours(to_theirs(ours, "trajgru", wrapped=wrapped), "trajgru")
    assert list(back) != [] and all(torch.equal(back[name], ours[name]) for name in ours)
    found = read(to_theirs(ours, "trajgru", wrapped=wrapped), update="corrected")
    assert found.config == dataclasses.replace(SMALL, up=(5, 4), clamp="nonnegative")
    assert found.channels == 2 and found.size is None


def test_incomplete_weights_are_refused_by_name() -> None:
    state = to_theirs(randomised(build(SMALL, FRAME)).state_dict(), "trajgru")
    del state["encoder.layer2.W_hr.1.weight"]
    with pytest.raises(UserError, match=r"missing: encoder.layer2.W_hr.1.weight \(1\)"):
        to_ours(state, "trajgru")
    with pytest.raises(UserError, match="expected those of the original's ConvLSTM"):
        read({"something": torch.zeros(1)})


@pytest.mark.parametrize(
    ("config", "channels", "wrapped", "count"),
    [
        (TRAJGRU_MOVING_MNIST, 1, False, 6_621_749),
        (TRAJGRU_KTH, 1, True, 5_366_069),
        (TRAJGRU_TAXIBJ, 2, True, 4_944_454),
    ],
)
def test_published_sizes(config: TrajGRUConfig, channels: int, wrapped: bool, count: int) -> None:
    with torch.device("meta"):
        state = TrajGRUForecaster(config, channels).state_dict()
    assert sum(value.numel() for value in to_theirs(state, "trajgru", wrapped=wrapped).values()) == count
    # Ours has one bias where the original sums those of all links.
    cells = zip(config.links + config.forecast_links, config.hidden + config.hidden[::-1], strict=True)
    summed = sum(3 * (links - 1) * width for links, width in cells)
    assert sum(value.numel() for value in state.values()) == count - summed


def test_module_of_the_original_trains_on_as_many_frames_as_there_are_labels() -> None:
    module = TrajGRU_MovingMNIST(SMALL, horizon=4)
    inputs = frames(1, 2, 1, 16, 16)
    assert module.training_step(inputs, frames(1, 3, 1, 16, 16)).ndim == 0
    assert module.predict_step(inputs).shape == (1, 4, 1, 16, 16)
    assert module.predict_step(inputs, horizon=6).shape == (1, 6, 1, 16, 16)


def test_bfloat16_keeps_state_and_positions_in_float32() -> None:
    cell = TrajGRUCell(3, 4, 3, 2)
    with torch.autocast("cpu", torch.bfloat16):
        _, h = cell.run(frames(3, 2, 3, 5, 6), None, steps=3)
    assert h.dtype == torch.float32


def test_an_empty_history_or_horizon_is_refused() -> None:
    model = build(SMALL, FRAME)
    for history, horizon in ((2, 0), (0, 2)):
        with pytest.raises(UserError, match="history or horizon: 0; expected 1 or more frames"):
            model(frames(1, history, *FRAME), horizon)


def test_frames_must_halve_three_times() -> None:
    with pytest.raises(UserError, match="frames: 20 x 16; expected multiples of 8"):
        build(SMALL, FrameShape(1, 20, 16))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernels": (5, 5, 7)}, "model.kernels: .*3 or 5"),
        ({"links": (0, 1, 1)}, "model.links: .*1 or more"),
        ({"up": (1, -1)}, "model.up: .*two widths"),
    ],
)
def test_values_out_of_range_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        dataclasses.replace(SMALL, **change)


def test_kernel_of_a_lone_cell_is_checked() -> None:
    with pytest.raises(UserError, match="kernel_size: 4; expected 3 or 5"):
        TrajGRUCell(1, 2, 4)
