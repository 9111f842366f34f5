"""Deep Graph Infomax (Veličković et al. 2019): an encoder learns to tell a city's nodes from shuffled ones.

One GraphSAGE encoder is trained on the source cities and applied to all, so that its outputs mean the same everywhere
and nothing of the target city is learned from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from jaxtyping import Float64
from numpy import ndarray
from torch import Tensor, nn

from gpd.prompts.cities import Cities
from gpd.prompts.configs import SpatialPromptConfig
from gpd.prompts.fitting import minimise, seeded
from gpd.prompts.geometric import geometric_nn
from gpd.prompts.structural import standardised_structure

STEPS = 10
"""Optimiser steps on each source city in an epoch."""


def graph_infomax_prompts(cities: Cities, config: SpatialPromptConfig, seed: int) -> Float64[ndarray, "row dim"]:
    """Return what the encoder makes of each node's structure and that of the nodes around it."""
    facts = torch.from_numpy(standardised_structure(cities)).float()
    graphs = [
        (facts[first : first + count], _edges(city.adjacency.edges))
        for first, count, city in zip(cities.offsets, cities.counts, cities.series, strict=True)
    ]
    with seeded(seed, "graph-infomax") as generator:
        encoder = _encoder(facts.shape[1], config.dim)
        infomax = geometric_nn().DeepGraphInfomax(
            config.dim, encoder, summary=_summary, corruption=_corruption(generator)
        )
        optimiser = torch.optim.Adam(infomax.parameters(), lr=config.learning_rate)
        losses = _losses(infomax, graphs[: cities.sources], config.epochs * STEPS)
        minimise(optimiser, losses, "spatial prompts")
        with torch.no_grad():
            return np.concatenate([infomax.encoder(*graph).double().numpy() for graph in graphs])


def _losses(infomax: Any, graphs: list[tuple[Tensor, Tensor]], steps: int) -> Iterator[Callable[[], Tensor]]:
    for _ in range(steps):
        for graph in graphs:
            yield lambda graph=graph: infomax.loss(*infomax(*graph))


def _encoder(facts: int, dim: int) -> nn.Module:
    geometric, call = geometric_nn(), "x, edges -> x"
    layers = [(geometric.SAGEConv(facts, dim), call), nn.PReLU(dim), (geometric.SAGEConv(dim, dim), call)]
    return geometric.Sequential("x, edges", layers)


def _summary(encoded: Tensor, *graph: Tensor) -> Tensor:
    return torch.sigmoid(encoded.mean(0))


def _corruption(generator: torch.Generator) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Return a function that deals the facts of nodes out to other nodes."""

    def shuffle(facts: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
        return facts[torch.randperm(len(facts), generator=generator)], edges

    return shuffle


def _edges(edges: np.ndarray) -> Tensor:
    """Return every edge in both directions, once, without those of a node to itself."""
    apart = edges[:, edges[0] != edges[1]]
    both = np.concatenate([apart, apart[::-1]], axis=1)
    return torch.from_numpy(np.unique(both, axis=1).astype(np.int64))
