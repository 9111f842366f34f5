"""`stpred demo`: the whole job on digits that move in straight lines and bounce, whose future is known."""

from __future__ import annotations

from dataclasses import replace

from stcore.cli import DemoOptions, Outcome
from stpred.config import DEMO
from stpred.data import read_parts, series_of
from stpred.drawing import draw_evaluation
from stpred.evaluate import evaluate, write_report
from stpred.predict import Forecaster
from stpred.train import train


def command(options: DemoOptions) -> Outcome:
    """Do `stpred demo`."""
    config = replace(DEMO, seed=options.seed)
    parts = read_parts(config.data, seed=config.seed)
    result = train(config, parts=parts, run=options.run, preset="demo", device=options.device, quiet=options.quiet)
    forecaster = Forecaster.load(result.run.folder, device=options.device)
    report = evaluate(forecaster, parts.test, series_of(parts.train))
    files = [write_report(report, result.run.folder / "evaluation-test.json")]
    files += draw_evaluation(forecaster, parts.test, report, result.run, result.run.figures)
    side = config.data.generate.canvas
    world = f"a handwritten digit on {side} x {side} cells, moving in a straight line and bouncing off the walls"
    better = 1.0 - report.value("mse") / min(report.value("mse", "persistence"), report.value("mse", "mean frame"))
    verdict = f"MSE {100 * better:.0f} % below the better of the two naive forecasts"
    return Outcome("\n".join([world, report.text(), "", verdict, "", *files]), {**report.data(), "files": files})
