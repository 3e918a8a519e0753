import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flarekd.case_ids import why_no_case_id
from flarekd.cohort import (
    COLUMNS,
    Case,
    format_cohort,
    read_cohort,
    read_traits,
)
from flarekd.errors import InputError


def written(folder, *cases):
    path = folder / "cohort.csv"
    path.write_text(format_cohort(cases, folder), encoding="utf-8")
    return path


def full_case(folder):
    return Case(
        case="FLARE23_0001",
        image=folder / "imagesTr" / "FLARE23_0001_0000.nii.gz",
        split="val",
        group=4,
        annotated=frozenset({1, 2, 3, 4, 13, 14}),
        label=folder / "labelsTr" / "FLARE23_0001.nii.gz",
        organ_pseudo=folder / "organPseudo" / "FLARE23_0001.nii.gz",
        size=(512, 512, 91),
        spacing=(0.8164, 0.8164, 2.5),
        note='he said "no", and left; ümlaut',
    )


def test_a_cohort_survives_writing_and_reading(tmp_path):
    cases = [full_case(tmp_path), Case("b", tmp_path / "b.nii.gz")]
    path = written(tmp_path, *cases)
    assert read_cohort(path) == cases
    line = path.read_text(encoding="utf-8").splitlines()
    assert line[0] == "case,split,group,annotated,image,label,organ_pseudo,size,spacing,note"
    assert line[1].startswith(
        "FLARE23_0001,val,4,1 2 3 4 13 14,imagesTr/FLARE23_0001_0000.nii.gz,labelsTr/"
    )
    assert line[2] == "b,train,,,b.nii.gz,,,,,"


def test_paths_outside_the_folder_are_absolute(tmp_path):
    elsewhere = tmp_path / "scans" / "a.nii.gz"
    folder = tmp_path / "work"
    folder.mkdir()
    path = written(folder, Case("a", elsewhere))
    assert str(elsewhere) in path.read_text(encoding="utf-8")
    assert read_cohort(path)[0].image == elsewhere


def test_a_spreadsheet_may_have_saved_it(tmp_path):
    path = tmp_path / "cohort.csv"
    path.write_bytes(
        b"\xef\xbb\xbfnote;Image ;case;annotated;group;label\r\n"
        b"hi;x.nii.gz;a;14.0;1.0;y.nii.gz\r\n"
        b";z.nii.gz; b ;1,2 3;;y.nii.gz\r\n"
        b";;;;;\r\n"
    )
    first, second = read_cohort(path)
    assert (first.case, first.annotated, first.group, first.note) == ("a", frozenset({14}), 1, "hi")
    assert (second.case, second.annotated, second.split) == ("b", frozenset({1, 2, 3}), "train")
    assert second.label == tmp_path / "y.nii.gz"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a,,,14,x,,,,,", "annotated ids but no label"),
        ("a,test,,,x,,,,,", "split 'test' is neither"),
        ("a,,,15,x,y,,,,", "annotated ids \\[15\\]"),
        ("a,,,1.5,x,y,,,,", "not a list of whole numbers"),
        ("a,,,liver,x,y,,,,", "not a list of numbers"),
        ("a,,1e999,,x,y,,,,", "group '1e999' is not a list of finite numbers"),
        ("a,,,,x,y,,,1 nan 1,", "spacing '1 nan 1' is not a list of finite numbers"),
        ("a,,,,,,,,,", "has no image"),
        ("../a,,,,x,,,,,", "cannot be a file name"),
        (".a,,,,x,,,,,", "cannot be a file name"),
        ("b,,,,x,,,,,\nb,,,,x,,,,,", "'b' stands there twice"),
    ],
)
def test_a_faulty_row_is_named_with_its_line(tmp_path, row, message):
    path = tmp_path / "cohort.csv"
    path.write_text(",".join(COLUMNS) + "\nok,,,,x,,,,,\n" + row + "\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"line [34]: .*" + message):
        read_cohort(path)


def test_a_file_that_is_no_cohort_is_refused(tmp_path):
    path = tmp_path / "cohort.csv"
    with pytest.raises(InputError, match="cannot read cohort"):
        read_cohort(path)
    path.write_text("a,b\n1,2\n", encoding="utf-8")
    with pytest.raises(InputError, match="no column 'case'"):
        read_cohort(path)
    path.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
    with pytest.raises(InputError, match="holds no case"):
        read_cohort(path)


names = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters='/\\"\u2028\u2029\x85'),
    min_size=1,
).filter(lambda text: text.strip() == text and why_no_case_id(text) is None)


@given(names, st.sets(st.integers(1, 14)), st.text(st.characters(categories=("L", "P", "Zs"))))
def test_any_case_survives(tmp_path_factory, name, annotated, note):
    folder = tmp_path_factory.mktemp("cohort")
    label = folder / "l.nii.gz" if annotated else None
    case = Case(
        name, folder / "i.nii.gz", annotated=frozenset(annotated), label=label, note=note.strip()
    )
    assert read_cohort(written(folder, case)) == [case]
    assert Path(folder / "cohort.csv").read_text(encoding="utf-8").count("\n") == 2


@pytest.mark.parametrize("other", ["Case_\u00e9", "cAse_e\u0301"])
def test_two_cases_that_are_one_name_on_many_disks_are_refused(tmp_path, other):
    cases = [Case(name, tmp_path / "i.nii.gz") for name in ("case_\u00e9", other, "b")]
    with pytest.raises(InputError, match=r"line 3: cases .* are one name on many disks"):
        read_cohort(written(tmp_path, *cases))


def test_no_cell_of_a_cohort_is_a_formula_and_all_are_read_as_they_were(tmp_path):
    folder = tmp_path / "=cmd|' /C calc'!A0"
    case = Case("a", folder / "i.nii.gz", note="+1 kidney", label=folder / "@l.nii.gz")
    path = written(tmp_path, case)
    assert read_cohort(path) == [case]
    row = next(csv.DictReader(path.read_text(encoding="utf-8").splitlines()[:2]))
    assert (row["image"], row["note"]) == ("'=cmd|' /C calc'!A0/i.nii.gz", "'+1 kidney")
    reader = csv.reader(path.read_text(encoding="utf-8").splitlines())
    assert not [cell for cells in reader for cell in cells if cell.startswith(tuple("=+-@"))]


def test_traits_are_read_from_a_cohort_and_from_any_table_with_a_column_case(tmp_path):
    path = written(tmp_path, full_case(tmp_path), Case("b", tmp_path / "b.nii.gz"))
    assert read_traits(path, ("group", "phase")) == {"group": {"FLARE23_0001": "4"}}
    table = tmp_path / "cases.csv"
    table.write_text("\ufeffPhase;CASE;Group\nportal;a;4.0\n;b;2\n;;\n", encoding="utf-8")
    expected = {"group": {"a": "4", "b": "2"}, "phase": {"a": "portal"}}
    assert read_traits(table, ("group", "phase")) == expected


def test_a_trait_of_a_table_without_rows_is_there_and_empty(tmp_path):
    table = tmp_path / "cases.csv"
    table.write_text("case,group\n", encoding="utf-8")
    assert read_traits(table, ("group", "phase")) == {"group": {}}


def test_a_table_without_the_columns_or_without_case_is_refused(tmp_path):
    table = tmp_path / "cases.csv"
    table.write_text("case,scanner\na,one\n", encoding="utf-8")
    with pytest.raises(InputError, match="no column 'group' or 'phase'"):
        read_traits(table, ("group", "phase"))
    table.write_text("name,group\na,4\n", encoding="utf-8")
    with pytest.raises(InputError, match="no column 'case'"):
        read_traits(table, ("group",))


def test_the_organs_that_a_person_annotated_are_told_from_tumours(tmp_path):
    assert Case("a", tmp_path / "a", annotated=frozenset({1, 5, 14})).known_organs == {1, 5}
    assert Case("a", tmp_path / "a").known_organs == frozenset()


@pytest.mark.parametrize("own", ["image", "label", "organ_pseudo"])
def test_a_case_refuses_to_have_its_own_files_replaced(tmp_path, own):
    files = {"image": tmp_path / "i", "label": tmp_path / "l", "organ_pseudo": tmp_path / "o"}
    case = Case("a", **files)
    case.refuse_own([tmp_path / "other"])
    there = tmp_path / "x" / ".." / files[own].name
    (tmp_path / "x").mkdir()
    with pytest.raises(InputError, match=r"would replace .* · choose another --out"):
        case.refuse_own([tmp_path / "other", there])


@pytest.mark.parametrize("name", ["../up", "a/b", "/abs", "LPT9"])
def test_a_cohort_cannot_name_a_case_that_leaves_the_folder(tmp_path, name):
    path = tmp_path / "cohort.csv"
    path.write_text(f"case,image\n{name},a.nii.gz\n", encoding="utf-8")
    with pytest.raises(InputError, match="cannot be a file name"):
        read_cohort(path)


@pytest.mark.parametrize("count", [40, 5000])
def test_a_stray_quotation_mark_swallows_no_case(tmp_path, count):
    rows = [f"case_{number},{number}.nii.gz" for number in range(count)]
    rows[3] = 'case_3,"3.nii.gz'
    path = tmp_path / "cohort.csv"
    path.write_text("\n".join(["case,image", *rows]), encoding="utf-8")
    with pytest.raises(InputError, match="is there a quotation mark"):
        read_cohort(path)
    rows[9] = 'case_9,9.nii.gz"'  # another one ends it
    path.write_text("\n".join(["case,image", *rows]), encoding="utf-8")
    with pytest.raises(InputError, match="is there a quotation mark"):
        read_cohort(path)


def test_blank_lines_are_passed_over(tmp_path):
    path = tmp_path / "cohort.csv"
    path.write_text("case,image\n\na,a.nii.gz\r\n\n\nb,b.nii.gz\n\n", encoding="utf-8")
    assert [case.case for case in read_cohort(path)] == ["a", "b"]


def test_a_table_in_the_letters_of_one_country_is_told_how_to_save(tmp_path):
    path = tmp_path / "cohort.csv"
    path.write_bytes("case;image\nMüller;a.nii.gz\n".encode("cp1252"))
    with pytest.raises(InputError, match=r"is not UTF-8: byte 12 .* 'CSV UTF-8'"):
        read_cohort(path)
