"""`train_teacher` and `train_student`: whom they train on, with what, and what they leave."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from flarekd import config
from flarekd.cohort import Case, format_cohort
from flarekd.errors import CasesFailedError, InputError
from flarekd.imaging import store
from flarekd.imaging.files import read_labels, read_volume, write_labels, write_volume
from flarekd.imaging.volume import Geometry, LabelMap, Volume
from flarekd.labels import NAMES
from flarekd.modelfile import read_card, read_weights
from flarekd.stages.train_organs import train_organs
from flarekd.stages.train_student import train_student
from flarekd.stages.train_teacher import train_teacher
from flarekd.student.network import StudentUNet
from flarekd.teacher.network import TeacherUNet
from flarekd.training.log import read_log

COS, SIN = np.cos(0.28), np.sin(0.28)
GEOMETRY = Geometry(
    (28, 24, 12), (0.75, 1.25, 3.0), (-31.0, 45.5, 112.0), (COS, SIN, 0, SIN, -COS, 0, 0, 0, 1)
)
TINY = [
    "seed=6",
    "teacher.epochs=2",
    "teacher.iterations=2",
    "teacher.batch=2",
    "teacher.spacing=[1.25, 0.75]",
    "teacher.patch=[1, 32, 32]",
    "teacher.oversize=[1, 32, 32]",
    "teacher.channels=[2, 2, 4, 4]",
    "teacher.checkpoint_minutes=0",
    "student.epochs=2",
    "student.iterations=2",
    "student.batch=1",
    "student.spacing=[3.0, 1.25, 0.75]",
    "student.patch=[8, 16, 16]",
    "student.oversize=[8, 16, 16]",
    "student.channels=[2, 2, 4, 4]",
    "student.checkpoint_minutes=0",
]


pytestmark = pytest.mark.usefixtures("one_processor")


VERBS = {"teacher": train_teacher, "organs": train_organs}


class Cohort:
    """A cohort.csv in the making, its scans, and both trainings on it."""

    def __init__(self, path):
        self.path, self.cases = path, []

    def add(self, name, ids, split="train", annotated=None):
        """A case whose label file holds a box of each id; ids None leaves it unlabelled."""
        labels = np.zeros(GEOMETRY.shape_zyx, np.uint8)
        for index, label in enumerate(sorted(ids or ())):
            labels[2:9, 3 + 4 * index : 6 + 4 * index, 6:20] = label
        noise = np.random.default_rng(len(self.cases)).normal(0, 20, labels.shape)
        image, label = self.image(name), self.path / "labels" / f"{name}.nii.gz"
        write_volume(image, Volume((noise + 9 * labels).astype(np.int16), GEOMETRY))
        if ids is not None:
            write_labels(label, LabelMap(labels, GEOMETRY))
            write_labels(self.fused(name), LabelMap(labels, GEOMETRY))
        vouched = frozenset(ids or () if annotated is None else annotated)
        case = Case(name, image, split, annotated=vouched, label=label if ids is not None else None)
        self.cases.append(case)

    def image(self, name):
        return self.path / "images" / f"{name}_0000.nii.gz"

    def fused(self, name):
        return self.path / "fused" / f"{name}.nii.gz"

    def train(self, role, *settings, resume="never", init=None):
        (self.path / "cohort.csv").write_text(format_cohort(self.cases, self.path))
        resolved = config.load(config.builtin("quick"), [*TINY, *settings])
        table, out = self.path / "cohort.csv", self.path / role
        if role in VERBS:
            return VERBS[role](table, out, resolved, "cpu", resume, init=init)
        fused = self.path / "fused"
        return train_student(
            table, fused, out, resolved, device_name="cpu", resume=resume, init=init
        )

    def stored(self, role):
        folder = self.path / role / "store"
        return {path.stem: store.open_case(path) for path in sorted(folder.glob("*.b2nd"))}


@pytest.fixture
def cohort(tmp_path):
    return Cohort(tmp_path)


@pytest.fixture
def mixed(cohort):
    """Every kind of case there is."""
    cohort.add("tumor_1", {14})
    cohort.add("tumor_4", {1, 3, 14})
    cohort.add("organs", {1, 2, 3, 4})
    cohort.add("doubted", {1, 14}, annotated={1})  # a person took the tumour back in cohort.csv
    cohort.add("plain", None)
    cohort.add("held", {1, 14}, split="val")
    return cohort


def content(case):
    z, y, x = case.shape_zyx
    return case.read((slice(0, z), slice(0, y), slice(0, x)))


def test_the_teacher_learns_from_training_cases_with_annotated_tumours_alone(mixed):
    path = mixed.train("teacher", "teacher.epochs=0")
    assert set(mixed.stored("teacher")) == {"tumor_1", "tumor_4"}
    assert read_card(path).training["cases"] == 2


def test_the_teachers_target_is_tumour_against_the_rest(mixed):
    mixed.train("teacher", "teacher.epochs=0")
    for name, case in mixed.stored("teacher").items():
        image, labels = content(case)
        drawn = read_labels(mixed.path / "labels" / f"{name}.nii.gz").array
        np.testing.assert_array_equal(labels, drawn == 14)
        assert labels.sum() == 7 * 3 * 14
        np.testing.assert_array_equal(image, read_volume(mixed.image(name)).array)


def test_the_student_learns_all_classes_of_the_training_cases_with_fused_labels(mixed):
    with pytest.raises(CasesFailedError) as caught:
        mixed.train("student", "student.epochs=0")
    assert str(caught.value).startswith("1 case left out of training: plain: no label in ")
    assert "run `flarekd fuse`" in str(caught.value)
    stored = mixed.stored("student")
    assert set(stored) == {"tumor_1", "tumor_4", "organs", "doubted"}
    for name, case in stored.items():
        np.testing.assert_array_equal(content(case)[1], read_labels(mixed.fused(name)).array)
    assert read_card(mixed.path / "student" / "model.safetensors").training["cases"] == 4


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_a_training_leaves_configuration_log_curves_checkpoint_and_model(cohort, role):
    cohort.add("case_a", {1, 14})
    path = cohort.train(role)
    assert path == cohort.path / role / "model.safetensors"
    resolved = config.load(path.with_name("config.yaml"))
    assert resolved == config.load(config.builtin("quick"), TINY)
    assert [record["epoch"] for record in read_log(path.with_name("log.jsonl"))] == [1, 2]
    assert path.with_name("curves.png").read_bytes().startswith(b"\x89PNG")
    assert path.with_name("checkpoint.safetensors").exists()


def test_the_teachers_card_is_what_pseudo_tumor_needs(cohort):
    cohort.add("case_a", {1, 14})
    path = cohort.train(
        "teacher",
        "teacher.epochs=0",
        "teacher.probe=center",
        "teacher.min_foreground=3",
        "teacher.threshold=0.9",
        "teacher.min_ml=2",
    )
    card = read_card(path)
    assert (card.role, card.labels, card.label_ids) == ("teacher", ("background", "tumor"), (0, 14))
    assert (card.spacing, card.patch) == ((0.0, 1.25, 0.75), (1, 32, 32))
    expected = {"probe": "center", "min_foreground": 3, "threshold": 0.9, "min_ml": 2.0}
    assert card.inference == expected
    assert card.network["channels"] == [2, 2, 4, 4]
    TeacherUNet(**card.network).load_state_dict(read_weights(path))


def test_the_students_card_is_what_infer_needs(cohort):
    cohort.add("case_a", {1, 14})
    path = cohort.train(
        "student", "student.epochs=0", "student.windows=efficient", "student.step=0.75"
    )
    card = read_card(path)
    assert (card.role, card.labels, card.label_ids) == ("student", NAMES, tuple(range(15)))
    assert (card.spacing, card.patch) == ((3.0, 1.25, 0.75), (8, 16, 16))
    assert card.inference == {"step": 0.75, "windows": "efficient"}
    StudentUNet(**card.network).load_state_dict(read_weights(path))


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_zero_epochs_write_the_untrained_network(cohort, role):
    cohort.add("case_a", {1, 14})
    path = cohort.train(role, f"{role}.epochs=0")
    torch.manual_seed(6)
    build = TeacherUNet if role == "teacher" else StudentUNet
    expected = build(**read_card(path).network).state_dict()
    weights = read_weights(path)
    assert weights.keys() == expected.keys()
    assert all(torch.equal(value, expected[name]) for name, value in weights.items())


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_a_second_run_is_up_to_date_and_touches_nothing(cohort, role, capsys):
    cohort.add("case_a", {1, 14})
    cohort.train(role, f"{role}.epochs=1")
    files = [path for path in (cohort.path / role).rglob("*") if path.is_file()]
    before = [path.stat().st_mtime_ns for path in files]
    capsys.readouterr()
    cohort.train(role, f"{role}.epochs=1", resume="may")
    assert "model.safetensors is up to date" in capsys.readouterr().err
    assert [path.stat().st_mtime_ns for path in files] == before


def test_a_changed_label_remakes_its_part_of_the_store_and_the_model(cohort):
    cohort.add("case_a", {1, 14})
    cohort.add("case_b", {1, 14})
    path = cohort.train("student", "student.epochs=0")
    files = [path, *(cohort.path / "student" / "store" / f"case_{name}.b2nd" for name in "ab")]
    before = [file.stat().st_mtime_ns for file in files]
    time.sleep(0.01)
    array = np.full(GEOMETRY.shape_zyx, 5, np.uint8)
    write_labels(cohort.fused("case_b"), LabelMap(array, GEOMETRY))
    cohort.train("student", "student.epochs=0")
    after = [file.stat().st_mtime_ns for file in files]
    assert [new > old for new, old in zip(after, before, strict=True)] == [True, False, True]
    assert (content(cohort.stored("student")["case_b"])[1] == 5).all()


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_a_broken_case_is_named_and_the_others_train(cohort, role):
    cohort.add("case_a", {1, 14})
    cohort.add("case_b", {1, 14})
    image = cohort.image("case_b")
    image.write_bytes(image.read_bytes()[:-300])
    with pytest.raises(CasesFailedError, match="1 case left out of training: case_b: ") as e:
        cohort.train(role, f"{role}.epochs=1")
    assert e.value.exit_code == 4
    assert image.name in str(e.value)
    card = read_card(cohort.path / role / "model.safetensors")
    assert (card.training["cases"], card.training["iterations"]) == (1, 2)


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_resume_without_a_checkpoint_is_refused(cohort, role):
    cohort.add("case_a", {1, 14})
    with pytest.raises(InputError, match=r"no checkpoint in .* · train without --resume"):
        cohort.train(role, resume="must")


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_resume_with_other_settings_is_refused(cohort, role):
    cohort.add("case_a", {1, 14})
    cohort.train(role, f"{role}.epochs=1")
    with pytest.raises(InputError, match="comes from other settings or other data"):
        cohort.train(role, f"{role}.epochs=1", f"{role}.optimizer.lr=0.001", resume="must")


def test_a_teacher_without_any_annotated_tumour_is_refused(cohort):
    cohort.add("organs", {1, 2, 3, 4})
    cohort.add("held", {14}, split="val")
    with pytest.raises(InputError, match=r"no training case of .* has annotated tumours"):
        cohort.train("teacher")
    assert not (cohort.path / "teacher").exists()


def test_a_student_without_any_fused_label_is_refused(cohort):
    cohort.add("plain", None)
    (cohort.path / "fused").mkdir()
    with pytest.raises(InputError, match=r"no training case of .* has a label in .*fused"):
        cohort.train("student")
    assert not (cohort.path / "student").exists()


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_a_training_starts_from_another_model_file(cohort, role, capsys):
    cohort.add("a", {1, 14})
    first = cohort.train(role, f"{role}.epochs=0")
    start = first.rename(cohort.path / "start.safetensors")
    given = read_weights(start)
    capsys.readouterr()
    path = cohort.train(role, f"{role}.epochs=0", "seed=7", init=start)
    assert all(torch.equal(value, given[name]) for name, value in read_weights(path).items())
    assert f"{len(given)} of {len(given)} tensors start from" in capsys.readouterr().err


@pytest.mark.parametrize("role", ["teacher", "student"])
def test_a_start_that_is_no_model_is_refused_before_anything_is_written(cohort, role):
    cohort.add("a", {1, 14})
    with pytest.raises(InputError, match="is not a model file"):
        cohort.train(role, init=cohort.image("a"))
    assert not (cohort.path / role).exists()


def test_a_case_that_fusion_left_out_on_purpose_is_not_missed(cohort):
    cohort.add("organs", {1, 2})
    cohort.add("doubtful", {1, 2})
    cohort.add("lost", {1, 2})
    for name in ("doubtful", "lost"):
        cohort.fused(name).unlink()
    (cohort.path / "fused" / "dropped.csv").write_text(
        "case,component,volume_ml,rule,value\n"
        "doubtful,,3,case confidence < 0.5,0.4\n"
        "lost,2,3,component confidence < 0.5,0.4\n"  # a tumour of it alone
    )
    with pytest.raises(CasesFailedError, match=r"^1 case left out of training: lost: no la"):
        cohort.train("student")
    assert list(cohort.stored("student")) == ["organs"]


def test_nothing_is_learned_of_what_is_to_be_ignored(cohort):
    cohort.add("organs", {1, 2})
    labels = read_labels(cohort.fused("organs"))
    labels.array[:] = 255
    write_labels(cohort.fused("organs"), labels)
    untrained = read_weights(cohort.train("student", "student.epochs=0"))
    still = ("student.epochs=1", "student.optimizer.weight_decay=0")
    trained = read_weights(cohort.train("student", *still))
    assert cohort.stored("student")["organs"].ignored == labels.array.size
    assert all(torch.equal(trained[name], untrained[name]) for name in untrained)
    labels.array[:, 12:] = 1
    write_labels(cohort.fused("organs"), labels)
    trained = read_weights(cohort.train("student", *still))
    assert not all(torch.equal(trained[name], untrained[name]) for name in untrained)


def test_organs_are_learned_from_training_cases_with_annotated_organs_alone(mixed):
    path = mixed.train("organs", "student.epochs=0")
    stored = mixed.stored("organs")
    assert set(stored) == {"tumor_4", "organs", "doubted"}
    for name, known in (("tumor_4", {1, 3}), ("organs", {1, 2, 3, 4}), ("doubted", {1})):
        drawn = read_labels(mixed.path / "labels" / f"{name}.nii.gz").array
        expected = np.where(np.isin(drawn, list(known)), drawn, 0)
        expected[drawn == 14] = 255  # in some organ or in none: nobody has said
        np.testing.assert_array_equal(content(stored[name])[1], expected)
    assert read_card(path).training["cases"] == 3


def test_the_organ_networks_card_is_what_pseudo_organs_and_infer_need(cohort):
    cohort.add("case_a", {1, 14})
    path = cohort.train("organs", "student.epochs=0", "student.step=0.75")
    card = read_card(path)
    assert (card.role, card.labels, card.label_ids) == ("student", NAMES[:14], tuple(range(14)))
    assert (card.spacing, card.patch) == ((3.0, 1.25, 0.75), (8, 16, 16))
    assert card.inference == {"step": 0.75, "windows": "full"}
    StudentUNet(**card.network).load_state_dict(read_weights(path))


def test_a_training_of_organs_resumes_and_is_done_once(cohort, capsys):
    cohort.add("a", {1, 2, 14})
    cohort.add("b", {1, 3})
    path = cohort.train("organs")
    (_, last) = read_log(path.with_name("log.jsonl"))
    assert len(last["dsc"]) == 13
    whole = {name: value.clone() for name, value in read_weights(path).items()}
    path.unlink()
    path.with_name("checkpoint-previous.safetensors").replace(
        path.with_name("checkpoint.safetensors")
    )
    again = read_weights(cohort.train("organs", resume="must"))
    assert all(torch.equal(value, again[name]) for name, value in whole.items())
    capsys.readouterr()
    cohort.train("organs", resume="may")
    assert "model.safetensors is up to date" in capsys.readouterr().err


def test_another_column_annotated_is_another_training_of_organs(cohort):
    cohort.add("a", {1, 2})
    cohort.train("organs", "student.epochs=1")
    cohort.cases[0] = replace(cohort.cases[0], annotated=frozenset({1, 2, 9}))
    with pytest.raises(InputError, match="comes from other settings or other data"):
        cohort.train("organs", "student.epochs=1", resume="must")


def test_organs_that_nobody_annotated_are_told(cohort, capsys):
    cohort.add("a", set(range(1, 9)))
    cohort.add("b", set(range(9, 13)), annotated=range(10, 13))
    cohort.train("organs", "student.epochs=0")
    told = " ".join(capsys.readouterr().err.split())
    assert "no training case has gallbladder, left_kidney annotated: the network will" in told


def test_organs_without_an_annotated_organ_are_refused(cohort):
    cohort.add("tumor", {14})
    cohort.add("plain", None)
    cohort.add("held", {1}, split="val")
    with pytest.raises(InputError, match=r"no training case of .* has annotated organs · cases wi"):
        cohort.train("organs")
    assert not (cohort.path / "organs").exists()
