"""Whether forecasts cover what they say: intervals of gaps, regions of locations, confidences of marks.

Everything here is pooled over events, so a figure never depends on how events were batched. A calibrated forecaster
with finitely many samples does not score 0: give the same functions one sample of each event as the truth and the
other samples as the forecast to see what it would (`stand_in`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from stcore.metrics.scores import quantiles

LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9)
"""Nominal levels of the calibration score (Li et al., ICML 2024, section 4)."""


def stand_in(samples: Float[Tensor, "event sample *axis"]) -> tuple[Tensor, Tensor]:
    """Take one sample of each event as the truth and leave the others as the forecast: a perfect forecaster."""
    return samples[:, 1:], samples[:, 0]


def covered_below(
    samples: Float[Tensor, "event sample"], truth: Float[Tensor, "event"], levels: Float[Tensor, "level"]
) -> Bool[Tensor, "event level"]:
    """Tell whether the truth lies in the one-sided interval up to the sample quantile of each level.

    Source: Li et al., ICML 2024, section 4: the interval [0, t_q] with t_q from sample quantiles. `scores.quantiles`
    makes the expected coverage of a calibrated forecaster exactly the level. NaN is never covered.
    """
    return truth.double()[:, None] <= quantiles(samples, levels)


def covered_by_rank(
    at_samples: Float[Tensor, "event sample"], at_truth: Float[Tensor, "event"], levels: Float[Tensor, "level"]
) -> Bool[Tensor, "event level"]:
    """Tell whether the truth lies in the highest-density region of each level, by ranking densities.

    Args:
        at_samples: forecast density at each sample without that sample's own kernel (`density.leave_one_out`): like
            the truth, a sample must not vouch for itself.
        at_truth: forecast density at the truth.
        levels: nominal levels; the truth is covered where its density reaches the (1 - level) quantile.
    """
    return at_truth[:, None] >= quantiles(at_samples, 1.0 - levels)


def covering_level(samples: Float[Tensor, "event sample"], truth: Float[Tensor, "event"]) -> Float[Tensor, "event"]:
    """Find the smallest level whose one-sided interval, as in `covered_below`, holds the truth, in [0, 1].

    0 where the truth is not above any sample; 1 where it is above all of them, and no level holds it. Of densities at
    the samples and at the truth, 1 minus the result is the smallest level whose region holds the truth.
    """
    value, ordered = truth.double().contiguous()[:, None], samples.double().sort(dim=-1).values
    size = ordered.shape[1]
    below = torch.searchsorted(ordered, value)
    at = ordered.gather(1, torch.cat([(below - 1).clamp_min(0), below.clamp_max(size - 1)], dim=1))
    width = at[:, 1] - at[:, 0]
    share = torch.where(width > 0.0, (value[:, 0] - at[:, 0]) / width.clamp_min(1e-300), 1.0)
    inside = (below[:, 0] + share) / (size + 1)
    return torch.where(below[:, 0] == 0, 0.0, torch.where(below[:, 0] == size, 1.0, inside))


@dataclass(frozen=True, eq=False)
class LevelMap:
    """Which level to ask a forecaster for so that a level is covered: conformal adjustment, fitted on held-back events.

    Source: Vovk, Shen, Manokhin and Xie, "Nonparametric predictive distributions based on conformal prediction",
    Machine Learning 2019; Kuleshov, Fenner and Ermon, "Accurate uncertainties for deep learning using calibrated
    regression", ICML 2018. The guarantee holds for exchangeable events; those of one sequence are so only roughly.
    """

    nominal: Float[Tensor, "point"]
    """Levels that are to be covered, from 0 to 1, ascending."""
    asked: Float[Tensor, "point"]
    """Levels to ask for, never falling."""

    @classmethod
    def fit(cls, covering: Float[Tensor, "event"], *, points: int = 101) -> LevelMap:
        """Fit to the smallest levels that held the truth (`covering_level`) of events the model was not trained on."""
        nominal = torch.linspace(0.0, 1.0, points, dtype=torch.float64)
        asked = quantiles(covering.double().cpu()[None], nominal[1:-1])[0]
        ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
        return cls(nominal, torch.cat([ends[:1], asked, ends[1:]]))

    def __call__(self, levels: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """Return the levels to ask for."""
        return _interpolated(levels, self.nominal, self.asked)

    def covered(self, asked: Float[Tensor, "*any"]) -> Float[Tensor, "*any"]:
        """Return the levels that are covered by what one asks for: the inverse."""
        return _interpolated(asked, self.asked, self.nominal)


def _interpolated(
    values: Float[Tensor, "*any"], known: Float[Tensor, "point"], result: Float[Tensor, "point"]
) -> Float[Tensor, "*any"]:
    """Interpolate linearly between known values that do not fall."""
    flat = values.double().reshape(-1)
    right = torch.searchsorted(known, flat).clamp(1, len(known) - 1)
    width = known[right] - known[right - 1]
    share = torch.where(width > 0.0, (flat - known[right - 1]) / width.clamp_min(1e-300), 1.0).clamp(0.0, 1.0)
    return torch.lerp(result[right - 1], result[right], share).reshape(values.shape)


def shortest_interval(
    samples: Float[Tensor, "event sample"], levels: Float[Tensor, "level"]
) -> tuple[Float[Tensor, "event level"], Float[Tensor, "event level"]]:
    """Find the shortest interval between two samples that holds the next draw with at least each level.

    Between sample i and sample i + k of S lies a further draw of the same law with probability k / (S + 1) for any i
    chosen beforehand. For a law with one peak it is the highest-density interval; where the level asks for more than
    the samples span, it is their whole range. Ties go to the lower one.
    Source: Chen and Shao, Journal of Computational and Graphical Statistics 1999, for samples of a posterior.
    """
    ordered = samples.double().sort(dim=-1).values
    size = ordered.shape[1]
    ends: list[tuple[Tensor, Tensor]] = []
    for level in levels.tolist():
        span = min(max(math.ceil(level * (size + 1) - 1e-9), 1), size - 1)
        low = (ordered[:, span:] - ordered[:, : size - span]).argmin(dim=1, keepdim=True)
        ends.append((ordered.gather(1, low), ordered.gather(1, low + span)))
    return torch.cat([low for low, _ in ends], dim=1), torch.cat([high for _, high in ends], dim=1)


def coverage(covered: Bool[Tensor, "event level"]) -> Float[Tensor, "level"]:
    """Compute the share of events covered at each level; NaN without events."""
    return covered.double().mean(0)


def calibration_score(
    observed: Float[Tensor, "*batch level"], levels: Float[Tensor, "level"]
) -> Float[Tensor, "*batch"]:
    """Compute the mean over levels of |observed coverage - level|, in [0, 1]; lower is better."""
    return (observed.double() - levels.double()).abs().mean(-1)


def pit_interval(
    samples: Float[Tensor, "event sample"], truth: Float[Tensor, "event"]
) -> tuple[Float[Tensor, "event"], Float[Tensor, "event"]]:
    """Find the interval in [0, 1] that the truth's rank among its samples stands for.

    With `b` samples below and `t` tied, a calibrated truth has ranks b..b+t of S + 1 equally likely, so its
    probability integral transform is uniform over (b / (S + 1), (b + t + 1) / (S + 1)).
    Source: Czado, Gneiting and Held, "Predictive Model Assessment for Count Data", Biometrics 2009.
    """
    value, drawn = truth.double()[:, None], samples.double()
    size = drawn.shape[1]
    below = (drawn < value).sum(1).double()
    tied = (drawn == value).sum(1).double()
    undefined = torch.where(torch.isnan(value[:, 0] + drawn.sum(1)), torch.nan, 0.0)
    return below / (size + 1) + undefined, (below + tied + 1.0) / (size + 1) + undefined


def pit_histogram(low: Float[Tensor, "event"], high: Float[Tensor, "event"], *, bins: int = 20) -> Float[Tensor, "bin"]:
    """Count events per bin of the probability integral transform, each spread evenly over its interval.

    Flat at events / bins when calibrated; U-shaped when too narrow, a hump when too wide.
    """
    edges = torch.linspace(0.0, 1.0, bins + 1, dtype=torch.float64, device=low.device)
    return (pit_coverage(low, high, edges) * len(low)).diff()


def pit_coverage(
    low: Float[Tensor, "event"], high: Float[Tensor, "event"], levels: Float[Tensor, "level"]
) -> Float[Tensor, "level"]:
    """Compute the coverage of one-sided intervals at any levels: the distribution of the transform."""
    share = (levels.to(low) - low[:, None]) / (high - low)[:, None]
    return share.clamp(0.0, 1.0).mean(0)


@dataclass(frozen=True, eq=False)
class Reliability:
    """Confidence against accuracy in equal bins (b / bins, (b + 1) / bins] of confidence."""

    count: Float[Tensor, "bin"]
    """Events in the bin."""
    correct: Float[Tensor, "bin"]
    """Events of the bin whose prediction was right."""
    confidence_sum: Float[Tensor, "bin"]
    """Sum of the confidences of the bin."""

    @property
    def confidence(self) -> Float[Tensor, "bin"]:
        """Mean confidence of each bin, NaN where it is empty."""
        return self.confidence_sum / self.count

    @property
    def accuracy(self) -> Float[Tensor, "bin"]:
        """Share of right predictions in each bin, NaN where it is empty."""
        return self.correct / self.count

    @property
    def error_sum(self) -> float:
        """Σ over bins of count · |mean confidence - accuracy|; an empty bin adds nothing."""
        return float((self.confidence_sum - self.correct).abs().sum())

    @property
    def ece(self) -> float:
        """Expected calibration error, in [0, 1]; NaN without events."""
        total = float(self.count.sum())
        return self.error_sum / total if total else float("nan")


def reliability(confidence: Float[Tensor, "event"], correct: Bool[Tensor, "event"], *, bins: int = 10) -> Reliability:
    """Gather confidences in [0, 1] and hits into bins, over all events."""
    index = confidence_bin(confidence, bins=bins)
    zeros = torch.zeros(bins, dtype=torch.float64, device=confidence.device)
    return Reliability(
        count=zeros.index_add(0, index, torch.ones_like(confidence, dtype=torch.float64)),
        correct=zeros.index_add(0, index, correct.double()),
        confidence_sum=zeros.index_add(0, index, confidence.double()),
    )


def confidence_bin(confidence: Float[Tensor, "event"], *, bins: int = 10) -> Int[Tensor, "event"]:
    """Find the bin (b / bins, (b + 1) / bins] of each confidence; 0 belongs to the first."""
    inner = torch.linspace(0.0, 1.0, bins + 1, dtype=torch.float64, device=confidence.device)[1:-1]
    return torch.bucketize(confidence.double(), inner)


def top_mark(probability: Float[Tensor, "event mark"]) -> tuple[Int[Tensor, "event"], Float[Tensor, "event"]]:
    """Predict the most probable mark (the first of equals) and its probability."""
    mark = first_argmax(probability.double())
    return mark, probability.double().gather(1, mark[:, None])[:, 0]


def frequent_mark(
    marks: Int[Tensor, "event sample"], num_marks: int
) -> tuple[Int[Tensor, "event"], Float[Tensor, "event"]]:
    """Predict the most frequent sampled mark (the first of equals) and its relative frequency."""
    counts = torch.zeros((len(marks), num_marks), dtype=torch.float64, device=marks.device)
    counts.scatter_add_(1, marks.long(), torch.ones_like(marks, dtype=torch.float64))
    return top_mark(counts / marks.shape[1])


def first_argmax(values: Float[Tensor, "*batch mark"]) -> Int[Tensor, "*batch"]:
    """Find the index of the largest value, the first of equals (torch.argmax leaves open which one)."""
    at_most = values == values.amax(-1, keepdim=True)
    return at_most.to(torch.uint8).cummax(-1).values.eq(0).sum(-1).clamp_max(values.shape[-1] - 1)
