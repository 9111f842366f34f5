"""The graph of a series: from files of weights, edges or distances, or built from positions or from the series."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stcore.errors import UserError
from stcore.graphs import Adjacency
from stcore.readers import limits
from stcore.readers.graph_arrays import read_matrix
from stcore.readers.graph_options import GraphReadOptions
from stcore.readers.graph_raw import Edges, Graph, Matrix
from stcore.readers.graph_tables import TABLE_ENDINGS, read_graph_table
from stcore.readers.limits import short, shown
from stcore.readers.pickles import read_plain_pickle

PICKLE_ENDINGS = (".pkl", ".pickle")
GRAPH_ENDINGS = (*TABLE_ENDINGS, ".npy", ".npz", *PICKLE_ENDINGS)

_EARTH_METRES = 6_371_008.8


def read_graph_file(path: Path, options: GraphReadOptions) -> Graph:
    """Read a file of weights or edges.

    Raises:
        UserError: an ending that is not known, or the file is not what it must be.
    """
    ending = path.suffix.lower()
    if ending in TABLE_ENDINGS:
        return read_graph_table(path, options.max_bytes)
    if ending in (".npy", ".npz"):
        return read_matrix(path, options)
    if ending in PICKLE_ENDINGS:
        return read_pickled_graph(path, max_bytes=options.max_bytes)
    limits.require_file(path, "a graph")
    raise UserError(f"{shown(path)}: unknown ending {short(ending)}; expected one of {', '.join(GRAPH_ENDINGS)}")


def read_pickled_graph(path: Path, *, max_bytes: int = 0) -> Matrix:
    """Read the graph file of DCRNN: (names of sensors, their numbers, matrix), as `gen_adj_mx.py` there writes it; or a
    matrix alone.

    Raises:
        UserError: it asks for anything but plain data, or holds something else.
    """
    found = read_plain_pickle(path, max_bytes=max_bytes, what="a graph")
    where = shown(path)
    if isinstance(found, np.ndarray):
        return Matrix(where=where, values=found)
    if not isinstance(found, (tuple, list)) or len(found) != 3 or not isinstance(found[2], np.ndarray):
        raise UserError(f"{where}: a {type(found).__name__} of {short(found)}; expected sensors, their numbers "
                        "and a matrix, as DCRNN has them")  # fmt: skip
    names, numbers, matrix = found
    ids = tuple(_word(name) for name in names)
    if (
        isinstance(numbers, dict)
        and numbers
        and {_word(name): number for name, number in numbers.items()}
        != {name: number for number, name in enumerate(ids)}
    ):
        raise UserError(f"{where}: sensor names and their numbers differ; expected one order of sensors")
    return Matrix(where=where, values=matrix, ids=ids)


def _word(name: Any) -> str:
    return name.decode("latin-1") if isinstance(name, bytes) else str(name)


def to_adjacency(graph: Graph, nodes: tuple[str, ...], options: GraphReadOptions) -> Adjacency:
    """Return the graph between `nodes`, in their order; rows and columns of a file that names its nodes are reordered.

    Raises:
        UserError: it does not fit the nodes, or a weight is negative or not finite; the message names the place.
    """
    if isinstance(graph, Edges):
        return _from_edges(graph, nodes, options)
    if isinstance(graph, Adjacency):
        return _binary(graph, options)
    matrix = graph.values
    if matrix.dtype.kind not in "iufb":
        raise UserError(f"{graph.where}: matrix of {matrix.dtype}; expected real numbers")
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise UserError(f"{graph.where}: matrix of shape {matrix.shape}; expected a square one")
    if graph.ids and set(nodes) <= set(graph.ids) and len(graph.ids) == len(matrix):
        place = {name: number for number, name in enumerate(graph.ids)}
        order = [place[name] for name in nodes]
        matrix = matrix[np.ix_(order, order)]
    elif graph.ids and len(graph.ids) == len(matrix) and set(nodes) & set(graph.ids):
        lost = next(name for name in nodes if name not in set(graph.ids))
        raise UserError(f"{graph.where}: node {short(lost)} of the series is not in it; expected every node")
    if len(matrix) != len(nodes):
        raise UserError(f"{graph.where}: matrix of {len(matrix)} nodes for a series of {len(nodes)}; expected as many")
    try:
        if options.weights == "kernel":
            start, end = np.nonzero(np.isfinite(matrix) & (matrix > 0.0))
            kernel = _kernel(matrix[start, end].astype(np.float64), options.cutoff)
            return Adjacency(np.stack([start, end]).astype(np.int64), kernel, len(nodes))
        return _binary(Adjacency.from_dense(matrix), options)
    except UserError as error:
        raise UserError(str(error).replace("adjacency: ", f"{graph.where}: ", 1)) from error


def _binary(graph: Adjacency, options: GraphReadOptions) -> Adjacency:
    return Adjacency(graph.edges, np.ones(len(graph.weights)), graph.nodes) if options.weights == "binary" else graph


def _from_edges(graph: Edges, nodes: tuple[str, ...], options: GraphReadOptions) -> Adjacency:
    place = _places(graph, nodes)
    for number, name in enumerate((*graph.start, *graph.end)):
        if name not in place:
            raise UserError(f"{graph.where}: edge {number % len(graph.start) + 1} names node {short(name)}, which the "
                            f"series does not have; expected one of its {len(nodes)} nodes")  # fmt: skip
    edges = np.array([[place[name] for name in graph.start], [place[name] for name in graph.end]], dtype=np.int64)
    numbers = np.ones(edges.shape[1]) if graph.numbers is None or options.weights == "binary" else graph.numbers
    if (wrong := np.flatnonzero(~np.isfinite(numbers) | (numbers < 0.0))).size:
        at = int(wrong[0])
        raise UserError(f"{graph.where}: edge {graph.start[at]} to {graph.end[at]} has {numbers[at]:g}; expected "
                        "numbers of 0 or more")  # fmt: skip
    if options.weights == "kernel" or (options.weights == "auto" and graph.lengths):
        numbers = _kernel(numbers, options.cutoff)
    try:
        return Adjacency(*_merged(edges, numbers, len(nodes)), len(nodes))
    except UserError as error:
        raise UserError(str(error).replace("adjacency: ", f"{graph.where}: ", 1)) from error


def _places(graph: Edges, nodes: tuple[str, ...]) -> dict[str, int]:
    """Return the number of each name an edge may use: names of nodes, or their numbers where no edge uses names."""
    named = {name: number for number, name in enumerate(nodes)}
    used = {*graph.start, *graph.end}
    numbered = {str(number): number for number in range(len(nodes))}
    return named if used & (set(named) - set(numbered)) or not used <= set(numbered) else numbered


def _merged(
    edges: NDArray[np.int64], numbers: NDArray[np.float64], nodes: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return each edge once; of equal ones, those with equal numbers are one (both directions of a street)."""
    rows = np.unique(np.stack([edges[0] * nodes + edges[1], numbers]), axis=1)
    codes = rows[0].astype(np.int64)
    return np.stack([codes // nodes, codes % nodes]), rows[1]


def _kernel(lengths: NDArray[np.float64], cutoff: float) -> NDArray[np.float64]:
    """Return exp(-(d / deviation)²) of distances, 0 below the cutoff; the deviation is that of all distances.

    Source: Li et al., "Diffusion Convolutional Recurrent Neural Network", ICLR 2018, section 4.1.
    """
    spread = float(lengths.std()) if lengths.size else 1.0
    weights = np.exp(-np.square(lengths / (spread or float(lengths.max(initial=0.0)) or 1.0)))
    return np.where(weights >= cutoff, weights, 0.0)


def by_distance(points: NDArray[np.float64], *, degrees: bool, options: GraphReadOptions) -> Adjacency:
    """Join each node with its nearest ones, both ways, weighted by a kernel of the distance; and with itself."""
    away = distances(points, degrees=degrees)
    near = _nearest(-away, options.neighbours)
    lengths = away[near]
    spread = float(lengths.std()) if lengths.size else 1.0
    weights = np.exp(-np.square(away / (spread or float(lengths.max(initial=0.0)) or 1.0)))
    kept = np.where(near & (weights >= options.cutoff), weights, 0.0)
    np.fill_diagonal(kept, 1.0)
    return Adjacency.from_dense(kept)


def distances(points: NDArray[np.float64], *, degrees: bool) -> NDArray[np.float64]:
    """Return the distance of each pair of points: metres on the globe where they are degrees of longitude and latitude.

    >>> round(float(distances(np.array([[0.0, 0.0], [0.0, 1.0]]), degrees=True)[0, 1]))
    111195
    """
    if not degrees:
        return np.sqrt(np.square(points[:, None] - points[None]).sum(axis=2))
    longitude, latitude = np.deg2rad(points).T
    half = np.sin((latitude[:, None] - latitude) / 2.0) ** 2
    half = half + np.cos(latitude[:, None]) * np.cos(latitude) * np.sin((longitude[:, None] - longitude) / 2.0) ** 2
    return 2.0 * _EARTH_METRES * np.arcsin(np.sqrt(np.clip(half, 0.0, 1.0)))


def by_correlation(values: NDArray[Any], options: GraphReadOptions, *, period: int = 1) -> Adjacency:
    """Join each node with those whose readings go along with its own most, both ways; and with itself.

    Readings are taken as deviations from the mean of their time of day, since a common daily course makes all nodes
    alike. Only the share `options.graph_share` of the series is looked at.

    Args:
        values: readings of one channel (time, node); NaN where there is none.
        options: number of neighbours, cutoff and share.
        period: steps of a day; 1 where they are not known.
    """
    low, high = (round(share * len(values)) for share in options.graph_share)
    alike = correlations(_deviations(values[low : max(high, low + 2)].astype(np.float64), period))
    np.fill_diagonal(alike, -1.0)
    near = _nearest(alike, options.neighbours)
    kept = np.where(near & (alike >= max(options.cutoff, 1e-12)), alike, 0.0)
    np.fill_diagonal(kept, 1.0)
    return Adjacency.from_dense(kept)


def _deviations(values: NDArray[np.float64], period: int) -> NDArray[np.float64]:
    out = np.empty_like(values)
    for start in range(min(period, len(values))):  # one time of day after the other
        known = np.isfinite(values[start::period])
        mean = np.where(known, values[start::period], 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
        out[start::period] = values[start::period] - mean
    return out


def correlations(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the correlation of each pair of columns over the rows that both have; 0 where there is none."""
    known = np.isfinite(values).astype(np.float64)
    filled = np.where(known > 0.0, values, 0.0)
    filled = np.where(known > 0.0, filled - filled.sum(axis=0) / np.maximum(known.sum(axis=0), 1.0), 0.0)
    squares = np.square(filled)
    scale = np.sqrt((squares.T @ known) * (known.T @ squares))
    return np.where(scale > 0.0, (filled.T @ filled) / np.where(scale > 0.0, scale, 1.0), 0.0)


def _nearest(score: NDArray[np.float64], count: int) -> NDArray[np.bool_]:
    """Return the pairs of which one is among the `count` best of the other, itself not counted."""
    ranked = score.copy()
    np.fill_diagonal(ranked, -np.inf)
    count = min(count, len(score) - 1)
    best = np.argsort(-ranked, axis=1, kind="stable")[:, :count]
    near = np.zeros(score.shape, np.bool_)
    np.put_along_axis(near, best, values=True, axis=1)
    return near | near.T
