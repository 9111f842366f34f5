"""Calibration: what is fitted on held-back events makes forecasts of further events say what happens."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from smash.calibrated import Calibration, MarkScaling, fit_calibration
from smash.metrics import event_scores, summarise
from stcore.baselines import EventSamples, transitions
from stcore.errors import UserError
from stcore.events import EventSequences
from stcore.generate.events import TrueForecaster, clustered_city
from stcore.metrics import calibration
from stcore.metrics.calibration import LEVELS

SAMPLES = 99


def _forecasts(
    events: EventSequences, *, stretch: float = 1.0, blur: float = 0.0
) -> tuple[EventSamples, dict[str, Tensor]]:
    """Forecast every event of a known process by the truth, or by the truth with a known flaw."""
    came = transitions(events)
    drawn = TrueForecaster(clustered_city(), events).sample(np.arange(len(came.gap)), SAMPLES, seed=1)
    noise = torch.randn(drawn.location.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert drawn.mark_probability is not None and came.mark is not None
    sharper = drawn.mark_probability.mean(1) ** stretch
    flawed = EventSamples(drawn.gap * stretch, drawn.location + blur * noise, drawn.mark,
                          sharper / sharper.sum(1, keepdim=True))  # fmt: skip
    truth = {"gap": torch.from_numpy(came.gap), "location": torch.from_numpy(came.location),
             "mark": torch.from_numpy(came.mark)}  # fmt: skip
    return flawed, truth


def _scored(drawn: EventSamples, truth: dict[str, Tensor], **options: object) -> dict[str, Tensor]:
    return event_scores(drawn.gap, drawn.location, gap=truth["gap"], location=truth["location"], mark=truth["mark"],
                        mark_probability=drawn.mark_probability, mark_samples=drawn.mark, legacy=False,
                        floor=False, **options)  # fmt: skip  # pyright: ignore[reportArgumentType]


def _perfect(events: int) -> float:
    """Return the calibration score, in %, that a perfect forecaster of so many events exceeds once in a hundred times.

    Its truth has every rank among the samples equally often, and the ranks of different events are independent.
    """
    levels = torch.tensor(LEVELS, dtype=torch.float64)
    rank = torch.randint(SAMPLES + 1, (400, events, 1), generator=torch.Generator().manual_seed(0))
    observed = (rank < levels * (SAMPLES + 1)).double().mean(1)
    return 100.0 * float(torch.quantile(calibration.calibration_score(observed, levels), 0.99))


def _rows(scored: dict[str, Tensor]) -> dict[str, float]:
    table = summarise(scored, sequence_index=torch.arange(len(scored["gap_crps"])), replicates=0)
    return {row["name"]: row["value"] for row in table["rows"]}


@pytest.fixture(scope="module")
def held_back() -> EventSequences:
    return clustered_city().simulate(25, duration=30.0, seed=11)


@pytest.fixture(scope="module")
def test_part() -> EventSequences:
    return clustered_city().simulate(25, duration=30.0, seed=12)


def test_the_true_process_is_calibrated_within_the_sampling_error_of_a_perfect_forecaster(
    test_part: EventSequences,
) -> None:
    drawn, truth = _forecasts(test_part)
    rows = _rows(_scored(drawn, truth))
    assert rows["cs_gap"] < _perfect(len(drawn.gap))
    assert rows["cs_location"] < _perfect(len(drawn.gap))


def test_a_flawed_forecaster_is_not_and_its_calibrated_variant_is(
    held_back: EventSequences, test_part: EventSequences
) -> None:
    seen, came = _forecasts(held_back, stretch=2.5, blur=0.8)
    before = _scored(seen, came)
    fitted = fit_calibration(before["gap_covering"], before["location_covering"],
                             mark_probability=before["mark_probability"], mark=before["mark"])  # fmt: skip
    drawn, truth = _forecasts(test_part, stretch=2.5, blur=0.8)
    raw, adjusted = _rows(_scored(drawn, truth)), fitted.samples(drawn)
    mended = _rows(_scored(adjusted, truth, regions=fitted.location))
    # Two samples of events, the held-back and the tested one, each with its error.
    for name in ("gap", "location"):
        assert raw[f"cs_{name}"] > 2.0 * _perfect(len(drawn.gap))
        assert mended[f"cs_{name}"] < 1.5 * _perfect(len(drawn.gap))
    assert mended["gap_crps"] < 0.99 * raw["gap_crps"]
    assert mended["mark_log_loss"] < raw["mark_log_loss"] - 0.01
    assert mended["ece"] < raw["ece"]
    assert fitted.mark is not None and fitted.mark.temperature == pytest.approx(2.5, rel=0.35)


def test_calibrated_samples_keep_their_ranks_and_places() -> None:
    torch.manual_seed(0)
    fitted = fit_calibration(torch.rand(500) ** 2, torch.rand(500))
    drawn = EventSamples(torch.rand(3, 50, dtype=torch.float64), torch.rand(3, 50, 2, dtype=torch.float64), None, None)
    moved = fitted.samples(drawn)
    assert bool((moved.gap.gather(1, drawn.gap.argsort(dim=1)).diff(dim=1) >= 0.0).all())
    assert moved.location is drawn.location and moved.mark is None
    # Half of the truths lay below level 1/4: the median is asked for there.
    assert float((moved.gap.median(dim=1).values - drawn.gap.quantile(0.25, dim=1)).abs().max()) < 0.08


def test_temperature_and_biases_are_found_again() -> None:
    generator = torch.Generator().manual_seed(3)
    stated = torch.softmax(2.0 * torch.randn(20000, 3, generator=generator, dtype=torch.float64), dim=1)
    true = torch.softmax(stated.log() / 1.6 + torch.tensor([0.5, 0.0, -0.5], dtype=torch.float64), dim=1)
    mark = torch.multinomial(true, 1, generator=generator)[:, 0]
    found = MarkScaling.fit(stated, mark)
    assert found.temperature == pytest.approx(1.6, rel=0.05)
    np.testing.assert_allclose(found.bias, [0.5, 0.0, -0.5], atol=0.06)
    np.testing.assert_allclose(found(stated), true, atol=0.02)


def test_marks_without_probability_and_unseen_marks_stay_finite() -> None:
    stated = torch.tensor([[1.0, 0.0, 0.0]]).repeat(50, 1)
    found = MarkScaling.fit(stated, torch.zeros(50, dtype=torch.int64))
    assert bool(torch.isfinite(found(stated)).all()) and all(np.isfinite(found.bias))


def test_calibration_is_kept_and_belongs_to_its_weights(tmp_path: Path) -> None:
    torch.manual_seed(0)
    stated, mark = torch.softmax(torch.randn(80, 3), dim=1), torch.arange(80) % 3
    fitted = fit_calibration(torch.rand(80), torch.rand(80), mark_probability=stated, mark=mark, model="a")
    assert Calibration.load(tmp_path, model="a") is None
    path = fitted.save(tmp_path)
    again = Calibration.load(tmp_path, model="a")
    assert again is not None and again.events == 80 and again.mark == fitted.mark
    assert torch.equal(again.gap.asked, fitted.gap.asked) and torch.equal(again.location.asked, fitted.location.asked)
    with pytest.raises(UserError, match=r"fitted to other weights.*--calibrate"):
        Calibration.load(tmp_path, model="b")
    kept = json.loads(path.read_text())
    for change in ({"version": 9}, {"gap": [0.5, 0.1]}, {"gap": "x"}, {"events": None}):
        path.write_text(json.dumps(kept | change))
        with pytest.raises(UserError, match="expected a calibration"):
            Calibration.load(tmp_path, model="a")
    path.write_text("{")
    with pytest.raises(UserError, match="expected a calibration"):
        Calibration.load(tmp_path, model="a")


def test_too_few_events_are_refused() -> None:
    with pytest.raises(UserError, match="19 events to calibrate on; expected at least 20"):
        fit_calibration(torch.rand(19), torch.rand(19))
