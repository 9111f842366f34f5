"""The frame of the recurrent models: what is fed when, sizes, zero states, loss terms."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from stcore.errors import UserError
from stpred.models import build
from stpred.models.configs import (
    FrameShape,
    MIMConfig,
    OpenSTLConvLSTMConfig,
    PredRNNConfig,
    PredRNNppConfig,
    PredRNNv2Config,
    StackConfig,
)
from stpred.models.mim import MIM
from stpred.models.predrnn import PredRNNv2
from stpred.models.stack import GateConvolution, RecurrentStack, update_memory

FRAME = FrameShape(2, 8, 12)
KINDS = (OpenSTLConvLSTMConfig, PredRNNConfig, PredRNNppConfig, PredRNNv2Config, MIMConfig)
every_model = pytest.mark.parametrize("config", [kind(hidden=(4, 4), kernel=3, patch=2) for kind in KINDS])


def make(config: StackConfig, frame: FrameShape = FRAME) -> RecurrentStack[Any]:
    torch.manual_seed(3)
    model = build(config, frame)  # pyright: ignore[reportArgumentType]
    assert isinstance(model, RecurrentStack)
    return model


def clip(length: int, *, batch: int = 2, frame: FrameShape = FRAME) -> Tensor:
    generator = torch.Generator().manual_seed(length)
    return torch.rand((batch, length, *frame), generator=generator)


def bits(model: RecurrentStack[Any], history: int, *future: float) -> Tensor:
    """The same truth for two samples; with reverse sampling the history is all true."""
    given = [1.0] * (history - 1) if model.sampling == "reverse" else []
    return torch.tensor([given + list(future)] * 2)


@every_model
def test_the_forecast_is_the_tail_of_the_guesses(config: StackConfig) -> None:
    model, frames = make(config), clip(6)
    guesses = model.next_frames(frames[:, :4], frames[:, 4:])
    assert guesses.shape == (2, 5, *FRAME)
    assert torch.allclose(model(frames[:, :4], 2), guesses[:, -2:], atol=1e-6)


@every_model
def test_no_truth_is_a_truth_of_zeros(config: StackConfig) -> None:
    model, frames = make(config), clip(6)
    zeros = bits(model, 3, 0.0, 0.0)
    free = model.next_frames(frames[:, :3], frames[:, 3:])
    assert torch.allclose(model.next_frames(frames[:, :3], frames[:, 3:], truth=zeros), free, atol=1e-6)


@every_model
def test_with_full_truth_the_split_into_history_and_future_does_not_matter(config: StackConfig) -> None:
    model, frames = make(config), clip(6)
    early = model.next_frames(frames[:, :2], frames[:, 2:], truth=bits(model, 2, 1.0, 1.0, 1.0))
    late = model.next_frames(frames[:, :5], frames[:, 5:], truth=bits(model, 5))
    assert torch.allclose(early, late, atol=1e-6)


@every_model
def test_a_guess_sees_only_frames_before_it(config: StackConfig) -> None:
    model, frames = make(config), clip(5)
    changed = frames.clone()
    changed[:, 3:] += 1.0
    truth = bits(model, 2, 1.0, 1.0)
    first, second = (model.next_frames(x[:, :2], x[:, 2:], truth=truth) for x in (frames, changed))
    assert torch.allclose(first[:, :3], second[:, :3], atol=1e-6)
    assert not torch.allclose(first[:, 3], second[:, 3], atol=1e-4)


@every_model
def test_samples_are_fed_each_by_its_own_bits(config: StackConfig) -> None:
    model, frames = make(config), clip(5)
    one, other = bits(model, 2, 1.0, 0.0)[:1], bits(model, 2, 0.0, 1.0)[:1]
    together = model.next_frames(frames[:, :2], frames[:, 2:], truth=torch.cat([one, other]))
    alone = [model.next_frames(x[None, :2], x[None, 2:], truth=b) for x, b in zip(frames, (one, other), strict=True)]
    assert torch.allclose(together, torch.cat(alone), atol=1e-6)


@every_model
def test_one_frame_each_way_is_enough(config: StackConfig) -> None:
    model, frames = make(config), clip(2)
    loss = model.loss(frames[:, :1], frames[:, 1:])
    assert torch.isclose(loss.parts["mse"], (model(frames[:, :1], 1) - frames[:, 1:]).square().mean())
    assert torch.isclose(loss.total, torch.stack(list(loss.parts.values())).sum())


@every_model
def test_pieces_that_are_computed_twice_change_no_forecast(config: StackConfig) -> None:
    frames = clip(4)
    whole, pieces = make(config), make(replace(config, checkpoint_every=2))
    with torch.no_grad():
        assert torch.equal(whole(frames, 3), pieces(frames, 3))


@pytest.mark.parametrize("layer_norm", [False, True])
@every_model
def test_half_precision_stays_near(config: StackConfig, layer_norm: bool) -> None:
    model, frames = make(replace(config, layer_norm=layer_norm)), clip(6)
    truth = bits(model, 3, 1.0, 0.0)
    truth[0] = 1.0 - truth[0]
    exact = model.loss(frames[:, :3], frames[:, 3:], truth=truth).total
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model.loss(frames[:, :3], frames[:, 3:], truth=truth).total
        forecast = model(frames[:, :3], 2)
    half.backward()
    assert half.item() == pytest.approx(exact.item(), rel=2e-2)
    assert (forecast.float() - model(frames[:, :3], 2)).abs().mean() < 2e-2


@every_model
def test_layer_norm_trains_every_parameter(config: StackConfig) -> None:
    model, frames = make(replace(config, layer_norm=True)), clip(6)
    model.loss(frames[:, :4], frames[:, 4:]).total.backward()
    assert [name for name, value in model.named_parameters() if value.grad is None] == []


@pytest.mark.parametrize("config", [PredRNNConfig(hidden=(4, 4), kernel=3, patch=2), PredRNNppConfig(hidden=(4, 4))])
def test_frames_of_another_size_pass_where_no_weight_is_per_pixel(config: StackConfig) -> None:
    model, larger = make(config), FrameShape(2, 16, 20)
    assert model(clip(3, frame=larger), 2).shape == (2, 2, *larger)


@pytest.mark.parametrize("config", [PredRNNConfig(hidden=(4, 4), layer_norm=True), MIMConfig(hidden=(4, 4))])
def test_frames_of_another_size_are_refused_where_weights_are_per_pixel(config: StackConfig) -> None:
    with pytest.raises(UserError, match=r"history: frames of 16 x 20; expected 8 x 12"):
        make(config)(clip(3, frame=FrameShape(2, 16, 20)), 2)


def test_wrong_frames_and_bits_are_refused_in_words() -> None:
    model, frames = make(PredRNNConfig(hidden=(4, 4))), clip(5)
    with pytest.raises(UserError, match=r"history: shape \(2, 5, 1, 8, 12\); expected .* 2 channels"):
        model(frames[:, :, :1], 2)
    with pytest.raises(UserError, match=r"future: shape \(2, 0, 2, 8, 12\).* one frame or more"):
        model.loss(frames, frames[:, :0])
    with pytest.raises(UserError, match=r"horizon: 0; expected 1"):
        model(frames, 0)
    with pytest.raises(UserError, match=r"truth: shape \(2, 3\); expected \(2, 1\)"):
        model.loss(frames[:, :3], frames[:, 3:], truth=torch.ones(2, 3))
    with pytest.raises(UserError, match=r"model.patch: 3 on frames of 8 x 12"):
        make(PredRNNConfig(hidden=(4, 4), patch=3))


@pytest.mark.parametrize(
    ("kind", "fields", "text"),
    [
        (PredRNNConfig, {"hidden": (4, 8)}, r"model.hidden: \(4, 8\); expected equal widths"),
        (PredRNNppConfig, {"hidden": (4,)}, r"model.hidden: \(4,\); expected two layers"),
        (MIMConfig, {"hidden": (4,)}, r"model.hidden: \(4,\); expected two layers"),
        (PredRNNv2Config, {"decoupling": -1.0}, r"model.decoupling: -1.0; expected 0 or more"),
        (OpenSTLConvLSTMConfig, {"kernel": 4}, r"model.kernel: 4; expected odd"),
        (OpenSTLConvLSTMConfig, {"checkpoint_every": -1}, r"model.checkpoint-every: -1"),
    ],
)
def test_sizes_that_cannot_be_are_refused(kind: type[StackConfig], fields: dict[str, Any], text: str) -> None:
    with pytest.raises(UserError, match=text):
        kind(**fields)


@pytest.mark.parametrize("norm", [None, (3, 5)])
def test_a_state_of_nothing_is_a_state_of_zeros(norm: tuple[int, int] | None) -> None:
    gates = GateConvolution(2, 6, 3, norm)
    if gates.norm is not None:
        torch.nn.init.normal_(gates.norm.bias)
    assert torch.equal(gates(None).expand(1, 6, 3, 5), gates(torch.zeros(1, 2, 3, 5)))


def test_the_memory_is_forgotten_and_written() -> None:
    write, forget, content, memory = (torch.full((1, 1, 1, 1), value) for value in (0.5, -0.25, 2.0, 3.0))
    gates = torch.cat([write, forget, content], dim=1)
    new, written = update_memory(gates, memory, forget_bias=1.0)
    assert torch.allclose(written, torch.sigmoid(write) * torch.tanh(content))
    assert torch.allclose(new, torch.sigmoid(forget + 1.0) * memory + written)
    assert torch.equal(update_memory(gates, None, forget_bias=1.0)[0], written)


def test_decoupling_is_one_for_equal_writes_and_zero_for_unlike_ones() -> None:
    model = make(PredRNNv2Config(hidden=(4, 4), patch=2))
    assert isinstance(model, PredRNNv2)
    torch.nn.init.eye_(model.adapter.weight[:, :, 0, 0].data)
    left, right = torch.zeros(2, 4, 2, 2), torch.zeros(2, 4, 2, 2)
    left[..., 0], right[..., 1] = 1.0, -2.0
    assert torch.isclose(model.penalty((left, -3 * left, right, right)), torch.tensor(1.0))
    assert model.penalty((left, right)) == 0.0
    assert torch.isclose(model.penalty((left, left, left, right)), torch.tensor(0.5))


def test_the_cut_through_the_stationary_memory_is_in_the_gradient_only() -> None:
    frames = clip(6)
    losses: list[Tensor] = []
    gradients: list[Tensor] = []
    for detach in (True, False):
        model = make(MIMConfig(hidden=(4, 4), kernel=3, patch=2, detach_stationary=detach))
        assert isinstance(model, MIM)
        losses.append(model.loss(frames[:, :4], frames[:, 4:]).total)
        losses[-1].backward()
        gradients.append(model.get_parameter("blocks.0.stationary.from_input.conv.weight").grad)  # pyright: ignore
    assert torch.equal(losses[0], losses[1])
    assert not torch.allclose(gradients[0], gradients[1], rtol=1e-3, atol=0.0)
