"""`00sequences.txt` of KTH: which frames of each video show the action; between them the person is out of sight.

A line is `person01_jogging_d1 frames 1-50, 120-170, 250-300, 362-415`, frames counted from 1, both ends included, or
says that the video is missing. Ranges of the published file touch, overlap and change order; their frames are kept
once.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from stcore.errors import UserError
from stcore.readers.grid_files import require_grid_file
from stcore.readers.limits import open_file, short, shown

FILE_NAME = "00sequences.txt"
_MAX_BYTES = 2**20
_LINE = re.compile(r"(person\d{1,3}_\w+?)\s+(?:\*?missing\*?|frames\s+(.*))", re.IGNORECASE)
_RANGE = re.compile(r"\s*(\d{1,9})\s*-\s*(\d{1,9})\s*")


@dataclass(frozen=True)
class ListedFrames:
    """Frames that the publisher lists, by the name of the video without what comes after `d1` to `d4`."""

    where: str
    stretches: dict[str, tuple[range, ...]]
    """Frames counted from 1; stretches that touch or overlap are one."""

    def of(self, video: str) -> tuple[range, ...] | None:
        """Return the stretches of a video, such as `person01_boxing_d1_uncomp`; none where it is not in the list."""
        words = video.split("_")
        return next(
            (self.stretches[name] for count in range(len(words), 0, -1)
             if (name := "_".join(words[:count])) in self.stretches),
            None,
        )  # fmt: skip


def read_listed(folder: Path) -> ListedFrames | None:
    """Read the list that lies in a folder of KTH; none where there is none.

    Raises:
        UserError: it is no text, or a line that names a video cannot be understood.
    """
    path = folder / FILE_NAME
    if not path.is_file():
        return None
    require_grid_file(path, "frame ranges")
    where = shown(path)
    with open_file(path) as file:
        content = file.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES or b"\0" in content:
        raise UserError(f"{where}: no list of frame ranges; expected the publisher's text of about 40 kB")
    stretches: dict[str, tuple[range, ...]] = {}
    for number, line in enumerate(content.decode("latin-1").splitlines(), start=1):
        if re.match(r"person\d+_", line):
            name, found = _read_line(f"{where}: line {number}", line.strip())
            stretches[name] = found
    if not stretches:
        raise UserError(
            f"{where}: no line such as 'person01_boxing_d1 frames 1-95, 96-185'; expected one for each video"
        )
    return ListedFrames(where, stretches)


def _read_line(where: str, line: str) -> tuple[str, tuple[range, ...]]:
    match = _LINE.fullmatch(line)
    if match is None:
        raise UserError(f"{where}: {short(line)}; expected a name, the word frames, and ranges such as 1-95, 96-185")
    ranges: list[range] = []
    for text in filter(str.strip, (match[2] or "").split(",")):
        bounds = _RANGE.fullmatch(text)
        if bounds is None or not 1 <= int(bounds[1]) <= int(bounds[2]):
            raise UserError(
                f"{where}: range {short(text.strip())}; expected two rising frame numbers from 1, as in 1-95"
            )
        ranges.append(range(int(bounds[1]), int(bounds[2]) + 1))
    return match[1], _united(ranges)


def _united(ranges: list[range]) -> tuple[range, ...]:
    """Return the same frames in stretches that neither touch nor overlap, in order."""
    united: list[range] = []
    for one in sorted(ranges, key=lambda each: each.start):
        if united and one.start <= united[-1].stop:
            united[-1] = range(united[-1].start, max(united[-1].stop, one.stop))
        else:
            united.append(one)
    return tuple(united)
