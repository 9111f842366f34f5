"""The place of a node in its road network, in facts that mean the same in every city.

Degrees, clustering, core number, PageRank and weights, each free of the units of the edges' weights, and the
probabilities that a random walk is back where it began (Dwivedi et al. 2022). Edges from a node to itself do not
count: some graphs come with them and some without.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray
from numpy.typing import NDArray
from scipy import sparse

from gpd.prompts.cities import Cities
from gpd.prompts.configs import SpatialPromptConfig
from gpd.prompts.scaling import fitted, standardise
from stcore.graphs import Adjacency

FACTS = (
    "out-degree", "in-degree", "out-strength", "in-strength", "clustering", "core", "pagerank", "neighbour degree",
    "mean weight", "largest weight",
)  # fmt: skip
RETURNS = 16
"""Longest walk whose return is looked at."""
CHUNK = 512
"""Nodes whose walks are followed at once."""
DAMPING = 0.85
"""Share of the steps of PageRank that follow an edge."""

Sparse = Any
"""A `scipy.sparse.csr_array`; its type says too little about what operators return."""


def structural_prompts(cities: Cities, config: SpatialPromptConfig, seed: int) -> Float64[ndarray, "row dim"]:
    """Return the prompts of all nodes; nothing about them is random."""
    return fitted(standardised_structure(cities), config.dim)


def standardised_structure(cities: Cities) -> Float64[ndarray, "row fact"]:
    """Return the facts about all nodes, centred and scaled by the source cities."""
    facts = np.concatenate([structure(city.adjacency) for city in cities.series])
    return standardise(facts, cities.source_rows)


def structure(adjacency: Adjacency) -> Float64[ndarray, "node fact"]:
    """Return `FACTS` and the return probabilities after 1 to 16 steps for each node."""
    weighted = _without_loops(adjacency)
    links = (weighted != 0).astype(np.float64).tocsr()
    mean_weight = float(weighted.data.mean()) if weighted.nnz else 1.0
    around = links.maximum(links.T).tocsr()
    degree = _sums(around, 1)
    strength = [_sums(weighted, axis) / mean_weight for axis in (1, 0)]
    links_of_node = np.maximum(_sums(links, 1) + _sums(links, 0), 1.0)
    largest = np.maximum(*(weighted.max(axis=axis).toarray().reshape(-1) for axis in (1, 0))) / mean_weight
    columns = [
        np.log1p(_sums(links, 1)), np.log1p(_sums(links, 0)), np.log1p(strength[0]), np.log1p(strength[1]),
        clustering(around), np.log1p(core_numbers(around)), np.log(pagerank(weighted) * adjacency.nodes),
        np.log1p((around @ degree) / np.maximum(degree, 1.0)), (strength[0] + strength[1]) / links_of_node, largest,
    ]  # fmt: skip
    return np.column_stack([*columns, return_probabilities(around)])


def clustering(around: Sparse) -> Float64[ndarray, " node"]:
    """Return the share of pairs of a node's neighbours that are neighbours, for a symmetric graph of zeros and ones."""
    degree = _sums(around, 1)
    triangles = _sums((around @ around).multiply(around).tocsr(), 1)
    return triangles / np.maximum(degree * (degree - 1.0), 1.0)


def core_numbers(around: Sparse) -> Float64[ndarray, " node"]:
    """Return the largest k for which a node is in a part where all have k neighbours inside (Seidman 1983)."""
    core = np.zeros(around.shape[0])
    left = np.ones(around.shape[0], dtype=bool)
    k = 0
    while left.any():
        inside = around @ left.astype(np.float64)
        gone = left & (inside <= k)
        if gone.any():
            core[gone] = k
            left &= ~gone
        else:
            k += 1
    return core


def pagerank(weighted: Sparse, steps: int = 100) -> Float64[ndarray, " node"]:
    """Return the share of time that a walk along the edges, restarted now and then, spends at each node."""
    nodes = weighted.shape[0]
    out = _sums(weighted, 1)
    ends = out <= 0.0
    forward = (sparse.diags_array(np.where(ends, 0.0, 1.0 / np.where(ends, 1.0, out))) @ weighted).T.tocsr()
    rank = np.full(nodes, 1.0 / nodes)
    for _ in range(steps):
        rank = DAMPING * (forward @ rank + rank[ends].sum() / nodes) + (1.0 - DAMPING) / nodes
    return rank


def return_probabilities(around: Sparse) -> Float64[ndarray, "node step"]:
    """Return how likely a walk from each node, every edge alike, is back after 1 to 16 steps.

    The same as torch_geometric's `AddRandomWalkPE`, whose import would take longer than everything else here.
    """
    nodes, degree = around.shape[0], _sums(around, 1)
    back = (sparse.diags_array(1.0 / np.maximum(degree, 1.0)) @ around).T.tocsr()
    found = np.empty((nodes, RETURNS))
    for first in range(0, nodes, CHUNK):
        origins = np.arange(first, min(first + CHUNK, nodes))
        walkers = np.zeros((nodes, len(origins)))
        walkers[origins, np.arange(len(origins))] = 1.0
        for step in range(RETURNS):
            walkers = back @ walkers
            found[origins, step] = walkers[origins, np.arange(len(origins))]
    return found


def _without_loops(adjacency: Adjacency) -> Sparse:
    origin, to = adjacency.edges
    keep = (origin != to) & (adjacency.weights != 0.0)
    shape = (adjacency.nodes, adjacency.nodes)
    return sparse.csr_array((adjacency.weights[keep], (origin[keep], to[keep])), shape=shape)


def _sums(matrix: Sparse, axis: int) -> NDArray[np.float64]:
    return np.asarray(matrix.sum(axis=axis), dtype=np.float64).reshape(-1)
