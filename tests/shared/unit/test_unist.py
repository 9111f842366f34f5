"""Windows of UniST files: read once in little memory, found again by content, refused where they are broken."""

from __future__ import annotations

import io
import json
import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stcore.errors import UserError
from stcore.readers import unist, unist_stream
from stcore.readers.unist import read_unist
from stcore.readers.unist_stream import JsonStream

RNG = np.random.default_rng(0)


def tree_of(windows: int = 3, *, frames: int = 4, periodic: Any = None) -> dict[str, Any]:
    """A small file: windows of 2 x 3 cells and their pairs of weekday and slot."""
    tree: dict[str, Any] = {"timestamps": {}}
    for part in ("train", "val", "test"):
        tree[f"X_{part}"] = [RNG.integers(0, 90, (windows, frames, 2, 3)).tolist(), periodic or []]
        tree["timestamps"][part] = [[[1, number + at] for at in range(frames)] for number in range(windows)]
    return tree


def write(path: Path, tree: Any) -> Path:
    path.write_text(json.dumps(tree))
    return path


def test_windows_and_stamps_are_those_of_the_file(tmp_path: Path) -> None:
    tree = tree_of()
    found = read_unist(write(tmp_path / "a.json", tree), cache=tmp_path / "cache")
    assert found.form == "pair" and len(found.digest) == 64
    for part, arrays in found.parts.named().items():
        assert isinstance(arrays.values, np.memmap) and arrays.values.dtype == np.float32
        assert np.array_equal(arrays.values, np.array(tree[f"X_{part}"][0], np.float32))
        assert np.array_equal(arrays.stamps, tree["timestamps"][part])


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 2, 1, 0), (1, 3, 0, 2)])
def test_keys_may_come_in_any_order_and_others_are_passed_over(tmp_path: Path, order: tuple[int, ...]) -> None:
    tree = tree_of()
    keys = ("X_train", "X_val", "X_test", "timestamps")
    mixed = (
        {"about": {"a": ["]", '"', "\\", {"b": None}]}} | {keys[at]: tree[keys[at]] for at in order} | {"end": -1.5e3}
    )
    found = read_unist(write(tmp_path / "a.json", mixed), cache=tmp_path / "cache")
    assert np.array_equal(found.parts.val.values, np.array(tree["X_val"][0], np.float32))


def test_a_file_is_read_once_and_known_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree, cache = tree_of(), tmp_path / "cache"
    first = read_unist(write(tmp_path / "a.json", tree), cache=cache)
    monkeypatch.setattr(unist, "_convert", lambda *_, **__: pytest.fail("read again"))
    (tmp_path / "b").mkdir()
    again = read_unist(write(tmp_path / "b" / "other.json", tree), cache=cache)
    assert again.digest == first.digest and np.array_equal(again.parts.test.values, first.parts.test.values)
    tree["X_train"][0][0][0][0][0] = -1.0
    with pytest.raises(pytest.fail.Exception):
        read_unist(write(tmp_path / "a.json", tree), cache=cache)


def test_nothing_is_left_where_a_file_is_refused(tmp_path: Path) -> None:
    tree = tree_of()
    tree["X_test"][0][2][1][0][2] = float("nan")
    with pytest.raises(UserError, match=r"X_test, window 2, frame 1, row 0, column 2: nan; expected finite"):
        read_unist(write(tmp_path / "a.json", tree), cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_a_killed_reader_left_behind_goes(tmp_path: Path) -> None:
    left = tmp_path / ".abc.tmp-999999999"
    (left / "x").mkdir(parents=True)
    mine = tmp_path / f".abc.tmp-{os.getppid()}"
    mine.mkdir()
    read_unist(write(tmp_path / "a.json", tree_of()), cache=tmp_path)
    assert not left.exists() and mine.exists()


def test_a_damaged_cache_is_named(tmp_path: Path) -> None:
    path, cache = write(tmp_path / "a.json", tree_of()), tmp_path / "cache"
    read_unist(path, cache=cache)
    (held,) = cache.iterdir()
    values = held / "train.npy"
    values.write_bytes(values.read_bytes()[:-8])
    with pytest.raises(UserError, match=r"damaged \(.*train\.npy: 280 bytes.* remove the folder, and it is made anew"):
        read_unist(path, cache=cache)
    (held / "facts.json").write_text("{")
    with pytest.raises(UserError, match=r"damaged \(.*remove the folder"):
        read_unist(path, cache=cache)


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(unist.os, "fsync", full)
    with pytest.raises(UserError, match="cannot be written: No space left on device; free some space"):
        read_unist(write(tmp_path / "a.json", tree_of()), cache=tmp_path / "cache")
    assert list((tmp_path / "cache").iterdir()) == []


def test_nested_lists_are_never_held(tmp_path: Path) -> None:
    """As Python's lists the file would take ten times its size."""
    tree = tree_of(200, frames=12, periodic=[[[0.5] * 1000] * 10] * 25)
    path = write(tmp_path / "a.json", tree)
    size = path.stat().st_size
    del tree
    tracemalloc.start()
    read_unist(path, cache=tmp_path / "cache")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size > 4e6 and peak < 3.5e6


values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(-1e9, 1e9) | st.text(max_size=6),
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(max_size=4), below, max_size=4),
    max_leaves=20,
)


@settings(max_examples=60, deadline=None)
@given(tree=st.dictionaries(st.text(max_size=5), values, max_size=4), piece=st.integers(1, 40), skipped=st.booleans())
def test_any_json_is_walked_through_whatever_the_pieces(tree: dict[str, Any], piece: int, skipped: bool) -> None:
    before = unist_stream._PIECE
    unist_stream._PIECE = piece
    try:
        stream = JsonStream(io.BytesIO(json.dumps(tree, ensure_ascii=False).encode()), "a.json")
        found: dict[str, Any] = {}
        for key in stream.pairs():
            if skipped:
                stream.skip()
            else:
                found[key] = stream.value()
        assert stream.peek() == b""
        assert found == ({} if skipped else tree)
    finally:
        unist_stream._PIECE = before


@settings(max_examples=60, deadline=None)
@given(at=st.integers(0, 10**6), byte=st.integers(0, 255), cut=st.booleans())
def test_a_damaged_file_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, at: int, byte: int, cut: bool
) -> None:
    whole = bytearray(json.dumps(tree_of(2, frames=2)).encode())
    place = at % len(whole)
    if cut:
        del whole[place:]
    else:
        whole[place] = byte
    folder = tmp_path_factory.mktemp("damaged")
    (folder / "a.json").write_bytes(whole)
    try:
        found = read_unist(folder / "a.json", cache=folder / "cache")
    except UserError as error:
        assert "expected" in str(error) and "\n" not in str(error)
    else:
        assert found.parts.train.values.shape[1:] == (2, 2, 3)
