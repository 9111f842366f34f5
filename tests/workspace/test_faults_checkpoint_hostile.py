"""Files that were made to harm whoever loads them as a checkpoint: refused at once, nothing is run, memory bounded."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import tarfile
import time
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from campaign import record
from hostile_canary import Canary

from stcore.errors import UserError
from stcore.training.checkpoint import FORMAT, MAX_HEADER_BYTES, load_checkpoint, save_checkpoint
from stcore.training.run import Run, load_for_resume

_UNSIGNED = "0" * 64


def _file(body: bytes, payload: bytes = b"") -> bytes:
    return len(body).to_bytes(8, "little") + body + payload


def _signed(tensors: str, facts: object, payload: bytes = b"") -> bytes:
    """Make a file whose digests are all right, as an attacker can; `tensors` is the inside of a JSON object."""
    told = facts if isinstance(facts, str) else json.dumps(facts)
    body = f'{{{tensors}{"," if tensors else ""}"__metadata__":{{"stcore":{json.dumps(told)},"digest":"{_UNSIGNED}"}}}}'
    head = _file(body.encode())
    signature = hashlib.sha256(head).hexdigest()
    return head.replace(_UNSIGNED.encode(), signature.encode(), 1) + payload


def _facts(payload: bytes = b"", **changed: Any) -> dict[str, Any]:
    digests = {"a": hashlib.sha256(payload).hexdigest()}
    return {"format": FORMAT, "metadata": {}, "digests": digests, "aliases": {}, **changed}


def _tensor(dtype: str = '"F32"', shape: str = "[1]", offsets: str = "[0,4]", name: str = '"a"') -> str:
    return f'{name}:{{"dtype":{dtype},"shape":{shape},"data_offsets":{offsets}}}'


def _second(offsets: str) -> str:
    return _tensor(offsets=offsets, name='"b"')


_FOUR = bytes(4)
_PLAIN = '{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'


def hostile_files(canary: Canary) -> dict[str, bytes]:
    """Return the content of every hostile file by what it is."""

    def signed(tensors: str, **changed: Any) -> bytes:
        return _signed(tensors, _facts(_FOUR, **changed), _FOUR)

    def zipped(**entries: bytes) -> bytes:
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for name, content in entries.items():
                archive.writestr(name.replace("__", "/"), content)
        return buffer.getvalue()

    def tarred(content: bytes) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            entry = tarfile.TarInfo("pickle")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        return buffer.getvalue()

    saved = io.BytesIO()
    torch.save({"a": torch.zeros(1)}, saved)
    evil = pickle.dumps(canary)
    bomb = zipped(data__pkl=bytes(1 << 22))
    return {
        "pickle that runs a command": evil,
        "pickle, old protocol": pickle.dumps(canary, protocol=0),
        "pickle nested in a dict": pickle.dumps({"state_dict": {"a": [canary]}}),
        "torch file": saved.getvalue(),
        "torch zip with a hostile pickle": zipped(archive__data__pkl=evil, archive__version=b"3"),
        "zip that climbs out of its folder": zipped(**{"..__..__canary": b"x"}),
        "zip bomb": bomb,
        "tar with a pickle": tarred(evil),
        "numpy object array": b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
        "polyglot: safetensors, then a zip": _file(_PLAIN.encode(), _FOUR) + zipped(data__pkl=evil),
        "polyglot: our checkpoint, then a zip": signed(_tensor()) + zipped(data__pkl=evil),
        "polyglot: pickle in the header": _file(evil),
        "header of 2^63 bytes": (1 << 63).to_bytes(8, "little") + b"{}",
        "header of 2^64 - 1 bytes": b"\xff" * 8 + b"{}",
        "header of 25 MB": _file(b'{"a":"' + b"x" * (25 << 20) + b'"}'),
        "header of the largest size allowed": _file(b" " * MAX_HEADER_BYTES),
        "header of no bytes": _file(b""),
        "header that is a list": _file(b"[" * 7 + b"]" * 7),
        "header nested 100,000 deep": _file(b"[" * 100_000),
        "header nested 100,000 deep in an object": _file(b'{"a":' * 100_000),
        "header not UTF-8": _file(b'{"\xff\xfe": 1}'),
        "header in UTF-16": _file(_PLAIN.encode("utf-16")),
        "safetensors of another program": _file(_PLAIN.encode(), _FOUR),
        "number of 100,000 digits": _file(b'{"a":' + b"9" * 100_000 + b"}"),
        "10^6 keys": _file(b"{" + b",".join(b'"%d":0' % i for i in range(1_000_000)) + b"}"),
        "300,000 tensors": _file(b"{" + b",".join(b'"%d":{"dtype":"F32"}' % i for i in range(300_000)) + b"}"),
        "10^6 lists": _file(b'{"a":[' + b",".join([b"[[]]"] * 1_000_000) + b"]}"),
        "10^6 lists in the facts": _signed(_tensor(), '{"a":[' + ",".join(["[[]]"] * 1_000_000) + "]}", _FOUR),
        "4 million numbers": _file(b'{"a":[' + b"1.5," * 4_000_000 + b"1]}"),
        "a name twice": signed(_tensor() + "," + _tensor()),
        "metadata twice": _file(b'{"__metadata__":{"stcore":"{}"},"__metadata__":{"stcore":"{}","digest":"0"}}'),
        "NaN in the header": signed(_tensor(shape="[NaN]")),
        "infinity in the facts": _signed(_tensor(), json.dumps(_facts(_FOUR, metadata={"x": float("inf")})), _FOUR),
        "digest of unpaired surrogates": _file(b'{"__metadata__":{"stcore":"{}","digest":"\\ud800"}}'),
        "digest that is a number": _file(b'{"__metadata__":{"stcore":"{}","digest":7}}'),
        "metadata that is a string": _file(b'{"__metadata__":"stcore"}'),
        "overlapping": _signed(f"{_tensor(shape='[2]', offsets='[0,8]')},{_second('[4,8]')}", _facts(), bytes(8)),
        "hole in between": _signed(f"{_tensor()},{_second('[8,12]')}", _facts(_FOUR), bytes(12)),
        "bytes behind the tensors": signed(_tensor()) + b"more",
        "tensor behind the end": signed(_tensor(shape="[100000]", offsets="[0,400000]")),
        "tensor of 10^15 bytes": signed(_tensor(shape="[250000000000000]", offsets="[0,1000000000000000]")),
        "offsets backwards": signed(_tensor(offsets="[4,0]")),
        "negative sizes": signed(_tensor(shape="[-1,-1]")),
        "negative offsets": signed(_tensor(shape="[-1]", offsets="[0,-4]")),
        "size hidden by a zero": _signed(_tensor(shape="[0,9223372036854775807,9]", offsets="[0,0]"), _facts()),
        "sizes whose product overflows": signed(_tensor(shape="[4294967296,4294967296,4]")),
        "100,000 axes": signed(_tensor(shape="[" + ",".join(["1"] * 100_000) + "]")),
        "fractional sizes": signed(_tensor(shape="[1.0]")),
        "truth for a size": signed(_tensor(shape="[true]")),
        "sizes in words": signed(_tensor(shape='"one"')),
        "one offset": signed(_tensor(offsets="[4]")),
        "unknown dtype": signed(_tensor(dtype='"os.system"')),
        "dtype that is a list": signed(_tensor(dtype="[]")),
        "tensor that is a list": signed('"a":[]'),
        "tensor that is null": signed('"a":null'),
        "facts that are a list": _signed(_tensor(), "[]", _FOUR),
        "facts nested 100,000 deep": _signed(_tensor(), "[" * 100_000, _FOUR),
        "facts without digests": _signed(_tensor(), {"format": FORMAT, "metadata": {}, "aliases": {}}, _FOUR),
        "digests that are a list": signed(_tensor(), digests=["a"]),
        "digest of another tensor": signed(_tensor(), digests={"b": hashlib.sha256(_FOUR).hexdigest()}),
        "aliases that are a list": signed(_tensor(), aliases=["a"]),
        "alias to a list": signed(_tensor(), aliases={"b": ["a"]}),
        "metadata that is a list": signed(_tensor(), metadata=[1]),
        "format of the future": signed(_tensor(), format="stcore-checkpoint-99"),
        "format that is a list": signed(_tensor(), format=[]),
    }  # fmt: skip


def test_hostile_checkpoints_are_refused_and_run_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    canary = Canary(str(tmp_path / "canary"))
    files, started = hostile_files(canary), time.monotonic()
    assert len(files) >= 30
    folder = tmp_path / "files"
    folder.mkdir()
    monkeypatch.chdir(folder)
    slowest, largest = 0.0, 0
    for name, content in files.items():
        path = folder / "step-1.safetensors"
        path.write_bytes(content)
        begun = time.process_time()
        with pytest.raises(UserError) as refused:
            load_checkpoint(path)
        seconds = time.process_time() - begun
        # Once more: tracing costs several times what is traced.
        tracemalloc.start()
        with pytest.raises(UserError):
            load_checkpoint(path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        text = str(refused.value)
        assert text.startswith(f"{path}: ") and "\n" not in text and len(text) < 500, name
        assert seconds < 1.0 and peak < 200 << 20, (name, seconds, peak)
        slowest, largest = max(slowest, seconds), max(largest, peak)
        assert not Path(canary.path).exists(), name
        assert [entry.name for entry in folder.iterdir()] == [path.name], name
    record("hostile checkpoint files", tried=len(files), good=len(files), seconds=time.monotonic() - started,
           notes=f"0 executions; slowest {slowest:.2f} s, at most {largest >> 20} MiB allocated")  # fmt: skip


def test_the_canary_would_sing(tmp_path: Path) -> None:
    """The payload does run where a pickle is loaded: else its silence would mean nothing."""
    canary = Canary(str(tmp_path / "canary"))
    pickle.loads(pickle.dumps(canary))
    assert Path(canary.path).read_text() == "sung\n"


def test_names_of_code_in_metadata_stay_strings(tmp_path: Path) -> None:
    """A well-formed file may carry such strings; they are returned as they are, nothing is imported."""
    canary = tmp_path / "canary"
    told = {"_target_": "os.system", "_args_": [f"touch {canary}"], "_instantiator": "os.system",
            "py/reduce": [{"py/function": "os.system"}, f"touch {canary}"]}  # fmt: skip
    path = tmp_path / "step-1.safetensors"
    save_checkpoint(path, {"__reduce__": torch.zeros(1)}, told)
    assert load_checkpoint(path).metadata == told
    assert not canary.exists()


@pytest.mark.parametrize("name", ["folder", "pipe", "zero", "loop", "secret"])
def test_what_is_no_file_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "step-1.safetensors"
    make: dict[str, Callable[[], object]] = {
        "folder": path.mkdir,
        "pipe": lambda: os.mkfifo(path),
        "zero": lambda: path.symlink_to("/dev/zero"),
        "loop": lambda: path.symlink_to(path),
        "secret": lambda: (path.write_bytes(b"x"), path.chmod(0)),
    }
    make[name]()
    if name == "secret" and os.access(path, os.R_OK):
        pytest.skip("this user may read everything")
    with pytest.raises(UserError, match=r"step-1\.safetensors: (not a regular file|cannot be read)"):
        load_checkpoint(path)


def test_facts_that_fit_no_run_are_a_user_error(tmp_path: Path) -> None:
    """A file that is whole and signed, but was never written by a training."""
    from toy_training import CONFIG, train_toy

    run = Run.create(tmp_path / "run", package="toy", preset="tiny", config={"seed": 3})
    for metadata in ({}, {"loop": {}}, {"loop": {"optim": [], "schedule": {}, "at": {}, "select": {}}}):
        save_checkpoint(run.step_file(1), {"model/a": torch.zeros(1)}, metadata)
        assert load_for_resume(run.folder)[1].metadata == metadata
        with pytest.raises(
            UserError, match=r"step-1\.safetensors: does not fit this run: .*; expected a checkpoint of it"
        ):
            train_toy(run.folder, CONFIG, resume=run.folder)
