import pytest

from flarekd.layout import Layout


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_a_case_is_called_as_its_folder(tmp_path):
    touch(tmp_path, "b/imaging.nii.gz", "a/imaging.nii.gz", "a/segmentation.nii.gz", "c/d/x.nii.gz")
    found = Layout("{case}/imaging.nii.gz").find(tmp_path)
    assert list(found.items()) == [
        ("a", tmp_path / "a" / "imaging.nii.gz"),
        ("b", tmp_path / "b" / "imaging.nii.gz"),
    ]


def test_masks_are_called_as_their_files(tmp_path):
    touch(tmp_path, "set/s1/segmentations/liver.nii.gz", "set/s1/segmentations/colon.nii.gz")
    layout = Layout("set/{case}/segmentations/{label}.nii.gz")
    assert layout.has_masks
    folder = tmp_path / "set" / "s1" / "segmentations"
    assert layout.find_masks(tmp_path) == {
        "s1": {"colon": folder / "colon.nii.gz", "liver": folder / "liver.nii.gz"}
    }


def test_a_hole_that_stands_there_twice_means_the_same_twice(tmp_path):
    touch(tmp_path, "a/a_ct.nii.gz", "a/b_ct.nii.gz")
    assert list(Layout("{case}/{case}_ct.nii.gz").find(tmp_path)) == ["a"]


def test_names_with_a_dot_before_them_and_letters_that_globs_know_are_taken_as_they_are(tmp_path):
    touch(tmp_path, "[a]/x/ct.nii.gz", "[a]/.y/ct.nii.gz", "a/z/ct.nii.gz", "[a]/v/._ct.nii.gz")
    assert list(Layout("[a]/{case}/ct.nii.gz").find(tmp_path)) == ["x"]


@pytest.mark.parametrize(
    "text", ["imaging.nii.gz", "{cse}/a.nii.gz", "{case}/{lab}.nii.gz", "/a/{case}", "../{case}/a"]
)
def test_what_is_no_layout_is_refused(text):
    with pytest.raises(ValueError, match="must"):
        Layout(text)
