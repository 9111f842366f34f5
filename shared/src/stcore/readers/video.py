"""Video files, decoded to frames with PyAV (extra `video`).

The container is told by the ending of the file and by nothing in it: a text that names other files or addresses is
never followed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stcore.errors import UserError
from stcore.frame_stores import join
from stcore.readers import limits
from stcore.readers.frames import list_folder
from stcore.readers.grid_assembly import RawGrid
from stcore.readers.grid_files import require_grid_file
from stcore.readers.grid_options import GridReadOptions
from stcore.readers.grid_times import step_of_seconds
from stcore.readers.limits import shown

_CONTAINERS = {
    ".avi": "avi", ".mp4": "mov", ".m4v": "mov", ".mov": "mov", ".mkv": "matroska", ".webm": "matroska",
    ".mpg": "mpeg", ".mpeg": "mpeg", ".gif": "gif",
}  # fmt: skip
VIDEO_ENDINGS = tuple(_CONTAINERS)


def read_video(path: Path, options: GridReadOptions, *, first_channel: bool = False) -> RawGrid:
    """Decode a whole video as one clip of 8-bit frames.

    Args:
        path: the file.
        options: `color` (`auto` keeps red, green and blue unless the stream is grey), `size`, `max_bytes`.
        first_channel: keep the first colour channel alone, as OpenSTL does for KTH.

    Raises:
        UserError: it is no video, is cut short or damaged, or its frames need too much memory.
    """
    require_grid_file(path, "frames")
    frames, rate = _decoded(path, options, first_channel)
    colored = frames.shape[1] == 3
    return RawGrid(
        where=shown(path),
        values=frames,
        clip_names=(path.stem,),
        channels=("red", "green", "blue") if colored else ("gray",),
        units=("8-bit value",) if colored else ("gray value",),
        value_range=(0.0, 255.0),
        step=step_of_seconds(1.0 / rate) if rate > 0.0 else None,
    )


def read_videos(paths: list[Path], where: str, options: GridReadOptions) -> RawGrid:
    """Decode several videos as clips of one series.

    Raises:
        UserError: as for one, or their frames differ in size or colours.
    """
    clips = [read_video(path, options) for path in paths]
    for path, clip in zip(paths, clips, strict=True):
        if clip.values.shape[1:] != clips[0].values.shape[1:]:
            raise UserError(
                f"{shown(path)}: frames {clip.values.shape[1:]}; expected {clips[0].values.shape[1:]} as "
                f"{paths[0].name}; pass --data.size and --data.color"
            )
    lengths = [clip.values.shape[0] for clip in clips]
    return RawGrid(
        where=where,
        values=join([clip.values for clip in clips]),
        clip=np.repeat(np.arange(len(clips), dtype=np.int64), lengths),
        clip_names=tuple(path.name for path in paths),
        channels=clips[0].channels,
        units=clips[0].units,
        value_range=(0.0, 255.0),
        step=clips[0].step if len({clip.step for clip in clips}) == 1 else None,
    )


def videos_in(folder: Path) -> list[Path]:
    """Return the video files of a folder, in order."""
    return [one for one in list_folder(folder) if one.suffix.lower() in VIDEO_ENDINGS and not one.is_dir()]


def _decoded(path: Path, options: GridReadOptions, first_channel: bool) -> tuple[NDArray[np.uint8], float]:
    try:
        import av
        import av.error
    except ImportError as error:
        raise UserError(
            f"{shown(path)}: reading videos needs PyAV; expected it; pip install 'stcore[video]'"
        ) from error

    where = shown(path)
    frames: list[NDArray[np.uint8]] = []
    try:
        with limits.open_file(path) as file, av.open(file, format=_CONTAINERS[path.suffix.lower()]) as container:
            if not container.streams.video:
                raise UserError(f"{where}: no video stream; expected one")
            stream: Any = container.streams.video[0]
            rate = float(stream.average_rate or 0.0)
            declared = int(stream.frames or 0)
            for frame in _frames(path, container, stream, options, first_channel):
                frames.append(frame)  # noqa: PERF402 (the message below tells how far it came)
    except UserError:
        raise
    except (av.error.FFmpegError, OSError, ValueError, EOFError, OverflowError) as error:
        reason = limits.one_line(error)
        raise UserError(
            f"{where}: broken video after frame {len(frames)} ({reason}); expected a whole {path.suffix} file"
        ) from error
    if not frames:
        raise UserError(f"{where}: no frame can be decoded; expected a whole video")
    if declared > len(frames):
        raise UserError(f"{where}: ends after frame {len(frames)}; expected {declared} frames as its header says")
    return np.stack(frames), rate


def _frames(
    path: Path, container: Any, stream: Any, options: GridReadOptions, first_channel: bool
) -> Iterator[NDArray[np.uint8]]:
    """Decode frame by frame, and stop where they become more than their limit."""
    gray = options.color == "gray" or (options.color == "auto" and str(stream.format.name).startswith("gray"))
    layout = "gray" if gray and not first_channel else "rgb24"
    limit = limits.size_limit(options.max_bytes)
    size = (int(stream.height), int(stream.width))
    one = size[0] * size[1] * (1 if layout == "gray" else 3)
    limits.require_size(path, one * max(1, int(stream.frames or 0)), limit, "declares frames of")
    taken = 0
    for number, frame in enumerate(container.decode(stream)):
        if (frame.height, frame.width) != size:
            raise UserError(
                f"{shown(path)}: frame {number} is {frame.height} x {frame.width}; expected {size[0]} x {size[1]} "
                "as before"
            )
        height, width = options.size or size
        pixels = frame.reformat(width=width, height=height, format=layout, interpolation="BILINEAR").to_ndarray()
        taken += pixels.nbytes
        limits.require_size(path, taken, limit, "decodes to more than")
        if pixels.ndim == 2:
            yield pixels[None]
        else:
            yield pixels[..., 0][None] if first_channel else np.ascontiguousarray(np.moveaxis(pixels, -1, 0))
