"""How good smash's forecasts are on real sets, beside forecasters that know no history and a self-exciting process.

Each run is trained once (a published preset with fewer perturbations and epochs, or a preset by densities; stopped
early on val), resumed where an earlier call left it, and then scored with 300 samples an event. Every configuration
tried is a line of the results: trials are scored on val, the test part once for each run that was chosen.

    python benchmarks/run.py smash quality [--option sets="crime-plus football-plus"] [--option runs=FOLDER]
        [--option part=val] [--option every=10] [--option seeds="1 2 3"] [--option rivals=self-exciting]
        [--option change="model.width=32 fit.epochs=20"]
"""

from __future__ import annotations

import json
import time
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.tables import markdown, provenance

from smash.config import PRESETS, TrainConfig
from smash.evaluate import Report, calibrate, evaluate
from smash.predict import Forecaster
from smash.rivals import fit_rivals
from smash.train import train
from stcore.cli import run_config
from stcore.configuration import differences, overlay
from stcore.events import EventSequences
from stcore.readers import read_event_parts
from stcore.splits import Parts

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


def settings(name: str, *, change: str = "") -> TrainConfig:
    """Return a preset, with `name=value` pairs in TOML in the place of its own.

    A published preset gets five perturbations, an average of the weights, and forty epochs, stopped early on val.
    """
    config = PRESETS[name]
    if config.model.law == "score":
        config = replace(
            config,
            loss=replace(config.loss, perturbations=5),
            fit=replace(config.fit, epochs=40, patience=12, ema_decay=0.99),
        )
    return overlay(config, tomllib.loads("\n".join(change.split())), where="change") if change else config


def run(
    quick: bool,
    *,
    sets: str = "earthquake crime football",
    runs: str = "runs/quality",
    part: str = "test",
    every: str = "1",
    samples: str = "300",
    seeds: str = "",
    change: str = "",
    rivals: str = "",
) -> Iterator[Row]:
    """Train what is not trained yet, score it, and yield one row per forecaster, set and seed.

    Args:
        quick: a few steps and samples.
        sets: presets, separated by spaces.
        runs: folder of the runs.
        part: what is scored, test or val.
        every: score each so manieth sequence only.
        samples: of each event; scores are unbiased for any number.
        seeds: of training, separated by spaces; the preset's own without any.
        change: see `settings`.
        rivals: `self-exciting` also fits and scores the classical processes, beside the first seed.
    """
    for name in sets.split():
        config = settings(name, change=change)
        parts = read_event_parts(config.data)
        for number, seed in enumerate(int(seed) for seed in seeds.split() or [config.seed]):
            chosen = replace(config, seed=seed)
            if quick:
                chosen = replace(chosen, fit=replace(chosen.fit, max_steps=20))
            named = f"{name}-{seed}" if seeds else name
            about = {"set": name, "part": part, "every": int(every), "samples": 20 if quick else int(samples),
                     "config": _difference(chosen, _reference(chosen, name))}  # fmt: skip
            with_rivals = rivals == "self-exciting" and number == 0
            yield from _one(chosen, Path(runs) / named, parts, about, rivals=with_rivals)


def _one(config: TrainConfig, folder: Path, parts: Parts[EventSequences], about: Row, *, rivals: bool) -> Iterator[Row]:
    seconds = _train(config, folder, parts)
    forecaster = Forecaster.load(folder)
    events = _thinned(parts.named()[about["part"]], about["every"])
    sampler = replace(config.sampler, samples=about["samples"])
    by_density = config.model.law == "density"
    started = time.perf_counter()
    # The val part calibrates; scored on itself the calibrated variant would say nothing.
    calibration = None
    if by_density and about["part"] == "test":
        calibration = calibrate(forecaster, _thinned(parts.val, about["every"]), sampler=sampler, seed=config.seed)
    others = fit_rivals(parts.train, events) if rivals else {}
    report = evaluate(forecaster, events, parts.train, sampler=sampler, seed=config.seed, legacy=not by_density,
                      rivals=others, calibration=calibration)  # fmt: skip
    about = {**about, "seed": config.seed, "step": forecaster.facts["step"], "train_seconds": seconds,
             "protocol": report.facts["protocol"], "evaluate_seconds": round(time.perf_counter() - started, 1),
             "events": report.tables["smash"]["events"], "val": _best(folder)}  # fmt: skip
    yield from _rows(report, about, several=folder.name != about["set"])


def _thinned(events: EventSequences, every: int) -> EventSequences:
    return events.select(list(range(0, events.num_sequences, every))) if every > 1 else events


def _train(config: TrainConfig, folder: Path, parts: Parts[EventSequences]) -> float:
    """Train or go on training, and return the seconds that all of it took."""
    if folder.exists():
        stored = run_config(TrainConfig, folder)
        if differences(stored, config):
            raise SystemExit(f"{folder}: another configuration: {', '.join(differences(stored, config))}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    train(config, parts=parts, run=None if folder.exists() else folder, resume=folder if folder.exists() else None,
          preset="quality")  # fmt: skip
    lines = (folder / "timing.jsonl").read_text().splitlines()
    return round(sum(json.loads(line)["step_s"] * config.fit.log_every for line in lines), 1)


def _best(folder: Path) -> dict[str, float]:
    """Return the losses on val of the weights that were kept."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    evaluated = [line for line in lines if "val/loss" in line]
    best = min(evaluated, key=lambda line: line["val/loss"])
    return {name: value for name, value in best.items() if name.startswith("val/") or name == "step"}


def _reference(config: TrainConfig, name: str) -> TrainConfig:
    """Return what a line states its configuration against: presets by densities may change, the defaults do not."""
    return PRESETS[name] if config.model.law == "score" else TrainConfig()


def _difference(config: TrainConfig, preset: TrainConfig) -> dict[str, Any]:
    def value(path: str) -> Any:
        found: Any = config
        for part in path.split("."):
            found = getattr(found, part)
        return found

    return {path: value(path) for path in differences(config, preset)}


def _rows(report: Report, about: Row, *, several: bool) -> Iterator[Row]:
    for forecaster, summary in report.tables.items():
        figures = {row["name"]: row["value"] for row in summary["rows"]}
        words = [about["set"], forecaster]
        if about["every"] > 1:
            words.append(f"1 sequence in {about['every']}")
        if about["part"] != "test":
            words += [f"on {about['part']}", json.dumps(about["config"], sort_keys=True)]
        if several:
            words.append(f"seed {about['seed']}")
        row: Row = {"case": " ".join(words), "forecaster": forecaster, **about, "figures": figures}
        if forecaster == "smash":
            row["perfect"] = {entry["name"]: entry["floor"] for entry in summary["rows"] if entry["floor"] is not None}
            row["interval"] = {entry["name"]: [entry["low"], entry["high"]] for entry in summary["rows"]}
            row["constants"] = report.constants
        yield row


def table(rows: Sequence[Row]) -> str:
    """Lay the results out: one line per set and forecaster, the perfect forecaster and the paper beside ours."""
    header = ["set", "forecaster", *SHOWN.values()]
    lines: list[list[str]] = []
    scored = _fullest([row for row in rows if row.get("part", "test") == "test"])
    for row in scored:
        name = row["set"]
        if row.get("every", 1) > 1:
            name += f", 1 sequence in {row['every']}"
        if row["case"].endswith(f"seed {row['seed']}"):
            name += f", seed {row['seed']}"
        lines.append([name, row["forecaster"], *(_cell(row["figures"].get(figure)) for figure in SHOWN)])
        if row["forecaster"] == "smash":
            lines.append([name, "*perfect*", *(_cell(row["perfect"].get(figure)) for figure in SHOWN)])
            lines.append([name, "*constant*", *(_cell(_constant(row["constants"], figure)) for figure in SHOWN)])
            published = PUBLISHED.get(row["set"])
            if published:
                lines.append([name, "*paper*", *(_cell(published.get(figure)) for figure in SHOWN)])
    note = "Constant: training median gap, most frequent training mark. Paper: table 1 of Li et al., 2024."
    return f"{markdown(header, lines)}\n\n{note} {provenance(scored)}"


def _fullest(rows: Sequence[Row]) -> list[Row]:
    """Keep, of the rows of a set and seed, those that scored most of the test part, set by set."""
    least: dict[tuple[str, int], int] = {}
    for row in rows:
        key, every = (row["set"], row["seed"]), row.get("every", 1)
        least[key] = min(every, least.get(key, every))
    kept = [row for row in rows if row.get("every", 1) == least[row["set"], row["seed"]]]
    return sorted(kept, key=lambda row: list(least).index((row["set"], row["seed"])))


def _constant(constants: dict[str, dict[str, float]], name: str) -> float | None:
    where = {"mae_gap": ("training median", "mae_gap"), "legacy_mae_gap": ("training mean", "mae_gap"),
             "accuracy": ("training majority", "accuracy")}  # fmt: skip
    if name not in where:
        return None
    return constants.get(where[name][0], {}).get(where[name][1])


def _cell(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
