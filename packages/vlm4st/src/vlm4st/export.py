"""`vlm4st export`: a trained model for other runtimes, as `.pt2` (torch.export) or ONNX, checked against eager.

What is exported maps a history in the units and on the grid of the data to the forecast in the same units:

- trained on values as they are: `history` (sample, time, row, column), `low` and `high` (sample,) of the channel's
  range in training, and `timestamps` (sample, time, 2), weekday and half hour, where the model was trained with them;
- trained on anomalies: `history`, the number of its `channel` (sample,), and the `clock` (sample, time + horizon, 2),
  weekday and second of the day, of every frame that is given and forecast. What is usual then, and the ranges, are in
  the file.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from stcore.cli import Outcome
from stcore.errors import UserError
from stcore.frame_export import TOLERANCE, check_export_path
from vlm4st.models.prediction_head import PredictionHead
from vlm4st.options import ExportOptions
from vlm4st.predict import Forecaster, Known
from vlm4st.timestamps import HALF_HOUR
from vlm4st.usual import HistoricalAverage

BATCH, OTHER_BATCH = 2, 3
Given = tuple[Tensor, ...]


class Exported(nn.Module):
    """History to forecast, both in the units of the data."""

    def __init__(self, forecaster: Forecaster, known: Known) -> None:
        super().__init__()
        self.model, self.resizing, self.timed = forecaster.model.module, known.space.resizing, known.timed
        self.clamp = forecaster.config.evaluate.clamp

    @property
    def inputs(self) -> list[str]:
        """Names of what `forward` takes."""
        return ["history", "low", "high", *(["timestamps"] if self.timed else [])]

    def forward(self, history: Tensor, low: Tensor, high: Tensor, timestamps: Tensor | None = None) -> Tensor:
        """Forecast a batch of samples."""
        return self.ranged(history, low, high - low, timestamps)

    def ranged(self, history: Tensor, low: Tensor, span: Tensor, timestamps: Tensor | None) -> Tensor:
        """Forecast what is scaled by the range of each sample."""
        start, span = low[:, None, None, None], span[:, None, None, None]
        known = 2.0 * (history - start) / span - 1.0
        scaled = self.resizing.to_model(known, fill=-1.0)
        forecast = self._clamped(self.model(scaled, timestamps if self.timed else None).squeeze(-1))
        forecast = self.resizing.to_native(forecast)
        if not (self.resizing.same or self.resizing.pads):
            finer = known - self.resizing.to_native(self.resizing.to_model(known))
            head = self.model.get_submodule("prediction_head")
            assert isinstance(head, PredictionHead)
            if (carried := head.carried(finer)) is not None:
                forecast = self._clamped(forecast + carried)
        return (forecast + 1.0) / 2.0 * span + start

    def _clamped(self, forecast: Tensor) -> Tensor:
        return forecast.clamp(-1.0, 1.0) if self.clamp else forecast


class ExportedAnomalies(Exported):
    """History and clock to forecast, what is usual being taken off and put back."""

    moments: Tensor
    table: Tensor
    low: Tensor
    span: Tensor

    def __init__(self, forecaster: Forecaster, known: Known, usual: HistoricalAverage) -> None:
        super().__init__(forecaster, known)
        self.register_buffer("moments", torch.from_numpy(usual.moments))
        self.register_buffer("table", torch.from_numpy(usual.whole_table()).flatten(0, 1))
        self.register_buffer("low", torch.from_numpy(known.space.low).float())
        self.register_buffer("span", torch.from_numpy(known.space.span).float())
        self.channels = len(known.channels)

    @property
    def inputs(self) -> list[str]:
        return ["history", "channel", "clock"]

    def forward(self, history: Tensor, channel: Tensor, clock: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]  other inputs
        """Forecast a batch of samples."""
        usual = self._usual(channel, clock)
        given = history.shape[1]
        timestamps = torch.stack([clock[:, :given, 0], clock[:, :given, 1] // HALF_HOUR], dim=-1)
        made = self.ranged(history - usual[:, :given], self.low[channel], self.span[channel], timestamps)
        return made + usual[:, given:]

    def _usual(self, channel: Tensor, clock: Tensor) -> Tensor:
        """Return what is usual at each frame; of a moment that training had not, what is usual at all times."""
        same = clock[..., 1, None] == self.moments
        count = len(self.moments)
        key = clock[..., 0] * count + same.int().argmax(dim=-1)
        key = key.where(same.any(dim=-1), 7 * count)
        return self.table[key * self.channels + channel[:, None]]


def command(options: ExportOptions) -> Outcome:
    """Do `vlm4st export`."""
    kind = check_export_path(options.out, options.format)
    forecaster = Forecaster.load(options.run, backbone=options.backbone, device="cpu")
    return export_forecaster(forecaster, options.out, kind=kind, dataset=options.dataset, seed=options.seed)


def export_forecaster(forecaster: Forecaster, path: Path, *, kind: str, dataset: str = "", seed: int = 0) -> Outcome:
    """Write a forecaster for another runtime, and compare what that computes with what it computes itself.

    Args:
        forecaster: the model, on the CPU.
        path: file to write.
        kind: `pt2` or `onnx`.
        dataset: of the training, whose grid is taken, and with anomalies what is usual; may be empty where all are the
            same.
        seed: of the frames that both are checked on.

    Raises:
        UserError: the format needs a library that is not installed; a data set has to be named.
    """
    known = _one_of(forecaster, dataset)
    usual = known.space.usual
    module = Exported(forecaster, known) if usual is None else ExportedAnomalies(forecaster, known, usual)
    module.eval()
    given = _given(forecaster, known, BATCH, seed)
    write, load = {"pt2": (_write_pt2, _load_pt2), "onnx": (_write_onnx, _load_onnx)}[kind]
    temporary = path.with_name(f".{path.stem}.tmp-{os.getpid()}{path.suffix}")
    try:
        with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
            warnings.simplefilter("ignore")  # of what the exporters themselves will change
            write(module, given, temporary)
            run = load(temporary)
            worst = max(_difference(module, run, given),
                        _difference(module, run, _given(forecaster, known, OTHER_BATCH, seed + 1)))  # fmt: skip
        if worst > TOLERANCE:
            raise RuntimeError(f"the exported model differs from this one by {worst:.2g} of the largest value")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    rows, columns = known.native
    names = module.inputs
    data = {"file": str(path), "format": kind, "history": forecaster.history, "horizon": forecaster.horizon,
            "inputs": names, "difference": worst}  # fmt: skip
    lines = [
        f"{path}: {', '.join(names)} to (sample, {forecaster.horizon}, {rows}, {columns}), units of the data",
        f"differs from this model by {worst:.1e} of the largest value at most",
    ]
    return Outcome("\n".join(lines), data)


def _one_of(forecaster: Forecaster, dataset: str) -> Known:
    """Return the data set that is named, or any where they all are the same to a model."""
    found = list(forecaster.known.values())
    alike = len({known.native for known in found}) == 1 and all(known.space.usual is None for known in found)
    return found[0] if alike and not dataset else forecaster.dataset(dataset)


def _given(forecaster: Forecaster, known: Known, batch: int, seed: int) -> Given:
    """Return inputs within the range of the training."""
    generator = torch.Generator().manual_seed(seed)
    if known.space.usual is not None:
        return _given_at(forecaster, known, known.space.usual, batch, generator)
    low, high = (torch.from_numpy(values[:1]).float().expand(batch).clone()
                 for values in (known.space.low, known.space.low + known.space.span))  # fmt: skip
    unit = torch.rand((batch, forecaster.history, *known.native), generator=generator)
    history = low[:, None, None, None] + unit * (high - low)[:, None, None, None]
    if not known.timed:
        return history, low, high
    slots = torch.arange(forecaster.history)[None] + torch.randint(0, 40, (batch, 1), generator=generator)
    days = torch.randint(0, 7, (batch, 1), generator=generator).expand(-1, forecaster.history)
    return history, low, high, torch.stack([days, slots], dim=-1)


def _given_at(
    forecaster: Forecaster, known: Known, usual: HistoricalAverage, batch: int, generator: torch.Generator
) -> Given:
    """Return inputs at moments of the training, and at one that it had not."""
    frames = forecaster.history + forecaster.horizon
    at = torch.randint(0, len(usual.moments), (batch, frames), generator=generator)
    seconds = torch.from_numpy(usual.moments)[at]
    seconds[0, 0] += 1
    clock = torch.stack([torch.randint(0, 7, (batch, frames), generator=generator), seconds], dim=-1)
    channel = torch.randint(0, len(known.channels), (batch,), generator=generator)
    unit = torch.rand((batch, forecaster.history, *known.native), generator=generator)
    normal = torch.from_numpy(np.nan_to_num(usual.at(clock.numpy(), channel.numpy())))[:, : forecaster.history]
    low, span = (torch.from_numpy(values).float()[channel][:, None, None, None]
                 for values in (known.space.low, known.space.span))  # fmt: skip
    return normal + low + unit * span, channel, clock


def _difference(module: nn.Module, run: Callable[..., Tensor], given: Given) -> float:
    expected = module(*given)
    return float((run(*given) - expected).abs().max() / expected.abs().max().clamp_min(1e-12))


def _program(module: Exported, given: Given) -> Any:
    batch = torch.export.Dim("batch", min=1)
    return torch.export.export(module, given, dynamic_shapes={name: {0: batch} for name in module.inputs})


def _write_pt2(module: Exported, given: Given, path: Path) -> None:
    torch.export.save(_program(module, given), path)


def _load_pt2(path: Path) -> Callable[..., Tensor]:
    return torch.export.load(path).module()


def _write_onnx(module: Exported, given: Given, path: Path) -> None:
    try:
        import onnxscript  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError:
        raise UserError("--format onnx: onnxscript is not installed; install the extra `export`") from None
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    program = torch.onnx.export(_program(module, given), given, dynamo=True, input_names=module.inputs,
                                output_names=["forecast"], verbose=False)  # fmt: skip
    assert program is not None  # of the dynamo exporter
    program.save(path, external_data=False)


def _load_onnx(path: Path) -> Callable[..., Tensor]:
    try:
        import onnxruntime
    except ImportError:
        raise UserError("--format onnx: onnxruntime is not installed; install the extra `export`") from None
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [entry.name for entry in session.get_inputs()]

    def run(*given: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, dict(zip(names, (part.numpy() for part in given), strict=True)))[0])

    return run
