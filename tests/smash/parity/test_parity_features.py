"""Features and batches against the recordings, and the constants of the published sets."""

from __future__ import annotations

import numpy as np
import pytest
import recordings
import torch

from smash.data import Features, consecutive
from stcore.events import EventSequences
from stcore.scaling import MinMaxScaler


def _events(recording: recordings.Recording) -> EventSequences:
    raw, lengths = recording.input("data/raw").numpy(), recording.input("data/length").numpy()
    rows = np.concatenate([sequence[:length] for sequence, length in zip(raw, lengths, strict=True)])
    marked = recording.marked
    return EventSequences(
        time=rows[:, 0],
        location=rows[:, 2:4],
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        mark=rows[:, 1].astype(np.int64) if marked else None,
        mark_names=tuple(map(str, range(recording.meta["num_types"]))) if marked else (),
    )


def _features(recording: recordings.Recording, events: EventSequences) -> Features:
    low, high = (np.array(recording.meta[name], dtype=np.float64) for name in ("MIN", "MAX"))
    columns = [1, 3, 4] if recording.marked else [1, 2, 3]
    log_gap = bool(recording.meta["log_normalization"])
    return Features(MinMaxScaler(low[columns], high[columns]), log_gap, events.mark_names, "days", "degrees")


@pytest.mark.parametrize("name", recordings.names("data/raw", "batch/dt"))
def test_batches_are_those_of_the_original(name: str) -> None:
    recording = recordings.open_recording(name)
    events = _events(recording)
    encoded = _features(recording, events).encode(events)
    batch = encoded.batch(np.arange(events.num_sequences))
    expected = {"time": batch.time, "dt": batch.gap, "lng": batch.location[..., 0], "lat": batch.location[..., 1]}
    for key, value in expected.items():
        wanted = recording.expect(f"batch/{key}")
        torch.testing.assert_close(value[:, : wanted.shape[1]], wanted, rtol=0.0, atol=1e-6)
    if recording.has("batch/mark") and batch.mark is not None:
        wanted = recording.expect("batch/mark")
        real = torch.arange(batch.mark.shape[1]) < batch.lengths[:, None]
        ours = torch.where(real, batch.mark + 1, 0)
        torch.testing.assert_close(ours[:, : wanted.shape[1]].to(wanted.dtype), wanted, rtol=0.0, atol=0.0)


def test_gaps_and_locations_come_back() -> None:
    random = np.random.default_rng(0)
    time = np.sort(random.uniform(0.0, 50.0, 40))
    events = EventSequences(time=time, location=random.normal(size=(40, 2)), offsets=[0, 40])
    features = Features.fit(events, log_gap=True)
    encoded = features.encode(events)
    np.testing.assert_allclose(features.gap(encoded.gap).numpy(), events.gaps(), rtol=1e-5)
    np.testing.assert_allclose(features.location(encoded.location).numpy(), events.location, atol=1e-5)
    np.testing.assert_allclose(features.gap_unit(torch.tensor(events.gaps())).numpy(), encoded.gap.numpy(), atol=1e-6)


def test_density_of_gaps_changes_variable_exactly() -> None:
    random = np.random.default_rng(0)
    events = EventSequences(
        time=np.cumsum(random.exponential(1.0, 50)), location=random.normal(size=(50, 2)), offsets=[0, 50]
    )
    for log_gap in (True, False):
        features = Features.fit(events, log_gap=log_gap)
        gap = torch.tensor([0.01, 0.3, 2.0], dtype=torch.float64)
        step = 1e-6
        slope = (features.gap_unit(gap + step) - features.gap_unit(gap - step)) / (2 * step)
        torch.testing.assert_close(features.log_gap_slope(gap), slope.log(), rtol=1e-6, atol=1e-6)


def test_consecutive_batches_keep_order_and_limit() -> None:
    lengths = np.array([5, 3, 9, 1, 20, 2])
    batches = list(consecutive(lengths, max_tokens=18))
    assert np.concatenate(batches).tolist() == list(range(6))
    assert all(lengths[batch].max() * len(batch) <= 18 or len(batch) == 1 for batch in batches)
