"""The benchmark of quality: its runs differ in what they are to show, and its tables say what follows."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.vlm4st import quality, runs
from vlm4st_recordings import folder, open_recording

from stcore.configuration import differences
from stcore.errors import UserError
from stcore.grids import GridSeries

ABOUT: dict[str, Any] = {
    "commit": None, "date": "2026-01-02T03:04Z", "versions": {"torch": "2.13.0"},
    "machine": {"cpu": "Chip", "cores": 2, "threads": 2, "gpu": None},
}  # fmt: skip


def scored(group: str, forecaster: str, mae: float, *, seed: int = 0, naive: bool = False) -> dict[str, Any]:
    size = {} if naive else {"seed": seed, "parameters": 300_000, "trained_parameters": 20_000}
    return {"case": f"{group} bike {forecaster} {seed}", "group": group, "set": "bike", "unit": "bikes/h", "windows": 9,
            "forecaster": forecaster, "naive": naive, "figures": {"mae": mae, "rmse": 2 * mae},
            "by_lead": {"mae": [mae / 2, 1.5 * mae]}, **size, **ABOUT}  # fmt: skip


def test_runs_of_a_group_differ_in_what_it_is_about_alone() -> None:
    first, *others = (runs.headline("bike", seed) for seed in (0, 1, 2))
    assert [differences(first, other) for other in others] == [["seed"], ["seed"]]
    hows = ("days and others", "days alone", "zero-shot", "others first")
    both, alone, zero, after = (runs.few_shot(how) for how in hows)
    assert differences(alone, after) == []  # but its start
    assert differences(both, alone) == [
        "data.source", "data.start", "data.step", "few_shot.others", "fit.evaluate_every",
    ]  # fmt: skip
    assert alone.data.start == ""  # the clock of the taxis is not that of the bikes
    assert differences(both, zero) == ["few_shot.days"]
    plain = [runs.plain_few_shot(how, Path("taxis.npz"), seed=1) for how in ("days alone", "others first")]
    assert differences(*plain) == ["fresh_head"]  # and its start
    assert (plain[0].data.anomalies, plain[0].model.prediction_head.residual) == ("none", "last")
    assert runs.plain_few_shot("zero-shot", Path("taxis.npz")).data.source == ("nyc_bike_grid", "taxis.npz")
    weights = Path("backbone.safetensors")
    kinds = [runs.adapted(kind, weights) for kind in runs.ADAPTERS]
    assert [differences(kinds[0], other) for other in kinds[1:]] == [["model.vlm.lora_type"]] * 3
    parts = [runs.adapted(part, weights) for part in runs.ABLATIONS]
    assert [differences(kinds[0], other) for other in parts] == [["ablation"]] * 4
    assert runs.backbone().model.vlm.vit == kinds[0].model.vlm.vit


def test_taxis_come_by_the_hour(tmp_path: Path) -> None:
    if not os.environ.get("STCORE_DATA"):
        pytest.skip("real data: STCORE_DATA is not set")
    file = runs.hourly_taxis(tmp_path)
    series = GridSeries.read(file)
    assert (series.num_frames, series.height, series.width) == (384, 40, 40)  # sixteen days
    assert series.times is not None and set(np.diff(series.times)) == {np.timedelta64(1, "h")}
    assert runs.hourly_taxis(tmp_path) == file


def test_table_says_how_many_seeds_beat_the_best_naive_forecast() -> None:
    rows = [scored("headline", "small", 2.0), scored("headline", "small", 4.0, seed=1)]
    rows += [scored("headline", name, mae, naive=True) for name, mae in (("persistence", 5.0), ("damped", 3.0))]
    text = quality.table(rows)
    assert "| small | 20 k of 300 k | 2 | 3 ± 1.4 | 6 ± 2.8 | 1.5 | 4.5 |" in text
    assert "| *damped* |  |  | 3 | 6 | 1.5 | 4.5 |" in text
    assert "small: 1 of 2 seeds below the best naive forecast (damped, 3)." in text
    rows.append(scored("headline", "usual (median of 5 moments)", 2.5, naive=True))
    told = "What the model adds to, usual (median of 5 moments), comes to 2.5 by itself."
    assert f"small: 1 of 2 seeds below the best naive forecast (damped, 3). {told}" in quality.table(rows)


def test_budgets_that_were_tried_are_told_with_the_chosen_one() -> None:
    rows = [{"group": "trials", "set": "era5", "words": found.words, "mae": mae, "train_seconds": 250.0,
             "chosen": found == runs.SETS["era5"], **ABOUT}
            for found, mae in zip(runs.TRIALS["era5"], (0.75, 0.6, 0.9, 0.8, 0.7, 0.5), strict=True)]  # fmt: skip
    text = quality.table(rows)
    assert all(f"{found.words}" in text for found in runs.TRIALS["era5"])
    assert text.count("**") == 2 and "| 0.75 | 250 |" in text
    assert all(runs.SETS[name] in tried for name, tried in runs.TRIALS.items())


def test_table_compares_few_shots_with_the_days_alone() -> None:
    rows = [scored("few-shot", "days and others", 3.0), scored("few-shot", "days alone", 4.0)]
    assert "MAE of days and others against the 3 days alone: -25.00%." in quality.table(rows)


@pytest.mark.skipif(folder() is None, reason="STCORE_REFERENCE is not set: no recordings")
def test_the_known_series_has_its_recorded_windows(tmp_path: Path) -> None:
    tree = json.loads(runs.known_file(tmp_path).read_text())
    series = open_recording("synthetic_series").tensors["series"]
    assert [len(tree[f"X_{part}"][0]) for part in ("train", "val", "test")] == [462, 99, 100]
    assert tree["X_val"][0][0] == series[462:474].tolist() and tree["timestamps"]["val"][0][0] == [2, 30]


def test_unknown_names_are_refused() -> None:
    with pytest.raises(UserError, match="'colour'; expected some of trials"):
        next(quality.run(True, groups="colour"))
