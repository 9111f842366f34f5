"""TrajGRU: an encoder of three levels reads the history, a forecaster unrolls the future from the coarsest level up.

Shi et al., "Deep Learning for Precipitation Nowcasting", NeurIPS 2017 (arXiv 1706.03458). Source:
dreaming-coder/Spatiotemporal-Prediction (MIT), `nn/TrajGRU/TrajGRU_*.py`. As there the forecaster's first layer sees no
input and the forecast is not fed back: each layer runs through all of time before the next one starts. Differs in: the
corrected update of the cell (see `trajgru_cell`), and one network for all data sets.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer

from stcore.errors import UserError
from stpred.models.configs import TRAJGRU_KTH, TRAJGRU_MOVING_MNIST, TRAJGRU_TAXIBJ, FrameShape, TrajGRUConfig
from stpred.models.interface import FrameLoss, FrameModel
from stpred.models.recurrence import clamp_range, mean_squared_error
from stpred.models.trajgru_cell import SLOPE, TrajGRUCell
from stpred.module import EnhancedModule
from stpred.patches import reshape_patch, reshape_patch_back

__all__ = ["TrajGRUCell", "TrajGRUForecaster", "TrajGRU_KTH", "TrajGRU_MovingMNIST", "TrajGRU_TaxiBJ"]


def _each(
    block: nn.Module, frames: Float[Tensor, "time batch channel height width"], *, leaky: bool
) -> Float[Tensor, "time batch out rows columns"]:
    """Apply a convolution to the frames of all steps at once."""
    found = block(frames.flatten(0, 1))
    return (F.leaky_relu(found, SLOPE) if leaky else found).unflatten(0, frames.shape[:2])


def _down(in_channels: int, out_channels: int) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1)


def _up(in_channels: int, out_channels: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(in_channels, out_channels, 3, stride=2, padding=1, output_padding=1)


class Encoder(nn.Module):
    """Three times a convolution of stride 2 and a recurrent layer."""

    def __init__(self, channels: int, config: TrajGRUConfig) -> None:
        super().__init__()
        self.leaky = config.resample_act == "leaky"
        self.checkpoint_every = config.checkpoint_every
        entries = (config.stem, *config.hidden[1:])
        before = (channels, *config.hidden[:2])
        self.convs = nn.ModuleList(_down(*pair) for pair in zip(before, entries, strict=True))
        self.layers = nn.ModuleList(
            TrajGRUCell(*sizes, update=config.update)
            for sizes in zip(entries, config.hidden, config.kernels, config.links, strict=True)
        )

    def forward(self, frames: Float[Tensor, "batch time channel height width"]) -> list[Tensor]:
        """Return the last state of each layer, finest first."""
        x = rearrange(frames, "batch time ... -> time batch ...")
        states: list[Tensor] = []
        for conv, layer in zip(self.convs, self.layers, strict=True):
            assert isinstance(layer, TrajGRUCell)
            x = _each(conv, x, leaky=self.leaky)
            x, last = layer.run(x, None, steps=x.shape[0], checkpoint_every=self.checkpoint_every)
            states.append(last)
        return states


class Forecast(nn.Module):
    """Three times a recurrent layer and a transposed convolution of stride 2, coarsest first."""

    def __init__(self, channels: int, config: TrajGRUConfig) -> None:
        super().__init__()
        self.leaky = config.resample_act == "leaky"
        self.checkpoint_every = config.checkpoint_every
        hidden = config.hidden[::-1]
        ups = tuple(given or width for given, width in zip(config.up, hidden[1:], strict=True))
        self.layers = nn.ModuleList(
            TrajGRUCell(*sizes, update=config.update)
            for sizes in zip((hidden[0], *ups), hidden, config.forecast_kernels, config.forecast_links, strict=True)
        )
        self.deconvs = nn.ModuleList(_up(*pair) for pair in zip(hidden[:2], ups, strict=True))
        head = (nn.Conv2d(config.stem, config.stem, 3, padding=1), nn.Conv2d(config.stem, channels, 1))
        self.deconvs.append(nn.Sequential(_up(hidden[2], config.stem), *head))
        first = self.layers[0]
        assert isinstance(first, TrajGRUCell)
        for convolution in (first.flow_x, first.conv_x):
            # Weights of an input that is always zero: only there to be loaded.
            convolution.weight.requires_grad_(False)

    def forward(
        self, states: list[Tensor], horizon: int, *, flows: list[list[Tensor]] | None = None
    ) -> Float[Tensor, "batch horizon channel height width"]:
        """Unroll from the encoder's states; `flows` receives one list of flows by step for each layer."""
        x: Tensor | None = None
        for place, (layer, state) in enumerate(zip(self.layers, reversed(states), strict=True)):
            assert isinstance(layer, TrajGRUCell)
            record: list[Tensor] | None = None if flows is None else []
            every = self.checkpoint_every
            x, _ = layer.run(x, state, steps=horizon, checkpoint_every=every, flows=record)
            x = _each(self.deconvs[place], x, leaky=self.leaky and place < 2)
            if flows is not None and record is not None:
                flows.append(record)
        assert x is not None
        return rearrange(x, "time batch ... -> batch time ...")


class TrajGRUForecaster(FrameModel):
    """TrajGRU of the registry: whole frames in, whole frames out."""

    def __init__(self, config: TrajGRUConfig, channels: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(channels * config.patch**2, config)
        self.forecast = Forecast(channels * config.patch**2, config)

    @classmethod
    def from_config(cls, config: TrajGRUConfig, frame: FrameShape, history: int | None = None) -> TrajGRUForecaster:
        side = 8 * config.patch
        if frame.height % side or frame.width % side:
            raise UserError(
                f"frames: {frame.height} x {frame.width}; expected multiples of {side}, which three halvings of "
                f"patches of {config.patch} need"
            )
        return cls(config, frame.channels)

    def raw(
        self, history: Float[Tensor, "batch time channel height width"], horizon: int
    ) -> Float[Tensor, "batch horizon channel height width"]:
        """The forecast before it is clamped."""
        states = self.encoder(reshape_patch(history, self.config.patch))
        return reshape_patch_back(self.forecast(states, horizon), self.config.patch)

    def forward(
        self, history: Float[Tensor, "batch time channel height width"], horizon: int
    ) -> Float[Tensor, "batch horizon channel height width"]:
        return clamp_range(self.raw(history, horizon), self.config.clamp)

    def flows(
        self, history: Float[Tensor, "batch time channel height width"], horizon: int
    ) -> tuple[Float[Tensor, "batch horizon link 2 rows columns"], ...]:
        """Trajectories behind the forecast, one tensor for each layer of the forecaster, coarsest first.

        A layer's flow points, in its own pixels (right, down), from a pixel to the places of the last step that each
        link looks at.
        """
        found: list[list[Tensor]] = []
        self.forecast(self.encoder(reshape_patch(history, self.config.patch)), horizon, flows=found)
        return tuple(torch.stack(steps, dim=1) for steps in found)

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


class _OnFrames(EnhancedModule):
    """TrajGRU with the original's steps: range, mean squared error, Adam.

    Args:
        config: other sizes or forms than the data set's published ones, such as `update="reference"`.
        horizon: frames that `predict_step` makes; training and validation make as many as there are labels.
        learning_rate: of Adam.
    """

    published: ClassVar[TrajGRUConfig]
    channels: ClassVar[int] = 1
    frames_ahead: ClassVar[int] = 10

    def __init__(
        self, config: TrajGRUConfig | None = None, *, horizon: int | None = None, learning_rate: float = 1e-4
    ) -> None:
        super().__init__()
        self.config = config or self.published
        self.encoder = Encoder(self.channels * self.config.patch**2, self.config)
        self.forecast = Forecast(self.channels * self.config.patch**2, self.config)
        self.horizon = horizon or self.frames_ahead
        self.learning_rate = learning_rate

    def forward(
        self, x: Float[Tensor, "batch time channel height width"], out_len: int
    ) -> Float[Tensor, "batch horizon channel height width"]:
        """Continue frames by `out_len`, unbounded."""
        states = self.encoder(reshape_patch(x, self.config.patch))
        return reshape_patch_back(self.forecast(states, out_len), self.config.patch)

    def configure_optimizer(self) -> Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.learning_rate)

    def training_step(self, inputs: Tensor, labels: Tensor) -> Tensor:
        value_range = self.config.clamp if self.config.clamp_in_loss else "none"
        return mean_squared_error(self(inputs, labels.shape[1]), labels, value_range=value_range).total

    def validation_step(self, inputs: Tensor, labels: Tensor) -> Tensor:
        return mean_squared_error(self(inputs, labels.shape[1]), labels, value_range=self.config.clamp).total

    def predict_step(self, inputs: Tensor, labels: Tensor | None = None, *, horizon: int | None = None) -> Tensor:
        return clamp_range(self(inputs, horizon or self.horizon), self.config.clamp)


class TrajGRU_MovingMNIST(_OnFrames):
    """Moving MNIST: 10 frames of 64 x 64 pixels to 10."""

    published = TRAJGRU_MOVING_MNIST


class TrajGRU_KTH(_OnFrames):
    """KTH: 10 frames of 128 x 128 pixels to 10; the horizon is an argument."""

    published = TRAJGRU_KTH


class TrajGRU_TaxiBJ(_OnFrames):
    """TaxiBJ: 4 frames of 2 x 32 x 32 cells to 4."""

    published = TRAJGRU_TAXIBJ
    channels = 2
    frames_ahead = 4
