"""`gpd demo`: the whole job on four simulated cities whose roads obey one law, three of them sources."""

from __future__ import annotations

from dataclasses import replace

from gpd.data import simulated
from gpd.evaluate import report_and_figures
from gpd.pipeline import Pipeline
from gpd.presets import DEMO
from stcore.cli import DemoOptions, Outcome


def command(options: DemoOptions) -> Outcome:
    """Do `gpd demo`."""
    config = replace(DEMO, seed=options.seed)
    cities = simulated(options.seed)
    pipeline = Pipeline.start(config, run=options.run, preset="demo", device=options.device, quiet=options.quiet,
                              sources=cities[:-1], target=cities[-1])  # fmt: skip
    found = report_and_figures(pipeline)
    sizes = ", ".join(f"{city.name} with {city.num_nodes} roads" for city in cities[:-1])
    head = (f"four cities whose roads obey one law: {sizes}, and {cities[-1].name} with {config.data.days} days of "
            f"{cities[-1].num_nodes} roads")  # fmt: skip
    return Outcome(f"{head}\n{found.text}", found.data)
