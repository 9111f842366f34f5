"""A perceptron on the history of the node alone: a linear map beside residual layers, in the manner of STID.

Source: Shao et al., "Spatial-Temporal Identity" (CIKM 2022) for the residual layers; one network per node needs no
embeddings of nodes. The paper on GPD reports results on STID; its public code has none.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from gpd.models.configs import NodeModelConfig
from gpd.models.spec import ParamSpec, Spec, Training
from gpd.models.stacking import at_centre, drop, last_value, time_first, uniform


class Perceptron:
    """Linear embedding of the history, residual layers, linear forecast.

    Args:
        config: sizes.
        features: channels of the input.
    """

    def __init__(self, config: NodeModelConfig, features: int) -> None:
        self.config, self.features = config, features
        self.states: dict[str, tuple[int, ...]] = {}
        width = config.channels
        layers = [
            ParamSpec(f"layers.{k}.{name}.{part}", (width, width) if part == "weight" else (width,),
                      f"{name}.{part}", k)
            for name in ("enter", "leave") for part in ("weight", "bias") for k in range(config.layers)
        ]  # fmt: skip
        self.spec: Spec = (
            ParamSpec("embed.weight", (width, config.history * features), "embed.weight", 0),
            ParamSpec("embed.bias", (width,), "embed.bias", 0),
            *layers,
            ParamSpec("head.weight", (config.horizon, width), "head.weight", 0),
            ParamSpec("head.bias", (config.horizon,), "head.bias", 0),
        )

    def init(self, generator: torch.Generator, nodes: int) -> dict[str, Tensor]:
        """Draw all layers as torch does."""
        params: dict[str, Tensor] = {}
        fan_in = 1
        for entry in self.spec:
            if entry.group.startswith("head") and self.config.residual != "none":
                params[entry.name] = torch.zeros(nodes, *entry.shape)  # start from the forecast that is corrected
                continue
            fan_in = entry.shape[1] if len(entry.shape) > 1 else fan_in
            params[entry.name] = uniform(generator, nodes, entry.shape, fan_in)
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
        own = at_centre(windows, centre)
        h = _linear(params, "embed", own.transpose(1, 2).flatten(2))
        for layer in range(self.config.layers):
            inner = F.relu(_linear(params, f"layers.{layer}.enter", h))
            if training is not None:
                inner = drop(inner[:, None, None], self.config.dropout, training.seeds, layer)[:, 0, 0]
            h = h + _linear(params, f"layers.{layer}.leave", inner)
        y = _linear(params, "head", h)
        return y + last_value(windows, centre) if self.config.residual == "persistence" else y


def _linear(params: Mapping[str, Tensor], name: str, x: Float[Tensor, "node batch channel"]) -> Tensor:
    return torch.baddbmm(params[f"{name}.bias"][:, None], x, params[f"{name}.weight"].transpose(1, 2))
