"""`Trainer`: hooks and their order, skipped batches, schedulers, averages, resuming to the bit, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from stpred_toys import HORIZON, SIDE, Blobs, Recent, made, weights
from torch.utils.data import DataLoader, Sampler, TensorDataset

from stcore.errors import UserError
from stcore.training.checkpoint import load_checkpoint
from stpred.callbacks import Callback
from stpred.trainer import Trainer


def trainer(folder: Path, **options: Any) -> Trainer:
    settings = {"max_epoch": 2, "to_save": folder / "run", "device": "cpu", "quiet": True, "log_every": 1}
    return Trainer(**(settings | options))


def loader(count: int = 10, **options: Any) -> Any:
    return DataLoader(Blobs(count), **({"batch_size": 4, "shuffle": True} | options))


def logged(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]


def test_fit_learns_and_keeps_the_best(tmp_path: Path) -> None:
    module = made()
    start = trainer(tmp_path / "a").validate(module, loader())
    result = trainer(tmp_path, max_epoch=8).fit(module, loader(), loader())
    assert result.step == 24
    assert result.epoch == 8
    assert result.best is not None
    assert result.best < 0.5 * start["val/loss"]
    best = load_checkpoint(result.run.best)
    assert set(best.part("model")) == {"mix.weight", "mix.bias"}
    assert best.metadata["metrics"]["val/loss"] == result.best


def test_hooks_are_called_in_order_callbacks_first(tmp_path: Path) -> None:
    told: list[str] = []

    class Listener(Callback):
        def on_train_epoch_start(self, trainer: Any, module: Any) -> None:
            told.append("callback epoch start")

        def on_train_epoch_end(self, trainer: Any, module: Any, outputs: Any) -> None:
            told.append(f"callback epoch end {len(outputs)}")

        def on_validation_epoch_end(self, trainer: Any, module: Any, outputs: Any) -> None:
            told.append(f"callback validation end {len(outputs)}")

    class Told(Recent):
        def on_fit_start(self) -> None:
            told.append("fit start")

        def on_train_epoch_start(self) -> None:
            told.append("epoch start")

        def training_step(self, inputs: Any, labels: Any) -> Any:
            told.append("step")
            return {"loss": super().training_step(inputs, labels)}

        def training_step_end(self, step_output: Any) -> Any:
            told.append("step end")
            return step_output

        def on_before_optimizer_step(self, grad_norm: float) -> None:
            told.append(f"before {grad_norm > 0}")

        def optimizer_step(self) -> None:
            told.append("optimizer")
            super().optimizer_step()

        def lr_scheduler_step(self, *value: float) -> None:
            told.append("scheduler")

        def on_train_epoch_end(self, outputs: Any) -> None:
            assert not outputs[0]["loss"].requires_grad
            told.append("epoch end")

        def validation_step_end(self, step_output: Any) -> Any:
            told.append("validated")
            return step_output

        def on_validation_epoch_end(self, outputs: Any) -> None:
            told.append("validation end")

        def on_fit_end(self) -> None:
            told.append("fit end")

    trainer(tmp_path, max_epoch=1, callbacks=(Listener(),)).fit(made(Told), loader(4), loader(8))
    assert told == ["fit start", "callback epoch start", "epoch start", "step", "step end", "before True", "optimizer",
                    "scheduler", "callback epoch end 1", "epoch end", "validated", "validated",
                    "callback validation end 2", "validation end", "fit end"]  # fmt: skip


def test_step_that_returns_none_skips_batch_optimiser_and_scheduler(tmp_path: Path) -> None:
    class Picky(Recent):
        seen = stepped = 0

        def training_step(self, inputs: Any, labels: Any) -> Any:
            self.seen += 1
            return None if self.seen % 2 else super().training_step(inputs, labels)

        def lr_scheduler_step(self, *value: float) -> None:
            self.stepped += 1

    module: Any = made(Picky)
    trainer(tmp_path, max_epoch=2).fit(module, loader(8))
    assert module.seen == 4
    assert module.stepped == 2


def test_only_none_leaves_the_weights_as_they_were(tmp_path: Path) -> None:
    class Never(Recent):
        def training_step(self, inputs: Any, labels: Any) -> Any:
            return None

    module = made(Never)
    before = weights(module)
    trainer(tmp_path, accumulate=2).fit(module, loader(8))
    assert torch.equal(weights(module), before)


def test_skipped_part_of_an_accumulated_step_counts_nothing(tmp_path: Path) -> None:
    class Half(Recent):
        def training_step(self, inputs: Any, labels: Any) -> Any:
            return None if inputs.mean() > 0.8 else super().training_step(inputs, labels)

    both, alone = made(Half), made()
    for module in (both, alone):
        module.drop.p = 0.0
    plain = DataLoader(Blobs(2, noise=False), batch_size=1)
    far = torch.utils.data.ConcatDataset([Blobs(1, noise=False), TensorDataset(torch.ones(1, 3, 1, 4, 4) * 9,
                                                                               torch.ones(1, 2, 1, 4, 4))])  # fmt: skip
    trainer(tmp_path / "a", max_epoch=1, accumulate=2).fit(both, DataLoader(far, batch_size=1))
    trainer(tmp_path / "b", max_epoch=1, limit_train_batches=1).fit(alone, plain)
    assert torch.equal(weights(both), weights(alone))


@pytest.mark.parametrize(("output", "found"), [({"mse": 1.0}, "a mapping with mse"), ({"loss": 3.0}, "float"),
                                               (torch.zeros(2), "a loss of shape (2,)")])  # fmt: skip
def test_step_without_a_loss_is_refused(tmp_path: Path, output: Any, found: str) -> None:
    class Wrong(Recent):
        def training_step(self, inputs: Any, labels: Any) -> Any:
            return output

    with pytest.raises(UserError, match=r"^training_step: returned .*; expected a tensor of one number") as error:
        trainer(tmp_path).fit(made(Wrong), loader())
    assert found in str(error.value)


@pytest.mark.parametrize(("interval", "rates"), [("step", [1.0, 0.5, 0.25, 0.125]), ("epoch", [1.0, 1.0, 0.5, 0.5])])
def test_scheduler_steps_per_optimiser_step_or_epoch(tmp_path: Path, interval: Any, rates: list[float]) -> None:
    class Falling(Recent):
        used: list[float]

        def configure_lr_scheduler(self, optimizer: Any) -> Any:
            self.used = []
            return torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)

        def optimizer_step(self) -> None:
            assert self.optimizer is not None
            self.used.append(self.optimizer.param_groups[0]["lr"])
            super().optimizer_step()

    module: Any = made(Falling, rate=1.0)
    trainer(tmp_path, scheduler_interval=interval).fit(module, loader(8))
    assert module.used == rates


def test_plateau_gets_the_monitored_value(tmp_path: Path) -> None:
    class Watching(Recent):
        def __init__(self, rate: float) -> None:
            super().__init__(rate)
            self.watched: list[tuple[float, ...]] = []

        def configure_lr_scheduler(self, optimizer: Any) -> Any:
            return torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.1, patience=0, threshold=1e9)

        def lr_scheduler_step(self, *value: float) -> None:
            self.watched.append(value)
            super().lr_scheduler_step(*value)

    module: Any = made(Watching, rate=1.0)
    trainer(tmp_path, scheduler_interval="plateau", max_epoch=3).fit(module, loader(4), loader(4))
    assert module.watched == [(line["val/loss"],) for line in logged(tmp_path) if "val/loss" in line]
    assert module.optimizer.param_groups[0]["lr"] == pytest.approx(0.001)
    with pytest.raises(UserError, match="without validation_loader"):
        trainer(tmp_path / "b", scheduler_interval="plateau").fit(module, loader(4))


class _Counted(Recent):
    def validation_step(self, inputs: Any, labels: Any) -> Any:
        self.log("seen", float(len(inputs)))
        return {"loss": torch.tensor(float(len(inputs))), "twice": torch.tensor(2.0 * len(inputs))}


@pytest.mark.parametrize(("average", "expected"), [("sample", (4 * 4 + 2 * 2) / 6), ("batch", 3.0)])
def test_validation_weighs_by_batch_size_or_not(tmp_path: Path, average: Any, expected: float) -> None:
    values = trainer(tmp_path, loss_average=average).validate(made(_Counted), loader(6))
    assert values == pytest.approx({"val/loss": expected, "val/seen": expected, "val/twice": 2 * expected})


def test_monitor_may_be_another_scalar_and_the_largest(tmp_path: Path) -> None:
    result = trainer(tmp_path, monitor="val_twice", mode="max").fit(made(_Counted), loader(4), loader(4))
    assert result.best == 8.0
    with pytest.raises(UserError, match="monitor: no value 'val/psnr' in validation; expected one of val/loss"):
        trainer(tmp_path / "b", monitor="val_psnr").fit(made(_Counted), loader(4), loader(4))


def interrupted_then_resumed(folder: Path, make: Any, at: int, **options: Any) -> tuple[torch.Tensor, Path]:
    """Stop a run after `at` steps as a kill would, resume it from its checkpoint, and return its last weights."""

    class Killed(Exception):
        pass

    class Killer(Callback):
        steps = 0

        def on_before_optimizer_step(self, trainer: Any, module: Any, grad_norm: float) -> None:
            if self.steps == at:
                raise Killed
            self.steps += 1

    options = {"checkpoint_every": 1, "max_epoch": 3, "workers": 0} | options
    with pytest.raises(Killed):
        trainer(folder, callbacks=(Killer(),), **options).fit(make(), loader(), loader(6))
    module = make()
    with torch.no_grad():
        module.mix.weight.fill_(7.0)  # whatever it starts with comes from the checkpoint
    trainer(folder, **options).fit(module, loader(), loader(6), "last")
    return weights(module), folder / "run" / "metrics.jsonl"


class _Scheduled(Recent):
    """With a scheduler and something of its own to keep."""

    count = 0

    def configure_lr_scheduler(self, optimizer: Any) -> Any:
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=20)

    def training_step(self, inputs: Any, labels: Any) -> Any:
        self.count += 1
        return super().training_step(inputs, labels) * (1.0 + 0.1 * self.count)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["count"] = self.count

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.count = checkpoint["count"]


@pytest.mark.parametrize("at", [1, 3, 4])
def test_resumes_to_the_bit_inside_an_epoch(tmp_path: Path, at: int) -> None:
    whole = made(_Scheduled)
    trainer(tmp_path / "whole", max_epoch=3).fit(whole, loader(), loader(6))
    ended, metrics = interrupted_then_resumed(tmp_path / "cut", lambda: made(_Scheduled), at)
    assert torch.equal(ended, weights(whole))
    assert metrics.read_bytes() == (tmp_path / "whole" / "run" / "metrics.jsonl").read_bytes()


def test_workers_change_nothing_even_where_the_dataset_is_random(tmp_path: Path) -> None:
    whole = made()
    trainer(tmp_path / "whole", max_epoch=3).fit(whole, loader(), loader(6))
    ended, metrics = interrupted_then_resumed(tmp_path / "cut", made, 4, workers=2)
    assert torch.equal(ended, weights(whole))
    assert metrics.read_bytes() == (tmp_path / "whole" / "run" / "metrics.jsonl").read_bytes()


def test_loader_with_an_order_of_its_own_resumes_at_the_epoch_and_says_so(tmp_path: Path) -> None:
    class Odd(Sampler[int]):
        def __iter__(self) -> Any:
            return iter([3, 1, 2, 0, 5, 4])

        def __len__(self) -> int:
            return 6

    def own() -> Any:
        return DataLoader(Blobs(6), batch_size=2, sampler=Odd())

    class Stop(Exception):
        pass

    class Stopper(Recent):
        seen = 0

        def training_step(self, inputs: Any, labels: Any) -> Any:
            self.seen += 1
            if self.seen == 5:
                raise Stop
            return super().training_step(inputs, labels)

    with pytest.raises(Stop):
        trainer(tmp_path, checkpoint_every=1).fit(made(Stopper), own())
    with pytest.warns(UserWarning, match="epoch 2 is trained again from its first batch, though 1 batches of it"):
        result = trainer(tmp_path).fit(made(), own(), ckpt_path="last")
    assert result.step == 4 + 3


def test_finished_run_goes_on_to_a_later_epoch(tmp_path: Path) -> None:
    whole, parts = made(), made()
    trainer(tmp_path / "whole", max_epoch=4).fit(whole, loader(), loader())
    trainer(tmp_path, max_epoch=2).fit(parts, loader(), loader())
    trainer(tmp_path, max_epoch=4).fit(made(), loader(), loader(), "last")
    again = made()
    result = trainer(tmp_path, max_epoch=4, on_existing="resume").fit(again, loader(), loader())
    assert result.epoch == 4
    assert torch.equal(weights(again), weights(whole))


def test_existing_run_is_refused_or_left_alone(tmp_path: Path) -> None:
    trainer(tmp_path).fit(made(), loader())
    with pytest.raises(UserError, match="exists already"):
        trainer(tmp_path).fit(made(), loader())
    result = trainer(tmp_path, on_existing="new").fit(made(), loader())
    assert result.run.folder == tmp_path / "run" / "version_1"


def test_checkpoint_of_another_run_or_seed_is_refused(tmp_path: Path) -> None:
    trainer(tmp_path).fit(made(), loader(), loader())
    with pytest.raises(UserError, match="expected to_save to be that folder"):
        trainer(tmp_path / "b").fit(made(), loader(), ckpt_path=tmp_path / "run")
    with pytest.raises(UserError, match="seed: 5; expected 2022, that of the run"):
        trainer(tmp_path, seed=5).fit(made(), loader(), ckpt_path="last")
    with pytest.raises(UserError, match="'best' holds weights alone"):
        trainer(tmp_path).fit(made(), loader(), ckpt_path="best")
    with pytest.raises(UserError, match="no such run or checkpoint"):
        trainer(tmp_path / "c").fit(made(), loader(), ckpt_path=tmp_path / "no.safetensors")


def test_predict_numbers_samples_for_any_batch_size_without_labels(tmp_path: Path) -> None:
    module = made()
    trainer(tmp_path).fit(module, loader(), loader())
    inputs = torch.stack([Blobs(5)[i][0] for i in range(5)])
    files = trainer(tmp_path).predict(made(), DataLoader(TensorDataset(inputs), batch_size=2), "last")
    assert [path.name for path in files] == [f"pred_{i:05d}.npy" for i in range(1, 6)]
    with torch.no_grad():
        expected = module.eval()(inputs).numpy()
    stored = np.stack([np.load(path) for path in files])
    assert stored.shape == (5, HORIZON, 1, SIDE, SIDE)
    np.testing.assert_allclose(stored, expected, rtol=1e-6)
    with pytest.raises(UserError, match="holds predictions already"):
        trainer(tmp_path).predict(module, DataLoader(TensorDataset(inputs)), "best")


def test_predict_from_a_missing_or_foreign_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no\.pth: no such file; expected a checkpoint"):
        trainer(tmp_path).predict(made(), loader(), tmp_path / "no.pth")
    torch.save({"state_dict": {"other": torch.zeros(1)}}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"lacks mix.bias, mix.weight and has other; expected the weights of Recent"):
        trainer(tmp_path).validate(made(), loader(), tmp_path / "other.pth")


def test_goes_on_from_a_four_key_file_of_the_original(tmp_path: Path) -> None:
    """Two epochs of a plain loop as the original's, saved as it did, then two more here: as four in a row."""
    module, plain = made(), made()
    module.drop.p = plain.drop.p = 0.0
    batches = DataLoader(Blobs(8, noise=False), batch_size=8)
    optimizer = plain.configure_optimizer()
    for epoch in range(1, 5):
        for inputs, labels in batches:
            optimizer.zero_grad()
            plain.training_step(inputs, labels).backward()
            optimizer.step()
        if epoch == 2:
            kept = {"epoch": epoch, "state_dict": plain.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(kept, tmp_path / "checkpoint_000002_0.1_temp.pth")
    result = trainer(tmp_path, max_epoch=4).fit(module, batches, ckpt_path=tmp_path / "checkpoint_000002_0.1_temp.pth")
    assert result.step == 2
    torch.testing.assert_close(weights(module), weights(plain), rtol=0, atol=1e-7)
    with pytest.raises(UserError, match="epoch 2 is done; expected max_epoch above 2"):
        trainer(tmp_path / "b", max_epoch=2).fit(module, batches, ckpt_path=tmp_path / "checkpoint_000002_0.1_temp.pth")


class _Dangerous:
    def __reduce__(self) -> Any:
        return print, ("it ran",)


def test_pickle_that_would_run_something_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.save({"state_dict": _Dangerous()}, tmp_path / "bad.pth")
    with pytest.raises(UserError, match="nothing in it was run"):
        trainer(tmp_path).validate(made(), loader(), tmp_path / "bad.pth")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("options", "message"), [
    ({"device": "cuda:3"}, "device: 'cuda:3'; expected one of 'auto', 'cpu', 'cuda'"),
    ({"accumulate": 0}, "fit.accumulate: 0; expected at least 1"),
    ({"max_epoch": 0}, "fit.epochs: 0; expected at least 1"),
])  # fmt: skip
def test_options_out_of_range_are_refused(tmp_path: Path, options: Any, message: str) -> None:
    with pytest.raises(UserError, match=message.replace("'", ".")):
        trainer(tmp_path, **options)


def test_bf16_reaches_the_step(tmp_path: Path) -> None:
    seen: list[torch.dtype] = []

    class Asked(Recent):
        def training_step(self, inputs: Any, labels: Any) -> Any:
            seen.append(self(inputs).dtype)
            return super().training_step(inputs, labels)

    trainer(tmp_path, precision="bf16", max_epoch=1).fit(made(Asked), loader(4))
    assert seen == [torch.bfloat16]


def test_random_or_sequential_loaders_get_our_order_others_their_own() -> None:
    from stpred.loaders import PassingBatches, resumes_exactly, training_batches

    assert resumes_exactly(training_batches(loader(), seed=0))
    assert resumes_exactly(training_batches(loader(shuffle=False, drop_last=True), seed=0))
    assert len(training_batches(loader(shuffle=False, drop_last=True), seed=0).order(0)) == 2
    replaced = torch.utils.data.RandomSampler(Blobs(4), replacement=True)
    assert not resumes_exactly(training_batches(loader(4, shuffle=False, sampler=replaced), seed=0))
    with pytest.raises(UserError, match="train_loader: has no length"):
        PassingBatches(iter(())).order(0)
