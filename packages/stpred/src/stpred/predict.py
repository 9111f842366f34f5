"""Forecasts from a trained run: the interface people use.

>>> from stpred import Forecaster                                       # doctest: +SKIP
>>> forecaster = Forecaster.load("runs/mine")                           # doctest: +SKIP
>>> forecaster.predict(frames, horizon=20)                              # doctest: +SKIP
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stcore.cli import Outcome
from stcore.errors import UserError
from stcore.frame_forecasting import TrainedForecaster, forecast_series
from stcore.frame_scaling import Scaling
from stcore.grids import GridSeries
from stcore.training.ranks import pick_device
from stcore.training.starting import load_start
from stpred.config import TrainConfig
from stpred.data import read_parts, series_of
from stpred.models import FrameShape
from stpred.models.interface import FrameModel
from stpred.options import ForecastOptions, PredictOptions
from stpred.train import restore_model, restore_scaling


class Forecaster(TrainedForecaster):
    """A trained model with the scaling and the frames that it was trained with.

    Args:
        model: network in evaluation mode.
        scaling: from values to what the model sees.
        config: the configuration of its training.
        shape: channels, rows and columns of its frames.
        facts: everything else its checkpoint says.
    """

    def __init__(
        self, model: FrameModel, scaling: Scaling, config: TrainConfig, shape: FrameShape, facts: dict[str, Any]
    ) -> None:
        super().__init__(model, scaling, shape, history=config.data.history, batch=config.data.batch,
                         horizon=config.evaluate.horizon or config.data.horizon, facts=facts)  # fmt: skip
        self.config = config

    @classmethod
    def load(cls, source: Path | str, *, device: str = "auto") -> Forecaster:
        """Load a run (its best weights), or one of its checkpoint files.

        Raises:
            UserError: no such run, a run without a checkpoint, a damaged or foreign one.
        """
        checkpoint = load_start(Path(source))
        scaling = restore_scaling(checkpoint)
        model, config, shape = restore_model(checkpoint)
        facts = {**checkpoint.metadata, "path": str(checkpoint.path)}
        return cls(model.to(pick_device(device)), scaling, config, shape, facts)


def command(options: PredictOptions) -> Outcome:
    """Do `stpred predict`: a file of frames with their times, and pictures of the first forecast."""
    if options.out.suffix not in (".npz", ".zarr"):
        raise UserError(f"--out: {options.out}: ending {options.out.suffix!r}; expected .npz or .zarr")
    forecaster = Forecaster.load(options.run, device=options.device)
    series = series_for(options, forecaster)
    horizon = options.evaluate.horizon or forecaster.horizon
    stride = options.evaluate.stride or forecaster.config.data.stride
    forecast = forecast_series(forecaster, series, at=options.at, horizon=horizon, stride=stride)
    forecast.write(options.out)
    written = [str(options.out)]
    if options.figures:
        from stcore.frame_drawing import draw_forecast

        written += draw_forecast(forecaster, series, forecast, options.out.with_suffix(""), cmap=options.cmap)
    data = {"files": written, "forecasts": forecast.num_clips, "horizon": horizon, "units": list(series.units)}
    return Outcome(f"{forecast.num_clips:,} forecasts of {horizon} frames in {', '.join(written)}", data)


def series_for(options: ForecastOptions, forecaster: Forecaster, *, part: str = "test") -> GridSeries:
    """Read the frames a command is applied to.

    Without `--data`, or with data in three parts, `part` of them; a single source given with `--data` is taken whole.
    """
    if not options.data.source:
        parts = read_parts(forecaster.config.data, seed=forecaster.config.seed)
        series, where = series_of(parts.named()[part]), part
    else:
        from stcore.readers.grids import read_grids_or_parts

        found = read_grids_or_parts(options.data)
        series, where = found[part] if part in found else next(iter(found.values())), options.data.source[0]
    forecaster.check(series, where)
    return series
