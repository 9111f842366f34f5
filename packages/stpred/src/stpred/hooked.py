"""An `EnhancedModule` as the core's loop wants it: a module with one `forward`, an optimiser, a schedule.

Hooks other than `forward` must run inside what accelerate wraps around `forward`, so that precision and the exchange
of gradients between processes reach them. Hence a module whose `forward` calls the hook, and an optimiser and a
schedule whose steps call the module's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from stcore.errors import UserError
from stcore.training.forwarded import Forwarded
from stcore.training.loop import Loss, StepContext
from stcore.training.ranks import sum_over_ranks
from stpred.callbacks import Events
from stpred.loaders import size_of, split_batch
from stpred.module import EnhancedModule

Interval = Literal["step", "epoch", "plateau"]
SKIPPED_WEIGHT = 1e-30
"""Weight of a skipped batch beside others: too small to count, large enough to divide by."""


class Hooked(Forwarded):
    """Runs the steps of an `EnhancedModule` with their `*_end` hooks."""

    module: EnhancedModule

    def forward(self, phase: str, inputs: Any, labels: Any) -> Any:
        output = getattr(self.module, f"{phase}_step")(inputs, labels)
        if phase == "predict" or output is None:
            return output
        return getattr(self.module, f"{phase}_step_end")(output)


@dataclass
class Progressed:
    """What steps, optimiser and schedule of one training tell one another."""

    outputs: list[Any] = field(default_factory=list[Any])
    """What the steps of the epoch returned, when somebody wants to know."""
    counted: bool = False
    """Whether a batch since the last optimiser step was not skipped."""
    stepped: bool = False
    """Whether the optimiser stepped, here and on every other process."""
    epoch_open: bool = False
    """Whether an epoch has started whose end has not been told."""


class TrainingStep:
    """One training step for the core's loop."""

    def __init__(self, module: EnhancedModule, events: Events, progress: Progressed) -> None:
        self._module, self._progress = module, progress
        self._keep = events.heard("on_train_epoch_end")

    def __call__(self, model: nn.Module, batch: Any, context: StepContext) -> Loss:
        inputs, labels = split_batch(batch)
        output = model("training", inputs, labels)
        logged = self._module.take_logged()
        if output is None:
            # A gradient of zero, in which every parameter takes part, keeps processes in step with one another.
            nothing = torch.stack([p.sum() for p in self._module.parameters() if p.requires_grad]).sum() * 0.0
            return Loss(nothing, SKIPPED_WEIGHT)
        self._progress.counted = True
        if self._keep:
            self._progress.outputs.append(detached(output))
        parts = {name: torch.as_tensor(value) for name, value in {**scalars_of(output), **logged}.items()}
        return Loss(loss_of(output, "training_step"), float(size_of(inputs)), parts)


class HookedOptimiser(Optimizer):
    """The module's optimiser, whose step goes through the module's `optimizer_step`."""

    def __init__(self, module: EnhancedModule, inner: Optimizer, events: Events, progress: Progressed) -> None:
        # Not initialised as an optimiser of its own: groups and state are those of `inner`.
        self.module, self.inner, self.events, self.progress = module, inner, events, progress
        self.defaults = inner.defaults

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.param_groups

    @property
    def state(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        return self.inner.state

    def state_dict(self) -> dict[str, Any]:
        return self.inner.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.inner.load_state_dict(state_dict)

    def zero_grad(self, set_to_none: bool = True) -> None:
        self.inner.zero_grad(set_to_none=set_to_none)

    def step(self, closure: Any = None) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        self.progress.stepped = self._any_counted()
        self.progress.counted = False
        if not self.progress.stepped:
            return
        if self.events.heard("on_before_optimizer_step"):
            gradients = [p.grad for group in self.param_groups for p in group["params"] if p.grad is not None]
            self.events.send("on_before_optimizer_step", float(nn.utils.get_total_norm(gradients)))
        self.module.optimizer_step()

    def _any_counted(self) -> bool:
        """Return whether any process has a batch that was not skipped: then all of them step."""
        flags = {"counted": float(self.progress.counted)}
        ranks = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
        device = self.param_groups[0]["params"][0].device
        return bool(sum_over_ranks(flags, ranks=ranks, device=device, largest=("counted",))["counted"])


class HookedSchedule:
    """The module's scheduler, stepped once per optimiser step, per epoch, or when evaluated; keeps all hook state."""

    def __init__(self, module: EnhancedModule, events: Events, progress: Progressed, interval: Interval) -> None:
        self._module, self._events, self._progress, self._interval = module, events, progress, interval

    def epoch_start(self, epoch: int) -> None:
        self.end_epoch()
        if epoch > 0 and self._interval == "epoch":
            self._module.lr_scheduler_step()
        self._progress.epoch_open = True
        self._events.send("on_train_epoch_start")

    def end_epoch(self) -> None:
        """Tell the end of the epoch, once."""
        if self._progress.epoch_open:
            self._progress.epoch_open = False
            self._events.send("on_train_epoch_end", self._progress.outputs)
        self._progress.outputs = []

    def step_end(self, step: int) -> None:
        if self._interval == "step" and self._progress.stepped:
            self._module.lr_scheduler_step()

    def evaluated(self, value: float) -> None:
        if self._interval == "plateau":
            self._module.lr_scheduler_step(value)

    def state_dict(self) -> dict[str, Any]:
        scheduler = self._module.lr_scheduler
        return {
            "scheduler": {} if scheduler is None else scheduler.state_dict(),
            "epoch_open": self._progress.epoch_open,
            "kept": self._events.collect(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self._module.lr_scheduler is not None and state["scheduler"]:
            self._module.lr_scheduler.load_state_dict(state["scheduler"])
        self._progress.epoch_open = state["epoch_open"]
        self._events.hand_back(state["kept"])
        # The loop restores weights and optimiser before the schedule, so this is the moment after a restore.
        self._events.send("on_fit_start")


def loss_of(output: Any, where: str) -> Tensor:
    """Return the loss in what a step returned.

    Raises:
        UserError: there is none.
    """
    loss = output.get("loss") if isinstance(output, Mapping) else output
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        if isinstance(output, Mapping) and "loss" not in output:
            found = f"a mapping with {', '.join(map(str, output)) or 'nothing in it'}"
        else:
            found = f"a loss of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise UserError(f"{where}: returned {found}; expected a tensor of one number, or a mapping that has it as loss")
    return loss.reshape(())


def scalars_of(output: Any) -> dict[str, Tensor]:
    """Return the single numbers beside the loss in what a step returned."""
    if not isinstance(output, Mapping):
        return {}
    return {
        str(name): torch.as_tensor(value).detach().reshape(())
        for name, value in output.items()
        if name != "loss" and (isinstance(value, float) or (isinstance(value, Tensor) and value.numel() == 1))
    }


def detached(node: Any) -> Any:
    """Return `node` with every tensor in it cut from its history."""
    if isinstance(node, Tensor):
        return node.detach()
    if isinstance(node, Mapping):
        return {name: detached(value) for name, value in node.items()}
    if isinstance(node, (list, tuple)):
        return [detached(value) for value in node]
    return node
