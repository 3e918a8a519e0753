"""Which pseudo-labels are left out of fusion: rules in a few words, and what they hit.

A rule reads ``component confidence < 0.7``, ``unlabelled case agreement < 0.5``, ``group 3
component volume_ml < 1``, ``cases kits_* component confidence < 0.9`` or ``organs distance > 4``:
for which cases it is (all where left out), whether it drops components of the tumour or the whole
case, the latter by figures of its tumours or of its organs, and below or above which number.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

DISTANCES = ("spacing_distance", "extent_distance", "intensity_distance", "distance")
"""How far a case is from what a network was trained on."""

CASE_FIGURES = (
    "tumor_ml", "components", "largest_ml", "confidence", "entropy", "agreement", "off_organ",
    "uncertainty", *DISTANCES,
)  # fmt: skip
"""Figures of a whole pseudo-label, as ``quality.csv`` names them."""

COMPONENT_FIGURES = (
    "volume_ml", "confidence", "entropy", "agreement", "organ_share", "mean_hu",
    "intensity_distance",
)  # fmt: skip
"""Figures of one component, as ``components.csv`` names them."""

ORGAN_FIGURES = ("organs", "mean_hu", *DISTANCES)
"""Figures of an organ pseudo-label, as the ``quality.csv`` beside it names them."""

Subject = Literal["case", "component", "organs"]

_KNOWN: Mapping[str, Sequence[str]] = {
    "case": CASE_FIGURES,
    "component": COMPONENT_FIGURES,
    "organs": ORGAN_FIGURES,
}

_RULE = re.compile(
    r"(?:(?P<unlabelled>unlabelled)\s+|group\s+(?P<group>\d+)\s+)?(?:cases\s+(?P<cases>\S+)\s+)?"
    r"(?P<subject>case|component|organs)\s+(?P<figure>\w+)\s*(?P<sign>[<>])\s*(?P<limit>[-+.\deE]+)"
)
_FORM = (
    "a rule reads: [unlabelled | group N] [cases PATTERN] case|component|organs FIGURE <|> NUMBER"
)


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        text: As it was given, spaces made single.
        group: A group of Table 1, ``unlabelled``, or None for all cases.
        cases: Of case ids, as a shell matches names: those of a data set, as in groups.yaml.
        subject: What is dropped; ``organs`` drops the case too, by its organ pseudo-label.
        figure: Its figure.
        sign: ``<`` drops what is below the limit.
        limit: The number.
    """

    text: str
    group: int | Literal["unlabelled"] | None
    cases: str
    subject: Subject
    figure: str
    sign: Literal["<", ">"]
    limit: float

    def concerns(self, case: str, group: int | None, *, is_labelled: bool) -> bool:
        """Whether it is for a case of this id and group."""
        if not fnmatchcase(case, self.cases):
            return False
        if self.group == "unlabelled":
            return not is_labelled
        return self.group is None or self.group == group

    def hits(self, figures: Mapping[str, float | None]) -> bool:
        """Whether these figures are dropped by it; a figure that is not known never is."""
        value = figures.get(self.figure)
        if value is None:
            return False
        return value < self.limit if self.sign == "<" else value > self.limit


@dataclass(frozen=True)
class Dropped:
    """What was left out of fusion, and why.

    Attributes:
        case: Its id.
        component: Its number in ``components.csv``, None for the whole case.
        volume_ml: Of what was dropped.
        rule: The text of the rule.
        value: The figure that it hit, None where a person decided.
    """

    case: str
    component: int | None
    volume_ml: float | None
    rule: str
    value: float | None


def parse_rule(text: str) -> Rule:
    """Read a rule.

    Raises:
        ValueError: If it is none, or names a figure that there is not.

    >>> parse_rule("group 3 component confidence<0.7")
    Rule(text='group 3 component confidence<0.7', group=3, cases='*', subject='component',
         figure='confidence', sign='<', limit=0.7)
    """
    words = " ".join(text.split())
    match = _RULE.fullmatch(words)
    if match is None:
        raise ValueError(f"{text!r} is no rule; {_FORM}")
    subject: Subject = match["subject"]  # type: ignore[assignment]  # the pattern knows no other
    known = _KNOWN[subject]
    if match["figure"] not in known:
        near = difflib.get_close_matches(match["figure"], known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
        what = subject if subject == "organs" else f"a {subject}"
        raise ValueError(f"{text!r}: no figure {match['figure']!r} of {what}; {hint}")
    try:
        limit = float(match["limit"])
    except ValueError:
        raise ValueError(f"{text!r}: {match['limit']!r} is no number") from None
    group: int | Literal["unlabelled"] | None = "unlabelled" if match["unlabelled"] else None
    if match["group"]:
        group = int(match["group"])
    sign: Literal["<", ">"] = "<" if match["sign"] == "<" else ">"
    return Rule(words, group, match["cases"] or "*", subject, match["figure"], sign, limit)


def select(
    case: str,
    rules: Sequence[Rule],
    figures: Mapping[str, float | None],
    components: Mapping[int, Mapping[str, float | None]],
    organs: Mapping[str, float | None],
) -> list[Dropped]:
    """What rules drop of one case.

    Args:
        case: Its id.
        rules: Those that concern it.
        figures: Of the case's tumours.
        components: Number to figures.
        organs: Figures of its organ pseudo-label.

    Returns:
        The case alone where a rule drops it whole; else the components, each once, by number.
    """
    for rule in rules:
        if rule.subject == "case" and rule.hits(figures):
            return [Dropped(case, None, figures.get("tumor_ml"), rule.text, _value(rule, figures))]
        if rule.subject == "organs" and rule.hits(organs):
            return [Dropped(case, None, None, rule.text, _value(rule, organs))]
    found = []
    for number, known in sorted(components.items()):
        hit = next((r for r in rules if r.subject == "component" and r.hits(known)), None)
        if hit:
            found.append(
                Dropped(case, number, known.get("volume_ml"), hit.text, _value(hit, known))
            )
    return found


def _value(rule: Rule, figures: Mapping[str, float | None]) -> float:
    value = figures[rule.figure]
    assert value is not None  # it was hit
    return value
