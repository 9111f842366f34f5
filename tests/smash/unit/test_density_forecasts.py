"""What people do with a run of densities: every product works as it does with the published model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from smash.config import PRESETS, DensityConfig, TrainConfig
from smash.evaluate import evaluate
from smash.intensity import rate_in_time
from smash.predict import Forecaster
from smash.rollout import roll_out
from smash.train import train
from stcore.events import EventSequences
from stcore.generate.events import clustered_city
from stcore.splits import Parts
from stcore.training.config import LoopConfig

SIZES = DensityConfig(units=8, knots=6, mark_knots=3, recent=4, background=4, free=2, grid=96)


def events(sequences: int, seed: int, *, marked: bool) -> EventSequences:
    found = clustered_city().simulate(sequences, duration=12.0, seed=seed)
    return found if marked else replace(found, mark=None, mark_names=())


def config(*, epochs: int) -> TrainConfig:
    preset = PRESETS["crime-plus"]
    return replace(preset, data=replace(preset.data, source=()), model=replace(preset.model, width=4, density=SIZES),
                   fit=LoopConfig(epochs=epochs, ema_decay=0.9, clip_norm=1.0))  # fmt: skip


@pytest.fixture(scope="module", params=[True, False], ids=["marked", "unmarked"])
def trained(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Parts[EventSequences]]:
    marked: bool = request.param
    parts = Parts(*(events(count, seed, marked=marked) for count, seed in ((12, 0), (4, 1), (3, 2))))
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(config(epochs=2), parts=parts, run=folder, device="cpu", quiet=True)
    return folder, parts


def test_a_run_forecasts_what_comes_next(trained: tuple[Path, Parts[EventSequences]]) -> None:
    folder, parts = trained
    forecaster = Forecaster.load(folder, device="cpu")
    table = forecaster.predict(parts.test, levels=(0.25, 0.75))
    assert (table["gap_0.25"] < table["gap_0.75"]).all()
    drawn = forecaster.sample(parts.test, samples=50, at="every")
    again = forecaster.sample(parts.test.select([2]), samples=50, at="every")
    last = drawn.sequence == 2
    torch.testing.assert_close(drawn.samples.gap[last], again.samples.gap, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(drawn.samples.location[last], again.samples.location, rtol=1e-3, atol=1e-3)
    assert drawn.extra["gap_log_density"].isfinite().all()


def test_a_run_is_scored(trained: tuple[Path, Parts[EventSequences]]) -> None:
    folder, parts = trained
    forecaster = Forecaster.load(folder, device="cpu")
    sampler = replace(forecaster.config.sampler, samples=40)
    report = evaluate(forecaster, parts.test, parts.train, sampler=sampler, legacy=False)
    assert report.value("gap_crps") < 1.3 * report.value("gap_crps", "marginal")
    assert report.value("location_energy") < 1.3 * report.value("location_energy", "marginal")


def test_the_rate_integrates_to_the_probability_of_an_event(trained: tuple[Path, Parts[EventSequences]]) -> None:
    folder, parts = trained
    forecaster = Forecaster.load(folder, device="cpu")
    one = parts.test.select([0])
    last = float(one.time[-1])
    times = last + np.geomspace(1e-3, 1.0, 3000)
    rate = rate_in_time(forecaster, one, times).sum(1)
    drawn = forecaster.sample(one, samples=4000, seed=3).samples.gap[0].numpy()
    expected = np.mean((drawn > 1e-3) & (drawn < 1.0)) / np.mean(drawn > 1e-3)
    integral = np.trapezoid(rate, times)
    assert 1.0 - np.exp(-integral) == pytest.approx(expected, abs=0.03)


def test_trajectories_go_on_from_sampled_events(trained: tuple[Path, Parts[EventSequences]]) -> None:
    folder, parts = trained
    (rolled,) = roll_out(Forecaster.load(folder, device="cpu"), parts.test.select([1]), trajectories=5, steps=3, seed=1)
    assert (np.diff(rolled.time, axis=1) > 0.0).all()
    assert np.isfinite(rolled.location).all()


def test_a_resumed_run_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    parts = Parts(*(events(count, seed, marked=True) for count, seed in ((8, 0), (3, 1), (2, 2))))
    whole = train(config(epochs=2), parts=parts, run=tmp_path / "whole", device="cpu", quiet=True)
    halved = config(epochs=2)
    first = replace(halved, fit=replace(halved.fit, checkpoint_every=1))
    part = train(first, parts=parts, run=tmp_path / "part", device="cpu", quiet=True)
    files = sorted((part.run.folder / "checkpoints").glob("step-*.safetensors"))
    again = train(first, parts=parts, resume=files[0], device="cpu", quiet=True)
    assert again.best == whole.best
