"""Frames cut into square patches that become channels, and back.

Channel `(dy * patch + dx) * channels + c` of the result holds pixel `(patch * y + dy, patch * x + dx)` of channel `c`:
the channel runs fastest. `torch.nn.functional.pixel_unshuffle` orders its channels the other way round
(`c * patch**2 + dy * patch + dx`); the two agree for one channel only.

Source: dreaming-coder/Spatiotemporal-Prediction (MIT), `reshape_patch`, `reshape_patch_back`; OpenSTL (Apache-2.0) has
the same map on tensors with the channels last, so that its weights need no permutation.
"""

from __future__ import annotations

from einops import rearrange
from jaxtyping import Shaped
from torch import Tensor

from stcore.errors import UserError


def reshape_patch(
    frames: Shaped[Tensor, "*batch channel height width"], patch: int
) -> Shaped[Tensor, "*batch patched_channel rows columns"]:
    """Turn patches of `patch` x `patch` pixels into channels.

    Args:
        frames: `(batch, time, channel, height, width)`, or `(batch, channel, height, width)`.
        patch: side of a patch, a divisor of height and width; 1 returns the frames themselves.

    Raises:
        UserError: the patch does not divide the frame.

    >>> import torch
    >>> reshape_patch(torch.arange(8.0).view(1, 2, 2, 2), 2).flatten().tolist()
    [0.0, 4.0, 1.0, 5.0, 2.0, 6.0, 3.0, 7.0]
    """
    height, width = frames.shape[-2:]
    if patch < 1 or height % patch or width % patch:
        raise UserError(f"patch: {patch} on frames of {height} x {width}; expected a divisor of height and width")
    if patch == 1:
        return frames
    return rearrange(frames, "... c (y dy) (x dx) -> ... (dy dx c) y x", dy=patch, dx=patch)


def reshape_patch_back(
    patches: Shaped[Tensor, "*batch patched_channel rows columns"], patch: int
) -> Shaped[Tensor, "*batch channel height width"]:
    """Undo `reshape_patch` exactly.

    Raises:
        UserError: the channels are no whole number of patches.

    >>> import torch
    >>> frames = torch.rand(1, 3, 2, 4, 6)
    >>> bool((reshape_patch_back(reshape_patch(frames, 2), 2) == frames).all())
    True
    """
    if patch < 1 or patches.shape[-3] % patch**2:
        raise UserError(f"patch: {patch} on {patches.shape[-3]} channels; expected channels to be a multiple of patch²")
    if patch == 1:
        return patches
    return rearrange(patches, "... (dy dx c) y x -> ... c (y dy) (x dx)", dy=patch, dx=patch)
