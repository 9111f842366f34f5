"""The world of crowds: its rhythm, its spells, and what follows from its law."""

from __future__ import annotations

import numpy as np
import pytest

from stcore.errors import UserError
from stcore.generate.crowd_flow import START, CrowdFlow


def test_counts_are_a_function_of_the_seed() -> None:
    world = CrowdFlow()
    first, again, other = (world.counts(50, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert first.shape == (50, 8, 8) and first.min() >= 0


def test_a_series_has_half_hours_from_a_monday_on() -> None:
    series = CrowdFlow(height=4, width=5).series(96, seed=0)
    assert series.times is not None and series.times[0] == START and series.shape == (96, 1, 4, 5)
    assert series.step == np.timedelta64(1_800_000_000, "us") and series.units == ("people",)
    assert series.check() == ["frames of 4 x 5 (height x width) are tiny: are the axes in the order that was meant?"]


def test_weeks_repeat_and_weekends_differ() -> None:
    world = CrowdFlow()
    week = world.moments(7 * world.steps_per_day)
    usual = world.expected(week)
    assert np.allclose(usual, world.expected(week + np.timedelta64(7, "D")))
    monday, tuesday, saturday = (usual[day * 48 : (day + 1) * 48] for day in (0, 1, 5))
    assert np.allclose(monday, tuesday)
    middle = np.unravel_index(world.places[1].argmax(), (8, 8))
    assert saturday[26][middle] < 0.5 * monday[26][middle]  # one o'clock among offices


def test_counts_scatter_around_what_is_expected() -> None:
    world = CrowdFlow(spread=0.0)
    frames = 40 * world.steps_per_day
    seen, usual = world.counts(frames, seed=3), world.expected(world.moments(frames))
    assert seen.mean() == pytest.approx(usual.mean(), rel=2e-3)
    assert ((seen - usual) ** 2 / usual).mean() == pytest.approx(1.0, abs=0.01)  # Poisson: variance is the mean


def test_spells_last_as_said() -> None:
    spells = CrowdFlow(memory=0.9).spells(40_000, seed=0)
    assert spells.std() == pytest.approx(1.0, abs=0.05)
    assert np.corrcoef(spells[:-3], spells[3:])[0, 1] == pytest.approx(0.9**3, abs=0.02)


def test_steps_of_another_length_keep_the_rhythm() -> None:
    slow, quick = CrowdFlow(step_minutes=60), CrowdFlow(step_minutes=15)
    assert np.allclose(slow.expected(slow.moments(24)), quick.expected(quick.moments(96))[::4])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [({"height": 1}, "1 x 8 cells; expected at least 2 x 2"), ({"step_minutes": 7}, "7 minutes; expected a divisor"),
     ({"memory": 1.0}, "memory 1, spread 0.25; expected a share")],
)  # fmt: skip
def test_no_such_city(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        CrowdFlow(**wrong)
