"""Baselines on small cases by hand, and on the published sets against figures computed independently."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from stcore.baselines import ConstantRate, Marginal, Transitions, constant_errors, transitions
from stcore.errors import UserError
from stcore.events import EventSequences
from stcore.metrics import scores
from stcore.metrics.calibration import LEVELS, coverage, covered_below

DATA = Path(os.environ.get("STCORE_DATA", "no folder given"))
PUBLISHED = {
    # mean, median gap; mean, median, last location; majority, repeated mark (%); CRPS, energy, log loss of the marginal
    "earthquake": ((0.3193, 0.2972), (7.695, 7.574, 9.012), (90.30, 82.51), (0.2158, 5.225, 0.487)),
    "crime": ((1.2677, 1.1603), (0.0572, 0.0566, 0.0774), (35.94, 38.82), (0.931, 0.0404, 1.212)),
    "football": ((4.0868, 3.5037), (37.53, 37.53, 28.48), (66.00, 45.51), (2.908, 25.55, 1.017)),
}
COVERAGE = {
    "earthquake": (0.45, 0.57, 0.69, 0.80, 0.91),
    "crime": (0.56, 0.66, 0.74, 0.83, 0.89),
    "football": (0.51, 0.60, 0.70, 0.79, 0.89),
}


def _sequences() -> EventSequences:
    return EventSequences(
        time=np.array([1.0, 3.0, 4.0, 0.0, 2.5]),
        location=np.array([[0.0, 0.0], [3.0, 4.0], [3.0, 4.0], [1.0, 1.0], [1.0, 3.0]]),
        offsets=np.array([0, 3, 5]),
        mark=np.array([0, 1, 1, 0, 0]),
        mark_names=("a", "b", "c"),
    )


def test_transitions_leave_out_the_first_event_of_each_sequence():
    found = transitions(_sequences())
    assert found.gap.tolist() == [2.0, 1.0, 2.5]
    assert found.location.tolist() == [[3.0, 4.0], [3.0, 4.0], [1.0, 3.0]]
    assert found.previous_location.tolist() == [[0.0, 0.0], [3.0, 4.0], [1.0, 1.0]]
    assert (found.mark.tolist(), found.previous_mark.tolist()) == ([1, 1, 0], [0, 1, 0])
    assert found.sequence.tolist() == [0, 0, 1]


def test_constant_predictors_by_hand():
    part = transitions(_sequences())
    found = constant_errors(part, part)
    assert math.isclose(found["training mean"]["mae_gap"], (1 / 6 + 5 / 6 + 4 / 6) / 3)
    assert math.isclose(found["training median"]["mae_gap"], 0.5)
    assert math.isclose(found["event before"]["distance_location"], 7 / 3)
    assert math.isclose(found["training majority"]["accuracy"], 200 / 3)
    assert math.isclose(found["event before"]["accuracy"], 200 / 3)


@pytest.mark.parametrize("kind", [Marginal, ConstantRate])
def test_draws_of_an_event_depend_on_seed_and_index_alone(kind):
    forecaster = kind(transitions(_sequences()))
    whole = forecaster.sample(np.arange(6), 9, seed=4)
    part = forecaster.sample(np.array([5, 2]), 9, seed=4)
    for name in ("gap", "location", "mark"):
        assert torch.equal(getattr(whole, name)[[5, 2]], getattr(part, name))
    assert not torch.equal(whole.gap, forecaster.sample(np.arange(6), 9, seed=5).gap)


def test_marginal_draws_whole_transitions():
    part = transitions(_sequences())
    drawn = Marginal(part).sample(np.arange(50), 20, seed=0)
    seen = {(gap, *place, mark) for gap, place, mark in zip(part.gap, part.location.tolist(), part.mark, strict=True)}
    rows = torch.cat([drawn.gap[..., None], drawn.location, drawn.mark[..., None].double()], dim=-1).reshape(-1, 4)
    assert {tuple(row) for row in rows.tolist()} == seen
    np.testing.assert_allclose(drawn.mark_probability[0], np.array([1, 2, 0.5]) / 3.5)


def test_constant_rate_has_the_training_rate_box_and_shares():
    part = transitions(_sequences())
    drawn = ConstantRate(part).sample(np.arange(100), 300, seed=0)
    np.testing.assert_allclose(drawn.gap.mean(), part.gap.mean(), rtol=0.02)
    np.testing.assert_allclose(drawn.gap.std(), part.gap.mean(), rtol=0.03)
    np.testing.assert_allclose(drawn.location.amin((0, 1)), [1.0, 3.0], atol=0.01)
    np.testing.assert_allclose(drawn.location.amax((0, 1)), [3.0, 4.0], atol=0.01)
    shares = torch.bincount(drawn.mark.flatten(), minlength=3) / drawn.mark.numel()
    np.testing.assert_allclose(shares, drawn.mark_probability[0], atol=0.01)


def test_no_transition_is_refused():
    alone = EventSequences(time=np.array([1.0]), location=np.zeros((1, 2)), offsets=np.array([0, 1]))
    for make in (Marginal, ConstantRate, lambda part: constant_errors(part, part)):
        with pytest.raises(UserError, match="training part: no sequence has two events"):
            make(transitions(alone))


def _published(name: str) -> tuple[Transitions, Transitions]:
    path = DATA / f"smash_{name}" / f"smash_{name}.npz"
    if not path.exists():
        pytest.skip("STCORE_DATA names no folder with the published sets")
    with np.load(path, allow_pickle=False) as stored:
        num_marks = 1 + int(max(stored[f"{part}_mark"].max() for part in ("train", "val", "test")))
        train, test = (
            EventSequences(
                time=stored[f"{part}_time"],
                location=stored[f"{part}_loc"].astype(np.float64),
                offsets=stored[f"{part}_offset"],
                mark=stored[f"{part}_mark"].astype(np.int64),
                mark_names=tuple(str(mark) for mark in range(num_marks)),
            )
            for part in ("train", "test")
        )
    return transitions(train), transitions(test)


@pytest.mark.parametrize("name", PUBLISHED)
def test_constant_predictors_on_published_sets_to_the_printed_digits(name):
    found = constant_errors(*_published(name))
    gaps, places, marks, _ = PUBLISHED[name]
    decimals = 4 if places[0] < 1 else (3 if places[0] < 10 else 2)
    assert tuple(round(found[f"training {kind}"]["mae_gap"], 4) for kind in ("mean", "median")) == gaps
    which = ("training mean", "training median", "event before")
    assert tuple(round(found[kind]["distance_location"], decimals) for kind in which) == places
    assert tuple(round(found[kind]["accuracy"], 2) for kind in ("training majority", "event before")) == marks


@pytest.mark.parametrize("name", PUBLISHED)
def test_marginal_forecaster_on_published_sets_within_sampling_error(name):
    train, test = _published(name)
    chosen = np.arange(0, len(test.gap), 4)
    drawn = Marginal(train).sample(np.arange(len(test.gap)), 100, seed=1)
    gap, place = torch.from_numpy(test.gap), torch.from_numpy(test.location[chosen])
    crps, energy, loss = PUBLISHED[name][3]
    np.testing.assert_allclose(scores.crps(drawn.gap, gap, fair=True).mean(), crps, rtol=0.015)
    np.testing.assert_allclose(scores.energy_score(drawn.location[chosen], place, fair=True).mean(), energy, rtol=0.03)
    found = scores.log_loss(drawn.mark_probability, torch.from_numpy(test.mark)).mean()
    np.testing.assert_allclose(found, loss, atol=0.0006)
    covered = coverage(covered_below(drawn.gap, gap, torch.tensor(LEVELS, dtype=torch.float64)))
    np.testing.assert_allclose(covered, COVERAGE[name], atol=0.012)
