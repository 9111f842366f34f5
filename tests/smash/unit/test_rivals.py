"""Classical rivals recover what they are fitted to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from smash import rivals, self_exciting
from smash.mixture import Mixture
from smash.rivals import InhomogeneousPoisson, PoissonLaw, Rivals, fit_rivals
from smash.self_exciting import fit_self_exciting
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


def test_a_fit_that_begins_on_a_sample_and_forgets_old_parents_is_the_same(
    events: EventSequences, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit_self_exciting(events)
    monkeypatch.setattr(self_exciting, "SAMPLE_PAIRS", 20_000)
    quick = fit_self_exciting(events)
    np.testing.assert_allclose(quick.offspring, whole.offspring, atol=0.01)
    np.testing.assert_allclose([quick.decay, quick.spread], [whole.decay, whole.spread], rtol=0.02)
    np.testing.assert_allclose(quick.background_rate, whole.background_rate, rtol=0.02)


def test_coinciding_and_far_away_events_leave_the_fit_finite() -> None:
    rng = np.random.default_rng(0)
    time = np.floor(np.sort(rng.uniform(0.0, 40.0, (8, 60)), axis=1))
    location = np.round(rng.normal(size=(480, 2)))
    location[100] = [1e7, -1e7]
    events = EventSequences(time=time.ravel(), location=location, offsets=np.arange(9) * 60)
    found = fit_self_exciting(events)
    assert 0.0 < found.decay <= 1.0, "times are whole: nothing tells a faster decay from this one"
    assert np.isfinite([*found.background_rate, found.spread, *found.widths, *found.weights]).all()
    assert np.isfinite(found.gap_log_density(events)).all()


def test_each_event_keeps_a_parent_and_old_ones_are_left_out() -> None:
    time = np.array([0.0, 1.0, 1.5, 9.0])
    first, count = self_exciting._parents(time, 2.0)  # pyright: ignore[reportPrivateUsage]
    assert first.tolist() == [0, 0, 2] and count.tolist() == [1, 2, 1]


def test_poisson_process_has_the_rate_of_its_time() -> None:
    rng = np.random.default_rng(0)
    times = [np.sort(np.concatenate([[0.0], rng.uniform(0.0, 1.0, 20), rng.uniform(1.0, 3.0, 10)])) for _ in range(200)]
    train = EventSequences(
        time=np.concatenate(times),
        location=rng.normal(size=(31 * 200, 2)),
        offsets=np.arange(0, 31 * 201, 31),
    )
    fitted = PoissonLaw.fit(train)
    assert len(fitted.rate) in (20, 80), "one rate for all times, or 160 of them, make held-back sequences less likely"
    middle = 0.5 * (fitted.edges[:-1] + fitted.edges[1:])
    early, late = fitted.rate[:-1][middle < 0.95], fitted.rate[:-1][(middle > 1.05) & (middle < 2.5)]
    np.testing.assert_allclose([early.mean(), late.mean()], [20.0, 5.0], rtol=0.06)
    np.testing.assert_allclose(early, 20.0, rtol=0.4)
    gap = InhomogeneousPoisson(fitted, train).sample(np.array([0]), 4000, seed=0).gap.numpy()[0]
    assert abs(gap.mean() - 1.0 / 20.0) < 0.006


def test_mixture_starts_at_distinct_places_and_finds_them() -> None:
    places = np.array([[140.0, 36.0], [141.0, 38.0], [140.0, 39.0]])
    rng = np.random.default_rng(0)
    assert len(Mixture.start(np.repeat(places, 5, axis=0), 12).weights) == 3
    kind = rng.choice(3, size=3000, p=[0.5, 0.3, 0.2])
    found = Mixture.fit(places[kind] + 0.05 * rng.normal(size=(3000, 2)), 3)
    order = np.argsort(-found.weights)
    np.testing.assert_allclose(found.centres[order], places, atol=0.01)
    np.testing.assert_allclose(found.weights[order], [0.5, 0.3, 0.2], atol=0.03)
    np.testing.assert_allclose(found.widths, 0.05, rtol=0.05)
    density = np.exp(found.explain(places)[0])
    np.testing.assert_allclose(density, found.weights[order] / (2.0 * np.pi * found.widths[order] ** 2), rtol=0.05)


def test_fits_are_kept_for_the_same_training_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = (clustered_city().simulate(20, duration=20.0, seed=seed) for seed in (1, 2))
    first = Rivals.of_run(tmp_path, train).forecasters(test)
    with monkeypatch.context() as patch:
        patch.setattr(rivals, "fit_self_exciting", None)  # a second fit would fail
        again = Rivals.of_run(tmp_path, train).forecasters(test)
    for name, rival in first.items():
        np.testing.assert_array_equal(rival.sample(np.arange(4), 5, seed=1).gap,
                                      again[name].sample(np.arange(4), 5, seed=1).gap)  # fmt: skip
    kept = (tmp_path / rivals.FILE).read_text()
    Rivals.of_run(tmp_path, test)
    assert (tmp_path / rivals.FILE).read_text() != kept
    (tmp_path / rivals.FILE).write_text("{")
    Rivals.of_run(tmp_path, train)
    assert (tmp_path / rivals.FILE).read_text() == kept


def test_rivals_draw_the_same_whatever_the_chunks() -> None:
    train, test = (clustered_city().simulate(20, duration=20.0, seed=seed) for seed in (1, 2))
    for rival in fit_rivals(train, test).values():
        whole = rival.sample(np.arange(6), 8, seed=3)
        parts = [rival.sample(np.arange(start, start + 2), 8, seed=3) for start in (0, 2, 4)]
        np.testing.assert_array_equal(whole.gap, np.concatenate([part.gap for part in parts]))
        np.testing.assert_array_equal(whole.location, np.concatenate([part.location for part in parts]))
        assert whole.mark_probability is not None and (whole.gap >= 0.0).all()
