"""What `check` finds in folders: names, links, permissions, cohort.csv, and where copies go."""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from tests.end_to_end.command import flarekd
from tests.imaging.bad_inputs import ct, labelled, nifti, organs, shifted
from tests.imaging.dicom_series import write_series

from flarekd.cohort import read_cohort
from flarekd.errors import CasesFailedError, InputError, UsageError, counted
from flarekd.imaging.files import list_scans, read_labels, read_volume, write_labels
from flarekd.imaging.volume import Geometry, LabelMap
from flarekd.lock import NAME
from flarekd.stages.check import check
from flarekd.stages.infer import find_scans

pytestmark = pytest.mark.usefixtures("one_processor")


def found(capsys):
    lines = capsys.readouterr().out.splitlines()[1:]
    return [tuple(line.split(maxsplit=1)) for line in lines]


def scans(folder, *names):
    for name in names:
        nifti(name)(folder)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a.nii.gz", "a_0000.nii.gz"], "a.nii.gz and a_0000.nii.gz are both case 'a'"),
        (["Case.nii.gz", "case.nii"], "Case.nii.gz and case.nii are one name on many disks"),
        (["e\u0301.nii.gz", "\u00e9.nii.gz"], "are one name on many disks"),
        (["two\nlines.nii.gz"], r"name 'two\\nlines.nii.gz' holds '\\n'"),
        (["bell\x07.nii"], r"holds '\\x07'"),
        (["=1+1.nii.gz"], "begins with '=', as a formula or an option does"),
        (["a" * 230 + ".nii.gz"], "is longer than 200 bytes"),
        ([os.fsdecode(b"latin-\xe9.nii")], "is not UTF-8"),
    ],
)
def test_names_that_cannot_be_case_ids_are_refused_by_every_verb(tmp_path, capsys, names, said):
    scans(tmp_path / "in", *names)
    with pytest.raises(InputError) as error:
        list_scans(tmp_path / "in")
    assert re.search(said, str(error.value))
    with pytest.raises(InputError):
        find_scans([tmp_path / "in" / name for name in names])
    with pytest.raises(CasesFailedError, match=r"^1 of"):
        check([tmp_path / "in"])
    shown = capsys.readouterr()
    (finding,) = shown.out.splitlines()[1:]
    assert finding.startswith("refused")
    assert re.search(said, finding)
    # what is in them is sound: it is the name that nothing can be done with
    fine = "1 fine, " if len(names) > 1 else ""
    assert f"{counted(names, 'file')}: {fine}1 refused" in shown.err


def test_two_runs_do_not_repair_into_one_folder(tmp_path):
    fcntl = pytest.importorskip("fcntl")
    (tmp_path / "scans").mkdir()
    nifti("a_0000.nii.gz")(tmp_path / "scans")
    (tmp_path / "fixed").mkdir()
    with (tmp_path / "fixed" / NAME).open("w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="another process is writing to"):
            check([tmp_path / "scans"], fix=tmp_path / "fixed")
    check([tmp_path / "scans"], fix=tmp_path / "fixed")
    assert not (tmp_path / "fixed" / NAME).exists()


def test_names_with_spaces_accents_and_dots_are_fine(tmp_path, capsys):
    names = ["Fall Müller 3.nii.gz", "患者.nii", "a..b.nii.gz"]
    scans(tmp_path, *names)
    check([tmp_path])
    assert found(capsys) == []
    assert list(list_scans(tmp_path)) == ["Fall Müller 3", "a..b", "患者"]


def test_names_that_begin_with_a_dot_are_passed_over_or_refused_where_they_are_given(tmp_path):
    scans(tmp_path, "a.nii.gz", "...nii.gz")
    assert list(list_scans(tmp_path)) == ["a"]
    with pytest.raises(InputError, match="begins with a dot"):
        find_scans([tmp_path / "...nii.gz"])


@pytest.mark.parametrize("case", ["..", "../up", "a/b", "a\\b", ".hidden"])
def test_a_case_in_cohort_csv_cannot_lead_out_of_a_folder(tmp_path, capsys, case):
    (tmp_path / "cohort.csv").write_text(f"case,image\n{case},a.nii.gz\n", encoding="utf-8")
    with pytest.raises(InputError, match="cannot be a file name"):
        read_cohort(tmp_path / "cohort.csv")
    with pytest.raises(CasesFailedError):
        check([tmp_path / "cohort.csv"])
    assert "cannot be a file name" in found(capsys)[0][1]


def test_links_in_a_circle_are_told_and_not_followed(tmp_path, capsys):
    scans(tmp_path / "in", "a.nii.gz")
    (tmp_path / "in" / "deeper").mkdir()
    (tmp_path / "in" / "deeper" / "up").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "itself").symlink_to(tmp_path / "in" / "itself")
    (tmp_path / "in" / "b.nii.gz").symlink_to(tmp_path / "in" / "b.nii.gz")
    (tmp_path / "in" / "c.nii.gz").symlink_to(tmp_path / "gone")
    with pytest.raises(CasesFailedError, match=r"^3 of"):
        check([tmp_path / "in"])
    told = dict(text.split(": ", 1) for _, text in found(capsys))
    told = {Path(name).relative_to(tmp_path / "in").as_posix(): text for name, text in told.items()}
    assert told["deeper/up"].startswith("a link to a folder that holds it: a circle")
    assert told["itself"].startswith("a link that leads nowhere or to itself")
    assert told["b.nii.gz"].startswith("cannot be read: Too many levels of symbolic links")
    assert told["c.nii.gz"].startswith("a link that leads nowhere")
    assert len(told) == 4
    for name in "bc":
        with pytest.raises(InputError):
            read_volume(tmp_path / "in" / f"{name}.nii.gz")


@contextmanager
def nobody():
    """As a user who may read nothing of ours: root may read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def open_folder():
    """A folder that everybody may enter; pytest's own are ours alone."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    for path in folder.rglob("*"):
        path.chmod(0o755)
    shutil.rmtree(folder)


def test_what_may_not_be_read_is_refused_and_the_rest_is_looked_at(open_folder, capsys):
    scans(open_folder, "good/a.nii.gz", "good/b.nii.gz", "closed/c.nii.gz")
    (open_folder / "good" / "b.nii.gz").chmod(0)
    (open_folder / "closed").chmod(0)
    with nobody():
        with pytest.raises(InputError, match=r"closed.*cannot be read: Permission denied"):
            list_scans(open_folder / "closed")
        with pytest.raises(InputError, match=r"b\.nii\.gz: cannot be read: Permission denied"):
            read_volume(open_folder / "good" / "b.nii.gz")
        with pytest.raises(CasesFailedError, match=r"^2 of"):
            check([open_folder])
    told = [text for _, text in found(capsys)]
    assert [Path(text.split(":")[0]).name for text in told] == ["closed", "b.nii.gz"]


def test_copies_that_may_not_be_written_fail_with_a_message(open_folder, capsys):
    nifti("in/a.nii.gz", dim=[4, 20, 18, 12, 1, 1, 1, 1])(open_folder)
    (open_folder / "out").mkdir()
    (open_folder / "out").chmod(0o555)
    with nobody(), pytest.raises(InputError, match="cannot be made: Permission denied"):
        check([open_folder / "in"], fix=open_folder / "out" / "repaired")
    assert list((open_folder / "out").iterdir()) == []
    (open_folder / "out" / "in").mkdir(mode=0o555)
    (open_folder / "out").chmod(0o777)
    with nobody(), pytest.raises(CasesFailedError, match=r"^1 of"):
        check([open_folder / "in"], fix=open_folder / "out")
    assert "a.nii.gz: cannot be written: Permission denied" in dict(found(capsys))["refused"]
    assert list((open_folder / "out" / "in").iterdir()) == []


@pytest.mark.parametrize("suffix", ["nii.gz", "nii", "mha", "nrrd"])
def test_a_full_disk_leaves_no_half_file(tmp_path, suffix):
    """A limit on the size of files fails as a full disk does: in the middle of writing."""
    noise = np.random.default_rng(0).integers(0, 255, (40, 50, 60)).astype(np.uint8)
    labels = LabelMap(noise, Geometry((60, 50, 40), (1.0, 1.0, 1.0)))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(InputError, match="cannot be written"):
            write_labels(tmp_path / f"a.{suffix}", labels)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("suffix", ["nii.gz", "mha", "nrrd"])
def test_a_disk_without_room_leaves_no_half_file(tmp_path, suffix):
    (tmp_path / "small").mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=32k", "tmpfs", str(tmp_path / "small")]
    if (
        shutil.which("mount") is None
        or subprocess.run(mount, capture_output=True, check=False).returncode
    ):
        pytest.skip("may not mount a small tmpfs")
    try:
        noise = np.random.default_rng(0).integers(0, 255, (40, 50, 60)).astype(np.uint8)
        labels = LabelMap(noise, Geometry((60, 50, 40), (1.0, 1.0, 1.0)))
        with pytest.raises(InputError, match="cannot be written"):
            write_labels(tmp_path / "small" / f"a.{suffix}", labels)
        assert list((tmp_path / "small").iterdir()) == []
        (tmp_path / "small" / "ballast").write_bytes(bytes(32 * 1024))
        tiny = LabelMap(noise[:4, :4, :4], Geometry((4, 4, 4), (1.0, 1.0, 1.0)))
        with pytest.raises(InputError, match="cannot be written"):
            write_labels(tmp_path / "small" / f"a.{suffix}", tiny)  # ITK finds nothing amiss
        assert [path.name for path in (tmp_path / "small").iterdir()] == ["ballast"]
    finally:
        subprocess.run(["umount", str(tmp_path / "small")], check=True)


def test_a_cohort_is_looked_through_with_labels_against_their_scans(tmp_path, capsys):
    scans(tmp_path / "c", "imagesTr/a_0000.nii.gz", "imagesUnlabeled/u_0000.nii.gz")
    write_series(tmp_path / "c" / "dicom" / "d", ct(), column=np.array([0.0, 1.0, 0.0]))
    nifti("labelsTr/a.nii.gz", organs)(tmp_path / "c")
    nifti("organPseudo/u.nii.gz", lambda: organs()[:-1])(tmp_path / "c")
    (tmp_path / "c" / "notes.txt").write_text("not ours", encoding="utf-8")
    with pytest.raises(CasesFailedError, match=r"^1 of"):
        check([tmp_path / "c"])
    shown = capsys.readouterr()
    (finding,) = shown.out.splitlines()[1:]
    assert "organPseudo/u.nii.gz: label and image do not match: 20×18×11 voxels" in finding
    assert "5 files: 4 fine, 1 refused" in shown.err


def test_cohort_csv_says_which_scan_a_label_map_belongs_to(tmp_path, capsys):
    scans(tmp_path, "x/one.nii.gz", "y/two.nii.gz")
    nifti("z/three.nii.gz", lambda: organs()[:-1])(tmp_path)
    rows = ["case,image,label", "one,x/one.nii.gz,z/three.nii.gz", "gone,x/none.nii.gz,"]
    (tmp_path / "cohort.csv").write_text("\n".join(rows), encoding="utf-8")
    with pytest.raises(CasesFailedError, match=r"^2 of"):
        check([tmp_path])
    told = [text for _, text in found(capsys)]
    assert "none.nii.gz: no such file" in told[0]
    assert "three.nii.gz: label and image do not match" in told[1]


def test_a_segmentation_in_its_cases_folder_is_a_label_map_of_the_scan_beside_it(tmp_path, capsys):
    scans(tmp_path / "kits" / "case_1", "imaging.nii.gz")
    nifti("segmentation.nii.gz", lambda: organs()[:-1])(tmp_path / "kits" / "case_1")
    scans(tmp_path / "flat", "mask.nii.gz")  # alone it is a scan: anything may be called so
    with pytest.raises(CasesFailedError, match=r"^1 of"):
        check([tmp_path / "kits", tmp_path / "flat"])
    (finding,) = found(capsys)
    assert "case_1/segmentation.nii.gz: label and image do not match: 20×18×11" in finding[1]


def test_further_channels_are_told_and_refused_where_nothing_says_what_they_are(tmp_path, capsys):
    images = tmp_path / "imagesTr"
    scans(images, "a_0000.nii.gz", "a_0001.nii.gz", "b_0000.nii.gz", "b_0001.nii.gz")
    with pytest.raises(CasesFailedError, match=r"^1 of"):
        check([tmp_path])
    assert "are these further channels? flarekd takes one CT a case" in found(capsys)[0][1]
    told = '{"channel_names": {"0": "CT", "1": "PET"}}'
    (tmp_path / "dataset.json").write_text(told, encoding="utf-8")
    check([tmp_path])
    shown = capsys.readouterr()
    assert "doubtful" in shown.out
    assert "2 files of further channels (PET) are left out" in shown.out
    assert "2 files: 2 fine" in shown.err


def test_labels_are_paired_by_case(tmp_path, capsys):
    shifted(5)(tmp_path)
    with pytest.raises(CasesFailedError):
        check([tmp_path / "images"], labels=tmp_path / "labels")
    assert "5.00 mm off" in found(capsys)[0][1]


def test_copies_never_go_where_the_files_are(tmp_path):
    path = labelled(organs)(tmp_path)
    for given, fix in ((tmp_path, tmp_path / "repaired"), (path.parent, path.parents[1])):
        with pytest.raises(UsageError, match="would lie in"):
            check([given], fix=fix)
    with pytest.raises(UsageError, match="would replace"):
        check([path], fix=path.parent)
    scans(tmp_path, "x/a.nii.gz", "y/a.nii.gz")
    with pytest.raises(UsageError, match="would have one name"):
        check([tmp_path / "x" / "a.nii.gz", tmp_path / "y" / "a.nii.gz"], fix=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_dicom_folder_and_a_pair_are_repaired_as_nifti(tmp_path):
    write_series(tmp_path / "in" / "d_0000", ct(), column=np.array([0.0, 1.0, 0.0]))
    path = min((tmp_path / "in" / "d_0000").iterdir())
    path.with_name("copy").write_bytes(path.read_bytes())
    check([tmp_path / "in"], fix=tmp_path / "out")
    copy = tmp_path / "out" / "in" / "d.nii.gz"
    np.testing.assert_array_equal(read_volume(copy).array, ct())
    assert read_volume(copy).notes == ()


def test_no_copy_is_written_that_would_hide_a_doubt(tmp_path, capsys):
    """A copy says its orientation; where the file does not, that would be a lie."""
    turned = {"dim": [4, 20, 18, 12, 1, 1, 1, 1], "sform_code": 0, "qform_code": 0}
    nifti("in/a.nii.gz", **turned)(tmp_path)
    nifti("in/few.nii.gz", lambda: ct((3, 18, 20)), dim=[4, 20, 18, 3, 1, 1, 1, 1])(tmp_path)
    check([tmp_path / "in"], fix=tmp_path / "out")
    assert [severity for severity, _ in found(capsys)] == ["doubtful", "mended"] * 2
    # that there are few slices is still seen
    assert [path.name for path in (tmp_path / "out" / "in").iterdir()] == ["few.nii.gz"]


def test_the_command_ends_as_its_findings_say(tmp_path):
    scans(tmp_path / "in", "a.nii.gz")
    assert flarekd("check", tmp_path / "in").stdout == ""
    nifti("b.nii.gz", lambda: organs() * np.uint8(17), sform_code=0)(tmp_path / "in")
    (tmp_path / "in" / "c.nii.gz").write_bytes(b"")
    done = flarekd("check", tmp_path / "in", "--fix", tmp_path / "out", check=False)
    assert done.returncode == 4
    assert "c.nii.gz: the file is empty" in done.stdout
    assert "doubtful" in done.stdout
    assert "3 files: 1 fine, 1 doubtful, 1 refused" in done.stderr
    (tmp_path / "empty").mkdir()
    done = flarekd("check", tmp_path / "empty", check=False)
    assert done.returncode == 3
    assert "nothing to open" in done.stderr
    assert flarekd("check", tmp_path / "gone", check=False).returncode == 3
    assert read_labels(tmp_path / "in" / "b.nii.gz").array.max() == 14 * 17


def test_no_repaired_copy_goes_through_a_link_onto_what_was_given(tmp_path):
    scans(tmp_path / "in", "a.nii.gz")
    (tmp_path / "fixed").mkdir()
    before = (tmp_path / "in" / "a.nii.gz").read_bytes()
    (tmp_path / "fixed" / "in").symlink_to(tmp_path / "in")
    (tmp_path / "fixed" / "a.nii.gz").symlink_to(tmp_path / "in" / "a.nii.gz")
    with pytest.raises(UsageError, match=r"would lie in|would replace"):
        check([tmp_path / "in"], fix=tmp_path / "fixed")
    assert (tmp_path / "in" / "a.nii.gz").read_bytes() == before


def slipped(folder, name):
    """A file that gets a repaired copy."""
    nifti(name, dim=[4, 20, 18, 12, 1, 1, 1, 1])(folder)


def copies(fix):
    changes = json.loads((fix / "changes.json").read_text(encoding="utf-8"))
    there = sorted(path.relative_to(fix).as_posix() for path in fix.rglob("*.nii.gz"))
    assert sorted(change["output"] for change in changes) == there
    return there


def test_copies_of_what_is_fine_now_do_not_stay_and_those_of_what_is_gone_are_told(
    tmp_path, capsys
):
    fix = tmp_path / "fixed"
    for name in ("in/a.nii.gz", "in/b.nii.gz", "in/c.nii.gz", "more/d.nii.gz"):
        slipped(tmp_path, name)
    check([tmp_path / "in"], fix=fix)
    check([tmp_path / "more"], fix=fix)  # another folder's copies stay
    assert copies(fix) == ["in/a.nii.gz", "in/b.nii.gz", "in/c.nii.gz", "more/d.nii.gz"]
    (tmp_path / "in" / "a.nii.gz").unlink()
    scans(tmp_path, "in/b.nii.gz")
    (tmp_path / "in" / "c.nii.gz").write_bytes(b"")
    capsys.readouterr()
    with pytest.raises(CasesFailedError):
        check([tmp_path / "in"], fix=fix)
    # the copy may be all that is left
    assert copies(fix) == ["in/a.nii.gz", "in/c.nii.gz", "more/d.nii.gz"]
    told = capsys.readouterr().err.replace("\n", "")
    assert f"in/a.nii.gz is of an earlier run: {tmp_path}/in/a.nii.gz is gone" in told
    assert f"in/c.nii.gz is of an earlier run: {tmp_path}/in/c.nii.gz cannot be used" in told
    assert "d.nii.gz" not in told
    scans(tmp_path, "in/c.nii.gz")
    check([tmp_path / "in" / "c.nii.gz"], fix=fix)
    assert copies(fix) == ["in/a.nii.gz", "more/d.nii.gz"]


def test_a_file_that_check_did_not_write_is_never_replaced_by_a_copy(tmp_path):
    slipped(tmp_path, "in/a.nii.gz")
    own = tmp_path / "fixed" / "in" / "a.nii.gz"
    own.parent.mkdir(parents=True)
    own.write_bytes(b"mine")
    with pytest.raises(InputError, match=r"recorded 1 file .*fixed/in/a\.nii\.gz"):
        check([tmp_path / "in"], fix=tmp_path / "fixed")
    assert own.read_bytes() == b"mine"


def test_copies_that_an_earlier_version_wrote_are_known_by_their_changes(tmp_path):
    fix = tmp_path / "fixed"
    slipped(tmp_path, "in/a.nii.gz")
    check([tmp_path / "in"], fix=fix)
    (fix / "done.jsonl").unlink()
    check([tmp_path / "in"], fix=fix)
    assert copies(fix) == ["in/a.nii.gz"]
    (fix / "done.jsonl").unlink()
    scans(tmp_path, "in/a.nii.gz")
    check([tmp_path / "in"], fix=fix)
    assert copies(fix) == []


def test_a_ledger_that_came_with_data_removes_nothing_outside_its_folder(tmp_path):
    scans(tmp_path, "in/a.nii.gz", "other/b.nii.gz")
    (tmp_path / "fixed").mkdir()
    original = str(tmp_path / "in" / "a.nii.gz")
    places = ("../other/b.nii.gz", str(tmp_path / "other" / "b.nii.gz"), "a\0b.nii", 5)
    lines = [json.dumps({"case": place, "input": original}) for place in places]
    (tmp_path / "fixed" / "done.jsonl").write_text("\n".join(lines), encoding="utf-8")
    changes = [{"output": 5, "input": 6, "changes": ["x"]}]
    (tmp_path / "fixed" / "changes.json").write_text(json.dumps(changes), encoding="utf-8")
    check([tmp_path / "in"], fix=tmp_path / "fixed")
    assert (tmp_path / "other" / "b.nii.gz").exists()


def test_a_copy_that_a_person_changed_is_neither_replaced_nor_removed(tmp_path, capsys):
    fix = tmp_path / "fixed"
    slipped(tmp_path, "in/a.nii.gz")
    check([tmp_path / "in"], fix=fix)
    check([tmp_path / "in"], fix=fix)
    copy = fix / "in" / "a.nii.gz"
    nifti("a.nii.gz", organs)(copy.parent)
    mine = copy.read_bytes()
    with pytest.raises(InputError, match=r"1 file would be replaced .*in/a\.nii\.gz"):
        check([tmp_path / "in"], fix=fix)
    scans(tmp_path, "in/a.nii.gz")  # mended; given alone, its copy has another place
    check([tmp_path / "in" / "a.nii.gz"], fix=fix)
    assert "kept, somebody changed it" in " ".join(capsys.readouterr().err.split())
    assert copy.read_bytes() == mine
