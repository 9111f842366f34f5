"""The law of the next gap and mark in closed form.

The score of the gap (Li et al., ICML 2024, eq. 8) is that of p(gap, k) proportional to
intensity_k(gap) exp(-integral of the total intensity up to gap), and the mark's distribution given the gap is k's
share of the total intensity. Training sees gaps with noise, so this is the law of the gap **smoothed by
sigma_time**, not the data's; the sampler narrows it afterwards by a Tweedie step.

On a grid the total intensity is taken as linear between points: its integral (trapezoids) is then exact and the
cumulative distribution can be inverted in closed form, so density, cumulative and quantiles agree to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

TINY = torch.finfo(torch.float64).tiny


@dataclass(frozen=True, eq=False)
class GapLaw:
    """Law of the normalised (log-)gap of each event, confined to the range of the grid.

    Gaps are in the unit box, where [0, 1] is the fitted range; densities are per unit of it.
    """

    grid: Float[Tensor, "grid"]
    """Evenly spaced gaps, float64."""
    intensity: Float[Tensor, "event mark grid"]
    """Intensity of each mark per unit of the box, float64."""
    hazard: Float[Tensor, "event grid"]
    """Integral of the total intensity from the first grid point, float64."""

    @classmethod
    def on_grid(cls, grid: Float[Tensor, "grid"], intensity: Float[Tensor, "event mark grid"]) -> GapLaw:
        """Integrate intensities that were evaluated on the grid."""
        grid, intensity = grid.double(), intensity.double()
        total = intensity.sum(1)
        steps = 0.5 * (total[:, 1:] + total[:, :-1]) * (grid[1] - grid[0])
        return cls(grid, intensity, torch.nn.functional.pad(steps.cumsum(1), (1, 0)))

    @property
    def log_mass(self) -> Float[Tensor, "event 1"]:
        """Log probability, before confinement, that the gap is within the grid."""
        return torch.log(-torch.expm1(-self.hazard[:, -1:]))

    @property
    def log_density(self) -> Float[Tensor, "event grid"]:
        """Log density of the gap at the grid points."""
        return torch.log(self.intensity.sum(1).clamp_min(TINY)) - self.hazard - self.log_mass

    @property
    def log_joint(self) -> Float[Tensor, "event mark grid"]:
        """Log of the joint density of gap and mark at the grid points."""
        return torch.log(self.intensity.clamp_min(TINY)) - (self.hazard + self.log_mass)[:, None]

    @property
    def cdf(self) -> Float[Tensor, "event grid"]:
        """Probability of a gap up to each grid point, from 0 to 1."""
        return torch.expm1(-self.hazard) / torch.expm1(-self.hazard[:, -1:])

    def quantile(self, level: Float[Tensor, "event level"]) -> Float[Tensor, "event level"]:
        """Gap below which this share of the law lies; levels in [0, 1]."""
        target = -torch.log1p(level.double() * torch.expm1(-self.hazard[:, -1:]))
        cell = torch.searchsorted(self.hazard, target, right=True).clamp(1, len(self.grid) - 1) - 1
        left, right, before = self._cell(cell)
        width = self.grid[1] - self.grid[0]
        rest = (target - before).clamp_min(0.0)
        slope = (right - left) / width
        root = (left.square() + 2.0 * slope * rest).clamp_min(0.0).sqrt()
        inside = (2.0 * rest / (left + root).clamp_min(TINY)).clamp_max(width)
        return self.grid[cell] + inside

    def cdf_at(self, gap: Float[Tensor, "event point"]) -> Float[Tensor, "event point"]:
        """Probability of a gap up to the given ones."""
        _, _, hazard = self._interpolate(gap)
        share = torch.expm1(-hazard) / torch.expm1(-self.hazard[:, -1:])
        return torch.where(gap >= self.grid[-1], 1.0, share)  # to the last bit, which rounding may miss

    def log_density_at(self, gap: Float[Tensor, "event point"]) -> Float[Tensor, "event point"]:
        """Log density at the given gaps; minus infinity outside the grid."""
        intensity, inside, hazard = self._interpolate(gap)
        return torch.where(inside, torch.log(intensity.sum(1).clamp_min(TINY)) - hazard - self.log_mass, -torch.inf)

    def log_joint_at(
        self, gap: Float[Tensor, "event point"], mark: Int[Tensor, "event point"]
    ) -> Float[Tensor, "event point"]:
        """Log joint density of gap and mark (0-based); minus infinity outside the grid."""
        intensity, inside, hazard = self._interpolate(gap)
        own = intensity.gather(1, mark[:, None])[:, 0]
        return torch.where(inside, torch.log(own.clamp_min(TINY)) - hazard - self.log_mass, -torch.inf)

    def _cell(self, cell: Int[Tensor, "event point"]) -> tuple[Tensor, Tensor, Tensor]:
        """Total intensity at both ends of cells, and the hazard at the left end."""
        total = self.intensity.sum(1)
        return total.gather(1, cell), total.gather(1, cell + 1), self.hazard.gather(1, cell)

    def _interpolate(self, gap: Float[Tensor, "event point"]) -> tuple[Tensor, Tensor, Tensor]:
        """Intensity of each mark, whether the gap is on the grid, and the hazard there."""
        gap = gap.double()
        width = self.grid[1] - self.grid[0]
        inside = (gap >= self.grid[0]) & (gap <= self.grid[-1])
        place = ((gap - self.grid[0]) / width).clamp(0.0, len(self.grid) - 1)
        cell = place.long().clamp_max(len(self.grid) - 2)
        share = place - cell
        index = cell[:, None].expand(-1, self.intensity.shape[1], -1)
        intensity = torch.lerp(self.intensity.gather(2, index), self.intensity.gather(2, index + 1), share[:, None])
        left, _, hazard = self._cell(cell)
        return intensity, inside, hazard + 0.5 * (left + intensity.sum(1)) * share * width
