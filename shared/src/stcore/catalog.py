"""Named data sets: what each holds, where it comes from, and where its files are looked for.

Files lie under the folder that the environment variable STCORE_DATA names, or in the cache of the user. Only files
whose address and checksum are both known are ever fetched; for the others the card says what to put where.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

from stcore.catalog_cards import Card, CardFile, Kind
from stcore.catalog_events import EVENT_CARDS
from stcore.catalog_graphs import GRAPH_CARDS
from stcore.catalog_grids import GRID_CARDS
from stcore.errors import UserError
from stcore.readers.graph_options import GraphReadOptions
from stcore.readers.grid_options import GridReadOptions
from stcore.readers.options import EventReadOptions

__all__ = [
    "CARDS", "Card", "CardFile", "Kind", "cache_folder", "cards", "checksum", "fetch", "find", "is_here", "known",
    "locate", "read", "reading_options",
]  # fmt: skip

Options = TypeVar("Options", EventReadOptions, GridReadOptions, GraphReadOptions)
T = TypeVar("T")

_log = logging.getLogger(__name__)

DATA_VARIABLE, OFFLINE_VARIABLE = "STCORE_DATA", "STCORE_OFFLINE"
_SECONDS = 30
_RETRIES = 2

CARDS = EVENT_CARDS
"""Every named data set of events; `cards` gives those of any kind."""


def cards(*kinds: Kind) -> dict[str, Card]:
    """Return the named data sets of these kinds, or of all.

    >>> list(cards("digits"))
    ['mnist_t10k']
    """
    every = EVENT_CARDS | GRID_CARDS | GRAPH_CARDS
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
    """Return the folder that holds every file of `card`, or whatever was put there by hand.

    Raises:
        UserError: none does; the message says where files were looked for and how to get them.
    """
    if place := _found(card):
        return place
    root = os.environ.get(DATA_VARIABLE, "")
    looked = f"{DATA_VARIABLE}={root}" if root else f"{DATA_VARIABLE} (not set)"
    how = "fetch it" if card.files and all(file.address for file in card.files) else _by_hand(card)
    raise UserError(f"{card.name}: not found under {looked}; expected {_names(card)} in {card.folders[0]}; {how}")


def _found(card: Card) -> Path | None:
    return next((place for place in _places(card) if _holds(place, card)), None)


def _holds(place: Path, card: Card) -> bool:
    if card.files:
        return all((place / file.path).is_file() for file in card.files)
    try:
        return any(place.iterdir())
    except OSError:  # no folder, or none that can be listed
        return False


def is_here(card: Card) -> bool:
    """Return whether the data set is on this machine."""
    try:
        locate(card)
    except UserError:
        return False
    return True


def _names(card: Card) -> str:
    return card.by_hand or ", ".join(file.path for file in card.files)


def _by_hand(card: Card) -> str:
    folder = f"a folder {card.folders[0]} under {DATA_VARIABLE}"
    if card.by_hand:
        return f"download {card.by_hand} by hand from {card.source}, and put them into {folder}"
    origins = ", ".join(file.origin for file in card.files)
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
    if place := _found(card):
        return place
    if card.by_hand or any(not file.address for file in card.files):
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
    """Read every file of `card` by part; `read_file` reads one, or the folder of what was put there by hand. A single
    file, or a folder, may hold its parts itself."""
    folder = locate(card)
    mine = reading_options(card, options)
    if card.by_hand:
        parts = read_file(folder, mine)
    elif len(card.files) == 1 and not card.files[0].part:
        parts = read_file(folder / card.files[0].path, mine)
    else:
        parts = {file.part: read_file(folder / file.path, mine)[""] for file in card.files}
    for note in card.notes:
        _log.info("%s: %s", card.name, note)
    return parts
