"""The law of the training part without any history: where the densities start (`smash.density`).

Gap: a Gaussian kernel density on a grid, with a little uniform mass so that nothing on it is impossible. Location: a
mixture of Gaussians by expectation-maximisation (Dempster, Laird and Rubin, Journal of the Royal Statistical Society B
1977) from centres drawn with distances in mind (Arthur and Vassilvitskii, k-means++, SODA 2007).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from stcore.sampling import random_stream

GRID_RANGE = (-0.1, 1.1)
"""Normalised gaps that the grid spans: the fitted range, and a tenth of it on both sides."""
UNIFORM = 1e-3
"""Share of the gaps' law that is uniform on the grid."""
MOST_LOCATIONS = 20_000
"""Locations that a mixture is fitted to at most."""
ITERATIONS = 40


def gap_grid(points: int) -> Float[Tensor, "grid"]:
    """Evenly spaced normalised gaps."""
    return torch.linspace(*GRID_RANGE, points, dtype=torch.float64)


def log_hazard(
    gap: Float[Tensor, "event"], grid: Float[Tensor, "grid"], *, bandwidth: float
) -> tuple[Float[Tensor, "grid"], Float[Tensor, "grid"]]:
    """Estimate the log hazard of the gap at the grid points, and the probability of a gap up to them.

    Args:
        gap: normalised gaps.
        grid: see `gap_grid`.
        bandwidth: standard deviation of the kernels.
    """
    values, counts = gap.double().unique(return_counts=True)
    weights = counts.double() / counts.sum()
    density, below = torch.zeros_like(grid), torch.zeros_like(grid)
    for part, weight in zip(values.split(4096), weights.split(4096), strict=True):
        away = (grid[:, None] - part) / bandwidth
        density += torch.exp(-0.5 * away.square()) @ weight
        below += torch.special.ndtr(away) @ weight
    density /= bandwidth * math.sqrt(2.0 * math.pi)
    width = float(grid[-1] - grid[0])
    density = (1.0 - UNIFORM) * density + UNIFORM / width
    below = (1.0 - UNIFORM) * below + UNIFORM * (grid - grid[0]) / width
    left = (1.0 - below).clamp_min(0.5 * UNIFORM / len(grid))
    return torch.log(density / left), below.clamp(0.0, 1.0)


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """A mixture of Gaussians on the plane."""

    weight: Float[Tensor, "component"]
    mean: Float[Tensor, "component 2"]
    covariance: Float[Tensor, "component 2 2"]

    def log_terms(self, location: Float[Tensor, "*point 2"]) -> Float[Tensor, "*point component"]:
        """Log of the weighted density of each component."""
        return self.weight.log() + log_gaussian(location[..., None, :] - self.mean, self.covariance)


def log_gaussian(
    away: Float[Tensor, "*point 2"], covariance: Float[Tensor, "*component 2 2"]
) -> Float[Tensor, "*point"]:
    """Log density of a plane Gaussian, given the difference from its mean."""
    a, b, c = covariance[..., 0, 0], covariance[..., 0, 1], covariance[..., 1, 1]
    determinant = a * c - b.square()
    x, y = away[..., 0], away[..., 1]
    square = (c * x.square() - 2.0 * b * x * y + a * y.square()) / determinant
    return -0.5 * square - 0.5 * determinant.log() - math.log(2.0 * math.pi)


def fit_mixture(
    location: Float[Tensor, "event 2"], components: int, *, smallest_width: float, seed: int
) -> GaussianMixture:
    """Fit a mixture of at most so many Gaussians by expectation-maximisation.

    Args:
        location: normalised locations.
        components: Gaussians; where there are fewer places, several share one.
        smallest_width: floor of the standard deviations.
        seed: of the start, and of the choice among very many locations.
    """
    generator = random_stream(seed, "background")
    if len(location) > MOST_LOCATIONS:
        location = location[torch.from_numpy(generator.choice(len(location), MOST_LOCATIONS, replace=False))]
    location = location.double()
    mean = _spread_out(location, torch.from_numpy(generator.random(components)))
    width = max(float(location.std(0, correction=0).mean()) / math.sqrt(components), smallest_width)
    eye = torch.eye(2, dtype=torch.float64)
    floor = smallest_width**2 * eye
    mixture = GaussianMixture(
        torch.full((components,), 1.0 / components, dtype=torch.float64),
        mean,
        (width**2 * eye).repeat(components, 1, 1),
    )
    for _ in range(ITERATIONS):
        share = mixture.log_terms(location).softmax(-1)
        mixture = _most_likely(location, share, floor)
    return mixture


def _most_likely(
    location: Float[Tensor, "event 2"], share: Float[Tensor, "event component"], floor: Float[Tensor, "2 2"]
) -> GaussianMixture:
    mass = share.sum(0) + 1e-6
    mean = share.T @ location / mass[:, None]
    products = (location[:, :, None] * location[:, None, :]).flatten(1)
    second = (share.T @ products / mass[:, None]).unflatten(1, (2, 2))
    covariance = second - mean[:, :, None] * mean[:, None, :] + floor
    # Rounding of nearly equal places may leave less than the floor.
    diagonal = torch.diagonal(covariance, dim1=1, dim2=2)
    lacking = (floor[0, 0] - diagonal).clamp_min(0.0)
    return GaussianMixture(mass / mass.sum(), mean, covariance + torch.diag_embed(lacking))


def _spread_out(location: Float[Tensor, "event 2"], levels: Float[Tensor, "component"]) -> Float[Tensor, "component 2"]:
    """Draw places, each in proportion to its squared distance from those drawn before."""
    chosen = [location[int(levels[0] * len(location))]]
    nearest = (location - chosen[0]).square().sum(1)
    for level in levels[1:]:
        total = nearest.cumsum(0)
        place = int(torch.searchsorted(total, level * total[-1], right=True))
        chosen.append(location[min(place, len(location) - 1)])
        nearest = torch.minimum(nearest, (location - chosen[-1]).square().sum(1))
    return torch.stack(chosen)
