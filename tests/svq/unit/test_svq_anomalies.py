"""Training on what differs from the usual frames: taken off before the model, added again behind it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from svq_worlds import weather

from stcore.cli import run_config
from stcore.errors import UserError
from stcore.frame_anomalies import anomalies, pack_usual, unpack_usual, usual_frames
from stcore.grids import GridSeries
from stcore.splits import Parts
from stcore.windows import find_windows
from svq.config import DataConfig, TrainConfig
from svq.evaluate import evaluate
from svq.models import QuantizerConfig
from svq.predict import Forecaster
from svq.presets import DEMO
from svq.train import train

TINY = replace(
    DEMO, data=replace(DEMO.data, history=2, horizon=2, batch=3, anomalies=True, scaling="standard"),
    model=replace(DEMO.model, hid_spatial=4, hid_temporal=8, depth_temporal=2),
    quantizer=QuantizerConfig(codebook_size=12, middle=5), fit=replace(DEMO.fit, epochs=1, max_steps=2),
    schedule=replace(DEMO.schedule, kind="constant"),
)  # fmt: skip


def seasonal(frames: int = 120, *, seed: int = 0) -> GridSeries:
    """Return hours of weather on a small globe below a tide of 100 that goes by the hour of the day."""
    series = weather(frames, seed=seed)
    times = np.datetime64("2021-03-01T00:00", "us") + np.arange(frames) * np.timedelta64(1, "h")
    tide = 100.0 * np.sin(2.0 * np.pi * np.arange(frames) / 24.0)
    values = series.frames(range(frames)) + tide[:, None, None, None].astype(np.float32)
    return replace(series, values=values, times=times, value_range=None)


def parts() -> Parts[GridSeries]:
    whole = seasonal(160)
    return Parts(whole.select(slice(0, 96)), whole.select(slice(96, 128)), whole.select(slice(128, 160)))


def test_anomalies_are_frames_less_the_usual_ones_of_the_training_part() -> None:
    train_part = parts().train
    usual = usual_frames(train_part)
    assert usual.by == ("hour",)
    less = anomalies(train_part, usual)
    frames = train_part.frames(range(96))
    expected = frames - frames.reshape(4, 24, *frames.shape[1:]).mean(axis=0)[np.arange(96) % 24]
    np.testing.assert_allclose(less.frames(range(96)), expected, atol=1e-3)
    kept = unpack_usual(pack_usual(usual), ["hour"])
    assert kept is not None
    np.testing.assert_array_equal(anomalies(parts().test, kept).frames([3]), anomalies(parts().test, usual).frames([3]))
    assert unpack_usual({}, ()) is None


def test_times_are_needed(tmp_path: Path) -> None:
    bare = replace(seasonal(30), times=None)
    with pytest.raises(UserError, match="frames without times"):
        anomalies(bare, usual_frames(seasonal(96)))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("anomalies") / "run"
    train(TINY, parts=parts(), run=folder, device="cpu", quiet=True)
    return folder


def test_a_model_without_weight_forecasts_the_usual_frames(run: Path) -> None:
    """What is taken off comes back at the right hours, whatever the network says of the rest."""
    forecaster = Forecaster.load(run, device="cpu")
    with torch.no_grad():
        for parameter in forecaster.model.decoder.parameters():
            parameter.zero_()
    forecaster.scaling = replace(forecaster.scaling, low=torch.zeros_like(forecaster.scaling.low))
    test = parts().test
    usual = usual_frames(parts().train)
    windows = find_windows(test, history=2, horizon=0)
    ids, _, _, forecast = next(forecaster.stream(windows, 5))
    for number, frames in zip(ids, forecast, strict=True):
        hours = test.times[windows.starts[number] + 1] + np.arange(1, 6) * np.timedelta64(1, "h")
        torch.testing.assert_close(frames, usual.at(hours, (5,)))
    last = forecaster.predict(test, 3)
    hours = test.times[-1] + np.arange(1, 4) * np.timedelta64(1, "h")
    np.testing.assert_allclose(last, usual.at(hours, (3,)).numpy(), rtol=1e-6)


def test_a_run_on_anomalies_is_scored_in_the_units_of_the_data(run: Path) -> None:
    forecaster = Forecaster.load(run, device="cpu")
    report = evaluate(forecaster, parts().test, parts().train)
    # The tide of 100 is no error of the model's: two steps of training suffice to be as good as the usual frames.
    assert report.in_units["svq"]["mae"] < 2.0 * report.in_units["climatology"]["mae"]
    assert report.in_units["persistence"]["mae"] > 10.0
    with pytest.raises(UserError, match="expected a GridSeries with times"):
        forecaster.predict(np.zeros((2, 1, 8, 16), np.float32))


def test_a_damped_residual_starts_from_damped_persistence(tmp_path: Path) -> None:
    still = replace(
        TINY,
        model=replace(TINY.model, residual="damped"),
        optimiser=replace(TINY.optimiser, learning_rate=1e-9),
        fit=replace(TINY.fit, ema_decay=0.0),
    )
    train(still, parts=parts(), run=tmp_path / "run", device="cpu", quiet=True)
    found = evaluate(Forecaster.load(tmp_path / "run", device="cpu"), parts().test, parts().train)
    for metric in ("mae", "rmse"):
        by_lead = found.by_lead["svq"][metric], found.by_lead["damped persistence"][metric]
        np.testing.assert_allclose(*by_lead, rtol=1e-4)


def test_a_run_goes_on_with_its_own_usual_frames_and_nothing_else(run: Path, tmp_path: Path) -> None:
    config = run_config(TrainConfig, run)
    longer = replace(config, fit=replace(config.fit, max_steps=4, epochs=2))
    with pytest.raises(UserError, match=r"data\.anomalies is true in its run; expected the same here"):
        train(replace(longer, data=replace(longer.data, anomalies=False)), parts=parts(), run=tmp_path / "other",
              init_from=run, device="cpu", quiet=True)  # fmt: skip
    train(longer, parts=parts(), run=tmp_path / "more", init_from=run, device="cpu", quiet=True)
    first, second = (Forecaster.load(folder, device="cpu").usual for folder in (run, tmp_path / "more"))
    assert first is not None
    assert second is not None
    torch.testing.assert_close(first.frames, second.frames, rtol=0, atol=0)


def test_the_published_protocol_has_no_anomalies() -> None:
    with pytest.raises(UserError, match=r"data\.anomalies: True; expected false with data\.protocol paper"):
        DataConfig(anomalies=True, protocol="paper")
