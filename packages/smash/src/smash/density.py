"""The law of the next event by exact densities that start from the training part's own (`model.law` density).

The gap has the intensity of the training part times the exponential of a correction, which is linear between knots;
mark and location start from their training laws likewise. With corrections of zero the forecast is that of somebody
who knows no history, so training can only add to it what pays on held-back data. The likelihood of the gap is that of
the intensity (Li et al., ICML 2024, eq. 3) with its integral on a grid: no noise, no score, no Langevin chain.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from smash.config import LossConfig, ModelConfig
from smash.draws import Draws
from smash.gap import GapLaw
from smash.history import HistoryFeatures, Recent
from smash.marginal import gap_grid, log_hazard
from smash.places import PlaceHead, PlaceMixture, zero_start


class DensityLoss(NamedTuple):
    """Means over targets, in nats; each a scalar."""

    total: Float[Tensor, ""]
    """What is minimised."""
    gap: Float[Tensor, ""]
    """Negative log density of the normalised gap."""
    location: Float[Tensor, ""]
    """Negative log density of the location in the unit box, given gap and mark."""
    mark: Float[Tensor, ""] | None
    """Negative log probability of the mark, given the gap; None when unmarked."""


class Drawn(NamedTuple):
    """Samples of next events in the unit box."""

    gap: Float[Tensor, "event sample"]
    location: Float[Tensor, "event sample 2"]
    mark: Int[Tensor, "event sample"]
    probability: Float[Tensor, "event sample mark"]


class DensityNetwork(nn.Module):
    """Densities of gap, mark and location.

    What the model calls the condition of a target is here the encoder's summary, the features of the history and the
    latest events, side by side.

    Args:
        config: sizes.
        num_marks: kinds of events; 1 means unmarked.
    """

    log_hazard: Tensor
    below: Tensor
    grid: Tensor

    def __init__(self, config: ModelConfig, *, num_marks: int) -> None:
        super().__init__()
        self.config, self.num_marks = config.density, num_marks
        sizes = self.config
        self.history = HistoryFeatures(sizes, num_marks=num_marks)
        encoded = config.width * (4 if num_marks > 1 else 3) if sizes.encoded else 0
        inputs = encoded + self.history.width
        grid = gap_grid(sizes.grid)
        self.register_buffer("grid", grid, persistent=False)
        self.register_buffer("log_hazard", torch.zeros_like(grid))
        self.register_buffer("below", torch.linspace(0.0, 1.0, sizes.grid, dtype=torch.float64))
        self.gap_trunk, self.mark_trunk, self.place_trunk = (self._trunk(inputs) for _ in range(3))
        self.to_gap = zero_start(nn.Linear(sizes.units, sizes.knots))
        self.to_mark = zero_start(nn.Linear(sizes.units, sizes.mark_knots * num_marks))
        self.place = PlaceHead(sizes, num_marks=num_marks, inputs=sizes.units)

    def _trunk(self, inputs: int) -> nn.Sequential:
        units, dropout = self.config.units, self.config.dropout
        return nn.Sequential(nn.Dropout(dropout), nn.Linear(inputs, units), nn.SiLU(), nn.Dropout(dropout),
                             nn.Linear(units, units), nn.SiLU(), nn.Dropout(dropout))  # fmt: skip

    def start_from(self, gap: Float[Tensor, "target"], location: Float[Tensor, "target 2"], *, seed: int) -> None:
        """Take over the law of training targets; what belongs to their history is set in `history`."""
        hazard, below = log_hazard(gap, self.grid.cpu(), bandwidth=self.config.bandwidth)
        self.log_hazard.copy_(hazard)
        self.below.copy_(below)
        self.place.start_from(location, seed=seed)

    def pack(
        self,
        encoded: Float[Tensor, "sequence event encoded"] | None,
        time: Float[Tensor, "sequence event"],
        location: Float[Tensor, "sequence event 2"],
        mark: Int[Tensor, "sequence event"] | None,
    ) -> Float[Tensor, "sequence event condition"]:
        """Put together all that the densities need to know of the events up to each position."""
        parts = [self.history(time, location, mark), self.history.recent(time, location, mark)]
        return torch.cat(parts if encoded is None else [encoded, *parts], dim=-1)

    def unpack(self, condition: Float[Tensor, "event condition"]) -> tuple[Tensor, Recent | None]:
        """Take apart what `pack` put together: what the networks summarise, and the latest events."""
        width = self.history.packed_width
        summary, packed = condition.split([condition.shape[-1] - width, width], dim=-1)
        return summary, Recent.unpack(packed) if width else None

    def basis(self, gap: Float[Tensor, "*point"], knots: int) -> Float[Tensor, "*point knot"]:
        """Weights of the knots in a function that is linear between them.

        Knots are evenly spaced in the arc sine of the root of the training part's probability of a shorter gap: dense
        where gaps are frequent, and a little more so towards both ends.
        """
        place = ((gap.double() - self.grid[0]) / (self.grid[1] - self.grid[0])).clamp(0.0, len(self.grid) - 1.0)
        cell = place.long().clamp_max(len(self.grid) - 2)
        level = torch.lerp(self.below[cell], self.below[cell + 1], place - cell)
        position = torch.asin(level.clamp(0.0, 1.0).sqrt()) * (2.0 / math.pi) * (knots - 1)
        number = torch.arange(knots, device=gap.device, dtype=position.dtype)
        return (1.0 - (position[..., None] - number).abs()).clamp_min(0.0)

    def _intensity(self, summary: Float[Tensor, "event summary"]) -> Float[Tensor, "event grid"]:
        knots = self.to_gap(self.gap_trunk(summary)).double()
        return torch.exp(self.log_hazard + knots @ self.basis(self.grid, self.config.knots).mT)

    def log_marks(
        self, summary: Float[Tensor, "event summary"], gap: Float[Tensor, "event point"]
    ) -> Float[Tensor, "event point mark"]:
        """Log probability of each mark at the given gaps."""
        knots = self.to_mark(self.mark_trunk(summary)).unflatten(-1, (-1, self.num_marks))
        basis = self.basis(gap, self.config.mark_knots).to(knots)
        return (self.history.shares.log().to(knots) + basis @ knots).log_softmax(-1)

    def forward(
        self,
        condition: Float[Tensor, "target condition"],
        value: Float[Tensor, "target 3"],
        mark: Int[Tensor, "target"] | None,
    ) -> tuple[Float[Tensor, "target"], Float[Tensor, "target"], Float[Tensor, "target"]]:
        """Log densities of gap, mark and location of each target."""
        summary, recent = self.unpack(condition)
        gap, kind = value[:, :1], torch.zeros_like(value[:, 0], dtype=torch.int64) if mark is None else mark
        law = GapLaw.on_grid(self.grid, self._intensity(summary)[:, None])
        inside = gap.double().clamp(self.grid[0], self.grid[-1])
        of_gap = law.log_density_at(inside)[:, 0]
        of_mark = self.log_marks(summary, gap)[:, 0].gather(1, kind[:, None])[:, 0]
        mixture = self.places(summary, recent, gap, kind[:, None])
        return of_gap.to(value), of_mark, self.place.log_density(mixture, value[:, None, 1:])[:, 0]

    def places(
        self, summary: Tensor, recent: Recent | None, gap: Float[Tensor, "event sample"], mark: Tensor
    ) -> PlaceMixture:
        """Mixtures of the location given the history (`unpack`), the normalised gap, and the mark (0 when unmarked)."""
        basis = self.basis(gap, self.config.mark_knots).to(summary)
        in_means = self.history.gap_in_means(gap.clamp(*self.grid[[0, -1]].tolist()))
        return self.place(self.place_trunk(summary), recent, gap_basis=basis, gap=in_means, mark=mark)

    def mean_loss(
        self, condition: Float[Tensor, "target condition"], value: Float[Tensor, "target 3"],
        mark: Int[Tensor, "target"] | None, loss: LossConfig,
    ) -> DensityLoss:  # fmt: skip
        """Average the negative log densities and weigh them up."""
        gap, kind, place = (-part.mean() for part in self(condition, value, mark))
        total = gap + loss.location_weight * place
        return DensityLoss(total, gap, place, None) if mark is None else DensityLoss(
            total + loss.mark_weight * kind, gap, place, kind
        )  # fmt: skip

    def gap_law(self, condition: Float[Tensor, "event condition"]) -> GapLaw:
        """Law of the next gap and mark. Each event by itself, so that nothing depends on which are asked together."""
        laws = [self._one_law(row) for row in condition.split(1)] or [self._one_law(condition)]
        return GapLaw(self.grid, torch.cat([law.intensity for law in laws]), torch.cat([law.hazard for law in laws]))

    def _one_law(self, condition: Float[Tensor, "event condition"]) -> GapLaw:
        summary, _ = self.unpack(condition)
        shares = self.log_marks(summary, self.grid.expand(len(condition), -1)).double().exp()
        return GapLaw.on_grid(self.grid, self._intensity(summary)[:, None] * shares.mT)

    def draw(self, condition: Float[Tensor, "event condition"], draws: Draws, samples: int) -> Drawn:
        """Draw next events; call it with one event at a time where results must not depend on the others."""
        summary, recent = self.unpack(condition)
        gap = self._one_law(condition).quantile(draws.uniform(samples)).to(condition.dtype)
        probability = self.log_marks(summary, gap).exp()
        marked = self.num_marks > 1
        mark = draws.marks(probability) if marked else torch.zeros_like(gap, dtype=torch.int64)
        mixture = self.places(summary, recent, gap, mark)
        location = self.place.draw(mixture, draws.uniform(samples), draws.normal(samples, 2))
        return Drawn(gap, location, mark, probability)
