"""The model: a history encoder and a score network (Li et al., ICML 2024, section 4), or densities in its place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from smash.chunks import mean_over_chunks
from smash.config import LossConfig, ModelConfig, NoiseConfig
from smash.density import DensityLoss, DensityNetwork
from smash.encoder import HistoryEncoder, LegacyMasks
from smash.gradient import can_be_by_hand, mean_loss_by_hand
from smash.loss import LossTerms, MeanLoss, mean_loss, score_matching
from smash.score import ScoreNetwork

CHUNK_ROWS = 8192
"""Perturbed targets that go through the score network at once, so that activations stay in cache."""


class Batch(NamedTuple):
    """Sequences padded on the right with zeros."""

    time: Float[Tensor, "sequence event"]
    """Absolute time in the data's unit."""
    gap: Float[Tensor, "sequence event"]
    """Normalised (log-)gap to the previous event, [0, 1] over the training part."""
    location: Float[Tensor, "sequence event 2"]
    """Normalised coordinates, [0, 1] over the training part."""
    mark: Int[Tensor, "sequence event"] | None
    """0-based marks; None when unmarked."""
    lengths: Int[Tensor, "sequence"]
    """Real events of each sequence."""


class Targets(NamedTuple):
    """What is predicted: every event but the first of its sequence, sequence by sequence."""

    condition: Float[Tensor, "target condition"]
    """Summary of all events before the target."""
    value: Float[Tensor, "target 3"]
    """Normalised (log-)gap, x, y of the target."""
    mark: Int[Tensor, "target"] | None


class Smash(nn.Module):
    """Model of the next event given the history.

    Args:
        config: sizes.
        num_marks: kinds of events; 1 means unmarked.
    """

    def __init__(self, config: ModelConfig, *, num_marks: int) -> None:
        super().__init__()
        self.config, self.num_marks = config, num_marks
        self.encoder = HistoryEncoder(config, num_marks=num_marks) if _encodes(config) else None
        if config.law == "density":
            self.density = DensityNetwork(config, num_marks=num_marks)
        else:
            self.score = ScoreNetwork(config.width, config.units, num_marks)

    @property
    def marked(self) -> bool:
        """Whether events have marks."""
        return self.num_marks > 1

    def encode(
        self,
        time: Float[Tensor, "sequence event"],
        location: Float[Tensor, "sequence event 2"],
        mark: Int[Tensor, "sequence event"] | None,
        lengths: Int[Tensor, "sequence"],
    ) -> Float[Tensor, "sequence event condition"]:
        """Summarise events 0 to i at every position i; what stands at padded positions means nothing."""
        masks = LegacyMasks(time, location) if self.config.legacy_masks else None
        present = _before(lengths, time.shape[1])
        marks = mark if self.marked else None
        if self.encoder is None:
            return self.density.pack(None, time, location, marks)
        encoded = self.encoder(time, location, marks, present=present, masks=masks)
        return self.density.pack(encoded, time, location, marks) if self.config.law == "density" else encoded

    @property
    def loss_parts(self) -> tuple[str, ...]:
        """Names of the parts of the loss."""
        names = ("gap", "location") if self.config.law == "density" else ("gap_score", "location_score")
        return (*names, "mark") if self.marked else names

    def lengths(self, batch: Batch) -> Int[Tensor, "sequence"]:
        """Events that count in each sequence: all, but for the original's masks."""
        return LegacyMasks(batch.time, batch.location).lengths if self.config.legacy_masks else batch.lengths

    def targets(self, batch: Batch) -> Targets:
        """Flatten the padded batch to one row per predicted event, with its condition."""
        condition = self.encode(batch.time, batch.location, batch.mark, batch.lengths)
        known = _before(self.lengths(batch) - 1, batch.time.shape[1] - 1)
        value = torch.cat([batch.gap[..., None], batch.location], dim=-1)
        mark = batch.mark[:, 1:][known] if self.marked and batch.mark is not None else None
        return Targets(condition[:, :-1][known], value[:, 1:][known], mark)

    def forward(
        self,
        batch: Batch,
        draws: Float[Tensor, "target perturbation 3"],
        *,
        noise: NoiseConfig,
        loss: LossConfig,
    ) -> MeanLoss | DensityLoss:
        """Mean loss of every predicted event of the batch, in the order of `targets`.

        Args:
            batch: padded sequences.
            draws: standard normal draws, one row per predicted event (`num_targets`); densities use none.
            noise: noise levels.
            loss: smoothing of the mark loss, and weights.
        """
        targets = self.targets(batch)
        if self.config.law == "density":
            return self.density.mean_loss(*targets, loss)
        if can_be_by_hand(targets.condition):
            return mean_loss_by_hand(self.score, *targets, draws, noise=noise, loss=loss)
        chunks = list(_chunks(targets, draws))

        def means(number: int, condition: Tensor) -> MeanLoss:
            part, chunk = chunks[number]
            return mean_loss(self._chunk_terms(part._replace(condition=condition), chunk, noise, loss), loss)

        sizes = [len(chunk) for _, chunk in chunks]
        found = mean_over_chunks(means, sizes, targets.condition, list(self.score.parameters()))
        return MeanLoss(*found) if self.marked else MeanLoss(*found, mark=None)

    def loss_terms(
        self,
        targets: Targets,
        draws: Float[Tensor, "target perturbation 3"],
        *,
        noise: NoiseConfig,
        loss: LossConfig,
    ) -> LossTerms:
        """Loss terms of given targets, before averaging and weights (`smash.loss.total_loss`)."""
        parts = [self._chunk_terms(part, chunk, noise, loss) for part, chunk in _chunks(targets, draws)]
        marks = [part.mark for part in parts if part.mark is not None]
        return LossTerms(torch.cat([part.denoise for part in parts]), torch.cat(marks) if marks else None)

    def _chunk_terms(self, part: Targets, draws: Tensor, noise: NoiseConfig, loss: LossConfig) -> LossTerms:
        prepared = self.score.prepare(part.condition)
        return score_matching(self.score, prepared, part.value, part.mark, draws, noise=noise, loss=loss)


def _chunks(targets: Targets, draws: Tensor) -> Iterator[tuple[Targets, Tensor]]:
    size = max(1, CHUNK_ROWS // draws.shape[1])
    for start in range(0, max(1, len(draws)), size):
        part = slice(start, start + size)
        mark = None if targets.mark is None else targets.mark[part]
        yield Targets(targets.condition[part], targets.value[part], mark), draws[part]


def _encodes(config: ModelConfig) -> bool:
    return config.law == "score" or config.density.encoded


def num_targets(lengths: Int[Tensor, "sequence"]) -> int:
    """Predicted events of sequences of these lengths: all but the first of each."""
    return int((lengths - 1).clamp_min(0).sum())


def _before(lengths: Int[Tensor, "sequence"], count: int) -> Bool[Tensor, "sequence event"]:
    return torch.arange(count, device=lengths.device) < lengths[:, None]
