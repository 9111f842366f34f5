"""The density of the next location given history, gap and mark: a mixture of three kinds of Gaussians.

Background: the training part's own mixture, whose weights follow the history. Recent: kernels around the latest events,
weighted by their age when the next event comes, by rank and mark, as the triggering kernels of an epidemic-type process
are (Ogata, Annals of the Institute of Statistical Mathematics 1998) but with learned dependence. Free: Gaussians that
the network puts where it likes, one half of them starting around the last event. All weights share one normalisation,
so that a burst of recent events outweighs the background as a sum of intensities would.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from smash.config import DensityConfig
from smash.history import Recent
from smash.marginal import GaussianMixture, fit_mixture, log_gaussian

KEY_UNITS = 16
AGE_KEYS, FIXED_KEYS = 2, 3
"""Logarithm of the age and its square; constant, logarithm of the rank, and whether the event is the last one."""
START_LOGIT = -6.0
"""Of a kernel around a recent event, beside 0 for the whole background."""
FREE_LOGIT = -2.0
"""Of all free Gaussians together."""
LOG_2PI = math.log(2.0 * math.pi)


class PlaceMixture(NamedTuple):
    """Mixtures of Gaussians, one for each (event, sample)."""

    background_logit: Float[Tensor, "event sample background"]
    recent_logit: Float[Tensor, "event sample recent width"]
    recent_mean: Float[Tensor, "event recent 2"]
    recent_width: Float[Tensor, "event sample width 2"]
    free_logit: Float[Tensor, "event sample free"]
    free_mean: Float[Tensor, "event sample free 2"]
    free_width: Float[Tensor, "event sample free 2"]

    @property
    def logit(self) -> Float[Tensor, "event sample component"]:
        """Unnormalised log weights of all components."""
        return torch.cat([self.background_logit, self.recent_logit.flatten(2), self.free_logit], dim=-1)


class PlaceHead(nn.Module):
    """Mixture of the location from a summary of the history, the gap and the mark.

    Args:
        config: numbers of components and widths.
        num_marks: kinds of events.
        inputs: width of the summary.
    """

    background_weight: Tensor
    background_mean: Tensor
    background_covariance: Tensor

    def __init__(self, config: DensityConfig, *, num_marks: int, inputs: int) -> None:
        super().__init__()
        self.config, self.num_marks = config, num_marks
        units, widths, free = config.units, len(config.recent_widths), config.free
        self.register_buffer("background_weight", torch.full((config.background,), 1.0 / config.background))
        self.register_buffer("background_mean", torch.full((config.background, 2), 0.5))
        self.register_buffer("background_covariance", torch.eye(2).repeat(config.background, 1, 1))
        self.from_history = nn.Linear(inputs, units)
        self.from_gap = nn.Linear(config.mark_knots, units, bias=False)
        self.from_mark = nn.Embedding(num_marks, units)
        self.hidden = nn.Sequential(nn.SiLU(), nn.Dropout(config.dropout), nn.Linear(units, units), nn.SiLU(),
                                    nn.Dropout(config.dropout))  # fmt: skip
        self.to_background = zero_start(nn.Linear(units, config.background))
        if config.recent:
            keys = AGE_KEYS + FIXED_KEYS + num_marks
            self.key = nn.Linear(keys, KEY_UNITS)
            self.to_query = zero_start(nn.Linear(units, widths * (keys + KEY_UNITS)))
            with torch.no_grad():
                self.to_query.bias.view(widths, -1)[:, AGE_KEYS] = START_LOGIT
            self.to_width = zero_start(nn.Linear(units, widths * 2))
            self.log_width = nn.Parameter(torch.tensor(config.recent_widths)[:, None].log().repeat(1, 2))
        if free:
            self.to_free = zero_start(nn.Linear(units, free * 5))
            self.free_centre = nn.Parameter(torch.full((free, 2), 0.5))
            self.free_log_width = nn.Parameter(torch.full((free, 2), math.log(0.2)))

    def start_from(self, location: Float[Tensor, "event 2"], *, seed: int) -> None:
        """Fit the background, and put the free Gaussians over it."""
        floor = self.config.smallest_width
        mixture = fit_mixture(location, self.config.background, smallest_width=floor, seed=seed)
        self.background_weight.copy_(mixture.weight)
        self.background_mean.copy_(mixture.mean)
        self.background_covariance.copy_(mixture.covariance)
        anchored = self.config.free - self.config.free // 2
        if anchored:
            coarse = fit_mixture(location, anchored, smallest_width=floor, seed=seed)
            width = torch.diagonal(coarse.covariance, dim1=1, dim2=2).sqrt()
            with torch.no_grad():
                self.free_centre[:anchored] = coarse.mean.to(self.free_centre)
                self.free_log_width[:anchored] = width.log().to(self.free_log_width)
                self.free_centre[anchored:] = 0.0
                self.free_log_width[anchored:] = math.log(0.08)

    @property
    def background(self) -> GaussianMixture:
        """The training part's mixture."""
        return GaussianMixture(self.background_weight, self.background_mean, self.background_covariance)

    def forward(
        self,
        summary: Float[Tensor, "event summary"],
        recent: Recent | None,
        *,
        gap_basis: Float[Tensor, "event sample knot"],
        gap: Float[Tensor, "event sample"],
        mark: Int[Tensor, "event sample"],
    ) -> PlaceMixture:
        """Mixtures given the history, the gap (in mean gaps, with its basis) and the mark.

        Args:
            summary: of the history.
            recent: the latest events; None where the configuration has no kernels around them.
            gap_basis: what the network sees of the gap.
            gap: time to the next event, in mean gaps.
            mark: of the next event, 0 when unmarked.
        """
        code = self.from_history(summary)[:, None] + self.from_gap(gap_basis) + self.from_mark(mark)
        code = self.hidden(code)
        background = self.background_weight.log() + self.to_background(code)
        return PlaceMixture(background, *self._recent(code, recent, gap), *self._free(code, recent))

    def _recent(self, code: Tensor, recent: Recent | None, gap: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        events, samples = gap.shape
        if recent is None:
            none = code.new_empty(events, samples, 0, 1)
            return none, code.new_empty(events, 0, 2), code.new_ones(events, samples, 1, 2)
        query = self.to_query(code).unflatten(-1, (len(self.log_width), -1))
        logit = self._match(recent, gap, query)
        logit = logit.masked_fill(recent.present[:, None, :, None] == 0.0, -torch.inf)
        change = 1.5 * torch.tanh(self.to_width(code)).unflatten(-1, (-1, 2))
        return logit, recent.location, self.config.smallest_width + torch.exp(self.log_width + change)

    def _match(
        self, recent: Recent, gap: Float[Tensor, "event sample"], query: Float[Tensor, "event sample width key"]
    ) -> Float[Tensor, "event sample recent width"]:
        """Compare queries with what each recent event will be when the next one comes.

        The keys of an event are its age then, what does not depend on that, and a hidden layer over both.
        """
        fixed = self._fixed_keys(recent)
        of_age, of_fixed = self.key.weight.split([AGE_KEYS, fixed.shape[-1]], dim=1)
        age = torch.log(recent.ago[:, None] + gap[..., None] + 1e-3)[..., None] / 3.0
        hidden = F.silu((fixed @ of_fixed.mT + self.key.bias)[:, None] + age * (of_age[:, 0] + age * of_age[:, 1]))
        first, second, to_fixed, to_hidden = query.mT.split([1, 1, fixed.shape[-1], KEY_UNITS], dim=-2)
        return hidden @ to_hidden + fixed[:, None] @ to_fixed + age * (first + age * second)

    def _fixed_keys(self, recent: Recent) -> Float[Tensor, "event recent key"]:
        ago = recent.ago
        rank = torch.log1p(torch.arange(ago.shape[1], device=ago.device, dtype=ago.dtype)) / 3.0
        columns = torch.stack([torch.ones_like(rank), rank, (rank == 0.0).to(rank)], dim=-1)
        marks = F.one_hot(recent.mark, self.num_marks).to(ago)
        return torch.cat([columns.expand(len(ago), -1, -1), marks], dim=-1)

    def _free(self, code: Tensor, recent: Recent | None) -> tuple[Tensor, Tensor, Tensor]:
        if not self.config.free:
            none = code.new_empty(*code.shape[:2], 0, 2)
            return none[..., 0], none, none
        logit, move, change = self.to_free(code).unflatten(-1, (-1, 5)).split([1, 2, 2], dim=-1)
        centre = self.free_centre.expand(len(code), -1, -1)
        anchored = self.config.free - self.config.free // 2
        last = torch.full_like(centre[:, :1], 0.5) if recent is None else recent.location[:, :1]
        where = torch.arange(self.config.free, device=code.device)[:, None] < anchored
        mean = torch.where(where, centre, last + centre)[:, None] + 0.5 * move
        width = self.config.smallest_width + torch.exp(self.free_log_width + 1.5 * torch.tanh(change))
        return logit[..., 0] + FREE_LOGIT - math.log(self.config.free), mean, width

    def log_density(
        self, mixture: PlaceMixture, location: Float[Tensor, "event sample 2"]
    ) -> Float[Tensor, "event sample"]:
        """Log density per unit of the box's area."""
        away = location[:, :, None] - self.background_mean
        background = mixture.background_logit + log_gaussian(away, self.background_covariance)
        square = ((location[:, :, None] - mixture.recent_mean[:, None]).unsqueeze(-2)
                  / mixture.recent_width[:, :, None]).square().sum(-1)  # fmt: skip
        recent = mixture.recent_logit - 0.5 * square - mixture.recent_width.log().sum(-1)[:, :, None] - LOG_2PI
        square = ((location[:, :, None] - mixture.free_mean) / mixture.free_width).square().sum(-1)
        free = mixture.free_logit - 0.5 * square - mixture.free_width.log().sum(-1) - LOG_2PI
        terms = torch.cat([background, recent.flatten(2), free], dim=-1)
        return terms.logsumexp(-1) - mixture.logit.logsumexp(-1)

    def draw(
        self, mixture: PlaceMixture, uniform: Float[Tensor, "event sample"], normal: Float[Tensor, "event sample 2"]
    ) -> Float[Tensor, "event sample 2"]:
        """Draw a location from each mixture, given a uniform draw for the component and two normal ones."""
        below = mixture.logit.softmax(-1).cumsum(-1)
        chosen = (below[..., :-1] <= (uniform * below[..., -1])[..., None]).sum(-1)
        backgrounds, kernels = len(self.background_weight), mixture.recent_logit[0, 0].numel()
        own = chosen.clamp_max(backgrounds - 1)
        factor = torch.linalg.cholesky(self.background_covariance)[own]
        result = self.background_mean[own] + (factor @ normal[..., None])[..., 0]
        if kernels:
            widths = mixture.recent_width.shape[2]
            number = (chosen - backgrounds).clamp(0, kernels - 1)
            mean = _take(mixture.recent_mean[:, None].expand(-1, chosen.shape[1], -1, -1), number // widths)
            kernel = mean + _take(mixture.recent_width, number % widths) * normal
            result = torch.where((chosen >= backgrounds)[..., None], kernel, result)
        if self.config.free:
            number = (chosen - backgrounds - kernels).clamp_min(0)
            free = _take(mixture.free_mean, number) + _take(mixture.free_width, number) * normal
            result = torch.where((chosen >= backgrounds + kernels)[..., None], free, result)
        return result


def _take(values: Float[Tensor, "event sample entry 2"], number: Int[Tensor, "event sample"]) -> Tensor:
    return values.gather(2, number[..., None, None].expand(*number.shape, 1, 2))[:, :, 0]


def zero_start(layer: nn.Linear) -> nn.Linear:
    """Let a layer start as no correction."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
