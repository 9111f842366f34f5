"""SimVP and its sparse vector quantisation written down plainly, in library operations, as the papers state them.

This is what the package is timed against, and a second opinion on the recordings. Nothing here is clever: the weights
of all codes are computed for every position and multiplied by the codebook. Nothing is needlessly slow either: there
is no loop over frames, positions or codes.

Modules carry the names of the original's state, so its weights load without translation.

Source: Gao et al., "SimVP" (CVPR 2022), Tan et al., "SimVPv2" (arXiv 2211.12509) in the form of
github.com/chengtan9907/OpenSTL, and Chen et al., "A Differentiable Sparse Vector Quantization (SVQ) for
Spatio-Temporal Forecasting" (arXiv 2312.03406), whose formulas these are; written anew.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

INITS = {
    "normal": nn.init.normal_, "random": nn.init.normal_, "kaiming": nn.init.kaiming_uniform_,
}  # fmt: skip
"""How codebooks start; the timed ones need no other way."""


class PlainBasicConv(nn.Module):
    """Convolution, group norm, SiLU; `up` doubles the sides by shuffling pixels."""

    def __init__(self, before: int, after: int, kernel: int, change: Literal["keep", "down", "up"]) -> None:
        super().__init__()
        stride = 2 if change == "down" else 1
        wide = 4 * after if change == "up" else after
        conv: nn.Module = nn.Conv2d(before, wide, kernel, stride=stride, padding=(kernel - stride + 1) // 2)
        self.conv = nn.Sequential(conv, nn.PixelShuffle(2)) if change == "up" else conv
        self.norm = nn.GroupNorm(2, after)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.norm(self.conv(x)))


class PlainConvSC(nn.Module):
    def __init__(self, *args: Any) -> None:
        super().__init__()
        self.conv = PlainBasicConv(*args)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class PlainEncoder(nn.Module):
    """Every second layer halves the sides; the first one's output is also the skip."""

    def __init__(self, channels: int, hidden: int, depth: int, kernel: int) -> None:
        super().__init__()
        layers = [
            PlainConvSC(hidden if i else channels, hidden, kernel, "down" if i % 2 else "keep") for i in range(depth)
        ]
        self.enc = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        skip = self.enc[0](x)
        return self.enc[1:](skip), skip


class PlainDecoder(nn.Module):
    def __init__(self, hidden: int, channels: int, depth: int, kernel: int) -> None:
        super().__init__()
        self.dec = nn.Sequential(
            *(PlainConvSC(hidden, hidden, kernel, "keep" if i % 2 else "up") for i in range(depth))
        )
        self.readout = nn.Conv2d(hidden, channels, 1)

    def forward(self, hidden: Tensor, skip: Tensor) -> Tensor:
        return self.readout(self.dec[-1](self.dec[:-1](hidden) + skip))


class PlainGate(nn.Module):
    """Gated large kernel: 5 x 5, then 7 x 7 with gaps of three, each channel by itself."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.conv_spatial = nn.Conv2d(width, width, 7, padding=9, groups=width, dilation=3)
        self.conv1 = nn.Conv2d(width, 2 * width, 1)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.conv1(self.conv_spatial(self.conv0(x))).chunk(2, dim=1)
        return torch.sigmoid(gate) * value


class PlainAttention(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj_1 = nn.Conv2d(width, width, 1)
        self.spatial_gating_unit = PlainGate(width)
        self.proj_2 = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.proj_2(self.spatial_gating_unit(F.gelu(self.proj_1(x))))


class PlainDepthwise(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.dwconv = nn.Conv2d(width, width, 3, padding=1, groups=width)

    def forward(self, x: Tensor) -> Tensor:
        return self.dwconv(x)


class PlainMLP(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(width, hidden, 1)
        self.dwconv = PlainDepthwise(hidden)
        self.fc2 = nn.Conv2d(hidden, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.dwconv(self.fc1(x))))


class PlainGSTA(nn.Module):
    """Gated spatio-temporal attention and a convolutional MLP, each with a scaled residual."""

    def __init__(self, width: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.drop_path = drop_path
        self.norm1, self.norm2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.attn = PlainAttention(width)
        self.mlp = PlainMLP(width, int(width * mlp_ratio))
        self.layer_scale_1, self.layer_scale_2 = (nn.Parameter(torch.full((width,), 1e-2)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop(self.layer_scale_1[:, None, None] * self.attn(self.norm1(x)))
        return x + self.drop(self.layer_scale_2[:, None, None] * self.mlp(self.norm2(x)))

    def drop(self, branch: Tensor) -> Tensor:
        if not self.training or self.drop_path == 0.0:
            return branch
        kept = branch.new_empty(len(branch), 1, 1, 1).bernoulli_(1.0 - self.drop_path)
        return branch * kept / (1.0 - self.drop_path)


class PlainMetaBlock(nn.Module):
    def __init__(self, before: int, after: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        self.block = PlainGSTA(before, mlp_ratio, drop_path)
        self.reduction = nn.Conv2d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.reduction(self.block(x))


class PlainTranslator(nn.Module):
    """Blocks over the frames of a latent sequence stacked as channels."""

    def __init__(self, stacked: int, hidden: int, depth: int, mlp_ratio: float, drop_path: float) -> None:
        super().__init__()
        widths = [stacked, *[hidden] * (depth - 1), stacked]
        rates = torch.linspace(1e-2 if drop_path else 0.0, drop_path, depth).tolist()
        self.enc = nn.Sequential(*(PlainMetaBlock(widths[i], widths[i + 1], mlp_ratio, rates[i]) for i in range(depth)))

    def forward(self, x: Tensor) -> Tensor:
        return self.enc(x)


class PlainProjection(nn.Module):
    """Weights of all codes at every position."""

    def __init__(self, width: int, codes: int, middle: int, *, nonlinear: bool, hidden: bool, out: bool) -> None:
        super().__init__()
        self.hidden, self.out = hidden, out
        middle = min(middle, codes)
        self.linear_proj = nn.Linear(width, middle if nonlinear else codes)
        self.linear_proj2 = nn.Linear(middle, codes) if nonlinear else None

    def forward(self, tokens: Tensor) -> Tensor:
        found = self.linear_proj(tokens)
        if self.linear_proj2 is None:
            return found
        found = self.linear_proj2(F.relu(found) if self.hidden else found)
        return F.relu(found) if self.out else found


class PlainSVQ(nn.Module):
    """Positions as weighted sums of codes; arguments have the original's names."""

    def __init__(
        self,
        input_dim: int,
        codebook_size: int = 10_000,
        *,
        nonlinear: bool = True,
        middim: int = 128,
        hid_relu: bool = True,
        out_relu: bool = False,
        init_method: str = "normal",
        freeze_codebook: bool = False,
    ) -> None:
        super().__init__()
        self.codebook = nn.Parameter(torch.empty(codebook_size, input_dim), requires_grad=not freeze_codebook)
        INITS[init_method](self.codebook)
        self.proj_regression_weight = PlainProjection(
            input_dim, codebook_size, middim, nonlinear=nonlinear, hidden=hid_relu, out=out_relu
        )

    def forward(
        self, x: Float[Tensor, "batch channel height width"]
    ) -> tuple[Float[Tensor, "batch channel height width"], Float[Tensor, "batch position code"]]:
        weights = self.proj_regression_weight(x.flatten(2).transpose(1, 2))
        return (weights @ self.codebook).transpose(1, 2).reshape(x.shape), weights


class PlainSimVP(nn.Module):
    """Frames to as many frames, with gSTA between encoder and decoder; arguments have the original's names.

    Args:
        in_shape: time, channels, rows and columns.
        hid_S: channels of the latent frames.
        hid_T: width of the translator.
        N_S: layers of the encoder, and of the decoder; even.
        N_T: blocks of the translator.
        mlp_ratio: hidden width of a block's MLP over its width.
        drop_path: chance to leave out a branch of the last block in training.
        spatio_kernel_enc: kernel of the encoder.
        spatio_kernel_dec: kernel of the decoder.
        vq_kwargs: arguments of `PlainSVQ`; None for SimVP alone.
        post_vq: quantise after the translator, not before it.
    """

    def __init__(
        self,
        in_shape: tuple[int, int, int, int],
        *,
        hid_S: int = 32,
        hid_T: int = 256,
        N_S: int = 2,
        N_T: int = 8,
        mlp_ratio: float = 8.0,
        drop_path: float = 0.0,
        spatio_kernel_enc: int = 3,
        spatio_kernel_dec: int = 3,
        vq_kwargs: dict[str, Any] | None = None,
        post_vq: bool = False,
    ) -> None:
        super().__init__()
        steps, channels = in_shape[:2]
        self.enc = PlainEncoder(channels, hid_S, N_S, spatio_kernel_enc)
        self.hid = PlainTranslator(steps * hid_S, hid_T, N_T, mlp_ratio, drop_path)
        self.dec = PlainDecoder(hid_S, channels, N_S, spatio_kernel_dec)
        self.vq = nn.ModuleDict({} if vq_kwargs is None else {"vq": PlainSVQ(**vq_kwargs)})
        self.post_vq = post_vq

    def quantise(self, latent: Tensor) -> Tensor:
        return self.vq["vq"](latent)[0] if self.vq else latent

    def forward(
        self, frames: Float[Tensor, "batch time channel height width"]
    ) -> Float[Tensor, "batch time channel height width"]:
        latent, skip = self.enc(frames.flatten(0, 1))
        if not self.post_vq:
            latent = self.quantise(latent)
        stacked = self.hid(latent.reshape(len(frames), -1, *latent.shape[2:]))
        latent = stacked.reshape(latent.shape)
        if self.post_vq:
            latent = self.quantise(latent)
        return self.dec(latent, skip).reshape(frames.shape)

    def rollout(self, frames: Tensor, horizon: int) -> Tensor:
        """Feed the forecast back until `horizon` frames are there."""
        passes: list[Tensor] = []
        while sum(part.shape[1] for part in passes) < horizon:
            passes.append(self(passes[-1] if passes else frames))
        return torch.cat(passes, dim=1)[:, :horizon]
