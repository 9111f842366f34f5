"""Any mixture of tensors, views and state comes back from a checkpoint bit for bit."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from stcore.training.checkpoint import load_checkpoint, save_checkpoint
from stcore.training.state import pack, unpack

_DTYPES = [torch.float64, torch.float32,
           torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
           torch.uint8, torch.bool, torch.complex64]  # fmt: skip
_NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12).filter(
    lambda name: name != "__metadata__"
)
_FACTS = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """Draw a tensor of any dtype and shape whose bits are random, maybe turned or cut."""
    dtype = draw(st.sampled_from(_DTYPES))
    shape = draw(st.lists(st.integers(0, 4), max_size=4))
    count = int(torch.tensor(shape).prod()) if shape else 1
    if dtype == torch.bool:
        flat = torch.tensor(draw(st.lists(st.booleans(), min_size=count, max_size=count)), dtype=torch.bool)
    else:
        size = count * dtype.itemsize
        data = bytearray(draw(st.binary(min_size=size, max_size=size)))
        flat = torch.frombuffer(data, dtype=dtype) if size else torch.empty(0, dtype=dtype)
    whole = flat.reshape(shape)
    form = draw(st.sampled_from(["whole", "turned", "cut"]))
    if form == "turned" and whole.dim() >= 2:
        return whole.transpose(0, -1)
    return whole[::2] if form == "cut" and whole.dim() and len(whole) else whole


def bits(tensor: Tensor) -> tuple[Any, ...]:
    data = tensor.contiguous().as_strided((tensor.numel(),), (1,))
    return tensor.dtype, tuple(tensor.shape), bytes(data.view(torch.uint8).tolist()) if data.numel() else b""


@settings(max_examples=60, deadline=None)
@given(
    content=st.dictionaries(_NAMES, tensors(), max_size=5),
    again=st.lists(st.integers(0, 4), max_size=2),
    facts=st.dictionaries(st.text(), _FACTS, max_size=4),
)
def test_everything_comes_back_bit_for_bit(content: dict[str, Tensor], again: list[int], facts: dict[str, Any]) -> None:
    names = list(content)
    aliased = content | {f"{names[i]}/again": content[names[i]] for i in again if i < len(names)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "step-1.safetensors"
        save_checkpoint(path, aliased, facts)
        first = path.read_bytes()
        found = load_checkpoint(path)
        assert found.metadata == facts
        assert {name: bits(tensor) for name, tensor in found.tensors.items()} == {
            name: bits(tensor) for name, tensor in aliased.items()
        }
        # What was loaded writes the same file again, but for the order of the aliases.
        save_checkpoint(path, {name: found.tensors[name] for name in aliased}, found.metadata)
        assert path.read_bytes() == first
        stored = load_file(path)
        assert {name: bits(tensor) for name, tensor in stored.items()} == {
            name: bits(tensor) for name, tensor in aliased.items() if name in stored
        }
        assert len(stored) + len(json.loads(_facts(path))["aliases"]) == len(aliased)


def _facts(path: Path) -> str:
    data = path.read_bytes()
    return json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]["stcore"]


_KEYS = st.text(max_size=5) | st.integers() | st.booleans() | st.none()
_TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | tensors(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(_KEYS, inner, max_size=3)
        | st.dictionaries(st.sampled_from(["__tensor__", "__items__", "__tuple__", "__float__"]), inner, max_size=2)
    ),
    max_leaves=10,
)


@settings(max_examples=150, deadline=None)
@given(tree=_TREES)
def test_state_survives_json_with_its_types(tree: Any) -> None:
    kept, skeleton = pack(tree, "state")
    back = unpack(json.loads(json.dumps(skeleton, allow_nan=False)), kept)
    assert same(back, tree)


def same(one: Any, other: Any) -> bool:
    """Compare with types: 1 is not True, 0.0 is not -0.0, and NaN equals itself."""
    if type(one) is not type(other):
        return False
    if isinstance(one, Tensor):
        return bits(one) == bits(other)
    if isinstance(one, dict):
        pairs = zip(one.items(), other.items(), strict=False)
        return len(one) == len(other) and all(same(a, c) and same(b, d) for (a, b), (c, d) in pairs)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return repr(one) == repr(other)
