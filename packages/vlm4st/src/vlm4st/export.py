"""`vlm4st export`: a trained model for other runtimes, as `.pt2` (torch.export) or ONNX, checked against eager.

What is exported maps a history in the units and on the grid of the data, with the channel's range beside it, to the
forecast in the same units: `history` (sample, time, row, column), `timestamps` (sample, time, 2) where the model was
trained with them, `low` and `high` (sample,) of the channel's range in training.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stcore.cli import Outcome
from stcore.errors import UserError
from stcore.frame_export import TOLERANCE, check_export_path
from vlm4st.models.prediction_head import PredictionHead
from vlm4st.options import ExportOptions
from vlm4st.predict import Forecaster, Known

BATCH, OTHER_BATCH = 2, 3
Given = tuple[Tensor, ...]


class Exported(nn.Module):
    """History to forecast, both in the units of the data."""

    def __init__(self, forecaster: Forecaster, known: Known) -> None:
        super().__init__()
        self.model, self.resizing, self.timed = forecaster.model.module, known.space.resizing, known.timed
        self.clamp = forecaster.config.evaluate.clamp

    def forward(self, history: Tensor, low: Tensor, high: Tensor, timestamps: Tensor | None = None) -> Tensor:
        """Forecast a batch of samples."""
        start, span = low[:, None, None, None], (high - low)[:, None, None, None]
        scaled = self.resizing.to_model(2.0 * (history - start) / span - 1.0, fill=-1.0)
        forecast = self.model(scaled, timestamps if self.timed else None).squeeze(-1)
        if self.clamp:
            forecast = forecast.clamp(-1.0, 1.0)
        forecast = self.resizing.to_native(forecast)
        if not (self.resizing.same or self.resizing.pads):
            known = 2.0 * (history - start) / span - 1.0
            finer = known - self.resizing.to_native(self.resizing.to_model(known))
            head = self.model.get_submodule("prediction_head")
            assert isinstance(head, PredictionHead)
            if (carried := head.carried(finer)) is not None:
                forecast = forecast + carried
                forecast = forecast.clamp(-1.0, 1.0) if self.clamp else forecast
        return (forecast + 1.0) / 2.0 * span + start


def command(options: ExportOptions) -> Outcome:
    """Do `vlm4st export`."""
    kind = check_export_path(options.out, options.format)
    forecaster = Forecaster.load(options.run, backbone=options.backbone, device="cpu")
    grids = {known.native for known in forecaster.known.values()}
    if len(grids) > 1:
        sizes = ", ".join(f"{rows} x {columns}" for rows, columns in sorted(grids))
        raise UserError(f"{options.run}: data sets on grids {sizes}; expected one grid for one exported model")
    return export_forecaster(forecaster, options.out, kind=kind, seed=options.seed)


def export_forecaster(forecaster: Forecaster, path: Path, *, kind: str, seed: int = 0) -> Outcome:
    """Write a forecaster for another runtime, and compare what that computes with what it computes itself.

    Args:
        forecaster: the model, on the CPU.
        path: file to write.
        kind: `pt2` or `onnx`.
        seed: of the frames that both are checked on.

    Raises:
        UserError: the format needs a library that is not installed.
    """
    known = next(iter(forecaster.known.values()))
    if known.space.usual is not None:
        raise UserError("export: trained on anomalies, whose usual frames go by the calendar; expected a run of "
                        "data.anomalies none")  # fmt: skip
    module = Exported(forecaster, known).eval()
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
    names = _names(module)
    data = {"file": str(path), "format": kind, "history": forecaster.history, "horizon": forecaster.horizon,
            "inputs": names, "difference": worst}  # fmt: skip
    lines = [
        f"{path}: {', '.join(names)} to (sample, {forecaster.horizon}, {rows}, {columns}), units of the data",
        f"differs from this model by {worst:.1e} of the largest value at most",
    ]
    return Outcome("\n".join(lines), data)


def _names(module: Exported) -> list[str]:
    return ["history", "low", "high", *(["timestamps"] if module.timed else [])]


def _given(forecaster: Forecaster, known: Known, batch: int, seed: int) -> Given:
    """Return inputs within the range of the training."""
    generator = torch.Generator().manual_seed(seed)
    low, high = (torch.from_numpy(values[:1]).float().expand(batch).clone()
                 for values in (known.space.low, known.space.low + known.space.span))  # fmt: skip
    unit = torch.rand((batch, forecaster.history, *known.native), generator=generator)
    history = low[:, None, None, None] + unit * (high - low)[:, None, None, None]
    if not known.timed:
        return history, low, high
    slots = torch.arange(forecaster.history)[None] + torch.randint(0, 40, (batch, 1), generator=generator)
    days = torch.randint(0, 7, (batch, 1), generator=generator).expand(-1, forecaster.history)
    return history, low, high, torch.stack([days, slots], dim=-1)


def _difference(module: nn.Module, run: Callable[..., Tensor], given: Given) -> float:
    expected = module(*given)
    return float((run(*given) - expected).abs().max() / expected.abs().max().clamp_min(1e-12))


def _program(module: Exported, given: Given) -> Any:
    batch = torch.export.Dim("batch", min=1)
    return torch.export.export(module, given, dynamic_shapes={name: {0: batch} for name in _names(module)})


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
    program = torch.onnx.export(_program(module, given), given, dynamo=True, input_names=_names(module),
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
