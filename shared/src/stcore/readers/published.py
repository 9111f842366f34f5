"""Published data sets that configurations name: where they lie under $STCORE_DATA, and what must be there."""

from __future__ import annotations

import os
from pathlib import Path

from stcore.catalog import DATA_VARIABLE
from stcore.errors import UserError

PUBLISHED = {
    "moving-mnist": (("moving_mnist", "moving-mnist", "MovingMNIST", "mnist"),
                     "train-images-idx3-ubyte.gz of MNIST and mnist_test_seq.npy"),
    "kth": (("kth", "KTH"), "class folders of frames or videos"),
    "taxibj": (("taxibj", "TaxiBJ"), "dataset.npz or the yearly files BJ13_M32x32_T30_InOut.h5 to BJ16"),
    "weather": (("weather_5_625deg", "weather", "weatherbench", "WeatherBench"),
                "folders of WeatherBench such as 2m_temperature with the files of every year"),
    "human": (("human", "Human", "human36m", "Human3.6M"), "images/ with train.txt and test.txt"),
    "kitticaltech": (("kitticaltech", "KittiCaltech", "kitticaltech_npy", "kitti_hkl"),
                     "train_data.npy, train_idx.npy, test_data.npy and test_idx.npy"),
}  # fmt: skip
"""Folders that are looked for, and what they hold."""


def published_folder(source: str) -> str:
    """Return where the data set of this name lies; any other source as it is.

    Raises:
        UserError: it is not under $STCORE_DATA; the message says what to put there.
    """
    if source not in PUBLISHED or Path(source).exists():
        return source
    folders, what = PUBLISHED[source]
    root = os.environ.get(DATA_VARIABLE, "")
    places = [Path(root, folder) for folder in folders if root]
    found = next((place for place in places if place.is_dir()), None)
    if found is None:
        looked = f"{DATA_VARIABLE}={root}" if root else f"{DATA_VARIABLE} (not set)"
        raise UserError(f"{source}: not found under {looked}; expected {what} in a folder {folders[0]}, or --data with "
                        "the path of yours")  # fmt: skip
    return str(found)
