"""Which slices pictures show, which way up, and what stands at their sides."""

from __future__ import annotations

import gc
import tracemalloc

import numpy as np
import pytest
from matplotlib.figure import Figure

from flarekd.imaging.volume import Geometry, LabelMap, Volume
from flarekd.labels import readable
from flarekd.report.canvas import new_figure
from flarekd.report.overlay import overlay
from flarekd.report.preview import write_preview
from flarekd.report.slices import COLORS, View, boxes_of, caption, focus, richness, views
from flarekd.report.thumbnails import write_thumbnails

GEOMETRY = Geometry((30, 24, 40), (1.5, 2.0, 4.0), (10.0, -20.0, 300.0))
SHAPE = GEOMETRY.shape_zyx


def labels(**voxels) -> np.ndarray:
    array = np.zeros(SHAPE, np.uint8)
    for name, box in voxels.items():
        array[box] = int(name.removeprefix("c"))
    return array


def test_the_focus_lies_in_the_largest_tumor():
    array = labels(c1=np.s_[2:30, 2:20, 2:20], c14=np.s_[5:8, 5:8, 5:8])
    array[20:26, 10:15, 18:26] = 14
    z, y, x = focus(array)
    assert 20 <= z < 26
    assert 10 <= y < 15
    assert 18 <= x < 26
    assert array[z, y, x] == 14


def test_without_a_tumor_the_focus_shows_most_organs():
    array = labels(
        c1=np.s_[2:30, 2:20, 2:9], c3=np.s_[10:20, 4:8, 20:24], c11=np.s_[15:25, 6:8, 15:18]
    )
    z, y, x = focus(array)
    assert 15 <= z < 20
    assert 6 <= y < 8
    assert 0 <= x < 30
    assert focus(np.zeros(SHAPE, np.uint8)) == (20, 12, 15)


def test_cuts_put_front_and_head_on_top_and_the_right_side_on_the_left():
    ramp = np.arange(np.prod(SHAPE)).reshape(SHAPE)
    axial, coronal, sagittal = (View("", axis, 7, 1.0, 1.0).cut(ramp) for axis in range(3))
    # canonical axes: x grows to the patient's left, y to the back, z to the head
    assert axial[0, 0] == ramp[7, 0, 0]
    assert axial[-1, -1] == ramp[7, -1, -1]
    assert coronal[0, 0] == ramp[-1, 7, 0]
    assert coronal[-1, -1] == ramp[0, 7, -1]
    assert sagittal[0, 0] == ramp[-1, 0, 7]
    assert sagittal[-1, -1] == ramp[0, -1, 7]


def test_views_have_their_size_in_millimetres():
    axial, coronal, sagittal = views((7, 5, 3), SHAPE, GEOMETRY.spacing_zyx)
    assert (axial.index, axial.across_mm, axial.up_mm) == (7, 45.0, 48.0)
    assert (coronal.index, coronal.across_mm, coronal.up_mm) == (5, 45.0, 160.0)
    assert (sagittal.index, sagittal.across_mm, sagittal.up_mm) == (3, 48.0, 160.0)


def test_richness_counts_classes_first_and_area_then():
    array = labels(c1=np.s_[0:3, 0:20, 0:20], c3=np.s_[2, 0, 21], c200=np.s_[2:4, 0, 22])
    found = richness(array, boxes_of(array), 0)
    assert np.floor(found[:5]).tolist() == [1, 1, 3, 1, 0]
    assert found[1] > found[3]
    assert found.argmax() == 2


def test_sides_are_marked_as_radiologists_expect_them():
    for axis, expected in enumerate(("RLAP", "RLHF", "APHF")):
        axes = new_figure(3, 3).subplots()
        caption(axes, "x", View("", axis, 0, 1.0, 1.0))
        marks = {
            text.get_text(): text.get_position() for text in axes.texts if text.get_text() != "x"
        }
        left, right, top, bottom = (marks[side] for side in expected)
        assert left[0] < 0.1
        assert right[0] > 0.9
        assert bottom[1] < 0.1
        assert top[1] > 0.9


def test_names_are_written_as_people_write_them():
    assert [readable(name) for name in ("ivc", "tumor", "left_kidney")] == [
        "IVC",
        "tumour",
        "left kidney",
    ]


def drawn(array, path):
    """A picture of labels (z, y, x); bytes that drawing it took at its peak."""
    geometry = Geometry(array.shape[::-1], (0.7, 0.7, 5.0))
    scan = Volume(np.zeros(array.shape, np.int16), geometry)
    tracemalloc.start()
    write_preview(path, scan, LabelMap(array, geometry), {label: f"{label}" for label in COLORS})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize("content", ["organs", "noise"])
def test_a_picture_takes_little_memory_whatever_is_in_it(tmp_path, content):
    array = np.zeros((8, 512, 512), np.uint8)
    drawn(array, tmp_path / "first.png")  # loads matplotlib
    empty = drawn(array, tmp_path / "empty.png")
    if content == "noise":
        array = np.random.default_rng(0).integers(0, 15, array.shape, dtype=np.uint8)
    else:
        for label in COLORS:
            array[2:6, 30 * label : 30 * label + 25, 100:140] = label
    assert drawn(array, tmp_path / "a.png") - empty < (20e6 if content == "noise" else 5e6)


@pytest.mark.parametrize("kind", ["preview", "overlay", "thumbnails"])
def test_pictures_are_freed_without_waiting_for_the_garbage_collector(tmp_path, kind):
    array = np.zeros(SHAPE, np.uint8)
    array[4:8, 4:8, 4:8] = 1
    scan, found = Volume(np.zeros(SHAPE, np.int16), GEOMETRY), LabelMap(array, GEOMETRY)
    draw = {
        "preview": lambda path: write_preview(path, scan, found, {1: "liver"}),
        "overlay": lambda path: overlay(scan, found, found, path),
        "thumbnails": lambda path: write_thumbnails(path, scan, found),
    }[kind]
    gc.collect()
    before = sum(type(one) is Figure for one in gc.get_objects())
    gc.disable()
    try:
        for index in range(4):
            draw(tmp_path / f"{index}.png")
        after = sum(type(one) is Figure for one in gc.get_objects())
    finally:
        gc.enable()
    assert after <= before + 1
