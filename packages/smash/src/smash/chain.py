"""The original's sampler: Langevin steps on gap and location with the mark redrawn, then denoising.

Li et al., ICML 2024, section 3.3 and algorithm 1, as the authors' code does it: one step size for gap and location,
confined to the box, and, when marked, a second chain on the location alone that puts the removed noise back.
Positions are in the box [-1, 1].
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from smash.draws import Draws
from smash.frozen import FrozenScore
from smash.score import Score, ScoreNetwork, mark_distribution

LocationScore = Callable[[Tensor], Tensor]
"""Score of `event sample 2` locations at fixed gaps."""


class State(NamedTuple):
    """Where the samples of some events stand."""

    x: Float[Tensor, "event sample 3"]
    mark: Int[Tensor, "event sample"] | None
    probability: Float[Tensor, "event sample mark"]
    """Distribution of the mark at the gap the last mark was drawn at: before the last update, in a chain."""


@runtime_checkable
class Evaluator(Protocol):
    """The score of some events."""

    def __call__(self, x: Tensor, mark: Tensor | None) -> Score: ...

    def at_gap(self, gap: Tensor) -> tuple[Tensor, LocationScore]:
        """Distribution of the mark and score of the location at fixed gaps."""
        ...


class PlainEvaluator:
    """The network as it was trained, with the condition's part computed once."""

    def __init__(self, network: ScoreNetwork, condition: Float[Tensor, "event condition"]) -> None:
        self.network, self.prepared = network, network.prepare(condition)

    def __call__(self, x: Tensor, mark: Tensor | None) -> Score:
        return self.network(x, mark, self.prepared)

    def at_gap(self, gap: Tensor) -> tuple[Tensor, LocationScore]:
        trunk, intensity = self.network.temporal(gap, self.prepared)

        def score(location: Tensor) -> Tensor:
            return self.network.location_score(trunk, self.network.spatial(location, self.prepared), self.prepared)

        return mark_distribution(intensity), score


class FrozenEvaluator:
    """The same score with everything merged that can be."""

    def __init__(self, network: ScoreNetwork, condition: Float[Tensor, "event condition"]) -> None:
        self.frozen = FrozenScore(network, condition)

    def __call__(self, x: Tensor, mark: Tensor | None) -> Score:
        return self.frozen(x, mark)

    def at_gap(self, gap: Tensor) -> tuple[Tensor, LocationScore]:
        trunk = self.frozen.trunk(gap)
        part = self.frozen.gap_part(trunk)
        return mark_distribution(
            self.frozen.intensity(trunk).mT
        ), lambda location: self.frozen.location_score(location.mT.contiguous(), part).mT


def start(draws: Draws, *, samples: int, num_marks: int, like: Float[Tensor, "event condition"]) -> State:
    """Initial positions: half a standard normal and uniform marks; a standard normal when unmarked."""
    uniform = torch.full((len(like), samples, num_marks), 1.0 / num_marks, dtype=like.dtype, device=like.device)
    x = draws.normal(samples, 3)
    return State(x, None, uniform) if num_marks == 1 else State(0.5 * x, draws.marks(uniform), uniform)


def walk(evaluate: Evaluator, state: State, *, step: float, count: int, draws: Draws) -> Iterator[State]:
    """Take Langevin steps; yields the state after each."""
    for _ in range(count):
        score, probability = evaluate(state.x, state.mark)
        noise = draws.normal(state.x.shape[1], 3)
        x = (state.x + 0.5 * step * score).add_(noise, alpha=math.sqrt(step)).clamp_(-1.0, 1.0)
        state = State(x, None if state.mark is None else draws.marks(probability), probability)
        yield state


def restart(state: State, *, draws: Draws) -> State:
    """Begin a stage: through the unit box and back as the original stores it, marks drawn anew."""
    x = 2.0 * (0.5 * state.x + 0.5) - 1.0
    return State(x, None if state.mark is None else draws.marks(state.probability), state.probability)


def denoise(evaluate: Evaluator, state: State, *, sigma: Float[Tensor, "3"]) -> Tensor:
    """Tweedie's formula: the mean of the position before the noise, x + sigma squared times the score. No clamp."""
    return state.x + sigma.square() * evaluate(state.x, state.mark).score


def refine(
    x: Float[Tensor, "event sample 3"], score: LocationScore, *, step: float, count: int, draws: Draws
) -> Iterator[Float[Tensor, "event sample 3"]]:
    """Take Langevin steps of the location at a fixed gap, without a clamp; yields the position after each."""
    gap, location = x[..., :1], x[..., 1:]
    for _ in range(count):
        noise = draws.normal(x.shape[1], 2)
        location = (location + 0.5 * step * score(location)).add_(noise, alpha=math.sqrt(step))
        yield torch.cat([gap, location], dim=-1)


def finish(
    evaluate: Evaluator, state: State, *, sigma: Float[Tensor, "3"], step: float, refine_steps: int, draws: Draws
) -> State:
    """End the last stage: denoise; when marked, draw the mark at the new gap, move the location, clamp."""
    x = denoise(evaluate, state, sigma=sigma)
    if state.mark is None:
        return State(x, None, state.probability)
    probability, score = evaluate.at_gap(x[..., 0])
    mark = draws.marks(probability)
    for moved in refine(x, score, step=step, count=refine_steps, draws=draws):
        x = moved
    return State(x.clamp(-1.0, 1.0), mark, probability)
