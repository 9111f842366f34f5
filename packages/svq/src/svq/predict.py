"""Forecasts from a trained run: the interface people use.

>>> from svq import Forecaster                                          # doctest: +SKIP
>>> forecaster = Forecaster.load("runs/mine")                           # doctest: +SKIP
>>> forecaster.predict(frames, horizon=24)                              # doctest: +SKIP
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stcore.baselines_grids import Climatology
from stcore.cli import Outcome
from stcore.coordinates import in_common_order, in_file_order
from stcore.errors import UserError
from stcore.frame_forecasting import TrainedForecaster, forecast_series
from stcore.frame_scaling import Scaling
from stcore.grids import GridSeries
from stcore.readers.grids import read_grids_or_parts
from stcore.readers.netcdf_writing import write_netcdf
from stcore.training.ranks import pick_device
from stcore.training.starting import load_start
from svq.config import TrainConfig
from svq.data import paper_set, read_parts
from svq.models import FrameShape
from svq.options import ForecastOptions, PredictOptions
from svq.train import restore_model, restore_scaling, restore_usual

if TYPE_CHECKING:
    from svq.models.simvp import SimVP  # brings timm, which a look at the data need not wait for

ENDINGS = (".nc", ".npz", ".zarr")


class Forecaster(TrainedForecaster):
    """A trained model with the scaling and the frames that it was trained with.

    Args:
        model: network in evaluation mode.
        scaling: from values to what the model sees.
        config: the configuration of its training.
        shape: channels, rows and columns of its frames.
        facts: everything else its checkpoint says.
        usual: the usual frames that training took off, if it did.
    """

    def __init__(
        self, model: SimVP, scaling: Scaling, config: TrainConfig, shape: FrameShape, facts: dict[str, Any],
        usual: Climatology | None = None,
    ) -> None:  # fmt: skip
        super().__init__(model, scaling, shape, history=config.data.history, batch=config.data.batch,
                         horizon=config.evaluate.horizon or config.data.horizon, facts=facts, usual=usual)  # fmt: skip
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
        return cls(model.to(pick_device(device)), scaling, config, shape, facts, restore_usual(checkpoint))

    def ordered(self, series: GridSeries) -> GridSeries:
        """Return a series with rows and columns in the order of training (`data.order`)."""
        return in_common_order(series) if self.config.data.order == "common" else series

    def with_scaling(self, scaling: Scaling) -> Forecaster:
        """Return the same model behind another scaling."""
        return Forecaster(self.model, scaling, self.config, FrameShape(*self.shape), self.facts, self.usual)


def command(options: PredictOptions) -> Outcome:
    """Do `svq predict`: a file of frames with their times and coordinates, and pictures of the first forecast."""
    if options.out.suffix not in ENDINGS:
        raise UserError(f"--out: {options.out}: ending {options.out.suffix!r}; expected {', '.join(ENDINGS)}")
    forecaster = Forecaster.load(options.run, device=options.device)
    if paper_set(forecaster.config.data) is not None and (forecaster.config.data.history == 4):
        raise UserError(f"{options.run}: trained on frames that lie unevenly in time (data.protocol paper); expected a "
                        "run of data.protocol strict to forecast with")  # fmt: skip
    series = series_for(options, forecaster)
    horizon = options.evaluate.horizon or forecaster.horizon
    stride = options.evaluate.stride or forecaster.config.data.stride
    forecast = forecast_series(forecaster, series, at=options.at, horizon=horizon, stride=stride)
    write_forecast(_as_in_file(forecast, series), options.out)
    written = [str(options.out)]
    if options.figures:
        from svq.drawing import draw_forecast

        written += draw_forecast(forecaster, series, forecast, options.out.with_suffix(""), cmap=options.cmap)
    data = {"files": written, "forecasts": forecast.num_clips, "horizon": horizon, "units": list(series.units)}
    return Outcome(f"{forecast.num_clips:,} forecasts of {horizon} frames in {', '.join(written)}", data)


def write_forecast(forecast: GridSeries, path: Path) -> None:
    """Write a forecast as .nc, .npz or .zarr.

    Raises:
        UserError: it cannot be written there.
    """
    if path.suffix == ".nc":
        write_netcdf(forecast, path)
    else:
        forecast.write(path)


def series_for(options: ForecastOptions, forecaster: Forecaster, *, part: str = "test") -> GridSeries:
    """Read the frames a command is applied to.

    Without `--data`, or with data in three parts, `part` of them; a single source given with `--data` is taken whole.
    """
    if not options.data.source:
        series, where = read_parts(forecaster.config).named()[part], part
    else:
        found = read_grids_or_parts(options.data)
        series, where = found[part] if part in found else next(iter(found.values())), options.data.source[0]
    forecaster.check(series, where)
    return series


def _as_in_file(forecast: GridSeries, series: GridSeries) -> GridSeries:
    """Return a forecast with rows and columns in the order that the file of its history has."""
    turned = series.turned
    if turned is None:
        return forecast
    frames = in_file_order(forecast.frames(range(forecast.num_frames)), turned)
    return replace(forecast, values=frames, y=turned.y, x=turned.x)
