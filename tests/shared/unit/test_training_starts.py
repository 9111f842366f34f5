"""How trainings start: run directories, weights to start from, foreign checkpoints, names of published data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from stcore.errors import UserError
from stcore.readers.published import published_folder
from stcore.training.checkpoint import save_checkpoint
from stcore.training.foreign import read_torch_file, tensors_of
from stcore.training.forwarded import Forwarded
from stcore.training.starting import load_start, load_weights, moving_average, new_run, require_package, weights_file


@dataclass(frozen=True)
class Settings:
    epochs: int = 3


def run_with(folder: Path, *names: str) -> Path:
    run = new_run(folder / "run", Settings(), package="toy", preset="small",
                  accelerator=SimpleNamespace(is_main_process=True))  # fmt: skip
    for name in names:
        save_checkpoint(run.checkpoints / name, {"model/weight": torch.ones(2, 2), "model/bias": torch.zeros(2)},
                        {"package": "toy"})  # fmt: skip
    return run.folder


def test_a_run_knows_its_preset_and_its_weights(tmp_path: Path) -> None:
    folder = run_with(tmp_path, "step-2.safetensors", "step-7.safetensors")
    assert (folder / "config.toml").read_text() == 'preset = "small"\nepochs = 3\n'
    assert weights_file(folder).name == "step-7.safetensors"
    with pytest.raises(UserError, match=r"no checkpoints/best.safetensors yet"):
        weights_file(folder, "best")
    run = new_run(tmp_path / "two", Settings(), package="toy", preset="x",
                  accelerator=SimpleNamespace(is_main_process=True))  # fmt: skip
    with pytest.raises(UserError, match="no checkpoint yet"):
        load_start(run.folder)


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    start = load_start(run_with(tmp_path, "best.safetensors"))
    model = nn.Linear(2, 2)
    load_weights(model, start)
    assert torch.equal(model.weight, torch.ones(2, 2))
    with pytest.raises(UserError, match="its weights do not fit this configuration: size mismatch for weight"):
        load_weights(nn.Linear(3, 2), start)
    require_package(start, "toy")
    with pytest.raises(UserError, match="a checkpoint of 'toy'; expected one of svq"):
        require_package(start, "svq")


def test_an_average_follows_only_where_one_is_wanted() -> None:
    model = nn.Linear(2, 2)
    assert moving_average(model, 0.0) is None
    average = moving_average(model, 0.5)
    before = model.weight.detach().clone()
    with torch.no_grad():
        model.weight += 1.0
    average.update()  # the first takes the weights as they are
    with torch.no_grad():
        model.weight += 1.0
    average.update()
    assert ((before + 1.0 < average.ema_model.weight) & (average.ema_model.weight < before + 2.0)).all()


def test_a_wrapped_module_keeps_its_names() -> None:
    inner = nn.Linear(2, 2)
    outer = Forwarded(inner)
    assert list(outer.state_dict()) == ["weight", "bias"]
    outer.load_state_dict({"weight": torch.ones(2, 2), "bias": torch.zeros(2)})
    assert torch.equal(inner.weight, torch.ones(2, 2))


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "model.module."])
def test_foreign_weights_lose_the_prefix_of_wrappers(tmp_path: Path, prefix: str) -> None:
    path = tmp_path / "a.pth"
    torch.save({"state_dict": {f"{prefix}weight": torch.ones(2)}, "epoch": 3}, path)
    content = read_torch_file(path)
    assert content["epoch"] == 3
    assert list(tensors_of(content, path)) == ["weight"]


def test_foreign_files_that_are_no_checkpoints_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    with pytest.raises(UserError, match=r"a.pth: no such file"):
        read_torch_file(path)
    path.write_bytes(b"PK\x03\x04 no zip")
    with pytest.raises(UserError, match="cannot be read as a checkpoint of torch"):
        read_torch_file(path)
    torch.save([1, 2], path)
    with pytest.raises(UserError, match="holds a list; expected a checkpoint"):
        read_torch_file(path)
    torch.save({"epoch": 3}, path)
    with pytest.raises(UserError, match="holds epoch; expected tensors by name"):
        tensors_of(read_torch_file(path), path)


def test_published_sets_are_looked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STCORE_DATA", str(tmp_path))
    with pytest.raises(UserError, match=r"^weather: not found under STCORE_DATA=.*; expected folders of WeatherBench"):
        published_folder("weather")
    (tmp_path / "weather_5_625deg").mkdir()
    assert published_folder("weather") == str(tmp_path / "weather_5_625deg")
    assert published_folder("frames.npy") == "frames.npy"
