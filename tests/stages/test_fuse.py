"""`fuse_labels` on files: Eq. 3, 4 and 5 on each case's own grid, and only what is not done yet."""

from __future__ import annotations

import csv
import io
import re
import time
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 (its usual name)

from flarekd.cohort import Case, format_cohort
from flarekd.errors import CasesFailedError, InputError, UsageError
from flarekd.fusion_table import read_sources
from flarekd.imaging.files import read_labels, write_labels
from flarekd.imaging.volume import Geometry, LabelMap
from flarekd.ledger import Ledger
from flarekd.stages.fuse import Extras, fuse_labels

# anisotropic, oblique (16° about z, y against the canonical axis), away from the origin
COS, SIN = np.cos(0.28), np.sin(0.28)
DIRECTION = (COS, SIN, 0, SIN, -COS, 0, 0, 0, 1)
GEOMETRY = Geometry((28, 24, 12), (0.75, 1.25, 3.0), (-31.0, 45.5, 112.0), DIRECTION)
SHAPE = GEOMETRY.shape_zyx

ROW = (slice(4, 5), slice(10, 11), slice(2, 10))
"""Eight voxels in which the three sources meet in every way."""

PARTIAL = [1, 1, 0, 0, 0, 0, 0, 2]
TUMOR = [0, 14, 14, 0, 14, 0, 0, 0]
ORGANS = [3, 1, 5, 5, 0, 1, 0, 6]
# by hand: the tumour over everything, what was drawn over pseudo-labels, and no pseudo-label of a
# class that was annotated (the sixth voxel: the annotator did not call it liver)
PAPER = [1, 14, 14, 5, 14, 0, 0, 2]
SIMPLE = [1, 1, 14, 5, 14, 1, 0, 2]


pytestmark = pytest.mark.usefixtures("one_processor")


def write(path, row, geometry=GEOMETRY):
    array = np.zeros(geometry.shape_zyx, np.uint8)
    array[ROW] = row
    write_labels(path, LabelMap(array, geometry))
    return path


class Folder:
    """A cohort in the making: cases are added, then fused."""

    def __init__(self, path):
        self.path, self.cases = path, []

    def add(self, name, *, annotated=(1, 2, 3, 4), split="train", **rows):
        """A case with a partial label, a tumour and an organ pseudo-label, each None for none."""
        sources = {"labels": PARTIAL, "tumor": TUMOR, "organs": ORGANS, **rows}
        paths = {
            folder: None if row is None else write(self.path / folder / f"{name}.nii.gz", row)
            for folder, row in sources.items()
        }
        image = write(self.path / "images" / f"{name}_0000.nii.gz", 0)  # its grid alone counts
        vouched = frozenset(annotated) if paths["labels"] else frozenset()
        self.cases.append(
            Case(
                name,
                image,
                split,
                annotated=vouched,
                label=paths["labels"],
                organ_pseudo=paths["organs"],
            )
        )

    def fuse(self, strategy="paper", organs=None, **extras):
        (self.path / "cohort.csv").write_text(format_cohort(self.cases, self.path))
        fuse_labels(
            self.path / "cohort.csv",
            self.path / "tumor",
            self.path / "fused",
            strategy,
            Extras(**extras),
            organs=organs,
        )

    def table(self, name="fusion.csv"):
        text = (self.path / "fused" / name).read_text(encoding="utf-8")
        return list(csv.DictReader(io.StringIO(text)))

    def row(self, name):
        return read_labels(self.path / "fused" / f"{name}.nii.gz").array[ROW].ravel().tolist()

    def times(self):
        return {
            path.name: path.stat().st_mtime_ns for path in (self.path / "fused").glob("*.nii.gz")
        }


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


@pytest.mark.paper
@pytest.mark.parametrize(("strategy", "expected"), [("paper", PAPER), ("simple", SIMPLE)])
def test_the_tumour_goes_over_an_annotated_organ_in_the_papers_fusion_only(
    folder, strategy, expected
):
    folder.add("case_a")
    folder.fuse(strategy)
    assert folder.row("case_a") == expected
    assert np.count_nonzero(read_labels(folder.path / "fused" / "case_a.nii.gz").array) == sum(
        value > 0 for value in expected
    )


@pytest.mark.paper
def test_where_tumours_were_annotated_the_teacher_has_no_say(folder):
    folder.add("case_a", annotated=(1, 2, 14), labels=[1, 14, 0, 0, 0, 0, 0, 2])
    folder.fuse()
    # a tumour pseudo-label lies in the folder, and is not looked at
    assert folder.row("case_a") == [1, 14, 5, 5, 0, 0, 0, 2]


@pytest.mark.paper
def test_an_unlabelled_case_gets_its_organs_and_the_tumour_over_them(folder):
    folder.add("case_a", labels=None)
    folder.fuse()
    assert folder.row("case_a") == [3, 14, 14, 5, 14, 1, 0, 6]


def test_the_fused_file_lies_exactly_where_the_partial_label_does(folder):
    folder.add("case_a")
    # the pseudo-labels lie a hair off, which is the same grid, and not where the result lies
    beside = Geometry((28, 24, 12), (0.75, 1.25, 3.0), (-31.004, 45.5, 112.0), DIRECTION)
    write(folder.path / "tumor" / "case_a.nii.gz", TUMOR, beside)
    write(folder.path / "organs" / "case_a.nii.gz", ORGANS, beside)
    folder.fuse()
    partial, fused = (
        sitk.ReadImage(str(folder.path / name / "case_a.nii.gz")) for name in ("labels", "fused")
    )
    assert fused.GetSize() == partial.GetSize() == (28, 24, 12)
    assert fused.GetSpacing() == partial.GetSpacing()
    assert fused.GetOrigin() == partial.GetOrigin()
    assert fused.GetDirection() == partial.GetDirection()
    assert fused.GetDirection()[0] == pytest.approx(COS)
    assert fused.GetPixelID() == sitk.sitkUInt8


def test_validation_cases_are_not_fused(folder):
    folder.add("case_a")
    folder.add("case_b", split="val")
    folder.fuse()
    assert list(folder.times()) == ["case_a.nii.gz"]


def test_a_missing_tumour_pseudo_label_names_the_case_and_the_others_are_written(folder):
    folder.add("case_a", tumor=None)
    folder.add("case_b")
    folder.add("case_c", tumor=None, annotated=(1, 2, 14))  # needs none
    with pytest.raises(CasesFailedError) as caught:
        folder.fuse()
    assert caught.value.exit_code == 4
    told = str(caught.value)
    assert told.startswith("1 case not fused: case_a: no tumour pseudo-label ")
    assert "run `flarekd pseudo-tumor`" in told
    assert sorted(folder.times()) == ["case_b.nii.gz", "case_c.nii.gz"]


def test_a_case_without_organ_pseudo_label_is_told_and_its_other_organs_stay_background(
    folder, capsys
):
    folder.add("case_a", organs=None)
    folder.add("case_b")
    folder.add("case_c", organs=None, annotated=range(1, 14))  # lacks no organ
    folder.fuse()
    told = capsys.readouterr().err
    assert "note: 1 case without all organs and an organ pseudo-label, the first 'case_a'" in told
    assert folder.row("case_a") == [1, 14, 14, 0, 14, 0, 0, 2]


def test_sources_on_different_grids_are_refused_by_name(folder):
    folder.add("case_a")
    folder.add("case_b")
    other = Geometry((28, 24, 12), (0.75, 1.25, 3.0), (-31.0, 45.5, 115.0), DIRECTION)
    write(folder.path / "organs" / "case_b.nii.gz", ORGANS, other)
    message = r"case_b: .*/organs/case_b\.nii\.gz: label and image do not match: .* 3\.00 mm off"
    with pytest.raises(CasesFailedError, match=message):
        folder.fuse()
    assert list(folder.times()) == ["case_a.nii.gz"]


def test_sources_that_lie_together_beside_their_scan_are_refused(folder):
    folder.add("case_a")
    folder.add("case_b", labels=None)
    folder.fuse()
    other = Geometry((28, 24, 12), (0.75, 1.25, 3.0), (-31.0, 45.5, 115.0), DIRECTION)
    write(folder.cases[1].image, 0, other)
    message = r"1 case not fused: case_b: .*label and image do not match: .* 3\.00 mm off"
    with pytest.raises(CasesFailedError, match=message):
        folder.fuse()
    assert list(folder.times()) == ["case_a.nii.gz"]
    folder.cases[1].image.unlink()
    with pytest.raises(CasesFailedError, match=r"1 case not fused: case_b: .*case_b_0000\.nii\.gz"):
        folder.fuse()


@pytest.mark.parametrize("row", [[2] * 8, [1, 14, 0, 0, 0, 0, 0, 0], [255] * 8])
def test_what_is_no_tumour_mask_is_refused_as_a_tumour_pseudo_label(folder, row):
    folder.add("case_a", tumor=row)
    folder.add("case_b")
    message = r"1 case not fused: case_a: .*tumor/case_a\.nii\.gz: .*holds ids \[.*\], and only 14"
    with pytest.raises(CasesFailedError, match=message):
        folder.fuse()
    assert list(folder.times()) == ["case_b.nii.gz"]


def test_a_mask_of_ones_is_a_tumour_pseudo_label(folder):
    folder.add("case_a", tumor=[bool(label) for label in TUMOR])
    folder.fuse()
    assert folder.row("case_a") == PAPER


def test_a_tumour_in_the_organ_pseudo_label_is_refused_by_name(folder):
    folder.add("case_a", organs=[14] * 8)
    with pytest.raises(CasesFailedError, match=r"case_a: .*organ pseudo-label holds id 14"):
        folder.fuse()
    assert not folder.times()


def test_a_missing_label_file_names_the_case(folder):
    folder.add("case_a")
    folder.add("case_b")
    (folder.path / "labels" / "case_b.nii.gz").unlink()
    with pytest.raises(CasesFailedError, match=r"1 case not fused: case_b: .*case_b\.nii\.gz"):
        folder.fuse()
    assert list(folder.times()) == ["case_a.nii.gz"]


def test_a_second_run_does_nothing(folder, capsys):
    folder.add("case_a")
    folder.add("case_b", labels=None)
    folder.fuse()
    before = folder.times()
    folder.fuse()
    assert folder.times() == before
    assert "fusing 0 of 2 cases (paper)" in capsys.readouterr().err


@pytest.mark.parametrize("source", ["labels", "tumor", "organs"])
def test_a_changed_source_redoes_its_case_alone(folder, source):
    folder.add("case_a")
    folder.add("case_b")
    folder.fuse()
    before = folder.times()
    time.sleep(0.01)
    write(folder.path / source / "case_b.nii.gz", [0] * 8)
    folder.fuse()
    after = folder.times()
    assert after["case_a.nii.gz"] == before["case_a.nii.gz"]
    assert after["case_b.nii.gz"] > before["case_b.nii.gz"]
    assert folder.row("case_b") != PAPER


def test_another_annotation_in_the_cohort_redoes_its_case(folder):
    folder.add("case_a")
    folder.fuse()
    # a person says that the liver was drawn in part only; the files stay as they are
    folder.cases = [replace(folder.cases[0], annotated=frozenset({2, 3, 4}))]
    folder.fuse()
    assert folder.row("case_a") == [1, 14, 14, 5, 14, 1, 0, 2]


def test_another_strategy_in_the_same_folder_redoes_all(folder):
    folder.add("case_a")
    folder.fuse("simple")
    folder.fuse("paper")
    assert folder.row("case_a") == PAPER


def test_a_removed_result_is_made_again(folder):
    folder.add("case_a")
    folder.add("case_b")
    folder.fuse()
    before = folder.times()
    (folder.path / "fused" / "case_b.nii.gz").unlink()
    folder.fuse()
    assert folder.times()["case_a.nii.gz"] == before["case_a.nii.gz"]
    assert folder.row("case_b") == PAPER


@pytest.mark.parametrize("source", ["labels", "tumor", "organs"])
def test_a_source_is_never_replaced_by_the_result(folder, source):
    folder.add("case_a")
    before = (folder.path / source / "case_a.nii.gz").read_bytes()
    (folder.path / "cohort.csv").write_text(format_cohort(folder.cases, folder.path))
    with pytest.raises(InputError, match=r"no run .*recorded 1 file .*case_a\.nii\.gz"):
        fuse_labels(
            folder.path / "cohort.csv", folder.path / "tumor", folder.path / source, "paper"
        )
    assert (folder.path / source / "case_a.nii.gz").read_bytes() == before
    assert not list((folder.path / source).glob("*.jsonl"))


@pytest.mark.parametrize("place", ["case_b.nii.gz", "provenance/case_b.nii.gz", "fusion.csv"])
def test_a_persons_files_in_the_folder_of_fused_labels_are_never_replaced(folder, place):
    folder.add("case_a")
    folder.add("case_b")
    drawn = folder.path / "fused" / place
    drawn.parent.mkdir(parents=True)
    drawn.write_bytes(b"drawn by hand")
    with pytest.raises(InputError, match=re.escape(place)):
        folder.fuse()
    assert drawn.read_bytes() == b"drawn by hand"
    assert not (folder.path / "fused" / "case_a.nii.gz").exists()
    drawn.unlink()
    folder.fuse()
    assert folder.row("case_b") == PAPER


VOXEL_ML = 0.75 * 1.25 * 3.0 / 1000


def test_every_case_has_a_row_of_its_sources_in_the_order_of_the_cohort(folder):
    folder.add("case_b")
    folder.add("case_a", labels=None)
    folder.fuse()
    rows = folder.table()
    assert [row["case"] for row in rows] == ["case_b", "case_a"]
    first = rows[0]
    # by hand, from PARTIAL, TUMOR and ORGANS above
    told = {"liver_human": 1, "right_kidney_human": 1, "aorta_pseudo": 1, "tumor_pseudo": 3}
    counts = {
        name: int(value) for name, value in first.items() if name.endswith(("_human", "_pseudo"))
    }
    assert {name: count for name, count in counts.items() if count} == told
    assert float(first["tumor_pseudo_ml"]) == pytest.approx(3 * VOXEL_ML, abs=5e-5)
    against = 3  # liver against spleen, liver that nobody drew, right kidney against vena cava
    assert float(first["organ_against_human_ml"]) == pytest.approx(against * VOXEL_ML, abs=5e-5)
    assert float(first["tumor_over_human_ml"]) == pytest.approx(VOXEL_ML, abs=5e-5)
    assert float(first["tumor_over_pseudo_ml"]) == pytest.approx(VOXEL_ML, abs=5e-5)
    assert first["flags"].split("; ")[0].startswith("tumour takes 50% of")
    assert first["dropped"] == ""


def test_a_second_run_writes_the_same_table_without_looking_at_a_voxel(folder):
    folder.add("case_a")
    folder.add("case_b", labels=None)
    folder.fuse()
    before = folder.table()
    (folder.path / "fused" / "fusion.csv").unlink()
    folder.fuse()
    assert folder.table() == before


def test_a_provenance_volume_says_where_each_voxel_came_from(folder):
    folder.add("case_a")
    folder.fuse()
    before = folder.times()
    folder.fuse(provenance=True)  # the fused labels alone are not enough then
    assert folder.times() != before
    sources = read_labels(folder.path / "fused" / "provenance" / "case_a.nii.gz").array
    assert sources[ROW].ravel().tolist() == [1, 2, 2, 3, 2, 0, 0, 1]
    assert folder.row("case_a") == PAPER


def test_a_provenance_of_another_label_does_not_stay_beside_the_new_one(folder):
    folder.add("case_a")
    folder.fuse(provenance=True)
    folder.fuse("simple")
    assert not (folder.path / "fused" / "provenance" / "case_a.nii.gz").exists()
    folder.fuse("simple", provenance=True)
    sources = read_labels(folder.path / "fused" / "provenance" / "case_a.nii.gz").array
    assert sources[ROW].ravel().tolist()[:2] == [1, 1]  # where the paper's fusion has the teacher's


@pytest.mark.parametrize("fault", ["torn", "missing"])
def test_what_was_fused_before_does_not_outlive_a_source_that_fails(folder, fault):
    folder.add("case_a")
    folder.add("case_b")
    folder.fuse(provenance=True)
    source = folder.path / "tumor" / "case_a.nii.gz"
    source.unlink()
    if fault == "torn":
        source.write_bytes(b"\x1f\x8b\x08")
    with pytest.raises(CasesFailedError, match="case_a"):
        folder.fuse(provenance=True)
    assert list(folder.times()) == ["case_b.nii.gz"]
    assert not (folder.path / "fused" / "provenance" / "case_a.nii.gz").exists()


def test_thick_contradictions_are_left_open_and_rims_are_not(folder):
    folder.add("case_a", tumor=[0] * 8)
    partial, organs = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    partial[1:11, 2:20, 2:20] = 1
    organs[1:11, 2:20, 2:21] = 1  # a rim of one voxel
    organs[2:9, 5:15, 5:18] = 3  # no rim
    for name, array in (("labels", partial), ("organs", organs)):
        write_labels(folder.path / name / "case_a.nii.gz", LabelMap(array, GEOMETRY))
    folder.fuse(ignore_mm=4.0, provenance=True)
    fused = read_labels(folder.path / "fused" / "case_a.nii.gz").array
    assert fused[5, 10, 12] == 255
    assert not (fused[:, :, 20] == 255).any()
    assert set(np.unique(fused)) == {0, 1, 255}
    assert np.array_equal(fused == 1, (partial == 1) & (fused != 255))
    sources = read_labels(folder.path / "fused" / "provenance" / "case_a.nii.gz").array
    assert np.array_equal(sources == 4, fused == 255)
    (row,) = folder.table()
    assert float(row["ignored_ml"]) == pytest.approx((fused == 255).sum() * VOXEL_ML, abs=5e-5)
    assert int(row["liver_human"]) == (fused == 1).sum()
    folder.fuse()  # 255 is written where it is asked for alone
    fused = read_labels(folder.path / "fused" / "case_a.nii.gz").array
    assert set(np.unique(fused)) == {0, 1}


def figures(folder, cases, components):
    """quality.csv and components.csv of hand-made pseudo-labels."""
    (folder.path / "tumor" / "quality.csv").write_text(
        "case,confidence,tumor_ml\n" + "".join(f"{c},{v},1\n" for c, v in cases.items())
    )
    (folder.path / "tumor" / "components.csv").write_text(
        "case,component,voxels,volume_ml,confidence\n"
        + "".join(f"{','.join(map(str, row))}\n" for row in components)
    )


def test_components_that_a_rule_hits_are_not_fused_and_are_listed(folder):
    folder.add("case_a")
    folder.add("case_b")
    # TUMOR has a component of two voxels and one of a single voxel
    figures(
        folder,
        {"case_a": 0.8, "case_b": 0.8},
        [("case_a", 1, 2, 0.006, 0.9), ("case_a", 2, 1, 0.003, 0.6), ("case_b", 1, 2, 0.006, 0.9)],
    )
    folder.fuse(drop=("component confidence < 0.7",))
    assert folder.row("case_a") == [1, 14, 14, 5, 0, 0, 0, 2]
    assert folder.row("case_b") == PAPER
    (row,) = folder.table("dropped.csv")
    assert row == {
        "case": "case_a",
        "component": "2",
        "volume_ml": "0.003",
        "rule": "component confidence < 0.7",
        "value": "0.6",
    }
    assert folder.table()[0]["dropped"] == "component 2 (component confidence < 0.7: 0.6)"
    folder.fuse()  # without the rule all is back
    assert folder.row("case_a") == PAPER
    assert folder.table("dropped.csv") == []


def test_a_case_that_a_rule_hits_is_left_out_even_if_it_was_fused_before(folder):
    folder.add("case_a")
    folder.add("case_b", annotated=(1, 14))  # a person annotated its tumours: nothing is dropped
    folder.add("case_c")
    figures(folder, {"case_a": 0.4, "case_b": 0.1, "case_c": 0.8}, [])
    folder.fuse()
    folder.fuse(drop=("case confidence < 0.5",))
    assert sorted(folder.times()) == ["case_b.nii.gz", "case_c.nii.gz"]
    assert [row["case"] for row in folder.table("dropped.csv")] == ["case_a"]
    rows = {row["case"]: row for row in folder.table()}
    assert rows["case_a"]["dropped"] == "case (case confidence < 0.5: 0.4)"
    assert rows["case_a"]["liver_human"] == ""


def test_figures_of_another_pseudo_label_are_refused(folder):
    folder.add("case_a")
    figures(folder, {"case_a": 0.8}, [("case_a", 1, 7, 0.02, 0.6)])
    with pytest.raises(CasesFailedError, match=r"case_a: .* not the pseudo-label that its figures"):
        folder.fuse(drop=("component confidence < 0.7",))
    assert not folder.times()


def test_a_rule_without_figures_says_how_to_get_them(folder):
    folder.add("case_a")
    with pytest.raises(InputError, match=r"quality\.csv.*pseudo-tumor --quality"):
        folder.fuse(drop=("case confidence < 0.5",))


def test_a_rule_that_is_none_is_wrong_usage(folder):
    folder.add("case_a")
    with pytest.raises(UsageError, match=r"--drop 'confidence' is no rule"):
        folder.fuse(drop=("confidence",))


def organ_figures(folder, name="organs", **distances):
    """quality.csv of hand-made organ pseudo-labels."""
    columns = "case,group,organs,mean_hu,spacing_distance,extent_distance,intensity_distance"
    rows = "".join(f"{case},,13,60,,,,{value}\n" for case, value in distances.items())
    (folder.path / name / "quality.csv").write_text(f"{columns},distance\n{rows}", encoding="utf-8")


def test_a_case_is_left_out_by_the_figures_of_its_organ_pseudo_label(folder):
    """Unless a person drew all organs, so that nothing of that is used."""
    for name in ("case_a", "case_b", "case_d"):
        folder.add(name)
    folder.add("case_c", annotated=range(1, 14))
    organ_figures(folder, case_a=9, case_b=1, case_c=9)
    folder.fuse(drop=("organs distance > 4",))  # no tumour pseudo-label has figures
    assert sorted(folder.times()) == ["case_b.nii.gz", "case_c.nii.gz", "case_d.nii.gz"]
    (row,) = folder.table("dropped.csv")
    assert (row["case"], row["component"], row["rule"]) == ("case_a", "", "organs distance > 4")


def test_figures_of_organs_are_those_beside_the_pseudo_labels_that_are_fused(folder):
    folder.add("case_a")
    folder.add("case_b")
    write(folder.path / "own" / "case_b.nii.gz", [9] * 8)
    organ_figures(folder, "own", case_a=9, case_b=9)  # that of case_a is another's
    with pytest.raises(InputError, match=r"no figures .* in '.*organs' · .*--quality"):
        folder.fuse(drop=("organs distance > 4",))
    folder.fuse(organs=folder.path / "own", drop=("organs distance > 4",))
    assert sorted(folder.times()) == ["case_a.nii.gz"]


def test_organ_pseudo_labels_of_another_folder_stand_in_for_those_of_the_cohort(folder):
    """Where it has the case; the case without one keeps that of its row."""
    folder.add("case_a")
    folder.add("case_b")
    folder.add("case_c", organs=None)
    folder.fuse()
    before, known = folder.times(), folder.row("case_b")
    other = folder.path / "own"
    for name in ("case_a", "case_c"):
        write(other / f"{name}.nii.gz", [9] * 8)
    folder.fuse(organs=other)
    assert folder.row("case_a") == folder.row("case_c") == [1, 14, 14, 9, 14, 9, 9, 2]
    assert folder.row("case_b") == known
    assert folder.times()["case_b.nii.gz"] == before["case_b.nii.gz"]  # nothing to do anew


def test_a_folder_of_organs_that_is_not_there_is_refused(folder):
    folder.add("case_a")
    with pytest.raises(InputError, match=r"no folder '.*organs-typo' · run `flarekd pseudo-organ"):
        folder.fuse(organs=folder.path / "organs-typo")
    assert not (folder.path / "fused").exists()


def decide(folder, **decisions):
    path = folder.path / "review.csv"
    rows = "".join(f"{case},{decision}\n" for case, decision in decisions.items())
    path.write_text(f"case,decision\n{rows}", encoding="utf-8")
    return path


def test_cases_that_a_person_dropped_or_wants_mended_are_left_out(folder, capsys):
    for name in ("case_a", "case_b", "case_c", "case_d"):
        folder.add(name)
    folder.fuse()
    review = decide(folder, case_a="drop", case_b="fix", case_c="keep", stranger="drop")
    # what is left out needs no source any more
    (folder.path / "tumor" / "case_a.nii.gz").unlink()
    folder.fuse(review=review)
    assert sorted(folder.times()) == ["case_c.nii.gz", "case_d.nii.gz"]
    told = capsys.readouterr().err
    assert "the review leaves out 2 cases; to be mended: case_b" in told
    assert "leaves out 1 case not to be found here: 'stranger'" in told
    assert [
        (row["case"], row["component"], row["rule"]) for row in folder.table("dropped.csv")
    ] == [
        ("case_a", "", "review: drop"),
        ("case_b", "", "review: fix"),
    ]
    assert folder.table()[1]["dropped"] == "case (review: fix)"


def test_a_source_is_not_removed_with_the_case_that_a_person_dropped(folder):
    folder.add("case_a")
    folder.add("case_b")
    review = decide(folder, case_a="drop")
    (folder.path / "cohort.csv").write_text(format_cohort(folder.cases, folder.path))
    extras, tumor = Extras(review=review), folder.path / "tumor"
    ledger = Ledger(tumor / "done.jsonl")  # as pseudo-tumor leaves it
    for case in folder.cases:
        ledger.add(case.case, "key")
    with pytest.raises(CasesFailedError, match=r"case_b: .*would replace"):
        fuse_labels(folder.path / "cohort.csv", tumor, tumor, "paper", extras)
    assert (tumor / "case_a.nii.gz").exists()


def test_what_fusion_says_of_sources_can_be_read_again(folder):
    folder.add("case_a")
    folder.add("case_b", labels=None)
    assert read_sources(folder.path / "fused") == {}
    folder.fuse()
    found = read_sources(folder.path / "fused")
    # PAPER: liver and right kidney drawn, aorta and tumours from pseudo-labels
    assert found["case_a"].human_ml == pytest.approx(
        {"liver": VOXEL_ML, "right_kidney": VOXEL_ML}, abs=1e-4
    )
    assert set(found["case_a"].pseudo_ml) == {"aorta", "tumor"}
    assert found["case_b"].human_ml == {}
    assert found["case_b"].conflict is None


def test_what_nobody_annotated_stays_open_whatever_pseudo_labels_say(folder):
    folder.add("case_a", labels=[255, 255, 0, 0, 255, 0, 0, 2])
    folder.fuse(provenance=True)
    assert folder.row("case_a") == [255, 255, 14, 5, 255, 0, 0, 2]
    sources = read_labels(folder.path / "fused" / "provenance" / "case_a.nii.gz").array
    assert sources[ROW].ravel().tolist() == [4, 4, 2, 3, 4, 0, 0, 1]
    (row,) = folder.table()
    assert (row["ignored_ml"], row["organ_against_human_ml"]) == ("0.0084", "0.0056")
    assert row["tumor_over_human_ml"] == "0.0000"


def test_fusion_csv_has_conflicts_of_each_organ_and_what_was_drawn_in_part(folder):
    folder.add("case_a", annotated=(2, 3, 4))  # the liver was drawn in part
    folder.fuse()
    (row,) = folder.table()
    # 1 against 3, and 2 against 6; the liver's other voxels and the fifth are under a tumour
    assert (row["liver_conflict_ml"], row["spleen_conflict_ml"]) == ("0.0028", "0.0028")
    assert (row["right_kidney_conflict_ml"], row["ivc_conflict_ml"]) == ("0.0028", "0.0028")
    assert row["organ_against_human_ml"] == "0.0056"
    assert (row["liver_under_tumor_ml"], row["aorta_under_tumor_ml"]) == ("0.0028", "0.0028")
    assert row["unvouched_ml"] == "0.0056"


def test_a_fused_label_that_a_person_corrected_is_kept_and_never_replaced(folder):
    folder.add("case_a")
    folder.add("case_b")
    folder.fuse()
    corrected = write(folder.path / "fused" / "case_b.nii.gz", [9] * 8)
    folder.fuse()  # nothing is out of date
    assert folder.row("case_b") == [9] * 8
    before = folder.times()
    with pytest.raises(InputError, match=r"1 file would be replaced .*fused/case_b\.nii\.gz"):
        folder.fuse("simple")
    with pytest.raises(InputError, match=r"case_b\.nii\.gz"):
        folder.fuse(review=decide(folder, case_a="drop", case_b="drop"))
    assert (folder.row("case_b"), folder.times()) == ([9] * 8, before)
    corrected.unlink()
    folder.fuse("simple")
    assert folder.row("case_b") == SIMPLE


def test_a_label_drawn_where_fusion_failed_is_not_replaced(folder):
    folder.add("case_a", tumor=[3] * 8)
    with pytest.raises(CasesFailedError, match="case_a"):
        folder.fuse()
    write(folder.path / "fused" / "case_a.nii.gz", [9] * 8)
    with pytest.raises(InputError, match=r"case_a\.nii\.gz"):
        folder.fuse()
    assert folder.row("case_a") == [9] * 8


def test_a_scan_that_is_gone_is_told_with_its_name_and_how_to_mend_it(folder):
    folder.add("case_a")
    folder.add("case_b")
    folder.cases[1].image.unlink()
    said = r"not fused: case_b: \S*case_b_0000\.nii\.gz: No such file or directory · check the path"
    with pytest.raises(CasesFailedError, match=said):
        folder.fuse()
    assert folder.row("case_a") == PAPER
