"""Scaling, batches, generated digits, learning rates, and the original's data sets as torch datasets."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from stcore.errors import UserError
from stcore.grids import GridSeries
from stcore.training.loop import StepContext
from stcore.windows import find_windows
from stpred import KTHDataset, MovingMNISTDataset, TaxiBJDataset
from stpred.config import DEMO, PRESETS, DataConfig, DigitsConfig
from stpred.data import (
    FrameBatches,
    FreshDigits,
    Scaling,
    WindowSamples,
    digit_images,
    generated_parts,
    holds_digits,
    published_folder,
    read_parts,
    samples_of,
)
from stpred.models import FrameShape
from stpred.models.configs import ConvLSTMConfig, PredRNNConfig
from stpred.models.stack import RecurrentStack
from stpred.train import Objective, Rates, Step, make_model


def series(channels: int = 2, frames: int = 12, **options: Any) -> GridSeries:
    values = np.random.default_rng(0).normal(5.0, 3.0, (frames, channels, 4, 4)).astype(np.float32)
    values[:, -1] *= 10
    return GridSeries(values=values, **options)


@pytest.mark.parametrize("kind", ["auto", "fit", "standard", "none", "range"])
def test_scaling_is_undone_exactly_enough(kind: str) -> None:
    train = series(value_range=(-200, 200) if kind == "range" else None)
    scaling = Scaling.fit(train, kind)
    frames = torch.from_numpy(train.frames(range(12)))
    scaled = scaling.transform(frames)
    torch.testing.assert_close(scaling.inverse(scaled), frames, rtol=1e-5, atol=1e-4)
    low, high = scaled.amin((0, 2, 3)), scaled.amax((0, 2, 3))
    if kind in ("auto", "fit"):
        torch.testing.assert_close(low, torch.zeros(2), atol=1e-6, rtol=0)
        torch.testing.assert_close(high, torch.ones(2), atol=1e-6, rtol=0)
    if kind == "standard":
        torch.testing.assert_close(scaled.mean((0, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)
        torch.testing.assert_close(scaled.std((0, 2, 3), correction=0), torch.ones(2), atol=1e-5, rtol=0)
    restored = Scaling.restore(scaling.constants())
    assert torch.equal(restored.low, scaling.low)


def test_scaling_takes_the_declared_range_first_and_refuses_what_cannot_be_scaled() -> None:
    scaling = Scaling.fit(series(value_range=(-100, 300)), "auto")
    assert scaling.low.flatten().tolist() == [-100, -100]
    assert scaling.span.flatten().tolist() == [400, 400]
    with pytest.raises(UserError, match="'range' without a declared range"):
        Scaling.fit(series(), "range")
    constant = GridSeries(values=np.ones((3, 1, 2, 2), np.float32), channels=("rain",))
    with pytest.raises(UserError, match="channel rain has one value only"):
        Scaling.fit(constant, "auto")


def test_missing_cells_become_zero_after_scaling() -> None:
    mask = np.ones((4, 4), bool)
    mask[0, 0] = False
    holed = series(mask=mask)
    scaling = Scaling.fit(holed, "fit")
    batches = FrameBatches(WindowSamples(find_windows(holed, history=3, horizon=2)), scaling, 2, seed=0)
    history, future, *valid = batches.load(0, np.array([0, 1]))
    assert torch.isfinite(history).all()
    assert (future[..., 0, 0] == 0).all()
    assert valid[0].shape == (2, 5, 2, 4, 4)
    assert not valid[0][..., 0, 0].any()
    assert valid[0].sum() == 2 * 5 * 2 * 15


def test_order_of_batches_follows_from_seed_and_epoch() -> None:
    windows = WindowSamples(find_windows(series(), history=3, horizon=2))
    batches = FrameBatches(windows, Scaling.fit(series(), "none"), 3, seed=4)
    orders = [[ids.tolist() for ids in batches.order(epoch)] for epoch in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(i for ids in orders[2] for i in ids) == list(range(8))
    assert len(batches) == 3
    assert [len(history) for history, _ in batches] == [3, 3, 2]


def test_generated_digits_are_new_in_every_epoch_and_never_shared() -> None:
    config = DataConfig(
        source=("digits",), history=3, horizon=2, generate=DigitsConfig(sequences=20, canvas=32, digits=1)
    )
    parts = generated_parts(config, seed=1)
    fresh = samples_of(parts.train, config)
    assert isinstance(fresh, FreshDigits)
    ids = np.arange(4)
    first, again, other = (np.concatenate(fresh.load(epoch, ids), axis=1) for epoch in (0, 0, 1))
    assert first.shape == (4, 5, 1, 32, 32)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert parts.val.num_clips == parts.test.num_clips == 2
    seen = {image.tobytes() for image in fresh.digits.images}
    assert not np.array_equal(parts.val.frames([0]), parts.test.frames([0]))
    assert len(seen) == len(fresh.digits.images)


def test_digits_come_from_idx_files_and_only_digits_move(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 255, (30, 28, 28), dtype=np.uint8)
    head = np.array([2051, 30, 28, 28], dtype=">i4").tobytes()
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(head + images.tobytes())
    for source in (tmp_path, tmp_path / "t10k-images-idx3-ubyte"):
        assert holds_digits(str(source))
        np.testing.assert_array_equal(digit_images(str(source)), images)
    np.save(tmp_path / "frames.npy", np.arange(60.0)[:, None, None, None] + np.zeros((60, 1, 8, 8)))
    config = replace(PRESETS["moving-mnist/convlstm"].data, source=(str(tmp_path / "frames.npy"),))
    assert read_parts(config).train.num_frames == 48
    with pytest.raises(UserError, match="no digits there; expected an idx file of MNIST"):
        digit_images(str(tmp_path / "nothing"))


def test_presets_name_data_sets_that_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STCORE_DATA", str(tmp_path))
    with pytest.raises(UserError, match=r"^kth: not found under STCORE_DATA=.*; expected class folders"):
        read_parts(PRESETS["kth/convlstm"].data)
    (tmp_path / "KTH" / "boxing").mkdir(parents=True)
    assert published_folder("kth") == str(tmp_path / "KTH")
    assert published_folder("frames.npy") == "frames.npy"


def test_evaluation_may_look_further_ahead_than_training() -> None:
    config = replace(PRESETS["kth/convlstm"], data=replace(PRESETS["kth/convlstm"].data, windows="forward"))
    long = series(1, 40)
    assert samples_of(long, config.data).windows.horizon == 10
    assert samples_of(long, config.data, config.evaluate).windows.horizon == 20


def test_learning_rates_are_the_schedules() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimiser = torch.optim.Adam([parameter], lr=1.0)
    config = replace(DEMO, fit=replace(DEMO.fit, epochs=4), optimiser=replace(DEMO.optimiser, learning_rate=0.5))
    rates = Rates(optimiser, config, 5)
    plain = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(plain, max_lr=0.5, total_steps=20, final_div_factor=1e4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch asks for optimiser steps in between
        for step in range(1, 20):
            assert optimiser.param_groups[0]["lr"] == pytest.approx(plain.param_groups[0]["lr"], rel=1e-12)
            rates.step_end(step)
            theirs.step()


def test_true_frames_do_not_depend_on_how_samples_are_shared() -> None:
    step = Step(DEMO, "reverse")
    ids = np.array([7, 3, 9])
    context = StepContext(step=30_000, epoch=0, ids=ids, device=torch.device("cpu"))
    whole = step.truth(context, 5, 5)
    assert whole is not None
    assert whole.shape == (3, 8)
    assert 0 < whole.mean() < 1
    for row, one in enumerate(ids):
        alone = step.truth(replace(context, ids=np.array([one])), 5, 5)
        assert alone is not None
        assert torch.equal(alone[0], whole[row])


@pytest.mark.parametrize("model", [ConvLSTMConfig(hidden=(4,), kernels=(3,), patch=2, clamp="none"),
                                   PredRNNConfig(hidden=(4, 4), kernel=3, patch=2)])  # fmt: skip
def test_a_training_step_asks_nothing_of_missing_cells(model: Any) -> None:
    mask = np.random.default_rng(1).random((12, 2, 4, 4)) < 0.7
    holed = series(mask=mask)
    batches = FrameBatches(WindowSamples(find_windows(holed, history=3, horizon=2)), Scaling.fit(holed, "fit"), 8, 0)
    ids = np.arange(8)
    batch = batches.load(0, ids)
    history, future, valid = batch
    network = make_model(replace(DEMO, model=model), FrameShape(2, 4, 4))
    context = StepContext(step=0, epoch=0, ids=ids, device=torch.device("cpu"))
    loss = Step(DEMO, "none")(Objective(network), batch, context)
    # A recurrent stack guesses all frames but the first, an encoder with a forecaster those of the future.
    if isinstance(network, RecurrentStack):
        guesses, targets = network.next_frames(history, future), torch.cat([history[:, 1:], future], dim=1)
    else:
        guesses, targets = network(history, 2), future
    squares = (guesses - targets).square() * valid[:, -targets.shape[1] :]
    torch.testing.assert_close(loss.total, squares.mean(), rtol=1e-5, atol=0)
    assert loss.weight == 8.0
    other = history, future.masked_fill(~valid[:, 3:], 9.0), valid
    torch.testing.assert_close(Step(DEMO, "none")(Objective(network), other, context).total, loss.total)


def test_datasets_of_the_original_layouts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    digits, taxi, kth = (tmp_path / name / "train" for name in ("MovingMNIST", "TaxiBJ", "KTH"))
    for folder in (digits, taxi, kth):
        folder.mkdir(parents=True)
    both = rng.random((2, 20, 1, 64, 64), dtype=np.float32)
    counts = rng.integers(0, 1292, (2, 8, 2, 32, 32)).astype(np.float32)
    pictures = rng.integers(0, 255, (2, 12, 128, 128), dtype=np.uint8)
    for number in range(2):
        name = f"example{number + 1:06d}"
        np.savez(digits / f"{name}.npz", inputs=both[number, :10], labels=both[number, 10:])
        np.save(taxi / f"{name}.npy", counts[number])
        (kth / name).mkdir()
        for frame, picture in enumerate(pictures[number]):
            Image.fromarray(picture).save(kth / name / f"image_{frame + 1:04d}.png")
    monkeypatch.setenv("STCORE_DATA", str(tmp_path))
    expected = (both, counts / np.float32(1292), pictures[:, :, None] / np.float32(255))
    for kind, frames, history in zip(
        (MovingMNISTDataset, TaxiBJDataset, KTHDataset), expected, (10, 4, 10), strict=True
    ):
        dataset = kind("train")
        assert len(dataset) == 2
        inputs, labels = dataset[1]
        np.testing.assert_allclose(inputs, frames[1, :history], rtol=1e-6)
        np.testing.assert_allclose(labels, frames[1, history:], rtol=1e-6)
        assert next(iter(DataLoader(dataset, batch_size=2)))[0].shape == (2, *inputs.shape)
    with pytest.raises(UserError, match="validation: no such folder"):
        TaxiBJDataset("validation", root=tmp_path / "TaxiBJ")
