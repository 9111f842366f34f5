"""Figures of an evaluation: those of every forecaster of frames, and the flows of a TrajGRU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from stcore import figures
from stcore.figures_grids import flow_field
from stcore.frame_drawing import draw_curves, draw_example, example_of
from stcore.frame_reports import Report
from stcore.grids import GridSeries
from stcore.training.run import Run
from stpred.predict import Forecaster


def draw_evaluation(
    forecaster: Forecaster, series: GridSeries, report: Report, run: Run, folder: Path, *, cmap: str = "auto"
) -> list[str]:
    """Draw the figures of an evaluation into `folder` and return their paths.

    Args:
        forecaster: the model.
        series: what was evaluated.
        report: what was found.
        run: for the training curves.
        folder: where the figures go.
        cmap: name of a colour map; `auto` takes grey, or viridis where cells are missing.
    """
    folder.mkdir(parents=True, exist_ok=True)
    example = example_of(forecaster, series, len(report.tables[report.model]["per_lead_time"]["mse"]))
    written = draw_example(example, series, folder, cmap=cmap)
    written += draw_curves(report, series, run, folder, cmap=cmap)
    return written + _flows(forecaster, example.history[None], folder)


def _flows(forecaster: Forecaster, history: NDArray[Any], folder: Path) -> list[str]:
    """Draw where each layer of a TrajGRU looks for its past, at the first forecast frame."""
    from stpred.models.trajgru import TrajGRUForecaster

    model = forecaster.model
    if not isinstance(model, TrajGRUForecaster):
        return []
    past = torch.from_numpy(np.ascontiguousarray(history)).to(forecaster.device)
    with torch.inference_mode():
        flows = model.flows(forecaster.scaling.transform(past), 1)
    written: list[str] = []
    for level, flow in enumerate(flows):
        figure = flow_field(flow[0, 0].float().cpu().numpy(), background=history[0, -1, 0])
        written.append(str(figures.save_figure(figure, folder / f"flow-layer-{level + 1}.png")))
    return written
