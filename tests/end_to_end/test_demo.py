import csv
import hashlib
import json
import shutil

import numpy as np
import pytest
from tests.end_to_end.command import TINY, demo_arguments, flarekd

from flarekd.cohort import read_cohort
from flarekd.imaging.files import list_scans, read_geometry, read_labels
from flarekd.labels import NAMES, TUMOR
from flarekd.modelfile import read_card


def hashes(folder):
    """Every file's content and modification time."""
    return {
        path.relative_to(folder).as_posix(): (
            hashlib.sha256(path.read_bytes()).hexdigest(),
            path.stat().st_mtime_ns,
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_demo_leaves_what_the_design_names(demo):
    out, done = demo
    for name in (
        "cohort/imagesTr",
        "cohort/truth",
        "cohort.csv",
        "teacher/model.safetensors",
        "teacher/config.yaml",
        "teacher/log.jsonl",
        "teacher/curves.png",
        "tumor/report.json",
        "fused",
        "student/model.safetensors",
        "student/curves.png",
        "predictions/report.json",
        "scores/scores.csv",
        "scores/scores.json",
        "scores/report.html",
        "scores/bench/bench.json",
        "fusion.json",
    ):
        assert (out / name).exists(), name
    assert f"look at {out / 'scores' / 'report.html'}" in done.stdout
    page = (out / "scores" / "report.html").read_text(encoding="utf-8")
    assert "<h3>Teacher</h3>" in page
    assert "<h3>Student</h3>" in page
    assert 'id="efficiency"' in page
    assert "infer" in json.loads((out / "scores/bench/bench.json").read_text("utf-8"))["command"]
    scores = json.loads((out / "scores" / "scores.json").read_text(encoding="utf-8"))
    phases = {phase: part["cases"] for phase, part in scores["breakdowns"]["phase"].items()}
    assert sum(phases.values()) == scores["cases"]
    assert "unknown" not in phases
    assert "Tumour DSC (%) of the fused labels against the truth" in done.stdout
    assert not list(out.rglob(".tmp-*"))


def test_every_held_out_case_is_scored_in_every_class(demo):
    out, _ = demo
    cases = list_scans(out / "cohort" / "imagesVal")
    with (out / "scores" / "scores.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert {(row["case"], int(row["label"])) for row in rows} == {
        (case, label) for case in cases for label in range(1, 15)
    }
    scores = json.loads((out / "scores" / "scores.json").read_text(encoding="utf-8"))
    assert scores["protocol"] == "flare23"
    assert list(scores["classes"]) == list(NAMES[1:])
    pictures = {path.stem for path in (out / "scores" / "overlays").glob("*.png")}
    assert pictures == set(cases)


def test_label_maps_lie_exactly_on_their_scans(demo):
    out, _ = demo
    scans = list_scans(out / "cohort" / "imagesVal")
    predictions = list_scans(out / "predictions")
    assert scans.keys() == predictions.keys()
    for case, scan in scans.items():
        theirs, ours = read_geometry(scan), read_geometry(predictions[case])
        assert ours.size_xyz == theirs.size_xyz
        for name in ("spacing_xyz", "origin_xyz", "direction"):
            np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), atol=1e-5)


def test_fused_labels_obey_each_cases_annotation(demo):
    out, _ = demo
    for case in read_cohort(out / "cohort.csv"):
        fused = read_labels(out / "fused" / f"{case.case}.nii.gz").array
        if case.label is None:
            continue
        partial = read_labels(case.label).array
        drawn = partial > 0
        if case.has_tumor_label:
            np.testing.assert_array_equal(fused[drawn], partial[drawn])
            assert ((fused == TUMOR) == (partial == TUMOR)).all()
            assert not (out / "tumor" / f"{case.case}.nii.gz").exists()
        else:
            tumor = read_labels(out / "tumor" / f"{case.case}.nii.gz").array > 0
            np.testing.assert_array_equal(fused == TUMOR, tumor)
            np.testing.assert_array_equal(fused[drawn & ~tumor], partial[drawn & ~tumor])
        for label in case.annotated - {TUMOR}:
            assert not ((fused == label) & (partial != label)).any()


def test_a_model_file_says_all_that_is_needed(demo):
    out, _ = demo
    teacher = read_card(out / "teacher" / "model.safetensors")
    student = read_card(out / "student" / "model.safetensors")
    assert (teacher.role, teacher.label_ids, teacher.spacing[0]) == ("teacher", (0, 14), 0.0)
    assert (student.role, student.labels) == ("student", NAMES)
    assert len(student.trained_on) == 64
    assert student.training["iterations"] == 3


def test_a_second_run_changes_nothing(demo):
    out, _ = demo
    keep = {name: state for name, state in hashes(out).items() if "report.json" not in name}
    done = flarekd(*demo_arguments(out))
    after = hashes(out)
    rewritten = {name for name, state in keep.items() if after[name] != state}
    # measuring is done anew, with the same result; nothing that is costly is
    assert {name.split("/")[0] for name in rewritten} <= {
        "scores", "fusion.json", "cohort.csv", "grouping.json",
    }  # fmt: skip
    assert all(
        after[name][0] == state[0]
        for name, state in keep.items()
        if name not in rewritten or name.endswith(("scores.json", "cohort.csv", "grouping.json"))
    )
    assert done.stderr.count("is up to date") == 2


def test_an_untrained_student_finds_nothing(demo, tmp_path):
    out, _ = demo
    copy = tmp_path / "demo"
    shutil.copytree(out, copy)
    flarekd(*demo_arguments(copy, "student.epochs=0"))
    scores = json.loads((copy / "scores" / "scores.json").read_text(encoding="utf-8"))
    assert scores["organs"]["dsc"] < 0.1


def test_another_seed_in_the_same_folder_is_refused(demo):
    out, _ = demo
    arguments = demo_arguments(out)
    arguments[arguments.index("--seed") + 1] = "4"
    done = flarekd(*arguments, check=False)
    assert done.returncode == 3
    assert "error:" in done.stderr
    assert str(out / "cohort") in done.stderr


@pytest.fixture
def users_folder(demo, tmp_path):
    """What a user has: scans, labels, and a configuration that names them."""
    out, _ = demo
    settings = {key: value for key, _, value in (setting.partition("=") for setting in TINY)}
    lines = ["base: quick", "data:"]
    names = {
        "images": "imagesTr",
        "labels": "labelsTr",
        "unlabeled": "imagesUnlabeled",
        "organ_pseudo": "organPseudo",
        "test_images": "imagesVal",
        "test_labels": "labelsVal",
    }
    lines += [f"  {key}: {out / 'cohort' / name}" for key, name in names.items()] + ["  out: mine"]
    for section in ("teacher", "student"):
        lines.append(f"{section}:")
        lines += [
            f"  {key.partition('.')[2]}: {value}"
            for key, value in settings.items()
            if key.startswith(section)
        ]
    path = tmp_path / "mine.yaml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_run_takes_a_users_folders_down_the_road(users_folder):
    done = flarekd("run", "--config", users_folder)
    mine = users_folder.parent / "mine"
    assert json.loads((mine / "scores" / "scores.json").read_text(encoding="utf-8"))["cases"] == 2
    before = hashes(mine)
    (mine / "predictions" / next(iter(list_scans(mine / "predictions").values())).name).unlink()
    done = flarekd("run", "--config", users_folder)
    assert "keeping" in done.stderr
    after = hashes(mine)
    changed = {name for name, state in before.items() if after[name] != state}
    changed = {name for name in changed if not name.endswith("report.json")}  # always anew
    assert {name.split("/")[0] for name in changed} <= {"scores", "predictions"}
    assert sum(name.startswith("predictions/phantom") for name in changed) == 1
