"""The stages of a run, in order: each does what is missing before it, and says in a file what it was made from.

A run is the directory of its diffusion training (`checkpoints/`, `metrics.jsonl`), with a folder for every other stage:

    pretrain/<city>/    training of a source city's node models; pretrain/rows.safetensors all of them
    prompts/            prompts.safetensors
    train/              what the diffusion model was made from
    generate/           rows.safetensors of the target city
    finetune/           the same after training on the few days
    evaluate/           scores beside those of rivals, and what the trained rivals are made of
    cities/             series that were handed over in memory
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from torch import Tensor

from gpd.config import RunConfig
from gpd.data import (
    Target,
    checked_sources,
    chosen_nodes,
    digest,
    read_sources,
    read_target,
    same_channels,
    target_of,
    training_part,
)
from gpd.finetune import finetune
from gpd.generate import generate
from gpd.models.configs import NodeTrainingConfig
from gpd.node_data import table_for
from gpd.pretrain import pretrain
from gpd.prompts import Prompts, compute_prompts
from gpd.records import BEGUN, NAME, Record, digest_of
from gpd.rows import RowTable
from gpd.scoring import tail_error
from gpd.stage_files import PROMPTS, ROWS, is_first, kept_cities, run_preset, started, told, wait, write, write_config
from gpd.taking_over import NodeModels, models_to_take
from gpd.train import train_diffusion
from stcore.cli import run_config, run_of
from stcore.configuration import to_plain
from stcore.errors import Interrupted, UserError
from stcore.graphs import GraphSeries
from stcore.training.loop import FitResult
from stcore.training.ranks import make_accelerator, world_size
from stcore.training.run import Run
from stcore.training.starting import new_run, weights_file

HARMLESS = ("fit.tensorboard", "fit.workers", "pretrain.group", "finetune.group", "sampling.batch")
"""What may differ when a run goes on: it changes no result."""
Made = TypeVar("Made")


class Pipeline:
    """The stages of one run.

    Args:
        config: the whole configuration.
        run: the run directory, which is there already.
        device: `auto`, `cpu` or `cuda`.
        quiet: show no progress.
        redo: replace results of prompts, generation, fine-tuning and evaluation that were made from something else.
        sources: the source cities, where they are at hand already.
        target: the target city, where it is at hand already.
    """

    def __init__(
        self,
        config: RunConfig,
        run: Run,
        *,
        device: str = "auto",
        quiet: bool = False,
        redo: bool = False,
        sources: Sequence[GraphSeries] | None = None,
        target: GraphSeries | None = None,
    ) -> None:
        self.config, self.run, self.device, self.quiet, self.redo = config, run, device, quiet, redo
        self.preset = "custom"
        """Name that checkpoints tell."""
        self.resume: Path | None = None
        """Checkpoint of the diffusion training to go on from; none takes the last."""
        if sources is not None:
            self.sources = checked_sources(sources, config)
        if target is not None:
            self.target = target_of(target, config)

    @classmethod
    def start(
        cls,
        config: RunConfig,
        *,
        run: Path | None = None,
        preset: str = "custom",
        device: str = "auto",
        quiet: bool = False,
        sources: Sequence[GraphSeries] | None = None,
        target: GraphSeries | None = None,
        init_from: Path | None = None,
        sources_only: bool = False,
    ) -> Pipeline:
        """Read the cities, then make the run directory.

        Args:
            config: the whole configuration.
            run: folder of the run; none makes a fresh one under `runs/`.
            preset: name that a fresh folder gets.
            device: `auto`, `cpu` or `cuda`.
            quiet: show no progress.
            sources: the source cities, where they are at hand already.
            target: the target city, where it is at hand already.
            init_from: what has node models already, see `gpd.taking_over`.
            sources_only: leave the target alone; it may not be there yet.

        Raises:
            UserError: a city cannot be used, the folder is taken, or the device is not there.
        """
        found = cls(config, Run(Path()), device=device, quiet=quiet, sources=sources, target=target)
        found.look(sources_only=sources_only)
        accelerator = make_accelerator(device, config.fit.precision)
        taken: list[NodeModels] = []
        if init_from is not None:
            records = {city.name: found.record_of(city) for city in found.sources}
            taken = models_to_take(init_from, found.sources, config, records)
        found.run, found.preset = new_run(run, config, package="gpd", preset=preset, accelerator=accelerator), preset
        if is_first():
            for models in taken:
                models.write(found.run.folder / "pretrain" / models.city)
        wait()
        return found

    @classmethod
    def open(
        cls, source: Path, config: RunConfig | None = None, *, device: str = "auto", quiet: bool = False,
        redo: bool = False,
    ) -> Pipeline:  # fmt: skip
        """Open a run, or one of its checkpoints, to go on with.

        Raises:
            UserError: it is none, or a city cannot be used.
        """
        run = Run.reopen(run_of(source))
        if world_size() > 1:
            make_accelerator(device)  # the processes can wait for one another from now on
        config = config or run_config(RunConfig, run.folder)
        cities = kept_cities(run)
        found = cls(config, run, device=device, quiet=quiet, redo=redo)
        if config.data.source and set(config.data.source) <= set(cities):
            found.sources = checked_sources([cities[name] for name in config.data.source], config)
        if config.data.target in cities:
            found.target = target_of(cities[config.data.target], config)
        found.resume, found.preset = source if source.is_file() else None, run_preset(run.folder)
        return found

    def look(self, *, sources_only: bool = False) -> None:
        """Read the cities that are named, before anything is written.

        Raises:
            UserError: one cannot be used.
        """
        sources = self.sources
        if self.target_known and not sources_only:
            same_channels(sources[0], self.target.series)
            if self.target.name in [city.name for city in sources]:
                raise UserError(f"--target: {self.target.name} is a source city too; expected one that is not")

    @cached_property
    def sources(self) -> tuple[GraphSeries, ...]:
        """The source cities."""
        return read_sources(self.config)

    @cached_property
    def target(self) -> Target:
        """The target city."""
        return read_target(self.config)

    def with_target(self, series: GraphSeries | None, config: RunConfig) -> Pipeline:
        """Return the same run for another target city or other settings of later stages."""
        other = Pipeline(config, self.run, device=self.device, quiet=self.quiet, redo=self.redo)
        other.sources, other.resume, other.preset = self.sources, self.resume, self.preset
        if series is not None:
            other.target = target_of(series, config)
        elif config.data == self.config.data and "target" in self.__dict__:
            other.target = self.target
        return other

    def pretrain(self) -> RowTable:
        """Train the node models of every source city, or read them where that is done."""
        table = RowTable.concat([self._pretrain_city(city) for city in self.sources])
        record = self._pretrain_record({f"city {city.name}": digest(city) for city in self.sources})
        self._stage(record, lambda folder: write(table, folder / ROWS))
        return table

    def _pretrain_city(self, city: GraphSeries) -> RowTable:
        config = self.config

        def make(folder: Path) -> None:
            training = folder / "training"
            write(self._going_on(lambda: pretrain(
                city, config.model, config.pretrain, run=training, resume=started(training), seed=config.seed,
                device=self.device, quiet=self.quiet, nodes=chosen_nodes(city, config.data.nodes),
            )), folder / ROWS)  # fmt: skip

        folder = self.run.folder / "pretrain" / city.name
        return RowTable.read(self._stage(self.record_of(city), make, folder=folder) / ROWS)

    def record_of(self, city: GraphSeries) -> Record:
        """Return what the node models of a source city are made from."""
        return self._pretrain_record({"city": digest(city)})

    def _pretrain_record(self, inputs: Mapping[str, str]) -> Record:
        parts = {"model": plain(self.config.model, "model"), "pretrain": plain(self.config.pretrain, "pretrain")}
        config = {**parts, "nodes": self.config.data.nodes, "seed": self.config.seed}
        return Record(stage="pretrain", config=config, inputs=inputs)

    def prompts(self) -> Prompts:
        """Compute what describes each node, or read it where that is done; the target is among them if it is known."""
        folder = self.run.folder / "prompts"
        if self.imported and (folder / PROMPTS).is_file() and not (folder / NAME).is_file():
            return Prompts.read(folder / PROMPTS)
        inputs = {f"city {city.name}": digest(training_part(city, self.config)) for city in self.sources}
        few = self.target.few if self.target_known else None
        if few is not None:
            inputs[f"days of {self.target.name}"] = digest(few)
        config = {"spatial": to_plain(self.config.spatial), "temporal": to_plain(self.config.temporal)}
        record = Record(stage="prompts", config={**config, "seed": self.config.seed}, inputs=inputs)
        before = Record.read(folder)
        if before is not None and not before.lacks(record):
            return Prompts.read(folder / PROMPTS)
        parts = [training_part(city, self.config) for city in self.sources]
        found = compute_prompts(parts, few, self.config.spatial, self.config.temporal, self.config.seed)
        if before is not None:
            found = self._with_trained(found, Prompts.read(folder / PROMPTS))
        self._finish(record, folder, lambda _: write(found, folder / PROMPTS))
        return found

    def _with_trained(self, found: Prompts, before: Prompts) -> Prompts:
        """Keep the prompts of the sources that a diffusion model was trained with, to the bit.

        Raises:
            UserError: those of the sources changed with the target, as they do where all cities are embedded together.
        """
        names = [city.name for city in self.sources]
        same = set(names) <= set(before.names) and all(close(found.of(name), before.of(name)) for name in names)
        if not same and (self.run.folder / "train" / "made.json").is_file():
            raise UserError(f"{self.run.folder}: the prompts of the source cities would change, and the diffusion "
                            "model was trained with those that are there; expected the same spatial and temporal "
                            "options and, where all cities are embedded together, the target of the training; start a "
                            "new run")  # fmt: skip
        if not same:
            return found
        new = [found.of(name) for name in found.names if name not in names]
        return joined([*(before.of(name) for name in names), *new], found)

    @property
    def target_known(self) -> bool:
        """Whether there is a target city."""
        return bool(self.config.data.target) or "target" in self.__dict__

    def train(self) -> FitResult:
        """Train the diffusion model, or go on with that."""
        table, prompts, config = self.pretrain(), self.prompts(), self.config
        known = prompts.matched(table.cities, table.nodes)
        parts = {"denoiser": to_plain(config.denoiser), "diffusion": to_plain(config.diffusion),
                 "fit": plain(config.fit, "fit"), "seed": config.seed}  # fmt: skip
        inputs = {"rows": tensor_digest(table.rows), "prompts": known.digest}
        # The checkpoints say how far it is; this says what they are made from, from the start.
        self._stage(Record(stage="train", config=parts, inputs=inputs), lambda _: None)
        resume = self.resume or (self.run.folder if self.run.step_files() else None)
        if resume is None and is_first():
            self.run.cut_metrics(0)  # of a training that never came to a checkpoint
        return train_diffusion(table, known, config.denoiser, config.diffusion, config.fit, run=self.run, resume=resume,
                               seed=config.seed, preset=self.preset, device=self.device, quiet=self.quiet)  # fmt: skip

    def weights(self) -> Path:
        """Return the file of the trained diffusion model; train it to the end where that is not done."""
        if not self.imported:
            self.train()
        return weights_file(self.run.folder)

    @property
    def imported(self) -> bool:
        """Whether the diffusion model came from elsewhere, as `gpd convert` makes runs."""
        return self.run.best.is_file() and not (self.run.folder / "train" / NAME).is_file()

    def generate(self) -> RowTable:
        """Generate the rows of the target city, or read them where that is done."""
        target, config, folder = self.target, self.config, self.run.folder / "generate"
        if self.imported and (folder / ROWS).is_file() and not (folder / NAME).is_file():
            return self.table_for(RowTable.read(folder / ROWS).rows)
        weights, prompts = self.weights(), self.prompts().of(target.name)
        inputs = {"diffusion model": digest_of(weights), "prompts": prompts.digest, "days": digest(target.few)}
        parts = {"sampling": plain(config.sampling, "sampling"), "target": target.name, "days": config.data.days,
                 "seed": config.seed}  # fmt: skip

        def make(folder: Path) -> None:
            rows = generate(weights, prompts, config.sampling, config.seed, device=self.device)
            write(self.table_for(rows), folder / ROWS)

        return RowTable.read(self._stage(Record(stage="generate", config=parts, inputs=inputs), make) / ROWS)

    def table_for(self, rows: Tensor) -> RowTable:
        """Return rows of the target's nodes with the scales of its few days."""
        return table_for(self.target.few, rows, self.config.model, self.config.finetune.statistics)

    def finetune(self) -> RowTable:
        """Train the generated rows on the few days, or read the result where that is done."""
        return self.tuned(self.generate().rows, "finetune", self.config.finetune)

    def tuned(self, rows: Tensor | None, stage: str, training: NodeTrainingConfig) -> RowTable:
        """Train rows, or fresh networks where there are none, on the few days; the folder `stage` keeps it.

        With several learning rates, perhaps beside the closed form, the networks of the way that is best at the end of
        the days are kept.
        """
        config, few = self.config, self.target.few
        inputs = {"days": digest(few), **({} if rows is None else {"rows": tensor_digest(rows)})}
        parts = {"model": plain(config.model, "model"), "finetune": plain(training, "finetune"),
                 "target": self.target.name, "days": config.data.days, "seed": config.seed}  # fmt: skip

        def train(run: Path, training: NodeTrainingConfig) -> RowTable:
            return self._going_on(lambda: finetune(
                few, rows, config.model, training, run=run, resume=started(run), seed=config.seed, device=self.device,
                quiet=self.quiet, test=self.target.test if training.select_on == "test" else None,
                whole=self.target.series if training.statistics == "full" else None,
            ))  # fmt: skip

        def make(folder: Path) -> None:
            if not training.rates:
                write(train(folder / "training", training), folder / ROWS)
                return
            once = replace(training, rates=(), closed_form=False)
            found = [train(folder / f"training-{rate:g}", replace(once, learning_rate=rate)) for rate in training.rates]
            if training.closed_form:
                found.append(train(folder / "training-closed", replace(once, closed_form=True)))
            write(min(found, key=lambda table: tail_error(table, few, training, self.device)), folder / ROWS)

        return RowTable.read(self._stage(Record(stage=stage, config=parts, inputs=inputs), make) / ROWS)

    def _going_on(self, work: Callable[[], Made]) -> Made:
        """Do a part of a stage; where it is stopped, say how the whole run goes on."""
        try:
            return work()
        except Interrupted as stopped:
            done = str(stopped).partition(";")[0]
            raise Interrupted(stopped.number, f"{done}; go on with --resume {self.run.folder}") from stopped

    def _stage(self, record: Record, make: Callable[[Path], None], *, folder: Path | None = None) -> Path:
        """Do a stage unless it is done, and return its folder.

        Raises:
            UserError: it is done, from something else.
        """
        folder = folder or self.run.folder / record.stage
        found = Record.read(folder)
        changes = found.changes(record) if found is not None else []
        if changes:
            self._refuse(record, folder, changes)
        if found is None or changes:
            self._finish(record, folder, make)
        return folder

    def _refuse(self, record: Record, folder: Path, changes: Sequence[str]) -> None:
        if "/" in record.stage or (self.redo and record.stage in ("generate", "finetune")):
            return
        way = "start a new run for others"
        if record.stage in ("generate", "finetune"):
            way = f"pass --redo to make it anew, or {way}"
        raise UserError(f"{folder}: made from {'; '.join(changes[:3])}; expected the same; {way}")

    def _finish(self, record: Record, folder: Path, make: Callable[[Path], None]) -> None:
        """Make a stage, with its record last; what was begun for another record is thrown away first."""
        begun = Record.read(folder, BEGUN)
        changes = begun.changes(record) if begun is not None else []
        if changes and record.stage == "pretrain":
            self._refuse(record, folder, changes)
        stale = changes or Record.read(folder) is not None
        if is_first():
            if stale and record.stage not in ("pretrain", "prompts", "train"):
                shutil.rmtree(folder)
            with told(folder):
                folder.mkdir(parents=True, exist_ok=True)
            write_config(self.config, folder)
            record.write(folder, BEGUN)
        wait()
        make(folder)
        wait()
        if is_first():
            with told(folder / NAME):
                os.replace(folder / BEGUN, folder / NAME)
            if record.stage == "generate":
                shutil.rmtree(self.run.folder / "finetune", ignore_errors=True)
            if record.stage in ("generate", "finetune"):
                (self.run.folder / "evaluate" / NAME).unlink(missing_ok=True)


def plain(config: Any, section: str) -> dict[str, Any]:
    """Return a part of the configuration as plain values, without what changes no result."""
    return {key: value for key, value in to_plain(config).items() if f"{section}.{key}" not in HARMLESS}


def tensor_digest(tensor: Tensor) -> str:
    """Return the SHA-256 of the numbers of a tensor."""
    return hashlib.sha256(np.ascontiguousarray(tensor.detach().cpu().numpy()).tobytes()).hexdigest()


def close(one: Prompts, other: Prompts) -> bool:
    """Return whether two sets of prompts are the same but for rounding."""
    pairs = ((one.spatial, other.spatial), (one.temporal, other.temporal))
    same = one.nodes == other.nodes
    return same and all(a.shape == b.shape and np.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in pairs)


def joined(parts: Sequence[Prompts], like: Prompts) -> Prompts:
    """Return prompts of several cities one below the other, with what `like` says of how they were made."""
    return Prompts(
        spatial=np.concatenate([part.spatial for part in parts]),
        temporal=np.concatenate([part.temporal for part in parts]),
        cities=tuple(city for part in parts for city in part.cities),
        nodes=tuple(node for part in parts for node in part.nodes),
        metadata=like.metadata,
    )
