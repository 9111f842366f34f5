"""What a model says about its own training: the hooks that `Trainer` calls.

A module written for the original `EnhancedModule` (github.com/dreaming-coder/Spatiotemporal-Prediction,
`nn/modules.py`) runs unchanged: the names, arguments and defaults of its nine methods are kept. The `on_*` hooks and
`log` are new, and do nothing unless a subclass says otherwise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

StepOutput = Tensor | Mapping[str, Any] | None
"""What a step returns: a loss, or a mapping that has it under `loss`; None from a training step skips the batch."""


class EnhancedModule(nn.Module, ABC):
    """A network that knows its optimiser, its learning-rate schedule and its training, validation and test steps."""

    optimizer: Optimizer | None
    """The optimiser, while `Trainer.fit` runs."""
    lr_scheduler: Any
    """The learning-rate scheduler of torch, while `Trainer.fit` runs and where there is one."""

    def __init__(self) -> None:
        super().__init__()
        self.optimizer = None
        self.lr_scheduler = None
        self._logged: dict[str, Any] = {}

    @abstractmethod
    def configure_optimizer(self) -> Optimizer:
        """Return the one optimiser of this module's parameters."""

    def configure_lr_scheduler(self, optimizer: Optimizer) -> Any:
        """Return a scheduler of torch for `optimizer`, or None for a constant rate."""
        return None

    @abstractmethod
    def training_step(self, inputs: Any, labels: Any) -> StepOutput:
        """Return the loss of one batch, a mapping that has it under `loss`, or None to skip the batch."""

    def training_step_end(self, step_output: Any) -> StepOutput:
        """Return what takes the place of `step_output`."""
        return step_output

    @abstractmethod
    def validation_step(self, inputs: Any, labels: Any) -> StepOutput:
        """Return the loss of one batch, or a mapping that has it under `loss` beside other scalars."""

    def validation_step_end(self, step_output: Any) -> StepOutput:
        """Return what takes the place of `step_output`."""
        return step_output

    @abstractmethod
    def predict_step(self, inputs: Any, labels: Any) -> Tensor:
        """Return the predicted frames of one batch; `labels` is None where the data has none."""

    def optimizer_step(self) -> None:
        """Let the optimiser step."""
        if self.optimizer is not None:
            self.optimizer.step()

    def lr_scheduler_step(self, *value: float) -> None:
        """Let the scheduler step; `value` is the monitored one where the scheduler waits for a plateau."""
        if self.lr_scheduler is not None:
            self.lr_scheduler.step(*value)

    def on_fit_start(self) -> None:
        """Do nothing; called once, after a checkpoint has been restored."""

    def on_fit_end(self) -> None:
        """Do nothing; called once, after the last epoch."""

    def on_train_epoch_start(self) -> None:
        """Do nothing; called before the first batch of an epoch, and not again when a run goes on inside it."""

    def on_train_epoch_end(self, outputs: Sequence[Any]) -> None:
        """Do nothing; `outputs` holds what the steps of the epoch returned, detached; those since a resume only."""

    def on_validation_epoch_end(self, outputs: Sequence[Any]) -> None:
        """Do nothing; `outputs` holds what the validation steps returned."""

    def on_before_optimizer_step(self, grad_norm: float) -> None:
        """Do nothing; `grad_norm` is the Euclidean norm of the gradient that is about to be applied."""

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Do nothing; whatever is put into `checkpoint` (tensors, numbers, strings, lists, dicts) is kept."""

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Do nothing; `checkpoint` holds what `on_save_checkpoint` put there."""

    def log(self, name: str, value: Tensor | float) -> None:
        """Log a scalar of the running step; it is averaged over batches, weighted by their size.

        Args:
            name: logged as `train/<name>` or `val/<name>`; the same in every batch.
            value: a number or a tensor of one number, finite.
        """
        self._logged[name] = value

    def take_logged(self) -> dict[str, Any]:
        """Return what `log` collected since the last call, and forget it."""
        taken, self._logged = self._logged, {}
        return taken
