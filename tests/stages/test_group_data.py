"""`group_data` from folders to cohort.csv: who is annotated how, and what cannot be used."""

from __future__ import annotations

import numpy as np
import pytest

from flarekd.cohort import read_cohort
from flarekd.errors import CasesFailedError, InputError
from flarekd.imaging.files import write_labels, write_volume
from flarekd.imaging.volume import Geometry, LabelMap, Volume
from flarekd.labels import GROUPS
from flarekd.stages.group_data import Folders, group_data

# anisotropic, oblique (16° about z, y against the canonical axis), away from the origin
COS, SIN = np.cos(0.28), np.sin(0.28)
DIRECTION = (COS, SIN, 0, SIN, -COS, 0, 0, 0, 1)
GEOMETRY = Geometry((28, 24, 12), (0.75, 1.25, 3.0), (-31.0, 45.5, 112.0), DIRECTION)
SHAPE = GEOMETRY.shape_zyx


pytestmark = pytest.mark.usefixtures("one_processor")


def scan(path, geometry=GEOMETRY):
    """Write a scan: noise, which is all that grouping needs."""
    noise = np.random.default_rng(0).normal(0, 50, geometry.shape_zyx)
    write_volume(path, Volume(noise.astype(np.int16), geometry))


def label_map(path, ids, geometry=GEOMETRY):
    """Write a label map with a row of voxels for each id."""
    array = np.zeros(geometry.shape_zyx, np.uint8)
    for row, label in enumerate(sorted(ids)):
        array[2:4, row + 1, 3:9] = label
    write_labels(path, LabelMap(array, geometry))


def case(folder, name, ids, ending=".nii.gz"):
    scan(folder / "images" / f"{name}_0000{ending}")
    label_map(folder / "labels" / f"{name}{ending}", ids)


def group(folder, unlabeled=False, organ_pseudo=False, **options):
    folders = Folders(
        folder / "images",
        folder / "labels",
        folder / "unlabeled" if unlabeled else None,
        folder / "organPseudo" if organ_pseudo else None,
    )
    return group_data(folders, folder / "cohort.csv", **options)


def table(shown):
    """The rows of the table on the screen: first cell → the others."""
    lines = [line for line in shown.splitlines() if line.startswith("│")]
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in lines]
    return {row[0]: row[1:] for row in rows}


@pytest.mark.paper
def test_a_label_file_with_exactly_a_groups_ids_belongs_to_it(tmp_path):
    for number, ids in GROUPS.items():
        case(tmp_path, f"case_{number}", ids)
    group(tmp_path)
    found = {entry.case: entry for entry in read_cohort(tmp_path / "cohort.csv")}
    assert len(found) == 7
    for number, ids in GROUPS.items():
        entry = found[f"case_{number}"]
        assert (entry.group, entry.annotated, entry.split) == (number, ids, "train")
        assert entry.label == tmp_path / "labels" / f"case_{number}.nii.gz"
        assert entry.image == tmp_path / "images" / f"case_{number}_0000.nii.gz"
        assert (entry.size, entry.spacing) == ((28, 24, 12), (0.75, 1.25, 3.0))
        assert entry.has_tumor_label == (number in (1, 4))
    assert found["case_1"].note == found["case_7"].note == ""
    # a patient without a left kidney looks the same as one whose left kidney nobody drew
    assert found["case_2"].note.startswith("left_kidney absent or not annotated?")


def test_a_case_without_an_exact_group_is_noted_and_vouches_only_for_what_was_drawn(
    tmp_path, capsys
):
    case(tmp_path, "case_a", {1, 3, 14})
    case(tmp_path, "case_b", set())
    cases = group(tmp_path)
    a, b = cases
    assert (a.case, a.group, a.annotated) == ("case_a", 4, {1, 3, 14})
    note = "no exact group; nearest is 4, without right_kidney, pancreas, left_kidney"
    assert a.note.startswith(note)
    assert (b.case, b.group, b.annotated) == ("case_b", None, frozenset())
    assert b.note == "label file is empty: treated as unlabelled"
    told = capsys.readouterr()
    assert f"note: case_a: {note}" in told.err
    assert table(told.out)["no exact group"][0] == "2"
    assert [entry.note for entry in read_cohort(tmp_path / "cohort.csv")] == [a.note, b.note]


def test_scans_without_a_label_and_scans_of_the_other_folder_are_unlabelled(tmp_path):
    case(tmp_path, "case_c", {14})
    scan(tmp_path / "images" / "case_b_0000.nii.gz")
    scan(tmp_path / "unlabeled" / "case_a_0000.nii.gz")
    for name in ("case_a", "case_c"):
        label_map(tmp_path / "organPseudo" / f"{name}.nii.gz", {1, 2})
    group(tmp_path, unlabeled=True, organ_pseudo=True)
    c, a, b = read_cohort(tmp_path / "cohort.csv")  # labelled first, then by name
    assert [entry.case for entry in (c, a, b)] == ["case_c", "case_a", "case_b"]
    for entry in (a, b):
        assert (entry.label, entry.group, entry.annotated) == (None, None, frozenset())
    assert a.image == tmp_path / "unlabeled" / "case_a_0000.nii.gz"
    assert a.organ_pseudo == tmp_path / "organPseudo" / "case_a.nii.gz"
    assert b.organ_pseudo is None
    assert c.organ_pseudo == tmp_path / "organPseudo" / "case_c.nii.gz"


def test_without_a_label_folder_every_scan_is_unlabelled(tmp_path):
    scan(tmp_path / "images" / "case_a.nii.gz")
    group_data(Folders(tmp_path / "images"), tmp_path / "cohort.csv")
    (entry,) = read_cohort(tmp_path / "cohort.csv")
    assert (entry.case, entry.label) == ("case_a", None)


def test_a_label_of_the_same_name_as_an_unlabelled_scan_is_not_taken_for_its_label(tmp_path):
    case(tmp_path, "case_a", {14})
    scan(tmp_path / "unlabeled" / "case_b_0000.nii.gz")
    label_map(tmp_path / "labels" / "case_b.nii.gz", {14})
    _, b = group(tmp_path, unlabeled=True)
    assert (b.case, b.label, b.annotated) == ("case_b", None, frozenset())


def test_labels_and_pseudo_labels_without_a_scan_are_told(tmp_path, capsys):
    case(tmp_path, "case_a", {14})
    label_map(tmp_path / "labels" / "stray_1.nii.gz", {14})
    label_map(tmp_path / "labels" / "stray_2.nii.gz", {14})
    label_map(tmp_path / "organPseudo" / "stray_3.nii.gz", {1})
    assert [entry.case for entry in group(tmp_path, organ_pseudo=True)] == ["case_a"]
    told = capsys.readouterr().err
    assert "2 label files have no scan, the first 'stray_1'" in told
    assert "1 organ pseudo-label files have no scan, the first 'stray_3'" in told


@pytest.mark.parametrize(
    ("geometry", "reason"),
    [
        (Geometry((28, 24, 11), (0.75, 1.25, 3.0), (-31.0, 45.5, 112.0), DIRECTION), "28×24×11"),
        (Geometry((28, 24, 12), (0.75, 1.25, 3.5), (-31.0, 45.5, 112.0), DIRECTION), "5.50 mm off"),
        (Geometry((28, 24, 12), (0.75, 1.25, 3.0), (-31.0, 45.5, 110.0), DIRECTION), "2.00 mm off"),
    ],
)
def test_a_label_on_another_grid_than_its_scan_leaves_the_case_out(tmp_path, geometry, reason):
    case(tmp_path, "case_a", {14})
    scan(tmp_path / "images" / "case_b_0000.nii.gz")
    label_map(tmp_path / "labels" / "case_b.nii.gz", {14}, geometry)
    with pytest.raises(CasesFailedError) as caught:
        group(tmp_path)
    assert caught.value.exit_code == 4
    assert "1 cases were left out: case_b: label and image do not match" in str(caught.value)
    assert reason in str(caught.value)
    assert [entry.case for entry in read_cohort(tmp_path / "cohort.csv")] == ["case_a"]


def test_an_organ_pseudo_label_on_another_grid_leaves_the_case_out(tmp_path):
    case(tmp_path, "case_a", {14})
    case(tmp_path, "case_b", {14})
    other = Geometry((27, 24, 12), (0.75, 1.25, 3.0), (-31.0, 45.5, 112.0), DIRECTION)
    label_map(tmp_path / "organPseudo" / "case_a.nii.gz", {1}, other)
    with pytest.raises(CasesFailedError, match="case_a: organ pseudo-label and image do not match"):
        group(tmp_path, organ_pseudo=True)
    assert [entry.case for entry in read_cohort(tmp_path / "cohort.csv")] == ["case_b"]


def test_an_id_that_is_no_class_is_refused_with_the_case_and_the_id(tmp_path):
    case(tmp_path, "case_a", {14})
    case(tmp_path, "case_b", {1, 15})
    with pytest.raises(CasesFailedError, match=r"case_b: label ids \[15\] are not among 1..14"):
        group(tmp_path)
    assert [entry.case for entry in read_cohort(tmp_path / "cohort.csv")] == ["case_a"]


def test_a_torn_label_is_named_and_where_nothing_is_left_no_cohort_is_written(tmp_path):
    case(tmp_path, "case_a", {14})
    path = tmp_path / "labels" / "case_a.nii.gz"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(CasesFailedError, match=r"1 cases were left out: case_a: .*case_a\.nii\.gz"):
        group(tmp_path)
    assert not (tmp_path / "cohort.csv").exists()


def test_the_same_id_in_both_image_folders_is_refused(tmp_path):
    case(tmp_path, "case_a", {14})
    scan(tmp_path / "unlabeled" / "case_a.nii.gz")
    with pytest.raises(InputError, match=r"case 'case_a' is in .*images.* and in .*unlabeled"):
        group(tmp_path, unlabeled=True)
    assert not (tmp_path / "cohort.csv").exists()


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(InputError, match=r"no scan in .*images") as caught:
        group_data(Folders(tmp_path / "images"), tmp_path / "cohort.csv")
    assert caught.value.exit_code == 3
    assert not (tmp_path / "cohort.csv").exists()


def test_a_folder_that_is_not_there_is_refused(tmp_path):
    case(tmp_path, "case_a", {14})
    with pytest.raises(InputError, match="labelz: no such folder"):
        group_data(Folders(tmp_path / "images", tmp_path / "labelz"), tmp_path / "cohort.csv")


def test_mha_and_nrrd_stand_beside_nifti(tmp_path):
    case(tmp_path, "case_a", GROUPS[4], ".mha")
    case(tmp_path, "case_b", GROUPS[7], ".nrrd")
    case(tmp_path, "case_c", GROUPS[1], ".nii")
    scan(tmp_path / "images" / "case_d_0000.mha")  # the formats of a pair may differ
    label_map(tmp_path / "labels" / "case_d.nii.gz", GROUPS[3])
    cases = group(tmp_path)
    assert [(entry.case, entry.group) for entry in cases] == [
        ("case_a", 4),
        ("case_b", 7),
        ("case_c", 1),
        ("case_d", 3),
    ]
    assert {entry.size for entry in cases} == {(28, 24, 12)}


def test_the_table_counts_each_group_and_all(tmp_path, capsys):
    for name, ids in (("a", GROUPS[1]), ("b", GROUPS[1]), ("c", GROUPS[4]), ("d", {1, 14})):
        case(tmp_path, f"case_{name}", ids)
    scan(tmp_path / "images" / "case_e_0000.nii.gz")
    group(tmp_path)
    rows = table(capsys.readouterr().out)
    assert rows["group 1"] == ["2", *[""] * 13, "✓"]
    assert rows["group 4"] == ["1", *["✓"] * 4, *[""] * 8, "✓", "✓"]
    assert {number: rows[f"group {number}"][0] for number in (2, 3, 5, 6, 7)} == dict.fromkeys(
        (2, 3, 5, 6, 7), "0"
    )
    assert [rows[name][0] for name in ("no exact group", "unlabelled", "total")] == ["1", "1", "5"]
