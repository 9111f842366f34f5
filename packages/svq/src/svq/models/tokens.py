"""MetaFormer blocks from timm's parts: ViT and MLP-Mixer on tokens, Swin, UniFormer and PoolFormer put together.

Sources: OpenSTL (Apache-2.0), `openstl/modules/simvp_modules.py::ViTSubBlock, MLPMixerSubBlock, SwinSubBlock,
PoolFormerSubBlock` and `openstl/modules/layers/uniformer.py`; the parts are timm's (Apache-2.0).
"""

from __future__ import annotations

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from stcore.torchvision_ops import prepare_timm
from stcore.training.batch_norm import BatchNorm2d
from svq.models.depthwise import depthwise

prepare_timm()  # before timm

from timm.layers import DropPath, GroupNorm1, Mlp  # noqa: E402  # pyright: ignore[reportPrivateImportUsage]
from timm.models.metaformer import Pooling  # noqa: E402
from timm.models.swin_transformer import WindowAttention, window_partition, window_reverse  # noqa: E402
from timm.models.vision_transformer import Attention  # noqa: E402  # pyright: ignore[reportPrivateImportUsage]

HEADS = 8


class Tokens(nn.Module):
    """Apply a block that takes (batch, token, channel) to maps.

    Args:
        inner: the block.
    """

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Float[Tensor, "batch channel rows columns"]) -> Float[Tensor, "batch channel rows columns"]:
        """Return the new maps."""
        tokens = self.inner(rearrange(x, "batch channel rows columns -> batch (rows columns) channel"))
        return rearrange(tokens, "batch (rows columns) channel -> batch channel rows columns", rows=x.shape[-2])


def swin_window(rows: int) -> int:
    """Return the side of the windows that OpenSTL chooses for latent frames of so many rows.

    >>> [swin_window(rows) for rows in (14, 16, 32, 160)]
    [7, 4, 4, 8]
    """
    return 7 if rows % 7 == 0 else min(8, max(4, rows // 16))


class SwinBlock(nn.Module):
    """Attention inside windows, then a perceptron, each beside its input.

    Windows that are shifted go around all edges and are not masked there. Where one side is a single window nothing
    is shifted, as in timm before 1.0, with which the published weights were trained.

    Args:
        width: channels, a multiple of 8.
        hidden: hidden width of the perceptron.
        window: side of the windows, which divides that of the maps.
        shift: by how much the windows are shifted.
        dropout: share of values dropped in the perceptron and behind the attention.
        drop_path: share of samples that skip a branch.
    """

    def __init__(self, width: int, hidden: int, *, window: int, shift: int, dropout: float = 0.0,
                 drop_path: float = 0.0) -> None:  # fmt: skip
        super().__init__()
        self.window, self.shift = window, shift
        self.norm1 = nn.LayerNorm(width)
        self.attention = WindowAttention(width, HEADS, window_size=(window, window), attn_drop=dropout,
                                         proj_drop=dropout)  # fmt: skip
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, hidden, drop=dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Float[Tensor, "batch channel rows columns"]) -> Float[Tensor, "batch channel rows columns"]:
        """Return the new maps."""
        cells = rearrange(x, "batch channel rows columns -> batch rows columns channel")
        cells = cells + self.drop_path(self._attend(self.norm1(cells)))
        cells = cells + self.drop_path(self.mlp(self.norm2(cells)))
        return rearrange(cells, "batch rows columns channel -> batch channel rows columns")

    def _attend(
        self, cells: Float[Tensor, "batch rows columns channel"]
    ) -> Float[Tensor, "batch rows columns channel"]:
        rows, columns = cells.shape[1:3]
        shift = self.shift if min(rows, columns) > self.window else 0
        side = (self.window, self.window)
        windows = window_partition(torch.roll(cells, (-shift, -shift), (1, 2)), side)
        attended = self.attention(rearrange(windows, "window rows columns channel -> window (rows columns) channel"))
        attended = rearrange(attended, "window (rows columns) channel -> window rows columns channel", rows=self.window)
        return torch.roll(window_reverse(attended, side, rows, columns), (shift, shift), (1, 2))


class PoolFormerBlock(nn.Module):
    """Difference to the mean of the neighbours, then a perceptron, each beside its input.

    Args:
        width: channels.
        hidden: hidden width of the perceptron.
        dropout: share of values dropped in the perceptron.
        drop_path: share of samples that skip a branch.
    """

    LAYER_SCALE = 1e-5

    def __init__(self, width: int, hidden: int, *, dropout: float = 0.0, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = GroupNorm1(width)
        self.mixer = Pooling(3)
        self.scale1 = nn.Parameter(torch.full((width,), self.LAYER_SCALE))
        self.norm2 = GroupNorm1(width)
        self.mlp = Mlp(width, hidden, drop=dropout, use_conv=True)
        self.scale2 = nn.Parameter(torch.full((width,), self.LAYER_SCALE))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Float[Tensor, "batch channel rows columns"]) -> Float[Tensor, "batch channel rows columns"]:
        """Return the new maps."""
        x = x + self.drop_path(self.scale1[:, None, None] * self.mixer(self.norm1(x)))
        return x + self.drop_path(self.scale2[:, None, None] * self.mlp(self.norm2(x)))


class UniFormerConv(nn.Module):
    """UniFormer's local block: position, a depthwise convolution in place of attention, a perceptron.

    Args:
        width: channels.
        hidden: hidden width of the perceptron.
        dropout: share of values dropped in the perceptron.
        drop_path: share of samples that skip a branch.
    """

    def __init__(self, width: int, hidden: int, *, dropout: float = 0.0, drop_path: float = 0.0) -> None:
        super().__init__()
        self.position = depthwise(width, 3)
        self.norm1 = BatchNorm2d(width)
        self.enter = nn.Conv2d(width, width, 1)
        self.local = depthwise(width, 5)
        self.leave = nn.Conv2d(width, width, 1)
        self.norm2 = BatchNorm2d(width)
        self.mlp = Mlp(width, hidden, drop=dropout, use_conv=True)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Float[Tensor, "batch channel rows columns"]) -> Float[Tensor, "batch channel rows columns"]:
        """Return the new maps."""
        x = x + self.position(x)
        x = x + self.drop_path(self.leave(self.local(self.enter(self.norm1(x)))))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class UniFormerAttention(nn.Module):
    """UniFormer's global block: position, attention over all cells, a perceptron.

    Args:
        width: channels, a multiple of 8.
        hidden: hidden width of the perceptron.
        dropout: share of values dropped in the perceptron and behind the attention.
        drop_path: share of samples that skip a branch.
    """

    LAYER_SCALE = 1e-6

    def __init__(self, width: int, hidden: int, *, dropout: float = 0.0, drop_path: float = 0.0) -> None:
        super().__init__()
        self.position = depthwise(width, 3)
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, HEADS, qkv_bias=True, proj_drop=dropout)
        self.scale1 = nn.Parameter(torch.full((width,), self.LAYER_SCALE))
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, hidden, drop=dropout)
        self.scale2 = nn.Parameter(torch.full((width,), self.LAYER_SCALE))
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Float[Tensor, "batch channel rows columns"]) -> Float[Tensor, "batch channel rows columns"]:
        """Return the new maps."""
        x = x + self.position(x)
        tokens = rearrange(x, "batch channel rows columns -> batch (rows columns) channel")
        tokens = tokens + self.drop_path(self.scale1 * self.attention(self.norm1(tokens)))
        tokens = tokens + self.drop_path(self.scale2 * self.mlp(self.norm2(tokens)))
        return rearrange(tokens, "batch (rows columns) channel -> batch channel rows columns", rows=x.shape[-2])
