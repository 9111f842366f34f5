"""ConvLSTM and TrajGRU written down plainly: step by step, the formulas of the original in library operations.

This is what the package is timed against, and a second opinion on the recordings. Nothing here is clever: every step
convolves its input and its state, zero or not, each of the links of a TrajGRU is warped and convolved on its own.
Nothing is needlessly slow either: convolutions, sampling and gates are the library's.

Modules carry the names of the original's state, so its weights load without translation.

Source: Shi et al., "Convolutional LSTM Network" (NeurIPS 2015) and "Deep Learning for Precipitation Nowcasting"
(NeurIPS 2017), in the form of github.com/dreaming-coder/Spatiotemporal-Prediction, whose formulas these are; written
anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 0.2


class PlainConvLSTMCell(nn.Module):
    """Peepholes of the input and output gate; `w_cf` is owned and not used, as in the original."""

    def __init__(self, channels: int, hidden: int, size: tuple[int, int], kernel: int, forget_bias: float) -> None:
        super().__init__()
        self.forget_bias = forget_bias
        self.conv_x = nn.Conv2d(channels, 4 * hidden, kernel, padding=kernel // 2)
        self.conv_h = nn.Conv2d(hidden, 4 * hidden, kernel, padding=kernel // 2)
        self.w_ci, self.w_cf, self.w_co = (nn.Parameter(torch.zeros(1, hidden, *size)) for _ in range(3))

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        i, f, candidate, o = (self.conv_x(x) + self.conv_h(h)).chunk(4, dim=1)
        i = torch.sigmoid(i + self.w_ci * c)
        f = torch.sigmoid(f + self.forget_bias)
        c = f * c + i * torch.tanh(candidate)
        o = torch.sigmoid(o + self.w_co * c)
        return o * torch.tanh(c), c


def _cells(
    channels: int, hidden: Sequence[int], size: tuple[int, int], kernels: Sequence[int], forget_bias: float
) -> nn.ModuleList:
    widths = [channels, *hidden]
    return nn.ModuleList(
        PlainConvLSTMCell(widths[i], widths[i + 1], size, kernels[i], forget_bias) for i in range(len(hidden))
    )


class PlainEncoder(nn.Module):
    def __init__(self, cells: nn.ModuleList) -> None:
        super().__init__()
        self.encoder = cells

    def forward(self, frames: Float[Tensor, "batch time channel height width"]) -> tuple[list[Tensor], list[Tensor]]:
        batch, steps, _, height, width = frames.shape
        h = [frames.new_zeros(batch, cell.w_ci.shape[1], height, width) for cell in self.encoder]
        c = list(h)
        for t in range(steps):
            x = frames[:, t]
            for i, cell in enumerate(self.encoder):
                x, c[i] = cell(x, h[i], c[i])
                h[i] = x
        return h, c


class PlainForecast(nn.Module):
    def __init__(self, cells: nn.ModuleList, hidden: Sequence[int], channels: int) -> None:
        super().__init__()
        self.forecast = cells
        self.conv_last = nn.Conv2d(sum(hidden), channels, 1, bias=False)

    def forward(self, h: list[Tensor], c: list[Tensor], horizon: int) -> Tensor:
        batch, _, height, width = h[0].shape
        blank = h[0].new_zeros(batch, self.conv_last.out_channels, height, width)
        frames: list[Tensor] = []
        for _ in range(horizon):
            x = blank
            for i, cell in enumerate(self.forecast):
                x, c[i] = cell(x, h[i], c[i])
                h[i] = x
            frames.append(self.conv_last(torch.cat(h, dim=1)))
        return torch.stack(frames, dim=1)


class PlainConvLSTM(nn.Module):
    """Patched frames in, patched frames out, unbounded."""

    def __init__(
        self,
        channels: int = 16,
        hidden: Sequence[int] = (128, 64, 64),
        size: tuple[int, int] = (16, 16),
        kernels: Sequence[int] = (5, 5, 5),
        forget_bias: float = 0.01,
    ) -> None:
        super().__init__()
        self.encoder = PlainEncoder(_cells(channels, hidden, size, kernels, forget_bias))
        self.forecast = PlainForecast(_cells(channels, hidden, size, kernels, forget_bias), hidden, channels)

    def forward(self, frames: Float[Tensor, "batch time channel height width"], horizon: int) -> Tensor:
        h, c = self.encoder(frames)
        return self.forecast(h, c, horizon)


def plain_patches(frames: Float[Tensor, "batch time channel height width"], patch: int) -> Tensor:
    """Patches to channels: patch row, patch column, channel (fastest)."""
    batch, steps, channels, height, width = frames.shape
    cut = frames.view(batch, steps, channels, height // patch, patch, width // patch, patch)
    return cut.permute(0, 1, 4, 6, 2, 3, 5).reshape(batch, steps, -1, height // patch, width // patch)


def plain_frames(patches: Float[Tensor, "batch time channel height width"], patch: int) -> Tensor:
    """Undo `plain_patches`."""
    batch, steps, channels, height, width = patches.shape
    cut = patches.view(batch, steps, patch, patch, channels // patch**2, height, width)
    return cut.permute(0, 1, 4, 5, 2, 6, 3).reshape(batch, steps, -1, height * patch, width * patch)


def plain_warp(
    frames: Float[Tensor, "batch channel height width"], flow: Float[Tensor, "batch 2 height width"]
) -> Float[Tensor, "batch channel height width"]:
    """Look each pixel up at its place plus its flow (right, down; pixels)."""
    height, width = frames.shape[-2:]
    right = torch.arange(width, device=frames.device) + flow[:, 0]
    down = torch.arange(height, device=frames.device)[:, None] + flow[:, 1]
    grid = torch.stack((2.0 * right / max(width - 1, 1) - 1.0, 2.0 * down / max(height - 1, 1) - 1.0), dim=-1)
    return F.grid_sample(frames, grid, align_corners=True)


class PlainTrajGRUCell(nn.Module):
    """`update="reference"` is the original's, whose gate cancels."""

    def __init__(self, channels: int, hidden: int, kernel: int, links: int, update: str) -> None:
        super().__init__()
        self.channels, self.hidden, self.update = channels, hidden, update
        self.gammma_x = nn.Conv2d(channels, 32, 5, padding=2)
        self.gammma_h = nn.Conv2d(hidden, 32, 5, padding=2)
        self.generate_flow = nn.Conv2d(32, 2 * links, 5, padding=2)
        self.W_xz, self.W_xr, self.W_xh = (nn.Conv2d(channels, hidden, kernel, padding=kernel // 2) for _ in range(3))
        self.W_hz, self.W_hr, self.W_hh = (
            nn.ModuleList(nn.Conv2d(hidden, hidden, 1) for _ in range(links)) for _ in range(3)
        )

    def flows(self, x: Tensor, h: Tensor) -> Tensor:
        return self.generate_flow(F.leaky_relu(self.gammma_x(x) + self.gammma_h(h), SLOPE))

    def forward(self, x: Tensor | None, h: Tensor | None) -> Tensor:
        if x is None:
            assert h is not None
            x = h.new_zeros(h.shape[0], self.channels, *h.shape[2:])
        if h is None:
            h = x.new_zeros(x.shape[0], self.hidden, *x.shape[2:])
        z, r, new = self.W_xz(x), self.W_xr(x), 0.0
        for i, flow in enumerate(self.flows(x, h).split(2, dim=1)):
            seen = plain_warp(h, flow)
            z, r, new = z + self.W_hz[i](seen), r + self.W_hr[i](seen), new + self.W_hh[i](seen)
        z = torch.sigmoid(z)
        new = F.leaky_relu(self.W_xh(x) + torch.sigmoid(r) * new, SLOPE)
        return (1 - z) * new + z * (new if self.update == "reference" else h)


Three = tuple[int, int, int]


class PlainTrajGRU(nn.Module):
    """Whole frames in, whole frames out, unbounded. `wrapped`: the strided convolutions stand in a `Sequential`."""

    def __init__(
        self,
        channels: int = 1,
        stem: int = 8,
        hidden: Three = (64, 96, 128),
        links: Three = (13, 13, 9),
        up: tuple[int, int] = (96, 64),
        *,
        update: Literal["corrected", "reference"] = "corrected",
        wrapped: bool = False,
    ) -> None:
        super().__init__()
        self.encoder, self.forecast = nn.Module(), nn.Module()
        kernels = (5, 5, 3)
        entries, befores = (stem, *hidden[1:]), (channels, *hidden[:2])
        coarse = hidden[::-1]
        for i in range(3):
            down: nn.Module = nn.Conv2d(befores[i], entries[i], 3, stride=2, padding=1)
            self.encoder.add_module(f"conv{i + 1}", nn.Sequential(down) if wrapped else down)
            cell = PlainTrajGRUCell(entries[i], hidden[i], kernels[i], links[i], update)
            self.encoder.add_module(f"layer{i + 1}", cell)
            inner, outer = (coarse[0], *up)[i], (*up, stem)[i]
            cell = PlainTrajGRUCell(inner, coarse[i], kernels[i], links[i], update)
            self.forecast.add_module(f"layer{i + 1}", cell)
            rise: nn.Module = nn.ConvTranspose2d(coarse[i], outer, 3, stride=2, padding=1, output_padding=1)
            if i == 2:
                rise = nn.Sequential(rise, nn.Conv2d(stem, stem, 3, padding=1), nn.Conv2d(stem, channels, 1))
            elif wrapped:
                rise = nn.Sequential(rise)
            self.forecast.add_module(f"deconv{i + 1}", rise)

    def encode(self, frames: Float[Tensor, "batch time channel height width"]) -> list[Tensor | None]:
        states: list[Tensor | None] = [None, None, None]
        for t in range(frames.shape[1]):
            x = frames[:, t]
            for i in range(3):
                x = self.encoder.get_submodule(f"conv{i + 1}")(x)
                x = self.encoder.get_submodule(f"layer{i + 1}")(x, states[i])
                states[i] = x
        return states

    def forward(self, frames: Float[Tensor, "batch time channel height width"], horizon: int) -> Tensor:
        states = self.encode(frames)[::-1]
        found: list[Tensor] = []
        for _ in range(horizon):
            x: Tensor | None = None
            for i in range(3):
                states[i] = self.forecast.get_submodule(f"layer{i + 1}")(x, states[i])
                x = self.forecast.get_submodule(f"deconv{i + 1}")(states[i])
            assert x is not None
            found.append(x)
        return torch.stack(found, dim=1)
