"""Cut one graph into connected pieces of like size, to be cities of their own."""

from __future__ import annotations

import numpy as np
from jaxtyping import Int64
from numpy import ndarray
from numpy.typing import NDArray

from stcore.errors import UserError
from stcore.graphs import Adjacency
from stcore.sampling import derive_seed


def partition(adjacency: Adjacency, parts: int, seed: int = 0) -> list[Int64[ndarray, "node"]]:
    """Return the nodes of each of `parts` pieces, rising; every node is in one.

    Pieces grow at once from nodes far apart, the smallest first, each time to the free node that most weight ties to
    it; what is left without a way goes to the smallest. Then larger pieces hand nodes at their border, with what hangs
    on them, to smaller ones. Pieces of a connected graph are connected, and as alike in size as that lets them be.

    Raises:
        UserError: fewer nodes than parts.

    >>> line = Adjacency.from_dense(np.eye(6, k=1))
    >>> [piece.tolist() for piece in partition(line, 2)]
    [[0, 1, 2], [3, 4, 5]]
    """
    if not 1 <= parts <= adjacency.nodes:
        raise UserError(f"parts: {parts}; expected 1 to {adjacency.nodes}, the nodes of the graph")
    ties = adjacency.dense()
    ties = ties + ties.T
    np.fill_diagonal(ties, 0.0)
    rng = np.random.default_rng(derive_seed(seed, "partition"))
    piece = _grown(ties, _centres(ties, parts, rng))
    piece = _levelled(ties, piece, parts)
    pieces = [np.flatnonzero(piece == number).astype(np.int64) for number in range(parts)]
    return sorted(pieces, key=lambda nodes: int(nodes[0]))


def _hops(ties: NDArray[np.float64], start: int) -> NDArray[np.int64]:
    """Return steps from `start` to each node; the number of nodes where there is no way."""
    away = np.full(len(ties), len(ties), dtype=np.int64)
    front = np.array([start])
    away[front], distance = 0, 0
    while front.size:
        distance += 1
        reached = (ties[front] > 0.0).any(axis=0) & (away == len(ties))
        front = np.flatnonzero(reached)
        away[front] = distance
    return away


def _centres(ties: NDArray[np.float64], parts: int, rng: np.random.Generator) -> list[int]:
    """Return nodes far from one another: each the furthest from those before it."""
    order = rng.permutation(len(ties))  # decides between nodes that are equally far
    first = int(order[0])
    far = _hops(ties, first)
    # The furthest within reach of the first, so that a lone node is no centre while there is a better one.
    start = int(order[np.argmax(np.where(far < len(ties), far, -1)[order])])
    centres, nearest = [start], _hops(ties, start)
    while len(centres) < parts:
        score = np.where(ties.any(axis=1), nearest, 0.5)
        score = np.where(np.isin(np.arange(len(ties)), centres), -1.0, score)
        centres.append(int(order[np.argmax(score[order])]))
        nearest = np.minimum(nearest, _hops(ties, centres[-1]))
    return centres


def _grown(ties: NDArray[np.float64], centres: list[int]) -> NDArray[np.int64]:
    piece = np.full(len(ties), -1, dtype=np.int64)
    piece[centres] = np.arange(len(centres))
    pull = ties[centres].copy()
    while (free := piece < 0).any():
        sizes = np.bincount(piece[~free], minlength=len(centres))
        reach = np.where(free, pull, 0.0).max(axis=1) > 0.0
        able = np.flatnonzero(reach) if reach.any() else np.arange(len(centres))
        chosen = int(able[np.argmin(sizes[able])])
        node = int(np.argmax(np.where(free, pull[chosen], -1.0)))
        piece[node] = chosen
        pull[chosen] += ties[node]
    return piece


def _levelled(ties: NDArray[np.float64], piece: NDArray[np.int64], parts: int) -> NDArray[np.int64]:
    """Hand nodes, with what hangs on them, from larger to smaller pieces; every move brings the sizes closer."""
    while (move := _next_move(ties, piece, np.bincount(piece, minlength=parts))) is not None:
        nodes, target = move
        piece[nodes] = target
    while np.ptp(np.bincount(piece, minlength=parts)) > 1 and (moved := _along_chain(ties, piece, parts)) is not None:
        piece = moved
    return piece


def _next_move(
    ties: NDArray[np.float64], piece: NDArray[np.int64], sizes: NDArray[np.int64]
) -> tuple[NDArray[np.int64], int] | None:
    """Return nodes to hand over and the piece that gets them: from the pair of pieces that differ most, the fewest."""
    differences = sizes[:, None] - sizes
    for pair in np.argsort(-differences, axis=None, kind="stable").tolist():
        source, target = divmod(pair, len(sizes))
        if differences[source, target] < 2:
            return None
        nodes = _to_hand_over(ties, piece, source, target, most=int(differences[source, target]) - 1)
        if nodes.size:
            return nodes, target
    return None


def _along_chain(ties: NDArray[np.float64], piece: NDArray[np.int64], parts: int) -> NDArray[np.int64] | None:
    """Move one node along each link of a chain of touching pieces from the largest to the smallest, if that can be."""
    sizes = np.bincount(piece, minlength=parts)
    member = np.eye(parts)[piece]
    touching = (member.T @ ties @ member) > 0.0
    away = _hops(touching.astype(np.float64), int(sizes.argmin()))
    moved, source = piece.copy(), int(sizes.argmax())
    while away[source] > 0:
        closer = np.flatnonzero(touching[source] & (away < away[source]))
        if not closer.size:
            return None
        nodes = _to_hand_over(ties, moved, source, int(closer[0]), most=1)
        if not nodes.size:
            return None
        moved[nodes] = source = int(closer[0])
    return moved


def _to_hand_over(
    ties: NDArray[np.float64], piece: NDArray[np.int64], source: int, target: int, *, most: int
) -> NDArray[np.int64]:
    """Return a node of one piece that touches another, or is tied to nothing, with what would be cut off without it:
    the fewest nodes, and of as few those that belong most to the other. None where more than `most` would have to go.
    """
    mine = np.flatnonzero(piece == source)
    inner, outward = ties[np.ix_(mine, mine)], ties[mine][:, piece == target].sum(axis=1)
    able = np.flatnonzero((outward > 0.0) | ~inner.any(axis=1))
    best: tuple[int, float, NDArray[np.int64]] | None = None
    for place in able.tolist():
        cut_off = _cut_off(inner, place)
        gain = float(outward[cut_off].sum() - inner[cut_off].sum())
        if len(cut_off) <= most and (best is None or (len(cut_off), -gain) < (best[0], -best[1])):
            best = (len(cut_off), gain, mine[cut_off])
    return np.zeros(0, np.int64) if best is None else best[2]


def _cut_off(inner: NDArray[np.float64], place: int) -> NDArray[np.int64]:
    """Return a node and all that is tied to the rest of its piece through it alone: all but the largest remainder."""
    rest = inner.copy()
    rest[place], rest[:, place] = 0.0, 0.0
    left = np.flatnonzero(_hops(inner, place) < len(inner))
    remainders: list[NDArray[np.int64]] = []
    left = left[left != place]
    while left.size:
        reached = np.flatnonzero(_hops(rest, int(left[0])) < len(inner))
        remainders.append(reached)
        left = np.setdiff1d(left, reached)
    remainders.sort(key=len)
    return np.concatenate([np.array([place], np.int64), *remainders[:-1]]).astype(np.int64)
