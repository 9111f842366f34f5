"""Frame metrics against scikit-image, plain sums, and any other batching."""

from __future__ import annotations

import doctest
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from stcore.errors import UserError
from stcore.metrics import frames
from stcore.metrics.frames import FrameMetrics, FrameReport, ssim_map


def _pair(*shape: int, seed: int = 0, noise: float = 0.2) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(seed)
    truth = rng.random(shape, dtype=np.float32)
    return torch.from_numpy(truth + noise * rng.standard_normal(shape, dtype=np.float32)), torch.from_numpy(truth)


def _report(prediction, truth, *, batches=(), **options) -> FrameReport:
    metrics = FrameMetrics(**options)
    for part in zip(prediction.tensor_split(batches), truth.tensor_split(batches), strict=True):
        metrics.update(*part)
    return metrics.compute()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("data_range", [1.0, 2.0, 255.0])
def test_ssim_is_that_of_scikit_image(channels, data_range):
    first, second = (part.double() * data_range for part in _pair(4, channels, 9, 13))
    (ours,) = ssim_map(first, second, data_ranges=(data_range,))
    for index in range(4):
        theirs = structural_similarity(
            first[index].numpy(), second[index].numpy(), data_range=data_range, channel_axis=0
        )
        np.testing.assert_allclose(ours[index].mean(), theirs, rtol=1e-10)


def test_reported_ssim_and_psnr_are_those_of_scikit_image_on_clipped_predictions():
    prediction, truth = _pair(3, 2, 2, 8, 10)
    ours = _report(prediction, truth)["overall"]
    pairs = [(p.double().clamp(0, 1).numpy(), y.double().numpy())
             for p, y in zip(prediction.flatten(0, 1), truth.flatten(0, 1), strict=True)]  # fmt: skip
    for name, data_range in (("ssim", 1.0), ("ssim_legacy", 2.0)):
        theirs = [structural_similarity(p, y, data_range=data_range, channel_axis=0) for p, y in pairs]
        np.testing.assert_allclose(ours[name], np.mean(theirs), rtol=1e-10)
    np.testing.assert_allclose(
        ours["psnr"], np.mean([peak_signal_noise_ratio(y, p, data_range=1) for p, y in pairs]), rtol=1e-10
    )


def test_errors_are_sums_over_a_frame_and_means_over_frames():
    prediction, truth = _pair(5, 3, 2, 8, 9)
    ours, error = _report(prediction, truth), (prediction.double() - truth.double()).numpy()
    cells = 2 * 8 * 9
    for name, sums in (("mse", (error**2).sum((2, 3, 4))), ("mae", np.abs(error).sum((2, 3, 4)))):
        np.testing.assert_allclose(ours["overall"][name], sums.mean(), rtol=1e-12)
        np.testing.assert_allclose(ours["per_lead_time"][name], sums.mean(0), rtol=1e-12)
        np.testing.assert_allclose(ours["overall"][f"{name}_spatial_norm"], sums.mean() / cells, rtol=1e-12)
    for suffix in ("", "_spatial_norm"):
        mse = ours["per_lead_time"][f"mse{suffix}"]
        np.testing.assert_allclose(ours["per_lead_time"][f"rmse{suffix}"], np.sqrt(mse), rtol=1e-12)
        np.testing.assert_allclose(ours["overall"][f"rmse{suffix}"] ** 2, np.mean(mse), rtol=1e-12)
    assert ours["sequences"] == 5


def test_decibels_are_taken_of_each_frame():
    truth = torch.full((2, 1, 1, 4, 4), 0.5)
    prediction = truth + torch.tensor([0.1, 0.01])[:, None, None, None, None]
    overall = _report(prediction, truth)["overall"]
    np.testing.assert_allclose(overall["psnr"], (20.0 + 40.0) / 2, rtol=1e-5)
    np.testing.assert_allclose(overall["snr"], 10 * math.log10(0.25) + 30.0, rtol=1e-5)


@settings(max_examples=25, deadline=None)
@given(cuts=st.lists(st.integers(0, 8), max_size=4).map(sorted), masked=st.booleans(), seed=st.integers(0, 99))
def test_any_batching_gives_the_same_numbers(cuts, masked, seed):
    prediction, truth = _pair(8, 2, 1, 8, 8, seed=seed)
    if masked:
        truth[torch.rand(truth.shape, generator=torch.Generator().manual_seed(seed)) < 0.01] = torch.nan
    whole, parts = _report(prediction, truth), _report(prediction, truth, batches=cuts)
    assert parts["sequences"] == whole["sequences"] == 8
    for name, value in whole["overall"].items():
        np.testing.assert_allclose(parts["overall"][name], value, rtol=1e-12)
        np.testing.assert_allclose(parts["per_lead_time"][name], whole["per_lead_time"][name], rtol=1e-12)


def test_sums_of_two_processes_add_up():
    prediction, truth = _pair(6, 3, 1, 8, 8)
    parts = []
    for rows in (slice(4), slice(4, 6)):
        one = FrameMetrics()
        one.update(prediction[rows], truth[rows])
        parts.append(one.sums())
    both = FrameMetrics()
    both.add_sums({name: parts[0][name] + parts[1][name] for name in parts[0]})
    whole = _report(prediction, truth)
    np.testing.assert_allclose(list(both.compute()["overall"].values()), list(whole["overall"].values()), rtol=1e-12)
    assert both.compute()["sequences"] == 6


def test_hidden_cells_count_nowhere():
    prediction, truth = _pair(3, 2, 1, 12, 12)
    mask = torch.ones(12, 12, dtype=torch.bool)
    mask[:, 10:] = False
    expected = _report(prediction[..., :10], truth[..., :10])
    prediction[..., 10:] = torch.nan
    masked = _report(prediction, truth, mask=mask)
    truth[..., 10:] = torch.nan  # cells without truth hide themselves
    for ours in (masked, _report(prediction, truth)):
        for name, value in expected["overall"].items():
            np.testing.assert_allclose(ours["overall"][name], value, rtol=1e-12, err_msg=name)


def test_a_mask_of_the_batch_replaces_the_one_of_all_batches():
    prediction, truth = _pair(2, 1, 1, 8, 8)
    metrics = FrameMetrics(mask=torch.zeros(8, 8, dtype=torch.bool))
    metrics.update(prediction, truth, mask=torch.tensor([True, False])[:, None, None, None, None])
    only_first = _report(prediction[:1], truth[:1])
    assert metrics.compute() == only_first


def test_frames_without_data_are_left_out():
    prediction, truth = _pair(3, 2, 1, 8, 8)
    truth[1, 0] = torch.nan
    ours = _report(prediction, truth)
    first = _report(prediction[[0, 2]], truth[[0, 2]])
    np.testing.assert_allclose(ours["per_lead_time"]["psnr"][0], first["per_lead_time"]["psnr"][0], rtol=1e-12)
    np.testing.assert_allclose(ours["per_lead_time"]["mse"][0], first["per_lead_time"]["mse"][0], rtol=1e-12)
    truth[:, 1] = torch.nan
    assert math.isnan(_report(prediction, truth)["per_lead_time"]["mse"][1])


def test_a_prediction_of_nan_is_not_dropped():
    prediction, truth = _pair(3, 2, 1, 8, 8)
    prediction[1, 0, 0, 3, 3] = torch.nan
    ours = _report(prediction, truth)["per_lead_time"]
    assert all(math.isnan(values[0]) and math.isfinite(values[1]) for values in ours.values())


def test_the_declared_range_scales_what_compares_images_and_nothing_else():
    prediction, truth = _pair(3, 2, 1, 8, 8)
    plain, scaled = _report(prediction, truth), _report(
        prediction.double() * 50 + 230, truth.double() * 50 + 230, value_range=(230.0, 280.0)
    )  # fmt: skip
    for name in ("psnr", "snr", "ssim", "ssim_legacy"):
        np.testing.assert_allclose(scaled["overall"][name], plain["overall"][name], rtol=1e-9)
    np.testing.assert_allclose(scaled["overall"]["mae"], 50 * plain["overall"]["mae"], rtol=1e-9)


def test_a_perfect_forecast():
    _, truth = _pair(2, 2, 1, 8, 8)
    ours = _report(truth, truth)["overall"]
    assert ours["mse"] == ours["mae"] == ours["rmse"] == 0.0
    assert ours["psnr"] == ours["snr"] == math.inf
    np.testing.assert_allclose([ours["ssim"], ours["ssim_legacy"]], 1.0, rtol=1e-12)


def test_frames_smaller_than_the_window_have_no_ssim():
    ours = _report(*_pair(2, 2, 1, 6, 20))
    assert "ssim" not in ours["overall"] and "ssim_legacy" not in ours["per_lead_time"]
    assert math.isfinite(ours["overall"]["psnr"])
    with pytest.raises(UserError, match="images of 6 × 20 cells; expected at least 7 × 7"):
        ssim_map(torch.zeros(6, 20), torch.zeros(6, 20))


def test_half_precision_frames_are_compared_in_double():
    prediction, truth = (part.bfloat16() for part in _pair(2, 2, 1, 8, 8))
    expected = _report(prediction.double(), truth.double())
    assert _report(prediction, truth) == expected


def test_wrong_input_is_refused():
    prediction, truth = _pair(2, 2, 1, 8, 8)
    metrics = FrameMetrics()
    with pytest.raises(UserError, match="none was given"):
        metrics.compute()
    with pytest.raises(UserError, match="none was given"):
        metrics.sums()
    with pytest.raises(UserError, match=r"shape \(2, 2, 1, 8, 8\) for \(2, 2, 1, 8, 7\)"):
        metrics.update(prediction, truth[..., :7])
    with pytest.raises(UserError, match=r"expected both as \(batch, horizon"):
        metrics.update(prediction[0], truth[0])
    with pytest.raises(UserError, match=r"mask: shape \(7, 8\); expected \(height, width\) = \(8, 8\)"):
        metrics.update(prediction, truth, mask=torch.ones(7, 8, dtype=torch.bool))
    metrics.update(prediction, truth)
    with pytest.raises(UserError, match="a batch with 1 lead times after batches with 2"):
        metrics.update(prediction[:, :1], truth[:, :1])
    with pytest.raises(UserError, match="value range: 1 to 1"):
        FrameMetrics(value_range=(1.0, 1.0))


def test_examples_run():
    assert doctest.testmod(frames).failed == 0
