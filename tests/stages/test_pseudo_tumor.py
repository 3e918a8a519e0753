"""`pseudo_tumor` on files: whom it labels, where the labels lie, and what it reports."""

from __future__ import annotations

import csv
import io
import json
import re

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 (its usual name)
import torch
from scipy import ndimage
from tests.end_to_end.command import flarekd
from tests.training.test_ranks import forked

from flarekd import __version__
from flarekd.cohort import Case, format_cohort
from flarekd.errors import CasesFailedError, InputError, UsageError
from flarekd.imaging.files import read_labels, read_volume, write_labels, write_volume
from flarekd.imaging.volume import Geometry, LabelMap, Volume
from flarekd.inference.predictor import load
from flarekd.modelfile import ModelCard, file_hash, save_model
from flarekd.quality import round_uncertainty
from flarekd.stages.fuse import Extras as FusionExtras
from flarekd.stages.fuse import fuse_labels
from flarekd.stages.pseudo_tumor import Extras, SliceSettings, pseudo_tumor
from flarekd.teacher.network import TeacherUNet
from flarekd.teacher.windows import Probe, segment_slices

COS, SIN = np.cos(0.28), np.sin(0.28)
GEOMETRY = Geometry(
    (28, 24, 12), (0.75, 1.25, 3.0), (-31.0, 45.5, 112.0), (COS, SIN, 0, SIN, -COS, 0, 0, 0, 1)
)
VOXEL_ML = 0.75 * 1.25 * 3.0 / 1000


def teacher(path, seed=1, min_foreground=1, **inference):
    """A teacher with random weights."""
    torch.manual_seed(seed)
    arguments = {"classes": 2, "channels": (2, 2, 4, 4), "attention": "published"}
    weights = TeacherUNet(**arguments).state_dict()
    card = ModelCard(
        role="teacher",
        network=arguments,
        labels=("background", "tumor"),
        label_ids=(0, 14),
        spacing=(0.0, 1.0, 1.0),
        patch=(1, 16, 16),
        intensity=(-200.0, 300.0, 50.0, 100.0),
        inference={"probe": "top-left", "min_foreground": min_foreground, **inference},
    )
    save_model(path, weights, card)
    return path


class Cohort:
    """A cohort.csv in the making and the teacher's work on it."""

    def __init__(self, path, model):
        self.path, self.cases, self.model = path, [], model

    def add(self, name, ids=None, split="train"):
        noise = np.random.default_rng(len(self.cases)).normal(50, 100, GEOMETRY.shape_zyx)
        image = self.path / "images" / f"{name}_0000.nii.gz"
        write_volume(image, Volume(noise.astype(np.int16), GEOMETRY))
        label = None
        if ids is not None:
            label = self.path / "labels" / f"{name}.nii.gz"
            write_labels(label, LabelMap(np.zeros(GEOMETRY.shape_zyx, np.uint8), GEOMETRY))
        vouched = frozenset(ids or ())
        self.cases.append(Case(name, image, split, annotated=vouched, label=label))

    def run(self, out="tumor", scheduler=None, settings=None, **extras):
        (self.path / "cohort.csv").write_text(format_cohort(self.cases, self.path))
        beside = Extras(**extras)
        table = self.path / "cohort.csv"
        how = {"scheduler": scheduler, "settings": settings}
        pseudo_tumor(table, self.model, self.path / out, "cpu", beside, **how)

    def table(self, name, out="tumor"):
        text = (self.path / out / name).read_text(encoding="utf-8")
        return list(csv.DictReader(io.StringIO(text)))

    def report(self):
        return json.loads((self.path / "tumor" / "report.json").read_text(encoding="utf-8"))

    def written(self):
        folder = self.path / "tumor"
        return {path.name[:-7]: path.stat().st_mtime_ns for path in folder.glob("*.nii.gz")}

    def labels(self, name):
        return read_labels(self.path / "tumor" / f"{name}.nii.gz").array


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A teacher's file, to be read; the graph that the first test makes lies beside it."""
    return teacher(tmp_path_factory.mktemp("model") / "teacher.safetensors")


@pytest.fixture(scope="module")
def other(model):
    """Another teacher's."""
    return teacher(model.with_name("other.safetensors"), seed=2)


@pytest.fixture
def cohort(tmp_path, model):
    return Cohort(tmp_path, model)


def test_processes_of_torchrun_share_the_cases_and_the_first_tells_of_all(cohort, model, other):
    """Its ranks are forked here; ``test_ranks.py`` has the real torchrun."""
    for name in ("a", "b", "c", "torn"):
        cohort.add(name)
    cohort.run("alone", quality=True)
    cohort.cases[3].image.write_bytes(b"no scan")
    verb = ["pseudo-tumor", "--cohort", cohort.path / "cohort.csv", "--model", model, "--quality"]
    verb += ["--out", cohort.path / "tumor", "--device", "cpu"]
    said = forked(cohort.path, *verb, statuses=[4, 0])
    assert "1 case not labelled: torn" in said
    assert said.count("figures of 3 pseudo-labels") == 1
    assert [record["case"] for record in cohort.report()["cases"]] == ["a", "b", "c"]
    assert set(cohort.report()["failed"]) == {"torn"}
    assert cohort.table("quality.csv") == cohort.table("quality.csv", "alone")[:3]
    before = cohort.written()
    forked(cohort.path, *verb, statuses=[4, 0])
    assert cohort.written() == before
    drawn = LabelMap(np.full(GEOMETRY.shape_zyx, 14, np.uint8), GEOMETRY)
    write_labels(cohort.path / "tumor" / "c.nii.gz", drawn)
    before = cohort.written()
    verb[verb.index(model)] = other
    said = forked(cohort.path, *verb, statuses=[3, 3])  # all are refused, before one has begun
    assert "1 file would be replaced that somebody changed" in said
    assert cohort.written() == before


def test_organs_of_another_folder_are_those_that_figures_go_by(cohort):
    cohort.add("a")
    cohort.run("without", quality=True)
    (row,) = cohort.table("quality.csv", "without")
    assert (row["off_organ"], int(row["components"]) > 0) == ("", True)
    labels = LabelMap(np.full(GEOMETRY.shape_zyx, 3, np.uint8), GEOMETRY)
    write_labels(cohort.path / "organs" / "a.nii.gz", labels)
    cohort.run(quality=True, organs=cohort.path / "organs")
    assert cohort.table("quality.csv")[0]["off_organ"] == "0"
    assert {part["organ"] for part in cohort.table("components.csv")} == {"spleen"}
    with pytest.raises(InputError, match=r"no folder '.*gone' · run `flarekd pseudo-organs`"):
        cohort.run(quality=True, organs=cohort.path / "gone")


def test_an_earlier_round_that_is_not_there_is_told_before_anything_is_made(cohort):
    cohort.add("a")
    with pytest.raises(InputError, match=r"no folder '.*round1' of an earlier round"):
        cohort.run(quality=True, previous=(cohort.path / "round1",))
    assert not (cohort.path / "tumor").exists()


def test_only_training_cases_whose_label_does_not_vouch_for_tumours_are_labelled(cohort):
    cohort.add("tumor_1", {14})
    cohort.add("tumor_4", {1, 2, 3, 4, 13, 14})
    cohort.add("organs", {1, 2, 3, 4})
    cohort.add("plain")
    cohort.add("held", split="val")
    cohort.run()
    assert set(cohort.written()) == {"organs", "plain"}
    assert [record["case"] for record in cohort.report()["cases"]] == ["organs", "plain"]


def test_the_pseudo_label_is_what_the_network_says_as_14_on_the_scans_own_grid(cohort):
    cohort.add("plain")
    cohort.run()
    image = cohort.cases[0].image
    ready = load(cohort.model, "teacher", TeacherUNet, torch.device("cpu"))
    tensor = ready.network_input(read_volume(image))
    assert tensor.shape == (12, 30, 21)  # slices as they are, 1 mm in the plane
    found = segment_slices(ready.network, tensor, (16, 16), (24, 28), probe=Probe(), batch=5)
    labels = cohort.labels("plain")
    np.testing.assert_array_equal(labels, 14 * found.labels)
    assert set(np.unique(labels)) == {0, 14}
    scan, result = (
        sitk.ReadImage(str(path)) for path in (image, cohort.path / "tumor" / "plain.nii.gz")
    )
    assert result.GetPixelID() == sitk.sitkUInt8
    assert result.GetSize() == scan.GetSize()
    assert result.GetSpacing() == scan.GetSpacing()
    assert result.GetOrigin() == scan.GetOrigin()
    assert result.GetDirection() == scan.GetDirection()


def test_the_report_tells_model_volumes_and_windows(cohort):
    cohort.add("case_a")
    cohort.add("case_b", {1})
    cohort.run()
    report = cohort.report()
    assert report["flarekd"] == __version__
    assert report["model"] == str(cohort.model)
    assert report["model_sha256"] == file_hash(cohort.model)
    assert report["failed"] == {}
    for record in report["cases"]:
        count = np.count_nonzero(cohort.labels(record["case"]))
        assert record["tumor_ml"] == pytest.approx(count * VOXEL_ML, abs=5e-4)
        assert record["windows_total"] == 12 * 4
        assert 12 <= record["windows_run"] <= record["windows_total"]
        assert "key" not in record


def test_where_the_probe_finds_too_little_the_other_windows_are_not_run(cohort):
    cohort.model = teacher(cohort.path / "shy.safetensors", min_foreground=257)
    cohort.add("plain")
    cohort.run()
    (record,) = cohort.report()["cases"]
    assert (record["windows_run"], record["windows_total"]) == (12, 48)  # 16×16 hold no 257 pixels


LOOKING = [
    {"probe": "center"},
    {"min_foreground": 0},
    {"threshold": 0.6, "min_ml": 40 * VOXEL_ML},
]


@pytest.mark.parametrize("settings", LOOKING, ids=" ".join)
def test_what_is_asked_of_a_teacher_is_what_its_card_could_say(cohort, settings):
    cohort.add("plain")
    cohort.model = teacher(cohort.path / "shy.safetensors", min_foreground=257)
    cohort.run()
    usual = cohort.labels("plain")
    cohort.run(settings=SliceSettings(**settings))
    asked = cohort.labels("plain")
    assert (asked != usual).any()
    assert cohort.report().items() >= settings.items()
    # the label was made anew by the same command; it is kept as long as the same is asked
    before = cohort.written()
    cohort.run(settings=SliceSettings(**settings))
    assert cohort.written() == before
    said = {"min_foreground": 257} | settings
    cohort.model = teacher(cohort.path / "other.safetensors", **said)
    cohort.run("by card")
    assert (read_labels(cohort.path / "by card" / "plain.nii.gz").array == asked).all()


def test_asking_for_what_the_card_says_labels_nothing_anew(cohort):
    cohort.add("plain")
    cohort.run()
    before = cohort.written()
    cohort.run(settings=SliceSettings("top-left", 1, 0.5, 0.0))
    assert cohort.written() == before


def test_the_verb_asks_for_it(cohort, model):
    cohort.add("plain")
    cohort.run(settings=SliceSettings("center", 0, 0.6, 0.01))
    before = cohort.written()
    verb = ["pseudo-tumor", "--cohort", cohort.path / "cohort.csv", "--model", model]
    verb += ["--out", cohort.path / "tumor", "--device", "cpu"]
    asked = ["--probe", "center", "--min-foreground", "0", "--threshold", "0.6", "--min-ml", "0.01"]
    flarekd(*verb, *asked)
    assert cohort.written() == before
    found = {name: cohort.report()[name] for name in ("probe", "min_foreground", "threshold")}
    assert found == {"probe": "center", "min_foreground": 0, "threshold": 0.6}
    refused = flarekd(*verb, "--threshold", "1", check=False)
    assert refused.returncode == 2
    assert "threshold: Input should be less than 1" in refused.stderr


@pytest.mark.parametrize(
    "setting", [{"probe": "middle"}, {"min_foreground": -1}, {"threshold": 0.0}, {"min_ml": -2.0}]
)
def test_what_no_card_could_say_is_refused(setting):
    with pytest.raises(UsageError, match=next(iter(setting))):
        SliceSettings(**setting)


def test_the_teachers_card_says_how_sure_and_how_large_a_tumour_must_be(cohort):
    cohort.add("plain")
    cohort.run("all")
    whole = read_labels(cohort.path / "all" / "plain.nii.gz").array > 0
    least = 40 * VOXEL_ML
    cohort.model = teacher(cohort.path / "strict.safetensors", threshold=0.6, min_ml=least)
    cohort.run("some")
    some = read_labels(cohort.path / "some" / "plain.nii.gz").array > 0
    assert 0 < some.sum() < whole.sum()
    assert not (some & ~whole).any()
    components, _ = ndimage.label(some, np.ones((3, 3, 3)))
    assert np.bincount(components.ravel())[1:].min() >= 40
    report = json.loads((cohort.path / "some" / "report.json").read_text())
    assert report["cases"][0]["dropped"] > 0


def test_a_second_run_labels_nothing_and_reports_all(cohort):
    cohort.add("case_a")
    cohort.add("case_b")
    cohort.run()
    before, report = cohort.written(), cohort.report()
    cohort.run()
    assert cohort.written() == before
    assert cohort.report() == report


def test_another_teacher_labels_anew(cohort, other):
    cohort.add("case_a")
    cohort.run()
    before = cohort.labels("case_a")
    cohort.model = other
    cohort.run()
    assert (cohort.labels("case_a") != before).any()
    assert cohort.report()["model"] == str(other)


def test_a_changed_scan_is_labelled_anew_alone(cohort):
    cohort.add("case_a")
    cohort.add("case_b")
    cohort.run()
    before = cohort.written()
    array = np.full(GEOMETRY.shape_zyx, 40, np.int16)
    write_volume(cohort.cases[1].image, Volume(array, GEOMETRY))
    cohort.run()
    after = cohort.written()
    assert after["case_a"] == before["case_a"]
    assert after["case_b"] > before["case_b"]


def test_a_bad_scan_is_named_and_the_others_are_labelled(cohort):
    for name in ("case_a", "case_b", "case_c", "case_d"):
        cohort.add(name)
    bad, missing = cohort.cases[1].image, cohort.cases[2].image
    bad.write_bytes(bad.read_bytes()[:-300])
    missing.unlink()
    with pytest.raises(CasesFailedError, match="2 cases not labelled: case_b, case_c") as e:
        cohort.run()
    assert e.value.exit_code == 4
    assert set(cohort.written()) == {"case_a", "case_d"}
    report = cohort.report()
    assert [record["case"] for record in report["cases"]] == ["case_a", "case_d"]
    assert bad.name in report["failed"]["case_b"]
    assert missing.name in report["failed"]["case_c"]


def test_a_student_is_refused(cohort):
    cohort.add("case_a")
    card = ModelCard(
        role="student",
        network={"classes": 2},
        labels=("background", "tumor"),
        label_ids=(0, 1),
        spacing=(3.0, 1.0, 1.0),
        patch=(8, 16, 16),
        intensity=(-200.0, 300.0, 50.0, 100.0),
    )
    cohort.model = cohort.path / "student.safetensors"
    save_model(cohort.model, {"weight": torch.zeros(1)}, card)
    with pytest.raises(InputError, match="is a student, a teacher is needed"):
        cohort.run()
    assert not (cohort.path / "tumor").exists()


def test_a_human_label_is_never_replaced_by_a_pseudo_label(cohort):
    cohort.add("organs", {1, 2, 3, 4})
    before = cohort.cases[0].label.read_bytes()
    with pytest.raises(InputError, match=r"no run .*recorded 1 file .*organs\.nii\.gz"):
        cohort.run("labels")
    assert cohort.cases[0].label.read_bytes() == before
    assert not (cohort.path / "labels" / "done.jsonl").exists()


@pytest.mark.parametrize("place", ["b.nii.gz", "probability/b.nii.gz", "quality.csv"])
def test_a_persons_files_among_the_pseudo_labels_are_never_replaced(cohort, place):
    cohort.add("a")
    cohort.add("b")
    drawn = cohort.path / "tumor" / place
    drawn.parent.mkdir(parents=True)
    drawn.write_bytes(b"drawn by hand")
    with pytest.raises(InputError, match=re.escape(place)):
        cohort.run()
    assert drawn.read_bytes() == b"drawn by hand"
    assert not (cohort.path / "tumor" / "a.nii.gz").exists()


def masks(cohort, name, model):
    """What a teacher says of a scan as it is and flipped, by the functions that it is made of."""
    ready = load(model, "teacher", TeacherUNet, torch.device("cpu"))
    tensor = ready.network_input(read_volume(cohort.path / "images" / f"{name}_0000.nii.gz"))
    return [
        segment_slices(ready.network, seen, (16, 16), (24, 28), probe=Probe(), batch=5).labels > 0
        for seen in (tensor, tensor.flip(-1))
    ]


def test_the_probability_is_written_on_request_and_lies_about_the_threshold(cohort):
    cohort.add("plain")
    cohort.run()
    assert not (cohort.path / "tumor" / "probability").exists()
    cohort.run(probability=True)
    chances = read_labels(cohort.path / "tumor" / "probability" / "plain.nii.gz")
    assert chances.geometry.mismatch(GEOMETRY) is None
    labels = cohort.labels("plain")
    assert chances.array[labels == 14].min() >= 127
    assert chances.array[labels == 0].max() <= 128
    assert len(np.unique(chances.array)) > 50


def test_a_probability_of_another_teacher_does_not_stay(cohort, model, other):
    cohort.add("plain")
    cohort.run(probability=True)
    cohort.model = other
    cohort.run()
    written = cohort.path / "tumor" / "probability" / "plain.nii.gz"
    assert not written.exists()
    cohort.run(probability=True)
    chances, labels = read_labels(written).array, cohort.labels("plain")
    assert chances[labels == 14].min() >= 127
    assert chances[labels == 0].max() <= 128


def test_figures_are_those_of_the_label_its_probability_and_a_flipped_scan(cohort):
    cohort.add("plain")
    cohort.add("organs", {1})
    cohort.run(quality=True, probability=True)
    rows = {row["case"]: row for row in cohort.table("quality.csv")}
    assert list(rows) == ["plain", "organs"]
    for name, row in rows.items():
        mask, flipped = masks(cohort, name, cohort.model)
        flipped = flipped[:, :, ::-1]
        chances = read_labels(cohort.path / "tumor" / "probability" / f"{name}.nii.gz").array
        both = 2 * (mask & flipped).sum() / (mask.sum() + flipped.sum())
        assert float(row["agreement"]) == pytest.approx(both, abs=1e-4)
        assert 0.1 < both < 1
        assert float(row["confidence"]) == pytest.approx(chances[mask].mean() / 255, abs=1e-4)
        assert float(row["tumor_ml"]) == pytest.approx(mask.sum() * VOXEL_ML, abs=1e-4)
        count = ndimage.label(mask, np.ones((3, 3, 3)))[1]
        parts = [part for part in cohort.table("components.csv") if part["case"] == name]
        assert len(parts) == count == int(row["components"])
        assert sum(int(part["voxels"]) for part in parts) == mask.sum()
    assert rows["plain"]["off_organ"] == ""  # nothing is known of its organs
    assert rows["organs"]["off_organ"] == rows["organs"]["components"]  # its label is empty


def test_voxels_that_nobody_annotated_are_no_organ_to_the_figures(cohort):
    cohort.add("organs", {1})
    open_everywhere = np.full(GEOMETRY.shape_zyx, 255, np.uint8)
    write_labels(cohort.cases[0].label, LabelMap(open_everywhere, GEOMETRY))
    cohort.run(quality=True)
    (row,) = cohort.table("quality.csv")
    assert row["off_organ"] == row["components"] != "0"


def test_another_teacher_may_be_agreed_with(cohort, other):
    cohort.add("plain")
    cohort.run(quality=True, against=other)
    first, second = (masks(cohort, "plain", model)[0] for model in (cohort.model, other))
    both = 2 * (first & second).sum() / (first.sum() + second.sum())
    assert float(cohort.table("quality.csv")[0]["agreement"]) == pytest.approx(both, abs=1e-4)


def test_earlier_rounds_give_the_uncertainty(cohort):
    cohort.add("plain")
    cohort.add("new")
    model = cohort.model
    rounds = []
    for seed in (2, 3):
        cohort.model = teacher(cohort.path / f"round_{seed}.safetensors", seed=seed)
        cohort.run(out=f"round_{seed}")
        rounds.append(read_labels(cohort.path / f"round_{seed}" / "plain.nii.gz").array > 0)
    (cohort.path / "round_2" / "new.nii.gz").unlink()  # a case that was not there yet
    cohort.model = model
    cohort.run(quality=True, previous=(cohort.path / "round_2", cohort.path / "round_3"))
    plain, new = cohort.table("quality.csv")
    expected = round_uncertainty([*rounds, cohort.labels("plain") > 0])
    assert float(plain["uncertainty"]) == pytest.approx(expected, abs=1e-4)
    assert expected > 0
    assert new["uncertainty"] == ""


def test_figures_are_made_once_and_again_where_what_they_are_of_changes(cohort, other, capsys):
    cohort.add("plain")
    cohort.run()
    labelled = cohort.written()
    cohort.run(quality=True)
    again = cohort.written()
    assert again != labelled  # the probability had not been kept
    before = cohort.table("quality.csv")
    cohort.run(quality=True)
    cohort.run()
    assert cohort.written() == again
    assert cohort.table("quality.csv") == before
    cohort.model = other
    capsys.readouterr()
    cohort.run()  # the figures are of another pseudo-label now, and go
    assert not (cohort.path / "tumor" / "quality.csv").exists()
    told = " ".join(capsys.readouterr().err.split())
    assert "quality.csv: removed, labels are made anew that it is of · --quality writes it" in told
    cohort.run(quality=True)
    assert cohort.table("quality.csv") != before


def test_fusion_takes_the_figures_as_they_are(cohort):
    cohort.add("plain")
    cohort.run(probability=True)
    chances = read_labels(cohort.path / "tumor" / "probability" / "plain.nii.gz").array
    sure = float(np.percentile(chances, 97)) / 255  # so that many components are left
    cohort.model = teacher(cohort.path / "sure.safetensors", threshold=sure)
    cohort.run(quality=True)
    parts = cohort.table("components.csv")
    cut = sorted(float(part["confidence"]) for part in parts)[len(parts) // 2]
    rule = f"component confidence < {cut}"
    fuse_labels(
        cohort.path / "cohort.csv",
        cohort.path / "tumor",
        cohort.path / "fused",
        "paper",
        FusionExtras(drop=(rule,)),
    )
    kept = sum(int(part["voxels"]) for part in parts if float(part["confidence"]) >= cut)
    fused = read_labels(cohort.path / "fused" / "plain.nii.gz").array
    assert 0 < kept < (cohort.labels("plain") == 14).sum()
    assert (fused == 14).sum() == kept
    assert not ((fused == 14) & (cohort.labels("plain") != 14)).any()


@pytest.mark.parametrize("place", ["b.nii.gz", "probability/b.nii.gz"])
def test_a_pseudo_label_that_a_person_corrected_is_kept_and_never_replaced(cohort, other, place):
    cohort.add("a")
    cohort.add("b")
    cohort.run(probability=True)
    path = cohort.path / "tumor" / place
    write_labels(path, LabelMap(np.full(GEOMETRY.shape_zyx, 14, np.uint8), GEOMETRY))
    before, drawn = cohort.written(), path.read_bytes()
    cohort.run(probability=True)
    cohort.model = other
    with pytest.raises(InputError, match=rf"1 file would be replaced .*{re.escape(place)} · move"):
        cohort.run(probability=True)
    assert (cohort.written(), path.read_bytes()) == (before, drawn)
    path.unlink()
    cohort.run(probability=True)
    assert path.read_bytes() != drawn


def test_a_label_drawn_where_the_teacher_failed_is_not_replaced(cohort):
    cohort.add("a")
    whole = cohort.cases[0].image.read_bytes()
    cohort.cases[0].image.write_bytes(b"no scan")
    with pytest.raises(CasesFailedError, match="a"):
        cohort.run()
    drawn = LabelMap(np.full(GEOMETRY.shape_zyx, 14, np.uint8), GEOMETRY)
    write_labels(cohort.path / "tumor" / "a.nii.gz", drawn)
    cohort.cases[0].image.write_bytes(whole)
    with pytest.raises(InputError, match=r"a\.nii\.gz"):
        cohort.run()
    assert (cohort.labels("a") == 14).all()


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"against": "x"}, "--against"),
        ({"previous": ("x",)}, "--previous"),
        ({"organs": "x", "against": "x"}, "--against and --organs"),
    ],
)
def test_what_only_figures_take_is_refused_without_them(cohort, given, named):
    cohort.add("a")
    with pytest.raises(UsageError, match=rf"^{named} would do nothing.* · add --quality"):
        cohort.run(**given)
    assert not (cohort.path / "tumor").exists()
