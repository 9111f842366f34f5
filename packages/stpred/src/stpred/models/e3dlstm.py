"""E3D-LSTM: a recall over all earlier cells, and 3-D convolutions over a short window of frames.

Wang et al., "Eidetic 3D LSTM: A Model for Video Prediction and Beyond", ICLR 2019, section 3 (equation 1: the recall).
Numerics follow OpenSTL (github.com/chengtan9907/OpenSTL, Apache-2.0), `openstl/models/e3dlstm_model.py::E3DLSTM_Model`
and `openstl/modules/e3dlstm_modules.py::Eidetic3DLSTMCell`.
Differs in: the spatio-temporal memory is carried on as in the paper, where OpenSTL returns the old one, which so stays
zero for ever (`memory="reference"` does the same, for its weights); what is equal at every depth of the window is
computed once; the windows that a frame is part of share the first layer's convolution; the recall is torch's fused
attention.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from stpred.models.configs import E3DLSTMConfig, FrameShape, StackConfig
from stpred.models.interface import FrameLoss
from stpred.models.stack import RecurrentStack, Step

FORGET_BIAS = 1.0
"""Added to the forget gate of the spatio-temporal memory."""


class WindowConv(nn.Conv3d):
    """A convolution over the whole depth of the window: its result has depth 1, and holds at every depth.

    OpenSTL enlarges the result by nearest neighbours to the size of the input (`tf_Conv3d`). Along the depth that
    repeats the one plane, which is left to broadcasting here; rows and columns are enlarged where there is a stride.
    """

    def __init__(self, inputs: int, outputs: int, *, window: int, kernel: int, stride: int) -> None:
        super().__init__(
            inputs, outputs, (window, kernel, kernel), stride=(1, stride, stride),
            padding=(0, kernel // 2, kernel // 2), bias=False,
        )  # fmt: skip

    def forward(
        self, input: Float[Tensor, "batch channel depth rows columns"]
    ) -> Float[Tensor, "batch output 1 rows columns"]:
        """Apply it; an input of depth 1 stands for the same plane at every depth."""
        if input.shape[2] == self.kernel_size[0]:
            return _enlarge(super().forward(input), (1, *input.shape[3:]))
        # One plane at every depth sees the sum of the filters, at the cost of one plane.
        planes = F.conv2d(input[:, :, 0], self.weight.sum(2), stride=self.stride[1:], padding=self.padding[1:])
        return _enlarge(planes, tuple(input.shape[3:]))[:, :, None]

    def project(self, frames: Float[Tensor, "batch channel rows columns"]) -> Float[Tensor, "batch part rows columns"]:
        """What a frame adds to the result at each of its places in the window: (place, output) along the channels."""
        weight = rearrange(self.weight, "output channel depth y x -> (depth output) channel y x")
        parts = F.conv2d(frames, weight, stride=self.stride[1:], padding=self.padding[1:])
        return _enlarge(parts, tuple(frames.shape[2:]))


class WindowHead(nn.Conv3d):
    """Read a frame from all depths of the top layer's hidden state, pixel by pixel.

    Kernel and stride of the original are (window, 1, 1), which leaves depth 1; `input` has (channel, depth) as one
    axis.
    """

    def __init__(self, inputs: int, outputs: int, window: int) -> None:
        super().__init__(inputs, outputs, (window, 1, 1), bias=False)

    def forward(self, input: Float[Tensor, "batch stacked rows columns"]) -> Float[Tensor, "batch output rows columns"]:
        return F.conv2d(input, self.weight.flatten(1, 2))


def _enlarge(result: Tensor, size: tuple[int, ...]) -> Tensor:
    return result if tuple(result.shape[2:]) == size else F.interpolate(result, size=size, mode="nearest")


class LayerState(NamedTuple):
    """What a layer keeps from step to step."""

    hidden: Float[Tensor, "batch channel depth rows columns"]
    cell: Float[Tensor, "batch channel depth rows columns"]
    past: tuple[Float[Tensor, "batch 1 item channel"], ...]
    """All cells so far, the zero start included, as the recall sees them."""


class E3DState(NamedTuple):
    """What the network keeps from step to step."""

    layers: tuple[LayerState, ...]
    memory: Float[Tensor, "batch channel 1 rows columns"] | None
    """Spatio-temporal memory that the top layer left; None is zero."""
    earlier: tuple[Float[Tensor, "batch part rows columns"], ...]
    """Projections of the frames that are still in the window, newest last."""


class EideticCell(nn.Module):
    """One layer: recall earlier cells, update the cell and the spatio-temporal memory (paper, section 3.2).

    Args:
        inputs: channels of what comes from below.
        config: sizes.
        area: rows and columns of the states, which the normalisation depends on.
    """

    def __init__(self, inputs: int, config: E3DLSTMConfig, area: tuple[int, int]) -> None:
        super().__init__()
        self.width, self.window = config.hidden[0], config.window

        def conv(channels: int, gates: int) -> WindowConv:
            return WindowConv(
                channels, gates * self.width, window=config.window, kernel=config.kernel, stride=config.stride
            )

        self.from_input = conv(inputs, 7)
        self.from_hidden = conv(self.width, 4)
        self.from_memory = conv(self.width, 4)
        self.output_cell = conv(self.width, 1)
        self.output_memory = conv(self.width, 1)
        self.merge = nn.Conv3d(2 * self.width, self.width, 1, bias=False)
        self.norm = nn.LayerNorm([self.width, config.window, *area])

    def forward(
        self,
        projected: Float[Tensor, "batch gates 1 rows columns"],
        state: LayerState | None,
        memory: Float[Tensor, "batch channel 1 rows columns"] | None,
    ) -> tuple[LayerState, Float[Tensor, "batch channel 1 rows columns"]]:
        """Do one step from `from_input` of the input; None stands for zeros.

        Returns:
            The state of the layer, and the new memory.
        """
        gates, memory_gates = projected.split([4 * self.width, 3 * self.width], 1)
        if state is not None:
            gates = gates + self.from_hidden(state.hidden)
        i, g, r, o = gates.chunk(4, 1)
        kept, past = self._recall(torch.sigmoid(r), state)
        cell = self.norm(kept) + torch.sigmoid(i) * torch.tanh(g)
        memory = self._remember(memory_gates, memory)
        o = torch.tanh(o + self.output_cell(cell) + self.output_memory(memory))
        merged = self.merge(torch.cat([cell, memory.expand_as(cell)], 1))
        hidden = torch.sigmoid(o) * torch.tanh(merged)
        return LayerState(hidden, cell, (*past, as_items(cell))), memory

    def _recall(self, gate: Tensor, state: LayerState | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The cell together with what is recalled, and all cells before this step."""
        gate = gate.expand(-1, -1, self.window, -1, -1)
        if state is None:
            zeros = torch.zeros_like(gate)
            return zeros, (as_items(zeros),)
        return state.cell + recall(gate, torch.cat(state.past, 2)), state.past

    def _remember(self, gates: Tensor, memory: Tensor | None) -> Tensor:
        i, g, f = gates.chunk(3, 1)
        if memory is None:
            return torch.sigmoid(i) * torch.tanh(g)
        i_m, f_m, g_m, content = self.from_memory(memory).chunk(4, 1)
        written = torch.sigmoid(i + i_m) * torch.tanh(g + g_m)
        return torch.sigmoid(f + f_m + FORGET_BIAS) * torch.tanh(content) + written


def as_items(cell: Float[Tensor, "batch channel depth rows columns"]) -> Float[Tensor, "batch 1 item channel"]:
    """Cut a cell, as it lies in memory, into rows of `channel` values (OpenSTL reshapes without permuting)."""
    return cell.reshape(len(cell), 1, -1, cell.shape[1])


def recall(
    gate: Float[Tensor, "batch channel depth rows columns"], past: Float[Tensor, "batch 1 item channel"]
) -> Float[Tensor, "batch channel depth rows columns"]:
    """Attend with the recall gate to all earlier cells, keys and values alike, without scaling (paper, equation 1)."""
    found = F.scaled_dot_product_attention(as_items(gate).to(past.dtype), past, past, scale=1.0)
    return found.reshape(gate.shape)


class E3DLSTM(RecurrentStack[E3DState]):
    """Stack of eidetic cells whose guess of the next frame is fed back.

    Args:
        config: sizes.
        frame: frames the model is built for.
    """

    def __init__(self, config: E3DLSTMConfig, frame: FrameShape) -> None:
        super().__init__(
            StackConfig(hidden=config.hidden, patch=config.patch, checkpoint_every=config.checkpoint_every), frame
        )
        self.window, self.carried = config.window, config.memory == "correct"
        width, area = config.hidden[0], (self.rows, self.columns)
        self.cells = nn.ModuleList(
            EideticCell(width if number else self.channels, config, area) for number in range(len(config.hidden))
        )
        self.head = WindowHead(width, self.channels, config.window)

    @classmethod
    def from_config(cls, config: E3DLSTMConfig, frame: FrameShape, history: int | None = None) -> E3DLSTM:
        """Build the model; the length of the history does not matter."""
        return cls(config, frame)

    def objective(self, guesses: Tensor, frames: Tensor, penalties: object) -> FrameLoss:
        """Mean squared and mean absolute error, added (paper, section 4)."""
        squared, absolute = F.mse_loss(guesses, frames), F.l1_loss(guesses, frames)
        return FrameLoss(squared + absolute, {"mse": squared, "mae": absolute})

    def project(self, frames: Tensor) -> Tensor:
        """Apply the first layer's input convolution, for every place in the window."""
        return self._layers[0].from_input.project(frames)

    def advance(self, projected: Tensor, state: E3DState | None) -> Step[E3DState]:
        """Do one step through all layers."""
        earlier = (*state.earlier, projected) if state else (projected,)
        below = self._window(earlier)
        memory = state.memory if state else None
        layers: list[LayerState] = []
        for number, cell in enumerate(self._layers):
            if layers:
                below = cell.from_input(layers[-1].hidden)
            layer, updated = cell(below, state.layers[number] if state else None, memory)
            memory = updated if self.carried else None
            layers.append(layer)
        hidden = rearrange(layers[-1].hidden, "batch channel depth y x -> batch (channel depth) y x")
        return Step(hidden, E3DState(tuple(layers), memory, earlier[1 - self.window :] if self.window > 1 else ()))

    @property
    def _layers(self) -> list[EideticCell]:
        return cast("list[EideticCell]", list(self.cells))

    def _window(self, earlier: tuple[Tensor, ...]) -> Float[Tensor, "batch gates 1 rows columns"]:
        """Add up what the frames of the window contribute, each at its place; there is nothing before the first."""
        parts = [frame.chunk(self.window, 1)[-1 - age] for age, frame in enumerate(reversed(earlier))]
        return torch.stack(parts).sum(0)[:, :, None]
