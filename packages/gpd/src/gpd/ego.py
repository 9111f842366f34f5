"""Ego graphs: a node with its neighbours, their normalised adjacency, and many of them padded to one size."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from stcore.graphs import Adjacency

SMALLEST_DEGREE = 1e-4
_LOG = logging.getLogger(__name__)


class Ego(NamedTuple):
    """The graph around one node."""

    nodes: NDArray[np.int64]
    """Numbers of its nodes in the city, rising."""
    centre: int
    """Position of the node itself among them."""
    graph: NDArray[np.float32]
    """Normalised adjacency (ego, ego)."""


class Egos(NamedTuple):
    """Several ego graphs, padded at the end to the largest."""

    nodes: Int64[Tensor, "node ego"]
    """Numbers in the city; beyond the end of an ego graph, its centre again."""
    graph: Float[Tensor, "node ego ego"]
    """Normalised adjacency; zeros beyond the end."""
    mask: Bool[Tensor, "node ego"]
    """Which positions exist."""
    centre: Int64[Tensor, " node"]
    """Position of the node itself."""

    def to(self, device: torch.device) -> Egos:
        """Return the same on another device."""
        return Egos(*(part.to(device) for part in self))


def normalise_adjacency(weights: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return (A + I) divided by the roots of the row sums of both ends, as single precision.

    The unit matrix is added also where the diagonal is there already, as in the original.

    Args:
        weights: (ego, ego) weights of 0 or more.

    >>> normalise_adjacency(np.array([[1.0, 0.0], [1.0, 0.0]])).round(3).tolist()
    [[1.0, 0.0], [0.5, 0.5]]
    """
    filled = weights.astype(np.float64) + np.eye(len(weights))
    degree = np.maximum(filled.sum(axis=1), SMALLEST_DEGREE)
    return (filled / np.sqrt(degree[:, None] * degree[None, :])).astype(np.float32)


def ego_graphs(adjacency: Adjacency, nodes: Sequence[int] | None = None) -> list[Ego]:
    """Return the ego graph of each of `nodes`, all by default.

    A node is always part of its own ego graph. The original leaves it out where the diagonal of the adjacency is zero,
    and then trains on all nodes of the ego graph at once.
    """
    chosen = range(adjacency.nodes) if nodes is None else nodes
    dense = adjacency.dense()
    linked = (dense != 0.0) | (dense != 0.0).T
    alone = [node for node in chosen if not linked[node, node]]
    if alone:
        _LOG.info("%d of %d nodes have no edge to themselves; they are part of their ego graphs all the same",
                  len(alone), len(chosen))  # fmt: skip
    return [_ego(dense, linked, node) for node in chosen]


def _ego(dense: NDArray[np.float64], linked: NDArray[np.bool_], node: int) -> Ego:
    around = linked[:, node].copy()
    around[node] = True
    members = np.flatnonzero(around).astype(np.int64)
    graph = normalise_adjacency(dense[np.ix_(members, members)])
    return Ego(members, int(np.searchsorted(members, node)), graph)


def pad_egos(egos: Sequence[Ego]) -> Egos:
    """Put ego graphs one above the other, padded to the largest."""
    size = max(len(ego.nodes) for ego in egos)
    nodes = np.stack([np.pad(ego.nodes, (0, size - len(ego.nodes)), constant_values=ego.nodes[ego.centre])
                      for ego in egos])  # fmt: skip
    graph = np.stack([np.pad(ego.graph, (0, size - len(ego.nodes))) for ego in egos])
    lengths = np.array([len(ego.nodes) for ego in egos])
    return Egos(
        torch.from_numpy(nodes),
        torch.from_numpy(graph),
        torch.from_numpy(np.arange(size) < lengths[:, None]),
        torch.tensor([ego.centre for ego in egos]),
    )
