"""Kernel densities against scipy, on points, without the own kernel, and on grids by both ways."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import gaussian_kde

from stcore.metrics import density


def _samples(correlation: float, *, events: int = 3, size: int = 40, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    root = np.linalg.cholesky(np.array([[1.0, correlation], [correlation, 1.0]]))
    return torch.from_numpy(rng.normal(size=(events, size, 2)) @ root.T * [3.0, 0.02] + [140.0, 35.0])


@pytest.mark.parametrize("axes", [1, 2])
def test_density_at_points_is_scipys(axes):
    samples, points = _samples(0.6)[..., :axes], _samples(0.0, size=7, seed=1)[..., :axes]
    found = density.density_at(density.fit_kernel(samples), points)
    for event in range(3):
        expected = gaussian_kde(samples[event].numpy().T)(points[event].numpy().T)
        np.testing.assert_allclose(found[event], expected, rtol=1e-9, atol=1e-290)


@pytest.mark.parametrize("axes", [1, 2])
def test_leave_one_out_is_the_sum_less_the_own_kernel(axes):
    samples = _samples(0.6)[..., :axes]
    kernel = density.fit_kernel(samples)
    whole = density.density_at(kernel, samples)
    expected = (whole - kernel.scale[:, None]) * 40 / 39
    np.testing.assert_allclose(density.leave_one_out(kernel), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("correlation", [0.0, -0.7, 0.97, 0.9999])
def test_density_on_a_grid_is_scipys_in_and_out_of_the_range_of_factors(correlation):
    samples = _samples(correlation)
    low, high = samples.aminmax(dim=1)
    unit = torch.linspace(-0.1, 1.1, 23, dtype=torch.float64)
    x, y = torch.lerp(low[:, :1], high[:, :1], unit), torch.lerp(low[:, 1:], high[:, 1:], unit[::2])
    found = density.density_on_grid(density.fit_kernel(samples), x, y)
    for event in range(3):
        points = np.stack([axis.ravel() for axis in np.meshgrid(x[event], y[event], indexing="ij")])
        expected = gaussian_kde(samples[event].numpy().T)(points).reshape(23, 12)
        np.testing.assert_allclose(found[event], expected, rtol=1e-7, atol=1e-12 * expected.max())


def test_strong_correlation_takes_the_direct_way(monkeypatch):
    direct = []
    original = density._grid_directly
    monkeypatch.setattr(density, "_grid_directly", lambda *args: direct.append(1) or original(*args))
    for correlation in (0.5, 0.9999):
        samples = _samples(correlation, events=2)
        low, high = samples.aminmax(dim=1)
        edges = [torch.stack([low[:, axis], high[:, axis]], dim=1) for axis in (0, 1)]
        assert torch.isfinite(density.density_on_grid(density.fit_kernel(samples), *edges)).all()
        assert len(direct) == (0 if correlation == 0.5 else 2)


def test_density_integrates_to_one():
    samples = _samples(0.5, events=1)
    low, high = samples.aminmax(dim=1)
    unit = torch.linspace(-1.0, 2.0, 300, dtype=torch.float64)
    x, y = torch.lerp(low[:, :1], high[:, :1], unit), torch.lerp(low[:, 1:], high[:, 1:], unit)
    cell = (x[0, 1] - x[0, 0]) * (y[0, 1] - y[0, 0])
    total = density.density_on_grid(density.fit_kernel(samples), x, y).sum() * cell
    np.testing.assert_allclose(total, 1.0, rtol=1e-6)


def test_degenerate_samples_get_a_ridge_and_are_flagged():
    samples = _samples(0.3, events=4)
    samples[1] = samples[1, :1]  # all equal
    samples[2, :, 0] = 149.861  # clamped to a border
    samples[3, :, 1] = samples[3, :, 0] * 2.0 + 1.0  # on a line
    kernel = density.fit_kernel(samples)
    assert kernel.ridged.tolist() == [False, True, True, True]
    at_samples = density.density_at(kernel, samples)
    assert bool(torch.isfinite(at_samples).all()) and bool((at_samples > 0).all())
    elsewhere = density.density_at(kernel, torch.full((4, 1, 2), -50.0, dtype=torch.float64))
    assert elsewhere[1:].tolist() == [[0.0]] * 3
    assert density.fit_kernel(torch.zeros(1, 5, 2)).ridged.tolist() == [True]


def test_very_different_units_are_not_degenerate():
    samples = _samples(0.3) * torch.tensor([1e6, 1e-6])
    assert not density.fit_kernel(samples).ridged.any()


def test_nan_stays_within_its_event():
    samples = _samples(0.3)
    samples[1, 3, 1] = torch.nan
    kernel = density.fit_kernel(samples)
    found = density.density_at(kernel, samples[:, :1].nan_to_num())[:, 0]
    assert torch.isnan(found).tolist() == [False, True, False]
