"""The quality benchmark of smash: what a run is, what a line of results is called, and the table."""

from __future__ import annotations

import pytest
from benchmarks.smash import quality

from smash.config import PRESETS
from stcore.errors import UserError


def row(**changes: object) -> quality.Row:
    shared = {"machine": {"gpu": None, "cpu": "C", "cores": 2, "threads": 1}, "versions": {"torch": "2"},
              "commit": None, "date": "2026-01-02T03:04Z"}  # fmt: skip
    line = {"case": "crime-plus smash", "set": "crime-plus", "forecaster": "smash", "part": "test", "every": 1,
            "seed": 4, "figures": {"gap_crps": 0.5}, "perfect": {"gap_crps": 0.25},
            "constants": {"training median": {"mae_gap": 1.5}}}  # fmt: skip
    return shared | line | changes


def test_published_presets_are_shortened_and_densities_are_taken_as_they_are() -> None:
    short = quality.settings("crime")
    assert (short.loss.perturbations, short.fit.epochs, short.fit.ema_decay) == (5, 40, 0.99)
    assert quality.settings("crime-plus") == PRESETS["crime-plus"]


def test_settings_can_be_changed_by_name() -> None:
    changed = quality.settings("crime-plus", change="model.density.units=16 fit.epochs=3")
    assert (changed.model.density.units, changed.fit.epochs) == (16, 3)
    with pytest.raises(UserError, match=r"change: unknown key 'fit\.epoch'; did you mean 'epochs'"):
        quality.settings("crime-plus", change="fit.epoch=3")


def test_the_table_shows_the_test_part_only_and_says_what_was_scored() -> None:
    shown = quality.table(
        [
            row(),
            row(every=4, seed=2, case="crime-plus smash 1 sequence in 4 seed 2"),
            row(part="val", case="crime-plus smash on val {}", figures={"gap_crps": 9.5}),
        ]
    )
    lines = shown.splitlines()
    assert lines[2].startswith("| crime-plus | smash | 0.5 |")
    assert lines[3].startswith("| crime-plus | *perfect* | 0.25 |")
    assert next(line for line in lines if "*constant*" in line).split(" | ")[8] == "1.5"
    assert "| crime-plus, 1 sequence in 4, seed 2 | smash | 0.5 |" in shown
    assert "9.5" not in shown
