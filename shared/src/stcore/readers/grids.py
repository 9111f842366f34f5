"""Read fields on a grid from files, folders and named data sets; every family of formats has its own module.

What is wrong with a source is said in one line that names file, place, what was found and what was expected.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING

from stcore.errors import UserError
from stcore.readers.grid_options import GridReadOptions
from stcore.splits import PART_NAMES, Parts, cut

if TYPE_CHECKING:
    from stcore.grids import GridSeries
    from stcore.readers.grid_assembly import RawGrid

__all__ = ["GridReadOptions", "read_grid", "read_grid_parts", "read_grids_or_parts"]

_log = logging.getLogger(__name__)

ARRAY_ENDINGS = (".npy", ".npz", ".h5", ".hdf5")
NETCDF_ENDINGS = (".nc", ".nc4", ".netcdf")
_WORDS = {"train": "train|training", "val": "val|valid|validation|dev", "test": "test|testing"}
_LATE_SHARE = 0.1  # of the training clips or frames, when there is no val part
_KEEP_CLIPS = 3  # clips from which on `auto` keeps them whole


def read_grid(source: str, options: GridReadOptions) -> GridSeries:
    """Read all frames of a file, a folder or a named data set; its parts, if any, follow one another as clips.

    Args:
        source: path or name; a path wins.
        options: what axes and values mean; its own `source` is not used.

    Raises:
        UserError: there is no such source, or something in it is wrong.
    """
    from dataclasses import replace

    from stcore.grids import concatenate

    parts = _read_source(source, options)
    if len(parts) == 1:
        return next(iter(parts.values()))
    return concatenate(
        [replace(part, clip_names=tuple(f"{name}/{clip}" for clip in part.clip_names)) for name, part in parts.items()]
    )


def read_grid_parts(options: GridReadOptions) -> Parts[GridSeries]:
    """Read train, val and test from `options.source`.

    One source with everything is cut by `options.split`, in order: whole clips, or each clip along time. A source with
    a train and a test part but none for val gives the last tenth of its training clips (or frames) to val.

    Raises:
        UserError: neither one nor three sources, a part is missing, or something in one is wrong.
    """
    sources = options.source
    if len(sources) == 3:
        return _alike(Parts(*(read_grid(source, options) for source in sources)), sources)
    if len(sources) != 1:
        raise UserError(f"data.source: {len(sources)} sources; expected one, or three: train, val and test")
    parts = _read_source(sources[0], options)
    if set(parts) == {""}:
        return _cut(parts[""], options.split, options, sources[0])
    for name in ("train", "test"):
        if name not in parts:
            raise UserError(f"{sources[0]}: parts {', '.join(parts)}; expected train, val and test; {name} is missing")
    train, test = parts["train"], parts["test"]
    if "val" in parts:
        return _alike(Parts(train, parts["val"], test), sources * 3)
    early = _cut(train, (1.0 - _LATE_SHARE, _LATE_SHARE, 0.0), options, f"{sources[0]}: train")
    _log.warning("%s: no val part: the last %d of %d training frames serve", sources[0], len(early.val), len(train))
    return _alike(Parts(early.train, early.val, test), sources * 3)


def read_grids_or_parts(options: GridReadOptions) -> dict[str, GridSeries]:
    """Read what `options.source` is: one series under the name "all", or its parts under theirs.

    Raises:
        UserError: neither one nor three sources, or something in one is wrong.
    """
    sources = options.source
    if len(sources) == 3:
        return read_grid_parts(options).named()
    if len(sources) != 1:
        raise UserError(f"data.source: {len(sources)} sources; expected one, or three: train, val and test")
    parts = _read_source(sources[0], options)
    return {"all": parts[""]} if set(parts) == {""} else parts


def _alike(parts: Parts[GridSeries], sources: tuple[str, ...]) -> Parts[GridSeries]:
    """Return the parts if their frames are of one kind."""
    train = parts.train
    for (name, part), source in zip(parts.named().items(), sources, strict=True):
        if part.num_frames and part.shape[1:] != train.shape[1:]:
            raise UserError(
                f"{source}: {name} has frames {part.shape[1:]} (channel, height, width); expected {train.shape[1:]} as "
                "train"
            )
    return parts


def _cut(
    series: GridSeries, shares: tuple[float, float, float], options: GridReadOptions, where: str
) -> Parts[GridSeries]:
    """Cut by whole clips, or each clip along time; never at random."""
    import numpy as np

    wanted = sum(share > 0.0 for share in shares)
    by_clip = options.split_by == "clip" or (options.split_by == "auto" and series.num_clips >= _KEEP_CLIPS)
    if by_clip:
        if series.num_clips < wanted:
            raise UserError(
                f"{where}: {series.num_clips} clips; expected at least {wanted} to split; pass --data.split-by time"
            )
        return cut(series.num_clips, shares, where=where, things="clips").map(series.select_clips)
    rows: tuple[list[int], list[int], list[int]] = ([], [], [])
    bounds = np.searchsorted(series.clip_numbers, np.arange(series.num_clips + 1))
    for clip in range(series.num_clips):
        count, start = int(bounds[clip + 1] - bounds[clip]), int(bounds[clip])
        if count < wanted:
            raise UserError(f"{where}: clip {series.clip_names[clip]} has {count} frames; expected at least {wanted}")
        for mine, part in zip(rows, cut(count, shares, where=where, things="frames").named().values(), strict=True):
            mine += range(start + part.start, start + part.stop)
    return Parts(*(series.select(mine) for mine in rows))


def _read_source(source: str, options: GridReadOptions) -> dict[str, GridSeries]:
    """Return series by part, the name of the part empty when the source has no parts."""
    from stcore import catalog
    from stcore.readers.grid_assembly import assemble

    path = Path(source)
    if not _exists(path):
        if (card := catalog.known(source, "grids")) is not None:
            return catalog.read(card, options, _read_path)
        if source.lower() in catalog.cards():
            kind = catalog.cards()[source.lower()].kind
            raise UserError(f"{source}: a data set of {kind}; expected one of {', '.join(catalog.cards('grids'))}")
    return {name: assemble(raw, options) for name, raw in _raws(path, options).items()}


def _read_path(path: Path, options: GridReadOptions) -> dict[str, GridSeries]:
    from stcore.readers.grid_assembly import assemble

    return {name: assemble(raw, options) for name, raw in _raws(path, options).items()}


def _exists(path: Path) -> bool:
    try:
        path.lstat()
    except OSError:
        return False
    return True


def _raws(path: Path, options: GridReadOptions) -> dict[str, RawGrid]:
    return _read_folder(path, options) if path.is_dir() else _read_file(path, options)


def _read_file(path: Path, options: GridReadOptions) -> dict[str, RawGrid]:
    """Read one file by its ending; nothing is opened before it is known to be a regular file."""
    from stcore.readers import described, frames, grid_arrays, grid_files, grid_tables, limits, netcdf, taxibj, video

    grid_files.require_grid_file(path)
    ending = path.suffix.lower()
    wanted = options.format
    if ending == ".npy" and wanted in ("auto", "array", "moving-mnist"):
        return {"": grid_arrays.read_npy(path, options)}
    if ending == ".npz" and wanted in ("auto", "taxibj"):
        file = grid_files.NpzFile(path, options.max_bytes)
        if taxibj.is_archive(file) and not options.key:
            return taxibj.read_archive(file)
    if ending in (".h5", ".hdf5") and wanted in ("auto", "taxibj") and taxibj.is_yearly(path):
        return taxibj.read_years([path], options.max_bytes)
    if ending in ARRAY_ENDINGS and ending != ".npy" and wanted in ("auto", "array"):
        return grid_arrays.read_array_file(path, options)
    if ending in NETCDF_ENDINGS and wanted in ("auto", "netcdf"):
        return {"": netcdf.read_netcdf([path], options)}
    if ending == ".toml" and wanted in ("auto", "described"):
        return {"": described.read_described(path, options)}
    if ending in video.VIDEO_ENDINGS and wanted in ("auto", "video"):
        return {"": video.read_video(path, options)}
    if ending in grid_tables.TABLE_ENDINGS and wanted == "auto":
        return {"": grid_tables.read_grid_table(path, options)}
    if ending in frames.IMAGE_ENDINGS:
        raise UserError(f"{limits.shown(path)}: one image; expected a folder of frames, or a file that holds several")
    known = (*ARRAY_ENDINGS, *NETCDF_ENDINGS, *grid_tables.TABLE_ENDINGS, ".toml", *video.VIDEO_ENDINGS)
    if ending in known:
        raise UserError(f"{limits.shown(path)}: ending {ending}; expected one that data.format {wanted} reads")
    raise UserError(f"{limits.shown(path)}: unknown ending {limits.short(ending)}; expected one of {', '.join(known)}")


def _read_folder(path: Path, options: GridReadOptions) -> dict[str, RawGrid]:
    """Read a folder by what `options.format` says, or by what is in it."""
    from stcore.readers import frames, human36m, kitti, kth, netcdf, taxibj, weatherbench
    from stcore.readers.limits import shown

    if options.format == "weatherbench" or (options.format == "auto" and weatherbench.place_of(path) is not None):
        return weatherbench.read_weatherbench(path, options)
    if options.format == "human36m" or (options.format == "auto" and human36m.looks_like_human36m(path)):
        return human36m.read_human36m(path, options)
    if options.format == "kitti-caltech" or (options.format == "auto" and kitti.looks_like_kitti(path)):
        return kitti.read_kitti(path, options)
    if path.suffix.lower() == ".zarr" and not netcdf.is_zarr(path) and options.format in ("auto", "zarr"):
        raise UserError(f"{shown(path)}: no zarr.json, .zgroup or .zarray in it; expected a Zarr store")
    if options.format == "zarr" or (options.format == "auto" and netcdf.is_zarr(path)):
        return {"": netcdf.read_zarr(path, options)}
    inside = frames.list_folder(path)
    if parts := _parts([one for one in inside if one.is_dir()], path):
        return {name: _only(_read_folder(one, options), one) for name, one in parts.items()}
    if options.format == "kth" or (options.format == "auto" and kth.looks_like_kth(path)):
        return kth.read_kth(path, options)
    if yearly := taxibj.yearly_files(path):
        return taxibj.read_years(yearly, options.max_bytes)
    return _read_files(path, options)


def _read_files(path: Path, options: GridReadOptions) -> dict[str, RawGrid]:
    """Read a folder of frames, of sequences, of videos, of netCDF files, or with a file for each part."""
    from stcore.readers import frames, grid_files, limits, moving_mnist, netcdf, taxibj, video

    if frames.images_in(path) or options.format in ("frames", "kth-examples"):
        return {"": frames.read_frames(path, options)}
    if moving_mnist.has_examples(path):
        return {"": moving_mnist.read_digit_examples(path)}
    if taxibj.has_examples(path):
        return {"": taxibj.read_flow_examples(path)}
    inside = frames.list_folder(path)
    if videos := video.videos_in(path):
        groups = _grouped(videos)
        return {name: video.read_videos(mine, limits.shown(path), options) for name, mine in groups.items()}
    files = [one for one in inside if one.suffix.lower() in (*ARRAY_ENDINGS, *NETCDF_ENDINGS) and not one.is_dir()]
    if parts := _parts(files, path):
        return {name: _only(_read_file(one, options), one) for name, one in parts.items()}
    if len(files) > 1 and all(one.suffix.lower() in NETCDF_ENDINGS for one in files):
        return {"": netcdf.read_netcdf(files, options)}
    stores = [one for one in inside if one.is_dir() and netcdf.is_zarr(one)]
    if len(files) + len(stores) == 1:
        return _raws((files + stores)[0], options)
    if not files and not stores and any(one.is_dir() for one in inside):
        return {"": frames.read_frames(path, options)}
    if files:
        grid_files.require_grid_file(files[0])
    raise UserError(
        f"{limits.shown(path)}: {len(files)} files of arrays, none named train, val or test, and no images or videos; "
        "expected frames, a file for each part, or a single file"
    )


def _part_of(name: str) -> str:
    hits = [part for part, said in _WORDS.items() if re.search(rf"(^|[\W_])({said})([\W_]|$)", name.lower())]
    return hits[0] if len(hits) == 1 else ""


def _parts(paths: list[Path], folder: Path) -> dict[str, Path]:
    """Return what is named train, val and test; none where not both train and test are there."""
    from stcore.readers.limits import shown

    parts: dict[str, Path] = {}
    for one in paths:
        if not (name := _part_of(one.name)):
            continue
        if name in parts:
            raise UserError(f"{shown(folder)}: {parts[name].name} and {one.name}; expected one for {name}")
        parts[name] = one
    return {name: parts[name] for name in PART_NAMES if name in parts} if {"train", "test"} <= set(parts) else {}


def _grouped(paths: list[Path]) -> dict[str, list[Path]]:
    """Return files by the part their names tell, or all under no name where one tells none."""
    groups: dict[str, list[Path]] = {}
    for one in paths:
        groups.setdefault(_part_of(one.name), []).append(one)
    if "" in groups or not {"train", "test"} <= set(groups):
        return {"": paths}
    return {name: groups[name] for name in PART_NAMES if name in groups}


def _only(parts: dict[str, RawGrid], path: Path) -> RawGrid:
    from stcore.readers.limits import shown

    if set(parts) != {""}:
        raise UserError(f"{shown(path)}: holds parts {', '.join(parts)}; expected one part")
    return parts[""]
