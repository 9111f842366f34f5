"""The core's frame metrics and moving digits against recordings of the originals."""

from __future__ import annotations

import random

import numpy as np
import pytest
from stpred_recordings import Recording, names, open_recording

from stcore.generate.digits import MovingDigits, draw_with_python, trajectory
from stcore.metrics.frames import FrameMetrics, FrameReport

METRICS = names(lambda name, _: name == "metrics")
DIGITS = names(lambda name, _: name == "moving_mnist")


def _report(recording: Recording) -> FrameReport:
    metrics = FrameMetrics()
    metrics.update(recording.input("in/pred"), recording.input("in/true"))
    return metrics.compute()


@pytest.mark.parametrize("name", METRICS)
def test_metrics_of_all_frames(name):
    recording = open_recording(name)
    ours = _report(recording)["overall"]
    for key, value in recording.fact("overall").items():
        np.testing.assert_allclose(ours[key], value, rtol=1e-6, err_msg=key)
    for key, value in recording.fact("spatial_norm").items():
        np.testing.assert_allclose(ours[f"{key}_spatial_norm"], value, rtol=1e-6, err_msg=key)
    np.testing.assert_allclose(ours["ssim_legacy"], recording.fact("ssim_legacy_data_range_2"), atol=1e-6)
    np.testing.assert_allclose(ours["ssim"], recording.fact("ssim_data_range_1"), atol=1e-6)


@pytest.mark.parametrize("name", METRICS)
def test_metrics_of_each_lead_time(name):
    recording = open_recording(name)
    ours = _report(recording)["per_lead_time"]
    for key, values in recording.fact("per_lead_time").items():
        np.testing.assert_allclose(ours[key], values, rtol=1e-6, err_msg=key)


@pytest.mark.parametrize("name", DIGITS)
def test_draws_trajectories_and_videos_of_moving_digits(name):
    recording = open_recording(name)
    images = recording.input("in/digits").numpy()
    for case in recording.fact("cases"):
        video = recording.expect(f"out/video_{case['num_digits']}digits").numpy()
        length, canvas = video.shape[:2]
        room = recording.meta["image_size"] - recording.meta["digit_size"]
        speed = recording.meta["step"]

        drawn = draw_with_python(random.Random(case["random_seed"]), case["num_digits"], len(images))
        for row, recorded in enumerate(case["digits"]):
            start = [drawn.x[row], drawn.y[row], drawn.theta[row], drawn.digit[row]]
            assert start == [recorded[key] for key in ("x0", "y0", "theta", "digit")]
        top, left = trajectory(drawn, length=length, room=room, speed=speed)
        assert top.T.tolist() == [recorded["top"] for recorded in case["digits"]]
        assert left.T.tolist() == [recorded["left"] for recorded in case["digits"]]

        world = MovingDigits(images=images, num_digits=case["num_digits"], length=length, canvas=canvas, speed=speed,
                             seed=case["random_seed"], rng="python")  # fmt: skip
        np.testing.assert_array_equal(world.sequence(0), video)
