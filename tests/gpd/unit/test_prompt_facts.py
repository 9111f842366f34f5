"""Facts about graphs and series: against what they are by definition, and what they must not depend on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from prompt_cities import city, with_values
from scipy import sparse

from gpd.prompts.cities import Cities
from gpd.prompts.profile import BANDS, HOURS, LAGS, QUANTILES, behaviour, daily_profile
from gpd.prompts.scaling import LIMIT, balanced, fitted, principal, standardise
from gpd.prompts.structural import FACTS, RETURNS, clustering, core_numbers, pagerank, return_probabilities, structure
from stcore.graphs import Adjacency, GraphSeries

# A triangle 0 1 2 with a tail 2 3 4, and 5 by itself.
KITE = np.zeros((6, 6))
for one, other in ((0, 1), (0, 2), (1, 2), (2, 3), (3, 4)):
    KITE[one, other] = KITE[other, one] = 1.0

# Columns of `behaviour`.
SHARE = 3 * HOURS
LAG = slice(SHARE + 1, SHARE + 1 + len(LAGS))
BAND = slice(LAG.stop, LAG.stop + len(BANDS) - 1)
QUANTILE = slice(BAND.stop, BAND.stop + len(QUANTILES))
MISSING, LEVEL = QUANTILE.stop, slice(QUANTILE.stop + 1, None)


def kite() -> sparse.csr_array:
    return sparse.csr_array(KITE)


def test_a_triangle_with_a_tail() -> None:
    np.testing.assert_allclose(clustering(kite()), [1.0, 1.0, 1 / 3, 0.0, 0.0, 0.0])
    np.testing.assert_array_equal(core_numbers(kite()), [2, 2, 2, 1, 1, 0])
    facts = dict(zip(FACTS, structure(Adjacency.from_dense(3.0 * KITE)).T, strict=False))
    np.testing.assert_allclose(np.expm1(facts["out-degree"]), [2, 2, 3, 2, 1, 0])
    np.testing.assert_allclose(np.expm1(facts["in-strength"]), [2, 2, 3, 2, 1, 0])
    np.testing.assert_allclose(np.expm1(facts["neighbour degree"]), [2.5, 2.5, 2, 2, 2, 0])
    np.testing.assert_allclose(facts["mean weight"], [1, 1, 1, 1, 1, 0])
    np.testing.assert_allclose(facts["largest weight"], [1, 1, 1, 1, 1, 0])


def test_directions_of_edges_are_told_apart() -> None:
    facts = dict(zip(FACTS, structure(Adjacency.from_dense([[0, 2, 4], [0, 0, 0], [0, 0, 0]])).T, strict=False))
    np.testing.assert_allclose(np.expm1(facts["out-degree"]), [2, 0, 0])
    np.testing.assert_allclose(np.expm1(facts["in-degree"]), [0, 1, 1])
    np.testing.assert_allclose(np.expm1(facts["in-strength"]), [0, 2 / 3, 4 / 3])
    np.testing.assert_allclose(facts["largest weight"], [4 / 3, 2 / 3, 4 / 3])


def test_pagerank_is_the_fixed_point_of_its_equation() -> None:
    weights = np.random.default_rng(0).random((8, 8)) * (np.random.default_rng(1).random((8, 8)) < 0.4)
    weights[3] = 0.0  # nowhere to go: on to any node
    rank = pagerank(sparse.csr_array(weights))
    out = weights.sum(1, keepdims=True)
    move = np.where(out > 0, weights / np.where(out > 0, out, 1.0), 1 / 8)
    np.testing.assert_allclose(rank, 0.85 * rank @ move + 0.15 / 8, atol=1e-6)
    assert rank.sum() == pytest.approx(1.0)


def test_return_probabilities_are_those_of_torch_geometric() -> None:
    from gpd.prompts.geometric import geometric_nn

    geometric_nn()
    from torch_geometric.data import Data
    from torch_geometric.transforms import AddRandomWalkPE

    edges = torch.from_numpy(np.stack(np.nonzero(KITE)))
    theirs = AddRandomWalkPE(RETURNS)(Data(edge_index=edges, num_nodes=6)).random_walk_pe
    np.testing.assert_allclose(return_probabilities(kite()), theirs.numpy(), atol=1e-6)


def test_structure_ignores_units_of_weights_loops_and_the_order_of_nodes() -> None:
    graph = city("a").adjacency
    facts = structure(graph)
    np.testing.assert_allclose(structure(Adjacency(graph.edges, 1000.0 * graph.weights, graph.nodes)), facts)
    looped = graph.dense() + np.eye(graph.nodes)
    np.testing.assert_allclose(structure(Adjacency.from_dense(looped)), facts)
    order = np.random.default_rng(0).permutation(graph.nodes)
    np.testing.assert_allclose(structure(graph.take(order)), facts[order], atol=1e-12)


def test_a_graph_without_edges_has_finite_structure() -> None:
    facts = structure(Adjacency.empty(3))
    assert facts.shape == (3, len(FACTS) + RETURNS)
    np.testing.assert_array_equal(facts, 0.0)  # PageRank is 1/3 each: log 1


def test_a_day_means_the_same_at_any_step() -> None:
    city_fine, city_coarse = (city("a", step=step, days=7, noise=0.0) for step in (300, 3600))
    means = city_fine.values.reshape(-1, 12, 12, 1).mean(1)
    fine, coarse = behaviour(city_fine), behaviour(with_values(city_coarse, means))
    for part in (slice(0, HOURS), LAG):
        np.testing.assert_allclose(fine[:, part], coarse[:, part], atol=0.05)


def test_correlations_are_by_the_clock_across_closed_nights() -> None:
    whole = city("a", nodes=2, days=5, step=1800)
    night = whole.step_of_day() < 12
    open_ = replace(whole, values=whole.values[~night], times=whole.times[~night])  # pyright: ignore[reportOptionalSubscript]
    found = behaviour(open_)[:, LAG]
    values = whole.values[:, :, 0].astype(np.float64).copy()
    values[night] = np.nan
    values = (values - np.nanmean(values, 0)) / np.nanstd(values, 0)
    for place, hours in enumerate(LAGS):
        expected = np.nanmean(values[: -2 * hours] * values[2 * hours :], axis=0)
        np.testing.assert_allclose(found[:, place], np.clip(expected, -1, 1), atol=1e-6)


def test_power_lies_in_the_band_of_the_wave_and_is_open_beyond_what_the_step_shows() -> None:
    base = city("a", nodes=2, days=3)
    wave = np.cos(2 * np.pi * 5 * np.arange(72) / 24)
    bands = np.exp(behaviour(with_values(base, np.stack([wave, 2 * wave + 7], 1)[..., None]))[:, BAND])
    np.testing.assert_allclose(bands[:, BANDS.index(5)], 1.0, atol=1e-5)
    np.testing.assert_allclose(bands[:, : BANDS.index(5)], 0.0, atol=1e-5)
    assert np.isnan(bands[:, BANDS.index(18) :]).all()  # beyond 12 cycles a day


def test_quantiles_missing_readings_and_levels() -> None:
    base = city("a", nodes=3)
    values = base.values.copy()
    values[:48, 0] = np.nan
    found = behaviour(with_values(base, values), native_level=True)
    series = values[:, :, 0].astype(np.float64)
    scaled = (series - np.nanmean(series, 0)) / np.nanstd(series, 0)
    np.testing.assert_allclose(found[:, QUANTILE], np.nanquantile(scaled, QUANTILES, axis=0).T, atol=1e-6)
    np.testing.assert_allclose(found[:, MISSING], [0.5, 0.0, 0.0])
    np.testing.assert_allclose(found[:, LEVEL], np.stack([np.nanmean(series, 0), np.nanstd(series, 0)], 1), rtol=1e-6)
    relative = behaviour(base)[:, LEVEL]
    np.testing.assert_allclose(behaviour(with_values(base, 100 * base.values))[:, LEVEL], relative, rtol=1e-4)


def test_a_weekend_is_open_until_it_was_seen() -> None:
    change = slice(2 * HOURS, 3 * HOURS)
    assert np.isnan(behaviour(city("a", days=4))[:, change]).all()
    week = city("a", days=7, noise=0.0)
    values = week.values + 5.0 * (week.day_of_week() >= 5)[:, None, None]
    found = behaviour(with_values(week, values))[:, change]
    deviation = values[:, :, 0].std(0)
    np.testing.assert_allclose(found, np.broadcast_to(5.0 / deviation[:, None], found.shape), rtol=1e-4)


def test_series_without_a_clock_or_with_a_step_of_a_week_are_described_by_what_is_left() -> None:
    values = np.random.default_rng(0).normal(size=(50, 2, 1))
    for step in (None, 7 * 86_400):
        series = GraphSeries(values=values, adjacency=Adjacency.empty(2), step_seconds=step)
        known = np.isfinite(behaviour(series)).all(0)
        assert known[QUANTILE].all()
        assert known[MISSING:].all()
        assert not known[BAND].any()
    np.testing.assert_array_equal(daily_profile(GraphSeries(values=values, adjacency=Adjacency.empty(2))), 0.0)


def test_statistics_come_from_source_rows_alone() -> None:
    facts = np.random.default_rng(0).normal(3.0, 2.0, size=(10, 4))
    facts[2, 1], facts[:7, 3] = np.nan, 5.0
    scaled = standardise(facts, 7)
    np.testing.assert_allclose(np.delete(scaled[:7, :2], 2, axis=0)[:, 0].mean() * 6 + scaled[2, 0], 0.0, atol=1e-12)
    np.testing.assert_allclose(scaled[:7, 0].std(), 1.0)
    assert scaled[2, 1] == 0.0
    np.testing.assert_array_equal(scaled[:, 3], 0.0)  # the same for all sources
    changed = facts.copy()
    changed[7:] += 1e6
    other = standardise(changed, 7)
    np.testing.assert_array_equal(other[:7], scaled[:7])
    assert np.abs(other).max() == LIMIT


def test_principal_components_are_of_the_sources_and_keep_their_distances() -> None:
    values = np.random.default_rng(0).normal(size=(12, 5))
    turned = principal(values, 9, 5)
    gaps = np.linalg.norm(values[:, None] - values, axis=2)
    np.testing.assert_allclose(np.linalg.norm(turned[:, None] - turned, axis=2), gaps, atol=1e-9)
    covariance = turned[:9].T @ turned[:9]
    np.testing.assert_allclose(covariance - np.diag(np.diag(covariance)), 0.0, atol=1e-9)
    assert (np.diff(np.diag(covariance)) <= 0).all()
    changed = np.concatenate([values[:9], values[9:] * 50])
    np.testing.assert_allclose(principal(changed, 9, 5)[:9], turned[:9])
    assert principal(values, 9, 2).shape == (12, 2)


def test_vectors_are_brought_to_a_size_with_little_loss() -> None:
    values = np.random.default_rng(0).normal(size=(6, 40))
    padded = fitted(values, 64)
    np.testing.assert_array_equal(padded[:, :40], values)
    np.testing.assert_array_equal(padded[:, 40:], 0.0)
    one, two = fitted(values, 16), fitted(values, 16)
    np.testing.assert_array_equal(one, two)
    assert np.linalg.norm(one) == pytest.approx(np.linalg.norm(values), rel=0.2)
    scaled = balanced(values, 4)
    assert float((scaled[:4] ** 2).mean()) == pytest.approx(1.0, rel=1e-5)
    np.testing.assert_array_equal(balanced(np.zeros((3, 2)), 3), 0.0)


def test_cities_are_put_in_order() -> None:
    one, two, target = city("a", nodes=4), city("b", nodes=5), city("t", nodes=6)
    cities = Cities.gather([one, two], target)
    assert (cities.counts, cities.offsets, cities.total, cities.source_rows) == ([4, 5, 6], [0, 4, 9], 15, 9)
    assert cities.names()[0] == ("a",) * 4 + ("b",) * 5 + ("t",) * 6
    assert cities.city_of_row.tolist() == [0] * 4 + [1] * 5 + [2] * 6
