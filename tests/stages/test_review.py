"""`review` on files: twelve small cases, of which one is odd."""

from __future__ import annotations

import csv
import io

import numpy as np
import pytest

from flarekd.cohort import Case, format_cohort
from flarekd.errors import CasesFailedError, InputError
from flarekd.imaging.files import write_labels, write_volume
from flarekd.imaging.volume import Geometry, LabelMap, Volume
from flarekd.labels import LABELS
from flarekd.stages.review import review

GEOMETRY = Geometry((40, 32, 20), (2.0, 2.0, 4.0), (5.0, -7.0, 100.0))
ODD = "case_07"

pytestmark = pytest.mark.usefixtures("one_processor")


def write_case(folder, name, number):
    labels = np.zeros(GEOMETRY.shape_zyx, np.uint8)
    right, left = (13, 2) if name == ODD else (2, 13)
    labels[6:14, 12:24, 4 : 14 + number % 2] = right
    labels[6:14, 12:24, 26:36] = left
    hu = np.where(labels > 0, 120, -100).astype(np.int16)
    image, label = folder / "images" / f"{name}_0000.nii.gz", folder / "fused" / f"{name}.nii.gz"
    write_volume(image, Volume(hu, GEOMETRY))
    write_labels(label, LabelMap(labels, GEOMETRY))
    return Case(name, image, label=label, group=3, annotated=frozenset({2, 13}))


@pytest.fixture
def folder(tmp_path):
    cases = [write_case(tmp_path, f"case_{number:02d}", number) for number in range(12)]
    (tmp_path / "cohort.csv").write_text(format_cohort(cases, tmp_path), encoding="utf-8")
    return tmp_path


def run(folder):
    review(folder / "cohort.csv", folder / "fused", folder / "out")


def table(folder):
    text = (folder / "out" / "suspicion.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(text)))


def times(folder):
    pictures = (folder / "out" / "pictures").glob("*")
    return {path.name: path.stat().st_mtime_ns for path in pictures}


def test_the_odd_case_comes_first_and_every_case_has_its_picture(folder):
    run(folder)
    rows = table(folder)
    assert len(rows) == 12
    assert (rows[0]["case"], rows[0]["group"], rows[0]["suspicion"]) == (ODD, "group 3", "4.0")
    assert rows[0]["reasons"].endswith("sides swapped?")
    assert {row["suspicion"] for row in rows[1:]} == {"0"}
    html = (folder / "out" / "review.html").read_text(encoding="utf-8")
    assert html.index(ODD) < html.index("case_00")
    assert sorted(times(folder)) == [f"case_{number:02d}.webp" for number in range(12)]
    assert html.count('loading="lazy" src="pictures/case_') == 12


def test_a_second_run_draws_nothing_and_a_changed_label_is_looked_at_again(folder):
    run(folder)
    before, page = times(folder), (folder / "out" / "review.html").stat().st_mtime_ns
    run(folder)
    assert times(folder) == before
    assert (folder / "out" / "review.html").stat().st_mtime_ns == page
    empty = LabelMap(np.zeros(GEOMETRY.shape_zyx, np.uint8), GEOMETRY)
    write_labels(folder / "fused" / "case_03.nii.gz", empty)
    run(folder)
    changed = {name for name, time in times(folder).items() if time != before[name]}
    assert changed == {"case_03.webp"}
    assert len(table(folder)) == 12


def test_what_cannot_be_read_is_named_and_the_rest_is_reviewed(folder):
    (folder / "images" / "case_02_0000.nii.gz").unlink()
    other = Geometry((40, 32, 19), (2.0, 2.0, 4.0), (5.0, -7.0, 100.0))
    labels = LabelMap(np.zeros(other.shape_zyx, np.uint8), other)
    write_labels(folder / "fused" / "case_05.nii.gz", labels)
    with pytest.raises(CasesFailedError) as caught:
        run(folder)
    told = str(caught.value)
    assert told.startswith("2 cases not reviewed: case_02: ")
    assert "case_05: label and image do not match: 40×32×19 voxels against 40×32×20" in told
    assert len(table(folder)) == 10


def test_a_table_of_another_version_will_do_where_it_has_the_volumes(folder):
    """If not, that is told before a case is looked at, with what to do."""
    names = ["case", "flags", "dropped", "organ_against_human_ml"]
    names += [f"{label.name}_{source}_ml" for label in LABELS for source in ("human", "pseudo")]
    path = folder / "fused" / "fusion.csv"
    row = {"case": ODD, "flags": "an old flag", "liver_human_ml": "5"}
    text = ",".join(names) + "\n" + ",".join(row.get(name, "") for name in names) + "\n"
    path.write_text(text, encoding="utf-8")
    run(folder)
    assert "fusion: an old flag" in (folder / "out" / "review.html").read_text(encoding="utf-8")
    path.write_text(text.replace("liver_human_ml", "liver_ml"), encoding="utf-8")
    with pytest.raises(InputError, match=r"no column 'liver_human_ml' · run `flarekd fuse` again"):
        review(folder / "cohort.csv", folder / "fused", folder / "other")
    assert not (folder / "other").exists()


def test_cases_without_a_label_map_are_told_and_none_at_all_is_an_error(folder, capsys):
    (folder / "fused" / "case_04.nii.gz").unlink()
    run(folder)
    assert "1 case without a label map" in capsys.readouterr().err
    assert len(table(folder)) == 11
    (folder / "nothing").mkdir()
    with pytest.raises(InputError, match="no case of the cohort has a label map"):
        review(folder / "cohort.csv", folder / "nothing", folder / "out")
