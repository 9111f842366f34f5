"""`smash convert`: files of the original implementation become runs, tables of samples, or tables of events."""

from __future__ import annotations

import zipfile
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from smash.config import PRESETS, TrainConfig
from smash.convert import convert_state
from smash.data import Features
from smash.foreign import OriginalSamples, read_foreign_state, read_original_samples
from smash.options import ConvertOptions
from stcore.cli import Outcome, pick_preset
from stcore.configuration import to_plain
from stcore.errors import UserError
from stcore.events import EventSequences, concatenate
from stcore.readers import read_event_parts, read_events
from stcore.readers.limits import require_file
from stcore.tables import check_table_path, write_table
from stcore.training.checkpoint import save_checkpoint
from stcore.training.run import Run


def command(options: ConvertOptions) -> Outcome:
    """Do `smash convert`: what the file is decides what comes out."""
    require_file(options.file)
    if options.file.suffix == ".safetensors" or zipfile.is_zipfile(options.file):
        return convert_checkpoint(options)
    check_table_path(options.out)
    try:
        samples = read_original_samples(options.file)
    except UserError as no_samples:
        return _convert_events(options, no_samples)
    features = original_features(options)
    rows = write_table(options.out, [_columns(samples, features)])
    return Outcome(f"{rows:,} samples in {options.out}", {"file": str(options.out), "rows": rows})


def convert_checkpoint(options: ConvertOptions) -> Outcome:
    """Make a run of a checkpoint of the original: its weights, the preset's noise and sampler, the data's scaling.

    Raises:
        UserError: not such a checkpoint, a folder that exists, or data with another number of marks.
    """
    if options.out.suffix:
        raise UserError(f"{options.out}: expected a folder for the run that the checkpoint becomes, without an ending")
    converted = convert_state(read_foreign_state(options.file), heads=options.heads)
    features = original_features(options)
    if features.num_marks != converted.num_marks:
        raise UserError(
            f"{options.file}: a model of {converted.num_marks} marks, data with {features.num_marks}; "
            "expected the data it was trained on; name it with --data"
        )
    model = replace(converted.config, legacy_masks=options.legacy_masks)
    config = replace(pick_preset(PRESETS, options.preset), model=model, data=options.data)
    run = write_run(options.out, config, features, converted.state, preset=options.preset)
    numbers = sum(tensor.numel() for tensor in converted.state.values())
    lines = [
        f"{options.file}: {len(converted.state)} parameters converted, {numbers:,} numbers",
        f"dropped, since they never took part: {', '.join(converted.dropped) or 'none'}",
        f"run: {run.folder}",
    ]
    data = {"run": str(run.folder), "parameters": len(converted.state), "dropped": list(converted.dropped)}
    return Outcome("\n".join(lines), data)


def write_run(
    folder: Path, config: TrainConfig, features: Features, state: dict[str, torch.Tensor], *, preset: str
) -> Run:
    """Write weights as the best checkpoint of a new run."""
    plain = to_plain(config)
    run = Run.create(folder, package="smash", preset=preset, config={"preset": preset, **plain})
    tensors = {f"model/{name}": value for name, value in state.items()}
    tensors |= {f"constants/{name}": value for name, value in features.constants().items()}
    facts = {"package": "smash", "version": version("smash"), "core": version("stcore"), "preset": preset,
             "config": plain, "data": features.facts(), "step": 0, "metrics": {}}  # fmt: skip
    save_checkpoint(run.best, tensors, facts)
    return run


def original_features(options: ConvertOptions) -> Features:
    """Scale as the original did: by train, val and test together, since its weights were trained so."""
    parts = read_event_parts(options.data)
    return Features.fit(_together(parts.train, parts.val, parts.test), log_gap=options.data.log_gap)


def _together(*parts: EventSequences) -> EventSequences:
    named = [
        replace(part, sequence_id=tuple(f"{number}/{name}" for name in part.sequence_id))
        for number, part in enumerate(parts)
    ]
    return concatenate(named)


def _convert_events(options: ConvertOptions, no_samples: UserError) -> Outcome:
    try:
        events = read_events(str(options.file), options.data)
    except UserError as no_events:
        raise UserError(f"{no_events}; nor is it a file of samples ({no_samples})") from no_events
    events.write(options.out)
    data = {"file": str(options.out), "sequences": events.num_sequences, "events": events.num_events}
    return Outcome(f"{events.num_events:,} events of {events.num_sequences:,} sequences in {options.out}", data)


def _columns(samples: OriginalSamples, features: Features) -> dict[str, NDArray[Any]]:
    """Return original samples in physical units, one row a sample; `event` counts the predicted events of the file."""
    count, each = samples.gap.shape
    gap = features.gap(torch.from_numpy(samples.gap)).numpy()
    location = features.location(torch.from_numpy(samples.location)).numpy()
    columns: dict[str, NDArray[Any]] = {
        "event": np.repeat(np.arange(count), each),
        "sample": np.tile(np.arange(each), count),
        "gap": gap.reshape(-1),
        "x": location[..., 0].reshape(-1),
        "y": location[..., 1].reshape(-1),
        "true_gap": np.repeat(samples.true_gap, each),
        "true_x": np.repeat(samples.true_location[:, 0], each),
        "true_y": np.repeat(samples.true_location[:, 1], each),
    }
    if samples.probability is not None and samples.true_mark is not None:
        names = features.mark_names or tuple(map(str, range(samples.probability.shape[2])))
        columns["true_mark"] = np.repeat(np.array(names)[samples.true_mark], each)
        columns |= {f"p_{name}": samples.probability[:, :, i].reshape(-1) for i, name in enumerate(names)}
    return columns
