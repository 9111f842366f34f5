"""`vlm4st few-shot`: for each target a run of its own, trained on the other data sets and little or nothing of it.

A folder holds `<mode>/<target>/`, each a run, `<mode>/<target>_results.json`, and `<mode>/summary.json` with means.
Data sets are read once. A folder that was interrupted goes on with --resume: targets that are done stay.

Source: VLM4ST, `few_shot.py`. Its weights are chosen on the target's validation part also in the zero-shot setting,
which reports here say; `--few-shot.select-on sources` sees nothing of the target but its range.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from stcore.cli import Outcome, refuse_changes, run_config
from stcore.errors import UserError
from stcore.files import to_json, write_atomically
from stcore.training.ranks import make_accelerator
from stcore.training.run import Run
from stcore.training.starting import new_run
from vlm4st.config import TrainConfig
from vlm4st.data import Dataset, read_datasets, sources_of
from vlm4st.data_options import WindowShape, dataset_name
from vlm4st.evaluate import DatasetReport, evaluate
from vlm4st.options import FewShotOptions
from vlm4st.predict import Forecaster
from vlm4st.presets import DEFAULT_PRESET
from vlm4st.train import HARMLESS, check_backbone_file, device_of, train, with_grid

REMARKS = {
    "target": "weights chosen on the target's validation part",
    "sources": "weights chosen on the validation parts of the other data sets",
}


USUAL_REMARK = "its usual frames are those of its whole training part"


def remark_on(config: TrainConfig) -> str:
    """Return what else than samples to train on a run knows of a target."""
    said = REMARKS[config.few_shot.select_on]
    known = config.few_shot.mode == "zero_shot" and config.data.anomalies != "none"
    return f"{said}; {USUAL_REMARK}" if known else said


@dataclass(frozen=True)
class TargetResult:
    """How one target was forecast."""

    target: str
    run: Path
    best_epoch: int
    best_val_loss: float
    report: DatasetReport

    def data(self, config: TrainConfig) -> dict[str, Any]:
        """Return the result as JSON values, under the original's names and ours."""
        return {
            "target_dataset": self.target, "mode": config.few_shot.mode, "target_ratio": config.few_shot.ratio,
            "days": config.few_shot.days, "selection": config.few_shot.selection, "others": config.few_shot.others,
            "select_on": config.few_shot.select_on, "best_epoch": self.best_epoch, "best_val_loss": self.best_val_loss,
            "run": str(self.run), "test_metrics": self.report.data(),
        }  # fmt: skip


def few_shot(
    config: TrainConfig,
    targets: Sequence[str] = (),
    *,
    datasets: Sequence[Dataset] | None = None,
    run: Path | None = None,
    resume: Path | None = None,
    init_from: Path | None = None,
    preset: str = "custom",
    device: str = "auto",
    quiet: bool = False,
    limit: int = 0,
) -> tuple[Run, list[dict[str, Any]]]:
    """Train and test for each target.

    Args:
        config: the whole configuration; `config.few_shot` says how much of a target is seen.
        targets: names of data sets, or their files; none takes all.
        datasets: the data, when they are at hand already.
        run: folder for everything; None makes a fresh one under `runs/`.
        resume: such a folder to go on with.
        init_from: a run or checkpoint whose weights every target starts from.
        preset: name that a fresh folder gets.
        device: `auto`, `cpu` or `cuda`.
        quiet: show no progress.
        limit: windows to test at most, spread evenly; 0 tests all.

    Returns:
        The folder, and the result of each target.

    Raises:
        UserError: data or configuration cannot be used, a target is none of the data sets.
    """
    check_backbone_file(config)
    known = list(datasets) if datasets is not None else read_datasets(config.data, seed=config.seed)
    names = names_of(targets, [dataset.name for dataset in known])
    if len(known) < 2 and config.few_shot.others:
        raise UserError(f"few-shot: one data set, {known[0].name}; expected others beside the target; pass them with "
                        "--data, or train on the target alone with --few-shot.no-others")  # fmt: skip
    config = with_grid(config, known)
    if resume is not None:
        folder = Run.reopen(resume)
    else:
        accelerator = make_accelerator(device, config.fit.precision)
        folder = new_run(run, config, package="vlm4st", preset=f"few-shot-{preset}", accelerator=accelerator)
    place = folder.folder / config.few_shot.mode
    found: list[dict[str, Any]] = []
    for name in names:
        file = place / f"{name}_results.json"
        if not file.exists():
            result = _one(replace(config, few_shot=replace(config.few_shot, target=name)), known, place / name,
                          init_from=init_from, preset=preset, device=device, quiet=quiet, limit=limit)  # fmt: skip
            write_atomically(file, [to_json(result.data(config)).encode()])
        found.append(json.loads(file.read_text()))
    write_atomically(place / "summary.json", [to_json(summary(found)).encode()])
    return folder, found


def _one(
    config: TrainConfig,
    datasets: Sequence[Dataset],
    place: Path,
    *,
    init_from: Path | None,
    preset: str,
    device: str,
    quiet: bool,
    limit: int,
) -> TargetResult:
    """Train for one target, or go on with it, and test on it."""
    name = config.few_shot.target
    sources = sources_of(datasets, config.data, WindowShape.of(config.model), target=name, few_shot=config.few_shot)
    begun = place.is_dir() and bool(Run.reopen(place).step_files())
    if place.is_dir() and not begun:
        _clear(place)
    result = train(config, sources=sources, run=None if begun else place, resume=place if begun else None,
                   init_from=None if begun else init_from, preset=preset, device=device, quiet=quiet)  # fmt: skip
    forecaster = Forecaster.load(place, device=device)
    target = next(source for source in sources if source.name == name)
    report = evaluate(forecaster, [target], part="test", limit=limit)
    best = json_lines_best(result.run)
    return TargetResult(name, place, *best, report.datasets[0])


def _clear(place: Path) -> None:
    """Remove a run that was interrupted before its first checkpoint."""
    import shutil

    shutil.rmtree(place)


def json_lines_best(run: Run) -> tuple[int, float]:
    """Return epoch and loss of the evaluation whose weights were kept."""
    best, epoch, now = float("inf"), 0, 0
    for line in run.metrics_file.read_text().splitlines():
        entry = json.loads(line)
        now = entry.get("epoch", now)
        if (loss := entry.get("val/loss")) is not None and loss < best:
            best, epoch = loss, now
    return epoch, best


def names_of(targets: Sequence[str], known: Sequence[str]) -> list[str]:
    """Return the targets by name, all known data sets where none is given.

    Raises:
        UserError: there is none of that name.
    """
    names = [target if target in known else dataset_name(target) for target in targets]
    for name, target in zip(names, targets, strict=True):
        if name not in known:
            raise UserError(f"--target: {target}; expected one of the data sets {', '.join(known)}")
    return list(dict.fromkeys(names)) or list(known)


def summary(results: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return MAE and RMSE of each target, and their mean over targets."""
    tables = {result["target_dataset"]: result["test_metrics"]["errors"] for result in results}
    rows = {who: {key: value["overall"] for key, value in table.items()} for who, table in tables.items()}
    average = {
        model: {metric: sum(row[model][metric] for row in rows.values()) / len(rows) for metric in ("mae", "rmse")}
        for model in next(iter(rows.values()))
    }
    return {"targets": rows, "Average": average}


def command(options: FewShotOptions) -> Outcome:
    """Do `vlm4st few-shot`."""
    config, targets = resolve(options)
    if options.resume is not None:
        refuse_changes(run_config(TrainConfig, options.resume), config, harmless=HARMLESS)
    preset = options.preset or (DEFAULT_PRESET if options.config is None else "custom")
    run, results = few_shot(
        config, targets, run=options.run, resume=options.resume, init_from=options.init_from, preset=preset,
        device=device_of(options), quiet=options.quiet, limit=options.limit,
    )  # fmt: skip
    found = summary(results)
    text = table(found, mode=config.few_shot.mode, remark=remark_on(config))
    data = {"run": str(run.folder), "mode": config.few_shot.mode, "select_on": config.few_shot.select_on}
    return Outcome(f"{text}\n\nrun: {run.folder}", {**data, "results": results, **found})


def resolve(options: FewShotOptions) -> tuple[TrainConfig, tuple[str, ...]]:
    """Return configuration and targets with the command's own flags in place.

    Raises:
        UserError: share and days, or the two words for one thing, at once.
    """
    config, targets = options.settings, options.target or options.target_dataset
    ratio = options.target_ratio if options.ratio is None else options.ratio
    if options.ratio is not None and options.target_ratio is not None and options.ratio != options.target_ratio:
        raise UserError(f"--ratio: {options.ratio} beside --target-ratio {options.target_ratio}; expected one of them")
    if ratio is not None and options.days:
        raise UserError(f"--days: {options.days} beside a ratio of {ratio}; expected one of them")
    chosen = config.few_shot
    if ratio is not None:
        chosen = replace(chosen, ratio=ratio, days=0.0)
    if options.days is not None:
        chosen = replace(chosen, days=options.days, ratio=0.0)
    known = {dataset_name(source) for source in config.data.source}
    new = tuple(target for target in targets if dataset_name(target) not in known)
    data = replace(config.data, source=(*config.data.source, *new))
    return replace(config, few_shot=chosen, data=data), targets


def table(found: dict[str, Any], *, mode: str, remark: str) -> str:
    """Return MAE and RMSE of all targets for a terminal."""
    lines = [f"{mode}: {remark}"]
    for metric in ("mae", "rmse"):
        rows = {**found["targets"], "Average": found["Average"]}
        who = list(found["Average"])
        width = max(map(len, rows)) + len(metric) + 3
        lines += ["", f"{metric} per cell".ljust(width) + "  ".join(name.rjust(12) for name in who)]
        lines += [name.ljust(width) + "  ".join(f"{row[one][metric]:.4g}".rjust(max(12, len(one))) for one in who)
                  for name, row in rows.items()]  # fmt: skip
    return "\n".join(lines)
