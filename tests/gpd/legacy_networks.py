"""Networks pickled as the original pickles them, made here: classes of the original's names, with layers of torch.

The classes exist while a file is written only, so that whoever reads it must do without.
"""

from __future__ import annotations

import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

CHANNELS, BLOCKS, LAYERS, HORIZON, FEATURES = 4, 1, 2, 2, 2


@contextmanager
def classes() -> Generator[dict[str, Any]]:
    """Provide the original's modules and classes by name."""
    modules = {name: ModuleType(name) for name in ("Models", "Models.meta_gwn", "Models.meta_stgcn", "Elsewhere")}

    def made(module: str, name: str) -> type[nn.Module]:
        found = type(name, (nn.Module,), {"__module__": module})
        setattr(modules[module], name, found)
        return found

    gwn, stgcn = "Models.meta_gwn", "Models.meta_stgcn"
    names = {name: made(gwn, name) for name in ("v_GWN", "gcn", "linear")}
    names |= {name: made(stgcn, name) for name in ("STGCN_NonBias", "STGCNBlock", "TimeBlock")}
    names["Stranger"] = made("Elsewhere", "Stranger")
    sys.modules.update(modules)
    try:
        yield names
    finally:
        for name in modules:
            del sys.modules[name]


def gwn(known: dict[str, Any]) -> nn.Module:
    """Return a small v_GWN with random weights and running statistics."""
    net, count, width = known["v_GWN"](), BLOCKS * LAYERS, CHANNELS
    net.dropout, net.supports = 0.2, []

    def convolutions(source: int, kernel: int) -> nn.ModuleList:
        return nn.ModuleList(nn.Conv2d(source, width, (1, kernel), bias=False) for _ in range(count))

    net.filter_convs, net.gate_convs = convolutions(width, 2), convolutions(width, 2)
    net.residual_convs, net.skip_convs = convolutions(width, 1), convolutions(width, 1)
    net.bn = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(count))
    for norm in net.bn:
        norm(torch.randn(3, width, 2, 2))
    net.gconv = nn.ModuleList()
    for _ in range(count):
        outer, inner = known["gcn"](), known["linear"]()
        inner.mlp = nn.Conv2d(5 * width, width, (1, 1), bias=False)
        outer.mlp = inner
        net.gconv.append(outer)
    net.start_conv = nn.Conv2d(FEATURES, width, (1, 1), bias=False)
    net.end_conv_1 = nn.Conv2d(width, width, (1, 1), bias=False)
    net.end_conv_2 = nn.Conv2d(width, HORIZON, (1, 1), bias=False)
    return net


def stgcn(known: dict[str, Any]) -> nn.Module:
    """Return a small v_STGCN5 with random weights."""
    net, block = known["STGCN_NonBias"](), known["STGCNBlock"]()

    def gate(source: int) -> nn.Module:
        found = known["TimeBlock"]()
        for number in (1, 2, 3):
            setattr(found, f"conv{number}", nn.Conv2d(source, CHANNELS, (1, 2), bias=False))
        return found

    block.Theta1 = nn.Parameter(torch.randn(CHANNELS, 3))
    block.temporal1, block.temporal2 = gate(FEATURES), gate(3)
    net.block1, net.last_temporal = block, gate(CHANNELS)
    net.fully = nn.Linear(3 * CHANNELS, HORIZON, bias=False)
    return net


def save(net: nn.Module, path: Path) -> None:
    """Pickle a whole network."""
    torch.save(net, path)
