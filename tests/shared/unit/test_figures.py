"""Figures hold what they were given, fit on the page, and reach the disk whole or not at all."""

from __future__ import annotations

import json

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from stcore import figures
from stcore.errors import UserError

RNG = np.random.default_rng(0)


def _all(tmp_path) -> dict[str, object]:
    log = tmp_path / "metrics.jsonl"
    lines = [{"step": step, "train/loss": 1.0 / step, "train/learning_rate": 1e-3} for step in (1, 2, 3)]
    lines += [{"step": 3, "val/loss": 0.5, "note": "words are no curve"}]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    levels, time = np.linspace(0.1, 0.9, 9), np.linspace(0.0, 10.0, 50)
    return {
        "location": figures.location_map(RNG.normal(size=(60, 2)), truth=np.zeros(2), history=RNG.normal(size=(5, 2))),
        "degrees": figures.location_map(RNG.normal([140.0, 36.0], size=(60, 2)), degrees=True),
        "gap": figures.gap_density(RNG.exponential(size=100), truth=0.4, unit="days"),
        "coverage": figures.coverage_curve(levels, {"gap": levels, "location": levels**2}, events=100),
        "pit": figures.pit_histogram(np.full(10, 5.0)),
        "reliability": figures.reliability_diagram(levels, levels, np.array([0, 1, 9, 9, 9, 9, 9, 1, 0.0])),
        "intensity": figures.intensity_in_time(
            time, {"true": 1.0 + time}, event_time=RNG.uniform(0, 10, 9), unit="days"
        ),
        "training": figures.training_curves(log),
    }


def test_every_figure_has_title_labels_and_text_of_eight_points_inside_the_page(tmp_path):
    for name, figure in _all(tmp_path).items():
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        assert figure.axes[0].get_title(loc="left"), name
        assert figure.axes[0].get_ylabel() and any(axis.get_xlabel() for axis in figure.axes), name
        texts = figure.findobj(Text, include_self=False)
        assert min(text.get_fontsize() for text in texts if text.get_text()) >= 8.0, name
        drawn = figure.get_tightbbox(canvas.get_renderer())
        assert drawn.x0 > -0.07 and drawn.y0 > -0.07, name
        assert drawn.x1 < figure.get_figwidth() + 0.07 and drawn.y1 < figure.get_figheight() + 0.07, name


def test_the_style_does_not_leak(tmp_path):
    before = dict(matplotlib.rcParams)
    _all(tmp_path)
    assert dict(matplotlib.rcParams) == before


def test_location_map_marks_truth_history_and_two_regions():
    truth, history = np.array([0.5, -0.25]), RNG.normal(size=(7, 2))
    figure = figures.location_map(RNG.normal(size=(80, 2)), truth=truth, history=history, unit="km")
    axis = figure.axes[0]
    star = next(line for line in axis.lines if line.get_label() == "what came")
    assert (star.get_xdata()[0], star.get_ydata()[0]) == tuple(truth)
    points = next(group for group in axis.collections if len(group.get_offsets()) == 7)
    np.testing.assert_allclose(points.get_offsets(), history)
    contours = next(group for group in axis.collections if type(group).__name__ == "QuadContourSet")
    assert len(contours.levels) == 2 and contours.levels[0] < contours.levels[1]
    assert axis.get_xlabel() == "x (km)"


def test_regions_hold_the_share_they_say():
    samples = np.random.default_rng(1).normal(size=(400, 2))
    figure = figures.location_map(samples)
    contours = next(group for group in figure.axes[0].collections if type(group).__name__ == "QuadContourSet")
    for path, share in zip(contours.get_paths(), (0.9, 0.5), strict=True):
        inside = np.mean(sum(part.contains_points(samples).astype(int) for part in _loops(path)) % 2)
        np.testing.assert_allclose(inside, share, atol=0.03)


def _loops(path):
    from matplotlib.path import Path

    return [Path(loop) for loop in path.to_polygons()]


def test_degenerate_samples_can_be_drawn(tmp_path):
    figure = figures.location_map(np.full((20, 2), 3.0), truth=np.array([4.0, 4.0]))
    assert figures.save_figure(figure, tmp_path / "map.png").stat().st_size > 1000


def test_gap_intervals_end_at_the_quantiles():
    samples = RNG.exponential(size=200)
    axis = figures.gap_density(samples, levels=(0.5, 0.9)).axes[0]
    bars = [line for line in axis.lines if "interval" in str(line.get_label())]
    np.testing.assert_allclose([bar.get_xdata()[1] for bar in bars], np.quantile(samples, (0.5, 0.9)))


def test_reliability_leaves_empty_bins_out():
    axis = figures.reliability_diagram(np.zeros(3), np.array([0.0, 0.4, 1.0]), np.array([0.0, 5.0, 1.0])).axes[0]
    line = axis.containers[0].lines[0]
    assert line.get_ydata().tolist() == [0.4, 1.0]


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_saved_whole_with_nothing_left_beside(tmp_path, suffix):
    path = figures.save_figure(figures.pit_histogram(np.ones(5)), tmp_path / "new" / f"pit.{suffix}")
    start = {"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[suffix]
    assert path.read_bytes().startswith(start)
    assert [file.name for file in path.parent.iterdir()] == [f"pit.{suffix}"]


def test_a_failed_save_keeps_the_old_figure(tmp_path, monkeypatch):
    figure, path = figures.pit_histogram(np.ones(5)), tmp_path / "pit.png"
    path.write_bytes(b"old")

    def full(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(figure, "savefig", full)
    with pytest.raises(UserError, match=r"pit\.png: No space left on device"):
        figures.save_figure(figure, path)
    assert path.read_bytes() == b"old" and len(list(tmp_path.iterdir())) == 1


def test_a_loss_that_always_is_0_gets_no_panel(tmp_path):
    log = tmp_path / "metrics.jsonl"
    lines = [{"step": step, "train/loss": 1.0 / step, "train/auxiliary": 0.0, "val/auxiliary": 0} for step in (1, 2)]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [axis.get_ylabel() for axis in figures.training_curves(log).axes] == ["loss"]
    log.write_text('{"step": 1, "train/loss": 0.0}\n')
    assert len(figures.training_curves(log).axes) == 1


def test_wrong_suffix_and_wrong_logs_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"suffix '\.gif'; expected \.png, \.pdf or \.svg"):
        figures.save_figure(figures.pit_histogram(np.ones(5)), tmp_path / "pit.gif")
    log = tmp_path / "metrics.jsonl"
    with pytest.raises(UserError, match="No such file"):
        figures.training_curves(log)
    for text, said in (('{"step": 1}\n', "no value of training"), ('{"step": 1}\nhalf', "line 2 is 'half'")):
        log.write_text(text)
        with pytest.raises(UserError, match=said):
            figures.training_curves(log)
