"""v_STGCN5: gated convolutions along time around one mixing over the ego graph, for many nodes at once.

The loss sees only the centre of an ego graph, and there is a single mixing, so everything after it is computed for the
centre alone; the two value convolutions of a gate add up to one. Both are exact.

Source: tsinghua-fib-lab/GPD, `Models/meta_stgcn.py::STGCN_NonBias` (its behaviour; written anew).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from gpd.models.configs import NodeModelConfig
from gpd.models.spec import ParamSpec, Spec, Training
from gpd.models.stacking import (
    at_centre,
    gated,
    gated_mix,
    kernel_matrix,
    last_value,
    multiply,
    taps,
    time_first,
    uniform,
)  # fmt: skip


class STGCN:
    """Spatio-temporal graph convolutional network without biases.

    Args:
        config: sizes.
        features: channels of the input.
    """

    def __init__(self, config: NodeModelConfig, features: int) -> None:
        self.config, self.features = config, features
        self.states: dict[str, tuple[int, ...]] = {}
        width, spatial, kernel = config.channels, config.graph_channels, config.kernel_size
        self.steps_left = config.history - 3 * (kernel - 1)
        gates = {"block1.temporal1": features, "block1.temporal2": spatial, "last_temporal": width}
        convolutions = tuple(
            ParamSpec(f"{gate}.conv{number}.weight", (width, source, 1, kernel), gate, number - 1)
            for gate, source in gates.items()
            for number in (1, 2, 3)
        )
        self.spec: Spec = (
            ParamSpec("block1.Theta1", (width, spatial), "block1.Theta1", 0),
            *convolutions,
            ParamSpec("fully.weight", (config.horizon, self.steps_left * width), "fully", 0),
        )

    def init(self, generator: torch.Generator, nodes: int) -> dict[str, Tensor]:
        """Draw the mixing weights by their output, the last layer by Xavier's rule, convolutions as torch does."""
        params: dict[str, Tensor] = {}
        for entry in self.spec:
            if entry.name == "block1.Theta1":
                params[entry.name] = uniform(generator, nodes, entry.shape, entry.shape[1])
            elif entry.name == "fully.weight":
                if self.config.residual != "none":  # start from the forecast that is corrected
                    params[entry.name] = torch.zeros(nodes, *entry.shape)
                    continue
                params[entry.name] = uniform(generator, nodes, entry.shape, 1) * sqrt(6.0 / sum(entry.shape))
            else:
                params[entry.name] = uniform(generator, nodes, entry.shape, entry.shape[1] * entry.shape[3])
        return params

    def forward_stacked(
        self,
        params: Mapping[str, Tensor],
        x: Float[Tensor, "node batch ego time feature"],
        graph: Float[Tensor, "node ego ego"],
        mask: Bool[Tensor, "node ego"],
        centre: Tensor,
        training: Training | None = None,
    ) -> Float[Tensor, "node batch horizon"]:
        """Forecast the centre of each ego graph, see `gpd.models.spec.NodeModel`."""
        windows = time_first(x)
        nodes, batch = windows.shape[0], windows.shape[3]
        to_centre = graph[torch.arange(nodes, device=graph.device), centre]
        steps = taps(windows, self.config.kernel_size)
        mixed = gated_mix(steps, *self.kernels(params, "block1.temporal1"), to_centre)
        u = F.relu(multiply(mixed, params["block1.Theta1"]))
        v = self.gate(params, "block1.temporal2", u)
        w = self.gate(params, "last_temporal", v)
        flat = w.transpose(1, 2).reshape(nodes, batch, -1)
        y = torch.bmm(flat, params["fully.weight"].transpose(1, 2))
        return y + last_value(windows, centre) if self.config.residual == "persistence" else y

    def gate(self, params: Mapping[str, Tensor], name: str, z: Tensor) -> Tensor:
        """Convolve (node, time, …, channel) along time and let through what is positive, by a gate of its own."""
        return gated(taps(z, self.config.kernel_size), *self.kernels(params, name), tanh=False)

    def kernels(self, params: Mapping[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
        """Return the matrices of a convolution along time: of the values, and of their gate."""
        first, second, gate = (params[f"{name}.conv{number}.weight"] for number in (1, 2, 3))
        return kernel_matrix(first + second), kernel_matrix(gate)


def rows_at_every_node(model: STGCN, params: Mapping[str, Tensor], x: Any, graph: Any) -> dict[str, Tensor]:
    """Return what the blocks of one network leave at every node of one ego graph: for comparison with the original.

    Args:
        model: the network.
        params: its parameters, for one node.
        x: (batch, ego, time, feature) windows.
        graph: (ego, ego) normalised adjacency.
    """
    copies = {name: value.expand(len(graph), *value.shape[1:]) for name, value in params.items()}
    windows = time_first(x.expand(len(graph), *x.shape))
    first = model.gate(copies, "block1.temporal1", windows)
    mixed = torch.einsum("kj,tjbc->ktbc", graph, first[0])
    block = model.gate(copies, "block1.temporal2", F.relu(multiply(mixed, copies["block1.Theta1"])))
    last = model.gate(copies, "last_temporal", block)
    ego = torch.arange(len(graph))
    return {"temporal1": at_centre(first, ego), "block1": block, "last_temporal": last}
