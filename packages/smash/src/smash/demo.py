"""`smash demo`: the whole job on a simulated world whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from smash.config import DataConfig, LossConfig, ModelConfig, NoiseConfig, OptimiserConfig, SamplerConfig, TrainConfig
from smash.drawing import draw_evaluation
from smash.evaluate import evaluate
from smash.predict import Forecaster
from smash.train import train
from stcore.cli import DemoOptions, Outcome
from stcore.events import EventSequences
from stcore.files import to_json, write_atomically
from stcore.generate.events import TrueForecaster, clustered_city
from stcore.splits import cut
from stcore.training.config import LoopConfig

SEQUENCES = 340
SHARES = (0.85, 0.075, 0.075)
DURATION = 40.0
"""Days that each simulated sequence lasts."""

CONFIG = TrainConfig(
    data=DataConfig(source=("simulated",), batch_sequences=8),
    model=ModelConfig(width=32, layers=2, dropout=0.0),
    noise=NoiseConfig(sigma_time=0.1, sigma_location=0.07),
    loss=LossConfig(perturbations=4),
    optimiser=OptimiserConfig(learning_rate=5e-3, final_learning_rate=1e-4, warmup_epochs=1),
    sampler=SamplerConfig(samples=60),
    fit=LoopConfig(epochs=7, clip_norm=1.0),
)
"""Small enough for a minute; a rate five times the preset's makes up for few steps."""


def command(options: DemoOptions) -> Outcome:
    """Do `smash demo`."""
    truth = clustered_city()
    events = truth.simulate(SEQUENCES, duration=DURATION, seed=options.seed)
    parts = cut(SEQUENCES, SHARES, where="simulated", things="sequences").map(events.select)
    config = replace(CONFIG, seed=options.seed)
    result = train(config, parts=parts, run=options.run, preset="demo", device=options.device, quiet=options.quiet)
    forecaster = Forecaster.load(result.run.folder, device=options.device)
    rivals = {"truth": TrueForecaster(truth, parts.test)}
    report = evaluate(forecaster, parts.test, parts.train, seed=options.seed, rivals=rivals, legacy=False)

    def true_rate(times: NDArray[np.float64], sequence: EventSequences) -> NDArray[np.float64]:
        return truth.rate(times, history=sequence)

    path = result.run.folder / "evaluation-test.json"
    write_atomically(path, [to_json(report.data()).encode()])
    drawn = draw_evaluation(forecaster, parts.test, report, result.run, result.run.figures, seed=options.seed,
                            true_rate=true_rate)  # fmt: skip
    world = f"a self-exciting process of {events.num_events:,} events in {SEQUENCES} sequences, simulated"
    files = [str(path), *drawn]
    return Outcome("\n".join([world, report.text(), "", *files]), {**report.data(), "files": files})
