"""ConvLSTM, PredRNN, PredRNN++, PredRNNv2, MIM of OpenSTL: every recorded output, loss, gradient; the schedules."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from benchmarks.stpred.plain_predrnn import PlainPredRNN
from einops import rearrange
from stpred_recordings import Recording, names, of_class, open_recording
from torch import Tensor

from stpred.convert.openstl import OtherConfig, Sizes, dropped, parameter_names, read_sizes, to_openstl, to_ours
from stpred.models import build
from stpred.models.configs import (
    FrameShape,
    MIMConfig,
    OpenSTLConvLSTMConfig,
    PredRNNConfig,
    PredRNNppConfig,
    PredRNNv2Config,
)
from stpred.models.stack import RecurrentStack
from stpred.patches import reshape_patch
from stpred.sampling import truth_probability
from stpred.schedules import cosine, one_cycle

KINDS = {
    "ConvLSTM_Model": OpenSTLConvLSTMConfig,
    "PredRNN_Model": PredRNNConfig,
    "PredRNNpp_Model": PredRNNppConfig,
    "PredRNNv2_Model": PredRNNv2Config,
    "MIM_Model": MIMConfig,
}
STACKS = of_class(*KINDS)
SCHEDULES = names(lambda name, meta: "class" not in meta and "scheduled_sampling_eta_used_at_step" in meta)


def close(found: Tensor, expected: Tensor) -> bool:
    """Forward outputs agree to 1e-5 of the largest value."""
    return bool((found - expected).abs().max() <= 1e-5 * expected.abs().max() + 1e-6)


def sizes_of(recording: Recording) -> Sizes:
    """Sizes from the shapes of the weights; patch and loss weight from the metadata."""
    meta = recording.meta
    given = KINDS[meta["class"]](patch=meta["patch_size"])
    if isinstance(given, PredRNNv2Config):
        given = replace(given, decoupling=meta["decouple_beta"])
    return read_sizes(recording.weights(), given)


def load(recording: Recording) -> RecurrentStack[Any]:
    """Our model with the recorded weights."""
    sizes = sizes_of(recording)
    model = build(sizes.config, FrameShape(sizes.channels, *recording.tensors["in/frames"].shape[2:4]))
    assert isinstance(model, RecurrentStack)
    model.load_state_dict(to_ours(recording.weights(), sizes.config.kind))
    return model


def frames_of(recording: Recording) -> tuple[Tensor, Tensor]:
    frames = rearrange(recording.input("in/frames"), "batch time y x channel -> batch time channel y x")
    length = recording.meta["pre_seq_length"]
    return frames[:, :length], frames[:, length:]


def last_axis(frames: Tensor, patch: int) -> Tensor:
    """Patched with the channels last, as recorded."""
    return rearrange(reshape_patch(frames, patch), "batch time channel y x -> batch time y x channel")


@pytest.mark.parametrize("name", STACKS)
def test_frames_are_patched_alike(name: str) -> None:
    recording = open_recording(name)
    patched = last_axis(torch.cat(frames_of(recording), dim=1), recording.meta["patch_size"])
    assert torch.equal(patched, recording.expect("in/frames_patched"))


@pytest.mark.parametrize("name", STACKS)
def test_sizes_are_read_off_the_weights(name: str) -> None:
    recording = open_recording(name)
    sizes = sizes_of(recording)
    assert not isinstance(sizes.config, OtherConfig)
    assert list(sizes.config.hidden) == recording.meta["num_hidden"]
    assert sizes.config.kernel == recording.meta["filter_size"]
    assert sizes.config.layer_norm == bool(recording.meta["layer_norm"])
    assert sizes.channels == recording.meta["in_shape"][1]
    assert sizes.area in (None, tuple(recording.meta["in_shape"][2:]))


@pytest.mark.parametrize("mask", ["mixed_mask", "test_mask"])
@pytest.mark.parametrize("name", STACKS)
def test_next_frames_and_loss_agree(name: str, mask: str) -> None:
    recording = open_recording(name)
    model = load(recording)
    history, future = frames_of(recording)
    truth = recording.input("in/mask_bits") if mask == "mixed_mask" else None
    guesses = model.next_frames(history, future, truth=truth)
    assert close(last_axis(guesses, model.patch), recording.expect(f"out/next_frames_{mask}"))
    assert close(model.loss(history, future, truth=truth).total, recording.expect(f"out/loss_{mask}")[0])


@pytest.mark.parametrize("name", STACKS)
def test_the_forecast_is_the_last_guesses_under_the_test_mask(name: str) -> None:
    recording = open_recording(name)
    model = load(recording)
    history, future = frames_of(recording)
    forecast = last_axis(model(history, future.shape[1]), model.patch)
    assert close(forecast, recording.expect("out/next_frames_test_mask")[:, -future.shape[1] :])


@pytest.mark.parametrize("every", [0, 2])
@pytest.mark.parametrize("name", STACKS)
def test_gradients_agree_with_and_without_checkpoints(name: str, every: int) -> None:
    recording = open_recording(name)
    model = load(recording)
    model.checkpoint_every = every
    history, future = frames_of(recording)
    model.loss(history, future, truth=recording.input("in/mask_bits")).total.backward()
    ours = parameter_names(recording.weights(), sizes_of(recording).config.kind)
    parameters = dict(model.named_parameters())
    recorded = recording.under("grad/")
    assert recorded
    for key in recorded:
        gradient, expected = parameters[ours[key.removeprefix("grad/")]].grad, recording.expect(key)
        assert gradient is not None
        assert (gradient - expected).abs().max() <= 1e-4 * expected.abs().max(), key


@pytest.mark.parametrize("name", STACKS)
def test_names_go_there_and_back_without_the_unused(name: str) -> None:
    recording = open_recording(name)
    kind, state = sizes_of(recording).config.kind, recording.weights()
    dead = recording.meta["dead_params"]
    assert sorted(dropped(state, kind)) == sorted(dead)
    back = to_openstl(to_ours(state, kind), kind)
    assert back.keys() == state.keys()
    for key, value in back.items():
        assert torch.equal(value, torch.zeros_like(state[key]) if key in dead else state[key]), key


@pytest.mark.parametrize("name", of_class("PredRNNv2_Model"))
def test_terms_of_the_loss_agree(name: str) -> None:
    recording = open_recording(name)
    model = load(recording)
    parts = model.loss(*frames_of(recording), truth=recording.input("in/mask_bits")).parts
    weight = recording.meta["decouple_beta"]
    assert close(parts["mse"], recording.expect("out/mse_part")[0])
    assert close(parts["decoupling"], weight * recording.expect("out/decouple_part")[0])


@pytest.mark.parametrize("name", of_class("MIM_Model"))
def test_no_state_leaks_into_the_next_call(name: str) -> None:
    recording = open_recording(name)
    model = load(recording)
    first, second = (model.next_frames(*frames_of(recording)) for _ in range(2))
    assert torch.equal(first, second)
    leaky = recording.expect("out/second_call_leaky_state")
    clean = [recording.expect(f"out/next_frames_{mask}") for mask in ("mixed_mask", "test_mask")]
    bits = recording.input("in/mask_bits")
    ours = [model.next_frames(*frames_of(recording), truth=truth) for truth in (bits, None)]
    for expected, found in zip(clean, ours, strict=True):
        assert close(last_axis(found, model.patch), expected)
        assert (last_axis(found, model.patch) - leaky).abs().max() > 1e-3 * leaky.abs().max()


@pytest.mark.parametrize("name", SCHEDULES)
def test_learning_rates_agree(name: str) -> None:
    recording = open_recording(name)
    curve = recording.fact("onecycle_max1e-3_total40")
    found = [one_cycle(step, max_lr=1e-3, total_steps=len(curve)) for step in range(len(curve))]
    assert found == pytest.approx(curve, rel=1e-12)
    curve = recording.fact("timm_cosine_lr5e-4_T50_warm5_from1e-5_min1e-6_by_epoch")
    assert [cosine(epoch, lr=5e-4, epochs=50) for epoch in range(len(curve))] == pytest.approx(curve, rel=1e-12)


@pytest.mark.parametrize("name", SCHEDULES)
def test_sampling_probabilities_agree(name: str) -> None:
    recording = open_recording(name)
    for step, future in recording.fact("scheduled_sampling_eta_used_at_step"):
        # OpenSTL adds up rounded decrements: 1e-12 of drift.
        assert truth_probability("scheduled", step=step) == pytest.approx((1.0, future), abs=1e-11)
    for step, history, future in recording.fact("reverse_scheduled_sampling_step_r_eta_eta"):
        assert truth_probability("reverse", step=step) == pytest.approx((history, future), abs=1e-14)
    for epoch, future in recording.fact("phydnet_teacher_forcing_ratio_epoch"):
        assert truth_probability("coin", step=0, epoch=epoch) == pytest.approx((1.0, future), abs=1e-14)


@pytest.mark.parametrize("name", of_class("PredRNN_Model"))
def test_the_plain_implementation_that_ours_is_timed_against_agrees(name: str) -> None:
    recording = open_recording(name)
    meta, (history, future) = recording.meta, frames_of(recording)
    plain = PlainPredRNN(
        history.shape[2], (history.shape[3], history.shape[4]), hidden=tuple(meta["num_hidden"]),
        kernel=meta["filter_size"], patch=meta["patch_size"], layer_norm=bool(meta["layer_norm"]),
    )  # fmt: skip
    plain.load_state_dict(recording.weights())
    bits = recording.input("in/mask_bits")
    guesses = plain.next_frames(torch.cat([history, future], dim=1), history.shape[1], bits)
    assert close(last_axis(guesses, meta["patch_size"]), recording.expect("out/next_frames_mixed_mask"))
    forecast = last_axis(plain(history, future.shape[1]), meta["patch_size"])
    assert close(forecast, recording.expect("out/next_frames_test_mask")[:, -future.shape[1] :])
    loss = plain.loss(history, future, bits)
    assert close(loss, recording.expect("out/loss_mixed_mask")[0])
    loss.backward()
    parameters = dict(plain.named_parameters())
    for key in recording.under("grad/"):
        gradient, expected = parameters[key.removeprefix("grad/")].grad, recording.expect(key)
        assert gradient is not None
        assert (gradient - expected).abs().max() <= 1e-4 * expected.abs().max(), key
