"""The table of scores: means over events, with floors and bootstrap intervals over sequences.

A row is a function of the means over events of a few columns, so that its value, its bootstrap interval (whole
sequences drawn with replacement, since events of one sequence depend on each other) and the original's average over
batches all come from the same sums.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stcore.errors import UserError
from stcore.metrics import calibration
from stcore.metrics.calibration import LEVELS

BINS = 10
"""Bins of confidence (reliability) and twice as many of the probability integral transform."""
CURVE_LEVELS = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""Levels of the coverage curves."""


class Row(TypedDict):
    """One line of the table of scores."""

    name: str
    value: float
    floor: float | None
    """The same figure for a perfect forecaster with this forecast; None where it has none."""
    low: float | None
    """Lower end of the 95 % bootstrap interval over sequences; None where there is none."""
    high: float | None
    unit: str
    """`gap` (the time unit of the data), `location` (its coordinate unit), `nats`, `%` or `1`."""
    better: str
    """`lower` or `higher`."""
    meaning: str


class Summary(TypedDict):
    """The table of scores of one forecaster, and the numbers behind its curves."""

    events: int
    sequences: int
    degenerate_gap: int
    """Events whose gap samples are all (almost) equal."""
    degenerate_location: int
    """Events whose location samples are (almost) equal or on a line."""
    rows: list[Row]
    curves: dict[str, list[float]]
    """`levels`, observed coverage `gap` and `location` at them; `pit_gap` counts per bin; `confidence`, `accuracy`
    and `count` per bin of the mark's confidence (0 where empty); the same with `floor_` before the name."""
    marks: list[dict[str, int | float]]
    """Per mark: index, events, share, mean forecast probability, recall, precision."""


@dataclass(frozen=True)
class _Figure:
    """A row: the mean over events of some columns, then a function of the means."""

    name: str
    unit: str
    meaning: str
    source: str
    """Per-event column it needs."""
    columns: Callable[[dict[str, Tensor], str], Float[Tensor, "event column"]]
    combine: Callable[[Float[Tensor, "*batch column"]], Float[Tensor, "*batch"]]
    better: str = "lower"
    batched: bool = False
    """Average the figure over the original's batches, weighted by their events."""


def _mean(name: str, unit: str, meaning: str, source: str, *, better: str = "lower", scale: float = 1.0) -> _Figure:
    return _Figure(name, unit, meaning, source, lambda scored, at: scale * scored[at + source].double()[:, None],
                   lambda means: means[..., 0], better)  # fmt: skip


def _share(name: str, meaning: str, source: str) -> _Figure:
    return _mean(name, "%", meaning, source, better="higher", scale=100.0)


def _coverage_error(name: str, meaning: str, source: str, levels: tuple[float, ...], batched: bool = False) -> _Figure:
    nominal = torch.tensor(levels, dtype=torch.float64)
    return _Figure(name, "%", meaning, source, lambda scored, prefix: scored[prefix + source].double().cpu(),
                   lambda means: 100.0 * calibration.calibration_score(means, nominal), batched=batched)  # fmt: skip


def _confidence_error(name: str, meaning: str, confidence: str, correct: str, batched: bool = False) -> _Figure:
    def columns(scored: dict[str, Tensor], prefix: str) -> Float[Tensor, "event column"]:
        stated, hit = scored[prefix + confidence].double(), scored[prefix + correct].double()
        where = torch.nn.functional.one_hot(calibration.confidence_bin(stated, bins=BINS), BINS)
        return where * (stated - hit)[:, None]

    return _Figure(name, "%", meaning, correct, columns, lambda means: 100.0 * means.abs().sum(-1), batched=batched)


def _figures(levels: tuple[float, ...]) -> list[_Figure]:
    """List the rows in the order of the table."""
    return [
        _mean("gap_crps", "gap", "continuous ranked probability score of the gap, unbiased", "gap_crps"),
        _mean("location_energy", "location", "energy score of the location, unbiased", "location_energy"),
        _mean("mark_log_loss", "nats", "log loss of the mark", "mark_log_loss"),
        _mean("mark_brier", "1", "Brier score of the mark", "mark_brier"),
        _mean("gap_pinball", "gap", "pinball loss of the gap, mean over the levels", "gap_pinball"),
        _mean("gap_log_density", "nats", "exact log density of the smoothed gap", "gap_log_density", better="higher"),
        _mean("gap_mark_log_density", "nats", "exact log density of smoothed gap and mark", "gap_mark_log_density",
              better="higher"),
        _coverage_error("cs_gap", "calibration of gap quantiles", "gap_covered", levels),
        _coverage_error("cs_location", "calibration of location regions", "location_covered", levels),
        _confidence_error("ece", "calibration of mark probabilities", "mark_confidence", "mark_correct"),
        _confidence_error("ece_sampled", "calibration of mark frequencies", "mark_frequency", "mark_frequent_correct"),
        _mean("mae_gap", "gap", "absolute error of the median gap", "gap_error_median"),
        _mean("distance_location", "location", "distance of the geometric median", "location_error_median"),
        _share("accuracy", "share of marks predicted", "mark_correct"),
        _mean("legacy_mae_gap", "gap", "absolute error of the mean gap", "gap_error_mean"),
        _mean("legacy_mae_location", "location", "distance of the mean location", "location_error_mean"),
        _share("legacy_accuracy", "share of marks predicted by vote of the samples", "legacy_mark_correct"),
        _coverage_error("legacy_cs_gap", "calibration of gaps by kernel density", "legacy_gap_covered", levels),
        _coverage_error("legacy_cs_location", "calibration of locations on a grid", "legacy_location_covered", levels),
        _coverage_error("legacy_cs_gap_batched", "the same, summed per batch", "legacy_gap_covered", levels, True),
        _coverage_error("legacy_cs_location_batched", "the same, summed per batch", "legacy_location_covered", levels,
                        True),
        _confidence_error("legacy_ece_batched", "ECE summed per batch", "mark_confidence", "mark_correct", True),
    ]  # fmt: skip


def summarise(
    per_event: dict[str, Tensor],
    *,
    sequence_index: Int[Tensor, "event"],
    levels: tuple[float, ...] = LEVELS,
    batch_size: int = 64,
    replicates: int = 1000,
    seed: int = 0,
) -> Summary:
    """Make the table of scores from the joined results of `event_scores`.

    Args:
        per_event: what `event_scores` returned, joined over chunks.
        sequence_index: the sequence each event belongs to, 0-based in the order of the test set.
        levels: the levels given to `event_scores`.
        batch_size: sequences in a batch of the original's test loop; only the `_batched` rows depend on it.
        replicates: bootstrap replicates (whole sequences are drawn with replacement); 0 leaves the intervals out.
        seed: seed of the bootstrap.
    """
    scored = {name: value.cpu() for name, value in per_event.items()}
    sequence = sequence_index.long().cpu()
    if len(sequence) == 0:
        raise UserError("evaluation: no events to predict; expected sequences of at least two events")
    sequences, dense = sequence.unique(return_inverse=True)
    weights = _bootstrap_weights(len(sequences), replicates, seed)
    figures = [figure for figure in _figures(levels) if figure.source in scored]
    return Summary(
        events=len(sequence),
        sequences=len(sequences),
        degenerate_gap=int(scored.get("gap_degenerate", torch.zeros(1)).sum()),
        degenerate_location=int(scored["location_degenerate"].sum()),
        rows=[_row(figure, scored, dense, weights, sequence // batch_size) for figure in figures],
        curves=_curves(scored, "") | {f"floor_{name}": value for name, value in _curves(scored, "floor/").items()},
        marks=_mark_table(scored),
    )


def _bootstrap_weights(sequences: int, replicates: int, seed: int) -> Float[Tensor, "replicate sequence"]:
    draw = np.random.default_rng(seed).multinomial(sequences, np.full(sequences, 1.0 / sequences), size=replicates)
    return torch.from_numpy(draw.astype(np.float64))


def _row(
    figure: _Figure,
    scored: dict[str, Tensor],
    sequence: Int[Tensor, "event"],
    weights: Float[Tensor, "replicate sequence"],
    batch: Int[Tensor, "event"],
) -> Row:
    columns = figure.columns(scored, "")
    low = high = floor = None
    if len(weights) and not figure.batched:
        sums, counts = _group_sums(columns, sequence)
        spread = figure.combine(weights @ sums / (weights @ counts)[:, None]).numpy()
        if np.isfinite(spread).all():
            low, high = (float(end) for end in np.quantile(spread, (0.025, 0.975)))
    if f"floor/{figure.source}" in scored:
        floor = _value(figure, figure.columns(scored, "floor/"), batch)
    return Row(name=figure.name, value=_value(figure, columns, batch), floor=floor, low=low, high=high,
               unit=figure.unit, better=figure.better, meaning=figure.meaning)  # fmt: skip


def _value(figure: _Figure, columns: Float[Tensor, "event column"], batch: Int[Tensor, "event"]) -> float:
    if not figure.batched:
        return float(figure.combine(columns.mean(0)))
    sums, counts = _group_sums(columns, batch.unique(return_inverse=True)[1])
    return float((figure.combine(sums / counts[:, None]) * counts).sum() / counts.sum())


def _group_sums(
    columns: Float[Tensor, "event column"], group: Int[Tensor, "event"]
) -> tuple[Float[Tensor, "group column"], Float[Tensor, "group"]]:
    counts = torch.bincount(group).double()
    return columns.new_zeros((len(counts), columns.shape[1])).index_add_(0, group, columns), counts


def _curves(scored: dict[str, Tensor], prefix: str) -> dict[str, list[float]]:
    if f"{prefix}gap_pit_low" not in scored:
        return {}
    gap = scored[f"{prefix}gap_pit_low"], scored[f"{prefix}gap_pit_high"]
    rank = scored[f"{prefix}location_pit_low"], scored[f"{prefix}location_pit_high"]
    levels = torch.tensor(CURVE_LEVELS, dtype=torch.float64)
    curves = {
        "levels": levels,
        "gap": calibration.pit_coverage(*gap, levels),
        # A region of level q holds the samples of the highest densities: those of ranks above 1 - q.
        "location": calibration.pit_coverage(1.0 - rank[1], 1.0 - rank[0], levels),
        "pit_gap": calibration.pit_histogram(*gap, bins=2 * BINS),
        "pit_location": calibration.pit_histogram(*rank, bins=2 * BINS),
    }
    if f"{prefix}mark_confidence" in scored:
        bins = calibration.reliability(scored[f"{prefix}mark_confidence"], scored[f"{prefix}mark_correct"], bins=BINS)
        curves |= {"confidence": bins.confidence.nan_to_num(), "accuracy": bins.accuracy.nan_to_num(),
                   "count": bins.count}  # fmt: skip
    return {name: value.tolist() for name, value in curves.items()}


def _mark_table(scored: dict[str, Tensor]) -> list[dict[str, int | float]]:
    if "mark" not in scored:
        return []
    truth, predicted, probability = scored["mark"], scored["mark_predicted"], scored["mark_probability"]
    return [_mark_line(mark, truth == mark, predicted == mark, probability[:, mark])
            for mark in range(probability.shape[1])]  # fmt: skip


def _mark_line(
    mark: int, came: Bool[Tensor, "event"], said: Bool[Tensor, "event"], probability: Float[Tensor, "event"]
) -> dict[str, int | float]:
    both, events, predictions = float((came & said).sum()), float(came.sum()), float(said.sum())
    return {
        "mark": mark,
        "events": events,
        "share": events / len(came),
        "probability": float(probability.mean()),
        "recall": both / events if events else math.nan,
        "precision": both / predictions if predictions else math.nan,
    }
