"""`group_data` of data sets as they are published: a folder a case, a mask a class."""

import json

import numpy as np
import pytest

from flarekd.cohort import read_cohort
from flarekd.errors import CasesFailedError, InputError
from flarekd.imaging.files import read_labels, write_labels, write_volume
from flarekd.imaging.volume import Geometry, LabelMap, Volume
from flarekd.labels import IDS
from flarekd.stages.group_data import Folders, group_data

SIZE, SPACING = (80, 24, 12), (2.0, 2.0, 3.0)
# turned as KiTS is: the first stored axis runs along the body; away from the origin
STORED = Geometry(SIZE[::-1], SPACING[::-1], (-31.0, 45.5, 112.0), (0, 0, -1, 0, -1, 0, -1, 0, 0))
SHAPE = STORED.shape_zyx
RIGHT, LEFT = (slice(4, 8), slice(5, 15), slice(6, 18)), (slice(4, 8), slice(5, 15), slice(62, 74))
KITS = """
datasets:
  - cases: "case_*"
    images: "{case}/imaging.nii.gz"
    labels: "{case}/segmentation.nii.gz"
    ids: kits23
"""
TOTAL = """
datasets:
  - cases: "s[0-9]*"
    images: "{case}/ct.nii.gz"
    labels: "{case}/segmentations/{label}.nii.gz"
    others: background
"""
ORGANS = {
    "liver": "liver", "kidney_right": "right_kidney", "kidney_left": "left_kidney",
    "spleen": "spleen", "pancreas": "pancreas", "aorta": "aorta", "inferior_vena_cava": "ivc",
    "adrenal_gland_right": "right_adrenal", "adrenal_gland_left": "left_adrenal",
    "gallbladder": "gallbladder", "esophagus": "esophagus", "stomach": "stomach",
    "duodenum": "duodenum",
}  # fmt: skip
OTHERS = ("kidney_cyst_left", "vertebrae_L1", "rib_left_1", "urinary_bladder", "brain", "colon")

pytestmark = pytest.mark.usefixtures("one_processor")


def scan(path, geometry=STORED):
    noise = np.random.default_rng(0).normal(0, 50, geometry.shape_zyx)
    write_volume(path, Volume(noise.astype(np.int16), geometry))


def labels(path, array, geometry=STORED):
    write_labels(path, LabelMap(array, geometry))


def kits(folder, name="case_00000"):
    scan(folder / name / "imaging.nii.gz")
    array = np.zeros(SHAPE, np.uint8)
    array[RIGHT], array[LEFT] = 1, 1
    array[4:6, 6:8, 7:9], array[4:6, 6:8, 63:65] = 2, 3
    labels(folder / name / "segmentation.nii.gz", array)
    (folder / "kits23.json").write_text("[]", encoding="utf-8")


def total(folder, name="s0001", organs=ORGANS):
    """All masks of a case, a row of voxels an organ; the brain is not in it, as is told by 0."""
    scan(folder / name / "ct.nii.gz")
    for place, mask in enumerate([*organs, *OTHERS]):
        array = np.zeros(SHAPE, np.uint8)
        if mask != "brain":
            array[4, place + 1, 3:9] = 1
        labels(folder / name / "segmentations" / f"{mask}.nii.gz", array)


def group(folder, text, **more):
    path = folder.parent / "groups.yaml"
    path.write_text(text, encoding="utf-8")
    table = folder.parent / "out" / "cohort.csv"
    group_data(Folders(folder, folder), table, groups=path, **more)
    return {case.case: case for case in read_cohort(table)}


def grouping(folder):
    return json.loads((folder.parent / "out" / "grouping.json").read_text(encoding="utf-8"))


@pytest.fixture
def data(tmp_path):
    return tmp_path / "dataset"


def test_kits23_as_it_is_published(data):
    kits(data)
    kits(data, "case_00001")
    (data / "case_00001" / "segmentation.nii.gz").unlink()
    cases = group(data, KITS)
    assert list(cases) == ["case_00000", "case_00001"]
    case = cases["case_00000"]
    assert case.annotated == {2, 13, 14}
    assert case.image.resolve() == data / "case_00000" / "imaging.nii.gz"
    written = read_labels(case.label)
    assert case.label.name == "case_00000.nii.gz"
    assert written.geometry.mismatch(STORED) is None
    assert written.array[5, 10, 10] == 2
    assert written.array[5, 10, 70] == written.array[4, 6, 63] == 13  # a cyst counts as kidney
    assert (written.array == 14).sum() == 8
    assert (cases["case_00001"].label, cases["case_00001"].annotated) == (None, frozenset())


def test_labels_lie_below_the_folder_of_scans_where_no_other_is_given(data):
    kits(data)
    path = data.parent / "groups.yaml"
    path.write_text(KITS, encoding="utf-8")
    (case,) = group_data(Folders(data), data.parent / "out" / "cohort.csv", groups=path)
    assert case.annotated == {2, 13, 14}


def test_label_files_whose_scan_has_not_come_yet_are_told(data, capsys):
    kits(data)
    kits(data, "case_00001")
    (data / "case_00001" / "imaging.nii.gz").unlink()
    assert list(group(data, KITS)) == ["case_00000"]
    assert "1 label file without a scan, the first 'case_00001'" in capsys.readouterr().err


def test_totalsegmentator_as_it_is_published(data, capsys):
    total(data)
    total(data, "s0002")
    (data / "meta.csv").write_text("image_id;age\n", encoding="utf-8")
    cases = group(data, TOTAL)
    assert list(cases) == ["s0001", "s0002"]
    assert cases["s0001"].annotated == set(range(1, 14))
    assert cases["s0001"].group == 7
    merged = read_labels(cases["s0001"].label).array
    for place, ours in enumerate(ORGANS.values()):
        assert merged[4, place + 1, 5] == IDS[ours]
    cyst = merged[4, len(ORGANS) + 1, 5]
    assert cyst == IDS["left_kidney"]
    assert np.count_nonzero(merged) == 14 * 6
    told = capsys.readouterr().err
    assert "5 other names, taken as background: brain, colon, rib_left_1, urinary_bladder" in told
    assert grouping(data)["cases"][0]["sources"]["label"]["ids"] == "masks"


def test_masks_that_are_none_of_our_classes_are_refused_by_default(data):
    total(data)
    with pytest.raises(InputError, match=r"none of our classes: brain, colon.*others: background"):
        group(data, TOTAL.replace("    others: background\n", ""))
    assert not (data.parent / "out" / "cohort.csv").exists()


def test_masks_of_other_names_are_what_is_said_of_them(data):
    total(data)
    folder = data / "s0001" / "segmentations"
    (folder / "liver.nii.gz").rename(folder / "Leber.nii.gz")
    cases = group(data, TOTAL + "    ids: {Leber: liver, colon: tumour}\n")
    merged = read_labels(cases["s0001"].label).array
    assert (merged[4, 1, 5], (merged == 14).sum()) == (1, 6)
    assert cases["s0001"].annotated == set(range(1, 15))
    with pytest.raises(InputError, match="has no mask 'Lebr'"):
        group(data, TOTAL + "    ids: {Lebr: liver}\n")


def test_a_case_whose_mask_of_a_class_is_missing_is_refused_and_the_others_go_on(data):
    total(data)
    total(data, "s0002")
    (data / "s0002" / "segmentations" / "spleen.nii.gz").unlink()
    with pytest.raises(CasesFailedError, match="s0002: segmentations: label: no mask of spleen"):
        group(data, TOTAL)
    assert [one["case"] for one in grouping(data)["cases"]] == ["s0001"]
    cases = group(data, TOTAL + "    annotated: present\n")
    assert cases["s0002"].annotated == set(range(1, 14)) - {3}
    # a mask that comes later is seen
    total(data, "s0002")
    assert group(data, TOTAL)["s0002"].annotated == set(range(1, 14))


def test_a_mask_on_another_grid_is_refused_with_its_distance(data):
    total(data)
    off = Geometry(STORED.size_xyz, STORED.spacing_xyz, (-31.0, 45.5, 115.0), STORED.direction)
    labels(data / "s0001" / "segmentations" / "aorta.nii.gz", np.zeros(SHAPE, np.uint8), off)
    with pytest.raises(CasesFailedError, match=r"aorta\.nii\.gz: label: label and image do not"):
        group(data, TOTAL)
    (refused,) = grouping(data)["refused"]
    assert (refused["case"], refused["far_corner_mm"]) == ("s0001", 3.0)


def test_a_mask_of_several_ids_is_refused(data):
    total(data)
    array = np.zeros(SHAPE, np.uint8)
    array[1, 1, 1:3] = 1, 2
    labels(data / "s0001" / "segmentations" / "aorta.nii.gz", array)
    with pytest.raises(CasesFailedError, match=r"holds the ids \[1, 2\], a mask holds one"):
        group(data, TOTAL)


def test_masks_that_overlap_are_decided_counted_and_told(data):
    total(data)
    array = np.zeros(SHAPE, np.uint8)
    array[4, 1, 8], array[4:6, 20:24, 20:40] = 1, 1  # one voxel of the liver's row
    labels(data / "s0001" / "segmentations" / "spleen.nii.gz", array)
    (case,) = group(data, TOTAL).values()
    assert read_labels(case.label).array[4, 1, 8] == 1  # the liver is smaller here
    assert "masks overlap: liver over spleen in 1 voxel" in case.note
    (found,) = grouping(data)["cases"]
    assert found["sources"]["label"]["overlaps"] == {"liver over spleen": 1}
    assert not found["is_ambiguous"]
    array[4, 3:5, 3:9] = 1
    labels(data / "s0001" / "segmentations" / "liver.nii.gz", array)
    with pytest.raises(InputError, match=r"no case is left.*1 ambiguous case left out"):
        group(data, TOTAL, strict=True)


def test_data_sets_in_folders_of_their_own_and_scans_side_by_side_are_one_cohort(tmp_path):
    data = tmp_path / "data"
    kits(data / "kits23" / "dataset")
    total(data / "totalsegmentator")
    scan(data / "ours_0000.nii.gz")
    array = np.zeros(SHAPE, np.uint8)
    array[RIGHT] = 3
    labels(tmp_path / "labels" / "ours.nii.gz", array)
    text = KITS.replace("{case}/", "kits23/dataset/{case}/")
    text += TOTAL.replace("datasets:\n", "").replace('"{case}/', '"totalsegmentator/{case}/')
    cases = group(data, text)
    assert {name: len(case.annotated) for name, case in cases.items()} == {
        "case_00000": 3,
        "s0001": 13,
        "ours": 0,
    }


def test_a_case_that_is_found_twice_is_refused(tmp_path):
    data = tmp_path / "data"
    for name in ("a", "b"):
        kits(data / name)
    one, two = (KITS.replace("{case}/", f"{name}/{{case}}/") for name in ("a", "b"))
    with pytest.raises(InputError, match=r"'case_00000' is found twice: .*a/case_00000/imag"):
        group(data, one + two.replace("datasets:\n", ""))


def test_what_is_found_in_a_data_sets_folder_is_its_own_whatever_it_is_called(tmp_path):
    data = tmp_path / "data"
    text = "datasets:\n"
    for name, ours in (("first", "spleen"), ("second", "liver")):
        scan(data / name / f"{name}_1_0000.nii.gz")
        array = np.zeros(SHAPE, np.uint8)
        array[RIGHT] = 1
        labels(data / name / f"{name}_1_label.nii.gz", array)
        text += f"  - images: '{name}/{{case}}_0000.nii.gz'\n"
        text += f"    labels: '{name}/{{case}}_label.nii.gz'\n    ids: {{1: {ours}}}\n"
    scan(data / "ours_0000.nii.gz")
    cases = group(data, text)
    assert {name: case.annotated for name, case in cases.items()} == {
        "first_1": {3},
        "second_1": {1},
        "ours": frozenset(),
    }


def test_paths_that_fit_no_file_are_refused(data):
    kits(data)
    with pytest.raises(InputError, match=r"no file '\{case\}/image\.nii\.gz' of cases 'case_\*'"):
        group(data, KITS.replace("imaging", "image"))


def test_folders_of_a_case_each_are_told_how_to_mend(data):
    kits(data)
    with pytest.raises(InputError, match=r"imaging\.nii\.gz'.*images: '\{case\}/imaging\.nii\.gz'"):
        group(data, "datasets: [{ids: kits23}]")


def test_a_second_run_measures_nothing_anew(data):
    total(data)
    group(data, TOTAL)
    facts = data.parent / "out" / "cohort.facts.jsonl"
    before = facts.read_bytes()
    group(data, TOTAL)
    assert facts.read_bytes() == before


def test_label_files_that_a_person_corrected_are_never_replaced(data):
    kits(data)
    path = group(data, KITS)["case_00000"].label
    drawn = read_labels(path)
    write_labels(path, LabelMap(np.full_like(drawn.array, 13), drawn.geometry))
    group(data, KITS)  # nothing is out of date
    source = data / "case_00000" / "segmentation.nii.gz"
    labels(source, np.zeros(SHAPE, np.uint8))
    with pytest.raises(InputError, match=r"1 file would be replaced .*case_00000\.nii\.gz"):
        group(data, KITS)
    assert (read_labels(path).array == 13).all()
