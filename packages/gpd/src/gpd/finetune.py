"""Train the networks of a target city on the few days that are known of it, from generated rows or from scratch."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from gpd.averages import day_averages, num_days
from gpd.closed_form import tune
from gpd.ego import ego_graphs, pad_egos
from gpd.models.configs import NodeModelConfig, NodeTrainingConfig
from gpd.models.spec import Training, build_node_model, input_features, row_size, to_rows
from gpd.node_data import few_shot_windows, gather, make_part, scales_of, table_for
from gpd.pretrain import first_params, train_nodes
from gpd.rows import RowTable
from stcore.configuration import to_plain
from stcore.errors import UserError
from stcore.graphs import GraphSeries

_log = logging.getLogger(__name__)

__all__ = ["finetune", "recalibrate", "table_for"]


def finetune(
    series: GraphSeries,
    rows: Tensor | None,
    model: NodeModelConfig,
    training: NodeTrainingConfig,
    *,
    run: Path | None = None,
    resume: Path | None = None,
    seed: int = 42,
    device: str = "auto",
    quiet: bool = False,
    test: GraphSeries | None = None,
    whole: GraphSeries | None = None,
) -> RowTable:
    """Train a network for each node on a few days.

    Args:
        series: the few days; nothing else of the city is looked at, unless one of the last two arguments says so.
        rows: networks to start from, one for each node; None draws them, as training from scratch does; in closed form
            they are zeros.
        model: kind and sizes of the networks.
        training: how they are trained; `select_on` is `tail`, `last` or `test`.
        run: folder of the run; None keeps nothing.
        resume: a run or one of its checkpoints to go on with.
        seed: of weights, order and dropout.
        device: `auto`, `cpu` or `cuda`.
        quiet: show no progress.
        test: the test part, for `select_on = "test"` alone, which repeats a leak of the original.
        whole: the whole timeline, for `statistics = "full"` alone, which repeats another.

    Raises:
        UserError: too few days, or an option that needs what is not there.
        Diverged, Interrupted: see `stcore.training.loop.fit`.
    """
    if training.select_on == "val":
        raise UserError("finetune.select-on: 'val'; expected tail, last or test: a few days have no validation part")
    averages = day_averages(series) if model.residual == "average" else None
    if averages is not None and num_days(series) == 1:
        _log.warning("%s: a single day, whose deviations from other days nobody knows: networks stay as they start",
                     series.name or "graph")  # fmt: skip
        return _untrained(series, rows, model, training, seed)
    part = make_part(series, model, averages, leave_out=True, what="few days")
    if training.closed_form:
        start = _untrained(series, _zeros(series, model) if rows is None else rows, model, training, seed)
        return tune(start, series, training, device=device)
    train, held = part, None
    if training.select_on == "tail":
        early, late = few_shot_windows(series, model, training.tail)
        train, held = part.with_windows(early), part.with_windows(late)
    elif training.select_on == "test":
        held = make_part(_required(test, "select-on", "test", "the test part"), model, averages, what="test part")
    statistics = part
    if training.statistics == "full":
        statistics = make_part(_required(whole, "statistics", "full", "the whole timeline"), model, averages)
    return train_nodes(
        series, model, training, train=train, held=held, statistics=statistics, averages=averages, nodes=None, run=run,
        resume=resume, seed=seed, device=device, quiet=quiet, stage="finetune", rows=rows,
    )  # fmt: skip


def _untrained(
    series: GraphSeries, rows: Tensor | None, model: NodeModelConfig, training: NodeTrainingConfig, seed: int
) -> RowTable:
    """Return the rows that a training would start from, as one that found nothing better does."""
    if rows is None:
        network = build_node_model(model, input_features(model, series.num_channels))
        rows = to_rows(first_params(network, series.nodes, training, seed), network.spec)
    table, count = table_for(series, rows, model, training.statistics), series.num_nodes
    facts = {"training": to_plain(training), "best_epoch": [0] * count, "best_loss": [None] * count}
    return replace(table, metadata={**table.metadata, **facts})


def _zeros(series: GraphSeries, model: NodeModelConfig) -> Tensor:
    """Return rows whose networks forecast what forecasts start from."""
    return torch.zeros(
        series.num_nodes, row_size(build_node_model(model, input_features(model, series.num_channels)).spec)
    )


def recalibrate(table: RowTable, series: GraphSeries, *, batch: int = 64) -> RowTable:
    """Give networks with batch normalisation the running statistics of a few days: the mean over their batches.

    A row that was generated has none; the original then forecasts with mean 0 and variance 1, which is another
    function than the one that was trained. Whether this helps has to be measured: dropping is off here, and on in
    training.

    Args:
        table: rows with the scales of the city, see `table_for`.
        series: the few days.
        batch: windows per batch.
    """
    model, network = table.model, table.network
    if not network.states:
        return table
    averages = day_averages(series) if model.residual == "average" else None
    part = make_part(series, model, averages, leave_out=True, what="few days")
    scales = scales_of(table)
    params, egos = table.params(), ego_graphs(series.adjacency)
    states = {name: torch.empty(len(table), *shape) for name, shape in network.states.items()}
    for row, ego in enumerate(egos):
        one, padded = torch.tensor([row]), pad_egos([ego])
        mine = {name: value[one] for name, value in params.items()}
        seen: list[dict[str, Tensor]] = []
        with torch.inference_mode():
            for starts in part.starts.split(batch):
                training = Training()
                x = gather(part, padded, scales, one, starts, model).x
                network.forward_stacked(mine, x, padded.graph, padded.mask, padded.centre, training)
                seen.append(training.observed)
        for name in states:
            states[name][row] = torch.stack([found[name][0] for found in seen]).mean(dim=0)
    if model.append_statistics:
        return replace(table, rows=to_rows(params | states, table.spec))
    return replace(table, states=states)


def _required(series: GraphSeries | None, option: str, value: str, what: str) -> GraphSeries:
    if series is None:
        raise UserError(f"finetune.{option}: {value!r} without {what}; expected it to be handed over")
    return series
