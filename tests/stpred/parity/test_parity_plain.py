"""The plain implementations that stpred is timed against reproduce the recordings of the original."""

from __future__ import annotations

import pytest
import torch
from benchmarks.stpred.plain import (
    PlainConvLSTM,
    PlainConvLSTMCell,
    PlainTrajGRU,
    PlainTrajGRUCell,
    plain_frames,
    plain_patches,
    plain_warp,
)
from reference_checks import assert_close, assert_gradients, from_recipe, gradients, recipe_input
from stpred_recordings import Recording, names, of_class, open_recording
from torch import Tensor
from torch.nn import functional as F

CONVLSTM = ("ConvLSTM_MovingMNIST", "ConvLSTM_KTH", "ConvLSTM_TaxiBJ")
TRAJGRU = ("TrajGRU_MovingMNIST", "TrajGRU_KTH", "TrajGRU_TaxiBJ")
FULL_SIZE = {
    "convlstm_movingmnist": {},
    "convlstm_kth": {"size": (32, 32)},
    "convlstm_taxibj": {"channels": 2, "size": (32, 32)},
    "trajgru_movingmnist": {},
    "trajgru_kth": {"hidden": (64, 96, 96), "up": (96, 96), "wrapped": True},
    "trajgru_taxibj": {
        "channels": 2, "hidden": (96, 96, 96), "links": (5, 5, 9), "up": (96, 96), "wrapped": True,
    },
}  # fmt: skip


def in_range(frames: Tensor, recording_class: str) -> Tensor:
    return frames.clamp_min(0) if recording_class.endswith("TaxiBJ") else frames.clamp(0, 1)


def expected_gradients(recording: Recording, start: str) -> dict[str, Tensor]:
    return {key.rpartition("/")[2]: recording.expect(key) for key in recording.under(start)}


def named(start: str) -> list[str]:
    return names(lambda name, meta: name.startswith(start) and "class" not in meta)


@pytest.mark.parametrize("name", named("convlstm_cell"))
def test_plain_convlstm_cell(name: str) -> None:
    recording = open_recording(name)
    for case, meta in recording.meta["cases"].items():
        cell = PlainConvLSTMCell(
            meta["in_channels"], meta["hidden_channels"], meta["size"], meta["kernel_size"],
            recording.meta["forget_bias"],
        )  # fmt: skip
        cell.load_state_dict(recording.weights(f"{case}/w/"))
        x, h, c = (recording.input(f"{case}/in/{key}").clone().requires_grad_() for key in "xhc")
        new_h, new_c = cell(x, h, c)
        assert_close(new_h, recording.expect(f"{case}/out/h"))
        assert_close(new_c, recording.expect(f"{case}/out/c"))
        ((new_h**2).mean() + (new_c**2).mean()).backward()
        found = gradients(cell) | {"in_x": x.grad, "in_h": h.grad, "in_c": c.grad}
        assert_gradients(found, expected_gradients(recording, f"{case}/grad/"), trajectories=False)


@pytest.mark.parametrize("name", of_class(*CONVLSTM))
def test_plain_convlstm(name: str) -> None:
    recording = open_recording(name)
    meta = recording.meta
    several = "optimizer" in meta
    weights = recording.weights("w0/" if several else "w/")
    model = PlainConvLSTM(
        weights["forecast.conv_last.weight"].shape[0], meta["hidden_channels_list"], meta["size"],
        meta["kernel_size_list"], meta.get("forget_bias", 0.01),
    )  # fmt: skip
    model.load_state_dict(weights)

    def loss_of(inputs: Tensor, labels: Tensor) -> Tensor:
        patch = meta.get("patch_size", 1)
        forecast = plain_frames(model(plain_patches(inputs, patch), labels.shape[1]), patch)
        return F.mse_loss(in_range(forecast, meta["class"]), labels)

    if several:
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
        losses: list[Tensor] = []
        for step in range(len(recording.under("in/inputs_"))):
            optimizer.zero_grad()
            losses.append(loss_of(recording.input(f"in/inputs_{step}"), recording.input(f"in/labels_{step}")))
            losses[-1].backward()
            optimizer.step()
        assert_close(torch.stack(losses), recording.expect("out/losses"))
        for key in recording.under("w6/"):
            assert_close(model.get_parameter(key.removeprefix("w6/")), recording.expect(key))
        return
    inputs, patch = recording.input("in/inputs"), meta["patch_size"]
    forward = recording.expect("out/forward_outlen3")
    assert_close(model(plain_patches(inputs, patch), forward.shape[1]), forward)
    loss = loss_of(inputs, recording.input("in/labels"))
    assert_close(loss, recording.expect("out/training_loss"))
    loss.backward()
    assert_gradients(gradients(model), expected_gradients(recording, "grad/"), trajectories=False)


@pytest.mark.parametrize("name", named("trajgru_cell"))
def test_plain_trajgru_cell(name: str) -> None:
    recording = open_recording(name)
    frames, flow = recording.input("warp/in/input"), recording.input("warp/in/flow")
    assert_close(plain_warp(frames, flow), recording.expect("warp/out"))
    for case, meta in recording.meta["cases"].items():
        x, h = recording.input(f"{case}/in/x"), recording.input(f"{case}/in/h")
        for update, start in (("reference", "ref"), ("corrected", "fixed")):
            cell = PlainTrajGRUCell(
                meta["in_channels"], meta["hidden_channels"], meta["kernel_size"], meta["L"], update
            )
            cell.load_state_dict(recording.weights(f"{case}/w/"))
            assert_close(cell(x, h), recording.expect(f"{case}/out/{start}_h"))
            assert_close(cell(x, None), recording.expect(f"{case}/out/{start}_h_xonly"))
            assert_close(cell(None, h), recording.expect(f"{case}/out/{start}_h_honly"))
            assert_close(cell.flows(x, h), recording.expect(f"{case}/out/flows"))
        (cell(x, h) ** 2).mean().backward()
        expected = expected_gradients(recording, f"{case}/grad_fixed/")
        assert_gradients(gradients(cell), expected, trajectories=True)


@pytest.mark.parametrize("update", ["reference", "corrected"])
@pytest.mark.parametrize("name", of_class(*TRAJGRU))
def test_plain_trajgru(name: str, update: str) -> None:
    recording = open_recording(name)
    meta, start = recording.meta, "ref" if update == "reference" else "fixed"
    model = PlainTrajGRU(
        meta["in_channels"], meta["stem_channels"], meta["hidden"], (meta["L_k5"], meta["L_k5"], meta["L_k3"]),
        (meta["deconv1_out"], meta["deconv2_out"]), update=update, wrapped=meta["conv_wrapped_in_sequential"],
    )  # fmt: skip
    model.load_state_dict(recording.weights())
    forecast = model(recording.input("in/inputs"), meta["out_len"])
    assert_close(forecast, recording.expect(f"out/{start}_forward"))
    loss = F.mse_loss(in_range(forecast, meta["class"]), recording.input("in/labels"))
    assert_close(loss, recording.expect(f"out/{start}_training_loss"))
    if update == "reference":
        loss.backward()
        assert_gradients(gradients(model), expected_gradients(recording, "grad/"), trajectories=True)


@pytest.mark.parametrize("case", FULL_SIZE)
@pytest.mark.parametrize("name", named("fullsize"))
def test_plain_full_size(name: str, case: str) -> None:
    recording = open_recording(name)
    meta, seed = recording.meta["cases"][case], recording.meta["SEED"]
    is_trajgru = case.startswith("trajgru")
    with torch.device("meta"):
        model = (PlainTrajGRU if is_trajgru else PlainConvLSTM)(**FULL_SIZE[case])
    model.to_empty(device="cpu")
    assert sum(value.numel() for value in model.parameters()) == meta["n_params"]
    model.load_state_dict(from_recipe({key: value.shape for key, value in model.named_parameters()}, seed))
    frames = recipe_input(meta["input_shape"], seed)
    patch = 1 if is_trajgru or case.endswith("taxibj") else 4
    with torch.inference_mode():
        found = plain_frames(model(plain_patches(frames, patch), meta["out_len"]), patch)
    assert_close(found, recording.expect(f"{case}/{'fixed_out' if is_trajgru else 'out'}"))
