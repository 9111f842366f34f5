"""What VLM4ST learns on real grids in a fixed budget, beside forecasts that know next to nothing.

Flows of bikes and taxis, and temperature over the British Isles (ERA5), from `$STCORE_DATA`, cut in time into 70 % to
train on, 10 % to choose the weights on and 20 % that is scored once per run, per cell, on the grid and in the units of
the data. Budgets were chosen on the validation part (`trials`). Four questions, each a table:

- `headline`: the preset `small`, three seeds, beside the naive forecasts fitted on the same training part, and beside
  itself before training, when it is what is usual and a fitted map of the history;
- `few-shot`: three days of bikes with all of the other grids, at once or these first, or taxis by the hour first,
  beside the three days alone (chosen on the validation part like everything else, so trained to their own best) and
  beside no bikes at all; and on values as they are, from persistence on, as published: hourly taxis first, of which all
  but the head is taken, beside the three days alone;
- `adapters`: a backbone trained on the other grids and then frozen, with each kind of adapter on bikes; without
  adapters, from scratch; and without each part of the model. Values as they are, from persistence on: beside what is
  usual and a fitted start (MAE 3.598) nothing that 120 steps could find told them apart;
- `known`: the recorded series of two weeks whose naive errors are known, the preset `tiny`, three seeds, after 400
  and after 600 steps.

A run that was broken off goes on, and `seconds` breaks off by itself; a finished run is only scored again.

    python benchmarks/run.py vlm4st quality [--option "groups=headline few-shot"] [--option "sets=bike era5"]
        [--option seconds=280] [--option runs=FOLDER] [--option device=cuda]
"""

from __future__ import annotations

import json
import os
import signal
import statistics
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks.tables import markdown, provenance
from benchmarks.vlm4st.runs import (
    ABLATIONS,
    ADAPTERS,
    ALONE,
    BACKBONE,
    DAYS,
    FEW_SHOT,
    FIRST,
    HOURLY,
    KNOWN_STEPS,
    MORE_WAYS,
    PLAIN,
    SETS,
    START,
    TARGET,
    TRIALS,
    WAYS,
    Residual,
    Subject,
    adapted,
    backbone,
    few_shot,
    headline,
    hourly_taxis,
    known,
    known_file,
    plain_few_shot,
    start_alone,
)

from stcore.cli import run_config
from stcore.configuration import differences
from stcore.errors import Interrupted, UserError
from stcore.training.run import Run
from vlm4st.config import TrainConfig

Row = dict[str, Any]

GROUPS = ("trials", "headline", "few-shot", "adapters", "known")
MODEL = "vlm4st"
USUAL = "usual ("
"""Begins the name of what a model adds to, where that is no naive forecast that others use."""


@dataclass(frozen=True)
class Place:
    """Where and how runs are done."""

    folder: Path
    device: str
    quick: bool

    def brief(self, config: TrainConfig) -> TrainConfig:
        """Return a run of two steps, where things only have to be quick."""
        return replace(config, fit=replace(config.fit, max_steps=2)) if self.quick else config

    def train(self, config: TrainConfig, label: str, *, start: str = "") -> float:
        """Train or go on training, from the weights of another run where one is named; return the seconds it took."""
        from vlm4st.train import train

        folder = self.folder / label
        begun = folder.exists() and bool(Run.reopen(folder).step_files())
        if folder.exists() and not begun:
            raise UserError(f"{folder}: broken off before its first checkpoint; expected none; remove it")
        if begun and (changed := differences(run_config(TrainConfig, folder), _resolved(config, folder))):
            raise UserError(f"{folder}: another configuration: {', '.join(changed)}; expected the same; remove it")
        folder.parent.mkdir(parents=True, exist_ok=True)
        stored = run_config(TrainConfig, folder) if begun else config
        train(stored, run=None if begun else folder, resume=folder if begun else None, preset="quality",
              init_from=self.folder / start if start and not begun else None, device=self.device)  # fmt: skip
        timing = folder / "timing.jsonl"
        lines = [json.loads(line) for line in timing.read_text().splitlines()] if timing.exists() else []
        return round(sum(line.get("step_s", 0.0) for line in lines) * config.fit.log_every, 1)

    def best(self, label: str) -> float:
        """Return the smallest absolute error on the validation part of a run."""
        lines = (self.folder / label / "metrics.jsonl").read_text().splitlines()
        return min(found["val/real_mae"] for found in map(json.loads, lines) if "val/real_mae" in found)


def run(
    quick: bool,
    *,
    groups: str = " ".join(GROUPS),
    sets: str = " ".join(SETS),
    seeds: str = "0 1 2",
    models: str = "",
    seconds: str = "0",
    runs: str = "runs/quality-vlm4st",
    device: str = "cpu",
) -> Iterator[Row]:
    """Train what is not trained yet, score it, and yield a row per run; the naive forecasts once a set.

    Args:
        quick: two steps and few windows; figures then say only that everything works.
        groups: names of `GROUPS`.
        sets: names of `SETS`, for `headline`.
        seeds: of `headline` and `known`.
        models: of `few-shot`, its trials, and `adapters`, commas between them; all where empty.
        seconds: break off after so many, between two steps; start again to go on. 0 goes to the end.
        runs: folder of the runs.
        device: `cpu` or `cuda`.
    """
    unknown = [name for name in groups.split() if name not in GROUPS] + [
        name for name in sets.split() if name not in SETS
    ]
    if unknown:
        raise UserError(f"groups, sets: {unknown[0]!r}; expected some of {', '.join((*GROUPS, *SETS))}")
    numbers = [int(text) for text in seeds.split()][: 1 if quick else None]
    wanted = [name.strip() for name in models.split(",") if name.strip()]
    place, said = Place(Path(runs), device, quick), set[str]()
    with _limited(float(seconds)):
        try:
            for group in groups.split():
                for row in _of_group(group, place, sets.split(), numbers, wanted):
                    if row["case"] not in said:
                        yield row
                    said.add(row["case"])
        except Interrupted as error:
            raise UserError(f"quality: {error}; start again to go on") from error


def _of_group(
    group: str, place: Place, sets: Sequence[str], seeds: Sequence[int], wanted: Sequence[str]
) -> Iterator[Row]:
    if group == "trials":
        for name in sets:
            for number, subject in enumerate(TRIALS.get(name, ())[: 1 if place.quick else None]):
                yield _tried(name, number, subject, place)
        if TARGET in sets:
            yield from _tried_ways([how for how in WAYS if not wanted or how in wanted], place, seeds)
    elif group == "headline":
        for name in sets:
            for seed in seeds:
                yield from _scored(group, name, "small", headline(name, seed), place)
            yield from _scored(group, name, START, start_alone(name), place)
    elif group == "few-shot":
        for how in [how for how in FEW_SHOT if not wanted or how in wanted]:
            for one in (_best_run(how, seed, place) for seed in seeds):
                yield from _scored(group, TARGET, how, one.config, place, label=one.label, start=one.start)
    elif group == "adapters":
        weights = _backbone_file(place)
        for how in wanted or (*ADAPTERS, "from scratch", *ABLATIONS):
            yield from _scored(group, TARGET, how, adapted(how, weights), place)
    else:
        file = known_file(place.folder)
        for steps in KNOWN_STEPS:
            for seed in seeds:
                yield from _scored(group, "known", f"tiny, {steps} steps", known(file, steps, seed), place)


@contextmanager
def _limited(seconds: float) -> Generator[None]:
    """Ask the training to stop at its next full step after some seconds, as SIGTERM does."""
    if not seconds:
        yield
        return
    before = signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)


def _resolved(config: TrainConfig, folder: Path) -> TrainConfig:
    """Return the configuration with the grid that a run took from the data."""
    stored = run_config(TrainConfig, folder)
    if not config.fit_grid:
        return config
    return replace(config, fit_grid=stored.fit_grid, model=replace(config.model, H=stored.model.H, W=stored.model.W))


def _tried(name: str, number: int, subject: Subject, place: Place) -> Row:
    """Return what a budget comes to on the validation part, where the weights are chosen."""
    label = _label("headline", name, "small", 0) if subject == SETS[name] else f"trial-{name}-{number}"
    seconds = place.train(place.brief(headline(name, 0, subject)), label)
    return {"case": f"trial {name} {subject.words}", "group": "trials", "set": name, "words": subject.words,
            "mae": place.best(label), "train_seconds": seconds, "chosen": subject == SETS[name]}  # fmt: skip


def _tried_ways(hows: Sequence[str], place: Place, seeds: Sequence[int]) -> Iterator[Row]:
    """Yield what starts and learning rates of runs of `few-shot` come to on the validation part."""
    for how in hows:
        for seed in seeds:
            chosen = _best_run(how, seed, place).label
            for begin, rate in (*WAYS[how], *(MORE_WAYS[how] if seed == seeds[0] and not place.quick else ())):
                one = _FewShotRun(how, seed, place, rate, begin)
                seconds = one.train()
                words = f"{how}{', start linear' if begin == 'linear' else ''}, rate {rate:g}, seed {seed}"
                yield {"case": f"trial few-shot {words}", "group": "trials", "set": f"{TARGET}, {DAYS} days",
                       "words": words, "mae": place.best(one.label), "train_seconds": seconds,
                       "chosen": one.label == chosen}  # fmt: skip


@dataclass(frozen=True)
class _FewShotRun:
    """A run of `few-shot`."""

    how: str
    seed: int
    place: Place
    rate: float = 0.0
    """Learning rate; 0 is that of the preset."""
    begin: Residual = "damped"
    """What forecasts add to."""
    taxis: bool = False
    """Train on the hourly taxis, not on all others."""

    @property
    def label(self) -> str:
        linear, taxis = "-linear" * (self.begin == "linear"), "-taxis" * self.taxis
        rate = f"-{self.rate:g}" if self.rate else ""
        return _label("few-shot", TARGET, self.how, self.seed) + taxis + linear + rate

    @property
    def config(self) -> TrainConfig:
        file = hourly_taxis(self.place.folder)
        if self.how.endswith(PLAIN):
            return plain_few_shot(self.how.removesuffix(PLAIN), file, rate=self.rate, seed=self.seed)
        taxis = file if self.taxis else None
        return few_shot(self.how, rate=self.rate, seed=self.seed, start=self.begin, taxis=taxis)

    @property
    def teacher(self) -> _FewShotRun | None:
        """The run whose weights it starts from."""
        if self.how == HOURLY:
            return _FewShotRun("zero-shot", self.seed, self.place, begin=self.begin, taxis=True)
        if self.how.startswith(FIRST):
            return _FewShotRun(self.how.replace(FIRST, "zero-shot"), self.seed, self.place)
        return None

    @property
    def start(self) -> str:
        """The name of that run."""
        return self.teacher.label if self.teacher else ""

    def train(self) -> float:
        """Train it, and before that what it starts from; return the seconds."""
        if self.teacher:
            self.teacher.train()
        return self.place.train(self.place.brief(self.config), self.label, start=self.start)


def _best_run(how: str, seed: int, place: Place) -> _FewShotRun:
    """Return the run that does best on the validation part."""
    runs = [_FewShotRun(how, seed, place, rate, begin) for begin, rate in WAYS.get(how, (("damped", 0.0),))]
    for one in runs:
        one.train()
    return min(runs, key=lambda one: place.best(one.label))


def _scored(
    group: str, name: str, model: str, config: TrainConfig, place: Place, *, label: str = "", start: str = ""
) -> Iterator[Row]:
    from vlm4st.data import read_datasets, sources_of
    from vlm4st.data_options import WindowShape
    from vlm4st.evaluate import evaluate
    from vlm4st.predict import Forecaster

    config, label = place.brief(config), label or _label(group, name, model, config.seed)
    seconds = place.train(config, label, start=start)
    forecaster = Forecaster.load(place.folder / label, device=place.device)
    sources = sources_of(read_datasets(config.data), config.data, WindowShape.of(forecaster.config.model),
                         target=config.few_shot.target, few_shot=config.few_shot)  # fmt: skip
    report = evaluate(forecaster, [source for source in sources if source.evaluated][:1], limit=8 if place.quick else 0)
    found = report.datasets[0]
    size = sum(parameter.numel() for parameter in forecaster.model.parameters())
    trained = sum(parameter.numel() for parameter in forecaster.model.parameters() if parameter.requires_grad)
    about: Row = {"group": group, "set": name, "unit": found.unit, "windows": found.windows}
    yield {"case": f"{group} {name} {model} {config.seed}", "forecaster": model, "naive": False, "seed": config.seed,
           "parameters": size, "trained_parameters": trained, "train_seconds": seconds,
           "step": forecaster.facts.get("step"), **_figures(found.errors[MODEL]), **about}  # fmt: skip
    for who, errors in found.errors.items():
        if who != MODEL:
            case = f"{group} {name} {who} ({len(sources)})"
            yield {"case": case, "forecaster": who, "naive": True, **_figures(errors), **about}


def _label(group: str, name: str, model: str, seed: int) -> str:
    """Return the name of the folder of a run."""
    return f"{group}-{name}-{model}-{seed}".replace(" ", "_").replace(",", "")


def _figures(errors: Row) -> Row:
    return {"figures": errors["overall"], "by_lead": errors["per_lead_time"]}


def _backbone_file(place: Place) -> Path:
    """Train the model whose backbone is frozen, and write that backbone into a file of its own."""
    from vlm4st.convert.backbone import backbone_tensors, write_backbone
    from vlm4st.predict import Forecaster

    place.train(place.brief(backbone()), BACKBONE)
    file = place.folder / f"{BACKBONE}.safetensors"
    if not file.exists():
        write_backbone(backbone_tensors(Forecaster.load(place.folder / BACKBONE, device="cpu").model.module), file)
    return file


def table(rows: Sequence[Row]) -> str:
    """Lay the results out: a table a group and set, and what follows from each."""
    tried = [row for row in rows if row["group"] == "trials"]
    blocks = [_trial_table(tried)] if tried else []
    blocks += [
        _set_table(group, name, [row for row in rows if (row["group"], row["set"]) == (group, name)])
        for group, name in dict.fromkeys(
            (group, row["set"]) for group in GROUPS[1:] for row in rows if row["group"] == group
        )
    ]
    note = (
        "Errors per cell on the grid of the data, over all lead times, mean and standard deviation over seeds; then "
        "MAE by lead time. Naive forecasts (in italics) are fitted on the windows that are trained on."
    )
    return "\n\n".join([*blocks, f"{note} {provenance(rows)}"])


def _trial_table(rows: Sequence[Row]) -> str:
    header = ["set", "budget, seed 0", "MAE on the validation part", "seconds"]
    lines = [[row["set"], f"**{row['words']}**" if row["chosen"] else row["words"], f"{row['mae']:.4g}",
              f"{row['train_seconds']:.0f}"] for row in rows]  # fmt: skip
    return markdown(header, lines)


def _set_table(group: str, name: str, rows: Sequence[Row]) -> str:
    leads = range(len(rows[0]["by_lead"]["mae"]))
    unit = f" ({rows[0]['unit']})" if rows[0]["unit"] else ""
    header = [
        f"{group}: {name}{unit}",
        "trained of all parameters",
        "seeds",
        "MAE",
        "RMSE",
        *(f"{at + 1}" for at in leads),
    ]
    each: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row["naive"]):
        same = f"{row['forecaster']} {row['figures']}" if row["naive"] else row["forecaster"]
        each.setdefault(same, []).append(row)
    lines: list[list[str]] = []
    for mine in each.values():
        first = mine[0]  # of a naive forecast all are the same
        size = (
            "" if first["naive"] else f"{first['trained_parameters'] / 1e3:.0f} k of {first['parameters'] / 1e3:.0f} k"
        )
        shown = f"*{first['forecaster']}*" if first["naive"] else first["forecaster"]
        overall = [_spread([row["figures"][metric] for row in mine]) for metric in ("mae", "rmse")]
        by_lead = [f"{statistics.fmean(row['by_lead']['mae'][at] for row in mine):.3g}" for at in leads]
        lines.append([shown, size, "" if first["naive"] else str(len(mine)), *overall, *by_lead])
    return "\n\n".join([markdown(header, lines), *_verdicts(group, rows)])


def _verdicts(group: str, rows: Sequence[Row]) -> list[str]:
    """Say in a sentence what the table shows, also where it is not what was hoped for."""
    naive = {row["forecaster"]: row["figures"]["mae"] for row in rows if row["naive"]}
    own = {name: naive.pop(name) for name in list(naive) if name.startswith(USUAL)}
    models: dict[str, list[float]] = {}
    for row in rows:
        if not row["naive"]:
            models.setdefault(row["forecaster"], []).append(row["figures"]["mae"])
    said: list[str] = []
    if naive and group in ("headline", "known"):
        best = min(naive, key=lambda name: naive[name])
        for model, found in models.items():
            won = sum(value < naive[best] for value in found)
            said.append(
                f"{model}: {won} of {len(found)} seeds below the best naive forecast ({best}, {naive[best]:.3g})"
            )
        said += [f"What the model adds to, {name}, comes to {value:.4g} by itself" for name, value in own.items()]
    if group == "few-shot" and ALONE in models:
        for how in [how for how in ("days and others", FIRST, HOURLY, FIRST + PLAIN) if how in models]:
            alone = ALONE + PLAIN * how.endswith(PLAIN)
            change = statistics.fmean(models[how]) / statistics.fmean(models[alone]) - 1.0
            said.append(f"MAE of {how} against the {DAYS} {alone}: {change:+.2%}")
    if group == "few-shot" and "zero-shot" in models:
        said.append("zero-shot is trained on no bikes, but knows what is usual from all of their training part")
    return [". ".join(said) + "."] if said else []


def _spread(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.4g}"
    return f"{mean} ± {statistics.stdev(values):.2g}" if len(values) > 1 else mean
