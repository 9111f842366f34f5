"""Callback objects for `Trainer`, and the one place where its events reach callbacks and then the module.

The core's loop has no callbacks: `Trainer` turns the loop's few calls (epoch starts, step ends, evaluation, saving)
into these events. Order: callbacks as they were listed, then the module's hook of the same name.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stpred.module import EnhancedModule
    from stpred.trainer import Trainer


class Callback:
    """Something that listens to a training. Every method does nothing unless a subclass says otherwise."""

    def on_fit_start(self, trainer: Trainer, module: EnhancedModule) -> None:
        """Before the first step, after a checkpoint has been restored."""

    def on_fit_end(self, trainer: Trainer, module: EnhancedModule) -> None:
        """After the last epoch."""

    def on_train_epoch_start(self, trainer: Trainer, module: EnhancedModule) -> None:
        """Before the first batch of an epoch."""

    def on_train_epoch_end(self, trainer: Trainer, module: EnhancedModule, outputs: Sequence[Any]) -> None:
        """After the last batch of an epoch, with what its steps returned."""

    def on_validation_epoch_end(self, trainer: Trainer, module: EnhancedModule, outputs: Sequence[Any]) -> None:
        """After the last validation batch, with what the steps returned."""

    def on_before_optimizer_step(self, trainer: Trainer, module: EnhancedModule, grad_norm: float) -> None:
        """Before the optimiser steps, with the norm of the gradient."""

    def on_save_checkpoint(self, trainer: Trainer, module: EnhancedModule, checkpoint: dict[str, Any]) -> None:
        """When a checkpoint is written; what is put into `checkpoint` is kept for this callback."""

    def on_load_checkpoint(self, trainer: Trainer, module: EnhancedModule, checkpoint: dict[str, Any]) -> None:
        """When a checkpoint is restored, with what this callback put there."""


class Events:
    """Sends each event to the callbacks in their order, then to the module."""

    def __init__(self, trainer: Trainer, module: EnhancedModule, callbacks: Sequence[Callback]) -> None:
        self._trainer, self._module, self._callbacks = trainer, module, callbacks

    def send(self, event: str, *arguments: Any) -> None:
        """Call the method `event` of everyone."""
        for callback in self._callbacks:
            getattr(callback, event)(self._trainer, self._module, *arguments)
        getattr(self._module, event)(*arguments)

    def heard(self, event: str) -> bool:
        """Return whether anybody listens to `event`, so that what it costs need not be paid for nobody."""
        from stpred.module import EnhancedModule

        changed = getattr(type(self._module), event) is not getattr(EnhancedModule, event)
        return changed or any(
            getattr(type(callback), event, None) is not getattr(Callback, event) for callback in self._callbacks
        )

    def collect(self) -> list[dict[str, Any]]:
        """Return what callbacks and module want to keep in a checkpoint, in their order."""
        kept: list[dict[str, Any]] = [{} for _ in range(len(self._callbacks) + 1)]
        for callback, own in zip(self._callbacks, kept, strict=False):
            callback.on_save_checkpoint(self._trainer, self._module, own)
        self._module.on_save_checkpoint(kept[-1])
        return kept

    def hand_back(self, kept: Sequence[dict[str, Any]]) -> None:
        """Give each its own of what `collect` returned; callbacks that were added since get nothing."""
        if not kept:
            return
        for callback, own in zip(self._callbacks, kept[:-1], strict=False):
            callback.on_load_checkpoint(self._trainer, self._module, own)
        self._module.on_load_checkpoint(kept[-1])
