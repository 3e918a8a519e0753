"""What runs a network, on a real Dask cluster of two local workers."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.stages import test_pseudo_organs as organs
from tests.stages import test_pseudo_tumor as tumors
from tests.stages.test_infer import CPU, GEOMETRY, content, report, scan, student, times

from flarekd import cluster
from flarekd.cohort import Case
from flarekd.errors import CasesFailedError, InputError
from flarekd.imaging.files import write_volume
from flarekd.imaging.volume import Volume
from flarekd.modelfile import file_hash
from flarekd.report.beside import Beside
from flarekd.segmenting import _on_worker, _Order
from flarekd.stages import pseudo_tumor
from flarekd.stages.infer import infer
from flarekd.student.segment import NOT_CT

pytest.importorskip("distributed")
pytestmark = pytest.mark.filterwarnings("ignore")  # what Dask warns of in its own code


def written(folder):
    """All files of results by name, but what tells of seconds and times."""
    told = {"done.jsonl", "quality.jsonl", "report.json"}
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in told]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def facts(folder):
    """report.json without the seconds."""
    found = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    for case in found["cases"]:
        case.pop("seconds", None)
    return found


def test_scans_are_segmented_by_workers_as_by_this_process(scheduler, tmp_path, capsys):
    model = student(tmp_path / "student.safetensors")
    for name in "abcd":
        scan(tmp_path / "scans" / f"{name}_0000.nii.gz")
    (tmp_path / "scans" / "torn_0000.nii.gz").write_bytes(b"\x1f\x8b nothing")
    here = replace(CPU, beside=Beside(statistics=True, preview=True))
    shown = []
    for out, options in (("here", here), ("there", replace(here, scheduler=scheduler))):
        with pytest.raises(CasesFailedError, match="1 of 5 scans failed: torn"):
            infer([tmp_path / "scans"], model, tmp_path / out, options)
        shown.append("error: torn: " in capsys.readouterr().err)
    assert written(tmp_path / "here") == written(tmp_path / "there")
    assert len(times(tmp_path / "there")) == 4
    assert facts(tmp_path / "here") == facts(tmp_path / "there")
    assert shown == [True, True]


def test_workers_do_what_is_missing_or_out_of_date(scheduler, tmp_path):
    model, options = student(tmp_path / "student.safetensors"), replace(CPU, scheduler=scheduler)
    for name in "ab":
        scan(tmp_path / "scans" / f"{name}_0000.nii.gz")
    out = tmp_path / "out"
    infer([tmp_path / "scans"], model, out, options)
    first = times(out)
    (out / "a.nii.gz").unlink()
    infer([tmp_path / "scans"], model, out, options)
    second = times(out)
    assert second["b.nii.gz"] == first["b.nii.gz"]
    assert second["a.nii.gz"] > first["a.nii.gz"]
    # what is missing beside them alone
    infer([tmp_path / "scans"], model, out, replace(options, beside=Beside(statistics=True)))
    assert times(out) == second
    assert (out / "a.statistics.json").exists()
    infer([tmp_path / "scans"], model, out, options)
    assert (out / "statistics.csv").exists()
    # by this process with another model, then by the workers with the first one again
    other = student(tmp_path / "other.safetensors", seed=1)
    infer([tmp_path / "scans"], other, out, CPU)
    third = times(out)
    infer([tmp_path / "scans"], model, out, options)
    assert all(times(out)[name] > third[name] for name in third)
    assert report(out)["model"] == str(model)


def test_notes_of_workers_are_told_where_the_verb_was_called(scheduler, tmp_path, capsys):
    model = student(tmp_path / "student.safetensors")
    path = tmp_path / "grey.nii.gz"
    write_volume(path, Volume(content() % 256, GEOMETRY))
    infer([path], model, tmp_path / "out", replace(CPU, scheduler=scheduler))
    assert f"grey.nii.gz: {NOT_CT}" in " ".join(capsys.readouterr().err.split())


def test_tumours_are_labelled_and_judged_by_workers_as_by_this_process(scheduler, tmp_path):
    work = tumors.Cohort(tmp_path, tumors.teacher(tmp_path / "teacher.safetensors"))
    for name in "abc":
        work.add(name)
    extras = {"probability": True, "quality": True}
    work.run("here", **extras)
    work.run("there", scheduler=scheduler, **extras)
    assert written(tmp_path / "here") == written(tmp_path / "there")
    assert len(list((tmp_path / "there").rglob("*.nii.gz"))) == 6
    assert facts(tmp_path / "here") == facts(tmp_path / "there")
    work.cases[1].image.write_bytes(b"\x1f\x8b nothing")
    with pytest.raises(CasesFailedError, match="1 case not labelled: b"):
        work.run("there", scheduler=scheduler, **extras)
    assert sorted(facts(tmp_path / "there")["failed"]) == ["b"]


def test_organs_are_labelled_and_judged_by_workers_as_by_this_process(scheduler, tmp_path):
    work = organs.Cohort(tmp_path)
    for name in "ab":
        work.add(name)
    work.run(quality=True)
    here, work.out = work.out, tmp_path / "there"
    work.run(quality=True, scheduler=scheduler)
    assert written(here) == written(work.out)
    assert len(list(work.out.glob("*.nii.gz"))) == 2
    assert facts(here) == facts(work.out)


def test_what_a_person_changed_fails_alone_on_a_cluster_and_stays(scheduler, tmp_path):
    model, options = student(tmp_path / "student.safetensors"), replace(CPU, scheduler=scheduler)
    for name in "ab":
        scan(tmp_path / "scans" / f"{name}_0000.nii.gz")
    out = tmp_path / "out"
    infer([tmp_path / "scans"], model, out, options)
    mine = out / "a.nii.gz"
    mine.write_bytes((out / "b.nii.gz").read_bytes() + b"\0" * 8)
    kept = mine.read_bytes()
    other = student(tmp_path / "other.safetensors", seed=1)
    with pytest.raises(CasesFailedError, match="1 of 2 scans failed: a"):
        infer([tmp_path / "scans"], other, out, options)
    assert mine.read_bytes() == kept
    assert "somebody changed since the last run" in report(out)["failed"]["a"]


def test_a_worker_that_has_another_model_file_says_so(tmp_path):
    model = student(tmp_path / "student.safetensors")
    order = _Order("run", model, "0" * 64, tmp_path / "out", CPU, ())
    with pytest.raises(InputError, match="another one on this machine"):
        _on_worker(order, ("a", Path("a.nii.gz")))


def test_a_worker_that_has_another_second_teacher_says_so(tmp_path):
    model = tumors.teacher(tmp_path / "teacher.safetensors")
    other = tumors.teacher(tmp_path / "other.safetensors", seed=2)
    extras = pseudo_tumor.Extras(quality=True, against=other)
    sha256 = (file_hash(model), file_hash(model))
    order = pseudo_tumor._Order("run", model, sha256, tmp_path / "out", "cpu", "torch", extras)
    with pytest.raises(InputError, match="another one on this machine"):
        pseudo_tumor._on_worker(order, Case("a", Path("a.nii.gz"), "train"))


def test_what_a_worker_keeps_is_of_one_run():
    made = []

    def make():
        made.append(len(made))
        return made[-1]

    for run, expected in (("first", 0), ("first", 0), ("second", 1), ("first", 2)):
        with cluster.kept(run, make) as found:
            assert found == expected
    assert cluster.new_run() != cluster.new_run()
