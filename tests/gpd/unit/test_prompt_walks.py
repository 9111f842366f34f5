"""Walks follow the law of node2vec, and the graphs they walk on are those of all cities."""

from __future__ import annotations

import numpy as np
import pytest
from prompt_cities import city, kinds
from scipy import sparse

from gpd.prompts import walks
from gpd.prompts.cities import Cities
from gpd.prompts.configs import SpatialPromptConfig
from gpd.prompts.union import similar_nodes, union_graph
from gpd.prompts.union_node2vec import context_windows
from gpd.prompts.walks import WalkGraph, walk

WEIGHTS = np.array(
    [
        [0.0, 1.0, 2.0, 0.0, 0.0],
        [1.0, 0.0, 1.0, 3.0, 0.0],
        [2.0, 1.0, 0.0, 0.0, 0.0],
        [0.0, 3.0, 0.0, 0.0, 0.0],
        [0.0, 0.0, 0.0, 0.0, 0.0],
    ]
)
"""0, 1, 2 are a triangle, 3 hangs on 1, and 4 is alone."""


def graph() -> WalkGraph:
    return WalkGraph.of(sparse.csr_array(WEIGHTS))


def law(before: int, current: int, p: float, q: float) -> np.ndarray:
    """Return the probabilities of the next node as the paper defines them."""
    bias = [1 / p if node == before else 1.0 if WEIGHTS[before, node] else 1 / q for node in range(5)]
    weight = WEIGHTS[current] * bias
    return weight / weight.sum()


@pytest.mark.parametrize(("p", "q"), [(1.0, 1.0), (0.25, 4.0), (8.0, 0.5)])
def test_every_step_follows_the_law(p: float, q: float) -> None:
    paths = walk(graph(), np.zeros(20_000, np.int64), 6, p=p, q=q, seed=3)
    first = np.bincount(paths[:, 1], minlength=5) / len(paths)
    np.testing.assert_allclose(first, [0, 1 / 3, 2 / 3, 0, 0], atol=0.015)
    steps = np.lib.stride_tricks.sliding_window_view(paths, 3, axis=1).reshape(-1, 3)
    for before, current in ((0, 1), (3, 1), (1, 2), (1, 0), (2, 1)):
        after = steps[(steps[:, 0] == before) & (steps[:, 1] == current), 2]
        expected = law(before, current, p, q)
        spread = np.sqrt(expected * (1 - expected) / len(after))
        found = np.bincount(after, minlength=5) / len(after)
        assert (np.abs(found - expected) <= 4.5 * spread).all(), (before, current, found, expected)


def test_walks_are_those_of_their_seed_and_stay_where_there_is_no_way() -> None:
    origins = np.array([0, 4, 3, 4])
    one, two = walk(graph(), origins, 10, q=2.0, seed=1), walk(graph(), origins, 10, q=2.0, seed=1)
    np.testing.assert_array_equal(one, two)
    assert (
        walk(graph(), np.zeros(50, np.int64), 10, seed=2) != walk(graph(), np.zeros(50, np.int64), 10, seed=1)
    ).any()
    np.testing.assert_array_equal(one[[1, 3]], 4)
    assert (WEIGHTS[one[[0, 2], :-1], one[[0, 2], 1:]] > 0).all()


def test_walks_do_not_depend_on_how_they_are_cut_to_fit_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    origins = np.repeat(np.arange(5), 40)
    whole = walk(graph(), origins, 8, p=0.5, q=3.0, seed=5)
    monkeypatch.setattr(walks, "CANDIDATES", 7)
    np.testing.assert_array_equal(walk(graph(), origins, 8, p=0.5, q=3.0, seed=5), whole)


def test_a_graph_without_edges_can_be_walked_on() -> None:
    empty = WalkGraph.of(sparse.csr_array((3, 3)))
    np.testing.assert_array_equal(walk(empty, np.arange(3), 4, p=2.0, seed=0), np.arange(3)[:, None].repeat(4, 1))


def test_windows_are_every_stretch_of_a_walk() -> None:
    windows = context_windows(np.arange(10).reshape(2, 5), 3)
    assert windows.tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [5, 6, 7], [6, 7, 8], [7, 8, 9]]


def test_edges_between_cities_join_similar_days_only() -> None:
    cities = [city("a"), city("b", seed=1, step=1800), city("t", seed=2, days=2)]
    gathered, kind = Cities.gather(cities[:2], cities[2]), kinds(cities)
    near, cosine = similar_nodes(gathered, 4)
    assert (gathered.city_of_row[near] != gathered.city_of_row[:, None]).all()
    assert (kind[near] == kind[:, None]).all()
    assert (np.diff(cosine, axis=1) <= 0).all()
    union = union_graph(gathered, 4).toarray()
    np.testing.assert_array_equal(union, union.T)
    own = cities[0].adjacency.dense()
    np.testing.assert_allclose(union[:12, :12], np.maximum(own, own.T) / own.max())
    assert union[12:24, 12:24].max() == 1.0


def test_a_single_city_has_no_edges_to_others() -> None:
    near, _ = similar_nodes(Cities.gather([city("a")], None), 5)
    assert near.shape == (12, 0)
    assert union_graph(Cities.gather([city("a")], None), SpatialPromptConfig().neighbours).shape == (12, 12)
