"""`smash speed`: time the samplers on real histories, warmed up, without metrics and without writing samples.

The counterpart of the sampling-time test that goes around with forks of the original.
"""

from __future__ import annotations

import resource
import statistics
import time
from dataclasses import replace
from typing import Any

import torch

from smash.config import SamplerConfig
from smash.options import SpeedOptions
from smash.predict import Forecaster, events_of
from smash.sampling import location_steps, sample
from stcore.cli import Outcome
from stcore.errors import UserError


def command(options: SpeedOptions) -> Outcome:
    """Do `smash speed`."""
    for name in ("events", "repeats"):
        if getattr(options, name) < 1:
            raise UserError(f"--{name}: {getattr(options, name)}; expected at least 1")
    forecaster = Forecaster.load(options.run, device=options.device)
    events = events_of(options, forecaster)
    conditions = forecaster.conditions(events)[: options.events]
    rows = [measure(forecaster, conditions, replace(options.sampler, mode=mode), options.repeats)
            for mode in options.modes]  # fmt: skip
    lines = [
        f"{row['mode']:<10} {row['seconds_per_1000_events']:10.2f} s per 1,000 events of {row['samples']} samples, "
        f"{row['steps_per_second']:,.0f} event·sample·steps/s, {row['peak_mb']:.0f} MB at peak"
        for row in rows
    ]
    return Outcome("\n".join(lines), {"rows": rows, "threads": torch.get_num_threads()})


def measure(forecaster: Forecaster, conditions: torch.Tensor, sampler: SamplerConfig, repeats: int) -> dict[str, Any]:
    """Time one sampler over given histories; the median of `repeats` runs after one that is not counted."""
    seeds = torch.arange(len(conditions))
    seconds: list[float] = []
    with torch.inference_mode():
        for _ in range(repeats + 1):
            started = time.perf_counter()
            sample(forecaster.model, conditions, sampler=sampler, noise=forecaster.config.noise, seeds=seeds)
            if conditions.device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
    median = statistics.median(seconds[1:])
    marked = forecaster.model.marked
    chain = sampler.langevin_steps + (sampler.refine_steps if marked else 0)
    steps = location_steps(sampler, forecaster.config.noise) if sampler.mode == "exact" else chain
    return {
        "mode": sampler.mode,
        "events": len(conditions),
        "samples": sampler.samples,
        "steps": steps,
        "seconds": median,
        "seconds_per_1000_events": 1000.0 * median / len(conditions),
        "steps_per_second": len(conditions) * sampler.samples * steps / median,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024.0,
    }
