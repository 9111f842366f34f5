"""Read the pickle language without the pickle module: an interpreter that knows plain values and nothing else.

This file is run as a program of its own, in a child process (see `stcore.readers.pickles`), with the standard library
only. It never imports a name that a file asks for and calls nothing that a file names: the few names that occur in
pickles of NumPy arrays and torch tensors stand for inert descriptions built here, every other name is refused. The one
exception is a torch storage, whose bytes go to `torch.load(..., weights_only=True)`.

Pickle opcodes: the documentation strings of CPython's `pickletools`. State of NumPy arrays:
`numpy.ndarray.__reduce__`.
"""

from __future__ import annotations

import io
import json
import struct
import sys
from collections.abc import Callable
from typing import Any, NoReturn

MAX_DEPTH = 100
"""Containers within containers, at most."""
NODES_PER_BYTE = 16
"""Values after writing out everything that is shared, per byte of the file, at most."""
MAX_DIGITS = 400
"""Digits of an integer written as text, at most."""


class Refused(Exception):
    """The file holds something that is not plain data, or is broken."""


class Mark:
    """Where a container's items begin on the stack."""


class Name:
    """A name the file asks for and that is known here; `build` makes an inert value of its arguments."""

    def __init__(self, name: str, build: Callable[..., Any]) -> None:
        self.name, self.build = name, build


class DType:
    """A NumPy dtype by its letters: kind, size and byte order."""

    def __init__(self, code: str) -> None:
        self.code, self.order = code, "<"

    def set_state(self, state: Any) -> None:
        if type(state) is not tuple or len(state) < 8 or state[1] not in ("<", ">", "|", "=") or state[3] is not None:
            raise Refused("a NumPy dtype with fields or an unknown state")
        self.order = state[1]

    @property
    def text(self) -> str:
        return self.order.replace("=", "<") + self.code


class Array:
    """A NumPy array by dtype, shape and bytes."""

    def __init__(self) -> None:
        self.dtype, self.shape, self.fortran, self.data = "<u1", (0,), False, b""

    def set_state(self, state: Any) -> None:
        if type(state) is not tuple or len(state) != 5 or type(state[2]) is not DType:
            raise Refused("a NumPy array with an unknown state")
        _, shape, dtype, fortran, data = state
        self.fill(shape, dtype, bool(fortran), data)

    def fill(self, shape: Any, dtype: DType, fortran: bool, data: Any) -> None:
        if type(data) is list:
            raise Refused("a NumPy array of Python objects")
        if type(data) is str:  # written by Python 2
            try:
                data = data.encode("latin-1")
            except UnicodeEncodeError:
                raise Refused("a NumPy array whose data is text") from None
        if type(data) not in (bytes, bytearray) or type(shape) is not tuple:
            raise Refused("a NumPy array with an unknown state")
        count = 1
        for size in shape:
            if type(size) is not int or size < 0 or len(shape) > 32:
                raise Refused(f"a NumPy array of shape {shape!r:.60}")
            count *= size
        if count * item_size(dtype.code) != len(data):
            raise Refused(f"a NumPy array of shape {shape!r:.60} and type {dtype.code} with {len(data)} bytes")
        self.dtype, self.shape, self.fortran, self.data = dtype.text, shape, fortran, bytes(data)


class Tensor:
    """A torch tensor by its storage and the view on it."""

    def __init__(self, storage: Any, offset: Any, shape: Any, stride: Any) -> None:
        numbers = [offset, *shape, *stride] if type(shape) is tuple and type(stride) is tuple else [None]
        if type(storage) is not Storage or any(type(number) is not int or number < 0 for number in numbers):
            raise Refused("a torch tensor with an unknown state")
        if len(shape) != len(stride) or len(shape) > 32:
            raise Refused("a torch tensor whose shape and strides differ in length")
        self.storage, self.offset, self.shape, self.stride = storage, offset, shape, stride


class Storage:
    """Bytes that torch wrote for the values of a tensor; decoded once, by torch, with weights_only."""

    def __init__(self, data: Any) -> None:
        if type(data) is not bytes:
            raise Refused("a torch storage that is not bytes")
        self.data = data


def item_size(code: str) -> int:
    """Return the bytes of one value of a dtype such as f8, i4, b1, c16, U3, S5."""
    kind, size = code[:1], code[1:]
    if kind not in "biufcUS" or not size.isascii() or not size.isdigit() or len(size) > 6 or not kind:
        raise Refused(f"a NumPy dtype {code!r:.40}")
    return int(size) * (4 if kind == "U" else 1)


def _dtype(code: Any, *_: Any) -> DType:
    if type(code) is bytes:
        code = code.decode("latin-1")
    if type(code) is not str:
        raise Refused("a NumPy dtype with an unknown state")
    item_size(code)
    return DType(code)


def _empty_array(cls: Any, *_: Any) -> Array:
    if type(cls) is not Name or cls.name != "numpy.ndarray":
        raise Refused("a NumPy array of an unknown class")
    return Array()


def _array_from_buffer(data: Any, dtype: Any, shape: Any, order: Any = "C") -> Array:
    if type(dtype) is not DType:
        raise Refused("a NumPy array with an unknown state")
    array = Array()
    array.fill(shape, dtype, order == "F", data)
    return array


def _scalar(dtype: Any, data: Any = None) -> Array:
    if type(dtype) is not DType:
        raise Refused("a NumPy number with an unknown state")
    array = Array()
    array.fill((), dtype, False, data)
    return array


def _encoded(text: Any, encoding: Any) -> bytes:
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise Refused("text in an unknown encoding")
    try:
        return text.encode("latin-1")
    except UnicodeEncodeError:
        raise Refused("bytes written as text beyond latin-1") from None


def _as_set(items: Any = ()) -> Any:
    if type(items) not in (list, tuple):
        raise Refused("a set of something that is no list")
    return set(map(_key, items))


def _ordered(items: Any = ()) -> dict[Any, Any]:
    if type(items) is not list or any(type(pair) not in (list, tuple) or len(pair) != 2 for pair in items):
        items = list(items) if items == () else _refuse("an ordered dictionary with an unknown state")
    return {_key(key): value for key, value in items}


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> Tensor:
    return Tensor(storage, offset, shape, stride)


def _refuse(what: str) -> NoReturn:
    raise Refused(what)


_BUILDERS: dict[str, Callable[..., Any]] = {
    "numpy.dtype": _dtype,
    "numpy.ndarray": lambda *_: _refuse("a NumPy array made by its class"),
    "numpy.core.multiarray._reconstruct": _empty_array,
    "numpy._core.multiarray._reconstruct": _empty_array,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy._core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _array_from_buffer,
    "numpy._core.numeric._frombuffer": _array_from_buffer,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch.storage._load_from_bytes": Storage,
    "collections.OrderedDict": _ordered,
    "_codecs.encode": _encoded,
    "builtins.set": _as_set,
    "builtins.frozenset": _as_set,
    "builtins.bytearray": lambda data=b"": data if type(data) is bytes else _refuse("a bytearray made of no bytes"),
    "__builtin__.bytes": lambda *given: _refuse("bytes made of something") if given else b"",
    "builtins.bytes": lambda *given: _refuse("bytes made of something") if given else b"",
    "__builtin__.set": _as_set,
    "__builtin__.frozenset": _as_set,
}
"""Names that plain data needs and what stands for them; everything else is refused by name."""

_SCALARS = (str, int, float, bool, bytes, type(None))


def _key(value: Any) -> Any:
    """Return what may be a key or a member of a set: a scalar, or a flat tuple of scalars."""
    if type(value) in _SCALARS or (type(value) is tuple and all(type(item) in _SCALARS for item in value)):
        return value
    raise Refused(f"a key of type {type(value).__name__}")


def interpret(data: bytes) -> Any:
    """Return the plain value that the pickle `data` describes, with arrays and tensors as descriptions.

    Raises:
        Refused: it asks for anything else, or is broken.
    """
    machine = _Machine(data)
    try:
        return machine.run()
    except (IndexError, struct.error, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise Refused(f"broken at byte {machine.at:,} ({type(error).__name__})") from None


class _Machine:
    """Stack, memo and reading position."""

    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        data, stack, steps, unpack = self.data, self.stack, _STEPS, struct.Struct(">d").unpack_from
        while True:
            opcode = data[self.at]
            self.at += 1
            if opcode == 0x47:  # BINFLOAT: most of a file, so it is done without a call
                stack.append(unpack(data, self.at)[0])
                self.at += 8
                continue
            if opcode == 0x2E:  # STOP
                break
            step = steps[opcode]
            if step is None:
                raise Refused(f"opcode {opcode:#04x} at byte {self.at - 1:,}")
            step(self)
        if len(self.stack) != 1 or type(self.stack[0]) in (Mark, Name):
            raise Refused(f"an unfinished value at byte {self.at - 1:,}")
        return self.stack[0]

    def take(self, count: int) -> bytes:
        if count < 0 or self.at + count > len(self.data):
            raise Refused(f"an end in the middle of a value at byte {self.at:,}")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, layout: str, size: int) -> Any:
        return struct.unpack(layout, self.take(size))[0]

    def line(self) -> bytes:
        end = self.data.find(b"\n", self.at)
        if end < 0:
            raise Refused(f"an end in the middle of a value at byte {self.at:,}")
        text = self.data[self.at : end]
        self.at = end + 1
        return text

    def since_mark(self) -> list[Any]:
        stack = self.stack
        for index in range(len(stack) - 1, -1, -1):
            if type(stack[index]) is Mark:
                items = stack[index + 1 :]
                del stack[index:]
                return items
        raise Refused(f"items without a mark at byte {self.at - 1:,}")

    def find(self, module: str, name: str) -> None:
        wanted = f"{module}.{name}"
        if wanted not in _BUILDERS:
            raise Refused(f"the name {wanted!r:.100}")
        self.stack.append(Name(wanted, _BUILDERS[wanted]))

    def call(self, callee: Any, arguments: Any) -> None:
        if type(callee) is not Name or type(arguments) is not tuple:
            raise Refused(f"a call of a {type(callee).__name__} at byte {self.at - 1:,}")
        if any(type(argument) is Mark for argument in arguments):
            raise Refused(f"a mark as an argument at byte {self.at - 1:,}")
        self.stack.append(callee.build(*arguments))


def _push(make: Callable[[_Machine], Any]) -> Callable[[_Machine], None]:
    def step(machine: _Machine) -> None:
        machine.stack.append(make(machine))

    return step


def _mark(machine: _Machine) -> None:
    machine.stack.append(Mark())


def _list(machine: _Machine) -> None:
    machine.stack.append([])


def _memoize(machine: _Machine) -> None:
    memo = machine.memo
    memo[len(memo)] = machine.stack[-1]


def _appends(machine: _Machine) -> None:
    items = machine.since_mark()
    target = machine.stack[-1]
    if type(target) is not list:
        raise Refused(f"items appended to a {type(target).__name__} at byte {machine.at - 1:,}")
    target.extend(items)


def _append(machine: _Machine) -> None:
    item = machine.stack.pop()
    target = machine.stack[-1]
    if type(target) is not list or type(item) is Mark:
        raise Refused(f"an item appended to a {type(target).__name__} at byte {machine.at - 1:,}")
    target.append(item)


def _fill(machine: _Machine, target: Any, items: list[Any]) -> None:
    if type(target) is not dict or len(items) % 2 or any(type(item) is Mark for item in items):
        raise Refused(f"keys set on a {type(target).__name__} at byte {machine.at - 1:,}")
    for key, value in zip(items[::2], items[1::2], strict=True):
        target[_key(key)] = value


def _set_items(machine: _Machine) -> None:
    items = machine.since_mark()
    _fill(machine, machine.stack[-1], items)


def _set_item(machine: _Machine) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    _fill(machine, machine.stack[-1], [key, value])


def _new_dict(machine: _Machine) -> None:
    filled: dict[Any, Any] = {}
    _fill(machine, filled, machine.since_mark())
    machine.stack.append(filled)


def _add_items(machine: _Machine) -> None:
    items = machine.since_mark()
    target = machine.stack[-1]
    if type(target) is not set:
        raise Refused(f"members added to a {type(target).__name__} at byte {machine.at - 1:,}")
    target.update(map(_key, items))


def _tuple_of(count: int) -> Callable[[_Machine], None]:
    def step(machine: _Machine) -> None:
        items = tuple(machine.stack[len(machine.stack) - count :])
        if len(items) != count or any(type(item) is Mark for item in items):
            raise Refused(f"a tuple of too few items at byte {machine.at - 1:,}")
        del machine.stack[len(machine.stack) - count :]
        machine.stack.append(items)

    return step


def _put(read: Callable[[_Machine], int]) -> Callable[[_Machine], None]:
    def step(machine: _Machine) -> None:
        index = read(machine)
        machine.memo[index] = machine.stack[-1]

    return step


def _get(read: Callable[[_Machine], int]) -> Callable[[_Machine], None]:
    def step(machine: _Machine) -> None:
        index = read(machine)
        if index not in machine.memo:
            raise Refused(f"a reference to nothing at byte {machine.at - 1:,}")
        machine.stack.append(machine.memo[index])

    return step


def _decimal(text: bytes) -> int:
    if not text.removeprefix(b"-").isdigit() or len(text) > MAX_DIGITS:
        raise Refused(f"an integer written as {text[:20]!r}")
    return int(text)


def _text_int(machine: _Machine) -> Any:
    text = machine.line()
    return {b"00": False, b"01": True}[text] if text in (b"00", b"01") else _decimal(text)


def _long(size: Callable[[_Machine], int]) -> Callable[[_Machine], int]:
    def read(machine: _Machine) -> int:
        count = size(machine)
        if not 0 <= count <= 128:
            raise Refused(f"an integer of {count:,} bytes at byte {machine.at:,}")
        return int.from_bytes(machine.take(count), "little", signed=True)

    return read


def _quoted(machine: _Machine) -> str:
    """Read a string as Python 2 wrote it, quoted; bytes beyond ASCII mean latin-1."""
    text = machine.line()
    if len(text) < 2 or text[:1] not in (b"'", b'"') or text[-1:] != text[:1]:
        raise Refused(f"a string without quotes at byte {machine.at:,}")
    import codecs

    return codecs.escape_decode(text[1:-1])[0].decode("latin-1")


def _text(size: Callable[[_Machine], int]) -> Callable[[_Machine], str]:
    return lambda machine: machine.take(size(machine)).decode("utf-8", "surrogatepass")


def _latin(size: Callable[[_Machine], int]) -> Callable[[_Machine], str]:
    return lambda machine: machine.take(size(machine)).decode("latin-1")


def _bytes(size: Callable[[_Machine], int]) -> Callable[[_Machine], bytes]:
    return lambda machine: machine.take(size(machine))


def _u1(machine: _Machine) -> int:
    machine.at += 1
    return machine.data[machine.at - 1]


def _u2(machine: _Machine) -> int:
    return machine.number("<H", 2)


def _u4(machine: _Machine) -> int:
    return machine.number("<I", 4)


def _i4(machine: _Machine) -> int:
    return machine.number("<i", 4)


def _u8(machine: _Machine) -> int:
    return machine.number("<Q", 8)


def _protocol(machine: _Machine) -> None:
    if (version := _u1(machine)) > 5:
        raise Refused(f"pickle protocol {version}")


def _frame(machine: _Machine) -> None:
    if _u8(machine) > len(machine.data) - machine.at:
        raise Refused("an end before the end of a frame: the file is cut")


def _pop(machine: _Machine) -> None:
    machine.stack.pop()


def _pop_mark(machine: _Machine) -> None:
    machine.since_mark()


def _duplicate(machine: _Machine) -> None:
    machine.stack.append(machine.stack[-1])


def _global(machine: _Machine) -> None:
    module, name = machine.line().decode("latin-1"), machine.line().decode("latin-1")
    machine.find(module, name)


def _stack_global(machine: _Machine) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    if type(name) is not str or type(module) is not str:
        raise Refused(f"a name that is no text at byte {machine.at - 1:,}")
    machine.find(module, name)


def _reduce(machine: _Machine) -> None:
    arguments, callee = machine.stack.pop(), machine.stack.pop()
    machine.call(callee, arguments)


def _build(machine: _Machine) -> None:
    state = machine.stack.pop()
    target = machine.stack[-1]
    if type(target) not in (Array, DType):
        raise Refused(f"a state set on a {type(target).__name__} at byte {machine.at - 1:,}")
    target.set_state(state)


def _forbidden(what: str) -> Callable[[_Machine], None]:
    def step(machine: _Machine) -> None:
        raise Refused(f"{what} at byte {machine.at - 1:,}")

    return step


_TABLE: dict[bytes, Callable[[_Machine], None]] = {
    b"(": _mark,
    b"0": _pop,
    b"1": _pop_mark,
    b"2": _duplicate,
    b"F": _push(lambda machine: float(machine.line())),
    b"I": _push(_text_int),
    b"J": _push(_i4),
    b"K": _push(_u1),
    b"M": _push(_u2),
    b"L": _push(lambda machine: _decimal(machine.line().removesuffix(b"L"))),
    b"\x8a": _push(_long(_u1)),
    b"\x8b": _push(_long(_i4)),
    b"N": _push(lambda _: None),
    b"\x88": _push(lambda _: True),
    b"\x89": _push(lambda _: False),
    b"S": _push(_quoted),
    b"T": _push(_latin(_i4)),
    b"U": _push(_latin(_u1)),
    b"V": _push(lambda machine: machine.line().decode("raw-unicode-escape")),
    b"X": _push(_text(_u4)),
    b"\x8c": _push(_text(_u1)),
    b"\x8d": _push(_text(_u8)),
    b"B": _push(_bytes(_u4)),
    b"C": _push(_bytes(_u1)),
    b"\x8e": _push(_bytes(_u8)),
    b"\x96": _push(_bytes(_u8)),
    b"]": _list,
    b"l": _push(lambda machine: machine.since_mark()),
    b"a": _append,
    b"e": _appends,
    b")": _push(lambda _: ()),
    b"t": _push(lambda machine: tuple(machine.since_mark())),
    b"\x85": _tuple_of(1),
    b"\x86": _tuple_of(2),
    b"\x87": _tuple_of(3),
    b"}": _push(lambda _: {}),
    b"d": _new_dict,
    b"s": _set_item,
    b"u": _set_items,
    b"\x8f": _push(lambda _: set()),
    b"\x90": _add_items,
    b"\x91": _push(lambda machine: set(map(_key, machine.since_mark()))),
    b"p": _put(lambda machine: _decimal(machine.line())),
    b"q": _put(_u1),
    b"r": _put(_u4),
    b"g": _get(lambda machine: _decimal(machine.line())),
    b"h": _get(_u1),
    b"j": _get(_u4),
    b"\x94": _memoize,
    b"c": _global,
    b"\x93": _stack_global,
    b"R": _reduce,
    b"b": _build,
    b"\x80": _protocol,
    b"\x95": _frame,
    b"i": _forbidden("an instance of a class"),
    b"o": _forbidden("an instance of a class"),
    b"\x81": _forbidden("an instance of a class"),
    b"\x92": _forbidden("an instance of a class"),
    b"P": _forbidden("a persistent id"),
    b"Q": _forbidden("a persistent id"),
    b"\x82": _forbidden("an extension code"),
    b"\x83": _forbidden("an extension code"),
    b"\x84": _forbidden("an extension code"),
    b"\x97": _forbidden("an out-of-band buffer"),
    b"\x98": _forbidden("an out-of-band buffer"),
}
_STEPS: list[Callable[[_Machine], None] | None] = [_TABLE.get(bytes([code])) for code in range(256)]


class Writer:
    """Write a plain value as JSON and binary blobs, without sharing, within limits of depth and number."""

    def __init__(self, max_nodes: int, load_storage: Callable[[bytes], tuple[str, bytes]]) -> None:
        self.left, self.load_storage = max_nodes, load_storage
        self.blobs: list[bytes] = []
        self.storages: dict[int, tuple[str, bytes]] = {}

    def plain(self, value: Any, depth: int = 0) -> Any:
        """Return `value` for JSON: lists and scalars as they are, everything else as an object with one tag."""
        kind = type(value)
        self.left -= 1
        if self.left < 0 or depth > MAX_DEPTH:
            raise Refused(
                "values that contain each other" if self.left < 0 else f"more than {MAX_DEPTH} nested containers"
            )
        if kind is float or kind is str or kind is bool or value is None:
            return value
        if kind is int:
            return value if -(2**63) <= value < 2**64 else {"int": str(value)}
        if kind is list:
            if all(type(item) is float for item in value):
                self.left -= len(value)
                return value
            return [self.plain(item, depth + 1) for item in value]
        if kind is tuple or kind is set:
            return {kind.__name__: [self.plain(item, depth + 1) for item in value]}
        if kind is dict:
            return {"dict": [[self.plain(key, depth + 1), self.plain(item, depth + 1)] for key, item in value.items()]}
        if kind is bytes:
            return {"bytes": self.blob(value)}
        if kind is Array:
            return {"array": [value.dtype, list(value.shape), value.fortran, self.blob(value.data)]}
        if kind is Tensor:
            return self.tensor(value)
        raise Refused(f"a loose {kind.__name__}")

    def blob(self, data: bytes) -> int:
        self.blobs.append(data)
        self.left -= len(data) // 8
        return len(data)

    def tensor(self, tensor: Tensor) -> Any:
        if id(tensor.storage) not in self.storages:
            self.storages[id(tensor.storage)] = self.load_storage(tensor.storage.data)
        dtype, data = self.storages[id(tensor.storage)]
        count, last = 1, tensor.offset
        for size, stride in zip(tensor.shape, tensor.stride, strict=True):
            count *= size
            last += max(0, size - 1) * stride
        stored = len(data) // item_size(dtype[1:])
        if count and (count > stored or last >= stored):
            raise Refused(f"a torch tensor of shape {tensor.shape!r:.60} in a storage of {stored:,} values")
        self.left -= stored // 4
        return {"tensor": [dtype, list(tensor.shape), list(tensor.stride), tensor.offset, self.blob(data)]}


def torch_storage(search_path: list[str]) -> Callable[[bytes], tuple[str, bytes]]:
    """Return a function that decodes a torch storage with `weights_only`; torch is imported when it is first called."""

    def load(data: bytes) -> tuple[str, bytes]:
        sys.path[:] = search_path
        import warnings

        warnings.simplefilter("ignore")
        import torch

        try:
            storage = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except Exception as error:
            raise Refused(f"a torch storage that is broken or no plain data ({type(error).__name__})") from None
        if not isinstance(storage, torch.storage.TypedStorage) or storage.is_sparse:
            raise Refused("a torch storage of an unknown kind")
        values = torch.tensor([], dtype=storage.dtype).set_(storage)
        if storage.dtype is torch.bfloat16:
            values = values.float()
        array = values.numpy()
        return array.dtype.str, array.tobytes()

    return load


def limit_memory(extra: int) -> None:
    """Let this process take at most `extra` bytes more than it has."""
    import resource

    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - no more imports than needed
        have = int(file.read().split()[0]) * resource.getpagesize()
    limit = have + extra
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def main() -> None:
    """Read settings (one line of JSON) and a pickle from standard input, write JSON and blobs to standard output."""
    source, target = sys.stdin.buffer, sys.stdout.buffer
    settings = json.loads(source.readline())
    allowed = settings["memory"]
    blobs: list[bytes] = []
    try:
        if sys.platform == "linux":
            limit_memory(allowed)
        data = source.read()
        tree = interpret(data)
        load = torch_storage(settings["search_path"])

        def load_within(raw: bytes) -> tuple[str, bytes]:
            if sys.platform == "linux":
                limit_memory(allowed + 2**36)  # importing torch maps much address space, and uses little of it
            return load(raw)

        writer = Writer(NODES_PER_BYTE * len(data) + 1000, load_within)
        answer = json.dumps({"value": writer.plain(tree)})
        blobs = writer.blobs
    except Refused as error:
        answer, blobs = json.dumps({"refused": str(error)}), []
    except (MemoryError, RecursionError) as error:
        answer, blobs = (
            json.dumps(
                {
                    "refused": "too much for the memory allowed"
                    if isinstance(error, MemoryError)
                    else "values nested too deeply"
                }
            ),
            [],
        )
    text = answer.encode("ascii")
    target.write(struct.pack("<Q", len(text)))
    target.write(text)
    for blob in blobs:
        target.write(blob)
    target.flush()


if __name__ == "__main__":
    main()
