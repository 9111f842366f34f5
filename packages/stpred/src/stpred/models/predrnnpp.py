"""PredRNN++: causal LSTM layers with a highway for gradients above the first.

Wang et al., "PredRNN++: Towards A Resolution of the Deep-in-Time Dilemma in Spatiotemporal Predictive Learning", ICML
2018 (causal LSTM, gradient highway unit). Numerics of OpenSTL (Apache-2.0), `PredRNNpp_Model`, `CausalLSTMCell`,
`GHU`: no biases, forget bias 1. Differs in: layer norm of the highway spans its 2n channels (OpenSTL builds it for n
and fails).
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stpred.models.configs import FrameShape, PredRNNppConfig
from stpred.models.stack import GateConvolution, RecurrentStack, Step, update_memory

FORGET_BIAS = 1.0
HIGHWAY_INIT = 0.001
"""Half the range of the highway's initial weights."""


class CausalState(NamedTuple):
    """State of the stack."""

    hidden: tuple[Float[Tensor, "batch hidden rows columns"], ...]
    """Hidden state of each layer, bottom first."""
    cell: tuple[Float[Tensor, "batch hidden rows columns"], ...]
    """Temporal memory of each layer."""
    memory: Float[Tensor, "batch hidden rows columns"]
    """Spatial memory, as it leaves the top layer."""
    highway: Float[Tensor, "batch hidden rows columns"]
    """State of the gradient highway."""


class CausalLayer(nn.Module):
    """Causal LSTM: the spatial memory is updated from the temporal one of the same step.

    Gates of the input: i, f, g of the temporal memory, i, f, g of the spatial one, o.

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
        self.from_cell = GateConvolution(hidden, 3 * hidden, kernel, norm)
        self.from_memory = GateConvolution(hidden, 3 * hidden, kernel, norm)
        self.from_new_cell = GateConvolution(hidden, 4 * hidden, kernel, norm)
        self.from_new_memory = GateConvolution(hidden, hidden, kernel, norm)
        self.merge = nn.Conv2d(2 * hidden, hidden, 1, bias=False)

    def forward(
        self,
        projected: Float[Tensor, "batch gates rows columns"],
        hidden: Float[Tensor, "batch hidden rows columns"] | None,
        cell: Float[Tensor, "batch hidden rows columns"] | None,
        memory: Float[Tensor, "batch hidden rows columns"] | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Do one step from `from_input` of the input; returns hidden state and both memories. None means zeros."""
        n = self.hidden
        temporal, spatial, output = projected.split([3 * n, 3 * n, n], dim=1)
        temporal_hidden, output_hidden = self.from_hidden(hidden).split([3 * n, n], dim=1)
        gates = temporal + temporal_hidden + self.from_cell(cell)
        cell, _ = update_memory(gates, cell, forget_bias=FORGET_BIAS)
        memory, output_cell = self._spatial(spatial, cell, memory)
        gate = torch.tanh(output + output_hidden + output_cell + self.from_new_memory(memory))
        return gate * torch.tanh(self.merge(torch.cat([cell, memory], dim=1))), cell, memory

    def _spatial(self, gates: Tensor, cell: Tensor, memory: Tensor | None) -> tuple[Tensor, Tensor]:
        """Update the spatial memory, and give the new temporal memory's share of the output gate."""
        write, forget, content = gates.chunk(3, dim=1)
        write_memory, forget_memory, kept = self.from_memory(memory).chunk(3, dim=1)
        write_cell, content_cell, forget_cell, output_cell = self.from_new_cell(cell).chunk(4, dim=1)
        written = torch.sigmoid(write + write_memory + write_cell) * torch.tanh(content + content_cell)
        keep = torch.sigmoid(forget + forget_memory + forget_cell + FORGET_BIAS)
        return torch.addcmul(written, keep, torch.tanh(kept)), output_cell


class GradientHighway(nn.Module):
    """Gradient highway unit: `z' = σ(u) ⊙ tanh(p) + (1 − σ(u)) ⊙ z` with p, u from the input and from z.

    Args:
        hidden: channels of input and state.
        kernel: of both convolutions.
        norm: rows and columns of the maps, or None for no layer norm.
    """

    def __init__(self, hidden: int, kernel: int, norm: tuple[int, int] | None) -> None:
        super().__init__()
        self.from_input = GateConvolution(hidden, 2 * hidden, kernel, norm)
        self.from_state = GateConvolution(hidden, 2 * hidden, kernel, norm)
        for part in (self.from_input, self.from_state):
            nn.init.uniform_(part.conv.weight, -HIGHWAY_INIT, HIGHWAY_INIT)

    def forward(
        self,
        x: Float[Tensor, "batch hidden rows columns"],
        state: Float[Tensor, "batch hidden rows columns"] | None,
    ) -> Float[Tensor, "batch hidden rows columns"]:
        """Do one step; None stands for a state of zeros."""
        content, switch = (self.from_input(x) + self.from_state(state)).chunk(2, dim=1)
        new, share = torch.tanh(content), torch.sigmoid(switch)
        return share * new if state is None else torch.addcmul(share * new, 1.0 - share, state)


class PredRNNpp(RecurrentStack[CausalState]):
    """PredRNN++: two or more causal LSTM layers, with the highway between the first and the second.

    Args:
        config: sizes.
        frame: frames the model is built for.
    """

    def __init__(self, config: PredRNNppConfig, frame: FrameShape) -> None:
        super().__init__(config, frame)
        self.layers = self.build_layers(CausalLayer, config)
        norm = (self.rows, self.columns) if config.layer_norm else None
        self.highway = GradientHighway(config.hidden[0], config.kernel, norm)

    @classmethod
    def from_config(cls, config: PredRNNppConfig, frame: FrameShape, history: int | None = None) -> PredRNNpp:
        """Build the model; the length of the history does not matter."""
        return cls(config, frame)

    def project(self, frames: Tensor) -> Tensor:
        """Apply the first layer's input convolution."""
        return self._layers[0].from_input(frames)

    def advance(self, projected: Tensor, state: CausalState | None) -> Step[CausalState]:
        """Do one step through all layers."""
        hiddens: list[Tensor] = []
        cells: list[Tensor] = []
        memory, highway = (state.memory, state.highway) if state else (None, None)
        below = projected
        for index, layer in enumerate(self._layers):
            if index == 1:
                highway = self.highway(hiddens[0], highway)
                below = layer.from_input(highway)
            elif index > 1:
                below = layer.from_input(hiddens[-1])
            hidden, cell = (state.hidden[index], state.cell[index]) if state else (None, None)
            hidden, cell, memory = layer(below, hidden, cell, memory)
            hiddens.append(hidden)
            cells.append(cell)
        memories = cast("tuple[Tensor, Tensor]", (memory, highway))  # two layers at least
        return Step(hiddens[-1], CausalState(tuple(hiddens), tuple(cells), *memories))

    @property
    def _layers(self) -> list[CausalLayer]:
        return cast("list[CausalLayer]", list(self.layers))
