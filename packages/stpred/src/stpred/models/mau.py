"""MAU: motion-aware units, whose temporal state is mixed with attention over the last steps.

Chang et al., "MAU: A Motion-Aware Unit for Video Prediction and Beyond", NeurIPS 2021, section 3 (the unit, the encoder
and decoder, and recalling the encoder's features). Numerics follow OpenSTL (github.com/chengtan9907/OpenSTL,
Apache-2.0), `openstl/models/mau_model.py::MAU_Model` and `openstl/modules/mau_modules.py::MAUCell`.
Differs in: parameters that OpenSTL never uses (`merge`, `conv_last_sr`) are gone, only the last `window` states of a
layer are kept, and true frames grow rarer in training (OpenSTL never stores the falling probability).
"""

from __future__ import annotations

import math

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from stcore.errors import UserError
from stpred.models.configs import FrameShape, MAUConfig, StackConfig
from stpred.models.stack import RecurrentStack, Step

SLOPE = 0.2
"""Of every LeakyReLU."""

Past = tuple[Float[Tensor, "batch past channel rows columns"], Float[Tensor, "batch past channel rows columns"]]
"""Temporal outputs and spatial inputs of one layer at its last steps, oldest first; zeros before the first step."""


class MotionUnit(nn.Module):
    """One layer: attend to the last steps for the trend of the motion, then exchange temporal and spatial content.

    Args:
        width: channels of both states.
        kernel: of all convolutions, odd.
        area: rows and columns of the states, which the normalisations depend on.
        residual: whether the spatial input is added to the spatial output.
    """

    def __init__(self, width: int, *, kernel: int, area: tuple[int, int], residual: bool) -> None:
        super().__init__()
        self.residual = residual

        def normed(outputs: int) -> nn.Sequential:
            conv = nn.Conv2d(width, outputs, kernel, padding=kernel // 2)
            return nn.Sequential(conv, nn.LayerNorm([outputs, *area]))

        self.query = normed(width)
        self.keep = normed(width)
        self.temporal = normed(3 * width)
        self.spatial = normed(3 * width)

    def forward(
        self,
        spatial: Float[Tensor, "batch channel rows columns"],
        past_temporal: Float[Tensor, "batch past channel rows columns"],
        past_spatial: Float[Tensor, "batch past channel rows columns"],
    ) -> tuple[Float[Tensor, "batch channel rows columns"], Float[Tensor, "batch channel rows columns"]]:
        """Return the new temporal and the new spatial state.

        Args:
            spatial: what comes from the layer below.
            past_temporal: temporal states after the last steps, oldest first; the last one is the present one.
            past_spatial: what came from below at the same steps.
        """
        query = self.query(spatial)
        likeness = einsum(past_spatial.to(query.dtype), query, "b past c y x, b c y x -> b past")
        weight = (likeness / math.sqrt(query[0].numel())).softmax(-1)
        trend = einsum(past_temporal, weight.to(past_temporal.dtype), "b past c y x, b past -> b c y x")
        present = past_temporal[:, -1]
        motion = _mix(self.keep(present), present, trend)
        gate_t, temporal_t, temporal_s = self.temporal(motion).chunk(3, 1)
        gate_s, spatial_t, spatial_s = self.spatial(spatial).chunk(3, 1)
        new_spatial = _mix(gate_s, spatial_s, temporal_s)
        return _mix(gate_t, temporal_t, spatial_t), new_spatial + spatial if self.residual else new_spatial


def _mix(gate: Tensor, opened: Tensor, closed: Tensor) -> Tensor:
    share = torch.sigmoid(gate)
    return share * opened + (1.0 - share) * closed


class MAU(RecurrentStack[tuple[Past, ...]]):
    """Encoder, stack of motion-aware units, decoder; the guess of the next frame is fed back.

    Args:
        config: sizes and forms.
        frame: frames the model is built for, whose sides are multiples of `patch * downsample`.

    Raises:
        UserError: the frames cannot be made that much smaller.
    """

    def __init__(self, config: MAUConfig, frame: FrameShape) -> None:
        shrink = config.patch * config.downsample
        if frame.height % shrink or frame.width % shrink:
            raise UserError(
                f"model.downsample: {config.downsample} with model.patch {config.patch} on frames of {frame.height} x "
                f"{frame.width}; expected height and width to be multiples of {shrink}"
            )
        super().__init__(
            StackConfig(hidden=config.hidden, patch=config.patch, checkpoint_every=config.checkpoint_every), frame
        )
        self.window, self.recalling = config.window, config.mode == "recall"
        self.width = width = config.hidden[0]
        self.area = (frame.height // shrink, frame.width // shrink)
        halvings = config.downsample.bit_length() - 1
        self.embed = nn.Conv2d(self.channels, width, 1)
        self.encoder = nn.ModuleList(nn.Conv2d(width, width, 3, stride=2, padding=1) for _ in range(halvings))
        residual = config.cell == "residual"
        self.units = nn.ModuleList(
            MotionUnit(width, kernel=config.kernel, area=self.area, residual=residual) for _ in config.hidden
        )
        self.decoder = nn.ModuleList(
            nn.ConvTranspose2d(width, width, 3, stride=2, padding=1, output_padding=1) for _ in range(halvings)
        )
        self.head = nn.Conv2d(width, self.channels, 1)

    @classmethod
    def from_config(cls, config: MAUConfig, frame: FrameShape, history: int | None = None) -> MAU:
        """Build the model; the length of the history does not matter."""
        return cls(config, frame)

    def project(self, frames: Tensor) -> Tensor:
        """Encode frames; those features that the decoder recalls go along, all flattened to one axis."""
        features = [F.leaky_relu(self.embed(frames), SLOPE)]
        for halve in self.encoder:
            features.append(F.leaky_relu(halve(features[-1]), SLOPE))
        kept = features if self.recalling else features[-1:]
        return torch.cat([feature.flatten(1) for feature in kept], 1)

    def advance(self, projected: Tensor, state: tuple[Past, ...] | None) -> Step[tuple[Past, ...]]:
        """Do one step through all units, and decode."""
        features = self._unflatten(projected)
        spatial = features[-1]
        if state is None:
            zeros = spatial.new_zeros(len(spatial), self.window, *spatial.shape[1:])
            state = ((zeros, zeros),) * len(self.units)
        after: list[Past] = []
        for unit, (past_temporal, past_spatial) in zip(self.units, state, strict=True):
            temporal, above = unit(spatial, past_temporal, past_spatial)
            after.append((_push(past_temporal, temporal), _push(past_spatial, spatial)))
            spatial = above
        return Step(self._decode(spatial, features[:-1]), tuple(after))

    def _unflatten(self, projected: Tensor) -> list[Tensor]:
        rows, columns = self.area
        powers = range(len(self.encoder) if self.recalling else 0, -1, -1)
        shapes = [(self.width, rows * 2**power, columns * 2**power) for power in powers]
        parts = projected.split([math.prod(shape) for shape in shapes], 1)
        return [part.unflatten(1, shape) for part, shape in zip(parts, shapes, strict=True)]

    def _decode(self, code: Tensor, recalled: list[Tensor]) -> Tensor:
        last = len(self.decoder) - 1
        for number, double in enumerate(self.decoder):
            code = double(code)
            if number < last:
                code = F.leaky_relu(code, SLOPE)
            if self.recalling:
                code = code + recalled[last - number]
        return code


def _push(past: Tensor, newest: Tensor) -> Tensor:
    return torch.cat([past[:, 1:], newest[:, None]], 1)
