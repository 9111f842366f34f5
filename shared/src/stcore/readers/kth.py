"""KTH human actions: six classes, 25 persons, 4 scenarios, 25 frames a second.

Persons 1 to 16 train, 17 to 25 test. Layouts: `<class>/personNN_<class>_dM…/image_NNNN.jpg` (frames), or
`personNN_<class>_dM….avi` in class folders or beside one another. Frames are shrunk to 128 x 128 and keep their first
channel, as in OpenSTL (`dataloader_kth.py`); listings are sorted, which it leaves to the file system. Its rule of
windows is `find_windows(..., rule="kth")`. Where the publisher's list of frame ranges lies beside the clips, frames
outside of them go, and a new clip begins after each gap.
"""

from __future__ import annotations

import logging
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stcore.errors import UserError
from stcore.frame_stores import join
from stcore.readers.frames import Clip, from_clips, images_in, list_folder, number_of, pieces_of
from stcore.readers.grid_assembly import RawGrid
from stcore.readers.grid_options import GridReadOptions
from stcore.readers.grid_times import step_of_seconds
from stcore.readers.kth_sequences import ListedFrames, read_listed
from stcore.readers.limits import shown
from stcore.readers.video import read_video, videos_in

_log = logging.getLogger(__name__)

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
        UserError: no clip is found, a name tells no person, frames are broken, or the list of ranges is.
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
    listed = read_listed(folder)
    parts: dict[str, RawGrid] = {}
    for part, chosen in _by_person({name: person for name, (person, _) in found.items()}).items():
        parts[part] = _part(f"{shown(folder)}: {part}", {name: found[name][1] for name in chosen}, options,
                            listed)  # fmt: skip
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


def _part(where: str, clips: dict[str, Any], options: GridReadOptions, listed: ListedFrames | None) -> RawGrid:
    images = {name: content for name, content in clips.items() if isinstance(content, list)}
    if images and len(images) < len(clips):
        raise UserError(f"{where}: folders of images and videos; expected one kind")
    if images:
        pieces = [piece for name, paths in images.items()
                  for piece in pieces_of(Clip(name, _listed_images(name, paths, listed)))]  # fmt: skip
        return replace(from_clips(where, pieces, options, mode="first"), step=_STEP)
    stretches: dict[str, NDArray[Any]] = {}
    for name, path in clips.items():
        frames = read_video(path, options, first_channel=True).values
        for first, stretch in _listed_stretches(name, frames, listed):
            stretches[f"{name}@{first}" if name in stretches else name] = stretch
    lengths = [len(stretch) for stretch in stretches.values()]
    return RawGrid(
        where=where,
        values=join(list(stretches.values())),
        clip=np.repeat(np.arange(len(stretches), dtype=np.int64), lengths),
        clip_names=tuple(stretches),
        channels=("gray",),
        units=("gray value",),
        value_range=(0.0, 255.0),
        step=_STEP,
    )


def _listed_images(name: str, paths: list[Path], listed: ListedFrames | None) -> tuple[Path, ...]:
    """Return the images whose numbers are listed, or all where the list has no such clip."""
    ranges = _ranges(name, listed)
    if listed is None or ranges is None:
        return tuple(paths)
    numbered = [(path, number_of(path.stem)[-1:]) for path in paths]
    kept = tuple(path for path, number in numbered if number and any(number[0] in one for one in ranges))
    if not kept:
        raise UserError(f"{listed.where}: {name}: none of its {len(paths)} images is in the ranges; expected numbers "
                        "in the names of images that count the video's frames from 1")  # fmt: skip
    return kept


def _listed_stretches(name: str, frames: NDArray[Any], listed: ListedFrames | None) -> list[tuple[int, NDArray[Any]]]:
    """Return the listed stretches of a video, each with the number of its first frame; the whole without a list."""
    ranges = _ranges(name, listed)
    if listed is None or ranges is None:
        return [(1, frames)]
    if ranges[-1].stop - 1 > len(frames):
        _log.warning("%s: %s ends at frame %d, before its last range", listed.where, name, len(frames))
    kept = [(one.start, frames[one.start - 1 : one.stop - 1]) for one in ranges if one.start <= len(frames)]
    if not kept:
        raise UserError(
            f"{listed.where}: {name}: {len(frames)} frames; expected some in its ranges, from {ranges[0].start}"
        )
    return kept


def _ranges(name: str, listed: ListedFrames | None) -> tuple[range, ...] | None:
    """Return the listed ranges of a clip; none without a list, or where the list says nothing of it."""
    found = None if listed is None else listed.of(name.rpartition("/")[2])
    if listed is not None and not found:
        _log.warning("%s: no ranges of %s; all of its frames are taken", listed.where, name)
    return found or None
