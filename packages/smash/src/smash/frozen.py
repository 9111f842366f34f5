"""The score network of some events with all that does not change merged, for sampling.

The last layer of each trunk and the gates are folded into the heads, so that per sample a full score takes ten
square products where the original takes about sixteen, and a location score at a fixed gap takes three. Every event
has products of its own shape: results do not depend on which events are sampled together.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from smash.score import ROWS, Score, ScoreNetwork, mark_distribution, per_event, time_score, whole_columns

Hidden = Float[Tensor, "event unit sample"]
"""Activations; samples come last, so that a layer is its weight matrix times the activations."""


class FrozenScore:
    """Score of gap and location of some events. Call it without gradients.

    Args:
        network: the score network.
        condition: the history of each event.
    """

    def __init__(self, network: ScoreNetwork, condition: Float[Tensor, "event condition"]) -> None:
        prepared = network.prepare(condition)
        self.events = len(condition)
        self.temporal_biases = [bias.mT for bias in prepared.temporal]
        self.spatial_biases = [bias.mT for bias in prepared.spatial]
        self.temporal_weights = [self._shared(layer.weight) for layer in network.temporal_trunk.layers[:3]]
        self.spatial_weights = [self._shared(layer.weight) for layer in network.spatial_trunk.layers[:3]]
        last_temporal, last_spatial = network.temporal_trunk.layers[3], network.spatial_trunk.layers[3]

        head, output = network.intensity_head.layers
        self.intensity_weights = (
            self._shared(head.weight @ last_temporal.weight),
            self._shared(whole_columns(output.weight)),
        )
        self.intensity_biases = (
            (head.weight @ last_temporal.bias + head.bias)[:, None],
            whole_columns(output.bias[:, None]),
        )
        self.num_marks = network.num_marks

        head, output = network.location_head.layers
        first, second = head.weight.split(network.units, dim=1)
        mix, other = prepared.temporal_gate, prepared.spatial_gate
        temporal, spatial = mix * first + other * second, (1 - mix) * first + (1 - other) * second
        self.from_temporal = temporal @ self._shared(last_temporal.weight)
        self.from_spatial = spatial @ self._shared(last_spatial.weight)
        bias = temporal @ self._columns(last_temporal.bias) + spatial @ self._columns(last_spatial.bias)
        self.location_bias = bias[..., :1] + head.bias[:, None]
        self.output_weight, self.output_bias = self._shared(output.weight), output.bias[:, None]

    def _shared(self, weight: Tensor) -> Float[Tensor, "event output input"]:
        return weight.expand(self.events, *weight.shape)

    def _columns(self, bias: Tensor) -> Float[Tensor, "event unit row"]:
        return bias[:, None].expand(self.events, -1, ROWS)

    def trunk(self, gap: Float[Tensor, "event sample"]) -> Hidden:
        """Last hidden activations of the temporal trunk."""
        return _hidden(gap[:, None], self.temporal_weights, self.temporal_biases)

    def intensity(self, trunk: Hidden) -> Float[Tensor, "event mark sample"]:
        """Intensity of each mark per unit of the box [-1, 1]."""
        hidden = torch.baddbmm(self.intensity_biases[0], self.intensity_weights[0], trunk).relu_()
        return per_event(F.softplus, self._per_mark(hidden))

    def _per_mark(self, hidden: Hidden) -> Float[Tensor, "event mark sample"]:
        return torch.baddbmm(self.intensity_biases[1], self.intensity_weights[1], hidden)[:, : self.num_marks]

    def gap_score(
        self, gap: Float[Tensor, "event sample"], mark: Int[Tensor, "event sample"] | None
    ) -> tuple[Float[Tensor, "event sample"], Float[Tensor, "event sample mark"], Hidden]:
        """Score of the gap given the mark, distribution of the mark, and the trunk's activations."""
        hidden = _affine(self.temporal_weights[0], gap[:, None], self.temporal_biases[0]).relu_()
        tangent = _masked(self.temporal_weights[0].expand_as(hidden), hidden)
        for weight, bias in zip(self.temporal_weights[1:], self.temporal_biases[1:], strict=True):
            hidden = torch.baddbmm(bias, weight, hidden).relu_()
            tangent = _masked(weight @ tangent, hidden)
        inner = torch.baddbmm(self.intensity_biases[0], self.intensity_weights[0], hidden).relu_()
        tangent = _masked(self.intensity_weights[0] @ tangent, inner)
        before = self._per_mark(inner)
        intensity = per_event(F.softplus, before).mT
        slope = (per_event(torch.sigmoid, before) * (self.intensity_weights[1] @ tangent)[:, : self.num_marks]).mT
        return time_score(intensity, slope, mark), mark_distribution(intensity), hidden

    def gap_part(self, trunk: Hidden) -> Hidden:
        """What a fixed gap contributes to the location head."""
        return torch.baddbmm(self.location_bias, self.from_temporal, trunk)

    def location_score(self, location: Float[Tensor, "event 2 sample"], gap_part: Hidden) -> Tensor:
        """Score of the location, `event 2 sample`, given what the gap contributes."""
        hidden = _hidden(location, self.spatial_weights, self.spatial_biases)
        hidden = torch.baddbmm(gap_part, self.from_spatial, hidden).relu_()
        return torch.baddbmm(self.output_bias, self.output_weight, hidden)

    def __call__(self, x: Float[Tensor, "event sample 3"], mark: Int[Tensor, "event sample"] | None) -> Score:
        gap, probability, trunk = self.gap_score(x[..., 0].contiguous(), mark)
        location = self.location_score(x[..., 1:].mT.contiguous(), self.gap_part(trunk))
        return Score(torch.cat([gap[..., None], location.mT], dim=-1), probability)


def _hidden(value: Tensor, weights: list[Tensor], biases: list[Tensor]) -> Hidden:
    for weight, bias in zip(weights, biases, strict=True):
        value = _affine(weight, value, bias).relu_()
    return value


def _affine(weight: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """Product and bias. With a single input the fused form rounds once or twice, which depends on the batch."""
    return torch.bmm(weight, value).add_(bias) if weight.shape[-1] == 1 else torch.baddbmm(bias, weight, value)


def _masked(tangent: Tensor, hidden: Tensor) -> Tensor:
    return torch.ops.aten.threshold_backward(tangent, hidden, 0.0)
