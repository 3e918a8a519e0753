import json

import pytest

from flarekd import plain_json


@pytest.mark.parametrize(
    "value", [None, 3, -(10**18), 1.5, "é", [], {}, {"a": [1, {"b": [[]]}]}, [[1]] * 1000]
)
def test_values_are_read_as_they_are(tmp_path, value):
    path = tmp_path / "a.json"
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
    assert plain_json.read(path) == value


def nested(depth):
    return "[" * depth + "]" * depth


def test_values_are_nested_as_deep_as_the_limit_and_no_deeper():
    assert plain_json.parse(nested(plain_json.DEEPEST))
    for depth in (plain_json.DEEPEST + 2, 900, 100_000):
        with pytest.raises(ValueError, match="nested more than 40 deep"):
            plain_json.parse(nested(depth))
        with pytest.raises(ValueError, match="nested more than 40 deep"):
            plain_json.parse('{"a":' * depth + "1" + "}" * depth)


def test_a_number_of_any_length_is_refused():
    assert float(plain_json.parse("9" * 300)) > 1e299
    for digits in (301, 5000):
        with pytest.raises(ValueError, match=f"the number 9999999999… has {digits} digits"):
            plain_json.parse("[" + "9" * digits + "]")


def test_a_file_longer_than_allowed_is_refused_unread(tmp_path):
    path = tmp_path / "a.json"
    path.write_bytes(b"[" * 1000)
    with pytest.raises(ValueError, match="longer than 100 bytes"):
        plain_json.read(path, 100)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe[", b"[1,]", b"nul", b"\x00"])
def test_what_is_no_json_is_refused(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"."):
        plain_json.read(path)
