"""Classical rivals recover what they are fitted to."""

from __future__ import annotations

import numpy as np
import pytest

from smash.rivals import InhomogeneousPoisson, Mixture, fit_rivals, fit_self_exciting
from stcore.events import EventSequences
from stcore.generate.events import SelfExciting, clustered_city


def world() -> SelfExciting:
    return SelfExciting(
        background_rate=np.array([0.6, 0.2]),
        offspring=np.array([[0.4, 0.2], [0.0, 0.3]]),
        decay=4.0,
        spread=0.1,
        centres=np.array([[0.0, 0.0], [5.0, 5.0]]),
        widths=np.array([0.5, 1.0]),
        weights=np.array([0.6, 0.4]),
        mark_names=("a", "b"),
    )


@pytest.fixture(scope="module")
def events() -> EventSequences:
    return world().simulate(150, duration=30.0, seed=1)


def test_expectation_maximisation_recovers_the_process(events: EventSequences) -> None:
    truth, found = world(), fit_self_exciting(events)
    np.testing.assert_allclose(found.background_rate, truth.background_rate, rtol=0.12)
    np.testing.assert_allclose(found.offspring, truth.offspring, atol=0.05)
    np.testing.assert_allclose([found.decay, found.spread], [truth.decay, truth.spread], rtol=0.1)


def test_fitted_process_is_at_least_as_likely_as_the_truth(events: EventSequences) -> None:
    later = np.ones(events.num_events, dtype=bool)
    later[events.offsets[:-1]] = False
    found = fit_self_exciting(events).gap_log_density(events)[later].mean()
    assert found > world().gap_log_density(events)[later].mean() - 0.01


def test_poisson_process_has_the_rate_of_its_time() -> None:
    rng = np.random.default_rng(0)
    early = [np.sort(np.concatenate([[0.0], rng.uniform(0.0, 1.0, 20), rng.uniform(1.0, 3.0, 10)])) for _ in range(200)]
    train = EventSequences(
        time=np.concatenate(early),
        location=rng.normal(size=(31 * 200, 2)),
        offsets=np.arange(0, 31 * 201, 31),
    )
    fitted = InhomogeneousPoisson.fit(train, train)
    middle = 0.5 * (fitted.edges[:-1] + fitted.edges[1:])
    np.testing.assert_allclose(fitted.rate[:-1][middle < 0.9], 20.0, rtol=0.15)
    np.testing.assert_allclose(fitted.rate[:-1][(middle > 1.2) & (middle < 2.5)], 5.0, rtol=0.25)
    gap = fitted.sample(np.array([0]), 4000, seed=0).gap.numpy()[0]
    assert abs(gap.mean() - 1.0 / 20.0) < 0.006


def test_mixture_starts_at_distinct_places() -> None:
    mixture = Mixture.start(np.repeat(np.array([[0.0, 0.0], [1.0, 2.0]]), 5, axis=0))
    assert len(mixture.weights) == 2
    assert mixture.densities(np.zeros((1, 2))).shape == (1, 2)


def test_rivals_draw_the_same_whatever_the_chunks() -> None:
    train, test = (clustered_city().simulate(20, duration=20.0, seed=seed) for seed in (1, 2))
    for rival in fit_rivals(train, test).values():
        whole = rival.sample(np.arange(6), 8, seed=3)
        parts = [rival.sample(np.arange(start, start + 2), 8, seed=3) for start in (0, 2, 4)]
        np.testing.assert_array_equal(whole.gap, np.concatenate([part.gap for part in parts]))
        np.testing.assert_array_equal(whole.location, np.concatenate([part.location for part in parts]))
        assert whole.mark_probability is not None and (whole.gap >= 0.0).all()
