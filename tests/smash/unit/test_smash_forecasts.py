"""Regions of known laws, and rates that belong to the law of the gap."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from smash.config import ModelConfig, TrainConfig
from smash.data import Features, prefix
from smash.intensity import rate_in_time
from smash.model import Smash
from smash.predict import Forecaster
from smash.regions import regions
from stcore.errors import UserError
from stcore.events import EventSequences
from stcore.generate.events import clustered_city


@pytest.fixture(scope="module")
def events() -> EventSequences:
    return clustered_city().simulate(6, duration=20.0, seed=3)


@pytest.fixture(scope="module")
def forecaster(events: EventSequences) -> Forecaster:
    torch.manual_seed(1)
    features = Features.fit(events, log_gap=True)
    config = TrainConfig(model=ModelConfig(width=8, layers=1))
    return Forecaster(Smash(config.model, num_marks=features.num_marks), features, config, {})


def test_regions_of_a_normal_law_have_its_areas() -> None:
    torch.manual_seed(0)
    samples = torch.randn(2, 4000, 2, dtype=torch.float64) * torch.tensor([3.0, 1.0])
    found = regions(samples, (0.5, 0.9))
    # The region of level q of a normal law is an ellipse of area 2 pi s1 s2 log(1 / (1 - q)).
    expected = [2 * math.pi * 3.0 * math.log(1 / (1 - level)) for level in (0.5, 0.9)]
    np.testing.assert_allclose(found.areas, [expected, expected], rtol=0.12)


def test_regions_become_closed_polygons_around_their_area() -> None:
    torch.manual_seed(0)
    found = regions(torch.randn(1, 500, 2, dtype=torch.float64), (0.5,))
    (feature,) = found.features(np.array(["quake"]), np.array([7]))
    assert feature["properties"] == {"sequence_id": "quake", "event": 7, "level": 0.5}
    area = 0.0
    for polygon in feature["geometry"]["coordinates"]:
        for ring in polygon:
            x, y = np.array(ring).T
            assert (x[0], y[0]) == (x[-1], y[-1])
            area += 0.5 * float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]))
    assert abs(area) == pytest.approx(float(found.areas[0, 0]), rel=0.05)


def test_rate_integrates_to_the_law_of_the_gap(forecaster: Forecaster, events: EventSequences) -> None:
    longest = events.select([int(events.lengths.argmax())])
    sequence = prefix(longest, longest.num_events // 2)
    start = float(sequence.time[-1])
    times = start + np.geomspace(1e-3, 6.0, 4000)
    rate = rate_in_time(forecaster, sequence, times).sum(axis=1)
    hazard = np.concatenate([[0.0], np.cumsum(0.5 * (rate[1:] + rate[:-1]) * np.diff(times))])
    drawn = forecaster.sample(sequence, samples=4000, at="last")
    # Before the Tweedie step samples follow this law; here only the order of magnitude of the survival is compared.
    middle = 1.0 - math.exp(-hazard[np.searchsorted(times, start + float(drawn.samples.gap.median()))])
    assert middle == pytest.approx(0.5, abs=0.12)
    assert (rate >= 0.0).all()


def test_rate_asks_for_one_sequence_and_later_times(forecaster: Forecaster, events: EventSequences) -> None:
    with pytest.raises(UserError, match="6 sequences"):
        rate_in_time(forecaster, events, np.array([1.0]))
    one = events.select([0])
    with pytest.raises(UserError, match="from the first event"):
        rate_in_time(forecaster, one, np.array([float(one.time[0]) - 0.1]))


def test_unknown_marks_are_refused_at_forecast_time(forecaster: Forecaster, events: EventSequences) -> None:
    names = ("theft", "assault", "flood")
    strange = EventSequences(events.time, events.location, events.offsets, events.mark, names, events.sequence_id)
    with pytest.raises(UserError, match="flood"):
        forecaster.sample(strange, samples=5)
