"""The node models against recordings of the original: forecasts, blocks, gradients and steps of training."""

from __future__ import annotations

import pytest
import torch
from gpd_recordings import Recording, named, open_recording
from torch import Tensor

from gpd.models.original import convert_node_state
from gpd.models.spec import NodeModel, Training, build_node_model, row_size, to_rows
from gpd.models.stgcn import STGCN, rows_at_every_node

NODES = named("node_")


def layers_of(recording: Recording) -> int:
    """Layers of a block, which the shapes do not tell; the original's default where the recording names none."""
    sizes = recording.meta.get("ctor")
    return sizes["layers"] if isinstance(sizes, dict) else 2


def stack_of(recording: Recording, count: int) -> tuple[NodeModel, dict[str, Tensor]]:
    """Build the recorded network through the converter, `count` times."""
    found = convert_node_state(recording.weights(), history=recording.meta["his_num"], layers=layers_of(recording))
    model = build_node_model(found.model, found.features)
    return model, {name: value[None].expand(count, *value.shape).clone() for name, value in found.state.items()}


def forecasts(recording: Recording, training: Training | None = None) -> tuple[Tensor, NodeModel, dict[str, Tensor]]:
    """Forecast every node of the recorded ego graph, as the original does, by a stack with each node as centre."""
    x, graph = recording.input("input.x"), recording.input("input.a_hat")
    count = len(graph)
    model, params = stack_of(recording, count)
    y = model.forward_stacked(
        params, x.expand(count, *x.shape), graph.expand(count, *graph.shape),
        torch.ones(count, count, dtype=torch.bool), torch.arange(count), training,
    )  # fmt: skip
    return y.transpose(0, 1), model, params


@pytest.mark.parametrize("name", NODES)
def test_forecasts(name: str) -> None:
    recording = open_recording(name)
    y, model, _ = forecasts(recording)
    recording.check("output.y", y, atol=1e-6)
    assert row_size(model.spec) == recording.expect("flat.params").numel()
    assert [[entry.name, list(entry.shape)] for entry in model.spec] == recording.meta["param_order"]


@pytest.mark.parametrize("name", NODES)
def test_rows_are_flattened_to_the_bit(name: str) -> None:
    recording = open_recording(name)
    model, params = stack_of(recording, 2)
    expected = recording.expect("flat.params").clone()
    start = 0
    for entry in model.spec:
        if not entry.used:
            expected[start : start + entry.size] = 0.0
        start += entry.size
    assert torch.equal(to_rows(params, model.spec), expected.expand(2, -1))


@pytest.mark.parametrize("name", named("node_gwn"))
def test_unused_numbers_are_those_without_gradient(name: str) -> None:
    recording = open_recording(name)
    model, _ = stack_of(recording, 1)
    unused = [entry.name for entry in model.spec if not entry.used]
    assert sorted(unused) == sorted(recording.meta["params_without_gradient"])


@pytest.mark.parametrize("name", named("node_stgcn"))
def test_blocks(name: str) -> None:
    recording = open_recording(name)
    model, params = stack_of(recording, 1)
    assert isinstance(model, STGCN)
    found = rows_at_every_node(model, params, recording.input("input.x"), recording.input("input.a_hat"))
    for block, value in found.items():
        recording.check(f"mid.{block}", value.permute(2, 0, 1, 3), atol=1e-6)


@pytest.mark.parametrize("name", named("node_gwn"))
def test_forecasts_in_training(name: str) -> None:
    recording = open_recording(name)
    training = Training(seeds=None)
    y, _, _ = forecasts(recording, training)
    recording.check("train.output_step0", y, atol=1e-6)


@pytest.mark.parametrize("name", NODES)
def test_steps_of_training(name: str) -> None:
    recording = open_recording(name)
    meta, centre = recording.meta, recording.meta["center_index"]
    model, params = stack_of(recording, 1)
    trained = {entry.name: params[entry.name].requires_grad_() for entry in model.spec if entry.used}
    optimiser = torch.optim.Adam(trained.values(), lr=meta["lr"], weight_decay=meta["weight_decay"])
    x, graph = recording.input("input.x")[None], recording.input("input.a_hat")[None]
    mean, std = recording.input("train.mean"), recording.input("train.std")
    target = recording.input("train.target")[:, centre]
    losses: list[Tensor] = []
    after = "train.flat_after_3_steps" if recording.has("train.flat_after_3_steps") else "train.flat_after_2_steps"
    expected = recording.expect("train.losses")
    for step in range(len(expected)):
        training = Training(seeds=None)
        y = model.forward_stacked(
            params, x, graph, torch.ones(1, graph.shape[1], dtype=torch.bool), torch.tensor([centre]), training
        )[0]
        loss = ((y * std + mean) - (target * std + mean)).square().mean()
        optimiser.zero_grad()
        loss.backward()
        if step == 0 and recording.has("train.grad_flat_step0"):
            gradients = {key: value.grad for key, value in trained.items() if value.grad is not None}
            recording.check("train.grad_flat_step0", to_rows(gradients, model.spec)[0], rtol=1e-5)
        optimiser.step()
        losses.append(loss.detach())
        for key, value in training.observed.items():
            params[key].lerp_(value, 0.1)
    recording.check("train.losses", torch.stack(losses), rtol=1e-6)
    with torch.no_grad():
        found = to_rows(params, model.spec)[0]
    used = to_rows({key: torch.ones_like(value) for key, value in trained.items()}, model.spec)[0] > 0
    # What is not used gets no gradient and stays where it was.
    whole = found.where(used, recording.expect("flat.params"))
    recording.check(after, whole, atol=1e-5)
    if recording.has("train.bn0_running_mean_after"):
        recording.check("train.bn0_running_mean_after", params["bn.0.running_mean"][0], atol=1e-6)
        recording.check("train.bn0_running_var_after", params["bn.0.running_var"][0], atol=1e-6)


@pytest.mark.parametrize("name", named("node_stgcn"))
def test_adjacency_is_normalised_as_recorded(name: str) -> None:
    from gpd.ego import normalise_adjacency

    recording = open_recording(name)
    raw = recording.input("input.adj_raw").double().numpy()
    recording.check("input.a_hat", torch.from_numpy(normalise_adjacency(raw)), atol=1e-7)
