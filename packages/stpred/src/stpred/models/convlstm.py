"""ConvLSTM: an encoder reads the history, a forecaster unrolls the future from its states.

Shi et al., "Convolutional LSTM Network", NeurIPS 2015 (arXiv 1506.04214). Source:
dreaming-coder/Spatiotemporal-Prediction (MIT), `nn/ConvLSTM/ConvLSTM.py`, whose parameter names are kept. As there, the
forecaster's layers have the encoder's order of widths, its first layer sees no input, and its forecast is not fed back:
therefore each layer can run through all of time before the next one starts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from stcore.errors import UserError
from stpred.models.configs import ConvLSTMConfig, FrameShape, Peephole, ValueRange
from stpred.models.convlstm_cell import ConvLSTMCell
from stpred.models.interface import FrameLoss, FrameModel
from stpred.models.recurrence import clamp_range, mean_squared_error
from stpred.module import EnhancedModule
from stpred.patches import reshape_patch, reshape_patch_back

__all__ = [
    "ConvLSTM",
    "ConvLSTMCell",
    "ConvLSTMForecaster",
    "ConvLSTM_KTH",
    "ConvLSTM_MovingMNIST",
    "ConvLSTM_TaxiBJ",
]

States = tuple[list[Tensor], list[Tensor]]
"""Hidden and cell states of all layers."""


def _cells(in_channels: int, size: tuple[int, int], config: ConvLSTMConfig) -> nn.ModuleList:
    widths = [in_channels, *config.hidden]
    return nn.ModuleList(
        ConvLSTMCell(widths[i], widths[i + 1], size, kernel, config.forget_bias, peephole=config.peephole)
        for i, kernel in enumerate(config.kernels)
    )


class Encoder(nn.Module):
    """A stack of cells that reads frames and hands on its last states."""

    def __init__(self, in_channels: int, size: tuple[int, int], config: ConvLSTMConfig) -> None:
        super().__init__()
        self.checkpoint_every = config.checkpoint_every
        self.encoder = _cells(in_channels, size, config)

    def forward(self, inputs: Float[Tensor, "batch time channel height width"]) -> States:
        x = rearrange(inputs, "batch time ... -> time batch ...")
        h: list[Tensor] = []
        c: list[Tensor] = []
        for cell in self.encoder:
            assert isinstance(cell, ConvLSTMCell)
            x, last = cell.run(x, None, steps=x.shape[0], checkpoint_every=self.checkpoint_every)
            h.append(last[0])
            c.append(last[1])
        return h, c


class Forecast(nn.Module):
    """A stack of cells that goes on from given states; every layer's hidden state takes part in the forecast."""

    def __init__(self, in_channels: int, size: tuple[int, int], config: ConvLSTMConfig) -> None:
        super().__init__()
        self.checkpoint_every = config.checkpoint_every
        self.forecast = _cells(in_channels, size, config)
        self.conv_last = nn.Conv2d(sum(config.hidden), in_channels, 1, bias=False)
        first = self.forecast[0]
        assert isinstance(first, ConvLSTMCell)
        # Weights of an input that is always zero: only there to be loaded.
        first.conv_x.weight.requires_grad_(False)

    def forward(
        self, h: list[Tensor], c: list[Tensor], out_len: int = 10
    ) -> Float[Tensor, "batch horizon channel height width"]:
        # The 1x1 convolution goes layer by layer, so that the layers' states need not be joined.
        heads = self.conv_last.weight.split([state.shape[1] for state in h], dim=1)
        x: Tensor | None = None
        frames: list[Tensor] = []
        for cell, state, head in zip(self.forecast, zip(h, c, strict=True), heads, strict=True):
            assert isinstance(cell, ConvLSTMCell)
            x, _ = cell.run(x, state, steps=out_len, checkpoint_every=self.checkpoint_every)
            frames.append(F.conv2d(x.flatten(0, 1), head))
        return rearrange(sum(frames[1:], frames[0]), "(time batch) ... -> batch time ...", time=out_len)


class ConvLSTMForecaster(FrameModel):
    """ConvLSTM of the registry: whole frames in, whole frames out."""

    def __init__(self, config: ConvLSTMConfig, frame: FrameShape) -> None:
        super().__init__()
        if frame.height % config.patch or frame.width % config.patch:
            raise UserError(
                f"model.patch: {config.patch}; expected a divisor of the frames' height {frame.height} and width "
                f"{frame.width}"
            )
        self.config = config
        channels = frame.channels * config.patch**2
        size = (frame.height // config.patch, frame.width // config.patch)
        self.encoder = Encoder(channels, size, config)
        self.forecast = Forecast(channels, size, config)

    @classmethod
    def from_config(cls, config: ConvLSTMConfig, frame: FrameShape, history: int | None = None) -> ConvLSTMForecaster:
        return cls(config, frame)

    def raw(
        self, history: Float[Tensor, "batch time channel height width"], horizon: int
    ) -> Float[Tensor, "batch horizon channel height width"]:
        """The forecast before it is clamped."""
        h, c = self.encoder(reshape_patch(history, self.config.patch))
        return reshape_patch_back(self.forecast(h, c, out_len=horizon), self.config.patch)

    def forward(
        self, history: Float[Tensor, "batch time channel height width"], horizon: int
    ) -> Float[Tensor, "batch horizon channel height width"]:
        return clamp_range(self.raw(history, horizon), self.config.clamp)

    def loss(
        self,
        history: Float[Tensor, "batch time channel height width"],
        future: Float[Tensor, "batch horizon channel height width"],
        *,
        truth: Float[Tensor, "batch step"] | None = None,
        valid: Bool[Tensor, "batch frame channel height width"] | None = None,
    ) -> FrameLoss:
        value_range = self.config.clamp if self.config.clamp_in_loss else "none"
        raw = self.raw(history, future.shape[1])
        return mean_squared_error(raw, future, value_range=value_range, valid=valid)


class ConvLSTM(EnhancedModule):
    """The network of the original, for modules of one's own: subclass it and write the steps.

    Args:
        in_channels: channels of the (patched) frames.
        hidden_channels_list: width of each layer; [96, 96] unless given.
        size: height and width of the (patched) frames.
        kernel_size_list: kernel of each layer; [3, 3] unless given.
        forget_bias: added to the forget gate before its sigmoid.
        peephole: see `ConvLSTMCell`.
        checkpoint_every: see `ConvLSTMConfig`.
    """

    def __init__(
        self,
        in_channels: int = 1,
        hidden_channels_list: Sequence[int] | None = None,
        size: tuple[int, int] = (64, 64),
        kernel_size_list: Sequence[int] | None = None,
        forget_bias: float = 0.01,
        *,
        peephole: Peephole = "reference",
        checkpoint_every: int = 0,
    ) -> None:
        super().__init__()
        config = ConvLSTMConfig(
            hidden=tuple(hidden_channels_list or (96, 96)), kernels=tuple(kernel_size_list or (3, 3)),
            forget_bias=forget_bias, peephole=peephole, checkpoint_every=checkpoint_every,
        )  # fmt: skip
        self.encoder = Encoder(in_channels, size, config)
        self.forecast = Forecast(in_channels, size, config)

    def forward(
        self, inputs: Float[Tensor, "batch time channel height width"], out_len: int
    ) -> Float[Tensor, "batch horizon channel height width"]:
        """Continue patched frames by `out_len`, unbounded."""
        h, c = self.encoder(inputs)
        return self.forecast(h, c, out_len=out_len)


class _OnFrames(ConvLSTM):
    """ConvLSTM with the original's steps: patches, range, mean squared error, Adam.

    Args:
        in_channels, hidden_channels_list, size, kernel_size_list, forget_bias: as in `ConvLSTM`; the data set's
            published sizes unless given.
        horizon: frames that `predict_step` makes; training and validation make as many as there are labels.
        learning_rate: of Adam.
        clamp_in_loss: False clamps predictions only, so that pixels out of range have a gradient too.
        peephole, checkpoint_every: as in `ConvLSTM`.
    """

    channels: ClassVar[int]
    sizes: ClassVar[tuple[int, int]]
    patch: ClassVar[int]
    value_range: ClassVar[ValueRange]
    frames_ahead: ClassVar[int]

    def __init__(
        self,
        in_channels: int | None = None,
        hidden_channels_list: Sequence[int] | None = None,
        size: tuple[int, int] | None = None,
        kernel_size_list: Sequence[int] | None = None,
        forget_bias: float = 0.01,
        *,
        horizon: int | None = None,
        learning_rate: float = 1e-3,
        clamp_in_loss: bool = True,
        peephole: Peephole = "reference",
        checkpoint_every: int = 0,
    ) -> None:
        super().__init__(
            in_channels or self.channels, hidden_channels_list or [128, 64, 64], size or self.sizes,
            kernel_size_list or [5, 5, 5], forget_bias, peephole=peephole, checkpoint_every=checkpoint_every,
        )  # fmt: skip
        self.horizon = horizon or self.frames_ahead
        self.learning_rate = learning_rate
        self.clamp_in_loss = clamp_in_loss

    def configure_optimizer(self) -> Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate)

    def training_step(self, inputs: Tensor, labels: Tensor) -> Tensor:
        value_range = self.value_range if self.clamp_in_loss else "none"
        return mean_squared_error(self._raw(inputs, labels.shape[1]), labels, value_range=value_range).total

    def validation_step(self, inputs: Tensor, labels: Tensor) -> Tensor:
        return mean_squared_error(self._raw(inputs, labels.shape[1]), labels, value_range=self.value_range).total

    def predict_step(self, inputs: Tensor, labels: Tensor | None = None, *, horizon: int | None = None) -> Tensor:
        return clamp_range(self._raw(inputs, horizon or self.horizon), self.value_range)

    def _raw(self, inputs: Tensor, horizon: int) -> Tensor:
        return reshape_patch_back(self(reshape_patch(inputs, self.patch), horizon), self.patch)


class ConvLSTM_MovingMNIST(_OnFrames):
    """Moving MNIST: 10 frames of 64 x 64 pixels to 10; arguments as of `ConvLSTM`, with the published sizes."""

    channels, sizes, patch, value_range, frames_ahead = 16, (16, 16), 4, "unit", 10


class ConvLSTM_KTH(_OnFrames):
    """KTH: 10 frames of 128 x 128 pixels to 20 (10 in training); arguments as of `ConvLSTM_MovingMNIST`."""

    channels, sizes, patch, value_range, frames_ahead = 16, (32, 32), 4, "unit", 20


class ConvLSTM_TaxiBJ(_OnFrames):
    """TaxiBJ: 4 frames of 2 x 32 x 32 cells to 4; arguments as of `ConvLSTM_MovingMNIST`."""

    channels, sizes, patch, value_range, frames_ahead = 2, (32, 32), 1, "nonnegative", 4
