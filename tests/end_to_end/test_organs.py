"""Organ pseudo-labels of one's own: phantoms, a network for organs, pseudo-labels, fusion."""

import json

import numpy as np
from tests.end_to_end.command import flarekd, set_all

from flarekd.cohort import read_cohort
from flarekd.imaging.files import list_scans, read_labels, read_volume
from flarekd.labels import ORGANS

QUICK = "configs/quick.yaml"


def test_without_organ_pseudo_labels_one_trains_a_network_and_makes_them(demo, tmp_path):
    out, _ = demo
    data, table, organs = out / "cohort", tmp_path / "cohort.csv", tmp_path / "organs"
    grouped = ["--images", data / "imagesTr", "--labels", data / "labelsTr"]
    flarekd("group-data", *grouped, "--unlabeled", data / "imagesUnlabeled", "--out", table)
    cases = {case.case: case for case in read_cohort(table) if case.split == "train"}
    assert not any(case.organ_pseudo for case in cases.values())

    teacher = ["--task", "organs", "--cohort", table, "--config", QUICK, *set_all()]
    flarekd("train-teacher", *teacher, "--out", tmp_path / "organ-teacher", "--device", "cpu")
    model = tmp_path / "organ-teacher" / "model.safetensors"
    labelled = flarekd("pseudo-organs", "--cohort", table, "--model", model, "--out", organs)
    lacking = {name for name, case in cases.items() if not set(ORGANS) <= case.annotated}
    assert lacking
    assert set(list_scans(organs)) == lacking
    assert f"{len(lacking)} label maps, 0 scans failed" in " ".join(labelled.stderr.split())

    fusion = ["--tumor", out / "tumor", "--organs", organs, "--out", tmp_path / "fused"]
    fused = flarekd("fuse", "--cohort", table, *fusion)
    assert "have no organ pseudo-label" not in fused.stderr
    assert set(list_scans(tmp_path / "fused")) == set(cases)
    filled = 0
    for name in lacking:
        pseudo = read_labels(organs / f"{name}.nii.gz")
        assert pseudo.geometry.mismatch(read_volume(cases[name].image).geometry) is None
        assert pseudo.array.max() <= 13
        result = read_labels(tmp_path / "fused" / f"{name}.nii.gz").array
        missing = [organ for organ in ORGANS if organ not in cases[name].annotated]
        theirs = np.isin(result, missing)
        # organs that nobody drew come from the network, and nothing else of it does
        np.testing.assert_array_equal(result[theirs], pseudo.array[theirs])
        filled += int(theirs.sum())
    assert filled > 0
    # the network is a student's: anybody may look what it sees
    scan = next(iter(sorted((data / "imagesVal").glob("*.nii.gz"))))
    flarekd("infer", scan, "--model", model, "--out", tmp_path / "seen")
    report = json.loads((tmp_path / "seen" / "report.json").read_text(encoding="utf-8"))
    assert "tumor" not in report["cases"][0]["volume_ml"]
