"""What stpred's networks learn on real frames in a fixed budget, beside persistence and the mean frame.

Moving digits are those of the MNIST test file, split so that training, validation and test share none, on 32 x 32
canvases with reduced widths, so that a run takes minutes on two cores; and the real clips and grids of `$STCORE_DATA`.
Weights are those with the lowest validation loss; the test part is scored once per run. Every run is a line.

    python benchmarks/run.py stpred quality [--option sets=digits] [--option models=convlstm] [--option runs=FOLDER]
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.tables import markdown, provenance

from stcore.cli import run_config
from stcore.configuration import differences
from stcore.training.config import AdamConfig, LoopConfig
from stpred.config import DataConfig, DigitsConfig, ScheduleConfig, TrainConfig
from stpred.data import read_parts, series_of
from stpred.evaluate import Report, evaluate
from stpred.models.configs import ConvLSTMConfig, PredRNNConfig, TrajGRUConfig
from stpred.predict import Forecaster
from stpred.train import train

Row = dict[str, Any]

MODELS: dict[str, Any] = {
    "convlstm": ConvLSTMConfig(hidden=(48, 32), kernels=(5, 5), patch=4, clamp_in_loss=False),
    "trajgru": TrajGRUConfig(stem=8, hidden=(24, 32, 48), links=(9, 9, 5), forecast_links=(9, 9, 5),
                             clamp_in_loss=False),
    "predrnn": PredRNNConfig(hidden=(32, 32), kernel=5, patch=4),
}  # fmt: skip
"""Reduced widths."""
RATES = {"convlstm": 2e-3, "trajgru": 1e-3, "predrnn": 2e-3}
SETS: dict[str, DataConfig] = {
    "digits": DataConfig(source=("mnist_t10k",), generate=DigitsConfig(sequences=800, digits=2, canvas=32), batch=16),
    "kth_clips_32": DataConfig(source=("kth_clips_32",), batch=16),
    "small_videos": DataConfig(source=("small_videos",), history=5, horizon=5, batch=8),
    "taxi_grid_40": DataConfig(source=("taxi_grid_40",), history=6, horizon=6, batch=16, stride=2),
}
EPOCHS = {"digits": 12, "kth_clips_32": 20, "small_videos": 15, "taxi_grid_40": 3}
SHOWN = {"mse": "MSE a frame", "mae": "MAE a frame", "ssim": "SSIM", "psnr": "PSNR"}
GOAL = 0.7
"""MSE a frame as a share of the better of persistence and the mean frame."""


def configuration(dataset: str, model: str) -> TrainConfig:
    """Return the run of a model on a data set."""
    sizes = MODELS[model]
    if dataset == "taxi_grid_40" and hasattr(sizes, "clamp"):
        sizes = replace(sizes, clamp="nonnegative")
    return TrainConfig(
        data=SETS[dataset],
        model=sizes,
        optimiser=AdamConfig(learning_rate=RATES[model]),
        schedule=ScheduleConfig(kind="one-cycle"),
        fit=LoopConfig(epochs=EPOCHS[dataset], clip_norm=1.0),
    )


def run(
    quick: bool, *, sets: str = " ".join(SETS), models: str = " ".join(MODELS), runs: str = "runs/quality"
) -> Iterator[Row]:
    """Train what is not trained yet, score it once, and yield one row per forecaster."""
    for dataset in sets.split():
        for model in models.split():
            config = configuration(dataset, model)
            if quick:
                config = replace(config, fit=replace(config.fit, max_steps=2))
            folder = Path(runs) / f"{dataset}-{model}"
            seconds = _train(config, folder)
            forecaster = Forecaster.load(folder)
            parts = read_parts(config.data, seed=config.seed)
            report = evaluate(forecaster, series_of(parts.test), series_of(parts.train), limit=8 if quick else 0)
            yield from _rows(dataset, model, report, seconds, forecaster)


def _train(config: TrainConfig, folder: Path) -> float:
    """Train or go on training, and return the seconds that all of it took."""
    if folder.exists():
        stored = run_config(TrainConfig, folder)
        if differences(stored, config):
            raise SystemExit(f"{folder}: another configuration: {', '.join(differences(stored, config))}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    train(config, run=None if folder.exists() else folder, resume=folder if folder.exists() else None, preset="quality")
    timing = folder / "timing.jsonl"
    lines = timing.read_text().splitlines() if timing.exists() else []
    return round(sum(json.loads(line)["step_s"] * config.fit.log_every for line in lines), 1)


def _rows(dataset: str, model: str, report: Report, seconds: float, forecaster: Forecaster) -> Iterator[Row]:
    best = min(report.value("mse", name) for name in ("persistence", "mean frame"))
    for name, found in report.tables.items():
        row: Row = {"case": f"{dataset} {model} {name}", "set": dataset, "model": model, "forecaster": name,
                    "figures": found["overall"], "per_lead_time": found["per_lead_time"],
                    "protocol": report.facts["protocol"], "step": report.facts["step"]}  # fmt: skip
        if name == "stpred":
            parameters = sum(parameter.numel() for parameter in forecaster.model.parameters())
            row |= {"train_seconds": seconds, "parameters": parameters, "share_of_naive": report.value("mse") / best,
                    "met": report.value("mse") <= GOAL * best}  # fmt: skip
        yield row


def table(rows: Sequence[Row]) -> str:
    """Lay the results out: one line per set and forecaster; the naive ones once a set."""
    header = ["set", "forecaster", "parameters", "weights of step", *SHOWN.values(), "MSE, first and last lead",
              "MSE / best naive"]  # fmt: skip
    lines: list[list[str]] = []
    seen: set[tuple[str, str]] = set()
    for row in sorted(rows, key=_place):
        own = row["forecaster"] == "stpred"
        name = row["model"] if own else f"*{row['forecaster']}*"
        if (row["set"], name) in seen:
            continue
        seen.add((row["set"], name))
        leads = row["per_lead_time"]["mse"]
        share = f"{row['share_of_naive']:.2f}" if own else ""
        size = f"{row['parameters'] / 1e6:.2f} M" if own else ""
        step = str(row["step"]) if own else ""
        figures = [f"{row['figures'][metric]:.4g}" if metric in row["figures"] else "" for metric in SHOWN]
        lines.append([row["set"], name, size, step, *figures, f"{leads[0]:.4g}, {leads[-1]:.4g}", share])
    return f"{markdown(header, lines)}\n\n{provenance(rows)}"


def _place(row: Row) -> tuple[int, bool, int]:
    """Return where a row goes: by set, networks before naive forecasts, in the order of the lists above."""
    return list(SETS).index(row["set"]), row["forecaster"] != "stpred", list(MODELS).index(row["model"])
