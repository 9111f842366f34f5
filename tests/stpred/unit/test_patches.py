"""Patches: where each pixel goes, and what is refused."""

from __future__ import annotations

import pytest
import torch

from stcore.errors import UserError
from stpred.patches import reshape_patch, reshape_patch_back


def test_channel_runs_fastest() -> None:
    frames = torch.arange(2 * 3 * 2 * 6 * 4.0).view(2, 3, 2, 6, 4)
    patches = reshape_patch(frames, 2)
    assert patches.shape == (2, 3, 8, 3, 2)
    for dy in range(2):
        for dx in range(2):
            for channel in range(2):
                expected = frames[:, :, channel, dy::2, dx::2]
                assert torch.equal(patches[:, :, (dy * 2 + dx) * 2 + channel], expected)


def test_inverse_is_exact_for_any_number_of_leading_axes() -> None:
    for shape in ((2, 3, 1, 8, 12), (4, 3, 8, 12)):
        frames = torch.rand(shape)
        assert torch.equal(reshape_patch_back(reshape_patch(frames, 4), 4), frames)


def test_patches_of_one_pixel_are_the_frames_themselves() -> None:
    frames = torch.rand(1, 2, 3, 4, 5)
    assert reshape_patch(frames, 1) is frames and reshape_patch_back(frames, 1) is frames


@pytest.mark.parametrize("patch", [0, 3, 5])
def test_patch_that_does_not_fit_is_refused(patch: int) -> None:
    with pytest.raises(UserError, match=f"patch: {patch} on frames of 8 x 10; expected a divisor"):
        reshape_patch(torch.rand(1, 1, 1, 8, 10), patch)


def test_channels_that_are_no_whole_patches_are_refused() -> None:
    with pytest.raises(UserError, match="patch: 2 on 6 channels"):
        reshape_patch_back(torch.rand(1, 1, 6, 4, 4), 2)
