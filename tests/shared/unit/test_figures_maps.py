"""Maps and spectra: what is drawn where, with which scale; the variance of known waves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stcore.errors import UserError
from stcore.figures import save_figure
from stcore.figures_maps import Place, field_map, forecast_maps, power_spectra, radial_spectrum
from stcore.frame_style import FrameStyle
from stcore.grids import GridSeries

RNG = np.random.default_rng(4)
GLOBE = Place(y=np.linspace(-80, 80, 9), x=np.arange(0, 360, 30.0))


def fields(count: int) -> np.ndarray:
    return RNG.normal(280.0, 5.0, (count, 9, 12))


def maps_of(figure: Any) -> list[Any]:
    return [axis for axis in figure.axes if axis.collections and axis.get_label() != "<colorbar>"]


def test_a_map_lies_on_its_coordinates_with_north_up() -> None:
    field = fields(1)[0]
    figure = field_map(field, GLOBE, style=FrameStyle(cmap="viridis", name="temperature", unit="K"))
    axis, bar = figure.axes
    assert axis.get_xlim() == (-15.0, 345.0) and axis.get_ylim() == (-90.0, 90.0)
    (mesh,) = axis.collections
    np.testing.assert_array_equal(mesh.get_array().reshape(9, 12), field)
    assert axis.get_title(loc="left") == "temperature" and bar.get_ylabel() == "temperature (K)"
    figure.canvas.draw()
    assert {label.get_text() for label in axis.get_xticklabels()} >= {"90°E", "180°", "90°W"}
    turned = field_map(field[::-1], Place(y=GLOBE.y[::-1], x=GLOBE.x))
    assert turned.axes[0].get_ylim() == (-90.0, 90.0)


def test_missing_cells_are_left_out_and_errors_are_centred() -> None:
    field = fields(1)[0] - 280.0
    field[2, 3] = np.nan
    (mesh,) = field_map(field, GLOBE, diverging=True).axes[0].collections
    assert mesh.get_array().reshape(9, 12).mask[2, 3] and mesh.norm.vmin == -mesh.norm.vmax


def test_truth_and_forecast_share_a_scale_and_the_error_has_its_own() -> None:
    history, truth, forecast = fields(3), fields(6), fields(6)
    style = FrameStyle(cmap="viridis", unit="K", step=6.0, time_unit="h")
    figure = forecast_maps(forecast, GLOBE, truth=truth, history=history, style=style, columns=3)
    panels = maps_of(figure)
    scales = {(axis.collections[0].norm.vmin, axis.collections[0].norm.vmax) for axis in panels}
    both = np.concatenate([history[-1:], truth])
    error = forecast - truth
    top = np.quantile(np.abs(error), 0.995)
    assert scales == {(both.min(), both.max()), (-top, top)} and len(panels) == 10
    titles = [axis.get_title() for axis in panels if axis.get_title()]
    assert titles == ["0 h", "+6 h", "+18 h", "+36 h"]  # six lead times, of which the first, a middle one, the last
    drawn = [axis.collections[0].get_array().reshape(9, 12) for axis in panels[1:]]
    names = {text.get_text() for axis in panels for text in axis.texts}
    assert names == {"last known", "truth", "forecast", "error"}
    np.testing.assert_array_equal(drawn[2], truth[5])


def test_a_forecast_alone_has_one_row() -> None:
    panels = maps_of(forecast_maps(fields(2), GLOBE))
    assert len(panels) == 2 and panels[0].collections[0].norm is panels[1].collections[0].norm


def test_places_come_from_series_with_or_without_coordinates(tmp_path: Path) -> None:
    plain = GridSeries(values=np.zeros((3, 1, 4, 5)))
    place = Place.of(plain)
    assert place.names == ("row", "column") and place.y.tolist() == [0.0, -1.0, -2.0, -3.0]
    figure = field_map(np.arange(20.0).reshape(4, 5), place)
    figure.canvas.draw()
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert not any(label.startswith(("-", "−")) for label in labels) and figure.axes[0].get_ylabel() == "row"
    save_figure(figure, tmp_path / "map.png")
    assert (tmp_path / "map.png").stat().st_size > 5000
    located = GridSeries(values=np.zeros((3, 1, 4, 5)), y=np.arange(4.0), x=np.arange(5.0), axis_names=("lat", "lon"))
    assert Place.of(located).names == ("lat", "lon")


@pytest.mark.parametrize(("along", "spacing"), [(0, 1.0), (1, 1.0), (1, 0.25)])
def test_a_wave_has_its_variance_at_its_wavenumber(along: int, spacing: float) -> None:
    phase = 2.0 * np.pi * 5 * np.arange(64) / 64
    field = 3.0 + 2.0 * np.sin(phase)[:, None] * np.ones(64)
    field = field if along == 0 else field.T
    waves, power = radial_spectrum(field[None], spacing=(spacing, spacing), periodic=True)
    assert waves[power.argmax()] == pytest.approx(5 / 64 / spacing)
    assert power.max() == pytest.approx(2.0) and power.sum() == pytest.approx(2.0)  # half of the amplitude squared


def test_variances_add_up_and_gaps_count_as_means() -> None:
    noise = RNG.normal(size=(200, 24, 32))
    waves, power = radial_spectrum(noise, periodic=True)
    share = np.hypot(np.fft.fftfreq(24)[:, None], np.fft.fftfreq(32)) < 0.5 + 1 / 48
    assert power.sum() == pytest.approx(share.mean() * noise.var(), rel=0.05)
    assert waves[0] == pytest.approx(1 / 24) and waves[-1] == pytest.approx(0.5)
    windowed = radial_spectrum(noise)[1]
    np.testing.assert_allclose(windowed[2:], power[2:], rtol=0.15)
    noise[:, 3, 4] = np.nan
    assert np.isfinite(radial_spectrum(noise)[1]).all()


def test_a_smoothed_field_lacks_variance_at_short_waves() -> None:
    rough = RNG.normal(size=(50, 32, 32))
    smooth = (rough + np.roll(rough, 1, axis=1) + np.roll(rough, 1, axis=2)) / 3.0
    _, power = radial_spectrum(rough, periodic=True)
    waves, less = radial_spectrum(smooth, periodic=True)
    assert less[-1] / power[-1] < 0.3 < 0.8 < less[0] / power[0]
    figure = power_spectra({"truth": (waves, power), "model": (waves, less)}, unit="K")
    axis = figure.axes[0]
    assert [line.get_label() for line in axis.lines] == ["truth", "model"] and axis.xaxis_inverted()
    np.testing.assert_allclose(axis.lines[1].get_xdata(), 1.0 / waves)
    assert axis.get_ylabel() == "variance (K)²"


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match=r"shape \(1, 9, 11\); expected \(field, 9, 12\)"):
        field_map(np.zeros((9, 11)), GLOBE)
    with pytest.raises(UserError, match="a forecast of 3 fields for 2 that came"):
        forecast_maps(fields(3), GLOBE, truth=fields(2))
    with pytest.raises(UserError, match="spectra: none"):
        power_spectra({})
