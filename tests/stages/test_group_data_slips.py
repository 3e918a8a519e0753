"""`group_data` where a person slips: names and patterns that fit nothing, edits."""

import numpy as np
import pytest

from flarekd.cohort import read_cohort
from flarekd.errors import CasesFailedError, InputError
from flarekd.imaging.files import write_labels, write_volume
from flarekd.imaging.volume import Geometry, LabelMap, Volume
from flarekd.stages.group_data import Folders, group_data

GEOMETRY = Geometry((28, 24, 12), (0.75, 1.25, 3.0))

pytestmark = pytest.mark.usefixtures("one_processor")


class Data:
    """A folder of scans and label files."""

    def __init__(self, path):
        self.path = path
        self.table = path / "cohort.csv"

    def add(self, name, ids=None, label=None):
        noise = np.random.default_rng(0).normal(0, 50, GEOMETRY.shape_zyx)
        scan = Volume(noise.astype(np.int16), GEOMETRY)
        write_volume(self.path / "images" / f"{name}_0000.nii.gz", scan)
        if ids is not None:
            array = np.zeros(GEOMETRY.shape_zyx, np.uint8)
            for row, one in enumerate(ids):
                array[2:4, row + 1, 3:9] = one
            write_labels(
                self.path / "labels" / f"{label or name}.nii.gz", LabelMap(array, GEOMETRY)
            )

    def group(self, groups=None, table=None, **options):
        path, table = None, table or self.table
        if groups:
            path = self.path / "groups.yaml"
            path.write_text(groups, encoding="utf-8")
        folders = Folders(self.path / "images", self.path / "labels")
        group_data(folders, table, groups=path, **options)
        return {case.case: case for case in read_cohort(table)}

    def bytes(self):
        """Every file by its name."""
        return {path: path.read_bytes() for path in self.path.rglob("*") if path.is_file()}


@pytest.fixture
def data(tmp_path):
    return Data(tmp_path)


def test_a_pattern_that_fits_no_case_is_refused_before_ids_are_read_wrongly(data):
    data.add("case_00000", [1, 2])
    data.add("case_00001", [1, 2])
    with pytest.raises(InputError, match=r"no case for 'kits_\*'.*there are case_00000"):
        data.group('datasets: [{cases: "kits_*", ids: kits23}, {organ_pseudo: totalsegmentator}]')
    assert not data.table.exists()
    found = data.group('datasets: [{cases: "case_*", ids: kits23}, {ids: lits}]')
    assert found["case_00000"].annotated == {2, 13, 14}


def test_label_files_of_which_none_has_the_name_of_a_scan_are_refused(data):
    data.add("volume-0", [1], label="segmentation-0")
    data.add("volume-1", [1], label="segmentation-1")
    with pytest.raises(InputError, match="'segmentation-0' and the scan 'volume-0'"):
        data.group()
    assert not data.table.exists()


@pytest.mark.parametrize("ids", ["flare", "{1: liver, 3: spleen, 4: pancreas}"])
def test_a_partly_annotated_data_set_vouches_for_what_each_file_holds(data, ids):
    data.add("a", [1, 3])
    data.add("b", [4])
    more = "" if ids == "flare" else ", annotated: present"
    found = data.group(f"datasets: [{{ids: {ids}{more}}}]")
    assert (found["a"].annotated, found["b"].annotated) == ({1, 3}, {4})


def test_a_data_set_that_vouches_for_what_few_files_hold_is_told(data, capsys):
    for number in range(4):
        data.add(f"case_{number}", [1, 3] if number else [1, 3, 4])
    found = data.group("datasets: [{ids: {1: liver, 3: spleen, 4: pancreas}}]")
    assert found["case_1"].annotated == {1, 3, 4}
    told = " ".join(capsys.readouterr().err.split())
    assert "counts as annotated with pancreas in all 4 cases, of which 1 hold it" in told
    data.group("datasets: [{ids: {1: liver, 3: spleen, 4: pancreas}, annotated: present}]")
    assert "counts as annotated" not in capsys.readouterr().err


def test_what_a_person_changed_in_the_table_outlives_a_re_run(data, capsys):
    for name in "abc":
        data.add(name, [1, 2, 3, 4])
    data.group()
    text = data.table.read_text(encoding="utf-8")
    rows = text.splitlines()
    assert rows[1].startswith("a,train,")
    assert rows[2].startswith("b,train,")
    rows[1] = rows[1].replace("1 2 3 4", "1 2", 1)
    rows[2] = rows[2].replace("train", "val", 1)
    data.table.write_text("\n".join(rows) + "\n", encoding="utf-8")
    data.add("d", [1, 2, 3, 4])
    capsys.readouterr()
    for _ in range(2):  # and the re-run of a re-run
        found = data.group()
        assert found["a"].annotated == {1, 2}
        assert (found["b"].split, found["c"].split) == ("val", "train")
        assert found["c"].annotated == found["d"].annotated == {1, 2, 3, 4}
        told = " ".join(capsys.readouterr().err.split())
        assert "annotated and split of 2 cases, such as a" in told
    data.table.unlink()
    assert data.group()["a"].annotated == {1, 2, 3, 4}
    assert data.table.read_text(encoding="utf-8").startswith(text.splitlines()[0])


def test_a_table_that_was_written_and_its_evidence_not_yet_is_no_persons_edit(data, capsys):
    for name in "ab":
        data.add(name, [1, 2, 3, 4])
    data.group()
    old = (data.path / "grouping.json").read_bytes()
    data.add("a", [1, 2, 3, 4, 13])
    data.group()
    (data.path / "grouping.json").write_bytes(old)  # as if it was killed between the two
    capsys.readouterr()
    assert data.group()["a"].annotated == {1, 2, 3, 4, 13}
    assert "a person changed" not in capsys.readouterr().err


def test_a_link_that_leads_nowhere_fails_its_case_alone(data):
    data.add("a", [1, 2, 3, 4])
    data.add("b", [1, 2, 3, 4])
    (data.path / "images" / "gone.nii.gz").symlink_to(data.path / "nowhere.nii.gz")
    (data.path / "labels" / "b.nii.gz").unlink()
    (data.path / "labels" / "b.nii.gz").symlink_to("b.nii.gz")
    said = r"2 cases left out: b: .*Too many levels of symbolic links.*gone: .*gone.nii.gz"
    with pytest.raises(CasesFailedError, match=said):
        data.group()
    assert [case.case for case in read_cohort(data.table)] == ["a"]


KITS = "datasets: [{ids: kits23}]"


@pytest.mark.parametrize(
    ("folder", "table", "groups"),
    [
        ("labels", "labels/cohort.csv", None),
        ("cohort-labels", "cohort.csv", KITS),  # where label files in other ids would go
        ("cohort-labels", "cohort.csv", None),
    ],
)
def test_the_folder_of_label_files_that_were_given_is_no_place_for_results(
    data, folder, table, groups
):
    data.add("a", [1, 2])
    labels = data.path / folder
    if folder != "labels":
        (data.path / "labels").rename(labels)
    before = data.bytes()
    folders = Folders(data.path / "images", labels)
    path = data.path / "groups.yaml"
    path.write_text(groups or "datasets: []", encoding="utf-8")
    with pytest.raises(InputError, match=rf"{folder}' holds the label files that were given"):
        group_data(folders, data.path / table, groups=path)
    path.unlink()
    assert data.bytes() == before


@pytest.mark.parametrize("place", ["cohort-labels/a.nii.gz", "cohort.csv"])
def test_files_that_no_run_wrote_are_never_replaced(data, place):
    data.add("a", [1, 2])
    own = data.path / place
    own.parent.mkdir(exist_ok=True)
    own.write_text("case,image\na,mine.nii.gz\n", encoding="utf-8")
    before = data.bytes()
    with pytest.raises(InputError, match=rf"no run .*recorded 1 file .*{place}"):
        data.group(KITS)
    assert before.items() <= data.bytes().items()
    own.unlink()
    assert data.group(KITS)["a"].annotated == {2, 13, 14}
    data.add("b", [1, 2])
    assert sorted(data.group(KITS)) == ["a", "b"]
    (data.path / "cohort.facts.jsonl").unlink()  # to have all measured again
    assert sorted(data.group(KITS)) == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "rows", "forgets"),
    [
        ("small.csv", "a,mine.nii.gz\n", []),
        ("cohort.csv", "a,mine.nii.gz\nb,mine.nii.gz\n", ["cohort.facts.jsonl"]),
    ],
)
def test_a_table_of_a_person_is_not_replaced_where_another_was_grouped(data, name, rows, forgets):
    data.add("a", [1, 2])
    data.group()
    for one in forgets:
        (data.path / one).unlink()
    own = data.path / name
    own.write_text(f"case,image\n{rows}", encoding="utf-8")
    before = data.bytes()
    folders = Folders(data.path / "images", data.path / "labels")
    with pytest.raises(InputError, match=rf"no run .*recorded 1 file .*{name}"):
        group_data(folders, own)
    assert data.bytes() == before


def test_a_table_of_an_earlier_run_is_told_and_kept_where_no_case_can_be_used(data):
    data.add("a", [1, 2, 3, 4])
    data.group()
    edited = data.table.read_text(encoding="utf-8").replace("train", "val")
    data.table.write_text(edited, encoding="utf-8")
    label = data.path / "labels" / "a.nii.gz"
    whole = label.read_bytes()
    label.write_bytes(whole[:-60])
    said = r"no case is left, '.*cohort\.csv' is of an earlier run and stays as it was: 1 case"
    with pytest.raises(InputError, match=said) as caught:
        data.group()
    assert caught.value.exit_code == 3
    assert data.table.read_text(encoding="utf-8") == edited
    label.write_bytes(whole)
    assert data.group()["a"].split == "val"
