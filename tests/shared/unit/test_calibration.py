"""Coverage, ranks, the integral transform and reliability, on cases with a known answer."""

from __future__ import annotations

import math

import numpy as np
import torch

from stcore.metrics import calibration
from stcore.metrics.calibration import LEVELS, LevelMap, covered_below, covering_level, shortest_interval
from stcore.metrics.density import density_at, fit_kernel, leave_one_out

NOMINAL = torch.tensor(LEVELS, dtype=torch.float64)


def _draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).exponential(size=shape))


def test_a_perfect_forecaster_covers_each_level_as_often_as_it_says():
    samples, truth = _draw(40000, 19), _draw(40000, seed=1)
    observed = calibration.coverage(calibration.covered_below(samples, truth, NOMINAL))
    np.testing.assert_allclose(observed, NOMINAL, atol=0.01)  # four standard errors; few samples leave no bias
    assert float(calibration.calibration_score(observed, NOMINAL)) < 0.006


def test_ranks_of_locations_cover_without_bias_and_with_the_own_kernel_they_would_not():
    drawn = torch.randn(700, 60, 2, generator=torch.Generator().manual_seed(0))
    samples, truth = calibration.stand_in(drawn)
    kernel = fit_kernel(samples)
    at_truth = density_at(kernel, truth[:, None])[:, 0]
    honest = calibration.coverage(calibration.covered_by_rank(leave_one_out(kernel), at_truth, NOMINAL))
    np.testing.assert_allclose(honest, NOMINAL, atol=0.06)
    vouched = calibration.coverage(calibration.covered_by_rank(density_at(kernel, samples), at_truth, NOMINAL))
    assert bool((vouched < honest).all())
    assert float(vouched[0]) < 0.45


def test_calibration_score_by_hand():
    covered = torch.tensor([[True, True], [False, True]])
    observed = calibration.coverage(covered)
    assert observed.tolist() == [0.5, 1.0]
    score = calibration.calibration_score(observed, torch.tensor([0.5, 0.9], dtype=torch.float64))
    np.testing.assert_allclose(score, 0.05)


def test_pit_interval_counts_samples_below_and_ties():
    samples = torch.tensor([[1.0, 2.0, 2.0, 5.0], [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, torch.nan, 4.0]])
    low, high = calibration.pit_interval(samples, torch.tensor([2.0, 9.0, 2.0]))
    np.testing.assert_allclose(low, [0.2, 0.8, torch.nan])
    np.testing.assert_allclose(high, [0.8, 1.0, torch.nan])


def test_pit_histogram_is_flat_for_a_perfect_forecaster_even_with_many_ties():
    samples, truth = calibration.stand_in(torch.floor(3.0 * _draw(20000, 10)))
    counts = calibration.pit_histogram(*calibration.pit_interval(samples, truth), bins=5)
    np.testing.assert_allclose(counts.sum(), 20000.0)
    np.testing.assert_allclose(counts, 4000.0, rtol=0.03)


def test_pit_coverage_of_one_interval():
    levels = torch.tensor([0.1, 0.3, 0.5, 0.9], dtype=torch.float64)
    low, high = torch.tensor([0.2], dtype=torch.float64), torch.tensor([0.6], dtype=torch.float64)
    np.testing.assert_allclose(calibration.pit_coverage(low, high, levels), [0.0, 0.25, 0.75, 1.0])


def test_confidence_bins_are_open_below_and_closed_above():
    found = calibration.confidence_bin(torch.tensor([0.0, 0.05, 0.1, 0.1000001, 0.5, 0.95, 1.0], dtype=torch.float64))
    assert found.tolist() == [0, 0, 0, 1, 4, 9, 9]


def test_reliability_with_empty_bins_by_hand():
    bins = calibration.reliability(torch.tensor([0.95, 0.95, 0.55]), torch.tensor([True, False, True]))
    assert bins.count.tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 0, 2]
    assert bins.correct.tolist() == [0, 0, 0, 0, 0, 1, 0, 0, 0, 1]
    np.testing.assert_allclose(bins.ece, (0.45 + 2 * 0.45) / 3, rtol=1e-6)
    assert math.isnan(float(bins.accuracy[0])) and math.isclose(float(bins.accuracy[9]), 0.5)
    assert math.isnan(calibration.reliability(torch.zeros(0), torch.zeros(0, dtype=torch.bool)).ece)


def test_predictions_take_the_first_of_equal_marks():
    mark, confidence = calibration.top_mark(torch.tensor([[0.4, 0.4, 0.2], [0.1, 0.45, 0.45]]))
    assert mark.tolist() == [0, 1]
    np.testing.assert_allclose(confidence, [0.4, 0.45], rtol=1e-6)
    mark, frequency = calibration.frequent_mark(torch.tensor([[2, 2, 0, 0], [1, 1, 1, 0]]), 3)
    assert mark.tolist() == [0, 1]
    assert frequency.tolist() == [0.5, 0.75]


def test_nan_is_never_covered():
    samples = torch.tensor([[1.0, torch.nan, 2.0]])
    assert not calibration.covered_below(samples, torch.tensor([0.5]), NOMINAL).any()


def test_covering_level_is_where_the_interval_begins_to_hold_the_truth():
    samples = torch.randn(40, 19, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    truth = torch.randn(40, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    level = covering_level(samples, truth)
    for row in torch.nonzero((level > 0.0) & (level < 1.0))[:, 0].tolist():
        either = torch.tensor([level[row] - 1e-9, level[row] + 1e-9])
        assert covered_below(samples[row : row + 1], truth[row : row + 1], either).tolist() == [[False, True]]
    ties = torch.tensor([[1.0, 2.0, 2.0, 3.0]])
    found = [float(covering_level(ties, torch.tensor([value]))[0]) for value in (0.5, 1.0, 2.0, 2.5, 3.0, 4.0)]
    np.testing.assert_allclose(found, [0.0, 0.0, 0.4, 0.7, 0.8, 1.0])


def test_level_map_covers_what_it_says_on_further_events():
    random = torch.Generator().manual_seed(1)
    fit = LevelMap.fit(torch.rand(4000, generator=random, dtype=torch.float64) ** 3)
    further = torch.rand(4000, generator=random, dtype=torch.float64) ** 3
    levels = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    np.testing.assert_allclose((further[:, None] <= fit(levels)).double().mean(0), levels, atol=0.03)
    np.testing.assert_allclose(fit.covered(fit(levels)), levels, atol=1e-9)
    np.testing.assert_allclose(fit(torch.tensor([[0.0], [1.0]])), [[0.0], [1.0]])


def test_level_map_of_a_calibrated_forecaster_changes_nothing():
    ranks = (torch.arange(999, dtype=torch.float64) + 1.0) / 1000.0
    levels = torch.linspace(0.0, 1.0, 21, dtype=torch.float64)
    np.testing.assert_allclose(LevelMap.fit(ranks)(levels), levels, atol=1e-9)


def test_level_map_with_flat_parts_is_defined_everywhere():
    fit = LevelMap.fit(torch.cat([torch.zeros(300), torch.ones(100)]))
    levels = torch.linspace(0.0, 1.0, 11, dtype=torch.float64)
    assert bool((fit(levels).diff() >= 0.0).all()) and bool((fit.covered(levels).diff() >= 0.0).all())
    np.testing.assert_allclose(fit(torch.tensor([0.5, 0.9])), [0.0, 1.0])


def test_shortest_interval_of_an_exponential_law_starts_at_its_peak():
    samples = torch.from_numpy(np.random.default_rng(0).exponential(size=(20, 4000)))
    low, high = shortest_interval(samples, torch.tensor([0.5, 0.9]))
    np.testing.assert_allclose(low.mean(0), 0.0, atol=0.02)
    np.testing.assert_allclose(high.mean(0), -np.log([0.5, 0.1]), rtol=0.05)


def test_shortest_interval_holds_the_next_draw_as_often_as_it_says():
    drawn = torch.from_numpy(np.random.default_rng(1).gamma(3.0, size=(4000, 200)))
    low, high = shortest_interval(drawn[:, 1:], torch.tensor([0.6, 0.999]))
    inside = (drawn[:, :1] >= low) & (drawn[:, :1] <= high)
    np.testing.assert_allclose(inside.double().mean(0), [0.6, 0.99], atol=0.03)
    assert torch.equal(low[:, 1], drawn[:, 1:].min(1).values)
