"""Results on stdout, words for people on stderr, nothing cut and nothing taken for markup."""

from __future__ import annotations

import pytest

from flarekd import console


def test_results_go_to_stdout_and_everything_else_to_stderr(capsys):
    console.result("0.1.0")
    console.heading("Fusing labels")
    console.info("fusing 3 of 4 cases")
    console.warn("case_a: group 2")
    console.error("no scan in 'x'")
    told = capsys.readouterr()
    assert told.out == "0.1.0\n"
    assert told.err.splitlines() == [
        "Fusing labels",
        "fusing 3 of 4 cases",
        "note: case_a: group 2",
        "error: no scan in 'x'",
    ]


@pytest.mark.parametrize("say", [console.result, console.info, console.warn, console.error])
def test_brackets_in_a_message_are_text_not_markup(capsys, say):
    say("ids [15] of [red]case[/red] are not among 1..14")
    told = capsys.readouterr()
    assert "ids [15] of [red]case[/red] are not among 1..14" in told.out + told.err


def test_a_long_message_stays_one_line(capsys):
    path = "/a/rather/long/folder" * 20
    console.error(f"{path}: no such file")
    assert capsys.readouterr().err == f"error: {path}: no such file\n"


def test_a_table_as_wide_as_table_1_is_not_cut(capsys):
    columns = ["annotated", "cases", *(f"Col{index}" for index in range(14))]
    console.table("Cohort (Table 1)", columns, [["no exact group", "12", *["✓"] * 14]])
    shown = capsys.readouterr().out
    assert "Cohort (Table 1)" in shown
    assert "…" not in shown
    assert all(column in shown for column in columns)
    row = next(line for line in shown.splitlines() if "no exact group" in line)
    assert row.count("✓") == 14


def test_brackets_in_a_table_are_text_not_markup(capsys):
    console.table("Cohort [red]", ["case [id]", "n"], [["case [a]", "1"]])
    shown = capsys.readouterr().out
    assert all(text in shown for text in ("Cohort [red]", "case [id]", "case [a]"))


def test_plain_progress_tells_the_beginning_and_the_end_without_flooding(capsys):
    with console.progress("Fusing [a]") as advance:
        for done in range(1000):
            advance(done, 1000, f"case_{done}")
        advance(1000, 1000, "case_999")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Fusing [a] 0/1000")
    assert lines[0].endswith("case_0")
    assert lines[-1].startswith("Fusing [a] 1000/1000")
    assert len(lines) <= 3


def test_progress_lets_an_error_through():
    with pytest.raises(ValueError, match="broken"), console.progress("Fusing"):
        raise ValueError("broken")
