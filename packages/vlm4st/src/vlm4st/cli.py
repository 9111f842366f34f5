"""The command line: which commands there are and which function takes each."""

from __future__ import annotations

from collections.abc import Sequence

from stcore.cli import Command, ConfigOptions, DemoOptions, NameOptions, Program, run_cli
from vlm4st import options

PROGRAM = Program(
    "vlm4st",
    "forecasts of grids with a vision-language backbone",
    {
        "demo": Command("train on crowds in a street grid, evaluate and draw, in about a minute", DemoOptions,
                        "vlm4st.demo:command"),
        "train": Command("train a model", options.TrainOptions, "vlm4st.train:command", options.train_defaults),
        "evaluate": Command("score a run per lead time beside naive forecasts", options.EvaluateOptions,
                            "vlm4st.evaluate:command", options.forecast_defaults),
        "test": Command("evaluate with the original's options", options.TestOptions, "vlm4st.testing:command"),
        "few-shot": Command("train with little of a target, or none of it, and test there", options.FewShotOptions,
                            "vlm4st.few_shot:command", options.train_defaults),
        "predict": Command("forecast frames", options.PredictOptions, "vlm4st.predict:command",
                           options.forecast_defaults),
        "convert": Command("turn weights, checkpoints and data of the original into ours", options.ConvertOptions,
                           "vlm4st.importing:command"),
        "export": Command("write a model as .pt2 or .onnx, checked", options.ExportOptions, "vlm4st.export:command"),
        "data check": Command("say what is odd about data sets", options.DataOptions, "vlm4st.inspect:data_check"),
        "data describe": Command("say what is in data sets", options.DataOptions, "vlm4st.inspect:data_describe"),
        "data list": Command("list the catalogue", NameOptions, "stcore.grid_commands:catalogue"),
        "data fetch": Command("bring a data set of the catalogue here", NameOptions, "stcore.grid_commands:fetch"),
        "config list": Command("list the presets", ConfigOptions, "vlm4st.inspect:config_list"),
        "config show": Command("print a resolved configuration", ConfigOptions, "vlm4st.inspect:config_show"),
        "config check": Command("check a configuration file", ConfigOptions, "vlm4st.inspect:config_check"),
    },
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    return run_cli(PROGRAM, argv)


if __name__ == "__main__":
    raise SystemExit(main())
