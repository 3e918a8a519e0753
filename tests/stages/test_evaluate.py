"""`evaluate` from files to score files, pictures and failures, by case."""

from __future__ import annotations

import csv
import hashlib
import json

import numpy as np
import pytest

from flarekd.errors import CasesFailedError, InputError
from flarekd.imaging.files import write_labels, write_volume
from flarekd.imaging.volume import Geometry, LabelMap, Volume
from flarekd.labels import NAMES
from flarekd.metrics import score_case
from flarekd.stages.evaluate import Extras, evaluate

# anisotropic, oblique (16° about z, y against the canonical axis), away from the origin
COS, SIN = np.cos(0.28), np.sin(0.28)
GEOMETRY = Geometry(
    (14, 16, 20), (1.1, 0.7, 2.5), (-31.0, 45.5, 112.0), (COS, SIN, 0, SIN, -COS, 0, 0, 0, 1)
)


def moved(geometry: Geometry, origin) -> Geometry:
    return Geometry(geometry.size_xyz, geometry.spacing_xyz, origin, geometry.direction)


def labels(shift: int = 0) -> np.ndarray:
    array = np.zeros((20, 16, 14), np.uint8)
    array[4:12, 3:9, 2 + shift : 8 + shift] = 1
    array[5:10, 10:13, 3:6] = 5
    array[13:17, 4 + shift : 9 + shift, 4:9] = 14
    return array


@pytest.fixture
def folders(tmp_path):
    for case, shift in (("case_a", 0), ("case_b", 1), ("case_c", 2)):
        write_labels(tmp_path / "ref" / f"{case}.nii.gz", LabelMap(labels(), GEOMETRY))
        write_labels(tmp_path / "pred" / f"{case}.nii.gz", LabelMap(labels(shift), GEOMETRY))
        image = (labels().astype(np.int16) * 10 - 50).astype(np.int16)
        write_volume(tmp_path / "images" / f"{case}_0000.nii.gz", Volume(image, GEOMETRY))
    return tmp_path


def run(folder, protocol="flare23", jobs=1, **extras):
    return evaluate(
        folder / "pred",
        folder / "ref",
        folder / "out",
        protocol,
        jobs=jobs,
        extras=Extras(**extras),
    )


def scores_of(entry):
    return entry["dsc"], entry["nsd"]


def rows(folder, name="scores.csv"):
    with (folder / "out" / name).open(newline="") as file:
        return list(csv.DictReader(file))


def test_score_files_hold_every_case_and_class_and_their_means(folders, capsys):
    summary = run(folders, images=folders / "images")
    table = rows(folders)
    columns = ["case", "label", "name", "dsc", "nsd"]
    assert list(table[0]) == [*columns, "hd95_mm", "reference_ml", "prediction_ml", "volume_bias"]
    assert [row["case"] for row in table[::14]] == ["case_a", "case_b", "case_c"]
    assert [row["name"] for row in table[:14]] == list(NAMES[1:])
    assert [int(row["label"]) for row in table[14:28]] == list(range(1, 15))
    expected = score_case(labels(1), labels(), GEOMETRY.spacing_zyx, "flare23")
    for row, score in zip(table[14:28], expected, strict=True):
        assert (float(row["dsc"]), float(row["nsd"])) == (score.dsc, score.nsd)
        for column in ("hd95_mm", "reference_ml", "prediction_ml", "volume_bias"):
            value = getattr(score, column)
            assert float(row[column]) == pytest.approx(value, abs=5e-5, nan_ok=True)
    assert float(table[14]["dsc"]) == round(5 / 6, 4)

    assert json.loads((folders / "out" / "scores.json").read_text(encoding="utf-8")) == summary
    assert list(summary)[:5] == ["protocol", "classes", "organs", "tumor", "all"]
    assert (summary["protocol"], summary["cases"], summary["failed"]) == ("flare23", 3, [])
    liver, tumor = 0.8333, 0.8
    assert summary["classes"]["liver"]["dsc"] == liver
    assert summary["tumor"] == summary["classes"]["tumor"]
    assert summary["tumor"]["dsc"] == pytest.approx(tumor)
    assert summary["organs"]["dsc"] == round((12 + liver) / 13, 4)
    assert summary["all"]["dsc"] == round((12 + liver + tumor) / 14, 4)
    shown = capsys.readouterr().out
    assert "83.33" in shown  # the liver's mean in percent
    assert "3 cases, protocol flare23" in shown


def test_the_page_is_written_anew_and_announced(folders, capsys):
    page = folders / "out" / "report.html"
    run(folders)
    assert f"look at {page}" in capsys.readouterr().out
    text = page.read_text(encoding="utf-8")
    assert all(f"case_{letter}</a>" in text for letter in "abc")
    assert text.count("data:image/png") == 3
    (folders / "run").mkdir()
    (folders / "run" / "log.jsonl").write_text('{"iteration": 1, "loss": 0.5}\n', encoding="utf-8")
    report = '{"model": "m.safetensors", "model_sha256": "abc123", "windows": "body"}'
    (folders / "pred" / "report.json").write_text(report, encoding="utf-8")
    (folders / "pred" / "case_b.nii.gz").unlink()
    with pytest.raises(CasesFailedError):
        run(folders, training={"student": folders / "run", "teacher": folders / "none"})
    text = page.read_text(encoding="utf-8")
    assert "<dt>case_b</dt><dd>no prediction in " in text
    assert text.count("data:image/png") == 2
    assert "<h3>Student</h3>" in text
    assert "<h3>Teacher</h3>" not in text
    assert "<dt>model SHA-256</dt><dd>abc123</dd>" in text
    assert not list((folders / "out").glob(".tmp-*"))


def test_the_training_of_the_predictions_model_is_on_the_page(folders):
    student = folders / "student"
    student.mkdir()
    (student / "model.safetensors").write_bytes(b"weights")
    (student / "log.jsonl").write_text('{"iteration": 1, "loss": 0.5}\n', encoding="utf-8")
    report = {"model": str(student / "model.safetensors")}
    for digest, is_shown in ((hashlib.sha256(b"weights").hexdigest(), True), ("other", False)):
        report["model_sha256"] = digest
        (folders / "pred" / "report.json").write_text(json.dumps(report), encoding="utf-8")
        run(folders)
        text = (folders / "out" / "report.html").read_text(encoding="utf-8")
        assert ("<h3>Student</h3>" in text) is is_shown
        assert (f"<dt>training of the student</dt><dd>{student}</dd>" in text) is is_shown


@pytest.mark.parametrize("report", ["[]", '{"model": null}', '{"model": "%s"}' % ("x" * 5000)])
def test_a_report_that_names_no_model_costs_the_page_nothing(folders, report):
    (folders / "pred" / "report.json").write_text(report, encoding="utf-8")
    run(folders)
    assert "Training" not in (folders / "out" / "report.html").read_text(encoding="utf-8")


def test_a_page_is_written_where_no_case_can_be_scored(folders):
    for case in ("case_a", "case_b", "case_c"):
        (folders / "pred" / f"{case}.nii.gz").write_bytes(b"torn")
    with pytest.raises(CasesFailedError, match="3 of 3"):
        run(folders)
    text = (folders / "out" / "report.html").read_text(encoding="utf-8")
    assert "No case could be scored" in text
    assert "3 failed" in text


def test_every_case_has_a_picture_with_and_without_images(folders):
    run(folders)
    pictures = sorted(path.name for path in (folders / "out" / "overlays").iterdir())
    assert pictures == ["case_a.png", "case_b.png", "case_c.png"]
    black = (folders / "out" / "overlays" / "case_b.png").read_bytes()
    run(folders, images=folders / "images")
    grey = (folders / "out" / "overlays" / "case_b.png").read_bytes()
    assert black[:8] == grey[:8] == b"\x89PNG\r\n\x1a\n"
    assert black != grey


def test_the_number_of_jobs_changes_nothing(folders):
    one = run(folders)
    csv_one = (folders / "out" / "scores.csv").read_bytes()
    assert run(folders, jobs=2) == one
    assert (folders / "out" / "scores.csv").read_bytes() == csv_one


def test_the_corrected_protocol_sees_the_last_slice_of_the_aorta(folders):
    short = labels()
    short[9][short[9] == 5] = 0
    for case in ("case_a", "case_b", "case_c"):
        write_labels(folders / "pred" / f"{case}.nii.gz", LabelMap(short, GEOMETRY))
    assert run(folders)["classes"]["aorta"]["dsc"] == 1
    summary = run(folders, "corrected")
    assert summary["protocol"] == "corrected"
    assert summary["classes"]["aorta"]["dsc"] == pytest.approx(8 / 9)


def test_the_slice_that_the_official_scorer_drops_is_the_last_one_stored(folders):
    downward = Geometry((14, 16, 20), (1.1, 0.7, 2.5), (0, 0, 90), (1, 0, 0, 0, 1, 0, 0, 0, -1))
    for lacking, dsc in ((5, 1.0), (9, 0.8571)):  # the aorta's slice nearest the feet, the head
        short = labels()
        short[lacking][short[lacking] == 5] = 0
        for folder, array in (("ref", labels()), ("pred", short)):
            for case in ("case_a", "case_b", "case_c"):
                write_labels(folders / folder / f"{case}.nii.gz", LabelMap(array, downward))
        assert run(folders)["classes"]["aorta"]["dsc"] == dsc
        assert run(folders, "corrected")["classes"]["aorta"]["dsc"] == pytest.approx(8 / 9)


def test_a_missing_prediction_scores_zero_and_is_named_after_all_else_is_written(folders, capsys):
    (folders / "pred" / "case_b.nii.gz").unlink()
    with pytest.raises(CasesFailedError, match="1 of 3 cases failed: case_b") as caught:
        run(folders)
    assert caught.value.exit_code == 4
    summary = json.loads((folders / "out" / "scores.json").read_text(encoding="utf-8"))
    assert summary["failed"] == ["case_b"]
    assert "no prediction" in summary["errors"]["case_b"]
    assert summary["cases"] == 3
    assert summary["classes"]["spleen"]["dsc"] == 0.6667
    zeros = [row for row in rows(folders) if row["case"] == "case_b"]
    assert {(float(row["dsc"]), float(row["nsd"])) for row in zeros} == {(0.0, 0.0)}
    assert len(zeros) == 14
    assert (folders / "out" / "overlays" / "case_c.png").exists()
    assert "case_b: no prediction" in capsys.readouterr().err


def test_a_prediction_on_another_grid_is_named_and_left_out_of_the_means(folders):
    elsewhere = moved(GEOMETRY, (-31.0, 45.5, 114.5))
    write_labels(folders / "pred" / "case_b.nii.gz", LabelMap(labels(), elsewhere))
    smaller = Geometry((14, 16, 19), GEOMETRY.spacing_xyz, GEOMETRY.origin_xyz, GEOMETRY.direction)
    write_labels(folders / "pred" / "case_c.nii.gz", LabelMap(labels()[1:], smaller))
    with pytest.raises(CasesFailedError, match="2 of 3 cases failed: case_b, case_c"):
        run(folders)
    summary = json.loads((folders / "out" / "scores.json").read_text(encoding="utf-8"))
    assert summary["failed"] == ["case_b", "case_c"]
    expected = "another origin, the farthest corner lies 2.50 mm off (case_b.nii.gz)"
    assert expected in summary["errors"]["case_b"]
    assert "14×16×19 voxels against 14×16×20" in summary["errors"]["case_c"]
    assert summary["cases"] == 1
    assert {row["case"] for row in rows(folders)} == {"case_a"}


def test_a_torn_prediction_fails_alone(folders):
    path = folders / "pred" / "case_c.nii.gz"
    path.write_bytes(path.read_bytes()[:150])
    with pytest.raises(CasesFailedError, match="case_c"):
        run(folders)
    assert {row["case"] for row in rows(folders)} == {"case_a", "case_b"}


def test_an_undefined_score_is_null_in_json_and_nan_in_csv(folders):
    thin = np.zeros((20, 16, 14), np.uint8)
    thin[5, 3:9, 3:9] = 10
    for case in ("case_a", "case_b", "case_c"):
        write_labels(folders / "ref" / f"{case}.nii.gz", LabelMap(thin, GEOMETRY))
    summary = run(folders, "flare23")
    assert scores_of(summary["classes"]["esophagus"]) == (0.0, 0.0)  # nothing predicted
    assert summary["classes"]["esophagus"]["hd95_mm"] is None
    for case in ("case_a", "case_b", "case_c"):
        write_labels(folders / "pred" / f"{case}.nii.gz", LabelMap(thin, GEOMETRY))
    summary = run(folders, "flare23")
    assert scores_of(summary["classes"]["esophagus"]) == (None, None)
    assert scores_of(summary["all"]) == (1.0, 1.0)
    assert rows(folders)[9]["dsc"] == "nan"
    assert scores_of(run(folders, "corrected")["classes"]["esophagus"]) == (1.0, 1.0)


def test_an_image_that_does_not_fit_costs_the_background_not_the_score(folders, capsys):
    elsewhere = moved(GEOMETRY, (0.0, 0.0, 0.0))
    image = Volume(np.zeros((20, 16, 14), np.int16), elsewhere)
    write_volume(folders / "images" / "case_a_0000.nii.gz", image)
    (folders / "images" / "case_c_0000.nii.gz").unlink()
    summary = run(folders, images=folders / "images")
    assert summary["failed"] == []
    said = capsys.readouterr().err
    assert "case_a: labels are drawn on black" in said
    assert "no image for case_c" in said


def test_predictions_without_reference_are_said_and_passed_over(folders, capsys):
    (folders / "ref" / "case_a.nii.gz").unlink()
    assert run(folders)["cases"] == 2
    assert "1 prediction without a reference, not scored: case_a" in capsys.readouterr().err


def test_tumours_are_told_one_by_one_and_those_of_a_missing_prediction_are_missed(folders, capsys):
    (folders / "pred" / "case_b.nii.gz").unlink()
    made_up = labels(2)
    made_up[1, 14, 12] = 14
    write_labels(folders / "pred" / "case_c.nii.gz", LabelMap(made_up, GEOMETRY))
    with pytest.raises(CasesFailedError, match="case_b"):
        run(folders)
    outcomes = [(row["case"], row["map"], row["outcome"]) for row in rows(folders, "lesions.csv")]
    assert outcomes == [
        ("case_a", "reference", "found"),
        ("case_a", "prediction", "true positive"),
        ("case_b", "reference", "missed"),
        ("case_c", "reference", "found"),
        ("case_c", "prediction", "true positive"),
        ("case_c", "prediction", "false positive"),
    ]
    covered = [float(row["covered"]) for row in rows(folders, "lesions.csv")]
    assert covered == [1, 1, 0, 0.6, 0.6, 0]
    found = json.loads((folders / "out" / "scores.json").read_text(encoding="utf-8"))["lesions"]
    assert (found["lesions"], found["found"], found["false_positives"]) == (3, 2, 1)
    assert found["sensitivity"] == pytest.approx(2 / 3)
    # 4 x 5 x 5 voxels of 1.925 mm3 are a ball of 7.2 mm
    assert found["sizes"]["under 10 mm"]["lesions"] == 3
    shown = capsys.readouterr().out
    assert "all sizes" in shown
    assert "66.7" in shown


def test_intervals_lie_about_the_means_and_are_on_screen(folders, capsys):
    summary = run(folders)
    low, high = summary["intervals"]["classes"]["liver"]["dsc"]
    assert low == pytest.approx(0.6667, abs=1e-3)
    assert high == pytest.approx(1)
    assert summary["intervals"]["level"] == 0.95
    assert "66.7 to 100.0" in capsys.readouterr().out


def test_means_are_broken_down_by_group_and_phase(folders, capsys):
    table = folders / "cases.csv"
    table.write_text("case;phase;group\ncase_a;portal;4.0\ncase_c;arterial;4\n", encoding="utf-8")
    summary = run(folders, cohort=table)
    group, phase = summary["breakdowns"]["group"], summary["breakdowns"]["phase"]
    assert [(value, part["cases"]) for value, part in group.items()] == [("4", 2), ("unknown", 1)]
    assert list(phase) == ["arterial", "portal", "unknown"]
    assert phase["arterial"]["tumor"]["dsc"] == pytest.approx(0.6)
    assert group["4"]["classes"]["liver"]["dsc"] == pytest.approx((1 + 0.6667) / 2, abs=5.1e-5)
    shown = capsys.readouterr().out
    assert "By group" in shown
    assert "arterial" in shown


def test_a_table_without_groups_and_phases_is_refused_before_anything_is_scored(folders):
    table = folders / "cases.csv"
    table.write_text("case,scanner\ncase_a,one\n", encoding="utf-8")
    with pytest.raises(InputError, match="has no column 'group' or 'phase'"):
        run(folders, cohort=table)
    with pytest.raises(InputError, match=r"cannot read scores .*none"):
        run(folders, other=folders / "none")
    assert not (folders / "out").exists()


def test_a_comparison_is_the_same_from_label_maps_a_folder_of_scores_and_a_file(folders, capsys):
    for case, shift in (("case_a", 1), ("case_b", 2), ("case_c", 3)):
        write_labels(folders / "worse" / f"{case}.nii.gz", LabelMap(labels(shift), GEOMETRY))
    evaluate(folders / "worse", folders / "ref", folders / "theirs", "flare23")
    comparisons = []
    for other in ("worse", "theirs", "theirs/scores.csv"):
        comparison = run(folders, other=folders / other)["comparison"]
        assert comparison.pop("with") == str(folders / other)
        comparisons.append(comparison)
    assert comparisons[0] == comparisons[1] == comparisons[2]
    liver = comparisons[0]["classes"]["liver"]["dsc"]
    assert comparisons[0]["cases"] == liver["cases"] == 3
    assert liver["difference"] == pytest.approx(1 / 6, abs=1e-4)
    assert liver["effect"] == 1
    assert liver["p"] == 0.25  # no three pairs can say more
    assert comparisons[0]["classes"]["aorta"]["dsc"]["p"] == 1
    assert not (folders / "out" / "overlays" / "worse").exists()
    assert "+16.67" in capsys.readouterr().out


def test_scores_of_other_cases_are_nothing_to_compare_with(folders):
    for place in ("pred", "ref"):
        write_labels(folders / "others" / place / "case_x.nii.gz", LabelMap(labels(), GEOMETRY))
    run(folders / "others")
    with pytest.raises(InputError, match=r"no case of .*ref has scores in .*others"):
        run(folders, other=folders / "others" / "out")
    assert not (folders / "out").exists()


def test_pictures_of_cases_that_are_gone_go_and_a_persons_stay(folders):
    run(folders)
    (folders / "out" / "overlays" / "mine.png").touch()
    (folders / "ref" / "case_c.nii.gz").unlink()
    run(folders)
    pictures = {path.stem for path in (folders / "out" / "overlays").iterdir()}
    assert pictures == {"case_a", "case_b", "mine"}


def test_what_fails_in_the_label_maps_to_compare_with_is_told(folders, capsys):
    for case in ("case_a", "case_b"):
        write_labels(folders / "worse" / f"{case}.nii.gz", LabelMap(labels(1), GEOMETRY))
    (folders / "worse" / "case_b.nii.gz").write_bytes(b"\x1f\x8b")
    comparison = run(folders, other=folders / "worse")["comparison"]
    assert comparison["cases"] == 2  # case_c has no prediction there: it scores 0
    told = " ".join(capsys.readouterr().err.split())
    assert f"{folders / 'worse'}: case_b: " in told
    assert "case_c: no prediction" in told


def test_ids_that_are_no_class_are_told(folders, capsys):
    array = labels()
    array[0, 0, :3] = (77, 255, 15)
    write_labels(folders / "pred" / "case_a.nii.gz", LabelMap(array, GEOMETRY))
    run(folders)
    told = " ".join(capsys.readouterr().err.split())
    assert "case_a: ids [15, 77, 255] are no class, and count as background" in told
    assert "case_b: ids" not in told


def test_scores_of_another_protocol_are_not_compared(folders):
    evaluate(folders / "pred", folders / "ref", folders / "theirs", "corrected")
    with pytest.raises(InputError, match="scored by protocol 'corrected', not 'flare23'"):
        run(folders, other=folders / "theirs")


def test_folders_that_share_no_case_are_refused(folders):
    (folders / "empty").mkdir()
    with pytest.raises(InputError, match=r"no case of .* is in .*empty"):
        evaluate(folders / "empty", folders / "ref", folders / "out", "flare23")
    with pytest.raises(InputError, match="no label map to score against"):
        evaluate(folders / "pred", folders / "empty", folders / "out", "flare23")
    with pytest.raises(InputError, match="unknown protocol 'flare24'"):
        run(folders, "flare24")
    assert not (folders / "out").exists()
