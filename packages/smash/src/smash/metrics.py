"""How good forecasts of the next event are: per-event scores in physical units, then one table.

`event_scores` turns the samples of a chunk of events into a few numbers per event, `ScoreTable` sums those of many
chunks up to rows (`summarise` those of one): proper scores and unbiased calibration first, then the figures of the
paper under `legacy_*`. Beside each row stands
its floor: what the same forecast would score if it were perfect (one sample of each event plays the truth).

Source: Li et al., "Beyond Point Prediction", ICML 2024, section 4, and for `legacy_*` the test loop of the authors'
code (github.com/zichongli5/SMASH). The pooled figures differ from theirs in that absolute differences are taken once,
over all events; the `_batched` rows keep their sums of absolute differences per batch, which grow as batches shrink.
The kernel version of the calibration score is far from 0 even for a perfect forecaster (see its floor), because a
Scott bandwidth is too wide for long-tailed gaps; it is computed for comparison with published figures only.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from smash.table import Row, ScoreTable, Summary, summarise
from stcore.errors import UserError
from stcore.metrics import calibration, scores
from stcore.metrics.calibration import LEVELS, LevelMap
from stcore.metrics.density import Kernel, density_at, density_on_grid, fit_kernel, leave_one_out

__all__ = [
    "Row",
    "ScoreTable",
    "Summary",
    "event_scores",
    "join",
    "legacy_gap_upper",
    "legacy_location_threshold",
    "summarise",
]

LEGACY_GRID = 100
"""Points per axis of the original's density grids."""


def legacy_gap_upper(
    kernel: Kernel, levels: Float[Tensor, "level"], *, samples: Float[Tensor, "event sample"]
) -> Float[Tensor, "event level"]:
    """Find the upper ends of the original's one-sided gap intervals.

    On 100 equidistant points from the smallest to the largest sample, c = cumulative sum of the kernel density times
    the spacing; the end is the first point with c ≥ min(max c, level).
    """
    low, high = samples.double().aminmax(dim=1)
    grid = _ramps(low, high)
    spacing = (high - low) / (LEGACY_GRID - 1)
    cumulative = density_at(kernel, grid[:, :, None]).cumsum(1) * spacing[:, None]
    aim = torch.minimum(levels.to(cumulative), cumulative[:, -1:])
    return grid.gather(1, torch.searchsorted(cumulative, aim).clamp_max(LEGACY_GRID - 1))


def legacy_location_threshold(
    kernel: Kernel, levels: Float[Tensor, "level"], *, samples: Float[Tensor, "event sample 2"]
) -> Float[Tensor, "event level"]:
    """Find the densities above which the original counts a location as covered.

    Densities of a 100 × 100 grid over the samples' bounding box, ascending; the threshold is the first whose
    cumulative sum is ≥ (1 - level) of the total.
    """
    low, high = samples.double().aminmax(dim=1)
    grid = density_on_grid(kernel, _ramps(low[:, 0], high[:, 0]), _ramps(low[:, 1], high[:, 1]))
    ordered = _ascending(grid.flatten(1))
    cumulative = ordered.cumsum(1)
    aim = (1.0 - levels.to(cumulative)) * cumulative[:, -1:]
    return ordered.gather(1, torch.searchsorted(cumulative, aim).clamp_max(ordered.shape[1] - 1))


def _ramps(low: Float[Tensor, "event"], high: Float[Tensor, "event"]) -> Float[Tensor, "event point"]:
    unit = torch.linspace(0.0, 1.0, LEGACY_GRID, dtype=torch.float64, device=low.device)
    return torch.lerp(low[:, None], high[:, None], unit)


def _ascending(values: Float[Tensor, "event cell"]) -> Float[Tensor, "event cell"]:
    if values.device.type == "cpu":  # numpy's vectorised sort is some fifteen times faster than torch's here
        return torch.from_numpy(np.sort(values.numpy(), axis=1))
    return values.sort(dim=1).values


def event_scores(
    gap_samples: Float[Tensor, "event sample"],
    location_samples: Float[Tensor, "event sample 2"],
    *,
    gap: Float[Tensor, "event"],
    location: Float[Tensor, "event 2"],
    mark: Int[Tensor, "event"] | None = None,
    mark_probability: Float[Tensor, "event mark"] | Float[Tensor, "event sample mark"] | None = None,
    mark_samples: Int[Tensor, "event sample"] | None = None,
    num_marks: int = 0,
    levels: tuple[float, ...] = LEVELS,
    legacy: bool = True,
    floor: bool = True,
    extra: Mapping[str, Float[Tensor, "event"]] | None = None,
    regions: LevelMap | None = None,
) -> dict[str, Tensor]:
    """Score the samples of a chunk of events; chunks may be of any size, for `ScoreTable` or `join`.

    Args:
        gap_samples: samples of the gap to the next event, physical time; at least 3.
        location_samples: samples of its location, physical units.
        gap, location, mark: what came; mark is a 0-based index, None for unmarked events.
        mark_probability: P(mark), or P(mark | gap of the sample) whose mean over samples is then P(mark). Without it
            the frequencies of `mark_samples`, with half a count added to each mark, are the probabilities.
        mark_samples: a sampled mark for each sample; without it the most probable mark of each sample.
        num_marks: number of marks, needed when only `mark_samples` are given.
        levels: nominal levels of intervals and regions.
        legacy: also compute the kernel-density figures of the paper.
        floor: also score one sample of each event against the others, under `floor/<name>`.
        extra: further per-event columns, such as exact log densities, kept as they are (`gap_log_density` and
            `gap_mark_log_density`, in nats, become rows of the table).
        regions: which level of region to take for each nominal one; by default that level.

    Returns:
        Per-event tensors of float64 and bool, with the event as first axis.

    Raises:
        UserError: shapes that do not fit, non-finite samples or truths, marks out of range.
    """
    _check(gap_samples, location_samples, gap, location)
    nominal = torch.tensor(levels, dtype=torch.float64, device=gap_samples.device)
    with _one_thread():
        result = _gap_scores(gap_samples, gap, nominal, legacy=legacy)
        result |= _location_scores(location_samples, location, nominal, legacy=legacy, regions=regions)
        marks = None if mark is None else _MarkForecast.read(mark, mark_probability, mark_samples, num_marks)
        if marks is not None and mark is not None:
            result |= marks.against(mark)
        if floor:
            stand = _gap_scores(*calibration.stand_in(gap_samples), nominal, legacy=legacy)
            stand |= _location_scores(*calibration.stand_in(location_samples), nominal, legacy=legacy)
            if marks is not None:
                stand |= marks.against_itself()
            result |= {f"floor/{name}": value for name, value in stand.items()}
    return result | dict(extra or {})


@contextmanager
def _one_thread() -> Generator[None, None, None]:
    """Keep torch to one thread: the blocks are sized for the cache, and handing them out costs more than it saves."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def join(chunks: Iterable[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Put the per-event scores of consecutive chunks together."""
    parts = list(chunks)
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]} if parts else {}


def _check(gap_samples: Tensor, location_samples: Tensor, gap: Tensor, location: Tensor) -> None:
    events, samples = gap_samples.shape[:2]
    wanted = {"location samples": (location_samples, (events, samples, 2)), "gaps": (gap, (events,)),
              "locations": (location, (events, 2))}  # fmt: skip
    for name, (value, shape) in wanted.items():
        if tuple(value.shape) != shape:
            raise UserError(f"{name}: shape {tuple(value.shape)}; expected {shape} beside {events} events")
    if samples < 3:
        raise UserError(f"samples: {samples} per event; expected at least 3")
    for name, value in {"gap samples": gap_samples, **{name: pair[0] for name, pair in wanted.items()}}.items():
        bad = ~torch.isfinite(value).reshape(events, -1).all(1)
        if bad.any():
            first = int(bad.nonzero()[0, 0])
            raise UserError(f"{name}: {int(bad.sum())} events with non-finite values, first event {first}; expected "
                            "finite numbers")  # fmt: skip


def _gap_scores(
    samples: Float[Tensor, "event sample"], gap: Float[Tensor, "event"], levels: Float[Tensor, "level"], *, legacy: bool
) -> dict[str, Tensor]:
    drawn = samples.double()
    result = {
        "gap_crps": scores.crps(drawn, gap, fair=True),
        "gap_pinball": scores.pinball(drawn, gap, levels).mean(1),
        "gap_error_median": scores.absolute_error(scores.quantiles(drawn, levels.new_tensor([0.5]))[:, 0], gap),
        "gap_error_mean": scores.absolute_error(drawn.mean(1), gap),
        "gap_covered": calibration.covered_below(drawn, gap, levels),
        "gap_covering": calibration.covering_level(drawn, gap),
    }
    result["gap_pit_low"], result["gap_pit_high"] = calibration.pit_interval(drawn, gap)
    if legacy:
        kernel = fit_kernel(drawn[:, :, None])
        upper = legacy_gap_upper(kernel, levels, samples=drawn)
        result["legacy_gap_covered"] = (gap[:, None] >= 0.0) & (gap.double()[:, None] <= upper)
        result["gap_degenerate"] = kernel.ridged
    return result


def _location_scores(
    samples: Float[Tensor, "event sample 2"], location: Float[Tensor, "event 2"], levels: Float[Tensor, "level"], *,
    legacy: bool, regions: LevelMap | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    drawn = samples.double()
    kernel = fit_kernel(drawn)
    at_truth = density_at(kernel, location[:, None, :])
    at_samples = leave_one_out(kernel)
    result = {
        "location_energy": scores.energy_score(drawn, location, fair=True),
        "location_error_median": scores.distance(scores.geometric_median(drawn), location),
        "location_error_mean": scores.distance(drawn.mean(1), location),
        "location_covering": 1.0 - calibration.covering_level(at_samples, at_truth[:, 0]),
        "location_degenerate": kernel.ridged,
    }
    asked = levels if regions is None else regions(levels)
    result["location_covered"] = calibration.covered_by_rank(at_samples, at_truth[:, 0], asked)
    low, high = calibration.pit_interval(at_samples, at_truth[:, 0])
    if regions is not None:  # the rank of a density is 1 minus the level of the smallest region that holds its place
        low, high = 1.0 - regions.covered(1.0 - low), 1.0 - regions.covered(1.0 - high)
        high = torch.maximum(high, low + 1e-9)
    result["location_pit_low"], result["location_pit_high"] = low, high
    if legacy:
        result["legacy_location_covered"] = at_truth >= legacy_location_threshold(kernel, levels, samples=drawn)
    return result


@dataclass(frozen=True, eq=False)
class _MarkForecast:
    """The three things a forecast says of the next mark."""

    probability: Float[Tensor, "event mark"]
    classes: Int[Tensor, "event sample"]
    """Sampled marks, or the most probable mark of each sample."""
    sampled: bool
    """Whether `classes` are draws from `probability`."""
    legacy_prediction: Int[Tensor, "event"]
    """The mode over samples of the most probable mark of each sample."""

    @classmethod
    def read(
        cls, mark: Int[Tensor, "event"], probability: Tensor | None, classes: Tensor | None, num_marks: int
    ) -> _MarkForecast:
        if probability is None and (classes is None or num_marks < 1):
            raise UserError("mark forecast: neither probabilities nor samples with their number of marks; expected one")
        marks = num_marks if probability is None else probability.shape[-1]
        for name, value in (("marks", mark), ("sampled marks", classes)):
            if value is not None and len(value) and not 0 <= int(value.min()) <= int(value.max()) < marks:
                raise UserError(f"{name}: from {int(value.min())} to {int(value.max())}; expected 0 to {marks - 1}")
        per_sample = (
            calibration.first_argmax(probability) if probability is not None and probability.ndim == 3 else None
        )
        sampled = classes if classes is not None else per_sample
        if sampled is None:
            sampled = calibration.first_argmax(probability)[:, None]  # pyright: ignore[reportArgumentType]
        if probability is None:
            counts = torch.nn.functional.one_hot(sampled.long(), marks).sum(1).double() + 0.5
            probability = counts / counts.sum(1, keepdim=True)
        else:
            probability = probability.double().mean(1) if probability.ndim == 3 else probability.double()
        legacy = calibration.frequent_mark(per_sample if per_sample is not None else sampled, marks)[0]
        return cls(probability, sampled.long(), sampled=classes is not None, legacy_prediction=legacy)

    def against(self, mark: Int[Tensor, "event"]) -> dict[str, Tensor]:
        """Score the forecast against the marks that came."""
        marks = self.probability.shape[1]
        predicted, confidence = calibration.top_mark(self.probability)
        frequent, frequency = calibration.frequent_mark(self.classes, marks)
        return {
            "mark": mark.long(),
            "mark_probability": self.probability,
            "mark_predicted": predicted,
            "mark_log_loss": scores.log_loss(self.probability, mark),
            "mark_brier": scores.brier(self.probability, mark),
            "mark_confidence": confidence,
            "mark_correct": predicted == mark,
            "mark_frequency": frequency,
            "mark_frequent_correct": frequent == mark,
            "legacy_mark_correct": self.legacy_prediction == mark,
        }

    def against_itself(self) -> dict[str, Tensor]:
        """Score a mark drawn from the forecast, if there is one; the proper scores by their expectation."""
        result = self.against(self.classes[:, 0]) if self.sampled else {}
        result["mark_log_loss"] = scores.entropy(self.probability)
        result["mark_brier"] = 1.0 - self.probability.square().sum(1)
        return {name: result[name] for name in result if name not in ("mark", "mark_probability", "mark_predicted")}
