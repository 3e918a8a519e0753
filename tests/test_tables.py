"""Tables hold no formula that came with somebody's files, and are read as they were written."""

import csv

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flarekd.tables import FORMULA, format_rows, format_table, plain, shown


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ('=HYPERLINK("x","y")', '\'=HYPERLINK("x","y")'),
        ("+1", "'+1"),
        ("-2+3", "'-2+3"),
        ("--1", "'--1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("＝1+1", "'＝1+1"),
        ("\t=1", "'\t=1"),
        (" =1", "' =1"),
        ("'=1", "''=1"),
        ("a,b; c", "a,b; c"),
        ("a=1", "a=1"),
        ("'tis", "'tis"),
        ("-12.3", "-12.3"),
        ("-1.5e-07", "-1.5e-07"),
        (-12.3, -12.3),
        (None, None),
    ],
)
def test_text_that_would_be_a_formula_is_marked_and_numbers_are_not(value, cell):
    assert shown(value) == cell


texts = st.text(st.sampled_from([*FORMULA, "'", " ", "1", ".", ",", '"', "e", "a"]))


@given(texts)
def test_any_text_is_read_as_it_was_written(text):
    assert plain(shown(text)) == text
    assert not shown(text).startswith(("=", "+", "@"))


def test_rows_are_written_below_their_columns():
    table = format_table(("case", "note"), [{"case": "a", "note": "=1"}, {"case": "b"}])
    assert table == "case,note\na,'=1\nb,\n"
    assert list(csv.reader(format_rows(("x",), [["a,b"]]).splitlines())) == [["x"], ["a,b"]]
