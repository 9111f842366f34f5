"""Files of arrays (.npy, .npz, HDF5) opened so that type, shape and size of each are known before any is unpacked.

Nothing is ever unpickled. An .npy file and nothing else is mapped instead of read.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from stcore.errors import UserError
from stcore.readers import limits
from stcore.readers.array_headers import MAX_MEMBERS, bytes_of, read_array, read_header, refuse_objects
from stcore.readers.limits import short, shown

_ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError, ValueError)
_HDF5_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, NotImplementedError)
_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"

Header = tuple[tuple[int, ...], np.dtype[Any]]


def require_grid_file(path: Path, what: str = "frames") -> int:
    """Return the size of the regular file `path` in bytes, without opening it.

    Raises:
        UserError: it is missing, a loop of links, a folder, a pipe or device, unreadable, or empty.
    """
    return limits.require_file(path, what)


class ArrayFile(Protocol):
    """A file of named arrays."""

    where: str
    headers: dict[str, Header]

    def load(self, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Return the arrays `names`; their sizes together are checked first."""
        ...


class NpzFile:
    """Headers of an .npz file, and its arrays on demand.

    Raises:
        UserError: it is no zip archive of arrays, or a header is broken.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        self.where = shown(path)
        self._path = path
        self._limit = limits.unpacked_limit(max_bytes, path.stat().st_size)
        limits.require_magic(path, ".npz")
        self.headers: dict[str, Header] = {}
        self._unpacked: dict[str, int] = {}
        try:
            with limits.open_file(path) as file, zipfile.ZipFile(file) as archive:
                self._read_headers(archive)
        except UserError:
            raise
        except _ZIP_ERRORS as error:
            raise self._broken(error) from error

    def _read_headers(self, archive: zipfile.ZipFile) -> None:
        members = archive.namelist()
        if len(members) > MAX_MEMBERS:
            raise UserError(f"{self.where}: {len(members):,} arrays; expected at most {MAX_MEMBERS:,}")
        for member in members:
            name = member.removesuffix(".npy")
            with archive.open(member) as file:
                shape, _, dtype = read_header(file, self._what(name))
            self.headers[name] = (shape, dtype)
            self._unpacked[name] = archive.getinfo(member).file_size

    def _what(self, name: str) -> str:
        return f"{self.where}: array {short(name)}"

    def _broken(self, error: Exception) -> UserError:
        return UserError(f"{self.where}: broken zip archive ({limits.one_line(error)}); expected a whole .npz file")

    def load(self, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        for name in names:
            refuse_objects(self.headers[name][1], self._what(name))
        needed = sum(max(bytes_of(*self.headers[name]), self._unpacked[name]) for name in names)
        limits.require_size(self._path, needed, self._limit, "declares arrays of")
        found: dict[str, NDArray[Any]] = {}
        try:
            with limits.open_file(self._path) as file, zipfile.ZipFile(file) as archive:
                members = {member.removesuffix(".npy"): member for member in archive.namelist()}
                for name in names:
                    with archive.open(members[name]) as member:
                        found[name] = read_array(member, self._what(name))
        except UserError:
            raise
        except _ZIP_ERRORS as error:
            raise self._broken(error) from error
        return found


class H5File:
    """Datasets of an HDF5 file by their full names, and their content on demand.

    Raises:
        UserError: it is no HDF5 file, or it is damaged.
    """

    def __init__(self, path: Path, max_bytes: int) -> None:
        import h5py

        self.where = shown(path)
        self._path = path
        self._limit = limits.unpacked_limit(max_bytes, path.stat().st_size)
        require_hdf5(path)
        self.headers: dict[str, Header] = {}

        def note(name: str, thing: Any) -> None:
            if isinstance(thing, h5py.Dataset):
                self.headers[name] = (tuple(thing.shape or ()), thing.dtype)

        try:
            with h5py.File(path, "r") as file:
                file.visititems(note)
        except UserError:
            raise
        except _HDF5_ERRORS as error:
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> UserError:
        return UserError(f"{self.where}: broken HDF5 file ({limits.one_line(error)}); expected a whole one")

    def load(self, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        import h5py

        for name in names:
            refuse_objects(self.headers[name][1], f"{self.where}: array {short(name)}")
        needed = sum(bytes_of(*self.headers[name]) for name in names)
        limits.require_size(self._path, needed, self._limit, "declares arrays of")
        try:
            with h5py.File(self._path, "r") as file:
                data: Any = file
                return {name: np.asarray(data[name][()]) for name in names}
        except UserError:
            raise
        except _HDF5_ERRORS as error:
            raise self._broken(error) from error


def require_hdf5(path: Path) -> None:
    """Refuse a file that does not begin like HDF5.

    Raises:
        UserError: it does not; the message says what it looks like.
    """
    head = limits.read_head(path)
    if not head.startswith(_HDF5_MAGIC):
        raise UserError(f"{shown(path)}: starts with {limits.looks_like(head)}; expected an HDF5 (netCDF 4) file")


def map_npy(path: Path) -> NDArray[Any]:
    """Return the array of an .npy file, mapped and read-only.

    Raises:
        UserError: the header is broken, the content shorter than it says, or of Python objects.
    """
    limits.require_magic(path, ".npy")
    where = shown(path)
    with limits.open_file(path) as file:
        shape, fortran, dtype = read_header(file, where)
        start = file.tell()
    refuse_objects(dtype, where)
    needed, held = bytes_of(shape, dtype), path.stat().st_size - start
    if needed > held:
        raise UserError(
            f"{where}: {held:,} bytes for shape {shape} of {dtype}; expected {needed:,}; the file is cut or its header "
            "is wrong"
        )
    if not needed:
        return np.empty(shape, dtype=dtype)
    return np.memmap(path, dtype=dtype, mode="r", offset=start, shape=shape, order="F" if fortran else "C")
