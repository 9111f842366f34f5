"""The node models of GPD written down plainly, in library layers, and trained one node after the other.

This is what the package is timed against, and a second opinion on the recordings. Every layer is computed for every
node and step of an ego graph, as the formulas read, and each node has a module, an optimiser and a loader of its own.
Nothing is needlessly slow: windows are cut once, and batches are made by torch's own loader.

Modules carry the names of the original's state, so its weights load without translation.

Source: Yuan et al., "Spatio-Temporal Few-Shot Learning via Diffusive Neural Network Generation" (ICLR 2024) and the
behaviour of github.com/tsinghua-fib-lab/GPD, `meta_stgcn.py` and `meta_gwn.py`; written anew.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset


class PlainGate(nn.Module):
    """Three convolutions along time: two values added, one gate."""

    def __init__(self, before: int, after: int, kernel: int = 4) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (nn.Conv2d(before, after, (1, kernel), bias=False) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = x.permute(0, 3, 1, 2)
        out = F.relu(torch.sigmoid(self.conv3(x)) * (self.conv1(x) + self.conv2(x)))
        return out.permute(0, 2, 3, 1)


class PlainBlock(nn.Module):
    """Gate, mixing over the graph, gate."""

    def __init__(self, features: int, width: int, spatial: int) -> None:
        super().__init__()
        self.Theta1 = nn.Parameter(torch.empty(width, spatial).uniform_(-(spatial**-0.5), spatial**-0.5))
        self.temporal1 = PlainGate(features, width)
        self.temporal2 = PlainGate(spatial, width)

    def forward(self, x: Tensor, graph: Tensor) -> Tensor:
        mixed = torch.einsum("kj,bjtc->bktc", graph, self.temporal1(x))
        return self.temporal2(F.relu(mixed @ self.Theta1))


class PlainSTGCN(nn.Module):
    """v_STGCN5: forecasts of every node of an ego graph from (batch, node, time, feature)."""

    def __init__(
        self, features: int = 2, history: int = 12, horizon: int = 6, width: int = 32, spatial: int = 8
    ) -> None:
        super().__init__()
        self.block1 = PlainBlock(features, width, spatial)
        self.last_temporal = PlainGate(width, width)
        self.fully = nn.Linear((history - 9) * width, horizon, bias=False)
        nn.init.xavier_uniform_(self.fully.weight)

    def forward(self, x: Tensor, graph: Tensor) -> Tensor:
        out = self.last_temporal(self.block1(x, graph))
        return self.fully(out.reshape(out.shape[0], out.shape[1], -1))


class PlainMix(nn.Module):
    """A convolution over single positions under the original's name."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.mlp = nn.Conv2d(before, after, (1, 1), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.mlp(x)


class PlainDiffusion(nn.Module):
    """Diffusion of order two in both directions, then a convolution over what was gathered."""

    def __init__(self, before: int, after: int, dropout: float) -> None:
        super().__init__()
        self.mlp = PlainMix(5 * before, after)
        self.dropout = dropout

    def forward(self, x: Tensor, graph: Tensor) -> Tensor:
        gathered = [x]
        for support in (graph, graph.t()):
            once = torch.einsum("bcvt,vw->bcwt", x, support)
            gathered += [once, torch.einsum("bcvt,vw->bcwt", once, support)]
        return F.dropout(self.mlp(torch.cat(gathered, dim=1)), self.dropout, training=self.training)


class PlainGWN(nn.Module):
    """v_GWN: forecasts of every node of an ego graph from (batch, node, time, feature)."""

    def __init__(
        self, in_dim: int = 2, out_dim: int = 6, residual_channels: int = 32, dilation_channels: int = 32,
        skip_channels: int = 32, end_channels: int = 32, kernel_size: int = 2, blocks: int = 4, layers: int = 2,
        dropout: float = 0.2,
    ) -> None:  # fmt: skip
        super().__init__()
        dilations = [2**layer for _ in range(blocks) for layer in range(layers)]
        kernel, count = (1, kernel_size), len(dilations)

        def convolutions(before: int, after: int, shape: tuple[int, int]) -> nn.ModuleList:
            return nn.ModuleList(nn.Conv2d(before, after, shape, dilation=(1, d if shape == kernel else 1), bias=False)
                                 for d in dilations)  # fmt: skip

        self.filter_convs = convolutions(residual_channels, dilation_channels, kernel)
        self.gate_convs = convolutions(residual_channels, dilation_channels, kernel)
        self.residual_convs = convolutions(dilation_channels, residual_channels, (1, 1))
        self.skip_convs = convolutions(dilation_channels, skip_channels, (1, 1))
        self.bn = nn.ModuleList(nn.BatchNorm2d(residual_channels) for _ in range(count))
        self.gconv = nn.ModuleList(PlainDiffusion(dilation_channels, residual_channels, dropout) for _ in range(count))
        self.start_conv = nn.Conv2d(in_dim, residual_channels, (1, 1), bias=False)
        self.end_conv_1 = nn.Conv2d(skip_channels, end_channels, (1, 1), bias=False)
        self.end_conv_2 = nn.Conv2d(end_channels, out_dim, (1, 1), bias=False)
        self.receptive_field = 1 + (kernel_size - 1) * sum(dilations)

    def forward(self, x: Tensor, graph: Tensor) -> Tensor:
        x = x.permute(0, 3, 1, 2)
        x = self.start_conv(F.pad(x, (max(0, self.receptive_field - x.shape[3]), 0)))
        skip: Tensor | None = None
        for k in range(len(self.bn)):
            h = torch.tanh(self.filter_convs[k](x)) * torch.sigmoid(self.gate_convs[k](x))
            s = self.skip_convs[k](h)
            skip = s if skip is None else s + skip[..., -s.shape[3] :]
            x = self.bn[k](self.gconv[k](h, graph) + x[..., -h.shape[3] :])
        assert skip is not None
        out = self.end_conv_2(F.relu(self.end_conv_1(F.relu(skip))))
        return out[..., -1].transpose(1, 2)


def train_one_by_one(
    modules: Sequence[nn.Module],
    windows: Sequence[tuple[Tensor, Tensor]],
    graphs: Sequence[Tensor],
    centres: Sequence[int],
    scales: Sequence[tuple[float, float]],
    *,
    steps: int = 0,
    batch: int = 64,
    learning_rate: float = 1e-4,
    weight_decay: float = 1e-2,
    order: Tensor | None = None,
) -> None:
    """Train each module for an epoch on its own windows, one after the other.

    Args:
        modules: networks.
        windows: of each, inputs (window, ego, time, feature) and targets (window, horizon) of its centre, scaled.
        graphs: normalised adjacency of each ego graph.
        centres: position of each centre.
        scales: mean and deviation of the forecast quantity of each.
        steps: batches at most; 0 for the whole epoch.
        batch: windows per step.
        learning_rate: of Adam.
        weight_decay: of Adam, in the gradient.
        order: windows in the order of training; by default the loader shuffles them.
    """
    for module, (x, y), graph, centre, (mean, std) in zip(modules, windows, graphs, centres, scales, strict=True):
        module.train()
        optimiser = torch.optim.Adam(module.parameters(), lr=learning_rate, weight_decay=weight_decay)
        sampler = None if order is None else order.tolist()
        loader = DataLoader(TensorDataset(x, y), batch_size=batch, shuffle=sampler is None, sampler=sampler)
        for step, (some, target) in enumerate(loader):
            if steps and step >= steps:
                break
            forecast = module(some, graph)[:, centre]
            loss = F.mse_loss(forecast * std + mean, target * std + mean)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
