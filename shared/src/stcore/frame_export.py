"""A trained forecaster of frames for other runtimes, as `.pt2` (torch.export) or ONNX, checked against eager."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stcore.cli import Outcome
from stcore.errors import UserError
from stcore.frame_forecasting import TrainedForecaster

TOLERANCE = 1e-4
"""Largest difference from eager, as a share of the largest value of the forecast."""
BATCH, OTHER_BATCH = 2, 3
ENDINGS = {".pt2": "pt2", ".onnx": "onnx"}


class Exported(nn.Module):
    """History to forecast, both in the units of the data, with a fixed horizon."""

    def __init__(self, forecaster: TrainedForecaster, horizon: int) -> None:
        super().__init__()
        self.model, self.horizon = forecaster.model, horizon
        self.register_buffer("low", forecaster.scaling.low)
        self.register_buffer("span", forecaster.scaling.span)

    def forward(
        self, history: Float[Tensor, "batch time channel height width"]
    ) -> Float[Tensor, "batch horizon channel height width"]:
        low, span = self.get_buffer("low"), self.get_buffer("span")
        return self.model((history - low) / span, self.horizon) * span + low


def check_export_path(path: Path, format: str = "auto") -> str:
    """Return the format of an exported file, before any work is done.

    Raises:
        UserError: another ending without a format, or a folder that does not exist.
    """
    kind = ENDINGS.get(path.suffix, "") if format == "auto" else format
    if not kind:
        raise UserError(f"--out: {path}: ending {path.suffix!r}; expected .pt2 or .onnx, or --format")
    if not path.parent.is_dir():
        raise UserError(f"{path}: folder {path.parent} does not exist; expected an existing one")
    return kind


def export_forecaster(
    forecaster: TrainedForecaster, path: Path, *, format: str = "auto", horizon: int = 0, seed: int = 0
) -> Outcome:
    """Write a forecaster on the CPU for another runtime, and compare what that computes with what it computes itself.

    Args:
        forecaster: the model.
        path: file to write.
        format: `pt2` or `onnx`; `auto` goes by the ending.
        horizon: frames that the exported model forecasts; 0 takes its own.
        seed: of the frames that both are checked on.

    Raises:
        UserError: as `check_export_path`; or the format needs a library that is not installed.
    """
    kind = check_export_path(path, format)
    ahead = horizon or forecaster.horizon
    module = Exported(forecaster, ahead).eval()
    frames = _frames(forecaster, BATCH, seed)
    write, load = {"pt2": (_write_pt2, _load_pt2), "onnx": (_write_onnx, _load_onnx)}[kind]
    temporary = path.with_name(f".{path.stem}.tmp-{os.getpid()}{path.suffix}")
    try:
        with warnings.catch_warnings(), torch.inference_mode(False), torch.no_grad():
            warnings.simplefilter("ignore")  # of what the exporters themselves will change
            write(module, frames, temporary)
            run = load(temporary)
            worst = max(_difference(module, run, frames),
                        _difference(module, run, _frames(forecaster, OTHER_BATCH, seed + 1)))  # fmt: skip
        if worst > TOLERANCE:
            raise RuntimeError(f"the exported model differs from this one by {worst:.2g} of the largest value")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    data = {"file": str(path), "format": kind, "history": forecaster.history, "horizon": ahead, "difference": worst}
    shape = " x ".join(map(str, forecaster.shape))
    lines = [
        f"{path}: (batch, {forecaster.history}, {shape}) to (batch, {ahead}, {shape}), units of the data, rows and "
        "columns as in training",
        f"differs from this model by {worst:.1e} of the largest value at most",
    ]
    return Outcome("\n".join(lines), data)


def _frames(forecaster: TrainedForecaster, batch: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    unit = torch.rand((batch, forecaster.history, *forecaster.shape), generator=generator)
    return forecaster.scaling.inverse(unit)


def _difference(module: nn.Module, run: Callable[[Tensor], Tensor], frames: Tensor) -> float:
    expected = module(frames)
    return float((run(frames) - expected).abs().max() / expected.abs().max().clamp_min(1e-12))


def _program(module: nn.Module, frames: Tensor) -> Any:
    return torch.export.export(module, (frames,), dynamic_shapes={"history": {0: torch.export.Dim("batch", min=1)}})


def _write_pt2(module: nn.Module, frames: Tensor, path: Path) -> None:
    torch.export.save(_program(module, frames), path)


def _load_pt2(path: Path) -> Callable[[Tensor], Tensor]:
    return torch.export.load(path).module()


def _write_onnx(module: nn.Module, frames: Tensor, path: Path) -> None:
    try:
        import onnxscript  # noqa: F401  # pyright: ignore[reportUnusedImport]
    except ImportError:
        raise UserError("--format onnx: onnxscript is not installed; install the extra `export`") from None
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    program = torch.onnx.export(_program(module, frames), (frames,), dynamo=True, input_names=["history"],
                                output_names=["forecast"], verbose=False)  # fmt: skip
    assert program is not None  # of the dynamo exporter
    program.save(path, external_data=False)


def _load_onnx(path: Path) -> Callable[[Tensor], Tensor]:
    try:
        import onnxruntime
    except ImportError:
        raise UserError("--format onnx: onnxruntime is not installed; install the extra `export`") from None
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda frames: torch.from_numpy(session.run(None, {"history": frames.numpy()})[0])
