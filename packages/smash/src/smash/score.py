"""The score network: intensities, their slope, and the scores of gap and location given a condition.

Li et al., ICML 2024, section 3 (score of the gap from the intensity, score of the location, eqs. 7 to 9) and
section 4; layer layout and the gates between the trunks follow the authors' code. Gap and location are in box
units: [-1, 1] is the fitted range. Differs in: everything that depends on the condition alone is computed once
(`prepare`), both trunks run once per evaluation, and the derivative of the intensity is carried forward as a
tangent instead of being taken by autograd, so that training needs only first-order gradients.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

FLOOR = 1e-10
"""Added to an intensity before its logarithm, and to a total before a division (as the original does)."""

ROWS = 16
"""Samples of an event come in multiples of this where results must not depend on how events are grouped.

A product may round differently in a batch of another size or where the result begins at another alignment, and an
elementwise function where the vector loop ends. Without gradients, therefore, every event has products of its own
shape that fill whole cache lines (`linear`), and functions that are not exact are applied event by event
(`per_event`)."""

Biases = tuple[Tensor, Tensor, Tensor]
"""What a trunk adds before each of its three ReLUs, each `event 1 units`."""


class Prepared(NamedTuple):
    """What the score network knows of each event before it sees a gap or a location."""

    temporal: Biases
    spatial: Biases
    temporal_gate: Float[Tensor, "event 1 1"]
    """Share of the temporal trunk in the first half of the location head's input (index 0 of `alpha_t`)."""
    spatial_gate: Float[Tensor, "event 1 1"]
    """Share of the temporal trunk in the second half (index 0 of `alpha_s`)."""


class Score(NamedTuple):
    """Scores of (gap, x, y) and the distribution of the mark at the given gap."""

    score: Float[Tensor, "event sample 3"]
    probability: Float[Tensor, "event sample mark"]


def linear(
    x: Float[Tensor, "event sample input"],
    weight: Float[Tensor, "output input"],
    bias: Float[Tensor, "output"] | None = None,
) -> Float[Tensor, "event sample output"]:
    """Apply a linear layer; without gradients as one product per event, see `ROWS`."""
    if torch.is_grad_enabled():
        return F.linear(x, weight, bias)
    columns = whole_columns(weight).mT
    weights = columns.expand(len(x), *columns.shape)
    product = torch.bmm(x, weights)[..., : len(weight)]
    return product if bias is None else product + bias


def whole_columns(weight: Float[Tensor, "output input"]) -> Float[Tensor, "padded input"]:
    """Add zero outputs up to a multiple of 4: other counts are split differently between threads, see `ROWS`."""
    return F.pad(weight, (0, 0, 0, -len(weight) % 4))


def per_event(function: Callable[[Tensor], Tensor], x: Float[Tensor, "event *rest"]) -> Float[Tensor, "event *rest"]:
    """Apply an elementwise function; without gradients to one event at a time on a CPU, see `ROWS`."""
    if torch.is_grad_enabled() or not x.is_cpu:
        return function(x)
    return torch.stack([function(row) for row in x]) if len(x) else function(x)


def time_score(
    intensity: Float[Tensor, "*point mark"], slope: Float[Tensor, "*point mark"], mark: Int[Tensor, "*point"] | None
) -> Float[Tensor, "*point"]:
    """Score of the gap given the mark: d/dt log intensity of that mark, minus the total intensity (paper, eq. 8)."""
    index = torch.zeros_like(intensity[..., 0], dtype=torch.int64) if mark is None else mark
    own, own_slope = (value.gather(-1, index[..., None])[..., 0] for value in (intensity, slope))
    return own_slope / (own + FLOOR) - intensity.sum(-1)


def mark_distribution(intensity: Float[Tensor, "*point mark"]) -> Float[Tensor, "*point mark"]:
    """Probability of each mark given the gap: its share of the total intensity."""
    return intensity / (intensity.sum(-1, keepdim=True) + FLOOR)


class Linears(nn.ModuleList):
    """Linear layers of the given (input, output) widths."""

    def __init__(self, shapes: Iterable[tuple[int, int]]) -> None:
        super().__init__(nn.Linear(*shape) for shape in shapes)

    @property
    def layers(self) -> list[nn.Linear]:
        """The layers, typed."""
        return [layer for layer in self if isinstance(layer, nn.Linear)]


def _chain(*sizes: int) -> Linears:
    return Linears(pairwise(sizes))


def _perceptron(x: Tensor, linears: Linears) -> Tensor:
    first, *others = linears.layers
    x = linear(x, first.weight, first.bias)
    for layer in others:
        x = linear(_rectify(x), layer.weight, layer.bias)
    return x


class ScoreNetwork(nn.Module):
    """Intensities and scores of the next event.

    Args:
        width: width of one encoder branch.
        units: width of the trunks.
        num_marks: kinds of events; 1 means unmarked.
    """

    def __init__(self, width: int, units: int, num_marks: int) -> None:
        super().__init__()
        self.width, self.units, self.num_marks = width, units, num_marks
        parts = 4 if num_marks > 1 else 3
        self.temporal_trunk, self.spatial_trunk = _chain(1, *[units] * 4), _chain(2, *[units] * 4)
        self.temporal_injection = Linears([(width, units)] * 3)
        self.spatial_injection = Linears([(width, units)] * 3)
        self.joint_injection = Linears([(width, units)] * 3)
        self.gate_code = _chain(parts * width, units, units)
        self.temporal_gate, self.spatial_gate = _chain(units, units, units, 2), _chain(units, units, units, 2)
        self.intensity_head = _chain(units, units, num_marks)
        self.location_head = _chain(2 * units, units, 2)

    def prepare(self, condition: Float[Tensor, "event condition"]) -> Prepared:
        """Compute all that depends on the condition alone."""
        rows = condition[:, None].expand(-1, 1 if torch.is_grad_enabled() else ROWS, -1)
        temporal, spatial, joint, *mark = rows.split(self.width, dim=-1)
        temporal = temporal + mark[0] if mark else temporal
        shared = [linear(joint, layer.weight, layer.bias) for layer in self.joint_injection.layers]
        code = _perceptron(rows, self.gate_code)
        return Prepared(
            self._biases(self.temporal_trunk, self.temporal_injection, temporal, shared),
            self._biases(self.spatial_trunk, self.spatial_injection, spatial, shared),
            _perceptron(code, self.temporal_gate).softmax(-1)[:, :1, :1],
            _perceptron(code, self.spatial_gate).softmax(-1)[:, :1, :1],
        )

    @staticmethod
    def _biases(trunk: Linears, injection: Linears, part: Tensor, shared: list[Tensor]) -> Biases:
        first, second, third = (
            (linear(part, inject.weight, inject.bias) + common + layer.bias)[:, :1]
            for inject, common, layer in zip(injection.layers, shared, trunk.layers[:3], strict=True)
        )
        return first, second, third

    def temporal(
        self, gap: Float[Tensor, "event sample"], prepared: Prepared
    ) -> tuple[Float[Tensor, "event sample units"], Float[Tensor, "event sample mark"]]:
        """Output of the temporal trunk, and the intensity of each mark at the gap."""
        hidden = _first(gap[..., None], self.temporal_trunk.layers[0], prepared.temporal[0])
        for layer, bias in zip(self.temporal_trunk.layers[1:3], prepared.temporal[1:], strict=True):
            hidden = _rectify(linear(hidden, layer.weight), bias)
        last = self.temporal_trunk.layers[3]
        trunk = linear(hidden, last.weight, last.bias)
        return trunk, per_event(F.softplus, _perceptron(trunk, self.intensity_head))

    def temporal_with_slope(
        self, gap: Float[Tensor, "event sample"], prepared: Prepared
    ) -> tuple[
        Float[Tensor, "event sample units"], Float[Tensor, "event sample mark"], Float[Tensor, "event sample mark"]
    ]:
        """As `temporal`, and the derivative of each intensity with respect to the gap (forward mode)."""
        first, *_, last = self.temporal_trunk.layers
        head, output = self.intensity_head.layers
        hidden = _first(gap[..., None], first, prepared.temporal[0])
        tangent = _pass_where_active(first.weight[:, 0].expand_as(hidden), hidden)
        for layer, bias in zip(self.temporal_trunk.layers[1:3], prepared.temporal[1:], strict=True):
            hidden = _rectify(linear(hidden, layer.weight), bias)
            tangent = _pass_where_active(linear(tangent, layer.weight), hidden)
        trunk = linear(hidden, last.weight, last.bias)
        hidden = _rectify(linear(trunk, head.weight, head.bias))
        # The value of the trunk is needed again for the location, its tangent is not: one product in place of two.
        tangent = _pass_where_active(linear(tangent, head.weight @ last.weight), hidden)
        before = linear(hidden, output.weight, output.bias)
        return trunk, per_event(F.softplus, before), per_event(torch.sigmoid, before) * linear(tangent, output.weight)

    def spatial(
        self, location: Float[Tensor, "event sample 2"], prepared: Prepared
    ) -> Float[Tensor, "event sample units"]:
        """Output of the spatial trunk."""
        hidden = _first(location, self.spatial_trunk.layers[0], prepared.spatial[0])
        for layer, bias in zip(self.spatial_trunk.layers[1:3], prepared.spatial[1:], strict=True):
            hidden = _rectify(linear(hidden, layer.weight), bias)
        last = self.spatial_trunk.layers[3]
        return linear(hidden, last.weight, last.bias)

    def location_score(
        self,
        temporal: Float[Tensor, "event sample units"],
        spatial: Float[Tensor, "event sample units"],
        prepared: Prepared,
    ) -> Float[Tensor, "event sample 2"]:
        """Score of the location from the outputs of both trunks; it does not depend on the mark."""
        head, output = self.location_head.layers
        first, second = head.weight.split(self.units, dim=1)
        gates = prepared.temporal_gate, prepared.spatial_gate
        if torch.is_grad_enabled():
            mixed = _Mix.apply(spatial, temporal, *gates)
        else:
            mixed = [torch.lerp(spatial, temporal, gate) for gate in gates]
        hidden = _rectify(linear(mixed[0], first, head.bias), linear(mixed[1], second))
        return linear(hidden, output.weight, output.bias)

    def forward(
        self, x: Float[Tensor, "event sample 3"], mark: Int[Tensor, "event sample"] | None, prepared: Prepared
    ) -> Score:
        """Score of (gap, x, y) in box units, given the marks (None when unmarked)."""
        trunk, intensity, slope = self.temporal_with_slope(x[..., 0], prepared)
        location = self.location_score(trunk, self.spatial(x[..., 1:], prepared), prepared)
        gap = time_score(intensity, slope, mark)
        return Score(torch.cat([gap[..., None], location], dim=-1), mark_distribution(intensity))


class _Mix(torch.autograd.Function):
    """Two interpolations between the same two tensors, in half the passes that autograd takes for both."""

    @staticmethod
    def forward(ctx: Any, start: Tensor, end: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        step = end - start
        ctx.save_for_backward(step, first, second)
        return torch.addcmul(start, step, first), torch.addcmul(start, step, second)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, ...]:
        step, *gates = ctx.saved_tensors
        to_end = torch.addcmul(slopes[0] * gates[0], slopes[1], gates[1])
        to_start = (slopes[0] + slopes[1]).sub_(to_end)
        column = step.flatten(1)[:, :, None]
        to_gates = [torch.bmm(slope.flatten(1)[:, None], column).view_as(gates[0]) for slope in slopes]
        return to_start, to_end, *to_gates


def _first(value: Tensor, layer: nn.Linear, bias: Tensor) -> Tensor:
    return _rectify(linear(value, layer.weight), bias)


def _rectify(x: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply a ReLU, after adding the bias; in place where that is free.

    With gradients it is not: `x` is a view of a product, and autograd would copy it whole for every change in place.
    """
    if torch.is_grad_enabled():
        return F.relu(x) if bias is None else (x + bias).relu_()
    return x.relu_() if bias is None else x.add_(bias).relu_()


def _pass_where_active(tangent: Tensor, hidden: Tensor) -> Tensor:
    """Derivative of a ReLU: the tangent where its output is positive, zero elsewhere.

    The result is piecewise constant in `hidden`; detached, no zeros are made and added for its gradient.
    """
    return torch.ops.aten.threshold_backward(tangent, hidden.detach(), 0.0)  # one pass; `where` makes a mask first
