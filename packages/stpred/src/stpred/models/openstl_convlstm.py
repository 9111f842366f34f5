"""ConvLSTM in the frame of the recurrent models: the forecast is fed back.

Shi et al., "Convolutional LSTM Network", NeurIPS 2015, eq. 3 without peepholes; numerics of OpenSTL (Apache-2.0),
`ConvLSTM_Model` and `ConvLSTMCell`: no biases, no forget bias, optional layer norm.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stpred.models.configs import FrameShape, OpenSTLConvLSTMConfig
from stpred.models.stack import GateConvolution, RecurrentStack, Step, update_memory


class Layers(NamedTuple):
    """Hidden and cell state of each layer, bottom first."""

    hidden: tuple[Float[Tensor, "batch hidden rows columns"], ...]
    cell: tuple[Float[Tensor, "batch hidden rows columns"], ...]


class ConvLSTMLayer(nn.Module):
    """One layer; its gates are ordered i, f, g, o.

    Args:
        inputs: channels of what comes from below.
        hidden: channels of both states.
        kernel: of both convolutions.
        norm: rows and columns of the maps, or None for no layer norm.
    """

    def __init__(self, inputs: int, hidden: int, kernel: int, norm: tuple[int, int] | None) -> None:
        super().__init__()
        self.hidden = hidden
        self.from_input = GateConvolution(inputs, 4 * hidden, kernel, norm)
        self.from_hidden = GateConvolution(hidden, 4 * hidden, kernel, norm)

    def forward(
        self,
        projected: Float[Tensor, "batch gates rows columns"],
        hidden: Float[Tensor, "batch hidden rows columns"] | None,
        cell: Float[Tensor, "batch hidden rows columns"] | None,
    ) -> tuple[Float[Tensor, "batch hidden rows columns"], Float[Tensor, "batch hidden rows columns"]]:
        """Do one step from `from_input` of the input; None stands for a state of zeros."""
        gates, output = (projected + self.from_hidden(hidden)).split([3 * self.hidden, self.hidden], dim=1)
        cell, _ = update_memory(gates, cell, forget_bias=0.0)
        return torch.sigmoid(output) * torch.tanh(cell), cell


class OpenSTLConvLSTM(RecurrentStack[Layers]):
    """Stack of ConvLSTM layers whose guess of the next frame is fed back.

    Args:
        config: sizes.
        frame: frames the model is built for.
    """

    def __init__(self, config: OpenSTLConvLSTMConfig, frame: FrameShape) -> None:
        super().__init__(config, frame)
        self.layers = self.build_layers(ConvLSTMLayer, config)

    @classmethod
    def from_config(
        cls, config: OpenSTLConvLSTMConfig, frame: FrameShape, history: int | None = None
    ) -> OpenSTLConvLSTM:
        """Build the model; the length of the history does not matter."""
        return cls(config, frame)

    def project(self, frames: Tensor) -> Tensor:
        """Apply the first layer's input convolution."""
        return self._layers[0].from_input(frames)

    def advance(self, projected: Tensor, state: Layers | None) -> Step[Layers]:
        """Do one step through all layers."""
        hiddens: list[Tensor] = []
        cells: list[Tensor] = []
        for index, layer in enumerate(self._layers):
            below = layer.from_input(hiddens[-1]) if hiddens else projected
            hidden, cell = (state.hidden[index], state.cell[index]) if state else (None, None)
            hidden, cell = layer(below, hidden, cell)
            hiddens.append(hidden)
            cells.append(cell)
        return Step(hiddens[-1], Layers(tuple(hiddens), tuple(cells)))

    @property
    def _layers(self) -> list[ConvLSTMLayer]:
        return cast("list[ConvLSTMLayer]", list(self.layers))
