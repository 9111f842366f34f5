"""Flows, options and configurations that are wrong in one way each, with what the message must say.

Windows of UniST, configurations of the original and files of weights are made here; what can be wrong with any frames
comes from `malformed_grids`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from flow_worlds import flows, unist_tree, write_unist
from malformed_grids import MalformedGrid, malformed_grid_files


@dataclass(frozen=True)
class MalformedFlow:
    """One wrong source, option or configuration."""

    name: str
    """What is wrong, in a few words; all different."""
    paths: tuple[Path, ...]
    """Value of `--data`."""
    expected: tuple[str, ...]
    """What the message must hold: file, place, what was found, what was expected."""
    extra_flags: tuple[str, ...] = ()
    """Further flags of `vlm4st train`."""


FOREIGN = ("digits as frames", "labels as digits", "digits without labels", "digits of another length")
"""Causes of `malformed_grids` that are no matter of vlm4st."""
PRESET = ("--preset", "tiny")
Tree = dict[str, Any]


class _Table:
    """The list of cases, and the folder of their files."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.cases = folder, list[MalformedFlow]()
        self.cache = ("--data.cache", str(folder / "cache"))

    def add(self, name: str, paths: Path | Sequence[Path], expected: str, *flags: str, preset: bool = True) -> None:
        every = (paths,) if isinstance(paths, Path) else tuple(paths)
        start = PRESET if preset else ()
        self.cases.append(MalformedFlow(name, every, tuple(expected.split(" | ")), (*start, *self.cache, *flags)))

    def path(self, name: str, ending: str) -> Path:
        return self.folder / f"{name.replace(' ', '_')}{ending}"


def malformed_flow_files(folder: Path) -> list[MalformedFlow]:
    """Write every wrong file into `folder` and return the list of them, those of UniST first."""
    table = _Table(folder)
    for write in (_files, _windows, _stamps, _series, _options, _yaml, _weights):
        write(table)
    common = folder / "grids"
    common.mkdir()
    for case in malformed_grid_files(common):
        if case.name not in FOREIGN:
            _from_grids(table, case)
    return table.cases


def _from_grids(table: _Table, case: MalformedGrid) -> None:
    flags = ["--model.T", str(case.history), "--model.T-out", str(case.horizon), "--data.timestamps", "none"]
    options: dict[str, Any] = {"split": (0.8, 0.1, 0.1), **case.options}
    for name, value in options.items():
        flags += [f"--data.{name.replace('_', '-')}", *map(str, value if isinstance(value, tuple) else (value,))]
    if len(case.paths) == 1:
        table.add(f"frames: {case.name}", case.paths, " | ".join(case.expected), *flags)


def _files(table: _Table) -> None:
    """Files that hold no windows at all, or not all of them."""
    whole = json.dumps(unist_tree(flows(200)))

    def add(name: str, content: bytes | str, expected: str, *flags: str) -> None:
        path = table.path(name, ".json")
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        table.add(name, path, f"{path.name} | {expected}", *flags)

    add("empty file", b"", "empty file | expected windows of flows")
    add("web page", "<!DOCTYPE html><html>", "byte 0: '<!DOCTYPE ht' | expected an object with X_train")
    add("binary file", b"\x80\x04\x95" + bytes(40), "byte 0 | expected an object with X_train")
    add("windows in utf-16", whole.encode("utf-16"), "byte 0 | expected an object")
    add("list at the top", "[1, 2]", "byte 0: '[1, 2]' | expected an object with X_train")
    add("cut within a window", whole[:300], "byte 300: the file ends within a value | the file is cut")
    add("cut within timestamps", whole[:-30], "the file ends within | the file is cut")
    add("cut after a window", whole[: whole.index("]]], [[[") + 3], "the file ends; expected ',' or ']' | is cut")
    add("text after the end", whole + "}", f"byte {len(whole):,}: '}}'; expected the end of the file")
    add("comma lost", whole.replace("], [", "] [", 1), "expected JSON")
    add(
        "key without quotes",
        whole.replace('"X_train"', "X_train", 1),
        "'X_train: [[[' | expected a key in quotes",
    )
    add("brackets without end", '{"X_train": ' + "[" * 5000, "65 brackets within one another; expected at most 64")
    add("word without end", '{"note": "' + "a" * 5_000_000, "a word of more than")
    add(
        "too large for the limit",
        whole,
        "arrays of more than 20,000 bytes | --data.max-bytes",
        "--data.max-bytes",
        "20000",
    )
    folder = table.path("folder", ".json")
    folder.mkdir()
    table.add("folder called json", folder, "a folder; expected a regular file")
    table.add("no such file", table.path("nowhere", ".json"), "nowhere.json: no such file; expected a file of windows")
    loop = table.path("loop", ".json")
    loop.symlink_to(loop)
    table.add("link to itself", loop, "a symbolic link that leads back to itself")
    pipe = table.path("pipe", ".json")
    os.mkfifo(pipe)
    table.add("pipe", pipe, "pipe.json: a pipe; expected a regular file")


def _changed(table: _Table, tree: Tree) -> Callable[..., None]:
    """Return what writes a tree that `harm` has changed, and adds it to the table."""

    def add(name: str, harm: Callable[[Tree], Any], expected: str, *flags: str, file: str = "") -> None:
        changed = deepcopy(tree)
        harm(changed)
        path = table.path(file or name, ".json")
        write_unist(path, changed)
        table.add(name, path, f"{path.name} | {expected}", *flags)

    return add


def _put(*place: Any) -> Callable[[Tree], None]:
    """Return what puts the last of `place` where the others lead."""
    *path, last, value = place

    def harm(tree: Tree) -> None:
        below: Any = tree
        for step in path:
            below = below[step]
        below[last] = value

    return harm


def _windows(table: _Table) -> None:
    """Windows: shape and values."""
    tree = unist_tree(flows(200))
    add = _changed(table, tree)
    first = tree["X_train"][0]
    add("no validation windows", lambda tree: tree.pop("X_val"), "expected X_train, X_val, X_test | X_val is missing")
    add("windows a number", _put("X_train", 7), "X_train: byte | '7 | expected a list of windows and periodic data")
    add("windows an object", _put("X_val", 0, {}), "X_val[0]: byte | expected a list of windows")
    add("no windows", _put("X_test", 0, []), "X_test: no windows; expected some")
    add("nan in a window", _put("X_train", 0, 3, 2, 1, 0, float("nan")),
        "X_train, window 3, frame 2, row 1, column 0: nan; expected finite numbers")  # fmt: skip
    add("infinity in a window", _put("X_val", 0, 4, 11, 3, 5, float("inf")),
        "X_val, window 4, frame 11, row 3, column 5: inf")  # fmt: skip
    add(
        "beyond single precision",
        _put("X_test", 0, 0, 0, 0, 0, 1e39),
        "X_test, window 0, frame 0, row 0, column 0: 1e+39",
    )
    add("null in a window", _put("X_train", 0, 1, 0, 0, 0, None), "X_train, window 1: None; expected numbers")
    add("word in a window", _put("X_train", 0, 1, 0, 0, 0, "many"), "X_train, window 1: 'many'; expected numbers")
    add(
        "row cut short",
        _put("X_train", 0, 2, 5, 3, [1.0]),
        "X_train, window 2: row 3 of frame 5 has 1 values where row 0 has 6",
    )
    add(
        "frame cut short",
        _put("X_train", 0, 2, 5, [[1.0] * 6]),
        "X_train, window 2: frame 5 has 1 rows where frame 0 has 4",
    )
    add("window of another length", _put("X_train", 0, 6, first[0][:10]),
        "X_train, window 6: 10 x 4 x 6 (frame x row x column); expected 12 x 4 x 6 as the first window")  # fmt: skip
    add("part of another grid", _put("X_test", 0, [np.ones((12, 4, 5)).tolist()] * 6), "X_test, window 0: 12 x 4 x 5")
    add("windows of four axes", _put("X_train", 0, 0, [first[0]]), "X_train, window 0: 4 axes (1 x 12 x 4 x 6)")
    add("window a number", _put("X_train", 0, 0, 5.0), "X_train, window 0: 0 axes (a single value)")
    short = unist_tree(flows(200))
    for part in ("train", "val", "test"):
        short[f"X_{part}"][0] = [window[:10] for window in short[f"X_{part}"][0]]
        short["timestamps"][part] = [row[:10] for row in short["timestamps"][part]]
    path = write_unist(table.path("short windows", ".json"), short)
    table.add("windows too short", path, "train: windows of 10 frames; expected at least 12, for a history of 6")
    still = unist_tree(flows(200))
    for part in ("train", "val", "test"):
        still[f"X_{part}"][0] = np.full(np.shape(still[f"X_{part}"][0]), 3.5).tolist()
    path = write_unist(table.path("constant", ".json"), still)
    table.add("constant data", path, "constant.json: train: values constant at 3.5; expected some that vary")
    twice = json.dumps(tree)
    path = table.path("key twice", ".json")
    path.write_text(twice[:-1] + ', "X_val": [[], []]}')
    table.add("key twice", path, "key 'X_val' occurs twice; expected it once")
    good = write_unist(table.path("good", ".json"))
    table.add("the same file twice", (good, good), "is named twice; expected different data sets")
    table.add("padding to a smaller grid", good, "data.resize: pad, frames of 4 x 6 (rows x columns); expected",
              "--data.resize", "pad", "--no-fit-grid", "--model.H", "3", "--model.W", "3")  # fmt: skip


def _stamps(table: _Table) -> None:
    """Timestamps: form, number and range."""
    tree = unist_tree(flows(200))
    add = _changed(table, tree)
    rows = tree["timestamps"]["train"]
    add("no timestamps", lambda tree: tree.pop("timestamps"), "timestamps is missing")
    add(
        "timestamps of two parts",
        lambda tree: tree["timestamps"].pop("test"),
        "timestamps of train, val; expected | test is missing",
    )
    add(
        "timestamps a list", _put("timestamps", [[0]]), "timestamps: byte | expected an object with train, val and test"
    )
    add("timestamps a word", _put("timestamps", "val", "monday"), "timestamps.val: byte | expected a list with a row")
    add(
        "a row too few",
        lambda tree: tree["timestamps"]["train"].pop(),
        "X_train has 20 windows and timestamps.train 19 rows",
    )
    add("no rows", _put("timestamps", "val", []), "timestamps.val: no rows; expected one for each window")
    add("row a number", _put("timestamps", "val", 0, 5), "timestamps.val, sample 0: 5; expected a list of stamps")
    add(
        "row of another length",
        _put("timestamps", "train", 4, rows[4][:6]),
        "timestamps.train, sample 4: 6 entries; expected 12",
    )
    add("more stamps than frames", lambda tree: _stamps_become(tree, lambda row: [*row, [0, 0]]),
        "timestamps.train has 13 entries a sample, windows 12 frames")  # fmt: skip
    add("fewer stamps than history",
        lambda tree: _stamps_become(tree, lambda row: row[:4]),
        "4 timestamps a sample; expected at least 6, one for each frame of the history")  # fmt: skip
    add("slot out of range", _put("timestamps", "test", 2, 3, [1, 48]),
        "test: timestamps, sample 2, entry 3: slot 48; expected 0 to 47; pass --data.slots-per-day")  # fmt: skip
    add(
        "weekday out of range",
        _put("timestamps", "val", 1, 0, [7, 3]),
        "val: timestamps, sample 1, entry 0: weekday 7; expected 0 to 6",
    )
    add(
        "negative slot",
        _put("timestamps", "val", 1, 0, [2, -1]),
        "timestamps.val, sample 1, entry 0: [2, -1]; expected numbers of 0",
    )
    add(
        "half a slot",
        _put("timestamps", "val", 1, 0, [2, 3.5]),
        "sample 1, entry 0: [2, 3.5]; expected a moment in words, a running",
    )
    add(
        "truth as a stamp",
        _put("timestamps", "train", 0, 0, True),
        "timestamps.train, sample 0, entry 0: True; expected a moment",
    )
    add("hourly file of 24 slots", lambda tree: None, "slot | expected 0 to 23", "--data.slots-per-day", "24")
    add("two forms in a row", _put("timestamps", "train", 5, 2, "2024-01-01 00:00:00"),
        "timestamps.train, sample 5, entry 2: '2024-01-01 00:00:00'; expected a pair of weekday and slot")  # fmt: skip
    add("two forms in a file", _put("timestamps", "val", 1, list(range(12))),
        "timestamps.val, sample 1, entry 0: 0; expected a pair of weekday and slot as before")  # fmt: skip
    add("pairs called running numbers", lambda tree: None,
        "timestamps of form pair; expected index, as the name 'CrowdBJ' tells",
        "--data.timestamps", "name", file="CrowdBJ_short")  # fmt: skip
    add("pairs called words", lambda tree: None, "timestamps of form pair; expected text, as data.timestamps says",
        "--data.timestamps", "text")  # fmt: skip
    words = unist_tree(flows(200), form="text")
    worded = _changed(table, words)
    worded("a day that is not", _put("timestamps", "train", 3, 1, "2024-02-30 00:00:00"),
           "timestamps.train, sample 3: entry 1 is '2024-02-30 00:00:00'; expected a moment that exists")  # fmt: skip
    worded(
        "zones in some stamps",
        _put("timestamps", "train", 3, 1, "2024-01-01 00:00:00+01:00"),
        "sample 3: entry 0 | without a time zone",
    )
    numbered = _changed(table, unist_tree(flows(200), form="index"))
    numbered(
        "a number beyond all", _put("timestamps", "test", 0, 0, 10**30), "timestamps.test, sample 0, entry 0: 1000000"
    )


def _stamps_become(tree: Tree, change: Callable[[list[Any]], list[Any]]) -> None:
    for part, rows in tree["timestamps"].items():
        tree["timestamps"][part] = [change(row) for row in rows]


def _series(table: _Table) -> None:
    """Series of frames, as far as vlm4st asks more of them than others do."""
    series = flows(400)

    def add(name: str, expected: str, *flags: str, values: Any = None, **arrays: Any) -> None:
        path = table.path(name, ".npz")
        frames = series.raw(range(400)) if values is None else values
        np.savez(path, frames=frames, **arrays)
        table.add(name, path, expected, *flags)

    clock = ("--data.start", "2024-01-01T00:00", "--data.step", "30 minutes")
    add("frames without times", "frames without times; expected some; pass --data.start | --data.timestamps none")
    add("no frame for a window", "val: 8 frames, the longest stretch without a gap has 8; expected at least 12", *clock,
        values=series.raw(range(50)))  # fmt: skip
    still = series.raw(range(400)).copy()
    still[:300] = 2.0
    add("constant in training", "train: values constant at 2; expected some that vary", *clock, values=still)
    lost = series.raw(range(400)).copy()
    lost[30, 0, 2, 1] = np.nan
    add("cell lost", "frame 30, row 2, column 1: nan | --data.missing mask", *clock, values=lost)
    two = np.concatenate([series.raw(range(400)), np.full((400, 1, 4, 6), 7.0, np.float32)], axis=1)
    add("one of two channels constant", "train: channel 1 constant at 7; expected some that vary", *clock, values=two)


def _options(table: _Table) -> None:
    """Options that fit no data, or not one another."""
    good = table.folder / "good.json"

    def add(name: str, expected: str, *flags: str) -> None:
        table.add(name, good, expected, *flags)

    add(
        "hundred slots a day",
        "data.slots-per-day: '100'; expected NUMBER or NAME=NUMBER",
        "--data.slots-per-day",
        "100",
    )
    add("slots a day in words", "data.slots-per-day: 'good=many'; expected", "--data.slots-per-day", "good=many")
    add(
        "unknown form of stamps",
        "data.timestamps: 'good=words'; expected FORM or NAME=FORM",
        "--data.timestamps",
        "good=words",
    )
    add("temperature beyond 1", "data.temperature: 2.0; expected a power from 0 to 1", "--data.temperature", "2")
    add("batch of nothing", "data.batch: 0; expected at least 1", "--data.batch", "0")
    add(
        "shares beyond the whole",
        "data.split: (0.8, 0.8, 0.1); expected three shares",
        "--data.split",
        "0.8",
        "0.8",
        "0.1",
    )
    add(
        "image that patches do not fill",
        "model.vlm.image-res: 50; expected a multiple of 16",
        "--model.vlm.image-res",
        "50",
    )
    add("width that heads do not divide", "model.d-model: 20; expected a multiple of 8", "--model.d-model", "20")
    add(
        "unknown target", "few-shot.target: 'Berlin'; expected one of the data sets good", "--few-shot.target", "Berlin"
    )
    add("nothing to train on", "few-shot: nothing to train on for target good", "--few-shot.target", "good")
    add("share beyond the whole", "few-shot.ratio: 1.5; expected a share from 0 to 1", "--few-shot.target", "good",
        "--few-shot.ratio", "1.5")  # fmt: skip
    add("days shorter than a window", "few-shot.days 0.1; expected at least 0.25, the days of one window",
        "--few-shot.target", "good", "--few-shot.days", "0.1")  # fmt: skip


def _yaml(table: _Table) -> None:
    """Configurations of the original."""
    good = table.folder / "good.json"

    def add(name: str, content: str | bytes, expected: str, *flags: str) -> None:
        path = table.path(name, ".yaml")
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        table.add(name, good, f"{path.name} | {expected}", "--config", str(path), *flags, preset=False)

    add(
        "unknown key in yaml",
        "training: {batchsize: 4}",
        "unknown key 'training.batchsize'; did you mean 'batch_size'?",
    )
    add("unknown section in yaml", "trainng: {}", "unknown key 'trainng'; did you mean 'training'?")
    add("unknown size in yaml", "model: {d_modle: 32}", "unknown key 'd_modle'; did you mean 'd_model'?")
    add(
        "word for a number in yaml",
        "training: {batch_size: many}",
        "training.batch_size is 'many'; expected a whole number",
    )
    add("number for a section in yaml", "data: 3", "data is 3; expected a table")
    add("another task in yaml", "data: {task: imputation}", "data.task: 'imputation'; expected prediction")
    add("unscaled in yaml", "data: {normalize: false}", "data.normalize: False; expected true")
    add(
        "unknown optimiser in yaml", "training: {optimizer: lamb}", "training.optimizer: 'lamb'; expected adamw or adam"
    )
    add(
        "unknown schedule in yaml",
        "training: {scheduler: plateau}",
        "training.scheduler: 'plateau'; expected cosine, step or none",
    )
    add(
        "ratios beyond the whole in yaml",
        "data: {train_ratio: 0.9}",
        "data.split | expected three shares that sum to 1",
    )
    add("key twice in yaml", "training: {batch_size: 4, batch_size: 8}", "line 1: key 'batch_size' occurs twice")
    add(
        "code in yaml",
        "model: !!python/object/apply:os.getcwd []",
        "could not determine a constructor | expected plain YAML",
    )
    add("open bracket in yaml", "training: {batch_size: 4", "line | expected plain YAML")
    add("list as yaml", "- 1\n- 2\n", "a list; expected tables such as data, model and training")
    add("empty yaml", "", "empty file; expected a configuration in YAML")
    add("yaml in latin-1", "data: {task: vorhersage\xfc}".encode("latin-1"), "is not UTF-8; expected YAML in UTF-8")
    add("references without end", "a: &a [*a]", "more than 32 levels once references are followed")
    add("references that multiply", _bomb(), "more than 10,000 values once references are followed")
    add("numbers as keys in yaml", "3: {}", "key 3; expected a word")
    add(
        "no single data set in yaml",
        "data: {dataset_paths: [a.json]}",
        "no data.dataset_path; expected one",
        "--single-dataset",
    )
    add("unknown adapters in yaml", "model: {vlm: {lora_type: dora}}", "lora_type | 'dora' | expected one of")
    missing = table.folder / "nowhere.yaml"
    table.add("no such yaml", good, "nowhere.yaml: no such file", "--config", str(missing), preset=False)


def _bomb() -> str:
    lines = ["l0: &l0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]"]
    lines += [f"l{level}: &l{level} [{', '.join([f'*l{level - 1}'] * 10)}]" for level in range(1, 6)]
    return "\n".join(lines)


def _weights(table: _Table) -> None:
    """Files of weights to start from."""
    good = table.folder / "good.json"
    archive = table.folder / "weights.npz"
    np.savez(archive, weight=np.zeros(3))
    table.add("arrays as a checkpoint", good, "weights.npz | expected", "--init-from", str(archive))
    cut = table.folder / "cut.safetensors"
    cut.write_bytes((10**6).to_bytes(8, "little") + b'{"a": ')
    table.add("checkpoint cut short", good, "cut.safetensors | expected", "--init-from", str(cut))
    other = table.folder / "other.safetensors"
    _checkpoint_of_another(other)
    table.add("checkpoint of another package", good, "other.safetensors: a checkpoint of 'svq'; expected one of vlm4st",
              "--init-from", str(other))  # fmt: skip
    table.add("no such backbone", good, "ALBEF_none.pth: no such file; expected weights of ALBEF",
              "--model.vlm.pretrained-path", str(table.folder / "ALBEF_none.pth"))  # fmt: skip


def _checkpoint_of_another(path: Path) -> None:
    import torch

    from stcore.training.checkpoint import save_checkpoint

    save_checkpoint(path, {"model/weight": torch.zeros(2)}, {"package": "svq", "version": "0.1.0", "step": 1})
