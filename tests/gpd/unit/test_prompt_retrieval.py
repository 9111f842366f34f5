"""What prompts are for: the nearest node of another city is one whose model does well here."""

from __future__ import annotations

import numpy as np
import torch

from gpd.finetune import table_for
from gpd.models.configs import NodeModelConfig, NodeTrainingConfig
from gpd.node_data import forecast
from gpd.pretrain import pretrain
from gpd.prompts import SpatialPromptConfig, compute_prompts
from gpd.prompts.retrieval import score_retrieval
from stcore.baselines_graphs import targets
from stcore.generate.traffic import simulate_cities
from stcore.graph_windows import few_shot, require_windows, split_graph
from stcore.graphs import GraphSeries

MODEL = NodeModelConfig(kind="mlp", channels=16, calendar="day")
TRAINING = NodeTrainingConfig(epochs=8, learning_rate=3e-3, weight_decay=0.0, select_on="last", split="chronological")


def errors_of(rows: torch.Tensor, known: GraphSeries, test: GraphSeries) -> np.ndarray:
    """Return the mean absolute error of every row on every node of a city, scaled by what is known of it."""
    starts = require_windows(test, MODEL.history, MODEL.horizon)[::4]
    truth = targets(test, starts, MODEL.history, MODEL.horizon)
    found = np.empty((test.num_nodes, len(rows)))
    for row, numbers in enumerate(rows):
        table = table_for(known, numbers.expand(test.num_nodes, -1), MODEL)
        made = forecast(table, test, starts=starts, device="cpu").numpy().transpose(0, 2, 1)
        found[:, row] = np.abs(made - truth).mean((0, 1))
    return found


def test_nearest_prompts_find_models_that_do_well_on_a_nodes_data() -> None:
    cities = simulate_cities(3, 3, nodes=14, days=10)
    parts = [split_graph(city, "chronological") for city in cities]
    rows = torch.cat([pretrain(city, MODEL, TRAINING, quiet=True, device="cpu", seed=1).rows for city in cities])
    error = np.concatenate([errors_of(rows, part.train, part.test) for part in parts])
    known = [parts[0].train, parts[1].train]
    both = score_retrieval(compute_prompts(known, few_shot(parts[2].train, 3)), error)
    assert both.regret < 0.5 - 4 * both.chance
    assert both.correlation > 0.2
    assert both.nearest_mae < 0.8 * both.random_mae
    none = SpatialPromptConfig(kind="none")
    series = score_retrieval(compute_prompts(known, few_shot(parts[2].train, 3), spatial=none), error)
    assert series.correlation > 0.3
