"""Forecasts of the next event from a trained run: the interface people use.

>>> from smash import Forecaster                                        # doctest: +SKIP
>>> forecaster = Forecaster.load("runs/smash-earthquake")               # doctest: +SKIP
>>> forecaster.predict(events)["time_0.5"]                              # doctest: +SKIP
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from smash.calibrated import REMEDY, Calibration
from smash.config import SamplerConfig, TrainConfig
from smash.data import Features, consecutive, event_seed
from smash.model import Batch, Smash
from smash.options import ForecastOptions, PredictOptions
from smash.regions import regions
from smash.sampling import gap_law, sample
from smash.train import restore_features
from stcore.baselines import EventSamples
from stcore.cli import Outcome, run_of
from stcore.configuration import from_plain
from stcore.errors import UserError
from stcore.events import CALENDAR_UNITS, EventSequences
from stcore.files import write_atomically
from stcore.metrics.calibration import shortest_interval
from stcore.metrics.scores import geometric_median, quantiles
from stcore.readers import read_event_parts, read_events_or_parts
from stcore.tables import check_table_path, write_table
from stcore.training.checkpoint import load_checkpoint
from stcore.training.ranks import pick_device
from stcore.training.run import Run

At = Literal["last", "every"]
CHUNK_EVENTS = 256
"""Events whose samples are held at once."""
ENCODE_TOKENS = 4096
"""Padded events that are encoded at once."""


LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Levels of the quantiles, unless others are asked for."""


class Columns(dict[str, NDArray[Any]]):
    """A table: columns of equal length by name, ready for `pandas.DataFrame` and `pyarrow.table`."""

    def frame(self) -> Any:
        """Return a pandas data frame.

        Raises:
            UserError: pandas is not installed.
        """
        try:
            import pandas
        except ModuleNotFoundError as error:
            raise UserError("data frame: pandas is not installed; expected it; pip install pandas, or take the columns "
                            "as they are") from error  # fmt: skip
        return pandas.DataFrame(self)

    @classmethod
    def joined(cls, parts: Sequence[dict[str, NDArray[Any]]]) -> Columns:
        """Put tables of the same columns below each other; no columns without tables."""
        return cls({name: np.concatenate([part[name] for part in parts]) for name in parts[0]} if parts else {})


@dataclass(frozen=True, eq=False)
class Drawn:
    """Samples of a chunk of events, in physical units, and which events they are of."""

    sequence: NDArray[np.int64]
    """Index of each event's sequence."""
    event: NDArray[np.int64]
    """Place of each forecast event in its sequence, from 0; the length of the sequence for the event after its end."""
    samples: EventSamples
    extra: dict[str, Tensor]
    """Exact log densities of the events that came (nats, in the unit of time), when these are known."""

    def calibrated(self, calibration: Calibration) -> Drawn:
        """Return the same events with calibrated gaps and marks."""
        return Drawn(self.sequence, self.event, calibration.samples(self.samples), {})


class Forecaster:
    """A trained model with the scaling, marks and units it was trained with.

    Args:
        model: network in evaluation mode.
        features: scaling and marks.
        config: the configuration of its training.
        facts: everything else its checkpoint says.
    """

    def __init__(self, model: Smash, features: Features, config: TrainConfig, facts: dict[str, Any]) -> None:
        self.model, self.features, self.config, self.facts = model.eval(), features, config, facts
        self.device = next(model.parameters()).device

    @classmethod
    def load(cls, source: Path | str, *, device: str = "auto") -> Forecaster:
        """Load a run (its best weights), or one of its checkpoint files.

        Raises:
            UserError: no such run, a run that was never evaluated, a damaged or foreign checkpoint.
        """
        path = Path(source)
        if path.is_dir():
            run = Run.reopen(path)
            if not run.best.exists():
                raise UserError(f"{path}: no checkpoints/best.safetensors yet; expected a run that was evaluated once")
            path = run.best
        checkpoint = load_checkpoint(path)
        package = checkpoint.metadata.get("package")
        if package != "smash":
            raise UserError(f"{path}: a checkpoint of {package!r}; expected one of smash")
        config = from_plain(TrainConfig, checkpoint.metadata["config"], where=str(path))
        features = restore_features(checkpoint)
        model = Smash(config.model, num_marks=features.num_marks)
        model.load_state_dict(checkpoint.part("model"))
        return cls(model.to(pick_device(device)), features, config, {**checkpoint.metadata, "path": str(path)})

    @cached_property
    def fingerprint(self) -> str:
        """Checksum of the weights: what is fitted to the forecasts of one model must not be used with another."""
        found = hashlib.sha256()
        for name, value in sorted(self.model.state_dict().items()):
            found.update(name.encode())
            found.update(value.detach().cpu().contiguous().numpy().tobytes())
        return found.hexdigest()

    def calibration(self) -> Calibration:
        """Return the calibration that `smash evaluate RUN --calibrate` kept beside the run.

        Raises:
            UserError: there is none, or it belongs to other weights.
        """
        run = run_of(Path(str(self.facts.get("path", "."))))
        found = Calibration.load(run, model=self.fingerprint)
        if found is None:
            raise UserError(f"{run}: no calibration; expected one; {REMEDY}")
        return found

    def stream(
        self, events: EventSequences, *, at: At = "every", sampler: SamplerConfig | None = None, seed: int | None = None
    ) -> Iterator[Drawn]:
        """Draw samples of next events, chunk by chunk, sequence by sequence.

        Args:
            events: histories.
            at: `every` event after the first of each sequence, from those before it, or the unknown one after the
                `last`.
            sampler: how to sample; None as configured in training.
            seed: of the samples; those of an event depend on it, the sequence's id and the event's place alone.
        """
        chosen = sampler or self.config.sampler
        base = self.config.seed if seed is None else seed
        gaps = torch.tensor(events.gaps())
        known = events.with_mark_names(self.features.mark_names).mark if self.model.marked else None
        marks = None if known is None else torch.tensor(known)
        for sequence, event, condition in self._conditions(events, at):
            seeds = [event_seed(base, events.sequence_id[s], int(e)) for s, e in zip(sequence, event, strict=True)]
            with torch.inference_mode():
                drawn = sample(self.model, condition, sampler=chosen, noise=self.config.noise,
                               seeds=torch.tensor(seeds, dtype=torch.int64))  # fmt: skip
                extra: dict[str, Tensor] = {}
                if at == "every":
                    rows = torch.from_numpy(events.offsets[sequence] + event)
                    came = None if marks is None else marks[rows]
                    extra = self._log_density(gaps[rows], came, condition, chosen)
            samples = EventSamples(
                gap=self.features.gap(drawn.gap).cpu(),
                location=self.features.location(drawn.location).cpu(),
                mark=drawn.mark.cpu() if self.model.marked else None,
                mark_probability=drawn.probability.double().cpu() if self.model.marked else None,
            )
            yield Drawn(sequence, event, samples, extra)

    def sample(self, events: EventSequences, *, samples: int = 300, at: At = "last", seed: int | None = None) -> Drawn:
        """Draw `samples` samples of the next event of each sequence, all at once in memory."""
        chunks = list(self.stream(events, at=at, sampler=replace(self.config.sampler, samples=samples), seed=seed))
        if not chunks:
            raise UserError("events: nothing to forecast; expected sequences of at least two events (at every) or one")
        return _joined(chunks)

    def predict(
        self,
        events: EventSequences,
        *,
        levels: Sequence[float] = LEVELS,
        intervals: Sequence[float] = (),
        at: At = "last",
        sampler: SamplerConfig | None = None,
        seed: int | None = None,
        calibration: Calibration | None = None,
    ) -> Columns:
        """Forecast next events as columns of a table.

        Args:
            events: histories.
            levels: of the quantiles, in (0, 1); each is also the upper end of the one-sided interval from 0.
            intervals: levels of the shortest (highest-density) intervals of the gap.
            at, sampler, seed: see `stream`.
            calibration: adjusts gaps and marks; from `calibration()`.

        Returns:
            `sequence_id`, `event`; `last_time`; `gap_<level>` and `time_<level>` in the data's unit of time (and
            `timestamp_<level>` where the origin of sequences is known); `gap_low_<level>` and `gap_high_<level>`, the
            ends of the shortest intervals; `x`, `y`, the geometric median of the location; `p_<mark>` for marked
            events. `.frame()` makes it a data frame.
        """
        chunks = self.stream(events, at=at, sampler=sampler, seed=seed)
        adjusted = (drawn if calibration is None else drawn.calibrated(calibration) for drawn in chunks)
        return Columns.joined([self.table(drawn, events, levels, intervals) for drawn in adjusted])

    def table(
        self, drawn: Drawn, events: EventSequences, levels: Sequence[float], intervals: Sequence[float] = ()
    ) -> dict[str, NDArray[Any]]:
        """Summarise the samples of a chunk as columns; see `predict`."""
        last = events.offsets[drawn.sequence] + drawn.event - 1
        columns: dict[str, NDArray[Any]] = {
            "sequence_id": np.array(events.sequence_id)[drawn.sequence],
            "event": drawn.event,
            "last_time": events.time[last],
        }
        gaps = quantiles(drawn.samples.gap, torch.tensor(list(levels), dtype=torch.float64)).numpy()
        for column, level in enumerate(levels):
            columns[f"gap_{level:g}"] = gaps[:, column]
            columns[f"time_{level:g}"] = columns["last_time"] + gaps[:, column]
            if events.origin is not None:
                start = events.origin[drawn.sequence]
                columns[f"timestamp_{level:g}"] = timestamps(start, columns[f"time_{level:g}"], events.time_unit)
        if intervals:
            ends = shortest_interval(drawn.samples.gap, torch.tensor(list(intervals), dtype=torch.float64))
            for column, level in enumerate(intervals):
                columns[f"gap_low_{level:g}"], columns[f"gap_high_{level:g}"] = (end[:, column].numpy() for end in ends)
        columns["x"], columns["y"] = geometric_median(drawn.samples.location).numpy().T
        if drawn.samples.mark_probability is not None:
            probability = drawn.samples.mark_probability.double()
            shares = (probability.mean(1) if probability.ndim == 3 else probability).numpy()
            columns |= {f"p_{name}": shares[:, index] for index, name in enumerate(self.features.mark_names)}
        return columns

    def conditions(self, events: EventSequences, *, at: At = "every") -> Tensor:
        """Return the condition of every forecast event (event, condition)."""
        return torch.cat([condition for _, _, condition in self._conditions(events, at)])

    def _conditions(
        self, events: EventSequences, at: At
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], Tensor]]:
        """Encode histories and yield sequence, event and condition in chunks of at most `CHUNK_EVENTS`."""
        encoded = self.features.encode(events)
        for ids in consecutive(encoded.lengths, max_tokens=ENCODE_TOKENS):
            batch = Batch(*(None if part is None else part.to(self.device) for part in encoded.batch(ids)))  # pyright: ignore[reportArgumentType]
            with torch.inference_mode():
                condition = self.model.encode(batch.time, batch.location, batch.mark, batch.lengths)
            lengths = self.model.lengths(batch).cpu().numpy()
            first = lengths - 1 if at == "last" else np.zeros_like(lengths)
            count = np.maximum(lengths - first if at == "last" else lengths - 1, 0)
            rows = np.repeat(np.arange(len(ids)), count)
            place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first, count)
            flat = condition[torch.from_numpy(rows), torch.from_numpy(place)]
            for start in range(0, len(rows), CHUNK_EVENTS):
                part = slice(start, start + CHUNK_EVENTS)
                yield ids[rows[part]], place[part] + 1, flat[part]

    def _log_density(
        self, gap: Tensor, mark: Tensor | None, condition: Tensor, sampler: SamplerConfig
    ) -> dict[str, Tensor]:
        """Exact log densities of the events that came, under the law smoothed by sigma_time, per unit of time."""
        # Unconfined: a gap outside the fitted range is unlikely, not impossible.
        law = gap_law(self.model, condition, sampler=replace(sampler, confine=False), noise=self.config.noise)
        unit = self.features.gap_unit(gap).to(self.device)[:, None]
        slope = self.features.log_gap_slope(gap)
        result = {"gap_log_density": law.log_density_at(unit)[:, 0].cpu() + slope}
        if mark is not None:
            joint = law.log_joint_at(unit, mark.to(self.device)[:, None])
            result["gap_mark_log_density"] = joint[:, 0].cpu() + slope
        return result


def command(options: PredictOptions) -> Outcome:
    """Do `smash predict`: a table of quantiles and probabilities, and regions as GeoJSON when asked for."""
    check_table_path(options.out)
    _check_levels(options)
    if options.steps > 1 or options.horizon:
        from smash import rollout

        return rollout.command(options)
    forecaster = Forecaster.load(options.run, device=options.device)
    calibration = forecaster.calibration() if options.calibrated else None
    events = events_of(options, forecaster)
    shapes: list[dict[str, Any]] = []

    def pieces() -> Iterator[dict[str, NDArray[Any]]]:
        for raw in forecaster.stream(events, at=options.at, sampler=options.sampler, seed=options.seed):
            drawn = raw if calibration is None else raw.calibrated(calibration)
            columns = forecaster.table(drawn, events, options.levels, options.intervals)
            if options.region_levels:
                asked = None if calibration is None else calibration.location
                found = regions(drawn.samples.location, options.region_levels, asked=asked)
                for level, areas in zip(options.region_levels, found.areas.T, strict=True):
                    columns[f"region_area_{level:g}"] = areas
                if options.regions is not None:
                    shapes.extend(found.features(columns["sequence_id"], columns["event"]))
            yield columns

    rows = write_table(options.out, pieces())
    written = [str(options.out)]
    if options.regions is not None:
        text = json.dumps({"type": "FeatureCollection", "features": shapes})
        write_atomically(options.regions, [text.encode()])
        written.append(str(options.regions))
    if options.figures is not None:
        from smash.drawing import draw_forecasts

        written += draw_forecasts(forecaster, events, options.figures, sampler=options.sampler, seed=options.seed,
                                  calibration=calibration)  # fmt: skip
    return Outcome(f"{rows:,} forecasts in {', '.join(written)}",
                   {"files": written, "rows": rows, "units": units_of(events)})  # fmt: skip


def timestamps(origin: NDArray[Any], time: NDArray[np.float64], unit: str) -> NDArray[Any]:
    """Return the absolute times that lie `time` after `origin`; not a time where `time` is not finite."""
    elapsed = np.where(np.isfinite(time), time, 0.0) * CALENDAR_UNITS[unit]
    stamps = origin + elapsed.round().astype("timedelta64[us]")
    return np.where(np.isfinite(time), stamps, np.datetime64("NaT"))


def typical(events: EventSequences) -> EventSequences:
    """Return the sequence of median length among those with events, as it stands for the others in figures."""
    filled = np.flatnonzero(events.lengths > 0)
    if not len(filled):
        raise UserError("events: no sequence has one; expected something to forecast from")
    order = np.argsort(events.lengths[filled], kind="stable")
    return events.select([int(filled[order[len(filled) // 2]])])


def units_of(events: EventSequences) -> dict[str, str]:
    """Return the units of the columns of a forecast, by the beginning of their names."""
    area = "square degrees" if events.coordinates == "degrees" else "square units of the coordinates"
    return {"gap": events.time_unit, "time": events.time_unit, "last_time": events.time_unit, "x": events.coordinates,
            "y": events.coordinates, "region_area": area, "p": "probability"}  # fmt: skip


def _check_levels(options: PredictOptions) -> None:
    asked = {"--levels": options.levels, "--intervals": options.intervals, "--region-levels": options.region_levels}
    for name, levels in asked.items():
        wrong = [level for level in levels if not 0.0 < level < 1.0]
        if wrong:
            raise UserError(f"{name}: {wrong[0]}; expected shares between 0 and 1")
    if options.regions is not None and not options.region_levels:
        raise UserError("--regions: without --region-levels; expected levels of the regions")
    if options.regions is not None and not options.regions.parent.is_dir():
        raise UserError(f"{options.regions}: folder {options.regions.parent} does not exist; expected an existing one")


def events_of(options: ForecastOptions, forecaster: Forecaster, *, part: str = "test") -> EventSequences:
    """Read the events a command is to forecast.

    Without `--data`, or with data in three parts, `part` of them; a single file given with `--data` is taken whole.
    """
    if not options.data.source:
        own = replace(options.data, source=forecaster.config.data.source)
        return read_event_parts(own).named()[part]
    found = read_events_or_parts(options.data)
    return found[part] if part in found else next(iter(found.values()))


def _joined(chunks: list[Drawn]) -> Drawn:
    def together(values: list[Tensor | None]) -> Any:
        known = [value for value in values if value is not None]
        return torch.cat(known) if known else None

    fields = ("gap", "location", "mark", "mark_probability")
    samples = EventSamples(*(together([getattr(chunk.samples, name) for chunk in chunks]) for name in fields))
    return Drawn(
        np.concatenate([chunk.sequence for chunk in chunks]),
        np.concatenate([chunk.event for chunk in chunks]),
        samples,
        {name: torch.cat([chunk.extra[name] for chunk in chunks]) for name in chunks[0].extra},
    )
