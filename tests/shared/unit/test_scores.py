"""Scores against plain double loops and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from stcore.metrics import scores


def _draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


@pytest.mark.parametrize("fair", [False, True])
def test_crps_equals_the_double_sum(fair):
    samples, truth = _draw(5, 17) * 3 + 1000, _draw(5, seed=1) + 1000
    pairs = (samples[:, :, None] - samples[:, None, :]).abs().sum((1, 2))
    expected = (samples - truth[:, None]).abs().mean(1) - pairs / (2 * 17 * (16 if fair else 17))
    np.testing.assert_allclose(scores.crps(samples, truth, fair=fair), expected, rtol=1e-9)


def test_crps_of_a_normal_is_the_closed_form():
    samples, truth = torch.special.ndtri((torch.arange(20000).double() + 0.5) / 20000)[None], torch.tensor([0.7])
    density, below = math.exp(-0.5 * 0.49) / math.sqrt(2 * math.pi), 0.5 * (1 + math.erf(0.7 / math.sqrt(2)))
    closed = 0.7 * (2 * below - 1) + 2 * density - 1 / math.sqrt(math.pi)
    np.testing.assert_allclose(scores.crps(samples, truth), [closed], rtol=1e-4)


@pytest.mark.parametrize("fair", [False, True])
def test_energy_score_equals_the_double_sum_in_every_block(fair):
    samples, truth = _draw(60, 100, 2), _draw(60, 2, seed=1)
    pairs = torch.linalg.vector_norm(samples[:, :, None] - samples[:, None], dim=-1).sum((1, 2))
    near = torch.linalg.vector_norm(samples - truth[:, None], dim=-1).mean(1)
    expected = near - pairs / (2 * 100 * (99 if fair else 100))
    np.testing.assert_allclose(scores.energy_score(samples, truth, fair=fair), expected, rtol=1e-12)


def test_energy_score_of_one_axis_is_the_crps():
    samples, truth = _draw(4, 30), _draw(4, seed=3)
    energy = scores.energy_score(samples[:, :, None], truth[:, None])
    np.testing.assert_allclose(energy, scores.crps(samples, truth), rtol=1e-12)


def test_quantiles_follow_weibull_positions_and_numpy():
    samples, levels = _draw(3, 49), torch.tensor([0.001, 0.02, 0.33, 0.5, 0.9, 0.999])
    expected = np.quantile(samples.numpy(), levels.double().numpy(), axis=1, method="weibull").T
    np.testing.assert_allclose(scores.quantiles(samples, levels), expected, rtol=1e-6)


def test_pinball_of_the_median_is_half_the_absolute_error():
    samples, truth = _draw(6, 21), _draw(6, seed=2)
    median = samples.median(1).values
    loss = scores.pinball(samples, truth, torch.tensor([0.5], dtype=torch.float64))[:, 0]
    np.testing.assert_allclose(2 * loss, scores.absolute_error(median, truth), rtol=1e-12)


def test_mark_scores_by_hand():
    probability, mark = torch.tensor([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]]), torch.tensor([1, 0])
    np.testing.assert_allclose(scores.log_loss(probability, mark), [math.log(4.0), math.inf])
    np.testing.assert_allclose(scores.brier(probability, mark), [0.25 + 0.5625 + 0.0625, 2.0])
    np.testing.assert_allclose(scores.entropy(probability), [1.5 * math.log(2.0), 0.0])


def test_distance_by_hand():
    found = scores.distance(torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 0.0]]))
    assert found.tolist() == [5.0]


def test_geometric_median_of_three_corners_is_the_fermat_point():
    corners = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(0.75)]]])
    np.testing.assert_allclose(scores.geometric_median(corners), [[0.5, math.sqrt(0.75) / 3]], atol=1e-6)


def test_geometric_median_is_where_most_samples_are_equal():
    samples = torch.zeros(1, 9, 2)
    samples[0, 6:] = torch.tensor([[5.0, 1.0], [7.0, -3.0], [-2.0, 8.0]])
    np.testing.assert_allclose(scores.geometric_median(samples), [[0.0, 0.0]], atol=1e-5)
    np.testing.assert_allclose(scores.geometric_median(torch.full((1, 4, 2), 3.5)), [[3.5, 3.5]])


def test_nan_stays_within_its_event():
    samples, truth = _draw(3, 8, 2), _draw(3, 2, seed=1)
    samples[1, 4, 0] = torch.nan
    level = torch.tensor([0.5])
    for result in (
        scores.crps(samples[..., 0], truth[:, 0]),
        scores.energy_score(samples, truth),
        scores.pinball(samples[..., 0], truth[:, 0], level)[:, 0],
        scores.distance(scores.geometric_median(samples), truth),
    ):
        assert torch.isnan(result).tolist() == [False, True, False]
