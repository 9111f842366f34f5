"""`svq export`: a trained model for other runtimes, as `.pt2` (torch.export) or ONNX, checked against eager."""

from __future__ import annotations

from stcore.cli import Outcome
from stcore.errors import UserError
from stcore.frame_export import check_export_path, export_forecaster
from stcore.grid_commands import ExportOptions
from svq.predict import Forecaster


def command(options: ExportOptions) -> Outcome:
    """Do `svq export`."""
    check_export_path(options.out, options.format)
    forecaster = Forecaster.load(options.run, device="cpu")
    if forecaster.usual is not None:
        raise UserError(f"{options.run}: trained on anomalies, whose usual frames go by the calendar; expected a run "
                        "of data.anomalies false")  # fmt: skip
    return export_forecaster(forecaster, options.out, format=options.format, horizon=options.horizon, seed=options.seed)
