"""What the benchmark of quality trains: sets, budgets, and the configuration of every run."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from stcore.errors import UserError
from vlm4st.config import FewShotConfig, TrainConfig
from vlm4st.data_options import DataConfig
from vlm4st.presets import PRESETS

SPLIT = (0.7, 0.1, 0.2)
TARGET, OTHERS = "bike", ("taxi", "era5")
DAYS = 3
"""Of the target, in `few-shot`."""
START = "small before training"
"""The run of `headline` that stays where it starts."""
FIRST = "others first"
"""The run of `few-shot` that starts from what `zero-shot` has learnt of the other grids."""
ALONE = "days alone"
"""The run of `few-shot` that all others are compared with."""
HOURLY = "hourly taxis first"
"""The run of `few-shot` that starts from what was learnt of taxis by the hour alone, and counts what lasts of their
frames beside what lasts of those of the days."""
TAUGHT = 128
"""Samples that it counts for, about as many as the days have."""
PLAIN = " on values as they are"
"""Ends the names of runs of `few-shot` on values as they are."""
BACKBONE = "backbone"
"""Run whose backbone is frozen in `adapters`."""
ADAPTERS = ("standard", "mtl", "moe", "task_adaptive")
ABLATIONS = ("no_dix", "no_prompt", "no_seq", "no_visual")
Residual = Literal["last", "damped", "linear"]
GRID = (16, 8)
"""Of models that see several sets, that of the target: others are stretched to it."""
PLACES = {
    "bike": {"source": ("nyc_bike_grid",)},
    "taxi": {"source": ("taxi_grid_40",), "start": "2000-01-03T00:00", "step": "10 minutes", "anomalies": "day"},
    "era5": {"source": ("era5_t2m_uk",), "anomalies": "day"},
}
"""The days of the taxis have no dates: a Monday is assumed for the first, and only the time of day is sure. Weather
knows no weekdays."""
KNOWN_STEPS = (400, 600)


@dataclass(frozen=True)
class Subject:
    """A set and the budget on it."""

    frames: int
    """Given, and forecast."""
    epochs: int
    batch: int
    stride: int = 1
    grid: tuple[int, int] | None = None
    """Of the model, where that of the data would take too long."""
    residual: Literal["damped", "linear"] = "linear"
    usual: Literal["mean", "median"] = "mean"
    around: int = 0
    """Moments before and after that count for what is usual."""
    pooled: bool = True
    """Draw weekdays towards their kind of day, where weekdays are told apart."""
    squared: float = 1.0
    """Weight of squared errors beside half the absolute ones."""
    rate: float = 1e-3
    patience: int = 0
    """Epochs without gain after which it is over; 0 goes to the end."""

    @property
    def words(self) -> str:
        """What the budget is spent on."""
        grid = "grid of the data" if self.grid is None else f"grid {self.grid[0]}x{self.grid[1]}"
        stride = f", every {self.stride}. window" if self.stride > 1 else ""
        usual = f", {self.usual} of {2 * self.around + 1} moments" if (self.usual, self.around) != ("mean", 0) else ""
        usual += "" if self.pooled else ", every weekday by itself"
        errors = "" if self.squared else ", absolute errors"
        rate = f", rate {self.rate:g}" if self.rate != Subject.rate else ""
        epochs = f"{self.epochs} epoch{'s' if self.epochs > 1 else ''}"
        until = f", until {self.patience} bring no gain" if self.patience else ""
        return f"{grid}, {epochs}{until}{stride}, batches of {self.batch}, start {self.residual}{usual}{errors}{rate}"


SETS = {
    "bike": Subject(frames=6, epochs=3, batch=16),
    "taxi": Subject(frames=6, epochs=2, batch=4, stride=16, usual="median", around=6, squared=0.0, rate=3e-4),
    "era5": Subject(frames=12, epochs=9, batch=8, grid=(9, 13), patience=2),
}
TRIALS = {
    "bike": (replace(SETS["bike"], pooled=False), SETS["bike"]),
    "era5": (
        Subject(frames=12, epochs=3, batch=8, grid=(17, 25), residual="damped"),
        Subject(frames=12, epochs=9, batch=8, grid=(9, 13), residual="damped"),
        Subject(frames=12, epochs=9, batch=8, grid=(9, 13)),
        Subject(frames=12, epochs=3, batch=8, grid=(9, 13), rate=3e-4),
        Subject(frames=12, epochs=3, batch=8, grid=(9, 13)),
        SETS["era5"],
    ),
    "taxi": (
        Subject(frames=6, epochs=1, batch=4, stride=8, residual="damped"),
        Subject(frames=6, epochs=1, batch=4, stride=2, grid=(20, 20), residual="damped"),
        Subject(frames=6, epochs=1, batch=4, stride=2, grid=(20, 20)),
        Subject(frames=6, epochs=1, batch=4, stride=2, grid=(20, 20), usual="median", around=6),
        replace(SETS["taxi"], stride=4, grid=(20, 20)),
        SETS["taxi"],
        replace(SETS["taxi"], rate=1e-3),
    ),
}
"""Ways to spend the five minutes, seed 0."""
STEPS = {"days and others": 200, ALONE: 200, "zero-shot": 200, FIRST: 200, HOURLY: 200, "adapters": 400, BACKBONE: 400}
"""Of each run; the best weights on the validation part are kept."""
FEW_SHOT = ("zero-shot", FIRST, HOURLY, "days and others", ALONE,
            *(f"{how}{PLAIN}" for how in ("zero-shot", FIRST, ALONE)))  # fmt: skip
"""Runs of `few-shot`."""
PLAIN_STEPS = 400
"""Of each run on values as they are, in `few-shot`."""
WAYS: dict[str, tuple[tuple[Residual, float], ...]] = {
    FIRST: (("damped", 1e-3), ("damped", 3e-3)),
    HOURLY: (("linear", 1e-3), ("linear", 3e-3)),
    ALONE: (("damped", 1e-3), ("damped", 3e-3), ("linear", 1e-3), ("linear", 3e-3)),
    FIRST + PLAIN: (("last", 3e-3), ("last", 6e-3)),
    ALONE + PLAIN: (("last", 3e-3), ("last", 6e-3)),
}
"""Starts and learning rates of runs of `few-shot`, of which that is taken which does best on the validation part; each
seed by itself, since seeds are far apart. All others, and what others teach, have the rate of the preset."""
MORE_WAYS: dict[str, tuple[tuple[Residual, float], ...]] = {
    FIRST: (("damped", 3e-4),),
    HOURLY: (("linear", 3e-4),),
    ALONE: (("damped", 3e-4),),
    FIRST + PLAIN: (("last", 1e-3),),
    ALONE + PLAIN: (("last", 1e-3),),
}
"""More of them, tried with the first seed alone."""


def headline(name: str, seed: int, subject: Subject | None = None) -> TrainConfig:
    """Return the run of `small` on one set, with the budget of the set by default."""
    subject, small = subject or SETS[name], PRESETS["small"]
    data = replace(small.data, **PLACES[name], split=SPLIT, batch=subject.batch, stride=subject.stride,
                   usual=subject.usual, usual_around=subject.around, usual_pooled=subject.pooled)  # fmt: skip
    head = replace(small.model.prediction_head, residual=subject.residual)
    model = replace(small.model, T=subject.frames, T_out=subject.frames, prediction_head=head)
    if subject.grid is not None:
        model = replace(model, H=subject.grid[0], W=subject.grid[1])
    fit = replace(small.fit, epochs=subject.epochs, patience=subject.patience, ema_decay=0.99, checkpoint_every=25)
    return replace(small, data=data, model=model, fit=fit, fit_grid=subject.grid is None, seed=seed,
                   loss=replace(small.loss, mse_weight=subject.squared, mae_weight=0.5 if subject.squared else 1.0),
                   optimiser=replace(small.optimiser, learning_rate=subject.rate))  # fmt: skip


def start_alone(name: str) -> TrainConfig:
    """Return the run of `headline` that stays where it starts: what the network adds to is then seen in the table."""
    config = headline(name, 0)
    return replace(config, optimiser=replace(config.optimiser, learning_rate=1e-12, weight_decay=0.0),
                   fit=replace(config.fit, epochs=1, max_steps=1, ema_decay=0.0))  # fmt: skip


def mixed(names: Sequence[str], steps: int, **changes: Any) -> TrainConfig:
    """Return a run of `small` on several sets, on one grid."""
    small = PRESETS["small"]
    sources = tuple(PLACES[name]["source"][0] for name in names)
    # What fits one fits all: how much of a weekday is believed follows from the data, and the time of a start is for
    # those that have none.
    usual: dict[str, Any] = {"anomalies": "week"}
    if "taxi" in names:
        usual |= {name: PLACES["taxi"][name] for name in ("start", "step")}
    head = replace(small.model.prediction_head, residual="damped")
    model = replace(small.model, H=GRID[0], W=GRID[1], prediction_head=head)
    data = replace(small.data, source=sources, split=SPLIT, batch=16, mixing="balanced", **usual)
    # An epoch of one set has a tenth of the steps of one of all of them.
    fit = replace(small.fit, epochs=1000, max_steps=steps, evaluate_every=5 if names == (TARGET,) else 1, patience=0,
                  ema_decay=0.99, checkpoint_every=25)  # fmt: skip
    return replace(small, data=data, model=model, fit=fit, fit_grid=False, **changes)


def few_shot(
    how: str, *, rate: float = 0.0, seed: int = 42, start: Residual = "damped", taxis: Path | None = None
) -> TrainConfig:
    """Return a run of `few-shot`.

    Args:
        how: `days and others`, `others first`, `hourly taxis first`, `days alone` or `zero-shot`.
        rate: learning rate; 0 takes that of the preset.
        seed: of weights and order.
        start: what forecasts add to.
        taxis: file of the hourly taxis, to train on in place of all others.
    """
    days, alone = 0.0 if how == "zero-shot" else float(DAYS), how in (ALONE, FIRST, HOURLY)
    chosen = FewShotConfig(target=PLACES[TARGET]["source"][0], days=days, others=not alone)
    names = (TARGET,) if alone else (TARGET, *OTHERS)
    config = mixed(names, STEPS[how], few_shot=chosen, seed=seed, taught_samples=TAUGHT if how == HOURLY else 0)
    head = replace(config.model.prediction_head, residual=start)
    if taxis is not None:
        source = (PLACES[TARGET]["source"][0], str(taxis))
        config = replace(config, data=replace(config.data, source=source, start="", step=""))
    optimiser = replace(config.optimiser, learning_rate=rate or config.optimiser.learning_rate)
    return replace(config, model=replace(config.model, prediction_head=head), optimiser=optimiser)


def plain_few_shot(how: str, taxis: Path, *, rate: float = 0.0, seed: int = 42) -> TrainConfig:
    """Return a run of `few-shot` on values as they are.

    Args:
        how: `zero-shot`, of the taxis alone; `others first`, all but the head of that; or `days alone`.
        taxis: file of the hourly taxis.
        rate: learning rate; 0 takes that of the preset.
        seed: of weights and order.
    """
    config = few_shot(how, rate=rate, seed=seed, taxis=taxis if how == "zero-shot" else None)
    config = _from_persistence(config, steps=PLAIN_STEPS)
    return replace(config, fit=replace(config.fit, evaluate_every=5 if how != "zero-shot" else 2),
                   fresh_head=how == FIRST)  # fmt: skip


def backbone() -> TrainConfig:
    """Return the run whose backbone is frozen afterwards; its text layers are trained too, for `no_visual`."""
    return _with_text(_from_persistence(mixed(OTHERS, STEPS[BACKBONE])))


def _from_persistence(config: TrainConfig, *, steps: int = 0) -> TrainConfig:
    """Return a run on values as they are; of some steps, where a number is given."""
    head = replace(config.model.prediction_head, residual="last")
    data = replace(config.data, anomalies="none", usual="mean")
    fit = replace(config.fit, max_steps=steps or config.fit.max_steps)
    return replace(config, data=data, fit=fit, model=replace(config.model, prediction_head=head))


def hourly_taxis(folder: Path) -> Path:
    """Write the taxis by the hour, as the bikes are, and return where."""
    from stcore.grids import GridSeries
    from stcore.readers.grids import read_grid_parts

    file = folder / "taxis_by_the_hour.npz"
    if not file.exists():
        parts = read_grid_parts(headline("taxi", 0).data).named().values()
        frames = np.concatenate([part.frames(range(part.num_frames)) for part in parts])
        times = np.concatenate([part.times for part in parts if part.times is not None])
        hours = len(frames) // 6
        summed = frames[: 6 * hours].reshape(hours, 6, *frames.shape[1:]).sum(axis=1)
        folder.mkdir(parents=True, exist_ok=True)
        GridSeries(values=summed.astype(np.float32), times=times[: 6 * hours : 6]).write(file)
    return file


def _with_text(config: TrainConfig) -> TrainConfig:
    sizes = replace(config.model.vlm, text_path="text_then_fusion", keep_text_layers=True)
    return replace(config, model=replace(config.model, vlm=sizes))


def adapted(how: str, weights: Path) -> TrainConfig:
    """Return a run of `adapters`: a kind of adapter, `from scratch`, or an ablation."""
    config = mixed((TARGET,), STEPS["adapters"])
    if how == "from scratch":
        return _with_text(_from_persistence(config))
    kind = how if how in ADAPTERS else "standard"
    chosen = _with_text(_from_persistence(config))
    lora = replace(chosen.model.vlm, use_lora=True, lora_type=kind, pretrained_path=str(weights))
    chosen = replace(chosen, model=replace(chosen.model, vlm=lora))
    return replace(chosen, ablation=how) if how in ABLATIONS else chosen  # type: ignore[arg-type]


def known(file: Path, steps: int, seed: int) -> TrainConfig:
    """Return the run of `tiny` on the recorded series."""
    tiny = PRESETS["tiny"]
    data = DataConfig(source=(str(file),), batch=16, cache=str(file.parent / "cache"))
    fit = replace(tiny.fit, epochs=1000, max_steps=steps, evaluate_every=10, patience=0, checkpoint_every=50)
    return replace(tiny, data=data, fit=fit, fit_grid=True, seed=seed)


def known_file(folder: Path) -> Path:
    """Write the recorded series with its own windows and parts, as a file of UniST, and return where."""
    from safetensors.numpy import load_file

    root = os.environ.get("STCORE_REFERENCE")
    if not root:
        raise UserError("STCORE_REFERENCE: not set; expected the folder of the recordings, for the group `known`")
    place = Path(root) / "vlm4st" / "synthetic_series"
    series = load_file(place.with_suffix(".safetensors"))["series"]
    meta = json.loads(place.with_suffix(".json").read_text())
    tree: dict[str, Any] = {"timestamps": {}}
    for part in ("train", "val", "test"):
        rows = np.arange(*meta[f"{part}_windows"])[:, None] + np.arange(meta["window"])
        tree[f"X_{part}"] = [series[rows].astype(float).tolist(), []]
        tree["timestamps"][part] = np.stack([rows // 48 % 7, rows % 48], axis=-1).tolist()
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "known_short.json"
    file.write_text(json.dumps(tree), encoding="utf-8")
    return file
