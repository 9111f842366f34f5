"""Whole models of the original, their gradients and their parameters, against ours."""

from __future__ import annotations

import re

import pytest
import torch
from vlm4st_recordings import NORM, of_module, open_recording, with_gradients
from vlm4st_reference import reference_model

from vlm4st.convert import convert_reference_state_dict, load_reference, to_reference_state_dict
from vlm4st.convert.reference import UNREAD
from vlm4st.models.adapters import adapter_parameters

LOSS = {"mse_weight": 1.0, "mae_weight": 0.5}
TRACED = ("X_temporal", "X_cross", "B_prompt", "X_fused", "gate_weights", "image", "sequence")
DEAD = re.compile(
    r"vlm_module\.visual_encoder\.blocks\.\d+\.attn\.qkv\..+|" + "|".join(f"{start}.+" for start in UNREAD)
)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", of_module("full model"))
def test_forecast_loss_and_everything_between(name, attention):
    recording = open_recording(name)
    model = reference_model(recording, attention=attention)
    x, timestamps = recording.input("in/X"), recording.input("in/timestamps")
    with torch.no_grad():
        prediction, between = model(x, timestamps, return_intermediate=True)
        assert torch.allclose(model(x, timestamps=timestamps), prediction, atol=1e-6)
        loss, parts = model.get_loss(prediction, recording.input("in/target"), LOSS)
        with_axis, _ = model.get_loss(prediction, recording.input("in/target")[..., None], LOSS)
    recording.check("out/prediction", prediction)
    assert torch.equal(loss, with_axis)
    for key, found in (("loss", loss), ("mse", parts["mse_loss"]), ("mae", parts["mae_loss"])):
        recording.check(f"out/{key}", found)
    for key in TRACED:
        recording.check(f"out/{key}", between[key])
    for key, found in between["vlm_output"].items():
        if model.ablation == "no_visual" and key == "visual_embeds":
            # The original has 197 rows of zeros whatever the image; ours as many as the image has tokens.
            assert not recording.expect(f"out/vlm.{key}").any() and not found.any()
            assert found.shape[1] == model.config.vlm.tokens
        else:
            recording.check(f"out/vlm.{key}", found)
    assert between["format_outputs"]["seq_length"] == between["format_outputs"]["seq_mask"].sum(1)[0]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("name", with_gradients())
def test_gradients(name, attention):
    recording = open_recording(name)
    model = reference_model(recording, attention=attention)
    loss, _ = model.get_loss(model(recording.input("in/X"), recording.input("in/timestamps")),
                             recording.input("in/target"), LOSS)  # fmt: skip
    loss.backward()
    ours = {key: part.grad for key, part in model.named_parameters() if part.grad is not None}
    found = to_reference_state_dict(ours)
    for key in recording.under("extra/grad."):
        recording.check_gradient(key, found[key.removeprefix("extra/grad.")])
    norms = recording.fact("grad_norms")
    for key, expected in norms.items():
        assert float(found[key].norm()) == pytest.approx(expected, rel=NORM["rtol"], abs=NORM["atol"]), key
    trained = {key for key in found if not DEAD.fullmatch(key) or key in norms}
    assert trained == set(norms)
    without = set(to_reference_state_dict({key: part for key, part in model.named_parameters()
                                           if part.requires_grad and part.grad is None}))  # fmt: skip
    expected = {key for key in recording.fact("trainable_without_gradient") if not DEAD.fullmatch(key)}
    assert {key for key in without if not DEAD.fullmatch(key)} == expected


@pytest.mark.parametrize("name", of_module("full model"))
def test_what_is_trained_and_how_much_there_is(name):
    """Names and numbers of the original less what nothing reads: dead weights, and what an ablation leaves out."""
    recording = open_recording(name)
    model = reference_model(recording)
    weights = recording.weights()
    left = set(load_reference(model, weights))
    unbuilt = set(to_reference_state_dict({key: torch.zeros(3) for key in left if not key.startswith(UNREAD)
                                           and not DEAD.fullmatch(key)}))  # fmt: skip
    sizes = {key: value.numel() for key, value in weights.items() if not key.endswith(("position_ids", "running_mean",
                                                          "running_var", "num_batches_tracked"))}  # fmt: skip
    counts = recording.fact("counts")
    assert sum(sizes.values()) == counts["total"] == counts["trainable"] + counts["frozen"]
    dead = {key for key in sizes if DEAD.fullmatch(key) and key in left} | (unbuilt & sizes.keys())
    found = model.get_trainable_parameters()
    assert found["total"] == counts["total"] - sum(sizes[key] for key in dead)
    trained = set(to_reference_state_dict({key: part for key, part in model.named_parameters() if part.requires_grad}))
    expected = set(recording.fact("trainable_names_at_construction")) - dead
    unread = {key for key in expected - trained if model.ablation and not key.startswith("vlm_module.")}
    assert trained - {key for key in trained if DEAD.fullmatch(key) and key not in expected} == expected - unread
    assert not unread or model.ablation in ("no_seq", "no_prompt", "no_visual")
    assert found["trainable"] == sum(sizes[key] for key in expected - unread)


@pytest.mark.parametrize("name", of_module("full model"))
def test_names_go_back_and_forth(name):
    recording = open_recording(name)
    weights = recording.weights()
    state, dropped = convert_reference_state_dict({"model_state_dict": weights, "epoch": 3})
    back = to_reference_state_dict(state, dropped)
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[key], weights[key]) for key in weights)


@pytest.mark.parametrize("name", with_gradients())
def test_freezing_goes_by_type_and_comes_back(name):
    recording = open_recording(name)
    model = reference_model(recording)
    before = {key: part.requires_grad for key, part in model.named_parameters()}
    assert all(before.values()) != model.config.vlm.use_lora
    model.unfreeze_all()
    assert model.get_trainable_parameters()["frozen"] == 0
    model.freeze_vlm_backbone()
    after = {key: part.requires_grad for key, part in model.named_parameters()}
    if model.config.vlm.use_lora:
        assert after == before
        adapters = {id(part) for part in adapter_parameters(model)}
        trained = {id(part) for part in model.vlm_module.parameters() if part.requires_grad}
        assert trained == adapters
    else:
        assert not any(part.requires_grad for part in model.vlm_module.parameters())
