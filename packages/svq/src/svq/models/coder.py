"""Encoder and decoder of single frames: a chain of convolutions, every second of which halves or doubles the sides.

Source: SimVP (Gao et al., CVPR 2022, section 3), OpenSTL (Apache-2.0), `openstl/modules/simvp_modules.py::ConvSC` and
`openstl/models/simvp_model.py::Encoder, Decoder`.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

GROUPS = 2
"""Groups of channels that are normalised together."""


class ConvUnit(nn.Module):
    """Convolution, group normalisation, SiLU.

    Args:
        inputs: channels in.
        outputs: channels out.
        kernel: odd side of the kernel.
        sampling: whether the sides stay, are halved, or doubled.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, *, sampling: str = "same") -> None:
        super().__init__()
        stride, filters = (2 if sampling == "half" else 1), (4 * outputs if sampling == "double" else outputs)
        self.conv = nn.Conv2d(inputs, filters, kernel, stride=stride, padding=(kernel - stride + 1) // 2)
        self.shuffle = nn.PixelShuffle(2) if sampling == "double" else nn.Identity()
        self.norm = nn.GroupNorm(GROUPS, outputs)
        self.act = nn.SiLU(inplace=True)
        nn.init.trunc_normal_(self.conv.weight, std=0.02)
        nn.init.zeros_(self.conv.bias)  # pyright: ignore[reportArgumentType]  # there is one

    def forward(
        self, x: Float[Tensor, "frame channel height width"]
    ) -> Float[Tensor, "frame filter new_height new_width"]:
        """Return the new maps."""
        return self.act(self.norm(self.shuffle(self.conv(x))))


class Encoder(nn.Module):
    """Frames to latent frames.

    Args:
        channels: of the frames.
        width: channels of the latent frames.
        depth: number of layers, even; the sides shrink by 2 to the power of half of it.
        kernel: odd side of the kernels.
    """

    def __init__(self, channels: int, width: int, depth: int, kernel: int) -> None:
        super().__init__()
        samplings = ("same", "half") * (depth // 2)
        self.layers = nn.ModuleList(
            ConvUnit(width if i else channels, width, kernel, sampling=sampling) for i, sampling in enumerate(samplings)
        )

    def forward(
        self, frames: Float[Tensor, "frame channel height width"]
    ) -> tuple[Float[Tensor, "frame latent rows columns"], Float[Tensor, "frame latent height width"]]:
        """Return the latent frames, and the output of the first layer, which the decoder sees again."""
        skip = latent = self.layers[0](frames)
        for layer in self.layers[1:]:
            latent = layer(latent)
        return latent, skip


class Decoder(nn.Module):
    """Latent frames to frames; the encoder's first layer is added before the last one here.

    Args:
        channels: of the frames.
        width: channels of the latent frames.
        depth: number of layers, even.
        kernel: odd side of the kernels.
    """

    def __init__(self, channels: int, width: int, depth: int, kernel: int) -> None:
        super().__init__()
        samplings = ("double", "same") * (depth // 2)
        self.layers = nn.ModuleList(ConvUnit(width, width, kernel, sampling=sampling) for sampling in samplings)
        self.readout = nn.Conv2d(width, channels, 1)

    def forward(
        self, latent: Float[Tensor, "frame latent rows columns"], skip: Float[Tensor, "frame latent height width"]
    ) -> Float[Tensor, "frame channel height width"]:
        """Return the frames."""
        for layer in self.layers[:-1]:
            latent = layer(latent)
        return self.readout(self.layers[-1](latent + skip))
