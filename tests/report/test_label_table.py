"""The tables read back as the viewers' formats define them."""

from __future__ import annotations

import shlex

from flarekd.labels import LABELS
from flarekd.report.label_table import write_label_tables

NAMES = {label.id: label.name for label in LABELS}


def rows(path):
    lines = path.read_text(encoding="utf-8").splitlines()
    return [shlex.split(line) for line in lines if not line.startswith("#")]


def test_itk_snap_finds_every_id_with_its_colour_and_name(tmp_path):
    write_label_tables(tmp_path, NAMES)
    first = (tmp_path / "labels.txt").read_text(encoding="utf-8").splitlines()[0]
    assert first == "# ITK-SnAP Label Description File"
    table = rows(tmp_path / "labels.txt")
    assert {len(row) for row in table} == {8}
    assert [int(row[0]) for row in table] == list(range(15))
    for label, row in zip(LABELS, table[1:], strict=True):
        assert tuple(map(int, row[1:4])) == label.color
        assert row[4:] == ["1", "1", "1", label.name]
    assert table[0][4:] == ["0", "0", "0", "Clear Label"]


def test_slicer_finds_every_id_with_its_colour_and_name(tmp_path):
    write_label_tables(tmp_path, NAMES)
    table = rows(tmp_path / "labels.ctbl")
    assert table[0] == ["0", "background", "0", "0", "0", "0"]
    for label, row in zip(LABELS, table[1:], strict=True):
        assert row == [str(label.id), label.name, *map(str, label.color), "255"]


def test_names_of_other_models_do_not_break_the_columns(tmp_path):
    write_label_tables(tmp_path, {1: 'left "upper" lobe', 200: "rib"})
    assert rows(tmp_path / "labels.txt")[1][7] == "left 'upper' lobe"
    lobe, rib = (tmp_path / "labels.ctbl").read_text(encoding="utf-8").splitlines()[3:]
    assert lobe.split()[1] == 'left_"upper"_lobe'
    assert len(lobe.split()) == len(rib.split()) == 6
    assert lobe.split()[2:5] != rib.split()[2:5]
