"""Score forecasts per lead time beside persistence and the mean frame, stream over windows, write a table and figures.

Protocol, named in every report: every window of the part is forecast from its true history, all lead times at once.
Errors are on frames mapped to [0, 1] by the declared range (else by that of the training part), summed over channels,
rows and columns of a frame and averaged over frames, as OpenSTL reports them. Scaling and baselines know the training
part only.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from stcore.baselines_grids import FrameForecaster, MeanFrame, Persistence
from stcore.cli import Outcome, run_of
from stcore.errors import UserError
from stcore.frame_reports import LOWER_IS_BETTER, Report, Rival, score_windows, spread_ids, write_report
from stcore.frame_scaling import Scaling
from stcore.grids import GridSeries
from stcore.sampling import Indices
from stcore.training.run import Run
from stcore.windows import find_windows
from stpred.data import read_parts, series_of
from stpred.options import EvaluateOptions
from stpred.predict import Forecaster, series_for

__all__ = ["LOWER_IS_BETTER", "MODEL", "Report", "evaluate", "write_report"]

MODEL = "stpred"


def evaluate(
    forecaster: Forecaster,
    series: GridSeries,
    train: GridSeries,
    *,
    horizon: int | None = None,
    stride: int | None = None,
    limit: int = 0,
    rivals: dict[str, FrameForecaster] | None = None,
) -> Report:
    """Score a forecaster on every window of `series`.

    Args:
        forecaster: the model.
        series: held-back frames.
        train: the training part, which the mean frame and, without a declared range, the scale are fitted on.
        horizon: frames to forecast; None as configured.
        stride: frames from one window to the next; None as configured.
        limit: windows at most, spread evenly; 0 takes all.
        rivals: further forecasters by name, from and to the scale [0, 1].

    Raises:
        UserError: no window fits, or frames have another size.
    """
    forecaster.check(series, "series")
    options = forecaster.config
    ahead = horizon or forecaster.horizon
    step = stride or options.evaluate.stride or options.data.stride
    windows = find_windows(series, history=forecaster.history, horizon=ahead, stride=step, rule=options.data.windows)
    measure = Scaling.fit(train, "auto")
    mean = MeanFrame(measure.transform(MeanFrame.fit(train).frame))
    known: dict[str, FrameForecaster] = {"persistence": Persistence(), "mean frame": mean, **(rivals or {})}
    others = {name: _in_units(rival, measure, ahead) for name, rival in known.items()}
    ids = spread_ids(len(windows), limit)
    scores = score_windows(forecaster, windows, ids, name=MODEL, measure=measure, rivals=others)
    facts: dict[str, Any] = {
        "protocol": f"{len(ids):,} windows: {ahead} frames from the true {forecaster.history} before them, every "
        f"{step}; sums over a frame on the scale [0, 1]; scale and baselines from the training part alone",
        "windows": len(ids), "history": forecaster.history, "horizon": ahead, "stride": step,
        "model": options.model.kind, "units": list(series.units), "checkpoint": forecaster.facts.get("path", ""),
        "step": forecaster.facts.get("step"), "stpred": forecaster.facts.get("version"),
    }  # fmt: skip
    return Report(
        {name: score.metrics.compute() for name, score in scores.items()},
        {name: score.in_units() for name, score in scores.items()}, facts,
        by_lead={name: score.by_lead() for name, score in scores.items()},
        by_channel={name: score.by_channel(series.channels) for name, score in scores.items()},
    )  # fmt: skip


def _in_units(rival: FrameForecaster, measure: Scaling, horizon: int) -> Rival:
    """Return a forecaster from and to the scale [0, 1] as one from and to the units of the data."""

    def forecast(history: Tensor, ids: Indices) -> Tensor:
        return measure.inverse(rival.predict(measure.transform(history), horizon))

    return forecast


def command(options: EvaluateOptions) -> Outcome:
    """Do `stpred evaluate`."""
    forecaster = Forecaster.load(options.run, device=options.device)
    run = Run(run_of(options.run))
    folder = options.out or run.folder
    if options.out is not None and not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected an existing one for --out")
    parts = read_parts(forecaster.config.data, seed=forecaster.config.seed)
    own = not options.data.source
    series = series_of(parts.named()[options.part]) if own else series_for(options, forecaster, part=options.part)
    report = evaluate(forecaster, series, series_of(parts.train), horizon=options.evaluate.horizon or None,
                      stride=options.evaluate.stride or None, limit=options.limit)  # fmt: skip
    path = folder / f"evaluation-{options.part}.json"
    written = [write_report(report, path)]
    if options.figures:
        from stpred.drawing import draw_evaluation

        written += draw_evaluation(forecaster, series, report, run, folder / "figures", cmap=options.cmap)
    return Outcome("\n".join([report.text(), "", *written]), {**report.data(), "files": written})
