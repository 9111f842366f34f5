"""The whole method in one line: fit on source cities, generate for a target city, fine-tune, evaluate.

>>> from gpd import GPD                                                          # doctest: +SKIP
>>> city = GPD.fit(["bay.npz", "delta.npz"]).generate("harbour.npz", days=3)     # doctest: +SKIP
>>> print(city.finetune().evaluate().text())                                     # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from gpd.config import RunConfig
from gpd.options import stage_config
from gpd.pipeline import Pipeline
from gpd.predict import Forecast, Forecaster
from gpd.rows import RowTable
from gpd.stage_files import CITIES
from stcore.errors import UserError
from stcore.graphs import GraphSeries
from stcore.training.run import Run

if TYPE_CHECKING:
    from gpd.report import Report

City = str | Path | GraphSeries
"""A file, a folder, a name of the catalogue, or a series."""


@dataclass(frozen=True)
class GPD:
    """A diffusion model that was trained on the rows of source cities.

    Args:
        pipeline: the stages of its run.
    """

    pipeline: Pipeline

    @classmethod
    def fit(
        cls,
        sources: Sequence[City] | None = None,
        *,
        config: RunConfig | None = None,
        run: Path | str | None = None,
        preset: str = "custom",
        device: str = "auto",
        quiet: bool = False,
    ) -> GPD:
        """Train the node models of all sources, then the diffusion model of their rows.

        Args:
            sources: the cities, all given by what names them or all as series; none takes those of `config`.
            config: everything else.
            run: folder of the run; none makes a fresh one under `runs/`.
            preset: name that a fresh folder gets.
            device: `auto`, `cpu` or `cuda`.
            quiet: show no progress.

        Raises:
            UserError: a city cannot be used, or the folder is taken.
        """
        config = config or RunConfig()
        series = [city for city in sources or () if isinstance(city, GraphSeries)]
        names = [city.name if isinstance(city, GraphSeries) else str(city) for city in sources or ()]
        if series and len(series) < len(names):
            raise UserError("sources: series beside names of files; expected all of them as series, or none")
        if names:
            config = replace(config, data=replace(config.data, source=tuple(names)))
        pipeline = Pipeline.start(config, run=None if run is None else Path(run), preset=preset, device=device,
                                  quiet=quiet, sources=series or None)  # fmt: skip
        for city in series:
            keep(city, pipeline.run)
        pipeline.train()
        return cls(pipeline)

    @classmethod
    def load(cls, run: Path | str, *, device: str = "auto", quiet: bool = False) -> GPD:
        """Open a run; what is not trained yet is trained when it is needed.

        Raises:
            UserError: it is none.
        """
        return cls(Pipeline.open(Path(run), stage_config(Path(run)), device=device, quiet=quiet))

    @property
    def run(self) -> Path:
        """Folder of the run."""
        return self.pipeline.run.folder

    def generate(self, target: City | None = None, *, days: int | None = None, redo: bool = False) -> CityModels:
        """Generate a node model for each node of the target city.

        Args:
            target: the city; none takes that of the configuration.
            days: days of it that are known; none takes those of the configuration.
            redo: replace rows that were generated for another city or other days.

        Raises:
            UserError: it has too few days, or rows of another city are there already.
        """
        data = self.pipeline.config.data
        series = target if isinstance(target, GraphSeries) else None
        name = data.target if target is None else series.name if series is not None else str(target)
        config = replace(self.pipeline.config, data=replace(data, target=name, days=days or data.days))
        pipeline = self.pipeline.with_target(series, config)
        pipeline.redo = redo
        pipeline.look()
        if series is not None:
            keep(series, pipeline.run)
        pipeline.generate()
        return CityModels(pipeline, "generate")


@dataclass(frozen=True)
class CityModels:
    """Node models of a target city.

    Args:
        pipeline: the stages of their run.
        stage: whether they are fine-tuned.
    """

    pipeline: Pipeline
    stage: Literal["generate", "finetune"]

    @property
    def table(self) -> RowTable:
        """One row for each node."""
        return self.pipeline.finetune() if self.stage == "finetune" else self.pipeline.generate()

    @property
    def forecaster(self) -> Forecaster:
        """What forecasts with them."""
        return Forecaster(self.table, device=self.pipeline.device)

    def finetune(self, *, days: int | None = None) -> CityModels:
        """Train the models on the few days.

        Args:
            days: days to train on; none takes those that the rows were generated from, and no others are known.

        Raises:
            UserError: other days, or they hold too few windows.
        """
        known = self.pipeline.config.data.days
        if days not in (None, known):
            raise UserError(f"days: {days}; expected {known}, as the rows were generated from; pass days={days} to "
                            "generate instead")  # fmt: skip
        self.pipeline.finetune()
        return CityModels(self.pipeline, "finetune")

    def evaluate(self) -> Report:
        """Score generated and fine-tuned models beside all rivals on the test part of the city."""
        from gpd.evaluate import evaluate

        return evaluate(self.pipeline)

    def predict(self, series: GraphSeries | None = None) -> Forecast:
        """Forecast what follows the end of a series of the city, by default of all that is known of it."""
        return self.forecaster.predict(self.pipeline.target.series if series is None else series)


def keep(series: GraphSeries, run: Run) -> None:
    """Keep a city that was handed over in memory in the run, so that the run can go on without it.

    Raises:
        UserError: it has no name to be kept under.
    """
    if not series.name or Path(series.name).name != series.name:
        raise UserError(f"{series.name!r}: the name of a city; expected one that can be the name of a file")
    folder = run.folder / CITIES
    folder.mkdir(exist_ok=True)
    series.write(folder / f"{series.name}.npz")
