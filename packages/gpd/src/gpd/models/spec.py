"""What the diffusion model sees of a node model: the order, shapes and groups of the numbers in a row.

A row is the concatenation of a network's parameters, each flattened in C order, in the order of its specification. In
the layout `legacy` that is the registration order of the original's modules with everything they hold; numbers that
never reach the output (`used` is false) are zeros there, and are not part of the layout `native`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gpd.models.configs import NodeModelConfig


class ParamSpec(NamedTuple):
    """One tensor of a row."""

    name: str
    """Name in the original's state, or ours where the original has none."""
    shape: tuple[int, ...]
    group: str
    """Tensors of one group have the same shape and the same part in the network; they need not be neighbours."""
    layer: int
    """Number within the group."""
    used: bool = True
    """Whether it ever reaches the output."""
    trained: bool = True
    """Whether an optimiser changes it; false for statistics that a network gathers while it trains."""

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return prod(self.shape)


Spec = tuple[ParamSpec, ...]


@dataclass
class Training:
    """What a forward pass in training needs and leaves beside the forecast.

    Args:
        seeds: (G,) seed of each node's dropout in this step; None drops nothing.
    """

    seeds: Sequence[int] | None = None

    def __post_init__(self) -> None:
        self.observed: dict[str, Tensor] = {}
        """Statistics of this batch by the name of their running ones, each (G, …)."""


@runtime_checkable
class NodeModel(Protocol):
    """A forecaster of one node, written for many nodes at once: every tensor of parameters has the nodes as first axis.

    Implementations compute only what reaches the forecast of the ego graph's centre.
    """

    config: NodeModelConfig
    features: int
    spec: Spec

    @property
    def states(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of what the network remembers beside its parameters: running statistics."""
        ...

    def init(self, generator: torch.Generator, nodes: int) -> dict[str, Tensor]:
        """Draw first parameters, used ones only, for `nodes` networks; states as they are before any training."""
        ...

    def forward_stacked(
        self,
        params: Mapping[str, Tensor],
        x: Float[Tensor, "node batch ego time feature"],
        graph: Float[Tensor, "node ego ego"],
        mask: Bool[Tensor, "node ego"],
        centre: Any,
        training: Training | None = None,
    ) -> Float[Tensor, "node batch horizon"]:
        """Forecast the centre of each ego graph, normalised.

        Args:
            params: parameters and states by name, each with the nodes as first axis.
            x: normalised windows of each ego graph; positions outside `mask` may hold anything finite.
            graph: normalised adjacency (`gpd.ego.normalise_adjacency`), zeros outside `mask`.
            mask: which positions of an ego graph exist.
            centre: (node,) position of the node itself.
            training: dropout and batch statistics as in training; None forecasts as a trained network does.
        """
        ...


def build_node_model(config: NodeModelConfig, features: int) -> NodeModel:
    """Return the model of a configuration for inputs of `features` channels, added ones included."""
    if config.linear:
        from gpd.models.linear import WithLinear

        return WithLinear(_bare(config, features))
    return _bare(config, features)


def _bare(config: NodeModelConfig, features: int) -> NodeModel:
    if config.kind == "stgcn":
        from gpd.models.stgcn import STGCN

        return STGCN(config, features)
    if config.kind == "gwn":
        from gpd.models.gwn import GraphWaveNet

        return GraphWaveNet(config, features)
    from gpd.models.mlp import Perceptron

    return Perceptron(config, features)


def input_features(config: NodeModelConfig, channels: int) -> int:
    """Return how many channels a model reads for data of `channels` channels."""
    return channels + config.added_channels


def row_size(spec: Sequence[ParamSpec]) -> int:
    """Return how many numbers a row has."""
    return sum(entry.size for entry in spec)


def spec_digest(spec: Sequence[ParamSpec]) -> str:
    """Return a short digest of names, shapes and order: rows fit one another only if it is the same."""
    text = json.dumps([[entry.name, list(entry.shape), entry.used] for entry in spec])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def to_rows(params: Mapping[str, Tensor], spec: Sequence[ParamSpec]) -> Float[Tensor, "node number"]:
    """Flatten stacked parameters to one row per node; what is not used becomes zeros.

    >>> spec = (ParamSpec("a", (2,), "a", 0), ParamSpec("b", (1,), "b", 0, used=False))
    >>> to_rows({"a": torch.tensor([[1.0, 2.0], [3.0, 4.0]])}, spec).tolist()
    [[1.0, 2.0, 0.0], [3.0, 4.0, 0.0]]
    """
    nodes = next(iter(params.values())).shape[0]
    device = next(iter(params.values())).device
    parts: list[Tensor] = []
    for entry in spec:
        if not entry.used:
            parts.append(torch.zeros(nodes, entry.size, device=device))
        elif entry.name.endswith(LOG_VARIANCE):
            # A variance is kept as its logarithm: whatever is generated for it stays positive.
            variance = params[entry.name.replace(LOG_VARIANCE, VARIANCE)]
            parts.append(variance.clamp_min(1e-12).log().reshape(nodes, -1))
        else:
            parts.append(params[entry.name].reshape(nodes, -1))
    return torch.cat(parts, dim=1).float()


def from_rows(rows: Float[Tensor, "node number"], spec: Sequence[ParamSpec]) -> dict[str, Tensor]:
    """Cut rows into stacked parameters; what is not used is left out."""
    if rows.shape[1] != row_size(spec):
        raise ValueError(f"rows of {rows.shape[1]} numbers; expected {row_size(spec)}")
    params: dict[str, Tensor] = {}
    start = 0
    for entry in spec:
        part = rows[:, start : start + entry.size].reshape(len(rows), *entry.shape)
        start += entry.size
        if not entry.used:
            continue
        if entry.name.endswith(LOG_VARIANCE):
            params[entry.name.replace(LOG_VARIANCE, VARIANCE)] = part.exp()
        else:
            params[entry.name] = part.clone()
    return params


LOG_VARIANCE, VARIANCE = "running_log_var", "running_var"
