"""JSON of any size, walked through once: what is asked for is handed out row by row, the rest is passed over.

No more is held than a piece of the file and the value at hand. The end of a value is found by its brackets, with an eye
on words; the standard library then decodes it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, BinaryIO

from stcore.errors import UserError
from stcore.readers.limits import short

MAX_DEPTH = 64
_PIECE = 2**20
_LONGEST_WORD = 2**22
_EDGE = re.compile(rb'["\[\]{}]')
_WORD = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_BLANKS = re.compile(rb"[ \t\r\n]*")
_SCALAR = re.compile(rb"[^,:\[\]{}\s]*")


class JsonStream:
    """A place in a JSON file, moving forward.

    Args:
        file: opened for reading in binary.
        where: name of the file, for messages.
        longest: bytes of the largest value that may be taken at once.
    """

    def __init__(self, file: BinaryIO, where: str, *, longest: int = 2**28) -> None:
        self._file, self.where, self._longest = file, where, longest
        self._held, self._at, self._before = b"", 0, 0
        self._mark: int | None = None  # what is held from here on must stay
        self._more()
        if self._held.startswith(b"\xef\xbb\xbf"):
            self._at = 3

    @property
    def offset(self) -> int:
        """Byte of the file at which this is."""
        return self._before + self._at

    def peek(self) -> bytes:
        """Return the next byte that is no blank, without moving past it; nothing at the end."""
        while True:
            self._at = _end(_BLANKS, self._held, self._at)
            if self._at < len(self._held) or not self._more():
                return self._held[self._at : self._at + 1]

    def expect(self, wanted: bytes) -> None:
        """Move past a byte.

        Raises:
            UserError: something else is there.
        """
        if self.peek() != wanted:
            raise self.wrong(repr(wanted.decode()))
        self._at += 1

    def wrong(self, expected: str) -> UserError:
        """Say what is here in place of what was expected."""
        if not self.peek():
            return UserError(f"{self.where}: byte {self.offset:,}: the file ends; expected {expected}; the file is cut")
        found = short(self._held[self._at : self._at + 12].decode("utf-8", "replace"))
        return UserError(f"{self.where}: byte {self.offset:,}: {found}; expected {expected}")

    def pairs(self) -> Iterator[str]:
        """Yield the keys of the object that begins here, each once the stream stands at its value.

        Raises:
            UserError: it is no object, or it is broken.
        """
        self.expect(b"{")
        if self.peek() == b"}":
            self._at += 1
            return
        while True:
            if self.peek() != b'"':
                raise self.wrong("a key in quotes")
            key = self.value()
            self.expect(b":")
            yield key
            if not self._goes_on(b"}"):
                return

    def items(self) -> Iterator[int]:
        """Yield the numbers of the items of the list that begins here, each once the stream stands at the item.

        Raises:
            UserError: it is no list, or it is broken.
        """
        self.expect(b"[")
        if self.peek() == b"]":
            self._at += 1
            return
        number = 0
        while True:
            yield number
            number += 1
            if not self._goes_on(b"]"):
                return

    def _goes_on(self, closing: bytes) -> bool:
        found = self.peek()
        if found not in (b",", closing) or not found:
            raise self.wrong(f"',' or {closing.decode()!r}")
        self._at += 1
        return found == b","

    def value(self, **how: Any) -> Any:
        """Return the value that begins here, decoded; `how` goes to `json.loads`.

        Raises:
            UserError: it is broken, or too long.
        """
        self.peek()
        self._mark = self._at
        try:
            self._pass()
            data = self._held[self._mark : self._at]
        finally:
            self._mark = None
        try:
            return json.loads(data.decode("utf-8"), **how)
        except (ValueError, RecursionError) as error:
            place = self.offset - len(data) + int(getattr(error, "pos", getattr(error, "start", 0)))
            why = str(getattr(error, "msg", "") or error)[:80]
            raise UserError(f"{self.where}: byte {place:,}: {why}; expected JSON") from error

    def skip(self) -> None:
        """Move past the value that begins here, without holding or decoding it.

        Raises:
            UserError: its brackets do not close.
        """
        self._pass()

    def _pass(self) -> None:
        first, depth = self.peek(), 0
        if first and first not in b'"[{':
            while (end := _end(_SCALAR, self._held, self._at)) == len(self._held) and self._more():
                pass
            if end == self._at:
                raise self.wrong("a value")
            self._at = end
            return
        while True:
            edge = _EDGE.search(self._held, self._at)
            if edge is None:
                self._at = len(self._held)
                self._need()
            elif edge[0] == b'"':
                self._at = edge.start()
                word = _WORD.match(self._held, self._at)
                if word is None:
                    self._need()
                    continue
                self._at = word.end()
                if depth == 0:
                    return
            else:
                self._at = edge.end()
                depth += 1 if edge[0] in b"[{" else -1
                if depth > MAX_DEPTH:
                    raise UserError(f"{self.where}: byte {self.offset:,}: {depth} brackets within one another; "
                                    f"expected at most {MAX_DEPTH}")  # fmt: skip
                if depth <= 0:
                    return

    def _need(self) -> None:
        """Hold more of the file, or say what is wrong with what there is."""
        if len(self._held) - self._at > _LONGEST_WORD:
            raise UserError(f"{self.where}: byte {self.offset:,}: a word of more than {_LONGEST_WORD:,} bytes; "
                            "expected a closing quote")  # fmt: skip
        if self._mark is not None and len(self._held) - self._mark > self._longest:
            raise UserError(f"{self.where}: byte {self.offset:,}: a value of more than {self._longest:,} bytes; "
                            "expected less at a time: windows of frames, one beside the other")  # fmt: skip
        if not self._more():
            end = self._before + len(self._held)
            raise UserError(f"{self.where}: byte {end:,}: the file ends within a value; expected its closing bracket "
                            "or quote; the file is cut")  # fmt: skip

    def _more(self) -> bool:
        """Read a further piece behind what must stay; return whether there was one."""
        piece = self._file.read(_PIECE)
        if piece:
            first = self._at if self._mark is None else self._mark
            self._before += first
            self._held, self._at = self._held[first:] + piece, self._at - first
            self._mark = None if self._mark is None else 0
        return bool(piece)


def _end(pattern: re.Pattern[bytes], data: bytes, at: int) -> int:
    match = pattern.match(data, at)
    return at if match is None else match.end()
