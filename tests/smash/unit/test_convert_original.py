"""Checkpoints and sample files of the original: shapes tell the sizes, and every fault is one clear line."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from smash.config import ModelConfig
from smash.convert import PADDING_ROW, Converted, convert_state, restore_state
from smash.foreign import read_foreign_state, read_original_samples
from smash.model import Smash
from stcore.errors import UserError


def ours(num_marks: int = 3) -> Converted:
    torch.manual_seed(0)
    config = ModelConfig(
        width=6, layers=2, heads=2, key_width=3, value_width=5, feed_forward_width=7, recurrent_width=9, units=10
    )
    return Converted(config, num_marks, Smash(config, num_marks=num_marks).state_dict(), ())


@pytest.mark.parametrize("num_marks", [1, 3])
def test_sizes_come_from_shapes_and_states_make_the_round_trip(num_marks: int) -> None:
    original = ours(num_marks)
    state = restore_state(original) | {
        "transformer.alpha": torch.zeros(()),
        "decoder.model.time_mlp.1.bias": torch.ones(4),
    }
    found = convert_state(state, heads=2)
    assert found.config == original.config
    assert found.num_marks == num_marks
    padding = {PADDING_ROW} if num_marks > 1 else set()
    assert set(found.dropped) == {"transformer.alpha", "decoder.model.time_mlp.1.bias"} | padding
    assert set(found.state) == set(original.state)
    assert all(torch.equal(value, original.state[name]) for name, value in found.state.items())


def replaced(name: str, *shape: int) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: state | {f"decoder.model.{name}": torch.zeros(shape)}


def removed(name: str) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    return lambda state: {key: value for key, value in state.items() if key != f"decoder.model.{name}"}


FAULTS = {
    "missing": (removed("linears_spatial.4.bias"), "linears_spatial.4.bias' is missing"),
    "sizes missing": (lambda state: {"a": torch.zeros(2)}, "event_emb_loc.0.weight' is missing"),
    "unknown": (replaced("extra.weight", 1), "unknown parameter 'decoder.model.extra.weight'"),
    "shape": (replaced("linear_t.4.weight", 3, 10), r"has shape \(3, 10\); expected \(2, 10\)"),
    "axes": (replaced("linear_t.4.weight", 20), r"has shape \(20,\); expected \(2, 10\)"),
    "one mark with a mark branch": (replaced("output_intensity.2.weight", 1, 10), "expected"),
    "no marks": (replaced("output_intensity.2.weight", 0, 10), r"is of shape \(0, 10\)"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_states_that_do_not_fit_are_refused(fault: str) -> None:
    damage, message = FAULTS[fault]
    with pytest.raises(UserError, match=message) as caught:
        convert_state(damage(restore_state(ours())), heads=2)
    assert "\n" not in str(caught.value)


def test_heads_have_to_divide_the_attention_width() -> None:
    with pytest.raises(UserError, match="heads: 4; expected a divisor of the attention widths 6 and 10"):
        convert_state(restore_state(ours()), heads=4)


def test_checkpoint_of_the_original_is_read_in_a_child(tmp_path: Path) -> None:
    state = restore_state(ours())
    torch.save(state, tmp_path / "model_best.pkl")
    found = read_foreign_state(tmp_path / "model_best.pkl")
    assert set(found) == set(state)
    assert all(torch.equal(found[name], value) for name, value in state.items())


class Harmful:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_files_that_are_no_checkpoint_are_refused_in_one_line(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    torch.save({"a": Harmful(canary)}, tmp_path / "harmful.pkl")
    torch.save(restore_state(ours()), tmp_path / "whole.pkl")
    (tmp_path / "truncated.pkl").write_bytes((tmp_path / "whole.pkl").read_bytes()[:20_000])
    torch.save({"epoch": 3, "model": restore_state(ours())}, tmp_path / "wrapped.pkl")
    torch.save({"a": torch.zeros(1).expand(10**12)}, tmp_path / "bomb.pkl")
    (tmp_path / "text.pkl").write_text("time,x,y\n")
    (tmp_path / "broken.safetensors").write_bytes(b"\x08" + b"\0" * 20)
    wanted = {
        "harmful.pkl": "not a checkpoint of tensors",
        "truncated.pkl": "not a checkpoint of tensors",
        "wrapped.pkl": "entry 'epoch' is a int; expected a dict of parameters",
        "bomb.pkl": "not a checkpoint of tensors",
        "text.pkl": "not a checkpoint of tensors",
        "broken.safetensors": "expected a whole safetensors file",
        "absent.pkl": "no such file",
    }
    for name, message in wanted.items():
        with pytest.raises(UserError, match=message) as caught:
            read_foreign_state(tmp_path / name)
        assert "\n" not in str(caught.value)
        assert name in str(caught.value)
    assert not canary.exists()


def sample_file(path: Path, *, marked: bool) -> tuple[list[object], Path]:
    rng = np.random.default_rng(0)
    sizes, repeats, samples = (4, 2), 2, 5
    batches = [
        [(rng.random((n, samples, 3)), rng.random((n, samples, 3)) if marked else None) for _ in range(repeats)]
        for n in sizes
    ]
    truths = [
        np.column_stack([rng.random(n), *([rng.integers(1, 4, n)] if marked else []), rng.random((n, 2))])
        for n in sizes
    ]
    path.write_bytes(pickle.dumps([batches, truths]))
    return [batches, truths], path


@pytest.mark.parametrize("marked", [True, False])
def test_sample_files_become_arrays(tmp_path: Path, marked: bool) -> None:
    (batches, truths), path = sample_file(tmp_path / "test_Earthquake.pkl", marked=marked)
    found = read_original_samples(path)
    assert found.gap.shape == (6, 10)
    np.testing.assert_array_equal(found.gap[:4, 5:], batches[0][1][0][..., 0])
    np.testing.assert_array_equal(found.location[4:, :5], batches[1][0][0][..., 1:])
    np.testing.assert_array_equal(found.true_gap, np.concatenate([truth[:, 0] for truth in truths]))
    np.testing.assert_array_equal(found.true_location[4:], truths[1][:, -2:])
    if marked:
        assert found.probability is not None and found.true_mark is not None
        np.testing.assert_array_equal(found.probability[4:, 5:], batches[1][1][1])
        np.testing.assert_array_equal(found.true_mark[:4], truths[0][:, 1] - 1)
    else:
        assert found.probability is None and found.true_mark is None


def test_other_plain_pickles_are_no_sample_files(tmp_path: Path) -> None:
    wanted = {
        "content is a dict": {"a": 1},
        "a list of 3": [1, 2, 3],
        "1 batches of samples and 0 of true events": [[1], []],
        "batch 0 is a int": [[1], [np.zeros((2, 4))]],
        "true events: a list; expected numbers with 2 axes": [[[(np.zeros((2, 5, 3)), None)]], [[1.0]]],
        r"samples of shape \(2, 5, 2\)": [[[(np.zeros((2, 5, 2)), None)]], [np.zeros((2, 3))]],
    }
    for message, content in wanted.items():
        (tmp_path / "file.pkl").write_bytes(pickle.dumps(content))
        with pytest.raises(UserError, match=message):
            read_original_samples(tmp_path / "file.pkl")
