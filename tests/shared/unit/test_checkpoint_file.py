"""The checkpoint file: what goes in comes out, other programs can open it, and its errors say what to do."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from stcore.errors import UserError
from stcore.training.checkpoint import FORMAT, load_checkpoint, save_checkpoint
from stcore.training.state import pack, unpack


def test_parts_are_taken_by_prefix(tmp_path: Path) -> None:
    tensors = {"model/a": torch.ones(2), "model/deep/b": torch.zeros(1), "modelling/c": torch.zeros(1)}
    save_checkpoint(tmp_path / "c.safetensors", tensors, {})
    part = load_checkpoint(tmp_path / "c.safetensors").part("model")
    assert list(part) == ["a", "deep/b"] and part["a"].tolist() == [1.0, 1.0]


def test_the_safetensors_library_opens_it(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    save_checkpoint(path, {"model/a": torch.arange(6).reshape(2, 3), "model/b": torch.tensor(2.5)}, {"step": 3})
    found = load_file(path)
    assert found["model/a"].tolist() == [[0, 1, 2], [3, 4, 5]] and found["model/b"].item() == 2.5
    with safe_open(path, "pt") as file:
        facts = json.loads(file.metadata()["stcore"])
    assert facts["format"] == FORMAT and facts["metadata"] == {"step": 3}


def test_files_of_the_library_itself_are_not_ours(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    save_file({"a": torch.ones(3)}, path, metadata={"format": "pt"})
    with pytest.raises(UserError, match="the header is not that of a checkpoint of this workspace"):
        load_checkpoint(path)


def test_equal_bytes_for_equal_content(tmp_path: Path) -> None:
    for name in ("one", "two"):
        save_checkpoint(tmp_path / name, {"a": torch.arange(5)}, {"z": 1, "a": [1.5, None, "β"]})
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_saved_tensor_does_not_follow_its_source(tmp_path: Path) -> None:
    weight = torch.zeros(3)
    save_checkpoint(tmp_path / "c", {"a": weight}, {})
    loaded = load_checkpoint(tmp_path / "c").tensors["a"]
    loaded += 1.0
    assert weight.tolist() == [0.0] * 3 and load_checkpoint(tmp_path / "c").tensors["a"].tolist() == [0.0] * 3


def test_shared_tensors_are_stored_once_and_views_whole(tmp_path: Path) -> None:
    weight = torch.randn(1000, 10)
    tensors = {"a": weight, "again": weight, "turned": weight.T, "part": weight[3:5], "stride": weight[::7, ::3]}
    save_checkpoint(tmp_path / "c", tensors, {})
    found = load_checkpoint(tmp_path / "c").tensors
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    assert found["a"].data_ptr() == found["again"].data_ptr()
    assert os.path.getsize(tmp_path / "c") < 2.2 * 40_000  # noqa: PTH202


def test_numbers_with_odd_strides_are_stored(tmp_path: Path) -> None:
    odd = torch.arange(6.0)[4::2]
    assert odd.is_contiguous() and odd.stride() == (2,)
    save_checkpoint(tmp_path / "c", {"a": odd, "b": torch.arange(4).reshape(2, 2).T}, {})
    assert load_checkpoint(tmp_path / "c").tensors["a"].tolist() == [4.0]
    assert load_checkpoint(tmp_path / "c").tensors["b"].tolist() == [[0, 2], [1, 3]]


def test_what_json_cannot_say_is_a_bug_and_writes_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        save_checkpoint(tmp_path / "c", {}, {"loss": float("nan")})
    with pytest.raises(TypeError):
        save_checkpoint(tmp_path / "c", {}, {"path": tmp_path})
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_and_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"c: no such checkpoint; expected a \.safetensors file of a run"):
        load_checkpoint(tmp_path / "c")
    with pytest.raises(UserError, match="cannot be written: No such file or directory; check the folder"):
        save_checkpoint(tmp_path / "nowhere/c", {"a": torch.ones(1)}, {})


def test_state_of_optimisers_comes_back_exactly() -> None:
    for kind in (torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad, torch.optim.RMSprop):
        model = torch.nn.Linear(3, 2)
        optimiser = kind(model.parameters(), lr=0.1)
        for _ in range(3):
            model(torch.randn(4, 3)).square().sum().backward()
            optimiser.step()
        tensors, skeleton = pack(optimiser.state_dict(), "optim")
        back = unpack(json.loads(json.dumps(skeleton, allow_nan=False)), tensors)
        other = kind(torch.nn.Linear(3, 2).parameters(), lr=0.5)
        other.load_state_dict(back)
        assert other.state_dict()["param_groups"] == optimiser.state_dict()["param_groups"]
        for one, two in zip(other.state.values(), optimiser.state.values(), strict=True):
            assert one.keys() == two.keys()
            assert all(torch.equal(torch.as_tensor(one[key]), torch.as_tensor(two[key])) for key in two)


def test_state_of_other_kinds_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match=r"optim/state/1: state of type object cannot be kept"):
        pack({"state": [1, object()]}, "optim")
