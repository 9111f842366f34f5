"""Training of many node models at once, each as if it were alone.

All parameters are stacked, the nodes as first axis; Adam works number by number, so one optimiser over the stack is an
Adam of each node. The gradient of a node is that of its own loss. A step takes the same windows for all nodes, and
computes the nodes group by group, so that no more than a group's intermediate values are ever kept. Which epoch of a
node is kept, and its weights, are buffers of the trained module: a checkpoint of the core's loop holds them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from gpd.ego import Ego, Egos, pad_egos
from gpd.models.configs import NodeTrainingConfig
from gpd.models.gwn import MOMENTUM
from gpd.models.spec import NodeModel, Training
from gpd.node_data import Part, Scales, Windows, gather
from stcore.sampling import Indices, derive_seed, in_batches, shuffled
from stcore.training.loop import Loss, StepContext

GROUP_ON_CPU, GROUP_ON_GPU = 4, 64
"""Nodes computed at once: on a CPU what stays in its cache, on a GPU what hides the cost of starting kernels."""
EVALUATION_WINDOWS = 256


class NodeBatch(NamedTuple):
    """What one step works on."""

    starts: Tensor
    """First step of each window."""
    nodes: tuple[int, ...]
    """Rows of the networks that this process trains."""
    seeds: tuple[int, ...]
    """Seed of each one's dropout in this step."""
    epoch: int


class NodeBatches:
    """The batches of an epoch: a sample is a network, and each batch holds all of them with the same windows.

    So several processes share the networks between them, not the windows. The number of a sample also tells which
    batch of the epoch it is in.
    """

    def __init__(self, names: Sequence[str], windows: Tensor, training: NodeTrainingConfig, seed: int) -> None:
        self._names, self._windows, self._seed = tuple(names), windows, seed
        self._size, self._drop_last = training.batch, training.drop_last
        self._cut: tuple[int, list[Indices]] = (-1, [])

    def _batches(self, epoch: int) -> list[Indices]:
        if self._cut[0] != epoch:
            cut = in_batches(shuffled(len(self._windows), seed=self._seed, epoch=epoch), self._size)
            self._cut = (epoch, cut[:-1] if self._drop_last and len(cut) > 1 and len(cut[-1]) < self._size else cut)
        return self._cut[1]

    def order(self, epoch: int) -> Sequence[Indices]:
        """Return all networks for every batch."""
        count = len(self._names)
        every = torch.arange(count).numpy()
        return [every + count * number for number in range(len(self._batches(epoch)))]

    def load(self, epoch: int, ids: Indices) -> NodeBatch:
        """Return the windows of a batch, and which networks are meant."""
        count = len(self._names)
        number = int(ids[0]) // count
        nodes = tuple(int(one) % count for one in ids)
        seeds = tuple(derive_seed(self._seed, "dropout", epoch, number, self._names[node]) for node in nodes)
        return NodeBatch(self._windows[torch.from_numpy(self._batches(epoch)[number])], nodes, seeds, epoch)

    def names(self, ids: Indices) -> list[str]:
        """Return the names of the nodes."""
        return [f"node {self._names[int(one) % len(self._names)]}" for one in ids]


class _Group(NamedTuple):
    """Networks that are computed at once."""

    rows: Tensor
    egos: Egos
    places: list[int]
    """Where they are among the networks of the batch."""


class NodeStack(nn.Module):
    """The networks of many nodes, with the part of the data they are trained on; `forward` makes the loss.

    Args:
        network: the model.
        params: its parameters and states, the nodes as first axis.
        egos: ego graph of each node.
        part: the training part.
        scales: of each node.
        training: how they are trained.
    """

    def __init__(
        self,
        network: NodeModel,
        params: Mapping[str, Tensor],
        egos: Sequence[Ego],
        part: Part,
        scales: Scales,
        training: NodeTrainingConfig,
    ) -> None:
        super().__init__()
        self.network, self.egos, self.training_config = network, tuple(egos), training
        self.names = [entry.name for entry in network.spec if entry.used and entry.trained]
        self.state_names = list(network.states)
        for name in self.names:
            self.register_parameter(_key(name), nn.Parameter(params[name].clone()))
        for name in self.state_names:
            self.register_buffer(_key(name), params[name].clone())
        for name in (*self.names, *self.state_names):
            self.register_buffer(f"best/{_key(name)}", params[name].clone())
        count = len(egos)
        self.register_buffer("best_loss", torch.full((count,), math.inf, dtype=torch.float64))
        self.register_buffer("best_epoch", torch.full((count,), -1))
        self.register_buffer("epochs_done", torch.tensor(0))
        self.keep("train", part)
        self.register_buffer("mean", scales.mean, persistent=False)
        self.register_buffer("std", scales.std, persistent=False)
        self._groups: dict[tuple[int, ...], list[_Group]] = {}

    @property
    def _ddp_params_and_buffers_to_ignore(self) -> list[str]:
        """For torch: what processes gather is exchanged here, not copied from the first one."""
        return [name for name, _ in self.named_buffers()]

    def keep(self, which: str, part: Part) -> None:
        """Hold a part of the data, where the module is, and out of checkpoints."""
        self.register_buffer(f"{which}/values", part.values, persistent=False)
        self.register_buffer(f"{which}/known", part.known, persistent=False)
        self.register_buffer(f"{which}/starts", part.starts, persistent=False)

    def part(self, which: str) -> Part:
        """Return a part of the data where the module is."""
        return Part(*(getattr(self, f"{which}/{name}") for name in ("values", "known", "starts")))

    @property
    def scales(self) -> Scales:
        """Scales of the nodes where the module is."""
        return Scales(self.get_buffer("mean"), self.get_buffer("std"), None)

    def current(self) -> dict[str, Tensor]:
        """Return parameters and states as they are now."""
        return {name: getattr(self, _key(name)).detach() for name in (*self.names, *self.state_names)}

    def kept(self) -> dict[str, Tensor]:
        """Return those of each node's best epoch; as they are now where none was chosen."""
        chosen = self.get_buffer("best_epoch") >= 0
        best = {name: self.get_buffer(f"best/{_key(name)}") for name in (*self.names, *self.state_names)}
        return {name: _where(chosen, best[name], now) for name, now in self.current().items()}

    def forward(self, batch: NodeBatch) -> Float[Tensor, ""]:
        """Return the mean loss of the networks of a batch; its gradient is, for each, that of its own loss."""
        parameters = {name: self.get_parameter(_key(name)) for name in self.names}
        whole = len(batch.nodes) == len(self.egos)
        grads = {name: (torch.empty_like if whole else torch.zeros_like)(value) for name, value in parameters.items()}
        losses: list[Tensor] = []
        observed: dict[str, list[Tensor]] = {}
        groups = self.groups(batch.nodes)
        for group in groups:
            leaves = {
                name: value.detach().index_select(0, group.rows).requires_grad_() for name, value in parameters.items()
            }
            training = Training([batch.seeds[place] for place in group.places])
            loss = self.losses({**leaves, **self._states(group.rows)}, group, batch.starts, training)
            found = torch.autograd.grad(loss.sum(), list(leaves.values()))
            for name, gradient in zip(leaves, found, strict=True):
                grads[name].index_copy_(0, group.rows, gradient)
            losses.append(loss.detach())
            for name, value in training.observed.items():
                observed.setdefault(name, []).append(value)
        if observed:
            rows = torch.cat([group.rows for group in groups])
            self._remember({name: torch.cat(values) for name, values in observed.items()}, rows)
        self.get_buffer("epochs_done").fill_(batch.epoch + 1)
        if self.training_config.shared_epochs:
            rows = torch.tensor(batch.nodes, device=self.get_buffer("mean").device)
            grads = self._scaled(grads, rows, shared=batch.epoch < self.training_config.shared_epochs)
        share = len(self.egos) / len(batch.nodes)
        return _Deposit.apply(torch.cat(losses).mean(), share, list(grads.values()), *parameters.values())

    def _scaled(self, grads: Mapping[str, Tensor], rows: Tensor, *, shared: bool) -> dict[str, Tensor]:
        """Return gradients of losses in units of each node's scale; shared, their mean over all nodes of the city."""
        unit, found = self._units(), {name: torch.zeros_like(gradient) for name, gradient in grads.items()}
        for name, gradient in grads.items():
            mine = gradient[rows] / unit[rows].reshape(-1, *(1,) * (gradient.ndim - 1)).to(gradient.dtype)
            found[name][rows] = _summed(mine.sum(dim=0)) / len(self.egos) if shared else mine
        return found

    def _units(self) -> Float[Tensor, " node"]:
        """Return what a loss of 1 in units of each node's scale is in native units."""
        unit = self.scales.std[:, 0].double()
        return unit.square() if self.training_config.loss == "mse" else unit

    def losses(
        self, params: Mapping[str, Tensor], group: _Group, starts: Tensor, training: Training | None
    ) -> Float[Tensor, " node"]:
        """Return the loss of each network of a group, in native units."""
        windows, error = self._errors(params, group, self.part("train"), starts, training)
        if windows.known is None:
            return error.mean(dim=(1, 2))
        return (error * windows.known).sum(dim=(1, 2)) / windows.known.sum(dim=(1, 2)).clamp_min(1)

    def _errors(
        self, params: Mapping[str, Tensor], group: _Group, part: Part, starts: Tensor, training: Training | None
    ) -> tuple[Windows, Float[Tensor, "node batch horizon"]]:
        model, scales = self.network.config, self.scales
        windows = gather(part, group.egos, scales, group.rows, starts, model)
        egos = group.egos
        y = self.network.forward_stacked(params, windows.x, egos.graph, egos.mask, egos.centre, training)
        std, mean = scales.std[group.rows, 0][:, None, None], scales.mean[group.rows, 0][:, None, None]
        return windows, error_of(torch.addcmul(mean, y, std) - windows.y, self.training_config.loss)

    def _states(self, rows: Tensor) -> dict[str, Tensor]:
        return {name: self.get_buffer(_key(name))[rows] for name in self.state_names}

    def _remember(self, observed: Mapping[str, Tensor], rows: Tensor) -> None:
        """Move running statistics towards those of a batch, on all processes."""
        for name, value in observed.items():
            running = self.get_buffer(_key(name))
            change = torch.zeros_like(running)
            change[rows] = MOMENTUM * (value - running[rows])
            running += _summed(change)

    def groups(self, nodes: tuple[int, ...]) -> list[_Group]:
        """Put networks with ego graphs of like sizes together."""
        if nodes not in self._groups:
            device = self.get_buffer("mean").device
            size = self.training_config.group or (GROUP_ON_GPU if device.type == "cuda" else GROUP_ON_CPU)
            order = sorted(range(len(nodes)), key=lambda place: len(self.egos[nodes[place]].nodes))
            found: list[_Group] = []
            for begin in range(0, len(order), size):
                places = order[begin : begin + size]
                rows = [nodes[place] for place in places]
                egos = pad_egos([self.egos[row] for row in rows]).to(device)
                found.append(_Group(torch.tensor(rows, device=device), egos, places))
            self._groups[nodes] = found
        return self._groups[nodes]

    def consider(self, losses: Float[Tensor, " node"], epoch: int) -> None:
        """Keep the weights of those networks that are better than ever before, or of all where all decide together.

        The losses come last: a signal may end an evaluation anywhere, and one that is repeated then finds the same
        networks better and keeps the same weights.
        """
        best = self.get_buffer("best_loss")
        if self.training_config.choose == "together":
            losses = self._together(losses)
        better = losses < best
        for name, now in self.current().items():
            kept = self.get_buffer(f"best/{_key(name)}")
            kept.copy_(_where(better, now, kept))
        self.get_buffer("best_epoch").masked_fill_(better, epoch)
        best.copy_(torch.where(better, losses, best))

    def _together(self, losses: Float[Tensor, " node"]) -> Float[Tensor, " node"]:
        """Return for all networks the mean of their losses, each in units of its own scale."""
        counted = losses.isfinite()
        return (losses / self._units())[counted].mean().expand_as(losses) if counted.any() else losses


class HeldBack:
    """The loss of each node on windows that are not trained on; keeps the best weights of each.

    Args:
        stack: the networks; they hold the part from now on.
        part: what is held back.
        rank: of this process, which evaluates its share of the networks.
        ranks: how many there are.
    """

    def __init__(self, stack: NodeStack, part: Part, *, rank: int, ranks: int) -> None:
        stack.keep("held", part)
        self._stack = stack
        every = torch.arange(len(stack.egos))
        self._mine = tuple(every.tensor_split(ranks)[rank].tolist())

    def __call__(self, model: nn.Module) -> dict[str, float]:
        stack = self._stack
        losses = self.measure()
        stack.consider(losses, int(stack.get_buffer("epochs_done")))
        known = losses[losses.isfinite()]
        best = stack.get_buffer("best_loss")
        best = best[best.isfinite()]
        return {"val/loss": float(known.mean()) if len(known) else 0.0,
                "val/best": float(best.mean()) if len(best) else 0.0}  # fmt: skip

    def measure(self) -> Float[Tensor, " node"]:
        """Return the loss of each network; infinite where nothing is known of its node."""
        stack = self._stack
        device = stack.get_buffer("mean").device
        sums = torch.zeros(2, len(stack.egos), dtype=torch.float64, device=device)
        with torch.no_grad():
            for rows, error, count in self._shares():
                sums[0, rows] += error
                sums[1, rows] += count
        sums = _summed(sums)
        return torch.where(sums[1] > 0, sums[0] / sums[1].clamp_min(1.0), math.inf)

    def _shares(self) -> Iterator[tuple[Tensor, Tensor, Tensor | float]]:
        stack, part = self._stack, self._stack.part("held")
        now = stack.current()
        for group in stack.groups(self._mine) if self._mine else ():
            params = {name: value[group.rows] for name, value in now.items()}
            for starts in part.starts.split(EVALUATION_WINDOWS):
                windows, error = stack._errors(params, group, part, starts, None)  # pyright: ignore[reportPrivateUsage]
                if windows.known is None:
                    yield group.rows, error.double().sum(dim=(1, 2)), float(error[0].numel())
                else:
                    yield group.rows, (error * windows.known).double().sum(dim=(1, 2)), windows.known.sum(dim=(1, 2))


class Step:
    """One step: the mean loss of the networks; each counts as one target."""

    def __call__(self, model: nn.Module, batch: NodeBatch, context: StepContext) -> Loss:
        return Loss(model(batch), float(len(batch.nodes)))


class CosineRate:
    """The learning rate of an epoch: constant, or along half a cosine down to 0."""

    def __init__(self, training: NodeTrainingConfig) -> None:
        self._training = training

    @cached_property
    def _constant(self) -> bool:
        return self._training.decay == "constant"

    def __call__(self, epoch: int) -> float:
        rate = self._training.learning_rate
        return rate if self._constant else rate * 0.5 * (1.0 + math.cos(math.pi * epoch / self._training.epochs))


def make_optimiser(stack: nn.Module, training: NodeTrainingConfig) -> torch.optim.Adam:
    """Return Adam with the decay in the gradient, one for all networks, which is one for each."""
    parameters = list(stack.parameters())
    return torch.optim.Adam(parameters, lr=training.learning_rate, weight_decay=training.weight_decay, fused=True)


class _Deposit(torch.autograd.Function):
    """A value whose gradient was computed with it: the gradients are handed over as they are, times `share`."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, share: float, grads: list[Tensor], *parameters: Tensor) -> Tensor:
        ctx.share, ctx.grads = share, grads
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        factor = float(outer[0]) * ctx.share
        return None, None, None, *(grad if factor == 1.0 else grad.mul_(factor) for grad in ctx.grads)


def _key(name: str) -> str:
    return name.replace(".", "/")  # torch wants no dots in names


def _where(chosen: Tensor, yes: Tensor, no: Tensor) -> Tensor:
    return torch.where(chosen.reshape(-1, *(1,) * (yes.ndim - 1)), yes, no)


def error_of(difference: Tensor, loss: str) -> Tensor:
    """Return the error of each difference: absolute, of Huber, or squared."""
    if loss == "mae":
        return difference.abs()
    if loss == "huber":
        return torch.nn.functional.huber_loss(difference, torch.zeros_like(difference), reduction="none")
    return difference.square()


def _summed(tensor: Tensor) -> Tensor:
    """Add up over the processes; each has zeros where another one knows better."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(tensor)
    return tensor
