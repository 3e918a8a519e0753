"""`infer` once more: what is done is left alone, and what is missing is made of what is there."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch
from tests.imaging.dicom_series import write_series
from tests.stages.test_infer import CPU, content, refuse_all, report, scan, student, times

from flarekd import share
from flarekd.errors import CasesFailedError, InputError
from flarekd.imaging.files import read_labels, write_labels
from flarekd.imaging.volume import LabelMap
from flarekd.ledger import stamp
from flarekd.modelfile import file_hash
from flarekd.report.beside import Beside
from flarekd.stages.infer import find_scans, infer
from flarekd.student.segment import Student

EVERYTHING = Beside(statistics=True, preview=True)


@pytest.fixture
def model(tmp_path):
    return student(tmp_path / "student.safetensors")


@pytest.fixture
def runs(monkeypatch):
    """How often the network ran so far, an entry a scan."""
    ran, segmented = [], Student.segment

    def segment(self, *arguments):
        ran.append(1)
        return segmented(self, *arguments)

    monkeypatch.setattr(Student, "segment", segment)
    return ran


def files(folder):
    told = {"done.jsonl", "report.json"}
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in told}


def stamped(folder):
    """All files by name, and when they were written."""
    told = {"done.jsonl", "report.json", "labels.txt", "labels.ctbl"}
    return {p.name: p.stat().st_mtime_ns for p in folder.iterdir() if p.name not in told}


def test_the_way_to_the_scans_may_be_written_otherwise(tmp_path, model, runs, monkeypatch):
    scan(tmp_path / "scans" / "a.nii.gz")
    write_series(tmp_path / "scans" / "b", content())
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(tmp_path / "scans")
    for given in ("scans", "./scans", str(tmp_path / "scans"), "link"):
        infer([Path(given)], model, tmp_path / "out", CPU)
        assert len(runs) == 2, given
        assert [record["case"] for record in report(tmp_path / "out")["cases"]] == ["a", "b"]


def test_what_is_asked_for_later_is_made_without_the_network(tmp_path, model, runs):
    for name in "ab":
        scan(tmp_path / "scans" / f"{name}.nii.gz")
    infer([tmp_path / "scans"], model, tmp_path / "whole", replace(CPU, beside=EVERYTHING))
    out = tmp_path / "out"
    infer([tmp_path / "scans"], model, out, CPU)
    before = times(out)
    for parts in (["statistics"], ["preview"], ["statistics", "preview"]):
        infer([tmp_path / "scans"], model, out, replace(CPU, beside=Beside.of(parts)))
    assert len(runs) == 4
    assert times(out) == before
    assert files(out) == files(tmp_path / "whole")
    assert [record["case"] for record in report(out)["cases"]] == ["a", "b"]


def test_only_what_is_missing_beside_a_label_map_is_made_again(tmp_path, model, runs):
    for name in "ab":
        scan(tmp_path / "scans" / f"{name}.nii.gz")
    out, how = tmp_path / "out", replace(CPU, beside=EVERYTHING)
    infer([tmp_path / "scans"], model, out, how)
    whole, before = files(out), stamped(out)
    (out / "a.png").unlink()
    (out / "b.statistics.json").write_bytes(b"")
    infer([tmp_path / "scans"], model, out, how)
    assert len(runs) == 2
    assert files(out) == whole
    kept = {"a.nii.gz", "a.statistics.json", "b.nii.gz", "b.png"}
    assert {name for name, time in stamped(out).items() if time == before[name]} == kept


def test_dicom_seg_is_made_later_and_again_and_stays_where_it_is_not_asked_for(
    tmp_path, model, runs
):
    pytest.importorskip("highdicom")
    write_series(tmp_path / "scans" / "a", content())
    out, seg = tmp_path / "out", replace(CPU, beside=Beside(dicom_seg=True))
    infer([tmp_path / "scans"], model, out, CPU)
    infer([tmp_path / "scans"], model, out, seg)
    assert (out / "a.seg.dcm").stat().st_size > 0
    before = stamped(out)
    for how in (CPU, seg):
        infer([tmp_path / "scans"], model, out, how)
        assert stamped(out) == before
    (out / "a.seg.dcm").unlink()
    infer([tmp_path / "scans"], model, out, seg)
    assert (out / "a.seg.dcm").stat().st_size > 0
    assert len(runs) == 1


def test_of_nothing_found_no_dicom_seg_is_made_again_and_again(tmp_path, model, runs, monkeypatch):
    dicom_seg = pytest.importorskip("flarekd.imaging.dicom_seg")
    pytest.importorskip("highdicom")
    model = student(tmp_path / "student.safetensors", windows="efficient")
    air = np.full((6, 24, 28), -1000, np.int16)
    write_series(tmp_path / "a", air)
    made, write_seg = [], dicom_seg.write_seg
    monkeypatch.setattr(dicom_seg, "write_seg", lambda *a: made.append(1) or write_seg(*a))
    for _ in range(2):
        infer(
            [tmp_path / "a"], model, tmp_path / "out", replace(CPU, beside=Beside(dicom_seg=True))
        )
    assert not (tmp_path / "out" / "a.seg.dcm").exists()
    assert (len(runs), len(made)) == (1, 1)


def test_what_fails_beside_a_label_map_costs_no_network_again(tmp_path, model, runs):
    pytest.importorskip("highdicom")
    series, out = write_series(tmp_path / "a", content()), tmp_path / "out"
    for path in series.iterdir():
        data = pydicom.dcmread(path)
        del data.SOPClassUID
        data.save_as(path)
    for _ in range(2):
        with pytest.raises(CasesFailedError, match="1 of 1 scans failed: a"):
            infer([series], model, out, replace(CPU, beside=Beside(dicom_seg=True)))
        assert "lacks SOPClassUID" in report(out)["failed"]["a"]
    infer([series], model, out, CPU)
    assert len(times(out)) == len(runs) == 1


def test_statistics_and_pictures_stay_as_long_as_their_label_map_does(tmp_path, model, runs):
    path, out = scan(tmp_path / "a.nii.gz"), tmp_path / "out"
    infer([path], model, out, replace(CPU, beside=EVERYTHING))
    before = stamped(out)
    infer([path], model, out, CPU)
    assert stamped(out) == before
    assert len(runs) == 1


def corrected(out, case):
    """Half of what was found taken away, as a person does who corrects a label map."""
    found = read_labels(out / f"{case}.nii.gz")
    array = found.array.copy()
    array[:6] = 0
    write_labels(out / f"{case}.nii.gz", LabelMap(array, found.geometry))
    return (out / f"{case}.nii.gz").read_bytes()


def test_statistics_are_of_the_label_map_that_a_person_corrected(tmp_path, model, runs, capsys):
    for name in "ab":
        scan(tmp_path / "scans" / f"{name}.nii.gz")
    out, how = tmp_path / "out", replace(CPU, beside=Beside(statistics=True))
    infer([tmp_path / "scans"], model, out, how)
    before, rows = files(out), (out / "statistics.csv").read_text(encoding="utf-8")
    mine = corrected(out, "a")
    infer([tmp_path / "scans"], model, out, CPU)  # the old ones do not stay
    assert "a.statistics.json: removed, the label map that it is of was changed" in " ".join(
        capsys.readouterr().err.split()
    )
    assert {"a.statistics.json", "statistics.csv"} & files(out).keys() == set()
    assert files(out)["b.statistics.json"] == before["b.statistics.json"]
    infer([tmp_path / "scans"], model, out, how)
    told = json.loads((out / "a.statistics.json").read_text(encoding="utf-8"))
    labels = read_labels(out / "a.nii.gz").array
    counts = {row["label"]: row["voxels"] for row in told["classes"]}
    assert counts == {label: int((labels == label).sum()) for label in counts}
    assert (out / "statistics.csv").read_text(encoding="utf-8") != rows
    after = stamped(out)
    infer([tmp_path / "scans"], model, out, how)
    assert {k: v for k, v in stamped(out).items() if k.startswith(("a.", "b."))} == {
        k: v for k, v in after.items() if k.startswith(("a.", "b."))
    }
    assert len(runs) == 2
    # it is a person's still
    other = student(tmp_path / "other.safetensors", seed=1)
    with pytest.raises(InputError, match=r"somebody changed since the last run: .*a\.nii\.gz"):
        infer([tmp_path / "scans"], other, out, how)
    assert (out / "a.nii.gz").read_bytes() == mine


def cases_in(table):
    lines = table.read_text(encoding="utf-8").splitlines()[1:]
    return list(dict.fromkeys(line.split(",")[0] for line in lines))


def test_tables_have_rows_of_earlier_calls(tmp_path, model):
    out, how = tmp_path / "out", replace(CPU, beside=Beside(statistics=True))
    scans = {name: scan(tmp_path / f"{name}.nii.gz") for name in "bcad"}
    for path in scans.values():
        infer([path], model, out, how)
    rows = (out / "statistics.csv").read_text(encoding="utf-8")
    assert cases_in(out / "statistics.csv") == ["a", "b", "c", "d"]
    for path in out.iterdir():  # as if it had been copied
        os.utime(path)
    infer([scans["b"]], model, out, how)
    assert (out / "statistics.csv").read_text(encoding="utf-8") == rows
    # what is no longer of its label map, or of no call, has none
    corrected(out, "a")
    (out / "b.statistics.json").write_text("{}")
    (out / "c.nii.gz").unlink()
    shutil.copy(out / "d.statistics.json", out / "e.statistics.json")
    infer([scans["d"]], model, out, how)
    assert cases_in(out / "statistics.csv") == ["d"]


def test_what_a_person_saved_beside_a_corrected_label_map_stays(tmp_path, model):
    path, out = scan(tmp_path / "a.nii.gz"), tmp_path / "out"
    infer([path], model, out, replace(CPU, beside=EVERYTHING))
    corrected(out, "a")
    (out / "a.png").write_bytes(b"a picture of the correction")
    (out / "a.seg.dcm").write_bytes(b"a segmentation of the correction")
    infer([path], model, out, CPU)
    assert (out / "a.png").read_bytes() == b"a picture of the correction"
    assert (out / "a.seg.dcm").exists()
    assert not (out / "a.statistics.json").exists()


def test_extras_of_a_label_map_need_no_memory_for_the_network(tmp_path, model):
    ready = Student.load(model, device=torch.device("cpu"), runtime="torch")
    path = scan(tmp_path / "a.nii.gz")
    budget = share.Budget(ready, 0.0, 0, keeps_scan=True, beside=lambda _: 0)
    need = budget.needs(path)
    assert need.network > max(need.reading, need.writing)
    budget = replace(budget, allowed=need.network - 1)
    refused, _ = budget.plan({"a": path})
    assert "take a model of coarser spacing" in refused["a"]
    assert budget.plan({"a": path}, {"a"}) == ({}, False)


def test_an_empty_label_map_is_made_again_and_a_torn_one_is_told(tmp_path, model, runs):
    for name in "ab":
        scan(tmp_path / "scans" / f"{name}.nii.gz")
    out = tmp_path / "out"
    infer([tmp_path / "scans"], model, out, CPU)
    whole = files(out)
    (out / "a.nii.gz").write_bytes(b"")
    infer([tmp_path / "scans"], model, out, CPU)
    assert files(out) == whole
    assert len(runs) == 3
    (out / "b.nii.gz").write_bytes(whole["b.nii.gz"][:-40])
    with pytest.raises(InputError, match=r"b\.nii\.gz · move them away to have them made anew"):
        infer([tmp_path / "scans"], model, out, CPU)
    (out / "b.nii.gz").unlink()
    infer([tmp_path / "scans"], model, out, CPU)
    assert files(out) == whole


@pytest.mark.parametrize("more", [[], ["dicom-seg"]])
def test_a_folder_that_an_earlier_version_left_is_not_segmented_anew(
    tmp_path, model, runs, monkeypatch, more
):
    """Its key had the path as it was given, and whether a DICOM SEG was."""
    write_series(tmp_path / "a", content())
    monkeypatch.chdir(tmp_path)
    path, out = Path("a"), tmp_path / "out"
    infer([path], model, out, CPU)
    record = json.loads((out / "done.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    settings = ["full", 0.5, "linear", "torch", *more]
    record["key"] = stamp(file_hash(model), settings, "a", path)
    (out / "done.jsonl").write_text(json.dumps(record), encoding="utf-8")
    infer([path], model, out, CPU)
    assert len(runs) == 1


def test_label_maps_beside_their_scans_are_no_scans(tmp_path, model, runs):
    folder = tmp_path / "scans"
    for name in "ab":
        scan(folder / f"{name}_0000.nii.gz")
    for _ in range(2):
        infer([folder], model, folder, CPU)
    assert list(find_scans([folder])) == ["a", "b"]
    assert len(runs) == 2
    with pytest.raises(InputError, match=r"a\.nii\.gz' is a label map that a run wrote, no scan"):
        find_scans([folder / "a.nii.gz"])
    assert list(find_scans([folder / "a.nii.gz", folder / "a_0000.nii.gz"])) == ["a"]
    # what no run wrote is a scan as ever
    scan(folder / "c.nii.gz")
    assert list(find_scans([folder])) == ["a", "b", "c"]


def test_a_series_stays_the_scan_with_its_label_map_among_its_files(tmp_path, model, runs):
    series = write_series(tmp_path / "series", content())
    for beside in (Beside(), Beside(), EVERYTHING, EVERYTHING):
        infer([series], model, series, replace(CPU, beside=beside))
    assert len(runs) == 1
    assert (series / "series.png").is_file()
    infer([series], model, tmp_path / "out", CPU)
    assert len(runs) == 2
    assert report(tmp_path / "out")["cases"][0]["input"] == str(series)
    assert report(tmp_path / "out")["cases"][0]["size"] == [28, 24, 12]
    assert files(tmp_path / "out")["series.nii.gz"] == files(series)["series.nii.gz"]


def test_a_folder_of_label_maps_holds_no_scan(tmp_path, model):
    infer([scan(tmp_path / "a.nii.gz")], model, tmp_path / "out", CPU)
    with pytest.raises(InputError, match=r"holds label maps .* no scan · .*done\.jsonl away"):
        find_scans([tmp_path / "out"])
    shutil.copytree(tmp_path / "out", tmp_path / "copy")
    (tmp_path / "copy" / "done.jsonl").unlink()
    assert list(find_scans([tmp_path / "copy"])) == ["a"]


def test_what_is_refused_for_its_size_keeps_the_label_map_that_is_current(
    tmp_path, model, monkeypatch
):
    path, out = scan(tmp_path / "a.nii.gz"), tmp_path / "out"
    infer([path], model, out, replace(CPU, beside=Beside(preview=True)))
    before = stamped(out)
    refuse_all(monkeypatch)
    with pytest.raises(CasesFailedError, match="a"):
        infer([path], model, out, replace(CPU, beside=EVERYTHING, max_memory_gb=99.0))
    assert before.items() <= stamped(out).items()


def test_a_label_map_that_gives_way_to_that_of_another_scan_is_told(tmp_path, model, capsys):
    for name in ("anna", "bert"):
        infer([scan(tmp_path / name / "image.nii.gz")], model, tmp_path / "out", CPU)
    told = capsys.readouterr().err
    assert f"image: its label map was that of {tmp_path}/anna/image.nii.gz, and is replaced" in told
    shutil.copy(tmp_path / "bert" / "image.nii.gz", tmp_path / "bert" / "copy.nii.gz")
    (tmp_path / "bert" / "copy.nii.gz").replace(tmp_path / "bert" / "image.nii.gz")
    infer([tmp_path / "bert" / "image.nii.gz"], model, tmp_path / "out", CPU)
    assert "is replaced" not in capsys.readouterr().err  # the same scan, saved again
