"""`vlm4st demo`: the whole job on people in a street grid, with the rhythm of days and weeks."""

from __future__ import annotations

from dataclasses import replace

from stcore.cli import DemoOptions, Outcome
from vlm4st.drawing import draw_evaluation
from vlm4st.evaluate import MODEL, Report, evaluate, write_report
from vlm4st.predict import Forecaster
from vlm4st.presets import DEMO
from vlm4st.train import read, train


def command(options: DemoOptions) -> Outcome:
    """Do `vlm4st demo`."""
    config, sources = read(replace(DEMO, seed=options.seed))
    result = train(config, sources=sources, run=options.run, preset="demo", device=options.device, quiet=options.quiet)
    forecaster = Forecaster.load(result.run.folder, device=options.device)
    report = evaluate(forecaster, sources)
    report = replace(report, remarks=(_verdict(report),))
    files = [write_report(report, result.run.folder / "evaluation-test.json")]
    files += draw_evaluation(report, result.run, result.run.figures)
    rows, columns = sources[0].native
    head = f"people on {rows} x {columns} blocks of a street grid, with the rhythm of days and weeks"
    return Outcome("\n".join([head, report.text(), "", *files]), {**report.data(), "files": files})


def _verdict(report: Report) -> str:
    """Return how the model does against persistence."""
    found = report.datasets[0]
    mine, last = found.value("mae", MODEL), found.value("mae", "persistence")
    return f"against persistence: mae {mine:.4g} and {last:.4g}, {100 * (1 - mine / last):.0f} % below"
