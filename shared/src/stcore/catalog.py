"""Named data sets: what each holds, where it comes from, and where its files are looked for.

Files lie under the folder that the environment variable STCORE_DATA names, or in the cache of the user. Only files
whose address and checksum are both known are ever fetched; for the others the card says what to put where.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from stcore.errors import UserError
from stcore.readers.grid_options import GridReadOptions
from stcore.readers.options import EventReadOptions

Kind = Literal["events", "grids", "digits"]
Options = TypeVar("Options", EventReadOptions, GridReadOptions)
T = TypeVar("T")

_log = logging.getLogger(__name__)

DATA_VARIABLE, OFFLINE_VARIABLE = "STCORE_DATA", "STCORE_OFFLINE"
_SECONDS = 30
_RETRIES = 2


@dataclass(frozen=True, kw_only=True)
class CardFile:
    """One file of a data set."""

    path: str
    """Name in the folder of the data set."""
    part: str
    """train, val, test, or empty when it holds everything."""
    origin: str
    """Path in the repository it comes from."""
    sha256: str
    """Checksum of its content."""
    address: str = ""
    """Where it can be fetched; empty when no address is known to work."""
    prepared: str = ""
    """How it was made from its origin; empty when it is the original file."""


@dataclass(frozen=True, kw_only=True)
class Card:
    """What a data set is, in which units, from where, and how it is read."""

    name: str
    kind: Kind = "events"
    """Which container it is read into; `digits` are still images that moving ones are made of."""
    title: str
    content: str
    """What one sequence and one event, or one frame and its channels, are."""
    axes: str
    """Sizes along sequence and event, or along time, channel, row and column."""
    units: str
    source: str
    """Repository and commit."""
    licence: str
    size_mb: float
    """Size of the files in megabytes."""
    folders: tuple[str, ...]
    """Names under which the folder is looked for."""
    files: tuple[CardFile, ...]
    notes: tuple[str, ...] = ()
    """What is known to be odd."""
    reading: dict[str, Any] = field(default_factory=dict)
    """Options of reading that differ from the defaults."""


def _smash(name: str, title: str, content: str, axes: str, units: str, size_mb: float, unit: str, coordinates: str,
           sums: tuple[str, str, str], notes: tuple[str, ...], origin: str) -> Card:  # fmt: skip
    return Card(
        name=name,
        title=title,
        content=content,
        axes=axes,
        units=units,
        source="github.com/zichongli5/SMASH, commit f2f238c5af2b92427d8fc77aa068f14bd53f4b8d",
        licence="none stated: research and testing only",
        size_mb=size_mb,
        folders=(f"smash_{name}", name, origin),
        files=tuple(
            CardFile(path=f"data_{part}.pkl", part=part, origin=f"datasets/{origin}/data_{part}.pkl", sha256=digest)
            for part, digest in zip(("train", "val", "test"), sums, strict=True)
        ),
        notes=(*notes, "What the mark classes stand for is not documented at the source."),
        reading={"time_unit": unit, "coordinates": coordinates},
    )


CARDS: dict[str, Card] = {
    card.name: card
    for card in (
        _smash(
            "earthquake",
            "Earthquakes around Japan",
            "Sequence: a window of 30 days; event: an earthquake; mark: magnitude class 0, 1 or 2.",
            "1200 / 150 / 150 sequences (train / val / test), 114,410 events, 3 marks",
            "time in days since the start of the window; longitude, latitude in degrees",
            4.6,
            "days",
            "degrees",
            (
                "8fe0a54c7bc64904de3a6d86e0e5a52766f90b70a0c15efb2addd952d9370683",
                "91165ad175d7ff815a0770408d02a2dcb85dbd12c01e9ffb2c2ec845c8fdab65",
                "1c99f9ea495d5bbdaa08df4a793dfe3317ab53ee7a80b9ea23295c3e38d94315",
            ),
            ("Windows of the training part overlap: each earthquake occurs in about four of them.",),
            "Earthquake",
        ),
        _smash(
            "crime",
            "Crime reports in Atlanta",
            "Sequence: a window of one week; event: a police report; mark: class 0 to 3.",
            "250 / 31 / 32 sequences (train / val / test), 42,024 events, 4 marks",
            "time in hours since the start of the window; longitude, latitude in degrees",
            1.7,
            "hours",
            "degrees",
            (
                "6037e278198ac15050ef5048f24f75c5e2a18865afbe6f44cf4575fb79b741cd",
                "3ef076f9bbea58cf21b4857b4ee2609e3207193d8a3aa1d1245c2de2acf22bde",
                "5d8ff5018d9585a967e6a0ed87950072b83f8d9a79829cc637e94b6c289c5526",
            ),
            ("Times are whole minutes, so that 8 to 9 % of the gaps are zero.",),
            "crime",
        ),
        _smash(
            "football",
            "On-ball events of football matches",
            "Sequence: one half of a match; event: an action with the ball; mark: class 0 to 6.",
            "98 / 12 / 13 sequences (train / val / test), 84,245 events, 7 marks",
            "time in seconds since kick-off of the half; x, y in percent of the pitch",
            3.4,
            "seconds",
            "planar",
            (
                "3f7d23676ad671e2f8da463dd1d133ab3fbcf9bc113d91267253b23814c21e8a",
                "0bdfe58e725603de44af6cf06c969b63b1c38012f7953f46d0c839450651341f",
                "d3f7803163a71150b648059410d474c2da156f508e685ef8cf258cdb0d1e115b",
            ),
            ("Class 3 occurs once, in the training part.", "Coordinates are whole percent; 19 % of the gaps are zero."),
            "football",
        ),
        Card(
            name="citibike",
            title="Citi Bike rental starts in New York",
            content="Sequence: a day; event: a rental starts; no marks; thinned by the source.",
            axes="300 / 320 sequences (val / test of the source), 93,743 events",
            units="time in hours since the start of the day; longitude, latitude in degrees",
            source="github.com/tsinghua-fib-lab/Spatio-temporal-Diffusion-Point-Processes, "
            "commit 6609e0e2235e15ce691299397d1a84183c7cce9b",
            licence="none stated: research and testing only",
            size_mb=3.3,
            folders=("dstpp_citibike", "citibike", "Citibike"),
            files=(
                CardFile(
                    path="data_val.pkl",
                    part="train",
                    origin="dataset/Citibike/data_val.pkl",
                    sha256="c6ee9f90a0d4e39692fa2b707b653bf6cb7fdd87f0bed359240e4701e6a47b22",
                ),
                CardFile(
                    path="data_test.pkl",
                    part="test",
                    origin="dataset/Citibike/data_test.pkl",
                    sha256="d5d01a464f5f374cdb44c3296c052453b674080c3da1a3a804a936a6faed3833",
                ),
            ),
            notes=(
                "The training part of the source is too large to be had: its val part serves as train, the last tenth "
                "of that as val, its test part as test.",
            ),
            reading={"time_unit": "hours", "coordinates": "degrees"},
        ),
        Card(
            name="world_quakes",
            title="Significant earthquakes of the world, 1965 to 2016",
            content="One long catalogue of earthquakes of magnitude 5.5 and above, cut into windows of 60 days.",
            axes="23,412 events, no marks (the magnitude is not a class)",
            units="time in days since the first event; longitude, latitude in degrees",
            source="github.com/plotly/datasets, commit 0c447c47b757ad74edecab31f0d72f849d2e67c2",
            licence="MIT (the repository); US Geological Survey, public domain",
            size_mb=0.8,
            folders=("world_quakes",),
            files=(
                CardFile(
                    path="earthquakes-23k.csv",
                    part="",
                    origin="earthquakes-23k.csv",
                    sha256="e03a6ef53617c7614272def82dcaa2e5a463426c4abbb2b3a26936de1c88a622",
                ),
            ),
            notes=(
                "Dates without a time of day: nearly half of the gaps are zero.",
                "Three rows carry an ISO timestamp in place of month/day/year.",
                "The sphere wraps at 180 degrees, in the middle of the Pacific ring of fire.",
            ),
            reading={
                "time_column": "Date",
                "x_column": "Longitude",
                "y_column": "Latitude",
                "time_unit": "days",
                "coordinates": "degrees",
                "window": 60.0,
            },
        ),
    )
}
"""Every named data set of events; `cards` gives those of any kind."""


def cards(*kinds: Kind) -> dict[str, Card]:
    """Return the named data sets of these kinds, or of all.

    >>> list(cards("digits"))
    ['mnist_t10k']
    """
    from stcore.catalog_grids import GRID_CARDS

    every = CARDS | GRID_CARDS
    return {name: card for name, card in every.items() if not kinds or card.kind in kinds}


def known(name: str, kind: Kind = "events") -> Card | None:
    """Return the card of a kind called `name` (or whose folder is), or none; capitals make no difference."""
    wanted = name.lower()
    mine = cards(kind)
    hits = [card for card in mine.values() if wanted in {card.name, *(folder.lower() for folder in card.folders)}]
    return mine.get(wanted) or (hits[0] if hits else None)


def find(name: str, *kinds: Kind) -> Card:
    """Return the card called `name`, of one of these kinds (events, when none is given).

    Raises:
        UserError: there is none; the message lists the names.
    """
    wanted: tuple[Kind, ...] = kinds or ("events",)
    for kind in wanted:
        if (card := known(name, kind)) is not None:
            return card
    raise UserError(f"{name[:60]!r}: no data set of this name; expected one of {', '.join(cards(*wanted))}")


def cache_folder(card: Card) -> Path:
    """Return where fetched files of `card` are kept."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("stcore")) / "data" / card.name


def _places(card: Card) -> list[Path]:
    root = os.environ.get(DATA_VARIABLE, "")
    return [*(Path(root) / folder for folder in card.folders if root), cache_folder(card)]


def locate(card: Card) -> Path:
    """Return the folder that holds every file of `card`.

    Raises:
        UserError: none does; the message says where files were looked for and how to get them.
    """
    for place in _places(card):
        if all((place / file.path).is_file() for file in card.files):
            return place
    root = os.environ.get(DATA_VARIABLE, "")
    looked = f"{DATA_VARIABLE}={root}" if root else f"{DATA_VARIABLE} (not set)"
    how = "fetch it" if all(file.address for file in card.files) else _by_hand(card)
    raise UserError(f"{card.name}: not found under {looked}; expected {_names(card)} in {card.folders[0]}; {how}")


def is_here(card: Card) -> bool:
    """Return whether the data set is on this machine."""
    try:
        locate(card)
    except UserError:
        return False
    return True


def _names(card: Card) -> str:
    return ", ".join(file.path for file in card.files)


def _by_hand(card: Card) -> str:
    origins = ", ".join(file.origin for file in card.files)
    folder = f"a folder {card.folders[0]} under {DATA_VARIABLE}"
    if made := [f"{file.path} from {file.origin} ({file.prepared})" for file in card.files if file.prepared]:
        return f"make {', '.join(made)} of {card.source}, and put it into {folder}"
    return f"download {origins} by hand from {card.source}, and put them into {folder}"


def fetch(card: Card, *, offline: bool = False) -> Path:
    """Return the folder of `card`, downloading into the cache what is missing.

    A file is downloaded beside its place, checked, and only then put there; a cut download starts again. Processes
    that start together wait for the first.

    Args:
        card: the data set.
        offline: open no connection; the environment variable STCORE_OFFLINE=1 says the same.

    Raises:
        UserError: a file has no known address (the message says what to download by hand), the download fails, its
            checksum is wrong, or `offline` is set.
    """
    for place in _places(card):
        if all((place / file.path).is_file() for file in card.files):
            return place
    if any(not file.address for file in card.files):
        raise UserError(
            f"{card.name}: no address to fetch it from is known; expected a download by hand; {_by_hand(card)}"
        )
    if offline or os.environ.get(OFFLINE_VARIABLE, "") not in ("", "0"):
        raise UserError(
            f"{card.name}: not here, and offline; expected {_names(card)} under {DATA_VARIABLE} or a connection"
        )
    import fcntl

    folder = cache_folder(card)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # freed by the system when its holder dies
        for file in card.files:
            if not _is_whole(folder / file.path, file.sha256):
                _download(card, file, folder)
    return folder


def _is_whole(path: Path, sha256: str) -> bool:
    return path.is_file() and checksum(path) == sha256


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _download(card: Card, file: CardFile, folder: Path) -> None:
    import pooch
    import requests

    quiet = pooch.get_logger()
    quiet.setLevel(logging.ERROR)
    store = pooch.create(
        path=folder,
        base_url="",
        registry={file.path: f"sha256:{file.sha256}"},
        urls={file.path: file.address},
        retry_if_failed=_RETRIES,
    )

    def stream(address: str, target: str, _: Any) -> None:
        with requests.get(address, stream=True, timeout=_SECONDS) as response, Path(target).open("wb") as output:
            response.raise_for_status()
            for piece in response.iter_content(2**20):
                output.write(piece)

    downloader: Any = stream
    try:
        store.fetch(file.path, downloader=downloader)
    except requests.exceptions.RequestException as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(
            f"{card.name}: {file.address}: {reason}; expected a download; try again, or {_by_hand(card)}"
        ) from error
    except ValueError as error:
        raise UserError(
            f"{card.name}: {file.address}: content with another checksum; expected sha256 {file.sha256}; "
            f"{_by_hand(card)}"
        ) from error
    except OSError as error:
        raise UserError(f"{card.name}: {folder}: {error.strerror or error}; expected a folder to write to") from error


def reading_options(card: Card, options: Options) -> Options:
    """Return `options` with the card's own where the caller left the default."""
    plain = type(options)()
    default = {item.name: getattr(plain, item.name) for item in fields(plain)}
    unset = {name: value for name, value in card.reading.items() if getattr(options, name) == default[name]}
    return replace(options, **unset)


def read(card: Card, options: Options, read_file: Callable[[Path, Options], dict[str, T]]) -> dict[str, T]:
    """Read every file of `card` by part; `read_file` reads one. A single file may hold its parts itself."""
    folder = locate(card)
    mine = reading_options(card, options)
    if len(card.files) == 1 and not card.files[0].part:
        parts = read_file(folder / card.files[0].path, mine)
    else:
        parts = {file.part: read_file(folder / file.path, mine)[""] for file in card.files}
    for note in card.notes:
        _log.info("%s: %s", card.name, note)
    return parts
