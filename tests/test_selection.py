"""Rules that leave pseudo-labels out of fusion: how they read and what they hit."""

from __future__ import annotations

import re

import pytest

from flarekd.selection import Dropped, parse_rule, select


@pytest.mark.parametrize(
    ("text", "group", "is_labelled", "expected"),
    [
        ("case confidence < 0.5", None, False, True),
        ("case confidence < 0.5", 3, True, True),
        ("unlabelled case confidence < 0.5", None, False, True),
        ("unlabelled case confidence < 0.5", 3, True, False),
        ("group 3 case confidence < 0.5", 3, True, True),
        ("group 3 case confidence < 0.5", 2, True, False),
        ("  group  3   case confidence<0.5 ", None, True, False),
        ("cases kits_* component confidence < 0.5", None, False, True),
        ("cases lits_* component confidence < 0.5", None, False, False),
        ("cases Kits_* case confidence < 0.5", None, False, False),
        ("group 3 cases kits_? case confidence < 0.5", 3, True, True),
        ("group 3 cases kits_? case confidence < 0.5", 2, True, False),
        ("unlabelled cases kits_* organs distance > 4", None, False, True),
        ("unlabelled organs distance > 4", 3, True, False),
    ],
)
def test_a_rule_is_for_all_cases_or_for_one_set(text, group, is_labelled, expected):
    assert parse_rule(text).concerns("kits_7", group, is_labelled=is_labelled) is expected


@pytest.mark.parametrize(
    ("text", "value", "expected"),
    [
        ("case distance > 3", 3.5, True),
        ("case distance > 3", 3.0, False),
        ("case distance < -1e-1", -0.2, True),
        ("case distance < .5", 0.5, False),
        ("case distance < .5", None, False),
    ],
)
def test_a_rule_hits_what_is_beyond_its_number_and_known(text, value, expected):
    assert parse_rule(text).hits({"distance": value}) is expected


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("confidence < 0.5", "is no rule; a rule reads: "),
        ("case confidence 0.5", "is no rule"),
        ("group three case confidence < 0.5", "is no rule"),
        ("case confidenc < 0.5", "no figure 'confidenc' of a case; did you mean 'confidence'?"),
        ("case organ_share < 0.5", "no figure 'organ_share' of a case; there are tumor_ml, "),
        ("case confidence < 0.5.1", "'0.5.1' is no number"),
        (
            "organs confidence < 0.5",
            "no figure 'confidence' of organs; there are organs, ",
        ),
        ("case mean_hu < 0", "no figure 'mean_hu' of a case"),
    ],
)
def test_a_rule_that_is_none_says_what_is_wrong(text, told):
    with pytest.raises(ValueError, match=re.escape(told)):
        parse_rule(text)


RULES = [
    parse_rule("component confidence < 0.7"),
    parse_rule("component volume_ml < 1"),
    parse_rule("case agreement < 0.5"),
]
PARTS = {
    1: {"confidence": 0.9, "volume_ml": 8.0},
    2: {"confidence": 0.6, "volume_ml": 0.5},
    3: {"confidence": 0.8, "volume_ml": 0.4},
}


def test_components_are_dropped_each_once_with_the_first_rule_that_hit():
    assert select("case_a", RULES, {"agreement": 0.8, "tumor_ml": 8.9}, PARTS, {}) == [
        Dropped("case_a", 2, 0.5, "component confidence < 0.7", 0.6),
        Dropped("case_a", 3, 0.4, "component volume_ml < 1", 0.4),
    ]


def test_a_case_that_is_dropped_takes_its_components_along():
    assert select("case_a", RULES, {"agreement": 0.4, "tumor_ml": 8.9}, PARTS, {}) == [
        Dropped("case_a", None, 8.9, "case agreement < 0.5", 0.4)
    ]


def test_what_is_good_enough_stays():
    assert select("case_a", RULES, {"agreement": None}, {1: PARTS[1]}, {}) == []


def test_a_case_is_dropped_by_its_organs_and_by_theirs_alone():
    """Both pseudo-labels have a `distance`; a rule is about one of them."""
    rule, near, far = parse_rule("organs distance > 4"), {"distance": 3.0}, {"distance": 5.0}
    assert select("case_a", [rule], near, {}, far) == [
        Dropped("case_a", None, None, "organs distance > 4", 5.0)
    ]
    assert select("case_a", [rule], far, {}, near) == []
    assert select("case_a", [parse_rule("case distance > 4")], near, {}, far) == []
