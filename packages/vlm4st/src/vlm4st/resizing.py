"""From the grid of the data to that of the model, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from stcore.errors import UserError

Size = tuple[int, int]
_WHOLE = 1.0 - 1e-6


@dataclass(frozen=True, kw_only=True)
class Resizing:
    """How frames of one size become frames of another.

    `bilinear` stretches every frame (align_corners off, no anti-aliasing), as the original does; `pad` fills up below
    and to the right. Frames that fit already stay as they are.
    """

    kind: Literal["bilinear", "pad"]
    native: Size
    """Rows and columns of the data."""
    model: Size
    """Rows and columns that the model takes."""

    def __post_init__(self) -> None:
        if self.kind == "pad" and (self.native[0] > self.model[0] or self.native[1] > self.model[1]):
            raise UserError(
                f"data.resize: pad, frames of {_words(self.native)}; expected at most {_words(self.model)}, the grid "
                "of the model; pass --data.resize bilinear or a larger --model.H and --model.W"
            )

    @property
    def same(self) -> bool:
        """Whether there is nothing to do."""
        return self.native == self.model

    @property
    def pads(self) -> bool:
        """Whether there are cells that the data do not have."""
        return self.kind == "pad" and not self.same

    def to_model(self, frames: Float[Tensor, "*batch row column"], *, fill: float = 0.0) -> Tensor:
        """Return frames on the model's grid; cells that the data do not have become `fill`."""
        if self.same:
            return frames
        if self.kind == "pad":
            below, right = self.model[0] - self.native[0], self.model[1] - self.native[1]
            return F.pad(frames, (0, right, 0, below), value=fill)
        return _bilinear(frames, self.model)

    def to_native(self, frames: Float[Tensor, "*batch row column"]) -> Tensor:
        """Return frames on the grid of the data: stretched back, or cut."""
        if self.same:
            return frames
        if self.kind == "pad":
            return frames[..., : self.native[0], : self.native[1]]
        return _bilinear(frames, self.native)

    def mask_to_model(self, valid: Bool[Tensor, "*batch row column"]) -> Bool[Tensor, "*batch height width"]:
        """Return where a cell of the model is made of cells with data alone."""
        return self.to_model(valid.float(), fill=0.0) >= _WHOLE


def _bilinear(frames: Tensor, size: Size) -> Tensor:
    flat = frames.reshape(-1, 1, *frames.shape[-2:])
    resized = F.interpolate(flat, size=size, mode="bilinear", align_corners=False)
    return resized.reshape(*frames.shape[:-2], *size)


def _words(size: Size) -> str:
    return f"{size[0]} x {size[1]} (rows x columns)"


def largest(sizes: list[Size]) -> Size:
    """Return the rows and columns that hold frames of all `sizes`.

    >>> largest([(16, 8), (10, 20)])
    (16, 20)
    """
    return max(size[0] for size in sizes), max(size[1] for size in sizes)


def masked(
    values: Float[Tensor, "*batch row column"], fill: Tensor
) -> tuple[Tensor, Bool[Tensor, "*batch row column"]]:
    """Return values with `fill` in place of what is missing (NaN), and where nothing is."""
    known = ~values.isnan()
    return torch.where(known, values, fill), known
