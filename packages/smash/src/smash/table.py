"""The table of scores: means over events, with floors and bootstrap intervals over sequences.

A row is a function of the means over events of a few columns, so that its value, its bootstrap interval (whole
sequences drawn with replacement, since events of one sequence depend on each other) and the original's average over
batches all come from the same sums. `ScoreTable` keeps these sums only, per sequence for the bootstrap: its memory
grows with the number of sequences, not of events.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from stcore.errors import UserError
from stcore.metrics import calibration
from stcore.metrics.calibration import LEVELS

BINS = 10
"""Bins of confidence (reliability) and twice as many of the probability integral transform."""
CURVE_LEVELS = tuple(round(0.05 * step, 2) for step in range(1, 20))
"""Levels of the coverage curves."""
FLOOR = "floor/"
"""What stands before the names of a perfect forecaster's scores."""
BOOTSTRAP_WEIGHTS = 2**17
"""Weights of sequences that the bootstrap draws at once."""


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
        _mean("gap_log_density", "nats", "exact log density of the gap, of its smoothed law if trained by scores",
              "gap_log_density", better="higher"),
        _mean("gap_mark_log_density", "nats", "exact log density of gap and mark, likewise",
              "gap_mark_log_density", better="higher"),
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


class ScoreTable:
    """The table of scores of one forecaster, summed up chunk by chunk.

    How events are cut into chunks changes nothing but rounding; a sequence may span chunks.

    Args:
        levels: the levels given to `event_scores`.
        batch_size: sequences in a batch of the original's test loop; only the `_batched` rows depend on it.
    """

    def __init__(self, *, levels: tuple[float, ...] = LEVELS, batch_size: int = 64) -> None:
        self._figures = _figures(levels)
        self._by_sequence = _GroupSums(1)
        self._by_batch = _GroupSums(batch_size)
        self._over_all = _GroupSums(sys.maxsize)
        self._totals: dict[str, Tensor] = {}
        self._columns: set[str] = set()

    def update(self, per_event: Mapping[str, Tensor], sequence_index: Int[Tensor, "event"]) -> None:
        """Add the scores of a chunk of events.

        Args:
            per_event: what `event_scores` returned.
            sequence_index: the sequence each event belongs to, 0-based in the order of the test set.

        Raises:
            UserError: other columns than in the chunks before.
        """
        if len(sequence_index) == 0:
            return
        scored = {name: value.cpu() for name, value in per_event.items()}
        sequence = sequence_index.long().cpu()
        if self._columns and self._columns != scored.keys():
            odd = sorted(self._columns ^ scored.keys())[0]
            raise UserError(f"scores: {odd!r} in some chunks; expected the same columns in all")
        self._columns = set(scored)
        found: dict[_GroupSums, dict[str, Tensor]] = {self._by_sequence: {}, self._by_batch: {}, self._over_all: {}}
        for figure in self._figures:
            for prefix in ("", FLOOR):
                if prefix + figure.source in scored:
                    found[self._groups(figure, prefix)][prefix + figure.name] = figure.columns(scored, prefix)
        for groups, columns in found.items():
            groups.add(columns, sequence)
        totals = _totals(scored)
        self._totals = {name: self._totals[name] + value if self._totals else value for name, value in totals.items()}

    def summary(self, *, replicates: int = 1000, seed: int = 0) -> Summary:
        """Make the table of all events so far.

        Args:
            replicates: bootstrap replicates (whole sequences are drawn with replacement); 0 leaves the intervals out.
            seed: seed of the bootstrap.

        Raises:
            UserError: no events.
        """
        counts = self._by_sequence.counts
        events = int(counts.sum())
        if events == 0:
            raise UserError("evaluation: no events to predict; expected sequences of at least two events")
        intervals = self._intervals(replicates, seed)
        curves, floor = _curves(self._totals, "", events), _curves(self._totals, FLOOR, events)
        return Summary(
            events=events,
            sequences=len(counts),
            degenerate_gap=int(self._totals.get("gap_degenerate", torch.zeros(()))),
            degenerate_location=int(self._totals["location_degenerate"]),
            rows=[self._row(figure, intervals) for figure in self._figures if figure.source in self._columns],
            curves=curves | {f"floor_{name}": value for name, value in floor.items()},
            marks=_mark_table(self._totals, events),
        )

    def _groups(self, figure: _Figure, prefix: str) -> _GroupSums:
        """Choose what is summed by what: a floor has no interval, so it needs no sums per sequence."""
        if figure.batched:
            return self._by_batch
        return self._over_all if prefix else self._by_sequence

    def advantage(self, other: ScoreTable, *, replicates: int = 1000, seed: int = 0) -> dict[str, bool]:
        """Tell which rows of the other table, of the same events, are better than here, and which beyond chance.

        Args:
            other: the scores of another forecaster.
            replicates: bootstrap replicates over sequences, the same for both tables.
            seed: seed of the bootstrap.

        Returns:
            For each row that is better there, whether the 95 % interval of the difference leaves out 0.
        """
        shared = [figure for figure in self._figures if not figure.batched and figure.name in self._by_sequence
                  and figure.name in other._by_sequence]  # fmt: skip
        mine, theirs = (table._replicates(shared, replicates, seed) for table in (self, other))
        found: dict[str, bool] = {}
        for figure in shared:
            sign = 1.0 if figure.better == "lower" else -1.0
            if sign * (self._value(figure, "") - other._value(figure, "")) > 0.0:
                gain = sign * (mine[figure.name] - theirs[figure.name])
                found[figure.name] = bool(len(gain) and np.isfinite(gain).all() and np.quantile(gain, 0.025) > 0.0)
        return found

    def _replicates(self, figures: Sequence[_Figure], replicates: int, seed: int) -> dict[str, NDArray[np.float64]]:
        """Compute each of these rows, which are not batched, for draws of whole sequences with replacement."""
        counts = self._by_sequence.counts
        spread: dict[str, list[Tensor]] = {figure.name: [] for figure in figures}
        for weights in _bootstrap_weights(len(counts), replicates, seed):
            drawn = (weights @ counts)[:, None]
            for figure in figures:
                spread[figure.name].append(figure.combine(weights @ self._by_sequence.sums(figure.name) / drawn))
        return {name: torch.cat(parts).numpy() if parts else np.zeros(0) for name, parts in spread.items()}

    def _intervals(self, replicates: int, seed: int) -> dict[str, tuple[float, float]]:
        """Find the 95 % intervals of the rows that are not batched, but for those of infinite spread."""
        figures = [figure for figure in self._figures if figure.name in self._by_sequence]
        intervals: dict[str, tuple[float, float]] = {}
        for name, values in self._replicates(figures, replicates, seed).items():
            if len(values) and np.isfinite(values).all():
                low, high = np.quantile(values, (0.025, 0.975))
                intervals[name] = (float(low), float(high))
        return intervals

    def _row(self, figure: _Figure, intervals: Mapping[str, tuple[float, float]]) -> Row:
        low, high = intervals.get(figure.name, (None, None))
        return Row(name=figure.name, value=self._value(figure, ""),
                   floor=self._value(figure, FLOOR) if FLOOR + figure.source in self._columns else None,
                   low=low, high=high, unit=figure.unit, better=figure.better, meaning=figure.meaning)  # fmt: skip

    def _value(self, figure: _Figure, prefix: str) -> float:
        groups = self._groups(figure, prefix)
        sums, counts = groups.sums(prefix + figure.name), groups.counts
        if not figure.batched:
            return float(figure.combine(sums.sum(0) / counts.sum()))
        return float((figure.combine(sums / counts[:, None]) * counts).sum() / counts.sum())


def summarise(
    per_event: Mapping[str, Tensor],
    *,
    sequence_index: Int[Tensor, "event"],
    levels: tuple[float, ...] = LEVELS,
    batch_size: int = 64,
    replicates: int = 1000,
    seed: int = 0,
) -> Summary:
    """Make the table of scores of events that are all at hand.

    Args:
        per_event: what `event_scores` returned, joined over chunks.
        sequence_index: the sequence each event belongs to, 0-based in the order of the test set.
        levels, batch_size: see `ScoreTable`.
        replicates, seed: see `ScoreTable.summary`.
    """
    table = ScoreTable(levels=levels, batch_size=batch_size)
    table.update(per_event, sequence_index)
    return table.summary(replicates=replicates, seed=seed)


class _GroupSums:
    """Sums of columns over the events of each `span` consecutive sequences, with room for more as they come."""

    def __init__(self, span: int) -> None:
        self._span = span
        self._counts = torch.zeros((0, 1), dtype=torch.float64)
        self._sums: dict[str, Float[Tensor, "group column"]] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._sums

    @property
    def counts(self) -> Float[Tensor, "group"]:
        """Events of each group that has some."""
        return self._counts[self._counts > 0]

    def sums(self, name: str) -> Float[Tensor, "group column"]:
        """Sums of the columns `name` over each group that has events."""
        return self._sums[name][self._counts[:, 0] > 0]

    def add(self, columns: Mapping[str, Tensor], sequence: Int[Tensor, "event"]) -> None:
        group = sequence // self._span
        self._counts = _added(self._counts, self._counts.new_ones((len(group), 1)), group)
        for name, values in columns.items():
            self._sums[name] = _added(self._sums.get(name, values[:0]), values, group)


def _added(
    sums: Float[Tensor, "known column"], columns: Float[Tensor, "event column"], group: Int[Tensor, "event"]
) -> Float[Tensor, "group column"]:
    """Add each row to its group's, in place where there is room."""
    missing = int(group.max()) + 1 - len(sums)
    if missing > 0:  # at least doubled, so that groups which come one by one are not copied each time
        sums = torch.cat([sums, sums.new_zeros((max(missing, len(sums)), sums.shape[1]))])
    return sums.index_add_(0, group, columns)


def _bootstrap_weights(sequences: int, replicates: int, seed: int) -> Iterator[Float[Tensor, "replicate sequence"]]:
    """Draw how often each sequence occurs in each replicate, some replicates at a time."""
    rng = np.random.default_rng(seed)
    share = np.full(sequences, 1.0 / sequences)
    step = max(1, BOOTSTRAP_WEIGHTS // sequences)
    for done in range(0, replicates, step):
        draw = rng.multinomial(sequences, share, size=min(step, replicates - done))
        yield torch.from_numpy(draw.astype(np.float64))


def _totals(scored: dict[str, Tensor]) -> dict[str, Tensor]:
    """Sum over events what the counts of degenerate samples, the curves and the table of marks are made of."""
    degenerate = [name for name in ("gap_degenerate", "location_degenerate") if name in scored]
    sums = {name: scored[name].double().sum() for name in degenerate}
    return sums | _curve_sums(scored, "") | _curve_sums(scored, FLOOR) | _mark_sums(scored)


def _curve_sums(scored: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    if f"{prefix}gap_pit_low" not in scored:
        return {}
    gap = scored[f"{prefix}gap_pit_low"], scored[f"{prefix}gap_pit_high"]
    rank = scored[f"{prefix}location_pit_low"], scored[f"{prefix}location_pit_high"]
    levels = torch.tensor(CURVE_LEVELS, dtype=torch.float64)
    sums = {
        "gap": calibration.pit_coverage(*gap, levels) * len(gap[0]),
        # A region of level q holds the samples of the highest densities: those of ranks above 1 - q.
        "location": calibration.pit_coverage(1.0 - rank[1], 1.0 - rank[0], levels) * len(gap[0]),
        "pit_gap": calibration.pit_histogram(*gap, bins=2 * BINS),
        "pit_location": calibration.pit_histogram(*rank, bins=2 * BINS),
    }
    if f"{prefix}mark_confidence" in scored:
        bins = calibration.reliability(scored[f"{prefix}mark_confidence"], scored[f"{prefix}mark_correct"], bins=BINS)
        sums |= {"confidence": bins.confidence_sum, "correct": bins.correct, "count": bins.count}
    return {f"{prefix}curve/{name}": value for name, value in sums.items()}


def _curves(totals: Mapping[str, Tensor], prefix: str, events: int) -> dict[str, list[float]]:
    before = f"{prefix}curve/"
    sums = {name.removeprefix(before): value for name, value in totals.items() if name.startswith(before)}
    if not sums:
        return {}
    curves = {
        "levels": torch.tensor(CURVE_LEVELS, dtype=torch.float64),
        "gap": sums["gap"] / events,
        "location": sums["location"] / events,
        "pit_gap": sums["pit_gap"],
        "pit_location": sums["pit_location"],
    }
    if "count" in sums:
        bins = calibration.Reliability(sums["count"], sums["correct"], sums["confidence"])
        curves |= {"confidence": bins.confidence.nan_to_num(), "accuracy": bins.accuracy.nan_to_num(),
                   "count": bins.count}  # fmt: skip
    return {name: value.tolist() for name, value in curves.items()}


def _mark_sums(scored: dict[str, Tensor]) -> dict[str, Tensor]:
    if "mark" not in scored:
        return {}
    came, said, probability = scored["mark"], scored["mark_predicted"], scored["mark_probability"]
    marks = probability.shape[1]
    return {
        "mark_events": torch.bincount(came, minlength=marks),
        "mark_predictions": torch.bincount(said, minlength=marks),
        "mark_hits": torch.bincount(came[came == said], minlength=marks),
        "mark_probability": probability.double().sum(0),
    }


def _mark_table(totals: Mapping[str, Tensor], events: int) -> list[dict[str, int | float]]:
    if "mark_events" not in totals:
        return []
    names = ("mark_events", "mark_predictions", "mark_hits", "mark_probability")
    lines = zip(*(totals[name].double().tolist() for name in names), strict=True)
    return [
        {
            "mark": mark,
            "events": came,
            "share": came / events,
            "probability": probability / events,
            "recall": hits / came if came else math.nan,
            "precision": hits / said if said else math.nan,
        }
        for mark, (came, said, hits, probability) in enumerate(lines)
    ]
