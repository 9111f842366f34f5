"""What SVQ learns on real fields in a fixed budget, beside SimVP without it and forecasts that know next to nothing.

Temperature over the British Isles (ERA5), sea-surface temperature (ERSST), and flows of bikes and taxis, from
`$STCORE_DATA`, cut in time into 70 % to train on, 10 % to choose the weights on and 20 % that is scored once per run.
All models of a set have the same sizes, the same loss (mean absolute error), the same steps in the same order and the
same rates; only what the latent frames pass through differs: SVQ, SVQ with its codebook as drawn, a perceptron as wide
as SVQ's without a codebook (of which SVQ is another parametrisation), nothing, or VQ. Persistence, damped persistence
and climatology are fitted on the training part. Errors are per cell, in the units of the data.

A run that was broken off goes on; a finished one is only scored again.

    python benchmarks/run.py svq quality [--option "sets=era5 bike"] [--option "models=svq none"] [--option runs=FOLDER]
    python benchmarks/run.py svq quality --option trials=yes

The second says how the settings were chosen: it trains with each of `TRIALS` and scores the validation part.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from benchmarks.tables import markdown, provenance

from stcore.cli import run_config
from stcore.configuration import differences
from stcore.training.config import AdamConfig, LoopConfig
from svq.config import DataConfig, EvaluateConfig, LossConfig, ScheduleConfig, TrainConfig
from svq.data import read_parts
from svq.evaluate import Report, evaluate
from svq.models import QuantizerConfig, SimVPConfig
from svq.predict import Forecaster
from svq.train import train

Row = dict[str, Any]

MODELS: dict[str, QuantizerConfig] = {
    "svq": QuantizerConfig(kind="svq"),
    "svq-frozen": QuantizerConfig(kind="svq", freeze_codebook=True),
    "control": QuantizerConfig(kind="control"),
    "none": QuantizerConfig(kind="none"),
    "vq": QuantizerConfig(kind="vq", codebook_size=256),
    "vq-1024": QuantizerConfig(kind="vq", codebook_size=1024),
}
IN_BUDGET = tuple(name for name in MODELS if name != "vq-1024")
"""Models that are trained by default; VQ with 1,024 codes takes longer than three minutes on the larger fields."""
NAMES = {"svq": "SVQ", "svq-frozen": "SVQ, codebook frozen", "control": "control without codebook",
         "none": "plain SimVP", "vq": "VQ, 256 codes", "vq-1024": "VQ, 1,024 codes"}  # fmt: skip
NAIVE = ("persistence", "damped persistence", "climatology")


@dataclass(frozen=True)
class Subject:
    """A data set and the budget on it."""

    data: DataConfig
    epochs: int
    seeds: int = 1


def _fields(source: str, *, history: int, horizon: int, **more: Any) -> DataConfig:
    chosen: dict[str, Any] = {"split": (0.7, 0.1, 0.2), "batch": 16, "scaling": "standard", **more}
    return DataConfig(source=(source,), history=history, horizon=horizon, **chosen)


SIZES = SimVPConfig(translator="gsta", hid_spatial=8, hid_temporal=64, depth_spatial=2, depth_temporal=3,
                    mlp_ratio=4.0, drop_path=0.1)  # fmt: skip
"""Small enough for minutes on two cores."""
SETS: dict[str, Subject] = {
    "era5": Subject(_fields("era5_t2m_uk", history=12, horizon=12, batch=8), epochs=4, seeds=3),
    "bike": Subject(_fields("nyc_bike_grid", history=24, horizon=6), epochs=6, seeds=3),
    "ersst": Subject(
        _fields("ersst_monthly", history=6, horizon=6, split=(0.65, 0.15, 0.2), missing="mask", batch=4), epochs=5
    ),
    "taxi": Subject(
        _fields("taxi_grid_40", history=12, horizon=6, stride=2, batch=8, start="2000-01-01T00:00", step="10 minutes"),
        epochs=4,
    ),
}
"""What is trained on, and how much. The days of the taxis have no dates; only the time of day is made use of."""


@dataclass(frozen=True)
class Trial:
    """A way to give the frames to the model, and to train it."""

    words: str
    anomalies: bool = True
    residual: Literal["none", "damped"] = "damped"
    learning_rate: float = 3e-3


CHOSEN = "damped"
TRIALS: dict[str, Trial] = {
    "as-they-are": Trial("as they are", anomalies=False, residual="none"),
    "anomalies": Trial("what differs from the usual", residual="none"),
    CHOSEN: Trial("what differs from the usual, added to a learnt share of the last frame, from damped persistence on"),
    "slower": Trial("the same, a third of the rate", learning_rate=1e-3),
}
"""What was tried on the validation part, by name; every model of every set was then trained as `CHOSEN`."""


def configuration(dataset: str, model: str, seed: int, trial: str = CHOSEN) -> TrainConfig:
    """Return the run of a model on a data set."""
    subject, tried = SETS[dataset], TRIALS[trial]
    return TrainConfig(
        data=replace(subject.data, anomalies=tried.anomalies),
        model=replace(SIZES, residual=tried.residual),
        quantizer=MODELS[model],
        loss=LossConfig(kind="mae"),
        optimiser=AdamConfig(learning_rate=tried.learning_rate),
        schedule=ScheduleConfig(kind="one-cycle"),
        fit=LoopConfig(epochs=subject.epochs, clip_norm=1.0, ema_decay=0.99, checkpoint_every=50),
        evaluate=EvaluateConfig(stride=1),
        seed=seed,
    )


def run(
    quick: bool,
    *,
    sets: str = " ".join(SETS),
    models: str = " ".join(IN_BUDGET),
    seeds: str = "",
    runs: str = "runs/quality",
    trials: str = "",
) -> Iterator[Row]:
    """Train what is not trained yet, score it, and yield a row per run; the naive forecasts once a set.

    Args:
        quick: two steps and few windows; figures then say only that everything works.
        sets: names of `SETS`.
        models: names of `MODELS`; by default those within the budget.
        seeds: numbers; as many as each set has by default.
        runs: folder of the runs.
        trials: names of `TRIALS`, or `yes` for all, to train with instead, scored on the validation part.
    """
    if trials:
        for dataset in sets.split():
            for name in TRIALS if trials == "yes" else trials.split():
                for model in models.split():
                    yield _trial(dataset, model, name, Path(runs))
        return
    for dataset in sets.split():
        said: set[str] = set()
        for seed in [int(text) for text in seeds.split()] or range(1 if quick else SETS[dataset].seeds):
            for model in models.split():
                config = configuration(dataset, model, seed)
                if quick:
                    config = replace(config, fit=replace(config.fit, max_steps=2))
                for row in _scored(dataset, model, config, Path(runs) / f"{dataset}-{model}-{seed}", quick=quick):
                    if row["case"] not in said:
                        yield row
                    said.add(row["case"])


def _trial(dataset: str, model: str, name: str, runs: Path) -> Row:
    """Train a model in one way, and score it on the validation part, where settings are chosen."""
    config = configuration(dataset, model, 0, name)
    # The chosen way is that of the run that is scored on the test part later.
    folder = runs / (f"{dataset}-{model}-0" if name == CHOSEN else f"trial-{dataset}-{model}-{name}")
    seconds = _train(config, folder)
    parts = read_parts(config)
    report = evaluate(Forecaster.load(folder, device="cpu"), parts.val, parts.train)
    return {"case": f"trial {dataset} {model} {name}", "trial": name, "set": dataset, "model": model, "part": "val",
            "epochs": config.fit.epochs, "train_seconds": seconds, "units": report.facts["units"],
            "mae": {who: found["mae"] for who, found in report.in_units.items()},
            "settings": asdict(TRIALS[name])}  # fmt: skip


def _scored(dataset: str, model: str, config: TrainConfig, folder: Path, *, quick: bool) -> Iterator[Row]:
    seconds = _train(config, folder)
    forecaster = Forecaster.load(folder, device="cpu")
    parts = read_parts(config)
    report = evaluate(forecaster, parts.test, parts.train, limit=8 if quick else 0)
    about: Row = {"set": dataset, "units": report.facts["units"], "protocol": report.facts["protocol"]}
    parameters = sum(parameter.numel() for parameter in forecaster.model.parameters())
    yield {"case": f"{dataset} {model} {config.seed}", "forecaster": model, "seed": config.seed,
           "parameters": parameters, "train_seconds": seconds, "step": forecaster.facts["step"],
           **_figures(report, report.model), **about}  # fmt: skip
    for name in report.in_units:
        if name != report.model:
            yield {"case": f"{dataset} {name}", "forecaster": name, **_figures(report, name), **about}


def _figures(report: Report, name: str) -> Row:
    by_lead = {metric: report.by_lead[name][metric] for metric in ("mae", "rmse")}
    return {"figures": report.in_units[name], "by_lead": by_lead}


def _train(config: TrainConfig, folder: Path) -> float:
    """Train or go on training, and return the seconds that all of it took."""
    if folder.exists():
        stored = run_config(TrainConfig, folder)
        if differences(stored, config):
            raise SystemExit(f"{folder}: another configuration: {', '.join(differences(stored, config))}")
    folder.parent.mkdir(parents=True, exist_ok=True)
    train(config, run=None if folder.exists() else folder, resume=folder if folder.exists() else None, preset="quality",
          device="cpu")  # fmt: skip
    timing = folder / "timing.jsonl"
    lines = timing.read_text().splitlines() if timing.exists() else []
    return round(sum(json.loads(line)["step_s"] * config.fit.log_every for line in lines), 1)


def table(rows: Sequence[Row]) -> str:
    """Lay the results out: errors by lead time, means and deviations over seeds, and what follows from them."""
    blocks: list[str] = []
    tried = [row for row in rows if "trial" in row]
    rows = [row for row in rows if "trial" not in row]
    for dataset in dict.fromkeys(row["set"] for row in rows):
        mine = [row for row in rows if row["set"] == dataset]
        grouped = {name: [row for row in mine if row["forecaster"] == name] for name in (*MODELS, *NAIVE)}
        blocks.append(_set_table(dataset, {name: found for name, found in grouped.items() if found}))
    if tried:
        said = [[row["set"], NAMES[row["model"]], row["settings"]["words"], str(row["epochs"]),
                 f"{row['mae']['svq']:.4g}", f"{row['mae']['damped persistence']:.4g}"] for row in tried]  # fmt: skip
        blocks.append("How frames are given to the model was chosen on the validation part (MAE, seed 0):")
        blocks.append(markdown(["set", "model", "frames", "epochs", "MAE", "damped persistence"], said))
    note = "MAE and RMSE per cell, over all lead times, mean and standard deviation over seeds; then MAE by lead time."
    return "\n\n".join([*blocks, f"{note} {provenance(rows)}"])


def _set_table(dataset: str, found: dict[str, list[Row]]) -> str:
    first = next(iter(found.values()))[0]
    leads = len(first["by_lead"]["mae"])
    label = f"{dataset} ({', '.join(dict.fromkeys(first['units']))})"
    header = [label, "parameters", "seeds", "s a run", "MAE", "RMSE",
              *(f"{lead + 1}" for lead in range(leads))]  # fmt: skip
    lines: list[list[str]] = []
    for name, each in found.items():
        naive = name not in MODELS
        size = "" if naive else f"{each[0]['parameters'] / 1e6:.2f} M"
        overall = [_spread([row["figures"][metric] for row in each]) for metric in ("mae", "rmse")]
        by_lead = [f"{value:.3g}" for value in _mean_by_lead(each)]
        shown = f"*{name}*" if naive else NAMES[name]
        seconds = "" if naive else f"{statistics.fmean(row['train_seconds'] for row in each):.0f}"
        lines.append([shown, size, "" if naive else str(len(each)), seconds, *overall, *by_lead])
    return "\n\n".join([markdown(header, lines), *_verdicts(found)])


def _verdicts(found: dict[str, list[Row]]) -> list[str]:
    """Say where SVQ does not beat the naive forecasts, and how it compares with plain SimVP."""
    if "svq" not in found:
        return []
    ours = _mean_by_lead(found["svq"])
    said: list[str] = []
    for name in NAIVE:
        if name in found:
            behind = [lead + 1 for lead, rival in enumerate(_mean_by_lead(found[name])) if not ours[lead] < rival]
            where = f"not at lead {', '.join(map(str, behind))}" if behind else "at every lead time"
            said.append(f"{name}: {where}")
    sentences = [f"SVQ beats {'; '.join(said)}."] if said else []
    if "none" in found:
        svq, plain = ([row["figures"]["mae"] for row in found[name]] for name in ("svq", "none"))
        change = statistics.fmean(svq) / statistics.fmean(plain) - 1.0
        spread = [f"{_deviation(each) / statistics.fmean(plain):.1%}" for each in (svq, plain) if len(each) > 1]
        beside = f", beside {' and '.join(spread)} between seeds (SVQ, plain)" if spread else " (one seed)"
        sentences.append(f"MAE of SVQ against that of plain SimVP: {change:+.1%}{beside}.")
    return [" ".join(sentences)] if sentences else []


def _mean_by_lead(rows: Sequence[Row]) -> list[float]:
    return [statistics.fmean(values) for values in zip(*(row["by_lead"]["mae"] for row in rows), strict=True)]


def _deviation(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _spread(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.4g}"
    return f"{mean} ± {_deviation(values):.2g}" if len(values) > 1 else mean
