"""An `EnhancedModule` for users of Lightning (extra `lightning`)."""

from __future__ import annotations

from typing import Any

from stcore.errors import UserError
from stpred.hooked import loss_of, scalars_of
from stpred.loaders import size_of, split_batch
from stpred.module import EnhancedModule


def as_lightning(module: EnhancedModule) -> Any:
    """Return a `LightningModule` that trains `module`: its hooks, its scheduler once per step, `val_loss` per epoch.

    Raises:
        UserError: Lightning is not installed.
    """
    try:
        from lightning import LightningModule
    except ImportError:
        raise UserError("as_lightning: lightning is not installed; install the extra `lightning`") from None

    class Adapted(LightningModule):
        """Steps of an `EnhancedModule` under Lightning's names."""

        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def configure_optimizers(self) -> Any:
            optimizer = module.configure_optimizer()
            scheduler = module.configure_lr_scheduler(optimizer)
            if scheduler is None:
                return optimizer
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            output = module.training_step(*split_batch(batch))
            return None if output is None else loss_of(module.training_step_end(output), "training_step")

        def validation_step(self, batch: Any, batch_idx: int) -> Any:
            inputs, labels = split_batch(batch)
            output = module.validation_step_end(module.validation_step(inputs, labels))
            values = {"val_loss": loss_of(output, "validation_step"),
                      **{f"val_{name}": value for name, value in scalars_of(output).items()}}  # fmt: skip
            self.log_dict(values, on_step=False, on_epoch=True, batch_size=size_of(inputs))
            return values["val_loss"]

        def predict_step(self, batch: Any, batch_idx: int) -> Any:
            return module.predict_step(*split_batch(batch))

    return Adapted()
