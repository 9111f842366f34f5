"""The command line: which commands there are and which function takes each."""

from __future__ import annotations

from collections.abc import Sequence

from smash import options
from smash.config import PRESETS, TrainConfig
from stcore.cli import Command, ConfigOptions, DemoOptions, NameOptions, Program, run_cli, train_defaults

PROGRAM = Program(
    "smash",
    "score matching for marked spatio-temporal point processes",
    {
        "demo": Command("simulate, train, evaluate and draw, in about a minute", DemoOptions, "smash.demo:command"),
        "train": Command(
            "train a model",
            options.TrainOptions,
            "smash.train:command",
            train_defaults(TrainConfig, PRESETS, options.DEFAULT_PRESET),
        ),
        "evaluate": Command(
            "score a run beside naive forecasters", options.EvaluateOptions, "smash.evaluate:command",
            options.forecast_defaults,
        ),
        "predict": Command(
            "forecast next events: quantiles, regions, P(mark), several steps", options.PredictOptions,
            "smash.predict:command", options.forecast_defaults,
        ),
        "intensity": Command(
            "the rate of events over time, by kind", options.IntensityOptions, "smash.intensity:command",
            options.forecast_defaults,
        ),
        "sample": Command(
            "draw samples of the next event", options.SampleOptions, "smash.sample:command", options.forecast_defaults
        ),
        "speed": Command("time the samplers", options.SpeedOptions, "smash.speed:command", options.forecast_defaults),
        "convert": Command(
            "turn a file of the original implementation into ours", options.ConvertOptions, "smash.importing:command",
            options.convert_defaults,
        ),
        "data check": Command("say what is odd about a data set", options.DataOptions, "smash.inspect:check"),
        "data describe": Command("say what is in a data set", options.DataOptions, "smash.inspect:describe"),
        "data list": Command("list the catalogue", NameOptions, "smash.inspect:catalogue"),
        "data fetch": Command("bring a data set of the catalogue here", NameOptions, "smash.inspect:fetch"),
        "config list": Command("list the presets", ConfigOptions, "smash.inspect:config_list"),
        "config show": Command("print a resolved configuration", ConfigOptions, "smash.inspect:config_show"),
        "config check": Command("check a configuration file", ConfigOptions, "smash.inspect:config_check"),
    },
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return run_cli(PROGRAM, argv)


if __name__ == "__main__":
    raise SystemExit(main())
