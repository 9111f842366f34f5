"""Figures of an evaluation and of a forecast: maps, errors by lead time, weights of gates and of prototypes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from stcore import figures
from stcore.figures_grids import lead_time_curves
from stcore.figures_panels import weight_maps, weight_tables
from stcore.frame_drawing import draw_frames
from stcore.frame_style import FrameStyle
from stcore.training.run import Run
from vlm4st.watching import BRANCHES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from vlm4st.evaluate import DatasetReport, Example, Report

WORDS = {"mae": "MAE per cell", "rmse": "RMSE per cell"}


def draw_evaluation(report: Report, run: Run, folder: Path, *, cmap: str = "auto") -> list[str]:
    """Draw the figures of an evaluation into `folder` and return their paths.

    Args:
        report: what was found, with an example of each data set.
        run: for the training curves.
        folder: where the figures go.
        cmap: name of a colour map; `auto` takes viridis.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written: list[str] = []
    several = len(report.datasets) > 1
    for found in report.datasets:
        ending = f"-{found.name}" if several else ""
        written += draw_example(found.example, folder / f"forecast{ending}", cmap=cmap) if found.example else []
        written += _draw_errors(found, folder, ending)
        written += _draw_weights(found, folder, ending)
    if run.metrics_file.exists():
        drawn = figures.training_curves(run.metrics_file)
        written.append(str(figures.save_figure(drawn, folder / "training.png")))
    return written


def draw_example(example: Example, stem: Path, *, cmap: str = "auto") -> list[str]:
    """Draw one window with its forecast as `<stem>.png` and `<stem>.gif`."""
    style = style_of(example, cmap)
    return draw_frames(stem, example.history, example.forecast, example.truth, style=style)


def style_of(example: Example, cmap: str = "auto") -> FrameStyle:
    """Return colours, units and time steps for the frames of an example."""
    return FrameStyle(cmap="viridis" if cmap == "auto" else cmap, unit=example.unit, name=example.channel,
                      step=example.step, time_unit=example.time_unit)  # fmt: skip


def _draw_errors(found: DatasetReport, folder: Path, ending: str) -> list[str]:
    written: list[str] = []
    style = style_of(found.example) if found.example else FrameStyle()
    for metric, words in WORDS.items():
        curves = {who: errors["per_lead_time"][metric] for who, errors in found.errors.items()}
        known = {who: values for who, values in curves.items() if np.isfinite(values).all()}
        unit = f" ({found.unit})" if found.unit else ""
        drawn = lead_time_curves(known, metric=f"{words}{unit}", style=style)
        written.append(str(figures.save_figure(drawn, folder / f"lead-time-{metric}{ending}.png")))
    return written


def _draw_weights(found: DatasetReport, folder: Path, ending: str) -> list[str]:
    written: list[str] = []
    maps, patterns = found.seen.gate_maps(), found.seen.pattern_maps()
    if maps is not None:
        written.append(str(figures.save_figure(gate_figure(maps), folder / f"gates{ending}.png")))
    if patterns:
        written.append(str(figures.save_figure(pattern_heatmap(patterns), folder / f"prototypes{ending}.png")))
    return written


def gate_figure(weights: Float[ndarray, "branch height width"]) -> Figure:
    """Draw the mean weight of each branch in each cell, as four maps with one scale.

    Args:
        weights: of temporal, spatial, cross and input; they sum to 1 in each cell.
    """
    return weight_maps(
        dict(zip(BRANCHES, weights, strict=True)), title="What each cell's forecast is gated from", label="mean weight"
    )


def pattern_heatmap(weights: Mapping[str, Float[ndarray, "coarse fine"]]) -> Figure:
    """Draw coarse times fine weight of the prototypes of each modality, with one scale from 0.

    Args:
        weights: means over windows, by modality.
    """
    return weight_tables(weights, title="How often each pattern is used", rows="coarse prototype",
                         columns="fine prototype", label="coarse × fine weight")  # fmt: skip
