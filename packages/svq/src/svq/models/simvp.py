"""SimVP: frames are encoded one by one, translated together, and decoded one by one; SVQ stands in between.

Sources: SimVP (Gao et al., CVPR 2022), SimVPv2 (Tan et al., arXiv 2211.12509), SVQ (Chen et al., arXiv 2312.03406);
OpenSTL (Apache-2.0), `openstl/models/simvp_model.py::SimVP_Model`, and SVQ's `SimVP_VQ`. Differs in: frames of any
height and width, padded at their lower and right edge inside and cropped again; the auxiliary loss of a rollout is the
mean over its passes, where SVQ's keeps that of the last pass only.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from stcore.errors import UserError
from stcore.training.memory_layout import put_channels_last
from svq.models.coder import Decoder, Encoder
from svq.models.configs import COMPARISONS, FrameShape, QuantizerConfig, SimVPConfig
from svq.models.noise import inject_noise
from svq.models.periodic import make_periodic
from svq.models.sparse import SVQ, Control, Nothing
from svq.models.translator import make_translator, window_of

FIRST_SHARE = 0.9
"""Share of the last frame in the next one before anything is known or learnt (`model.residual`)."""


class Forecast(NamedTuple):
    """Future frames, and what the quantiser adds to the loss."""

    future: Float[Tensor, "batch horizon channel height width"]
    auxiliary: Float[Tensor, ""]


def make_quantizer(config: QuantizerConfig, channels: int) -> nn.Module:
    """Make what stands between the parts; the library of the comparisons is imported when one is asked for."""
    if config.kind in COMPARISONS:
        from svq.models.comparison import LibraryQuantizer

        return LibraryQuantizer(config, channels)
    if config.kind == "svq":
        return SVQ(config, channels)
    return Control(config, channels) if config.kind == "control" else Nothing()


class SimVP(nn.Module):
    """Forecaster of frames that reads and writes as many at once.

    Args:
        simvp: sizes of encoder, translator and decoder.
        quantizer: what the latent frames pass through.
        frame: channels, rows and columns of the frames it is built for; others do as well, except for the MLP-Mixer.
        history: frames it reads, and writes in one pass.

    Raises:
        UserError: sizes that do not fit one another.
    """

    def __init__(self, simvp: SimVPConfig, quantizer: QuantizerConfig, frame: FrameShape, history: int) -> None:
        super().__init__()
        if history < 1 or min(frame) < 1:
            raise UserError(f"model: {history} frames of {tuple(frame)}; expected 1 or more of each")
        self.simvp, self.quantizer_config, self.frame, self.history = simvp, quantizer, frame, history
        self.factor = 2 ** (simvp.depth_spatial // 2)
        self.window = window_of(simvp, math.ceil(frame.height / self.factor))
        self._require_whole_circle(frame.width)
        width, depth = simvp.hid_spatial, simvp.depth_spatial
        rows, columns = (side // self.factor for side in self.padded(frame.height, frame.width))
        self.encoder = Encoder(frame.channels, width, depth, simvp.kernel_encoder)
        self.translator = make_translator(simvp, history * width, rows, columns)
        self.decoder = Decoder(frame.channels, width, depth, simvp.kernel_decoder)
        self.quantizer = make_quantizer(quantizer, width)
        self.channels_last = False
        self.shares: nn.Parameter | None = None
        if simvp.residual == "damped":
            start = FIRST_SHARE ** torch.arange(1, history + 1, dtype=torch.float32)
            self.shares = nn.Parameter(start[:, None].repeat(1, frame.channels))
            for parameter in self.decoder.readout.parameters():  # nothing else is known yet
                nn.init.zeros_(parameter)
        if simvp.periodic_longitude:
            make_periodic(self)

    def put_channels_last(self, wanted: bool = True) -> None:
        """Let the channels of a cell lie side by side in memory, or the cells of a channel; changes only rounding."""
        put_channels_last(self, wanted)
        # Kernels of 1 × 1 lie alike either way, so the maps must be turned where their time has joined the channels.
        self.channels_last = wanted

    def padded(self, height: int, width: int) -> tuple[int, int]:
        """Return the rows and columns that frames are padded to."""
        multiple = self.factor * self.window
        return math.ceil(height / multiple) * multiple, math.ceil(width / multiple) * multiple

    def forward(
        self, history: Float[Tensor, "batch time channel height width"], horizon: int | None = None
    ) -> Float[Tensor, "batch horizon channel height width"]:
        """Return the future frames.

        Args:
            history: known frames, as many as the model reads.
            horizon: number of future frames, by default as many as known ones. Fewer are the first of one pass; for
                more the forecast is fed back.
        """
        return self.loss_terms(history, horizon).future

    def loss_terms(
        self,
        history: Float[Tensor, "batch time channel height width"],
        horizon: int | None = None,
        *,
        generator: torch.Generator | None = None,
    ) -> Forecast:
        """Return the future frames, and the quantiser's loss as a mean over all passes.

        Args:
            history: known frames.
            horizon: number of future frames.
            generator: source of the noise that training may put on the history; by default torch's own.
        """
        self._check(history)
        frames, horizon = history, self.history if horizon is None else horizon
        if self.training and self.quantizer_config.noise_ratio:
            frames = inject_noise(frames, self.quantizer_config.noise_ratio, generator)
        futures: list[Tensor] = []
        losses: list[Tensor] = []
        for _ in range(math.ceil(horizon / self.history)):
            frames, loss = self._forecast(frames)
            futures.append(frames)
            losses.append(loss)
        future = futures[0] if len(futures) == 1 else torch.cat(futures, dim=1)
        return Forecast(future[:, :horizon], torch.stack(losses).mean())

    def encode(
        self, history: Float[Tensor, "batch time channel height width"]
    ) -> Float[Tensor, "frame latent rows columns"]:
        """Return what the quantiser is given in a first pass: latent frames of the past, or of the future (`post`)."""
        self._check(history)
        latent, _ = self.encoder(self._pad(rearrange(history, "batch time ... -> (batch time) ...")))
        if not self.quantizer_config.post:
            return latent
        return self._translate(latent)

    def code_weights(
        self, latent: Float[Tensor, "frame latent rows columns"], chunk: int | None = None
    ) -> Iterator[Float[Tensor, "token codes"]]:
        """Yield SVQ's code weights of latent frames, row by row.

        Args:
            latent: from `encode`.
            chunk: tokens at a time.

        Raises:
            UserError: the model has no such weights.
        """
        if not isinstance(self.quantizer, SVQ):
            raise UserError(f"quantizer.kind: {self.quantizer_config.kind}; expected svq: no other has code weights")
        return self.quantizer.code_weights(latent, chunk=chunk)

    def _forecast(self, frames: Float[Tensor, "batch time channel height width"]) -> tuple[Tensor, Tensor]:
        """Do one pass."""
        height, width = frames.shape[-2:]
        latent, skip = self.encoder(self._pad(rearrange(frames, "batch time ... -> (batch time) ...")))
        if self.quantizer_config.post:
            latent, loss, _ = self.quantizer(self._translate(latent))
        else:
            latent, loss, _ = self.quantizer(latent)
            latent = self._translate(latent)
        future = self.decoder(latent, skip)[..., :height, :width]
        future = rearrange(future, "(batch time) ... -> batch time ...", time=self.history)
        if self.shares is not None:
            future = future + self.shares[:, :, None, None] * frames[:, -1:]
        return future, loss

    def _translate(
        self, latent: Float[Tensor, "frame latent rows columns"]
    ) -> Float[Tensor, "frame latent rows columns"]:
        joined = rearrange(latent, "(batch time) latent rows columns -> batch (time latent) rows columns",
                           time=self.history)  # fmt: skip
        if self.channels_last:
            joined = joined.contiguous(memory_format=torch.channels_last)
        joined = self.translator(joined)
        return rearrange(joined, "batch (time latent) rows columns -> (batch time) latent rows columns",
                         time=self.history)  # fmt: skip

    def _pad(
        self, frames: Float[Tensor, "frame channel height width"]
    ) -> Float[Tensor, "frame channel padded_height padded_width"]:
        height, width = frames.shape[-2:]
        rows, columns = self.padded(height, width)
        if (rows, columns) == (height, width):
            return frames
        return F.pad(frames, (0, columns - width, 0, rows - height), mode="replicate")

    def _require_whole_circle(self, width: int) -> None:
        multiple = self.factor * self.window
        if self.simvp.periodic_longitude and width % multiple:
            raise UserError(f"model.periodic-longitude: {width} columns; expected a multiple of {multiple}, since "
                            "padding would break the circle; switch it off")  # fmt: skip

    def _check(self, history: Tensor) -> None:
        length, channels, height, width = history.shape[1:]
        if (length, channels) != (self.history, self.frame.channels):
            raise UserError(f"history: {length} frames of {channels} channels; expected {self.history} of "
                            f"{self.frame.channels}")  # fmt: skip
        self._require_whole_circle(width)
        built = self.padded(self.frame.height, self.frame.width)
        if self.simvp.translator == "mlp-mixer" and self.padded(height, width) != built:
            raise UserError(f"history: {height} × {width} cells; expected {self.frame.height} × {self.frame.width}: "
                            "an mlp-mixer takes one size only")  # fmt: skip
