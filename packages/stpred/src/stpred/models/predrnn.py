"""PredRNN and PredRNNv2: layers with two memories, one through time and one that travels up through the layers.

Wang et al., "PredRNN: Recurrent Neural Networks for Predictive Learning using Spatiotemporal LSTMs", NeurIPS 2017
(ST-LSTM), and "PredRNN: A Recurrent Neural Network for Spatiotemporal Predictive Learning", TPAMI 2022 (memory
decoupling, reverse scheduled sampling). Numerics of OpenSTL (Apache-2.0), `PredRNN_Model`, `PredRNNv2_Model`,
`SpatioTemporalLSTMCell`: no biases, forget bias 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from stpred.models.configs import FrameShape, PredRNNConfig, PredRNNv2Config, StackConfig
from stpred.models.interface import FrameLoss
from stpred.models.stack import GateConvolution, RecurrentStack, Step, update_memory

FORGET_BIAS = 1.0


class Memories(NamedTuple):
    """State of a stack with a memory that travels."""

    hidden: tuple[Float[Tensor, "batch hidden rows columns"], ...]
    """Hidden state of each layer, bottom first."""
    cell: tuple[Float[Tensor, "batch hidden rows columns"], ...]
    """Temporal memory of each layer."""
    memory: Float[Tensor, "batch hidden rows columns"]
    """Spatiotemporal memory, as it leaves the top layer."""


class Outcome(NamedTuple):
    """What a layer makes in one step."""

    hidden: Float[Tensor, "batch hidden rows columns"]
    cell: Float[Tensor, "batch hidden rows columns"]
    memory: Float[Tensor, "batch hidden rows columns"]
    cell_written: Float[Tensor, "batch hidden rows columns"]
    """What was newly written to the temporal memory."""
    memory_written: Float[Tensor, "batch hidden rows columns"]
    """What was newly written to the spatiotemporal memory."""


class SpatiotemporalLayer(nn.Module):
    """ST-LSTM. Gates of the input: i, f, g of the temporal memory, i, f, g of the spatiotemporal one, o.

    Args:
        inputs: channels of what comes from below.
        hidden: channels of all states.
        kernel: of the gates' convolutions.
        norm: rows and columns of the maps, or None for no layer norm.
    """

    def __init__(self, inputs: int, hidden: int, kernel: int, norm: tuple[int, int] | None) -> None:
        super().__init__()
        self.hidden = hidden
        self.from_input = GateConvolution(inputs, 7 * hidden, kernel, norm)
        self.from_hidden = GateConvolution(hidden, 4 * hidden, kernel, norm)
        self.from_memory = GateConvolution(hidden, 3 * hidden, kernel, norm)
        self.output = GateConvolution(2 * hidden, hidden, kernel, norm)
        self.merge = nn.Conv2d(2 * hidden, hidden, 1, bias=False)

    def forward(
        self,
        projected: Float[Tensor, "batch gates rows columns"],
        hidden: Float[Tensor, "batch hidden rows columns"] | None,
        cell: Float[Tensor, "batch hidden rows columns"] | None,
        memory: Float[Tensor, "batch hidden rows columns"] | None,
    ) -> Outcome:
        """Do one step from `from_input` of the input; None stands for a state of zeros."""
        n = self.hidden
        temporal, spatial, output = projected.split([3 * n, 3 * n, n], dim=1)
        temporal_hidden, output_hidden = self.from_hidden(hidden).split([3 * n, n], dim=1)
        cell, cell_written = update_memory(temporal + temporal_hidden, cell, forget_bias=FORGET_BIAS)
        memory, memory_written = update_memory(spatial + self.from_memory(memory), memory, forget_bias=FORGET_BIAS)
        both = torch.cat([cell, memory], dim=1)
        gate = torch.sigmoid(output + output_hidden + self.output(both))
        return Outcome(gate * torch.tanh(self.merge(both)), cell, memory, cell_written, memory_written)


class _SpatiotemporalStack(RecurrentStack[Memories]):
    """Stack of ST-LSTM layers; a step's extra is what each layer wrote to its two memories, pair by pair."""

    def __init__(self, config: StackConfig, frame: FrameShape) -> None:
        super().__init__(config, frame)
        self.layers = self.build_layers(SpatiotemporalLayer, config)

    def project(self, frames: Tensor) -> Tensor:
        """Apply the first layer's input convolution."""
        return self._layers[0].from_input(frames)

    def advance(self, projected: Tensor, state: Memories | None) -> Step[Memories]:
        """Do one step through all layers."""
        done: list[Outcome] = []
        memory = state.memory if state else None
        for index, layer in enumerate(self._layers):
            below = layer.from_input(done[-1].hidden) if done else projected
            hidden, cell = (state.hidden[index], state.cell[index]) if state else (None, None)
            done.append(layer(below, hidden, cell, memory))
            memory = done[-1].memory
        memories = Memories(tuple(each.hidden for each in done), tuple(each.cell for each in done), done[-1].memory)
        written = tuple(part for each in done for part in (each.cell_written, each.memory_written))
        return Step(done[-1].hidden, memories, written)

    @property
    def _layers(self) -> list[SpatiotemporalLayer]:
        return cast("list[SpatiotemporalLayer]", list(self.layers))


class PredRNN(_SpatiotemporalStack):
    """PredRNN of 2017.

    Args:
        config: sizes.
        frame: frames the model is built for.
    """

    @classmethod
    def from_config(cls, config: PredRNNConfig, frame: FrameShape, history: int | None = None) -> PredRNN:
        """Build the model; the length of the history does not matter."""
        return cls(config, frame)


class PredRNNv2(_SpatiotemporalStack):
    """PredRNNv2: what is written to the two memories is kept apart by a loss term; sampling is reverse.

    Args:
        config: sizes, and the weight of the term.
        frame: frames the model is built for.
    """

    sampling = "reverse"

    def __init__(self, config: PredRNNv2Config, frame: FrameShape) -> None:
        super().__init__(config, frame)
        self.decoupling = config.decoupling
        self.adapter = nn.Conv2d(config.hidden[0], config.hidden[0], 1, bias=False)

    @classmethod
    def from_config(cls, config: PredRNNv2Config, frame: FrameShape, history: int | None = None) -> PredRNNv2:
        """Build the model; the length of the history does not matter."""
        return cls(config, frame)

    def penalty(self, extra: tuple[Tensor, ...]) -> Float[Tensor, ""]:
        """Mean likeness of what was written to the two memories, |cosine over space| after a shared 1 x 1 map."""
        adapted = self.adapter(torch.cat(extra))  # all layers and both memories at once
        parts = rearrange(
            adapted, "(layer kind batch) channel y x -> kind layer batch channel (y x)", kind=2, batch=len(extra[0])
        )
        first, second = F.normalize(parts, dim=-1).unbind(0)
        return (first * second).sum(-1).abs().mean()

    def objective(self, guesses: Tensor, frames: Tensor, penalties: Sequence[Tensor]) -> FrameLoss:
        """Mean squared error plus the weighted mean of the steps' decoupling terms."""
        error = F.mse_loss(guesses, frames)
        decoupling = self.decoupling * torch.stack(list(penalties)).mean()
        return FrameLoss(error + decoupling, {"mse": error, "decoupling": decoupling})
