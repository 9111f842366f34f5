"""What a training step of smash is: schedule, noise that follows the sequence, validation that repeats, presets."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from smash.config import PRESETS, DataConfig, LossConfig, ModelConfig, TrainConfig
from smash.data import Features, TrainingBatches, draws
from smash.model import Smash
from smash.train import Validation, learning_rate, train
from stcore.errors import UserError
from stcore.events import EventSequences
from stcore.generate.events import clustered_city
from stcore.splits import Parts
from stcore.training.config import LoopConfig


def _events(sequences: int = 8, seed: int = 0) -> EventSequences:
    return clustered_city().simulate(sequences, duration=12.0, seed=seed)


def test_learning_rate_is_that_of_the_original() -> None:
    config = PRESETS["earthquake"]
    assert [learning_rate(epoch, config) for epoch in (0, 4)] == pytest.approx([2e-4, 1e-3])
    assert learning_rate(5, config) == pytest.approx(1e-3)
    assert learning_rate(105, config) == pytest.approx(1e-3 - (1e-3 - 5e-5) * 100 / 150)


def test_noise_belongs_to_the_sequence_and_the_epoch() -> None:
    events = _events()
    encoded = Features.fit(events, log_gap=True).encode(events)
    config = TrainConfig(loss=LossConfig(perturbations=3))
    together = draws(encoded, np.array([2, 5]), config, "noise", 1)
    alone = draws(encoded, np.array([5]), config, "noise", 1)
    torch.testing.assert_close(together[-len(alone) :], alone, rtol=0.0, atol=0.0)
    assert not torch.equal(draws(encoded, np.array([5]), config, "noise", 2), alone)


def test_batches_leave_out_sequences_in_which_nothing_is_predicted() -> None:
    events = EventSequences(time=[1.0, 1.0, 2.0, 3.0], location=np.arange(8.0).reshape(4, 2), offsets=[0, 1, 3, 4])
    encoded = Features.fit(events, log_gap=True).encode(events)
    batches = TrainingBatches(encoded, events.sequence_id, TrainConfig())
    assert [batch.tolist() for batch in batches.order(0)] == [[1]]
    assert batches.names(np.array([1])) == ["1"]


def test_validation_is_the_same_every_time_and_for_every_split_over_processes() -> None:
    events = _events(12)
    features = Features.fit(events, log_gap=True)
    config = TrainConfig(data=DataConfig(batch_sequences=1), loss=LossConfig(perturbations=2))
    torch.manual_seed(0)
    model = Smash(ModelConfig(width=4, layers=1), num_marks=features.num_marks).eval()
    validation = Validation(features.encode(events), config, rank=0, ranks=1)
    with torch.no_grad():
        first, second = validation(model), validation(model)
    assert first == second
    assert first["val/loss"] == pytest.approx(
        (first["val/gap_score"] + 2 * first["val/location_score"]) / 3 + 0.5 * first["val/mark"], rel=1e-5
    )


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_trains_two_steps(preset: str, tmp_path: Path) -> None:
    config = PRESETS[preset]
    config = replace(config, fit=replace(config.fit, max_steps=2, log_every=1), loss=LossConfig(perturbations=2))
    parts = Parts(_events(8), _events(2, seed=1), _events(2, seed=2))
    result = train(config, parts=parts, run=tmp_path / "run", device="cpu", quiet=True)
    assert result.step == 2
    assert result.best is not None and math.isfinite(result.best)


def test_bfloat16_trains_where_the_device_has_it(tmp_path: Path) -> None:
    config = TrainConfig(model=ModelConfig(width=8, layers=1), loss=LossConfig(perturbations=2),
                         fit=LoopConfig(epochs=1, max_steps=2, precision="bf16"))  # fmt: skip
    parts = Parts(_events(8), _events(2, seed=1), _events(2, seed=2))
    result = train(config, parts=parts, run=tmp_path / "run", device="cpu", quiet=True)
    assert result.best is not None and math.isfinite(result.best)


def test_tensorboard_gets_the_scalars_on_request(tmp_path: Path) -> None:
    config = TrainConfig(model=ModelConfig(width=4, layers=1), loss=LossConfig(perturbations=2),
                         fit=LoopConfig(epochs=1, max_steps=2, log_every=1, tensorboard=True))  # fmt: skip
    parts = Parts(_events(8), _events(2, seed=1), _events(2, seed=2))
    train(config, parts=parts, run=tmp_path / "run", device="cpu", quiet=True)
    (written,) = (tmp_path / "run" / "tensorboard").iterdir()
    assert b"train/loss" in written.read_bytes() and b"val/loss" in written.read_bytes()


def test_old_masks_are_for_old_checkpoints(tmp_path: Path) -> None:
    config = TrainConfig(model=ModelConfig(legacy_masks=True))
    with pytest.raises(UserError, match="legacy-masks"):
        train(config, parts=Parts(_events(), _events(), _events()), run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_constant_coordinates_are_refused() -> None:
    events = EventSequences(time=[0.5, 1.5, 3.0], location=[[1.0, 2.0], [1.0, 3.0], [1.0, 4.0]], offsets=[0, 3])
    with pytest.raises(UserError, match="every x is 1"):
        Features.fit(events, log_gap=True)
