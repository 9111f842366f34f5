"""All cities as one graph: their own edges, and edges between nodes of different cities that have similar days.

Embeddings that are trained on each city alone agree only up to a rotation, and say nothing across cities. Here the
edges between cities tie them together.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray
from scipy import sparse

from gpd.prompts.cities import Cities
from gpd.prompts.profile import daily_profile
from gpd.prompts.structural import Sparse


def similar_nodes(cities: Cities, neighbours: int) -> tuple[Int64[ndarray, "row near"], Float64[ndarray, "row near"]]:
    """Return the nodes of other cities whose daily profiles are nearest in angle, and the cosines; nearest first.

    A node has fewer where the other cities have fewer; with a single city there are none.
    """
    profiles = np.concatenate([daily_profile(city) for city in cities.series])
    size = np.linalg.norm(profiles, axis=1, keepdims=True)
    unit = profiles / np.where(size > 0.0, size, 1.0)
    city = cities.city_of_row
    cosine = np.where(city[:, None] == city, -np.inf, unit @ unit.T)
    fewest = min(cities.total - count for count in cities.counts)
    near = np.argsort(-cosine, axis=1, kind="stable")[:, : min(neighbours, fewest)]
    return near, np.take_along_axis(cosine, near, axis=1)


def union_graph(cities: Cities, neighbours: int) -> Sparse:
    """Return the symmetric weights between all nodes: those of a city over its largest, cosines between cities."""
    blocks = [_own_edges(city.adjacency.edges, city.adjacency.weights, city.num_nodes) for city in cities.series]
    near, cosine = similar_nodes(cities, neighbours)
    rows = np.repeat(np.arange(cities.total), near.shape[1])
    similar = cosine.reshape(-1)
    kept = similar > 0.0
    shape = (cities.total, cities.total)
    across = sparse.csr_array((similar[kept], (rows[kept], near.reshape(-1)[kept])), shape=shape)
    return (sparse.block_diag(blocks, format="csr") + across.maximum(across.T)).tocsr()


def _own_edges(edges: Int64[ndarray, "2 edge"], weights: Float64[ndarray, " edge"], nodes: int) -> Sparse:
    apart = edges[0] != edges[1]
    largest = weights[apart].max() if apart.any() else 1.0
    matrix = sparse.csr_array((weights[apart] / largest, (edges[0, apart], edges[1, apart])), shape=(nodes, nodes))
    return matrix.maximum(matrix.T).tocsr()
