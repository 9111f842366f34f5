"""The translator: a stack of MetaFormer blocks over all frames at once, their channels side by side.

Source: SimVPv2 (Tan et al., arXiv 2211.12509), OpenSTL (Apache-2.0), `openstl/models/simvp_model.py::MetaBlock,
MidMetaNet`. Differs in: `drop_path = 0` switches stochastic depth off in every block (OpenSTL's first blocks then keep
a rate near 0.01; `legacy_drop_path` brings it back).
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stcore.errors import UserError
from stcore.torchvision_ops import prepare_timm
from svq.models.configs import SimVPConfig
from svq.models.convolutional import ConvMixerBlock, HorNetBlock, MogaNetBlock
from svq.models.gated import GatedBlock
from svq.models.incepu import IncepU
from svq.models.tokens import (
    HEADS,
    PoolFormerBlock,
    SwinBlock,
    Tokens,
    UniFormerAttention,
    UniFormerConv,
    swin_window,
)

prepare_timm()  # before timm

from timm.models.convnext import ConvNeXtBlock  # noqa: E402
from timm.models.mlp_mixer import MixerBlock  # noqa: E402
from timm.models.vision_transformer import Block as TransformerBlock  # noqa: E402

FIRST_RATE = 0.01
"""Stochastic depth of OpenSTL's first block."""
EIGHTHS = ("hornet", "moganet", "swin", "vit", "uniformer")
"""Translators whose widths are divided by 8: by heads, or by orders."""


def window_of(config: SimVPConfig, rows: int) -> int:
    """Return of what the rows and columns of latent frames have to be multiples."""
    return swin_window(rows) if config.translator == "swin" else 1


def drop_path_rates(config: SimVPConfig) -> list[float]:
    """Return the rate of stochastic depth of each block, rising to `drop_path`.

    >>> drop_path_rates(SimVPConfig(depth_temporal=3, drop_path=0.2))
    [0.0, 0.1, 0.2]
    """
    first = FIRST_RATE if config.legacy_drop_path else 0.0
    step = (config.drop_path - first) / (config.depth_temporal - 1)
    rates = [first + step * i for i in range(config.depth_temporal)]
    return [*rates[:-1], config.drop_path]


def make_translator(config: SimVPConfig, channels: int, rows: int, columns: int) -> nn.Module:
    """Make the translator of a model.

    Args:
        config: its sizes.
        channels: frames × channels of a latent frame.
        rows: of a latent frame.
        columns: of a latent frame.

    Raises:
        UserError: widths that the blocks cannot divide.
    """
    if config.translator == "incepu":
        return IncepU(channels, config.hid_temporal, config.depth_temporal)
    return MetaFormer(config, channels, rows, columns)


class _Stage(nn.Module):
    """A block, and a 1×1 convolution where its successor is wider or narrower."""

    def __init__(self, block: nn.Module, width: int, outputs: int) -> None:
        super().__init__()
        self.block = block
        self.reduction = nn.Conv2d(width, outputs, 1) if width != outputs else nn.Identity()

    def forward(self, x: Float[Tensor, "batch channel rows columns"]) -> Float[Tensor, "batch filter rows columns"]:
        return self.reduction(self.block(x))


class MetaFormer(nn.Module):
    """Blocks of one kind: the first at the width of the frames, all others at that of the translator.

    Args:
        config: sizes of the model.
        channels: frames × channels of a latent frame.
        rows: of a latent frame.
        columns: of a latent frame.
    """

    def __init__(self, config: SimVPConfig, channels: int, rows: int, columns: int) -> None:
        super().__init__()
        last = config.depth_temporal - 1
        stages: list[_Stage] = []
        for i, rate in enumerate(drop_path_rates(config)):
            width = config.hid_temporal if i else channels
            outputs = channels if i == last else config.hid_temporal
            block = _make_block(config, i, width, outputs, (rows, columns), rate)
            _initialise(block, config.translator)
            stages.append(_Stage(block, width, outputs))
        self.stages = nn.ModuleList(stages)

    def forward(self, x: Float[Tensor, "batch channel rows columns"]) -> Float[Tensor, "batch channel rows columns"]:
        """Return the latent frames of the future, all channels of all frames side by side."""
        for stage in self.stages:
            x = stage(x)
        return x


def _make_block(
    config: SimVPConfig, index: int, width: int, outputs: int, size: tuple[int, int], drop_path: float
) -> nn.Module:
    kind, hidden, dropout = config.translator, int(width * config.mlp_ratio), config.dropout
    _require_divisible(kind, width)
    match kind:
        case "gsta" | "tau" | "van":
            return GatedBlock(width, hidden, gate=kind, dropout=dropout, drop_path=drop_path)
        case "convmixer":
            return ConvMixerBlock(width)
        case "convnext":
            return ConvNeXtBlock(width, mlp_ratio=config.mlp_ratio, conv_mlp=True, drop_path=drop_path)
        case "hornet":
            return HorNetBlock(width, hidden, drop_path=drop_path)
        case "moganet":
            return MogaNetBlock(width, hidden, dropout=dropout, drop_path=drop_path)
        case "poolformer":
            return PoolFormerBlock(width, hidden, dropout=dropout, drop_path=drop_path)
        case "mlp-mixer":
            ratios = (0.5, config.mlp_ratio)
            return Tokens(MixerBlock(width, size[0] * size[1], mlp_ratio=ratios, drop=dropout, drop_path=drop_path))
        case "swin":
            window = swin_window(size[0])
            shift = window // 2 if index % 2 else 0
            return SwinBlock(width, hidden, window=window, shift=shift, dropout=dropout, drop_path=drop_path)
        case "vit":
            # timm's own LayerNorm has another epsilon than torch's.
            return Tokens(TransformerBlock(width, HEADS, mlp_ratio=config.mlp_ratio, qkv_bias=True, proj_drop=dropout,
                                           drop_path=drop_path, norm_layer=nn.LayerNorm))  # fmt: skip
        case "uniformer":
            form = UniFormerAttention if index and width == outputs else UniFormerConv
            return form(width, hidden, dropout=dropout, drop_path=drop_path)
        case _:
            raise UserError(f"model.translator: {kind!r}; expected a MetaFormer")


def _require_divisible(kind: str, width: int) -> None:
    if kind in EIGHTHS and width % 8:
        raise UserError(f"model: {kind} on {width} channels; expected multiples of 8 for frames × hid-spatial and for "
                        "hid-temporal")  # fmt: skip


def _initialise(block: nn.Module, kind: str) -> None:
    """Draw the first weights: convolutions by what they feed (He), linear layers narrowly; biases are zero."""
    for part in block.modules():
        if isinstance(part, nn.Conv2d) and kind != "poolformer":
            fan_out = math.prod(part.kernel_size) * part.out_channels // part.groups
            nn.init.normal_(part.weight, std=math.sqrt(2.0 / fan_out))
        elif isinstance(part, nn.Conv2d | nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
        else:
            continue
        if part.bias is not None:
            with torch.no_grad():
                part.bias.zero_()
