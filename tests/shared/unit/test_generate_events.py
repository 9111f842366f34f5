"""The self-exciting process against theory: rates, time rescaling, exact next-event laws, and against itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import kstest

from stcore.errors import UserError
from stcore.events import EventSequences
from stcore.generate.events import SelfExciting, TrueForecaster, clustered_city
from stcore.metrics import scores
from stcore.metrics.calibration import LEVELS, coverage, covered_below

TRUTH = clustered_city()


def _events(sequences: int = 12, duration: float = 80.0, seed: int = 0) -> EventSequences:
    return TRUTH.simulate(sequences, duration=duration, seed=seed)


def _small() -> SelfExciting:
    return SelfExciting(
        background_rate=np.array([0.5]), offspring=np.array([[0.4]]), decay=2.0, spread=0.5,
        centres=np.array([[0.0, 0.0]]), widths=np.array([1.0]), weights=np.array([1.0]), mark_names=("event",),
    )  # fmt: skip


def test_compensators_of_simulated_gaps_are_exponential():
    events = _events(20)
    residual = TRUTH.compensator(events)
    assert len(residual) > 1500
    assert kstest(residual, "expon").pvalue > 0.01
    # a process with another decay does not pass: the test has power
    wrong = SelfExciting(**{**vars(TRUTH), "decay": 6.0})
    assert kstest(wrong.compensator(events), "expon").pvalue < 1e-4


def test_mean_counts_are_those_of_the_branching_ratio():
    events = _events(10, 800.0)
    counts = np.bincount(events.mark, minlength=3) / (10 * 800.0)
    np.testing.assert_allclose(counts, TRUTH.stationary_rate, rtol=0.09)
    assert math.isclose(_small().branching_ratio, 0.4)
    np.testing.assert_allclose(_small().stationary_rate, [0.5 / 0.6])


def test_sequences_depend_on_seed_and_index_alone():
    many, few = _events(5), _events(2)
    assert many.offsets[2] == few.num_events
    np.testing.assert_array_equal(many.location[: few.num_events], few.location)
    assert _events(2, seed=1).num_events != few.num_events


def test_intensity_by_hand_and_integrated_over_space():
    history = EventSequences(time=np.array([1.0]), location=np.array([[1.0, 0.0]]), offsets=np.array([0, 1]))
    found = _small().intensity(np.array([0.5, 2.0]), np.array([[0.0, 0.0], [1.0, 0.5]]), history=history)
    background = 0.5 / (2 * math.pi) * np.array([1.0, math.exp(-0.625)])
    triggered = 0.4 * 2.0 * math.exp(-2.0) / (2 * math.pi * 0.25) * math.exp(-0.5)
    np.testing.assert_allclose(found[:, 0], background + np.array([0.0, triggered]))
    side = np.linspace(-7.0, 8.0, 151)
    grid = np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)
    total = _small().intensity(np.full(len(grid), 2.0), grid, history=history).sum() * 0.01
    np.testing.assert_allclose(total, _small().rate(np.array([2.0]), history=history)[0, 0], rtol=1e-6)


def test_recursions_agree_with_the_sum_over_the_history():
    events = _events(3)
    rates, found = TRUTH.rates_at(events), []
    for start, stop in zip(events.offsets[:-1], events.offsets[1:], strict=True):
        history = EventSequences(
            time=events.time[start:stop], location=events.location[start:stop], offsets=np.array([0, stop - start]),
            mark=events.mark[start:stop], mark_names=events.mark_names,
        )  # fmt: skip
        found.append(TRUTH.rate(history.time, history=history))
    np.testing.assert_allclose(rates, np.concatenate(found), rtol=1e-9)
    np.testing.assert_allclose(TRUTH.mark_probability(events).sum(axis=1), 1.0)


def test_density_of_the_next_gap_integrates_to_one():
    gaps = np.linspace(0.0, 60.0, 60001)
    first, last = np.zeros(len(gaps)) + 1.0, 1.0 + gaps
    events = EventSequences(
        time=np.stack([first, last], axis=1).ravel(), location=np.zeros((2 * len(gaps), 2)),
        offsets=np.arange(0, 2 * len(gaps) + 1, 2),
    )  # fmt: skip
    density = np.exp(_small().gap_log_density(events)[1::2])
    np.testing.assert_allclose(np.trapezoid(density, gaps), 1.0, rtol=1e-5)


def test_the_truth_as_forecaster_is_calibrated_and_beats_nothing_better():
    events = _events(8)
    forecaster = TrueForecaster(TRUTH, events)
    later = np.delete(np.arange(events.num_events), events.offsets[:-1])
    drawn = forecaster.sample(np.arange(len(later)), 99, seed=0)
    gap = torch.from_numpy(events.gaps()[later])
    covered = coverage(covered_below(drawn.gap, gap, torch.tensor(LEVELS, dtype=torch.float64)))
    np.testing.assert_allclose(covered, LEVELS, atol=0.055)
    loss = scores.log_loss(drawn.mark_probability.mean(1), torch.from_numpy(events.mark[later]))
    np.testing.assert_allclose(loss.mean(), scores.entropy(drawn.mark_probability.mean(1)).mean(), rtol=0.06)
    place = torch.from_numpy(events.location[later])
    energy = scores.energy_score(drawn.location, place, fair=True).mean()
    floor = scores.energy_score(drawn.location[:, 1:], drawn.location[:, 0], fair=True).mean()
    np.testing.assert_allclose(energy, floor, rtol=0.08)


def test_samples_of_the_next_gap_follow_the_exact_law_and_seeds():
    events = _events(1)
    forecaster = TrueForecaster(TRUTH, events)
    drawn = forecaster.sample(np.array([7, 3]), 2000, seed=1)
    excited = TRUTH.excitation_after(events)[7].sum()
    gap = drawn.gap[0].numpy()
    hazard = TRUTH.background_rate.sum() * gap - excited * np.expm1(-TRUTH.decay * gap) / TRUTH.decay
    assert kstest(hazard, "expon").pvalue > 0.01
    assert torch.equal(forecaster.sample(np.array([3]), 2000, seed=1).location[0], drawn.location[1])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"offspring": np.array([[1.2]])}, "branching ratio 1.2; expected below 1"),
        ({"background_rate": np.array([-1.0])}, "a negative rate"),
        ({"decay": 0.0}, "expected positive numbers"),
        ({"offspring": np.zeros((2, 2))}, r"expected \(1,\) and \(1, 1\)"),
    ],
)
def test_impossible_processes_are_refused(change, said):
    with pytest.raises(UserError, match=said):
        SelfExciting(**{**vars(_small()), **change})
