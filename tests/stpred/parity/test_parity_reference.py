"""ConvLSTM and TrajGRU reproduce every recording of the original."""

from __future__ import annotations

import pytest
import torch
from reference_checks import (
    assert_close,
    assert_gradients,
    from_recipe,
    gradients,
    gradients_of_links,
    recipe_input,
    trajgru_config,
)
from stpred_recordings import Recording, names, of_class, open_recording

from stpred.convert.reference import cell_to_ours, to_ours, to_theirs
from stpred.models import FrameShape, convlstm, trajgru
from stpred.models.configs import (
    CONVLSTM_KTH,
    CONVLSTM_MOVING_MNIST,
    CONVLSTM_TAXIBJ,
    TRAJGRU_KTH,
    TRAJGRU_MOVING_MNIST,
    TRAJGRU_TAXIBJ,
    ConvLSTMConfig,
)
from stpred.models.convlstm import ConvLSTMCell, ConvLSTMForecaster
from stpred.models.trajgru import TrajGRUCell, TrajGRUForecaster
from stpred.models.trajgru_cell import warp
from stpred.patches import reshape_patch, reshape_patch_back

CONVLSTM = ("ConvLSTM_MovingMNIST", "ConvLSTM_KTH", "ConvLSTM_TaxiBJ")
TRAJGRU = ("TrajGRU_MovingMNIST", "TrajGRU_KTH", "TrajGRU_TaxiBJ")


def with_case(start: str) -> list[str]:
    """Recordings of single cells and the like have no class, but a name."""
    return names(lambda name, meta: name.startswith(start) and "class" not in meta)


def trained(meta_class: tuple[str, ...], *, several_steps: bool) -> list[str]:
    return names(lambda _, meta: meta.get("class") in meta_class and ("optimizer" in meta) == several_steps)


@pytest.mark.parametrize("name", with_case("patch"))
def test_patches(name: str) -> None:
    recording = open_recording(name)
    frames, patch = recording.input("in/img"), recording.meta["patch_size"]
    patches = reshape_patch(frames, patch)
    assert torch.equal(patches, recording.expect("out/patched"))
    assert torch.equal(reshape_patch_back(patches, patch), frames)
    assert torch.equal(reshape_patch(frames[:, 0], patch), patches[:, 0])
    assert torch.equal(reshape_patch_back(patches[:, 0], patch), frames[:, 0])


@pytest.mark.parametrize("name", with_case("convlstm_cell"))
def test_convlstm_cell(name: str) -> None:
    recording = open_recording(name)
    for case, meta in recording.meta["cases"].items():
        cell = ConvLSTMCell(
            meta["in_channels"], meta["hidden_channels"], tuple(meta["size"]), meta["kernel_size"],
            recording.meta["forget_bias"],
        )  # fmt: skip
        cell.load_state_dict(recording.weights(f"{case}/w/"))
        x, h, c = (recording.input(f"{case}/in/{key}").clone().requires_grad_() for key in "xhc")
        new_h, new_c = cell(x, h, c)
        assert_close(new_h, recording.expect(f"{case}/out/h"))
        assert_close(new_c, recording.expect(f"{case}/out/c"))
        ((new_h**2).mean() + (new_c**2).mean()).backward()
        found = gradients(cell) | {"in_x": x.grad, "in_h": h.grad, "in_c": c.grad}
        expected = {key.rpartition("/")[2]: recording.expect(key) for key in recording.under(f"{case}/grad/")}
        assert_gradients(found, expected, trajectories=False)
        assert all(cell.get_parameter(dead).grad is None for dead in meta["no_grad_params"])


def convlstm_module(recording: Recording, start: str = "w/") -> convlstm._OnFrames:
    meta = recording.meta
    weights = recording.weights(start)
    model = getattr(convlstm, meta["class"])(
        weights["forecast.conv_last.weight"].shape[0], meta["hidden_channels_list"], tuple(meta["size"]),
        meta["kernel_size_list"], meta.get("forget_bias", 0.01), horizon=meta.get("predict_out_len"),
    )  # fmt: skip
    model.load_state_dict(to_ours(weights, "convlstm"))
    return model


@pytest.mark.parametrize("name", trained(CONVLSTM, several_steps=False))
def test_convlstm(name: str) -> None:
    recording = open_recording(name)
    model = convlstm_module(recording)
    inputs, labels = recording.input("in/inputs"), recording.input("in/labels")
    forward = recording.expect("out/forward_outlen3")
    assert_close(model(reshape_patch(inputs, model.patch), forward.shape[1]), forward)
    assert_close(model.predict_step(inputs, labels), recording.expect("out/predict_step"))
    assert_close(model.validation_step(inputs, labels), recording.expect("out/validation_loss"))
    loss = model.training_step(inputs, labels)
    assert_close(loss, recording.expect("out/training_loss"))
    loss.backward()
    expected = {key.removeprefix("grad/"): recording.expect(key) for key in recording.under("grad/")}
    assert_gradients(gradients(model), expected, trajectories=False)
    assert all(model.get_parameter(dead).grad is None for dead in recording.meta["params_without_grad"])


@pytest.mark.parametrize("every", [0, 3])
@pytest.mark.parametrize("name", trained(CONVLSTM, several_steps=False))
def test_convlstm_of_the_registry(name: str, every: int) -> None:
    recording = open_recording(name)
    meta = recording.meta
    inputs, labels = recording.input("in/inputs"), recording.input("in/labels")
    config = ConvLSTMConfig(
        hidden=tuple(meta["hidden_channels_list"]), kernels=tuple(meta["kernel_size_list"]), patch=meta["patch_size"],
        forget_bias=meta["forget_bias"], checkpoint_every=every,
        clamp="nonnegative" if meta["class"].endswith("TaxiBJ") else "unit",
    )  # fmt: skip
    model = ConvLSTMForecaster.from_config(config, FrameShape(*inputs.shape[2:]))
    model.load_state_dict(to_ours(recording.weights(), "convlstm"))
    assert_close(model(inputs, meta["predict_out_len"]), recording.expect("out/predict_step"))
    loss = model.loss(inputs, labels).total
    assert_close(loss, recording.expect("out/training_loss"))
    loss.backward()
    expected = {key.removeprefix("grad/"): recording.expect(key) for key in recording.under("grad/")}
    assert_gradients(gradients(model), expected, trajectories=False)


@pytest.mark.parametrize("name", trained(CONVLSTM, several_steps=True))
def test_six_steps_of_adam(name: str) -> None:
    recording = open_recording(name)
    model = convlstm_module(recording, "w0/")
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    losses: list[torch.Tensor] = []
    for step in range(len(recording.under("in/inputs_"))):
        optimizer.zero_grad(set_to_none=True)
        loss = model.training_step(recording.input(f"in/inputs_{step}"), recording.input(f"in/labels_{step}"))
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    assert_close(torch.stack(losses), recording.expect("out/losses"))
    for key in recording.under("w6/"):
        expected = recording.expect(key)
        error = (model.get_parameter(key.removeprefix("w6/")) - expected).abs().max()
        assert error <= 1e-5 * expected.abs().max() + 1e-6, key


@pytest.mark.parametrize("name", with_case("trajgru_cell"))
def test_trajgru_cell(name: str) -> None:
    recording = open_recording(name)
    frames, flow = recording.input("warp/in/input"), recording.input("warp/in/flow")
    assert_close(warp(frames, flow[:, None])[:, :, 0], recording.expect("warp/out"))
    for case, meta in recording.meta["cases"].items():
        x, h = recording.input(f"{case}/in/x"), recording.input(f"{case}/in/h")
        for update, start in (("reference", "ref"), ("corrected", "fixed")):
            cell = TrajGRUCell(
                meta["in_channels"], meta["hidden_channels"], meta["kernel_size"], meta["L"], update=update
            )
            cell.load_state_dict(cell_to_ours(recording.weights(f"{case}/w/")))
            output, state = cell(x, h)
            assert output is not None and torch.equal(output, state)
            assert_close(output, recording.expect(f"{case}/out/{start}_h"))
            assert_close(cell(x, None)[0], recording.expect(f"{case}/out/{start}_h_xonly"))
            assert_close(cell(None, h)[0], recording.expect(f"{case}/out/{start}_h_honly"))
            assert_close(cell.flows(x, h).flatten(1, 2), recording.expect(f"{case}/out/flows"))
        (cell(x, h)[0] ** 2).mean().backward()
        expected = {key.rpartition("/")[2]: recording.expect(key) for key in recording.under(f"{case}/grad_fixed/")}
        assert_gradients(gradients_of_links(cell, wrapped=None), expected, trajectories=True)


@pytest.mark.parametrize("update", ["reference", "corrected"])
@pytest.mark.parametrize("name", of_class(*TRAJGRU))
def test_trajgru(name: str, update: str) -> None:
    recording = open_recording(name)
    meta, start = recording.meta, "ref" if update == "reference" else "fixed"
    inputs, labels = recording.input("in/inputs"), recording.input("in/labels")
    model = getattr(trajgru, meta["class"])(trajgru_config(meta, update=update), horizon=meta["out_len"])
    model.load_state_dict(to_ours(recording.weights(), "trajgru"))
    assert_close(model(inputs, meta["out_len"]), recording.expect(f"out/{start}_forward"))
    assert_close(model.predict_step(inputs, labels), recording.expect(f"out/{start}_predict_step"))
    loss = model.training_step(inputs, labels)
    assert_close(loss, recording.expect(f"out/{start}_training_loss"))
    if update == "reference":
        for level, state in enumerate(model.encoder(inputs)):
            assert_close(state, recording.expect(f"out/ref_enc_h{level + 1}"))
        loss.backward()
        expected = {key.removeprefix("grad/"): recording.expect(key) for key in recording.under("grad/")}
        found = gradients_of_links(model, wrapped=meta["conv_wrapped_in_sequential"])
        assert_gradients(found, expected, trajectories=True)
        for dead in meta["zero_or_missing_grad_params_in_ref"]:
            assert float(found[dead].abs().max()) == 0.0, dead


@pytest.mark.parametrize("name", of_class(*TRAJGRU))
def test_trajgru_of_the_registry(name: str) -> None:
    recording = open_recording(name)
    inputs, labels = recording.input("in/inputs"), recording.input("in/labels")
    config = trajgru_config(recording.meta, update="corrected")
    model = TrajGRUForecaster.from_config(config, FrameShape(*inputs.shape[2:]))
    model.load_state_dict(to_ours(recording.weights(), "trajgru"))
    assert_close(model(inputs, labels.shape[1]), recording.expect("out/fixed_predict_step"))
    assert_close(model.loss(inputs, labels).total, recording.expect("out/fixed_training_loss"))


FULL_SIZE = {
    "convlstm_movingmnist": CONVLSTM_MOVING_MNIST,
    "convlstm_kth": CONVLSTM_KTH,
    "convlstm_taxibj": CONVLSTM_TAXIBJ,
    "trajgru_movingmnist": TRAJGRU_MOVING_MNIST,
    "trajgru_kth": TRAJGRU_KTH,
    "trajgru_taxibj": TRAJGRU_TAXIBJ,
}


@pytest.mark.parametrize("case", FULL_SIZE)
@pytest.mark.parametrize("name", with_case("fullsize"))
def test_full_size(name: str, case: str) -> None:
    recording = open_recording(name)
    meta, seed = recording.meta["cases"][case], recording.meta["SEED"]
    frames, kind = recipe_input(meta["input_shape"], seed), case.partition("_")[0]
    forms = {"out": {}} if kind == "convlstm" else {"ref_out": {"update": "reference"}, "fixed_out": {}}
    for output, form in forms.items():
        config = type(FULL_SIZE[case])(**vars(FULL_SIZE[case]) | form)
        cls = ConvLSTMForecaster if kind == "convlstm" else TrajGRUForecaster
        with torch.device("meta"):
            model = cls.from_config(config, FrameShape(*frames.shape[2:]))
        model.to_empty(device="cpu")
        wrapped = kind == "trajgru" and not case.endswith("movingmnist")
        theirs = to_theirs(model.state_dict(), kind, wrapped=wrapped)
        assert sum(value.numel() for value in theirs.values()) == meta["n_params"]
        weights = from_recipe({key: value.shape for key, value in theirs.items()}, seed)
        model.load_state_dict(to_ours(weights, kind))
        with torch.inference_mode():
            assert_close(model.raw(frames, meta["out_len"]), recording.expect(f"{case}/{output}"))
