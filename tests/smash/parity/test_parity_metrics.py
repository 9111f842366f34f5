"""The metrics against recordings of the original: every recording that holds `metric/*`, found by its metadata."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from smash.metrics import event_scores, legacy_gap_upper, legacy_location_threshold, summarise
from stcore.metrics.calibration import calibration_score, coverage, frequent_mark, reliability, top_mark
from stcore.metrics.density import density_at, fit_kernel


def _recordings() -> list[Path]:
    if not os.environ.get("STCORE_REFERENCE"):
        return []
    found = sorted((Path(os.environ["STCORE_REFERENCE"]) / "smash").glob("*.json"))
    return [path for path in found if '"metric/' in path.read_text()]


pytestmark = pytest.mark.skipif(not _recordings(), reason="STCORE_REFERENCE names no folder with recordings")


@pytest.fixture(params=_recordings(), ids=lambda path: path.stem)
def recording(request: pytest.FixtureRequest) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    path: Path = request.param
    stored = load_file(path.with_suffix(".safetensors"))
    tensors = {name.removeprefix("metric/"): value for name, value in stored.items() if name.startswith("metric/")}
    return tensors, torch.tensor(json.loads(path.read_text())["metric_levels"], dtype=torch.float64)


def test_gap_intervals_counts_and_score(recording):
    tensors, levels = recording
    samples, truth = tensors["time_samples"], tensors["time_true"][:, 0].double()
    upper = legacy_gap_upper(fit_kernel(samples[:, :, None]), levels, samples=samples)
    np.testing.assert_allclose(upper, tensors["time_upper"], rtol=1e-6)
    covered = (truth[:, None] >= 0) & (truth[:, None] <= upper)
    np.testing.assert_array_equal(covered.sum(0), tensors["count_time"])
    score = calibration_score(coverage(covered), levels)
    np.testing.assert_allclose(score, tensors["cs_time"].mean() / len(truth), rtol=1e-9)


def test_location_densities_thresholds_counts_and_score(recording):
    tensors, levels = recording
    samples, truth = tensors["loc_samples"], tensors["loc_true"]
    kernel = fit_kernel(samples)
    at_truth = density_at(kernel, truth[:, None, :])
    np.testing.assert_allclose(at_truth[:, 0], tensors["loc_density_true"], rtol=1e-6)
    threshold = legacy_location_threshold(kernel, levels, samples=samples)
    np.testing.assert_allclose(threshold, tensors["loc_threshold"], rtol=1e-6)
    covered = at_truth >= threshold
    np.testing.assert_array_equal(covered.sum(0), tensors["count_loc"])
    score = calibration_score(coverage(covered), levels)
    np.testing.assert_allclose(score, tensors["cs_loc"].mean() / len(truth), rtol=1e-9)


def test_marks_bins_and_both_calibration_errors(recording):
    tensors, _ = recording
    if "mark_probs" not in tensors:
        assert "acc" not in tensors  # an unmarked recording holds none of the mark figures
        return
    probability, mark = tensors["mark_probs"].double(), tensors["mark_true"][:, 0].long() - 1
    predicted, confidence = top_mark(probability.mean(1))
    bins = reliability(confidence, predicted == mark)
    np.testing.assert_array_equal(bins.count, tensors["ece_count"])
    np.testing.assert_array_equal(bins.correct, tensors["ece_correct"])
    np.testing.assert_allclose(bins.error_sum, tensors["ece_sum"].item(), rtol=1e-6)
    voted, frequency = frequent_mark(probability.argmax(-1), probability.shape[-1])
    np.testing.assert_array_equal(voted, tensors["mark_pred"])
    np.testing.assert_allclose((voted == mark).double().mean(), tensors["acc"], rtol=1e-6)
    sampled = reliability(frequency, voted == mark)
    np.testing.assert_allclose(sampled.error_sum, tensors["ece_sum_sample_mode"].item(), rtol=1e-6)


def test_table_repeats_the_recorded_figures(recording):
    tensors, levels = recording
    marked = "mark_probs" in tensors
    per_event = event_scores(
        tensors["time_samples"], tensors["loc_samples"],
        gap=tensors["time_true"][:, 0], location=tensors["loc_true"],
        mark=tensors["mark_true"][:, 0].long() - 1 if marked else None,
        mark_probability=tensors["mark_probs"] if marked else None,
        levels=tuple(levels.tolist()),
    )  # fmt: skip
    events = len(tensors["time_true"])
    summary = summarise(per_event, sequence_index=torch.arange(events) // 6, levels=tuple(levels.tolist()))
    row = {line["name"]: line["value"] for line in summary["rows"]}
    np.testing.assert_allclose(row["legacy_mae_gap"], tensors["mae_time"], rtol=1e-5)
    np.testing.assert_allclose(row["legacy_mae_location"], tensors["mae_space"], rtol=1e-5)
    np.testing.assert_allclose(row["legacy_cs_gap"], 100 * tensors["cs_time"].mean() / events, rtol=1e-9)
    np.testing.assert_allclose(row["legacy_cs_location"], 100 * tensors["cs_loc"].mean() / events, rtol=1e-9)
    assert ("legacy_accuracy" in row) == marked
    if marked:
        np.testing.assert_allclose(row["legacy_accuracy"], 100 * tensors["acc"], rtol=1e-6)
        np.testing.assert_allclose(row["ece"], 100 * tensors["ece_sum"].item() / events, rtol=1e-6)
        np.testing.assert_allclose(row["ece_sampled"], 100 * tensors["ece_sum_sample_mode"].item() / events, rtol=1e-6)
