"""PhyDNet: a physical branch that learns partial derivatives, beside a residual branch of ConvLSTM layers.

Le Guen and Thome, "Disentangling Physical Dynamics from Unknown Factors for Unsupervised Video Prediction", CVPR 2020,
section 3 (PhyCell: equations 5 to 8) and section 3.3 (moment loss). Numerics follow OpenSTL
(github.com/chengtan9907/OpenSTL, Apache-2.0), `openstl/models/phydnet_model.py::PhyDNet_Model` and
`openstl/modules/phydnet_modules.py`.
Differs in: the loss L is minimised itself, where OpenSTL takes the mean squared difference of L and the target frames
and so turns the gradient round once L is below the mean pixel; states are local to a call; all known frames are encoded
at once.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from stcore.errors import UserError
from stpred.models.configs import FrameShape, PhyDNetConfig, StackConfig
from stpred.models.interface import FrameLoss
from stpred.models.stack import RecurrentStack, Step

SLOPE = 0.2
"""Of every LeakyReLU."""
GROUPS = 16
"""Groups of every normalisation of encoder and decoder, at any width."""


def moment_matrix(size: int) -> Float[Tensor, "size size"]:
    """Matrix that takes a filter to its moments along one axis: `M[i, j] = (j - size // 2)^i / i!`.

    >>> moment_matrix(3).tolist()
    [[1.0, 1.0, 1.0], [-1.0, 0.0, 1.0], [0.5, 0.0, 0.5]]
    """
    rows = [[float(j - size // 2) ** i / math.factorial(i) for j in range(size)] for i in range(size)]
    return torch.tensor(rows, dtype=torch.float64)


def moments(filters: Float[Tensor, "*filter size size"]) -> Float[Tensor, "*filter size size"]:
    """Moments of square filters: entry (i, j) weighs the derivative of order i down the rows and j along the columns.

    Source: OpenSTL, `phydnet_modules.py::K2M`; paper, supplement.
    """
    # Half precision would drown the constraint.
    with torch.autocast(filters.device.type, enabled=False):
        matrix = moment_matrix(filters.shape[-1]).to(filters)
        return einsum(matrix, filters, matrix, "p i, ... i j, q j -> ... p q")


def _block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)
    return nn.Sequential(conv, nn.GroupNorm(GROUPS, outputs), nn.LeakyReLU(SLOPE))


def _transposed(inputs: int, outputs: int, stride: int = 1) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(inputs, outputs, 3, stride=stride, padding=1, output_padding=stride - 1)


def _transposed_block(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    conv = _transposed(inputs, outputs, stride)
    return nn.Sequential(conv, nn.GroupNorm(GROUPS, outputs), nn.LeakyReLU(SLOPE))


class PhyCell(nn.Module):
    """Predict by a learned partial differential equation, correct by the encoded frame (paper, equations 5 to 8).

    Args:
        width: channels of the latent frames.
        kernel: of the filters that become derivatives, odd; there are `kernel**2`.
    """

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__()
        orders = kernel**2
        self.derivatives = nn.Conv2d(width, orders, kernel, padding=kernel // 2)
        self.norm = nn.GroupNorm(kernel, orders)
        self.combine = nn.Conv2d(orders, width, 1)
        self.gain = nn.Conv2d(2 * width, width, 3, padding=1)

    def forward(
        self, code: Float[Tensor, "batch channel rows columns"], hidden: Float[Tensor, "batch channel rows columns"]
    ) -> Float[Tensor, "batch channel rows columns"]:
        """Return the new latent frame from the encoded frame and the last latent frame."""
        predicted = hidden + self.combine(self.norm(self.derivatives(hidden)))
        gain = torch.sigmoid(self.gain(torch.cat([code, hidden], 1)))
        return predicted + gain * (code - predicted)

    def moment_penalty(self) -> Float[Tensor, ""]:
        """How far each filter is from the derivative it stands for (paper, section 3.3).

        Filter number `kernel * i + j` shall have the moment (i, j) and no other: a mean squared error for each input
        channel, summed over them.
        """
        found = moments(self.derivatives.weight)
        orders, size = found.shape[0], found.shape[-1]
        wanted = torch.eye(orders, dtype=found.dtype, device=found.device).view(orders, 1, size, size)
        return (found - wanted).square().mean((0, 2, 3)).sum()


class ResidualCell(nn.Module):
    """ConvLSTM layer with one convolution for input and state; gates in the order i, f, o, g, without a forget bias."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.gates = nn.Conv2d(inputs + width, 4 * width, 3, padding=1)

    def forward(
        self,
        x: Float[Tensor, "batch input rows columns"],
        hidden: Float[Tensor, "batch channel rows columns"],
        cell: Float[Tensor, "batch channel rows columns"],
    ) -> tuple[Float[Tensor, "batch channel rows columns"], Float[Tensor, "batch channel rows columns"]]:
        """Return the new hidden and cell state."""
        i, f, o, g = self.gates(torch.cat([x, hidden], 1)).chunk(4, 1)
        cell = torch.sigmoid(f) * cell + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(cell), cell


class Encoder(nn.Module):
    """Encode frames for both branches.

    Args:
        channels: of the frames.
        config: sizes.
    """

    def __init__(self, channels: int, config: PhyDNetConfig) -> None:
        super().__init__()
        outer, width = config.encoder_width, config.width
        self.shared = nn.Sequential(
            _block(channels, outer, 2), _block(outer, outer), _block(outer, width, config.downsample // 2)
        )
        self.physical = nn.Sequential(_block(width, width), _block(width, width))
        self.residual = nn.Sequential(_block(width, width), _block(width, width))

    def forward(
        self, frames: Float[Tensor, "batch channel height width"]
    ) -> Float[Tensor, "batch both_codes rows columns"]:
        """Return the codes of the physical and of the residual branch, joined along the channels."""
        shared = self.shared(frames)
        return torch.cat([self.physical(shared), self.residual(shared)], 1)


class Decoder(nn.Module):
    """Add what both branches say and decode it to a frame in (0, 1).

    Args:
        channels: of the frames.
        config: sizes.
    """

    def __init__(self, channels: int, config: PhyDNetConfig) -> None:
        super().__init__()
        outer, width = config.encoder_width, config.width
        self.physical = nn.Sequential(_transposed_block(width, width), _transposed_block(width, width))
        self.residual = nn.Sequential(_transposed_block(width, width), _transposed_block(width, width))
        self.shared = nn.Sequential(
            _transposed_block(width, outer, 2),
            _transposed_block(outer, outer),
            _transposed(outer, channels, config.downsample // 2),
        )

    def forward(
        self, both: Float[Tensor, "batch both_states rows columns"]
    ) -> Float[Tensor, "batch channel height width"]:
        """Decode the states of the physical and of the residual branch, joined along the channels."""
        physical, residual = both.chunk(2, 1)
        return torch.sigmoid(self.shared(self.physical(physical) + self.residual(residual)))


class BranchStates(NamedTuple):
    """What both branches keep from step to step."""

    physical: Float[Tensor, "batch channel rows columns"]
    residual: tuple[tuple[Tensor, Tensor], ...]
    """Hidden and cell state of each layer."""


class PhyDNet(RecurrentStack[BranchStates]):
    """Two branches over encoded frames; the guess of the next frame is fed back. In training one coin per batch decides
    whether true frames are fed instead.

    Args:
        config: sizes.
        frame: frames the model is built for, whose sides are multiples of `downsample`; other such sizes work as well.

    Raises:
        UserError: the frames cannot be made that much smaller.
    """

    sampling = "coin"

    def __init__(self, config: PhyDNetConfig, frame: FrameShape) -> None:
        super().__init__(StackConfig(hidden=config.hidden, patch=1, checkpoint_every=config.checkpoint_every), frame)
        self.downsample = config.downsample
        self._require_multiple(frame.height, frame.width)
        self.any_size = True
        inputs = (config.width, *config.hidden[:-1])
        self.widths = config.hidden
        self.encoder = Encoder(frame.channels, config)
        self.physical = PhyCell(config.width, config.kernel)
        self.residual = nn.ModuleList(
            ResidualCell(below, own) for below, own in zip(inputs, config.hidden, strict=True)
        )
        self.head = Decoder(frame.channels, config)

    @classmethod
    def from_config(cls, config: PhyDNetConfig, frame: FrameShape, history: int | None = None) -> PhyDNet:
        """Build the model; the length of the history does not matter."""
        return cls(config, frame)

    def objective(self, guesses: Tensor, frames: Tensor, penalties: object) -> FrameLoss:
        """Sum of the mean squared errors of all guesses, and the moment penalty."""
        error = F.mse_loss(guesses, frames) * guesses.shape[1]
        moment = self.physical.moment_penalty()
        return FrameLoss(error + moment, {"mse_sum": error, "moment": moment})

    def project(self, frames: Tensor) -> Tensor:
        """Encode frames for both branches."""
        self._require_multiple(*frames.shape[-2:])
        return self.encoder(frames)

    def advance(self, projected: Tensor, state: BranchStates | None) -> Step[BranchStates]:
        """Do one step of both branches."""
        physical_code, below = projected.chunk(2, 1)
        state = state or self._start(projected)
        physical = self.physical(physical_code, state.physical)
        residual: list[tuple[Tensor, Tensor]] = []
        for layer, (hidden, cell) in zip(self.residual, state.residual, strict=True):
            below, cell = layer(below, hidden, cell)
            residual.append((below, cell))
        return Step(torch.cat([physical, below], 1), BranchStates(physical, tuple(residual)))

    def _require_multiple(self, height: int, width: int) -> None:
        # Nothing is left of a single latent pixel after the normalisations.
        if height % self.downsample or width % self.downsample or height * width == self.downsample**2:
            raise UserError(
                f"model.downsample: {self.downsample} on frames of {height} x {width}; expected height and width to be "
                f"multiples of {self.downsample}, and one of them larger than that"
            )

    def _start(self, like: Tensor) -> BranchStates:
        def zeros(width: int) -> Tensor:
            return like.new_zeros(len(like), width, *like.shape[2:])

        return BranchStates(zeros(like.shape[1] // 2), tuple((zeros(width), zeros(width)) for width in self.widths))
