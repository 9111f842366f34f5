"""Cities cut from one graph: every node in one, of like size, in one piece where that is possible."""

from __future__ import annotations

import os

import numpy as np
import pytest

from stcore.errors import UserError
from stcore.generate.traffic import TrafficCity
from stcore.graph_partition import partition
from stcore.graphs import Adjacency, GraphSeries
from stcore.readers.graph_arrays import cells_of


def components(graph: Adjacency, nodes: np.ndarray) -> int:
    """Count the connected pieces of some nodes by repeated squaring of who reaches whom."""
    part = graph.take(nodes).dense()
    reach = ((part + part.T + np.eye(len(nodes))) > 0).astype(float)
    for _ in range(len(nodes)):
        wider = (reach @ reach > 0).astype(float)
        if np.array_equal(wider, reach):
            break
        reach = wider
    return len(np.unique(reach, axis=0))


@pytest.mark.parametrize("parts", [1, 2, 3, 5])
@pytest.mark.parametrize("graph", [cells_of(6, 7), TrafficCity.make(41, seed=2).adjacency], ids=["grid", "roads"])
def test_every_node_is_in_one_piece_and_sizes_differ_by_one(graph: Adjacency, parts: int) -> None:
    pieces = partition(graph, parts, seed=3)
    assert sorted(np.concatenate(pieces).tolist()) == list(range(graph.nodes)) and len(pieces) == parts
    sizes = [len(piece) for piece in pieces]
    assert max(sizes) - min(sizes) <= 1 and all((np.diff(piece) > 0).all() for piece in pieces)
    assert [components(graph, piece) for piece in pieces] == [1] * parts


def test_two_towns_joined_by_one_road_are_told_apart() -> None:
    joined = np.kron(np.eye(2), np.ones((6, 6)))
    joined[5, 6] = joined[6, 5] = 0.01
    order = np.random.default_rng(0).permutation(12)
    pieces = partition(Adjacency.from_dense(joined[np.ix_(order, order)]), 2)
    assert {frozenset((order[piece] // 6).tolist()) for piece in pieces} == {frozenset({0}), frozenset({1})}


def test_pieces_depend_on_graph_and_seed_only() -> None:
    graph = TrafficCity.make(60, seed=1).adjacency
    first = [piece.tolist() for piece in partition(graph, 4, seed=0)]
    assert first == [piece.tolist() for piece in partition(graph, 4, seed=0)]
    assert any(first != [piece.tolist() for piece in partition(graph, 4, seed=seed)] for seed in range(1, 6))


def test_a_star_cannot_be_cut_into_connected_halves_and_is_cut_all_the_same() -> None:
    star = Adjacency(np.array([[0] * 8, list(range(1, 9))]), np.ones(8), 9)
    for piece in partition(star, 2):
        assert components(star, piece) == 1  # a leaf, and all the rest


def test_lonely_nodes_and_graphs_without_edges_are_shared_out() -> None:
    pieces = partition(Adjacency.empty(7), 3)
    assert sorted(len(piece) for piece in pieces) == [2, 2, 3]
    lonely = Adjacency(np.array([[0, 1, 2], [1, 2, 3]]), np.ones(3), 6)
    assert sorted(np.concatenate(partition(lonely, 2)).tolist()) == list(range(6))
    for parts in (0, 8):
        with pytest.raises(UserError, match=f"parts: {parts}; expected 1 to 7"):
            partition(Adjacency.empty(7), parts)


@pytest.mark.skipif(not os.environ.get("STCORE_DATA"), reason="STCORE_DATA is not set: no published data here")
@pytest.mark.parametrize("name", ["metr_la_week", "beijing_subway"])
def test_published_networks_fall_into_cities(name: str) -> None:
    series = GraphSeries.read(name)
    pieces = partition(series.adjacency, 4)
    sizes = [len(piece) for piece in pieces]
    assert max(sizes) - min(sizes) <= 1 and sum(sizes) == series.num_nodes
    ties = series.adjacency.dense() * (1.0 - np.eye(series.num_nodes))
    kept = sum(ties[np.ix_(piece, piece)].sum() for piece in pieces) / ties.sum()
    assert kept > 0.75  # a random cut keeps a quarter of the weight
    lonely = int((series.adjacency.degrees() == 0).sum())
    assert sum(components(series.adjacency, piece) for piece in pieces) == 4 + lonely
