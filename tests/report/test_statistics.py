"""JSON of a case and tables of a run, read back."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest

from flarekd.errors import InputError
from flarekd.report.statistics import write_statistics, write_tables
from flarekd.volumetry import Statistics, measure

NAMES = {1: "liver", 3: "spleen", 14: "tumor"}
SPACING = (5.0, 0.5, 0.4)


@pytest.fixture
def statistics() -> Statistics:
    labels = np.zeros((8, 9, 10), np.uint8)
    labels[0:4, 2:7, 2:8] = 1
    labels[2, 4, 4:6] = 14
    labels[6, 6, 6] = 14
    hu = np.full(labels.shape, -12, np.int16)
    affine = np.array([[0, 0, 0.4, -100.126], [0, 0.5, 0, 50], [5.0, 0, 0, 7]])
    return measure(labels, hu, SPACING, NAMES, affine=affine)


def table(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_json_says_what_was_measured(tmp_path, statistics):
    write_statistics(tmp_path, "a", statistics)
    content = json.loads((tmp_path / "a.statistics.json").read_text(encoding="utf-8"))
    assert content["case"] == "a"
    assert content["classes"][0] == {
        "label": 1,
        "name": "liver",
        "voxels": 118,
        "volume_ml": 0.118,
        "mean_hu": -12.0,
        "sd_hu": 0.0,
        "cut_off": ["feet"],
    }
    assert content["classes"][1]["mean_hu"] is None
    first = content["tumours"][0]
    assert first["diameter_mm"] == 0.4
    assert (first["x_mm"], first["y_mm"], first["z_mm"]) == (-98.33, 52.0, 17.0)
    assert first["centroid_voxel_zyx"] == [2.0, 4.0, 4.5]
    assert (first["organ"], first["organ_share"], first["contact"]) == ("liver", 1.0, {"liver": 1})
    assert content["tumours"][1]["organ"] == "none"
    assert content["tumours"][1]["organ_share"] == 0


def test_the_tables_have_a_row_a_class_and_a_row_a_tumor(tmp_path, statistics):
    for case in ("b", "a"):
        write_statistics(tmp_path, case, statistics)
    assert write_tables(tmp_path, ["b", "a"]) == []
    classes = table(tmp_path / "statistics.csv")
    assert [(row["case"], row["label"]) for row in classes] == [
        (case, label) for case in "ba" for label in ("1", "3", "14")
    ]
    assert (classes[0]["volume_ml"], classes[0]["mean_hu"], classes[0]["cut_off"]) == (
        "0.118",
        "-12.0",
        "feet",
    )
    assert (classes[1]["voxels"], classes[1]["mean_hu"], classes[1]["cut_off"]) == ("0", "", "")
    tumors = table(tmp_path / "tumours.csv")
    assert [(row["case"], row["number"], row["organ"]) for row in tumors] == [
        (case, *row) for case in "ba" for row in (("1", "liver"), ("2", "none"))
    ]
    assert tumors[0]["x_mm"] == "-98.33"


def test_a_run_without_tumors_has_a_table_with_its_head_only(tmp_path):
    write_statistics(tmp_path, "a", Statistics((), ()))
    write_tables(tmp_path, ["a"])
    assert (tmp_path / "tumours.csv").read_text(encoding="utf-8").count("\n") == 1


def test_a_rerun_replaces_the_tables_and_tells_cases_without_statistics(tmp_path, statistics):
    write_statistics(tmp_path, "a", statistics)
    write_tables(tmp_path, ["a"])
    write_statistics(tmp_path, "b", statistics)
    assert write_tables(tmp_path, ["a", "b", "c"]) == ["c"]
    assert [row["case"] for row in table(tmp_path / "statistics.csv")] == ["a"] * 3 + ["b"] * 3
    write_tables(tmp_path, ["b"])
    assert {row["case"] for row in table(tmp_path / "statistics.csv")} == {"b"}


@pytest.mark.parametrize(
    ("case", "cell"),
    [
        ('=HYPERLINK("x","y")', '\'=HYPERLINK("x","y")'),
        ("+1", "'+1"),
        ("-2+3", "'-2+3"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        (" =1", "' =1"),
        ("a,b; c", "a,b; c"),
        ("a=1", "a=1"),
        ("Müller \n x", "Müller \n x"),
    ],
)
def test_a_case_name_is_no_formula_to_a_spreadsheet(tmp_path, statistics, case, cell):
    write_statistics(tmp_path, case, statistics)
    write_tables(tmp_path, [case])
    assert {row["case"] for row in table(tmp_path / "statistics.csv")} == {cell}
    content = json.loads((tmp_path / f"{case}.statistics.json").read_text(encoding="utf-8"))
    assert content["case"] == case


CELL = '{"label":1,"name":"a","voxels":1,"volume_ml":1,"mean_hu":1,"sd_hu":1,"cut_off":%s}'


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", '{"classes": [1]}', '{"classes": [], "x": 1}', "[" * 100_000),
        '{"classes": [{"label": 1}], "tumours": []}',
        '{"classes": [%s], "tumours": []}' % (CELL % "[1]"),
        '{"classes": [%s], "tumours": []}' % (CELL % "{}"),
    ],
)
def test_a_file_that_is_none_of_ours_is_refused_by_name(tmp_path, text):
    (tmp_path / "a.statistics.json").write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=r"a\.statistics\.json: is no file of statistics"):
        write_tables(tmp_path, ["a"])
    assert not (tmp_path / "statistics.csv").exists()
