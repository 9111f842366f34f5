"""What training the networks of all nodes at once saves over one after the other; with the cases of the diffusion.

Both sides have the same first weights and take the same windows of METR-LA in the same order, for nodes spread evenly
over the sizes of ego graphs. They run in one process, in turn, and their weights after three steps of Adam are compared
before anything is timed. The plain side (`plain.py`) passes the same recordings of the original. Values are not
dropped on either side, so that both compute the same.

Options: `cases` (names, comma-separated), `nodes` (networks), `repeats` (rounds).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from benchmarks import tables, timing
from benchmarks.gpd import speed_diffusion
from benchmarks.gpd.plain import PlainGWN, PlainSTGCN, train_one_by_one
from torch import Tensor, nn

from gpd.ego import Ego, ego_graphs, pad_egos
from gpd.models.configs import NodeKind, NodeModelConfig, NodeTrainingConfig
from gpd.models.original import convert_node_state
from gpd.models.spec import build_node_model
from gpd.node_data import Part, Scales, fit_scales, gather, make_part
from gpd.node_training import NodeBatch, NodeStack, make_optimiser
from stcore.errors import UserError
from stcore.graph_windows import split_graph
from stcore.graphs import GraphSeries

Row = dict[str, Any]

DATA = "metr_la_week"
BATCH = 64
SAME = 1e-5
"""Largest difference of weights after three steps."""
GOALS: dict[NodeKind, float] = {"stgcn": 4.0, "gwn": 1.8}
GPU_GOAL = 30.0
NAMES: dict[NodeKind, str] = {"stgcn": "v_STGCN5", "gwn": "v_GWN"}


def run(quick: bool, *, cases: str = "", nodes: str = "16", repeats: str = "5") -> Iterator[Row]:
    """Yield the rows of each case.

    Args:
        quick: few nodes, steps and rounds; figures then say only that everything works.
        cases: names of `CASES` to run, separated by commas; all by default.
        nodes: networks that are trained in the cases for a CPU.
        repeats: timed rounds of these.
    """
    wanted = cases.split(",") if cases else list(CASES)
    unknown = sorted(set(wanted) - set(CASES))
    if unknown:
        raise UserError(f"cases: {unknown[0]!r}; expected some of {', '.join(CASES)}")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    size = Size(nodes=4 if quick else int(nodes), steps=3 if quick else 0, repeats=1 if quick else int(repeats))
    for case in wanted:
        for row in CASES[case](quick, size, device):
            yield {"threads": torch.get_num_threads(), "device": name, **row}


def table(rows: Sequence[Row]) -> str:
    """Return the markdown table of the README."""
    cells = [[row["what"], row["plain"], row["ours"], row["result"], row["goal"], row["met"]] for row in rows]
    header = ["what", "beside", "gpd", "result", "goal", "met"]
    return f"{tables.markdown(header, cells)}\n\n{tables.provenance(rows)}"


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    nodes: int
    """Networks; 0 for all nodes of the city."""
    steps: int
    """Batches of an epoch; 0 for all."""
    repeats: int


@dataclass(frozen=True)
class Scene:
    """Networks of some nodes, plain and ours, on the same windows."""

    plain: Sequence[nn.Module]
    model: NodeModelConfig
    egos: Sequence[Ego]
    part: Part
    scales: Scales
    windows: Sequence[tuple[Tensor, Tensor]]
    order: Tensor
    device: torch.device

    @classmethod
    def make(cls, kind: NodeKind, nodes: int, steps: int, device: torch.device) -> Scene:
        """Take nodes evenly from the smallest ego graph to the largest, and an order of the windows."""
        series = split_graph(GraphSeries.read(DATA), "legacy").train
        model = NodeModelConfig(kind=kind, norm="batch", row="legacy", time_of_day=True, dropout=0.0)
        every = sorted(ego_graphs(series.adjacency), key=lambda ego: len(ego.nodes))
        chosen = every if nodes == 0 else [every[int(place)] for place in np.linspace(0, len(every) - 1, nodes)]
        part = make_part(series, model)
        scales = fit_scales(part, chosen)
        torch.manual_seed(0)
        plain = [(PlainSTGCN() if kind == "stgcn" else PlainGWN(dropout=0.0)).to(device) for _ in chosen]
        windows: list[tuple[Tensor, Tensor]] = []
        for row, ego in enumerate(chosen):
            found = gather(part, pad_egos([ego]), scales, torch.tensor([row]), part.starts, model)
            target = (found.y[0] - scales.mean[row, 0]) / scales.std[row, 0]
            windows.append((found.x[0].contiguous().to(device), target.to(device)))
        order = torch.randperm(len(part.starts))[: steps * BATCH or None]
        return cls(plain, model, chosen, part, scales, windows, order, device)

    def one_by_one(self, steps: int = 0) -> list[nn.Module]:
        """Train a copy of each plain network, one after the other."""
        modules = [copy.deepcopy(module) for module in self.plain]
        graphs = [torch.from_numpy(ego.graph).to(self.device) for ego in self.egos]
        means, stds = (each[:, 0].tolist() for each in self.scales[:2])
        train_one_by_one(modules, self.windows, graphs, [ego.centre for ego in self.egos],
                         list(zip(means, stds, strict=True)), steps=steps, batch=BATCH, order=self.order)  # fmt: skip
        self.wait()
        return modules

    def stacked(self, steps: int = 0) -> NodeStack:
        """Train all networks at once."""
        states = [convert_node_state(module.state_dict()).state for module in self.plain]
        params = {name: torch.stack([state[name] for state in states]) for name in states[0]}
        training = NodeTrainingConfig()
        network = build_node_model(self.model, 2)
        stack = NodeStack(network, params, self.egos, self.part, self.scales, training).to(self.device)
        optimiser = make_optimiser(stack, training)
        nodes = tuple(range(len(self.egos)))
        starts = self.part.starts[self.order].to(self.device)
        for number, some in enumerate(starts.split(BATCH)):
            if steps and number >= steps:
                break
            optimiser.zero_grad()
            stack(NodeBatch(some, nodes, nodes, 0)).backward()
            optimiser.step()
        self.wait()
        return stack

    def difference(self, steps: int) -> float:
        """Return by how much the weights of both sides differ after some steps."""
        now = self.stacked(steps).current()
        largest = 0.0
        for row, module in enumerate(self.one_by_one(steps)):
            for name, value in convert_node_state(module.state_dict()).state.items():
                largest = max(largest, float((now[name][row] - value).abs().max()))
        return largest

    def wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def _training(kind: NodeKind) -> Callable[[bool, Size, torch.device], Iterator[Row]]:
    def case(quick: bool, size: Size, device: torch.device) -> Iterator[Row]:
        """Time an epoch on the CPU, stacked beside one by one."""
        yield _compared(f"training-{kind}", kind, Scene.make(kind, size.nodes, size.steps, torch.device("cpu")),
                        size.repeats, GOALS[kind])  # fmt: skip

    return case


def _all_nodes(quick: bool, size: Size, device: torch.device) -> Iterator[Row]:
    """Time some steps of all nodes on a GPU; there is no row without one."""
    if device.type != "cuda":
        return
    for kind in GOALS:
        scene = Scene.make(kind, size.nodes if quick else 0, 5, device)
        yield _compared(f"all-nodes-{kind}", kind, scene, size.repeats, GPU_GOAL)


def _compared(case: str, kind: NodeKind, scene: Scene, repeats: int, goal: float) -> Row:
    difference = scene.difference(3)
    if difference > SAME:
        raise UserError(f"{case}: weights differ by {difference:.1e} after three steps; expected at most {SAME:g}")
    sides = {"plain": scene.one_by_one, "ours": scene.stacked}
    timings = timing.time_in_turn(sides, repeats=repeats)
    pair = timing.compare(timings["plain"], timings["ours"])
    batches = -(-len(scene.order) // BATCH)
    return {
        "case": case,
        "what": f"{batches} steps of {len(scene.egos)} {NAMES[kind]}, all at once beside one after the other, s "
        f"({scene.device.type})",
        **pair,
        "plain": f"{pair['plain_s']:.2f}",
        "ours": f"{pair['ours_s']:.2f}",
        "result": f"{pair['ratio']:.3g} times faster",
        "goal": f"{goal:g} times faster",
        "met": "yes" if pair["ratio"] >= goal else "**no**",
        "largest_difference": difference,
        "ego_sizes": [len(ego.nodes) for ego in scene.egos] if len(scene.egos) <= 32 else len(scene.egos),
    }


def _diffusion(name: str) -> Callable[[bool, Size, torch.device], Iterator[Row]]:
    return lambda quick, size, device: speed_diffusion.CASES[name](quick, device)


CASES: dict[str, Callable[[bool, Size, torch.device], Iterator[Row]]] = {
    "training-stgcn": _training("stgcn"),
    "training-gwn": _training("gwn"),
    "all-nodes": _all_nodes,
    **{name: _diffusion(name) for name in speed_diffusion.CASES},
}
"""What can be measured; a case may yield several rows, or none where it needs a GPU."""
