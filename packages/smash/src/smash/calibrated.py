"""Forecasts adjusted on the validation part, so that what they say is what happens.

Three maps, each fitted on events that training did not see and kept beside the run: which level of gap quantile, and
which level of location region, to ask the model for so that a level is covered (conformal adjustment), and a
temperature with one bias for each mark on the logarithms of the mark probabilities, fitted by maximum likelihood.

Source: temperature scaling: Guo, Pleiss, Sun and Weinberger, "On calibration of modern neural networks", ICML 2017; the
biases, which take up a shift of how frequent marks are: Alexandari, Kundaje and Shrikumar, ICML 2020; the level maps:
`stcore.metrics.calibration.LevelMap`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stcore.baselines import EventSamples
from stcore.errors import UserError
from stcore.files import write_atomically
from stcore.metrics.calibration import LevelMap
from stcore.metrics.scores import quantiles

FILE = "calibration.json"
VERSION = 1
FEWEST_EVENTS = 20
"""Events below which nothing is fitted."""
SMALLEST = 1e-9
"""Smallest mark probability whose logarithm is taken."""


@dataclass(frozen=True)
class MarkScaling:
    """p'(k) proportional to p(k)^(1 / temperature) · exp(bias_k)."""

    temperature: float
    bias: tuple[float, ...]

    @classmethod
    def fit(cls, probability: Float[Tensor, "event mark"], mark: Int[Tensor, "event"]) -> MarkScaling:
        """Find the most likely scaling, with standard normal priors on log temperature and biases."""
        logits = probability.double().clamp_min(SMALLEST).log()
        raw = torch.zeros(1 + logits.shape[1], dtype=torch.float64, requires_grad=True)
        optimiser = torch.optim.LBFGS([raw], max_iter=200, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            optimiser.zero_grad()
            value = torch.nn.functional.cross_entropy(logits * raw[0].neg().exp() + raw[1:], mark.long())
            value = value + 0.5 * raw.square().sum() / len(mark)
            value.backward()
            return value

        with torch.enable_grad():
            optimiser.step(loss)
        fitted = raw.detach()
        return cls(float(fitted[0].exp()), tuple((fitted[1:] - fitted[1:].mean()).tolist()))

    def __call__(self, probability: Float[Tensor, "event mark"]) -> Float[Tensor, "event mark"]:
        """Return the scaled probabilities."""
        logits = probability.double().clamp_min(SMALLEST).log() / self.temperature
        return torch.softmax(logits + torch.tensor(self.bias, dtype=torch.float64), dim=-1)


@dataclass(frozen=True, eq=False)
class Calibration:
    """What turns a model's samples into calibrated ones."""

    gap: LevelMap
    location: LevelMap
    mark: MarkScaling | None
    """None for unmarked events."""
    events: int
    """Events it was fitted on."""
    model: str
    """Checksum of the weights it belongs to."""

    def gap_samples(self, gap: Float[Tensor, "event sample"]) -> Float[Tensor, "event sample"]:
        """Move every sample to the quantile that its rank stands for; ranks stay as they are."""
        size = gap.shape[1]
        rank = gap.argsort(dim=1).argsort(dim=1)
        levels = torch.arange(1, size + 1, dtype=torch.float64) / (size + 1)
        return quantiles(gap, self.gap(levels)).gather(1, rank)

    def samples(self, drawn: EventSamples) -> EventSamples:
        """Return calibrated samples of gap and mark; places stay, only the levels of their regions are adjusted.

        Marks are drawn anew, in the order of their number: they no longer belong to the gap beside them.
        """
        moved = replace(drawn, gap=self.gap_samples(drawn.gap))
        if self.mark is None or drawn.mark_probability is None:
            return moved
        mean = drawn.mark_probability.double()
        probability = self.mark(mean.mean(1) if mean.ndim == 3 else mean)
        return replace(moved, mark=_shares(probability, drawn.gap.shape[1]), mark_probability=probability)

    def save(self, folder: Path) -> Path:
        """Write the calibration beside a run and return its path."""
        path = folder / FILE
        content: dict[str, Any] = {
            "version": VERSION, "model": self.model, "events": self.events, "levels": self.gap.nominal.tolist(),
            "gap": self.gap.asked.tolist(), "location": self.location.asked.tolist(),
        }  # fmt: skip
        if self.mark is not None:
            content |= {"temperature": self.mark.temperature, "bias": list(self.mark.bias)}
        write_atomically(path, [json.dumps(content, indent=1).encode()])
        return path

    @classmethod
    def load(cls, folder: Path, *, model: str) -> Calibration | None:
        """Read the calibration kept beside a run; None where there is none.

        Args:
            folder: the run.
            model: checksum of the weights it is to be used with.

        Raises:
            UserError: the file is broken, or belongs to other weights.
        """
        path = folder / FILE
        if not path.is_file():
            return None
        try:
            kept: Any = json.loads(path.read_text(encoding="utf-8"))
            if kept["version"] != VERSION:
                raise ValueError(f"version {kept['version']}")
            nominal, gap, location = (_levels(kept[name]) for name in ("levels", "gap", "location"))
            mark = MarkScaling(float(kept["temperature"]), tuple(map(float, kept["bias"]))) if "bias" in kept else None
            found = cls(LevelMap(nominal, gap), LevelMap(nominal, location), mark, int(kept["events"]), kept["model"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: {error}; expected a calibration; {REMEDY}") from error
        if found.model != model:
            raise UserError(f"{path}: fitted to other weights than these; expected those of the run; {REMEDY}")
        return found


REMEDY = "fit it with smash evaluate RUN --calibrate"


def fit_calibration(
    gap_covering: Float[Tensor, "event"],
    location_covering: Float[Tensor, "event"],
    *,
    mark_probability: Float[Tensor, "event mark"] | None = None,
    mark: Int[Tensor, "event"] | None = None,
    model: str = "",
) -> Calibration:
    """Fit to the forecasts of held-back events.

    Args:
        gap_covering: smallest level of the gap's one-sided interval that held the truth.
        location_covering: smallest level of the location's region that held it.
        mark_probability: forecast P(mark).
        mark: what came.
        model: checksum of the forecasting weights.

    Raises:
        UserError: fewer than 20 events.
    """
    if len(gap_covering) < FEWEST_EVENTS:
        raise UserError(f"validation part: {len(gap_covering)} events to calibrate on; expected at least "
                        f"{FEWEST_EVENTS}")  # fmt: skip
    scaling = None if mark is None or mark_probability is None else MarkScaling.fit(mark_probability, mark)
    return Calibration(LevelMap.fit(gap_covering), LevelMap.fit(location_covering), scaling, len(gap_covering), model)


def _levels(values: Any) -> Float[Tensor, "point"]:
    levels = torch.tensor([float(value) for value in values], dtype=torch.float64)
    if len(levels) < 2 or bool((levels.diff() < 0.0).any()) or float(levels[0]) < 0.0 or float(levels[-1]) > 1.0:
        raise ValueError("levels that are not in order between 0 and 1")
    return levels


def _shares(probability: Float[Tensor, "event mark"], samples: int) -> Int[Tensor, "event sample"]:
    """Draw marks whose shares are the probabilities, as nearly as so many samples can have them."""
    level = (torch.arange(samples, dtype=torch.float64) + 0.5) / samples
    return (probability.cumsum(1)[:, None, :-1] <= level[None, :, None]).sum(-1)
