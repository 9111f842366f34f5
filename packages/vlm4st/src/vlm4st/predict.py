"""Forecasts from a trained run: the interface people use.

>>> from vlm4st import Forecaster                                       # doctest: +SKIP
>>> forecaster = Forecaster.load("runs/mine")                           # doctest: +SKIP
>>> forecaster.predict(frames, moments)                                 # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from stcore.cli import Outcome
from stcore.configuration import from_plain
from stcore.errors import UserError
from stcore.frame_forecasting import TrainedForecaster, forecast_series
from stcore.frame_scaling import Scaling
from stcore.grids import GridSeries
from stcore.readers.grids import read_grids_or_parts
from stcore.readers.netcdf_writing import write_netcdf
from stcore.readers.unist import is_unist
from stcore.sampling import Indices, in_batches
from stcore.training.checkpoint import Checkpoint
from stcore.training.ranks import pick_device
from stcore.training.starting import load_start, load_weights, require_package
from stcore.windows import Windows
from vlm4st.backbone import FILE, Reference, check_frozen, restore_frozen, run_folder
from vlm4st.config import TrainConfig
from vlm4st.data import Dataset, Source, read_datasets, sources_of
from vlm4st.data_options import DataConfig, WindowShape, dataset_name
from vlm4st.objective import Made, Objective, carried
from vlm4st.options import ForecastOptions, PredictOptions
from vlm4st.resizing import Resizing
from vlm4st.space import Clocks, Space
from vlm4st.timestamps import as_clock, clock_of_moments, extended, slots_of
from vlm4st.train import check_backbone_file, make_model
from vlm4st.validation import evaluation_batch

if TYPE_CHECKING:
    from vlm4st.models.vlm4st import VLM4ST  # brings timm and transformers, which a look at the data need not wait for

ENDINGS = (".nc", ".npz", ".zarr")


@dataclass(frozen=True, eq=False, kw_only=True)
class Known:
    """What a checkpoint knows of a data set."""

    name: str
    space: Space
    channels: tuple[str, ...] = ("0",)
    units: tuple[str, ...] = ()
    timed: bool = True

    @property
    def native(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.space.resizing.native


class Forecaster:
    """A trained model with the scales and grids of the data sets that it was trained with.

    Args:
        model: the network, with what training calls around it.
        config: the configuration of its training.
        known: data sets, by name.
        facts: everything else its checkpoint says.
    """

    def __init__(
        self, model: Objective, config: TrainConfig, known: Mapping[str, Known], facts: Mapping[str, Any]
    ) -> None:
        self.model, self.config, self.known, self.facts = model.eval(), config, dict(known), dict(facts)
        self.history, self.horizon = config.model.T, config.model.T_out
        self.batch = evaluation_batch(config, len(self.known))
        self.device = next(model.parameters()).device

    @classmethod
    def load(cls, source: Path | str, *, backbone: Path | str | None = None, device: str = "auto") -> Forecaster:
        """Load a run (its best weights), or one of its checkpoint files.

        Args:
            source: the run, or the file.
            backbone: weights of the frozen backbone, where they are no longer where they were in training.
            device: `auto`, `cpu` or `cuda`.

        Raises:
            UserError: no such run, a run without a checkpoint, a damaged or foreign one, another backbone.
        """
        checkpoint = load_start(Path(source))
        model, config = restore_model(checkpoint, None if backbone is None else Path(backbone))
        facts = {**checkpoint.metadata, "path": str(checkpoint.path)}
        return cls(model.to(pick_device(device)), config, known_of(checkpoint), facts)

    def predict(self, values: Any, timestamps: Any = None, *, dataset: str = "") -> NDArray[np.float32]:
        """Forecast the frames that follow.

        Args:
            values: the past in the units of the data: an array or tensor (time, height, width), or with a leading batch
                axis; rows and columns as in training. The last `history` frames are used. Or a series, whose last
                frames are, all channels.
            timestamps: moment of each frame (time,) or (batch, time), as datetime64 or text, or pairs of weekday and
                half hour behind these axes; not needed of a series, nor by a model that was trained without.
            dataset: name of the data set that these are of, where the model knows several.

        Returns:
            The forecast in the units of the data, with the axes of `values` (of a series: time, channel, row, column).

        Raises:
            UserError: another grid than the data set's, too few frames, values that are not finite, no timestamps.
        """
        known = self.dataset(dataset)
        if isinstance(values, GridSeries):
            self._require_grid(known, (values.height, values.width), "frames")
            ahead = forecast_series(self.of(known), values, at="last", horizon=self.horizon, stride=1)
            return ahead.frames(range(ahead.num_frames - self.horizon, ahead.num_frames))
        given = np.asarray(values.detach().cpu() if isinstance(values, Tensor) else values)
        batch = given[None] if given.ndim == 3 else given
        if batch.ndim != 4 or batch.dtype.kind not in "iufb":
            raise UserError(f"frames: {given.dtype} of shape {given.shape}; expected numbers (time, height, width) or "
                            "(batch, time, height, width)")  # fmt: skip
        self._require_grid(known, batch.shape[2:], "frames")
        if batch.shape[1] < self.history:
            raise UserError(f"frames: {batch.shape[1]} of them; expected at least {self.history}, the model's history")
        past = batch[:, -self.history :].astype(np.float32)
        if not np.isfinite(past).all():
            raise UserError("frames: values that are not finite; expected numbers")
        clock = self._clock(timestamps, known, len(batch), batch.shape[1])
        parts = [self.forecast(torch.from_numpy(past[some]), None if clock is None else clock[some], known)
                 for some in in_batches(np.arange(len(past)), self.batch)]  # fmt: skip
        forecast = torch.cat(parts).numpy()
        return forecast[0] if given.ndim == 3 else forecast

    def _clock(self, timestamps: Any, known: Known, batch: int, frames: int) -> Clocks:
        if not known.timed:
            return None
        if timestamps is None:
            raise UserError("timestamps: none; expected the moment of each frame, which the model was trained with")
        clock = as_clock(timestamps)
        clock = np.broadcast_to(clock, (batch, *clock.shape)) if clock.ndim == 2 else clock
        if clock.shape != (batch, frames, 2):
            raise UserError(f"timestamps: of shape {clock.shape[:-1]}; expected ({frames},) or ({batch}, {frames}), "
                            "one for each frame")  # fmt: skip
        return clock[:, -self.history :]

    @torch.inference_mode()
    def forecast(
        self,
        history: Float[Tensor, "sample time row column"],
        clock: Clocks,
        known: Known,
        channel: Tensor | None = None,
    ) -> Float[Tensor, "sample horizon row column"]:
        """Forecast samples, from and to units and cells of the data, on the CPU; missing cells are NaN.

        Args:
            history: what is known.
            clock: weekday and second of the day of each frame; None for a model without times.
            known: the data set.
            channel: of each sample; None for the first.
        """
        which = torch.zeros(len(history), dtype=torch.int64) if channel is None else channel
        scaled, _ = known.space.to_model(history, which, clock)
        made = self.run(scaled, None if clock is None else torch.from_numpy(slots_of(clock)))
        ahead = None if clock is None else extended(clock, self.history + self.horizon)[:, self.history :]
        finer = known.space.finer(history, which, clock)
        return known.space.to_native(made.forecast.float().cpu(), which, ahead, finer=carried(self.model, finer),
                                     clamp=self.config.evaluate.clamp)  # fmt: skip

    def run(self, scaled: Tensor, slots: Tensor | None, target: Tensor | None = None, *, watch: bool = False) -> Made:
        """Run the network on its own scale and grid."""
        moved = [None if value is None else value.to(self.device) for value in (scaled, slots, target)]
        given, stamps, truth = moved
        assert given is not None
        return self.model(given, stamps, truth, watch=watch)

    def dataset(self, name: str = "", *, native: tuple[int, int] | None = None) -> Known:
        """Return a data set of the training: the one of that name, or the only one there is.

        Raises:
            UserError: there is none of that name, or there are several and none is named.
        """
        if name in self.known:
            return self.known[name]
        fitting = [one for one in self.known.values() if native is None or one.native == native]
        if not name and len(fitting) == 1:
            return fitting[0]
        said = f"{name!r:.60}" if name else "none named"
        raise UserError(f"data set: {said}; expected one of those of the training, {', '.join(self.known)}")

    def of(self, known: Known) -> SeriesForecaster:
        """Return a forecaster of series of one data set."""
        return SeriesForecaster(self, known)

    def as_trained(self, source: Source, *, name: str = "") -> tuple[Source, str]:
        """Return a source on the scale of the training, and what there is to say about it.

        A source of the training's data keeps its scale; another one keeps its own, of its training part.
        """
        found = self.known.get(name or source.name)
        if found is None and not name and len(self.known) == 1:
            only = next(iter(self.known.values()))
            found = only if only.native == source.native and only.channels == source.channels else None
        if found is None:
            return source, f"{source.name}: not of the training; scaled by its own training part"
        self._require_grid(found, source.native, source.where)
        if len(found.space.low) != len(source.channels):
            raise UserError(f"{source.where}: {len(source.channels)} channels; expected {len(found.space.low)}, as in "
                            "training")  # fmt: skip
        return replace(source, space=found.space), ""

    def _require_grid(self, known: Known, native: tuple[int, ...], where: str) -> None:
        if tuple(native) != known.native:
            raise UserError(f"{where}: {native[0]} x {native[1]} (rows x columns); expected {known.native[0]} x "
                            f"{known.native[1]}, the grid of {known.name} in training")  # fmt: skip


class SeriesForecaster(TrainedForecaster):
    """Forecasts series of one data set, all channels of it, with its timestamps."""

    def __init__(self, forecaster: Forecaster, known: Known) -> None:
        low, span = (torch.from_numpy(values).float()[:, None, None] for values in (known.space.low, known.space.span))
        super().__init__(forecaster.model, Scaling(low, span), (len(low), *known.native), history=forecaster.history,
                         horizon=forecaster.horizon, batch=max(1, forecaster.batch // len(low)),
                         facts=forecaster.facts)  # fmt: skip
        self._forecaster, self.known = forecaster, known

    def stream(
        self, windows: Windows, horizon: int | None = None, *, ids: Indices | None = None
    ) -> Iterator[tuple[Indices, Tensor, Tensor, Tensor]]:
        """Yield, batch by batch, numbers of windows, their histories, what came (if the windows say), and forecasts."""
        if horizon not in (None, self.horizon):
            raise UserError(f"horizon: {horizon}; expected {self.horizon}, what the model was trained to forecast")
        chosen = np.arange(len(windows), dtype=np.int64) if ids is None else ids
        for some in in_batches(chosen, self.batch):
            history, future = (torch.from_numpy(np.ascontiguousarray(part)) for part in windows.load(some))
            yield some, history, future, self._forecast(history, windows.times(some))

    def _forecast(self, history: Float[Tensor, "window time channel row column"], times: Any) -> Tensor:
        count, channels = history.shape[0], history.shape[2]
        clock = None
        if self.known.timed:
            if times is None:
                raise UserError("frames without times; expected some, which the model was trained with; pass "
                                "--data.start 2024-01-01T00:00 and --data.step '30 minutes'")  # fmt: skip
            clock = np.repeat(clock_of_moments(times[:, : self.history]), channels, axis=0)
        samples = history.transpose(1, 2).reshape(-1, history.shape[1], *history.shape[3:])
        which = torch.arange(channels).repeat(count)
        forecast = self._forecaster.forecast(samples, clock, self.known, which)
        return forecast.reshape(count, channels, *forecast.shape[1:]).transpose(1, 2)


def known_of(checkpoint: Checkpoint) -> dict[str, Known]:
    """Return the data sets that a checkpoint knows, by name."""
    constants = checkpoint.part("constants")
    found: dict[str, Known] = {}
    for number, facts in enumerate(checkpoint.metadata["sources"]):
        space = Space.restore(constants, str(number), facts["space"])
        found[facts["name"]] = Known(name=facts["name"], space=space, channels=tuple(facts["channels"]),
                                     units=tuple(facts["units"]), timed=bool(facts["timed"]))  # fmt: skip
    return found


def restore_model(checkpoint: Checkpoint, backbone: Path | None = None) -> tuple[Objective, TrainConfig]:
    """Rebuild the model of a checkpoint with its configuration.

    Raises:
        UserError: the checkpoint does not fit this version, or its backbone is not there or another one.
    """
    require_package(checkpoint, "vlm4st")
    config = from_plain(TrainConfig, checkpoint.metadata["config"], where=str(checkpoint.path))
    reference = Reference.of(checkpoint)
    inside = run_folder(checkpoint.path) / FILE
    path = str(backbone) if backbone is not None else reference.file or None
    if reference.hash and path is None and not inside.is_file():
        raise UserError(f"{inside}: no such file; expected the frozen weights of this run; name them with --backbone")
    config = _with_backbone(config, path if reference.hash and not inside.is_file() else None)
    model = _rebuilt(config)
    if inside.is_file():
        restore_frozen(model, inside)
    if reference.hash:
        check_frozen(model, reference, where=path or str(inside))
    objective = Objective(model)
    load_weights(objective, checkpoint)
    return objective, config


def _with_backbone(config: TrainConfig, path: str | None) -> TrainConfig:
    vlm = replace(config.model.vlm, pretrained_path=path)
    return replace(config, model=replace(config.model, vlm=vlm))


def _rebuilt(config: TrainConfig) -> VLM4ST:
    if config.model.vlm.pretrained_path is not None:
        check_backbone_file(config)
        return make_model(config)
    return make_model(config, load_backbone=False)


def command(options: PredictOptions) -> Outcome:
    """Do `vlm4st predict`: a file of frames with their times and coordinates, and pictures of the first forecast."""
    if options.out.suffix not in ENDINGS:
        raise UserError(f"--out: {options.out}: ending {options.out.suffix!r}; expected {', '.join(ENDINGS)}")
    if not options.out.resolve().parent.is_dir():
        raise UserError(f"{options.out}: folder {options.out.parent} does not exist; expected an existing one")
    forecaster = Forecaster.load(options.run, backbone=options.backbone, device=options.device)
    series, known, remark = series_for(options, forecaster)
    worker = forecaster.of(known)
    stride = options.data.stride
    forecast = forecast_series(worker, series, at=options.at, horizon=forecaster.horizon, stride=stride)
    write_forecast(forecast, options.out)
    written = [str(options.out)]
    if options.figures:
        from stcore.frame_drawing import draw_forecast

        cmap = "viridis" if options.cmap == "auto" else options.cmap
        written += draw_forecast(worker, series, forecast, options.out.with_suffix(""), cmap=cmap)
    data = {"files": written, "forecasts": forecast.num_clips, "horizon": forecaster.horizon,
            "units": list(series.units), "data_set": known.name, "remark": remark}  # fmt: skip
    lines = [f"{forecast.num_clips:,} forecasts of {forecaster.horizon} frames in {', '.join(written)}", remark]
    return Outcome("\n".join(filter(None, lines)), data)


def write_forecast(forecast: GridSeries, path: Path) -> None:
    """Write a forecast as .nc, .npz or .zarr.

    Raises:
        UserError: it cannot be written there.
    """
    if path.suffix == ".nc":
        write_netcdf(forecast, path)
    else:
        forecast.write(path)


def series_for(options: PredictOptions, forecaster: Forecaster) -> tuple[GridSeries, Known, str]:
    """Return the frames that a prediction starts from, the data set they are of, and what there is to say about it.

    Raises:
        UserError: several data sets, windows instead of a series, another grid.
    """
    data = options.data if options.data.source else forecaster.config.data
    if len(data.source) != 1:
        raise UserError(f"--data: {len(data.source)} data sets; expected one; what follows each goes to its own file")
    name = dataset_name(data.source[0])
    if is_unist(Path(data.source[0])):
        raise UserError(f"{data.source[0]}: windows of UniST, which come with their future; expected a series; score "
                        "them with evaluate")  # fmt: skip
    series = whole_series(data, forecaster.config.seed)
    found = forecaster.known.get(options.dataset or name)
    if found is None and (options.dataset or len(forecaster.known) == 1):
        found = forecaster.dataset(options.dataset)
    if found is None:
        return series, _unknown(series, name, forecaster), f"{name}: not of the training; scaled by its own range"
    forecaster._require_grid(found, (series.height, series.width), data.source[0])  # pyright: ignore[reportPrivateUsage]
    if series.num_channels != len(found.space.low):
        raise UserError(f"{data.source[0]}: {series.num_channels} channels; expected {len(found.space.low)}, as in "
                        "training")  # fmt: skip
    return series, found, ""


def whole_series(data: DataConfig, seed: int) -> GridSeries:
    """Return all frames of one source, or the test part of one that comes in parts."""
    from vlm4st.data import GENERATED

    if data.source == (GENERATED,):
        content = read_datasets(data, seed=seed)[0].content
        assert not hasattr(content, "digest")
        return content.test  # pyright: ignore[reportAttributeAccessIssue, reportReturnType]
    found = read_grids_or_parts(data)
    return found["test"] if "test" in found else next(iter(found.values()))


def _unknown(series: GridSeries, name: str, forecaster: Forecaster) -> Known:
    """Return a data set that the training did not have, scaled by the frames that are given."""
    model = forecaster.config.model
    resizing = Resizing(kind=forecaster.config.data.resize, native=(series.height, series.width),
                        model=(model.H, model.W))  # fmt: skip
    space = Space.fit_range([series.frames(range(series.num_frames))], resizing, part="given", where=name,
                            channels=series.channels)  # fmt: skip
    return Known(name=name, space=space, channels=series.channels, units=series.units,
                 timed=not forecaster.config.data.timeless)  # fmt: skip


def sources_for(options: ForecastOptions, forecaster: Forecaster) -> tuple[list[Source], list[str]]:
    """Return the data sets that a command is applied to, on the scales of the training, and what there is to say."""
    config = forecaster.config
    own = not options.data.source
    datasets: list[Dataset] = read_datasets(config.data if own else options.data, seed=config.seed)
    target, few = (config.few_shot.target, config.few_shot) if own else ("", None)
    sources = sources_of(datasets, config.data if own else options.data, WindowShape.of(config.model), target=target,
                         few_shot=few)  # fmt: skip
    found = [forecaster.as_trained(source, name=options.dataset) for source in sources if source.evaluated]
    return [source for source, _ in found], [remark for _, remark in found if remark]
