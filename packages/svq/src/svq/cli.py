"""The command line: which commands there are and which function takes each."""

from __future__ import annotations

from collections.abc import Sequence

from stcore.cli import Command, ConfigOptions, DemoOptions, NameOptions, Program, run_cli
from stcore.grid_commands import DataOptions, ExportOptions
from svq import options

PROGRAM = Program(
    "svq",
    "forecasts of fields and frames: SimVP with sparse vector quantisation",
    {
        "demo": Command("train on a field carried by winds, evaluate and draw, in about a minute", DemoOptions,
                        "svq.demo:command"),
        "train": Command("train a model", options.TrainOptions, "svq.train:command", options.train_defaults),
        "evaluate": Command("score a run per lead time beside naive forecasts", options.EvaluateOptions,
                            "svq.evaluate:command", options.forecast_defaults),
        "predict": Command("forecast frames", options.PredictOptions, "svq.predict:command",
                           options.forecast_defaults),
        "codebook": Command("say how a run uses its codes", options.CodebookOptions, "svq.codebook:command",
                            options.forecast_defaults),
        "convert": Command("turn an original checkpoint into a run, data into a store", options.ConvertOptions,
                           "svq.importing:command"),
        "export": Command("write a model as .pt2 or .onnx, checked", ExportOptions, "svq.export:command"),
        "data check": Command("say what is odd about a data set", DataOptions, "stcore.grid_commands:check"),
        "data describe": Command("say what is in a data set", DataOptions, "stcore.grid_commands:describe"),
        "data list": Command("list the catalogue", NameOptions, "stcore.grid_commands:catalogue"),
        "data fetch": Command("bring a data set of the catalogue here", NameOptions, "stcore.grid_commands:fetch"),
        "config list": Command("list the presets", ConfigOptions, "svq.inspect:config_list"),
        "config show": Command("print a resolved configuration", ConfigOptions, "svq.inspect:config_show"),
        "config check": Command("check a configuration file", ConfigOptions, "svq.inspect:config_check"),
    },
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return run_cli(PROGRAM, argv)


if __name__ == "__main__":
    raise SystemExit(main())
