"""YAML files may come from strangers."""

import pytest

from flarekd.plain_yaml import DEEPEST, MOST_BYTES, parse, read


def bomb(levels):
    """Each level is ten of the one before: ten to the power of `levels` words."""
    first = "a0: &a0 [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"
    more = (f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, levels))
    return "\n".join([first, *more])


def test_values_come_as_yaml_says():
    text = "a: 1\nb: [1.5, true, null, x]\nc: &c {d: 2020-01-02}\ne: {<<: *c, f: 3}"
    assert parse(text)["b"] == [1.5, True, None, "x"]
    assert parse(text)["e"]["d"].year == 2020
    assert parse("") is None


def test_anchors_that_grow_beyond_memory_are_refused():
    assert len(parse(bomb(3))["a2"]) == 10
    with pytest.raises(ValueError, match=r"values .* once anchors are used"):
        parse(bomb(12))


def test_merges_that_grow_beyond_memory_are_refused():
    lines = ["a0: &a0 {k: v}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, 12)]
    with pytest.raises(ValueError, match="once anchors are used"):
        parse("\n".join(lines))


@pytest.mark.parametrize("text", ["&a [*a]", "a: &a {b: {c: *a}}", "&a {*a : 1}"])
def test_a_value_within_itself_is_refused(text):
    with pytest.raises(ValueError, match="levels once anchors are used"):
        parse(text)


def test_nesting_has_a_limit_also_by_anchors():
    assert parse("[" * DEEPEST + "]" * DEEPEST)
    with pytest.raises(ValueError, match=f"more than {DEEPEST} deep"):
        parse("[" * 5000)
    chain = "\n".join(["a0: &a0 [1]", *(f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 60))])
    with pytest.raises(ValueError, match="levels once anchors are used"):
        parse(chain)


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['true']",
        "!!python/name:os.system ''",
        "!!timestamp abc",
        "!!int x",
        "a: !own 1",
        "{!!str a: 1}",
    ],
)
def test_tags_are_refused(text):
    with pytest.raises(ValueError, match=r"the tag .* is not allowed: only plain values"):
        parse(text)


@pytest.mark.parametrize("text", ["2020-99-99", "0b_", "9" * 5000, "a: *b", "\x00", "{[1]: 2}"])
def test_what_cannot_be_a_value_is_a_value_error(text):
    with pytest.raises(ValueError, match=r"\w"):
        parse(text)


@pytest.mark.parametrize("number", ["1" + ":1" * 200_000, "1" + ":1" * 200_000 + ".5"])
def test_numbers_that_take_the_square_of_their_length_are_refused(number):
    assert parse("a: 1:30") == {"a": 90}
    with pytest.raises(ValueError, match="number of more than 300 letters"):
        parse(f"a: {number}")


def test_more_values_than_any_configuration_has_are_not_even_read():
    with pytest.raises(ValueError, match=r"more than 100,000 values$"):
        parse("[" + "1," * 100_001)  # is not closed, which would be told first at the end


def test_a_file_has_a_limit(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_bytes(b"#" * MOST_BYTES)
    assert read(path) is None
    path.write_bytes(b"#" * (MOST_BYTES + 1))
    with pytest.raises(ValueError, match="longer than 1,048,576 bytes"):
        read(path)
    path.write_bytes(b"\xff")
    with pytest.raises(ValueError, match="utf-8"):
        read(path)


@pytest.mark.parametrize("text", ["{1: kidney, 1: tumor}", "a: 1\nb:\n  c: 2\n  c: 3\n"])
def test_a_key_that_stands_twice_is_refused(text):
    with pytest.raises(ValueError, match="stands twice"):
        parse(text)


def test_the_same_key_in_two_places_is_not_twice():
    assert parse("a: {x: 1}\nb: {x: 2}\n") == {"a": {"x": 1}, "b": {"x": 2}}
