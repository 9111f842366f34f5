"""Train a network for every node of a source city."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpd.averages import day_averages
from gpd.ego import Ego, ego_graphs
from gpd.models.configs import NodeModelConfig, NodeTrainingConfig
from gpd.models.spec import NodeModel, build_node_model, input_features, to_rows
from gpd.node_data import Part, Scales, fit_scales, make_part
from gpd.node_training import CosineRate, HeldBack, NodeBatches, NodeStack, Step, make_optimiser
from gpd.rows import RowTable
from stcore.configuration import to_plain
from stcore.errors import UserError
from stcore.graph_windows import split_graph
from stcore.graphs import GraphSeries
from stcore.sampling import derive_seed
from stcore.training.checkpoint import Checkpoint
from stcore.training.config import LoopConfig
from stcore.training.loop import Select, fit
from stcore.training.ranks import make_accelerator
from stcore.training.rates import RateByEpoch
from stcore.training.run import load_for_resume
from stcore.training.starting import new_run


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    """What the run of a training writes down of itself."""

    model: NodeModelConfig
    training: NodeTrainingConfig
    seed: int


def pretrain(
    series: GraphSeries,
    model: NodeModelConfig,
    training: NodeTrainingConfig,
    *,
    run: Path | None = None,
    resume: Path | None = None,
    seed: int = 42,
    device: str = "auto",
    quiet: bool = False,
    nodes: Sequence[int] | None = None,
) -> RowTable:
    """Train a network for each node of a source city and return the best of each.

    Args:
        series: the whole timeline of the city; `training.split` says which part trains and which one decides.
        model: kind and sizes of the networks.
        training: how they are trained.
        run: folder of the run; None keeps nothing.
        resume: a run or one of its checkpoints to go on with.
        seed: of weights, order and dropout; with the same seed, networks of all cities start alike.
        device: `auto`, `cpu` or `cuda`.
        quiet: show no progress.
        nodes: numbers of the nodes to train, all by default; their neighbours are inputs all the same.

    Raises:
        UserError: the city is too short, or `select_on` is not for sources.
        Diverged, Interrupted: see `stcore.training.loop.fit`.
    """
    if training.select_on == "tail":
        raise UserError(
            "pretrain.select-on: 'tail'; expected val, test or last: a tail is for the few days of a target"
        )
    if training.closed_form:
        raise UserError("pretrain.closed-form: true; expected false: it is for the few days of a target")
    parts = split_graph(series, training.split)
    scored = {"val": parts.val, "test": parts.test, "last": None, "tail": None}[training.select_on]
    averages = day_averages(parts.train) if model.residual == "average" else None
    days = training.average_days
    train = make_part(parts.train, model, averages, leave_out=True, average_days=days, what="training part")
    known = averages
    if days and averages is not None:  # as many are known of what is held back as in training
        dates = parts.train.day_number()
        known = day_averages(parts.train.slice(int(np.searchsorted(dates, np.unique(dates)[-days:][0])), None))
    held = None if scored is None else make_part(scored, model, known, what=f"{training.select_on} part")
    whole = train
    if training.statistics == "full":
        whole = make_part(series, model, averages, what="series")
    return train_nodes(
        series, model, training, train=train, held=held, statistics=whole, averages=averages, nodes=nodes, run=run,
        resume=resume, seed=seed, device=device, quiet=quiet, stage="pretrain",
    )  # fmt: skip


def train_nodes(
    series: GraphSeries,
    model: NodeModelConfig,
    training: NodeTrainingConfig,
    *,
    train: Part,
    held: Part | None,
    statistics: Part,
    averages: Tensor | None,
    nodes: Sequence[int] | None,
    run: Path | None,
    resume: Path | None,
    seed: int,
    device: str,
    quiet: bool,
    stage: str,
    rows: Tensor | None = None,
) -> RowTable:
    """Train the networks of some nodes of a city on one part and choose each one's epoch by another.

    Args:
        series: the city; its graph and names count.
        model: kind and sizes of the networks.
        training: how they are trained.
        train: what they are trained on.
        held: what decides about the epoch of each; None keeps the last.
        statistics: what the scales are taken from.
        averages: of every node of the city by time of day, where forecasts are deviations from them.
        nodes: numbers of the nodes; None for all.
        run: folder of the run; None keeps nothing.
        resume: a run or one of its checkpoints to go on with.
        seed: of weights, order and dropout.
        device: `auto`, `cpu` or `cuda`.
        quiet: show no progress.
        stage: name in the run.
        rows: networks to start from; None draws them.
    """
    chosen = list(range(series.num_nodes)) if nodes is None else list(nodes)
    egos = ego_graphs(series.adjacency, chosen)
    scales = fit_scales(statistics, egos, averages, model)
    network = build_node_model(model, input_features(model, series.num_channels))
    names = [series.nodes[node] for node in chosen]
    params = first_params(network, names, training, seed) if rows is None else _from_rows(rows, network, names, model)
    stack = NodeStack(network, params, egos, train, scales, training)
    facts = _facts(series, names, model, training, seed, stage, train)
    if run is None and resume is None:
        with tempfile.TemporaryDirectory(prefix="gpd-") as folder:
            _fit(stack, held, names, facts, Path(folder) / "run", None, model, training, seed, device, quiet)
    else:
        _fit(stack, held, names, facts, run, resume, model, training, seed, device, quiet)
    return _table(stack, series, chosen, egos, scales, facts)


def first_params(
    network: NodeModel, names: Sequence[str], training: NodeTrainingConfig, seed: int
) -> dict[str, Tensor]:
    """Draw the first weights of the nodes `names`: the same for all, or of each its own, whatever city it is of."""
    if training.start == "shared":
        one = network.init(torch.Generator().manual_seed(derive_seed(seed, "first weights")), 1)
        return {name: value.repeat(len(names), *(1,) * (value.ndim - 1)) for name, value in one.items()}
    each = [network.init(torch.Generator().manual_seed(derive_seed(seed, "first weights", name)), 1) for name in names]
    return {key: torch.cat([params[key] for params in each]) for key in each[0]}


def _from_rows(rows: Tensor, network: NodeModel, names: Sequence[str], model: NodeModelConfig) -> dict[str, Tensor]:
    if len(rows) != len(names):
        raise UserError(f"rows: {len(rows)} for {len(names)} nodes; expected one for each")
    table = RowTable(rows=rows, model=model, features=network.features, cities=("",) * len(rows), nodes=tuple(names))
    return table.params()


def _fit(
    stack: NodeStack, held: Part | None, names: Sequence[str], facts: dict[str, Any], folder: Path | None,
    resume: Path | None, model: NodeModelConfig, training: NodeTrainingConfig, seed: int, device: str, quiet: bool,
) -> None:  # fmt: skip
    directory, checkpoint = load_for_resume(resume) if resume else (None, None)
    if checkpoint is not None:
        require_same(checkpoint, facts)
    accelerator = make_accelerator(device)
    stack.to(accelerator.device)
    evaluate = None
    if held is not None:
        evaluate = HeldBack(stack, held, rank=int(accelerator.process_index), ranks=int(accelerator.num_processes))
        stack.to(accelerator.device)
        if checkpoint is None:
            # What a training starts from is a candidate too: it may be the best there is.
            stack.consider(evaluate.measure(), 0)
    optimiser = make_optimiser(stack, training)
    settings = RunSettings(model=model, training=training, seed=seed)
    loop = LoopConfig(epochs=training.epochs, evaluate_every=training.evaluate_every, patience=training.patience,
                      checkpoint_every=training.checkpoint_every, log_every=training.log_every)  # fmt: skip
    fit(
        stack, Step(), NodeBatches(names, stack.part("train").starts.cpu(), training, seed), optimiser, config=loop,
        run=directory or new_run(folder, settings, package="gpd", preset=str(facts["stage"]), accelerator=accelerator),
        seed=seed, facts=facts, schedule=RateByEpoch(optimiser, CosineRate(training)), evaluate=evaluate,
        select=Select("val/best"), resume=checkpoint, device=device, quiet=quiet,
    )  # fmt: skip


def require_same(checkpoint: Checkpoint, facts: dict[str, Any]) -> None:
    """Refuse to go on with a run that was made from something else.

    Raises:
        UserError: names what differs.
    """
    for name in ("package", "stage", "data", "nodes", "model", "training", "seed"):
        if checkpoint.metadata.get(name) != facts[name]:
            raise UserError(f"{checkpoint.path}: made from another {name}; expected the same; start a new run")


def _facts(
    series: GraphSeries, names: Sequence[str], model: NodeModelConfig, training: NodeTrainingConfig, seed: int,
    stage: str, train: Part,
) -> dict[str, Any]:  # fmt: skip
    digest = hashlib.sha256(train.values.numpy().tobytes())
    digest.update(train.starts.numpy().tobytes())
    digest.update(series.adjacency.edges.tobytes() + series.adjacency.weights.tobytes())
    settings = {key: value for key, value in to_plain(training).items() if key != "group"}
    return {"package": "gpd", "version": version("gpd"), "stage": stage, "city": series.name, "nodes": list(names),
            "data": digest.hexdigest()[:32], "model": to_plain(model), "training": settings, "seed": seed}  # fmt: skip


def _table(
    stack: NodeStack, series: GraphSeries, chosen: Sequence[int], egos: Sequence[Ego], scales: Scales,
    facts: dict[str, Any],
) -> RowTable:  # fmt: skip
    network, kept = stack.network, {name: value.cpu() for name, value in stack.kept().items()}
    best = stack.get_buffer("best_loss").cpu()
    metadata = {
        **facts,
        "best_epoch": stack.get_buffer("best_epoch").tolist(),
        "best_loss": [value if value < float("inf") else None for value in best.tolist()],
        "ego_sizes": [len(ego.nodes) for ego in egos],
    }
    averages = scales.averages
    inside_rows = network.config.append_statistics
    return RowTable(
        rows=to_rows(kept, network.spec),
        model=network.config,
        features=network.features,
        cities=(series.name,) * len(chosen),
        nodes=tuple(series.nodes[node] for node in chosen),
        mean=scales.mean,
        std=scales.std,
        averages=None if averages is None else averages[torch.tensor(list(chosen))].float(),
        states={} if inside_rows else {name: kept[name] for name in stack.state_names},
        metadata=metadata,
    )
