"""The command line: which commands there are and which function takes each."""

from __future__ import annotations

from collections.abc import Sequence

from gpd import options
from stcore.cli import Command, ConfigOptions, DemoOptions, NameOptions, Program, run_cli
from stcore.graph_commands import GraphDataOptions

PROGRAM = Program(
    "gpd",
    "forecasts for a city with a few days of data, by generated node models",
    {
        "demo": Command("the whole job on four simulated cities, in about two minutes", DemoOptions,
                        "gpd.demo:command"),
        "run": Command("all stages in order: pretrain, prompts, train, generate, finetune, evaluate",
                       options.StageOptions, "gpd.stages:run_all", options.train_defaults),
        "pretrain": Command("train the node models of the source cities: the table of rows", options.StageOptions,
                            "gpd.stages:pretrain", options.train_defaults),
        "prompts": Command("compute what describes each node", options.LaterOptions, "gpd.stages:prompts",
                           options.later_defaults),
        "train": Command("train the diffusion model of rows", options.StageOptions, "gpd.stages:train",
                         options.train_defaults),
        "generate": Command("generate the rows of the target city", options.LaterOptions, "gpd.stages:generate",
                            options.later_defaults),
        "finetune": Command("train the generated rows on the target's few days", options.LaterOptions,
                            "gpd.stages:finetune", options.later_defaults),
        "evaluate": Command("score the target's forecasts beside all rivals, and draw", options.EvaluateOptions,
                            "gpd.evaluate:command", options.later_defaults),
        "predict": Command("forecast with the node models of a run", options.PredictOptions, "gpd.predict:command",
                           options.forecast_defaults),
        "convert": Command("turn the original's files into ours, data into .npz", options.ConvertOptions,
                           "gpd.importing:command"),
        "data check": Command("say what is odd about a city", GraphDataOptions, "stcore.graph_commands:check"),
        "data describe": Command("say what is in a city", GraphDataOptions, "stcore.graph_commands:describe"),
        "data list": Command("list the catalogue", NameOptions, "stcore.graph_commands:catalogue"),
        "data fetch": Command("bring a data set of the catalogue here", NameOptions, "stcore.graph_commands:fetch"),
        "config list": Command("list the presets", ConfigOptions, "gpd.inspect:config_list"),
        "config show": Command("print the resolved configuration", ConfigOptions, "gpd.inspect:config_show"),
        "config check": Command("check a configuration", ConfigOptions, "gpd.inspect:config_check"),
    },
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    return run_cli(PROGRAM, argv)


if __name__ == "__main__":
    raise SystemExit(main())
