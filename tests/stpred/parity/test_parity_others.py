"""E3D-LSTM, PhyDNet and MAU against recordings of OpenSTL."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from einops import rearrange
from stpred_recordings import Recording, of_class, open_recording

from stpred.convert.openstl_others import dropped, read_sizes, to_openstl, to_ours
from stpred.models import FrameShape, build
from stpred.models.configs import E3DLSTMConfig, MAUConfig, PhyDNetConfig
from stpred.models.phydnet import moment_matrix, moments
from stpred.patches import reshape_patch

E3DLSTM = of_class("E3DLSTM_Model")
PHYDNET = of_class("PhyDNet_Model")
MAU = of_class("MAU_Model")


def _close(found, expected):
    bound = 1e-5 * expected.abs().max().item() + 1e-6
    torch.testing.assert_close(found.detach().to(expected), expected, rtol=0, atol=bound)


def _given(recording: Recording):
    """The configuration as the metadata has it; the shapes of the weights have to agree."""
    meta = recording.meta
    if meta["class"] == "E3DLSTM_Model":
        _, kernel, _ = meta["kernel"]
        return E3DLSTMConfig(hidden=tuple(meta["num_hidden"]), kernel=kernel, window=meta["window_length"],
                             patch=meta["patch_size"], memory="reference")  # fmt: skip
    if meta["class"] == "MAU_Model":
        return MAUConfig(hidden=tuple(meta["num_hidden"]), kernel=meta["filter_size"], window=meta["tau"],
                         downsample=meta["sr_size"], patch=meta["patch_size"], cell=meta["cell_mode"],
                         mode=meta["model_mode"])  # fmt: skip
    return PhyDNetConfig(downsample=meta["patch_size"], encoder_width=meta["encoder_nf"], width=meta["input_dim"],
                         hidden=tuple(meta["convlstm_hidden"]), kernel=meta["kernel"])  # fmt: skip


def _model(recording: Recording, **changes):
    config = _given(recording)
    _, *shape = recording.meta["in_shape"]
    model = build(replace(config, **changes), FrameShape(*shape))
    model.load_state_dict(to_ours(recording.weights(), config.kind))
    return model.train()


def _clip(recording: Recording):
    """History and future of a recording of the recurrent frame, and the bits of its mask."""
    frames = rearrange(recording.input("in/frames"), "batch time y x channel -> batch time channel y x")
    count = recording.meta["pre_seq_length"]
    assert frames.shape[1] - count == recording.meta["aft_seq_length"]
    return frames[:, :count], frames[:, count:], recording.input("in/mask_bits")


def _patched(model, recording: Recording, *clip, truth):
    frames = reshape_patch(model.next_frames(*clip, truth=truth), recording.meta["patch_size"])
    return rearrange(frames, "batch time channel y x -> batch time y x channel")


def _check_gradients(model, recording: Recording, kind: str):
    found = to_openstl({name: p.grad for name, p in model.named_parameters() if p.grad is not None}, kind)
    stored = recording.under("grad/")
    assert stored
    # A bias before a normalisation of single channels changes nothing: its gradient is rounding on both sides.
    rounding = 1e-7 * max(recording.expect(key).abs().max().item() for key in stored)
    for key in stored:
        expected = recording.expect(key)
        bound = 1e-4 * expected.abs().max().item() + rounding
        gradient = found[key.removeprefix("grad/")]
        torch.testing.assert_close(gradient, expected, rtol=0, atol=bound, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("name", E3DLSTM)
def test_frames_of_e3dlstm_go_into_the_same_patches(name):
    recording = open_recording(name)
    history, future, _ = _clip(recording)
    patched = reshape_patch(torch.cat([history, future], 1), recording.meta["patch_size"])
    expected = recording.expect("in/frames_patched")
    assert torch.equal(rearrange(patched, "batch time channel y x -> batch time y x channel"), expected)


@pytest.mark.parametrize("memory", ["reference", "correct"])
@pytest.mark.parametrize("name", E3DLSTM)
def test_next_frames_of_e3dlstm(name, memory):
    recording = open_recording(name)
    model = _model(recording, memory=memory)
    history, future, bits = _clip(recording)
    suffix = "_memory_fixed" if memory == "correct" else ""
    for mask, truth in (("mixed_mask", bits), ("test_mask", None)):
        found = _patched(model, recording, history, future, truth=truth)
        _close(found, recording.expect(f"out/next_frames_{mask}{suffix}"))
    forecast = reshape_patch(model(history, future.shape[1]), recording.meta["patch_size"])
    _close(rearrange(forecast, "batch time channel y x -> batch time y x channel"), found[:, -future.shape[1] :])


@pytest.mark.parametrize("name", E3DLSTM)
def test_losses_and_gradients_of_e3dlstm(name):
    recording = open_recording(name)
    model = _model(recording)
    history, future, bits = _clip(recording)
    _close(model.loss(history, future).total, recording.expect("out/loss_test_mask").squeeze())
    loss = model.loss(history, future, truth=bits).total
    _close(loss, recording.expect("out/loss_mixed_mask").squeeze())
    loss.backward()
    _check_gradients(model, recording, "e3dlstm")


@pytest.mark.parametrize("name", MAU)
def test_next_frames_of_mau(name):
    recording = open_recording(name)
    model = _model(recording)
    history, future, bits = _clip(recording)
    for mask, truth in (("mixed_mask", bits), ("test_mask", None)):
        found = reshape_patch(model.next_frames(history, future, truth=truth), recording.meta["patch_size"])
        _close(found, recording.expect(f"out/next_frames_{mask}"))
    _close(reshape_patch(model(history, future.shape[1]), recording.meta["patch_size"]), found[:, -future.shape[1] :])


@pytest.mark.parametrize("name", MAU)
def test_losses_and_gradients_of_mau(name):
    recording = open_recording(name)
    model = _model(recording)
    history, future, bits = _clip(recording)
    _close(model.loss(history, future).total, recording.expect("out/loss_test_mask").squeeze())
    loss = model.loss(history, future, truth=bits).total
    _close(loss, recording.expect("out/loss_mixed_mask").squeeze())
    loss.backward()
    _check_gradients(model, recording, "mau")


@pytest.mark.parametrize("name", PHYDNET)
def test_forecast_losses_and_gradients_of_phydnet(name):
    recording = open_recording(name)
    model = _model(recording)
    history, future = recording.input("in/inputs"), recording.input("in/targets")
    assert (history.shape[1], future.shape[1]) == (recording.meta["pre"], recording.meta["aft"])
    with torch.no_grad():
        _close(model(history, future.shape[1]), recording.expect("out/inference"))
        forced = model.loss(history, future, truth=torch.ones(len(history), future.shape[1] - 1))
    _close(forced.total, recording.expect("out/train_loss_teacher_forcing").squeeze())
    loss = model.loss(history, future)
    _close(loss.total, recording.expect("out/train_loss_no_forcing").squeeze())
    _close(loss.parts["moment"], recording.expect("out/moment_penalty").squeeze())
    loss.total.backward()
    _check_gradients(model, recording, "phydnet")


@pytest.mark.parametrize("name", PHYDNET)
def test_moments_of_filters(name):
    recording = open_recording(name)
    filters = recording.input("k2m/in_filters")
    matrix = moment_matrix(filters.shape[-1])
    _close(matrix, recording.expect("k2m/M"))
    _close(torch.linalg.inv(matrix), recording.expect("k2m/invM"))
    _close(moments(filters.double()), recording.expect("k2m/out_moments"))
    _close(moments(filters), recording.expect("k2m/out_moments"))


@pytest.mark.parametrize("name", [*E3DLSTM, *PHYDNET, *MAU])
def test_names_go_both_ways(name):
    recording = open_recording(name)
    theirs, config = recording.weights(), _given(recording)
    ours = to_ours(theirs, config.kind)
    back = to_openstl(ours, config.kind)
    dead = set(dropped(theirs, config.kind))
    assert dead == set(recording.meta.get("dead_params", []))
    assert theirs.keys() <= back.keys()
    assert all(torch.equal(back[key], value) for key, value in theirs.items() if key not in dead)
    assert all(back[key].shape == theirs[key].shape and not back[key].any() for key in dead)
    again = to_ours(back, config.kind)
    assert again.keys() == ours.keys() and all(torch.equal(again[key], ours[key]) for key in ours)


@pytest.mark.parametrize("name", [*E3DLSTM, *PHYDNET, *MAU])
def test_sizes_are_read_off_the_shapes(name):
    recording = open_recording(name)
    config = _given(recording)
    plain = {"e3dlstm": E3DLSTMConfig, "phydnet": PhyDNetConfig, "mau": MAUConfig}[config.kind]
    told = {
        "e3dlstm": ("patch", "stride", "memory"),
        "phydnet": ("downsample",),
        "mau": ("patch", "window", "cell", "mode"),
    }
    given = plain(**{field: getattr(config, field) for field in told[config.kind]})
    sizes = read_sizes(recording.weights(), given)
    _, channels, *area = recording.meta["in_shape"]
    assert (sizes.config, sizes.channels) == (config, channels)
    assert sizes.area == (None if config.kind == "phydnet" else tuple(area))
