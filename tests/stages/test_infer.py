"""`infer` on files: labels lie on their scan whatever its axes, and the report says how it went."""

from __future__ import annotations

import json
import os
import re
import threading
import time
import weakref
from dataclasses import replace

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813 (its usual name)
import torch
from tests.imaging.bad_inputs import ORIGIN, SIZE, nifti
from tests.imaging.dicom_series import write_series
from tests.training.test_ranks import forked

from flarekd import __version__, share
from flarekd.errors import CasesFailedError, InputError
from flarekd.imaging.files import read_labels, read_volume, write_volume
from flarekd.imaging.volume import Geometry, Volume
from flarekd.inference.predictor import load
from flarekd.inference.slabs import labels_from_logits
from flarekd.labels import NAMES
from flarekd.modelfile import ModelCard, file_hash, save_model
from flarekd.report.beside import Beside
from flarekd.stages.infer import Options, find_scans, infer
from flarekd.student.network import StudentUNet
from flarekd.student.segment import Student, WindowSettings
from flarekd.student.windows import predict_logits

CPU = Options(device="cpu", runtime="torch")
COS, SIN = np.cos(0.28), np.sin(0.28)
DIRECTION = (COS, SIN, 0, SIN, -COS, 0, 0, 0, 1)
GEOMETRY = Geometry((28, 24, 12), (0.75, 1.25, 3.0), (-31.0, 45.5, 112.0), DIRECTION)
STRIDES = ((1, 2, 2), (2, 2, 2), (2, 2, 2))


def student(path, seed=0, windows="full", spacing=(4.0, 1.5, 1.5)):
    """A student with random weights: its labels are nonsense, and depend on every voxel."""
    torch.manual_seed(seed)
    arguments = {"classes": len(NAMES), "channels": (4, 4, 8, 8), "strides": STRIDES}
    card = ModelCard(
        role="student",
        network=arguments,
        labels=NAMES,
        label_ids=tuple(range(len(NAMES))),
        spacing=spacing,
        patch=(8, 16, 16),
        intensity=(-200.0, 300.0, 50.0, 100.0),
        inference={"step": 0.5, "windows": windows},
    )
    save_model(path, StudentUNet(**arguments).state_dict(), card)
    return path


def content(geometry=GEOMETRY):
    """Smooth blobs between -400 and 400 HU: patient-like enough to be taken for CT."""
    noise = np.random.default_rng(0).normal(0, 1, geometry.shape_zyx)
    z, y, x = np.meshgrid(*map(np.arange, geometry.shape_zyx), indexing="ij")
    return (300 * np.sin(x / 4) * np.cos(y / 5 + z / 6) + 40 * noise).astype(np.int16)


def scan(path, geometry=GEOMETRY):
    write_volume(path, Volume(content(geometry), geometry))
    return path


@pytest.fixture
def model(tmp_path):
    return student(tmp_path / "student.safetensors")


def refuse_all(monkeypatch):
    """Let no scan fit into the memory allowed."""
    monkeypatch.setattr(
        share.Budget, "plan", lambda _, scans, _labelled: (dict.fromkeys(scans, "large"), False)
    )


def report(out):
    return json.loads((out / "report.json").read_text(encoding="utf-8"))


def times(out):
    return {path.name: path.stat().st_mtime_ns for path in out.glob("*.nii.gz")}


def test_labels_are_what_the_network_says_at_the_scans_own_resolution(tmp_path, model):
    path = scan(tmp_path / "case_a_0000.nii.gz")
    infer([path], model, tmp_path / "out", CPU)
    ready = load(model, "student", StudentUNet, torch.device("cpu"))
    volume = read_volume(path)
    found = predict_logits(ready.network, ready.network_input(volume), (8, 16, 16), step=0.5)
    expected = labels_from_logits(found.logits, volume.array.shape)
    result = read_labels(tmp_path / "out" / "case_a.nii.gz")
    np.testing.assert_array_equal(result.array, expected)
    assert len(np.unique(expected)) > 5
    assert result.geometry.mismatch(volume.geometry) is None


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "PIR", "SAL", "ARI", "IPL"])
@pytest.mark.parametrize("oblique", [True, False])
def test_the_same_patient_gets_the_same_labels_in_any_orientation(
    tmp_path, model, orientation, oblique
):
    direction = DIRECTION if oblique else (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0)
    straight = Geometry(GEOMETRY.size_xyz, GEOMETRY.spacing_xyz, GEOMETRY.origin_xyz, direction)
    first = scan(tmp_path / "first.nii.gz", straight)
    turned = sitk.DICOMOrient(sitk.ReadImage(str(first)), orientation)
    sitk.WriteImage(turned, str(tmp_path / "second.nii.gz"))
    infer([first, tmp_path / "second.nii.gz"], model, tmp_path / "out", CPU)
    expected, result = (
        sitk.ReadImage(str(tmp_path / "out" / name)) for name in ("first.nii.gz", "second.nii.gz")
    )
    assert result.GetSize() == turned.GetSize()
    np.testing.assert_allclose(result.GetSpacing(), turned.GetSpacing(), rtol=1e-6)
    np.testing.assert_allclose(result.GetOrigin(), turned.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(result.GetDirection(), turned.GetDirection(), atol=1e-6)
    # looked up by another library at the same places in the patient
    there = sitk.Resample(result, expected, sitk.Transform(), sitk.sitkNearestNeighbor, 255)
    labels = sitk.GetArrayFromImage(expected)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(there), labels)
    assert len(np.unique(labels)) > 5


def test_names_are_those_of_the_scans_and_always_nifti(tmp_path, model):
    folder = tmp_path / "scans"
    for name in ("a_0000.nii.gz", "b.mha", "c_0000.nrrd", "D.NII"):
        scan(folder / name)
    (folder / "notes.txt").write_text("nothing")
    infer([folder], model, tmp_path / "out", CPU)
    assert set(times(tmp_path / "out")) == {"D.nii.gz", "a.nii.gz", "b.nii.gz", "c.nii.gz"}
    assert [record["case"] for record in report(tmp_path / "out")["cases"]] == list("Dabc")


def test_files_and_folders_may_be_mixed(tmp_path):
    inputs = [tmp_path / "scans", scan(tmp_path / "c_0000.nii.gz")]
    for name in ("a", "b"):
        scan(tmp_path / "scans" / f"{name}.nii.gz")
    assert list(find_scans(inputs)) == ["a", "b", "c"]


def test_two_scans_of_the_same_name_are_refused(tmp_path, model):
    inputs = [scan(tmp_path / folder / "a_0000.nii.gz") for folder in ("x", "y")]
    with pytest.raises(InputError, match=r"two scans are called 'a': .*x.* and .*y") as caught:
        infer(inputs, model, tmp_path / "out", CPU)
    assert caught.value.exit_code == 3
    assert not (tmp_path / "out").exists()


def test_an_input_that_is_not_there_or_empty_is_refused(tmp_path, model):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no scan in .*empty"):
        infer([tmp_path / "empty"], model, tmp_path / "out", CPU)
    with pytest.raises(InputError, match=r"no such file or folder: .*none"):
        infer([tmp_path / "none"], model, tmp_path / "out", CPU)


def test_a_scan_is_never_replaced_by_its_labels(tmp_path, model):
    path = scan(tmp_path / "scans" / "case_a.nii.gz")
    before = path.read_bytes()
    with pytest.raises(InputError, match=r"would replace .*case_a.* · choose another --out"):
        infer([path], model, tmp_path / "scans", CPU)
    assert path.read_bytes() == before
    # beside a scan named as FLARE names them there is no such danger
    other = scan(tmp_path / "flare" / "case_a_0000.nii.gz")
    infer([other], model, tmp_path / "flare", CPU)
    assert set(times(tmp_path / "flare")) == {"case_a_0000.nii.gz", "case_a.nii.gz"}


def test_the_report_tells_model_scan_volumes_windows_and_seconds(tmp_path, model):
    path = scan(tmp_path / "case_a_0000.nii.gz")
    infer([path], model, tmp_path / "out", CPU)
    told = report(tmp_path / "out")
    assert {key: told[key] for key in told if key != "cases"} == {
        "flarekd": __version__,
        "model": str(model),
        "model_sha256": file_hash(model),
        "device": "cpu",
        "runtime": "torch",
        "windows": "full",
        "step": 0.5,
        "failed": {},
    }
    (record,) = told["cases"]
    assert record["case"] == "case_a"
    assert record["input"] == str(path)
    assert record["output"] == "case_a.nii.gz"
    assert record["not_ct"] is None
    assert record["size"] == [28, 24, 12]
    assert record["spacing_mm"] == pytest.approx([0.75, 1.25, 3.0])
    # 9×20×14 at the network's spacing: 2×2×1 windows of 8×16×16
    assert (record["windows_run"], record["windows_total"]) == (4, 4)
    assert set(record["seconds"]) == {"read", "resample", "network", "labels", "write"}
    assert all(value >= 0 for value in record["seconds"].values())
    labels = read_labels(tmp_path / "out" / "case_a.nii.gz").array
    voxel_ml = 0.75 * 1.25 * 3.0 / 1000
    assert list(record["volume_ml"]) == list(NAMES[1:])
    for label, name in enumerate(NAMES[1:], 1):
        expected = np.count_nonzero(labels == label) * voxel_ml
        assert record["volume_ml"][name] == pytest.approx(expected, abs=0.005)


def test_a_scan_that_does_not_look_like_ct_is_told_and_segmented_all_the_same(
    tmp_path, model, capsys
):
    array = np.abs(content()) + 1  # an MR: nothing is negative
    path = tmp_path / "mr_0000.nii.gz"
    write_volume(path, Volume(array, GEOMETRY))
    infer([path, scan(tmp_path / "ct_0000.nii.gz")], model, tmp_path / "out", CPU)
    records = {record["case"]: record for record in report(tmp_path / "out")["cases"]}
    assert "an MR, it seems: air and fat are negative in HU" in records["mr"]["not_ct"]
    assert records["ct"]["not_ct"] is None
    told = capsys.readouterr().err
    assert f"note: {path}: does not look like CT in Hounsfield units: values run from" in told
    assert "ct_0000" not in told
    assert set(times(tmp_path / "out")) == {"mr.nii.gz", "ct.nii.gz"}


def test_what_the_reader_mended_is_told(tmp_path, model, capsys):
    nifti("a.nii.gz", dim=[4, *SIZE, 1, 1, 1, 1], qoffset=ORIGIN + 3)(tmp_path)
    infer([tmp_path / "a.nii.gz"], model, tmp_path / "out", CPU)
    told = " ".join(capsys.readouterr().err.split())
    assert "a.nii.gz: 20×18×12×1 voxels · axes of length 1 are dropped" in told
    assert "a.nii.gz: sform and qform lie 5.20 mm apart" in told


def test_the_efficient_mode_of_the_card_skips_windows_of_air(tmp_path):
    model = student(tmp_path / "student.safetensors", windows="efficient")
    geometry = Geometry((60, 24, 12), (0.75, 1.25, 3.0), GEOMETRY.origin_xyz, DIRECTION)
    path = tmp_path / "case_a.nii.gz"
    write_volume(path, Volume(np.full(geometry.shape_zyx, -1000, np.int16), geometry))
    infer([path], model, tmp_path / "out", CPU)
    (record,) = report(tmp_path / "out")["cases"]
    assert record["windows_run"] == 0
    assert record["windows_total"] > 4
    assert not read_labels(tmp_path / "out" / "case_a.nii.gz").array.any()


def test_a_second_run_segments_nothing_and_reports_all(tmp_path, model):
    for name in ("a", "b"):
        scan(tmp_path / "scans" / f"{name}.nii.gz")
    infer([tmp_path / "scans"], model, tmp_path / "out", CPU)
    before, told = times(tmp_path / "out"), report(tmp_path / "out")
    infer([tmp_path / "scans"], model, tmp_path / "out", CPU)
    assert times(tmp_path / "out") == before
    assert report(tmp_path / "out") == told


def test_only_what_is_missing_or_changed_is_segmented_again(tmp_path, model):
    for name in ("a", "b", "c"):
        scan(tmp_path / "scans" / f"{name}.nii.gz")
    infer([tmp_path / "scans"], model, tmp_path / "out", CPU)
    before = times(tmp_path / "out")
    time.sleep(0.01)
    (tmp_path / "out" / "a.nii.gz").unlink()
    array = np.full(GEOMETRY.shape_zyx, 40, np.int16)
    write_volume(tmp_path / "scans" / "b.nii.gz", Volume(array, GEOMETRY))
    infer([tmp_path / "scans"], model, tmp_path / "out", CPU)
    after = times(tmp_path / "out")
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {"a.nii.gz", "b.nii.gz"}


def test_another_model_segments_anew(tmp_path, model):
    path = scan(tmp_path / "a.nii.gz")
    infer([path], model, tmp_path / "out", CPU)
    before = read_labels(tmp_path / "out" / "a.nii.gz").array
    infer([path], student(tmp_path / "other.safetensors", seed=1), tmp_path / "out", CPU)
    assert (read_labels(tmp_path / "out" / "a.nii.gz").array != before).any()
    assert report(tmp_path / "out")["model"] == str(tmp_path / "other.safetensors")


def test_bad_scans_are_named_and_the_others_are_segmented(tmp_path, model):
    folder = tmp_path / "scans"
    for name in ("a", "b", "c"):
        scan(folder / f"{name}.nii.gz")
    (folder / "b.nii.gz").write_bytes((folder / "b.nii.gz").read_bytes()[:-300])
    array = content().astype(np.float32)
    array[3, 4, 5] = np.nan
    write_volume(folder / "c.nii.gz", Volume(array, GEOMETRY))
    with pytest.raises(CasesFailedError, match="2 of 3 scans failed: b, c") as caught:
        infer([folder], model, tmp_path / "out", CPU)
    assert caught.value.exit_code == 4
    assert set(times(tmp_path / "out")) == {"a.nii.gz"}
    told = report(tmp_path / "out")
    assert [record["case"] for record in told["cases"]] == ["a"]
    assert "b.nii.gz" in told["failed"]["b"]
    assert "1 of 8,064 voxels are NaN" in told["failed"]["c"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("-dash.nii.gz", "begins with '-', as a formula or an option does"),
        ("two\nlines.nii.gz", "holds '\\n'"),
        (os.fsdecode(b"latin-\xe9.nii"), "is not UTF-8"),
    ],
)
def test_a_name_that_cannot_be_a_case_id_fails_alone_in_a_folder(
    tmp_path, model, capsys, name, said
):
    folder = tmp_path / "scans"
    folder.mkdir()
    for one in ("a.nii.gz", name):
        scan(tmp_path / "sound.nii.gz").rename(folder / one)
    shown = ascii(str(folder / name))[1:-1]
    with pytest.raises(CasesFailedError, match=r"1 of 2 scans failed: .*(dash|lines|latin)"):
        infer([folder], model, tmp_path / "out", CPU)
    assert set(times(tmp_path / "out")) == {"a.nii.gz"}
    assert said in report(tmp_path / "out")["failed"][shown]
    assert f"error: {shown}: name" in capsys.readouterr().err
    (folder / "a.nii.gz").unlink()
    with pytest.raises(InputError, match=re.escape(said)):
        infer([folder], model, tmp_path / "out", CPU)


def test_options_overrule_the_model_file_and_are_part_of_what_is_done(tmp_path, model):
    path = scan(tmp_path / "a.nii.gz")
    how = Options("cpu", "torch", WindowSettings(windows="efficient", step=1.0))
    infer([path], model, tmp_path / "out", how)
    told = report(tmp_path / "out")
    assert (told["windows"], told["step"]) == ("efficient", 1.0)
    before = times(tmp_path / "out")
    infer([path], model, tmp_path / "out", how)
    assert times(tmp_path / "out") == before
    infer([path], model, tmp_path / "out", CPU)
    assert times(tmp_path / "out") != before
    assert report(tmp_path / "out")["step"] == 0.5


def test_nearest_labels_are_those_of_the_networks_grid(tmp_path, model):
    path = scan(tmp_path / "a.nii.gz")
    infer(
        [path], model, tmp_path / "out", Options("cpu", "torch", WindowSettings(method="nearest"))
    )
    volume = read_volume(path)
    student = load(model, "student", StudentUNet, torch.device("cpu"))
    logits = predict_logits(student.network, student.network_input(volume), (8, 16, 16)).logits
    expected = labels_from_logits(logits, volume.array.shape, "nearest")
    assert (read_labels(tmp_path / "out" / "a.nii.gz").array == expected).all()


def test_many_scans_get_the_labels_each_gets_alone(tmp_path, model):
    """Reading ahead and writing behind change nothing, and one bad scan stops nothing."""
    rng = np.random.default_rng(1)
    for index in range(5):
        size = tuple(int(n) for n in rng.integers(10, 30, 3))
        scan(tmp_path / "scans" / f"{index}.nii.gz", replace(GEOMETRY, size_xyz=size))
    (tmp_path / "scans" / "2.nii.gz").write_bytes(b"no scan")
    with pytest.raises(CasesFailedError, match="1 of 5 scans failed: 2"):
        infer([tmp_path / "scans"], model, tmp_path / "out", CPU)
    for index in (0, 1, 3, 4):
        infer([tmp_path / "scans" / f"{index}.nii.gz"], model, tmp_path / f"out{index}", CPU)
        found, alone = (
            read_labels(tmp_path / folder / f"{index}.nii.gz") for folder in ("out", f"out{index}")
        )
        assert (found.array == alone.array).all()
        assert found.geometry == alone.geometry


@pytest.mark.parametrize("names", ["a", "abc"])
def test_a_scan_is_not_held_while_the_network_runs(tmp_path, model, monkeypatch, names):
    """Nor a second one that waits: only what the network takes of them is."""
    read, held = [], []

    def noted(path):
        volume = read_volume(path)
        read.append(weakref.ref(volume))
        return volume

    def segment(student, prepared, tell):
        for _ in range(200):  # the next may be on its way
            if not (alive := sum(scan() is not None for scan in read)):
                break
            time.sleep(0.05)
        held.append(alive)
        return segmented(student, prepared, tell)

    segmented = Student.segment
    monkeypatch.setattr(share, "read_volume", noted)
    monkeypatch.setattr(Student, "segment", segment)
    infer([scan(tmp_path / f"{name}.nii.gz") for name in names], model, tmp_path / "out", CPU)
    assert held == [0] * len(names)


@pytest.mark.parametrize("limit", [None, 100.0])
def test_the_first_scan_is_read_while_the_network_loads(tmp_path, model, monkeypatch, limit):
    """Unless memory is limited: then nothing is read before it is planned."""
    path, began = scan(tmp_path / "a.nii.gz"), threading.Event()

    def read(path):
        began.set()
        return read_volume(path)

    def load_slowly(*arguments, **options):
        assert began.wait(0.2 if limit else 30) == (limit is None)
        return loaded(*arguments, **options)

    loaded = Student.load
    monkeypatch.setattr(share, "read_volume", read)
    monkeypatch.setattr(Student, "load", load_slowly)
    infer([path], model, tmp_path / "out", replace(CPU, max_memory_gb=limit))
    assert set(report(tmp_path / "out")["cases"][0]["seconds"]) >= {"read", "resample", "network"}


def test_a_scan_that_cannot_be_written_is_named_and_the_others_are(tmp_path, model):
    for name in ("a", "b", "c"):
        scan(tmp_path / "scans" / f"{name}.nii.gz")
    (tmp_path / "out" / "b.nii.gz").mkdir(parents=True)
    with pytest.raises(CasesFailedError, match="1 of 3 scans failed: b"):
        infer([tmp_path / "scans"], model, tmp_path / "out", CPU)
    assert {path.name for path in (tmp_path / "out").glob("*.nii.gz") if path.is_file()} == {
        "a.nii.gz",
        "c.nii.gz",
    }


def test_a_path_with_a_case_in_it_stands_for_a_folder_a_case(tmp_path, model):
    for name in ("case_1", "case_2"):
        scan(tmp_path / "kits" / name / "imaging.nii.gz")
        (tmp_path / "kits" / name / "segmentation.nii.gz").write_bytes(b"is not asked for")
    infer([tmp_path / "kits" / "{case}" / "imaging.nii.gz"], model, tmp_path / "out", CPU)
    assert [record["case"] for record in report(tmp_path / "out")["cases"]] == ["case_1", "case_2"]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("kits", r"no scan in '.*kits' · .*; where each case has a folder, '.*kits/{case}/name"),
        ("kits/{case}/ct.nii.gz", "no scan fits '.*kits/{case}/ct.nii.gz'"),
        ("kits/{case}/{part}.nii.gz", "must have {case} in it"),
        ("kits/{case}/{label}.nii.gz", "{label} stands for masks"),
    ],
)
def test_a_folder_of_case_folders_says_what_to_write(tmp_path, given, told):
    scan(tmp_path / "kits" / "case_1" / "imaging.nii.gz")
    with pytest.raises(InputError, match=told):
        find_scans([tmp_path / given])


def test_dicom_that_lies_deeper_or_beside_files_is_told(tmp_path, capsys):
    series = write_series(tmp_path / "pacs" / "patient" / "study" / "series", content())
    told = rf"no scan in .*pacs': DICOM series lie deeper .*{series}' · give .*pacs/\*/\*/\*$"
    with pytest.raises(InputError, match=told):
        find_scans([tmp_path / "pacs"])
    assert find_scans([tmp_path / "pacs" / "patient" / "study"]) == {"series": series}
    scan(tmp_path / "pacs" / "a.nii.gz")
    scan(series / "b.nii.gz")
    assert capsys.readouterr().err == ""
    assert list(find_scans([tmp_path / "pacs"])) == ["a"]
    assert f"such as '{series}' · give" in " ".join(capsys.readouterr().err.split())
    assert list(find_scans([series])) == ["b"]
    told = f"{series}: a DICOM series lies beside 1 scan and is left out · give it a folder of its"
    assert told in " ".join(capsys.readouterr().err.split())
    (one, *_) = sorted(series.glob("IM*"))
    with pytest.raises(InputError, match=rf"{one.name}: is one DICOM file · give its folder, '"):
        read_volume(one)


def test_further_channels_beside_a_ct_are_no_scans_of_their_own(tmp_path, capsys):
    for name in ("a_0000", "a_0001", "b_0000", "b_0001"):
        scan(tmp_path / "imagesTs" / f"{name}.nii.gz")
    with pytest.raises(InputError, match="'a_0001' lies beside a_0000: are these further channels"):
        find_scans([tmp_path / "imagesTs"])
    channels = json.dumps({"channel_names": {"0": "CT", "1": "PET"}})
    (tmp_path / "dataset.json").write_text(channels, encoding="utf-8")
    assert list(find_scans([tmp_path / "imagesTs"])) == ["a", "b"]
    assert "2 files of further channels (PET) are left out" in capsys.readouterr().err


def test_processes_of_torchrun_share_the_scans(tmp_path, model):
    """Its ranks are forked here; ``test_ranks.py`` has the real torchrun."""
    for name in ("a", "b", "c"):
        scan(tmp_path / "scans" / f"{name}.nii.gz")
    (tmp_path / "scans" / "d.nii.gz").write_bytes(b"no scan")
    out = tmp_path / "out"
    verb = ["infer", tmp_path / "scans", "--model", model, "--out", out, "--device", "cpu"]
    scan(tmp_path / "scans" / "=e.nii.gz")
    write_series(tmp_path / "scans", content())
    said = forked(tmp_path, *verb, statuses=[4, 0])
    assert "2 of 5 scans failed: " in said
    assert said.count("is left out · give it a folder of its own") == 1
    assert said.count("=e.nii.gz: ") == 1
    told = report(out)
    assert [record["case"] for record in told["cases"]] == ["a", "b", "c"]
    assert {name.split("/")[-1] for name in told["failed"]} == {"d", "=e.nii.gz"}
    infer([tmp_path / "scans" / "c.nii.gz"], model, tmp_path / "alone", CPU)
    together, alone = (read_labels(tmp_path / f / "c.nii.gz") for f in ("out", "alone"))
    assert (together.array == alone.array).mean() > 0.9999


def test_statistics_and_preview_lie_beside_the_mask_and_are_made_again_when_lost(tmp_path, model):
    scan(tmp_path / "a_0000.nii.gz")
    how = replace(CPU, beside=Beside(statistics=True, preview=True))
    out = tmp_path / "out"
    infer([tmp_path / "a_0000.nii.gz"], model, out, how)
    told = json.loads((out / "a.statistics.json").read_text(encoding="utf-8"))
    labels = read_labels(out / "a.nii.gz").array
    voxel_ml = 0.75 * 1.25 * 3.0 / 1000
    volumes = {row["name"]: row["volume_ml"] for row in told["classes"]}
    for label, name in enumerate(NAMES[1:], 1):
        assert volumes[name] == pytest.approx(
            np.count_nonzero(labels == label) * voxel_ml, abs=1e-3
        )
    assert (out / "a.png").read_bytes().startswith(b"\x89PNG")
    assert "liver" in (out / "statistics.csv").read_text(encoding="utf-8")
    assert "liver" in (out / "labels.txt").read_text(encoding="utf-8")
    (out / "a.png").unlink()
    infer([tmp_path / "a_0000.nii.gz"], model, out, how)
    assert (out / "a.png").exists()


def test_what_lies_beside_the_labels_of_another_model_does_not_stay(tmp_path, model):
    path, out = scan(tmp_path / "a.nii.gz"), tmp_path / "out"
    how = replace(CPU, beside=Beside(statistics=True, preview=True))
    infer([path], model, out, how)
    first = (out / "a.statistics.json").read_bytes()
    other = student(tmp_path / "other.safetensors", seed=1)
    infer([path], other, out, CPU)
    assert not (out / "a.statistics.json").exists()
    assert not (out / "a.png").exists()
    assert not (out / "statistics.csv").exists()
    assert not (out / "tumours.csv").exists()
    infer([path], other, out, how)
    assert (out / "a.statistics.json").read_bytes() != first
    assert (out / "a.png").exists()


@pytest.mark.parametrize("name", ["b.nii.gz", "b.png", "b.statistics.json", "labels.txt"])
def test_a_persons_files_in_the_folder_of_label_maps_are_never_replaced(tmp_path, model, name):
    for case in "ab":
        scan(tmp_path / "scans" / f"{case}_0000.nii.gz")
    drawn = tmp_path / "labelsTr" / name
    drawn.parent.mkdir()
    drawn.write_bytes(b"drawn by hand")
    with pytest.raises(InputError, match=rf"recorded 1 file .*{name} · write to another"):
        infer([tmp_path / "scans"], model, drawn.parent, CPU)
    assert list(drawn.parent.iterdir()) == [drawn]
    assert drawn.read_bytes() == b"drawn by hand"


def test_other_scans_may_be_segmented_beside_a_persons_label_maps(tmp_path, model):
    out = tmp_path / "labelsTr"
    out.mkdir()
    (out / "b.nii.gz").write_bytes(b"drawn by hand")
    infer([scan(tmp_path / "a_0000.nii.gz")], model, out, CPU)
    assert (out / "a.nii.gz").exists()
    assert (out / "b.nii.gz").read_bytes() == b"drawn by hand"


def test_what_a_kill_left_before_it_was_noted_is_done_again(tmp_path, model):
    out, path = tmp_path / "out", scan(tmp_path / "a_0000.nii.gz")
    infer([path], model, out, CPU)
    whole = (out / "a.nii.gz").read_bytes()
    ledger = out / "done.jsonl"
    begun, *_ = filter(None, ledger.read_text(encoding="utf-8").splitlines())
    ledger.write_text(begun, encoding="utf-8")  # the label map is there, its record is not
    infer([path], model, out, CPU)
    assert (out / "a.nii.gz").read_bytes() == whole


def test_a_folder_of_an_earlier_version_is_gone_on_with(tmp_path, model):
    out, path = tmp_path / "out", scan(tmp_path / "a_0000.nii.gz")
    infer([path], model, out, CPU)
    ledger = out / "done.jsonl"  # which noted no beginnings
    lines = [line for line in ledger.read_text(encoding="utf-8").splitlines() if '"key"' in line]
    ledger.write_text("\n".join(lines) + "\n", encoding="utf-8")
    before = times(out)
    infer([path], model, out, CPU)
    assert times(out) == before
    infer([path], student(tmp_path / "other.safetensors", seed=1), out, CPU)
    assert times(out) != before


def test_a_run_whose_scans_all_failed_may_be_run_again(tmp_path, model):
    out, path = tmp_path / "out", tmp_path / "a_0000.nii.gz"
    path.write_bytes(b"")
    how = replace(CPU, beside=Beside(statistics=True))
    with pytest.raises(CasesFailedError):
        infer([path], model, out, how)
    infer([scan(path)], model, out, how)
    assert (out / "a.nii.gz").exists()


def test_dicom_seg_is_refused_for_files_before_anything_is_done(tmp_path, model):
    scan(tmp_path / "a.nii.gz")
    how = replace(CPU, beside=Beside(dicom_seg=True))
    with pytest.raises(InputError, match="DICOM SEG lies on a DICOM series"):
        infer([tmp_path / "a.nii.gz"], model, tmp_path / "out", how)
    assert not (tmp_path / "out").exists()


def test_a_series_that_no_dicom_seg_can_be_made_of_fails_alone_and_has_its_label_map(
    tmp_path, model
):
    folders = [write_series(tmp_path / "scans" / name, content()) for name in "ab"]
    for path in folders[0].iterdir():
        data = pydicom.dcmread(path)
        del data.SOPClassUID
        data.save_as(path)
    out = tmp_path / "out"
    with pytest.raises(CasesFailedError, match="1 of 2 scans failed: a"):
        infer([tmp_path / "scans"], model, out, replace(CPU, beside=Beside(dicom_seg=True)))
    assert "lacks SOPClassUID" in report(out)["failed"]["a"]
    assert len(times(out)) == 2
    assert [path.name for path in out.glob("*.dcm")] == ["b.seg.dcm"]


def test_a_scan_that_is_refused_for_its_size_keeps_no_labels_of_an_earlier_run(
    tmp_path, model, monkeypatch
):
    path, out = scan(tmp_path / "a.nii.gz"), tmp_path / "out"
    infer([path], model, out, CPU)
    other = student(tmp_path / "other.safetensors", seed=1)
    refuse_all(monkeypatch)
    with pytest.raises(CasesFailedError, match="a"):
        infer([path], other, out, replace(CPU, max_memory_gb=99.0))
    assert not (out / "a.nii.gz").exists()
