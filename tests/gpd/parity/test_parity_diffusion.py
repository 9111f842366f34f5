"""Denoisers, schedules, objectives, samplers, averages and token layouts against recordings of the original."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from gpd_recordings import Recording, named, open_recording
from torch import Tensor, nn

from gpd.convert.denoisers import LegacyDenoiser, from_legacy_state_dict, to_legacy_state_dict
from gpd.diffusion.averaging import average_weights
from gpd.diffusion.configs import DiffusionConfig, SamplingConfig, ScheduleKind, Target, strategy_named
from gpd.diffusion.denoiser import Denoiser, TokenTable
from gpd.diffusion.encodings import periodic_positions, positions, step_vectors
from gpd.diffusion.objective import losses_of
from gpd.diffusion.samplers import ancestral_step, ddim_step, ddim_times, sample
from gpd.diffusion.schedule import Schedule, clean_from, noise_from, noised, posterior, velocity
from gpd.diffusion.tokens import make_layout
from gpd.models.configs import NodeModelConfig
from gpd.models.spec import build_node_model

SCHEDULES: tuple[ScheduleKind, ...] = ("linear", "cosine")
TARGETS: dict[str, Target] = {"pred_v": "v", "pred_noise": "noise", "pred_x0": "x0"}


def converted(recording: Recording, *, prefix: str = "sd.", span: bool = False, batch: bool = True) -> LegacyDenoiser:
    """Take a recorded denoiser through the converter; heads and window are what its tensors do not tell."""
    meta = recording.meta
    return from_legacy_state_dict(
        recording.weights(prefix), heads=meta.get("h") or meta["nhead"], window=meta.get("attention_size", 5),
        spatial_on=span, batch_attention=batch,
    )  # fmt: skip


def built(recording: Recording, found: LegacyDenoiser) -> Denoiser:
    meta = recording.meta
    span = torch.zeros(meta["seq_len"], dtype=torch.bool)
    if found.config.spatial_on == "graph" and "spatialloc" in meta:
        span[slice(*meta["spatialloc"])] = True
    model = Denoiser(found.config, TokenTable(len(span), found.channels, span), found.spatial_dim, found.temporal_dim)
    model.load_state_dict(found.state)
    return model.eval()


def told(recording: Recording, model: Denoiser, rows: int = 4) -> Tensor:
    inputs = (recording.input(f"input.{name}")[:rows] for name in ("x_t", "t", "kg_emb", "time_emb"))
    x, t, spatial, temporal = inputs
    with torch.no_grad():
        return model(x.mT, t, spatial, temporal).mT


@pytest.mark.parametrize("name", named("denoiser_"))
def test_denoisers(name: str) -> None:
    recording = open_recording(name)
    meta, found = recording.meta, converted(recording)
    assert found.config.strategy == strategy_named(recording.kind)
    sizes = {"channels": meta["d_input"], "spatial_dim": meta["d_kg"], "temporal_dim": meta["d_time"]}
    assert sizes == {name: getattr(found, name) for name in sizes}
    expected = {"width": meta["d_model"], "blocks": meta["N"], "dropout": meta["dropout_train"]}
    expected |= {"head_dim": meta["q"], "value_dim": meta["v"]} if "q" in meta else {}
    expected |= {"feedforward": meta["dim_feedforward"]} if "dim_feedforward" in meta else {}
    assert expected == {name: getattr(found.config, name) for name in expected}
    model = built(recording, found)
    recording.check("output.eps_or_v", told(recording, model), atol=1e-5)
    recording.check("output.first_sample_alone", told(recording, model, rows=1), atol=1e-5)


@pytest.mark.parametrize("name", named("denoiser_"))
def test_denoisers_as_they_are_meant(name: str) -> None:
    recording = open_recording(name)
    model = built(recording, converted(recording, span=True, batch=False))
    everyone, alone = told(recording, model), told(recording, model, rows=1)
    torch.testing.assert_close(everyone[:1], alone, rtol=0.0, atol=1e-5)
    for key in ("output.token_attention", "output.with_kg_span"):
        if recording.has(key):
            recording.check(key, everyone, atol=1e-5)


@pytest.mark.parametrize("name", named("denoiser_"))
def test_names_go_back_and_forth(name: str) -> None:
    recording = open_recording(name)
    state, found = recording.weights(), converted(recording)
    back = to_legacy_state_dict(found.state, found.config.strategy)
    assert sorted([*back, *found.dropped]) == sorted(state)
    assert all(torch.equal(state[key], value) for key, value in back.items())
    for key in recording.meta["omitted_keys"]:
        heads = recording.meta["h"]
        assert key in from_legacy_state_dict({**state, key: torch.zeros(1)}, heads=heads).dropped


@pytest.mark.parametrize("name", named("encodings"))
def test_encodings(name: str) -> None:
    recording = open_recording(name)
    for key in recording.under("pe."):
        sizes = {part[0]: int(part[1:]) for part in key.split("_")[1:]}
        regular = key.startswith("pe.regular")
        found = periodic_positions(sizes["L"], sizes["d"], sizes["p"]) if regular else positions(sizes["L"], sizes["d"])
        recording.check(key, found, atol=1e-6)
    t = recording.input("step.t")
    recording.check("step.sinusoidal", step_vectors(t, recording.meta["d_model"]), atol=1e-5)


@pytest.mark.parametrize("name", named("schedules"))
def test_schedules(name: str) -> None:
    recording = open_recording(name)
    for kind in recording.meta["schedules"]:
        for steps in recording.meta["T"]:
            schedule = Schedule.make(steps, kind, "legacy")
            prefix = f"sched.{kind}.T{steps}."
            keys = recording.under(prefix)
            assert len(keys) == 13
            for key in keys:
                part = key.removeprefix(prefix)
                found = schedule.loss_weight("v") if part == "loss_weight" else getattr(schedule, part)
                recording.check(key, found, atol=1e-7, rtol=1e-7)


def recorded_steps(name: str) -> tuple[Recording, Denoiser]:
    recording = open_recording(name)
    return recording, built(recording, converted(recording, prefix="den."))


def inputs_of(recording: Recording) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    x0, noise = (recording.input(f"in.{name}").mT.contiguous() for name in ("x0", "noise"))
    t, spatial, temporal = (recording.input(f"in.{name}") for name in ("t", "kg_emb", "time_emb"))
    return x0, noise, t, spatial, temporal


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("name", named("diffusion_steps"))
def test_forward_process_and_losses(name: str, kind: ScheduleKind) -> None:
    recording, model = recorded_steps(name)
    schedule = Schedule.make(recording.meta["T"], kind, "legacy")
    x0, noise, t, spatial, temporal = inputs_of(recording)
    x = noised(schedule, x0, t, noise)
    recording.check(f"q_sample.{kind}.x_t", x.mT, atol=1e-6)
    recording.check(f"v_target.{kind}", velocity(schedule, x0, t, noise).mT, atol=1e-6)
    mean, log_variance = posterior(schedule, x, t, x0)
    recording.check(f"posterior.{kind}.mean", mean.mT, atol=1e-6)
    recording.check(f"posterior.{kind}.log_variance", log_variance, atol=1e-6, rtol=1e-6)
    with torch.no_grad():
        output = model(x, t, spatial, temporal)
    for theirs, target in TARGETS.items():
        for loss in ("l2", "l1"):
            config = DiffusionConfig(objective=target, loss=loss)
            found = losses_of(schedule, config, output, x0, t, noise).mean()
            recording.check(f"loss.{kind}.{theirs}.{loss}", found, rtol=1e-6)


@pytest.mark.parametrize("name", named("diffusion_steps"))
def test_a_step_of_training(name: str) -> None:
    recording, model = recorded_steps(name)
    schedule = Schedule.make(recording.meta["T"], "linear", "legacy")
    x0, noise, t, spatial, temporal = inputs_of(recording)
    settings = recording.meta["optimizer"]
    optimiser = torch.optim.Adam(model.parameters(), lr=settings["lr"], betas=tuple(settings["betas"]))
    output = model(noised(schedule, x0, t, noise), t, spatial, temporal)
    losses_of(schedule, DiffusionConfig(), output, x0, t, noise).mean().backward()
    norm = math.sqrt(sum(float(p.grad.double().square().sum()) for p in model.parameters() if p.grad is not None))
    recording.check("train.grad_norm", torch.tensor(norm), rtol=1e-5)
    gradient = model.enter.weight.grad
    assert gradient is not None
    recording.check("train.grad._embedding.weight", gradient, rtol=1e-4)
    optimiser.step()
    recording.check("train.after_step._embedding.weight", model.enter.weight, atol=1e-5)
    recording.check("train.after_step._linear.bias", model.leave.bias, atol=1e-5)


@pytest.mark.parametrize("kind", SCHEDULES)
@pytest.mark.parametrize("name", named("diffusion_steps"))
def test_steps_back(name: str, kind: ScheduleKind) -> None:
    recording, model = recorded_steps(name)
    schedule = Schedule.make(recording.meta["T"], kind, "legacy")
    _, x, _, spatial, temporal = inputs_of(recording)
    noise = recording.input(f"p_sample.{kind}.noise").mT

    def denoise(x: Tensor, t: int) -> Tensor:
        times = torch.full((len(x),), t)
        return clean_from(schedule, "v", x, times, model(x, times, spatial, temporal)).clamp(-1.0, 1.0)

    with torch.no_grad():
        for t in recording.meta["p_sample_steps"]:
            x0 = denoise(x, t)
            recording.check(f"p_sample.{kind}.t{t}.x_start", x0.mT, atol=1e-5)
            found = ancestral_step(schedule, x, t, x0, noise if t else None)
            recording.check(f"p_sample.{kind}.t{t}.x_prev", found.mT, atol=1e-5)
        for t, before, eta in recording.meta["ddim_pairs"]:
            x0, times = denoise(x, t), torch.full((len(x),), t)
            recording.check(f"ddim.{kind}.t{t}_to_{before}.x_start", x0.mT, atol=1e-5)
            back = noise_from(schedule, x, times, x0)
            recording.check(f"ddim.{kind}.t{t}_to_{before}.pred_noise", back.mT, atol=1e-5)
            found = ddim_step(schedule, x, t, before, x0, eta=eta, noise=noise if eta else None)
            recording.check(f"ddim.{kind}.t{t}_to_{before}.eta{eta}.x_next", found.mT, atol=1e-5)
        recording.check(f"ddim.{kind}.times_S5", torch.tensor(ddim_times(recording.meta["T"], 5)))
        found = sample(schedule, denoise, lambda: x, SamplingConfig(steps=5))
        recording.check(f"ddim.{kind}.full_S5_eta0", found.mT, atol=1e-4)


@pytest.mark.parametrize("name", named("ema"))
def test_the_average_of_weights(name: str) -> None:
    recording = open_recording(name)
    meta = recording.meta
    assert meta["inv_gamma"] == 1.0 and meta["power"] == "2/3"
    start = recording.input("init.weight")
    model = nn.Linear(start.shape[1], start.shape[0], bias=False)
    with torch.no_grad():
        model.weight.copy_(start)
    average = average_weights(model, meta["beta"], after=meta["update_after_step"], every=meta["update_every"])
    calls = recording.input("calls").tolist()
    weights, decays = [], []
    for call in range(1, max(calls) + 1):
        with torch.no_grad():
            model.weight.add_(0.01 * (call % 7 - 3))
        average.update()
        if call in calls:
            weights.append(average.ema_model.weight.clone())
            decays.append(float(average.get_current_decay()))
    recording.check("ema_weight", torch.stack(weights), atol=1e-6)
    recording.check("decay_after_call", torch.tensor(decays), atol=1e-6)


@pytest.mark.parametrize("name", named("token_layout"))
def test_strided_tokens(name: str) -> None:
    recording = open_recording(name)
    for kind in ("stgcn", "gwn"):
        sizes = recording.meta[kind]
        spec = build_node_model(NodeModelConfig(kind=kind, norm="batch", row="legacy"), 2).spec
        layout = make_layout(spec, "legacy", sizes["channels"])
        assert (layout.numbers, layout.tokens) == (sizes["params"], sizes["tokens"])
        for key in recording.under(f"{kind}.flat_index_of_token_"):
            recording.check(key, layout.places[int(key.rpartition("_")[2])])
        if recording.has(f"{kind}.flat_row_numbers"):
            rows = recording.input(f"{kind}.flat_row_numbers")
            tokens = layout.to_tokens(rows)
            recording.check(f"{kind}.tokens_C{sizes['channels']}", tokens.mT)
            assert torch.equal(layout.to_rows(tokens), rows)


def test_steps_that_ddim_visits_are_apart() -> None:
    times = ddim_times(500, 25)
    assert times[0] == 499 and times[-1] == -1
    assert all(now > then for now, then in pairwise(times))
