"""Dilated depthwise convolutions: the same sums as the library's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from svq.models.depthwise import DilatedDepthwise, depthwise


@pytest.mark.parametrize(("kernel", "dilation"), [(7, 3), (5, 2), (3, 4)])
@pytest.mark.parametrize("sides", [(16, 32), (7, 10), (2, 1)])
def test_dilated_kernels_give_the_sums_of_the_library(kernel: int, dilation: int, sides: tuple[int, int]) -> None:
    torch.manual_seed(0)
    ours = depthwise(6, kernel, dilation)
    library = nn.Conv2d(6, 6, kernel, padding=dilation * (kernel // 2), dilation=dilation, groups=6)
    library.load_state_dict(ours.state_dict())
    found: list[list[torch.Tensor]] = []
    for module in (ours, library):
        x = torch.randn(2, 6, *sides, generator=torch.Generator().manual_seed(1)).requires_grad_()
        y = module(x)
        slope = torch.linspace(-1.0, 1.0, y.numel()).reshape(y.shape)
        found.append([y.detach(), *torch.autograd.grad(y, [x, *module.parameters()], slope)])
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-5)


def test_kernels_without_dilation_are_the_library_itself() -> None:
    assert type(depthwise(4, 5)) is nn.Conv2d
    assert type(depthwise(4, 5, 2)) is DilatedDepthwise
