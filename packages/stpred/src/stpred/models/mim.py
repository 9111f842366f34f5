"""MIM, Memory in Memory: layers that treat the changes of the layer below apart from what stays.

Wang et al., "Memory In Memory: A Predictive Neural Network for Learning Higher-Order Non-Stationarity from
Spatiotemporal Dynamics", CVPR 2019, section 3 (the block, MIM-N and MIM-S). Numerics of OpenSTL (Apache-2.0),
`MIM_Model`, `MIMBlock`, `MIMN`: no biases, forget bias 1. Differs in: the memory of MIM-S starts at zero in every call
(OpenSTL keeps it in the module, so that it leaks from batch to batch).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stpred.models.configs import FrameShape, MIMConfig
from stpred.models.predrnn import SpatiotemporalLayer
from stpred.models.stack import GateConvolution, RecurrentStack, Step, update_memory

FORGET_BIAS = 1.0

Pair = tuple[Float[Tensor, "batch hidden rows columns"], Float[Tensor, "batch hidden rows columns"]]
"""Hidden state and memory."""
Broadcast = Float[Tensor, "#batch hidden #rows #columns"]
"""As a state; what is made of zeros alone is the same for all samples and pixels."""


class MIMState(NamedTuple):
    """State of the stack."""

    layers: tuple[Pair, ...]
    """Hidden state and temporal memory of each layer, bottom first."""
    memory: Float[Tensor, "batch hidden rows columns"]
    """Spatiotemporal memory, as it leaves the top layer."""
    differences: tuple[Pair, ...]
    """Hidden state and memory of each differential unit; empty after the first step, which has no difference."""
    stationary: tuple[Broadcast, ...]
    """Memory of each block's stationary unit."""


class PeepholeUnit(nn.Module):
    """Recurrence with peepholes per pixel, gates i, g, f, o: MIM-N, and MIM-S inside a block.

    Args:
        hidden: channels of input and states.
        kernel: of both convolutions.
        size: rows and columns of the maps.
        norm: normalise after each convolution.
    """

    def __init__(self, hidden: int, kernel: int, size: tuple[int, int], norm: bool) -> None:
        super().__init__()
        sizes = size if norm else None
        self.from_input = GateConvolution(hidden, 4 * hidden, kernel, sizes)
        self.from_hidden = GateConvolution(hidden, 4 * hidden, kernel, sizes)
        self.memory_weight = nn.Parameter(torch.zeros(2 * hidden, *size))
        """Weights of the memory in the gates i and f, one below the other."""
        self.output_weight = nn.Parameter(torch.zeros(hidden, *size))
        """Weights of the new memory in the gate o."""

    def forward(self, x: Tensor | None, hidden: Tensor | None, memory: Tensor | None) -> tuple[Broadcast, Broadcast]:
        """Do one step; None stands for zeros. Returns the new hidden state and memory."""
        write, content, forget, output = (self.from_hidden(hidden) + self.from_input(x)).chunk(4, dim=1)
        if memory is None:
            memory = torch.sigmoid(write) * torch.tanh(content)
        else:
            write_weight, forget_weight = self.memory_weight.chunk(2)
            write = torch.addcmul(write, write_weight, memory)
            forget = torch.addcmul(forget + FORGET_BIAS, forget_weight, memory)
            memory = torch.addcmul(torch.sigmoid(write) * torch.tanh(content), torch.sigmoid(forget), memory)
        gate = torch.sigmoid(torch.addcmul(output, self.output_weight, memory))
        return gate * torch.tanh(memory), memory


class BlockOutcome(NamedTuple):
    """What a block makes in one step."""

    hidden: Float[Tensor, "batch hidden rows columns"]
    cell: Float[Tensor, "batch hidden rows columns"]
    memory: Float[Tensor, "batch hidden rows columns"]
    stationary: Broadcast


class MIMBlock(nn.Module):
    """ST-LSTM whose forget gate of the temporal memory is the stationary unit MIM-S.

    Gates of the input and of the memory: i, g, f, o; of the hidden state: i, g, o.

    Args:
        hidden: channels of input and states.
        kernel: of the gates' convolutions.
        size: rows and columns of the maps.
        norm: normalise after each convolution.
    """

    def __init__(self, hidden: int, kernel: int, size: tuple[int, int], norm: bool) -> None:
        super().__init__()
        sizes = size if norm else None
        self.from_input = GateConvolution(hidden, 4 * hidden, kernel, sizes)
        self.from_hidden = GateConvolution(hidden, 3 * hidden, kernel, sizes)
        self.from_memory = GateConvolution(hidden, 4 * hidden, kernel, sizes)
        self.stationary = PeepholeUnit(hidden, kernel, size, norm)
        self.merge = nn.Conv2d(2 * hidden, hidden, 1, bias=False)

    def forward(
        self,
        x: Tensor,
        difference: Tensor | None,
        layer: tuple[Tensor | None, Tensor | None],
        memory: Tensor,
        stationary: Tensor | None,
    ) -> BlockOutcome:
        """Do one step.

        Args:
            x: hidden state of the layer below.
            difference: output of the differential unit below; None (zeros) in the first step.
            layer: hidden state and temporal memory of this layer; None stands for zeros, here and below.
            memory: spatiotemporal memory from the layer below.
            stationary: memory of MIM-S.
        """
        hidden, cell = layer
        write, content, forget, output = self.from_input(x).chunk(4, dim=1)
        write_hidden, content_hidden, output_hidden = self.from_hidden(hidden).chunk(3, dim=1)
        write_memory, content_memory, forget_memory, output_memory = self.from_memory(memory).chunk(4, dim=1)
        gates = torch.cat([write + write_memory, forget + forget_memory, content + content_memory], dim=1)
        memory, _ = update_memory(gates, memory, forget_bias=FORGET_BIAS)
        kept, new_stationary = self.stationary(difference, cell, stationary)
        cell = torch.addcmul(kept, torch.sigmoid(write + write_hidden), torch.tanh(content + content_hidden))
        gate = torch.sigmoid(output + output_hidden + output_memory)
        hidden = gate * torch.tanh(self.merge(torch.cat([cell, memory], dim=1)))
        return BlockOutcome(hidden, cell, memory, new_stationary)


class MIM(RecurrentStack[MIMState]):
    """An ST-LSTM layer with MIM blocks on top, each fed by a differential unit.

    Args:
        config: sizes.
        frame: frames the model is built for; some weights are per pixel.
    """

    def __init__(self, config: MIMConfig, frame: FrameShape) -> None:
        super().__init__(config, frame)
        self.detach_stationary = config.detach_stationary
        size, hidden, kernel = (self.rows, self.columns), config.hidden[0], config.kernel
        blocks = range(len(config.hidden) - 1)
        self.first = SpatiotemporalLayer(self.channels, hidden, kernel, size if config.layer_norm else None)
        self.blocks = nn.ModuleList(MIMBlock(hidden, kernel, size, config.layer_norm) for _ in blocks)
        self.differences = nn.ModuleList(PeepholeUnit(hidden, kernel, size, config.layer_norm) for _ in blocks)

    @classmethod
    def from_config(cls, config: MIMConfig, frame: FrameShape, history: int | None = None) -> MIM:
        """Build the model; the length of the history does not matter."""
        return cls(config, frame)

    def project(self, frames: Tensor) -> Tensor:
        """Apply the first layer's input convolution."""
        return self.first.from_input(frames)

    def advance(self, projected: Tensor, state: MIMState | None) -> Step[MIMState]:
        """Do one step through all layers."""
        layer = state.layers[0] if state else (None, None)
        bottom = self.first(projected, *layer, state.memory if state else None)
        differences = self._differentiate(bottom.hidden, state) if state else ()
        layers: list[Pair] = [(bottom.hidden, bottom.cell)]
        stationary: list[Tensor] = []
        memory = bottom.memory
        for index, block in enumerate(cast("Sequence[MIMBlock]", self.blocks)):
            difference = differences[index][0] if differences else None
            own = state.layers[index + 1] if state else (None, None)
            done = block(layers[-1][0], difference, own, memory, self._stationary(state, index))
            layers.append((done.hidden, done.cell))
            stationary.append(done.stationary)
            memory = done.memory
        return Step(layers[-1][0], MIMState(tuple(layers), memory, differences, tuple(stationary)))

    def _differentiate(self, hidden: Tensor, state: MIMState) -> tuple[Pair, ...]:
        """Feed the change of the bottom layer's hidden state through the differential units (MIM-N)."""
        change = hidden - state.layers[0][0]
        pairs: list[Pair] = []
        for index, unit in enumerate(cast("Sequence[PeepholeUnit]", self.differences)):
            pairs.append(unit(change, *(state.differences[index] if state.differences else (None, None))))
            change = pairs[-1][0]
        return tuple(pairs)

    def _stationary(self, state: MIMState | None, index: int) -> Tensor | None:
        if state is None:
            return None
        memory = state.stationary[index]
        return memory.detach() if self.detach_stationary else memory
