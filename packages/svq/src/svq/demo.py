"""`svq demo`: the whole job on weather that winds carry around a globe, whose best forecast is known."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from stcore.cli import DemoOptions, Outcome
from stcore.frame_reports import Report, write_report
from stcore.generate.advection import Advection
from svq.codebook import examine
from svq.data import read_parts
from svq.drawing import draw_codebook, draw_evaluation
from svq.evaluate import evaluate
from svq.predict import Forecaster
from svq.presets import DEMO
from svq.train import train

LAW = "law"


@dataclass(frozen=True)
class Law:
    """The best forecast that there is, from the law of the world."""

    world: Advection

    def predict(self, history: Tensor, horizon: int, *, times: Any = None) -> Tensor:
        """Return the conditional mean of the frames after the last."""
        found = self.world.best_forecast(history[:, -1, 0].numpy(), horizon)
        return torch.from_numpy(found[:, :, None]).to(history)


def command(options: DemoOptions) -> Outcome:
    """Do `svq demo`."""
    config, world = replace(DEMO, seed=options.seed), Advection()
    parts = read_parts(config)
    result = train(config, parts=parts, run=options.run, preset="demo", device=options.device, quiet=options.quiet)
    forecaster = Forecaster.load(result.run.folder, device=options.device)
    report = evaluate(forecaster, parts.test, parts.train, rivals={LAW: Law(world)})
    codes = examine(forecaster, parts.test, limit=16)
    report = replace(report, remarks=(*_verdict(report), codes.text()))
    files = [write_report(report, result.run.folder / "evaluation-test.json")]
    files += draw_evaluation(forecaster, parts.test, report, result.run, result.run.figures)
    files.append(draw_codebook(codes, result.run.figures))
    size = f"{world.height} x {world.width}"
    head = f"weather on {size} cells, carried by winds around the globe while it fades and is stirred anew"
    return Outcome("\n".join([head, report.text(), "", *files]), {**report.data(), "files": files})


def _verdict(report: Report) -> tuple[str, ...]:
    """Return how the model does between the naive forecasts and the law, which nothing can beat."""
    error = {who: found["rmse"] for who, found in report.in_units.items()}
    mine, law = error.pop(report.model), error.pop(LAW)
    who, naive = min(error.items(), key=lambda item: item[1])
    return (
        f"rmse {mine:.3g} {report.facts['units'][0]}: {100 * (1 - mine / naive):.0f} % below the best naive forecast "
        f"({who}, {naive:.3g}); nothing can be below {law:.3g}, the error of the law itself: "
        f"{100 * (naive - mine) / (naive - law):.0f} % of the way there",
    )
