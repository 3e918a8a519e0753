"""`group_data` of nnU-Net's raw folders: what dataset.json says, ignore labels, channels."""

import json

import numpy as np
import pytest

from flarekd.cohort import read_cohort
from flarekd.errors import CasesFailedError, InputError
from flarekd.imaging.files import read_labels, write_labels, write_volume
from flarekd.imaging.volume import Geometry, LabelMap, Volume
from flarekd.stages.group_data import Folders, group_data

GEOMETRY = Geometry((28, 24, 12), (0.75, 1.25, 3.0), (-31.0, 45.5, 112.0))
SHAPE = GEOMETRY.shape_zyx

pytestmark = pytest.mark.usefixtures("one_processor")


class Raw:
    """A raw folder with cases of one row of voxels an id."""

    def __init__(self, path):
        self.path = path

    def add(self, name, ids, channels=1):
        noise = np.random.default_rng(0).normal(0, 50, SHAPE)
        for channel in range(channels):
            path = self.path / "imagesTr" / f"{name}_{channel:04d}.nii.gz"
            write_volume(path, Volume(noise.astype(np.int16), GEOMETRY))
        array = np.zeros(SHAPE, np.uint8)
        for row, label in enumerate(ids):
            array[2:4, row + 1, 3:9] = label
        write_labels(self.path / "labelsTr" / f"{name}.nii.gz", LabelMap(array, GEOMETRY))

    def say(self, **content):
        text = json.dumps(content)
        (self.path / "dataset.json").write_text(text, encoding="utf-8")

    def group(self, groups=""):
        rules = None
        if groups:
            rules = self.path / "groups.yaml"
            rules.write_text(groups, encoding="utf-8")
        table = self.path / "cohort.csv"
        folders = Folders(self.path / "imagesTr", self.path / "labelsTr")
        group_data(folders, table, groups=rules)
        return {case.case: case for case in read_cohort(table)}


@pytest.fixture
def raw(tmp_path):
    return Raw(tmp_path)


LABELS = {"background": 0, "spleen": 1, "cancer": 2, "ignore": 3}


def test_a_dataset_json_beside_the_scans_is_used_and_said(raw, capsys):
    raw.add("a", [1, 2])
    raw.say(labels=LABELS, name="Ours")
    (case,) = raw.group().values()
    assert case.annotated == {3, 14}
    assert set(np.unique(read_labels(case.label).array)) == {0, 3, 14}
    assert "dataset.json says what the ids of the label files are (Ours)" in capsys.readouterr().err


def test_a_dataset_json_of_our_own_ids_changes_nothing(raw, capsys):
    raw.add("a", [1])
    raw.say(labels={"background": 0, "liver": 1, "right_kidney": 2})
    (case,) = raw.group().values()
    assert (case.annotated, case.label.parent.name) == ({1}, "labelsTr")
    assert "dataset.json" not in capsys.readouterr().err


def test_what_groups_yaml_says_goes_before_a_dataset_json_that_lies_there(raw):
    raw.add("a", [1, 2])
    raw.say(labels=LABELS)
    (case,) = raw.group("datasets: [{ids: lits}]").values()
    assert case.annotated == {1, 14}
    (case,) = raw.group("datasets: [{ids: flare}]").values()
    assert case.annotated == {1, 2}


@pytest.mark.parametrize("content", ["", "[1]", "{}", '{"name": "x"}'])
def test_a_file_of_that_name_that_says_nothing_is_passed_over(raw, content):
    raw.add("a", [1])
    (raw.path / "dataset.json").write_text(content, encoding="utf-8")
    assert raw.group()["a"].annotated == {1}


def test_a_dataset_json_that_is_not_understood_is_refused_and_says_how_to_go_on(raw, capsys):
    raw.add("a", [1, 2])
    raw.say(labels={"background": 0, "spleen": 1, "femur": 2})
    with pytest.raises(InputError, match=r"'femur' is none of.*others: background"):
        raw.group()
    (case,) = raw.group("datasets: [{ids: dataset.json, others: background}]").values()
    assert case.annotated == {3}
    assert set(np.unique(read_labels(case.label).array)) == {0, 3}
    assert "1 other name, taken as background: femur" in capsys.readouterr().err  # a slip is seen


def test_voxels_that_nobody_annotated_are_left_open(raw):
    raw.add("a", [1, 3])
    raw.say(labels=LABELS)
    (case,) = raw.group().values()
    assert case.annotated == {3, 14}
    assert set(np.unique(read_labels(case.label).array)) == {0, 3, 255}
    (found,) = json.loads((raw.path / "grouping.json").read_text(encoding="utf-8"))["cases"]
    label = found["sources"]["label"]
    assert (label["left_open"], list(label["extents"])) == (24 // 2, ["3"])


def test_255_without_a_word_on_it_is_no_label(raw):
    raw.add("a", [1, 255])
    with pytest.raises(CasesFailedError, match=r"label ids \[255\] are not among 1\.\.14"):
        raw.group()


def test_others_are_background_where_it_is_said_and_refused_where_not(raw):
    raw.add("a", [1, 9])
    with pytest.raises(CasesFailedError, match=r"ids \[9\] are not among those of 'own'"):
        raw.group("datasets: [{ids: {1: spleen}}]")
    (case,) = raw.group("datasets: [{ids: {1: spleen}, others: background}]").values()
    assert set(np.unique(read_labels(case.label).array)) == {0, 3}
    with pytest.raises(InputError, match="'splen' is none of"):  # a slip is no other class
        raw.group("datasets: [{ids: {1: splen}, others: background}]")


def test_the_first_of_several_channels_is_taken_and_said(raw, capsys):
    for name in ("a", "b"):
        raw.add(name, [1], channels=2)
    raw.say(labels={"background": 0, "liver": 1}, channel_names={"0": "CT", "1": "PET"})
    cases = raw.group()
    assert [case.image.name for case in cases.values()] == ["a_0000.nii.gz", "b_0000.nii.gz"]
    told = capsys.readouterr().err
    assert "2 files of further channels (PET) are left out, such as 'a_0001'" in told


def test_channels_that_nobody_named_are_refused(raw):
    for name in ("a", "b"):
        raw.add(name, [1], channels=2)
    with pytest.raises(InputError, match="'a_0001' lies beside a_0000: are these further"):
        raw.group()


def test_a_first_channel_that_is_not_the_ct_is_refused(raw):
    raw.add("a", [1], channels=2)
    raw.say(labels={"background": 0, "liver": 1}, modality={"0": "PET", "1": "CT"})
    with pytest.raises(InputError, match="the first channel is 'PET', and CT is another"):
        raw.group()


def test_scans_numbered_from_0000_on_are_no_channels(raw):
    raw.add("case", [1], channels=3)
    assert list(raw.group()) == ["case", "case_0001", "case_0002"]
