"""The command line: which commands there are and which function takes each."""

from __future__ import annotations

from collections.abc import Sequence

from stcore.cli import Command, ConfigOptions, DemoOptions, NameOptions, Program, run_cli
from stcore.grid_commands import DataOptions, ExportOptions
from stpred import options

PROGRAM = Program(
    "stpred",
    "recurrent video prediction: ConvLSTM, TrajGRU, PredRNN and kin",
    {
        "demo": Command("train on moving digits, evaluate and draw, in about a minute", DemoOptions,
                        "stpred.demo:command"),
        "train": Command("train a model", options.TrainOptions, "stpred.train:command", options.train_defaults),
        "evaluate": Command("score a run per lead time beside naive forecasts", options.EvaluateOptions,
                            "stpred.evaluate:command", options.forecast_defaults),
        "predict": Command("forecast frames", options.PredictOptions, "stpred.predict:command",
                           options.forecast_defaults),
        "convert": Command("turn a checkpoint of the original or of OpenSTL into a run", options.ConvertOptions,
                           "stpred.importing:command"),
        "export": Command("write a model as .pt2 or .onnx, checked", ExportOptions, "stpred.export:command"),
        "moving-mnist": Command("write a file of moving digits", options.MovingMNISTOptions,
                                "stpred.moving_mnist:command"),
        "data check": Command("say what is odd about a data set", DataOptions, "stcore.grid_commands:check"),
        "data describe": Command("say what is in a data set", DataOptions, "stcore.grid_commands:describe"),
        "data list": Command("list the catalogue", NameOptions, "stcore.grid_commands:catalogue"),
        "data fetch": Command("bring a data set of the catalogue here", NameOptions, "stcore.grid_commands:fetch"),
        "config list": Command("list the presets", ConfigOptions, "stpred.inspect:config_list"),
        "config show": Command("print a resolved configuration", ConfigOptions, "stpred.inspect:config_show"),
        "config check": Command("check a configuration file", ConfigOptions, "stpred.inspect:config_check"),
    },
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return run_cli(PROGRAM, argv)


if __name__ == "__main__":
    raise SystemExit(main())
