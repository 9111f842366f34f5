"""How good smash's forecasts are on the three published sets, beside forecasters that know no history.

Each set is trained once (the published preset with fewer perturbations and epochs, early stopping on val), resumed
where an earlier call left it, and then scored on its whole test part with 300 samples an event. Every run tried is a
line of the results; the test part is scored once per run.

    python benchmarks/run.py smash quality [--option sets=earthquake] [--option runs=FOLDER]
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.tables import markdown, provenance

from smash.config import PRESETS, TrainConfig
from smash.evaluate import Report, evaluate
from smash.predict import Forecaster
from smash.train import train
from stcore.cli import run_config
from stcore.configuration import differences
from stcore.readers import read_event_parts

Row = dict[str, Any]

SHOWN = {
    "gap_crps": "CRPS gap",
    "location_energy": "energy score location",
    "mark_log_loss": "log loss mark",
    "cs_gap": "CS gap %",
    "cs_location": "CS location %",
    "ece": "ECE %",
    "mae_gap": "MAE median gap",
    "accuracy": "accuracy %",
    "legacy_mae_gap": "legacy MAE gap",
    "legacy_cs_gap": "legacy CS gap %",
    "legacy_cs_location": "legacy CS location %",
}
PUBLISHED = {
    "earthquake": {"legacy_cs_gap": 3.53, "legacy_mae_gap": 0.29, "legacy_cs_location": 6.95, "accuracy": 90.30,
                   "ece": 4.85},
    "crime": {"legacy_cs_gap": 6.93, "legacy_mae_gap": 1.16, "legacy_cs_location": 1.08, "accuracy": 39.40,
              "ece": 11.36},
    "football": {"legacy_cs_gap": 6.38, "legacy_mae_gap": 3.40, "legacy_cs_location": 2.52, "accuracy": 68.38,
                 "ece": 3.23},
}  # fmt: skip
"""Li et al., ICML 2024, table 1, SMASH (model selected on the test part by the authors' code)."""


def short_run(name: str) -> TrainConfig:
    """Return the preset with five perturbations, an average of the weights, and forty epochs, stopped early on val."""
    preset = PRESETS[name]
    return replace(
        preset,
        loss=replace(preset.loss, perturbations=5),
        fit=replace(preset.fit, epochs=40, patience=12, ema_decay=0.99),
    )


def run(quick: bool, *, sets: str = "earthquake crime football", runs: str = "runs/quality") -> Iterator[Row]:
    """Train what is not trained yet, score it, and yield one row per forecaster and set."""
    for name in sets.split():
        folder = Path(runs) / name
        config = short_run(name)
        if quick:
            config = replace(config, fit=replace(config.fit, max_steps=20))
        seconds = _train(config, folder)
        forecaster = Forecaster.load(folder)
        parts = read_event_parts(config.data)
        started = time.perf_counter()
        sampler = replace(config.sampler, samples=20) if quick else config.sampler
        report = evaluate(forecaster, parts.test, parts.train, sampler=sampler, seed=config.seed)
        about = {"set": name, "config": _difference(config, PRESETS[name]), "seed": config.seed,
                 "step": forecaster.facts["step"], "train_seconds": seconds, "protocol": report.facts["protocol"],
                 "evaluate_seconds": round(time.perf_counter() - started, 1), "samples": sampler.samples}  # fmt: skip
        yield from _rows(name, report, about)


def _train(config: TrainConfig, folder: Path) -> float:
    """Train or go on training, and return the seconds that all of it took."""
    if folder.exists():
        stored = run_config(TrainConfig, folder)
        if differences(stored, config):
            raise SystemExit(f"{folder}: another configuration: {', '.join(differences(stored, config))}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    train(config, run=None if folder.exists() else folder, resume=folder if folder.exists() else None, preset="quality")
    lines = (folder / "timing.jsonl").read_text().splitlines()
    return round(sum(json.loads(line)["step_s"] * config.fit.log_every for line in lines), 1)


def _difference(config: TrainConfig, preset: TrainConfig) -> dict[str, Any]:
    def value(path: str) -> Any:
        found: Any = config
        for part in path.split("."):
            found = getattr(found, part)
        return found

    return {path: value(path) for path in differences(config, preset)}


def _rows(name: str, report: Report, about: Row) -> Iterator[Row]:
    for forecaster, summary in report.tables.items():
        figures = {row["name"]: row["value"] for row in summary["rows"]}
        row: Row = {"case": f"{name} {forecaster}", "forecaster": forecaster, **about, "figures": figures}
        if forecaster == "smash":
            row["perfect"] = {entry["name"]: entry["floor"] for entry in summary["rows"] if entry["floor"] is not None}
            row["interval"] = {entry["name"]: [entry["low"], entry["high"]] for entry in summary["rows"]}
            row["constants"] = report.constants
        yield row


def table(rows: Sequence[Row]) -> str:
    """Lay the results out: one line per set and forecaster, the perfect forecaster and the paper beside ours."""
    header = ["set", "forecaster", *SHOWN.values()]
    lines: list[list[str]] = []
    for row in rows:
        lines.append([row["set"], row["forecaster"], *(_cell(row["figures"].get(name)) for name in SHOWN)])
        if row["forecaster"] == "smash":
            lines.append([row["set"], "*perfect*", *(_cell(row["perfect"].get(name)) for name in SHOWN)])
            lines.append([row["set"], "*constant*", *(_cell(_constant(row["constants"], name)) for name in SHOWN)])
            published = PUBLISHED.get(row["set"], {})
            lines.append([row["set"], "*paper*", *(_cell(published.get(name)) for name in SHOWN)])
    note = "Constant: training median gap, most frequent training mark. Paper: table 1 of Li et al., 2024."
    return f"{markdown(header, lines)}\n\n{note} {provenance(rows)}"


def _constant(constants: dict[str, dict[str, float]], name: str) -> float | None:
    where = {"mae_gap": ("training median", "mae_gap"), "legacy_mae_gap": ("training mean", "mae_gap"),
             "accuracy": ("training majority", "accuracy")}  # fmt: skip
    if name not in where:
        return None
    return constants.get(where[name][0], {}).get(where[name][1])


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
