"""What the tests of node models share: a small city with uneven ego graphs, small networks, short trainings."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpd.ego import ego_graphs
from gpd.models.configs import NodeModelConfig, NodeTrainingConfig
from gpd.models.spec import build_node_model, input_features
from gpd.node_data import fit_scales, make_part
from gpd.node_training import NodeBatch, NodeBatches, NodeStack, make_optimiser
from gpd.pretrain import first_params
from stcore.graphs import Adjacency, GraphSeries

SIZES: dict[str, Any] = {"history": 12, "horizon": 3, "channels": 4, "graph_channels": 2, "dilation_channels": 4,
                         "skip_channels": 4, "end_channels": 4, "blocks": 2, "dropout": 0.3}  # fmt: skip
MODELS = [
    NodeModelConfig(kind="stgcn", **SIZES),
    NodeModelConfig(kind="gwn", norm="batch", **SIZES),
    NodeModelConfig(kind="gwn", norm="layer", **SIZES),
    NodeModelConfig(kind="gwn", norm="none", residual="persistence", **SIZES),
    NodeModelConfig(kind="mlp", residual="average", **SIZES),
]
"""One of each form."""
SHORT = NodeTrainingConfig(epochs=2, learning_rate=1e-2, evaluate_every=1, batch=16, checkpoint_every=1, log_every=1)


def name_of(model: NodeModelConfig) -> str:
    return f"{model.kind}-{model.norm}-{model.residual}"


def city(
    *, nodes: int = 5, days: int = 10, seed: int = 0, symmetric: bool = False, missing: float = 0.0
) -> GraphSeries:
    """Return hourly readings of two channels: node 0 is linked to all, the last one to nobody, not even itself."""
    random = np.random.default_rng(seed)
    weights = np.where(random.random((nodes, nodes)) < 0.4, random.random((nodes, nodes)), 0.0)
    weights[0], weights[-1], weights[:, -1] = 0.5, 0.0, 0.0
    if symmetric:
        weights = weights + weights.T
    hour = np.arange(24 * days)[:, None, None]
    values = 20.0 + 5.0 * np.sin(2 * np.pi * (hour + random.uniform(0, 24, (1, nodes, 2))) / 24.0)
    values = values + random.normal(size=values.shape)
    if missing:
        values[random.random(values.shape) < missing] = np.nan
    return GraphSeries(values=values, adjacency=Adjacency.from_dense(weights), step_seconds=3600, name="town")


def make_stack(
    model: NodeModelConfig, nodes: list[int], training: NodeTrainingConfig = SHORT, series: GraphSeries | None = None
) -> NodeStack:
    """Return networks of some nodes with weights of their own, on the whole series."""
    series = series or city()
    egos = ego_graphs(series.adjacency, nodes)
    part = make_part(series, model)
    network = build_node_model(model, input_features(model, 2))
    own = NodeTrainingConfig(start="own")
    params = first_params(network, [series.nodes[node] for node in nodes], own, seed=1)
    if model.residual != "none":  # such networks start at zero, where little can be told apart
        draw = torch.Generator().manual_seed(0)
        shape = {name: value.shape[1:] for name, value in params.items()}
        noise = {name: torch.randn(series.num_nodes, *shape[name], generator=draw) for name in params}
        params = {name: value + 0.1 * noise[name][nodes] for name, value in params.items()}
    return NodeStack(network, params, egos, part, fit_scales(part, egos), training)


def steps_of(stack: NodeStack, names: list[str], count: int, training: NodeTrainingConfig = SHORT) -> dict[str, Tensor]:
    """Train for some steps and return parameters and states."""
    batches = NodeBatches(names, stack.part("train").starts, training, seed=5)
    optimiser = make_optimiser(stack, training)
    for ids in list(batches.order(0))[:count]:
        batch: NodeBatch = batches.load(0, ids)
        optimiser.zero_grad()
        stack(batch).backward()
        optimiser.step()
    return stack.current()
