"""Overlay pictures: which slices, which way up, what they say."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from matplotlib.image import imread

from flarekd.imaging.volume import Geometry, LabelMap, Volume
from flarekd.report.overlay import overlay, plain_dsc

GEOMETRY = Geometry((30, 24, 40), (1.5, 2.0, 4.0), (10.0, -20.0, 300.0))
SHAPE = GEOMETRY.shape_zyx


def labels(**voxels) -> np.ndarray:
    array = np.zeros(SHAPE, np.uint8)
    for name, box in voxels.items():
        array[box] = int(name.removeprefix("c"))
    return array


def picture(path):
    return imread(path)[..., :3]


def test_the_patients_right_side_is_drawn_on_the_viewers_left(tmp_path):
    # the liver's colour on low x, the spleen's on high x
    array = labels(c1=np.s_[18:23, 5:18, 1:12], c3=np.s_[18:23, 5:18, 19:29])
    overlay(None, LabelMap(array, GEOMETRY), None, tmp_path / "case.png")
    pixels = picture(tmp_path / "case.png")
    panel = pixels[40 : int(pixels.shape[0] * 0.85)]  # between title and legend
    columns = {}
    for name, color in (("liver", (221, 130, 101)), ("spleen", (157, 108, 162))):
        near = np.abs(panel - np.array(color) / 255).max(axis=2) < 0.03
        first_panel = near[:, : int(panel.shape[1] * 0.44)]
        columns[name] = np.flatnonzero(first_panel.any(axis=0)).mean()
    assert columns["liver"] < columns["spleen"]


def test_two_rows_are_taller_than_one_and_the_image_shows(tmp_path):
    array = labels(c1=np.s_[10:30, 5:18, 3:12], c14=np.s_[20:24, 8:12, 5:9])
    image = Volume(np.full(SHAPE, 40, np.int16), GEOMETRY)
    case = LabelMap(array, GEOMETRY)
    overlay(image, case, case, tmp_path / "two.png")
    overlay(None, case, None, tmp_path / "one.png")
    two, one = picture(tmp_path / "two.png"), picture(tmp_path / "one.png")
    assert two.shape[0] > 1.6 * one.shape[0]
    assert two.shape[1] == one.shape[1]
    # level 40 of the abdomen window is the middle grey
    grey = np.abs(two - 0.5).max(axis=2) < 0.02
    assert grey.mean() > 0.3
    assert (np.abs(one - 0.5).max(axis=2) < 0.02).mean() < 0.02


@pytest.mark.parametrize("shape_xyz", [(60, 40, 1), (4, 4, 200), (1, 30, 30)])
def test_flat_tall_and_empty_scans_are_drawn_too(tmp_path, shape_xyz):
    geometry = Geometry(shape_xyz, (0.8, 0.8, 5.0))
    empty = LabelMap(np.zeros(geometry.shape_zyx, np.uint8), geometry)
    full = LabelMap(np.ones(geometry.shape_zyx, np.uint8), geometry)
    overlay(None, empty, full, tmp_path / "case.png")
    height, width, _ = picture(tmp_path / "case.png").shape
    assert 400 < width < 5000
    assert 400 < height < 2000


def test_differing_shapes_are_refused_and_nothing_is_written(tmp_path):
    case = LabelMap(labels(), GEOMETRY)
    other = Geometry((3, 3, 3), (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="different shapes"):
        overlay(Volume(np.zeros((3, 3, 3), np.int16), other), case, case, tmp_path / "case.png")
    assert list(tmp_path.iterdir()) == []


def test_plain_dsc_holds_the_classes_of_either_array():
    one, two = labels(c1=np.s_[0:4], c2=np.s_[10:12]), labels(c1=np.s_[2:4], c14=np.s_[20:22])
    assert plain_dsc(one, two) == {1: pytest.approx(2 / 3), 2: 0.0, 14: 0.0}


def test_no_message_about_a_font_cache_gets_out(tmp_path):
    case = LabelMap(labels(c1=np.s_[2:9, 2:9, 2:9]), GEOMETRY)
    overlay(None, case, None, tmp_path / "case.png")
    assert not logging.getLogger("matplotlib.font_manager").isEnabledFor(logging.WARNING)
