"""How large the record batches of an Arrow file become when unpacked, from their headers alone.

Compressed buffers begin with their unpacked length (8 bytes, little-endian; -1: not compressed), and the header of a
batch is a flatbuffer that lists the buffers (Arrow columnar format, `Message.fbs` and `Schema.fbs`).
"""

from __future__ import annotations

import struct
from typing import Any

_HEADER_TYPE, _HEADER = 1, 2  # fields of Message
_RECORD_BATCH, _DICTIONARY_BATCH = 3, 2  # kinds of header
_BUFFERS, _COMPRESSION = 2, 3  # fields of RecordBatch
_DICTIONARY_DATA = 1  # field of DictionaryBatch


def unpacked_bytes(source: Any) -> int:
    """Return the sum of the unpacked lengths of all compressed buffers, and the size of all others (bytes).

    Args:
        source: an open Arrow file, read from its start.

    Raises:
        ValueError: a header is broken.
    """
    import pyarrow as pa

    source.seek(8)
    total = 0
    while True:
        try:
            message = pa.ipc.read_message(source)
        except EOFError:
            return total
        if message.type in ("record batch", "dictionary"):
            try:
                total += _batch_bytes(memoryview(message.metadata), memoryview(message.body))
            except (struct.error, IndexError) as error:
                raise ValueError("broken header of a record batch") from error


def _batch_bytes(header: memoryview, body: memoryview) -> int:
    root = _at("<I", header, 0)
    kind_at, batch_at = _field(header, root, _HEADER_TYPE), _field(header, root, _HEADER)
    if not kind_at or not batch_at:
        return len(body)
    batch = batch_at + _at("<I", header, batch_at)
    if _at("<B", header, kind_at) == _DICTIONARY_BATCH:
        data_at = _field(header, batch, _DICTIONARY_DATA)
        batch = data_at + _at("<I", header, data_at)
    if not _field(header, batch, _COMPRESSION):
        return len(body)
    buffers_at = _field(header, batch, _BUFFERS)
    if not buffers_at:
        return 0
    vector = buffers_at + _at("<I", header, buffers_at)
    total = 0
    for index in range(_at("<I", header, vector)):
        offset, length = struct.unpack_from("<qq", header, vector + 4 + 16 * index)
        unpacked = _at("<q", body, offset) if length >= 8 else 0
        total += max(unpacked, length)
    return total


def _field(buffer: memoryview, table: int, number: int) -> int:
    """Return where field `number` of the flatbuffer table at `table` lies; 0 when it has its default."""
    vtable = table - _at("<i", buffer, table)
    slot = 4 + 2 * number
    if slot + 2 > _at("<H", buffer, vtable):
        return 0
    offset = _at("<H", buffer, vtable + slot)
    return table + offset if offset else 0


def _at(layout: str, buffer: memoryview, position: int) -> int:
    if position < 0:
        raise IndexError(position)
    return struct.unpack_from(layout, buffer, position)[0]
