"""Damaged checkpoints: every flipped bit, cut and swapped block is refused, and the message says where it is."""

from __future__ import annotations

import random
import re
import shutil
import time
from pathlib import Path

import pytest
import torch
from campaign import SHARES, count, record

from stcore.errors import UserError
from stcore.training.checkpoint import load_checkpoint, save_checkpoint
from stcore.training.run import Run, find_checkpoint, last_good_checkpoint, load_for_resume

_DAMAGE = re.compile(r"damaged checkpoint: (tensor '[\w./-]+' |the header |header of |[\d,]+ bytes of tensors )")


def write(path: Path) -> bytes:
    """Write a checkpoint with tensors of many kinds and sizes, and return its bytes."""
    torch.manual_seed(0)
    shared = torch.randn(7, 5)
    tensors = {
        "model/weight": torch.randn(64, 48), "model/bias": torch.randn(3), "model/half": torch.randn(9).half(),
        "model/again": shared, "ema/again": shared, "model/empty": torch.empty(0, 4),
        "optim/state/0/step": torch.tensor(3.0),
        "model/flags": torch.tensor([True, False]), "constants/low": torch.randn(3, dtype=torch.float64),
        "model/index": torch.arange(11), "model/brain": torch.randn(4, 2).bfloat16(),
    }  # fmt: skip
    save_checkpoint(path, tensors, {"step": 7, "package": "toy", "names": ["a", "β"]})
    return path.read_bytes()


def refusal(path: Path, data: bytes) -> str:
    """Put `data` in the place of the checkpoint and return why it is refused; not to refuse it is a failure."""
    path.write_bytes(data)
    with pytest.raises(UserError) as refused:
        load_checkpoint(path)
    text = str(refused.value)
    assert text.startswith(f"{path}: ") and "\n" not in text and _DAMAGE.search(text), text
    return text


@SHARES
def test_every_flipped_bit_is_refused(share: float, tmp_path: Path) -> None:
    path, started = tmp_path / "step-7.safetensors", time.monotonic()
    good = write(path)
    header = 8 + int.from_bytes(good[:8], "little")
    flips = count(2000, share)
    places = random.Random(1).sample(range(8 * len(good)), flips)
    # Whatever else: all bits of the length, and the first and last byte of the header and of the tensors.
    edges = {
        *range(64),
        *range(64, 72),
        *range(8 * header - 8, 8 * header + 8),
        *range(8 * len(good) - 8, 8 * len(good)),
    }
    in_header = 0
    for bit in [*places, *sorted(edges)]:
        data = bytearray(good)
        data[bit // 8] ^= 1 << bit % 8
        text = refusal(path, bytes(data))
        in_header += bit // 8 < header
        assert ("tensor '" in text) == (bit // 8 >= header), (bit, text)
    path.write_bytes(good)
    assert load_checkpoint(path).metadata["step"] == 7
    total = flips + len(edges)
    record("checkpoint: single bits flipped", tried=total, good=total, seconds=time.monotonic() - started,
           notes=f"all refused; {in_header} in the header; the message names the header or the tensor")  # fmt: skip


@SHARES
def test_every_truncation_is_refused(share: float, tmp_path: Path) -> None:
    path, started = tmp_path / "step-7.safetensors", time.monotonic()
    good = write(path)
    cuts = [0, 1, 7, 8, 9, len(good) - 1, *random.Random(2).sample(range(len(good)), count(500, share) - 6)]
    for cut in cuts:
        text = refusal(path, good[:cut])
        assert "bytes" in text
    assert "where the header says" in refusal(path, good + b"\0")
    record("checkpoint: cut short", tried=len(cuts), good=len(cuts), seconds=time.monotonic() - started,
           notes="all refused")  # fmt: skip


@SHARES
def test_every_swap_of_blocks_is_refused(share: float, tmp_path: Path) -> None:
    path, started = tmp_path / "step-7.safetensors", time.monotonic()
    good = write(path)
    moments, done = random.Random(3), 0
    while done < count(200, share):
        size = moments.choice([1, 4, 8, 64, 512])
        first, second = sorted(moments.sample(range(len(good) - size), 2))
        if second < first + size or good[first : first + size] == good[second : second + size]:
            continue
        data = bytearray(good)
        data[first : first + size], data[second : second + size] = (
            good[second : second + size],
            good[first : first + size],
        )
        refusal(path, bytes(data))
        done += 1
    record("checkpoint: two blocks swapped", tried=done, good=done, seconds=time.monotonic() - started,
           notes="blocks of 1 to 512 bytes; all refused")  # fmt: skip


def test_zeroed_pages_are_refused(tmp_path: Path) -> None:
    """What a power cut leaves where a filesystem had given the length but not the data."""
    path = tmp_path / "step-7.safetensors"
    good = write(path)
    for start in range(0, len(good), 4096):
        refusal(path, good[:start] + bytes(min(4096, len(good) - start)) + good[start + 4096 :])


def test_bytes_of_another_checkpoint_are_refused(tmp_path: Path) -> None:
    """The header of one file over the tensors of another with the same shapes."""
    one, other = tmp_path / "step-1.safetensors", tmp_path / "step-2.safetensors"
    save_checkpoint(one, {"model/a": torch.zeros(100), "model/b": torch.zeros(5)}, {"step": 1})
    save_checkpoint(other, {"model/a": torch.zeros(100), "model/b": torch.ones(5)}, {"step": 2})
    header = 8 + int.from_bytes(one.read_bytes()[:8], "little")
    mixed = one.read_bytes()[:header] + other.read_bytes()[-420:]
    assert "tensor 'model/b' does not match its digest" in refusal(one, mixed)


def a_run(folder: Path, steps: int) -> Run:
    run = Run.create(folder, package="toy", preset="tiny", config={"seed": 0})
    for step in range(1, steps + 1):
        save_checkpoint(
            run.step_file(step), {"model/a": torch.full((4,), float(step))}, {"step": step, "package": "toy"}
        )
    return run


def damage(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def test_resume_of_a_damaged_run_names_the_last_good_checkpoint(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", 3)
    assert load_for_resume(run.folder)[1].metadata["step"] == 3
    damage(run.step_file(3))
    with pytest.raises(UserError) as refused:
        load_for_resume(run.folder)
    text = str(refused.value)
    assert text.startswith(f"{run.step_file(3)}: damaged checkpoint: tensor 'model/a'")
    assert text.endswith(f"go on from the last good one with toy train --resume {run.step_file(2)}")
    damage(run.step_file(2))
    with pytest.raises(UserError, match=r"step-3\.safetensors: .*toy train --resume .*step-1\.safetensors$"):
        load_for_resume(run.folder)
    # Asked for by name, the older one is judged itself.
    with pytest.raises(UserError, match=r"step-2\.safetensors: .*toy train --resume .*step-1\.safetensors$"):
        load_for_resume(run.step_file(2))
    opened, checkpoint = load_for_resume(run.step_file(1))
    assert opened == run and float(checkpoint.tensors["model/a"][0]) == 1.0
    damage(run.step_file(1))
    assert last_good_checkpoint(run, run.step_file(3)) is None
    with pytest.raises(
        UserError, match=r"no other checkpoint of the run is good; start again with train --config .*toml$"
    ):
        load_for_resume(run.folder)


def test_what_resume_is_given_may_be_wrong(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", 1)
    shutil.copy(run.step_file(1), run.best)
    with pytest.raises(UserError, match="no such run or checkpoint"):
        find_checkpoint(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"not a step of a run; expected <run>/checkpoints/step-<n>\.safetensors"):
        find_checkpoint(run.best)
    with pytest.raises(UserError, match=r"no config\.toml inside"):
        find_checkpoint(tmp_path)
    run.step_file(1).unlink()
    with pytest.raises(UserError, match="no checkpoint yet"):
        find_checkpoint(run.folder)
