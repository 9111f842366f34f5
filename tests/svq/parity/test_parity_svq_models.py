"""Whole models of the original, and steps of their training, against ours."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from einops import rearrange
from svq_recordings import Recording, of_kind, open_recording
from svq_reference import gradients, quantizer_config, simvp_config
from torch.nn import functional as F

from svq.convert import load_into, read_sizes, to_original, to_ours
from svq.divergence import differential_divergence
from svq.models import FrameShape, build
from svq.models.simvp import SimVP
from svq.models.sparse import SVQ
from svq.schedules import one_cycle

LOSSES = {"mae": F.l1_loss, "mse": F.mse_loss}


def _model(recording: Recording) -> SimVP:
    config = recording.config
    history, *frame = config["in_shape"]
    quantizer = quantizer_config(config.get("vq_type"), config.get("vq_kwargs"), post=config.get("post_vq", False))
    model = build(simvp_config(config), quantizer, FrameShape(*frame), history)
    assert load_into(model, recording.weights()) == ()
    return model.eval()


@pytest.mark.parametrize("name", of_kind("model"))
def test_forecasts_and_gradients(name):
    recording = open_recording(name)
    model = _model(recording)
    x = recording.input("in/x").clone().requires_grad_()
    y = model(x)
    recording.check("out/y", y)
    (y * recording.input("in/cotangent")).sum().backward()
    assert x.grad is not None
    recording.check("grad/x", x.grad)
    found = to_original(gradients(model), model.simvp.translator)
    expected = [key for key in recording.under("grad/") if key != "grad/x"]
    assert {f"grad/{name}" for name in found if name.startswith("vq.")} == set(expected)
    for key in expected:
        recording.check(key, found[key.removeprefix("grad/")])
    for key in recording.under("out/rollout_"):
        with torch.no_grad():
            recording.check(key, model(x, int(key.removeprefix("out/rollout_"))))


@pytest.mark.parametrize("name", of_kind("model"))
def test_what_stands_around_the_quantiser(name):
    recording = open_recording(name)
    model = _model(recording)
    with torch.no_grad():
        latent = model.encode(recording.input("in/x"))
        found = {"out/continuous": latent, "out/quantized": model.quantizer(latent).values}
        if isinstance(model.quantizer, SVQ):
            weights = torch.cat(list(model.code_weights(latent, 11)))
            found["out/code_weight"] = rearrange(weights, "(frame token) codes -> frame token codes", frame=len(latent))
    for key in found.keys() & recording.tensors.keys():
        recording.check(key, found[key])
    assert ("out/code_weight" in recording.tensors) == (recording.config["vq_type"] == "svq")


@pytest.mark.parametrize("name", of_kind("model", "openstl"))
def test_sizes_are_read_off_the_weights_and_names_go_back_and_forth(name):
    recording = open_recording(name)
    config, weights = recording.config, recording.weights()
    simvp = simvp_config(config)
    quantizer = quantizer_config(config.get("vq_type"), config.get("vq_kwargs"), post=config.get("post_vq", False))
    sizes = read_sizes(weights, simvp, quantizer)
    hidden = int(simvp.hid_temporal * simvp.mlp_ratio)
    assert int(sizes.simvp.hid_temporal * sizes.simvp.mlp_ratio) == pytest.approx(hidden, abs=1)
    assert (replace(sizes.simvp, mlp_ratio=simvp.mlp_ratio), sizes.quantizer) == (simvp, quantizer)
    assert [sizes.history, sizes.channels] == config["in_shape"][:2]
    back = to_original(to_ours(weights).state, simvp.translator)
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[key], weights[key]) for key in weights)


@pytest.mark.parametrize("folded", [True, False], ids=["folded", "unfolded"])
@pytest.mark.parametrize("name", of_kind("training"))
def test_steps_of_training(name, folded, monkeypatch):
    recording = open_recording(name)
    config = recording.config
    assert config["optimizer"] == "adam" and config["schedule"] == "onecycle"
    history, *frame = config["in_shape"]
    # The stochastic depth was forced to this rate in every block.
    simvp = simvp_config({**config}, drop_path=config["drop_path_probability_forced_to"])
    quantizer = quantizer_config(config["vq_type"], config["vq_kwargs"], post=config["post_vq"])
    model = build(simvp, quantizer, FrameShape(*frame), history)
    for part in model.modules():
        if hasattr(part, "drop_prob"):
            part.drop_prob = config["drop_path_probability_forced_to"]
    load_into(model, recording.weights())
    if not folded:
        monkeypatch.setattr(SVQ, "folded", lambda self, latent: self.unfolded(latent)[0])
    optimiser = torch.optim.Adam(model.parameters(), lr=config["lr"])
    losses, rates = [], []
    model.train()
    for step, (x, y) in enumerate(zip(recording.input("in/x"), recording.input("in/y"), strict=True)):
        now = one_cycle(step, max_lr=config["lr"], total_steps=config["total_steps"],
                        final_divisor=config["final_div_factor"])  # fmt: skip
        group = optimiser.param_groups[0]
        group["lr"], group["betas"] = now.lr, (now.beta1, group["betas"][1])
        future, auxiliary = model.loss_terms(x, y.shape[1])
        loss = LOSSES[config["loss"]](future, y) + auxiliary
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        rates.append(now.lr)
    recording.check("out/losses", torch.tensor(losses))
    recording.check("out/learning_rates", torch.tensor(rates, dtype=torch.float64))
    after = to_original(model.state_dict(), simvp.translator)
    assert {f"after/{name}" for name in after} == set(recording.under("after/"))
    for name, value in after.items():
        recording.check(f"after/{name}", value)


@pytest.mark.parametrize("name", of_kind("openstl"))
def test_simvp_and_tau_of_openstl(name):
    recording = open_recording(name)
    model = _model(recording)
    x, target = recording.input("in/x"), recording.input("in/target")
    with torch.no_grad():
        twice = model(x, 2 * model.history)
    recording.check("out/eval", twice[:, : model.history])
    recording.check("out/eval_second_rollout", twice[:, model.history :])
    for part in model.modules():
        if hasattr(part, "drop_prob"):
            part.drop_prob = 0.0
    model.train()
    future = model(x)
    recording.check("out/train_no_drop_path", future)
    error = F.mse_loss(future, target)
    recording.check("out/train_mse", error.reshape(1))
    if "out/diff_div_reg" in recording.tensors:
        recording.check("out/diff_div_reg", differential_divergence(future, target).reshape(1))
    error.backward()
    found = to_original(gradients(model), model.simvp.translator)
    for key in recording.under("grad/"):
        recording.check(key, found[key.removeprefix("grad/")])
