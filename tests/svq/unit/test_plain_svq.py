"""The plain SimVP and SVQ that svq is timed against reproduce the recordings of the originals."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from benchmarks.svq.plain import PlainProjection, PlainSimVP, PlainSVQ
from svq_recordings import Recording, of_kind, open_recording
from torch import Tensor, nn
from torch.nn import functional as F


def of_gsta(*kinds: str) -> list[Any]:
    """Names of the recordings of models with gSTA in between, alone or with SVQ."""

    def fits(name: Any) -> bool:
        if not isinstance(name, str):
            return True
        config = open_recording(name).config
        known = config.get("schedule", "onecycle") == "onecycle" and config.get("optimizer", "adam") == "adam"
        return known and config["model_type"].lower() == "gsta" and config.get("vq_type") in (None, "svq")

    return [name for name in of_kind(*kinds) if fits(name)]


def plain_model(config: dict[str, Any]) -> PlainSimVP:
    names = ("hid_S", "hid_T", "N_S", "N_T", "mlp_ratio", "spatio_kernel_enc", "spatio_kernel_dec", "post_vq",
             "vq_kwargs")  # fmt: skip
    return PlainSimVP(config["in_shape"], **{name: config[name] for name in names if name in config})


def input_with_gradient(recording: Recording) -> Tensor:
    return recording.input("in/x").clone().requires_grad_()


def check_gradients(recording: Recording, module: nn.Module) -> None:
    for key in recording.under("grad/"):
        if key != "grad/x":
            found = module.get_parameter(key.removeprefix("grad/")).grad
            assert found is not None
            recording.check(key, found)


@pytest.mark.parametrize("name", of_kind("svq_module"))
def test_plain_svq(name: str) -> None:
    recording = open_recording(name)
    module = PlainSVQ(**recording.config)
    module.load_state_dict(recording.weights())
    x = input_with_gradient(recording)
    quantized, weights = module(x)
    recording.check("out/quantized", quantized)
    recording.check("out/code_weight", weights)
    (quantized * recording.input("in/cotangent")).sum().backward()
    assert x.grad is not None
    recording.check("grad/x", x.grad)
    check_gradients(recording, module)
    assert (module.codebook.grad is None) == recording.config["freeze_codebook"]


@pytest.mark.parametrize("name", of_gsta("model"))
def test_plain_simvp(name: str) -> None:
    recording = open_recording(name)
    model = plain_model(recording.config).eval()
    model.load_state_dict(recording.weights())
    seen: dict[str, Tensor] = {}
    if recording.config["vq_type"]:

        def keep(_: nn.Module, given: tuple[Tensor], found: tuple[Tensor, Tensor]) -> None:
            seen.update({"out/continuous": given[0], "out/quantized": found[0], "out/code_weight": found[1]})

        model.vq["vq"].register_forward_hook(keep)
    x = input_with_gradient(recording)
    forecast = model(x)
    recording.check("out/y", forecast)
    for key, found in list(seen.items()):
        recording.check(key, found)
    (forecast * recording.input("in/cotangent")).sum().backward()
    assert x.grad is not None
    recording.check("grad/x", x.grad)
    check_gradients(recording, model)
    with torch.inference_mode():
        for key in recording.under("out/rollout_"):
            recording.check(key, model.rollout(recording.input("in/x"), int(key.removeprefix("out/rollout_"))))


@pytest.mark.parametrize("name", of_gsta("training"))
def test_plain_simvp_trains_as_recorded(name: str) -> None:
    recording = open_recording(name)
    config = recording.config
    model = plain_model(config)
    model.load_state_dict(recording.weights())
    optimiser = torch.optim.Adam(model.parameters(), lr=config["lr"])
    loss_of = {"mae": F.l1_loss, "mse": F.mse_loss}[config["loss"]]
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, config["lr"], config["total_steps"], final_div_factor=config["final_div_factor"]
    )
    losses: list[Tensor] = []
    for x, y in zip(recording.input("in/x"), recording.input("in/y"), strict=True):
        optimiser.zero_grad()
        losses.append(loss_of(model(x), y))
        losses[-1].backward()
        optimiser.step()
        if len(losses) < config["total_steps"]:
            schedule.step()
    recording.check("out/losses", torch.stack(losses))
    state = model.state_dict()
    for key in recording.under("after/"):
        recording.check(key, state[key.removeprefix("after/")])


@pytest.mark.parametrize("name", of_gsta("openstl"))
def test_plain_simvp_is_that_of_openstl(name: str) -> None:
    recording = open_recording(name)
    model = plain_model(recording.config).eval()
    model.load_state_dict(recording.weights())
    with torch.inference_mode():
        once = model(recording.input("in/x"))
        recording_close(recording, "out/eval", once)
        recording_close(recording, "out/eval_second_rollout", model(once))
    forecast = model.train()(recording.input("in/x"))
    recording_close(recording, "out/train_no_drop_path", forecast)
    loss = F.mse_loss(forecast, recording.input("in/target"))
    recording_close(recording, "out/train_mse", loss.reshape(1))
    loss.backward()
    for key in recording.under("grad/"):
        found = model.get_parameter(key.removeprefix("grad/")).grad
        assert found is not None
        recording_close(recording, key, found)


def recording_close(recording: Recording, key: str, found: Tensor) -> None:
    """Compare where the metadata has no tolerance: relative to the largest value of the tensor."""
    expected = recording.expect(key)
    assert float((found.detach() - expected).abs().max()) <= 1e-6 + 5e-4 * float(expected.abs().max()), key


def test_rollout_feeds_whole_forecasts_back() -> None:
    torch.manual_seed(0)
    model = PlainSimVP((3, 1, 8, 8), hid_S=4, hid_T=8, N_T=2, mlp_ratio=2.0).eval()
    frames = torch.randn(2, 3, 1, 8, 8)
    with torch.inference_mode():
        once = model(frames)
        assert torch.equal(model.rollout(frames, 2), once[:, :2])
        assert torch.equal(model.rollout(frames, 5), torch.cat([once, model(once)[:, :2]], dim=1))


def test_a_code_weight_is_linear_behind_the_first_relu_only() -> None:
    """With a ReLU at the end no weight is below 0; without the hidden one a doubled input doubles what it adds."""
    torch.manual_seed(0)
    tokens = torch.randn(1, 50, 4)
    ended = PlainProjection(4, 30, 8, nonlinear=True, hidden=True, out=True)(tokens).detach()
    assert float(ended.min()) == 0.0 < float(ended.max())
    affine = PlainProjection(4, 30, 8, nonlinear=True, hidden=False, out=False)
    offset = affine(torch.zeros_like(tokens))
    assert torch.allclose(affine(2 * tokens) - offset, 2 * (affine(tokens) - offset), atol=1e-5)
