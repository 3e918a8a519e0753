"""The picture beside a label map, looked at by its pixels and texts."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.image import imread

from flarekd.imaging.volume import Geometry, LabelMap, Volume
from flarekd.labels import LABELS
from flarekd.report import preview
from flarekd.report.preview import write_preview
from flarekd.volumetry import measure

NAMES = {label.id: label.name for label in LABELS}
GEOMETRY = Geometry((60, 40, 24), (2.0, 2.5, 5.0), (10.0, -20.0, 300.0))
SHAPE = GEOMETRY.shape_zyx


@pytest.fixture
def array():
    return np.zeros(SHAPE, np.uint8)


def volume(geometry=GEOMETRY):
    return Volume(np.full(geometry.shape_zyx, -1000, np.int16), geometry)


@pytest.fixture
def shown(monkeypatch):
    """The figures that are saved, to read their texts; they are saved all the same."""
    figures = []

    def keep(figure, path):
        figures.append(figure)
        preview_save(figure, path)

    preview_save = preview.save_png
    monkeypatch.setattr(preview, "save_png", keep)
    return figures


def texts(figure):
    legend = [text.get_text() for item in figure.legends for text in item.get_texts()]
    return legend, [text.get_text() for text in figure.texts]


def near(pixels, color):
    """Where a picture has about a colour: (n, 2) as row, column."""
    return np.argwhere(np.abs(pixels[..., :3] - np.array(color) / 255).max(axis=2) < 0.04)


def test_organs_lie_on_their_side_in_their_proportions(tmp_path, array):
    # liver on the patient's right in the upper half, spleen on the left: thick enough for outlines
    array[14:20, 10:30, 5:25] = 1
    array[14:20, 10:20, 40:50] = 3
    write_preview(tmp_path / "a.png", volume(), LabelMap(array, GEOMETRY), NAMES)
    pixels = imread(tmp_path / "a.png")
    # axial panel: 120 × 100 mm, the first in the row; its height in pixels is a panel's
    scale = 3.6 * 110 / 100.0
    liver = near(pixels, LABELS[0].color)
    spleen = near(pixels, LABELS[2].color)
    first = int(120 * scale)
    liver, spleen = liver[liver[:, 1] < first], spleen[spleen[:, 1] < first]
    assert liver[:, 1].max() < spleen[:, 1].min()
    assert np.ptp(liver[:, 1]) == pytest.approx(20 * 2.0 * scale, rel=0.05)
    assert np.ptp(liver[:, 0]) == pytest.approx(20 * 2.5 * scale, rel=0.05)
    assert np.ptp(spleen[:, 0]) == pytest.approx(10 * 2.5 * scale, rel=0.08)


def test_the_legend_says_what_is_there_with_its_volume(tmp_path, array, shown):
    array[5:15, 10:30, 5:25] = 1  # 4000 voxels of 0.025 ml
    array[8:10, 15:17, 8:12] = 14
    write_preview(tmp_path / "case_7.preview.png", volume(), LabelMap(array, GEOMETRY), NAMES)
    legend, others = texts(shown[0])
    assert legend == ["liver  100 ml", "tumour  0.40 ml"]
    assert others == ["case_7"]
    captions = [text.get_text() for axes in shown[0].axes for text in axes.texts]
    assert captions[::5] == ["axial 9/24", "coronal 16/40", "sagittal 9/60"]


def test_with_statistics_it_says_what_is_cut_off_and_how_long_tumors_are(tmp_path, array, shown):
    array[5:, 10:30, 5:25] = 1
    array[8, 15, 8:14] = array[12, 20, 20] = 14
    scan = volume()
    statistics = measure(array, scan.array, GEOMETRY.spacing_zyx, NAMES)
    write_preview(tmp_path / "a.png", scan, LabelMap(array, GEOMETRY), NAMES, statistics)
    legend, _ = texts(shown[0])
    assert legend == ["liver  ≥ 190 ml", "tumour  0.17 ml\n2 parts, longest 10 mm"]


def test_nothing_found_is_said(tmp_path, array, shown):
    write_preview(tmp_path / "a.png", volume(), LabelMap(array, GEOMETRY), NAMES)
    assert texts(shown[0]) == ([], ["nothing found", "a"])
    assert imread(tmp_path / "a.png").shape[0] > 300


def test_of_a_single_slice_the_slice_alone_is_shown(tmp_path, shown):
    geometry = Geometry((60, 40, 1), (2.0, 2.5, 5.0))
    labels = LabelMap(np.ones(geometry.shape_zyx, np.uint8), geometry)
    write_preview(tmp_path / "a.png", volume(geometry), labels, NAMES)
    assert [axes.texts[0].get_text() for axes in shown[0].axes] == ["axial 1/1"]


def test_a_name_is_shown_as_it_is_and_a_long_one_is_cut(tmp_path, array, shown):
    array[5:15, 10:30, 5:25] = 1
    labels = LabelMap(array, GEOMETRY)
    write_preview(tmp_path / "a_$x_1$ 腹.png", volume(), labels, {1: "lobe $1$", 2: "other"})
    assert texts(shown[0]) == (["lobe $1$  100 ml"], ["a_$x_1$ 腹"])
    write_preview(tmp_path / f"{'n' * 200}.png", volume(), labels, NAMES)
    (title,) = texts(shown[1])[1]
    assert title.endswith("n…")
    assert len(title) < 200


def test_many_classes_of_another_model_fit_into_the_picture(tmp_path, array, shown):
    array.ravel()[: 117 * 40 : 40] = np.arange(1, 118)
    names = {label: f"class {label}" for label in range(1, 118)}
    write_preview(tmp_path / "a.png", volume(), LabelMap(array, GEOMETRY), names)
    (legend,) = shown[0].legends
    box, page = legend.get_window_extent(), shown[0].bbox
    assert len(legend.get_texts()) == 117
    assert box.y0 >= page.y0
    assert box.y1 <= page.y1
    assert box.x1 <= page.x1


def test_differing_shapes_are_refused_and_nothing_is_written(tmp_path, array):
    other = Geometry((3, 3, 3), (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="the scan is"):
        write_preview(tmp_path / "a.png", volume(other), LabelMap(array, GEOMETRY), NAMES)
    assert list(tmp_path.iterdir()) == []
