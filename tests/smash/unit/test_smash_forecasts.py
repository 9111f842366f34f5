"""Regions of known laws, and rates that belong to the law of the gap."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from smash.config import ModelConfig, TrainConfig
from smash.data import Features, prefix
from smash.intensity import rate_in_time
from smash.model import Smash
from smash.predict import Forecaster
from smash.regions import regions
from smash.sampling import gap_law
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
    start, gaps = float(sequence.time[-1]), np.geomspace(1e-3, 6.0, 4000)
    rate = rate_in_time(forecaster, sequence, start + gaps).sum(axis=1)
    hazard = float(np.sum(0.5 * (rate[1:] + rate[:-1]) * np.diff(gaps)))
    sampler = replace(forecaster.config.sampler, confine=False)
    condition = forecaster.conditions(sequence, at="last")
    law = gap_law(forecaster.model, condition, sampler=sampler, noise=forecaster.config.noise)
    ends = law.cdf_at(forecaster.features.gap_unit(torch.tensor(gaps[[0, -1]]))[None])[0]
    assert math.exp(-hazard) == pytest.approx(float((1.0 - ends[1]) / (1.0 - ends[0])), rel=1e-3)
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
