"""Does generation help a city of which a few days are known? Real cities, real rivals, every choice told.

Rows are learnt from all cities but the target, generated for it, and trained on its few days. Beside them, on the same
windows and with the same days: networks trained from scratch (at the best of three learning rates, stopped by the end
of the days), from the row of the nearest source node and from the mean row; rows that are not trained; persistence,
historical average and a ridge regression for each node. Differences are paired over nodes (Wilcoxon).

Which variant of the method is used is chosen without the target: a source city stands in for it, with as few days, and
is scored on its validation part. Then the chosen variant and the plain one are scored on the target's test part, once
for every number of days and seed. All of this is in the results.

What was done stays in its folder: a benchmark that was broken off goes on, and what is scored is not scored again.

    python benchmarks/run.py gpd quality [--option "sets=subway metr"] [--option "variants=plain deviation-day"]
        [--option roles=choice] [--option runs=FOLDER]
"""

from __future__ import annotations

import json
import shutil
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.gpd.transfer import CONTROLS, SUBJECTS, VARIANTS, quickened
from benchmarks.tables import markdown, provenance

from gpd.config import RunConfig
from gpd.data import Target, target_of
from gpd.evaluate import gather, score
from gpd.pipeline import Pipeline
from gpd.report import (
    FINETUNED,
    GENERATED,
    MEAN,
    NAIVE,
    NEAREST,
    RANDOM,
    SCRATCH,
    SCRATCH_CLOSED,
    TUNED,
    Pair,
    Report,
)
from stcore.configuration import read_toml, to_plain
from stcore.errors import UserError
from stcore.files import write_atomically
from stcore.graph_windows import split_graph
from stcore.graphs import GraphSeries

Row = dict[str, Any]
ROLES = "choice test"
SHOWN = (FINETUNED, SCRATCH, SCRATCH_CLOSED, NEAREST + TUNED, MEAN + TUNED, GENERATED, NEAREST, MEAN, RANDOM, *NAIVE)


def run(
    quick: bool,
    *,
    sets: str = " ".join(SUBJECTS),
    variants: str = " ".join(VARIANTS),
    roles: str = ROLES,
    days: str = "",
    seeds: str = "",
    runs: str = "runs/quality",
) -> Iterator[Row]:
    """Do what is not done yet, and yield a row for everything that was tried.

    Args:
        quick: small cities, one step of everything; figures then say only that everything works.
        sets: names of `SUBJECTS`.
        variants: names of `VARIANTS`; with a single one nothing has to be chosen.
        roles: `choice`, `test` or both; without the choice, all `variants` are tested.
        days: known days; those of the set by default.
        seeds: numbers; as many as the set has for its headline by default.
        runs: folder of the runs.
    """
    for name in sets.split():
        trial = _Trial(name, quick, Path(runs) / ("quick" if quick else "") / name, days, seeds)
        tried = variants.split()
        if "choice" in roles.split() and len(tried) > 1:
            rows = [trial.stand_in(variant) for variant in tried]
            yield from rows
            chosen = trial.choose(rows)
            yield chosen
            tried = list(dict.fromkeys([tried[0], chosen["chosen"]]))
        if "test" in roles.split():
            for variant in tried:
                yield from trial.target(variant)


class _Trial:
    """One set of cities."""

    def __init__(self, name: str, quick: bool, folder: Path, days: str, seeds: str) -> None:
        subject = SUBJECTS[name]
        self.name, self.quick, self.folder = name, quick, folder
        self.headline = subject.days[0]
        self.days = tuple(map(int, days.split())) or (subject.days[:1] if quick else subject.days)
        self.seeds = tuple(map(int, seeds.split())) or tuple(range(1 if quick else subject.seeds))
        self.cities = subject.cities(quick)

    def stand_in(self, variant: str) -> Row:
        """Score a variant on the validation part of the first source city, which takes the place of the target."""
        first, *others = self.cities[:-1]
        return self.scored(variant, first, others, days=self.days[0], seed=self.seeds[0], role="choice")

    def choose(self, rows: Sequence[Row]) -> Row:
        """Take the variant with the smallest error; controls are none."""
        errors = {row["variant"]: row["mae"][FINETUNED] for row in rows}
        able = {variant: error for variant, error in errors.items() if variant not in CONTROLS}
        return {"case": f"{self.name} choice", "set": self.name, "role": "chosen", "errors": errors,
                "chosen": min(able, key=lambda variant: able[variant]), "days": self.days[0]}  # fmt: skip

    def target(self, variant: str) -> Iterator[Row]:
        """Score a variant on the test part of the target."""
        for seed in self.seeds:
            for days in self.days if seed == self.seeds[0] else self.days[:1]:
                yield self.scored(variant, self.cities[-1], self.cities[:-1], days=days, seed=seed, role="test")

    def scored(
        self, variant: str, target: GraphSeries, sources: Sequence[GraphSeries], *, days: int, seed: int, role: str
    ) -> Row:
        shared = VARIANTS[variant].later_of or variant
        config = self.configuration(variant, sources, target, days, seed)
        # Node models of the sources that know averages as uncertain as the target's are others for each number of days.
        apart = f"-{days}d" if config.pretrain.average_days and days != self.headline else ""
        folder = self.folder / f"{role}-{shared}-{seed}{apart}"
        kept = folder / f"result-{variant}-{days}.json"
        about = {"case": f"{self.name} {role} {variant} {days} d seed {seed}", "set": self.name, "role": role,
                 "variant": variant, "words": VARIANTS[variant].words, "target": target.name, "days": days,
                 "seed": seed, "config": options(config)}  # fmt: skip
        if kept.exists():
            row = json.loads(kept.read_text(encoding="utf-8"))
            if row["config"] != json.loads(json.dumps(about["config"])):
                raise UserError(
                    f"{kept}: made with other options; expected the same; remove {folder} or name "
                    "another with --option runs=FOLDER"
                )
            return {**row, "words": about["words"]}
        begin = time.monotonic()
        pipeline = self.pipeline(folder, variant, config, sources, target, role)
        rows = gather(pipeline)
        row = {**about, **_figures(score(pipeline, rows)), "seconds": round(time.monotonic() - begin, 1),
               "scratch_rate": rows.tables[SCRATCH].metadata["training"]["learning_rate"]}  # fmt: skip
        write_atomically(kept, [json.dumps(row).encode()])
        return row

    def configuration(
        self, variant: str, sources: Sequence[GraphSeries], target: GraphSeries, days: int, seed: int
    ) -> RunConfig:
        config = VARIANTS[variant].config
        names = tuple(city.name for city in sources)
        config = replace(config, seed=seed, data=replace(config.data, source=names, target=target.name, days=days))
        if config.pretrain.average_days:
            config = replace(config, pretrain=replace(config.pretrain, average_days=days))
        return quickened(config) if self.quick else config

    def pipeline(
        self, folder: Path, variant: str, config: RunConfig, sources: Sequence[GraphSeries], target: GraphSeries,
        role: str,
    ) -> Pipeline:  # fmt: skip
        """Begin a run, or go on with it; another number of days shares its node models and its diffusion model."""
        if not (folder / "config.toml").exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            before = None if folder.name.endswith("d") else self.relative(folder, variant, config.seed)
            found = Pipeline.start(config, run=folder, preset="quality", device="cpu", quiet=True, sources=sources,
                                   target=target, init_from=before)  # fmt: skip
        else:
            _clear_others(folder, config)
            found = Pipeline.open(folder, config, device="cpu", quiet=True)
            found.sources = tuple(sources)
        found.target = _validated(target, config) if role == "choice" else target_of(target, config)
        return found

    def relative(self, folder: Path, variant: str, seed: int) -> Path | None:
        """Return a run that may have trained the same node models."""
        for role in ("choice", "test"):
            for other in (variant, VARIANTS[variant].nodes_of):
                found = self.folder / f"{role}-{other}-{seed}"
                if found != folder and (found / "config.toml").exists():
                    return found
        return None


def _clear_others(folder: Path, config: RunConfig) -> None:
    """Remove what was made of another number of days, or in another way; it is scored already. Rivals know themselves
    what they were made from."""
    for stage, parts in (("generate", ("sampling", "data")), ("finetune", ("finetune", "sampling", "data"))):
        path = folder / stage / "config.toml"
        if path.exists() and any(_stored(path, part) != _plain(config, part) for part in parts):
            for later in ("generate", "finetune"):
                shutil.rmtree(folder / later, ignore_errors=True)


def _stored(path: Path, part: str) -> Any:
    return read_toml(path)[part]


def _plain(config: RunConfig, part: str) -> Any:
    """Return a part of a configuration as a file gives it back."""
    return json.loads(json.dumps({key: value for key, value in to_plain(config)[part].items() if value is not None}))


def _validated(city: GraphSeries, config: RunConfig) -> Target:
    """Return a city to be scored on its validation part."""
    return replace(target_of(city, config), test=split_graph(city, config.pretrain.split).val)


def options(config: RunConfig) -> dict[str, Any]:
    """Return the options of a run that are not those by default."""
    usual = dict(_flat(to_plain(RunConfig())))
    return {name: value for name, value in _flat(to_plain(config)) if usual.get(name) != value}


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _figures(report: Report) -> Row:
    pairs = [(FINETUNED, name) for name in SHOWN if name != FINETUNED]
    pairs += [(GENERATED, name) for name in (NEAREST, MEAN, RANDOM, *NAIVE)]
    summaries = {name: errors.summary() for name, errors in report.errors.items()}
    return {
        "protocol": report.facts["protocol"],
        "unit": report.unit,
        "windows": report.facts["windows"],
        "memorised": report.facts["memorised"],
        **{metric: {name: found[metric] for name, found in summaries.items()}
           for metric in ("mae", "rmse", "mae_per_horizon")},
        "best_naive": report.best_naive(),
        "pairs": [_pair(report.pair(one, other)) for one, other in pairs if {one, other} <= set(report.errors)],
    }  # fmt: skip


def _pair(pair: Pair) -> Row:
    return {"one": pair.one, "other": pair.other, "share": pair.share, "better": pair.better, "p": pair.p,
            "verdict": pair.verdict}  # fmt: skip


def table(rows: Sequence[Row]) -> str:
    """Lay the results out: for each set what was tried, then the errors on the target and what beats what."""
    blocks: list[str] = []
    for name in dict.fromkeys(row["set"] for row in rows):
        mine = [row for row in rows if row["set"] == name]
        tried = [row for row in mine if row["role"] == "choice"]
        chosen = next((row["chosen"] for row in mine if row["role"] == "chosen"), "")
        blocks += [_choice_table(name, tried, chosen)] if tried else []
        tested = [row for row in mine if row["role"] == "test"]
        for variant in dict.fromkeys(row["variant"] for row in tested):
            found = [row for row in tested if row["variant"] == variant]
            note = "chosen" if variant == chosen else "tested too" if chosen else "tested"
            blocks.append(_test_table(name, found, f"{variant}, {note}: {found[0]['words']}"))
    note = ("MAE over all lead times on the windows of the test part, mean and standard deviation over seeds. "
            "Comparisons are paired over nodes (Wilcoxon's signed ranks, two-sided), of the first seed.")  # fmt: skip
    return "\n\n".join([*blocks, f"{note} {provenance(rows)}"])


def _choice_table(name: str, rows: Sequence[Row], chosen: str) -> str:
    header = [f"{name}: validation part of {rows[0]['target']}, {rows[0]['days']} d", "generated, fine-tuned",
              "from scratch", "generated", "mean row", "best naive"]  # fmt: skip
    lines: list[list[str]] = []
    for row in rows:
        errors = row["mae"]
        label = f"{row['variant']}: {row['words']}"
        lines.append([f"**{label}**" if row["variant"] == chosen else label,
                      *(f"{errors[key]:.4g}" for key in (FINETUNED, SCRATCH, GENERATED, MEAN)),
                      f"{errors[row['best_naive']]:.4g} ({row['best_naive']})"])  # fmt: skip
    return markdown(header, lines)


def _test_table(name: str, rows: Sequence[Row], label: str) -> str:
    by_days = {days: [row for row in rows if row["days"] == days] for days in sorted({row["days"] for row in rows})}
    counts = (f"{days} d, {len(found)} {'seeds' if len(found) > 1 else 'seed'}" for days, found in by_days.items())
    header = [f"{name} ({rows[0]['target']}, {rows[0]['unit']}), {label}", *counts]
    names = [key for key in SHOWN if all(key in row["mae"] for row in rows)]
    lines = [[key, *(_spread([row["mae"][key] for row in found]) for found in by_days.values())] for key in names]
    return "\n\n".join([markdown(header, lines), *(_verdict(days, found) for days, found in by_days.items())])


def _verdict(days: int, rows: Sequence[Row]) -> str:
    """Say against what the method wins, and where it loses to the strongest naive forecast."""
    row = rows[0]
    pairs = {(pair["one"], pair["other"]): pair for pair in row["pairs"]}
    wanted = [(FINETUNED, SCRATCH), (FINETUNED, SCRATCH_CLOSED), (FINETUNED, MEAN + TUNED),
              (FINETUNED, NEAREST + TUNED), (GENERATED, RANDOM), (FINETUNED, row["best_naive"])]  # fmt: skip
    said = [f"{one} against {other} {100 * pairs[one, other]['share']:+.1f} % (p {pairs[one, other]['p']:.1g}, "
            f"{pairs[one, other]['verdict']})" for one, other in wanted if (one, other) in pairs]  # fmt: skip
    ours, naive = row["mae_per_horizon"][FINETUNED], row["mae_per_horizon"][row["best_naive"]]
    behind = [str(lead + 1) for lead, (mine, rival) in enumerate(zip(ours, naive, strict=True)) if not mine < rival]
    where = f"is behind at lead {', '.join(behind)}" if behind else "is ahead at every lead"
    return (
        f"{days} d: {'; '.join(said)}. The strongest naive forecast is {row['best_naive']}: the method {where}. "
        f"Generated rows lie {row['memorised']:.2f} times as far from source rows as these from one another."
    )


def _spread(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.4g}"
    return f"{mean} ± {statistics.stdev(values):.2g}" if len(values) > 1 else mean
