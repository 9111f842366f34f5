"""The command line: which commands there are and which function takes each."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

from stcore.cli import Command, ConfigOptions, DemoOptions, NameOptions, Program, run_cli
from stcore.errors import USER_ERROR, UserError
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
        "export": Command("write a model as .pt2 or .onnx, checked", options.ExportOptions, "stpred.export:command"),
        "moving-mnist": Command("write a file of moving digits", options.MovingMNISTOptions,
                                "stpred.moving_mnist:command"),
        "data check": Command("say what is odd about a data set", options.DataOptions, "stpred.inspect:check"),
        "data describe": Command("say what is in a data set", options.DataOptions, "stpred.inspect:describe"),
        "data list": Command("list the catalogue", NameOptions, "stpred.inspect:catalogue"),
        "data fetch": Command("bring a data set of the catalogue here", NameOptions, "stpred.inspect:fetch"),
        "config list": Command("list the presets", ConfigOptions, "stpred.inspect:config_list"),
        "config show": Command("print a resolved configuration", ConfigOptions, "stpred.inspect:config_show"),
        "config check": Command("check a configuration file", ConfigOptions, "stpred.inspect:config_check"),
    },
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments[:1] != ["train"]:
        return run_cli(PROGRAM, arguments)
    try:
        command = replace(PROGRAM.commands["train"], options=options.train_options(arguments[1:]))
    except UserError as error:
        sys.stderr.write(f"error: {error}\n")
        return USER_ERROR
    return run_cli(replace(PROGRAM, commands={**PROGRAM.commands, "train": command}), arguments)


if __name__ == "__main__":
    raise SystemExit(main())
