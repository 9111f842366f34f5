"""Published data sets that configurations name: where they lie under $STCORE_DATA, and what must be there."""

from __future__ import annotations

import os
from pathlib import Path

from stcore.catalog import DATA_VARIABLE, known, locate
from stcore.errors import UserError

PUBLISHED = {
    "weather": (("weather_5_625deg", "weather", "weatherbench", "WeatherBench"),
                "folders of WeatherBench such as 2m_temperature with the files of every year"),
    "human": (("human", "Human", "human36m", "Human3.6M"), "images/ with train.txt and test.txt"),
    "kitticaltech": (("kitticaltech", "KittiCaltech", "kitticaltech_npy", "kitti_hkl"),
                     "train_data.npy, train_idx.npy, test_data.npy and test_idx.npy"),
}  # fmt: skip
"""Folders that are looked for, and what they hold, of data sets that have no card in the catalogue."""


def published_folder(source: str) -> str:
    """Return where the data set of this name lies; any other source as it is.

    Raises:
        UserError: it is not under $STCORE_DATA; the message says what to put there.
    """
    card = known(source, "grids")
    by_hand = card is not None and bool(card.by_hand)
    if not (by_hand or source in PUBLISHED) or Path(source).exists():
        return source
    if card is not None and by_hand:
        return str(locate(card))
    folders, what = PUBLISHED[source]
    root = os.environ.get(DATA_VARIABLE, "")
    places = [Path(root, folder) for folder in folders if root]
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        looked = f"{DATA_VARIABLE}={root}" if root else f"{DATA_VARIABLE} (not set)"
        raise UserError(f"{source}: not found under {looked}; expected {what} in a folder {folders[0]}, or --data with "
                        "the path of yours")  # fmt: skip
    return str(found)
