"""KTH human actions: six classes, 25 persons, 4 scenarios, 25 frames a second.

Persons 1 to 16 train, 17 to 25 test. Layouts: `<class>/personNN_<class>_dM…/image_NNNN.jpg` (frames), or
`personNN_<class>_dM….avi` in class folders or beside one another. Frames are shrunk to 128 x 128 and keep their first
channel, as in OpenSTL (`dataloader_kth.py`); listings are sorted, which it leaves to the file system. Its rule of
windows is `find_windows(..., rule="kth")`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from stcore.errors import UserError
from stcore.frame_stores import join
from stcore.readers.frames import Clip, from_clips, images_in, list_folder, pieces_of
from stcore.readers.grid_assembly import RawGrid
from stcore.readers.grid_options import GridReadOptions
from stcore.readers.grid_times import step_of_seconds
from stcore.readers.limits import shown
from stcore.readers.video import read_video, videos_in

CLASSES = ("boxing", "handclapping", "handwaving", "walking", "jogging", "running")
LAST_TRAINING_PERSON = 16
VALIDATION_PERSONS = 2
"""Persons, the last of the training ones, that serve to choose a model; the original chose on the test persons."""
SIZE = (128, 128)
_PERSON = re.compile(r"person(\d{1,3})_")
_STEP = step_of_seconds(1.0 / 25.0)


def looks_like_kth(folder: Path) -> bool:
    """Return whether a folder holds class folders of KTH, or its videos."""
    names = [one.name for one in list_folder(folder)]
    return any(name in CLASSES for name in names) or any(re.match(r"person\d+_.*\.avi", name) for name in names)


def read_kth(folder: Path, options: GridReadOptions) -> dict[str, RawGrid]:
    """Read train, val and test by person; each clip is named `<class>/<folder of the clip>`.

    Raises:
        UserError: no clip is found, a name tells no person, or frames are broken.
    """
    options = options if options.size else replace(options, size=SIZE)
    found: dict[str, tuple[int, Any]] = {}
    for place in [folder, *(one for one in list_folder(folder) if one.is_dir() and one.name in CLASSES)]:
        for name, person, clip in _clips_in(place, folder):
            found[name] = (person, clip)
    if not found:
        raise UserError(
            f"{shown(folder)}: no clip of KTH; expected folders such as boxing/person01_boxing_d1, of images, or .avi"
        )
    parts: dict[str, RawGrid] = {}
    for part, chosen in _by_person({name: person for name, (person, _) in found.items()}).items():
        parts[part] = _part(f"{shown(folder)}: {part}", {name: found[name][1] for name in chosen}, options)
    return parts


def _clips_in(place: Path, root: Path) -> list[tuple[str, int, Any]]:
    """Return name, person and content (images or a video) of each clip in a folder."""
    prefix = "" if place == root else f"{place.name}/"
    clips: list[tuple[str, int, Any]] = []
    for one in list_folder(place):
        content: Any = images_in(one) if one.is_dir() else None
        if one in (videos := videos_in(place) if content is None else []):
            content = videos[videos.index(one)]
        if not content:
            continue
        match = _PERSON.match(one.name)
        if match is None:
            raise UserError(f"{shown(one)}: no person in the name; expected one such as person01_boxing_d1")
        kind = prefix or next((f"{name}/" for name in CLASSES if name in one.name), "")
        clips.append((f"{kind}{one.stem if one.is_file() else one.name}", int(match[1]), content))
    return clips


def _by_person(person_of: dict[str, int]) -> dict[str, list[str]]:
    """Return the clips of train, val and test; the last two training persons serve val where there are more."""
    training = sorted({person for person in person_of.values() if person <= LAST_TRAINING_PERSON})
    held = set(training[-VALIDATION_PERSONS:]) if len(training) > VALIDATION_PERSONS else set(training[1:][-1:])

    def part(person: int) -> str:
        if person > LAST_TRAINING_PERSON:
            return "test"
        return "val" if person in held else "train"

    parts: dict[str, list[str]] = {}
    for name, person in sorted(person_of.items()):
        parts.setdefault(part(person), []).append(name)
    return {name: parts[name] for name in ("train", "val", "test") if name in parts}


def _part(where: str, clips: dict[str, Any], options: GridReadOptions) -> RawGrid:
    images = {name: content for name, content in clips.items() if isinstance(content, list)}
    if len(images) == len(clips):
        pieces = [piece for name, paths in images.items() for piece in pieces_of(Clip(name, tuple(paths)))]
        return replace(from_clips(where, pieces, options, mode="first"), step=_STEP)
    if images:
        raise UserError(f"{where}: folders of images and videos; expected one kind")
    read: Callable[[Path], RawGrid] = lambda path: read_video(path, options, first_channel=True)  # noqa: E731
    videos = [read(path) for path in clips.values()]
    return RawGrid(
        where=where,
        values=join([video.values for video in videos]),
        clip=np.repeat(np.arange(len(videos), dtype=np.int64), [video.values.shape[0] for video in videos]),
        clip_names=tuple(clips),
        channels=("gray",),
        units=("gray value",),
        value_range=(0.0, 255.0),
        step=_STEP,
    )
