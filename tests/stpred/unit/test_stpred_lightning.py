"""`as_lightning`: Lightning trains an `EnhancedModule` as `Trainer` would, but for the order of samples."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from stpred_toys import Blobs, Recent, made, weights
from torch.utils.data import DataLoader

from stpred import Trainer, as_lightning


class _Falling(Recent):
    def configure_lr_scheduler(self, optimizer: Any) -> Any:
        return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)


def test_lightning_takes_the_same_steps(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lightning = pytest.importorskip("lightning")
        theirs, ours = made(_Falling), made(_Falling)
        for module in (theirs, ours):
            module.drop.p = 0.0
        loader = DataLoader(Blobs(8, noise=False), batch_size=4)
        trainer = lightning.Trainer(max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False,
                                    enable_progress_bar=False, enable_model_summary=False)  # fmt: skip
        trainer.fit(as_lightning(theirs), loader, loader)
    Trainer(max_epoch=2, to_save=tmp_path / "run", device="cpu", quiet=True).fit(ours, loader, loader)
    torch.testing.assert_close(weights(theirs), weights(ours), rtol=0, atol=1e-6)
    assert float(trainer.callback_metrics["val_loss"]) > 0
