"""`group_data` from folders to cohort.csv: who is annotated how, and what cannot be used."""

from __future__ import annotations

import csv
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from flarekd.cohort import read_cohort
from flarekd.errors import CasesFailedError, InputError
from flarekd.imaging.files import read_labels, write_labels, write_volume
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


def group(folder, unlabeled=(), organ_pseudo=False, **options):
    folders = Folders(
        folder / "images",
        folder / "labels",
        folder / "organPseudo" if organ_pseudo else None,
        tuple(folder / name for name in unlabeled),
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
    group(tmp_path, unlabeled=["unlabeled"], organ_pseudo=True)
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
    _, b = group(tmp_path, unlabeled=["unlabeled"])
    assert (b.case, b.label, b.annotated) == ("case_b", None, frozenset())


def test_labels_and_pseudo_labels_without_a_scan_are_told(tmp_path, capsys):
    case(tmp_path, "case_a", {14})
    label_map(tmp_path / "labels" / "stray_1.nii.gz", {14})
    label_map(tmp_path / "labels" / "stray_2.nii.gz", {14})
    label_map(tmp_path / "organPseudo" / "stray_3.nii.gz", {1})
    assert [entry.case for entry in group(tmp_path, organ_pseudo=True)] == ["case_a"]
    told = capsys.readouterr().err
    assert "2 label files without a scan, the first 'stray_1'" in told
    assert "1 organ pseudo-label file without a scan, the first 'stray_3'" in told


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
    told = str(caught.value)
    assert "1 case left out: case_b: " in told
    assert "case_b.nii.gz: label: label and image do not match" in told
    assert reason in str(caught.value)
    assert [entry.case for entry in read_cohort(tmp_path / "cohort.csv")] == ["case_a"]


def test_an_organ_pseudo_label_on_another_grid_leaves_the_case_out(tmp_path):
    case(tmp_path, "case_a", {14})
    case(tmp_path, "case_b", {14})
    other = Geometry((27, 24, 12), (0.75, 1.25, 3.0), (-31.0, 45.5, 112.0), DIRECTION)
    label_map(tmp_path / "organPseudo" / "case_a.nii.gz", {1}, other)
    with pytest.raises(
        CasesFailedError, match=r"case_a\.nii\.gz: organ pseudo-label: label and image do not"
    ):
        group(tmp_path, organ_pseudo=True)
    assert [entry.case for entry in read_cohort(tmp_path / "cohort.csv")] == ["case_b"]


def test_an_id_that_is_no_class_is_refused_with_the_case_and_the_id(tmp_path):
    case(tmp_path, "case_a", {14})
    case(tmp_path, "case_b", {1, 15})
    with pytest.raises(CasesFailedError, match=r"case_b.*: label ids \[15\] are not among 1..14"):
        group(tmp_path)
    assert [entry.case for entry in read_cohort(tmp_path / "cohort.csv")] == ["case_a"]


def test_a_torn_label_is_named_and_where_nothing_is_left_no_cohort_is_written(tmp_path):
    case(tmp_path, "case_a", {14})
    path = tmp_path / "labels" / "case_a.nii.gz"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(CasesFailedError, match=r"1 case left out: case_a: .*case_a\.nii\.gz"):
        group(tmp_path)
    assert not (tmp_path / "cohort.csv").exists()


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_a_torn_scan_is_noted_though_its_header_is_whole(tmp_path, ending):
    case(tmp_path, "case_a", {14}, ending)
    case(tmp_path, "case_b", {14}, ending)
    path = tmp_path / "images" / f"case_b_0000{ending}"
    path.write_bytes(path.read_bytes()[:-60])
    group(tmp_path)
    whole, torn = read_cohort(tmp_path / "cohort.csv")
    assert "torn" not in whole.note
    assert "the file is torn" in torn.note


def test_a_scan_packed_in_parts_or_with_more_than_its_voxels_is_not_torn(tmp_path):
    for name in ("case_a", "case_b", "case_c"):
        case(tmp_path, name, {14})
    parts, longer, plain = (tmp_path / "images" / f"case_{letter}_0000.nii.gz" for letter in "abc")
    content = gzip.decompress(parts.read_bytes())
    parts.write_bytes(gzip.compress(content[:5000]) + gzip.compress(content[5000:]))
    longer.write_bytes(gzip.compress(content + bytes(16)))
    plain.write_bytes(content)  # not packed, whatever its name says
    assert len(group(tmp_path)) == 3


def test_the_same_id_in_both_image_folders_is_refused(tmp_path):
    case(tmp_path, "case_a", {14})
    scan(tmp_path / "unlabeled" / "case_a.nii.gz")
    with pytest.raises(InputError, match=r"'case_a' is found twice: .*images.* and .*unlabeled"):
        group(tmp_path, unlabeled=["unlabeled"])
    assert not (tmp_path / "cohort.csv").exists()


def test_scans_without_labels_may_lie_in_several_folders(tmp_path):
    case(tmp_path, "case_a", {14})
    scan(tmp_path / "1-500" / "case_b_0000.nii.gz")
    scan(tmp_path / "501-1000" / "case_c_0000.nii.gz")
    found = group(tmp_path, unlabeled=["1-500", "501-1000"])
    assert [one.case for one in found] == ["case_a", "case_b", "case_c"]
    scan(tmp_path / "501-1000" / "case_b_0000.nii.gz")
    with pytest.raises(InputError, match=r"'case_b' is found twice: .*1-500.* and .*501-1000"):
        group(tmp_path, unlabeled=["1-500", "501-1000"])


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


def test_what_the_readers_mended_or_doubt_stands_in_the_note(tmp_path):
    case(tmp_path, "case_a", GROUPS[1], ".nii")
    path = tmp_path / "images" / "case_a_0000.nii"
    header = bytearray(path.read_bytes())
    header[252:256] = bytes(4)  # qform and sform code 0
    header[76:80] = np.float32(1).tobytes()
    path.write_bytes(header)
    label = tmp_path / "labels" / "case_a.nii"
    changed = bytearray(label.read_bytes())
    changed[252:256] = bytes(4)
    label.write_bytes(changed)
    (found,) = group(tmp_path)
    assert found.group == 1
    assert "image: says nothing of orientation" in found.note
    assert "label: says nothing of orientation" in found.note
    assert read_cohort(tmp_path / "cohort.csv")[0].note == found.note


def report(folder):
    """grouping.json: the whole, and its cases by id."""
    whole = json.loads((folder / "grouping.json").read_text(encoding="utf-8"))
    return whole, {entry["case"]: entry for entry in whole["cases"]}


def test_grouping_json_says_what_was_measured_and_why_the_case_is_in_its_group(tmp_path):
    case(tmp_path, "case_a", {14})
    label_map(tmp_path / "organPseudo" / "case_a.nii.gz", {1, 9})
    group(tmp_path, organ_pseudo=True)
    whole, cases = report(tmp_path)
    assert (whole["strict"], whole["refused"], whole["typical_ml"]) == (False, [], {})
    a = cases["case_a"]
    assert (a["group"], a["annotated"], a["exact"], a["is_ambiguous"]) == (1, [14], True, False)
    assert a["why"] == "its ids are those of group 1"
    assert a["height_mm"] == 36.0
    label = a["sources"]["label"]
    # two slices of 3 mm, one row, six columns of 0.75 by 1.25 mm
    assert label["extents"] == {
        "14": {
            "voxels": 12,
            "ml": 0.034,
            "low_mm": 6.0,
            "high_mm": 12.0,
            "centre_mm": 9.0,
            "cut_off": [],
        }
    }
    assert (label["file"], label["ids"], label["far_corner_mm"]) == ("case_a.nii.gz", "flarekd", 0)
    shown = {entry["name"]: entry["why"] for entry in a["lacking"]}
    assert shown["gallbladder"] == "the organ pseudo-label shows 0.034 ml of it"
    assert shown["spleen"] == "no case of its group has it"


def test_grouping_json_says_why_a_case_cannot_be_used_in_numbers(tmp_path):
    case(tmp_path, "case_a", {14})
    case(tmp_path, "case_b", {1, 15, 52})
    moved = Geometry((28, 24, 12), (0.75, 1.25, 3.0), (-31.0, 45.5, 110.0), DIRECTION)
    scan(tmp_path / "images" / "case_c_0000.nii.gz")
    label_map(tmp_path / "labels" / "case_c.nii.gz", {14}, moved)
    scan(tmp_path / "images" / "case_d_0000.nii.gz")
    halves = np.zeros(SHAPE, np.float32)
    halves[3, 4, 5:8] = 0.5
    write_volume(tmp_path / "labels" / "case_d.nii.gz", Volume(halves, GEOMETRY))
    with pytest.raises(CasesFailedError, match="3 cases left out"):
        group(tmp_path)
    b, c, d = report(tmp_path)[0]["refused"]
    assert (b["case"], b["ids"]) == ("case_b", {"15": 12, "52": 12})
    assert (c["case"], c["far_corner_mm"]) == ("case_c", 2.0)
    assert d["case"] == "case_d"
    assert "labels are no integers: 3 of 8,064 voxels, such as 0.5" in d["refused"]


def test_strict_leaves_out_what_a_person_should_decide(tmp_path):
    case(tmp_path, "case_a", {14})
    case(tmp_path, "case_b", GROUPS[6])  # a gallbladder that is not there, or was not drawn
    with pytest.raises(
        CasesFailedError, match=r"1 ambiguous case .* \(--strict\): case_b"
    ) as caught:
        group(tmp_path, strict=True)
    assert caught.value.exit_code == 4
    assert [entry.case for entry in read_cohort(tmp_path / "cohort.csv")] == ["case_a"]
    assert set(report(tmp_path)[1]) == {"case_a", "case_b"}
    assert [entry.case for entry in group(tmp_path)] == ["case_a", "case_b"]


def rules(folder, text):
    path = folder / "groups.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_other_data_sets_are_written_in_our_ids_and_vouch_for_their_classes(tmp_path, capsys):
    case(tmp_path, "liver_1", {1, 2})
    case(tmp_path, "liver_2", {1})  # no tumour, and somebody has looked
    case(tmp_path, "mine_1", {14})
    for name in ("liver_1", "mine_1"):
        label_map(tmp_path / "organPseudo" / f"{name}.nii.gz", {1, 5, 52, 90})
    text = """
        groups: {8: [liver, tumor]}
        datasets:
          - {cases: "liver_*", ids: lits, organ_pseudo: totalsegmentator}
          - {organ_pseudo: totalsegmentator}
    """
    group(tmp_path, organ_pseudo=True, groups=rules(tmp_path, text))
    found = {entry.case: entry for entry in read_cohort(tmp_path / "cohort.csv")}
    for name in ("liver_1", "liver_2"):
        assert (found[name].group, found[name].annotated) == (8, {1, 14})
        assert found[name].label == tmp_path / "cohort-labels" / f"{name}.nii.gz"
    assert found["mine_1"].label == tmp_path / "labels" / "mine_1.nii.gz"
    theirs = read_labels(tmp_path / "labels" / "liver_1.nii.gz")
    ours = read_labels(found["liver_1"].label)
    assert ours.geometry.mismatch(theirs.geometry) is None
    np.testing.assert_array_equal(ours.array, np.asarray([0, 1, 14], np.uint8)[theirs.array])
    for name in ("liver_1", "mine_1"):
        assert found[name].organ_pseudo == tmp_path / "cohort-organ-pseudo" / f"{name}.nii.gz"
        assert set(np.unique(read_labels(found[name].organ_pseudo).array)) == {0, 1, 3, 5}
    _, cases = report(tmp_path)
    assert cases["liver_2"]["why"] == "data set 'lits' has annotated liver, tumor"
    assert cases["liver_2"]["sources"]["label"]["ids"] == "lits"
    assert table(capsys.readouterr().out)["group 8"][0] == "2"


def test_an_id_that_a_data_set_does_not_have_is_refused(tmp_path):
    case(tmp_path, "liver_1", {1, 3})
    path = rules(tmp_path, "datasets: [{ids: lits}]")
    with pytest.raises(CasesFailedError, match=r"ids \[3\] are not among those of 'lits' \(12 vox"):
        group(tmp_path, groups=path)
    assert not (tmp_path / "cohort-labels").exists()


def test_a_kidney_whose_side_is_not_sure_is_for_a_person(tmp_path):
    scan(tmp_path / "images" / "kits_1.nii.gz")
    array = np.zeros(SHAPE, np.uint8)
    array[4:8, 4:9, 12:17] = 1
    write_labels(tmp_path / "labels" / "kits_1.nii.gz", LabelMap(array, GEOMETRY))
    path = rules(tmp_path, "datasets: [{ids: kits23}]")
    (found,) = group(tmp_path, groups=path)
    assert "the side of the kidney is not sure" in found.note
    with pytest.raises(InputError, match=r"no case is left, .* left out \(--strict\): kits_1"):
        group(tmp_path, groups=path, strict=True)
    (tmp_path / "cohort.csv").unlink()
    with pytest.raises(CasesFailedError, match="kits_1"):
        group(tmp_path, groups=path, strict=True)


OUTPUTS = ("cohort.csv", "grouping.json", "cohort-labels/case_000.nii.gz")


def many(folder, count):
    for number in range(count):
        case(folder, f"case_{number:03d}", {1, 2} if number % 2 else {1})
    return rules(folder, "datasets: [{ids: lits}]")


def outputs(folder):
    return [(folder / name).read_bytes() for name in OUTPUTS]


def forget(folder):
    for name in ("cohort.csv", "grouping.json", "cohort.facts.jsonl"):
        (folder / name).unlink()
    shutil.rmtree(folder / "cohort-labels")


def test_a_run_goes_on_where_it_was_and_what_has_changed_is_measured_anew(tmp_path):
    path = many(tmp_path, 6)
    group(tmp_path, groups=path)
    whole, facts = outputs(tmp_path), tmp_path / "cohort.facts.jsonl"
    lines = facts.read_text(encoding="utf-8").splitlines(keepends=True)
    third = [number for number, line in enumerate(lines) if '"key"' in line][2]
    facts.write_text("".join(lines[:third]) + lines[third][:40], encoding="utf-8")  # by a kill
    (tmp_path / "cohort.csv").unlink()
    group(tmp_path, groups=path)
    assert outputs(tmp_path) == whole
    again = [
        json.loads(line)["case"] for line in facts.read_text().splitlines() if '"usable"' in line
    ]
    assert sorted(again) == sorted(f"case_{number:03d}" for number in range(6))
    # another label, or a mapped file that is gone
    label_map(tmp_path / "labels" / "case_001.nii.gz", {2})
    (tmp_path / "cohort-labels" / "case_000.nii.gz").unlink()
    group(tmp_path, groups=path)
    assert list(report(tmp_path)[1]["case_001"]["sources"]["label"]["extents"]) == ["14"]
    assert (tmp_path / "cohort-labels" / "case_000.nii.gz").exists()
    # another meaning of the ids
    group(tmp_path, groups=rules(tmp_path, "datasets: [{ids: {1: spleen, 2: tumor}}]"))
    assert list(report(tmp_path)[1]["case_000"]["sources"]["label"]["extents"]) == ["3"]


def test_a_killed_run_leaves_what_the_next_one_completes_to_the_same_bytes(tmp_path):
    path = many(tmp_path, 60)
    group(tmp_path, groups=path)
    whole = outputs(tmp_path)
    forget(tmp_path)
    words = ["group-data", "--images", "images", "--labels", "labels", "--groups", "groups.yaml"]
    command = [sys.executable, "-m", "flarekd", *words, "--out", "cohort.csv"]
    facts = tmp_path / "cohort.facts.jsonl"
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
    while not (facts.exists() and '"usable"' in facts.read_text()) and process.poll() is None:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "cohort.csv").exists()
    assert 0 < facts.read_text().count('"usable"') < 60
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert outputs(tmp_path) == whole


def test_a_cohort_in_a_spreadsheet_has_the_evidence_in_its_note(tmp_path):
    case(tmp_path, "case_b", GROUPS[6])
    label_map(tmp_path / "organPseudo" / "case_b.nii.gz", {9})
    group(tmp_path, organ_pseudo=True)
    with (tmp_path / "cohort.csv").open(encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert row["note"] == ("gallbladder not annotated: the organ pseudo-label shows 0.034 ml of it")


def test_cases_that_a_person_dropped_or_wants_mended_are_left_out(tmp_path, capsys):
    for name in ("case_a", "case_b", "case_c"):
        case(tmp_path, name, GROUPS[4])
    review = tmp_path / "review.csv"
    review.write_text("case,decision\ncase_a,drop\ncase_b,fix\ncase_c,keep\n", encoding="utf-8")
    group(tmp_path, review=review)
    assert [entry.case for entry in read_cohort(tmp_path / "cohort.csv")] == ["case_c"]
    told = capsys.readouterr().err
    assert "the review leaves out 2 cases; to be mended: case_b" in told
    review.write_text("case,decision\ncase_a,drop\ncase_b,fix\ncase_c,drop\n", encoding="utf-8")
    with pytest.raises(InputError, match="leaves out every case"):
        group(tmp_path, review=review)
