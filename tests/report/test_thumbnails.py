import numpy as np
import pytest
from PIL import Image

from flarekd.imaging.volume import Geometry, LabelMap, Volume
from flarekd.report.thumbnails import write_thumbnails

GEOMETRY = Geometry((30, 24, 20), (2.0, 2.0, 4.0), (10.0, -20.0, 300.0))


@pytest.fixture
def case():
    labels = np.zeros(GEOMETRY.shape_zyx, np.uint8)
    labels[4:16, 4:20, 2:28] = 1
    labels[2:4, 6:10, 4:8] = 3
    labels[10:14, 10:14, 20:26] = 14
    labels[6:8, 6:8, 6:8] = 14
    hu = np.where(labels > 0, 60, -100).astype(np.int16)
    return Volume(hu, GEOMETRY), LabelMap(labels, GEOMETRY)


def pixels(path):
    with Image.open(path) as picture:
        assert picture.format == "WEBP"
        return np.asarray(picture.convert("RGB"))


def test_three_slices_stand_side_by_side_in_their_proportions(case, tmp_path):
    write_thumbnails(tmp_path / "a.webp", *case)
    found = pixels(tmp_path / "a.webp")
    # 60 × 48 mm axial, 60 × 80 coronal, 48 × 80 sagittal, each 240 pixels high, 3 between them
    width = 240 * (60 / 48 + 60 / 80 + 48 / 80) + 6
    assert found.shape[:2] == (240, pytest.approx(width, abs=2))
    green = (found[..., 1] > 180) & (found[..., 0] < 120) & (found[..., 2] < 120)
    assert green.sum() > 100  # the tumour's colour


def test_it_cuts_through_the_class_and_the_part_that_is_asked_for(case, tmp_path):
    chosen = {"tumor": (None, 1), "second": (14, 2), "spleen": (3, 1), "absent": (9, 1)}
    found = {}
    for name, (label, part) in chosen.items():
        write_thumbnails(tmp_path / f"{name}.webp", *case, label, part)
        found[name] = pixels(tmp_path / f"{name}.webp")
    assert not np.array_equal(found["tumor"], found["second"])
    assert not np.array_equal(found["tumor"], found["spleen"])
    np.testing.assert_array_equal(found["tumor"], found["absent"])


def test_a_label_map_of_another_shape_is_refused(case, tmp_path):
    volume, _ = case
    other = Geometry((30, 24, 10), (2.0, 2.0, 4.0))
    labels = LabelMap(np.zeros(other.shape_zyx, np.uint8), other)
    with pytest.raises(ValueError, match=r"the scan is \(20, 24, 30\), its labels \(10, 24, 30\)"):
        write_thumbnails(tmp_path / "a.webp", volume, labels)
