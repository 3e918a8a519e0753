"""What a case may be called."""

import re

import pytest

from flarekd.case_ids import why_no_case_id


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "is empty"),
        ("..", "begins with a dot"),
        (".hidden", "begins with a dot"),
        ("../up", "begins with a dot"),
        ("a/../../up", "holds '/'"),
        ("/etc/passwd", "holds '/'"),
        ("a\\b", r"holds '\\\\'"),
        ("a\0b", r"holds '\\x00'"),
        ("a\nb", r"holds '\\n'"),
        ("a\x1b[2J", r"holds '\\x1b'"),
        ("=1+1", "begins with '=', as a formula or an option does"),
        ("+cmd", r"begins with '\+', as a formula or an option does"),
        ("-2+3", "begins with '-', as a formula or an option does"),
        ("@x", "begins with '@', as a formula or an option does"),
        ("CON", "is the name of a device on Windows"),
        ("nul.1", "is the name of a device on Windows"),
        ("Com1", "is the name of a device on Windows"),
        ("x" * 201, "is longer than 200 bytes"),
        ("é" * 101, "is longer than 200 bytes"),
        ("\ud800", "is not UTF-8"),
    ],
)
def test_a_name_that_could_leave_its_folder_or_be_no_file_is_no_case_id(name, why):
    assert re.fullmatch(why, why_no_case_id(name))


@pytest.mark.parametrize(
    "name", ["a", "FLARE23_0001", "a..b", "console", "com10", "x" * 200, "ä b", "a-1+2=3@4"]
)
def test_names_that_only_look_like_it_are_case_ids(name):
    assert why_no_case_id(name) is None
