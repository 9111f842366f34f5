"""The mean loss of a batch and its gradient, written out by hand for training on a CPU.

Autograd calls several hundred operators per chunk of rows and keeps what each returns, so that a CPU waits for calls
and for memory rather than for products. Here both passes through a chunk are about a hundred operators on buffers
that stay in cache. As for sampling (`smash.frozen`), what depends on the event alone is merged first, by autograd.
Then, for an event with the perturbed gap t and location l, the network of `smash.score` is

    h_i = relu(W_i h_{i-1} + b_i),  h_0 = t,  i = 1 to 4    temporal trunk, then the hidden layer of the intensities
    k_i = [h_i > 0] W_i k_{i-1},    k_0 = 1                 its tangent dh_i / dt
    s_i = relu(A_i s_{i-1} + a_i),  s_0 = l,  i = 1 to 3    spatial trunk
    z = V h_4 + v,  intensity = softplus(z),  slope = sigmoid(z) V k_4
    j = relu(T h_3 + S s_3 + c),  score of the location = O j + o

where b_i, a_i, c and the matrices T and S belong to the event. `d_x` is the derivative of the total loss by x.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from smash.config import LossConfig, NoiseConfig
from smash.loss import MeanLoss, coordinate_weights, label_weights, noise_levels
from smash.score import FLOOR, ScoreNetwork

CHUNK_ROWS = 4096
"""Perturbed targets of a chunk: few enough for the cache, enough that calls cost little beside the work."""

EVENT_ROWS = 16
"""An event takes the room of this many rows at least, for the matrices of its own."""

_rectify_sum = torch.ops.aten._add_relu_.Tensor  # one pass in place of two
_pass_where_active = torch.ops.aten.threshold_backward.grad_input  # one pass; `where` makes a mask first


class Trunk(NamedTuple):
    """Layers that end in a ReLU; in the temporal trunk the last is the hidden layer of the intensities."""

    first: Float[Tensor, "units input"]
    others: Float[Tensor, "layer units units"]
    biases: Float[Tensor, "event layer+1 units"]


class Mixture(NamedTuple):
    """What the location head makes of a trunk: for each event, the sum of two matrices in shares of its own."""

    shares: Float[Tensor, "event half"]
    """How much of the trunk is in each half of the head's input."""
    matrices: Float[Tensor, "half input output"]


class IntensityHead(NamedTuple):
    """From h_4 to the intensities."""

    weight: Float[Tensor, "mark units"]
    bias: Float[Tensor, "mark"]


class LocationHead(NamedTuple):
    """From h_3 and s_3 to the score of the location."""

    hidden_bias: Float[Tensor, "event 1 units"]
    weight: Float[Tensor, "2 units"]
    bias: Float[Tensor, "2"]


class Merged(NamedTuple):
    """The network above for some events, or the derivatives by its parts."""

    temporal: Trunk
    spatial: Trunk
    from_temporal: Mixture
    from_spatial: Mixture
    intensity: IntensityHead
    location: LocationHead

    @property
    def tensors(self) -> list[Tensor]:
        """All tensors, in order."""
        return [tensor for part in self for tensor in part]

    def map(self, function: Callable[[Tensor], Tensor]) -> Merged:
        """Apply a function to each tensor."""
        parts: list[Any] = [type(part)(*map(function, part)) for part in self]
        return Merged(*parts)


def can_be_by_hand(condition: Tensor) -> bool:
    """Whether `mean_loss_by_hand` serves: for gradients, on a CPU, in the precision of the weights."""
    return torch.is_grad_enabled() and condition.is_cpu and not torch.is_autocast_enabled("cpu")


def mean_loss_by_hand(
    network: ScoreNetwork,
    condition: Float[Tensor, "target condition"],
    target: Float[Tensor, "target 3"],
    mark: Int[Tensor, "target"] | None,
    draws: Float[Tensor, "target perturbation 3"],
    *,
    noise: NoiseConfig,
    loss: LossConfig,
) -> MeanLoss:
    """Average `smash.loss.score_matching` over targets and perturbations. Only the total can be differentiated, once.

    Args:
        network: the score network.
        condition: the history of each target.
        target: (gap, x, y) of the next event in the unit box.
        mark: its mark, 0-based; None when unmarked.
        draws: standard normal draws.
        noise: noise levels, in box units.
        loss: smoothing of the mark loss, and weights.
    """
    merged = merge(network, condition)
    events = max(1, CHUNK_ROWS // max(EVENT_ROWS, draws.shape[1]))
    with torch.no_grad():
        network_pass = _Pass(merged)
        objective = _Objective(target, mark, draws, len(merged.intensity.bias), noise, loss)
        for start in range(0, len(target), events):
            chunk = slice(start, start + events)
            z, tangent, location = network_pass.forward(objective.x[:, chunk], chunk)
            d_z, d_score = objective.add(z, tangent, location, chunk)
            network_pass.backward(d_z, d_score, chunk)
        means = objective.means()
    return means._replace(total=with_gradient(means.total, network_pass.gradient.tensors, merged.tensors))


def merge(network: ScoreNetwork, condition: Float[Tensor, "event condition"]) -> Merged:
    """Fold the last layer of each trunk and the gates into the heads."""
    prepared = network.prepare(condition)
    first, second, third, last = network.temporal_trunk.layers
    hidden, intensity = network.intensity_head.layers
    hidden_bias = (hidden.weight @ last.bias + hidden.bias).expand(len(condition), 1, -1)
    temporal = Trunk(
        first.weight,
        torch.stack([second.weight, third.weight, hidden.weight @ last.weight]),
        torch.cat([*prepared.temporal, hidden_bias], dim=1),
    )
    first, second, third, spatial_last = network.spatial_trunk.layers
    spatial = Trunk(first.weight, torch.stack([second.weight, third.weight]), torch.cat(prepared.spatial, dim=1))

    joint, location = network.location_head.layers
    halves = rearrange(joint.weight, "output (half input) -> half output input", half=2)
    shares = torch.cat([prepared.temporal_gate, prepared.spatial_gate], dim=1)[..., 0]
    from_temporal = Mixture(shares, (halves @ last.weight).mT.contiguous())
    from_spatial = Mixture(1.0 - shares, (halves @ spatial_last.weight).mT.contiguous())
    bias = shares @ (halves @ last.bias) + (1.0 - shares) @ (halves @ spatial_last.bias) + joint.bias
    heads = IntensityHead(intensity.weight, intensity.bias), LocationHead(bias[:, None], location.weight, location.bias)
    return Merged(temporal, spatial, from_temporal, from_spatial, *heads)


def with_gradient(value: Float[Tensor, ""], gradient: list[Tensor], inputs: list[Tensor]) -> Float[Tensor, ""]:
    """Tell autograd the gradient of a value by some inputs."""
    return _Known.apply(value, gradient, *inputs)


class _Known(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, gradient: list[Tensor], *inputs: Tensor) -> Tensor:
        ctx.save_for_backward(*gradient)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        return None, None, *(slopes[0] * part for part in ctx.saved_tensors)


class _Layer:
    """A layer of a trunk, for chunk after chunk.

    What is `way row units` holds the values and, in the temporal trunk, behind them the tangents: one product for both.
    """

    def __init__(self, weight: Tensor, biases: Tensor, d_weight: Tensor, d_biases: Tensor) -> None:
        self._weight, self._biases, self._d_weight, self._d_biases = weight, biases, d_weight, d_biases
        self._input = self.hidden = weight.new_empty(0)

    def forward(self, x: Float[Tensor, "way row input"], chunk: slice) -> Float[Tensor, "way row units"]:
        self._input, self.hidden = x, _sized(self.hidden, *x.shape[:2], len(self._weight))
        torch.mm(x.flatten(0, 1), self._weight.T, out=self.hidden.flatten(0, 1))
        biases = self._biases[chunk, None]
        _rectify_sum(_by_event(self.hidden[0], len(biases)), biases)
        for tangent in self.hidden[1:]:
            _pass_where_active(tangent, self.hidden[0], 0.0, grad_input=tangent)
        return self.hidden

    def backward(self, d_hidden: Float[Tensor, "way row units"], chunk: slice) -> None:
        """Add to the derivatives by weight and biases; `d_hidden` becomes the derivative before the ReLU."""
        _pass_where_active(d_hidden, self.hidden[0], 0.0, grad_input=d_hidden)
        self._d_weight.addmm_(d_hidden.flatten(0, 1).T, self._input.flatten(0, 1))
        d_biases = self._d_biases[chunk]
        torch.sum(_by_event(d_hidden[0], len(d_biases)), 1, out=d_biases)

    def d_input(self, d_before: Float[Tensor, "way row units"]) -> Float[Tensor, "way row units"]:
        """Derivative by the input of a layer that is not the first.

        It takes the place of the activations, which nobody needs after `backward`: less to keep in cache.
        """
        torch.mm(d_before.flatten(0, 1), self._weight, out=self.hidden.flatten(0, 1))
        return self.hidden


class _Mixing:
    """The matrix by which a trunk enters the location head (T or S, transposed), for chunk after chunk."""

    def __init__(self, mixture: Mixture, gradient: Mixture) -> None:
        self._shape = mixture.matrices.shape[1:]
        (self._shares, self._matrices), (self._d_shares, self._d_matrices) = (
            (part.shares, part.matrices.flatten(1)) for part in (mixture, gradient)
        )
        self._matrix = self._d_matrix = mixture.matrices.new_empty(0)

    def forward(self, chunk: slice) -> Float[Tensor, "event input output"]:
        shares = self._shares[chunk]
        self._matrix = _sized(self._matrix, len(shares), *self._shape)
        torch.mm(shares, self._matrices, out=self._matrix.flatten(1))
        return self._matrix

    def backward(
        self,
        hidden: Float[Tensor, "event perturbation input"],
        d_joint: Float[Tensor, "event perturbation output"],
        chunk: slice,
    ) -> Float[Tensor, "event output input"]:
        """Add to the derivatives, and return the matrix by which `d_joint` goes back to the trunk."""
        self._d_matrix = _sized(self._d_matrix, *self._matrix.shape)
        d_matrix = torch.bmm(hidden.mT, d_joint, out=self._d_matrix).flatten(1)
        self._d_matrices.addmm_(self._shares[chunk].T, d_matrix)
        # Multiplied the other way round this takes eight times as long.
        self._d_shares[chunk] = torch.mm(self._matrices, d_matrix.T).T
        return self._matrix.mT


class _Pass:
    """Forward and backward through the network, chunk by chunk."""

    def __init__(self, merged: Merged) -> None:
        self.merged, self.gradient = merged, merged.map(torch.zeros_like)
        self._temporal = _layers(merged.temporal, self.gradient.temporal)
        self._spatial = _layers(merged.spatial, self.gradient.spatial)
        self._from_temporal = _Mixing(merged.from_temporal, self.gradient.from_temporal)
        self._from_spatial = _Mixing(merged.from_spatial, self.gradient.from_spatial)
        self._gap = self._joint = self._d_joint = self._d_hidden = merged.location.bias.new_empty(0)

    def forward(
        self, x: Float[Tensor, "3 event perturbation"], chunk: slice
    ) -> tuple[Float[Tensor, "mark event perturbation"], ...]:
        """Return z, V k_4, and the score of the location."""
        self._gap = _sized(self._gap, 2, x[0].numel(), 1)
        self._gap[0, :, 0], self._gap[1] = x[0].flatten(), 1.0
        hidden = self._gap
        for layer in self._temporal:
            hidden = layer.forward(hidden, chunk)
        place = x[1:].flatten(1).T[None]
        for layer in self._spatial:
            place = layer.forward(place, chunk)

        intensity, location = self.merged.intensity, self.merged.location
        z, tangent = torch.mm(intensity.weight, hidden.flatten(0, 1).T).unflatten(1, (2, *x.shape[1:])).unbind(1)
        z += intensity.bias[:, None, None]
        from_gap, from_place = self._trunks(x.shape[1])
        self._joint = _sized(self._joint, *from_gap.shape)
        joint = torch.bmm(from_gap, self._from_temporal.forward(chunk), out=self._joint)
        joint.baddbmm_(from_place, self._from_spatial.forward(chunk))
        _rectify_sum(joint, location.hidden_bias[chunk])
        score = torch.addmm(location.bias[:, None], location.weight, joint.flatten(0, 1).T)
        return z, tangent, score.view(2, *x.shape[1:])

    def _trunks(self, events: int) -> tuple[Tensor, Tensor]:
        return _by_event(self._temporal[2].hidden[0], events), _by_event(self._spatial[2].hidden[0], events)

    def backward(
        self,
        d_z: Float[Tensor, "mark way event perturbation"],
        d_score: Float[Tensor, "2 event perturbation"],
        chunk: slice,
    ) -> None:
        """Add to the gradient, given the derivatives by what `forward` returned (those by z and V k_4 in one)."""
        merged, gradient, events = self.merged, self.gradient, d_score.shape[1]
        *trunk, top = self._temporal
        joint, rows = self._joint.flatten(0, 1), d_score.flatten(1)
        gradient.location.weight.addmm_(rows, joint)
        gradient.location.bias.add_(rows.sum(1))
        self._d_joint = _sized(self._d_joint, *joint.shape)
        torch.mm(rows.T, merged.location.weight, out=self._d_joint)
        _pass_where_active(self._d_joint, joint, 0.0, grad_input=self._d_joint)
        d_joint = _by_event(self._d_joint, events)
        d_bias = gradient.location.hidden_bias[chunk]
        torch.sum(d_joint, 1, keepdim=True, out=d_bias)
        from_gap, from_place = self._trunks(events)
        to_gap = self._from_temporal.backward(from_gap, d_joint, chunk)
        to_place = self._from_spatial.backward(from_place, d_joint, chunk)

        rows = d_z.flatten(1)
        gradient.intensity.weight.addmm_(rows, top.hidden.flatten(0, 1))
        gradient.intensity.bias.add_(d_z[:, 0].sum((1, 2)))
        self._d_hidden = _sized(self._d_hidden, *top.hidden.shape)
        torch.mm(rows.T, merged.intensity.weight, out=self._d_hidden.flatten(0, 1))
        top.backward(self._d_hidden, chunk)
        d_hidden = top.d_input(self._d_hidden)
        _by_event(d_hidden[0], events).baddbmm_(d_joint, to_gap)
        _backward(trunk, d_hidden, chunk)

        # Writes where the joint layer was, which is done with.
        d_place = torch.bmm(d_joint, to_place, out=self._joint).flatten(0, 1)
        _backward(self._spatial, d_place[None], chunk)


def _layers(trunk: Trunk, gradient: Trunk) -> list[_Layer]:
    weights, d_weights = ([part.first, *part.others] for part in (trunk, gradient))
    both = zip(weights, trunk.biases.unbind(1), d_weights, gradient.biases.unbind(1), strict=True)
    return [_Layer(*tensors) for tensors in both]


def _backward(layers: list[_Layer], d_hidden: Float[Tensor, "way row units"], chunk: slice) -> None:
    first, *others = layers
    for layer in reversed(others):
        layer.backward(d_hidden, chunk)
        d_hidden = layer.d_input(d_hidden)
    first.backward(d_hidden, chunk)


class _Objective:
    """The loss of what the network says, summed over chunks, and its derivatives.

    Coordinates and marks come first: where they come last, operators loop over few numbers at a time.
    """

    def __init__(
        self, target: Tensor, mark: Tensor | None, draws: Tensor, num_marks: int, noise: NoiseConfig, loss: LossConfig
    ) -> None:
        self._rows, self._marked, self._mark_weight = max(1, draws[..., 0].numel()), mark is not None, loss.mark_weight
        self._sigma = noise_levels(noise, draws)[:, None, None]
        self._weights = coordinate_weights(loss, marked=self._marked, like=draws)[:, None, None]
        self._draws = rearrange(draws, "event perturbation coordinate -> coordinate event perturbation").contiguous()
        self.x = torch.addcmul((2.0 * target - 1.0).T[..., None], self._draws, self._sigma)
        index = torch.zeros(len(target), dtype=torch.int64) if mark is None else mark
        own = F.one_hot(index, num_marks).to(draws)
        labels = label_weights(own, smoothing=loss.smoothing, normalised=loss.normalised_smoothing)
        self._own, self._labels = (value.T[..., None].contiguous() for value in (own, labels))
        self._squares, self._mark = draws.new_zeros(3), draws.new_zeros(())

    def means(self) -> MeanLoss:
        """Means over targets and perturbations, once all chunks are in."""
        denoise = 0.5 / self._rows * self._squares
        total, mark = (self._weights.flatten() * denoise).mean(), None
        if self._marked:
            mark = self._mark / self._rows
            total = total + self._mark_weight * mark
        return MeanLoss(total, denoise[0], denoise[1:].mean(), mark)

    def add(
        self,
        z: Float[Tensor, "mark event perturbation"],
        tangent: Float[Tensor, "mark event perturbation"],
        location: Float[Tensor, "2 event perturbation"],
        chunk: slice,
    ) -> tuple[Float[Tensor, "mark 2 event perturbation"], Float[Tensor, "2 event perturbation"]]:
        """Add the loss of a chunk; return the derivatives by (z, V k_4) and by the score of the location."""
        own, draws = self._own[:, chunk], self._draws[:, chunk]
        intensity, sigmoid = F.softplus(z), torch.sigmoid(z)
        slope = sigmoid * tangent
        per_own = own / (intensity + FLOOR)
        total = intensity.sum(0)
        gap = (slope * per_own).sum(0) - total
        residual = torch.addcmul(draws, torch.cat([gap[None], location]), self._sigma)
        self._squares += residual.square().sum((1, 2))
        d_score = residual.mul_(self._weights * self._sigma / (3 * self._rows))

        d_slope = d_score[0] * per_own
        d_own = d_slope * slope  # by the logarithm of the intensity of the mark, with the sign turned
        d_intensity = -d_score[0] - d_own * per_own
        if self._marked:
            d_intensity += self._mark_part(intensity, total + FLOOR, self._labels[:, chunk])
        d_z = torch.addcmul(d_own, sigmoid, d_intensity - d_own)
        return torch.stack([d_z, d_slope * sigmoid], dim=1), d_score[1:]

    def _mark_part(self, intensity: Tensor, total: Tensor, labels: Tensor) -> Tensor:
        """Add the cross-entropy of the mark; return its derivative by the intensities."""
        probability = intensity / total
        floored = probability + FLOOR
        self._mark -= (labels * floored.log()).sum()
        d_probability = labels / floored * (-self._mark_weight / self._rows)
        return (d_probability - (d_probability * probability).sum(0)) / total


def _by_event(rows: Float[Tensor, "row units"], events: int) -> Float[Tensor, "event perturbation units"]:
    return rows.view(events, -1, rows.shape[1])


def _sized(buffer: Tensor, *shape: int) -> Tensor:
    """The buffer, or a new one: the last chunk may be smaller."""
    return buffer if buffer.shape == shape else buffer.new_empty(shape)
