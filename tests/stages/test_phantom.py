import gzip
import json
import struct
import subprocess
import sys
from hashlib import sha256
from math import prod
from pathlib import Path

import numpy as np
import pytest

from flarekd.errors import InputError
from flarekd.imaging.files import read_labels, read_volume
from flarekd.labels import GROUPS
from flarekd.phantom.case import make_case
from flarekd.phantom.plan import plan_cohort
from flarekd.stages.phantom import BYTES_A_VOXEL, WORK, case_files, make_phantoms
from flarekd.workers import BASE

CASES, SEED = 5, 2


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    out = tmp_path_factory.mktemp("cohort")
    make_phantoms(out, CASES, "quick", SEED, 1)
    return out


@pytest.fixture(scope="module")
def plans():
    return plan_cohort(CASES, "quick", SEED)


def digests(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_the_layout_is_flares(cohort, plans):
    files = set(digests(cohort))
    wanted = {"phantom.json", "phantoms.csv"}
    for plan in plans:
        case = plan.case
        wanted |= {
            "labelled": {
                f"imagesTr/{case}_0000.nii.gz", f"labelsTr/{case}.nii.gz",
                f"organPseudo/{case}.nii.gz", f"truth/{case}.nii.gz",
            },
            "unlabelled": {
                f"imagesUnlabeled/{case}_0000.nii.gz", f"organPseudo/{case}.nii.gz",
                f"truth/{case}.nii.gz",
            },
            "val": {f"imagesVal/{case}_0000.nii.gz", f"labelsVal/{case}.nii.gz"},
        }[plan.role]  # fmt: skip
    assert files == wanted
    assert {plan.role for plan in plans} == {"labelled", "unlabelled", "val"}


def test_the_same_seed_gives_the_same_bytes_whatever_the_jobs(
    cohort, tmp_path, monkeypatch, capsys
):
    need = BASE + WORK + BYTES_A_VOXEL * 3_000_000
    monkeypatch.setattr("flarekd.workers.cpu_count", lambda: 4)
    monkeypatch.setattr("flarekd.workers._free", lambda: 2 * need)
    make_phantoms(tmp_path, CASES, "quick", SEED, None)
    assert digests(tmp_path) == digests(cohort)
    assert capsys.readouterr().err.startswith("2 workers, 32")  # MB each


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="elsewhere than on Linux")
def test_a_case_takes_no_more_memory_than_was_planned(plans):
    plan = max(plans, key=lambda one: prod(one.grid().shape))
    code = (
        "from flarekd.phantom.case import make_case\n"
        "from flarekd.phantom.plan import plan_cohort\n"
        "import flarekd.stages.phantom\n"
        f"(plan,) = [p for p in plan_cohort({CASES}, 'quick', {SEED}) if p.case == {plan.case!r}]\n"
        "make_case(plan)\n"
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    planned = BASE + WORK + BYTES_A_VOXEL * prod(plan.grid().shape)
    assert 0.6 * planned < int(done.stdout) << 10 < planned


def test_compressed_files_carry_no_time(cohort):
    for path in cohort.rglob("*.nii.gz"):
        assert struct.unpack("<I", path.read_bytes()[4:8]) == (0,)
        assert len(gzip.decompress(path.read_bytes())) > 352


def test_files_read_back_as_what_was_made_on_one_grid(cohort, plans):
    for plan in plans[:3]:
        case = make_case(plan)
        image_path, *label_paths = case_files(cohort, plan)
        image = read_volume(image_path)
        assert (image.array == case.rendering.image).all()
        assert image.geometry.mismatch(case.geometry) is None
        for path in label_paths:
            assert read_labels(path).geometry.mismatch(image.geometry) is None
        last = read_labels(label_paths[-1])  # truth, or a validation case's labels
        assert (last.array == case.rendering.labels).all()


def test_partial_labels_hold_their_groups_ids(cohort, plans):
    for plan in plans:
        if plan.role == "labelled":
            drawn = read_labels(cohort / "labelsTr" / f"{plan.case}.nii.gz").array
            assert set(np.unique(drawn)) - {0} <= GROUPS[plan.group]
            assert (drawn == 14).any() == (14 in GROUPS[plan.group])


def test_the_plan_is_written_for_people(cohort, plans):
    noted = json.loads((cohort / "phantom.json").read_text())
    assert noted["settings"] == {"version": 2, "preset": "quick", "seed": SEED, "cases": CASES}
    assert [case["case"] for case in noted["cases"]] == [plan.case for plan in plans]
    assert noted["cases"][0]["phase"] == plans[0].phase


def test_running_again_makes_only_what_is_not_there(cohort, plans):
    before = digests(cohort)
    torn, kept = case_files(cohort, plans[0])[0], case_files(cohort, plans[1])[0]
    torn.unlink()
    stamp = kept.stat().st_mtime_ns
    make_phantoms(cohort, CASES, "quick", SEED, 1)
    assert digests(cohort) == before
    assert kept.stat().st_mtime_ns == stamp


def test_a_folder_with_another_cohort_is_refused_and_untouched(cohort):
    before = digests(cohort)
    with pytest.raises(InputError, match=r"holds a cohort made with .*choose another --out"):
        make_phantoms(cohort, CASES, "quick", SEED + 1, 1)
    assert digests(cohort) == before


@pytest.mark.parametrize("name", ["imagesTr", "labelsVal", "organPseudo"])
def test_a_folder_with_real_data_is_refused(tmp_path, name):
    (tmp_path / name).mkdir()
    with pytest.raises(InputError, match=r"no phantom.json: not a synthetic cohort"):
        make_phantoms(tmp_path, CASES, "quick", SEED, 1)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_damaged_settings_are_refused(tmp_path):
    (tmp_path / "phantom.json").write_text("{")
    with pytest.raises(InputError, match=r"phantom.json: not a cohort's settings"):
        make_phantoms(tmp_path, CASES, "quick", SEED, 1)


def test_settings_that_make_no_cohort_are_refused(tmp_path):
    with pytest.raises(InputError, match="a cohort of 2 has no room"):
        make_phantoms(tmp_path / "new", 2, "quick", 0, 1)
    assert not (tmp_path / "new").exists()
