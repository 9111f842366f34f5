"""Pictures of frames show the frames they were given, in colours and words that mean what they say."""

from __future__ import annotations

import re

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.text import Text
from PIL import Image

from stcore import figures_grids as grids
from stcore.errors import UserError
from stcore.figures import save_figure
from stcore.figures_grids import FrameStyle

RNG = np.random.default_rng(0)
HISTORY, TRUTH, FORECAST = RNG.random((2, 8, 10)), RNG.random((3, 8, 10)), RNG.random((3, 8, 10))
STYLE = FrameStyle(unit="mm / h", name="rain", step=10, time_unit="min", value_range=(0.0, 1.0))


def _images(figure) -> list[np.ndarray]:
    return [axis.images[0].get_array() for axis in figure.axes if axis.images and axis.get_label() != "<colorbar>"]


def _words(figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def _all() -> dict[str, object]:
    wide, tall = RNG.random((2, 4, 30)), RNG.random((2, 40, 5))
    return {
        "grid": grids.frame_grid(HISTORY, FORECAST, truth=TRUTH, style=STYLE),
        "without truth": grids.frame_grid(HISTORY, FORECAST),
        "wide": grids.frame_grid(wide, wide, truth=wide),
        "tall": grids.frame_grid(tall, tall, truth=tall),
        "one": grids.frame_grid(HISTORY[:1], FORECAST[:1], truth=TRUTH[:1], title="One"),
        "curves": grids.lead_time_curves({"ConvLSTM": [1, 2, 3], "persistence": [3, 3, 3]}, metric="MSE per frame"),
        "flow": grids.flow_field(RNG.normal(size=(3, 2, 6, 9)), background=HISTORY[0]),
        "still flow": grids.flow_field(np.zeros((1, 2, 5, 5))),
    }


def test_text_is_of_eight_points_and_inside_the_page():
    for name, figure in _all().items():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        texts = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
        assert min(text.get_fontsize() for text in texts) >= 8.0, name
        drawn = figure.get_tightbbox(canvas.get_renderer())
        assert drawn.x0 > -0.07 and drawn.y0 > -0.07, name
        assert drawn.x1 < figure.get_figwidth() + 0.07, name
        assert drawn.y1 < figure.get_figheight() + 0.07, name


def test_the_style_does_not_leak():
    before = dict(matplotlib.rcParams)
    _all()
    assert dict(matplotlib.rcParams) == before


def test_rows_are_history_truth_forecast_and_error():
    figure = grids.frame_grid(HISTORY, FORECAST, truth=TRUTH, style=STYLE)
    expected = [*HISTORY, *TRUTH, *FORECAST, *(FORECAST - TRUTH)]
    assert len(_images(figure)) == len(expected)
    for drawn, frame in zip(_images(figure), expected, strict=True):
        np.testing.assert_array_equal(drawn, frame)
    errors = [axis.images[0] for axis in figure.axes[8:11]]
    assert {image.norm.vmax for image in errors} == {-image.norm.vmin for image in errors}
    assert {image.cmap.name for image in errors} == {"RdBu_r"}
    assert {image.norm.vmax for image in (axis.images[0] for axis in figure.axes[:8])} == {1.0}


def test_times_and_units_are_written():
    words = _words(grids.frame_grid(HISTORY, FORECAST, truth=TRUTH, style=STYLE))
    for word in ("−10", "0", "+10", "+30", "time (min)", "rain (mm / h)", "history", "truth", "forecast", "error"):
        assert word in words, word
    assert "time (frames)" in _words(grids.frame_grid(HISTORY, FORECAST))


def test_forecasts_are_framed_in_orange_and_the_past_is_not():
    figure = grids.frame_grid(HISTORY, FORECAST, truth=TRUTH)
    borders = [to_hex(axis.spines["left"].get_edgecolor()) for axis in figure.axes[:11]]
    assert borders == [grids.GREY.lower()] * 5 + [grids.ORANGE.lower()] * 6


def test_long_rows_are_thinned_evenly_with_both_ends():
    frames = np.arange(30.0)[:, None, None] * np.ones((1, 4, 4))
    drawn = [int(image[0, 0]) for image in _images(grids.frame_grid(frames[:2], frames, columns=4))]
    assert drawn[:2] == [0, 1] and drawn[2:] == [0, 10, 19, 29]


def test_a_constant_or_missing_field_can_be_drawn():
    missing = np.full((2, 4, 4), np.nan)
    for frames in (np.zeros((2, 4, 4)), missing):
        figure = grids.frame_grid(frames, frames, truth=frames)
        FigureCanvasAgg(figure).draw()
        assert all(axis.images[0].norm.vmin < axis.images[0].norm.vmax for axis in figure.axes if axis.images)


def test_what_the_history_never_knew_is_blank_in_the_forecast():
    history, forecast, truth = HISTORY.copy(), FORECAST.copy(), TRUTH.copy()
    history[:, 2], truth[:, 2] = np.nan, np.nan
    history[0, 4] = np.nan  # known a frame later
    images = _images(grids.frame_grid(history, forecast, truth=truth))
    for drawn, frame in zip(images[5:8], forecast, strict=True):
        filled = np.ma.filled(drawn, np.nan)
        assert np.isnan(filled[2]).all()
        np.testing.assert_array_equal(np.delete(filled, 2, axis=0), np.delete(frame, 2, axis=0))


def test_moments_are_counted_in_the_singular_where_there_is_one():
    assert [FrameStyle().moment(step) for step in (-2, 0, 1)] == ["−2 frames", "0 frames", "+1 frame"]
    assert FrameStyle(step=1.0, time_unit="months").moment(-1) == "−1 month"
    assert FrameStyle(step=0.5, time_unit="months").moment(1) == "+0.5 months"
    assert [FrameStyle(step=1.0, time_unit=unit).moment(1) for unit in ("s", "min")] == ["+1 s", "+1 min"]


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_grids_reach_the_disk(tmp_path, suffix):
    path = save_figure(grids.frame_grid(HISTORY, FORECAST, truth=TRUTH, style=STYLE), tmp_path / f"grid.{suffix}")
    text = path.read_bytes()
    assert text.startswith(b"\x89PNG" if suffix == "png" else b"<?xml") and len(text) > 5000
    if suffix == "svg":
        assert len(re.findall(rb"<image", text)) >= 11


def test_curves_hold_the_values_at_their_lead_times():
    figure = grids.lead_time_curves({"a": [3.0, 4.0], "b": np.array([1.0, 2.0])}, metric="SSIM", style=STYLE,
                                    lower_is_better=False)  # fmt: skip
    axis = figure.axes[0]
    assert [line.get_ydata().tolist() for line in axis.lines] == [[3.0, 4.0], [1.0, 2.0]]
    assert axis.lines[0].get_xdata().tolist() == [10.0, 20.0]
    assert axis.get_xlabel() == "lead time (min)" and axis.get_ylabel() == "SSIM, higher is better"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]


@pytest.mark.parametrize(("count", "ticks"), [(1, [10]), (6, [10, 20, 30, 40, 50, 60]), (30, range(30, 301, 30))])
def test_ticks_are_lead_times_with_the_last_among_them(count, ticks):
    figure = grids.lead_time_curves({"a": np.ones(count)}, metric="PSNR (dB)", style=STYLE)
    assert figure.axes[0].get_xticks().tolist() == list(ticks)
    assert figure.axes[0].get_title(loc="left") == "PSNR by lead time"


def test_arrows_point_where_the_flow_goes_downwards_being_down():
    flow = np.zeros((2, 2, 4, 4))
    flow[0, 0], flow[1, 1] = 2.0, 1.0
    figure = grids.flow_field(flow, spacing=2)
    right, down = (axis.collections[0] for axis in figure.axes[:2])
    assert (right.U == 2.0).all() and (right.V == 0.0).all() and (down.V == 1.0).all()
    assert right.N == 4 and figure.axes[1].yaxis_inverted()
    assert "longest arrow: 2 cells" in figure.get_suptitle()


def test_no_arrow_leaves_its_panel():
    flow = np.zeros((1, 2, 8, 12))
    flow[0, 0, :, 10], flow[0, 1, 2] = 3.0, -1.0
    figure = grids.flow_field(flow, spacing=4)
    axis = figure.axes[0]
    quiver = axis.collections[0]
    tips = quiver.XY + np.stack([quiver.U, quiver.V], axis=1) / quiver.scale
    (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
    assert (tips >= (left, top)).all() and (tips <= (right, bottom)).all() and tips[:, 0].max() > 11.5


def test_radar_and_rain_maps_are_those_of_the_original():
    dbz = grids.register_dbz_cmap()
    assert matplotlib.colormaps["dbz"] == dbz and dbz.N == 15
    assert [to_hex(dbz(step)) for step in (0, 6, 14)] == ["#0000f6", "#ffff00", "#ad90f0"]
    rain, norm = grids.register_rain_cmap()
    assert matplotlib.colormaps["rain"] == rain and norm.boundaries.tolist() == [1.0, 1.5, 7.0, 15.0, 40.0, 50.0]
    colours = [to_hex(rain(norm(value)), keep_alpha=True) for value in (1.2, 3.0, 10.0, 20.0, 45.0, 60.0)]
    assert colours == ["#a6f28fff", "#3dba3dff", "#61b8ffff", "#0000e1ff", "#fa00faff", "#800040ff"]
    assert rain(norm(0.5))[3] == 0.0 and rain(np.ma.masked)[3] == 0.0
    grids.register_rain_cmap()  # a second time replaces the first


def _pixels(path, frame: int) -> np.ndarray:
    with Image.open(path) as film:
        film.seek(frame)
        return np.asarray(film.convert("RGB")).astype(int)


def test_animation_marks_forecast_frames_and_shows_every_step(tmp_path):
    path = grids.save_animation(tmp_path / "new" / "film.gif", HISTORY, FORECAST, truth=TRUTH, style=STYLE, panel=40)
    with Image.open(path) as film:
        assert film.n_frames == 5 and film.info["loop"] == 0
        durations = []
        for frame in range(5):
            film.seek(frame)
            durations.append(film.info["duration"])
    assert durations == [250] * 4 + [1000]
    orange, grey = np.array([0xE6, 0x9F, 0x00]), np.array([0x6E] * 3)
    page = _pixels(path, 0)
    assert (page[0] == 255).all() and (page[26:, 2 * 58 + 10 :] == 255).all()  # no error before there is a forecast
    for frame, border in ((0, grey), (1, grey), (2, orange), (4, orange)):
        middle = _pixels(path, frame)[36, 10 + 58]  # left border of the second panel
        assert np.abs(middle - border).max() <= 12, frame
    assert [file.name for file in path.parent.iterdir()] == ["film.gif"]


def test_animation_shows_the_values(tmp_path):
    forecast = np.zeros((2, 2, 2))
    forecast[1, 0, 1] = 1.0
    path = grids.save_animation(tmp_path / "film.gif", np.zeros((1, 2, 2)), forecast, panel=20,
                                style=FrameStyle(value_range=(0.0, 1.0)))  # fmt: skip
    inside = _pixels(path, 2)[30:50, 14:34].mean(axis=2)
    np.testing.assert_allclose([inside[5, 5], inside[5, 15], inside[15, 15]], [0.0, 255.0, 0.0], atol=8)


def test_wrong_frames_and_files_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"suffix '\.mp4'; expected \.gif"):
        grids.save_animation(tmp_path / "film.mp4", HISTORY, FORECAST)
    with pytest.raises(UserError, match=r"\(3, 8, 9\); expected \(frame, height, width\) of one size"):
        grids.frame_grid(HISTORY, FORECAST[..., :9])
    with pytest.raises(UserError, match=r"expected \(frame, height, width\)"):
        grids.frame_grid(HISTORY[0], FORECAST)
    with pytest.raises(UserError, match="a forecast of 3 frames for 2 that came"):
        grids.save_animation(tmp_path / "film.gif", HISTORY, FORECAST, truth=TRUTH[:2])
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="expected a folder that can be written"):
        grids.save_animation(tmp_path / "file" / "film.gif", HISTORY, FORECAST)
