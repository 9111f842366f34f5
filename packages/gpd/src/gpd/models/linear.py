"""Any node model beside a linear map of the node's own history, which carries most of what persists.

The map reads the forecast quantity and, where there is one, the channel that tells how uneven the averages ahead are.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from gpd.models.spec import NodeModel, ParamSpec, Spec, Training

WEIGHT = "linear.weight"


class WithLinear:
    """A node model whose forecast is added to an autoregression of the forecast quantity.

    Args:
        network: the model.
    """

    def __init__(self, network: NodeModel) -> None:
        self.network, self.config, self.features = network, network.config, network.features
        self.spec: Spec = (
            *network.spec,
            ParamSpec(WEIGHT, (self.config.horizon, len(self.channels) * self.config.history), "linear", 0),
        )

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels that the map reads; unevenness is the last of all."""
        return (0, self.features - 1) if self.config.unevenness else (0,)

    @property
    def states(self) -> dict[str, tuple[int, ...]]:
        """Those of the model."""
        return self.network.states

    def init(self, generator: torch.Generator, nodes: int) -> dict[str, Tensor]:
        """Draw the model's parameters; the linear map starts at 0."""
        zeros = torch.zeros(nodes, self.config.horizon, len(self.channels) * self.config.history)
        return {**self.network.init(generator, nodes), WEIGHT: zeros}

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
        centres = x[torch.arange(len(x), device=x.device), :, centre]
        own = torch.cat([centres[..., channel] for channel in self.channels], dim=-1)
        linear = torch.bmm(own, params[WEIGHT].transpose(1, 2))
        return linear + self.network.forward_stacked(params, x, graph, mask, centre, training)
