"""What is settled about a file before its content is read: that it is one, that it is what its name says, its size.

Compressed and binary files declare how large they become; they are refused by that, before anything is unpacked.
"""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

from stcore.errors import UserError

COMPRESSED_FLOOR = 64 * 2**20
"""A compressed file may always become this large (bytes)."""
MAX_RATIO = 200
"""Beyond the floor, a compressed file may become this many times its size unless a limit is given."""

_MAGIC = {
    ".parquet": (b"PAR1", "a Parquet file"),
    ".arrow": (b"ARROW1", "an Arrow file"),
    ".feather": (b"ARROW1", "a Feather (version 2) file"),
    ".npz": (b"PK\x03\x04", "a zip archive of arrays"),
    ".npy": (b"\x93NUMPY", "a NumPy array"),
    ".gz": (b"\x1f\x8b", "gzip data"),
}
_KNOWN = {
    b"PAR1": "Parquet",
    b"ARROW1": "Arrow",
    b"PK\x03\x04": "a zip archive",
    b"\x93NUMPY": "a NumPy array",
    b"\x1f\x8b": "gzip data",
    b"\x89HDF\r\n": "HDF5",
    b"CDF": "netCDF",
    b"%PDF": "a PDF",
    b"\x7fELF": "a program",
    b"\x80\x02": "a pickle",
    b"\x80\x03": "a pickle",
    b"\x80\x04": "a pickle",
    b"\x80\x05": "a pickle",
}


def half_of_memory() -> int:
    """Return half of the memory this process may use (machine or container), in bytes."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    container = Path("/sys/fs/cgroup/memory.max")
    if container.is_file() and (text := container.read_text().strip()).isdigit():
        total = min(total, int(text))
    return total // 2


def size_limit(max_bytes: int) -> int:
    """Return the largest size in memory (bytes) that a file may take: `max_bytes`, or half of memory when it is 0."""
    return max_bytes or half_of_memory()


def unpacked_limit(max_bytes: int, file_bytes: int) -> int:
    """Return how large a compressed file of `file_bytes` may become (bytes).

    >>> unpacked_limit(10**6, 500), unpacked_limit(0, 500) == COMPRESSED_FLOOR
    (1000000, True)
    """
    return max_bytes or min(half_of_memory(), max(COMPRESSED_FLOOR, MAX_RATIO * file_bytes))


def require_file(path: Path, what: str = "events") -> int:
    """Return the size of the regular file `path`, of `what`, in bytes; never opens it, so that a pipe cannot hang.

    Raises:
        UserError: it is missing, a loop of links, a folder, a pipe or device, unreadable, or empty.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise UserError(f"{shown(path)}: {_why(error)}; expected a file of {what}") from error
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{shown(path)}: {_kind(status.st_mode)}; expected a regular file")
    if not os.access(path, os.R_OK):
        raise UserError(f"{shown(path)}: no permission to read it; expected a readable file")
    if status.st_size == 0:
        raise UserError(f"{shown(path)}: empty file; expected {what}")
    return status.st_size


def require_size(path: Path, needed: int, limit: int, what: str) -> None:
    """Refuse a file that would need more than `limit` bytes.

    Raises:
        UserError: it would.
    """
    if needed > limit:
        raise UserError(
            f"{shown(path)}: {what} {needed:,} bytes; expected at most {limit:,}; pass --data.max-bytes if this is "
            "right"
        )


def require_magic(path: Path, ending: str) -> None:
    """Refuse a file whose first bytes are not those of its `ending`.

    Raises:
        UserError: they are not; the message says what the file looks like.
    """
    wanted, name = _MAGIC[ending]
    head = read_head(path)
    if not head.startswith(wanted):
        raise UserError(f"{shown(path)}: starts with {looks_like(head)}; expected {name} as the ending {ending} says")


def read_head(path: Path) -> bytes:
    """Return the first 8 bytes.

    Raises:
        UserError: the file cannot be read.
    """
    with open_file(path) as file:
        return file.read(8)


def open_file(path: Path) -> BufferedReader:
    """Open for reading in binary.

    Raises:
        UserError: the file cannot be opened.
    """
    try:
        return path.open("rb")
    except OSError as error:
        raise UserError(f"{shown(path)}: {_why(error)}; expected a readable file") from error


def looks_like(head: bytes) -> str:
    """Say what a file that begins with `head` is.

    >>> looks_like(b"PAR1rest"), looks_like(b"abc")
    ('Parquet', "b'abc'")
    """
    return next((name for magic, name in _KNOWN.items() if head.startswith(magic)), repr(head[:6]))


def shown(path: Path) -> str:
    """Return the path as it is put into a message: one line, not endless.

    >>> shown(Path("a\\nb.csv"))
    'a?b.csv'
    """
    text = "".join(letter if letter.isprintable() else "?" for letter in str(path))
    return text if len(text) <= 300 else f"…{text[-299:]}"


def short(value: object, length: int = 60) -> str:
    """Return a value from a file as it is put into a message: quoted, one line, not endless.

    >>> short("a" * 99, 8)
    "'aaaaaaa…"
    """
    text = repr(value[: length + 1] if isinstance(value, str | bytes) else value)
    return text if len(text) <= length else f"{text[:length]}…"


def one_line(error: BaseException) -> str:
    """Return what another library says about an error, as it is put into a message."""
    text = " ".join("".join(letter if letter.isprintable() else " " for letter in str(error)).split())
    return text[:160] or type(error).__name__


def _why(error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "no such file"
    if error.errno == errno.ELOOP:
        return "a symbolic link that leads back to itself"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "no permission to read it"
    return (error.strerror or str(error)).lower()


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISFIFO(mode):
        return "a pipe"
    return "a device" if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else "no regular file"
