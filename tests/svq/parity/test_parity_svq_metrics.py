"""The core's frame metrics against those of the original."""

from __future__ import annotations

import pytest
import torch
from svq_recordings import of_kind, open_recording

from stcore.metrics.frames import FrameMetrics

NAMES = {"mse": "mse", "mae": "mae", "rmse": "rmse", "psnr": "psnr", "snr": "snr", "ssim_range1": "ssim",
         "ssim_range2": "ssim_legacy"}  # fmt: skip
"""Names of the recorded metrics, and ours."""


@pytest.mark.parametrize("name", of_kind("metrics_image"))
def test_metrics_of_images(name):
    recording = open_recording(name)
    config = recording.config
    low, high = config["clip"]
    scaled = (recording.input(key).double() for key in ("in/pred", "in/true"))
    prediction, truth = (values * config["std"] + config["mean"] for values in scaled)
    assert not config["spatial_norm"]
    metrics = FrameMetrics(value_range=(float(low), float(high)))
    for part in range(len(truth)):
        metrics.update(prediction[part : part + 1], truth[part : part + 1])
    ours = metrics.compute()["overall"]
    assert {key.removeprefix("out/") for key in recording.under("out/")} == NAMES.keys()
    for theirs, name in NAMES.items():
        recording.check(f"out/{theirs}", torch.tensor([ours[name]], dtype=torch.float64))
