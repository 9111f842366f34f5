"""The metrics against recordings of the original: every recording that holds `metric/*`, driven by its metadata."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from recordings import Recording, names, open_recording
from torch import Tensor

from smash.metrics import event_scores, legacy_gap_upper, legacy_location_threshold, summarise
from stcore.metrics.calibration import calibration_score, coverage, frequent_mark, reliability, top_mark
from stcore.metrics.density import density_at, fit_kernel

SAMPLED = names("metric/time_samples", "metric/loc_samples")
MARKED = names("metric/mark_probs")


def _levels(recording: Recording) -> Tensor:
    return torch.tensor(recording.meta["metric_levels"], dtype=torch.float64)


def _marks(recording: Recording) -> tuple[Tensor, Tensor]:
    """Probabilities of each sample, and the true mark counted from 0."""
    return recording.input("metric/mark_probs").double(), recording.input("metric/mark_true")[:, 0].long() - 1


@pytest.mark.parametrize("name", SAMPLED)
def test_gap_intervals_counts_and_score(name):
    recording = open_recording(name)
    levels, samples = _levels(recording), recording.input("metric/time_samples")
    truth = recording.input("metric/time_true").double()
    upper = legacy_gap_upper(fit_kernel(samples[:, :, None]), levels, samples=samples)
    np.testing.assert_allclose(upper, recording.expect("metric/time_upper"), rtol=1e-6)
    covered = (truth >= 0) & (truth <= upper)
    np.testing.assert_array_equal(covered.sum(0), recording.expect("metric/count_time"))
    recorded = recording.expect("metric/cs_time") / len(truth)
    np.testing.assert_allclose((coverage(covered) - levels).abs(), recorded, atol=1e-9)
    np.testing.assert_allclose(calibration_score(coverage(covered), levels), recorded.mean(), rtol=1e-9)


@pytest.mark.parametrize("name", SAMPLED)
def test_location_densities_thresholds_counts_and_score(name):
    recording = open_recording(name)
    levels, samples = _levels(recording), recording.input("metric/loc_samples")
    truth = recording.input("metric/loc_true")
    kernel = fit_kernel(samples)
    at_truth = density_at(kernel, truth[:, None, :])
    np.testing.assert_allclose(at_truth[:, 0], recording.expect("metric/loc_density_true"), rtol=1e-6)
    threshold = legacy_location_threshold(kernel, levels, samples=samples)
    np.testing.assert_allclose(threshold, recording.expect("metric/loc_threshold"), rtol=1e-6)
    covered = at_truth >= threshold
    np.testing.assert_array_equal(covered.sum(0), recording.expect("metric/count_loc"))
    recorded = recording.expect("metric/cs_loc") / len(truth)
    np.testing.assert_allclose((coverage(covered) - levels).abs(), recorded, atol=1e-9)
    np.testing.assert_allclose(calibration_score(coverage(covered), levels), recorded.mean(), rtol=1e-9)


@pytest.mark.parametrize("name", MARKED)
def test_marks_bins_and_both_calibration_errors(name):
    recording = open_recording(name)
    probability, mark = _marks(recording)
    predicted, confidence = top_mark(probability.mean(1))
    bins = reliability(confidence, predicted == mark)
    np.testing.assert_array_equal(bins.count, recording.expect("metric/ece_count"))
    np.testing.assert_array_equal(bins.correct, recording.expect("metric/ece_correct"))
    np.testing.assert_allclose(bins.error_sum, recording.expect("metric/ece_sum").item(), rtol=1e-6)
    voted, frequency = frequent_mark(probability.argmax(-1), probability.shape[-1])
    np.testing.assert_array_equal(voted, recording.expect("metric/mark_pred"))
    np.testing.assert_allclose((voted == mark).double().mean(), recording.expect("metric/acc"), rtol=1e-6)
    sampled = reliability(frequency, voted == mark)
    np.testing.assert_allclose(sampled.error_sum, recording.expect("metric/ece_sum_sample_mode").item(), rtol=1e-6)


@pytest.mark.parametrize("name", SAMPLED)
def test_table_repeats_the_recorded_figures(name):
    recording = open_recording(name)
    levels, marked = tuple(recording.meta["metric_levels"]), name in MARKED
    probability, mark = _marks(recording) if marked else (None, None)
    per_event = event_scores(
        recording.input("metric/time_samples"),
        recording.input("metric/loc_samples"),
        gap=recording.input("metric/time_true")[:, 0],
        location=recording.input("metric/loc_true"),
        mark=mark,
        mark_probability=probability,
        levels=levels,
    )
    events = len(recording.input("metric/time_true"))
    summary = summarise(per_event, sequence_index=torch.arange(events) // 6, levels=levels)
    row = {line["name"]: line["value"] for line in summary["rows"]}
    np.testing.assert_allclose(row["legacy_mae_gap"], recording.expect("metric/mae_time"), rtol=1e-5)
    np.testing.assert_allclose(row["legacy_mae_location"], recording.expect("metric/mae_space"), rtol=1e-5)
    for ours, theirs in (("legacy_cs_gap", "metric/cs_time"), ("legacy_cs_location", "metric/cs_loc")):
        np.testing.assert_allclose(row[ours], 100 * recording.expect(theirs).mean() / events, rtol=1e-9)
    assert ("legacy_accuracy" in row) == marked
    if marked:
        np.testing.assert_allclose(row["legacy_accuracy"], 100 * recording.expect("metric/acc"), rtol=1e-6)
        for ours, theirs in (("ece", "metric/ece_sum"), ("ece_sampled", "metric/ece_sum_sample_mode")):
            np.testing.assert_allclose(row[ours], 100 * recording.expect(theirs).item() / events, rtol=1e-6)
