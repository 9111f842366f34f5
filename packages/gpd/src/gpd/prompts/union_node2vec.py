"""node2vec on the union of all cities (Grover and Leskovec 2016): nodes that walks meet together lie together.

torch_geometric's `Node2Vec` needs compiled extensions for its walks, so the walks are those of `gpd.prompts.walks`;
its loss, pairs within a context against pairs by chance, is the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float64, Int64
from numpy import ndarray
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from gpd.prompts.cities import Cities
from gpd.prompts.configs import SpatialPromptConfig
from gpd.prompts.fitting import minimise, seeded
from gpd.prompts.union import union_graph
from gpd.prompts.walks import WalkGraph, walk
from stcore.sampling import derive_seed

BATCH = 2048
"""Windows of walks in a step."""


def union_node2vec_prompts(cities: Cities, config: SpatialPromptConfig, seed: int) -> Float64[ndarray, "row dim"]:
    """Return the embeddings of all nodes."""
    graph = WalkGraph.of(union_graph(cities, config.neighbours))
    with seeded(seed, "union-node2vec") as generator:
        table = nn.Embedding(cities.total, config.dim, sparse=True)
        nn.init.normal_(table.weight, std=1.0 / math.sqrt(config.dim))
        optimiser = torch.optim.SparseAdam(list(table.parameters()), lr=config.learning_rate)
        minimise(optimiser, _losses(table, graph, config, seed, generator), "spatial prompts")
    return table.weight.detach().double().numpy()


def _losses(table: nn.Embedding, graph: WalkGraph, config: SpatialPromptConfig, seed: int, generator: torch.Generator
            ) -> Iterator[Callable[[], Tensor]]:  # fmt: skip
    for epoch in range(config.epochs):
        origins = np.repeat(np.arange(graph.nodes), config.walks)
        paths = walk(graph, origins, config.walk_length, p=config.p, q=config.q, seed=derive_seed(seed, epoch))
        windows = torch.from_numpy(context_windows(paths, config.context))
        for ids in torch.randperm(len(windows), generator=generator).split(BATCH):
            some = windows[ids]
            size = (len(some), config.negatives * (config.context - 1))
            chance = torch.randint(graph.nodes, size, generator=generator)
            yield lambda some=some, chance=chance: _contrast(table, some, chance)


def context_windows(paths: Int64[ndarray, "walk node"], context: int) -> Int64[ndarray, "window context"]:
    """Return every stretch of `context` nodes of every walk; the first node of each is paired with the others."""
    stretches = np.lib.stride_tricks.sliding_window_view(paths, context, axis=1)
    return stretches.reshape(-1, context).copy()


def _contrast(table: nn.Embedding, windows: Tensor, chance: Tensor) -> Tensor:
    centre, near, far = table(windows[:, 0]), table(windows[:, 1:]), table(chance)
    met = torch.einsum("wd,wcd->wc", centre, near)
    not_met = torch.einsum("wd,wcd->wc", centre, far)
    return -logsigmoid(met).mean() - logsigmoid(-not_met).mean()
