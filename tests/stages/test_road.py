"""`run` on a user's folders: every stage, past cases that fail, and only what is not done."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
import torch

from flarekd import config, road
from flarekd.cohort import read_cohort
from flarekd.errors import CasesFailedError, InputError
from flarekd.fusion import fuse, fuse_simple
from flarekd.imaging import store
from flarekd.imaging.files import list_scans, read_labels, read_volume, write_labels, write_volume
from flarekd.imaging.volume import Geometry, LabelMap, Volume
from flarekd.inference.predictor import load
from flarekd.modelfile import read_card
from flarekd.teacher.network import TeacherUNet

COS, SIN = np.cos(0.28), np.sin(0.28)
DIRECTION = (COS, SIN, 0, SIN, -COS, 0, 0, 0, 1)
GEOMETRY = Geometry((28, 24, 12), (0.75, 1.25, 3.0), (-31.0, 45.5, 112.0), DIRECTION)
THICK = Geometry((28, 24, 9), (0.75, 1.25, 5.0), (-31.0, 45.5, 112.0), DIRECTION)
TINY = """
base: quick
data:
  images: imagesTr
  labels: labelsTr
  unlabeled: imagesUnlabeled
  organ_pseudo: organPseudo
  test_images: imagesVal
  test_labels: labelsVal
  out: run
teacher:
  epochs: 0  # untrained networks find nonsense, which goes down the road as well
  iterations: 2
  batch: 2
  spacing: [1.5, 1.5]
  patch: [1, 32, 32]
  oversize: [1, 32, 32]
  channels: [2, 2, 4, 4]
student:
  epochs: 0
  iterations: 2
  batch: 1
  spacing: [4.0, 1.5, 1.5]
  patch: [8, 16, 16]
  oversize: [8, 16, 16]
  channels: [2, 2, 4, 4]
"""


pytestmark = pytest.mark.usefixtures("one_processor")


def label_map(path, ids, geometry):
    labels = np.zeros(geometry.shape_zyx, np.uint8)
    for index, label in enumerate(sorted(ids)):
        labels[2:8, 3 + 4 * index : 6 + 4 * index, 6:20] = label
    write_labels(path, LabelMap(labels, geometry))


def scan(folder, name, geometry=GEOMETRY):
    noise = np.random.default_rng(len(name)).normal(0, 100, geometry.shape_zyx)
    path = folder / f"{name}_0000.nii.gz"
    write_volume(path, Volume(noise.astype(np.int16), geometry))
    return path


def tear(path):
    """Cut a file's end off: its header can still be read."""
    path.write_bytes(path.read_bytes()[:-300])


@pytest.fixture
def folders(tmp_path):
    """Two cases with tumours (one of them thick), two without, one for testing."""
    for name, ids, geometry in (
        ("tumor_a", {14}, GEOMETRY),
        ("tumor_b", {14}, THICK),
        ("organs", {1, 2, 3, 4}, GEOMETRY),
    ):
        scan(tmp_path / "imagesTr", name, geometry)
        label_map(tmp_path / "labelsTr" / f"{name}.nii.gz", ids, geometry)
        label_map(tmp_path / "organPseudo" / f"{name}.nii.gz", {1, 5}, geometry)
    scan(tmp_path / "imagesUnlabeled", "plain")
    label_map(tmp_path / "organPseudo" / "plain.nii.gz", {1, 5}, GEOMETRY)
    scan(tmp_path / "imagesVal", "held")
    label_map(tmp_path / "labelsVal" / "held.nii.gz", {1, 5, 14}, GEOMETRY)
    (tmp_path / "mine.yaml").write_text(TINY)
    return tmp_path


def run(folders, *settings):
    road.run(config.load(folders / "mine.yaml", settings), "cpu")


NO_TEST = ("data.test_images=null", "data.test_labels=null")


def state(folder):
    return {
        path.relative_to(folder).as_posix(): path.stat().st_mtime_ns
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_run_takes_folders_to_scores(folders):
    run(folders, "teacher.epochs=1", "student.epochs=1")
    out = folders / "run"
    cases = {case.case: case.group for case in read_cohort(out / "cohort.csv")}
    assert cases == {"tumor_a": 1, "tumor_b": 1, "organs": 2, "plain": None}
    assert list(list_scans(out / "tumor")) == ["organs", "plain"]
    assert list(list_scans(out / "fused")) == ["organs", "plain", "tumor_a", "tumor_b"]
    assert read_card(out / road.TEACHER).training["cases"] == 2
    assert read_card(out / road.STUDENT).training["cases"] == 4
    assert list(list_scans(out / "predictions")) == ["held"]
    assert json.loads((out / "scores" / "scores.json").read_text())["cases"] == 1
    assert (out / "teacher" / "curves.png").exists()
    assert read_card(out / road.STUDENT).training["iterations"] == 2


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_the_teacher_keeps_each_cases_slice_spacing_in_training_and_inference(folders, role):
    run(folders, *NO_TEST)
    thick = store.open_case(folders / "run" / role / "store" / "tumor_b.b2nd")
    thin = store.open_case(folders / "run" / role / "store" / "tumor_a.b2nd")
    if role == "student":  # which has one spacing for all
        assert (thick.spacing_zyx, thin.spacing_zyx) == ((4.0, 1.5, 1.5),) * 2
        assert (thick.shape_zyx[0], thin.shape_zyx[0]) == (11, 9)  # 9·5/4, 12·3/4
        return
    assert (thick.spacing_zyx[0], thin.spacing_zyx[0]) == pytest.approx((5.0, 3.0))
    assert (thick.shape_zyx, thin.shape_zyx) == ((9, 20, 14), (12, 20, 14))
    teacher = load(folders / "run" / road.TEACHER, "teacher", TeacherUNet, torch.device("cpu"))
    for name, stored in (("tumor_b", thick), ("tumor_a", thin)):
        volume = read_volume(folders / "imagesTr" / f"{name}_0000.nii.gz")
        seen = teacher.network_input(volume).numpy()
        z, y, x = stored.shape_zyx
        hu, _ = stored.read((slice(0, z), slice(0, y), slice(0, x)))
        trained = teacher.card.statistics.normalize(hu)
        assert seen.shape == trained.shape
        # the store rounds to whole HU, no more
        assert np.abs(seen - trained).max() <= 0.5 / teacher.card.statistics.sd + 1e-5


def test_a_second_run_does_nothing_that_is_done(folders):
    run(folders)
    before = state(folders / "run")
    run(folders)
    after = state(folders / "run")
    changed = {name for name in before if after[name] != before[name]}
    assert after.keys() == before.keys()
    assert {name for name in changed if not name.startswith("scores/")} <= {
        "tumor/report.json",
        "predictions/report.json",
    }


def test_an_edited_cohort_is_kept_and_obeyed(folders, capsys):
    run(folders, *NO_TEST)
    path = folders / "run" / "cohort.csv"
    kept = [line for line in path.read_text().splitlines() if not line.startswith("tumor_b,")]
    path.write_text("\n".join(kept) + "\n")
    run(folders, *NO_TEST)
    assert f"keeping {path}" in capsys.readouterr().err
    assert len(read_cohort(path)) == 3
    assert read_card(folders / "run" / road.TEACHER).training["cases"] == 1
    assert read_card(folders / "run" / road.STUDENT).training["cases"] == 3


def test_a_scan_that_fails_is_passed_over_by_every_stage_and_named_at_the_end(folders):
    tear(scan(folders / "imagesUnlabeled", "torn"))
    with pytest.raises(CasesFailedError) as caught:
        run(folders)
    assert caught.value.exit_code == 4
    told = str(caught.value)
    assert "1 case not labelled: torn" in told
    assert "1 case not fused: torn: no tumour pseudo-label" in told
    assert "1 case left out of training: torn: no label in" in told
    out = folders / "run"
    assert "torn" in [case.case for case in read_cohort(out / "cohort.csv")]
    assert list(list_scans(out / "fused")) == ["organs", "plain", "tumor_a", "tumor_b"]
    assert read_card(out / road.STUDENT).training["cases"] == 4
    assert json.loads((out / "scores" / "scores.json").read_text())["cases"] == 1


def test_a_run_goes_on_when_the_torn_scan_is_mended(folders):
    path = scan(folders / "imagesUnlabeled", "torn")
    whole = path.read_bytes()
    label_map(folders / "organPseudo" / "torn.nii.gz", {1, 5}, GEOMETRY)
    tear(path)
    with pytest.raises(CasesFailedError):
        run(folders, *NO_TEST)
    path.write_bytes(whole)
    run(folders, *NO_TEST)
    out = folders / "run"
    assert "torn" in list_scans(out / "fused")
    assert read_card(out / road.STUDENT).training["cases"] == 5


def test_a_label_that_does_not_fit_its_scan_leaves_its_case_out_of_the_cohort_alone(folders):
    label_map(folders / "labelsTr" / "organs.nii.gz", {1}, THICK)
    with pytest.raises(
        CasesFailedError, match=r"organs\.nii\.gz: label: label and image do not match"
    ):
        run(folders, *NO_TEST)
    names = [case.case for case in read_cohort(folders / "run" / "cohort.csv")]
    assert names == ["tumor_a", "tumor_b", "plain"]
    assert read_card(folders / "run" / road.STUDENT).training["cases"] == 3
    with pytest.raises(CasesFailedError, match=r"1 case not in .*cohort\.csv since .*: organs"):
        run(folders, *NO_TEST)  # the table is kept, and what it lacks is named again


def test_a_test_scan_that_fails_scores_zero_and_the_others_are_scored(folders):
    tear(scan(folders / "imagesVal", "torn"))
    label_map(folders / "labelsVal" / "torn.nii.gz", {1}, GEOMETRY)
    with pytest.raises(CasesFailedError, match=r"1 of 2 scans failed: torn; 1 of 2 cases failed"):
        run(folders)
    scores = json.loads((folders / "run" / "scores" / "scores.json").read_text())
    assert (scores["cases"], scores["failed"]) == (2, ["torn"])


def test_the_fusion_of_the_configuration_is_the_one_used(folders):
    # with this seed the untrained teacher takes a third of the scan for tumour
    every = ("teacher.threshold=0.5", "teacher.min_ml=0")
    run(folders, "seed=2", "fusion=simple", *every, *NO_TEST)
    names = ("labelsTr", "run/tumor", "organPseudo", "run/fused")
    partial, tumor, organs, fused = (
        read_labels(folders / name / "organs.nii.gz").array for name in names
    )
    np.testing.assert_array_equal(fused, fuse_simple(partial, tumor > 0, organs))
    assert (fused != fuse(partial, tumor > 0, organs, {1, 2, 3, 4})).any()


def test_a_case_that_a_person_dropped_is_learned_from_no_more(folders, capsys):
    run(folders, "student.epochs=0", *NO_TEST)
    out = folders / "run"
    before = state(out / "teacher")
    (folders / "review.csv").write_text("case,decision\norgans,drop\nplain,keep\n")
    (folders / "mine.yaml").write_text(TINY.replace("data:", "data:\n  review: review.csv"))
    run(folders, "student.epochs=0", *NO_TEST)
    assert state(out / "teacher") == before
    assert list(list_scans(out / "fused")) == ["plain", "tumor_a", "tumor_b"]
    assert read_card(out / road.STUDENT).training["cases"] == 3
    assert "the review leaves out 1 case" in capsys.readouterr().err


def test_a_review_that_cannot_be_read_is_told_before_anything_is_trained(folders):
    (folders / "mine.yaml").write_text(TINY.replace("data:", "data:\n  review: review.csv"))
    with pytest.raises(InputError, match=r"no such file: '.*review\.csv' · download"):
        run(folders, *NO_TEST)
    assert not (folders / "run" / "teacher").exists()


def test_what_is_asked_of_labels_is_passed_on_to_the_verbs(folders):
    asked = ["quality.drop=[cases plain case distance > -1]", "quality.ignore_mm=0"]
    asked += ["quality.provenance=true", "quality.probability=true"]
    out = folders / "run"
    run(folders, *NO_TEST, *asked)
    assert (out / "tumor" / "quality.csv").exists()
    assert "plain" in list_scans(out / "tumor" / "probability")
    assert list(list_scans(out / "fused")) == ["organs", "tumor_a", "tumor_b"]
    assert (out / "fused" / "dropped.csv").read_text(encoding="utf-8").count("plain") == 2
    assert "organs" in list_scans(out / "fused" / "provenance")
    assert (read_labels(out / "fused" / "organs.nii.gz").array == 255).any()


def test_other_settings_say_which_they_are_and_keep_the_models_before(folders, capsys):
    run(folders, *NO_TEST)
    out = folders / "run"
    before = read_card(out / road.TEACHER).training
    capsys.readouterr()
    run(folders, "teacher.threshold=0.5", *NO_TEST)  # no other training
    assert "starting anew" not in capsys.readouterr().err
    run(folders, "teacher.batch=1", *NO_TEST)
    told = " ".join(capsys.readouterr().err.split())
    assert "starting anew since teacher.batch is 1 and was 2: the model that is there" in told
    assert read_card(out / "teacher" / "model-before.safetensors").training == before
    assert read_card(out / road.TEACHER).training["identity"] != before["identity"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("quality.drop=[case distance]", r"quality\.drop: 'case distance' is no rule"),
        ("data.against=gone.safetensors", r"'gone\.safetensors' is not a model file"),
        ("data.previous=[gone]", r"data\.previous: no folder 'gone'"),
        ("data.previous=[.]", r"data\.previous would do nothing: .* · set quality\.figures: true"),
        ("quality.drop=[organs distance > 4]", r"quality\.drop: .*quality\.csv.*pseudo-organs"),
    ],
)
def test_slips_are_told_before_anything_is_made(folders, setting, message):
    with pytest.raises(InputError, match=message):
        run(folders, *NO_TEST, setting)
    assert not (folders / "run").exists()


def test_organs_are_learned_first_where_there_are_no_organ_pseudo_labels(folders, capsys):
    own = ("data.organ_pseudo=null", *NO_TEST)
    run(folders, "seed=1", *own)
    out = folders / "run"
    card = read_card(out / road.ORGAN_TEACHER)
    assert (card.training["cases"], len(card.labels)) == (1, 14)
    assert list(list_scans(out / "organs")) == ["organs", "plain", "tumor_a", "tumor_b"]
    found = {name: read_labels(out / name / "tumor_a.nii.gz").array for name in ("organs", "fused")}
    assert found["organs"].any()
    drawn = read_labels(folders / "labelsTr" / "tumor_a.nii.gz").array
    np.testing.assert_array_equal(found["fused"], np.where(drawn, drawn, found["organs"]))
    before = state(out)
    run(folders, "seed=1", *own)
    changed = {name for name, when in state(out).items() if before.get(name) != when}
    assert changed <= {"tumor/report.json", "organs/report.json"}


def test_figures_of_tumours_go_by_organ_pseudo_labels_of_ones_own(folders):
    """They are made first; a rule on organs asks for their figures, and for those alone."""
    # with this seed the untrained teacher takes a third of the scan for tumour
    own = ["seed=2", "data.organ_pseudo=null", "teacher.threshold=0.5", "teacher.min_ml=0"]
    out = folders / "run"
    run(folders, *own, *NO_TEST, "quality.drop=[cases plain organs organs > -1]")
    assert list(list_scans(out / "fused")) == ["organs", "tumor_a", "tumor_b"]
    assert (out / "organs" / "quality.csv").exists()
    assert not (out / "tumor" / "quality.csv").exists()
    run(folders, *own, *NO_TEST, "quality.figures=true")
    table = (out / "tumor" / "quality.csv").read_text(encoding="utf-8")
    rows = {row["case"]: row for row in csv.DictReader(io.StringIO(table))}
    assert int(rows["plain"]["components"]) > 0
    assert rows["plain"]["off_organ"] != ""


@pytest.mark.parametrize("lacks", ["nothing", "a teacher"])
def test_organs_are_not_learned_where_none_are_lacking_or_nobody_drew_one(folders, lacks):
    if lacks == "a teacher":
        (folders / "labelsTr" / "organs.nii.gz").unlink()
        run(folders, "data.organ_pseudo=null", *NO_TEST)
    else:
        run(folders, *NO_TEST)
    assert not (folders / "run" / "organ-teacher").exists()
    assert not (folders / "run" / "organs").exists()
    assert (folders / "run" / road.STUDENT).exists()


def test_run_without_a_section_of_data_is_refused():
    with pytest.raises(InputError, match="no section 'data' · name your folders there"):
        road.run(config.load(config.builtin("quick")), "cpu")


def test_a_demo_without_a_section_of_phantoms_is_refused(tmp_path):
    settings = config.load(config.builtin("quick")).model_copy(update={"phantoms": None})
    with pytest.raises(InputError, match="no section 'phantoms'"):
        road.demo(tmp_path / "demo", "quick", settings)
    assert not (tmp_path / "demo").exists()
