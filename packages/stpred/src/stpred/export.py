"""`stpred export`: a trained model for other runtimes, as `.pt2` (torch.export) or ONNX, checked against eager."""

from __future__ import annotations

from stcore.cli import Outcome
from stcore.frame_export import check_export_path, export_forecaster
from stcore.grid_commands import ExportOptions
from stpred.predict import Forecaster


def command(options: ExportOptions) -> Outcome:
    """Do `stpred export`."""
    check_export_path(options.out, options.format)
    forecaster = Forecaster.load(options.run, device="cpu")
    return export_forecaster(forecaster, options.out, format=options.format, horizon=options.horizon, seed=options.seed)
