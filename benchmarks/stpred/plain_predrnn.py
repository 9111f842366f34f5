"""PredRNN written down plainly: one step after the other, one layer after the other, in library operations.

This is what the package is timed against, and a second opinion on the recordings. Nothing here is clever: every step
convolves its frame and all states, also those that are still zero, and every guess is read out. Nothing is needlessly
slow either: gates that share an input come from one convolution.

Modules carry the names of OpenSTL's state, so its weights load without translation.

Source: Wang et al., "PredRNN", NeurIPS 2017, and OpenSTL (github.com/chengtan9907/OpenSTL), whose numerics these are;
written anew.
"""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

Frames = Float[Tensor, "batch time channel height width"]
Maps = Float[Tensor, "batch channel rows columns"]


def _gates(inputs: int, outputs: int, kernel: int, norm: tuple[int, int] | None) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)]
    return nn.Sequential(*layers, *([nn.LayerNorm([outputs, *norm])] if norm else []))


class PlainCell(nn.Module):
    """One ST-LSTM layer."""

    def __init__(self, inputs: int, hidden: int, kernel: int, norm: tuple[int, int] | None) -> None:
        super().__init__()
        self.conv_x = _gates(inputs, 7 * hidden, kernel, norm)
        self.conv_h = _gates(hidden, 4 * hidden, kernel, norm)
        self.conv_m = _gates(hidden, 3 * hidden, kernel, norm)
        self.conv_o = _gates(2 * hidden, hidden, kernel, norm)
        self.conv_last = nn.Conv2d(2 * hidden, hidden, 1, bias=False)

    def forward(self, x: Maps, h: Maps, c: Maps, m: Maps) -> tuple[Maps, Maps, Maps]:
        """Hidden state, temporal and spatiotemporal memory after this step."""
        i_x, f_x, g_x, i_xm, f_xm, g_xm, o_x = self.conv_x(x).chunk(7, dim=1)
        i_h, f_h, g_h, o_h = self.conv_h(h).chunk(4, dim=1)
        i_m, f_m, g_m = self.conv_m(m).chunk(3, dim=1)
        c = torch.sigmoid(f_x + f_h + 1.0) * c + torch.sigmoid(i_x + i_h) * torch.tanh(g_x + g_h)
        m = torch.sigmoid(f_xm + f_m + 1.0) * m + torch.sigmoid(i_xm + i_m) * torch.tanh(g_xm + g_m)
        both = torch.cat([c, m], dim=1)
        o = torch.sigmoid(o_x + o_h + self.conv_o(both))
        return o * torch.tanh(self.conv_last(both)), c, m


class PlainPredRNN(nn.Module):
    """The network with its patches and its loss.

    Args:
        channels: of the frames.
        size: height and width of the frames.
        hidden: width of each layer.
        kernel: of the gates' convolutions.
        patch: side of the patches.
        layer_norm: normalise after each convolution.
    """

    def __init__(
        self, channels: int, size: tuple[int, int], *, hidden: tuple[int, ...], kernel: int, patch: int,
        layer_norm: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.patch, self.hidden = patch, hidden
        patched = channels * patch**2
        norm = (size[0] // patch, size[1] // patch) if layer_norm else None
        inputs = (patched, *hidden[:-1])
        self.cell_list = nn.ModuleList(PlainCell(a, b, kernel, norm) for a, b in zip(inputs, hidden, strict=True))
        self.conv_last = nn.Conv2d(hidden[-1], patched, 1, bias=False)

    def next_frames(self, frames: Frames, length: int, bits: Float[Tensor, "batch step"]) -> Frames:
        """Guess every frame but the first; after `length` frames a true one is fed only where its bit is 1."""
        p = self.patch
        x = rearrange(frames, "batch time c (y dy) (x dx) -> batch time (dy dx c) y x", dy=p, dx=p)
        zeros = [x.new_zeros(len(x), n, *x.shape[3:]) for n in self.hidden]
        h, c, m = list(zeros), list(zeros), zeros[0]
        guesses: list[Tensor] = []
        for t in range(length + bits.shape[1]):
            net = x[:, t]
            if t >= length:
                mask = bits[:, t - length, None, None, None]
                net = mask * net + (1.0 - mask) * guesses[-1]
            for i, cell in enumerate(self.cell_list):
                h[i], c[i], m = cell(h[i - 1] if i else net, h[i], c[i], m)
            guesses.append(self.conv_last(h[-1]))
        back = "batch time (dy dx c) y x -> batch time c (y dy) (x dx)"
        return rearrange(torch.stack(guesses, dim=1), back, dy=p, dx=p)

    def forward(self, history: Frames, horizon: int) -> Frames:
        """Continue the history by `horizon` frames."""
        frames = torch.cat([history, history[:, :1].expand(-1, horizon, -1, -1, -1)], dim=1)  # the rest is masked
        none = history.new_zeros(len(history), horizon - 1)
        return self.next_frames(frames, history.shape[1], none)[:, -horizon:]

    def loss(self, history: Frames, future: Frames, bits: Float[Tensor, "batch step"]) -> Float[Tensor, ""]:
        """Mean squared error of all guesses."""
        frames = torch.cat([history, future], dim=1)
        return F.mse_loss(self.next_frames(frames, history.shape[1], bits), frames[:, 1:])
