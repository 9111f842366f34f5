"""Random walks of node2vec on a weighted graph, all at once (Grover and Leskovec 2016).

From `cur`, reached from `prev`, a walk goes on to x with a probability in proportion to the weight of the edge times
1/p if x is `prev`, 1 if `prev` has an edge to x, and 1/q otherwise. All candidates of all walkers are laid out in one
flat array and drawn from by one search in their cumulated weights, so the law is exact and nothing is padded.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray
from numpy.typing import NDArray

from stcore.sampling import random_stream

CANDIDATES = 1 << 22
"""Candidates that are laid out at once: about 100 MB."""


@dataclass(frozen=True, eq=False)
class WalkGraph:
    """Edges by the node they leave, sorted."""

    starts: Int64[ndarray, "bound"]
    """First edge of each node, and behind the last of all."""
    ends: Int64[ndarray, "edge"]
    """Node that each edge enters."""
    weights: Float64[ndarray, "edge"]
    keys: Int64[ndarray, "edge"]
    """Origin times nodes plus end: rising, to ask whether there is an edge."""

    @classmethod
    def of(cls, weighted: Any) -> WalkGraph:
        """Take the positive entries of a sparse matrix (csr), rows leaving and columns entering."""
        matrix = weighted.tocsr().sorted_indices()
        starts, ends = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64)
        origin = np.repeat(np.arange(matrix.shape[0], dtype=np.int64), np.diff(starts))
        return cls(starts, ends, matrix.data.astype(np.float64), origin * matrix.shape[0] + ends)

    @property
    def nodes(self) -> int:
        return len(self.starts) - 1


def walk(
    graph: WalkGraph, origins: NDArray[np.int64], length: int, *, p: float = 1.0, q: float = 1.0, seed: int
) -> Int64[ndarray, "walker node"]:
    """Walk from each of `origins`.

    Args:
        graph: where.
        origins: first node of each walk.
        length: nodes in a walk, the first included.
        p: large values keep a walk from going straight back.
        q: large values keep a walk near where it came from.
        seed: the same seed gives the same walks.

    Returns:
        The nodes of each walk; a walk that can go nowhere stays where it is.
    """
    random = random_stream(seed, "walks")
    path = np.empty((len(origins), length), dtype=np.int64)
    path[:, 0] = origins
    for step in range(1, length):
        before = path[:, step - 2] if step > 1 and (p, q) != (1.0, 1.0) else None
        draws = random.random(len(origins))
        for part in _parts(graph, path[:, step - 1]):
            prev = None if before is None else before[part]
            path[part, step] = _step(graph, path[part, step - 1], prev, draws[part], p, q)
    return path


def _parts(graph: WalkGraph, current: NDArray[np.int64]) -> list[slice]:
    """Cut the walkers so that no part has more than `CANDIDATES` edges to look at, unless one walker has."""
    degrees = graph.starts[current + 1] - graph.starts[current]
    number = np.cumsum(degrees) // CANDIDATES
    bounds = [0, *(np.flatnonzero(np.diff(number)) + 1).tolist(), len(current)]
    return [slice(first, end) for first, end in pairwise(bounds)]


def _step(graph: WalkGraph, current: NDArray[np.int64], before: NDArray[np.int64] | None, draws: NDArray[np.float64],
          p: float, q: float) -> NDArray[np.int64]:  # fmt: skip
    degrees = graph.starts[current + 1] - graph.starts[current]
    behind = np.cumsum(degrees)
    walker = np.repeat(np.arange(len(current)), degrees)
    edge = np.arange(len(walker)) + (graph.starts[current] - behind + degrees)[walker]
    weight = graph.weights[edge]
    if before is not None:
        weight = weight * _bias(graph, before[walker], graph.ends[edge], p, q)
    total = np.concatenate([[0.0], np.cumsum(weight)])
    low, high = total[behind - degrees], total[behind]
    drawn = np.searchsorted(total, low + draws * (high - low), side="right") - 1
    # Rounding may reach the next walker's first candidate.
    drawn = np.clip(drawn, behind - degrees, np.maximum(behind - 1, 0))
    stuck = degrees == 0
    return np.where(stuck, current, graph.ends[edge[np.where(stuck, 0, drawn)]] if len(edge) else current)


def _bias(graph: WalkGraph, before: NDArray[np.int64], candidate: NDArray[np.int64], p: float, q: float
          ) -> NDArray[np.float64]:  # fmt: skip
    key = before * graph.nodes + candidate
    place = np.minimum(np.searchsorted(graph.keys, key), len(graph.keys) - 1)
    near = graph.keys[place] == key
    return np.where(candidate == before, 1.0 / p, np.where(near, 1.0, 1.0 / q))
